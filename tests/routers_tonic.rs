//! R8 and R23: tonic's routing against the throttle. A call runs if and only if no key that names it is closed,
//! whatever its method, its content type and its other fields.
//!
//! tonic's services read only the path, and only the exact path of a method runs. The keys that name such a call are
//! found here by a separate implementation of a few lines.
//!
//! `ROUTED` sets the number of requests. Default: 20,000.

#![cfg(all(feature = "axum", feature = "tonic"))]

#[path = "support/spelled.rs"]
mod spelled;
mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    future::{Future, ready},
    pin::Pin,
    task::{Context, Poll},
};

use axum::{Router, body::Body};
use http::{HeaderMap, HeaderValue, Request, Version};
use tokio_stream::Stream;
use tonic::{
    Status, Streaming,
    body::Body as TonicBody,
    server::{Grpc, NamedService},
    service::Routes,
};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_server::{Health, HealthServer},
};
use tonic_prost::ProstCodec;
use tower::{Layer, Service, service_fn};
use tower_throttle::{
    Clients, Decision, Limits, Plan, Rules, ThrottleLayer, response::Protocol, rules::Undeclared,
};

use spelled::{App, METHODS, Random, as_preflight, boxed, routed, spelled_otherwise};
use support::{build, hourly, request, send, throttling};

// ---- The host

/// A method of a service. `is_told`: its path tells that it is gRPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rpc {
    service: &'static str,
    method: &'static str,
    is_told: bool,
}

const fn rpc(service: &'static str, method: &'static str, is_told: bool) -> Rpc {
    Rpc {
        service,
        method,
        is_told,
    }
}

const RPCS: [Rpc; 13] = [
    rpc("pkg.Svc", "M", true),
    rpc("pkg.Svc", "Method", true),
    rpc("pkg.Svc", "method", false),
    rpc("inference.v1.Inference", "Generate", true),
    rpc("inference.v1.Inference", "GenerateStream", true),
    rpc("inference.v1.Inference", "Chat", true),
    rpc("a.b.C", "D_e", true),
    rpc("Greeter", "SayHello", false),
    rpc("Greeter", "Talk", false),
    rpc("lower.greeter", "Say", false),
    rpc("lower.greeter", "say", false),
    rpc("grpc.health.v1.Health", "Check", true),
    rpc("grpc.health.v1.Health", "Watch", true),
];

impl Rpc {
    fn path(self) -> String {
        format!("/{}/{}", self.service, self.method)
    }
}

/// The method that has run, as its handler tells it in the extensions of its response.
#[derive(Clone, Copy)]
struct Ran(Rpc);

fn ran<T>(rpc: Rpc, message: T) -> tonic::Response<T> {
    let mut response = tonic::Response::new(message);
    response.extensions_mut().insert(Ran(rpc));
    response
}

/// A service as code generators write it, of the methods that [`RPCS`] has beginning with the one at `FIRST`.
#[derive(Clone)]
struct Generated<const FIRST: usize>;

impl<const FIRST: usize> NamedService for Generated<FIRST> {
    const NAME: &'static str = RPCS[FIRST].service;
}

impl<const FIRST: usize> Service<Request<TonicBody>> for Generated<FIRST> {
    type Response = http::Response<TonicBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<TonicBody>) -> Self::Future {
        let mut own = RPCS.into_iter().filter(|rpc| rpc.service == Self::NAME);
        let Some(rpc) = own.find(|rpc| rpc.path() == request.uri().path()) else {
            return Box::pin(ready(Ok(Status::unimplemented("").into_http())));
        };
        let mut grpc = Grpc::new(ProstCodec::<(), ()>::default());
        Box::pin(async move {
            let none = tokio_stream::empty::<Result<(), Status>>;
            Ok(match rpc.method {
                "GenerateStream" => {
                    let handler = |_: tonic::Request<()>| ready(Ok(ran(rpc, none())));
                    grpc.server_streaming(service_fn(handler), request).await
                }
                // They run before a message has come.
                "Chat" | "Talk" => {
                    let handler = |_: tonic::Request<Streaming<()>>| ready(Ok(ran(rpc, none())));
                    grpc.streaming(service_fn(handler), request).await
                }
                _ => {
                    let handler = |_: tonic::Request<()>| ready(Ok(ran(rpc, ())));
                    grpc.unary(service_fn(handler), request).await
                }
            })
        })
    }
}

