//! The world of a run: clients, routes, and requests, which are the same whatever the rules.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use axum::http::{HeaderValue, Method, Uri};

use crate::BoxError;
use crate::document::Document;
use crate::options::{Manner, Options, Skew};
use crate::quantity::{Nanos, SECOND};
use crate::random::{Random, Weights};
use crate::trace;
use crate::traffic::Traffic;

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) routes: Vec<Route>,
    pub(crate) clients: Vec<Client>,
    /// The kinds of clients that are told apart.
    pub(crate) classes: Vec<String>,
    pub(crate) span: Nanos,
    pub(crate) seed: u64,
    source: Source,
}

/// A route that is asked for.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
}

/// A client that asks.
#[derive(Debug)]
pub(crate) struct Client {
    /// `None` if nobody knows who the client is.
    pub(crate) key: Option<HeaderValue>,
    pub(crate) bearer: Option<HeaderValue>,
    pub(crate) plan: Option<&'static str>,
    pub(crate) manner: Manner,
    pub(crate) class: usize,
}

/// A call: a request, and those that repeat it when it was refused.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    pub(crate) number: u64,
    pub(crate) client: u32,
    pub(crate) route: u32,
    pub(crate) attempt: u32,
}

#[derive(Debug)]
enum Source {
    Drawn {
        traffic: Traffic,
        clients: Weights,
        routes: Weights,
    },
    /// Requests in the order of their times: the moment, the client and the route.
    Trace(Vec<(Nanos, u32, u32)>),
}

impl World {
    pub(crate) fn new(options: &Options, documents: &[Document]) -> Result<Self, BoxError> {
        let mut world = match &options.traffic {
            Traffic::Trace(path) => Self::of_file(path, options, documents)?,
            traffic => Self::drawn(traffic, options, documents)?,
        };
        world.span = options.span.unwrap_or(world.span);
        Ok(world)
    }

    fn drawn(
        traffic: &Traffic,
        options: &Options,
        documents: &[Document],
    ) -> Result<Self, BoxError> {
        let plans = Plans::new(documents);
        let mut on_plans = Vec::new();
        for (name, share) in &options.plans {
            on_plans.push((Some(plans.find(name)?), *share));
        }
        let left = 1.0 - on_plans.iter().map(|(_, share)| share).sum::<f64>();
        if left < -1e-9 {
            return Err("--plan: the shares are more than all".into());
        }
        on_plans.push((None, left.max(0.0)));
        let drawn = Weights::new(on_plans.iter().map(|(_, share)| *share));
        let mut random = Random::new(options.seed, Random::PLANS);
        let mut people = People::new(options, !options.plans.is_empty());
        for number in 0..options.clients {
            let (plan, _) = on_plans[drawn.draw(&mut random)];
            let greedy = matches!(options.skew, Skew::Greedy(_)).then_some(number == 0);
            people.add(&format!("client-{number}"), plan, greedy)?;
        }
        let asked = match options.routes.is_empty() {
            true => of_documents(documents),
            false => options.routes.clone(),
        };
        let routes = asked.iter().map(|(key, _)| Route::of_key(key));
        let count = options.clients;
        let clients = match options.skew {
            Skew::Even => Weights::new((0..count).map(|_| 1.0)),
            Skew::Zipf(exponent) => {
                Weights::new((1..=count).map(|rank| f64::from(rank).powf(-exponent)))
            }
            Skew::Greedy(share) => {
                let others = (1.0 - share) / f64::from(count.saturating_sub(1).max(1));
                Weights::new((0..count).map(|number| if number == 0 { share } else { others }))
            }
        };
        Ok(Self {
            routes: routes.collect::<Result<_, _>>()?,
            clients: people.clients,
            classes: people.classes,
            span: traffic.span(),
            seed: options.seed,
            source: Source::Drawn {
                traffic: traffic.clone(),
                clients,
                routes: Weights::new(asked.iter().map(|(_, weight)| *weight)),
            },
        })
    }

    fn of_file(path: &Path, options: &Options, documents: &[Document]) -> Result<Self, BoxError> {
        let name = path.display();
        let text = fs::read_to_string(path).map_err(|error| format!("{name}: {error}"))?;
        Self::of_trace(&text, options, documents).map_err(|error| format!("{name}: {error}").into())
    }

    pub(crate) fn of_trace(
        text: &str,
        options: &Options,
        documents: &[Document],
    ) -> Result<Self, BoxError> {
        let plans = Plans::new(documents);
        let rows = trace::read(text)?;
        let mut people = People::new(options, rows.iter().any(|row| row.plan.is_some()));
        let (mut routes, mut known) = (Vec::new(), HashMap::new());
        let mut clients = HashMap::new();
        let mut requests = Vec::with_capacity(rows.len());
        for row in &rows {
            let wrong = |error| format!("line {}: {error}", row.line);
            let route = match known.get(&(row.method, row.path)) {
                Some(&route) => route,
                None => {
                    routes.push(Route::new(row.method, row.path).map_err(wrong)?);
                    known.insert((row.method, row.path), routes.len() - 1);
                    routes.len() - 1
                }
            };
            let client = match clients.get(row.client) {
                Some(&client) => client,
                None => {
                    let plan = row
                        .plan
                        .map(|plan| plans.find(plan))
                        .transpose()
                        .map_err(wrong)?;
                    people.add(row.client, plan, None).map_err(wrong)?;
                    clients.insert(row.client, people.clients.len() - 1);
                    people.clients.len() - 1
                }
            };
            requests.push((row.at, u32::try_from(client)?, u32::try_from(route)?));
        }
        Ok(Self {
            routes,
            clients: people.clients,
            classes: people.classes,
            span: rows.last().map_or(0, |row| row.at) + 60 * SECOND,
            seed: options.seed,
            source: Source::Trace(requests),
        })
    }

