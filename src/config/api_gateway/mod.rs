//! Amazon API Gateway: the throttling of its stages and usage plans, as rules.
//!
//! ```
//! use tower_throttle::{ThrottleLayer, config::api_gateway, response::Dialect};
//!
//! // The output of `aws apigatewayv2 get-stage`.
//! let imported = api_gateway::stage(
//!     r#"{
//!         "StageName": "prod",
//!         "AutoDeploy": true,
//!         "DefaultRouteSettings": {
//!             "DetailedMetricsEnabled": false,
//!             "ThrottlingBurstLimit": 5,
//!             "ThrottlingRateLimit": 10.0
//!         },
//!         "RouteSettings": {
//!             "POST /v1/chat/completions": { "ThrottlingBurstLimit": 2, "ThrottlingRateLimit": 0.5 }
//!         }
//!     }"#,
//! )?;
//! for warning in &imported.warnings {
//!     eprintln!("{warning}");
//! }
//! let throttle = ThrottleLayer::builder(imported.rules)
//!     .rejection(Dialect::ApiGateway)
//!     .build()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Supported documents
//!
//! Documents are JSON or YAML, and are recognized by their shape:
//!
//! | [`stage`] reads | recognized by |
//! |---|---|
//! | `aws apigatewayv2 get-stage`, `get-stages` | `StageName`, `RouteSettings`; a list in `Items` |
//! | CloudFormation | resources of the type `AWS::ApiGatewayV2::Stage` |
//! | SAM | resources of the type `AWS::Serverless::HttpApi`, over the `HttpApi` of `Globals`; so is `ServerlessHttpApi` |
//! | Pulumi | a stage's properties in camel or snake case; a program in YAML; `pulumi stack export`; a resource of either |
//! | Terraform | `resource.aws_apigatewayv2_stage` in JSON; `terraform show -json` of a state or a plan; a resource of it |
//!
//! | [`usage_plan`] reads | recognized by |
//! |---|---|
//! | `aws apigateway get-usage-plan`, `get-usage-plans` | `throttle`, `quota`; a list in `items` |
//! | CloudFormation | resources of the type `AWS::ApiGateway::UsagePlan` |
//!
//! If a document has several, [`stage_named`] and [`usage_plan_named`] select one by its own name or that of its
//! resource: a logical id, an address, a URN or its end.
//!
//! | in API Gateway | here |
//! |---|---|
//! | default route settings | [`Rules::default_route`], for each route by itself |
//! | route settings | [`Rules::route`], by the same [route key](crate::RouteKey) |
//! | `ThrottlingRateLimit`, `rateLimit` | a [`Rate`](crate::Rate) per second, with exact fractions |
//! | `ThrottlingBurstLimit`, `burstLimit` | its [burst](crate::Rate::burst) |
//! | a usage plan's throttle, quota and throttle of methods | the limits of [each](crate::Clients::each) client by `x-api-key` |
//!
//! Settings that do not throttle are ignored: logs, metrics, variables, tags. **No setting that throttles is ignored.**
//! These are errors, with their path, line and column:
//!
//! - unknown settings;
//! - values that only the vendor's tools can resolve (`!Ref`, `Fn::Sub`, `${var.burst}`);
//! - the settings of a REST API's stage, and of the events of SAM's functions;
//! - `dynamic` blocks, and settings that a Terraform plan knows only after it was applied.
//!
//! An element that is not read but may hold another stage is a [`Warning`] if a stage was read, else an error: a nested
//! stack, a module, a component, a macro, a loop that `Fn::ForEach` expands, the stage of another provider such as
//! `awscc`, the next page of a list.
//!
//! # Ambiguous settings
//!
//! Each is read in the safe way, with a [`Warning`].
//!
//! - **Absent is not zero.** In API Gateway, a tool that deploys a block with other settings may send zeros for missing
//!   throttles, and every request is refused. Here an absent throttle is no limit, and an explicit zero closes.
//! - **An override inherits.** In API Gateway, settings that a route leaves out are those of the account. Here they are
//!   those of the default route settings.
//! - **A rate without a burst** gets a burst of one second's requests, rounded up. A burst without a rate is an error,
//!   since it would never be refilled.
//! - **Default route settings among the route settings**, in any spelling of their name, are read as the default route
//!   settings. Programs write them when they pass a table in place of a list of routes. Two different ones are an
//!   error.
//! - **`$default` is a route**, not the default settings: it takes requests that match no other key and no route of the
//!   host ([`CatchAll::Unrouted`](crate::route::CatchAll::Unrouted)). If the host provides no routes, as without axum,
//!   it takes all requests that match no other key.
//! - **A stage without a throttle** limits nothing here, whereas API Gateway still applies the limits of the account.
//!
//! # Zero and the maximum
//!
//! A rate or burst of 0 closes. Rates range from one in 2⁶⁴ − 1 seconds to 2⁶⁴ − 1 per second; bursts go up to 2⁶⁴ − 1.
//! Numbers of up to twelve digits are exact; longer ones, as tools print them, are the simplest fraction within one
//! part in 2⁵². Documents of more than 8 MiB, or the size that a [`Reader`] sets, and of more than 64 levels are
//! errors.
//!
//! # Differences
//!
//! - **Exact.** API Gateway throttles on a best-effort basis, and its limits are targets. Here limits are exact, in the
//!   process that serves the request.
//! - **No account.** The limits of an account and a Region are not in these documents; set them with [`Rules::total`].
//! - **All paths.** Routes that API Gateway would not have found get the default route settings, too.
//! - **Slots and tokens** do not exist in API Gateway. Streams that last for minutes need a cap [in
//!   flight](crate::Limits::in_flight).
//! - **A method's throttle** in a usage plan holds in addition to that of the plan, as in API Gateway.
//! - **Quotas** of a week start on Monday, those of a day at midnight UTC, and all are exact. A request without a key
//!   is not refused, but belongs to the anonymous client.
//!
//! [`Rules::default_route`]: crate::Rules::default_route
//! [`Rules::route`]: crate::Rules::route
//! [`Rules::total`]: crate::Rules::total
//! [`Warning`]: super::Warning

