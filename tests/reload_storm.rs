//! R20: in any sequence of declaring and undeclaring keys, the bound of the weakest settings holds for each path.

#[path = "support/cases.rs"]
mod cases;
#[path = "support/keys.rs"]
mod keys;
#[path = "support/mod.rs"]
mod support;

use std::{
    mem,
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use axum::{Router, body::Body, routing};
use http::{HeaderValue, Request, Response};
use proptest::prelude::*;
use tokio::{
    task::{JoinHandle, yield_now},
    time::{Instant, advance},
};
use tower::{Layer, ServiceExt, util::BoxCloneSyncService};
use tower_throttle::{
    Clients, InFlight, Limits, Quota, Rate, Rules, ThrottleLayer, route::CatchAll,
    rules::Undeclared,
};

use self::{
    keys::{CLIENTS, KEYS, MAY_BE_EXEMPT},
    support::{build, decision, request, served, throttle, throttling},
};

/// Requests of one kind: a method, a path, and whether the router has a route for it.
type Kind = (&'static str, &'static str, bool);

const KINDS: [Kind; 7] = [
    ("GET", "/m/a", true),
    ("HEAD", "/m/a", true),
    ("GET", "/m/b", true),
    ("HEAD", "/m/b", true),
    ("GET", "/x", true),
    ("GET", "/q/r/s", false),
    ("POST", "/m/a", true),
];

fn request_of(kind: usize, client: usize) -> Request<Body> {
    let (method, path, _) = KINDS[kind];
    let mut request = request(method, path);
    let key = HeaderValue::from_static(CLIENTS[client]);
    request.headers_mut().insert("x-api-key", key);
    request
}

/// The milliseconds for a unit, the burst, and the slots.
type Setting = (u64, u64, u64);

/// The limits of a key, or of the default route.
#[derive(Debug, Clone, Copy)]
enum Given {
    Limited(Limited),
    Closed,
    Unlimited,
    Exempt,
}

#[derive(Debug, Clone, Copy)]
struct Limited {
    setting: Setting,
    /// The limits around them.
    odd: usize,
    is_named: bool,
    /// The milliseconds that requests wait.
    patience: Option<u64>,
}

impl Limited {
    fn limits(self, name: &str) -> Limits {
        let (interval, burst, slots) = self.setting;
        let rate = Rate::new(1, Duration::from_millis(interval)).burst(burst);
        let shadow = Rate::per_hour(1).shadow();
        let quota = Quota::per_week(1 << 40);
        let cap = InFlight::new(slots);
        let limits = match self.odd {
            0 => Limits::new().rate(rate).in_flight(cap),
            1 => Limits::new().rate(shadow).rate(rate).in_flight(cap),
            2 => Limits::new()
                .quota(quota)
                .rate(rate)
                .in_flight(cap)
                .in_flight(InFlight::new(9).shadow()),
            3 => Limits::new().rate(rate).quota(quota).in_flight(cap),
            _ => {
                let quota = Quota::per_day(1 << 40);
                Limits::new()
                    .rate(rate)
                    .rate(shadow)
                    .quota(quota)
                    .in_flight(cap)
            }
        };
        let patience = Duration::from_millis(self.patience.unwrap_or_default());
        let limits = limits.max_wait(patience);
        match self.is_named {
            true => limits.named(name.to_owned()),
            false => limits,
        }
    }
}

impl Given {
    fn limits(self, name: &str) -> Limits {
        match self {
            Self::Limited(limited) => limited.limits(name),
            Self::Closed => Limits::closed().max_wait(Duration::ZERO),
            Self::Unlimited => Limits::unlimited(),
            Self::Exempt => Limits::exempt(),
        }
    }

    /// Returns the same limits without a line.
    fn impatient(self) -> Self {
        match self {
            Self::Limited(limited) => Self::Limited(Limited {
                patience: None,
                ..limited
            }),
            other => other,
        }
    }

    /// The same for a key: most cannot be exempt.
    fn at(self, key: usize) -> Self {
        match self {
            Self::Exempt if !MAY_BE_EXEMPT.contains(&key) => Self::Unlimited,
            given => given,
        }
    }

    fn setting(self) -> Option<Setting> {
        match self {
            Self::Limited(limited) => Some(limited.setting),
            _ => None,
        }
    }
}

#[derive(Debug, Clone)]
struct Written {
    clients: [Given; CLIENTS.len()],
    default: Option<Given>,
    keys: Vec<(usize, Given)>,
    shared: bool,
    unrouted: bool,
}

impl Written {
    fn rules(&self) -> Rules {
        let mut rules = Rules::new()
            .undeclared(match self.shared {
                true => Undeclared::Shared,
                false => Undeclared::PerRoute,
            })
            .catch_all(match self.unrouted {
                true => CatchAll::Unrouted,
                false => CatchAll::Unmatched,
            });
        let [each, pro] = self.clients;
        let clients = Clients::by_header("x-api-key")
            .each(each.limits("client"))
            .plan("pro", pro.limits("member"))
            .member("pro", CLIENTS[1]);
        rules = rules.clients(clients);
        if let Some(default) = self.default {
            rules = rules.default_route(default.limits("each"));
        }
        let route = |rules: Rules, (key, given): &(usize, Given)| {
            rules.route(KEYS[*key].0, given.limits(&format!("key_{key}")))
        };
        self.keys.iter().fold(rules, route)
    }

    /// The limits that hold for a kind of requests. `has_router`: a router tells its templates.
    fn of(&self, kind: usize, has_router: bool) -> Given {
        let (.., is_routed) = KINDS[kind];
        let is_passed_by = self.unrouted && has_router && is_routed;
        let matching = self.keys.iter().filter(|(key, _)| {
            let (name, matches) = KEYS[*key];
            matches[kind] && !(is_passed_by && name == "$default")
        });
        let best = matching.min_by_key(|(key, _)| *key);
        let default = || self.default.unwrap_or(Given::Unlimited);
        best.map_or_else(default, |(_, given)| *given)
    }

    fn edited(&self, edit: &Edit) -> Self {
        let mut edited = self.clone();
        match edit {
            Edit::Key(key, given) => {
                edited.keys.retain(|(known, _)| known != key);
                edited.keys.extend(given.map(|given| (*key, given)));
            }
            Edit::Default(default) => edited.default = *default,
            Edit::Client(client, given) => edited.clients[*client] = *given,
            Edit::Shared => edited.shared ^= true,
            Edit::Unrouted => edited.unrouted ^= true,
        }
        edited
    }

    fn has(&self, name: &str) -> bool {
        self.keys.iter().any(|(key, _)| KEYS[*key].0 == name)
    }

    fn impatient(&self) -> Self {
        let keys = self.keys.iter();
        Self {
            clients: self.clients.map(Given::impatient),
            default: self.default.map(Given::impatient),
            keys: keys.map(|(key, given)| (*key, given.impatient())).collect(),
            ..self.clone()
        }
    }
}

fn limited() -> impl Strategy<Value = Given> {
    let intervals = prop::sample::select(vec![100, 700, 60_000, 60_000, 60_000]);
    let setting = (intervals, 1..6_u64, 1..5_u64);
    let patience = prop::option::weighted(0.2, prop::sample::select(vec![50, 1_000, 100_000]));
    (setting, 0..5_usize, any::<bool>(), patience).prop_map(|(setting, odd, is_named, patience)| {
        Given::Limited(Limited {
            setting,
            odd,
            is_named,
            patience,
        })
    })
}

fn given() -> impl Strategy<Value = Given> {
    prop_oneof![
        7 => limited(),
        1 => Just(Given::Closed),
        1 => Just(Given::Unlimited),
        1 => Just(Given::Exempt),
    ]
}

fn default() -> impl Strategy<Value = Option<Given>> {
    prop_oneof![
        7 => limited(),
        1 => Just(Given::Closed),
    ]
    .prop_map(Some)
}

/// The limits of a client: often more than is asked for.
fn client() -> impl Strategy<Value = Given> {
    let wide = Limited {
        setting: (1, 99, 99),
        odd: 0,
        is_named: false,
        patience: None,
    };
    prop_oneof![
        8 => Just(Given::Limited(wide)),
        4 => limited(),
        1 => Just(Given::Closed),
    ]
}

fn written() -> impl Strategy<Value = Written> {
    let keys = prop::collection::vec(prop::option::weighted(0.25, given()), KEYS.len());
    let keys = keys.prop_map(|keys| {
        let keys = keys.into_iter().enumerate();
        keys.filter_map(|(key, given)| Some((key, given?.at(key))))
            .collect::<Vec<_>>()
    });
    (
        [client(), client()],
        default(),
        keys.prop_shuffle(),
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.3),
    )
        .prop_map(|(clients, default, keys, shared, unrouted)| Written {
            clients,
            default,
            keys,
            shared,
            unrouted,
        })
}

