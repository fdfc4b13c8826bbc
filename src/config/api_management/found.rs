//! What was found so far.

use std::mem;

use super::{
    element::Element,
    key::{Identity, Key},
};
use crate::{
    client::Clients,
    config::{ConfigError, Imported, Warning},
    limit::{in_flight::InFlight, limits::Limits, quota::Quota, rate::Rate},
    rules::Rules,
    usage::Estimate,
};

/// One limit, as a policy says it.
pub(super) enum Limit {
    Rate(Rate),
    Quota(Quota),
    Tokens(Rate),
    InFlight(InFlight),
}

#[derive(Debug, Default)]
pub(super) struct Found {
    total: Limits,
    clients: Option<Told>,
    /// Whether prompts are estimated, where model tokens are limited.
    estimated: Option<bool>,
    warnings: Vec<Warning>,
}

/// How clients are told apart, who says so, and what each of them may do.
#[derive(Debug)]
struct Told {
    identity: Identity,
    path: String,
    limits: Limits,
}

impl Found {
    pub(super) fn warn(&mut self, warning: Warning) {
        self.warnings.push(warning);
    }

    /// Adds a limit to those of everybody or of each client. The key stands in `attribute`, or goes without saying.
    pub(super) fn add(
        &mut self,
        policy: Element<'_>,
        attribute: &str,
        key: Key,
        limit: Limit,
    ) -> Result<(), ConfigError> {
        let limits = match key {
            Key::Everybody => &mut self.total,
            Key::Client(identity) => {
                if let Some(told) = self
                    .clients
                    .as_ref()
                    .filter(|told| told.identity != identity)
                {
                    let Told {
                        identity: other,
                        path,
                        ..
                    } = told;
                    let fault = format!(
                        "clients are told apart by {identity} here and by {other} in `{path}`; a throttle does so in \
                         one way: keep one, or put two throttles around the service"
                    );
                    return Err(policy.refuse(attribute, fault));
                }
                if self.clients.is_none() {
                    self.warnings.extend(
                        caution(&identity).map(|caution| policy.warning(attribute, caution)),
                    );
                }
                let told = self.clients.get_or_insert_with(|| Told {
                    identity,
                    path: policy.path(),
                    limits: Limits::new(),
                });
                &mut told.limits
            }
        };
        let others = mem::take(limits);
        *limits = match limit {
            Limit::Rate(rate) => others.rate(rate),
            Limit::Quota(quota) => others.quota(quota),
            Limit::Tokens(rate) => others.tokens(rate),
            Limit::InFlight(cap) => others.in_flight(cap),
        };
        Ok(())
    }

    /// Whether prompts are estimated. One estimate serves all policies.
    pub(super) fn estimate(&mut self, policy: Element<'_>, attribute: &str, estimated: bool) {
        match self.estimated {
            None => {
                let settle = "what an answer has cost is told by a handler's `Usage`, or read from it with \
                              `ThrottleLayer::usage_from_openai_response`";
                self.warn(policy.warning("", settle));
                if estimated {
                    self.warn(policy.warning(attribute, BY_LENGTH));
                }
            }
            Some(other) if other != estimated => {
                let both = "one estimate serves all policies, and another one says otherwise: `true` holds for both";
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
                "no limit was found, so nothing is limited",
            ));
        }
        if total != nothing {
            rules = rules.total(total);
        }
        if let Some(Told {
            identity,
            limits,
            path: _,
        }) = clients
        {
            let clients = match identity {
                Identity::Address => Clients::by_address(),
                Identity::Header(name) => Clients::by_header(name.as_str().to_owned()),
            };
            rules = rules.clients(clients.each(limits));
        }
        match estimated {
            // What it cost is charged when it is known.
            Some(false) => rules = rules.estimate(Estimate::fixed(1)),
            Some(true) => rules = rules.estimate(Estimate::by_content_length(4)),
            None => {}
        }
        Imported { rules, warnings }
    }
}

const BY_LENGTH: &str =
    "prompts are not read: one token is reserved for each four bytes of the body";

/// What to know before clients are told apart like this.
fn caution(identity: &Identity) -> Option<&'static str> {
    match identity {
        Identity::Address => Some(
            "the address is that of the peer; behind a proxy all clients have its address, unless they are written \
             in Rust with `Clients::trusting`",
        ),
        subscription if *subscription == Identity::subscription() => Some(
            "a subscription is known by the header `Ocp-Apim-Subscription-Key` alone, so its two keys are two \
             clients, and those who send none share the limits of one; the key has to be verified outside of the \
             throttle",
        ),
        Identity::Header(name) if name == "x-forwarded-for" => Some(
            "whoever sends it may write into `X-Forwarded-For` what it likes; use the address, in Rust with \
             `Clients::trusting`",
        ),
        Identity::Header(_) => None,
    }
}
