//! The short way of plain limits against the general one, which is the reference.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use proptest::prelude::*;
use tower::{Service, service_fn};

use super::*;
use crate::{
    Decision, InFlight, Throttle, body::ResponseBody, decision::DecisionIn,
    limiter::limit_set::NONE_IS_PLAIN, observe::snapshot::Snapshot, response::Dialect,
    route::undeclared::MOST_ROUTES,
};

/// Nanoseconds for a unit, and the burst.
type Pace = (u64, u64);

/// The limits of one scope: rates and shadows of rates, a quota, slots.
#[derive(Debug, Clone)]
struct Scope {
    rates: Vec<(Pace, bool)>,
    quota: Option<u64>,
    slots: Option<u64>,
}

/// Rules: of the total, of the default route, of a key and of each client.
#[derive(Debug, Clone)]
struct Written {
    scopes: [Scope; 4],
    /// The limits that each client has on two keys.
    on_key: Option<Scope>,
    /// True if a key has a rejection of its own.
    rejects: bool,
}

/// Methods of keys, and the two whose answers differ from theirs.
const METHODS: [&str; 5] = ["GET", "GET", "POST", "HEAD", "CONNECT"];

/// Paths of keys, of keys with another end, of gRPC methods, and of no key.
const PATHS: [&str; 8] = ["/a", "/a/", "/b", "/b/", "/a.B/C", "//a", "/c/d", "/e"];

#[derive(Debug, Clone)]
enum Step {
    Advance(u64),
    /// A method, a path, a client, and whether it may be gRPC and its answer is kept.
    Ask(usize, usize, usize, [bool; 2]),
    /// The oldest answer that is kept has ended.
    End,
    Reload(Box<Written>),
}

impl Scope {
    fn limits(&self) -> Limits {
        let mut limits = Limits::new();
        for ((interval, burst), is_shadow) in &self.rates {
            let rate = Rate::new(1, Duration::from_nanos(*interval)).burst(*burst);
            limits = limits.rate(if *is_shadow { rate.shadow() } else { rate });
        }
        if let Some(count) = self.quota {
            limits = limits.quota(Quota::per(count, Duration::from_secs(60)));
        }
        match self.slots {
            Some(count) => limits.in_flight(InFlight::new(count)),
            None => limits,
        }
    }
}

impl Written {
    fn rules(&self) -> Rules {
        let [total, default, key, client] = self.scopes.each_ref().map(Scope::limits);
        let rules = Rules::new()
            .total(total)
            .default_route(default)
            .route("GET /a", key.clone())
            .route("GET /b/", key.clone())
            .route("ANY /b", Rate::per_minute(2))
            .route("GET /a.B/C", key)
            .route("POST /a.B/C", Rate::per_minute(3));
        let rules = match self.rejects {
            // One of a key, and one of the paths without a key, which share their texts.
            true => {
                (rules.rejection("GET /b/", Dialect::OpenAi)).rejection("ANY /c/d", Dialect::OpenAi)
            }
            false => rules,
        };
        let each = Plan::new(client);
        // One key as it is in the rules, and one that is a part of what a key of the rules takes.
        let on_keys = |limits: Limits| {
            each.clone()
                .route("GET /a", limits.clone())
                .route("GET /b", limits)
        };
        // More than a trace can fill. The default is 4 MiB, which would be cleared for each trace.
        let clients = Clients::by_header("x-api-key").max_clients(1_024);
        match &self.on_key {
            Some(on_key) => rules.clients(clients.each(on_keys(on_key.limits()))),
            None if self.scopes[3].rates.is_empty() => rules,
            None => rules.clients(clients.each(each)),
        }
    }
}

fn scope() -> impl Strategy<Value = Scope> {
    let pace = (
        prop_oneof![Just(10u64), Just(1_000), Just(0xffff_ffff)],
        1..6u64,
    );
    let rate = (pace, prop::bool::weighted(0.1));
    let maybe = |often, most| prop::option::weighted(often, 1..most);
    (
        prop::collection::vec(rate, 0..3),
        maybe(0.1, 9u64),
        maybe(0.3, 3u64),
    )
        .prop_map(|(rates, quota, slots)| Scope {
            rates,
            quota,
            slots,
        })
}

