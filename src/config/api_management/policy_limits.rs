//! The limits of the policies that were read so far.

use std::mem;

use super::{
    element::Element,
    key::{ClientSource, CounterKey},
};
use crate::{
    client::Clients,
    config::{ConfigError, Imported, Warning},
    limit::{in_flight::InFlight, limits::Limits, quota::Quota, rate::Rate},
    rules::Rules,
    usage::Estimate,
};

/// One limit, as a policy says it.
pub(super) enum PolicyLimit {
    Rate(Rate),
    Quota(Quota),
    Tokens(Rate),
    InFlight(InFlight),
}

/// The limits of policies, collected one by one.
#[derive(Debug, Default)]
pub(super) struct PolicyLimits {
    total: Limits,
    clients: Option<ClientLimits>,
    /// True if prompts are estimated. `None` where no model tokens are limited.
    estimated: Option<bool>,
    warnings: Vec<Warning>,
}

/// The limits of each client, the source that tells clients apart, and the path of the policy that names it.
#[derive(Debug)]
struct ClientLimits {
    identity: ClientSource,
    path: String,
    limits: Limits,
}

impl PolicyLimits {
    pub(super) fn warn(&mut self, warning: Warning) {
        self.warnings.push(warning);
    }

    /// Adds a limit to those of everybody or of each client. The key stands in `attribute`, or goes without saying.
    pub(super) fn add(
        &mut self,
        policy: Element<'_>,
        attribute: &str,
        key: CounterKey,
        limit: PolicyLimit,
    ) -> Result<(), ConfigError> {
        let limits = match key {
            CounterKey::Everybody => &mut self.total,
            CounterKey::Client(identity) => {
                if let Some(told) = self
                    .clients
                    .as_ref()
                    .filter(|told| told.identity != identity)
                {
                    let ClientLimits {
                        identity: other,
                        path,
                        ..
                    } = told;
                    let fault = format!(
                        "clients are identified by {identity} here and by {other} in `{path}`; a throttle identifies \
                         clients in one way: keep one, or put two throttles around the service"
                    );
                    return Err(policy.refuse(attribute, fault));
                }
                if self.clients.is_none() {
                    self.warnings.extend(
                        caution(&identity).map(|caution| policy.warning(attribute, caution)),
                    );
                }
                let told = self.clients.get_or_insert_with(|| ClientLimits {
                    identity,
                    path: policy.path(),
                    limits: Limits::new(),
                });
                &mut told.limits
            }
        };
        let others = mem::take(limits);
        *limits = match limit {
            PolicyLimit::Rate(rate) => others.rate(rate),
            PolicyLimit::Quota(quota) => others.quota(quota),
            PolicyLimit::Tokens(rate) => others.tokens(rate),
            PolicyLimit::InFlight(cap) => others.in_flight(cap),
        };
        Ok(())
    }

    /// Notes whether a policy has prompts estimated. One estimate serves all policies.
    pub(super) fn estimate(&mut self, policy: Element<'_>, attribute: &str, estimated: bool) {
        match self.estimated {
            None => {
                let settle = "the cost of an answer is counted by a handler's `Usage`, or read from the answer with \
                              `ThrottleLayerBuilder::usage_from_answers`";
                self.warn(policy.warning("", settle));
                if estimated {
                    self.warn(policy.warning(attribute, BY_LENGTH));
                }
            }
            Some(other) if other != estimated => {
                let both = "all policies share one estimate, and another policy differs; `true` is used for both";
                self.warn(policy.warning(attribute, both));
                if estimated {
                    self.warn(policy.warning(attribute, BY_LENGTH));
                }
            }
            Some(_) => {}
        }
        self.estimated = Some(estimated || self.estimated == Some(true));
    }

    pub(super) fn into_imported(self, root: Element<'_>) -> Imported {
        let Self {
            total,
            clients,
            estimated,
            mut warnings,
        } = self;
        let mut rules = Rules::new();
        let nothing = Limits::new();
        if total == nothing && clients.is_none() {
            warnings.push(Warning::new(
                root.name(),
                "no limit was found; nothing is limited",
            ));
        }
        if total != nothing {
            rules = rules.total(total);
        }
        if let Some(ClientLimits {
            identity,
            limits,
            path: _,
        }) = clients
        {
            let clients = match identity {
                ClientSource::Address => Clients::by_address(),
                ClientSource::Header(name) => Clients::by_header(name),
            };
            rules = rules.clients(clients.each(limits));
        }
        match estimated {
            // The cost is charged when it is known.
            Some(false) => rules = rules.estimate(Estimate::fixed(1)),
            Some(true) => rules = rules.estimate(Estimate::by_content_length(4)),
            None => {}
        }
        Imported { rules, warnings }
    }
}

const BY_LENGTH: &str =
    "prompts are not read; one token is reserved for every four bytes of the body";

/// Returns what to know before clients are told apart like this.
fn caution(identity: &ClientSource) -> Option<&'static str> {
    match identity {
        ClientSource::Address => Some(
            "the address is the peer's; behind a proxy all clients share the proxy's address, unless the proxy is \
             declared in Rust with `Clients::trusted_proxies`",
        ),
        subscription if *subscription == ClientSource::subscription() => Some(
            "a subscription is identified only by the header `Ocp-Apim-Subscription-Key`, so that its two keys are \
             two clients, and requests without a key share one client's limits; verify the key outside of the throttle",
        ),
        ClientSource::Header(name) if name == "x-forwarded-for" => Some(
            "clients can forge `X-Forwarded-For`; use the address, in Rust with \
             `Clients::trusted_proxies`",
        ),
        ClientSource::Header(_) => None,
    }
}
