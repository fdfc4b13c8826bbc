//! R20: whatever is declared and undeclared, in whatever order, the bound of the weakest settings holds for each path.

#[path = "support/mod.rs"]
mod support;

use std::{
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use axum::{Router, body::Body, routing};
use http::Response;
use proptest::prelude::*;
use tokio::time::{Instant, advance};
use tower::{Layer, ServiceExt, util::BoxCloneSyncService};
use tower_throttle::{InFlight, Limits, Quota, Rate, Rules, ThrottleLayer, Undeclared};

use self::support::{request, served, throttle};

/// From the most specific one to the least: the first that matches has a request.
const KEYS: [(&str, [bool; 3]); 6] = [
    ("GET /m/a", [true, false, false]),
    ("ANY /m/a", [true, false, false]),
    ("GET /m/{id}", [true, true, false]),
    ("GET /{any}/{id}", [true, true, false]),
    ("ANY /{rest+}", [true, true, true]),
    ("$default", [true, true, true]),
];

const PATHS: [&str; 3] = ["/m/a", "/m/b", "/x"];

/// The milliseconds for a unit, the burst, and the slots.
type Setting = (u64, u64, u64);

fn limits((interval, burst, slots): Setting, odd: usize) -> Limits {
    let rate = Rate::new(1, Duration::from_millis(interval)).burst(burst);
    let shadow = Rate::per_hour(1).shadow();
    let quota = Quota::per_week(1 << 40);
    let cap = InFlight::new(slots);
    match odd {
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
    }
}

#[derive(Debug, Clone)]
struct Written {
    default: Setting,
    keys: Vec<(usize, Setting, usize, bool)>,
    shared: bool,
}

impl Written {
    fn rules(&self) -> Rules {
        let undeclared = match self.shared {
            true => Undeclared::Shared,
            false => Undeclared::PerRoute,
        };
        let rules = Rules::new().default_route(limits(self.default, 0));
        let route = |rules: Rules, (key, setting, odd, named): &(usize, Setting, usize, bool)| {
            let limits = limits(*setting, *odd);
            let limits = match named {
                true => limits.named(format!("key_{key}")),
                false => limits,
            };
            rules.route(KEYS[*key].0, limits)
        };
        self.keys.iter().fold(rules.undeclared(undeclared), route)
    }

    fn of(&self, path: usize) -> Setting {
        let matching = self.keys.iter().filter(|(key, ..)| KEYS[*key].1[path]);
        let best = matching.min_by_key(|(key, ..)| *key);
        best.map_or(self.default, |(_, setting, ..)| *setting)
    }
}

fn setting() -> impl Strategy<Value = Setting> {
    let intervals = prop::sample::select(vec![100, 700, 60_000]);
    (intervals, 1..6_u64, 1..5_u64)
}

fn written() -> impl Strategy<Value = Written> {
    let key = (setting(), 0..5_usize, any::<bool>());
    let keys = prop::collection::vec(prop::option::weighted(0.3, key), KEYS.len());
    let keys = keys.prop_map(|keys| {
        let keys = keys.into_iter().enumerate();
        keys.filter_map(|(index, key)| {
            key.map(|(setting, odd, named)| (index, setting, odd, named))
        })
        .collect::<Vec<_>>()
    });
    (setting(), keys.prop_shuffle(), prop::bool::weighted(0.2)).prop_map(
        |(default, keys, shared)| Written {
            default,
            keys,
            shared,
        },
    )
}

#[derive(Debug, Clone)]
enum Step {
    Reload(Written),
    Ask(usize),
    End(usize),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => written().prop_map(Step::Reload),
        6 => (0..PATHS.len()).prop_map(Step::Ask),
        3 => any::<prop::sample::Index>().prop_map(|index| Step::End(index.index(1 << 20))),
        1 => prop::sample::select(vec![1, 90, 650, 5_000]).prop_map(Step::Pass),
    ]
}

