//! Rules as they would be written.

use serde::{
    Serialize, Serializer,
    ser::{SerializeMap as _, SerializeSeq as _},
};

use super::{
    clients::FORWARDING,
    limits::ACCESS,
    models::{BY, ON, OTHERWISE, UNREAD, is_setting},
    words::{CATCH_ALL, DIALECTS, UNDECLARED},
};
use crate::{
    client::{Clients, IdentitySource, Plan},
    config::error::ConfigError,
    limit::quantity::write_duration,
    limit::{
        amount::Amount,
        in_flight::InFlight,
        limits::{Degrade, Limits},
        price::{Price, Prices},
        quota::{Quota, Window},
        rate::Rate,
        reservation::Reservation,
        spend::Spend,
    },
    model::{ModelSource, Models},
    response::RouteRejection,
    rules::Rules,
    usage::{BodyEstimate, Estimate, EstimateSource},
};

/// The value of a setting as it is written.
#[derive(Debug)]
pub(super) enum DocumentValue {
    Flag(bool),
    Count(u64),
    Text(String),
    List(Vec<DocumentValue>),
    Table(Vec<(String, DocumentValue)>),
}

impl Serialize for DocumentValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Flag(flag) => serializer.serialize_bool(*flag),
            Self::Count(count) => serializer.serialize_u64(*count),
            Self::Text(text) => serializer.serialize_str(text),
            Self::List(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                for item in items {
                    list.serialize_element(item)?;
                }
                list.end()
            }
            Self::Table(entries) => {
                let mut table = serializer.serialize_map(Some(entries.len()))?;
                for (name, value) in entries {
                    table.serialize_entry(name, value)?;
                }
                table.end()
            }
        }
    }
}

/// A table in the making.
#[derive(Default)]
struct TableBuilder(Vec<(String, DocumentValue)>);

impl TableBuilder {
    fn set(&mut self, name: &str, value: DocumentValue) {
        self.0.push((name.to_owned(), value));
    }

    fn set_some(&mut self, name: &str, value: Option<DocumentValue>) {
        if let Some(value) = value {
            self.set(name, value);
        }
    }

    /// One alone without a list around it; none not at all.
    fn set_all(&mut self, name: &str, mut values: Vec<DocumentValue>) {
        match values.len() {
            0 => {}
            1 => self
                .0
                .extend(values.pop().map(|value| (name.to_owned(), value))),
            _ => self.set(name, DocumentValue::List(values)),
        }
    }

    fn set_entries(&mut self, name: &str, entries: Vec<(String, DocumentValue)>) {
        if !entries.is_empty() {
            self.set(name, DocumentValue::Table(entries));
        }
    }
}

fn text(text: impl Into<String>) -> DocumentValue {
    DocumentValue::Text(text.into())
}

pub(super) fn rules(rules: &Rules) -> Result<DocumentValue, ConfigError> {
    // Exhaustive, so that a new field is thought about here.
    let Rules {
        total,
        default_route,
        routes,
        undeclared,
        catch_all,
        models,
        clients,
        estimate,
        prices,
        cost_by,
        rejections,
    } = rules;
    if cost_by.is_some() {
        return Err(unwritable("cost_by", "a closure"));
    }
    let mut table = TableBuilder::default();
    let (word, _) = UNDECLARED
        .iter()
        .find(|(_, value)| value == undeclared)
        .unwrap_or(&UNDECLARED[0]);
    if *undeclared != UNDECLARED[0].1 {
        table.set("undeclared", text(*word));
    }
    if let Some((word, _)) = CATCH_ALL[1..].iter().find(|(_, value)| value == catch_all) {
        table.set("catch_all", text(*word));
    }
    table.set_some("total", total.as_ref().map(limits));
    table.set_some("default_route", default_route.as_ref().map(limits));
    table.set_some("estimate", self::estimate(estimate)?);
    let routes = routes
        .iter()
        .map(|(key, own)| (key.to_string(), limits(own)));
    table.set_entries("routes", routes.collect());
    table.set_some("models", models.as_ref().map(self::models).transpose()?);
    table.set_some("prices", prices.as_ref().map(self::prices).transpose()?);
    table.set_some("clients", clients.as_ref().map(self::clients).transpose()?);
    let mut answers = Vec::new();
    for RouteRejection {
        key,
        dialect: known,
        ..
    } in &rejections.0
    {
        let known = DIALECTS
            .iter()
            .find(|(_, dialect)| Some(*dialect) == *known);
        let Some((word, _)) = known else {
            let path = format!("rejections.{key:?}");
            return Err(unwritable(&path, "a custom rejection"));
        };
        answers.push((key.to_string(), text(*word)));
    }
    table.set_entries("rejections", answers);
    Ok(DocumentValue::Table(table.0))
}

