//! Pulumi programs in Python, run without a cloud.

use std::collections::HashSet;
use std::env;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use serde_json::{Map, Value};
use tower_throttle::config::{Imported, api_gateway};
use tower_throttle::{Limits, RouteKey, rules::Undeclared};

use crate::BoxError;
use crate::host::tell;

const SCRIPT: &str = include_str!("pulumi_stages.py");

/// A program beside an interpreter that has loaded Pulumi's SDK, so that it can be run again at once.
pub(crate) struct Program {
    state: Mutex<State>,
}

struct State {
    interpreter: Child,
    answers: BufReader<ChildStdout>,
    exports: Option<Value>,
}

impl Program {
    /// Starts an interpreter. The URLs of the program's stages will be `url`.
    pub(crate) fn start(program: &Path, url: &str) -> Result<Self, BoxError> {
        let python = env::var_os("PYTHON").unwrap_or_else(|| "python3".into());
        let mut interpreter = Command::new(&python)
            .args(["-c", SCRIPT, "--again", "--url", url, "--"])
            .arg(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{}: {error}", Path::new(&python).display()))?;
        let answers = interpreter.stdout.take().ok_or("no standard output")?;
        let state = State {
            interpreter,
            answers: BufReader::new(answers),
            exports: None,
        };
        Ok(Self {
            state: Mutex::new(state),
        })
    }

    /// Runs the program and reads its stage. Tells its exports where they have changed, and returns how it selects
    /// the route of a request.
    pub(crate) fn run(&self, name: Option<&str>) -> Result<(Imported, Undeclared), BoxError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = state.answer()?;
        let document: Value = serde_json::from_str(&answer)?;
        if let Some(error) = document.get("error").and_then(Value::as_str) {
            return Err(error.into());
        }
        let mut imported = match name {
            Some(name) => api_gateway::stage_named(&answer, name)?,
            None => api_gateway::stage(&answer)?,
        };
        let resources = document.get("resources").and_then(Value::as_object);
        let resources = resources.ok_or("no resources")?;
        for route in routes(resources) {
            imported.rules = imported.rules.route(route, Limits::new());
        }
        let exports = document
            .get("outputs")
            .filter(|exports| exports.is_object());
        if state.exports.as_ref() != exports {
            for (name, value) in exports.and_then(Value::as_object).into_iter().flatten() {
                let value = value
                    .as_str()
                    .map_or_else(|| value.to_string(), str::to_owned);
                tell(format_args!("export {name}: {value}"));
            }
            state.exports = exports.cloned();
        }
        Ok((imported, selection(resources)))
    }
}

impl State {
    fn answer(&mut self) -> Result<String, BoxError> {
        let mut answer = String::new();
        let input = self.interpreter.stdin.as_mut();
        // An interpreter that has ended has said why on the standard error.
        if input.is_some_and(|input| input.write_all(b"\n").is_ok()) {
            self.answers.read_line(&mut answer)?;
        }
        match answer.is_empty() {
            true => Err("the Python interpreter has ended".into()),
            false => Ok(answer),
        }
    }
}

fn properties<'a>(
    resources: &'a Map<String, Value>,
    kind: &'a str,
) -> impl Iterator<Item = &'a Value> {
    let of_kind = move |resource: &&Value| resource["type"] == kind;
    resources
        .values()
        .filter(of_kind)
        .map(|resource| &resource["properties"])
}

/// The routes that the program declares and that have no route settings.
fn routes(resources: &Map<String, Value>) -> Vec<String> {
    let mut known: HashSet<RouteKey> = HashSet::new();
    for stage in properties(resources, "aws:apigatewayv2/stage:Stage") {
        let keys: Vec<&str> = match &stage["routeSettings"] {
            Value::Array(settings) => settings
                .iter()
                .filter_map(|all| all["routeKey"].as_str())
                .collect(),
            Value::Object(settings) => settings.keys().map(String::as_str).collect(),
            _ => Vec::new(),
        };
        known.extend(keys.into_iter().filter_map(|key| key.parse().ok()));
    }
    properties(resources, "aws:apigatewayv2/route:Route")
        .filter_map(|route| route["routeKey"].as_str())
        .filter(|key| key.parse().is_ok_and(|key| known.insert(key)))
        .map(str::to_owned)
        .collect()
}

/// An API that selects routes by method and path, and declares none, has one for each method and path.
fn selection(resources: &Map<String, Value>) -> Undeclared {
    let by_method_and_path = properties(resources, "aws:apigatewayv2/api:Api")
        .any(|api| api["routeSelectionExpression"] == "$request.method $request.path");
    let declares_routes = properties(resources, "aws:apigatewayv2/route:Route")
        .next()
        .is_some();
    match by_method_and_path && !declares_routes {
        true => Undeclared::PerRoute,
        false => Undeclared::Shared,
    }
}
