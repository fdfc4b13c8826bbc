//! Errors that show themselves: `Debug` writes what `Display` does, and the causes.
//!
//! `unwrap`, `expect` and a `main` that returns a `Result` print `Debug`. Each public error names the setting at fault
//! and what to write instead, and a derived `Debug` would hide that.

use std::{error::Error, fmt};

/// An error and its causes, in one line.
pub(crate) struct Chain<'a>(pub(crate) &'a dyn Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(error) = self;
        error.fmt(f)?;
        let mut cause = error.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

/// The causes of an error's source, for errors that show their source themselves.
pub(crate) struct CausesOfSource<'a>(pub(crate) &'a dyn Error);

impl fmt::Display for CausesOfSource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(error) = self;
        let mut cause = error.source().and_then(Error::source);
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

/// Implements `Debug` for error types by their `Display`, which shows the source where there is one, and its causes.
macro_rules! debug_as_display {
    ($($error:ty),+) => {$(
        impl std::fmt::Debug for $error {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{self}{}", $crate::error::CausesOfSource(self))
            }
        }
    )+};
}

pub(crate) use debug_as_display;