fn unwritable(path: &str, what: &str) -> ConfigError {
    ConfigError::new(
        path,
        None,
        format!("{what} cannot be written into a document"),
    )
}

/// Always as a table: in TOML what is none comes first, and names that were not given count routes in their order.
fn limits(limits: &Limits) -> DocumentValue {
    let mut table = TableBuilder::default();
    fill(limits, &mut table);
    DocumentValue::Table(table.0)
}

fn fill(limits: &Limits, table: &mut TableBuilder) {
    let Limits {
        rates,
        quotas,
        tokens,
        input_tokens,
        output_tokens,
        spend,
        in_flight,
        max_wait,
        max_waiting,
        access,
        name,
        publish,
        reservation: Reservation {
            max_tokens,
            max_percent,
        },
        cached_input_percent,
        cost,
        keep,
        refund_failures,
        usage_from_answers,
        degrade,
    } = limits;
    let word = ACCESS.iter().find(|(_, value)| value == access);
    table.set_some("access", word.map(|(word, _)| text(*word)));
    table.set_some("name", name.as_deref().map(text));
    match &rates[..] {
        [rate] if rate.name().is_none() && !rate.is_shadow() => {
            table.set("rate", steady(rate));
            table.set_some("burst", rate.given_burst().map(DocumentValue::Count));
        }
        rates => table.set_all("rate", rates.iter().map(rate).collect()),
    }
    table.set_all("quota", quotas.iter().map(quota).collect());
    table.set_all("tokens", tokens.iter().map(rate).collect());
    table.set_all("input_tokens", input_tokens.iter().map(rate).collect());
    table.set_all("output_tokens", output_tokens.iter().map(rate).collect());
    table.set_all("spend", spend.iter().map(self::spend).collect());
    table.set_all("in_flight", in_flight.iter().map(cap).collect());
    table.set_some("max_wait", max_wait.map(|wait| text(write_duration(wait))));
    table.set_some(
        "max_waiting",
        max_waiting.map(|most| DocumentValue::Count(most as u64)),
    );
    table.set_some("publish", publish.map(DocumentValue::Flag));
    table.set_some(
        "max_tokens_per_request",
        max_tokens.map(DocumentValue::Count),
    );
    table.set_some("cost", cost.map(DocumentValue::Count));
    table.set_some("keep", keep.map(DocumentValue::Flag));
    table.set_some("refund_failures", refund_failures.map(DocumentValue::Flag));
    let read = usage_from_answers.map(DocumentValue::Flag);
    table.set_some("usage_from_answers", read);
    let percent = max_percent.map(u64::from).map(DocumentValue::Count);
    table.set_some("max_reservation_percent", percent);
    let percent = cached_input_percent
        .map(u64::from)
        .map(DocumentValue::Count);
    table.set_some("cached_input_percent", percent);
    if let Some(degrade) = degrade {
        let Degrade { limits, after } = &**degrade;
        let mut second = TableBuilder::default();
        fill(limits, &mut second);
        if !after.is_zero() {
            second.set("after", text(write_duration(*after)));
        }
        table.set("degrade", DocumentValue::Table(second.0));
    }
}

/// Writes a limit: without a table if it has neither name nor shadow, nor anything else.
fn named(
    what: &str,
    value: DocumentValue,
    name: Option<&str>,
    shadow: bool,
    more: Option<(&str, DocumentValue)>,
) -> DocumentValue {
    if name.is_none() && !shadow && more.is_none() {
        return value;
    }
    let mut table = TableBuilder::default();
    table.set(what, value);
    if let Some((setting, value)) = more {
        table.set(setting, value);
    }
    table.set_some("name", name.map(text));
    if shadow {
        table.set("shadow", DocumentValue::Flag(true));
    }
    DocumentValue::Table(table.0)
}

fn rate(rate: &Rate) -> DocumentValue {
    let burst = rate
        .given_burst()
        .map(|burst| ("burst", DocumentValue::Count(burst)));
    named("rate", steady(rate), rate.name(), rate.is_shadow(), burst)
}

