//! Why a store did not do as it was asked.

use std::{error::Error, fmt, sync::Arc};

/// Why a [`Store`](super::Store) did not do as it was asked.
#[derive(Clone)]
pub struct StoreError {
    is_unavailable: bool,
    source: Arc<dyn Error + Send + Sync>,
}

impl StoreError {
    /// It takes nothing from anybody: it cannot be reached, cannot be written, or did not answer in time.
    pub fn unavailable(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            is_unavailable: true,
            source: source.into().into(),
        }
    }

    /// It is the buckets of this call that cannot be taken from: what lies there is not what it has written.
    pub fn bucket(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            is_unavailable: false,
            source: source.into().into(),
        }
    }

    /// Whether it takes nothing from anybody.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        self.is_unavailable
    }
}

impl fmt::Debug for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreError")
            .field("is_unavailable", &self.is_unavailable)
            .field("source", &self.source)
            .finish()
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.is_unavailable {
            true => "the store is not available",
            false => "a bucket of the store cannot be taken from",
        })
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.source)
    }
}
