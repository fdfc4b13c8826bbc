//! R8 and R23: axum's router against the throttle. However a request is spelled, no handler of a closed route runs.
//!
//! `ROUTED` sets the number of requests. Default: 20,000.

#![cfg(feature = "axum")]

#[path = "support/spelled.rs"]
mod spelled;
mod support;

use axum::{Router, body::Body, response::IntoResponse, routing};
use http::{Extensions, HeaderValue, Request};
use tower::Layer;
use tower_throttle::{Clients, Limits, Plan, Rules};

use spelled::{METHODS, Random, as_preflight, boxed, routed, spelled_otherwise};
use support::{request, send, throttle};

/// A route of the host: a method, or `ANY`, and a template.
type Route = (&'static str, &'static str);

/// Routes that differ in literals against parameters, lengths and ends.
const ROUTES: [Route; 16] = [
    ("GET", "/"),
    ("POST", "/chat"),
    ("ANY", "/v1/chat"),
    ("POST", "/v1/{tenant}/chat"),
    ("GET", "/v1/{tenant}/chat"),
    ("POST", "/v1/{tenant}/{model}/chat"),
    ("GET", "/files/health"),
    ("GET", "/files/{id}"),
    ("ANY", "/files/{id}/raw"),
    ("POST", "/rest/{*path}"),
    ("GET", "/rest/of/it"),
    ("POST", "/pkg.Svc/Method"),
    ("GET", "/dir/"),
    ("GET", "/dir"),
    ("GET", "/{a}/{b}/end"),
    ("OPTIONS", "/asked"),
];

/// The route that has run, as its handler tells it in the extensions of the response.
#[derive(Clone, Copy)]
struct Ran(Route);

/// The way in which the routers of an application are put together.
#[derive(Debug, Clone, Copy)]
enum Shape {
    Flat,
    /// Half of the routes stand in a router of their own.
    Merged,
    Nested,
    NestedTwice,
    NestService,
}

const SHAPES: [Shape; 5] = [
    Shape::Flat,
    Shape::Merged,
    Shape::Nested,
    Shape::NestedTwice,
    Shape::NestService,
];

impl Shape {
    fn prefix(self) -> &'static str {
        match self {
            Self::Flat | Self::Merged => "",
            Self::Nested | Self::NestService => "/api",
            Self::NestedTwice => "/out/{in}",
        }
    }

    fn router(self) -> Router {
        match self {
            Self::Flat => router(&ROUTES),
            Self::Merged => router(&ROUTES[..8]).merge(router(&ROUTES[8..])),
            Self::Nested => Router::new().nest("/api", router(&ROUTES)),
            Self::NestedTwice => {
                Router::new().nest("/out", Router::new().nest("/{in}", router(&ROUTES)))
            }
            Self::NestService => Router::new().nest_service("/api", router(&ROUTES)),
        }
    }

    /// The key of a route in this shape.
    fn key(self, (method, template): Route) -> String {
        // A nest without a trailing slash is its own root.
        let template = match self {
            Self::Nested | Self::NestedTwice if template == "/" => "",
            _ => template,
        };
        format!("{method} {}{template}", self.prefix())
    }
}

fn router(routes: &[Route]) -> Router {
    routes.iter().fold(Router::new(), |router, &route| {
        let handler = move || async move {
            let mut response = "served".into_response();
            response.extensions_mut().insert(Ran(route));
            response
        };
        let method = match route.0 {
            "ANY" => routing::any(handler),
            "POST" => routing::post(handler),
            "OPTIONS" => routing::options(handler),
            _ => routing::get(handler),
        };
        router.route(route.1, method)
    })
}

/// Values of parameters: literals of other routes among them.
const VALUES: [&str; 12] = [
    "a",
    "chat",
    "health",
    "v1",
    "files",
    "",
    "%61",
    "%2F",
    "of",
    "caf\u{e9}",
    ".",
    "%00",
];

/// A path that is made for a route, and then spelled otherwise.
fn path(random: &mut Random, template: &str) -> String {
    let mut path = String::new();
    for part in template.split('/').skip(1) {
        path.push('/');
        match part.starts_with('{') {
            true if part.starts_with("{*") => {
                for _ in 0..=random.below(3) {
                    path.push_str(random.of(&VALUES));
                    path.push('/');
                }
                path.push_str(random.of(&VALUES));
            }
            true => path.push_str(random.of(&VALUES)),
            false => path.push_str(part),
        }
    }
    for _ in 0..random.below(3) {
        path = spelled_otherwise(random, &path);
    }
    path
}