/// A service as a code generator writes it, with handlers that tell that they have run.
struct Healthy;

#[tonic::async_trait]
impl Health for Healthy {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(
        &self,
        _: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<HealthCheckResponse>, Status> {
        Ok(ran(RPCS[11], HealthCheckResponse::default()))
    }

    async fn watch(
        &self,
        _: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<Self::WatchStream>, Status> {
        Ok(ran(RPCS[12], Box::pin(tokio_stream::empty())))
    }
}

/// The place of the throttle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Around all services, as `Server::layer` puts it.
    Outside,
    /// In the router, which tells its template.
    Inside,
    /// Around each service by itself.
    Each,
    /// Inside of a nest in an axum router.
    InNest,
    /// Outside of that nest: no path there has the shape of a call.
    AroundNest,
}

const PLACES: [Place; 5] = [
    Place::Outside,
    Place::Inside,
    Place::Each,
    Place::InNest,
    Place::AroundNest,
];

impl Place {
    fn prefix(self) -> &'static str {
        match self {
            Self::Outside | Self::Inside | Self::Each => "",
            Self::InNest | Self::AroundNest => "/rpc",
        }
    }

    fn app(self, layer: &ThrottleLayer) -> App {
        let nest = |routes| Router::new().nest_service(self.prefix(), routes);
        match self {
            Self::Outside => boxed(layer.layer(routes().prepare())),
            Self::Inside => boxed(routes().into_axum_router().layer(layer.clone())),
            Self::Each => boxed(
                Routes::new(layer.layer(Generated::<0>))
                    .add_service(layer.layer(Generated::<3>))
                    .add_service(layer.layer(Generated::<6>))
                    .add_service(layer.layer(Generated::<7>))
                    .add_service(layer.layer(Generated::<9>))
                    .add_service(layer.layer(HealthServer::new(Healthy))),
            ),
            Self::InNest => boxed(nest(routes().into_axum_router().layer(layer.clone()))),
            Self::AroundNest => boxed(nest(routes().into_axum_router()).layer(layer.clone())),
        }
    }
}

fn routes() -> Routes {
    Routes::new(Generated::<0>)
        .add_service(Generated::<3>)
        .add_service(Generated::<6>)
        .add_service(Generated::<7>)
        .add_service(Generated::<9>)
        .add_service(HealthServer::new(Healthy))
}

// ---- The rules

