//! Rules as a document, and back.

mod clients;
mod limits;
mod models;
mod money;
mod prices;
mod routes;
mod words;
mod write;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _, ser::Error as _};

use self::{
    clients::clients,
    limits::limits,
    models::models,
    prices::prices,
    routes::by_route,
    words::{CATCH_ALL, DIALECTS, UNDECLARED, one_of},
};
use super::{
    Reader,
    document::{Cursor, Node, parse_toml, parse_yaml},
    error::ConfigError,
};
use crate::{
    facts::MaximumMember,
    rules::Rules,
    usage::{BodyEstimate, Estimate},
};

impl Rules {
    /// The JSON Schema of rules (draft 2020-12): [`config::JSON_SCHEMA`](crate::config::JSON_SCHEMA).
    pub const JSON_SCHEMA: &'static str = crate::config::JSON_SCHEMA;

    /// Reads rules from TOML; see [`config`](crate::config) for the format.
    ///
    /// # Errors
    ///
    /// Text that is not TOML or longer than 8 MiB (see [`Reader`]), unknown settings and invalid values, with their
    /// path, line and column. Contradictory rules are an error of [`ThrottleLayer::new`](crate::ThrottleLayer::new).
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        Reader::new().toml(text)
    }

    /// Reads rules from YAML, or from JSON, which is a subset of it.
    ///
    /// The language is YAML 1.2 without aliases, one document of at most 64 levels.
    ///
    /// ```
    /// use tower_throttle::Rules;
    ///
    /// let yaml = Rules::from_yaml("default_route: { rate: 10, burst: 5 }")?;
    /// let json = Rules::from_yaml(r#"{ "default_route": { "rate": 10, "burst": 5 } }"#)?;
    /// assert_eq!(yaml.to_toml()?, json.to_toml()?);
    /// # Ok::<(), tower_throttle::config::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`from_toml`](Self::from_toml).
    pub fn from_yaml(text: &str) -> Result<Self, ConfigError> {
        Reader::new().yaml(text)
    }

    /// Writes rules as TOML, so that [`Rules::from_toml`] reads the same rules from it.
    ///
    /// # Errors
    ///
    /// Rules that a document cannot hold, by name: closures, and the keys of members, which are kept only as hashes.
    pub fn to_toml(&self) -> Result<String, ConfigError> {
        let document = write::rules(self)?;
        toml::to_string(&document).map_err(|error| ConfigError::new("", None, error.to_string()))
    }
}

impl Reader {
    /// Reads rules from TOML.
    ///
    /// # Errors
    ///
    /// Those of [`Rules::from_toml`].
    pub fn toml(&self, text: &str) -> Result<Rules, ConfigError> {
        read(&parse_toml(self.admit(text)?)?)
    }

    /// Reads rules from YAML or JSON.
    ///
    /// # Errors
    ///
    /// Those of [`Rules::from_yaml`].
    pub fn yaml(&self, text: &str) -> Result<Rules, ConfigError> {
        read(&parse_yaml(self.admit(text)?)?)
    }
}

