//! Errors of stores.

use std::{error::Error, fmt, sync::Arc};

use crate::error::Chain;

/// An error of a call to a [`Store`](super::Store).
///
/// Its source is the cause. The feature `tracing` logs both, so the cause should name the server and the failure of the
/// connection, and nothing of a client.
#[derive(Clone)]
pub struct StoreError {
    is_unavailable: bool,
    source: Arc<dyn Error + Send + Sync>,
}

impl StoreError {
    /// Reports that the store can charge no bucket: it cannot be reached, cannot be written, or did not answer in time.
    /// Requests are decided without it until it answers again.
    pub fn unavailable(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            is_unavailable: true,
            source: source.into().into(),
        }
    }

    /// Reports that the buckets of this call cannot be charged, for example because the store did not write their
    /// entries. Only this request is decided without the store.
    pub fn bucket(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            is_unavailable: false,
            source: source.into().into(),
        }
    }

    /// Returns whether the store can charge no bucket.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        self.is_unavailable
    }
}

impl fmt::Debug for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Chain(self))
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.is_unavailable {
            true => "the store is not available",
            false => "the store cannot charge a bucket",
        })
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.source)
    }
}