/// The paths of a key, from the most specific one to the least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum At {
    Rpc(Rpc),
    Service(&'static str),
    All,
    Default,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Given {
    Closed,
    Unlimited,
    Inherited,
    Exempt,
}

/// Keys with their methods, each once.
type Keys = BTreeMap<(At, &'static str), Given>;

/// The limits of the default route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DefaultRoute {
    Missing,
    Closed,
    Burst(u64),
}

#[derive(Debug)]
struct Written {
    place: Place,
    /// The layer is told that all requests are gRPC.
    all_grpc: bool,
    total_closed: bool,
    default: DefaultRoute,
    shared: bool,
    keys: Keys,
    plan: Option<Keys>,
}

/// Methods that keys name.
const NAMED: [&str; 12] = [
    "POST", "POST", "POST", "ANY", "ANY", "PUT", "GET", "HEAD", "OPTIONS", "CONNECT", "DELETE",
    "BREW",
];

fn keys(random: &mut Random, given: &[Given]) -> Keys {
    (0..random.below(14))
        .map(|_| {
            let at = match random.below(8) {
                0 => At::Service(random.of(&RPCS).service),
                1 if random.one_in(4) => At::All,
                1 if random.one_in(4) => At::Default,
                _ => At::Rpc(random.of(&RPCS)),
            };
            let method = match at {
                At::Default => "",
                _ => random.of(&NAMED),
            };
            let is_exempt = matches!(at, At::Rpc(_)) && method != "ANY";
            let given = match random.of(given) {
                Given::Exempt if !is_exempt => Given::Unlimited,
                given => given,
            };
            ((at, method), given)
        })
        .collect()
}

impl Written {
    fn new(random: &mut Random) -> Self {
        use Given::{Closed, Exempt, Inherited, Unlimited};
        let has_plan = random.one_in(3);
        let given: &[Given] = match has_plan {
            true => &[Closed, Closed, Unlimited, Inherited],
            false => &[Closed, Closed, Unlimited, Inherited, Exempt],
        };
        Self {
            place: random.of(&PLACES),
            all_grpc: random.one_in(3),
            total_closed: random.one_in(16),
            default: match random.below(5) {
                0 => DefaultRoute::Closed,
                1 | 2 => DefaultRoute::Burst(1 + random.below(4) as u64),
                _ => DefaultRoute::Missing,
            },
            shared: random.one_in(4),
            keys: keys(random, given),
            plan: has_plan.then(|| keys(random, &[Closed, Unlimited])),
        }
    }

    fn layer(&self) -> ThrottleLayer {
        let key = |at: At, method: &str| {
            let prefix = self.place.prefix();
            match at {
                At::Rpc(rpc) => format!("{method} {prefix}{}", rpc.path()),
                At::Service(service) => format!("{method} {prefix}/{service}/{{method}}"),
                At::All => format!("{method} /{{proxy+}}"),
                At::Default => "$default".to_owned(),
            }
        };
        let limits = |given: Given| match given {
            Given::Closed => Limits::closed(),
            Given::Unlimited => Limits::unlimited(),
            Given::Inherited => Limits::new(),
            Given::Exempt => Limits::exempt(),
        };
        let mut rules = Rules::new();
        if self.total_closed {
            rules = rules.total(Limits::closed());
        }
        rules = match self.default {
            DefaultRoute::Missing => rules,
            DefaultRoute::Closed => rules.default_route(Limits::closed()),
            DefaultRoute::Burst(burst) => rules.default_route(hourly(burst)),
        };
        if self.shared {
            rules = rules.undeclared(Undeclared::Shared);
        }
        for (&(at, method), &given) in &self.keys {
            rules = rules.route(key(at, method), limits(given));
        }
        if let Some(keys) = &self.plan {
            let mut plan = Plan::new(Limits::unlimited());
            for (&(at, method), &given) in keys {
                plan = plan.route(key(at, method), limits(given));
            }
            rules = rules.clients(Clients::by_header("x-api-key").each(plan));
        }
        let protocol = match self.all_grpc {
            true => Protocol::Grpc,
            false => Protocol::Auto,
        };
        build(throttling(rules).protocol(protocol))
    }

    /// The methods that a call is read as, and the key of each. `None` for a key: it is undeclared there.
    fn charged<'a>(&self, keys: &'a Keys, call: &Call, rpc: Rpc) -> Vec<Charged<'a>> {
        let read_as = |method| (method, find(keys, rpc, method));
        let own = read_as(call.method);
        let is_told = rpc.is_told && self.place != Place::AroundNest;
        let may_be_grpc = self.all_grpc || is_told || call.content_type.1;
        let mut charged = vec![own];
        if may_be_grpc {
            charged.push(read_as("POST"));
        }
        let names_connect = matches!(own, (_, Some(((_, "CONNECT"), _))));
        if call.method == "CONNECT" && !names_connect {
            charged.push(read_as("GET"));
        }
        charged
    }

    /// Tells whether a call may run, as far as no bucket is empty.
    fn is_open(&self, call: &Call, rpc: Rpc) -> bool {
        let default_closed = self.default == DefaultRoute::Closed;
        let closed = |(_, found): &Charged<'_>| match found {
            None | Some((_, Given::Inherited)) => default_closed,
            Some((_, given)) => **given == Given::Closed,
        };
        let charged = self.charged(&self.keys, call, rpc);
        let exempt = |(_, found): &Charged<'_>| matches!(found, Some((_, Given::Exempt)));
        if charged.iter().all(exempt) {
            return true;
        }
        let by_plan = self.plan.as_ref().is_some_and(|keys| {
            let charged = self.charged(keys, call, rpc);
            let closed = |(_, found): &Charged<'_>| matches!(found, Some((_, Given::Closed)));
            charged.iter().any(closed)
        });
        !(self.total_closed || charged.iter().any(closed) || by_plan)
    }

    /// The buckets of the default route's limit that a call spends of: those of keys which inherit it, and of the calls
    /// that nobody declared.
    fn buckets(&self, call: &Call, rpc: Rpc) -> BTreeSet<String> {
        let charged = self.charged(&self.keys, call, rpc).into_iter();
        let spent = charged.filter_map(|(method, found)| match found {
            None if method == "HEAD" => Some(format!("GET {}", rpc.path())),
            None => Some(format!("{method} {}", rpc.path())),
            Some((key, Given::Inherited)) => Some(format!("{key:?}")),
            Some(_) => None,
        });
        spent.collect()
    }
}

