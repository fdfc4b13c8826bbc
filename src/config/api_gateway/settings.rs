//! The settings of a stage.

use super::{amount::Throttle, resolved::resolved};
use crate::{
    config::{
        Warning,
        document::{Fields, Place, Value},
        error::ConfigError,
    },
    limits::Limits,
    route::RouteKey,
    rules::Rules,
};

/// What a stage has besides: of API Gateway's own, of SAM's, Pulumi's and Terraform's.
const PASSED_OVER: [&[&str]; 4] = [
    &[
        "AccessLogSettings",
        "AccessPolicyId",
        "ApiGatewayManaged",
        "ApiId",
        "AutoDeploy",
        "ClientCertificateId",
        "CreatedDate",
        "DeploymentId",
        "Description",
        "LastDeploymentStatusMessage",
        "LastUpdatedDate",
        "StageName",
        "StageVariables",
        "Tags",
    ],
    &[
        "Auth",
        "CorsConfiguration",
        "DefinitionBody",
        "DefinitionUri",
        "DisableExecuteApiEndpoint",
        "Domain",
        "FailOnWarnings",
        "Name",
        "PropagateTags",
    ],
    &[
        "__defaults",
        "accessLogSettings",
        "accessPolicyId",
        "apiId",
        "arn",
        "autoDeploy",
        "clientCertificateId",
        "deploymentId",
        "description",
        "executionArn",
        "id",
        "invokeUrl",
        "name",
        "region",
        "stageName",
        "stageVariables",
        "tags",
        "tagsAll",
    ],
    &[
        "//",
        "access_log_settings",
        "api_id",
        "auto_deploy",
        "client_certificate_id",
        "count",
        "depends_on",
        "deployment_id",
        "execution_arn",
        "for_each",
        "invoke_url",
        "lifecycle",
        "provider",
        "stage_name",
        "stage_variables",
        "tags_all",
        "timeouts",
    ],
];

const ROUTE_KEY: [&str; 3] = ["RouteKey", "routeKey", "route_key"];

/// What route settings have besides.
const NO_THROTTLE: [&str; 11] = [
    "//",
    "__defaults",
    "DataTraceEnabled",
    "DetailedMetricsEnabled",
    "LoggingLevel",
    "dataTraceEnabled",
    "detailedMetricsEnabled",
    "loggingLevel",
    "data_trace_enabled",
    "detailed_metrics_enabled",
    "logging_level",
];

pub(super) fn stage(place: &Place<'_>, warnings: &mut Vec<Warning>) -> Result<Rules, ConfigError> {
    resolved(place)?;
    let mut fields = place.fields()?;
    for names in PASSED_OVER {
        fields.pass_over(names);
    }
    let mut rules = Rules::new();
    let mut default = Throttle::default();
    let names = [
        "DefaultRouteSettings",
        "defaultRouteSettings",
        "default_route_settings",
    ];
    if let Some(settings) = fields.any(&names)?.filter(|settings| !settings.is_null()) {
        resolved(&settings)?;
        let mut blocks = settings.each(|block| {
            let (throttle, _) = throttle(block, warnings)?;
            let limits = throttle.limits(block, warnings)?;
            Ok((throttle, limits))
        })?;
        if blocks.len() > 1 {
            return Err(settings.fault("default route settings twice"));
        }
        if let Some((throttle, limits)) = blocks.pop() {
            default = throttle;
            rules = match limits {
                Some(limits) => rules.default_route(limits),
                None => rules,
            };
        }
    }
    let names = ["RouteSettings", "routeSettings", "route_settings"];
    if let Some(settings) = fields.any(&names)?.filter(|settings| !settings.is_null()) {
        resolved(&settings)?;
        let routes = match settings.value() {
            // Pulumi's and Terraform's list, each with its key, or the only one.
            Value::List(_) => settings.each(|block| route(None, block, default, warnings))?,
            _ if ROUTE_KEY.iter().any(|key| settings.peek(key).is_some()) => {
                vec![route(None, &settings, default, warnings)?]
            }
            _ => {
                let routes = settings.entries()?;
                let routes = routes.map(|(key, block)| route(Some(key), &block, default, warnings));
                routes.collect::<Result<_, _>>()?
            }
        };
        for (key, limits) in routes {
            rules = rules.route(key, limits);
        }
    }
    fields.end()?;
    Ok(rules)
}

/// The settings of one route. Its key stands before them or among them.
fn route(
    key: Option<&str>,
    block: &Place<'_>,
    default: Throttle,
    warnings: &mut Vec<Warning>,
) -> Result<(RouteKey, Limits), ConfigError> {
    let (own, written) = throttle(block, warnings)?;
    let key = match (key, written) {
        (Some(key), None) => key.to_owned(),
        (None, Some(key)) => key,
        (None, None) => return Err(block.fault("settings of a route without its key")),
        (Some(_), Some(_)) => return Err(block.fault("settings of a route with two keys")),
    };
    let key: RouteKey = key
        .parse()
        .map_err(|fault| block.fault(format!("route key `{key}`: {fault}")))?;
    if key.as_str() == "$default" {
        let sentence =
            "is a route, that of requests which no other key matches, and not the default settings";
        warnings.push(Warning::new(block.path(), sentence));
    }
    if own.is_empty() {
        return Ok((key, Limits::new()));
    }
    let throttle = own.or(default, block, warnings);
    // Neither half of it is missing that the other needs.
    let limits = throttle.limits(block, warnings)?;
    Ok((key, limits.unwrap_or_default()))
}

/// What a block of settings says of throttling, and the route key that may stand in it.
fn throttle(
    block: &Place<'_>,
    warnings: &mut Vec<Warning>,
) -> Result<(Throttle, Option<String>), ConfigError> {
    resolved(block)?;
    let mut fields = block.fields()?;
    let names = [
        "ThrottlingRateLimit",
        "throttlingRateLimit",
        "throttling_rate_limit",
    ];
    let rate = fields.any(&names)?;
    let names = [
        "ThrottlingBurstLimit",
        "throttlingBurstLimit",
        "throttling_burst_limit",
    ];
    let burst = fields.any(&names)?;
    let key = route_key(&mut fields)?;
    fields.pass_over(&NO_THROTTLE);
    fields.end()?;
    let throttle = Throttle::read(rate.as_ref(), burst.as_ref())?;
    if throttle.is_empty() {
        let sentence = "sets no throttle, and none is set here; a tool that deploys it may send zeros, by which API Gateway refuses \
                        each request";
        warnings.push(Warning::new(block.path(), sentence));
    }
    Ok((throttle, key))
}

fn route_key(fields: &mut Fields<'_>) -> Result<Option<String>, ConfigError> {
    let Some(key) = fields.any(&ROUTE_KEY)? else {
        return Ok(None);
    };
    resolved(&key)?;
    key.text().map(|key| Some(key.to_owned()))
}
