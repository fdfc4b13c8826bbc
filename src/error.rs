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
        write_causes(error.source(), f)
    }
}

/// Writes an error whose `Display` shows its source, if it has one, and the causes of that.
pub(crate) fn write_with_source(error: &dyn Error, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    fmt::Display::fmt(error, f)?;
    write_causes(error.source().and_then(Error::source), f)
}

fn write_causes(cause: Option<&dyn Error>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut cause = cause;
    while let Some(error) = cause {
        write!(f, ": {error}")?;
        cause = error.source();
    }
    Ok(())
}

/// Implements `Debug` for error types by [`write_with_source`].
macro_rules! debug_as_display {
    ($($error:ty),+) => {$(
        impl std::fmt::Debug for $error {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                $crate::error::write_with_source(self, f)
            }
        }
    )+};
}

pub(crate) use debug_as_display;

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("no answer")]
    struct Silence(#[source] io::Error);

    #[derive(thiserror::Error)]
    #[error("limits.toml: {source}")]
    struct Shown {
        source: Silence,
    }

    debug_as_display!(Shown);

    #[test]
    fn each_cause_is_written_once() {
        let source = Silence(io::Error::other("the line is cut"));
        assert_eq!(Chain(&source).to_string(), "no answer: the line is cut");
        let shown = Shown { source };
        assert_eq!(shown.to_string(), "limits.toml: no answer");
        assert_eq!(
            format!("{shown:?}"),
            "limits.toml: no answer: the line is cut"
        );
    }
}
