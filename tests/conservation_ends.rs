//! R25 and R26: over every way in which requests begin and end, buckets owe what was settled, to the unit, and no slot
//! stays held: in this process, over a store of two replicas, and over outages of it.

#[path = "support/accounts.rs"]
mod accounts;
#[path = "support/cases.rs"]
mod cases;
#[path = "support/failing_store.rs"]
mod failing_store;
#[path = "support/scripted.rs"]
mod scripted;
mod support;

use std::{sync::Arc, time::Duration};

use axum::body::Body;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use proptest::prelude::*;
use tokio::{
    sync::{Notify, mpsc},
    task::JoinHandle,
    time::sleep,
};
use tower::{Layer, ServiceExt, service_fn};
use tower_throttle::{
    Decision, Permit, ThrottleLayer, Usage,
    body::{Hold, KeptRequest},
    store::OnOutage,
};

use accounts::{
    Accounts, CLIENTS, Fate, MODELS, Question, REPLICAS, ROUTES, Tokens, Version, Width, known,
    usage_of,
};
use failing_store::{Mode, Replica};
use scripted::{Answer, Entered, Report, Script, Serves, runtime, serve, settle_tasks};
use support::{build_in_a_month, store_in_a_month, throttling};

/// The kind of work.
#[derive(Debug, Clone, Copy)]
enum Asks {
    Request(Serves),
    TryPermit,
    Permit,
}

#[derive(Debug, Clone)]
enum Act {
    Ask(Question, Asks),
    Add(usize, Tokens),
    Settle(usize, Tokens),
    /// Keeps a request without a bound, or for so many milliseconds.
    Keep(usize, Option<u64>),
    Release(usize),
    /// Keeps a request for so many milliseconds beyond its answer, which ends.
    Lose(usize, u64),
    /// Has a service answer that was told to do it later.
    Head(usize),
    /// Drops what there is: the future, the response before its first frame, or a permit.
    Drop(usize),
    /// Drops a response after its first frame.
    Cut(usize),
    End(usize),
    Pass(u64),
    Reload(usize),
    Outage(bool),
    Recovery,
}

fn tokens() -> impl Strategy<Value = Tokens> {
    prop::array::uniform3(prop_oneof![3 => Just(0_u64), 2 => 0..300_u64])
}

fn serves() -> impl Strategy<Value = Serves> {
    let report = prop_oneof![
        2 => (0..200_u64, 0..200_u64).prop_map(|(input, output)| Report::Whole(input, output)),
        2 => Just(Report::Absent),
        1 => Just(Report::Broken),
    ];
    let status =
        prop_oneof![5 => Just(200), 2 => Just(500), 1 => Just(429), 1 => Just(101), 1 => Just(404)];
    (0..8_u8, status, report).prop_map(|(way, status, report)| match way {
        0 => Serves::Error,
        1 | 2 => Serves::Later { status, report },
        _ => Serves::Answer { status, report },
    })
}

fn question() -> impl Strategy<Value = Question> {
    let parts = (
        0..CLIENTS,
        0..ROUTES.len(),
        0..MODELS.len(),
        0..300_u64,
        0..REPLICAS,
    );
    parts.prop_map(|(client, route, model, estimate, replica)| Question {
        client,
        route,
        model,
        estimate,
        replica,
    })
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let number = 0..12_usize;
    let asks = prop_oneof![
        8 => serves().prop_map(Asks::Request),
        1 => Just(Asks::TryPermit),
        1 => Just(Asks::Permit),
    ];
    let with = move |act: fn(usize) -> Act| number.clone().prop_map(act);
    let act = prop_oneof![
        12 => (question(), asks).prop_map(|(question, asks)| Act::Ask(question, asks)),
        5 => (0..12_usize, tokens()).prop_map(|(number, tokens)| Act::Add(number, tokens)),
        3 => (0..12_usize, tokens()).prop_map(|(number, tokens)| Act::Settle(number, tokens)),
        4 => (0..12_usize, prop::option::of(0..3_u64)).prop_map(|(number, bound)| Act::Keep(number, bound)),
        2 => with(Act::Release),
        4 => (0..6_usize, 0..3_u64).prop_map(|(number, bound)| Act::Lose(number, bound)),
        2 => with(Act::Head),
        2 => with(Act::Drop),
        2 => with(Act::Cut),
        4 => with(Act::End),
        3 => (1..4_u64).prop_map(Act::Pass),
        1 => (0..3_usize).prop_map(Act::Reload),
        1 => any::<bool>().prop_map(Act::Outage),
        1 => Just(Act::Recovery),
    ];
    prop::collection::vec(act, 1..60)
}

