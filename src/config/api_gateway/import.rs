//! From a document to the rules of the one stage or usage plan that is asked for.

use super::{
    choice::Choice,
    find, plan,
    resource::{Discovery, OTHER, REST, Visitor},
    settings,
};
use crate::{
    config::{
        Imported, Warning,
        document::{Cursor, parse_yaml},
        error::ConfigError,
    },
    rules::Rules,
};

/// The kind of resource that a document is searched for.
struct ResourceKind {
    /// `a stage`.
    name: &'static str,
    find: fn(&Cursor<'_>, &mut Visitor<'_>) -> Result<(), ConfigError>,
    read: fn(&Cursor<'_>, &mut Vec<Warning>) -> Result<Rules, ConfigError>,
}

const STAGE: ResourceKind = ResourceKind {
    name: "a stage",
    find: find::stages,
    read: settings::stage,
};
const USAGE_PLAN: ResourceKind = ResourceKind {
    name: "a usage plan",
    find: find::usage_plans,
    read: plan::usage_plan,
};

pub(in crate::config) fn read_stage(
    text: &str,
    name: Option<&str>,
) -> Result<Imported, ConfigError> {
    import(text, name, &STAGE)
}

pub(in crate::config) fn read_usage_plan(
    text: &str,
    name: Option<&str>,
) -> Result<Imported, ConfigError> {
    import(text, name, &USAGE_PLAN)
}

/// The one that is asked for, by name or because it is alone.
fn import(text: &str, name: Option<&str>, kind: &ResourceKind) -> Result<Imported, ConfigError> {
    let ResourceKind {
        name: kind,
        find,
        read,
    } = kind;
    let document = parse_yaml(text)?;
    let root = Cursor::root(&document);
    let is_asked_for = |names: &[&str]| name.is_none_or(|name| names.contains(&name));
    let mut all = Choice::default();
    let mut asked_for = 0;
    let mut unread = Vec::new();
    find(&root, &mut |visited| {
        match visited {
            Discovery::Resource(found) => {
                all.add(found.names);
                asked_for += usize::from(is_asked_for(found.names));
            }
            Discovery::Unread(place, what) => {
                let fault = match what {
                    REST | OTHER => format!("{what}, which is not read"),
                    _ => format!("{what}, which is not read and may hold {kind}"),
                };
                unread.push(place.fault(fault));
            }
        }
        Ok(())
    })?;
    match (asked_for, name) {
        (1, _) => {}
        _ if all.is_empty() => {
            let unknown = || {
                root.fault("unknown document; see `config::api_gateway` for the supported formats")
            };
            return Err(unread.into_iter().next().unwrap_or_else(unknown));
        }
        (0, Some(name)) => {
            let or_there = match unread.first() {
                Some(first) => format!("; `{}` is not read", first.path()),
                None => String::new(),
            };
            return Err(root.fault(format!("no `{name}` among {all}{or_there}")));
        }
        (_, Some(name)) => {
            let fault = format!("several are named `{name}`; choose one of {all}");
            return Err(root.fault(fault));
        }
        (_, None) => return Err(root.fault(format!("there are several; choose one of {all}"))),
    }
    let mut rules = Rules::new();
    let mut warnings: Vec<_> = unread.into_iter().map(Warning::from).collect();
    find(&root, &mut |visited| {
        let Discovery::Resource(found) = visited else {
            return Ok(());
        };
        if !is_asked_for(found.names) {
            return Ok(());
        }
        rules = match found.globals {
            _ if found.unresolved => {
                return Err(found
                    .settings
                    .fault("is expanded only by the deployment tool; write out its value"));
            }
            Some(globals) => {
                let merged = found.settings.over(globals);
                read(&found.settings.with(&merged), &mut warnings)?
            }
            None => read(found.settings, &mut warnings)?,
        };
        Ok(())
    })?;
    Ok(Imported { rules, warnings })
}
