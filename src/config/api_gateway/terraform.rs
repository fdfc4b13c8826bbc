//! Resources of Terraform: its configurations in JSON, its states and plans.

use super::found::{Visit, Visited, named, word};
use crate::config::{document::Place, error::ConfigError};

/// The name of a comment in Terraform's JSON syntax.
const COMMENT: &str = "//";

/// The blocks `resource` and `module` of a configuration. Blocks are tables, or lists of them.
pub(super) fn configuration(root: &Place<'_>, visit: &mut Visit<'_>) -> Result<(), ConfigError> {
    if let Some(resources) = root.peek("resource") {
        resources.each(|resources| {
            each_of(resources, "aws_apigatewayv2_stage", &mut |id, stage| {
                named(stage, &["name"], &[id], visit)
            })?;
            for kind in STACKS {
                each_of(resources, kind, &mut |_, stack| {
                    visit(Visited::Unread(stack, "a nested stack"))
                })?;
            }
            each_of(resources, REST, &mut |_, settings| {
                visit(Visited::Unread(settings, super::import::REST))
            })
        })?;
    }
    if let Some(modules) = root.peek("module") {
        modules.each(|modules| {
            let mut modules = modules.entries()?;
            modules.try_for_each(|(id, module)| match id {
                COMMENT => Ok(()),
                _ => visit(Visited::Unread(&module, "a module")),
            })
        })?;
    }
    Ok(())
}

/// Resources whose templates may hold stages.
const STACKS: [&str; 3] = [
    "aws_cloudformation_stack",
    "aws_cloudformation_stack_set",
    "aws_serverlessapplicationrepository_cloudformation_stack",
];
/// The resource that throttles the stage of a REST API.
const REST: &str = "aws_api_gateway_method_settings";

type Read<'r> = dyn FnMut(&str, &Place<'_>) -> Result<(), ConfigError> + 'r;

/// Each resource of a kind, by its name.
fn each_of(resources: &Place<'_>, kind: &str, read: &mut Read<'_>) -> Result<(), ConfigError> {
    let Some(all) = resources.peek(kind) else {
        return Ok(());
    };
    all.each(|all| {
        for (id, blocks) in all.entries()? {
            if id != COMMENT {
                blocks.each(|block| read(id, block))?;
            }
        }
        Ok(())
    })?;
    Ok(())
}

/// A module of a state or a plan, with those inside of it.
pub(super) fn module(place: &Place<'_>, visit: &mut Visit<'_>) -> Result<(), ConfigError> {
    if let Some(resources) = place.peek("resources") {
        resources.each(|each| resource(each, visit))?;
    }
    if let Some(modules) = place.peek("child_modules") {
        modules.each(|each| module(each, visit))?;
    }
    Ok(())
}

/// A resource of a state or a plan.
pub(super) fn resource(resource: &Place<'_>, visit: &mut Visit<'_>) -> Result<(), ConfigError> {
    match word(resource, "type") {
        Some("aws_apigatewayv2_stage") => {}
        Some(kind) if STACKS.contains(&kind) => {
            return visit(Visited::Unread(resource, "a nested stack"));
        }
        Some(REST) => return visit(Visited::Unread(resource, super::import::REST)),
        _ => return Ok(()),
    }
    let others = ["name", "address"].map(|name| word(resource, name));
    let others: Vec<_> = others.into_iter().flatten().collect();
    match resource.peek("values") {
        Some(values) => named(&values, &["name"], &others, visit),
        None => Err(resource.fault("a stage without `values`")),
    }
}