/// The part of a request that its client or its caller holds.
enum Held {
    Pending(JoinHandle<Result<Answer, &'static str>>),
    Answer(Answer),
    Permit(Permit),
    Nothing,
}

/// A request under way.
struct Running {
    held: Held,
    serves: Serves,
    go: Arc<Notify>,
    usage: Option<Usage>,
    hold: Option<Hold>,
    /// With the milliseconds of the test at which each may be ended.
    guards: Vec<(KeptRequest, Option<u64>)>,
    account: usize,
    /// Set once a failure has settled it, so that it is not kept any more.
    is_closed: bool,
    has_ended: bool,
}

/// One run: throttles, the requests under way, and the model.
struct Run {
    replicas: Vec<(ThrottleLayer, Option<Replica>)>,
    on_outage: OnOutage,
    is_down: [bool; REPLICAS],
    /// The last call was the one that has found its store down.
    has_found_outage: bool,
    mode: Mode,
    model: Accounts,
    requests: Vec<Running>,
    passed: u64,
}

fn request_of(question: Question) -> http::request::Builder {
    Request::post(format!("/{}", ROUTES[question.route]))
        .header("content-length", question.estimate)
        .header("x-model", MODELS[question.model])
        .header("x-client", question.client)
}

impl Run {
    fn new(is_stored: bool, on_outage: OnOutage) -> Self {
        let version = Version {
            number: 0,
            width: Width::Normal,
        };
        let store = store_in_a_month(512);
        let count = if is_stored { REPLICAS } else { 1 };
        let replicas = (0..count).map(|_| {
            let builder = throttling(version.rules())
                .usage_from_answers(true)
                .on_outage(on_outage)
                .lease(0);
            let replica = is_stored.then(|| Replica::new(&store));
            let layer = match &replica {
                Some(replica) => build_in_a_month(builder.store(replica.clone())),
                None => build_in_a_month(builder),
            };
            (layer, replica)
        });
        Self {
            replicas: replicas.collect(),
            on_outage,
            is_down: [false; REPLICAS],
            has_found_outage: false,
            mode: Mode::Up,
            model: Accounts::new(version, is_stored),
            requests: Vec::new(),
            passed: 0,
        }
    }

    fn has_store(&self) -> bool {
        self.model.has_store
    }

    /// Notes what becomes of corrections from now on.
    fn note_fates(&mut self) {
        for (fate, is_down) in self.model.fates.iter_mut().zip(self.is_down) {
            *fate = match self.mode {
                _ if is_down => Fate::Held,
                Mode::Up => Fate::Made,
                Mode::Fails => Fate::Lost,
                Mode::Unanswered => Fate::Unanswered,
            };
        }
    }

    /// Has the corrections of the model reach the store.
    fn land(&mut self) {
        for (is_down, has_found) in self.is_down.iter_mut().zip(self.model.land()) {
            *is_down |= has_found;
        }
        self.note_fates();
    }

    /// Ends, in the model, the requests that were ended at their bounds.
    fn note_expired(&mut self) {
        for number in 0..self.requests.len() {
            let request = &self.requests[number];
            let is_expired = request.guards.iter().any(|(guard, _)| guard.has_expired());
            if !is_expired || request.has_ended {
                continue;
            }
            assert!(matches!(request.held, Held::Nothing), "held by its answer");
            for (_, bound) in &request.guards {
                assert!(
                    bound.is_some_and(|bound| bound <= self.passed),
                    "ended early"
                );
            }
            self.end(number);
        }
    }

    /// Ends a request in the model.
    fn end(&mut self, number: usize) {
        let request = &mut self.requests[number];
        assert!(!request.has_ended, "once");
        request.has_ended = true;
        let account = request.account;
        self.model.end(account);
        self.model.free(account);
    }

    /// Ends it if nothing holds it any more.
    fn end_if_free(&mut self, number: usize) {
        let request = &self.requests[number];
        let is_free = matches!(request.held, Held::Nothing) && request.guards.is_empty();
        if is_free && !request.has_ended {
            self.end(number);
        }
    }

