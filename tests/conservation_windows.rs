//! R25 over the ends of windows: units come back to the window that they were taken from, and to no later one.

#[path = "support/cases.rs"]
mod cases;
#[path = "support/scripted.rs"]
mod scripted;
mod support;

use std::{sync::Arc, time::Duration};

use axum::body::Body;
use http::Request;
use proptest::prelude::*;
use tokio::{
    sync::{Notify, mpsc},
    task::JoinHandle,
    time::sleep,
};
use tower::{Layer, ServiceExt, service_fn};
use tower_throttle::{
    Clients, Limits, Price, Prices, Quota, Rules, Spend, ThrottleLayer, Usage, store::MemoryStore,
    usage::Estimate,
};

use scripted::{Answer, Entered, Report, Script, Serves, runtime, serve, settle_tasks};
use support::{build, throttling};

/// A day in the life of accounts whose limits have windows.
#[derive(Debug, Clone, Copy)]
enum DayAct {
    /// A client asks, with so many tokens reserved.
    Ask(usize, u64),
    Add(usize, u64),
    Settle(usize, u64),
    Drop(usize),
    Fail(usize),
    Midnight,
}

fn day_acts() -> impl Strategy<Value = Vec<DayAct>> {
    let act = prop_oneof![
        3 => (0..2_usize, 1..300_u64).prop_map(|(client, estimate)| DayAct::Ask(client, estimate)),
        4 => (0..4_usize, 1..300_u64).prop_map(|(number, tokens)| DayAct::Add(number, tokens)),
        2 => (0..4_usize, 0..600_u64).prop_map(|(number, tokens)| DayAct::Settle(number, tokens)),
        1 => (0..4_usize).prop_map(DayAct::Drop),
        2 => (0..4_usize).prop_map(DayAct::Fail),
        2 => Just(DayAct::Midnight),
    ];
    prop::collection::vec(act, 1..40)
}

/// A request under way, and the days in which it was charged.
struct Dated {
    task: JoinHandle<Result<Answer, &'static str>>,
    go: Arc<Notify>,
    usage: Usage,
    client: usize,
    reserved: u64,
    used: u64,
    asked: usize,
    /// The day of the first units beyond the reservation.
    owed: Option<usize>,
    is_settled: bool,
}

/// The units of each client in each day: requests, and money.
type Days = Vec<[[u64; 2]; 2]>;

impl Dated {
    fn charged(&self) -> u64 {
        match self.is_settled {
            true => self.used,
            false => self.used.max(self.reserved),
        }
    }

    /// Brings the charge to `after`. Units come back to the day alone that they were taken in.
    fn change(&mut self, after: u64, days: &mut Days) {
        let today = days.len() - 1;
        let before = self.charged();
        let money = &mut days[today][self.client][1];
        if after > before {
            self.owed.get_or_insert(today);
            *money += after - before;
            return;
        }
        let kept = after.max(self.reserved).min(before);
        if self.owed == Some(today) {
            *money -= before - kept;
        }
        if self.asked == today {
            *money -= kept - after.min(kept);
        }
    }

    fn settle(&mut self, total: u64, days: &mut Days) {
        self.change(total, days);
        (self.used, self.is_settled) = (total, true);
    }
}

fn daily() -> Rules {
    let client = Limits::from(Quota::per_day(1_000)).spend(Spend::per_day("1.00"));
    Rules::new()
        .route(
            "POST /chat",
            Limits::new().refund_failures(true).in_flight(99),
        )
        .prices(Prices::new().otherwise(Price::new().input("1").output("1")))
        .clients(
            Clients::by_header("x-client")
                .secret([7; 32])
                .max_clients(64)
                .each(client),
        )
        .estimate(Estimate::by_content_length(1))
}

/// Sends a request that is answered once it is told to. Its balances are those of the model.
async fn ask_today(layer: &ThrottleLayer, client: usize, estimate: u64, days: &mut Days) -> Dated {
    let request = Request::post("/chat")
        .header("content-length", estimate)
        .header("x-client", client);
    let (entered, mut told) = mpsc::unbounded_channel();
    let go = Arc::new(Notify::new());
    let mut request = request.body(Body::empty()).expect("a request");
    request.extensions_mut().insert(Script {
        serves: Serves::Later {
            status: 500,
            report: Report::Absent,
        },
        go: Arc::clone(&go),
        entered,
    });
    let task = tokio::spawn(layer.layer(service_fn(serve)).oneshot(request));
    settle_tasks().await;
    let Entered {
        usage, decision, ..
    } = told.try_recv().expect("there is room");
    let today = days.len() - 1;
    for (units, cost) in days[today][client].iter_mut().zip([1, estimate]) {
        *units += cost;
    }
    let limits = decision
        .limits()
        .filter(|limit| limit.in_flight().is_none());
    let owed: Vec<_> = limits
        .map(|limit| limit.burst() - limit.remaining())
        .collect();
    assert_eq!(owed, days[today][client], "client {client} on day {today}");
    Dated {
        task,
        go,
        usage: usage.expect("money"),
        client,
        reserved: estimate,
        used: 0,
        asked: today,
        owed: None,
        is_settled: false,
    }
}

async fn play_days(acts: &[DayAct], is_stored: bool) {
    let builder = throttling(daily()).lease(0);
    let layer = build(match is_stored {
        true => builder.store(MemoryStore::with_capacity(64).expect("there is as much memory")),
        false => builder,
    });
    let mut days: Days = vec![[[0; 2]; 2]];
    let mut requests: Vec<Dated> = Vec::new();
    for act in acts {
        match *act {
            DayAct::Ask(client, estimate) => {
                requests.push(ask_today(&layer, client, estimate, &mut days).await);
            }
            DayAct::Midnight => {
                sleep(Duration::from_secs(86_400)).await;
                days.push([[0; 2]; 2]);
            }
            DayAct::Add(number, tokens) => {
                if let Some(request) = requests.get_mut(number) {
                    let is_open = request.usage.add(tokens);
                    assert_eq!(is_open, !request.is_settled);
                    if is_open {
                        let used = request.used + tokens;
                        request.change(used.max(request.reserved), &mut days);
                        request.used = used;
                    }
                }
            }
            DayAct::Settle(number, total) => {
                if let Some(request) = requests.get_mut(number) {
                    let is_open = request.usage.settle(total);
                    assert_eq!(is_open, !request.is_settled);
                    if is_open {
                        request.settle(total, &mut days);
                    }
                }
            }
            DayAct::Drop(number) => {
                if number < requests.len() {
                    let request = requests.swap_remove(number);
                    request.task.abort();
                    assert!(request.task.await.is_err());
                }
            }
            DayAct::Fail(number) => {
                if number < requests.len() {
                    let mut request = requests.swap_remove(number);
                    request.go.notify_one();
                    let answer = (&mut request.task).await;
                    assert_eq!(answer.expect("no panic").expect("an answer").status(), 500);
                    let today = days.len() - 1;
                    if request.asked == today {
                        days[today][request.client][0] -= 1;
                    }
                    if !request.is_settled {
                        request.settle(0, &mut days);
                    }
                }
            }
        }
        settle_tasks().await;
    }
    for request in requests {
        request.task.abort();
    }
    settle_tasks().await;
    for client in 0..2 {
        ask_today(&layer, client, 1, &mut days).await.task.abort();
    }
}

proptest! {
    #![proptest_config(cases::cases(96))]

    #[test]
    fn units_of_a_window_come_back_to_it_alone(acts in day_acts(), is_stored: bool) {
        runtime().block_on(play_days(&acts, is_stored));
    }
}
