use super::{
    Imported, api_gateway, api_management,
    document::{parse_toml, parse_yaml},
    error::ConfigError,
};
use crate::rules::Rules;

/// A reader of documents with a bound on their size.
///
/// The functions that read a document by themselves, such as [`Rules::from_toml`], have a bound of 8 MiB, the same for
/// every format. The time that a document takes grows with its size.
///
/// ```
/// use tower_throttle::config::Reader;
///
/// let reader = Reader::new().max_bytes(1024);
/// assert!(reader.toml("default_route = 10").is_ok());
/// let error = reader.toml(&"#".repeat(1025)).unwrap_err();
/// assert_eq!(error.to_string(), "a document of 1025 bytes; 1024 are the most");
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
    /// A reader of documents of up to 8 MiB (8,388,608 bytes).
    pub fn new() -> Self {
        Self {
            max_bytes: 8 * 1024 * 1024,
        }
    }

    /// Sets the most bytes that a document may have. Zero leaves the empty one.
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Reads rules from TOML.
    ///
    /// # Errors
    ///
    /// As [`Rules::from_toml`].
    pub fn toml(&self, text: &str) -> Result<Rules, ConfigError> {
        super::rules::read(&parse_toml(self.admit(text)?)?)
    }

    /// Reads rules from YAML or JSON.
    ///
    /// # Errors
    ///
    /// As [`Rules::from_yaml`].
    pub fn yaml(&self, text: &str) -> Result<Rules, ConfigError> {
        super::rules::read(&parse_yaml(self.admit(text)?)?)
    }

    /// Reads the one stage of Amazon API Gateway that a document has.
    ///
    /// # Errors
    ///
    /// As [`api_gateway::stage`].
    pub fn stage(&self, text: &str) -> Result<Imported, ConfigError> {
        api_gateway::read_stage(self.admit(text)?, None)
    }

    /// Reads the stage of this name.
    ///
    /// # Errors
    ///
    /// As [`api_gateway::stage_named`].
    pub fn stage_named(&self, text: &str, name: &str) -> Result<Imported, ConfigError> {
        api_gateway::read_stage(self.admit(text)?, Some(name))
    }

    /// Reads the one usage plan of Amazon API Gateway that a document has.
    ///
    /// # Errors
    ///
    /// As [`api_gateway::usage_plan`].
    pub fn usage_plan(&self, text: &str) -> Result<Imported, ConfigError> {
        api_gateway::read_usage_plan(self.admit(text)?, None)
    }

    /// Reads the usage plan of this name.
    ///
    /// # Errors
    ///
    /// As [`api_gateway::usage_plan_named`].
    pub fn usage_plan_named(&self, text: &str, name: &str) -> Result<Imported, ConfigError> {
        api_gateway::read_usage_plan(self.admit(text)?, Some(name))
    }

    /// Reads the limits of a policy document of Azure API Management.
    ///
    /// # Errors
    ///
    /// As [`api_management::policy`].
    pub fn policy(&self, xml: &str) -> Result<Imported, ConfigError> {
        api_management::read_policy(self.admit(xml)?)
    }

    /// The text without a byte order mark, if it is short enough.
    fn admit<'t>(&self, text: &'t str) -> Result<&'t str, ConfigError> {
        let (length, most) = (text.len(), self.max_bytes);
        if length > most {
            let fault = format!("a document of {length} bytes; {most} are the most");
            return Err(ConfigError::new("", None, fault));
        }
        Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
    }
}