fn steady(rate: &Rate) -> DocumentValue {
    let period = write_duration(rate.period());
    let period = match &*period {
        "1s" => return DocumentValue::Count(rate.count()),
        "1m" => "minute",
        "1h" => "hour",
        "1d" => "day",
        period => period,
    };
    text(format!("{}/{period}", rate.count()))
}

fn quota(quota: &Quota) -> DocumentValue {
    let window = match quota.kind() {
        Window::Day => "day".to_owned(),
        Window::Week => "week".to_owned(),
        Window::Month => "month".to_owned(),
        Window::Every(window) => write_duration(window),
    };
    let value = text(format!("{}/{window}", quota.count()));
    named("quota", value, quota.name(), quota.is_shadow(), None)
}

fn spend(spend: &Spend) -> DocumentValue {
    let window = match spend.window() {
        Window::Day => "day",
        Window::Week => "week",
        Window::Month => "month",
        Window::Every(Spend::SECOND) => "second",
        Window::Every(Spend::MINUTE) => "minute",
        Window::Every(_) => "hour",
    };
    let value = text(format!("{} per {window}", Amount(spend.millionths())));
    let burst = spend.rate().and_then(Rate::given_burst);
    let burst = burst.map(|burst| ("burst", text(Amount(burst).to_string())));
    named("spend", value, spend.name(), spend.is_shadow(), burst)
}

fn prices(prices: &Prices) -> Result<DocumentValue, ConfigError> {
    let Prices { models, otherwise } = prices;
    let price = |price: &Price| {
        let mut table = TableBuilder::default();
        for (kind, amount) in price.amounts() {
            table.set_some(kind, amount.map(text));
        }
        DocumentValue::Table(table.0)
    };
    let mut table = TableBuilder::default();
    table.set_some(OTHERWISE, otherwise.as_ref().map(price));
    for (name, own) in models {
        if name == OTHERWISE {
            return Err(unwritable("prices.otherwise", "a model of this name"));
        }
        table.set(name, price(own));
    }
    Ok(DocumentValue::Table(table.0))
}

fn cap(cap: &InFlight) -> DocumentValue {
    named(
        "max",
        DocumentValue::Count(cap.count()),
        cap.name(),
        cap.is_shadow(),
        None,
    )
}

fn estimate(estimate: &Estimate) -> Result<Option<DocumentValue>, ConfigError> {
    let (source, otherwise, is_exact) = estimate.parts();
    let mut table = TableBuilder::default();
    match source {
        EstimateSource::Nothing if !is_exact => return Ok(Some(DocumentValue::Count(otherwise))),
        EstimateSource::Nothing => table.set("tokens", DocumentValue::Count(otherwise)),
        EstimateSource::ContentLength { bytes_per_token: 4 } if otherwise == 1 && !is_exact => {
            return Ok(None);
        }
        EstimateSource::ContentLength { bytes_per_token } => {
            table.set("bytes_per_token", DocumentValue::Count(*bytes_per_token));
        }
        EstimateSource::Header(name) => table.set("header", text(&**name)),
        EstimateSource::Body(estimate) => table.set("body", body_estimate(estimate)),
        EstimateSource::Closure(_) => return Err(unwritable("estimate", "a closure")),
    }
    if !estimate.models.is_empty() {
        let mut models = TableBuilder::default();
        for (name, own) in &estimate.models {
            models.set(name, body_estimate(own));
        }
        table.set("models", DocumentValue::Table(models.0));
    }
    if !matches!(source, EstimateSource::Nothing) {
        table.set("or", DocumentValue::Count(otherwise));
    }
    if is_exact {
        table.set("exact", DocumentValue::Flag(true));
    }
    Ok(Some(DocumentValue::Table(table.0)))
}

fn body_estimate(estimate: &BodyEstimate) -> DocumentValue {
    let mut table = TableBuilder::default();
    for (name, number) in estimate.numbers() {
        table.set_some(name, number.map(DocumentValue::Count));
    }
    let members = estimate.maximum_from.map(|members| {
        let members = members.iter().map(|member| text(member.as_str()));
        DocumentValue::List(members.collect())
    });
    table.set_some("maximum_from", members);
    DocumentValue::Table(table.0)
}

