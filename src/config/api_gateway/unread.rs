//! Parts of CloudFormation's templates that only the service expands, and what they may hold.

use super::{
    resolved::is_function,
    resource::{Discovery, Resource, Visitor, kind},
};
use crate::config::{
    document::{Cursor, Node, Value},
    error::ConfigError,
};

/// Transforms that add no resource by themselves.
const KNOWN: [&str; 2] = ["AWS::Serverless-2016-10-31", "AWS::LanguageExtensions"];

/// Macros and includes that hold for the whole template.
pub(super) fn transforms(
    template: &Cursor<'_>,
    visit: &mut Visitor<'_>,
) -> Result<(), ConfigError> {
    if let Some(transforms) = template.peek("Transform") {
        transforms.each(|transform| match transform.value() {
            Value::Text(name) if KNOWN.contains(&&**name) => Ok(()),
            _ => visit(Discovery::Unread(transform, "a macro")),
        })?;
    }
    macros(template, visit)?;
    if let Some(modules) = template.peek("Modules") {
        let mut modules = modules.entries()?;
        modules.try_for_each(|(_, module)| visit(Discovery::Unread(&module, "a module")))?;
    }
    match template.peek("Globals") {
        Some(globals) => macros(&globals, visit),
        None => Ok(()),
    }
}

fn macros(part: &Cursor<'_>, visit: &mut Visitor<'_>) -> Result<(), ConfigError> {
    match part.peek("Fn::Transform") {
        Some(transform) => visit(Discovery::Unread(&transform, "a macro")),
        None => Ok(()),
    }
}

/// Tells `visit` of an entry of the resources that cannot be read: a loop, a macro, a function, or a stack in a
/// document of its own.
pub(super) fn entry(
    id: &str,
    resource: &Cursor<'_>,
    wanted: &[&str],
    visit: &mut Visitor<'_>,
) -> Result<bool, ConfigError> {
    let (holds, what) = if id == "Fn::Transform" {
        (Holds::Maybe, "a macro")
    } else if is_loop(id) {
        (in_loop(resource.node(), wanted), "a loop")
    } else if is_expanded(resource.node()) {
        (of_resource(resource.node(), wanted), "a function")
    } else {
        let nested = kind(resource)?.and_then(nested);
        if let Some(nested) = nested {
            visit(Discovery::Unread(resource, nested))?;
        }
        return Ok(nested.is_some());
    };
    match holds {
        Holds::Nothing => {}
        Holds::Maybe => visit(Discovery::Unread(resource, what))?,
        Holds::One => visit(Discovery::Resource(Resource {
            names: &[id],
            settings: resource,
            globals: None,
            unresolved: true,
        }))?,
    }
    Ok(true)
}

/// A type of resources that stand for those of another document.
fn nested(kind: &str) -> Option<&'static str> {
    match kind {
        "AWS::CloudFormation::Stack"
        | "AWS::CloudFormation::StackSet"
        | "AWS::Serverless::Application"
        | "AWS::ServiceCatalog::CloudFormationProvisionedProduct" => Some("a nested stack"),
        kind if kind.ends_with("::MODULE") => Some("a module"),
        _ => None,
    }
}

fn is_loop(id: &str) -> bool {
    id.starts_with("Fn::ForEach")
}

/// Returns whether a resource is a function, or has one beside its settings.
fn is_expanded(resource: &Node) -> bool {
    match &resource.value {
        Value::Map(entries) => entries.iter().any(|(key, _)| is_function(&key.name)),
        Value::Tagged(_) => true,
        _ => false,
    }
}

/// The chance that an entry makes resources of the wanted types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Holds {
    Nothing,
    Maybe,
    One,
}

/// Tells what a loop holds: `[Name, [a, b], { "Stage${Name}": { … } }]`.
fn in_loop(node: &Node, wanted: &[&str]) -> Holds {
    let Value::List(parts) = &node.value else {
        return Holds::Maybe;
    };
    let [_, _, body] = &parts[..] else {
        return Holds::Maybe;
    };
    let Value::Map(entries) = &body.value else {
        return Holds::Maybe;
    };
    let each = entries.iter().map(|(key, node)| match &*key.name {
        "Fn::Transform" => Holds::Maybe,
        id if is_loop(id) => in_loop(node, wanted),
        _ => of_resource(node, wanted),
    });
    each.max().unwrap_or(Holds::Nothing)
}

fn of_resource(node: &Node, wanted: &[&str]) -> Holds {
    let Value::Map(entries) = &node.value else {
        return Holds::Maybe;
    };
    let kind = entries.iter().find(|(key, _)| key.name == "Type");
    match kind.map(|(_, node)| &node.value) {
        Some(Value::Text(kind)) if wanted.contains(&&**kind) => Holds::One,
        Some(Value::Text(kind)) if nested(kind).is_none() && !kind.contains("${") => Holds::Nothing,
        _ => Holds::Maybe,
    }
}