type Service = BoxCloneSyncService<http::Request<Body>, Response<Body>, std::convert::Infallible>;

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

/// What one path was admitted, and the settings in force for it.
#[derive(Default)]
struct Watched {
    admitted: Vec<Instant>,
    settings: Vec<(Instant, Setting)>,
}

impl Watched {
    /// R1 for each window that ends now: no more than the largest burst and the fastest rate in force in it allow.
    fn admits(&mut self, path: &str) {
        let now = now();
        self.admitted.push(now);
        for (count, start) in (1..).zip(self.admitted.iter().rev()) {
            let ends = self
                .settings
                .iter()
                .skip(1)
                .map(|(since, _)| *since)
                .chain([now]);
            let force = self.settings.iter().zip(ends);
            // Settings that were replaced at this very moment were in force in it.
            let force = force
                .filter(|(_, end)| end >= start)
                .map(|((_, setting), _)| *setting);
            let (interval, burst) = force.fold((u64::MAX, 0), |(interval, burst), setting| {
                (interval.min(setting.0), burst.max(setting.1))
            });
            let window = (now - *start).as_nanos() + 1;
            let bound = u128::from(burst) - 1 + window.div_ceil(u128::from(interval) * 1_000_000);
            assert!(
                count <= bound,
                "{path}: {count} in {window} ns, bound {bound}"
            );
        }
    }
}

async fn run(first: Written, steps: &[Step], has_router: bool) {
    let layer = throttle(first.rules()).spread(false);
    let service = service(&layer, has_router);
    let mut present = first;
    let mut held: Vec<(usize, Response<Body>)> = Vec::new();
    let mut watched = [(); 3].map(|()| Watched::default());
    let settle = |watched: &mut [Watched; 3], present: &Written| {
        for (path, watched) in watched.iter_mut().enumerate() {
            watched.settings.push((now(), present.of(path)));
        }
    };
    settle(&mut watched, &present);
    for step in steps {
        match step {
            Step::Reload(written) => {
                let changes = layer.handle().reload(written.rules());
                changes.expect("rules that hold together");
                present = written.clone();
                settle(&mut watched, &present);
            }
            Step::Ask(path) => {
                let answer = service.clone().oneshot(request("GET", PATHS[*path])).await;
                let answer = answer.unwrap_or_else(|never| match never {});
                if answer.status().is_success() {
                    held.push((*path, answer));
                    watched[*path].admits(PATHS[*path]);
                    let flying = held.iter().filter(|(other, _)| other == path).count();
                    let (_, _, slots) = present.of(*path);
                    assert!(
                        flying as u64 <= slots,
                        "{}: {flying} in flight of {slots}",
                        PATHS[*path]
                    );
                }
            }
            Step::End(index) if !held.is_empty() => {
                held.swap_remove(index % held.len());
            }
            Step::End(_) => {}
            Step::Pass(millis) => advance(Duration::from_millis(*millis)).await,
        }
    }
    // Nothing is lost either: all slots come back, and all that was used.
    held.clear();
    advance(Duration::from_secs(3_600)).await;
    for (path, name) in PATHS.iter().enumerate() {
        let (_, burst, slots) = present.of(path);
        let mut passed = 0;
        while service
            .clone()
            .oneshot(request("GET", name))
            .await
            .is_ok_and(|answer| answer.status().is_success())
        {
            passed += 1;
            assert!(passed <= burst);
        }
        assert_eq!(passed, burst, "{name}");
        advance(Duration::from_secs(3_600)).await;
        for _ in 0..slots.min(burst) {
            let answer = service.clone().oneshot(request("GET", name)).await;
            let answer = answer.unwrap_or_else(|never| match never {});
            assert!(
                answer.status().is_success(),
                "{name}: {} of {slots} slots",
                held.len()
            );
            held.push((path, answer));
        }
        held.clear();
        advance(Duration::from_secs(3_600)).await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]
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
