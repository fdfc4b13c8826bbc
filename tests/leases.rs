//! R1 and R21 with leases: leased units are spent without a call, and no request is admitted that would be refused
//! without leases.

#[path = "support/cases.rs"]
mod cases;
mod common;
#[path = "support/told.rs"]
mod told;

use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use common::{Answer, Client};
use http::{Request, StatusCode};
use http_body_util::Empty;
use proptest::prelude::*;
use tokio::time::{Instant, sleep};
use told::{Does, Told};
use tower_throttle::{
    Clients, Handle, Limits, Quota, Rate, Rules, ThrottleLayer, ThrottleLayerBuilder,
    store::OnOutage, usage::Estimate,
};

const OK: StatusCode = StatusCode::OK;
const REFUSED: StatusCode = StatusCode::TOO_MANY_REQUESTS;
const MS: Duration = Duration::from_millis(1);

fn builder(rules: Rules, store: &Told, lease: u64) -> ThrottleLayerBuilder {
    ThrottleLayer::builder(rules)
        .lease(lease)
        .on_outage(OnOutage::Refuse)
        .store(store.clone())
}

fn replica(rules: Rules, store: &Told, lease: u64) -> Client {
    Client::with(builder(rules, store, lease))
}

#[expect(clippy::disallowed_methods, reason = "paused time")]
fn now() -> Instant {
    Instant::now()
}

/// Returns how many of so many requests are let through.
async fn admitted(client: &Client, requests: usize) -> usize {
    let mut admitted = 0;
    for _ in 0..requests {
        let status = client.get("/").await.status;
        assert!([OK, REFUSED].contains(&status), "{status}");
        admitted += usize::from(status == OK);
    }
    admitted
}

async fn get_as(client: &Client, key: &str) -> StatusCode {
    let request = Request::get("/").header("x-api-key", key);
    let request = request.body(Empty::new()).expect("a request");
    client.send(request).await.status
}

