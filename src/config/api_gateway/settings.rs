//! The settings of a stage.

use std::collections::HashSet;

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
    let names = [
        "DefaultRouteSettings",
        "defaultRouteSettings",
        "default_route_settings",
    ];
    let settings = fields.any(&names)?.filter(|settings| !settings.is_null());
    let default = settings.map(|settings| default_route(&settings, warnings));
    let default = default.transpose()?.flatten();
    let names = ["RouteSettings", "routeSettings", "route_settings"];
    let settings = fields.any(&names)?.filter(|settings| !settings.is_null());
    let (throttle, limits) = default.clone().unwrap_or_default();
    let routes = settings.map(|settings| routes(&settings, throttle, warnings));
    let routes = routes.transpose()?.unwrap_or_default();
    if let Some(settings) = fields.any(&["MethodSettings", "methodSettings"])? {
        return Err(settings.fault(
            "are those of a REST API's stage, which are not read; write them as route settings",
        ));
    }
    fields.end()?;

    if default.is_none() && routes.is_empty() {
        let sentence = "throttles nothing, and nothing is limited here; API Gateway has the limits of its account";
        warnings.push(Warning::new(place.path(), sentence));
    }
    let rules = match limits {
        Some(limits) => Rules::new().default_route(limits),
        None => Rules::new(),
    };
    let add = |rules: Rules, (key, limits)| rules.route(key, limits);
    Ok(routes.into_iter().fold(rules, add))
}

/// The settings of all routes, which may be the only one of a list.
fn default_route(
    settings: &Place<'_>,
    warnings: &mut Vec<Warning>,
) -> Result<Option<(Throttle, Option<Limits>)>, ConfigError> {
    resolved(settings)?;
    let mut blocks = settings.each(|block| {
        let (throttle, key) = throttle(block)?;
        if key.is_some() {
            return Err(block.fault("default route settings with a route key"));
        }
        if throttle.is_empty() {
            warnings.push(none_set(block, "none is set here"));
        }
        Ok((throttle, throttle.limits(block, warnings)?))
    })?;
    match blocks.len() {
        0 | 1 => Ok(blocks.pop()),
        _ => Err(settings.fault("default route settings twice")),
    }
}

fn routes(
    settings: &Place<'_>,
    default: Throttle,
    warnings: &mut Vec<Warning>,
) -> Result<Vec<(RouteKey, Limits)>, ConfigError> {
    resolved(settings)?;
    let mut known = HashSet::new();
    let mut read = |key: Option<&str>, block: &Place<'_>| {
        let (key, limits) = route(key, block, default, warnings)?;
        if !known.insert(key.clone()) {
            return Err(block.fault(format!(
                "route key `{key}` stands before, or what equals it"
            )));
        }
        Ok((key, limits))
    };
    match settings.value() {
        // Pulumi's and Terraform's list, each with its key, or the only one.
        Value::List(_) => settings.each(|block| read(None, block)),
        _ if ROUTE_KEY.iter().any(|key| settings.peek(key).is_some()) => {
            Ok(vec![read(None, settings)?])
        }
        _ => {
            let mut routes = settings.entries()?;
            routes.try_fold(Vec::new(), |mut all, (key, block)| {
                all.push(read(Some(key), &block)?);
                Ok(all)
            })
        }
    }
}

/// The settings of one route. Its key stands before them or among them.
fn route(
    key: Option<&str>,
    block: &Place<'_>,
    default: Throttle,
    warnings: &mut Vec<Warning>,
) -> Result<(RouteKey, Limits), ConfigError> {
    let (own, written) = throttle(block)?;
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
        let instead = match default.is_empty() {
            true => "none is set here",
            false => "has that of the default route settings here",
        };
        warnings.push(none_set(block, instead));
        return Ok((key, Limits::new()));
    }
    let throttle = own.or(default, block, warnings);
    let limits = throttle.limits(block, warnings)?;
    Ok((key, limits.unwrap_or_default()))
}

fn none_set(block: &Place<'_>, instead: &str) -> Warning {
    let sentence = format!(
        "sets no throttle, and {instead}; a tool that deploys it may send zeros, by which API Gateway refuses each \
         request"
    );
    Warning::new(block.path(), sentence)
}

/// What a block of settings says of throttling, and the route key that may stand in it.
fn throttle(block: &Place<'_>) -> Result<(Throttle, Option<String>), ConfigError> {
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
    Ok((throttle, key))
}

fn route_key(fields: &mut Fields<'_>) -> Result<Option<String>, ConfigError> {
    let Some(key) = fields.any(&ROUTE_KEY)? else {
        return Ok(None);
    };
    resolved(&key)?;
    key.text().map(|key| Some(key.to_owned()))
}