fn written() -> impl Strategy<Value = Written> {
    let client = prop_oneof![
        3 => Just(Scope { rates: Vec::new(), quota: None, slots: None }),
        1 => scope(),
    ];
    (
        [
            scope().boxed(),
            scope().boxed(),
            scope().boxed(),
            client.boxed(),
        ],
        prop::option::weighted(0.2, scope()),
        prop::bool::weighted(0.2),
    )
        .prop_map(|(scopes, on_key, rejects)| Written {
            scopes,
            on_key,
            rejects,
        })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => prop_oneof![1..100u64, 1..10_000u64, Just(61_000_000_000)].prop_map(Step::Advance),
        9 => (0..METHODS.len(), 0..PATHS.len(), 0..2usize, [0.1, 0.2].map(prop::bool::weighted))
            .prop_map(|(method, path, client, is)| Step::Ask(method, path, client, is)),
        1 => Just(Step::End),
        1 => written().prop_map(|written| Step::Reload(Box::new(written))),
    ]
}

/// All that an answer tells, and at last the decisions that it and its request have.
type Told = (StatusCode, HeaderMap, Option<Bytes>, [String; 2]);

/// The decision that an admitted request had, as the inner service found it.
#[derive(Clone)]
struct InRequest(Option<Decision>);

/// Answers at once: to some paths with a field of its own, to some with a redirect.
fn serve(request: &Request<()>) -> Response<Empty<Bytes>> {
    let mut response = Response::new(Empty::new());
    let path = request.uri().path();
    if path.contains('b') {
        let headers = response.headers_mut();
        headers.insert("ratelimit", HeaderValue::from_static("\"inner\";r=1"));
    }
    if path.ends_with('/') {
        *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    }
    let decision = request.extensions().get().cloned();
    response.extensions_mut().insert(InRequest(decision));
    response
}

/// A throttle, and the answers of it that are kept.
struct Throttled {
    engine: Arc<Engine>,
    is_general: bool,
    kept: Vec<ResponseBody<Empty<Bytes>>>,
}

impl Throttled {
    fn new(rules: &Rules, options: &Options, is_general: bool) -> Self {
        NONE_IS_PLAIN.set(is_general);
        let active = ActiveRules::new(rules, Timeline::started_at(1), None).expect("proper rules");
        Self {
            engine: Arc::new(Engine::new(Arc::new(active), options.clone())),
            is_general,
            kept: Vec::new(),
        }
    }

    async fn ask(
        &mut self,
        method: &str,
        path: &str,
        client: &str,
        [is_grpc, is_kept]: [bool; 2],
    ) -> Told {
        let content_type = ["text/plain", "application/grpc"][usize::from(is_grpc)];
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("x-api-key", client)
            .header("content-type", content_type)
            .body(())
            .expect("a request");
        let inner = service_fn(|request| async move { Ok::<_, Infallible>(serve(&request)) });
        NONE_IS_PLAIN.set(self.is_general);
        let answer = Throttle::new(inner, Arc::clone(&self.engine))
            .call(request)
            .await;
        let (parts, body) = answer.expect("an answer").into_parts();
        let data = match is_kept {
            true => {
                self.kept.push(body);
                None
            }
            false => Some(body.collect().await.expect("an answer").to_bytes()),
        };
        let decision = parts.extensions.get::<Decision>();
        let in_request = parts.extensions.get::<InRequest>().map(|it| &it.0);
        // Both ways copy answers, and might be wrong together.
        let place = self.engine.options.decision;
        assert_eq!(decision.is_some(), place.responses());
        let tells_request = matches!(place, DecisionIn::Request | DecisionIn::Both);
        assert!(in_request.is_none_or(|it| it.is_some() == tells_request));
        assert!(method != "HEAD" || data.as_ref().is_none_or(Bytes::is_empty));
        let decisions = [format!("{decision:?}"), format!("{in_request:?}")];
        (parts.status, parts.headers, data, decisions)
    }

    fn step(&mut self, step: &Step) {
        NONE_IS_PLAIN.set(self.is_general);
        match step {
            Step::End if !self.kept.is_empty() => drop(self.kept.remove(0)),
            Step::Reload(written) => {
                self.engine
                    .active
                    .reload(&written.rules())
                    .expect("proper rules");
            }
            _ => {}
        }
    }