    /// The first attempts of all calls, in the order of their times.
    pub(crate) fn calls(&self) -> Box<dyn Iterator<Item = (Nanos, Call)> + '_> {
        let call = |number, client, route| Call {
            number,
            client,
            route,
            attempt: 1,
        };
        match &self.source {
            Source::Drawn {
                traffic,
                clients,
                routes,
            } => {
                let mut by_client = Random::new(self.seed, Random::CLIENTS);
                let mut by_route = Random::new(self.seed, Random::ROUTES);
                let times = (0..).zip(traffic.times(self.span, self.seed));
                Box::new(times.map(move |(number, at)| {
                    let client = clients.draw(&mut by_client) as u32;
                    let route = routes.draw(&mut by_route) as u32;
                    (at, call(number, client, route))
                }))
            }
            Source::Trace(requests) => {
                let rows = (0..).zip(requests).take_while(|(_, row)| row.0 < self.span);
                Box::new(rows.map(move |(number, row)| (row.0, call(number, row.1, row.2))))
            }
        }
    }
}

impl Route {
    fn new(method: &str, path: &str) -> Result<Self, BoxError> {
        let wrong = |_| format!("`{method} {path}`: no method and path");
        Ok(Self {
            method: method.parse().map_err(|_| wrong(()))?,
            uri: path.parse().map_err(|_| wrong(()))?,
        })
    }

    /// A request that a route key is meant for: `GET` of any method, and `x` for what varies.
    fn of_key(key: &str) -> Result<Self, BoxError> {
        if key == "$default" {
            return Self::new("GET", "/undeclared");
        }
        let wrong = || format!("`{key}`: expected a method and a path");
        let (method, path) = key.split_once(' ').ok_or_else(wrong)?;
        let method = if method == "ANY" { "GET" } else { method };
        let segments = path
            .split('/')
            .map(|segment| match segment.starts_with('{') {
                true => "x",
                false => segment,
            });
        Self::new(method, &segments.collect::<Vec<_>>().join("/"))
    }
}

/// All keys that the rules have, asked for alike.
fn of_documents(documents: &[Document]) -> Vec<(String, f64)> {
    let mut keys: Vec<(String, f64)> = Vec::new();
    for key in documents.iter().flat_map(|document| &document.routes) {
        if keys.iter().all(|(known, _)| known != key) {
            keys.push((key.clone(), 1.0));
        }
    }
    if keys.is_empty() {
        keys.push(("GET /".to_owned(), 1.0));
    }
    keys
}

/// The plans that some rules have.
struct Plans(Vec<&'static str>);

impl Plans {
    fn new(documents: &[Document]) -> Self {
        let names = documents.iter().flat_map(|document| &document.plans);
        // As long as the program: requests carry them in their extensions.
        Self(names.map(|name| &*name.clone().leak()).collect())
    }

    fn find(&self, name: &str) -> Result<&'static str, BoxError> {
        let found = self.0.iter().find(|known| **known == name);
        Ok(found.ok_or_else(|| format!("no plan `{name}` in the rules"))?)
    }
}

/// Clients as they are found.
struct People<'a> {
    options: &'a Options,
    manners: Weights,
    random: Random,
    any_plan: bool,
    clients: Vec<Client>,
    classes: Vec<String>,
}

impl<'a> People<'a> {
    fn new(options: &'a Options, any_plan: bool) -> Self {
        Self {
            options,
            manners: Weights::new(options.manners.iter().map(|(_, share)| *share)),
            random: Random::new(options.seed, Random::MANNERS),
            any_plan,
            clients: Vec::new(),
            classes: Vec::new(),
        }
    }

    /// Adds a client, in the class of those like it. `greedy` says whether it is the one who is, if there is one.
    fn add(
        &mut self,
        name: &str,
        plan: Option<&'static str>,
        greedy: Option<bool>,
    ) -> Result<(), BoxError> {
        let manners = &self.options.manners;
        let (manner, _) = manners[self.manners.draw(&mut self.random)];
        let mut parts = Vec::new();
        match greedy {
            Some(true) => parts.push("greedy"),
            Some(false) if !self.any_plan && manners.len() < 2 => parts.push("others"),
            _ => {}
        }
        if self.any_plan {
            parts.push(plan.unwrap_or("no plan"));
        }
        if manners.len() > 1 {
            parts.push(match manner {
                Manner::Leaves => "leaves",
                Manner::Obeys { .. } => "obeys",
                Manner::Hammers { .. } => "hammers",
            });
        }
        let class = match parts.is_empty() {
            true => "all".to_owned(),
            false => parts.join(", "),
        };
        let known = self.classes.iter().position(|known| *known == class);
        let class = known.unwrap_or_else(|| {
            self.classes.push(class);
            self.classes.len() - 1
        });
        let value = |text: &str| -> Result<_, BoxError> {
            let value = HeaderValue::from_str(text);
            Ok(value.map_err(|_| format!("client `{name}`: no value of a header field"))?)
        };
        let is_known = !name.is_empty();
        self.clients.push(Client {
            key: is_known.then(|| value(name)).transpose()?,
            bearer: is_known
                .then(|| value(&format!("Bearer {name}")))
                .transpose()?,
            plan,
            manner,
            class,
        });
        Ok(())
    }
}
