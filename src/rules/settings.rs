//! Settings of rules that are no limits, in words, so that a reload can tell those that it changes.

use std::{collections::HashMap, hash::BuildHasher};

use foldhash::fast::FixedState;

use super::{Rules, Undeclared};
use crate::{
    client::{Clients, IdentitySource},
    limit::{
        limits::{Access, Degrade, Limits},
        price::Prices,
        reservation::Reservation,
    },
    model::{ModelSource, Models},
    response::RouteRejection,
    route::CatchAll,
    usage::{BodyEstimate, Estimate, EstimateSource},
};

/// All settings that are not what they are without being set, in the order of the rules.
#[derive(Debug, Default)]
pub(super) struct Settings(Vec<SetValue>);

#[derive(Debug)]
struct SetValue {
    /// The place where the value is set: empty, or as in ``route `GET /a` ``.
    place: String,
    name: &'static str,
    value: String,
    /// The value without the setting.
    default: &'static str,
    /// Stands for what is set and not told, such as keys of clients.
    untold: u64,
}

/// One setting that differs: where it is set, its name, and its values before and after.
pub(super) type Difference = (String, &'static str, String, String);

impl Settings {
    pub(super) fn of(rules: &Rules) -> Self {
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
        let mut settings = Self::default();
        settings.set(
            "",
            "undeclared",
            "per_route",
            match undeclared {
                Undeclared::PerRoute => "per_route".to_owned(),
                Undeclared::Shared => "shared".to_owned(),
            },
        );
        settings.set(
            "",
            "catch_all",
            "unmatched",
            match catch_all {
                CatchAll::Unmatched => "unmatched".to_owned(),
                CatchAll::Unrouted => "unrouted".to_owned(),
            },
        );
        settings.set(
            "",
            "estimate",
            "a token for 4 bytes, otherwise 1",
            self::estimate(estimate),
        );
        for (name, own) in &estimate.models {
            let place = format!("estimate of `{name}`");
            settings.set(&place, "estimate", "none", weights(own));
        }
        if cost_by.is_some() {
            settings.set("", "cost_by", "none", "custom".to_owned());
        }
        if let Some(limits) = total {
            settings.limits("total", limits);
        }
        if let Some(limits) = default_route {
            settings.limits("default route", limits);
        }
        for (key, limits) in routes {
            settings.limits(&format!("route `{key}`"), limits);
        }
        if let Some(models) = models {
            settings.models(models);
        }
        if let Some(prices) = prices {
            settings.prices(prices);
        }
        if let Some(clients) = clients {
            settings.clients(clients);
        }
        for RouteRejection { key, dialect, .. } in &rejections.0 {
            let value =
                dialect.map_or_else(|| "custom".to_owned(), |dialect| format!("{dialect:?}"));
            settings.set(&format!("route `{key}`"), "rejection", "the layer's", value);
        }
        settings
    }

    fn set(&mut self, place: &str, name: &'static str, default: &'static str, value: String) {
        self.set_untold(place, name, default, value, 0);
    }

    fn set_untold(
        &mut self,
        place: &str,
        name: &'static str,
        default: &'static str,
        value: String,
        untold: u64,
    ) {
        if value != default {
            self.0.push(SetValue {
                place: place.to_owned(),
                name,
                value,
                default,
                untold,
            });
        }
    }

    fn limits(&mut self, place: &str, limits: &Limits) {
        let Limits {
            max_wait,
            max_waiting,
            publish,
            access,
            reservation:
                Reservation {
                    max_tokens,
                    max_percent,
                },
            cached_input_percent,
            cost,
            keep,
            refund_failures,
            usage_from_answers,
            degrade,
            // Limits have changes of their own, and so have their names.
            rates: _,
            quotas: _,
            tokens: _,
            input_tokens: _,
            output_tokens: _,
            spend: _,
            in_flight: _,
            name: _,
        } = limits;
        if let Some(wait) = max_wait {
            self.set(place, "max_wait", "none", format!("{wait:?}"));
        }
        if let Some(requests) = max_waiting {
            self.set(place, "max_waiting", "default", requests.to_string());
        }
        if let Some(publish) = publish {
            self.set(place, "publish", "default", publish.to_string());
        }
        if let Some(tokens) = max_tokens {
            self.set(place, "max_tokens_per_request", "none", tokens.to_string());
        }
        if let Some(percent) = max_percent {
            self.set(
                place,
                "max_reservation_percent",
                "default",
                percent.to_string(),
            );
        }
        if let Some(percent) = cached_input_percent {
            self.set(place, "cached_input_percent", "100", percent.to_string());
        }
        if let Some(cost) = cost {
            self.set(place, "cost", "1", cost.to_string());
        }
        if let Some(keep) = keep {
            self.set(place, "keep", "false", keep.to_string());
        }
        if let Some(refund) = refund_failures {
            self.set(place, "refund_failures", "false", refund.to_string());
        }
        if let Some(read) = usage_from_answers {
            self.set(
                place,
                "usage_from_answers",
                "as the throttle",
                read.to_string(),
            );
        }
        if let Some(degrade) = degrade {
            let Degrade { limits, after } = &**degrade;
            self.set(place, "degrade after", "0ns", format!("{after:?}"));
            self.limits(&format!("{place}, degrade"), limits);
        }
        match access {
            // A closed one is a limit.
            Access::Limited | Access::Closed => {}
            Access::Unlimited => self.set(place, "access", "limited", "unlimited".to_owned()),
            Access::Exempt => self.set(place, "access", "limited", "exempt".to_owned()),
        }
    }

    fn models(&mut self, models: &Models) {
        let Models {
            source,
            in_path,
            routes,
            models,
            otherwise,
            unread,
        } = models;
        let place = "models";
        let source = match source {
            ModelSource::Body => "body".to_owned(),
            ModelSource::Header(name) => format!("header `{name}`"),
            ModelSource::Path => String::new(),
            ModelSource::Closure(_) => "custom".to_owned(),
            #[cfg(feature = "config")]
            ModelSource::Code => "code".to_owned(),
        };
        let in_path = in_path
            .as_ref()
            .map(|name| format!("path parameter `{name}`"));
        let source = match in_path {
            Some(in_path) if source.is_empty() => in_path,
            Some(in_path) => format!("{in_path}, or else {source}"),
            None => source,
        };
        self.set(place, "found by", "none", source);
        self.set(
            place,
            "on",
            "all routes",
            match routes.is_empty() {
                true => "all routes".to_owned(),
                false => routes.join(", "),
            },
        );
        let named = models.iter().map(|(name, limits)| (&**name, limits));
        let others = [("otherwise", otherwise), ("unread", unread)];
        let others = others
            .into_iter()
            .filter_map(|(name, it)| Some((name, it.as_ref()?)));
        for (name, limits) in named.chain(others) {
            self.limits(&format!("model `{name}`"), limits);
        }
        if unread.is_some() {
            self.set(
                place,
                "unread",
                "every model",
                "limits of its own".to_owned(),
            );
        }
    }

    fn prices(&mut self, prices: &Prices) {
        let Prices { models, otherwise } = prices;
        let named = models.iter().map(|(name, price)| (&**name, price));
        let others = otherwise.iter().map(|price| ("otherwise", price));
        for (name, price) in named.chain(others) {
            let amounts = price.amounts().into_iter();
            let amounts = amounts.filter_map(|(kind, amount)| Some(format!("{kind} {}", amount?)));
            let amounts: Vec<_> = amounts.collect();
            let place = format!("price of `{name}`");
            self.set(&place, "price", "none", amounts.join(", "));
        }
    }

    fn clients(&mut self, clients: &Clients) {
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
        let place = "clients";
        let source = |source: &IdentitySource| match source {
            IdentitySource::Header(name) => format!("header `{name}`"),
            IdentitySource::Bearer => "bearer".to_owned(),
            IdentitySource::Host(hosts) => format!("host of {}", hosts.join(" ")),
            IdentitySource::Address => "address".to_owned(),
            IdentitySource::Closure(_) => "custom".to_owned(),
        };
        let sources: Vec<_> = sources.iter().map(source).collect();
        self.set(place, "identified by", "none", sources.join(", then "));
        if !trusted.is_empty() {
            self.set(place, "trusted_proxies", "none", trusted.join(" "));
        }
        self.set(place, "forwarding", "", format!("{forwarding:?}"));
        self.set(place, "ipv6_prefix", "", ipv6_prefix.to_string());
        self.set(place, "max_clients", "", max_clients.to_string());
        let given = |is_given: bool| if is_given { "set" } else { "none" }.to_owned();
        self.set(place, "secret", "none", given(secret.is_some()));
        self.set(place, "plan_by", "none", given(plan_by.is_some()));
        let each = each.iter().map(|plan| ("each client".to_owned(), plan));
        let named = plans
            .iter()
            .map(|(name, plan)| (format!("plan `{name}`"), plan));
        for (place, plan) in each.chain(named) {
            self.limits(&place, &plan.limits);
            for (key, limits) in &plan.routes {
                self.limits(&format!("{place}, route `{key}`"), limits);
            }
            for (name, limits) in &plan.models {
                self.limits(&format!("{place}, model `{name}`"), limits);
            }
            if let Some(limits) = &plan.other_models {
                self.limits(&format!("{place}, model `otherwise`"), limits);
            }
        }
        let mut of_plans: HashMap<&str, (usize, u64)> = HashMap::new();
        for (plan, member) in members {
            let (count, untold) = of_plans.entry(plan).or_default();
            *count += 1;
            *untold = untold.wrapping_add(FixedState::default().hash_one(member.bits()));
        }
        for (plan, _) in plans {
            let (count, untold) = of_plans.get(&**plan).copied().unwrap_or_default();
            self.set_untold(
                &format!("plan `{plan}`"),
                "members",
                "0",
                count.to_string(),
                untold,
            );
        }
    }

    fn by_name(&self) -> HashMap<(&str, &str), &SetValue> {
        let settings = self.0.iter();
        settings
            .map(|setting| ((&*setting.place, setting.name), setting))
            .collect()
    }

    /// All settings that differ: by the order of the new rules, and then those that are not set any more.
    pub(super) fn between(before: &Self, after: &Self) -> Vec<Difference> {
        let (old, new) = (before.by_name(), after.by_name());
        let of_default = |default: &str| match default {
            "" => "none".to_owned(),
            default => default.to_owned(),
        };
        let mut all = Vec::new();
        for setting in &after.0 {
            let SetValue {
                place,
                name,
                value,
                default,
                untold,
            } = setting;
            let (before, after) = match old.get(&(&**place, *name)) {
                Some(old) if old.value == *value && old.untold == *untold => continue,
                Some(old) if old.value == *value => (old.value.clone(), format!("{value} others")),
                Some(old) => (old.value.clone(), value.clone()),
                None => (of_default(default), value.clone()),
            };
            all.push((place.clone(), *name, before, after));
        }
        for setting in &before.0 {
            let SetValue {
                place,
                name,
                value,
                default,
                ..
            } = setting;
            if !new.contains_key(&(&**place, *name)) {
                all.push((place.clone(), *name, value.clone(), of_default(default)));
            }
        }
        all
    }
}

/// The weights that are set.
fn weights(estimate: &BodyEstimate) -> String {
    let numbers = estimate.numbers().into_iter();
    let numbers = numbers.filter_map(|(name, number)| Some(format!("{name} {}", number?)));
    let members = estimate.maximum_from.map(|members| {
        let members: Vec<_> = members.iter().map(|member| format!("`{member}`")).collect();
        match members.is_empty() {
            true => "maximum_from none".to_owned(),
            false => format!("maximum_from {}", members.join(" or ")),
        }
    });
    let parts: Vec<_> = numbers.chain(members).collect();
    match parts.is_empty() {
        true => "default weights".to_owned(),
        false => parts.join(", "),
    }
}

fn estimate(estimate: &Estimate) -> String {
    let (source, otherwise, is_exact) = estimate.parts();
    let numbers = match source {
        EstimateSource::Nothing => format!("{otherwise} tokens"),
        EstimateSource::Header(name) => format!("header `{name}`, otherwise {otherwise}"),
        EstimateSource::ContentLength { bytes_per_token } => {
            format!("a token for {bytes_per_token} bytes, otherwise {otherwise}")
        }
        EstimateSource::Body(body) => {
            let weights = weights(body);
            format!("from the body ({weights}), otherwise {otherwise}")
        }
        EstimateSource::Closure(_) => format!("custom, otherwise {otherwise}"),
    };
    match is_exact {
        true => format!("{numbers}, exact"),
        false => numbers,
    }
}
