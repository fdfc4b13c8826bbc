//! Values that are known to the tool alone which deploys a document.

use crate::config::{
    document::{Cursor, Value},
    error::ConfigError,
};

/// Refuses a reference, a function and an interpolation where a setting that throttles belongs, by name.
pub(super) fn resolved(place: &Cursor<'_>) -> Result<(), ConfigError> {
    let function = match place.value() {
        Value::Tagged(function) => function,
        Value::Text(text) if text.contains("${") => text,
        Value::Map(entries) => {
            let mut names = entries.iter().map(|(key, _)| &key.name);
            match names.find(|name| is_function(name)) {
                Some(name) => name,
                None => return Ok(()),
            }
        }
        _ => return Ok(()),
    };
    Err(place.fault(format!(
        "`{function}` is known only to the deployment tool; write its value"
    )))
}

/// Returns whether a name is a function of CloudFormation or Pulumi.
pub(super) fn is_function(name: &str) -> bool {
    name == "Ref" || name.starts_with("Fn::") || name.starts_with("fn::")
}