/// One change of the rules that hold.
#[derive(Debug, Clone)]
enum Edit {
    Key(usize, Option<Given>),
    Default(Option<Given>),
    Client(usize, Given),
    Shared,
    Unrouted,
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        6 => (0..KEYS.len(), prop::option::of(given()))
            .prop_map(|(key, given)| Edit::Key(key, given.map(|given| given.at(key)))),
        1 => default().prop_map(Edit::Default),
        1 => (0..CLIENTS.len(), client()).prop_map(|(client, given)| Edit::Client(client, given)),
        1 => Just(Edit::Shared),
        1 => Just(Edit::Unrouted),
    ]
}

#[derive(Debug, Clone)]
enum Step {
    Reload(Written),
    Edit(Edit),
    /// So many of a kind, of one client.
    Ask(usize, usize, u64),
    End(usize),
    /// A request that waits goes away.
    Leave(usize),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let index = || any::<prop::sample::Index>().prop_map(|index| index.index(1 << 20));
    prop_oneof![
        2 => written().prop_map(Step::Reload),
        4 => edit().prop_map(Step::Edit),
        12 => (0..KINDS.len(), 0..CLIENTS.len(), 1..5_u64)
            .prop_map(|(kind, client, count)| Step::Ask(kind, client, count)),
        6 => index().prop_map(Step::End),
        1 => index().prop_map(Step::Leave),
        2 => prop::sample::select(vec![1, 90, 650, 5_000]).prop_map(Step::Pass),
    ]
}

