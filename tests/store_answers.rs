//! R5, R19, R21 and R22: whatever a store answers, requests are decided without a panic, in time, and by a limit.

#[path = "common/mod.rs"]
mod common;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use common::Client;
use proptest::prelude::*;
use tokio::time::{Instant, timeout};
use tower_throttle::{
    Limits, Quota, Rate, Rules, ThrottleLayer,
    store::{Balance, Charge, Correction, Store, StoreFuture, Taken},
};

/// Answers with the numbers that it was given, one after the other.
#[derive(Debug, Clone)]
struct Says(Arc<Mutex<Vec<Said>>>);

#[derive(Debug, Clone)]
struct Said {
    is_admitted: bool,
    now: u64,
    /// State and leased units, for each charge in turn.
    balances: Vec<(u64, u64)>,
    is_refused: bool,
}

impl Store for Says {
    fn take<'a>(&'a self, charges: &'a [Charge]) -> StoreFuture<'a, Taken> {
        let said = self.0.lock().expect("no panic").pop();
        Box::pin(async move {
            let Said {
                is_admitted,
                now,
                balances,
                is_refused,
            } = said.expect("an answer for each question");
            let balances = charges.iter().zip(balances.into_iter().cycle());
            let balances = balances.map(|(_, (state, leased))| Balance {
                state,
                leased,
                is_refused,
            });
            Ok(Taken {
                is_admitted,
                now,
                balances: balances.collect(),
            })
        })
    }

    fn correct<'a>(&'a self, _: &'a [Correction]) -> StoreFuture<'a, ()> {
        Box::pin(async { Ok(()) })
    }
}

/// Any number, those at the ends of ranges above all.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(0),
        Just(1),
        Just(i64::MAX as u64),
        Just(i64::MAX as u64 + 1),
        Just(u64::MAX),
        Just(u64::MAX - 1),
        Just(1 << 62),
        Just((1 << 62) + 1),
        1_700_000_000_000_000_000..1_900_000_000_000_000_000_u64,
        any::<u64>(),
    ]
}

fn said() -> impl Strategy<Value = Said> {
    let balances = prop::collection::vec((number(), number()), 1..4);
    (any::<bool>(), number(), balances, any::<bool>()).prop_map(
        |(is_admitted, now, balances, is_refused)| Said {
            is_admitted,
            now,
            balances,
            is_refused,
        },
    )
}

proptest! {
    #[test]
    fn whatever_a_store_answers_requests_are_decided_without_a_panic(
        said in prop::collection::vec(said(), 40),
        lease in prop_oneof![Just(0_u64), Just(8), Just(u64::MAX)],
        waits in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let limits = Limits::new()
                .rate(Rate::per_second(3).burst(4))
                .quota(Quota::per_day(100))
                .tokens(Rate::per_minute(1_000))
                .rate(Rate::per_second(1).shadow());
            let limits = match waits {
                true => limits.max_wait(Duration::from_millis(500)),
                false => limits,
            };
            let builder = ThrottleLayer::builder(Rules::new().default_route(limits))
                .store(Says(Arc::new(Mutex::new(said))))
                .lease(lease);
            let client = Client::with(builder);
            for _ in 0..8 {
                // Answered, whatever it is.
                client.get("/").await;
                tokio::time::advance(Duration::from_millis(100)).await;
            }
        });
    }
}

#[expect(clippy::disallowed_methods, reason = "paused time")]
fn now() -> Instant {
    Instant::now()
}

/// Refuses all, and tells that each bucket is full, after so many answers that tell it to be empty.
#[derive(Debug, Clone)]
struct Contradicts {
    start: Instant,
    empty: usize,
    asked: Arc<AtomicUsize>,
}

impl Store for Contradicts {
    fn take<'a>(&'a self, charges: &'a [Charge]) -> StoreFuture<'a, Taken> {
        let elapsed = u64::try_from(self.start.elapsed().as_nanos()).expect("not long");
        let now = 1_800_000_000_000_000_000 + elapsed;
        let asked = self.asked.fetch_add(1, Ordering::Relaxed);
        assert!(asked < 1_000, "it is asked for ever");
        let balance = Balance {
            // Of a bucket of four units, three a second.
            state: if asked < self.empty {
                now + 1_333_333_333
            } else {
                0
            },
            ..Balance::default()
        };
        let taken = Taken {
            is_admitted: false,
            now,
            balances: vec![balance; charges.len()],
        };
        Box::pin(async { Ok(taken) })
    }

    fn correct<'a>(&'a self, _: &'a [Correction]) -> StoreFuture<'a, ()> {
        Box::pin(async { Ok(()) })
    }
}

/// A request that may wait asked such a store again at once, for ever, and held up its thread; one that may not was
/// refused by no limit; and one of shadows alone was refused at all.
#[tokio::test(start_paused = true)]
async fn a_store_that_refuses_what_it_tells_to_be_there_refuses_by_a_limit_and_in_time() {
    let wait = Duration::from_millis(500);
    let rate = || Rate::per_second(3).burst(4);
    let none = Duration::ZERO;
    for (limits, empty, passes, waits) in [
        (Limits::new().rate(rate()), 0, false, none),
        (Limits::new().rate(rate()).max_wait(wait), 0, false, wait),
        // It stands in line by then.
        (Limits::new().rate(rate()).max_wait(wait), 1, false, wait),
        (Limits::new().rate(rate().shadow()), 0, true, none),
    ] {
        let start = now();
        let store = Contradicts {
            start,
            empty,
            asked: Arc::default(),
        };
        let builder = ThrottleLayer::builder(Rules::new().default_route(limits));
        let client = Client::with(builder.store(store.clone()));
        let answer = timeout(2 * wait, client.get("/")).await.expect("in time");
        let decision = answer.decision();
        assert_eq!(start.elapsed(), waits, "{decision:?}");
        assert_eq!(decision.is_admitted(), passes, "{decision:?}");
        let refused = decision.limits().filter(|limit| limit.is_refused()).count();
        assert_eq!(refused, usize::from(!passes), "R22: {decision:?}");
        assert!(store.asked.load(Ordering::Relaxed) > empty, "{decision:?}");
    }
}
