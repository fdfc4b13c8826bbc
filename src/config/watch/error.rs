use std::{error::Error, io, path::PathBuf};

use crate::rules::RulesError;

/// Why a file was not followed. The rules that hold go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WatchError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    #[non_exhaustive]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The name does not say how the file is read.
    #[error(
        "{}: no name that ends with `.toml`, `.yaml`, `.yml` or `.json`; say with `reading` how it is read",
        path.display()
    )]
    #[non_exhaustive]
    Format {
        /// The file.
        path: PathBuf,
    },
    /// What stands in the file cannot be read as rules.
    #[error("{}: {source}", path.display())]
    #[non_exhaustive]
    Document {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The rules do not hold together.
    #[error("{}: {source}", path.display())]
    #[non_exhaustive]
    Rules {
        /// The file.
        path: PathBuf,
        /// Why.
        source: RulesError,
    },
    /// The system does not tell when the file changes.
    #[error("{}: {source}", path.display())]
    #[non_exhaustive]
    System {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The file has more bytes than are read.
    #[error("{}: more than {max_bytes} bytes", path.display())]
    #[non_exhaustive]
    Length {
        /// The file.
        path: PathBuf,
        /// How many are read.
        max_bytes: usize,
    },
    /// What reads the file, or takes its rules, panicked.
    #[error("{}: what reads it panicked: {message}", path.display())]
    #[non_exhaustive]
    Panic {
        /// The file.
        path: PathBuf,
        /// What it panicked with, if that is a text.
        message: String,
    },
}
