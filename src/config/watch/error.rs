use std::{error::Error, io, path::PathBuf};

use crate::{error::debug_as_display, rules::RulesError};

/// The reason for which a file was not followed. The rules that hold go on.
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
    /// The name does not say how the file is read.
    #[error(
        "{}: the name does not end with `.toml`, `.yaml`, `.yml` or `.json`; set a reader with `reading`",
        path.display()
    )]
    #[non_exhaustive]
    Format {
        /// The file.
        path: PathBuf,
    },
    /// The text of the file cannot be read as rules.
    #[error("{}: {source}", path.display())]
    #[non_exhaustive]
    Document {
        /// The file.
        path: PathBuf,
        /// The error in the text.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The rules do not hold together.
    #[error("{}: {source}", path.display())]
    #[non_exhaustive]
    Rules {
        /// The file.
        path: PathBuf,
        /// The error in the rules.
        source: RulesError,
    },
    /// The system does not tell when the file changes.
    #[error("{}: {source}", path.display())]
    #[non_exhaustive]
    System {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The file has more bytes than are read.
    #[error("{}: the file has more than {max_bytes} bytes", path.display())]
    #[non_exhaustive]
    Length {
        /// The file.
        path: PathBuf,
        /// The most bytes that are read.
        max_bytes: usize,
    },
    /// The reader of the file, or the reload with its rules, panicked.
    #[error("{}: the reader panicked: {message}", path.display())]
    #[non_exhaustive]
    Panic {
        /// The file.
        path: PathBuf,
        /// The message of the panic. `no text` if the message is none.
        message: String,
    },
}

debug_as_display!(WatchError);
