//! The settings of a stage.

use super::{default_route::DefaultRoute, resolved::resolved, route_settings};
use crate::{
    config::{Warning, document::Cursor, error::ConfigError},
    route::CatchAll,
    rules::Rules,
};

/// Settings of a stage that do not throttle: API Gateway's own, SAM's, Pulumi's and Terraform's.
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

pub(super) fn stage(place: &Cursor<'_>, warnings: &mut Vec<Warning>) -> Result<Rules, ConfigError> {
    resolved(place)?;
    if let Some(blocks) = place.peek("dynamic") {
        return Err(blocks.fault(
            "dynamic blocks are known only to Terraform; write them out, or use the output of `terraform show -json`",
        ));
    }
    let mut fields = place.fields()?;
    for names in PASSED_OVER {
        fields.pass_over(names);
    }
    let names = [
        "DefaultRouteSettings",
        "defaultRouteSettings",
        "default_route_settings",
    ];
    let defaults = fields.any(&names)?.filter(|settings| !settings.is_null());
    let names = ["RouteSettings", "routeSettings", "route_settings"];
    let settings = fields.any(&names)?.filter(|settings| !settings.is_null());
    if let Some(settings) = fields.any(&["MethodSettings", "methodSettings"])? {
        return Err(settings.fault(
            "are settings of a REST API's stage, which are not read; write them as route settings",
        ));
    }
    fields.end()?;

    let mut default = DefaultRoute::default();
    if let Some(settings) = &defaults {
        default.add(settings)?;
    }
    if let Some(settings) = &settings {
        route_settings::defaults(settings, &mut default)?;
    }
    let limits = default.limits(warnings);
    let routes = settings.map(|settings| {
        route_settings::routes(&settings, default.throttle().unwrap_or_default(), warnings)
    });
    let routes = routes.transpose()?.unwrap_or_default();

    if default.is_missing() && routes.is_empty() {
        let sentence =
            "has no throttle; nothing is limited; API Gateway uses the limits of its account";
        warnings.push(Warning::new(place.path(), sentence));
    }
    let mut rules = match limits {
        Some(limits) => Rules::new().default_route(limits),
        None => Rules::new(),
    };
    if routes.iter().any(|(key, _)| key.as_str() == "$default") {
        rules = rules.catch_all(CatchAll::Unrouted);
    }
    let add = |rules: Rules, (key, limits)| rules.route(key, limits);
    Ok(routes.into_iter().fold(rules, add))
}