    async fn ask(&mut self, mut question: Question, asks: Asks) -> Option<usize> {
        question.replica %= self.replicas.len();
        let (layer, replica) = self.replicas[question.replica].clone();
        if let Some(replica) = &replica {
            replica.with(|state| (state.has_failed, state.taken) = (false, None));
        }
        let go = Arc::new(Notify::new());
        let (entered, mut told) = mpsc::unbounded_channel();
        let mut serves = Serves::Error;
        let (held, decision, usage, hold) = match asks {
            Asks::Request(how) => {
                serves = how;
                let mut request = request_of(question).body(Body::empty()).expect("a request");
                request.extensions_mut().insert(Script {
                    serves,
                    go: Arc::clone(&go),
                    entered,
                });
                let task = tokio::spawn(layer.layer(service_fn(serve)).oneshot(request));
                settle_tasks().await;
                let entered = told.try_recv().ok();
                let held = match task.is_finished() {
                    false => Held::Pending(task),
                    true => match task.await.expect("no panic") {
                        Ok(answer) => Held::Answer(answer),
                        Err(_) => Held::Nothing,
                    },
                };
                let Some(Entered {
                    usage,
                    hold,
                    decision,
                }) = entered
                else {
                    self.note_call(question, true);
                    self.land();
                    return None;
                };
                (held, Some(decision), usage, hold)
            }
            Asks::TryPermit | Asks::Permit => {
                if self.has_store() && (self.mode != Mode::Up || self.is_down[question.replica]) {
                    return None;
                }
                let head = request_of(question).body(()).expect("a request");
                let permit = match asks {
                    Asks::TryPermit => layer.handle().try_acquire(&head),
                    _ => layer.handle().acquire(&head).await,
                };
                settle_tasks().await;
                let Ok(permit) = permit else {
                    let is_unasked = self.has_store() && matches!(asks, Asks::TryPermit);
                    self.note_call(question, !is_unasked);
                    self.land();
                    return None;
                };
                let usage = permit.usage().cloned();
                (Held::Permit(permit), None, usage, None)
            }
        };
        let had_expired = self.requests.iter().filter(|it| it.has_ended).count();
        self.note_call(question, false);
        let has_expired = self.requests.iter().filter(|it| it.has_ended).count() > had_expired;
        let is_alone = self.is_down[question.replica];
        let names = match &decision {
            Some(decision) => {
                let all = decision.limits().chain(decision.shadow());
                all.map(|limit| known(limit.name())).collect()
            }
            None => match replica.and_then(|replica| replica.with(|state| state.taken.take())) {
                Some(taken) => with_slots(taken),
                None => self.model.foresee(question, false).expect("it has room"),
            },
        };
        self.check_admitted(&names, question, is_alone);
        let account = self.model.admit(&names, question, is_alone);
        self.land();
        if let Some(decision) = decision.filter(|_| !has_expired || !self.has_store()) {
            self.compare(&decision, question, is_alone);
        }
        self.requests.push(Running {
            held,
            serves,
            go,
            usage,
            hold,
            guards: Vec::new(),
            account,
            is_closed: false,
            has_ended: false,
        });
        let number = self.requests.len() - 1;
        match &self.requests[number].held {
            Held::Answer(_) => self.head(number),
            Held::Nothing => self.end_if_free(number),
            _ => {}
        }
        settle_tasks().await;
        self.land();
        Some(number)
    }

    /// Notes what a request has done to the store and to others, and that it was refused rightly.
    fn note_call(&mut self, question: Question, is_refused: bool) {
        self.has_found_outage = false;
        if let Some(replica) = self.replicas[question.replica].1.clone() {
            let (has_failed, mode, taken) =
                replica.with(|state| (state.has_failed, state.mode, state.taken.clone()));
            if has_failed && mode == Mode::Unanswered {
                if let Some(taken) = taken {
                    self.model.take_unanswered(&taken, question);
                }
            }
            self.has_found_outage = has_failed;
            self.is_down[question.replica] |= has_failed;
            self.note_fates();
        }
        self.note_expired();
        let is_alone = self.is_down[question.replica];
        if is_refused
            && (!self.has_store() || is_alone && matches!(self.on_outage, OnOutage::Local { .. }))
        {
            assert_eq!(
                self.model.foresee(question, is_alone),
                None,
                "it had room: {question:?}"
            );
        }
    }

