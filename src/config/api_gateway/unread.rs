//! Parts of CloudFormation's templates that only the service expands, and what they may hold.

use super::{
    cloud_formation::kind,
    found::{Found, Visit, Visited},
};
use crate::config::{
    document::{Node, Place, Value},
    error::ConfigError,
};

/// Transforms that add no resource by themselves.
const KNOWN: [&str; 2] = ["AWS::Serverless-2016-10-31", "AWS::LanguageExtensions"];

/// Macros and includes that hold for the whole template.
pub(super) fn transforms(template: &Place<'_>, visit: &mut Visit<'_>) -> Result<(), ConfigError> {
    if let Some(transforms) = template.peek("Transform") {
        transforms.each(|transform| match transform.value() {
            Value::Text(name) if KNOWN.contains(&&**name) => Ok(()),
            _ => visit(Visited::Unread(transform, "a macro")),
        })?;
    }
    macros(template, visit)?;
    match template.peek("Globals") {
        Some(globals) => macros(&globals, visit),
        None => Ok(()),
    }
}

fn macros(part: &Place<'_>, visit: &mut Visit<'_>) -> Result<(), ConfigError> {
    match part.peek("Fn::Transform") {
        Some(transform) => visit(Visited::Unread(&transform, "a macro")),
        None => Ok(()),
    }
}

/// Whether an entry of the resources is none that can be read: a loop, a macro, or a stack in a document of its own.
pub(super) fn entry(
    id: &str,
    resource: &Place<'_>,
    wanted: &[&str],
    visit: &mut Visit<'_>,
) -> Result<bool, ConfigError> {
    if id == "Fn::Transform" {
        visit(Visited::Unread(resource, "a macro"))?;
        return Ok(true);
    }
    if id.starts_with("Fn::ForEach") {
        match holds(resource.node(), wanted) {
            Holds::Nothing => {}
            Holds::Maybe => visit(Visited::Unread(resource, "a loop"))?,
            Holds::One => visit(Visited::Found(Found {
                names: &[id],
                settings: resource,
                globals: None,
                unresolved: true,
            }))?,
        }
        return Ok(true);
    }
    let nested = kind(resource)?.and_then(nested);
    if let Some(nested) = nested {
        visit(Visited::Unread(resource, nested))?;
    }
    Ok(nested.is_some())
}

/// A type of resources that stand for those of another document.
fn nested(kind: &str) -> Option<&'static str> {
    match kind {
        "AWS::CloudFormation::Stack"
        | "AWS::CloudFormation::StackSet"
        | "AWS::Serverless::Application" => Some("a nested stack"),
        kind if kind.ends_with("::MODULE") => Some("a module"),
        _ => None,
    }
}

/// Whether a loop makes resources of the types that are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Holds {
    Nothing,
    Maybe,
    One,
}

fn holds(node: &Node, wanted: &[&str]) -> Holds {
    let most = |nodes: &mut dyn Iterator<Item = Holds>| nodes.max().unwrap_or(Holds::Nothing);
    match &node.value {
        Value::List(nodes) => most(&mut nodes.iter().map(|node| holds(node, wanted))),
        Value::Map(entries) => most(&mut entries.iter().map(|(key, node)| {
            if key.name == "Fn::Transform" {
                return Holds::Maybe;
            }
            match &node.value {
                _ if key.name != "Type" => holds(node, wanted),
                Value::Text(kind) if wanted.contains(&&**kind) => Holds::One,
                Value::Text(kind) if nested(kind).is_none() && !kind.contains("${") => {
                    Holds::Nothing
                }
                _ => Holds::Maybe,
            }
        })),
        _ => Holds::Nothing,
    }
}