impl<'de> Deserialize<'de> for Rules {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read(&Node::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl Serialize for Rules {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let document = write::rules(self).map_err(S::Error::custom)?;
        document.serialize(serializer)
    }
}

pub(super) fn read(document: &Node) -> Result<Rules, ConfigError> {
    let root = Cursor::root(document);
    let mut fields = root.fields()?;
    let mut rules = Rules::new();
    if let Some(total) = fields.get("total") {
        rules = rules.total(limits(&total)?);
    }
    if let Some(default) = fields.get("default_route") {
        rules = rules.default_route(limits(&default)?);
    }
    if let Some(undeclared) = fields.get("undeclared") {
        rules = rules.undeclared(one_of(&undeclared, &UNDECLARED)?);
    }
    if let Some(catch_all) = fields.get("catch_all") {
        rules = rules.catch_all(one_of(&catch_all, &CATCH_ALL)?);
    }
    if let Some(routes) = fields.get("routes") {
        for (key, limits) in by_route(&routes, limits)? {
            rules = rules.route(key, limits);
        }
    }
    if let Some(place) = fields.get("models") {
        rules = rules.models(models(&place)?);
    }
    if let Some(place) = fields.get("prices") {
        rules = rules.prices(prices(&place)?);
    }
    if let Some(place) = fields.get("clients") {
        rules = rules.clients(clients(&place)?);
    }
    if let Some(place) = fields.get("estimate") {
        rules = rules.estimate(estimate(&place)?);
    }
    if let Some(rejections) = fields.get("rejections") {
        for (key, dialect) in by_route(&rejections, |dialect| one_of(dialect, &DIALECTS))? {
            rules = rules.rejection(key, dialect);
        }
    }
    // For editors.
    fields.pass_over(&["$schema"]);
    fields.end()?;
    Ok(rules)
}

/// `300`, `{ bytes_per_token = 4 }`, `{ body = {}, models = { … }, or = 8000 }`,
/// `{ header = "x-max-tokens", or = 300, exact = true }`, `{ tokens = 300, … }`.
fn estimate(place: &Cursor<'_>) -> Result<Estimate, ConfigError> {
    if let Ok(tokens) = place.count() {
        return Ok(Estimate::fixed(tokens));
    }
    let mut fields = place
        .fields()
        .map_err(|_| place.expected("a number of tokens or a table"))?;
    let sources = ["header", "bytes_per_token", "tokens", "body"].map(|name| fields.get(name));
    let estimate = match sources {
        [Some(header), None, None, None] => Estimate::by_header(header.text()?),
        [None, Some(bytes), None, None] => Estimate::by_content_length(bytes.count()?),
        [None, None, Some(tokens), None] => Estimate::fixed(tokens.count()?),
        [None, None, None, Some(body)] => Estimate::from_body(body_estimate(&body)?),
        _ => return Err(place.fault("write either `header`, `bytes_per_token` or `body`")),
    };
    let is_fixed = place.peek("tokens").is_some();
    let estimate = match fields.get("or") {
        Some(or) if is_fixed => {
            return Err(or.fault("cannot be combined with `tokens`; keep one of them"));
        }
        Some(tokens) => estimate.or(tokens.count()?),
        None => estimate,
    };
    let estimate = match fields.get("models") {
        Some(models) if place.peek("body").is_none() => {
            return Err(models.fault("cannot be set without `body`; add it, or remove `models`"));
        }
        Some(models) => {
            let mut estimate = estimate;
            for (name, own) in models.entries()? {
                estimate = estimate.model(name.to_owned(), body_estimate(&own)?);
            }
            estimate
        }
        None => estimate,
    };
    let estimate = match fields.get("exact") {
        Some(exact) if exact.flag()? => estimate.exact(),
        _ => estimate,
    };
    fields.end()?;
    Ok(estimate)
}

/// `{ bytes_per_token = 4, tokens_per_item = 1000, output = 1000, max_output = 8192, maximum_from = ["max_tokens"] }`.
fn body_estimate(place: &Cursor<'_>) -> Result<BodyEstimate, ConfigError> {
    type Setter = fn(BodyEstimate, u64) -> BodyEstimate;
    let mut fields = place.fields()?;
    let mut estimate = BodyEstimate::new();
    let setters: [(&str, Setter); 4] = [
        ("bytes_per_token", BodyEstimate::bytes_per_token),
        ("tokens_per_item", BodyEstimate::tokens_per_item),
        ("output", BodyEstimate::output),
        ("max_output", BodyEstimate::max_output),
    ];
    for (name, set) in setters {
        if let Some(count) = fields.get(name) {
            estimate = set(estimate, count.count()?);
        }
    }
    if let Some(members) = fields.get("maximum_from") {
        let words = MaximumMember::ALL.map(|member| (member.as_str(), member));
        let members = members.each(|member| one_of(member, &words))?;
        estimate = estimate.maximum_from(members);
    }
    fields.end()?;
    Ok(estimate)
}