type Charged<'a> = (&'static str, Option<Found<'a>>);

type Found<'a> = (&'a (At, &'static str), &'a Given);

/// R7: the most specific path that has a key for the method, and there the one that names it.
fn find<'a>(keys: &'a Keys, rpc: Rpc, method: &str) -> Option<Found<'a>> {
    let paths = [At::Rpc(rpc), At::Service(rpc.service), At::All, At::Default];
    let named: &[&str] = match method {
        "HEAD" => &["HEAD", "GET", "ANY", ""],
        own => &[own, "ANY", ""],
    };
    let mut all = paths
        .iter()
        .flat_map(|at| named.iter().map(move |name| (at, name)));
    all.find_map(|(at, name)| {
        keys.iter()
            .find(|((other, method), _)| other == at && method == name)
    })
}

// ---- The calls

/// Content types, and whether they are gRPC's.
const CONTENT_TYPES: [(&str, bool); 14] = [
    ("", false),
    ("", false),
    ("", false),
    ("", false),
    ("application/grpc", true),
    ("application/grpc+proto", true),
    ("  application/grpc ", true),
    ("\tapplication/grpc;a=b", true),
    ("Application/GRPC", true),
    ("application/grpc-web-text", true),
    ("application/json", false),
    ("text/plain; application/grpc", false),
    ("application/grp", false),
    ("application / grpc", false),
];

#[derive(Debug)]
struct Call {
    method: &'static str,
    uri: String,
    content_type: (&'static str, bool),
    is_preflight: bool,
    /// The method that runs if nothing is refused.
    meant: Option<Rpc>,
}

impl Call {
    /// `None`: no client of `http` can send it.
    fn new(random: &mut Random, place: Place) -> Option<Self> {
        let method = match random.below(16) {
            0 => random.of(&["Post", "pOST", "get", "options", "connect", "any", "ANY"]),
            1 => random.of(&["TRACE", "PROPFIND", "PRI", "X-1"]),
            _ => random.of(&METHODS),
        };
        let prefix = place.prefix();
        let plain = random.of(&RPCS).path();
        let mut path = format!("{prefix}{plain}");
        for _ in 0..random.below(4).saturating_sub(1) {
            path = match random.below(4) {
                0 => other_letters(random, &path),
                1 => path + random.of(&["/", "/More", "//", "/.", "/%2e", "%20", "/Generate"]),
                _ => spelled_otherwise(random, &path),
            };
        }
        let query = random.of(&["", "", "", "?", "?a=//b", "?/pkg.Svc/M"]);
        let origin = random.of(&["", "", "http://a.example", "https://pkg.Svc:1"]);
        let uri = match random.below(64) {
            // Without a path.
            0 if method == "CONNECT" => "pkg.Svc:443".to_owned(),
            1 if method == "OPTIONS" => "*".to_owned(),
            _ => format!("{origin}{path}{query}"),
        };
        let parsed: http::Uri = uri.parse().ok()?;
        let meant = parsed.path().strip_prefix(prefix);
        let meant = meant.and_then(|path| RPCS.into_iter().find(|rpc| rpc.path() == path));
        Some(Self {
            method,
            uri,
            content_type: random.of(&CONTENT_TYPES),
            is_preflight: random.one_in(3),
            meant,
        })
    }

