//! A device that a model of some size runs on: it writes so many tokens a second and no more.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// A device that all answers share: the more are written, the slower each of them is, as on a graphics card
/// that is busy.
#[derive(Debug)]
pub(crate) struct Device {
    /// The time that a token takes.
    token: Duration,
    /// The number of answers that are being written.
    running: AtomicU32,
}

impl Device {
    /// At least one token a second.
    pub(crate) fn new(tokens_per_second: u32) -> Self {
        Self {
            token: Duration::from_secs(1) / tokens_per_second.max(1),
            running: AtomicU32::new(0),
        }
    }

    /// Begins an answer.
    pub(crate) fn start(&self) -> Running<'_> {
        self.running.fetch_add(1, Ordering::Relaxed);
        Running {
            device: self,
            due: now(),
        }
    }
}

/// An answer that is being written.
#[derive(Debug)]
pub(crate) struct Running<'a> {
    device: &'a Device,
    /// The moment at which the answer's last token was due.
    due: Instant,
}

impl Running<'_> {
    /// Waits for the next token. Who woke up too late has a shorter wait next time.
    pub(crate) fn token(&mut self) {
        let Device { token, running } = self.device;
        let now = now();
        self.due = (self.due + *token * running.load(Ordering::Relaxed)).max(now);
        thread::sleep(self.due - now);
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.device.running.fetch_sub(1, Ordering::Relaxed);
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a device keeps real time, whatever clock the server's tests set"
)]
fn now() -> Instant {
    Instant::now()
}
