//! The limits, from any supported document.

use std::io;
use std::path::{Path, PathBuf};

use tower_throttle::config::{self, Imported, Watch, Watching, api_gateway};
use tower_throttle::{Handle, Rules, rules::Undeclared};

use crate::BoxError;
use crate::host::{tell, warn};
use crate::pulumi::Program;

/// A stage, and how it is read.
pub(crate) struct Stage {
    pub(crate) source: Source,
    /// The stage's name, where there are several.
    pub(crate) name: Option<String>,
    pub(crate) undeclared: Option<Undeclared>,
}

pub(crate) enum Source {
    Document(PathBuf),
    /// The standard input, which is read once.
    Input,
    Program(PathBuf),
}

impl Stage {
    /// Puts the limits of the stage in force, and follows it until what is returned is dropped.
    pub(crate) fn start(self, url: &str, handle: &Handle) -> Result<Option<Watching>, BoxError> {
        let Self {
            source,
            name,
            undeclared,
        } = self;
        match source {
            Source::Input => {
                let at_fault = |error: BoxError| format!("standard input: {error}");
                let text =
                    io::read_to_string(io::stdin()).map_err(|error| at_fault(error.into()))?;
                let imported = document(&text, name.as_deref()).map_err(at_fault)?;
                let rules = rules(Path::new("standard input"), imported);
                let reloaded =
                    handle.reload(rules.undeclared(undeclared.unwrap_or(Undeclared::Shared)));
                reloaded.map_err(|error| at_fault(error.into()))?;
                Ok(None)
            }
            Source::Document(path) => {
                let is_toml = path
                    .extension()
                    .is_some_and(|extension| extension == "toml");
                let read = move |path: &Path, text: &str| {
                    let imported = match is_toml {
                        true => Rules::from_toml(text)?.into(),
                        false => document(text, name.as_deref())?,
                    };
                    let undeclared = undeclared.unwrap_or(Undeclared::Shared);
                    Ok(rules(path, imported).undeclared(undeclared))
                };
                follow(path, read, handle)
            }
            Source::Program(path) => {
                let program = Program::start(&path, url)?;
                // The text tells only that the program has changed.
                let run = move |path: &Path, _: &str| {
                    let (imported, selected) = program.run(name.as_deref())?;
                    Ok(rules(path, imported).undeclared(undeclared.unwrap_or(selected)))
                };
                follow(path, run, handle)
            }
        }
    }
}

/// Reads a stage, or rules of this crate.
fn document(text: &str, name: Option<&str>) -> Result<Imported, BoxError> {
    let stage = match name {
        Some(name) => api_gateway::stage_named(text, name),
        None => api_gateway::stage(text),
    };
    // A text that is neither is told as a bad stage.
    stage.or_else(|error| match Rules::from_yaml(text) {
        Ok(rules) => Ok(rules.into()),
        Err(_) => Err(error.into()),
    })
}

/// Tells the warnings.
fn rules(path: &Path, imported: Imported) -> Rules {
    for warning in &imported.warnings {
        warn(format_args!("{}: {warning}", path.display()));
    }
    imported.rules
}

fn follow(
    path: PathBuf,
    read: impl Fn(&Path, &str) -> Result<Rules, BoxError> + Send + 'static,
    handle: &Handle,
) -> Result<Option<Watching>, BoxError> {
    let watch: Watch = config::watch(path.clone());
    let watching = watch
        .reading(move |text| read(&path, text))
        .telling(|changes| match changes {
            Ok(changes) => tell(format_args!("reloaded: {changes}")),
            Err(error) => warn(format_args!("not reloaded: {error}")),
        })
        .start(handle)?;
    Ok(Some(watching))
}
