//! The bound on the size of documents.

use super::error::ConfigError;

/// A reader of documents with a bound on their size.
///
/// The functions without a reader, such as [`Rules::from_toml`](crate::Rules::from_toml), have a bound of 8 MiB, the
/// same for every format. The time to read a document grows with its size.
///
/// ```
/// use tower_throttle::config::Reader;
///
/// let reader = Reader::new().max_bytes(1024);
/// assert!(reader.toml("default_route = 10").is_ok());
/// let error = reader.toml(&"#".repeat(1025)).unwrap_err();
/// assert_eq!(error.to_string(), "the document has 1025 bytes; 1024 is the maximum");
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Reader {
    max_bytes: usize,
}

impl Default for Reader {
    fn default() -> Self {
        Self::new()
    }
}

impl Reader {
    /// Creates a reader of documents of up to 8 MiB (8,388,608 bytes).
    pub fn new() -> Self {
        Self {
            max_bytes: 8 * 1024 * 1024,
        }
    }

    /// Sets the maximum size of a document in bytes. Zero admits only the empty document.
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Returns the text without a byte order mark, if it is short enough.
    pub(super) fn admit<'t>(&self, text: &'t str) -> Result<&'t str, ConfigError> {
        let (length, most) = (text.len(), self.max_bytes);
        if length > most {
            let fault = format!("the document has {length} bytes; {most} is the maximum");
            return Err(ConfigError::new("", None, fault));
        }
        Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
    }
}
