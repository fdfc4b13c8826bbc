//! The limits, as a document that a form changes.

use std::sync::{Mutex, PoisonError};

use serde::Deserialize;
use serde_json::{Value, json};
use tower_throttle::{Handle, Rules};

use crate::BoxError;

/// The document of the limits that hold.
pub(crate) struct Limits(Mutex<Value>);

/// The change that the form sends: the rate and burst of one route, or of all routes by default.
#[derive(Deserialize)]
pub(crate) struct Change {
    /// A route key; without it, the default.
    route: Option<String>,
    /// As rules write it: `10`, `0.5`, `600/minute`.
    rate: String,
    burst: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self(Mutex::new(json!({
            "default_route": { "rate": "10", "burst": 5 },
            "routes": {
                "POST /v1/chat/completions": {
                    "rate": "2", "burst": 4,
                    "in_flight": { "max": 3, "name": "slots" }, "max_wait": "2s", "max_waiting": 8,
                },
                "GET /v1/models": {},
                "POST /v1/embeddings": { "rate": "600/minute", "burst": 20 },
            },
        })))
    }
}

impl Limits {
    pub(crate) fn rules(&self) -> Result<Rules, BoxError> {
        self.with(|document| read(document))
    }

    /// Each rate and burst that the form can change.
    pub(crate) fn list(&self) -> Vec<Value> {
        let limit = |route: Value, limits: &Value| json!({ "route": route, "rate": limits["rate"], "burst": limits["burst"] });
        self.with(|document| {
            let mut all = vec![limit(Value::Null, &document["default_route"])];
            let routes = document["routes"].as_object().into_iter().flatten();
            all.extend(routes.map(|(route, limits)| limit(json!(route), limits)));
            all
        })
    }

    /// Puts the changed limits into the place of those that hold. What has changed, in words.
    pub(crate) fn change(&self, change: &Change, handle: &Handle) -> Result<String, BoxError> {
        self.with(|document| {
            let mut next = document.clone();
            let limits = match &change.route {
                None => &mut next["default_route"],
                Some(route) => match next["routes"].get_mut(route) {
                    Some(limits) => limits,
                    None => return Err(format!("no route `{route}`").into()),
                },
            };
            limits["rate"] = json!(change.rate);
            limits["burst"] = json!(change.burst);
            let changes = handle.reload(read(&next)?)?;
            *document = next;
            Ok(changes.to_string())
        })
    }

    fn with<T>(&self, work: impl FnOnce(&mut Value) -> T) -> T {
        // Each step leaves it whole.
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn read(document: &Value) -> Result<Rules, BoxError> {
    Ok(serde_json::from_value(document.clone())?)
}