mod amount;
mod block;
mod choice;
mod cloud_formation;
mod default_route;
mod find;
mod import;
mod plan;
mod pulumi;
mod resolved;
mod resource;
mod route_settings;
mod settings;
mod terraform;
mod unread;

use self::import::{read_stage, read_usage_plan};
use super::{Imported, Reader, error::ConfigError};

/// Reads the throttling of the only stage of a document.
///
/// See [above](self#supported-documents) for the supported documents.
///
/// # Errors
///
/// Text that is neither JSON nor YAML, a document without a stage or with several, and unsupported settings.
///
/// ```
/// use tower_throttle::config::api_gateway;
///
/// let document = "defaultRouteSettings: { throttlingBurstLimit: 5, throttlingRate: 10 }";
/// let error = api_gateway::stage(document).unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "line 1, column 50: defaultRouteSettings.throttlingRate: unknown setting; did you mean \
///      `throttlingRateLimit`?",
/// );
/// ```
pub fn stage(text: &str) -> Result<Imported, ConfigError> {
    Reader::new().stage(text)
}

/// Reads the throttling of the stage with this name, or whose resource has this name.
///
/// ```
/// use tower_throttle::config::api_gateway;
///
/// let template = "
///   Resources:
///     Chat:   { Type: AWS::ApiGatewayV2::Stage, Properties: { StageName: $default } }
///     Models: { Type: AWS::ApiGatewayV2::Stage, Properties: { StageName: $default } }
/// ";
/// assert!(api_gateway::stage_named(template, "Models").is_ok());
/// let error = api_gateway::stage(template).unwrap_err();
/// assert_eq!(error.to_string(), "line 2, column 3: there are several; choose one of `Chat`, `Models`");
/// ```
///
/// # Errors
///
/// Those of [`stage`], and a name that no stage or several stages have.
pub fn stage_named(text: &str, name: &str) -> Result<Imported, ConfigError> {
    Reader::new().stage_named(text, name)
}

/// Reads the throttles and the quota of the only usage plan of a document.
///
/// See [above](self#supported-documents) for the supported documents.
///
/// # Errors
///
/// Those of [`stage`].
///
/// ```
/// use tower_throttle::{ThrottleLayer, config::api_gateway};
///
/// let imported = api_gateway::usage_plan(
///     r#"{
///         "id": "a1b2c3",
///         "name": "pro",
///         "throttle": { "burstLimit": 20, "rateLimit": 10.0 },
///         "quota": { "limit": 10000, "offset": 0, "period": "DAY" }
///     }"#,
/// )?;
/// let throttle = ThrottleLayer::new(imported.rules)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn usage_plan(text: &str) -> Result<Imported, ConfigError> {
    Reader::new().usage_plan(text)
}

/// Reads the throttles and the quota of the usage plan with this name, or whose resource has this name.
///
/// # Errors
///
/// Those of [`stage_named`].
pub fn usage_plan_named(text: &str, name: &str) -> Result<Imported, ConfigError> {
    Reader::new().usage_plan_named(text, name)
}

impl Reader {
    /// Reads the only stage of an Amazon API Gateway document.
    ///
    /// # Errors
    ///
    /// Those of [`stage`].
    pub fn stage(&self, text: &str) -> Result<Imported, ConfigError> {
        read_stage(self.admit(text)?, None)
    }

    /// Reads the stage with this name.
    ///
    /// # Errors
    ///
    /// Those of [`stage_named`].
    pub fn stage_named(&self, text: &str, name: &str) -> Result<Imported, ConfigError> {
        read_stage(self.admit(text)?, Some(name))
    }

    /// Reads the only usage plan of an Amazon API Gateway document.
    ///
    /// # Errors
    ///
    /// Those of [`usage_plan`].
    pub fn usage_plan(&self, text: &str) -> Result<Imported, ConfigError> {
        read_usage_plan(self.admit(text)?, None)
    }

    /// Reads the usage plan with this name.
    ///
    /// # Errors
    ///
    /// Those of [`usage_plan_named`].
    pub fn usage_plan_named(&self, text: &str, name: &str) -> Result<Imported, ConfigError> {
        read_usage_plan(self.admit(text)?, Some(name))
    }
}
