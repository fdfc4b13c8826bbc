//! A log that tests read.

#![allow(dead_code, reason = "each test file uses its part")]

use std::{
    io, mem,
    sync::{Arc, Mutex},
};

use tracing::{Metadata, subscriber::DefaultGuard};
use tracing_subscriber::{filter::filter_fn, layer::SubscriberExt};

/// A filter of what is told.
pub(crate) trait Filter: Fn(&Metadata<'_>) -> bool + Send + Sync + 'static {}

impl<F: Fn(&Metadata<'_>) -> bool + Send + Sync + 'static> Filter for F {}

/// The bytes that were logged.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Hears what this thread tells.
    pub(crate) fn listen(&self) -> DefaultGuard {
        self.listen_to(|_| true)
    }

    /// Hears what this thread tells, of what the filter takes.
    pub(crate) fn listen_to(&self, filter: impl Filter) -> DefaultGuard {
        let writer = self.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .without_time();
        tracing::subscriber::set_default(subscriber.finish().with(filter_fn(filter)))
    }

    /// The lines since this was asked last.
    pub(crate) fn lines(&self) -> Vec<String> {
        let bytes = mem::take(&mut *self.0.lock().expect("no panic"));
        let text = String::from_utf8(bytes).expect("text");
        text.lines().map(|line| line.trim().to_owned()).collect()
    }
}
