use std::{error::Error, io, path::PathBuf};

use crate::{error::debug_as_display, rules::RulesError};

/// The reason why a file is not followed or not applied. The present rules stay in force.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum WatchError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    #[non_exhaustive]
    File {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The name has no known ending, and no reader is set.
    #[error(
        "{}: the name does not end with `.toml`, `.yaml`, `.yml` or `.json`; set a reader with `reading`",
        path.display()
    )]
    #[non_exhaustive]
    Format {
        /// The file.
        path: PathBuf,
    },
    /// The text cannot be read as rules.
    #[error("{}: {source}", path.display())]
    #[non_exhaustive]
    Document {
        /// The file.
        path: PathBuf,
        /// The error in the text.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The rules contradict each other.
    #[error("{}: {source}", path.display())]
    #[non_exhaustive]
    Rules {
        /// The file.
        path: PathBuf,
        /// The error in the rules.
        source: RulesError,
    },
    /// The system cannot report changes of the file.
    #[error("{}: {source}", path.display())]
    #[non_exhaustive]
    System {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The file is too long.
    #[error("{}: the file has more than {max_bytes} bytes", path.display())]
    #[non_exhaustive]
    Length {
        /// The file.
        path: PathBuf,
        /// The maximum number of bytes.
        max_bytes: usize,
    },
    /// The reader of the file, or the reload with its rules, panicked.
    #[error("{}: the reader panicked: {message}", path.display())]
    #[non_exhaustive]
    Panic {
        /// The file.
        path: PathBuf,
        /// The message of the panic, or `no text` if it has none.
        message: String,
    },
}

debug_as_display!(WatchError);