fn models(models: &Models) -> Result<DocumentValue, ConfigError> {
    let Models {
        source,
        in_path,
        routes,
        models,
        otherwise,
        unread,
    } = models;
    let source = match source {
        ModelSource::Body => Some(text("body")),
        ModelSource::Code => Some(text("code")),
        ModelSource::Header(name) => Some(DocumentValue::Table(vec![(
            "header".to_owned(),
            text(&**name),
        )])),
        ModelSource::Path => None,
        ModelSource::Closure(_) => return Err(unwritable("models.by", "a closure")),
    };
    let mut table = TableBuilder::default();
    match (source, in_path) {
        (Some(source), None) => table.set(BY, source),
        (source, in_path) => {
            let mut by = TableBuilder::default();
            by.set_some("path", in_path.as_ref().map(|name| text(&**name)));
            by.set_some("otherwise", source);
            table.set(BY, DocumentValue::Table(by.0));
        }
    }
    table.set_all(ON, routes.iter().map(|key| text(&**key)).collect());
    table.set_some(OTHERWISE, otherwise.as_ref().map(limits));
    table.set_some(UNREAD, unread.as_ref().map(limits));
    for (name, own) in models {
        if is_setting(name) {
            return Err(unwritable(
                &format!("models.{name}"),
                "a model of this name",
            ));
        }
        table.set(name, limits(own));
    }
    Ok(DocumentValue::Table(table.0))
}

fn clients(clients: &Clients) -> Result<DocumentValue, ConfigError> {
    let Clients {
        sources,
        trusted,
        forwarding,
        ipv6_prefix,
        each,
        plans,
        members,
        plan_by,
        max_clients,
        secret,
    } = clients;
    if secret.is_some() {
        return Err(unwritable("clients.secret", "a secret"));
    }
    if plan_by.is_some() {
        return Err(unwritable("clients.plan_by", "a closure"));
    }
    if !members.is_empty() {
        return Err(unwritable(
            "clients.members",
            "a member's key, which is kept only as a hash,",
        ));
    }
    let mut by = Vec::new();
    for source in sources {
        by.push(match source {
            IdentitySource::Header(name) => {
                DocumentValue::Table(vec![("header".to_owned(), text(&**name))])
            }
            IdentitySource::Host(hosts) => {
                let hosts = hosts.iter().map(|host| text(&**host));
                let hosts = DocumentValue::List(hosts.collect());
                DocumentValue::Table(vec![("hosts".to_owned(), hosts)])
            }
            IdentitySource::Bearer => text("bearer"),
            IdentitySource::Address => text("address"),
            IdentitySource::Closure(_) => return Err(unwritable("clients.by", "a closure")),
        });
    }
    if by.is_empty() {
        by.push(text("code"));
    }
    let defaults = Clients::by_address();
    let mut table = TableBuilder::default();
    table.set_all("by", by);
    table.set_all(
        "trusted_proxies",
        trusted.iter().map(|network| text(&**network)).collect(),
    );
    if *forwarding != defaults.forwarding {
        let word = FORWARDING.iter().find(|(_, value)| value == forwarding);
        table.set_some("forwarding", word.map(|(word, _)| text(*word)));
    }
    if *ipv6_prefix != defaults.ipv6_prefix {
        table.set("ipv6_prefix", DocumentValue::Count((*ipv6_prefix).into()));
    }
    if *max_clients != defaults.max_clients {
        table.set("max_clients", DocumentValue::Count(*max_clients as u64));
    }
    table.set_some("each", each.as_ref().map(plan));
    let plans = plans
        .iter()
        .map(|(name, own)| (name.to_string(), plan(own)));
    table.set_entries("plans", plans.collect());
    Ok(DocumentValue::Table(table.0))
}

fn plan(plan: &Plan) -> DocumentValue {
    // Exhaustive, so that a new field is thought about here.
    let Plan {
        limits: own,
        routes,
        models,
        other_models,
    } = plan;
    let mut table = TableBuilder::default();
    fill(own, &mut table);
    let named = |(name, own): &(Box<str>, Limits)| (name.to_string(), limits(own));
    table.set_entries("routes", routes.iter().map(named).collect());
    let otherwise = other_models.iter();
    let otherwise = otherwise.map(|own| (OTHERWISE.to_owned(), limits(own)));
    table.set_entries(
        "models",
        otherwise.chain(models.iter().map(named)).collect(),
    );
    DocumentValue::Table(table.0)
}