/// A request that a client sends, with what the client says of itself.
struct Spelled {
    method: &'static str,
    uri: String,
    has_grpc_content_type: bool,
    is_preflight: bool,
}

impl Spelled {
    /// `None`: no client of `http` can send it.
    fn new(random: &mut Random, shape: Shape) -> Option<Self> {
        let (method, template) = random.of(&ROUTES);
        let method = match method {
            "ANY" => random.of(&METHODS),
            own if random.one_in(2) => own,
            _ => random.of(&METHODS),
        };
        let path = path(random, &format!("{}{template}", shape.prefix()));
        let query = random.of(&["", "", "?", "?a=//b"]);
        let uri = format!("{path}{query}");
        let is_sent = uri.parse::<http::Uri>().is_ok();
        is_sent.then(|| Self {
            method,
            uri,
            has_grpc_content_type: random.one_in(3),
            is_preflight: random.one_in(3),
        })
    }

    fn request(&self) -> Request<Body> {
        let mut request = request(self.method, &self.uri);
        let fields = request.headers_mut();
        if self.has_grpc_content_type {
            let grpc = HeaderValue::from_static("application/grpc");
            fields.insert("content-type", grpc);
        }
        if self.is_preflight {
            as_preflight(fields);
        }
        request
    }
}

/// Some routes are closed. `open`: the others have keys of their own, without limits. `in_plan`: the keys stand in the
/// plan of each client.
fn rules(shape: Shape, closed: &[Route], open: bool, in_plan: bool) -> Rules {
    let keys = ROUTES.iter().filter_map(|route| {
        let is_closed = closed.contains(route);
        let limits = match is_closed {
            true => Limits::closed(),
            false => Limits::unlimited(),
        };
        (is_closed || open).then(|| (shape.key(*route), limits))
    });
    match in_plan {
        false => keys.fold(Rules::new(), |rules, (key, limits)| {
            rules.route(key, limits)
        }),
        true => {
            let plan = Plan::new(Limits::unlimited());
            let plan = keys.fold(plan, |plan, (key, limits)| plan.route(key, limits));
            Rules::new().clients(Clients::by_header("x-api-key").each(plan))
        }
    }
}

fn ran(extensions: &Extensions) -> Option<Route> {
    extensions.get().map(|&Ran(route)| route)
}

#[tokio::test(start_paused = true)]
async fn no_handler_of_a_closed_route_runs_whatever_a_request_spells() {
    let count = routed();
    let mut random = Random(1);
    let (mut sent, mut served, mut refused, mut would_run) = (0, 0, 0, 0);
    while sent < count {
        let shape = random.of(&SHAPES);
        let closed: Vec<Route> = ROUTES.into_iter().filter(|_| random.one_in(2)).collect();
        let in_plan = random.one_in(3);
        // Outside of the router its choice is not known, so that open keys may take what it gives to a closed route.
        let outside = random.one_in(3);
        let open = !outside && random.one_in(2);
        let layer = throttle(rules(shape, &closed, open, in_plan));
        let bare = shape.router();
        let app = match outside {
            true => boxed(layer.layer(shape.router())),
            false => boxed(shape.router().layer(layer)),
        };
        for _ in 0..200 {
            let Some(spelled) = Spelled::new(&mut random, shape) else {
                continue;
            };
            sent += 1;
            let response = send(&app, spelled.request()).await;
            match ran(response.extensions()) {
                Some(route) => {
                    served += 1;
                    let Spelled { method, uri, .. } = &spelled;
                    assert!(
                        !closed.contains(&route),
                        "{method} {uri} has run {route:?}; {shape:?}, outside: {outside}, open: {open}, in a plan: {in_plan}",
                    );
                }
                None => refused += usize::from(response.status() == 429),
            }
            let answer = send(&bare, spelled.request()).await;
            let route = ran(answer.extensions());
            would_run += usize::from(route.is_some_and(|route| closed.contains(&route)));
        }
    }
    println!("{sent} requests: {served} served, {refused} refused, {would_run} for a closed route");
    // The test is meaningful: many requests are for closed routes, and many for open ones.
    assert!(
        would_run > sent / 10,
        "{would_run} of {sent} are for a closed route"
    );
    assert!(served > sent / 10, "{served} of {sent} are served");
    assert!(
        refused >= would_run,
        "{refused} refused, {would_run} for a closed route"
    );
}
