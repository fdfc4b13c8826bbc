//! The route settings of a stage: a table by route key, or a list.

use std::collections::HashSet;

use super::{amount::Throttling, block::Block, default_route::DefaultRoute, resolved::resolved};
use crate::{
    config::{
        Warning,
        document::{Cursor, Value},
        error::ConfigError,
    },
    limit::limits::Limits,
    route::RouteKey,
};

/// Adds what stands among route settings and is meant for the default route.
pub(super) fn defaults(
    settings: &Cursor<'_>,
    default: &mut DefaultRoute,
) -> Result<(), ConfigError> {
    each_block(settings, &mut |key, block| {
        let word = key.or_else(|| Block::peek_key(block));
        if !word.is_some_and(DefaultRoute::is_called) {
            return Ok(());
        }
        match key {
            Some(_) => default.add_misplaced(block),
            None => default.add_keyed(block),
        }
    })
}

/// Reads the settings of each route. What they leave out comes from `default`.
pub(super) fn routes(
    settings: &Cursor<'_>,
    default: Throttling,
    warnings: &mut Vec<Warning>,
) -> Result<Vec<(RouteKey, Limits)>, ConfigError> {
    let mut known = HashSet::new();
    let mut routes = Vec::new();
    each_block(settings, &mut |key, block| {
        let word = key.or_else(|| Block::peek_key(block));
        if word.is_some_and(DefaultRoute::is_called) {
            return Ok(());
        }
        let (key, limits) = route(key, block, default, warnings)?;
        if !known.insert(key.clone()) {
            return Err(block.fault(format!(
                "route key `{key}` or its equivalent is given before"
            )));
        }
        routes.push((key, limits));
        Ok(())
    })?;
    Ok(routes)
}

type RouteVisitor<'v> = dyn FnMut(Option<&str>, &Cursor<'_>) -> Result<(), ConfigError> + 'v;

/// Calls `visit` for each block, with the key that stands before it.
fn each_block(settings: &Cursor<'_>, visit: &mut RouteVisitor<'_>) -> Result<(), ConfigError> {
    resolved(settings)?;
    match settings.value() {
        // The list of Pulumi and Terraform: each item has its key in it.
        Value::List(_) => settings
            .each(|item| match has_default(item) {
                true => each_entry(item, visit),
                false => visit(None, item),
            })
            .map(drop),
        _ if Block::has_key(settings) => visit(None, settings),
        _ => each_entry(settings, visit),
    }
}

fn each_entry(table: &Cursor<'_>, visit: &mut RouteVisitor<'_>) -> Result<(), ConfigError> {
    let mut entries = table.entries()?;
    entries.try_for_each(|(key, block)| visit(Some(key), &block))
}

/// Returns whether an item of a list is a table by route key that has the word for the default route settings as one
/// of its keys.
fn has_default(item: &Cursor<'_>) -> bool {
    match item.value() {
        Value::Map(entries) if !Block::has_key(item) => entries
            .iter()
            .any(|(key, _)| DefaultRoute::is_called(&key.name)),
        _ => false,
    }
}

/// The settings of one route. Its key stands before them or among them.
fn route(
    key: Option<&str>,
    block: &Cursor<'_>,
    default: Throttling,
    warnings: &mut Vec<Warning>,
) -> Result<(RouteKey, Limits), ConfigError> {
    let Block {
        throttle: own,
        key: written,
    } = Block::read(block)?;
    let key = match (key, written) {
        (Some(key), None) => key.to_owned(),
        (None, Some(key)) => key,
        (None, None) => return Err(block.fault("the settings of a route have no route key")),
        (Some(_), Some(_)) => {
            return Err(block.fault("the settings of a route have two route keys"));
        }
    };
    let key: RouteKey = key
        .parse()
        .map_err(|fault| block.fault(format!("route key `{key}`: {fault}")))?;
    if key.as_str() == "$default" {
        let sentence = "is the catch-all route, not the default settings: it takes requests that match no other key \
                        and no route of the host; if the host provides no routes, as axum does by `MatchedPath`, it takes all \
                        requests that match no other key";
        warnings.push(Warning::new(block.path(), sentence));
    }
    if own.is_empty() {
        let instead = match default.is_empty() {
            true => "none is set here",
            false => "gets that of the default route settings",
        };
        warnings.push(Block::without_throttle(&block.path(), instead));
        return Ok((key, Limits::new()));
    }
    let throttle = own.or(default, block, warnings);
    let limits = throttle.limits(block, warnings)?;
    Ok((key, limits.unwrap_or_default()))
}
