//! Resources of CloudFormation's templates, and of SAM's.

use super::{
    resolved::resolved,
    resource::{Discovery, OTHER, REST, Resource, Visitor, is_stage, kind, named, properties},
    unread,
};
use crate::config::{document::Cursor, error::ConfigError};

/// The API that SAM makes of functions whose events name none.
const IMPLICIT: &str = "ServerlessHttpApi";
const STAGES: [&str; 3] = [
    "AWS::ApiGatewayV2::Stage",
    "AWS::Serverless::HttpApi",
    "AWS::ApiGatewayV2::ApiGatewayManagedOverrides",
];
const USAGE_PLAN: &str = "AWS::ApiGateway::UsagePlan";

pub(super) fn stages(
    template: &Cursor<'_>,
    resources: &Cursor<'_>,
    visit: &mut Visitor<'_>,
) -> Result<(), ConfigError> {
    unread::transforms(template, visit)?;
    let all = template.peek("Globals");
    let rest = all.as_ref().and_then(|globals| globals.peek("Api"));
    if let Some(settings) = rest.as_ref().and_then(|rest| rest.peek("MethodSettings")) {
        visit(Discovery::Unread(&settings, REST))?;
    }
    let globals = all.as_ref().and_then(|globals| globals.peek("HttpApi"));
    if let Some(globals) = &globals {
        resolved(globals)?;
    }
    let mut implicit = false;
    for (id, resource) in resources.entries()? {
        if unread::entry(id, &resource, &STAGES, visit)? {
            continue;
        }
        match kind(&resource)? {
            Some("AWS::ApiGatewayV2::Stage") => {
                properties(&resource, &["StageName"], &[id], None, visit)?;
            }
            Some("AWS::Serverless::HttpApi") => {
                let globals = match globals {
                    Some(_) if ignores_globals(&resource)? => None,
                    _ => globals.as_ref(),
                };
                properties(&resource, &["StageName"], &[id], globals, visit)?;
            }
            Some("AWS::ApiGatewayV2::ApiGatewayManagedOverrides") => {
                managed_stage(id, &resource, visit)?;
            }
            Some("AWS::Serverless::Function") => implicit |= has_implicit_events(&resource)?,
            Some("AWS::ApiGateway::Stage" | "AWS::Serverless::Api") => {
                visit(Discovery::Unread(&resource, REST))?;
            }
            Some(kind) if is_stage(kind) => visit(Discovery::Unread(&resource, OTHER))?,
            _ => {}
        }
    }
    let throttles = |globals: &Cursor<'_>| {
        let mut names = ["DefaultRouteSettings", "RouteSettings"].into_iter();
        names.any(|name| globals.peek(name).is_some())
    };
    match &globals {
        Some(settings) if implicit && throttles(settings) => visit(Discovery::Resource(Resource {
            names: &["$default", IMPLICIT],
            settings,
            globals: None,
            unresolved: false,
        })),
        _ => Ok(()),
    }
}

pub(super) fn usage_plans(
    template: &Cursor<'_>,
    resources: &Cursor<'_>,
    visit: &mut Visitor<'_>,
) -> Result<(), ConfigError> {
    unread::transforms(template, visit)?;
    for (id, resource) in resources.entries()? {
        if unread::entry(id, &resource, &[USAGE_PLAN], visit)? {
            continue;
        }
        match kind(&resource)? {
            Some(USAGE_PLAN) => properties(&resource, &["UsagePlanName"], &[id], None, visit)?,
            Some("AWS::Serverless::Api") => {
                let properties = resource.peek("Properties");
                let auth = properties.as_ref().and_then(|all| all.peek("Auth"));
                if let Some(plan) = auth.as_ref().and_then(|auth| auth.peek("UsagePlan")) {
                    visit(Discovery::Unread(&plan, "a usage plan of SAM's own"))?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// The settings of the stage `$default` that API Gateway has made by itself.
fn managed_stage(
    id: &str,
    resource: &Cursor<'_>,
    visit: &mut Visitor<'_>,
) -> Result<(), ConfigError> {
    let Some(properties) = resource.peek("Properties") else {
        return Ok(());
    };
    resolved(&properties)?;
    match properties.peek("Stage") {
        Some(stage) => named(&stage, &[], &["$default", id], visit),
        None => Ok(()),
    }
}

fn ignores_globals(resource: &Cursor<'_>) -> Result<bool, ConfigError> {
    match resource.peek("IgnoreGlobals") {
        None => Ok(false),
        Some(ignored) if ignored.text().is_ok_and(|all| all == "*") => Ok(true),
        Some(ignored) => Err(ignored.fault("only `*` is supported, which ignores all properties")),
    }
}

/// Returns whether some event of a function belongs to the implicit API. SAM lets an event have route settings of its
/// own, too: those are an error.
fn has_implicit_events(function: &Cursor<'_>) -> Result<bool, ConfigError> {
    let Some(properties) = function.peek("Properties") else {
        return Ok(false);
    };
    let Some(events) = properties.peek("Events") else {
        return Ok(false);
    };
    resolved(&events)?;
    let mut implicit = false;
    for (_, event) in events.entries()? {
        let properties = event.peek("Properties");
        let of_event = |name| properties.as_ref().and_then(|all| all.peek(name));
        if let Some(settings) = of_event("RouteSettings") {
            return Err(settings.fault(
                "route settings of an event are not read; write them into `RouteSettings` of the \
                 `AWS::Serverless::HttpApi`",
            ));
        }
        implicit |= kind(&event)? == Some("HttpApi") && of_event("ApiId").is_none();
    }
    Ok(implicit)
}
