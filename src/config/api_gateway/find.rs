//! Where stages and usage plans stand, in documents of all kinds.

use super::cloud_formation;
use crate::config::{
    document::{Place, Value},
    error::ConfigError,
};

/// A stage or a usage plan in a document.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found<'f> {
    /// All that it goes by.
    pub(super) names: &'f [&'f str],
    pub(super) settings: &'f Place<'f>,
    /// Settings that hold where its own say nothing.
    pub(super) globals: Option<&'f Place<'f>>,
}

pub(super) type Visit<'v> = dyn FnMut(Found<'_>) -> Result<(), ConfigError> + 'v;

/// Names of a stage's own settings, of which a document that is a stage has one at least.
const OF_STAGE: [&str; 9] = [
    "StageName",
    "DefaultRouteSettings",
    "RouteSettings",
    "defaultRouteSettings",
    "routeSettings",
    "stageName",
    "default_route_settings",
    "route_settings",
    "stage_name",
];
const OF_USAGE_PLAN: [&str; 9] = [
    "throttle",
    "quota",
    "apiStages",
    "Throttle",
    "Quota",
    "ApiStages",
    "throttle_settings",
    "quota_settings",
    "api_stages",
];
const NAMES_OF_STAGE: [&str; 4] = ["StageName", "stageName", "stage_name", "name"];

/// Calls `visit` for each stage.
pub(super) fn stages(root: &Place<'_>, visit: &mut Visit<'_>) -> Result<(), ConfigError> {
    if let Some(items) = root.peek("Items") {
        return items
            .each(|stage| named(stage, &NAMES_OF_STAGE, &[], visit))
            .map(drop);
    }
    if let Some(resources) = root.peek("Resources") {
        return cloud_formation::stages(root, &resources, visit);
    }
    if let Some(resources) = root.peek("resources") {
        return resources
            .entries()?
            .try_for_each(|(id, resource)| pulumi(&resource, Some(id), visit));
    }
    if let Some(deployment) = root.peek("deployment") {
        let Some(resources) = deployment.peek("resources") else {
            return Ok(());
        };
        return resources
            .each(|resource| pulumi(resource, None, visit))
            .map(drop);
    }
    if let Some(resource) = root.peek("resource") {
        // Blocks are tables, or lists of them.
        return resource
            .each(|resource| terraform(resource, visit))
            .map(drop);
    }
    for values in ["values", "planned_values"] {
        if let Some(module) = root
            .peek(values)
            .as_ref()
            .and_then(|all| all.peek("root_module"))
        {
            return terraform_module(&module, visit);
        }
    }
    if root.peek("type").is_some() {
        pulumi(root, None, visit)?;
        return terraform_resource(root, visit);
    }
    if OF_STAGE.iter().any(|name| root.peek(name).is_some()) {
        return named(root, &NAMES_OF_STAGE, &[], visit);
    }
    Ok(())
}

/// Calls `visit` for each usage plan.
pub(super) fn usage_plans(root: &Place<'_>, visit: &mut Visit<'_>) -> Result<(), ConfigError> {
    if let Some(items) = root.peek("items") {
        return items
            .each(|plan| named(plan, &["name", "id"], &[], visit))
            .map(drop);
    }
    if let Some(resources) = root.peek("Resources") {
        return cloud_formation::usage_plans(&resources, visit);
    }
    if OF_USAGE_PLAN.iter().any(|name| root.peek(name).is_some()) {
        return named(root, &["name", "id", "UsagePlanName"], &[], visit);
    }
    Ok(())
}

/// The names that stand among its settings, and others.
pub(super) fn own_names<'a>(
    settings: &'a Place<'a>,
    names: &[&str],
    others: &[&'a str],
) -> Vec<&'a str> {
    let own = names.iter().filter_map(|name| word(settings, name));
    own.chain(others.iter().copied()).collect()
}

fn named(
    settings: &Place<'_>,
    names: &[&str],
    others: &[&str],
    visit: &mut Visit<'_>,
) -> Result<(), ConfigError> {
    visit(Found {
        names: &own_names(settings, names, others),
        settings,
        globals: None,
    })
}

/// A setting that is a name. One of digits alone needs no quotes in YAML.
fn word<'a>(settings: &'a Place<'a>, name: &str) -> Option<&'a str> {
    match settings.peek(name)?.value() {
        Value::Text(word) | Value::Number(word) => Some(word),
        _ => None,
    }
}

/// A resource of a program, which has `properties`, or of a state, which has `inputs`.
fn pulumi(
    resource: &Place<'_>,
    id: Option<&str>,
    visit: &mut Visit<'_>,
) -> Result<(), ConfigError> {
    let kinds = [
        "aws:apigatewayv2:Stage",
        "aws:apigatewayv2/stage:Stage",
        "aws-native:apigatewayv2:Stage",
    ];
    let Some(kind) = resource.peek("type") else {
        return Ok(());
    };
    if !kinds.contains(&kind.text()?) {
        return Ok(());
    }
    let urn = word(resource, "urn");
    let last = urn.and_then(|urn| urn.rsplit("::").next());
    let others: Vec<_> = [id, last, urn].into_iter().flatten().collect();
    for settings in ["properties", "inputs"] {
        if let Some(settings) = resource.peek(settings) {
            return named(&settings, &["name", "stageName"], &others, visit);
        }
    }
    Err(resource.fault("a stage without `properties` or `inputs`"))
}

fn terraform(resource: &Place<'_>, visit: &mut Visit<'_>) -> Result<(), ConfigError> {
    let Some(stages) = resource.peek("aws_apigatewayv2_stage") else {
        return Ok(());
    };
    stages.each(|stages| {
        for (id, blocks) in stages.entries()? {
            // A comment, by Terraform's JSON syntax.
            if id != "//" {
                blocks.each(|stage| named(stage, &["name"], &[id], visit))?;
            }
        }
        Ok(())
    })?;
    Ok(())
}

fn terraform_module(module: &Place<'_>, visit: &mut Visit<'_>) -> Result<(), ConfigError> {
    if let Some(resources) = module.peek("resources") {
        resources.each(|resource| terraform_resource(resource, visit))?;
    }
    if let Some(modules) = module.peek("child_modules") {
        modules.each(|module| terraform_module(module, visit))?;
    }
    Ok(())
}

/// A resource of a state or a plan.
fn terraform_resource(resource: &Place<'_>, visit: &mut Visit<'_>) -> Result<(), ConfigError> {
    if word(resource, "type") != Some("aws_apigatewayv2_stage") {
        return Ok(());
    }
    let others = ["name", "address"].map(|name| word(resource, name));
    let others: Vec<_> = others.into_iter().flatten().collect();
    match resource.peek("values") {
        Some(values) => named(&values, &["name"], &others, visit),
        None => Err(resource.fault("a stage without `values`")),
    }
}
