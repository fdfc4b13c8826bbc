//! Choices that bytes determine, which drive the models of any lives.

#![allow(dead_code, reason = "each model uses its part")]

use tokio::{runtime, time::Instant};

/// Runs a model through the choices that an input tells, in time that stands until somebody sleeps.
pub(crate) fn live(input: &[u8], life: impl AsyncFnOnce(&mut Choices<'_>)) {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(life(&mut Choices(input)));
}

/// Reads the time that stands.
#[expect(clippy::disallowed_methods, reason = "paused time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The bytes of an input, and zeros after them.
pub(crate) struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn next(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::from(self.next()) % end
    }

    /// One of several.
    pub(crate) fn of_these<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    /// True once in `times`.
    pub(crate) fn rarely(&mut self, times: usize) -> bool {
        self.below(times) == times - 1
    }

    /// The next bytes, as many as there are.
    pub(crate) fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        bytes
    }

    /// Eight bytes as a number.
    pub(crate) fn number(&mut self) -> u64 {
        u64::from_be_bytes([(); 8].map(|()| self.next()))
    }
}
