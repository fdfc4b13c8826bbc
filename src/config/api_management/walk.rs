//! Through a document, to the policies that limit.

use super::{
    element::{Element, is_wrapper},
    policies::{is_limit, read},
    policy_limits::PolicyLimits,
};
use crate::config::ConfigError;

/// The most elements in which a policy may stand, one inside the other.
const DEEPEST: usize = 32;

pub(super) fn document(root: Element<'_>, found: &mut PolicyLimits) -> Result<(), ConfigError> {
    let name = root.name();
    let is_section = matches!(name, "inbound" | "backend" | "outbound" | "on-error");
    let is_policies = is_wrapper(name) || is_section || is_limit(name);
    if !is_policies && !root.descendants().any(|inside| is_limit(inside.name())) {
        let fault = "not a policy document; its root is `policies`, `fragment` or a policy such as `rate-limit`";
        return Err(root.fault(fault));
    }
    walk(root, 0, found)
}

fn walk(element: Element<'_>, depth: usize, found: &mut PolicyLimits) -> Result<(), ConfigError> {
    if depth > DEEPEST {
        return Err(element.fault(format!("is nested more than {DEEPEST} elements deep")));
    }
    match element.name() {
        "outbound" | "on-error" => none_inside(element),
        "inbound" | "backend" => inside(element, depth, found),
        name if is_wrapper(name) => inside(element, depth, found),
        _ if read(element, found)? => inside(element, depth, found),
        _ => {
            fragments(element, found);
            none_inside(element)
        }
    }
}

fn inside(element: Element<'_>, depth: usize, found: &mut PolicyLimits) -> Result<(), ConfigError> {
    let mut children = element.children();
    children.try_for_each(|child| walk(child, depth + 1, found))
}

/// Fragments may limit, and are not there to be read.
fn fragments(element: Element<'_>, found: &mut PolicyLimits) {
    let inside = std::iter::once(element).chain(element.descendants());
    for fragment in inside.filter(|element| element.name() == "include-fragment") {
        let sentence = "the fragment is not read; if it limits, replace it by its policies";
        found.warn(fragment.warning("fragment-id", sentence));
    }
}

/// No limit is read inside of this element, so none may stand there.
fn none_inside(element: Element<'_>) -> Result<(), ConfigError> {
    let Some(limit) = element.descendants().find(|inside| is_limit(inside.name())) else {
        return Ok(());
    };
    let around = limit.parent().map_or(element.name(), Element::name);
    Err(limit.fault(match element.name() {
        "outbound" | "on-error" => format!(
            "is in `{around}`, which runs after the decision; move it to `inbound`"
        ),
        "choose" | "retry" => format!(
            "is in `{around}`, so that an expression decides whether it applies; move it out, or set its limits in \
             Rust, with `Rules::route` or `Clients::plan_by`"
        ),
        _ => format!("is in `{around}`, where no limit is read; move it to `inbound`"),
    }))
}
