//! Finds stages and usage plans in documents of all kinds.

use std::collections::HashSet;

use super::{
    cloud_formation, pulumi,
    resource::{Discovery, Visitor, named},
    terraform,
};
use crate::config::{
    document::{Cursor, NO_SETTINGS},
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
const NAMES_OF_STAGE: [&str; 4] = ["StageName", "stageName", "stage_name", "name"];

/// Calls `visit` for each stage.
pub(super) fn stages(root: &Cursor<'_>, visit: &mut Visitor<'_>) -> Result<(), ConfigError> {
    if let Some(items) = root.peek("Items") {
        more_pages(root, "NextToken", visit)?;
        return items
            .each(|stage| named(stage, &NAMES_OF_STAGE, &[], visit))
            .map(drop);
    }
    if let Some(resources) = root.peek("Resources") {
        return cloud_formation::stages(root, &resources, visit);
    }
    if let Some(resources) = root.peek("resources") {
        if root.peek("terraform_version").is_some() {
            let fault = "the state file of Terraform is not supported; use the output of `terraform show -json`";
            return Err(resources.fault(fault));
        }
        return pulumi::program(root, &resources, visit);
    }
    if root.peek("components").is_some() {
        return pulumi::program(root, &root.with(&NO_SETTINGS), visit);
    }
    if let Some(deployment) = root.peek("deployment") {
        return pulumi::state(&deployment, visit);
    }
    if ["resource", "module"]
        .iter()
        .any(|block| root.peek(block).is_some())
    {
        return terraform::configuration(root, visit);
    }
    for values in ["values", "planned_values"] {
        if let Some(module) = root
            .peek(values)
            .as_ref()
            .and_then(|all| all.peek("root_module"))
        {
            return terraform::module(&module, &terraform::unknown(root)?, visit);
        }
    }
    if root.peek("type").is_some() {
        pulumi::resource(root, None, visit)?;
        return terraform::resource(root, &HashSet::new(), visit);
    }
    if OF_STAGE.iter().any(|name| root.peek(name).is_some()) {
        return named(root, &NAMES_OF_STAGE, &[], visit);
    }
    Ok(())
}

/// Calls `visit` for each usage plan.
pub(super) fn usage_plans(root: &Cursor<'_>, visit: &mut Visitor<'_>) -> Result<(), ConfigError> {
    if let Some(items) = root.peek("items") {
        more_pages(root, "position", visit)?;
        return items
            .each(|plan| named(plan, &["name", "id"], &[], visit))
            .map(drop);
    }
    if let Some(resources) = root.peek("Resources") {
        return cloud_formation::usage_plans(root, &resources, visit);
    }
    if OF_USAGE_PLAN.iter().any(|name| root.peek(name).is_some()) {
        return named(root, &["name", "id", "UsagePlanName"], &[], visit);
    }
    Ok(())
}

/// A list that the AWS CLI prints in pages tells where the next one begins.
fn more_pages(root: &Cursor<'_>, token: &str, visit: &mut Visitor<'_>) -> Result<(), ConfigError> {
    match root.peek(token) {
        Some(token) if !token.is_null() => visit(Discovery::Unread(&token, "the next page")),
        _ => Ok(()),
    }
}
