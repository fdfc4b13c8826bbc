//! Reads the settings of models: how they are found, and the limits of each.

use super::limits::limits;
use crate::{
    client::Plan,
    config::{
        document::{Cursor, Value},
        error::ConfigError,
    },
    model::Models,
};

/// The words of a table of models that name no model.
pub(super) const BY: &str = "by";
pub(super) const ON: &str = "on";
pub(super) const OTHERWISE: &str = "otherwise";
pub(super) const UNREAD: &str = "unread";

/// Returns whether a name of a model would be read as another setting.
pub(super) fn is_setting(name: &str) -> bool {
    [BY, ON, OTHERWISE, UNREAD].contains(&name)
}

pub(super) fn models(place: &Cursor<'_>) -> Result<Models, ConfigError> {
    let mut models = match place.peek(BY) {
        Some(by) => source(&by)?,
        None => {
            return Err(
                place.fault("models without `by`; write how they are found, such as `body`")
            );
        }
    };
    for (name, place) in place.entries()? {
        models = match name {
            BY => models,
            ON => {
                let keys = place.each(|key| Ok(key.text()?.to_owned()))?;
                keys.into_iter().fold(models, Models::on)
            }
            OTHERWISE => models.otherwise(limits(&place)?),
            UNREAD => models.unread(limits(&place)?),
            name => models.model(name.to_owned(), limits(&place)?),
        };
    }
    Ok(models)
}

/// `"body"`, `"code"`, `{ header = "x-model" }`, `{ path = "model" }`, `{ path = "model", otherwise = "body" }`.
fn source(place: &Cursor<'_>) -> Result<Models, ConfigError> {
    match place.value() {
        Value::Text(text) if text == "body" => Ok(Models::from_body()),
        Value::Text(text) if text == "code" => Ok(Models::by_code()),
        Value::Map(_) => {
            let mut fields = place.fields()?;
            let models = match (fields.get("header"), fields.get("path")) {
                (Some(header), None) => Models::by_header(header.text()?),
                (None, Some(path)) => match fields.get(OTHERWISE) {
                    None => Models::by_path_param(path.text()?),
                    Some(place) => {
                        let otherwise = source(&place)?;
                        if otherwise.in_path.is_some() {
                            return Err(place.fault("write one `path`"));
                        }
                        otherwise.or_by_path_param(path.text()?)
                    }
                },
                (Some(_), Some(_)) => return Err(place.fault("write one of `header` and `path`")),
                (None, None) => return Err(place.fault("a table without `header` or `path`")),
            };
            fields.end()?;
            Ok(models)
        }
        _ => Err(place.fault(
            "write `body`, `code` or a table: `{ header = \"x-model\" }` or `{ path = \"model\" }`",
        )),
    }
}

/// Adds the limits of each client on models to a plan.
pub(super) fn on_models(place: &Cursor<'_>, plan: Plan) -> Result<Plan, ConfigError> {
    let mut plan = plan;
    for (name, place) in place.entries()? {
        let limits = limits(&place)?;
        plan = match name {
            OTHERWISE => plan.other_models(limits),
            name if is_setting(name) => {
                let fault = "is a setting of `models`, and has no limits of clients";
                return Err(place.fault_of_name(fault.to_owned()));
            }
            name => plan.model(name, limits),
        };
    }
    Ok(plan)
}
