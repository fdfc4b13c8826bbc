//! Azure API Management: its limiting policies, as rules.
//!
//! ```
//! use tower_throttle::{ThrottleLayer, config::api_management, response::Dialect};
//!
//! let imported = api_management::policy(
//!     r#"<policies>
//!          <inbound>
//!            <base />
//!            <rate-limit calls="20" renewal-period="60" />
//!            <quota-by-key calls="10000" renewal-period="86400" counter-key="@(context.Subscription.Id)" />
//!          </inbound>
//!          <backend>
//!            <limit-concurrency key="model" max-count="8"><forward-request /></limit-concurrency>
//!          </backend>
//!        </policies>"#,
//! )?;
//! for warning in &imported.warnings {
//!     eprintln!("{warning}");
//! }
//! let throttle = ThrottleLayer::builder(imported.rules)
//!     .rejection(Dialect::AzureApiManagement)
//!     .build()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Supported policies
//!
//! A document (`policies`), a fragment, a section or a single policy can be read, as XML or as the portal shows it,
//! with unescaped quotes and `<` inside of expressions.
//!
//! | policy | becomes |
//! |---|---|
//! | `rate-limit`, `rate-limit-by-key` | a [`Rate`](crate::Rate) of `calls` in `renewal-period`, with a burst of `calls` |
//! | `quota`, `quota-by-key` | a [`Quota`](crate::Quota) of `calls`; a week is one of the calendar |
//! | `limit-concurrency` | a cap [in flight](crate::Limits::in_flight); policies inside of it are read, too |
//! | `llm-token-limit`, `azure-openai-token-limit` | a rate of [model tokens](crate::Limits::tokens) a minute |
//!
//! | `counter-key` or `key` | counts |
//! |---|---|
//! | a constant, `@("all")` | all requests, in the [total](crate::Rules::total) |
//! | `@(context.Request.IpAddress)` | each [address](crate::Clients::by_address) |
//! | `@(context.Subscription.Id)`, `.Key`, `?.Id`; no key (`rate-limit`, `quota`) | each subscription |
//! | `@(context.Request.Headers.GetValueOrDefault("x-api-key",""))` | each value of that [header](crate::Clients::by_header) |
//!
//! A subscription is identified by the header `Ocp-Apim-Subscription-Key`. If an API takes its key in another header,
//! write that header. The last three may end with `?? "text"`: requests without an identity share the limits of one
//! client, as in API Management.
//!
//! - Policies that do not limit are ignored, and so is `base`: read the policies that it stands for separately.
//! - **No policy that limits is ignored.** Unsupported policies are errors: other expressions, named values
//!   (`{{name}}`), conditions and costs (`increment-condition`, `increment-count`), `bandwidth`, quotas for a lifetime,
//!   quotas of model tokens, limits on an `api` or an `operation`, unknown attributes, unknown policies with `limit` or
//!   `quota` in their name, and limits inside of `choose`, `retry` or `outbound`.
//! - A throttle identifies clients in one way, so policies with different identities are an error, too.
//! - A setting that is approximated is a [`Warning`](super::Warning).
//!
//! # Zero and the maximum
//!
//! Counts are those of the schema's `xs:int`: from 0, which refuses every request, to 2,147,483,647. Errors are a
//! document of more than 8 MiB, or the size that a [`Reader`] sets, a document type declaration, policies more than 32
//! elements deep, an element with more than 128 attributes, and more than 256 namespaces.
//!
//! API Management limits `renewal-period` to at most 300 seconds, and for a quota to at least 300. Here other values
//! are accepted with a warning.
//!
//! # Differences
//!
//! - **Exact.** Limits are exact, in the process that serves the request, and a refused request costs nothing.
//! - **A bucket, not a sliding window.** Calls come back one by one, as in the v2 tiers: after a pause, `calls` pass at
//!   once and up to as many again within the same period. To admit at most `calls` in any period, halve the number.
//! - **429 for a quota**, too, where API Management answers 403, after which clients do not retry. A refusal by a
//!   shared cap in flight is 503: see [refusals](crate::guides::refusals).
//! - **A slot is held** until the response's body has ended.
//! - **Model tokens** are reserved before and settled after. With `estimate-prompt-tokens="true"` one token is reserved
//!   for every four bytes of the body, otherwise a single one, so that later requests pay for the answer. This holds
//!   for streams, too, for which API Management always estimates.
//! - **One process.** Counters are not shared between APIs, scopes or gateways. Each policy has its own, even if two
//!   have the same key.

mod element;
mod expression;
mod key;
mod limits;
mod policies;
mod policy_limits;
mod source;
mod walk;
mod window;

use roxmltree::{Document, Error};

use self::{
    element::{Element, PolicyDocument},
    policy_limits::PolicyLimits,
};
use super::{
    Imported, Reader,
    error::{ConfigError, Position},
};

/// Reads the limits of a policy document, a fragment, a section or a single policy.
///
/// See [above](self#supported-policies) for the supported policies. Limits beyond those of rules, such as more than
/// five caps in one scope, are an error of [`ThrottleLayer::new`](crate::ThrottleLayer::new).
///
/// # Errors
///
/// Text that is not XML, and unsupported elements, with their line and column. Paths leave out `policies` and
/// `fragment`; the second policy of a name is `rate-limit-by-key[2]`.
///
/// ```
/// use tower_throttle::config::api_management;
///
/// let error = api_management::policy(r#"<rate-limit calls="{{calls}}" renewal-period="60" />"#).unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "line 1, column 13: rate-limit.calls: `{{calls}}` is a named value that only the gateway knows; write the \
///      value itself",
/// );
/// ```
pub fn policy(xml: &str) -> Result<Imported, ConfigError> {
    Reader::new().policy(xml)
}

impl Reader {
    /// Reads the limits of a policy document of Azure API Management.
    ///
    /// # Errors
    ///
    /// Those of [`policy`].
    pub fn policy(&self, xml: &str) -> Result<Imported, ConfigError> {
        read_policy(self.admit(xml)?)
    }
}

fn read_policy(xml: &str) -> Result<Imported, ConfigError> {
    let masked = source::masked(xml);
    if let Some(fault) = source::too_much(&masked) {
        return Err(ConfigError::new("", None, fault));
    }
    let document = Document::parse(&masked).map_err(|error| no_xml(&error))?;
    let source = PolicyDocument::new(xml, &document);
    let root = Element::new(document.root_element(), &source);
    let mut found = PolicyLimits::default();
    walk::document(root, &mut found)?;
    Ok(found.into_imported(root))
}

fn no_xml(error: &Error) -> ConfigError {
    let at = error.pos();
    let position = Position {
        line: at.row as usize,
        column: at.col as usize,
    };
    let fault = match error {
        Error::DtdDetected => "a document type declaration is not allowed in policies".to_owned(),
        // Its words end with the position.
        _ => format!(
            "not XML: {}",
            error.to_string().replace(&format!(" at {at}"), "")
        ),
    };
    ConfigError::new("", Some(position), fault)
}