#[tokio::test(start_paused = true)]
async fn a_lease_answers_those_who_come_after() {
    let store = Told::new();
    let rate = || Rate::per_second(1_000).burst(1_000);
    let clients = Clients::by_header("x-api-key").each(rate()).secret([7; 32]);
    let rules = Rules::new()
        .total(rate())
        .default_route(rate())
        .clients(clients);
    let client = replica(rules, &store, 50);
    for _ in 0..500 {
        assert_eq!(get_as(&client, "one").await, OK);
    }
    let calls = store.calls();
    assert_eq!(calls, 10, "500 requests on three buckets, 50 at a time");
    // Another client has a bucket of its own, the others are leased already.
    store.keys.lock().expect("no panic").clear();
    assert_eq!(get_as(&client, "one").await, OK);
    store.keys.lock().expect("no panic").clear();
    assert_eq!(get_as(&client, "two").await, OK);
    let asked = store.keys.lock().expect("no panic").clone();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert!(asked[0].starts_with("client/"), "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_told_to_remain_counts_what_was_leased_and_not_spent() {
    let store = Told::new();
    let rules = Rules::new().default_route(Rate::per_second(1_000).burst(100));
    let client = replica(rules, &store, 10);
    for left in (88..100).rev() {
        let answer = client.get("/").await;
        let told = answer
            .decision()
            .limits()
            .next()
            .map(|limit| limit.remaining());
        assert_eq!(told, Some(left), "as without leases");
    }
}

#[tokio::test(start_paused = true)]
async fn a_quota_gives_to_its_last_unit() {
    let store = Told::new();
    let rules = || Rules::new().total(Quota::per_day(100));
    let [one, two] = [replica(rules(), &store, 50), replica(rules(), &store, 50)];
    assert_eq!(admitted(&one, 1).await, 1);
    assert_eq!(admitted(&two, 1).await, 1);
    // Each has leased: a quarter of it, no more.
    let mut sum = 2;
    sum += admitted(&two, 200).await;
    sum += admitted(&one, 200).await;
    assert_eq!(sum, 100, "and not one more");
    assert!(store.calls() < 20);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_uses_is_given_back() {
    let store = Told::new();
    let rules = || Rules::new().total(Quota::per_day(100));
    let [one, two] = [replica(rules(), &store, 50), replica(rules(), &store, 50)];
    assert_eq!(admitted(&one, 1).await, 1);
    assert_eq!(admitted(&two, 200).await, 74, "25 are with the other");
    sleep(3 * Duration::from_secs(1)).await;
    // An empty bucket is believed to be one for ten seconds; a new replica believes nothing.
    let three = replica(rules(), &store, 1);
    assert_eq!(admitted(&three, 200).await, 25, "they came back");
}

#[tokio::test(start_paused = true)]
async fn a_process_that_ends_gives_back_what_it_has() {
    for lease in [1, 20] {
        let store = Told::new();
        let rules = || Rules::new().total(Rate::per_second(20).burst(100));
        let ends = replica(rules(), &store, lease);
        let handle = ends.handle();
        assert_eq!(admitted(&ends, 1).await, 1);
        drop(ends);
        handle.return_leases().await;
        assert_eq!(admitted(&replica(rules(), &store, 1), 200).await, 99);
        handle.return_leases().await;
    }
    let alone = ThrottleLayer::new(Rules::new()).expect("rules");
    alone.handle().return_leases().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_crash_strands_lapses() {
    let store = Told::new();
    let rules = || Rules::new().total(Rate::per_second(20).burst(100));
    let crashes = replica(rules(), &store, 20);
    assert_eq!(admitted(&crashes, 1).await, 1);
    // The lease is not dropped, so that nothing is given back, and the store is never asked again.
    let other = replica(rules(), &store, 1);
    assert_eq!(admitted(&other, 200).await, 80);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(
        admitted(&other, 200).await,
        100,
        "refilled as if it had been used"
    );
    drop(crashes);
}

#[tokio::test(start_paused = true)]
async fn who_is_refused_spends_nothing_of_a_lease() {
    let store = Told::new();
    let rules = || {
        let chat = Limits::new().rate(Rate::per_second(10).burst(8));
        Rules::new()
            .total(Rate::per_second(100).burst(100))
            .route("POST /chat", chat)
    };
    let client = replica(rules(), &store, 4);
    let mut sum = 0;
    for _ in 0..50 {
        let answer = client.request(http::Method::POST, "/chat").await;
        sum += usize::from(answer.status == OK);
    }
    assert_eq!(sum, 8, "of the route");
    let mut total = 0;
    for path in 0..200 {
        total += usize::from(client.get(&format!("/{path}")).await.status == OK);
    }
    assert_eq!(total, 92, "what was refused there is left of the total");
}

async fn chat(client: &Client) -> Answer {
    client.request(http::Method::POST, "/chat").await
}

#[tokio::test(start_paused = true)]
async fn a_refusal_tells_of_a_leased_limit_beside_the_one_that_refused() {
    let store = Told::new();
    let rules = || {
        let total = Rate::per_second(100).burst(100).named("all");
        Rules::new()
            .total(total)
            .route("POST /chat", Rate::per_second(10).burst(8).named("chat"))
    };
    let (client, other) = (replica(rules(), &store, 4), replica(rules(), &store, 4));
    let told = |answer: &Answer| -> Vec<(String, u64, Option<Duration>)> {
        let limits = answer.decision().limits();
        let told = limits.map(|limit| (limit.name().to_owned(), limit.remaining(), limit.wait()));
        told.collect()
    };
    let expected = |left| {
        let chat = ("chat".to_owned(), 0, Some(100 * MS));
        vec![chat, ("all".to_owned(), left, Some(Duration::ZERO))]
    };
    // Four by each question.
    assert_eq!(client.get("/").await.status, OK);
    for _ in 0..8 {
        assert_eq!(chat(&other).await.status, OK);
    }
    store.calls();
    // A unit of the total is at hand, and the store refuses the other; then that is known.
    for questions in [1, 0, 0] {
        let refused = chat(&client).await;
        assert_eq!(refused.status, REFUSED);
        assert_eq!(refused.violated(), ["chat"]);
        assert_eq!(store.calls(), questions);
        assert_eq!(told(&refused), expected(99), "as far as this process knows");
    }
    // Nothing was spent.
    for left in [98, 97, 96] {
        let answer = client.get("/").await;
        assert_eq!(store.calls(), 0, "there are three units");
        assert_eq!(
            answer
                .decision()
                .limits()
                .next()
                .map(|limit| limit.remaining()),
            Some(left)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_crowd_makes_few_questions() {
    let store = Told::new();
    store.does(Does::Late(MS));
    let rules = Rules::new().total(Rate::per_second(10_000).burst(10_000));
    let client = Arc::new(replica(rules, &store, 50));
    let crowd = (0..300).map(|_| {
        let client = Arc::clone(&client);
        tokio::spawn(async move { client.get("/").await.status })
    });
    for one in crowd.collect::<Vec<_>>() {
        assert_eq!(one.await.expect("no panic"), OK);
    }
    let calls = store.calls();
    assert!(calls <= 8, "fifty for each of {calls} questions");
    // As if somebody had answered at once.
    store.does(Does::Answers);
    let crowd = (0..300).map(|_| {
        let client = Arc::clone(&client);
        tokio::spawn(async move { client.get("/").await.status })
    });
    for one in crowd.collect::<Vec<_>>() {
        assert_eq!(one.await.expect("no panic"), OK);
    }
    assert!(store.calls() <= 8, "50 for each");
}

#[tokio::test(start_paused = true)]
async fn who_asks_and_is_held_up_holds_up_others_for_a_moment() {
    // With and without sleeping through the deadline of the one before the other waits.
    for is_slept in [false, true] {
        let store = Told::new();
        let rules = Rules::new().total(Rate::per_second(1_000).burst(1_000));
        let client = replica(rules, &store, 50);
        store.does(Does::Late(MS));
        // The request is polled once, and then never again.
        let mut held_up = pin!(client.get("/"));
        let mut context = Context::from_waker(Waker::noop());
        assert!(matches!(held_up.as_mut().poll(&mut context), Poll::Pending));
        if is_slept {
            tokio::task::yield_now().await;
        }
        let start = now();
        assert_eq!(client.get("/").await.status, OK);
        let waited = start.elapsed();
        assert!((12 * MS..=15 * MS).contains(&waited), "{waited:?}");
    }
}

/// Every later request waited half of the deadline for it, and no other asked for a lease again.
#[tokio::test(start_paused = true)]
async fn a_question_that_is_forgotten_holds_up_nobody_after_its_deadline() {
    let store = Told::new();
    let rules = Rules::new().total(Rate::per_second(1_000).burst(1_000));
    let client = replica(rules, &store, 50);
    store.does(Does::Late(MS));
    let mut forgotten = Box::pin(client.get("/"));
    let mut context = Context::from_waker(Waker::noop());
    let poll = forgotten.as_mut().poll(&mut context);
    assert!(matches!(poll, Poll::Pending));
    sleep(30 * MS).await;
    store.does(Does::Answers);
    store.calls();
    let start = now();
    for _ in 0..50 {
        assert_eq!(client.get("/").await.status, OK);
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(store.calls(), 1, "one asks for all of them");
    std::mem::forget(forgotten);
}

#[tokio::test(start_paused = true)]
async fn a_question_whose_client_has_gone_leaves_no_lease_behind() {
    let store = Told::new();
    let rules = || Rules::new().total(Rate::per_second(20).burst(100));
    let client = replica(rules(), &store, 20);
    store.does(Does::Late(10 * MS));
    tokio::select! {
        _ = client.get("/") => panic!("it has not been answered"),
        () = sleep(5 * MS) => {}
    }
    store.does(Does::Answers);
    sleep(10 * MS).await;
    let other = replica(rules(), &store, 1);
    assert_eq!(admitted(&other, 200).await, 100, "all of it came back");
}

#[tokio::test(start_paused = true)]
async fn a_question_that_is_answered_too_late_leaves_no_lease_behind() {
    let rules = || Rules::new().total(Quota::per_day(100));
    for (on_outage, left) in [
        (OnOutage::Refuse, 100),
        (OnOutage::Admit, 99),
        (OnOutage::Local { share: 1 }, 99),
    ] {
        let store = Told::new();
        let client = Client::with(builder(rules(), &store, 20).on_outage(on_outage));
        store.does(Does::Late(40 * MS));
        client.get("/").await;
        store.does(Does::Answers);
        sleep(50 * MS).await;
        let other = replica(rules(), &store, 1);
        assert_eq!(admitted(&other, 200).await, left, "{on_outage:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn slots_and_lines_hold_beside_leases() {
    let store = Told::new();
    let limits = Limits::new()
        .rate(Rate::per_second(100).burst(40))
        .in_flight(1)
        .max_wait(Duration::from_secs(1));
    let client = Arc::new(replica(Rules::new().route("GET /", limits), &store, 10));
    assert_eq!(admitted(&client, 5).await, 5, "each frees its slot");
    let start = now();
    let crowd = (0..100).map(|_| {
        let client = Arc::clone(&client);
        tokio::spawn(async move { client.get("/").await.status })
    });
    let mut sum = 0;
    for one in crowd.collect::<Vec<_>>() {
        sum += usize::from(one.await.expect("no panic") == OK);
    }
    let took = start.elapsed();
    assert_eq!(sum, 100, "nobody waits for more than a second");
    assert!(
        (640 * MS..=700 * MS).contains(&took),
        "the burst of 40 less 5, and 65 more: {took:?}"
    );
}

/// A slot that comes free between two looks at it let a request pass that was charged nothing in the store.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_finds_a_slot_at_the_last_moment_is_charged_all_the_same() {
    const BURST: usize = 4_000;
    let store = Told::new();
    let limits = Limits::new()
        .rate(Rate::per_hour(3_600_000).burst(BURST as u64))
        .quota(Quota::per_day(BURST as u64))
        .in_flight(1);
    let client = replica(Rules::new().route("GET /", limits), &store, 50);
    let client = Arc::new(client);
    let admitted = Arc::new(AtomicUsize::new(0));
    let crowd = (0..8).map(|_| {
        let (client, admitted) = (Arc::clone(&client), Arc::clone(&admitted));
        tokio::spawn(async move {
            let mut turn = 0;
            // The number of requests that find the slot taken depends on the machine.
            while turn < 8_000 || admitted.load(Ordering::Relaxed) <= BURST / 2 {
                assert!(turn < 10_000_000, "hardly any is admitted");
                turn += 1;
                let is_admitted = client.get("/").await.status == OK;
                admitted.fetch_add(usize::from(is_admitted), Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        })
    });
    for one in crowd.collect::<Vec<_>>() {
        one.await.expect("no panic");
    }
    let sum = admitted.load(Ordering::Relaxed);
    assert!(sum <= BURST, "{sum} of a quota of {BURST}");
    assert!(sum > BURST / 2, "{sum} of a quota of {BURST}");
}

#[tokio::test(start_paused = true)]
async fn other_rules_spend_no_lease_of_these() {
    let store = Told::new();
    let rules = |burst| Rules::new().total(Rate::per_second(10).burst(burst));
    let client = replica(rules(40), &store, 10);
    let handle = client.handle();
    assert_eq!(admitted(&client, 1).await, 1, "nine more are leased");
    handle.reload(rules(20)).expect("rules");
    assert_eq!(admitted(&client, 100).await, 10, "ten of twenty are used");
}

#[tokio::test(start_paused = true)]
async fn what_was_leased_is_not_spent_in_an_outage() {
    let store = Told::new();
    let rules = || Rules::new().total(Rate::per_second(10).burst(40));
    let client = replica(rules(), &store, 10);
    assert_eq!(admitted(&client, 1).await, 1);
    store.does(Does::Fails);
    assert_eq!(
        admitted(&client, 9).await,
        9,
        "as long as it lasts nobody asks"
    );
    assert_eq!(
        client.get("/").await.status,
        StatusCode::SERVICE_UNAVAILABLE
    );
    store.does(Does::Answers);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(admitted(&client, 1).await, 1, "up again");
}

#[tokio::test(start_paused = true)]
async fn what_has_lapsed_is_not_spent_on_top_of_a_bucket_that_is_full() {
    // A unit in ten milliseconds, 11 taken at once.
    let rules = || Rules::new().total(Rate::per_second(100).burst(44));
    for (rest, may) in [(0, 44), (50, 45), (109, 45), (119, 45), (500, 45)] {
        let store = Told::new();
        let [one, two] = [replica(rules(), &store, 12), replica(rules(), &store, 1)];
        assert_eq!(admitted(&one, 1).await, 1);
        sleep(rest * MS).await;
        let sum = 1 + admitted(&two, 100).await + admitted(&one, 100).await;
        assert!(sum <= may, "{sum} after {rest} ms, of {may}");
        assert!(sum + 2 >= may, "{sum} after {rest} ms, of {may}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_comes_back_is_not_what_others_count_on() {
    let rules = || Rules::new().total(Rate::per_second(100).burst(44));
    let store = Told::new();
    let first = replica(rules(), &store, 12);
    let handle = first.handle();
    let [second, third] = [replica(rules(), &store, 12), replica(rules(), &store, 1)];
    assert_eq!(admitted(&first, 1).await, 1);
    assert_eq!(admitted(&second, 1).await, 1);
    // Eleven units of the first lie under those of the second.
    handle.return_leases().await;
    sleep(121 * MS).await;
    let sum = admitted(&third, 100).await + admitted(&second, 100).await;
    assert!(sum <= 44, "{sum} at once");
    assert_eq!(sum, 43, "but one in part");
}

#[tokio::test(start_paused = true)]
async fn what_is_answered_too_late_is_not_taken_from_under_the_leases_of_others() {
    let rules = || Rules::new().total(Rate::per_second(100).burst(44));
    let store = Told::new();
    let [first, second] = [replica(rules(), &store, 12), replica(rules(), &store, 12)];
    let third = replica(rules(), &store, 1);
    store.does(Does::Late(10 * MS));
    tokio::select! {
        _ = first.get("/") => panic!("it has not been answered"),
        () = sleep(5 * MS) => {}
    }
    store.does(Does::Answers);
    assert_eq!(admitted(&second, 1).await, 1);
    // Twelve units of the first lie under those of the second.
    sleep(115 * MS).await;
    let sum = admitted(&third, 100).await + admitted(&second, 100).await;
    assert!(sum <= 44, "{sum} at once");
}

/// Model tokens are never leased: no lease of others lies on top of them.
#[tokio::test(start_paused = true)]
async fn tokens_that_are_taken_too_late_come_back_whoever_was_charged_since() {
    let tokens = || Limits::new().tokens(Rate::per_hour(1).burst(100));
    let rules = || Rules::new().total(tokens()).estimate(Estimate::fixed(30));
    let store = Told::new();
    let [first, second] = [replica(rules(), &store, 20), replica(rules(), &store, 20)];
    store.does(Does::Late(10 * MS));
    tokio::select! {
        _ = first.get("/") => panic!("it has not been answered"),
        () = sleep(5 * MS) => {}
    }
    store.does(Does::Answers);
    for left in [40, 40] {
        let answer = second.get("/").await;
        let told = answer.decision().limits().next();
        assert_eq!(told.map(|limit| limit.remaining()), Some(left));
        sleep(10 * MS).await;
    }
}

/// R20: ten units were spent when the rate in between had refilled them, beside a whole burst.
#[tokio::test(start_paused = true)]
async fn what_was_leased_before_a_reload_is_not_spent_once_a_faster_rate_has_refilled_it() {
    let store = Told::new();
    let rules = |rate: u64, burst: u64| Rules::new().total(Rate::per_second(rate).burst(burst));
    let reload = |handle: &Handle, rules: Rules| {
        handle.reload(rules).expect("rules that hold together");
    };
    let client = replica(rules(10, 44), &store, 12);
    let handle = client.handle();
    assert_eq!(admitted(&client, 1).await, 1);
    reload(&handle, rules(1_000, 1));
    assert_eq!(admitted(&client, 1).await, 0, "it owes what was leased");
    sleep(60 * MS).await;
    assert_eq!(admitted(&client, 1).await, 1);
    sleep(40 * MS).await;
    reload(&handle, rules(10, 44));
    let sum = admitted(&client, 200).await;
    assert_eq!(sum, 44, "the burst");
}

/// Two processes that lease, and their handles.
fn two_replicas(rules: &Rules, store: &Told) -> ([Client; 2], [Handle; 2]) {
    let replicas = [(); 2].map(|()| replica(rules.clone(), store, 12));
    let handles = [replicas[0].handle(), replicas[1].handle()];
    (replicas, handles)
}

/// R20: a lease was spent under a limit like that of before, though another process had asked under the rules in
/// between, so that the store had refilled what was leased.
#[tokio::test(start_paused = true)]
async fn what_was_leased_before_two_reloads_is_not_spent_once_another_process_has_asked_in_between()
{
    let total = |rate: u64, burst: u64| Rules::new().total(Rate::per_second(rate).burst(burst));
    let unlimited = || Rules::new().default_route(Rate::per_second(1_000_000));
    let before = total(10, 44);
    let (fast, none) = ((total(1_000, 1), true), (unlimited(), false));
    for meanwhile in [vec![&fast], vec![&none, &fast, &none]] {
        let store = Told::new();
        let ([one, two], handles) = two_replicas(&before, &store);
        assert_eq!(admitted(&one, 1).await, 1, "more are leased");
        for (rules, asks) in meanwhile.into_iter().chain([&(before.clone(), false)]) {
            for handle in &handles {
                handle.reload(rules.clone()).expect("rules");
            }
            admitted(&two, usize::from(*asks)).await;
        }
        // The store refills as it was asked last.
        sleep(200 * MS).await;
        let sum = admitted(&two, 200).await + admitted(&one, 200).await;
        assert_eq!(sum, 44, "the burst");
    }
}

/// R20: as above, where the answer with the lease comes when the reloads are over.
#[tokio::test(start_paused = true)]
async fn a_lease_that_is_granted_by_rules_of_before_is_not_spent_under_others() {
    let rules = |rate: u64, burst: u64| Rules::new().total(Rate::per_second(rate).burst(burst));
    let store = Told::new();
    let ([one, two], handles) = two_replicas(&rules(10, 44), &store);
    let reload = |rules: Rules| {
        for handle in &handles {
            handle.reload(rules.clone()).expect("rules");
        }
    };
    let latest = 20 * MS;
    store.does(Does::Late(latest));
    let mut asked = pin!(one.get("/"));
    let cx = &mut Context::from_waker(Waker::noop());
    assert!(asked.as_mut().poll(cx).is_pending(), "it is taken already");
    store.does(Does::Answers);
    reload(rules(1_000, 1));
    assert_eq!(admitted(&two, 1).await, 0, "it owes what was leased");
    reload(rules(10, 44));
    assert_eq!(asked.await.status, OK);
    sleep(100 * MS).await;
    let sum = admitted(&two, 200).await + admitted(&one, 200).await;
    assert_eq!(sum, 44, "the burst");
}

/// R20: a lease that comes back under rules of before had the store refill its bucket as those did, under a lease of
/// the present ones.
#[tokio::test(start_paused = true)]
async fn what_comes_back_after_a_reload_has_nothing_refilled_as_before() {
    let rules = |rate: u64, burst: u64| Rules::new().total(Rate::per_second(rate).burst(burst));
    let store = Told::new();
    let ([one, two], handles) = two_replicas(&rules(1_000, 44), &store);
    assert_eq!(admitted(&one, 1).await, 1, "more are leased");
    for handle in &handles {
        handle.reload(rules(10, 44)).expect("rules");
    }
    assert_eq!(admitted(&two, 1).await, 1, "more are leased");
    handles[0].return_leases().await;
    sleep(200 * MS).await;
    let sum = admitted(&one, 200).await + admitted(&two, 200).await;
    assert!(sum <= 44, "{sum} at once");
}

/// The moments at which requests were let through, in nanoseconds.
type Moments = Arc<Mutex<Vec<u64>>>;

/// An act of a replica.
#[derive(Debug, Clone)]
enum Act {
    /// Sends so many requests, so many tenths of a millisecond apart.
    Asks(u32, u64),
    /// Rests for so many tenths of a millisecond.
    Rests(u64),
    /// Ends, without giving anything back, and begins anew.
    Crashes,
    /// Asks, and goes away before it is answered.
    Leaves,
    /// Gives back what it has.
    Returns,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => (1..4_u32).prop_map(|requests| Act::Asks(requests, 0)),
        2 => Just(Act::Asks(200, 0)),
        1 => (1..60_u32, 0..30_u64).prop_map(|(requests, apart)| Act::Asks(requests, apart)),
        4 => (0..15_u64).prop_map(|intervals| Act::Rests(100 * intervals)),
        1 => (0..4_000_u64).prop_map(Act::Rests),
        1 => Just(Act::Crashes),
        1 => Just(Act::Leaves),
        2 => Just(Act::Returns),
    ]
}

async fn live(
    rules: Rules,
    store: Told,
    lease: u64,
    acts: Vec<Act>,
    start: Instant,
    moments: Moments,
) {
    let begin = || {
        let builder = builder(rules.clone(), &store, lease);
        let client = Client::with(builder.store_deadline(Duration::from_secs(1)));
        (client.handle(), client)
    };
    let tenths = |count: u64| Duration::from_micros(100 * count);
    let (mut handle, mut client) = begin();
    let mut crashed = Vec::new();
    for act in acts {
        match act {
            Act::Asks(requests, apart) => {
                for _ in 0..requests {
                    if client.get("/").await.status == OK {
                        let passed = start.elapsed().as_nanos() as u64;
                        moments.lock().expect("no panic").push(passed);
                    }
                    sleep(tenths(apart)).await;
                }
            }
            Act::Rests(time) => sleep(tenths(time)).await,
            Act::Crashes => {
                crashed.push((handle, client));
                (handle, client) = begin();
            }
            Act::Leaves => {
                tokio::select! {
                    biased;
                    answer = client.get("/") => {
                        // Without a question it is answered at once.
                        if answer.status == OK {
                            let passed = start.elapsed().as_nanos() as u64;
                            moments.lock().expect("no panic").push(passed);
                        }
                    }
                    () = sleep(tenths(1)) => {}
                }
            }
            Act::Returns => handle.return_leases().await,
        }
    }
}

proptest! {
    #![proptest_config(cases::cases(192))]

    /// The bucket that takes all of them, one after the other and when they were let through, holds them.
    ///
    /// The answer to a question is heard up to a millisecond after the store has taken its charge, and by as much the
    /// moments that are seen may lie closer together than those of the charges.
    #[test]
    fn in_every_window_all_replicas_together_let_through_no_more_than_the_limit(
        replicas in prop::collection::vec(prop::collection::vec(act(), 1..14), 1..5),
        (rate, burst) in prop_oneof![Just((4, 44)), (1..40_u64, 4..120_u64)],
        lease in prop_oneof![Just(12), 2..60_u64],
        latency in prop_oneof![Just(0), 0..10_u64],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        const LATE: u64 = 1_000_000;
        let moments = Moments::default();
        runtime.block_on(async {
            let store = Told::new();
            store.does(Does::Unevenly(latency, latency));
            let rules = Rules::new().total(Rate::per_second(rate * 25).burst(burst));
            let start = now();
            let lives = replicas.into_iter().map(|acts| {
                tokio::spawn(live(rules.clone(), store.clone(), lease, acts, start, Arc::clone(&moments)))
            });
            for life in lives.collect::<Vec<_>>() {
                life.await.expect("no panic");
            }
        });
        let mut moments = moments.lock().expect("no panic").clone();
        moments.sort_unstable();
        let interval = 1_000_000_000_u64.div_ceil(rate * 25);
        let mut full_at = 0;
        for &moment in &moments {
            full_at = moment.max(full_at) + interval;
            prop_assert!(
                full_at <= moment + burst * interval + LATE,
                "one too many at {moment} of {moments:?}"
            );
        }
    }
}

#[cfg(feature = "test-util")]
mod suspended {
    use std::time::SystemTime;

    use tower_throttle::decision::DecisionIn;

    use super::*;

    const HOURS: Duration = Duration::from_secs(10 * 3_600);

    fn replica(rules: Rules, store: &Told) -> (ThrottleLayer, Client) {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(20_000 * 86_400);
        let layer = ThrottleLayer::builder(rules)
            .wall_clock(now)
            .decision(DecisionIn::Response)
            .lease(50)
            .store(store.clone())
            .build()
            .expect("rules that hold together");
        (layer.clone(), Client::of(layer))
    }

    /// The store's clock goes on while one replica's machine is suspended, and so its bucket is full again.
    #[tokio::test(start_paused = true)]
    async fn a_lease_ends_while_the_machine_is_suspended() {
        for rules in [
            || Rules::new().total(Rate::per_second(100).burst(100)),
            || Rules::new().total(Quota::per(100, Duration::from_secs(3_600))),
        ] {
            let store = Told::new();
            let (layer, client) = replica(rules(), &store);
            assert_eq!(admitted(&client, 1).await, 1);
            assert_eq!(store.calls(), 1);
            assert_eq!(admitted(&client, 10).await, 10);
            assert_eq!(store.calls(), 0, "of the lease");
            layer.suspend(HOURS);
            assert_eq!(admitted(&client, 1).await, 1);
            assert_eq!(store.calls(), 1, "what was leased is refilled there");
        }
    }
}