type Service = BoxCloneSyncService<Request<Body>, Response<Body>, std::convert::Infallible>;

fn service(layer: &ThrottleLayer, has_router: bool) -> Service {
    match has_router {
        true => {
            let served = routing::any(|| async { "served" });
            let app = Router::new()
                .route("/m/{id}", served.clone())
                .route("/x", served);
            BoxCloneSyncService::new(app.layer(layer.clone()))
        }
        false => {
            let layered = layer.layer(served());
            BoxCloneSyncService::new(layered.map_response(|answer| answer.map(Body::new)))
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "paused time")]
fn now() -> Instant {
    Instant::now()
}

/// The requests of one kind that were admitted under limits, and the limits in force for them.
#[derive(Default)]
struct Watched {
    admitted: Vec<Instant>,
    settings: Vec<(Instant, Option<Setting>)>,
}

impl Watched {
    /// R1 for each window that ends now: no more than the largest burst and the fastest rate in force in it allow.
    /// Requests that no limit held for are not counted.
    fn admits(&mut self, what: &str) {
        let now = now();
        self.admitted.push(now);
        for (count, start) in (1..).zip(self.admitted.iter().rev()) {
            let ends = self.settings.iter().skip(1);
            let ends = ends.map(|(since, _)| *since).chain([now]);
            // Settings that were replaced at this very moment were in force in it.
            let force = self.settings.iter().zip(ends);
            let force = force.filter(|(_, end)| end >= start);
            let force = force.filter_map(|((_, setting), _)| *setting);
            let (interval, burst) = force.fold((u64::MAX, 0), |(interval, burst), setting| {
                (interval.min(setting.0), burst.max(setting.1))
            });
            let window = (now - *start).as_nanos() + 1;
            let bound = u128::from(burst) - 1 + window.div_ceil(u128::from(interval) * 1_000_000);
            assert!(
                count <= bound,
                "{what}: {count} in {window} ns, bound {bound}"
            );
        }
    }
}

/// Tells whether an answer goes on, and so holds its slots.
fn holds(answer: &Response<Body>) -> bool {
    !http_body::Body::is_end_stream(answer.body())
}

/// An answer that was admitted, what for, and whether it holds a slot of the route and of the client.
struct Held {
    kind: usize,
    by_route: bool,
    by_client: Option<usize>,
    _answer: Response<Body>,
}

type Waiting = (usize, usize, JoinHandle<Response<Body>>);

struct Server {
    layer: ThrottleLayer,
    service: Service,
    has_router: bool,
    present: Written,
    held: Vec<Held>,
    waiting: Vec<Waiting>,
    kinds: [Watched; KINDS.len()],
    clients: [Watched; CLIENTS.len()],
}

impl Server {
    fn new(first: Written, has_router: bool) -> Self {
        let layer = build(throttling(first.rules()).stagger_retry_after(false));
        let service = service(&layer, has_router);
        let mut server = Self {
            layer,
            service,
            has_router,
            present: first,
            held: Vec::new(),
            waiting: Vec::new(),
            kinds: Default::default(),
            clients: Default::default(),
        };
        server.note();
        server
    }

    fn of(&self, kind: usize) -> Given {
        let tells_templates = self.has_router && cfg!(feature = "axum");
        self.present.of(kind, tells_templates)
    }

    /// Notes the limits that are in force from now on.
    fn note(&mut self) {
        for kind in 0..KINDS.len() {
            let setting = match self.of(kind) {
                // Usage of an undeclared route is refilled by the default's rate, whichever key takes its requests.
                Given::Unlimited | Given::Exempt => self.present.default.and_then(Given::setting),
                given => given.setting(),
            };
            self.kinds[kind].settings.push((now(), setting));
        }
        for (client, watched) in self.clients.iter_mut().enumerate() {
            let setting = self.present.clients[client].setting();
            watched.settings.push((now(), setting));
        }
    }

    async fn reload(&mut self, written: Written) {
        let changes = self.layer.handle().reload(written.rules());
        changes.expect("rules that hold together");
        self.present = written;
        self.note();
        self.look().await;
    }

    async fn ask(&mut self, kind: usize, client: usize) {
        let answer = self.service.clone().oneshot(request_of(kind, client));
        let answer = async { answer.await.unwrap_or_else(|never| match never {}) };
        self.waiting.push((kind, client, tokio::spawn(answer)));
        self.look().await;
    }

    /// Notes who has been admitted by now.
    async fn look(&mut self) {
        // Each that has been woken asks, and wakes another one.
        for _ in 0..2 * self.waiting.len() + 2 {
            yield_now().await;
        }
        let (done, waiting) = mem::take(&mut self.waiting)
            .into_iter()
            .partition(|(.., answer)| answer.is_finished());
        self.waiting = waiting;
        let done: Vec<Waiting> = done;
        for (kind, client, answer) in done {
            if let Ok(answer) = answer.await {
                if decision(&answer).is_admitted() {
                    self.admitted(kind, client, answer);
                }
            }
        }
    }

    fn admitted(&mut self, kind: usize, client: usize, answer: Response<Body>) {
        let (method, path, _) = KINDS[kind];
        let name = format!("{method} {path}");
        let given = self.of(kind);
        assert!(!matches!(given, Given::Closed), "{name} is closed");
        let of_client = match given {
            Given::Exempt => None,
            _ => {
                let given = self.present.clients[client];
                assert!(!matches!(given, Given::Closed), "{client} is closed");
                given.setting()
            }
        };
        let holds = holds(&answer);
        self.held.push(Held {
            kind,
            by_route: holds && given.setting().is_some(),
            by_client: of_client.filter(|_| holds).map(|_| client),
            _answer: answer,
        });
        if let Some((.., slots)) = given.setting() {
            self.kinds[kind].admits(&name);
            // `HEAD` has the limits of `GET`, while it has no key of its own.
            if method == "HEAD" && !self.present.has(&name) {
                self.kinds[kind - 1].admits(&format!("{name} as GET"));
            }
            let flying = self
                .held
                .iter()
                .filter(|held| held.kind == kind && held.by_route);
            let flying = flying.count() as u64;
            assert!(flying <= slots, "{name}: {flying} in flight of {slots}");
        }
        if let Some((.., slots)) = of_client {
            let name = format!("client {}", CLIENTS[client]);
            self.clients[client].admits(&name);
            let flying = self.held.iter();
            let flying = flying.filter(|held| held.by_client == Some(client));
            let flying = flying.count() as u64;
            assert!(flying <= slots, "{name}: {flying} in flight of {slots}");
        }
    }

    async fn pass(&mut self, time: Duration) {
        advance(time).await;
        self.look().await;
    }

    /// Counts the requests of a kind that pass one after the other, or, if it `keeps` what holds slots, at once.
    async fn passing(&self, kind: usize, most: u64, keeps: bool) -> u64 {
        let mut kept = Vec::new();
        let mut passed = 0;
        while passed < most {
            let answer = self.service.clone().oneshot(request_of(kind, 0)).await;
            let answer = answer.unwrap_or_else(|never| match never {});
            if !decision(&answer).is_admitted() {
                break;
            }
            passed += 1;
            if keeps && holds(&answer) {
                kept.push(answer);
            }
        }
        passed
    }
}

async fn run(first: Written, steps: &[Step], has_router: bool) {
    let mut server = Server::new(first, has_router);
    for step in steps {
        match step {
            Step::Reload(written) => server.reload(written.clone()).await,
            Step::Edit(edit) => {
                let edited = server.present.edited(edit);
                server.reload(edited).await;
            }
            Step::Ask(kind, client, count) => {
                for _ in 0..*count {
                    server.ask(*kind, *client).await;
                }
            }
            Step::End(index) if !server.held.is_empty() => {
                let index = index % server.held.len();
                server.held.drain(index..(index + 3).min(server.held.len()));
                server.look().await;
            }
            Step::Leave(index) if !server.waiting.is_empty() => {
                let leaving = server.waiting.swap_remove(index % server.waiting.len());
                leaving.2.abort();
                server.look().await;
            }
            Step::End(_) | Step::Leave(_) => {}
            Step::Pass(millis) => server.pass(Duration::from_millis(*millis)).await,
        }
    }
    // Nothing is lost either: all slots come back, and all that was used.
    const HOUR: Duration = Duration::from_secs(3_600);
    for (.., waiting) in mem::take(&mut server.waiting) {
        waiting.abort();
    }
    server.held.clear();
    let impatient = server.present.impatient();
    server.reload(impatient).await;
    server.pass(HOUR).await;
    const MOST: u64 = 9;
    for (kind, (method, path, is_routed)) in KINDS.into_iter().enumerate() {
        let given = server.of(kind);
        let is_exempt = matches!(given, Given::Exempt);
        let all = [
            Some(given),
            Some(server.present.clients[0]).filter(|_| !is_exempt),
        ];
        let least = |part: fn(Setting) -> u64| {
            let each = all.iter().flatten().map(|given| match given {
                Given::Closed => 0,
                Given::Unlimited | Given::Exempt => MOST,
                Given::Limited(limited) => part(limited.setting),
            });
            each.min().unwrap_or(MOST)
        };
        let (burst, slots) = (least(|(_, burst, _)| burst), least(|(.., slots)| slots));
        let passed = server.passing(kind, MOST, false).await;
        assert_eq!(passed, burst, "{method} {path}: the burst");
        server.pass(HOUR).await;
        if method != "HEAD" && (is_routed || !has_router) {
            let passed = server.passing(kind, MOST, true).await;
            assert_eq!(passed, slots.min(burst), "{method} {path}: the slots");
            server.pass(HOUR).await;
        }
    }
}

proptest! {
    #![proptest_config(cases::cases(192))]
    #[test]
    fn the_bound_of_the_weakest_settings_holds_through_any_sequence_of_rules(
        first in written(),
        steps in prop::collection::vec(step(), 1..80),
        has_router in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(run(first, &steps, has_router));
    }
}

/// Threads ask while keys come and go: no more than the burst passes, no slot is lost, and none is lent twice.
#[test]
fn threads_get_no_more_than_the_burst_and_the_slots_while_keys_come_and_go() {
    const BURST: u64 = 3_000;
    const SLOTS: u64 = 3;
    const TURNS: usize = 2_000;
    let limits = || {
        Limits::new()
            .rate(Rate::per_hour(1).burst(BURST))
            .in_flight(SLOTS)
    };
    let rules = |turn: usize| {
        let keys = KEYS.iter().enumerate();
        let keys = keys.filter(|(index, _)| (turn * 7 / 3) >> index & 1 == 1);
        keys.fold(
            Rules::new().default_route(limits()),
            |rules, (_, (key, _))| rules.route(key, limits()),
        )
    };
    let layer = throttle(rules(0));
    let service = service(&layer, false);
    let (admitted, flying, most) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let (asked, done) = (AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        for _ in 0..4 {
            let (service, asked) = (service.clone(), &asked);
            let (admitted, flying, most) = (&admitted, &flying, &most);
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build();
                runtime.expect("a runtime").block_on(async {
                    for _ in 0..TURNS {
                        let answer = service.clone().oneshot(request("GET", "/m/a")).await;
                        let answer = answer.unwrap_or_else(|never| match never {});
                        if answer.status().is_success() {
                            admitted.fetch_add(1, Ordering::SeqCst);
                            let now = flying.fetch_add(1, Ordering::SeqCst) + 1;
                            most.fetch_max(now, Ordering::SeqCst);
                            thread::yield_now();
                            flying.fetch_sub(1, Ordering::SeqCst);
                        }
                        drop(answer);
                        asked.fetch_add(1, Ordering::SeqCst);
                    }
                });
            });
        }
        let (layer, done, asked) = (&layer, &done, &asked);
        scope.spawn(move || {
            // At least so many, and as many as there is time for.
            for turn in 0.. {
                if turn > 64 && asked.load(Ordering::SeqCst) == 4 * TURNS {
                    break;
                }
                layer
                    .handle()
                    .reload(rules(turn))
                    .expect("rules that hold together");
            }
            done.store(true, Ordering::SeqCst);
        });
    });
    assert!(done.into_inner());
    assert!(admitted.into_inner() <= BURST, "the burst");
    assert!(most.into_inner() <= SLOTS, "slots");
    layer
        .handle()
        .reload(rules(0))
        .expect("rules that hold together");
    layer
        .handle()
        .reload(Rules::new().route("GET /m/a", Limits::new().in_flight(SLOTS)))
        .expect("rules");
    let limits = layer.handle().snapshot().limits;
    assert_eq!(limits[0].in_flight, Some(0), "all have come back");
}