    fn check_admitted(&self, names: &[&'static str], question: Question, is_alone: bool) {
        assert!(
            self.model.admits(names, question, is_alone),
            "{question:?} {names:?}"
        );
        // A refusal of the store that this process remembers may come first, and the outage with the second budget: the
        // balances of the store have chosen it then.
        let is_second = names.iter().any(|name| name.contains("second_"));
        let is_mixed = self.has_found_outage && is_second;
        let is_local = is_alone && matches!(self.on_outage, OnOutage::Local { .. }) && !is_mixed;
        let is_foreseen = !self.has_store() || is_local;
        if is_foreseen || self.model.version.width != Width::Normal && !is_alone {
            let sorted = |mut names: Vec<&'static str>| {
                names.sort_unstable();
                names
            };
            let foreseen = self.model.foresee(question, is_alone).expect("room");
            assert_eq!(sorted(names.to_vec()), sorted(foreseen), "{question:?}");
        }
        if is_alone && self.on_outage == OnOutage::Admit {
            assert!(
                names.iter().all(|name| name.ends_with("_slots")),
                "{names:?}"
            );
        }
        assert!(!(is_alone && self.on_outage == OnOutage::Refuse));
    }

    /// Compares all balances that a request was told with the model.
    fn compare(&self, decision: &Decision, question: Question, is_alone: bool) {
        for limit in decision.limits().chain(decision.shadow()) {
            let name = known(limit.name());
            let burst = self.model.version.burst(name);
            assert_eq!(limit.burst(), burst, "{name}");
            let bucket = self.model.bucket(name, question, is_alone);
            let owed = self.model.owed(bucket).min(burst);
            assert_eq!(burst - limit.remaining(), owed, "{bucket:?} owes");
        }
    }

    /// Notes that a request has its head, in the model.
    fn head(&mut self, number: usize) {
        let request = &self.requests[number];
        let Held::Answer(answer) = &request.held else {
            return;
        };
        let status = answer.status();
        let is_failure = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
        if is_failure && request.hold.is_some() && request.usage.is_some() {
            let (account, is_kept) = (request.account, !request.guards.is_empty());
            self.requests[number].is_closed = !is_kept;
            self.model.accounts[account].is_kept |= is_kept;
            self.model.refund(account);
        }
    }

    /// Notes the end of an answer that has reported this, in the model.
    fn answered(&mut self, number: usize, report: Option<[u64; 2]>) {
        let request = &self.requests[number];
        let account = request.account;
        self.model.accounts[account].is_kept |= !request.guards.is_empty();
        self.model.answered(account, report);
    }

    fn report(&self, number: usize) -> Option<[u64; 2]> {
        let (Serves::Answer { report, .. } | Serves::Later { report, .. }) =
            self.requests[number].serves
        else {
            return None;
        };
        match report {
            Report::Whole(input, output) => Some([input, output]),
            Report::Absent | Report::Broken => None,
        }
    }

    async fn play(&mut self, act: &Act) {
        match *act {
            Act::Ask(question, asks) => drop(self.ask(question, asks).await),
            Act::Pass(milliseconds) => self.pass(milliseconds).await,
            Act::Reload(number) => self.reload(Version {
                number,
                ..self.model.version
            }),
            Act::Outage(answers) => {
                self.set_mode(if answers {
                    Mode::Unanswered
                } else {
                    Mode::Fails
                });
            }
            Act::Recovery => self.recover().await,
            Act::Add(number, _)
            | Act::Settle(number, _)
            | Act::Keep(number, _)
            | Act::Release(number)
            | Act::Lose(number, _)
            | Act::Head(number)
            | Act::Drop(number)
            | Act::Cut(number)
            | Act::End(number) => {
                // The latest are more likely to be under way.
                if let Some(number) = self.requests.len().checked_sub(number + 1) {
                    self.play_on(number, act).await;
                }
            }
        }
        settle_tasks().await;
        self.land();
    }