    /// All balances and counts.
    fn snapshot(&self) -> Snapshot {
        self.engine.active.snapshot()
    }
}

/// Looks at both sides: where no limits were plain, the comparison below would compare one way with itself.
#[tokio::test(start_paused = true)]
async fn enforced_rates_quotas_and_caps_are_plain_and_nothing_else_is() {
    let rate = || Limits::from(Rate::per_second(9));
    let three = || rate().rate(Rate::per_hour(99)).quota(Quota::per_day(9));
    let four = || three().quota(Quota::per_week(9));
    let table = [
        ("a rate", rate(), true),
        ("a quota", Quota::per_day(9).into(), true),
        ("four", four(), true),
        ("five", four().quota(Quota::per_month(9)), false),
        ("none", Limits::new(), false),
        ("a shadow", rate().rate(Rate::per_hour(9).shadow()), false),
        ("slots", rate().in_flight(9), true),
        (
            "slots as a shadow",
            rate().in_flight(InFlight::new(9).shadow()),
            false,
        ),
        ("tokens", rate().tokens(Rate::per_hour(9)), false),
        ("closed", Rate::per_hour(0).into(), false),
        ("who waits", rate().max_wait(Duration::from_secs(1)), false),
    ];
    for (what, limits, is_plain) in table {
        let state = state_of(&Rules::new().total(limits), Timeline::started_at(0));
        let request = Request::get("/").body(()).expect("a request");
        let mut demand = Demand::default();
        let found = state.look_up(RequestHead::of(&request), Protocol::Auto, &mut demand);
        assert_eq!(
            found.expect("no reload").limit_set.is_plain,
            is_plain,
            "{what}"
        );
    }
}

/// Traces that were begun. They are told as they go: a million take their time.
static TRACES: AtomicU64 = AtomicU64::new(0);

proptest! {
    /// Every answer, every balance and every count, over any trace of requests, moments and reloads.
    #[test]
    fn the_short_way_answers_as_the_general_one(
        written in written(),
        fields in any::<bool>(),
        decision in prop_oneof![
            2 => Just(DecisionIn::Nowhere),
            1 => Just(DecisionIn::Request),
            1 => Just(DecisionIn::Response),
            1 => Just(DecisionIn::Both),
        ],
        dialect in prop_oneof![4 => Just(None), 1 => Just(Some(Dialect::OpenAi)), 1 => Just(Some(Dialect::Problem))],
        // More than there are paths, and fewer. Of room for a thousand, most would be made and searched in vain.
        most_routes in prop_oneof![3 => Just(32usize), 1 => Just(2)],
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let before = TRACES.fetch_add(1, Ordering::Relaxed);
        if before > 0 && before % 10_000 == 0 {
            println!("{before} traces without a difference");
        }
        let many = MOST_ROUTES.replace(most_routes);
        let mut options = Options {
            rate_limit_headers: fields,
            decision,
            stagger_retry_after: false,
            ..Options::default()
        };
        if let Some(dialect) = dialect {
            options.rejection = Some(Arc::new(dialect));
            (options.dialect, options.tells_more) = (dialect, dialect.tells_more());
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let mut both = [false, true].map(|it| Throttled::new(&written.rules(), &options, it));
            for (number, step) in steps.iter().enumerate() {
                match step {
                    Step::Advance(nanos) => tokio::time::advance(Duration::from_nanos(*nanos)).await,
                    Step::Ask(method, path, client, is) => {
                        let (method, path) = (METHODS[*method], PATHS[*path]);
                        let [short, general] = &mut both;
                        let client = ["a", "b"][*client];
                        let short = short.ask(method, path, client, *is).await;
                        let general = general.ask(method, path, client, *is).await;
                        assert_eq!(short, general, "step {number}");
                    }
                    other => both.each_mut().map(|it| it.step(other)).into_iter().collect(),
                }
                assert_eq!(both[0].snapshot(), both[1].snapshot(), "after step {number}");
            }
        });
        NONE_IS_PLAIN.set(false);
        MOST_ROUTES.set(many);
    }
}
