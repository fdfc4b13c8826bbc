//! Amazon API Gateway: the throttling of its stages and usage plans, as rules.
//!
//! ```
//! use tower_throttle::{ThrottleLayer, config::api_gateway, response::Dialect};
//!
//! // What `aws apigatewayv2 get-stage` prints.
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
//! # What is read
//!
//! JSON or YAML. What it is, is told by its shape:
//!
//! | [`stage`] reads | that is |
//! |---|---|
//! | `aws apigatewayv2 get-stage`, `get-stages` | `StageName`, `RouteSettings`; a list in `Items` |
//! | CloudFormation | resources of the type `AWS::ApiGatewayV2::Stage` |
//! | SAM | resources of the type `AWS::Serverless::HttpApi`, over the `HttpApi` of `Globals`; so is `ServerlessHttpApi` |
//! | Pulumi | a stage's properties in camel or snake case; a program in YAML; `pulumi stack export`; a resource of either |
//! | Terraform | `resource.aws_apigatewayv2_stage` in JSON; `terraform show -json` of a state or a plan; a resource of it |
//!
//! | [`usage_plan`] reads | that is |
//! |---|---|
//! | `aws apigateway get-usage-plan`, `get-usage-plans` | `throttle`, `quota`; a list in `items` |
//! | CloudFormation | resources of the type `AWS::ApiGateway::UsagePlan` |
//!
//! Where a document has several, [`stage_named`] and [`usage_plan_named`] take one of them, by its own name or that
//! of its resource: a logical id, an address, a URN or its end.
//!
//! | there | here |
//! |---|---|
//! | default route settings | [`Rules::default_route`]: each route has it for itself |
//! | route settings | [`Rules::route`], by the same [route key](crate::RouteKey) |
//! | `ThrottlingRateLimit`, `rateLimit` | a [`Rate`](crate::Rate) a second, fractions exactly |
//! | `ThrottlingBurstLimit`, `burstLimit` | its [burst](crate::Rate::burst) |
//! | a usage plan's throttle, quota and throttle of methods | what [each](crate::Clients::each) client by `x-api-key` may do |
//!
//! Settings that throttle nothing are passed over: logs, metrics, variables, tags. **Nothing that throttles is passed
//! over.** Settings that are not known are errors, and so are values that only the vendor's tools can resolve (`!Ref`,
//! `Fn::Sub`, `${var.burst}`), with their path, line and column; so are the settings of a REST API's stage, and of the
//! events of SAM's functions, `dynamic` blocks, and settings that a plan of Terraform knows only after it was applied.
//! What is not read and is or may hold another stage (a nested stack, a module, a component, a macro, a loop that
//! `Fn::ForEach` expands, the stage of another provider such as `awscc`, the next page of a list) is a [`Warning`]
//! beside a stage that is read, else an error.
//!
//! # The traps of API Gateway
//!
//! Each is read in the way that is safe, and a [`Warning`] says so.
//!
//! - **Absent is not zero.** There, a tool that deploys a block which sets anything else may send zeros for the
//!   throttles that are missing, and each request is refused. Here what is absent is no limit; a zero that is written
//!   closes.
//! - **An override inherits.** There, what route settings leave out falls to the account's limits. Here it is what the
//!   default route settings say.
//! - **A rate without a burst** has as many as come back in a second, rounded up. A burst without a rate is an error,
//!   for there is nothing that fills it.
//! - **Default route settings among the route settings**, as programs have them that pass a table where a list of
//!   routes belongs, are the default route settings, in any spelling of their name. In two places and different, they
//!   are an error.
//! - **`$default` is a route**, that of requests which match no other key and no route of the host
//!   ([`CatchAll::Unrouted`](crate::route::CatchAll::Unrouted)), and not the default settings. Where the host tells no
//!   routes, as without axum, it is that of all requests which match no other key.
//! - **Settings that throttle nothing** limit nothing here, where API Gateway still has the limits of the account.
//!
//! # Zero and the maximum
//!
//! A rate or burst of 0 closes. Rates go from one in 2^64 - 1 seconds up to 2^64 - 1 a second; bursts up to
//! 2^64 - 1. Numbers of up to twelve digits are exact; longer ones, as tools print them, are the simplest fraction
//! within one part in 2^52. A document of more than 8 MiB, unless a [`Reader`] says otherwise, or more than 64 levels
//! deep, is an error.
//!
//! # What is different here
//!
//! - **Exact.** API Gateway throttles on a best-effort basis, its limits are targets. Here they hold to the request, in
//!   the process that serves it.
//! - **No account.** The limits of an account and a Region are not in these documents; [`Rules::total`] is the place
//!   for such a one.
//! - **All paths.** Routes that API Gateway would not have found have the default route settings too.
//! - **Slots and tokens** it does not have: a cap [in flight](crate::Limits::in_flight) is what a stream needs that
//!   lasts for minutes.
//! - **A method's throttle** in a usage plan holds besides that of the plan, as there: the stricter one decides.
//! - **Quotas** of a week run from Monday, of a day from midnight UTC, all of them exactly; who has no key in a usage
//!   plan is not refused but the anonymous client.
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

/// Reads the throttling of the one stage that a document has.
///
/// See [above](self) for what is read.
///
/// # Errors
///
/// A text that is neither JSON nor YAML or has no stage in it, several stages, and settings that are not understood.
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

/// Reads the throttling of the stage of this name, which may be that of its resource.
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
/// assert_eq!(error.to_string(), "line 2, column 3: several; name one of `Chat`, `Models`");
/// ```
///
/// # Errors
///
/// As [`stage`], and a name that no stage has or several have.
pub fn stage_named(text: &str, name: &str) -> Result<Imported, ConfigError> {
    Reader::new().stage_named(text, name)
}

/// Reads the throttles and the quota of the one usage plan that a document has.
///
/// See [above](self) for what is read.
///
/// # Errors
///
/// As [`stage`].
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

/// Reads the throttles and the quota of the usage plan of this name, which may be that of its resource.
///
/// # Errors
///
/// As [`stage_named`].
pub fn usage_plan_named(text: &str, name: &str) -> Result<Imported, ConfigError> {
    Reader::new().usage_plan_named(text, name)
}

impl Reader {
    /// Reads the one stage of Amazon API Gateway that a document has.
    ///
    /// # Errors
    ///
    /// As [`stage`].
    pub fn stage(&self, text: &str) -> Result<Imported, ConfigError> {
        read_stage(self.admit(text)?, None)
    }

    /// Reads the stage of this name.
    ///
    /// # Errors
    ///
    /// As [`stage_named`].
    pub fn stage_named(&self, text: &str, name: &str) -> Result<Imported, ConfigError> {
        read_stage(self.admit(text)?, Some(name))
    }

    /// Reads the one usage plan of Amazon API Gateway that a document has.
    ///
    /// # Errors
    ///
    /// As [`usage_plan`].
    pub fn usage_plan(&self, text: &str) -> Result<Imported, ConfigError> {
        read_usage_plan(self.admit(text)?, None)
    }

    /// Reads the usage plan of this name.
    ///
    /// # Errors
    ///
    /// As [`usage_plan_named`].
    pub fn usage_plan_named(&self, text: &str, name: &str) -> Result<Imported, ConfigError> {
        read_usage_plan(self.admit(text)?, Some(name))
    }
}