    async fn play_on(&mut self, number: usize, act: &Act) {
        let request = &mut self.requests[number];
        let account = request.account;
        match *act {
            Act::Add(_, tokens) => {
                if let Some(usage) = &request.usage {
                    let is_open = usage.add_tokens(usage_of(tokens));
                    assert_eq!(is_open, self.model.add(account, tokens), "{number}");
                }
            }
            Act::Settle(_, tokens) => {
                if let Some(usage) = &request.usage {
                    let is_open = usage.settle_tokens(usage_of(tokens));
                    assert_eq!(is_open, self.model.settle(account, tokens), "{number}");
                }
            }
            Act::Keep(_, bound) => {
                let Some(hold) = &request.hold else {
                    return;
                };
                let kept = match bound {
                    None => hold.keep(),
                    Some(bound) => hold.keep_at_most(Duration::from_millis(bound)),
                };
                let may_keep = !request.has_ended && !request.is_closed;
                assert_eq!(kept.is_some(), may_keep, "{number}");
                let bound = bound.map(|bound| self.passed + bound);
                request.guards.extend(kept.map(|kept| (kept, bound)));
            }
            Act::Release(_) => {
                let has_guard = request.guards.pop().is_some();
                if has_guard {
                    self.end_if_free(number);
                }
            }
            Act::Lose(_, bound) => {
                for act in [Act::Keep(0, Some(bound)), Act::End(0)] {
                    Box::pin(self.play_on(number, &act)).await;
                }
            }
            Act::Head(_) => {
                if let Held::Pending(task) = &mut request.held {
                    request.go.notify_one();
                    let answer = task.await.expect("no panic").expect("an answer");
                    request.held = Held::Answer(answer);
                    self.head(number);
                }
            }
            Act::Drop(_) | Act::Cut(_) | Act::End(_) => {
                let held = std::mem::replace(&mut request.held, Held::Nothing);
                self.let_go(number, held, act).await;
            }
            _ => unreachable!("it is of no request"),
        }
    }

    /// Ends the part of a request that its client holds.
    async fn let_go(&mut self, number: usize, held: Held, act: &Act) {
        match held {
            Held::Nothing => return,
            Held::Pending(task) => {
                task.abort();
                assert!(task.await.is_err(), "it was aborted");
            }
            Held::Permit(permit) => drop(permit),
            Held::Answer(answer) => {
                let mut body = answer.into_body();
                let mut report = None;
                match act {
                    Act::Cut(_) => drop(body.frame().await),
                    Act::End(_) => {
                        report = self.report(number);
                        while let Some(frame) = body.frame().await {
                            if frame.is_err() {
                                break;
                            }
                        }
                    }
                    _ => {}
                }
                drop(body);
                self.answered(number, report);
            }
        }
        self.end_if_free(number);
    }

    async fn pass(&mut self, milliseconds: u64) {
        sleep(Duration::from_millis(milliseconds)).await;
        self.passed += milliseconds;
    }

    fn reload(&mut self, version: Version) {
        for (layer, _) in &self.replicas {
            layer
                .handle()
                .reload(version.rules())
                .expect("proper rules");
        }
        self.model.reload(version);
    }

    fn set_mode(&mut self, mode: Mode) {
        if self.has_store() {
            self.mode = mode;
            for (_, replica) in &self.replicas {
                let replica = replica.as_ref().expect("a store");
                replica.with(|state| state.mode = mode);
            }
            self.note_fates();
        }
    }

    /// Has the store answer again, and waits until all have noticed.
    async fn recover(&mut self) {
        self.set_mode(Mode::Up);
        self.pass(3_000).await;
        self.is_down = [false; REPLICAS];
        self.note_fates();
        self.land();
    }

    /// Asks once for each balance of one width, which compares them all.
    async fn read_all(&mut self, width: Width) {
        self.reload(Version {
            number: self.model.version.number % 2,
            width,
        });
        for replica in 0..self.replicas.len() {
            for client in 0..CLIENTS {
                // Together they have all limits.
                for (route, model) in [(0, 0), (1, 1)] {
                    let question = Question {
                        client,
                        route,
                        model,
                        estimate: 1,
                        replica,
                    };
                    let served = Serves::Answer {
                        status: 200,
                        report: Report::Absent,
                    };
                    let number = self.ask(question, Asks::Request(served)).await;
                    let number = number.expect("there is room for all");
                    self.play_on(number, &Act::Settle(0, [0; 3])).await;
                    self.play_on(number, &Act::End(0)).await;
                    settle_tasks().await;
                    self.land();
                }
            }
        }
    }