    fn request(&self) -> Request<Body> {
        let mut request = request(self.method, &self.uri);
        *request.version_mut() = Version::HTTP_2;
        let fields: &mut HeaderMap = request.headers_mut();
        if let (name, _) = self.content_type
            && !name.is_empty()
        {
            fields.insert("content-type", HeaderValue::from_static(name));
        }
        if self.is_preflight {
            as_preflight(fields);
        }
        // One empty message.
        *request.body_mut() = Body::from(&b"\0\0\0\0\0"[..]);
        request
    }
}

/// A path with one letter of the other case.
fn other_letters(random: &mut Random, path: &str) -> String {
    let letters: Vec<usize> = path
        .match_indices(|c: char| c.is_ascii_alphabetic())
        .map(|(at, _)| at)
        .collect();
    let mut other = path.to_owned();
    if !letters.is_empty() {
        let at = random.of(&letters);
        let letter = path[at..=at].to_owned();
        let lower = letter.to_ascii_lowercase();
        let changed = match lower == letter {
            true => letter.to_ascii_uppercase(),
            false => lower,
        };
        other.replace_range(at..=at, &changed);
    }
    other
}

#[tokio::test(start_paused = true)]
async fn a_call_runs_if_no_key_that_names_it_is_closed_and_only_then() {
    let count = routed();
    let mut random = Random(2);
    let (mut sent, mut served, mut refused, mut closed, mut spent) = (0, 0, 0, 0, 0);
    while sent < count {
        let written = Written::new(&mut random);
        let layer = written.layer();
        let app = written.place.app(&layer);
        let mut runs: BTreeMap<String, u64> = BTreeMap::new();
        for _ in 0..200 {
            let Some(call) = Call::new(&mut random, written.place) else {
                continue;
            };
            sent += 1;
            let answer = send(&app, call.request()).await;
            let has_run = answer.extensions().get().map(|&Ran(rpc)| rpc);
            let decision: Option<&Decision> = answer.extensions().get();
            let is_refused = decision.is_some_and(|decision| !decision.is_admitted());
            refused += usize::from(is_refused);
            if let Some(rpc) = has_run {
                served += 1;
                // A nest takes `/rpc//pkg.Svc/M` for the same call as `/rpc/pkg.Svc/M`.
                let is_nested = !written.place.prefix().is_empty();
                assert!(
                    call.meant == Some(rpc) || is_nested && call.meant.is_none(),
                    "{rpc:?}: {call:?}"
                );
                assert!(
                    written.is_open(&call, rpc),
                    "a closed one has run: {call:?}, {written:?}"
                );
                for bucket in written.buckets(&call, rpc) {
                    let runs = runs.entry(bucket).or_default();
                    *runs += 1;
                    if let DefaultRoute::Burst(burst) = written.default {
                        assert!(*runs <= burst, "{runs} of {burst}: {call:?}, {written:?}");
                    }
                }
            } else if let Some(rpc) = call.meant {
                assert!(
                    is_refused,
                    "a call that is not refused runs: {call:?}, {written:?}"
                );
                let is_open = written.is_open(&call, rpc);
                let may_be_spent = matches!(written.default, DefaultRoute::Burst(_));
                assert!(
                    !is_open || may_be_spent,
                    "an open one is refused: {call:?}, {written:?}"
                );
                spent += usize::from(is_open);
                closed += usize::from(!is_open);
            }
        }
    }
    println!(
        "{sent} requests: {served} handlers have run, {refused} refused; {closed} for a closed key, \
         {spent} for an empty bucket"
    );
    // The test is meaningful: many are for closed keys, and many for open ones.
    assert!(closed > sent / 10, "{closed} of {sent} for a closed key");
    assert!(served > sent / 10, "{served} of {sent} have run");
    assert!(spent > sent / 100, "{spent} of {sent} for an empty bucket");
}
