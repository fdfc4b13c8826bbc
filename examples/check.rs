//! Checks limits before a deployment: reads a file, and prints which limits hold where.
//!
//! ```sh
//! cargo run --features config --example check -- limits.toml
//! cargo run --features config --example check -- examples/gateway/stage.json --routes routes.txt
//! ```
//!
//! The file has rules of this crate (TOML, YAML, JSON), a stage or usage plan of API Gateway (JSON, YAML), or a policy
//! of Azure API Management (XML). `--routes` names a file with the routes of the server, such as `GET /v1/models/{id}`,
//! a line each, and reports keys that match none of them and routes without a limit. `--stage` names a stage or plan.
//!
//! The exit code is 0 if all is well, 1 if routes and keys do not fit, and 2 if something cannot be read.

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use tower_throttle::config::{Imported, api_gateway, api_management};
use tower_throttle::{RouteKey, Rules, ThrottleLayer, limit::Scope, snapshot::LimitSnapshot};

type BoxError = Box<dyn Error>;

const USAGE: &str = "usage: check FILE [--routes FILE] [--stage NAME]";

/// The words of the command line.
struct Arguments {
    file: PathBuf,
    routes: Option<PathBuf>,
    stage: Option<String>,
}

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    if words.iter().any(|word| word == "--help" || word == "-h") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    match arguments(words).and_then(|arguments| check(&arguments)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn arguments(words: Vec<String>) -> Result<Arguments, BoxError> {
    let (mut file, mut routes, mut stage) = (None, None, None);
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(USAGE);
        match &*word {
            "--routes" => routes = Some(PathBuf::from(value()?)),
            "--stage" => stage = Some(value()?),
            _ if word.starts_with('-') || file.is_some() => return Err(USAGE.into()),
            _ => file = Some(PathBuf::from(word)),
        }
    }
    let file = file.ok_or(USAGE)?;
    Ok(Arguments {
        file,
        routes,
        stage,
    })
}

/// Prints the limits of a file, and returns whether they fit the routes.
fn check(arguments: &Arguments) -> Result<bool, BoxError> {
    let Arguments {
        file,
        routes,
        stage,
    } = arguments;
    let at_fault = |error: BoxError| format!("{}: {error}", file.display());
    let text = read(file)?;
    let imported = document(file, &text, stage.as_deref()).map_err(at_fault)?;
    for warning in &imported.warnings {
        eprintln!("warning: {}: {warning}", file.display());
    }
    let rules = imported.rules;
    let throttle = ThrottleLayer::new(rules.clone()).map_err(|error| at_fault(error.into()))?;
    print!("{}", table(&throttle.handle().snapshot().limits));
    let Some(routes) = routes else {
        return Ok(true);
    };
    let text = read(routes)?;
    let mut pairs = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let at_fault = |what| format!("{}: line {}: {what}", routes.display(), number + 1);
        match *line.split_whitespace().collect::<Vec<_>>() {
            [] => {}
            [method, path] => {
                let key = format!("{method} {path}").parse::<RouteKey>();
                key.map_err(|error| at_fault(format!("`{line}`: {error}")))?;
                pairs.push((method, path));
            }
            _ => return Err(at_fault(format!("`{line}` is no method and path")).into()),
        }
    }
    let audit = rules.audit(pairs).map_err(|error| at_fault(error.into()))?;
    if !audit.is_empty() {
        println!("\n{audit}");
    }
    Ok(audit.is_empty())
}

fn read(path: &Path) -> Result<String, BoxError> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()).into())
}

/// Reads a document by the ending of its name. JSON and YAML hold rules or a gateway's document: if it is neither, the
/// error is that of the rules.
fn document(path: &Path, text: &str, stage: Option<&str>) -> Result<Imported, BoxError> {
    let ending = path.extension().and_then(|ending| ending.to_str());
    match (ending, stage) {
        (Some("toml" | "xml"), Some(_)) => Err("`--stage` is for documents of API Gateway".into()),
        (Some("toml"), None) => Ok(Rules::from_toml(text)?.into()),
        (Some("xml"), None) => Ok(api_management::policy(text)?),
        (_, Some(name)) => {
            let stage = api_gateway::stage_named(text, name);
            Ok(stage
                .or_else(|error| api_gateway::usage_plan_named(text, name).map_err(|_| error))?)
        }
        (_, None) => {
            let rules = Rules::from_yaml(text).map(Imported::from);
            let other = |error| {
                let stage = api_gateway::stage(text).or_else(|_| api_gateway::usage_plan(text));
                stage.map_err(|_| error)
            };
            Ok(rules.or_else(other)?)
        }
    }
}

/// A line for each limit, the most general first.
fn table(limits: &[LimitSnapshot]) -> String {
    let mut rows = vec![["route", "clients", "limit", "settings"].map(str::to_owned)];
    rows.extend(limits.iter().map(|limit| {
        let each = match (limit.scope, &limit.model) {
            (Scope::Total, _) => "all requests".to_owned(),
            (Scope::Route, _) => "routes without a key".to_owned(),
            (_, Some(model)) => format!("any route, model {model}"),
            (_, None) => "any route".to_owned(),
        };
        let route = limit.route.clone().unwrap_or(each);
        let clients = match (limit.scope, &limit.plan) {
            (Scope::Total | Scope::Route | Scope::Model, _) => "-".to_owned(),
            (_, Some(plan)) => format!("each on plan {plan}"),
            (_, None) => "each".to_owned(),
        };
        [
            route,
            clients,
            limit.name.to_string(),
            limit.settings.to_string(),
        ]
    }));
    let width = |column: usize| {
        let lengths = rows.iter().map(|row| row[column].chars().count());
        lengths.max().unwrap_or(0)
    };
    let widths = [0, 1, 2].map(width);
    let line = |[route, clients, limit, terms]: &[String; 4]| {
        let [first, second, third] = widths;
        format!("{route:first$}  {clients:second$}  {limit:third$}  {terms}\n")
    };
    rows.iter().map(line).collect()
}