    /// Ends all requests, and compares all balances with the model.
    async fn finish(&mut self) {
        self.recover().await;
        for number in 0..self.requests.len() {
            self.requests[number].guards.clear();
            self.end_if_free(number);
            let act = [Act::Drop(0), Act::Cut(0), Act::End(0)][number % 3].clone();
            self.play_on(number, &act).await;
            settle_tasks().await;
            self.land();
        }
        assert_eq!(
            self.model.slots().next(),
            None,
            "slots of the model are free"
        );
        for (layer, _) in &self.replicas {
            for limit in layer.handle().snapshot().limits {
                assert_eq!(limit.in_flight.unwrap_or(0), 0, "{}", limit.name);
            }
        }
        self.read_all(Width::Wide).await;
        self.read_all(Width::Narrow).await;
        if self.has_store() && matches!(self.on_outage, OnOutage::Local { .. }) {
            self.set_mode(Mode::Fails);
            self.read_all(Width::Wide).await;
            self.read_all(Width::Narrow).await;
        }
    }
}

/// Adds the slots to the limits of a permit that the store was asked for.
fn with_slots(mut names: Vec<&'static str>) -> Vec<&'static str> {
    names.push("total_slots");
    let slots = [
        ("chat_rate", "chat_slots"),
        ("plain_rate", "plain_slots"),
        ("client_rate", "client_slots"),
        ("second_rate", "second_slots"),
    ];
    for (rate, slots) in slots {
        if names.contains(&rate) {
            names.push(slots);
        }
    }
    names
}

fn check(acts: &[Act], is_stored: bool, on_outage: OnOutage) {
    runtime().block_on(async {
        let mut run = Run::new(is_stored, on_outage);
        for act in acts {
            run.play(act).await;
        }
        run.finish().await;
    });
}

proptest! {
    #![proptest_config(cases::cases(96))]

    #[test]
    fn in_this_process_buckets_owe_what_was_settled(acts in acts()) {
        check(&acts, false, OnOutage::Refuse);
    }

    #[test]
    fn in_a_store_that_fails_buckets_owe_what_was_settled_and_taken(
        acts in acts(),
        on_outage in prop_oneof![
            Just(OnOutage::Refuse),
            Just(OnOutage::Admit),
            Just(OnOutage::Local { share: 1 }),
        ],
    ) {
        check(&acts, true, on_outage);
    }
}

fn ask(client: usize, route: usize, estimate: u64, serves: Serves) -> Act {
    let question = Question {
        client,
        route,
        model: 0,
        estimate,
        replica: 0,
    };
    Act::Ask(question, Asks::Request(serves))
}

fn later() -> Serves {
    Serves::Later {
        status: 200,
        report: Report::Whole(0, 0),
    }
}

/// The units of a correction that found the store down were given back when the request was settled lower, and taken from
/// what another owes. They may have been made, and come back no more than those that were not.
#[test]
fn units_whose_debt_was_lost_do_not_come_back() {
    for answers in [false, true] {
        for settled in [0, 10, 60, 300] {
            let acts = [
                ask(0, 0, 10, later()),
                ask(0, 0, 250, later()),
                Act::Outage(answers),
                Act::Add(1, [0, 200, 0]),
                Act::Recovery,
                Act::Settle(1, [0, settled, 0]),
            ];
            check(&acts, true, OnOutage::Refuse);
        }
    }
}

/// What requests owed while their process knew that the store was down was lost, and so was what they gave back.
#[test]
fn corrections_wait_for_the_end_of_an_outage() {
    for settled in [0, 300] {
        let acts = [
            ask(0, 0, 100, later()),
            ask(1, 0, 250, later()),
            Act::Outage(false),
            ask(0, 0, 10, later()),
            Act::Add(1, [0, 400, 0]),
            Act::Settle(0, [0, settled, 0]),
            Act::End(1),
            Act::Recovery,
            Act::Add(0, [0, 100, 0]),
        ];
        check(&acts, true, OnOutage::Admit);
        check(&acts, true, OnOutage::Refuse);
    }
}

/// A lost request is ended by one that is charged on a second budget, and before the lost one is settled.
#[test]
fn a_request_that_ends_a_lost_one_is_charged_first() {
    let acts = [
        ask(0, 0, 0, later()),
        ask(0, 0, 77, Serves::Error),
        ask(0, 1, 0, Serves::Error),
        ask(1, 1, 0, Serves::Error),
        Act::Reload(1),
        ask(1, 0, 214, later()),
        ask(0, 0, 0, Serves::Error),
        Act::Lose(1, 0),
        ask(0, 1, 0, Serves::Error),
        ask(0, 0, 0, later()),
        ask(0, 0, 7, Serves::Error),
        ask(0, 0, 0, Serves::Error),
    ];
    check(&acts, true, OnOutage::Refuse);
    check(&acts, false, OnOutage::Refuse);
}
