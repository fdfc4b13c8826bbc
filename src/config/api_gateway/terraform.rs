//! Resources of Terraform: its configurations in JSON, its states and plans.

use std::collections::HashSet;

use super::resource::{
    Discovery, OTHER, REST, Resource, Visitor, is_stage, named, own_names, word,
};
use crate::config::{
    document::{Cursor, Value},
    error::ConfigError,
};

/// The name of a comment in Terraform's JSON syntax.
const COMMENT: &str = "//";

const STAGE: &str = "aws_apigatewayv2_stage";

/// The blocks `resource` and `module` of a configuration. Blocks are tables, or lists of them.
pub(super) fn configuration(root: &Cursor<'_>, visit: &mut Visitor<'_>) -> Result<(), ConfigError> {
    if let Some(resources) = root.peek("resource") {
        resources.each(|resources| {
            for (kind, all) in resources.entries()? {
                if kind == STAGE {
                    each_of(&all, &mut |id, stage| named(stage, &["name"], &[id], visit))?;
                } else if let Some(what) = not_read(kind) {
                    each_of(&all, &mut |_, other| visit(Discovery::Unread(other, what)))?;
                }
            }
            Ok(())
        })?;
    }
    if let Some(modules) = root.peek("module") {
        modules.each(|modules| {
            let mut modules = modules.entries()?;
            modules.try_for_each(|(id, module)| match id {
                COMMENT => Ok(()),
                _ => visit(Discovery::Unread(&module, "a module")),
            })
        })?;
    }
    Ok(())
}

/// Resources that may hold stages, or are stages that are not read.
fn not_read(kind: &str) -> Option<&'static str> {
    match kind {
        "aws_cloudformation_stack"
        | "aws_cloudformation_stack_set"
        | "aws_serverlessapplicationrepository_cloudformation_stack"
        | "aws_servicecatalog_provisioned_product"
        | "awscc_cloudformation_stack"
        | "awscc_cloudformation_stack_set"
        | "awscc_servicecatalog_cloudformation_provisioned_product" => Some("a nested stack"),
        // Throttles the stage of a REST API.
        "aws_api_gateway_method_settings" => Some(REST),
        kind if kind != STAGE && is_stage(kind) && !kind.contains(':') => Some(OTHER),
        _ => None,
    }
}

type BlockVisitor<'r> = dyn FnMut(&str, &Cursor<'_>) -> Result<(), ConfigError> + 'r;

/// Each resource of a kind, by its name.
fn each_of(all: &Cursor<'_>, read: &mut BlockVisitor<'_>) -> Result<(), ConfigError> {
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

/// The addresses of stages of which a plan knows the throttling only after it was applied. It leaves out such values.
pub(super) fn unknown(plan: &Cursor<'_>) -> Result<HashSet<String>, ConfigError> {
    let mut unknown = HashSet::new();
    let Some(changes) = plan.peek("resource_changes") else {
        return Ok(unknown);
    };
    changes.each(|change| {
        let after = change.peek("change");
        let after = after.as_ref().and_then(|after| after.peek("after_unknown"));
        let blocks = ["default_route_settings", "route_settings"];
        let throttles = |after: &Cursor<'_>| {
            let mut blocks = blocks.iter().filter_map(|block| after.peek(block));
            blocks.any(|block| is_unknown(&block))
        };
        if after.as_ref().is_some_and(throttles) {
            unknown.extend(word(change, "address").map(str::to_owned));
        }
        Ok(())
    })?;
    Ok(unknown)
}

/// Returns whether blocks, or settings of them that throttle, are unknown until they are applied.
fn is_unknown(blocks: &Cursor<'_>) -> bool {
    let settings = [
        "route_key",
        "throttling_rate_limit",
        "throttling_burst_limit",
    ];
    let of_block = |block: &Cursor<'_>| {
        *block.value() == Value::Bool(true)
            || settings.iter().any(|name| {
                let setting = block.peek(name);
                setting.is_some_and(|setting| *setting.value() == Value::Bool(true))
            })
    };
    let unknown = blocks.each(|block| Ok(of_block(block)));
    unknown.is_ok_and(|unknown| unknown.contains(&true))
}

/// A module of a state or a plan, with those inside of it.
pub(super) fn module(
    place: &Cursor<'_>,
    unknown: &HashSet<String>,
    visit: &mut Visitor<'_>,
) -> Result<(), ConfigError> {
    if let Some(resources) = place.peek("resources") {
        resources.each(|each| resource(each, unknown, visit))?;
    }
    if let Some(modules) = place.peek("child_modules") {
        modules.each(|each| module(each, unknown, visit))?;
    }
    Ok(())
}

/// A resource of a state or a plan. The settings of those whose address is `unknown` are not all there.
pub(super) fn resource(
    resource: &Cursor<'_>,
    unknown: &HashSet<String>,
    visit: &mut Visitor<'_>,
) -> Result<(), ConfigError> {
    let Some(kind) = word(resource, "type") else {
        return Ok(());
    };
    if let Some(what) = not_read(kind) {
        return visit(Discovery::Unread(resource, what));
    }
    if kind != STAGE {
        return Ok(());
    }
    let address = word(resource, "address");
    let others = [word(resource, "name"), address];
    let others: Vec<_> = others.into_iter().flatten().collect();
    let Some(values) = resource.peek("values") else {
        return Err(resource.fault("a stage without `values`"));
    };
    visit(Discovery::Resource(Resource {
        names: &own_names(&values, &["name"], &others),
        settings: &values,
        globals: None,
        unresolved: address.is_some_and(|address| unknown.contains(address)),
    }))
}
