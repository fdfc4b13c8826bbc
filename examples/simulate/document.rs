//! Rules, and the data of them that the simulator needs to send requests as their clients would.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use axum::http::HeaderName;
use toml::{Table, Value};
use tower_throttle::Rules;

use crate::BoxError;

/// Clients are hashed alike in each run: what depends on their hashes, such as who is told which wait, is then too.
const SECRET: &[u8] = b"the simulator keeps no secret";

/// The plan of a client, as authentication would put it into the extensions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OnPlan(pub(crate) &'static str);

/// Rules that were read.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) name: String,
    pub(crate) rules: Rules,
    /// Header fields that tell who a client is.
    pub(crate) fields: Vec<HeaderName>,
    /// True if a bearer token tells who a client is.
    pub(crate) by_bearer: bool,
    /// True if the address tells who a client is.
    pub(crate) by_address: bool,
    pub(crate) plans: BTreeSet<String>,
    /// The keys of the routes.
    pub(crate) routes: Vec<String>,
}

impl Document {
    pub(crate) fn built_in() -> Result<Self, BoxError> {
        Self::read("built in", include_str!("rules.toml"))
    }

    pub(crate) fn from_file(path: &Path) -> Result<Self, BoxError> {
        let name = path.display().to_string();
        let text = fs::read_to_string(path).map_err(|error| format!("{name}: {error}"))?;
        Self::read(&name, &text)
    }

    pub(crate) fn read(name: &str, text: &str) -> Result<Self, BoxError> {
        let rules = Rules::from_toml(text).map_err(|error| format!("{name}: {error}"))?;
        let table: Table = text.parse()?;
        let clients = table.get("clients").and_then(Value::as_table);
        let sources = match clients.and_then(|clients| clients.get("by")) {
            Some(Value::Array(sources)) => sources.as_slice(),
            Some(source) => std::slice::from_ref(source),
            None => &[],
        };
        let by = |name| sources.iter().any(|source| source.as_str() == Some(name));
        let fields = sources
            .iter()
            .filter_map(|source| source.get("header")?.as_str());
        let keys = |table: Option<&Value>| -> Vec<String> {
            let keys = table.and_then(Value::as_table).map(Table::keys);
            keys.into_iter().flatten().cloned().collect()
        };
        let rules = rules.map_clients(|clients| {
            clients
                .secret(SECRET)
                .plan_by(|head| head.extensions().get::<OnPlan>().map(|plan| plan.0))
        });
        Ok(Self {
            name: name.to_owned(),
            rules,
            fields: fields.map(str::parse).collect::<Result<_, _>>()?,
            by_bearer: by("bearer"),
            by_address: by("address"),
            plans: keys(clients.and_then(|clients| clients.get("plans")))
                .into_iter()
                .collect(),
            routes: keys(table.get("routes")),
        })
    }
}
