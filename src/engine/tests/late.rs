//! Requests that have found their limits before a reload, and are charged after it.

use super::*;
use crate::{
    admission::{Admission, Origin},
    limiter::plain::{self, PlainAnswer},
    usage::{Estimate, TokenUsage},
};

const MILLISECOND: Duration = Duration::from_millis(1);

/// The limits that a request has found, and whose request it is.
struct Found {
    limits: Arc<LimitSet>,
    origin: Arc<Origin>,
    demand: Demand,
}

impl Found {
    fn in_rules(state: &RuleSet) -> Self {
        let request = Request::get("/a").header("x-api-key", "a").body(());
        let request = request.expect("a request");
        let mut demand = Demand::default();
        let found = state
            .look_up(RequestHead::of(&request), Protocol::Auto, &mut demand)
            .expect("no route to enter");
        Self {
            limits: Arc::clone(&found.limit_set),
            origin: Arc::clone(&found.origin),
            demand,
        }
    }

    /// Asks its limits, none of which refuses, and returns what they read.
    fn read(&self, state: &RuleSet) -> LimitReadings {
        let mut readings = LimitReadings::default();
        let (limiter, now) = (&state.limiter, state.limiter.now());
        let admitted = limiter.admit(&self.limits, self.demand, now, &mut readings);
        assert_eq!(admitted, Ok(true));
        readings
    }

    /// Returns whether it is admitted now, in the short way or in general.
    fn is_admitted(&self, state: &RuleSet, is_short: bool) -> bool {
        let (limiter, now) = (&state.limiter, state.limiter.now());
        if is_short {
            let (table, clock) = (&limiter.clients, || limiter.now_ordered());
            let answer = plain::take(&self.limits, table, self.demand, now, clock, || ());
            return matches!(answer, PlainAnswer::Admitted(_));
        }
        let mut readings = LimitReadings::default();
        limiter.admit_apart(&self.limits, self.demand, now, &mut readings) == Ok(true)
    }

    /// Asks as often as it is admitted, and returns how often that was.
    fn admitted(&self, state: &RuleSet, is_short: bool) -> u64 {
        let mut asked = (0..9).map(|_| self.is_admitted(state, is_short));
        asked.position(|is_admitted| !is_admitted).unwrap_or(9) as u64
    }

    /// Returns the units that are in use on the first of its limits.
    fn used(&self, state: &RuleSet) -> u64 {
        let (limiter, bound) = (&state.limiter, &self.limits.limits[0]);
        let balance = bound.balance(&limiter.clients, self.demand.identity);
        let now = limiter.now();
        let meter = bound.limit.meter.expect("open");
        meter.used(balance.peek(now).state, now)
    }
}

/// Puts the clock forward where nothing can be awaited.
fn advance(time: Duration) {
    let cx = &mut Context::from_waker(Waker::noop());
    let _ = pin!(tokio::time::advance(time)).poll(cx);
}

fn each(limits: Limits) -> Clients {
    Clients::by_header("x-api-key").each(limits)
}

