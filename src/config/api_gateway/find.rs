//! Where stages and usage plans stand, in documents of all kinds.

use super::Visit;
use crate::config::{
    document::{Place, Value},
    error::ConfigError,
};

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

/// Calls `visit` for each stage.
pub(super) fn stages(root: &Place<'_>, visit: &mut Visit<'_>) -> Result<(), ConfigError> {
    if let Some(items) = root.peek("Items") {
        return items
            .each(|stage| named(stage, &["StageName"], visit))
            .map(drop);
    }
    if let Some(resources) = root.peek("Resources") {
        return cloud_formation(&resources, &STAGE_TYPES, &["StageName"], visit);
    }
    if let Some(resources) = root.peek("resources") {
        return pulumi_program(&resources, visit);
    }
    if let Some(deployment) = root.peek("deployment") {
        let Some(resources) = deployment.peek("resources") else {
            return Ok(());
        };
        return resources
            .each(|resource| pulumi_state(resource, visit))
            .map(drop);
    }
    if let Some(resource) = root.peek("resource") {
        return terraform(&resource, visit);
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
    if OF_STAGE.iter().any(|name| root.peek(name).is_some()) {
        return named(
            root,
            &["StageName", "stageName", "stage_name", "name"],
            visit,
        );
    }
    Ok(())
}

/// Calls `visit` for each usage plan.
pub(super) fn usage_plans(root: &Place<'_>, visit: &mut Visit<'_>) -> Result<(), ConfigError> {
    if let Some(items) = root.peek("items") {
        return items
            .each(|plan| named(plan, &["name", "id"], visit))
            .map(drop);
    }
    if let Some(resources) = root.peek("Resources") {
        let types = ["AWS::ApiGateway::UsagePlan"];
        return cloud_formation(&resources, &types, &["UsagePlanName"], visit);
    }
    if OF_USAGE_PLAN.iter().any(|name| root.peek(name).is_some()) {
        return named(root, &["name", "id", "UsagePlanName"], visit);
    }
    Ok(())
}

const STAGE_TYPES: [&str; 2] = ["AWS::ApiGatewayV2::Stage", "AWS::Serverless::HttpApi"];

/// What has a name among its settings.
fn named(place: &Place<'_>, names: &[&str], visit: &mut Visit<'_>) -> Result<(), ConfigError> {
    also_named(place, &[], names, visit)
}

/// What has a name among its settings and others outside.
fn also_named(
    place: &Place<'_>,
    others: &[&str],
    names: &[&str],
    visit: &mut Visit<'_>,
) -> Result<(), ConfigError> {
    let own = names
        .iter()
        .filter_map(|name| match place.peek(name)?.value() {
            Value::Text(name) => Some(&**name),
            _ => None,
        });
    let all: Vec<_> = own.chain(others.iter().copied()).collect();
    visit(&all, place)
}

fn cloud_formation(
    resources: &Place<'_>,
    types: &[&str],
    names: &[&str],
    visit: &mut Visit<'_>,
) -> Result<(), ConfigError> {
    for (id, resource) in resources.entries()? {
        let Some(kind) = resource.peek("Type") else {
            continue;
        };
        let kind = kind.text()?;
        if kind == "AWS::Serverless::Function" && types == STAGE_TYPES {
            no_events(&resource)?;
        }
        if !types.contains(&kind) {
            continue;
        }
        match resource.peek("Properties") {
            Some(properties) => also_named(&properties, &[id], names, visit)?,
            None => visit(&[id], &resource)?,
        }
    }
    Ok(())
}

/// SAM lets a function's event have route settings of its own.
fn no_events(function: &Place<'_>) -> Result<(), ConfigError> {
    let Some(properties) = function.peek("Properties") else {
        return Ok(());
    };
    let Some(events) = properties.peek("Events") else {
        return Ok(());
    };
    for (_, event) in events.entries()? {
        let Some(properties) = event.peek("Properties") else {
            continue;
        };
        if let Some(settings) = properties.peek("RouteSettings") {
            return Err(settings.fault(
                "route settings of an event are not read; write them into `RouteSettings` of the \
                 `AWS::Serverless::HttpApi`",
            ));
        }
    }
    Ok(())
}

fn is_pulumi_stage(kind: &str) -> bool {
    ["aws:apigatewayv2:Stage", "aws:apigatewayv2/stage:Stage"].contains(&kind)
}

fn pulumi_program(resources: &Place<'_>, visit: &mut Visit<'_>) -> Result<(), ConfigError> {
    for (id, resource) in resources.entries()? {
        let Some(kind) = resource.peek("type") else {
            continue;
        };
        if is_pulumi_stage(kind.text()?) {
            match resource.peek("properties") {
                Some(properties) => also_named(&properties, &[id], &["name"], visit)?,
                None => return Err(resource.fault("a stage without `properties`")),
            }
        }
    }
    Ok(())
}

fn pulumi_state(resource: &Place<'_>, visit: &mut Visit<'_>) -> Result<(), ConfigError> {
    let Some(kind) = resource.peek("type") else {
        return Ok(());
    };
    if !is_pulumi_stage(kind.text()?) {
        return Ok(());
    }
    match resource.peek("inputs") {
        Some(inputs) => named(&inputs, &["name"], visit),
        None => Err(resource.fault("a stage without `inputs`")),
    }
}

fn terraform(resource: &Place<'_>, visit: &mut Visit<'_>) -> Result<(), ConfigError> {
    let Some(stages) = resource.peek("aws_apigatewayv2_stage") else {
        return Ok(());
    };
    // Blocks are objects, or lists of them.
    stages.each(|stages| {
        for (id, blocks) in stages.entries()? {
            blocks.each(|stage| also_named(stage, &[id], &["name"], visit))?;
        }
        Ok(())
    })?;
    Ok(())
}

fn terraform_module(module: &Place<'_>, visit: &mut Visit<'_>) -> Result<(), ConfigError> {
    if let Some(resources) = module.peek("resources") {
        resources.each(|resource| {
            let kind = resource.peek("type");
            let is_stage = match &kind {
                Some(kind) => kind.text()? == "aws_apigatewayv2_stage",
                None => false,
            };
            match resource.peek("values").filter(|_| is_stage) {
                Some(values) => named(&values, &["name"], visit),
                None => Ok(()),
            }
        })?;
    }
    if let Some(modules) = module.peek("child_modules") {
        modules.each(|module| terraform_module(module, visit))?;
    }
    Ok(())
}
