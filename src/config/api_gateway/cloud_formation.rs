//! Resources of CloudFormation's templates, and of SAM's.

use super::{
    find::{Found, Visit, own_names},
    resolved::resolved,
};
use crate::config::{
    document::{NO_SETTINGS, Place},
    error::ConfigError,
};

/// The API that SAM makes of functions whose events name none.
const IMPLICIT: &str = "ServerlessHttpApi";

pub(super) fn stages(
    template: &Place<'_>,
    resources: &Place<'_>,
    visit: &mut Visit<'_>,
) -> Result<(), ConfigError> {
    let globals = template.peek("Globals");
    let globals = globals.as_ref().and_then(|globals| globals.peek("HttpApi"));
    if let Some(globals) = &globals {
        resolved(globals)?;
    }
    let mut implicit = false;
    for (id, resource) in resources.entries()? {
        match kind(&resource)? {
            Some("AWS::ApiGatewayV2::Stage") => {
                settings(&resource, "StageName", &[id], None, visit)?;
            }
            Some("AWS::Serverless::HttpApi") => {
                let globals = match globals {
                    Some(_) if ignores_globals(&resource)? => None,
                    _ => globals.as_ref(),
                };
                settings(&resource, "StageName", &[id], globals, visit)?;
            }
            Some("AWS::Serverless::Function") => implicit |= has_implicit_events(&resource)?,
            _ => {}
        }
    }
    let throttles = |globals: &Place<'_>| {
        let mut names = ["DefaultRouteSettings", "RouteSettings"].into_iter();
        names.any(|name| globals.peek(name).is_some())
    };
    match &globals {
        Some(settings) if implicit && throttles(settings) => visit(Found {
            names: &["$default", IMPLICIT],
            settings,
            globals: None,
        }),
        _ => Ok(()),
    }
}

pub(super) fn usage_plans(resources: &Place<'_>, visit: &mut Visit<'_>) -> Result<(), ConfigError> {
    for (id, resource) in resources.entries()? {
        if kind(&resource)? == Some("AWS::ApiGateway::UsagePlan") {
            settings(&resource, "UsagePlanName", &[id], None, visit)?;
        }
    }
    Ok(())
}

fn kind<'a>(resource: &'a Place<'a>) -> Result<Option<&'a str>, ConfigError> {
    match resource.peek("Type") {
        Some(kind) => kind.text().map(Some),
        None => Ok(None),
    }
}

fn settings(
    resource: &Place<'_>,
    name: &str,
    others: &[&str],
    globals: Option<&Place<'_>>,
    visit: &mut Visit<'_>,
) -> Result<(), ConfigError> {
    let properties = resource.peek("Properties");
    let settings = properties.unwrap_or_else(|| resource.with(&NO_SETTINGS));
    visit(Found {
        names: &own_names(&settings, &[name], others),
        settings: &settings,
        globals,
    })
}

fn ignores_globals(resource: &Place<'_>) -> Result<bool, ConfigError> {
    match resource.peek("IgnoreGlobals") {
        None => Ok(false),
        Some(ignored) if ignored.text().is_ok_and(|all| all == "*") => Ok(true),
        Some(ignored) => Err(ignored.fault("is read as `*` alone, which ignores all of them")),
    }
}

/// Whether some event of a function belongs to the implicit API. SAM lets it have route settings of its own, too.
fn has_implicit_events(function: &Place<'_>) -> Result<bool, ConfigError> {
    let Some(properties) = function.peek("Properties") else {
        return Ok(false);
    };
    let Some(events) = properties.peek("Events") else {
        return Ok(false);
    };
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