type Scope = (&'static str, fn(Limits) -> Rules);

/// The places in which a limit may hold, whose balances lie in buckets, in the table, and in overflow buckets.
const SCOPES: [Scope; 6] = [
    ("the total", |limits| Rules::new().total(limits)),
    ("a key", |limits| Rules::new().route("GET /a", limits)),
    ("a shared route", |limits| {
        let rules = Rules::new().default_route(limits);
        rules.undeclared(Undeclared::Shared)
    }),
    ("a client", |limits| Rules::new().clients(each(limits))),
    ("a client on a key", |limits| {
        let plan = Plan::new(Limits::new()).route("GET /a", limits);
        Rules::new().clients(Clients::by_header("x-api-key").each(plan))
    }),
    ("a client without room", |limits| {
        Rules::new().clients(each(limits).max_clients(0))
    }),
];

/// A unit each two microseconds, and one each ten milliseconds.
fn fast_and_slow() -> [Limits; 2] {
    [Duration::from_micros(2), 10 * MILLISECOND].map(|period| Rate::new(1, period).burst(3).into())
}

/// A thread may be kept from running for as long as it pleases the system, with the rules that it has found. By the
/// rules that hold by then, the time since the reload was taken for units: five thousand of them in ten milliseconds.
#[tokio::test(start_paused = true)]
async fn whoever_is_charged_by_rules_that_are_gone_owes_no_time_that_has_passed_since() {
    for (what, rules) in SCOPES {
        for is_short in [true, false] {
            let [fast, slow] = fast_and_slow().map(rules);
            let live =
                ActiveRules::new(&fast, Timeline::started_at(1), None).expect("proper rules");
            let old = Found::in_rules(&live.rules());
            let mut admitted = 0;
            let mut is_first = true;
            let meanwhile = |state: &RuleSet| {
                match is_first {
                    // The first of a client without a bucket is left to the general way.
                    true => admitted += u64::from(old.is_admitted(state, false)),
                    false => {
                        advance(10 * MILLISECOND);
                        admitted += old.admitted(state, is_short);
                    }
                }
                is_first = false;
            };
            live.reload_while(&slow, meanwhile).expect("proper rules");
            let state = live.rules();
            let new = Found::in_rules(&state);
            let used = new.used(&state);
            assert!(used <= admitted, "{what}: {used} of {admitted}");
            for _ in 0..3 {
                advance(10 * MILLISECOND);
                admitted += old.admitted(&state, is_short);
                let used = new.used(&state);
                assert!(used <= admitted.min(3), "{what}: {used} of {admitted}");
            }
            advance(20 * MILLISECOND);
            assert!(new.is_admitted(&state, false), "{what}: it comes back");
        }
    }
}

/// Units in use when the rules change are carried over, no more and no less, whoever comes late.
#[tokio::test(start_paused = true)]
async fn what_is_in_use_stays_in_use_whoever_comes_with_rules_that_are_gone() {
    for (what, rules) in SCOPES {
        let [fast, slow] = fast_and_slow().map(rules);
        let live = ActiveRules::new(&fast, Timeline::started_at(1), None).expect("proper rules");
        let old = Found::in_rules(&live.rules());
        for _ in 0..2 {
            assert!(old.is_admitted(&live.rules(), false), "{what}");
        }
        live.reload(&slow).expect("proper rules");
        let state = live.rules();
        let new = Found::in_rules(&state);
        let late = old.admitted(&state, false);
        assert_eq!(new.used(&state), 2 + late, "{what}");
        assert_eq!(
            new.admitted(&state, false),
            1 - late,
            "{what}: one of three is left"
        );
        // Back and forth, one after the other.
        for turn in 0..9 {
            let [fast, slow] = fast_and_slow().map(rules);
            live.reload(if turn % 2 == 0 { &fast } else { &slow })
                .expect("proper rules");
            assert_eq!(
                Found::in_rules(&live.rules()).used(&live.rules()),
                3,
                "{what}"
            );
            assert_eq!(old.admitted(&live.rules(), false), 0, "{what}");
        }
    }
}

/// A window that ends between a reload and a late charge was taken for as many units as it has nanoseconds.
#[tokio::test(start_paused = true)]
async fn no_window_that_has_ended_since_a_reload_is_owed() {
    let minute = || Limits::from(Quota::per(3, Duration::from_secs(60)));
    let others: [fn() -> Limits; 2] = [
        || Quota::per(3, Duration::from_secs(90)).into(),
        || Rate::new(1, 10 * MILLISECOND).burst(3).into(),
    ];
    for (what, rules) in SCOPES {
        for other in others {
            let before = rules(minute().named("it"));
            let live =
                ActiveRules::new(&before, Timeline::started_at(1), None).expect("proper rules");
            let old = Found::in_rules(&live.rules());
            let mut admitted = 0;
            let mut is_first = true;
            let meanwhile = |state: &RuleSet| {
                if !is_first {
                    advance(Duration::from_secs(61));
                    admitted += old.admitted(state, false);
                }
                is_first = false;
            };
            let after = rules(other().named("it"));
            live.reload_while(&after, meanwhile).expect("proper rules");
            let state = live.rules();
            admitted += old.admitted(&state, false);
            let used = Found::in_rules(&state).used(&state);
            assert!(used <= admitted, "{what}: {used} of {admitted}");
        }
    }
}

/// An answer that ends late owes what it has cost, and not the time since the reload.
#[tokio::test(start_paused = true)]
async fn what_is_owed_late_is_no_more_than_what_was_used() {
    for (what, rules) in SCOPES {
        let [fast, slow] = fast_and_slow().map(rules);
        let live = ActiveRules::new(&fast, Timeline::started_at(1), None).expect("proper rules");
        let old = Found::in_rules(&live.rules());
        let mut is_first = true;
        let meanwhile = |state: &RuleSet| {
            if !is_first {
                advance(10 * MILLISECOND);
            }
            state
                .limiter
                .owe(&old.limits.limits[0], old.demand.identity, 1);
            is_first = false;
        };
        live.reload_while(&slow, meanwhile).expect("proper rules");
        let state = live.rules();
        let new = Found::in_rules(&state);
        assert_eq!(new.used(&state), 1, "{what}: of two, one has come back");
        advance(10 * MILLISECOND);
        state
            .limiter
            .owe(&old.limits.limits[0], old.demand.identity, 1);
        assert_eq!(new.used(&state), 1, "{what}");
    }
}

/// A shadow in terms that are gone is not asked: it counts no refusal, and takes nothing.
#[tokio::test(start_paused = true)]
async fn a_shadow_in_terms_that_are_gone_refuses_nobody_in_thought_either() {
    for (what, rules) in SCOPES {
        let rates = [Duration::from_micros(2), 10 * MILLISECOND];
        let [fast, slow] = rates.map(|period| rules(Rate::new(1, period).burst(3).shadow().into()));
        let live = ActiveRules::new(&fast, Timeline::started_at(1), None).expect("proper rules");
        let old = Found::in_rules(&live.rules());
        assert!(old.read(&live.rules())[0].is_charged(), "{what}");
        live.reload(&slow).expect("proper rules");
        let state = live.rules();
        let late = old.read(&state)[0];
        assert!(!late.refused && !late.is_charged(), "{what}: {late:?}");
        let new = Found::in_rules(&state);
        assert_eq!(new.used(&state), 1, "{what}");
        assert!(new.read(&state)[0].is_charged(), "{what}");
    }
}

/// Tokens that a shadow was not asked for do not come back to it.
#[tokio::test(start_paused = true)]
async fn a_shadow_that_was_not_asked_gets_nothing_back() {
    for (what, rules) in SCOPES {
        let [fast, slow] = [Duration::from_micros(2), 10 * MILLISECOND].map(|period| {
            let shadow = Rate::new(1, period).burst(100).shadow();
            rules(Limits::new().tokens(shadow)).estimate(Estimate::fixed(10))
        });
        let live = ActiveRules::new(&fast, Timeline::started_at(1), None).expect("proper rules");
        let old = Found::in_rules(&live.rules());
        live.reload(&slow).expect("proper rules");
        let state = live.rules();
        let new = Found::in_rules(&state);
        new.read(&state);
        assert_eq!(new.used(&state), 10, "{what}");
        for (found, left) in [(&old, 10), (&new, 10)] {
            let admission = Admission::new(&found.origin, found.demand, &found.read(&state), None);
            let reservation = admission.reservation().expect("tokens are limited");
            assert!(reservation.settle(TokenUsage::new()), "{what}");
            assert_eq!(new.used(&state), left, "{what}");
        }
    }
}
