//! The policies that limit, and what may be said of them.

use super::{
    element::Element,
    limits::{limit_concurrency, quota, quota_by_key, rate_limit, rate_limit_by_key, token_limit},
    policy_limits::PolicyLimits,
};
use crate::config::ConfigError;

/// A policy that limits, and what may be said of it.
struct Policy {
    name: &'static str,
    read: fn(Element<'_>, &mut PolicyLimits) -> Result<(), ConfigError>,
    attributes: &'static [&'static str],
    /// The attributes that name the fields and variables in which the policy tells its state.
    told: &'static [&'static str],
}

const POLICIES: [Policy; 7] = [
    Policy {
        name: "rate-limit",
        read: rate_limit,
        attributes: &["calls", "renewal-period"],
        told: CALLS,
    },
    Policy {
        name: "rate-limit-by-key",
        read: rate_limit_by_key,
        attributes: &[
            "calls",
            "renewal-period",
            "counter-key",
            "increment-condition",
            "increment-count",
        ],
        told: CALLS,
    },
    Policy {
        name: "quota",
        read: quota,
        attributes: &["calls", "bandwidth", "renewal-period"],
        told: &[],
    },
    Policy {
        name: "quota-by-key",
        read: quota_by_key,
        attributes: &[
            "calls",
            "bandwidth",
            "renewal-period",
            "counter-key",
            "increment-condition",
            "increment-count",
            "first-period-start",
        ],
        told: &[],
    },
    Policy {
        name: LIMIT_CONCURRENCY,
        read: limit_concurrency,
        attributes: &["key", "max-count"],
        told: &[],
    },
    Policy {
        name: "llm-token-limit",
        read: token_limit,
        attributes: TOKEN_LIMIT,
        told: TOKENS,
    },
    Policy {
        name: "azure-openai-token-limit",
        read: token_limit,
        attributes: TOKEN_LIMIT,
        told: TOKENS,
    },
];

/// The one that holds other policies.
const LIMIT_CONCURRENCY: &str = "limit-concurrency";

const CALLS: &[&str] = &[
    "retry-after-header-name",
    "retry-after-variable-name",
    "remaining-calls-header-name",
    "remaining-calls-variable-name",
    "total-calls-header-name",
];

const TOKEN_LIMIT: &[&str] = &[
    "counter-key",
    "tokens-per-minute",
    "estimate-prompt-tokens",
    "token-quota",
    "token-quota-period",
];

const TOKENS: &[&str] = &[
    "retry-after-header-name",
    "retry-after-variable-name",
    "remaining-tokens-header-name",
    "remaining-tokens-variable-name",
    "remaining-quota-tokens-header-name",
    "remaining-quota-tokens-variable-name",
    "tokens-consumed-header-name",
    "tokens-consumed-variable-name",
];

/// Returns whether a policy of this name limits.
pub(super) fn is_limit(name: &str) -> bool {
    POLICIES.iter().any(|policy| policy.name == name)
}

/// Returns whether an unknown policy of this name would limit: a misspelt one, or one newer than this list.
fn may_limit(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["limit", "quota"].iter().any(|word| name.contains(word))
}

/// Reads an element if it is a policy that limits.
pub(super) fn read(element: Element<'_>, found: &mut PolicyLimits) -> Result<bool, ConfigError> {
    let Some(policy) = POLICIES.iter().find(|policy| policy.name == element.name()) else {
        if !may_limit(element.name()) {
            return Ok(false);
        }
        let known = POLICIES.map(|Policy { name, .. }| name).join("`, `");
        return Err(element.fault(format!(
            "unknown policy; the policies that limit are `{known}`"
        )));
    };
    for attribute in element.attributes() {
        if policy.told.contains(&attribute) {
            found.warn(element.warning(attribute, told(attribute)));
        } else if !policy.attributes.contains(&attribute) {
            let known = policy.attributes.join("`, `");
            let fault = format!(
                "unknown attribute of `{}`; its attributes are `{known}`",
                policy.name
            );
            return Err(element.refuse(attribute, fault));
        }
    }
    let child = element.children().next();
    if let Some(child) = child.filter(|_| policy.name != LIMIT_CONCURRENCY) {
        return Err(child.fault(match child.name() {
            "api" | "operation" => {
                "the name of an API or an operation is not a path; remove it, and set its limits in Rust, with \
                 `Rules::route(\"POST /its/path\", …)` or, for each client, `Plan::route`"
            }
            _ => "unexpected element; write policies one after another",
        }));
    }
    (policy.read)(element, found)?;
    Ok(true)
}

fn told(attribute: &str) -> &'static str {
    match attribute.strip_suffix("-variable-name") {
        Some(_) => {
            "variables are not set; `ThrottleLayerBuilder::decision(DecisionIn::Request)` inserts a `Decision` into \
             the request's extensions"
        }
        None => {
            "header fields have fixed names here; `ThrottleLayerBuilder::rejection(Dialect::AzureApiManagement)` uses \
             those of API Management"
        }
    }
}
