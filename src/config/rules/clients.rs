//! Reads the settings of clients: how they are identified, and what each of them may do.

use super::{
    limits::{limits, limits_of, short},
    models::on_models,
    routes::by_route,
    words::one_of,
};
use crate::{
    client::{Clients, Forwarding, Plan},
    config::{
        document::{Cursor, Value},
        error::ConfigError,
    },
};

pub(super) const FORWARDING: [(&str, Forwarding); 2] = [
    ("x-forwarded-for", Forwarding::XForwardedFor),
    ("forwarded", Forwarding::Forwarded),
];

/// A setting that tells clients apart.
enum SourceSetting {
    Header(String),
    Hosts(Vec<String>),
    Bearer,
    Address,
    Code,
}

pub(super) fn clients(place: &Cursor<'_>) -> Result<Clients, ConfigError> {
    let mut fields = place.fields()?;
    let Some(by) = fields.get("by") else {
        return Err(
            place.fault("clients without `by`; write how they are identified, such as `address`")
        );
    };
    let sources = by.each(source)?;
    let mut clients = match &sources[..] {
        [SourceSetting::Header(name)] | [SourceSetting::Header(name), SourceSetting::Address] => {
            Clients::by_header(name)
        }
        [SourceSetting::Hosts(hosts)] | [SourceSetting::Hosts(hosts), SourceSetting::Address] => {
            Clients::by_host(hosts.clone())
        }
        [SourceSetting::Bearer] | [SourceSetting::Bearer, SourceSetting::Address] => {
            Clients::by_bearer()
        }
        [SourceSetting::Address] => Clients::by_address(),
        [SourceSetting::Code] => Clients::by_code(),
        _ => {
            return Err(by.fault(
                "write a header, hosts or `bearer`, then `address`, or one of them or `code` alone",
            ));
        }
    };
    if let [_, SourceSetting::Address] = &sources[..] {
        clients = clients.or_address();
    }
    if let Some(networks) = fields.get("trusted_proxies") {
        let networks = networks.each(|network| Ok(network.text()?.to_owned()))?;
        clients = clients.trusted_proxies(networks);
    }
    if let Some(forwarding) = fields.get("forwarding") {
        clients = clients.forwarding(one_of(&forwarding, &FORWARDING)?);
    }
    if let Some(bits) = fields.get("ipv6_prefix") {
        let bits_of_address = u8::try_from(bits.count()?).ok().filter(|bits| *bits <= 128);
        let Some(bits) = bits_of_address else {
            return Err(bits.fault("an IPv6 prefix has at most 128 bits"));
        };
        clients = clients.ipv6_prefix(bits);
    }
    if let Some(buckets) = fields.get("max_clients") {
        clients = clients.max_clients(usize::try_from(buckets.count()?).unwrap_or(usize::MAX));
    }
    if let Some(each) = fields.get("each") {
        clients = clients.each(plan(&each)?);
    }
    if let Some(plans) = fields.get("plans") {
        for (name, place) in plans.entries()? {
            clients = clients.plan(name.to_owned(), plan(&place)?);
        }
    }
    no_members(place)?;
    fields.end()?;
    Ok(clients)
}

/// Refuses members of plans, which some expect to stand here.
fn no_members(place: &Cursor<'_>) -> Result<(), ConfigError> {
    let members = ["member", "members"]
        .iter()
        .find_map(|name| place.peek(name));
    match members {
        Some(members) => Err(members.fault(
            "keys of clients are secrets and belong in code; call `Clients::member` in `Rules::map_clients`",
        )),
        None => Ok(()),
    }
}

/// `"bearer"`, `"address"`, `"code"`, `{ header = "x-api-key" }`, `{ hosts = ["api.example.com"] }`.
fn source(place: &Cursor<'_>) -> Result<SourceSetting, ConfigError> {
    match place.value() {
        Value::Text(text) if text == "bearer" => Ok(SourceSetting::Bearer),
        Value::Text(text) if text == "address" => Ok(SourceSetting::Address),
        Value::Text(text) if text == "code" => Ok(SourceSetting::Code),
        Value::Map(_) => {
            let mut fields = place.fields()?;
            let header = fields
                .get("header")
                .map(|name| name.text().map(str::to_owned));
            let hosts = fields
                .get("hosts")
                .map(|hosts| hosts.each(|host| host.text().map(str::to_owned)));
            fields.end()?;
            match (header.transpose()?, hosts.transpose()?) {
                (Some(name), None) => Ok(SourceSetting::Header(name)),
                (None, Some(hosts)) => Ok(SourceSetting::Hosts(hosts)),
                (None, None) => Err(place.fault("a table without `header` or `hosts`")),
                (Some(_), Some(_)) => Err(place.fault("`header` and `hosts`; write one of them")),
            }
        }
        _ => Err(place.fault(
            "write `bearer`, `address`, `code` or a table: `{ header = \"x-api-key\" }`, `{ hosts = [\"api.example.com\"] }`",
        )),
    }
}

/// Limits, and those of single routes and models.
fn plan(place: &Cursor<'_>) -> Result<Plan, ConfigError> {
    let Value::Map(_) = place.value() else {
        return short(place).map(Plan::new);
    };
    let mut fields = place.fields()?;
    no_members(place)?;
    let mut plan = Plan::new(limits_of(&mut fields)?);
    if let Some(routes) = fields.get("routes") {
        for (key, limits) in by_route(&routes, limits)? {
            plan = plan.route(key, limits);
        }
    }
    if let Some(models) = fields.get("models") {
        plan = on_models(&models, plan)?;
    }
    fields.end()?;
    Ok(plan)
}
