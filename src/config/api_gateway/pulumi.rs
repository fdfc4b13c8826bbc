//! Resources of Pulumi's programs in YAML, and of its states.

use super::resource::{Discovery, OTHER, REST, Visitor, is_stage, named, word};
use crate::config::{document::Cursor, error::ConfigError};

const STAGES: [&str; 3] = [
    "aws:apigatewayv2:Stage",
    "aws:apigatewayv2/stage:Stage",
    "aws-native:apigatewayv2:Stage",
];

/// The `resources` of a program, and the components that it declares.
pub(super) fn program(
    root: &Cursor<'_>,
    resources: &Cursor<'_>,
    visit: &mut Visitor<'_>,
) -> Result<(), ConfigError> {
    if let Some(components) = root.peek("components") {
        for (_, component) in components.entries()? {
            if component.peek("resources").is_some() {
                visit(Discovery::Unread(&component, "a component"))?;
            }
        }
    }
    let mut resources = resources.entries()?;
    resources.try_for_each(|(id, each)| resource(&each, Some(id), visit))
}

/// The `deployment` that `pulumi stack export` prints.
pub(super) fn state(deployment: &Cursor<'_>, visit: &mut Visitor<'_>) -> Result<(), ConfigError> {
    match deployment.peek("resources") {
        Some(resources) => resources.each(|each| resource(each, None, visit)).map(drop),
        None => Ok(()),
    }
}

/// A resource of a program, which has `properties`, or of a state, which has `inputs`.
pub(super) fn resource(
    resource: &Cursor<'_>,
    id: Option<&str>,
    visit: &mut Visitor<'_>,
) -> Result<(), ConfigError> {
    let Some(kind) = resource.peek("type") else {
        return Ok(());
    };
    let kind = kind.text()?;
    if let Some(what) = not_read(kind) {
        return visit(Discovery::Unread(resource, what));
    }
    if !STAGES.contains(&kind) {
        // Types of Terraform have no colon.
        return match is_stage(kind) && kind.contains(':') {
            true => visit(Discovery::Unread(resource, OTHER)),
            false => Ok(()),
        };
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

/// Resources that may hold stages, or are those of REST APIs.
fn not_read(kind: &str) -> Option<&'static str> {
    match kind {
        "aws:cloudformation:Stack"
        | "aws:cloudformation/stack:Stack"
        | "aws:cloudformation:StackSet"
        | "aws:cloudformation/stackSet:StackSet"
        | "aws-native:cloudformation:Stack"
        | "aws-native:cloudformation:StackSet"
        | "aws:serverlessrepository:CloudFormationStack"
        | "aws:serverlessrepository/cloudFormationStack:CloudFormationStack"
        | "aws:servicecatalog:ProvisionedProduct"
        | "aws:servicecatalog/provisionedProduct:ProvisionedProduct"
        | "aws-native:servicecatalog:CloudFormationProvisionedProduct" => Some("a nested stack"),
        "aws:apigateway:Stage" | "aws:apigateway/stage:Stage" | "aws-native:apigateway:Stage" => {
            Some(REST)
        }
        // A module of Terraform, as `pulumi package add terraform-module` names it. In a state its resources stand
        // beside it.
        kind if kind.ends_with(":index:Module") => Some("a module"),
        _ => None,
    }
}
