use std::time::Duration;

use crate::{error::debug_as_display, route::RouteKeyError};

/// An error in rules: contradictory or invalid settings. It names the setting at fault, such as a route key or a limit.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RulesError {
    /// A route key that cannot be read.
    #[error("route key `{key}`: {fault}")]
    #[non_exhaustive]
    RouteKey {
        /// The key as written.
        key: String,
        /// The fault of the key.
        fault: RouteKeyError,
    },
    /// Two keys for one route.
    #[error("route keys `{first}` and `{second}` mean the same route; keep one of them")]
    #[non_exhaustive]
    SameRoute {
        /// The key declared first.
        first: String,
        /// The key that repeats it.
        second: String,
    },
    /// A name that a header field or a metric could not carry.
    #[error(
        "{place}: name `{name}`: a name has 1 to 64 of the characters A-Z, a-z, 0-9 and _, such as `chat_daily`"
    )]
    #[non_exhaustive]
    Name {
        /// The place of the name in the rules.
        place: String,
        /// The name.
        name: String,
    },
    /// A name that is too long for header fields, metrics and logs.
    #[error("{place}: name `{beginning}…` has {length} characters; use at most 64")]
    #[non_exhaustive]
    LongName {
        /// The place where the name was given.
        place: String,
        /// The first 64 characters of the name.
        beginning: String,
        /// The number of characters of the name.
        length: usize,
    },
    /// Two limits of one name.
    #[error("{place}: name `{name}` is already used by {other}; choose another name")]
    #[non_exhaustive]
    SameName {
        /// The place where the name was given again.
        place: String,
        /// The place where the name was given first.
        other: String,
        /// The name.
        name: String,
    },
    /// A rate without a period.
    #[error("{place}: a rate of {count} has a period of zero; give a period above zero")]
    #[non_exhaustive]
    Period {
        /// The place where the rate stands.
        place: String,
        /// The rate's count.
        count: u64,
    },
    /// A bucket that takes longer than 146 years to fill.
    #[error(
        "{place}: a burst of {burst} refilled by {count} in {period:?} takes longer than 2^62 ns \
         (146 years) to refill; lower the burst or raise the rate"
    )]
    #[non_exhaustive]
    TooSlow {
        /// The place where the rate stands.
        place: String,
        /// The rate's count.
        count: u64,
        /// The rate's period.
        period: Duration,
        /// The burst.
        burst: u64,
    },
    /// A quota without a window, with one of more than 2^61 ns (73 years), or with more requests than its window
    /// has nanoseconds.
    #[error(
        "{place}: a quota of {count} in a window of {window:?}; a window is longer than zero, at most 73 years, \
         and holds at most one request a nanosecond"
    )]
    #[non_exhaustive]
    Quota {
        /// The place where the quota stands.
        place: String,
        /// The quota's count.
        count: u64,
        /// The length of its shortest window.
        window: Duration,
    },
    /// A name in [`Clients::by_header`](crate::Clients::by_header) that no header field can have.
    #[error("clients: `{name}` is not a valid header name; write one such as `x-api-key`")]
    #[non_exhaustive]
    ClientHeader {
        /// The name as written.
        name: String,
    },
    /// An entry of [`Clients::by_host`](crate::Clients::by_host) that is no host.
    #[error(
        "clients: `{host}` is not a host; write a name or an address, such as `api.example.com`, `192.0.2.1` or \
         `[::1]`, with or without a port"
    )]
    #[non_exhaustive]
    ClientHost {
        /// The host as written.
        host: String,
    },
    /// [`Clients::by_host`](crate::Clients::by_host) without a host.
    #[error("clients: identified by host, but no host is listed; list the hosts that are clients")]
    NoHosts,
    /// An entry of [`Clients::trusted_proxies`](crate::Clients::trusted_proxies) that is no network.
    #[error(
        "clients: trusted proxy `{network}` is not an address or network; write one such as `10.0.0.0/8`"
    )]
    #[non_exhaustive]
    Network {
        /// The network as written.
        network: String,
    },
    /// A network of IPv4 addresses within IPv6 with fewer than the 96 bits that all of them share. No peer is in it,
    /// since such addresses are compared as IPv4.
    #[error(
        "clients: trusted proxy `{network}` is IPv4 within IPv6 with fewer than 96 bits, so that no peer is in it; \
         write an IPv4 network, such as `10.0.0.0/8`"
    )]
    #[non_exhaustive]
    MappedNetwork {
        /// The network as written.
        network: String,
    },
    /// An IPv6 prefix of more bits than an address has.
    #[error("clients: an IPv6 prefix of {bits} bits is too long; use at most 128")]
    #[non_exhaustive]
    Ipv6Prefix {
        /// The bits as written.
        bits: u8,
    },
    /// A plan that was not declared.
    #[error("clients: plan `{name}` has members but is not declared; declare it among the plans")]
    #[non_exhaustive]
    UnknownPlan {
        /// The plan's name.
        name: String,
    },
    /// A member of a plan with a key that no source can find.
    #[error(
        "clients: a member of plan `{plan}` has a key that identifies no client: addresses are not keys, header \
         fields and tokens are strings, not numbers, arrays or tuples, and hosts are those \
         listed; use `.plan_by(…)`, or give the key as it is sent"
    )]
    #[non_exhaustive]
    UnknownMember {
        /// The plan's name.
        plan: String,
    },
    /// Trusted proxies without a source that reads addresses.
    #[error(
        "clients: `trusted_proxies` is set, but no client is identified by address; identify clients by address as \
         well, or remove `trusted_proxies`"
    )]
    #[non_exhaustive]
    UnusedProxies,
    /// Two plans of one name.
    #[error("clients: plan `{name}` is declared twice; keep one of them")]
    #[non_exhaustive]
    SamePlan {
        /// The plan's name.
        name: String,
    },
    /// Clients of a document that leaves it to code to tell them apart, and no code does.
    #[error(
        "clients: `by` is `code`, but no code identifies clients; call `Clients::identify_by` in `Rules::map_clients`, or \
         write `by` such as `address`"
    )]
    #[non_exhaustive]
    NoIdentity,
    /// No limits for clients without a plan.
    #[error(
        "clients: no limits are set for clients without a plan; set `each` to limits, `unlimited` or `closed`"
    )]
    #[non_exhaustive]
    NoEach,
    /// More buckets for clients than fit into memory.
    #[error("clients: no memory for a table of {max_clients} buckets; lower `max_clients`")]
    #[non_exhaustive]
    MaxClients {
        /// The capacity asked for.
        max_clients: usize,
    },
    /// A reload with another size of the table of clients, which the first rules with clients fix.
    #[error(
        "clients: `max_clients` cannot change from {present} to {max_clients} in a reload; it is fixed for the \
         lifetime of the throttle"
    )]
    #[non_exhaustive]
    MaxClientsFixed {
        /// The capacity asked for.
        max_clients: usize,
        /// The capacity that it has.
        present: usize,
    },
    /// A secret that is too short.
    #[error(
        "clients: the secret has {length} bytes; use at least 16 random bytes, since whoever guesses it can tell \
         which bucket is whose"
    )]
    #[non_exhaustive]
    Secret {
        /// The number of bytes of the secret.
        length: usize,
    },
    /// Another secret in a reload, or none. Every client would be a new one.
    #[error("clients: the secret cannot change in a reload; give the same secret again")]
    SecretFixed,
    /// Shared limits of clients without a secret.
    #[error(
        "clients: limits are kept in a shared store, but no secret is set to hash clients with; add `.secret(…)`, the \
         same for all replicas"
    )]
    NoSecret,
    /// A largest request in model tokens where no model tokens are limited.
    #[error(
        "{place}: `max_tokens_per_request` is {most}, but no model tokens are limited there; add `tokens`, or remove \
         `max_tokens_per_request`"
    )]
    #[non_exhaustive]
    NoTokens {
        /// The place where the limits stand.
        place: String,
        /// The largest request, in model tokens.
        most: u64,
    },
    /// A [weight of cached input](crate::Limits::cached_input_percent) above 100 percent.
    #[error("{place}: `cached_input_percent` is {percent}; write 0 to 100")]
    #[non_exhaustive]
    CachedInputPercent {
        /// The place where the limits stand.
        place: String,
        /// The weight, in percent.
        percent: u8,
    },
    /// A [weight of cached input](crate::Limits::cached_input_percent) where no input is counted.
    #[error(
        "{place}: `cached_input_percent` is set, but no input is counted there; add `tokens` or `input_tokens`, or \
         remove `cached_input_percent`"
    )]
    #[non_exhaustive]
    NoCachedInput {
        /// The place where the limits stand.
        place: String,
    },
    /// An amount of money that cannot be kept: see [`Spend`](crate::Spend).
    #[error("{place}: spend: `{amount}` {fault}")]
    #[non_exhaustive]
    Spend {
        /// The place where the limits stand.
        place: String,
        /// The amount.
        amount: String,
        /// The fault of the amount.
        fault: String,
    },
    /// [Money](crate::Limits::spend) that is limited in rules without prices.
    #[error(
        "{place}: `spend` is set, but the rules have no prices; add `prices`, or remove `spend`"
    )]
    #[non_exhaustive]
    NoPrices {
        /// The place where the limits stand.
        place: String,
    },
    /// A price that cannot be kept: see [`Price`](crate::Price).
    #[error("prices: `{model}`: {kind} of `{amount}` {fault}")]
    #[non_exhaustive]
    Price {
        /// The name of the model, or `otherwise`.
        model: String,
        /// The kind of tokens that the price is of: `input`, `cached_input`, `cache_write` or `output`.
        kind: &'static str,
        /// The price as it was written.
        amount: String,
        /// The fault of the price.
        fault: String,
    },
    /// A price without an amount for a kind of tokens.
    #[error("prices: `{model}` has no price of {kind}; add one, or write \"0\" if it is free")]
    #[non_exhaustive]
    PriceMissing {
        /// The name of the model, or `otherwise`.
        model: String,
        /// The kind of tokens: `input` or `output`.
        kind: &'static str,
    },
    /// Prices without one of all other models.
    #[error("prices: none is set for models that are not named; add `otherwise`")]
    NoOtherPrice,
    /// The price of a model in rules that do not tell models apart.
    #[error(
        "prices: model `{name}` has a price, but the rules do not tell models apart; add `models`, or keep only \
         `otherwise`"
    )]
    #[non_exhaustive]
    PriceWithoutModels {
        /// The name of the model.
        name: String,
    },
    /// The price of a model whose name no request can match.
    #[error(
        "prices: `{name}` is no name of a model; write 1 to 256 bytes, with `*` at the end alone, such as `gpt-4o*`, \
         and neither `otherwise` nor `unread`"
    )]
    #[non_exhaustive]
    PriceName {
        /// The name as written.
        name: String,
    },
    /// Two prices of one model.
    #[error("prices: `{name}` has two prices; keep one of them")]
    #[non_exhaustive]
    SamePrice {
        /// The name.
        name: String,
    },
    /// A [cost](crate::Limits::cost) of zero.
    #[error(
        "{place}: a cost of zero takes nothing of a client's limits or the total's; write 1 or more"
    )]
    #[non_exhaustive]
    NoCost {
        /// The place where the cost stands.
        place: String,
    },
    /// A [cost](crate::Limits::cost) that a limit can never hold.
    #[error(
        "{place}: a cost of {cost} is more than limit `{limit}` holds, which is {capacity}; lower the cost, or raise the \
         limit"
    )]
    #[non_exhaustive]
    CostAbove {
        /// The place where the cost stands.
        place: String,
        /// The cost.
        cost: u64,
        /// The name of the limit.
        limit: String,
        /// The units that the limit holds when it is full.
        capacity: u64,
    },
    /// A [cost](crate::Limits::cost) of anything but a route or a model.
    #[error("{place}: `cost` is that of a route or a model in the rules; set it there")]
    #[non_exhaustive]
    CostPlace {
        /// The place where the cost stands.
        place: String,
    },
    /// A setting that only routes have, of anything but a route: [`Limits::keep`](crate::Limits::keep),
    /// [`Limits::refund_failures`](crate::Limits::refund_failures) or
    /// [`Limits::usage_from_answers`](crate::Limits::usage_from_answers).
    #[error(
        "{place}: `{setting}` is that of a route in the rules, or of the default route; set it there"
    )]
    #[non_exhaustive]
    RouteSetting {
        /// The place where it stands.
        place: String,
        /// The setting.
        setting: &'static str,
    },
    /// A name in [`Models::by_header`](crate::Models::by_header) that no header field can have.
    #[error("models: `{name}` is not a valid header name; write one such as `x-model`")]
    #[non_exhaustive]
    ModelHeader {
        /// The name as written.
        name: String,
    },
    /// A name in [`Models::by_path_param`](crate::Models::by_path_param) that is no parameter of a key whose requests
    /// have models.
    #[error(
        "models: no route key has a parameter `{name}`; add one, such as `POST /models/{{{name}}}/chat`, or correct its \
         name"
    )]
    #[non_exhaustive]
    ModelParameter {
        /// The name of the parameter.
        name: String,
    },
    /// Models of a document that leaves it to code to name them, and no code does.
    #[error(
        "models: `by` is `code`, but no code names models; call `Models::named_by` in `Rules::map_models`, or write `by` \
         such as `body`"
    )]
    NoModelSource,
    /// A name of a model that no request can match.
    #[error(
        "models: `{name}` is no name of a model; write 1 to 256 bytes, with `*` at the end alone, such as \
         `gpt-4o*`, and neither `otherwise` nor `unread`"
    )]
    #[non_exhaustive]
    ModelName {
        /// The name as written.
        name: String,
    },
    /// Two models of one name.
    #[error("models: `{name}` is declared twice; keep one of them")]
    #[non_exhaustive]
    SameModel {
        /// The name.
        name: String,
    },
    /// A key in [`Models::on`](crate::Models::on) that the rules do not have.
    #[error("models: route `{key}` has no limits in the rules; add the route, or correct its key")]
    #[non_exhaustive]
    ModelRoute {
        /// The key of the route.
        key: String,
    },
    /// Limits of clients on a model that the rules do not have.
    #[error(
        "{place}: model `{name}` is not declared; declare it among the models, or correct its name"
    )]
    #[non_exhaustive]
    UnknownModel {
        /// The place where the limits stand.
        place: String,
        /// The name of the model.
        name: String,
    },
    /// Too many limits of a kind in one scope.
    #[error("{place}: {count} {what} are too many; use at most 5")]
    #[non_exhaustive]
    TooMany {
        /// The place where the limits stand.
        place: String,
        /// `caps in flight` or `token rates`.
        what: &'static str,
        /// The number of these limits.
        count: usize,
    },
    /// A name in [`Estimate::by_header`](crate::usage::Estimate::by_header) that no header field can have.
    #[error("estimate: `{name}` is not a valid header name; write one such as `x-max-tokens`")]
    #[non_exhaustive]
    EstimateHeader {
        /// The name as written.
        name: String,
    },
    /// [`Estimate::from_body`](crate::usage::Estimate::from_body) without a number for bodies that are not read.
    #[error(
        "estimate: read from the body, but none is set for a body that is not read; add `or`, above the tokens of most \
         requests"
    )]
    UnreadEstimate,
    /// Weights [of a model](crate::usage::Estimate::model) for an estimate that is not read from the body.
    #[error(
        "estimate: model `{name}` has weights of its own, but the numbers are not read from the body; use \
         `Estimate::from_body`, or remove the weights"
    )]
    #[non_exhaustive]
    EstimateNotFromBody {
        /// The name of the model.
        name: String,
    },
    /// Weights [of a model](crate::usage::Estimate::model) in rules that do not tell models apart.
    #[error(
        "estimate: model `{name}` has weights of its own, but the rules do not tell models apart; add `models`, or \
         remove the weights"
    )]
    #[non_exhaustive]
    EstimateWithoutModels {
        /// The name of the model.
        name: String,
    },
    /// Weights of a model whose name no request can match.
    #[error(
        "estimate: `{name}` is no name of a model; write 1 to 256 bytes, with `*` at the end alone, such as `gpt-4o*`, \
         and neither `otherwise` nor `unread`"
    )]
    #[non_exhaustive]
    EstimateName {
        /// The name as written.
        name: String,
    },
    /// Two sets of weights of one model.
    #[error("estimate: model `{name}` has weights twice; keep one of them")]
    #[non_exhaustive]
    SameEstimate {
        /// The name.
        name: String,
    },
    /// [`Limits::exempt`](crate::Limits::exempt) on anything but a declared route with a named method and a plain path.
    #[error(
        "{place}: only a declared route with a named method and a path without parameters can be exempt, such as \
         `GET /health`"
    )]
    #[non_exhaustive]
    Exempt {
        /// The place where `exempt` stands.
        place: String,
    },
    /// Another setting together with [`Limits::exempt`](crate::Limits::exempt).
    #[error("{place}: `{setting}` cannot be combined with `exempt`; keep one of them")]
    #[non_exhaustive]
    BesideExempt {
        /// The place where the limits stand.
        place: String,
        /// The setting as files call it, such as `rate`.
        setting: &'static str,
    },
    /// Limits of clients on an exempt route.
    #[error(
        "{place}: `{exempt}` is exempt, so that no client's limit can hold there; keep one of them"
    )]
    #[non_exhaustive]
    OnExempt {
        /// The place where the limits of clients stand.
        place: String,
        /// The key of the exempt route.
        exempt: String,
    },
    /// A second budget where none can be, or one that is none; see [`Limits::degrade`](crate::Limits::degrade).
    #[error("{place}: `degrade`: {fault}")]
    #[non_exhaustive]
    Degrade {
        /// The place of the limits that have the second budget.
        place: String,
        /// The fault, and its correction.
        fault: &'static str,
    },
    /// Contradictory limits.
    #[error("{place}: a limit cannot be combined with `{access}`; keep one of them")]
    #[non_exhaustive]
    Contradiction {
        /// The place where the limits stand.
        place: String,
        /// `unlimited` or `closed`.
        access: &'static str,
    },
}

debug_as_display!(RulesError);
