use std::{
    sync::atomic::{AtomicUsize, Ordering},
    task::Wake,
    time::Duration,
};

use super::{super::lines::GRACE, *};
use crate::{
    clock::Timeline,
    limit::{Limit, LimitSettings, in_flight::InFlight, rate::Rate},
    limiter::plain::{self, PlainAnswer},
};

const SECOND: Nanos = 1_000_000_000;

fn wait_policy(max_wait: Nanos, max_waiting: usize) -> Option<WaitPolicy> {
    Some(WaitPolicy {
        max_wait,
        max_waiting,
    })
}

fn limit(terms: LimitSettings, wait_policy: Option<WaitPolicy>) -> Limit {
    Limit {
        wait_policy,
        ..Limit::of(terms)
    }
}

/// One slot.
fn slot(wait_policy: Option<WaitPolicy>) -> Limit {
    limit(LimitSettings::InFlight(InFlight::new(1)), wait_policy)
}

/// One request in so many seconds.
fn every(seconds: u64, wait_policy: Option<WaitPolicy>) -> Limit {
    limit(
        LimitSettings::Rate(Rate::new(1, Duration::from_secs(seconds)).burst(1)),
        wait_policy,
    )
}

/// Routes of a throttle, whose time is the test's.
struct Throttle {
    limiter: Arc<Limiter>,
    start: Nanos,
}

impl Throttle {
    fn new() -> Self {
        let limiter = Arc::new(Limiter::new(Timeline::start()));
        let start = limiter.now();
        Self { limiter, start }
    }

    /// Returns the time since the start.
    fn now(&self) -> Nanos {
        self.limiter.now() - self.start
    }

    async fn at(&self, moment: Nanos) {
        let more = moment.checked_sub(self.now()).expect("a moment to come");
        tokio::time::advance(Duration::from_nanos(more)).await;
        assert_eq!(self.now(), moment);
    }

    fn demand(&self, limit_set: &LimitSet, timeout: Option<Nanos>) -> (QueueAnswer, LimitReadings) {
        let mut readings = LimitReadings::default();
        let (now, demand) = (self.limiter.now(), Demand::default());
        let answer = self
            .limiter
            .ask(limit_set, demand, now, now, || timeout, &mut readings)
            .expect("no reload");
        (answer, readings)
    }

    fn takes(&self, limit_set: &LimitSet) {
        let (answer, _) = self.demand(limit_set, None);
        assert!(matches!(answer, QueueAnswer::Admitted), "{answer:?}");
    }

    fn waits(&self, limit_set: &LimitSet) -> Waiter {
        match self.demand(limit_set, None) {
            (QueueAnswer::Waits(standing), _) => standing,
            (answer, _) => panic!("{answer:?}"),
        }
    }

    /// Returns the limits that are told to have refused, though there seems to be room.
    fn denied(&self, limit_set: &LimitSet, timeout: Option<Nanos>) -> Vec<bool> {
        match self.demand(limit_set, timeout) {
            (QueueAnswer::Denied, readings) => refused(&readings),
            (answer, _) => panic!("{answer:?}"),
        }
    }

    fn frees(&self, bound: &BoundLimit) {
        self.limiter.refund(bound, 0, false, 1);
    }

    /// Takes a turn, and returns its end in time since the start.
    fn turn(&self, standing: &mut Waiter, limit_set: &LimitSet) -> Result<Nanos, Option<Nanos>> {
        let mut readings = LimitReadings::default();
        match turn(standing, limit_set, &mut readings) {
            Ok(at) => {
                assert_eq!(at - self.start, self.now());
                Ok(self.now())
            }
            Err(until) => Err(until.map(|until| until - self.start)),
        }
    }
}

/// The steps of a decision on a request in line: when it is admitted, or else when it asks again, or `None`.
fn turn(
    waiter: &mut Waiter,
    limit_set: &LimitSet,
    readings: &mut LimitReadings,
) -> Result<Nanos, Option<Nanos>> {
    let limiter = Arc::clone(&waiter.limiter);
    let demand = Demand::default();
    loop {
        let now = match waiter.next(limit_set, demand, Waker::noop()) {
            Next::Asks(now) => now,
            Next::Stands(until) => return Err(Some(until)),
            Next::Goes(now) => {
                *readings = limiter.peek(limit_set, demand, now);
                limiter.name_refusal(limit_set, demand, now, readings);
                return Err(None);
            }
        };
        *readings = LimitReadings::default();
        if limiter.admit(limit_set, demand, now, readings) == Ok(true) {
            return Ok(now);
        }
        let moment = QueueMoment::here(now, waiter.arrived);
        match waiter.refused(limit_set, demand, moment, readings) {
            Retry::At(until) | Retry::Woken(until) => return Err(Some(until)),
            Retry::Elsewhere => {}
            Retry::Never => return Err(None),
        }
    }
}

fn refused(readings: &LimitReadings) -> Vec<bool> {
    readings
        .as_slice()
        .iter()
        .map(|reading| reading.refused)
        .collect()
}

/// A rule of limits that have each a scope of its own.
fn limit_set(limits: impl IntoIterator<Item = Limit>) -> LimitSet {
    let scopes = limits.into_iter().map(|limit| BoundLimit::scope([limit]));
    LimitSet::new("GET /", None, scopes.flatten())
}

/// One of each of two scopes.
fn two_slots() -> LimitSet {
    limit_set([(); 2].map(|()| slot(wait_policy(10 * SECOND, 9))))
}

/// Another route that has some of the same limits.
fn with(limits: &[&BoundLimit]) -> LimitSet {
    LimitSet::new("POST /", None, limits.iter().copied().cloned())
}

/// Between the refusal and the look at the line the slot has come free: it is taken, and not refused.
#[tokio::test(start_paused = true)]
async fn what_comes_free_before_a_request_has_queued_is_asked_for_again() {
    let limiter = Arc::new(Limiter::new(Timeline::start()));
    let limit_set = limit_set([slot(wait_policy(Nanos::MAX, 9))]);
    let (demand, mut readings) = (Demand::default(), LimitReadings::default());
    let queue = |readings: &mut LimitReadings| {
        *readings = limiter.peek(&limit_set, demand, 0);
        limiter.queue(&limit_set, demand, QueueMoment::here(0, 0), None, readings)
    };
    let queued = queue(&mut readings);
    assert!(
        queued.is_none(),
        "the slot is free, and nobody stands in line"
    );

    let mut readings = LimitReadings::default();
    assert_eq!(
        limiter.admit(&limit_set, demand, 0, &mut readings),
        Ok(true)
    );
    let queued = queue(&mut readings);
    assert!(
        matches!(queued, Some(QueueAnswer::Waits(_))),
        "the slot is taken"
    );
    // Somebody stands in line, and goes.
    let behind = queue(&mut readings);
    assert!(matches!(behind, Some(QueueAnswer::Waits(_))));
    limiter.refund(&limit_set.limits[0], 0, false, 1);
    let last = queue(&mut readings);
    assert!(
        matches!(last, Some(QueueAnswer::Waits(_))),
        "behind the others"
    );
    drop((queued, behind, last));
    let queued = queue(&mut readings);
    assert!(queued.is_none(), "all of them are gone");
}

#[tokio::test(start_paused = true)]
async fn a_slot_is_waited_for_until_it_is_free_or_the_time_is_over() {
    let throttle = Throttle::new();
    let limit_set = limit_set([slot(wait_policy(10 * SECOND, 9))]);
    throttle.takes(&limit_set);
    throttle.at(SECOND).await;
    let mut first = throttle.waits(&limit_set);
    assert_eq!(first.arrived - throttle.start, SECOND);
    throttle.at(2 * SECOND).await;
    let mut second = throttle.waits(&limit_set);
    let mut third = throttle.waits(&limit_set);
    assert_eq!(
        throttle.turn(&mut first, &limit_set),
        Err(Some(11 * SECOND))
    );
    let looks = Err(Some(2 * SECOND + GRACE));
    assert_eq!(
        throttle.turn(&mut second, &limit_set),
        looks,
        "not its turn"
    );

    throttle.at(11 * SECOND - 1).await;
    assert_eq!(
        throttle.turn(&mut first, &limit_set),
        Err(Some(11 * SECOND))
    );
    throttle.at(11 * SECOND).await;
    assert_eq!(throttle.turn(&mut first, &limit_set), Err(None));
    assert_eq!(
        throttle.turn(&mut second, &limit_set),
        Err(Some(11 * SECOND + GRACE)),
        "not its turn"
    );
    drop(first);
    throttle.frees(&limit_set.limits[0]);
    assert_eq!(
        throttle.turn(&mut third, &limit_set),
        Err(Some(11 * SECOND + GRACE)),
        "nor this one's"
    );
    assert_eq!(throttle.turn(&mut second, &limit_set), Ok(11 * SECOND));
    drop(second);
    assert_eq!(
        throttle.turn(&mut third, &limit_set),
        Err(Some(12 * SECOND))
    );
    let mut last = throttle.waits(&limit_set);
    throttle.at(12 * SECOND).await;
    assert_eq!(throttle.turn(&mut third, &limit_set), Err(None));
    throttle.at(21 * SECOND).await;
    assert_eq!(
        throttle.turn(&mut last, &limit_set),
        Err(None),
        "behind somebody, and over"
    );
}

/// A waker that counts how often it was woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// An attempt takes a slot, is refused by the next limit, and gives the slot back. Whoever looks at it in between would
/// sleep on beside a free slot, and all behind it.
#[tokio::test(start_paused = true)]
async fn who_has_seen_a_slot_taken_by_an_attempt_in_vain_is_woken() {
    let Throttle { limiter, start } = Throttle::new();
    let demand = Demand::default();
    let line = limit_set([slot(wait_policy(10 * SECOND, 9))]);
    let [bound] = &*line.limits else {
        panic!("one limit")
    };
    // The rate has one unit and is asked for two, which no look at it tells: as if another had taken the first.
    let rate = BoundLimit::scope([every(1, None)]).remove(0);
    let [in_vain, before_the_line] = [
        bound.clone(),
        BoundLimit {
            limit: slot(None),
            ..bound.clone()
        },
    ]
    .map(|slot| with(&[&slot, &rate, &rate]));
    let admit = |limit_set: &LimitSet| {
        let mut readings = LimitReadings::default();
        let admitted = limiter.admit(limit_set, demand, start, &mut readings);
        admitted.expect("no reload")
    };
    assert!(admit(&line), "it is free");
    let mut waiter = match limiter.ask(
        &line,
        demand,
        start,
        start,
        || None,
        &mut LimitReadings::default(),
    ) {
        Ok(QueueAnswer::Waits(waiter)) => waiter,
        answer => panic!("{answer:?}"),
    };
    let woken = Arc::new(Woken::default());
    let mut is_woken = || {
        let before = woken.0.swap(0, Ordering::Relaxed);
        assert_eq!(
            waiter.next(&line, demand, &Arc::clone(&woken).into()),
            Next::Asks(start)
        );
        before > 0
    };
    is_woken();
    assert!(!admit(&in_vain), "the slot is taken");
    assert!(!is_woken(), "nothing came back");
    limiter.refund(bound, 0, false, 1);
    assert!(is_woken(), "the slot came back");
    assert!(!admit(&in_vain), "the second unit is missing");
    assert!(is_woken(), "after an attempt that gave it back");
    // By rules of before, under which nobody waits for it.
    let wake = || limiter.wake_for_slots(&before_the_line, demand);
    let take = || {
        plain::take(
            &before_the_line,
            &limiter.clients,
            demand,
            start,
            || start,
            wake,
        )
    };
    assert!(before_the_line.is_plain);
    assert_eq!(take(), PlainAnswer::Unknown);
    assert!(is_woken(), "after a short attempt");
    assert!(admit(&with(&[&rate])), "its unit came back too");
    assert_ne!(take(), PlainAnswer::Unknown);
    assert!(!is_woken(), "nothing was taken");
}

#[tokio::test(start_paused = true)]
async fn who_goes_unasked_is_told_the_line_it_stood_in() {
    let throttle = Throttle::new();
    let limit_set = limit_set([
        every(1, wait_policy(SECOND / 2, 9)),
        slot(wait_policy(10 * SECOND, 1)),
    ]);
    let line = with(&[&limit_set.limits[1]]);
    throttle.takes(&limit_set);
    let mut first = throttle.waits(&line);
    throttle.at(5 * SECOND).await;
    throttle.frees(&limit_set.limits[1]);
    // There is room, but somebody stands before it who has just been woken, and no other place in line.
    assert_eq!(throttle.denied(&limit_set, None), [false, true]);
    drop(first);
    throttle.takes(&limit_set);
    first = throttle.waits(&line);
    throttle.at(15 * SECOND).await;
    let mut readings = LimitReadings::default();
    throttle.frees(&limit_set.limits[1]);
    let before = throttle.limiter.queues.join(
        first.queue,
        Some(0),
        QueueUnits::default(),
        9,
        throttle.limiter.now(),
        Nanos::MAX,
    );
    assert_eq!(before, Some(0), "somebody else stands there");
    assert_eq!(turn(&mut first, &line, &mut readings), Err(None));
    assert_eq!(refused(&readings), [true]);
    // Where a bucket refuses, that is the reason.
    throttle.takes(&with(&[&limit_set.limits[0]]));
    assert_eq!(throttle.denied(&limit_set, None), [false, false]);
}

#[tokio::test(start_paused = true)]
async fn a_rate_is_waited_for_no_longer_than_it_takes() {
    let throttle = Throttle::new();
    let limit_set = limit_set([every(1, wait_policy(2_500_000_000, 9))]);
    throttle.takes(&limit_set);
    // Each waits a second more than the one before it.
    assert_eq!(
        throttle.denied(&limit_set, Some(SECOND)),
        [false],
        "gone by then"
    );
    let mut first = match throttle.demand(&limit_set, Some(SECOND + 1)) {
        (QueueAnswer::Waits(first), _) => first,
        (answer, _) => panic!("{answer:?}"),
    };
    let mut second = throttle.waits(&limit_set);
    assert_eq!(
        throttle.denied(&limit_set, None),
        [false],
        "it would have to wait for three"
    );
    assert_eq!(throttle.turn(&mut first, &limit_set), Err(Some(SECOND)));
    throttle.at(SECOND).await;
    assert_eq!(throttle.turn(&mut first, &limit_set), Ok(SECOND));
    drop(first);
    assert_eq!(
        throttle.turn(&mut second, &limit_set),
        Err(Some(2 * SECOND))
    );
    // Units taken by others meanwhile make the wait longer than allowed.
    throttle.limiter.owe(&limit_set.limits[0], 0, 1);
    assert_eq!(throttle.turn(&mut second, &limit_set), Err(None));
}

#[tokio::test(start_paused = true)]
async fn who_has_waited_before_has_less_time_left() {
    let throttle = Throttle::new();
    let limit_set = limit_set([every(3, wait_policy(6 * SECOND, 9))]);
    throttle.takes(&limit_set);
    let now = throttle.limiter.now();
    let queue = |now, arrived| {
        let mut readings = throttle
            .limiter
            .peek(&limit_set, Demand::default(), throttle.start);
        let moment = QueueMoment::here(now, arrived);
        throttle
            .limiter
            .queue(&limit_set, Demand::default(), moment, None, &mut readings)
    };
    let late = queue(now + SECOND, now);
    assert!(
        matches!(late, Some(QueueAnswer::Waits(_))),
        "two seconds more, after one"
    );
    drop(late);
    throttle.limiter.owe(&limit_set.limits[0], 0, 1);
    let late = queue(now + SECOND, now);
    assert!(
        matches!(late, Some(QueueAnswer::Waits(_))),
        "five seconds more, after one"
    );
    drop(late);
    let too_late = queue(now + SECOND, now - 1);
    assert!(
        matches!(too_late, Some(QueueAnswer::Denied)),
        "one nanosecond more"
    );
}

#[tokio::test(start_paused = true)]
async fn nobody_passes_those_in_line_but_who_has_nothing_to_do_with_it() {
    let throttle = Throttle::new();
    let slots = two_slots();
    let [one, other] = [0, 1].map(|index| with(&[&slots.limits[index]]));
    let impatient = limit_set([slot(None)]);
    throttle.takes(&one);
    let first = throttle.waits(&one);
    throttle.takes(&other);
    throttle.takes(&impatient);
    throttle.frees(&slots.limits[0]);
    let mut second = throttle.waits(&one);
    assert_eq!(throttle.turn(&mut second, &one), Err(Some(GRACE)));
    drop(first);
    assert_eq!(throttle.turn(&mut second, &one), Ok(0));
    drop(second);
    throttle.frees(&impatient.limits[0]);
    throttle.takes(&impatient);
    assert_eq!(throttle.denied(&impatient, None), [false]);
}

#[tokio::test(start_paused = true)]
async fn it_stands_where_it_has_to_wait_longest_and_is_counted_there() {
    for longest in [0, 1] {
        let throttle = Throttle::new();
        let seconds = [[3, 1], [1, 3]][longest];
        let limit_set =
            limit_set(seconds.map(|seconds| every(seconds, wait_policy(9 * SECOND, 9))));
        let counts = || {
            let tallies = limit_set.limits.iter().map(|bound| &bound.counters);
            tallies
                .map(|counters| (counters.waiting.get(), counters.waited.get()))
                .collect::<Vec<_>>()
        };
        throttle.takes(&limit_set);
        let standing = throttle.waits(&limit_set);
        assert_eq!(standing.queue, limit_set.limits[longest].queue(0));
        let (mut now, mut later) = ([(0, 0); 2], [(0, 0); 2]);
        (now[longest], later[longest]) = ((1, 1), (0, 1));
        assert_eq!(counts(), now);
        drop(standing);
        assert_eq!(counts(), later);
    }
}

#[tokio::test(start_paused = true)]
async fn it_goes_over_to_the_line_of_what_refuses_then() {
    // (the wait policy of the other limit; what becomes of it there)
    let table = [
        (wait_policy(10 * SECOND, 9), Err(Some(10 * SECOND))),
        (wait_policy(4 * SECOND, 9), Err(Some(4 * SECOND))),
        (wait_policy(2 * SECOND, 9), Err(Some(2 * SECOND))),
        (wait_policy(10 * SECOND, 0), Err(None)),
        (None, Err(None)),
    ];
    for (wait_policy_there, expected) in table {
        let throttle = Throttle::new();
        let limit_set = limit_set([slot(wait_policy(10 * SECOND, 9)), slot(wait_policy_there)]);
        let [here, there] = [0, 1].map(|index| with(&[&limit_set.limits[index]]));
        throttle.takes(&here);
        let mut standing = throttle.waits(&limit_set);
        // Its own comes free, and the other is taken.
        throttle.frees(&limit_set.limits[0]);
        throttle.takes(&there);
        throttle.at(SECOND).await;
        let what = format!("{wait_policy_there:?}");
        assert_eq!(throttle.turn(&mut standing, &limit_set), expected, "{what}");
        let waiting = [0, 1].map(|index| limit_set.limits[index].counters.waiting.get());
        if expected == Err(None) {
            continue;
        }
        assert_eq!(waiting, [0, 1], "{what}");
        assert_eq!(standing.queue, limit_set.limits[1].queue(0));
        assert!(!throttle.limiter.is_behind(&here, Demand::default()));
        assert!(throttle.limiter.is_behind(&there, Demand::default()));
        throttle.frees(&limit_set.limits[1]);
        assert_eq!(
            throttle.turn(&mut standing, &limit_set),
            Ok(SECOND),
            "{what}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn whose_time_is_over_goes_nowhere_else() {
    let throttle = Throttle::new();
    let limit_set = two_slots();
    let [here, there] = [0, 1].map(|index| with(&[&limit_set.limits[index]]));
    throttle.takes(&here);
    let mut standing = throttle.waits(&limit_set);
    throttle.frees(&limit_set.limits[0]);
    throttle.takes(&there);
    throttle.at(10 * SECOND).await;
    assert_eq!(throttle.turn(&mut standing, &limit_set), Err(None));
    assert_eq!(standing.queue, limit_set.limits[0].queue(0));
}

#[tokio::test(start_paused = true)]
async fn who_is_first_here_stands_behind_who_came_earlier_there() {
    for most in [9, 1] {
        let throttle = Throttle::new();
        let limit_set = limit_set([
            every(1, wait_policy(10 * SECOND, most)),
            every(3, wait_policy(8 * SECOND, 9)),
        ]);
        let one = with(&[&limit_set.limits[0]]);
        throttle.takes(&limit_set);
        let mut early = throttle.waits(&one);
        // The request waits for two of the one, and for one of the other, which takes longer.
        let mut late = match most {
            9 => throttle.waits(&limit_set),
            _ => {
                assert_eq!(throttle.denied(&one, None), [false], "no room in line");
                throttle.waits(&limit_set)
            }
        };
        assert_eq!(late.queue, limit_set.limits[1].queue(0));
        throttle.at(3 * SECOND).await;
        // Over to where it is not the first.
        let expected = if most == 9 {
            Err(Some(3 * SECOND + GRACE))
        } else {
            Err(None)
        };
        assert_eq!(throttle.turn(&mut late, &limit_set), expected);
        assert_eq!(throttle.turn(&mut early, &one), Ok(3 * SECOND));
        drop(early);
        if most == 9 {
            assert_eq!(late.queue, limit_set.limits[0].queue(0));
            assert_eq!(throttle.turn(&mut late, &limit_set), Err(Some(4 * SECOND)));
            throttle.at(4 * SECOND).await;
            assert_eq!(throttle.turn(&mut late, &limit_set), Ok(4 * SECOND));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn of_several_reasons_in_one_scope_the_wait_is_told_by_the_longest_that_ends() {
    let throttle = Throttle::new();
    let limits = [
        slot(wait_policy(10 * SECOND, 9)),
        every(2, wait_policy(10 * SECOND, 9)),
        every(5, wait_policy(10 * SECOND, 9)),
    ];
    let limit_set = LimitSet::new("GET /", None, BoundLimit::scope(limits));
    throttle.takes(&limit_set);
    let mut standing = throttle.waits(&limit_set);
    assert_eq!(
        throttle.turn(&mut standing, &limit_set),
        Err(Some(5 * SECOND))
    );
    throttle.at(5 * SECOND).await;
    assert_eq!(
        throttle.turn(&mut standing, &limit_set),
        Err(Some(10 * SECOND)),
        "the slot"
    );
    throttle.frees(&limit_set.limits[0]);
    assert_eq!(throttle.turn(&mut standing, &limit_set), Ok(5 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn refused_here_and_there_it_stays_where_it_stands() {
    let throttle = Throttle::new();
    let limit_set = two_slots();
    throttle.takes(&limit_set);
    let mut standing = throttle.waits(&limit_set);
    let line = limit_set.limits[0].queue(0);
    assert_eq!(
        standing.queue, line,
        "of lines as long as each other the first"
    );
    assert_eq!(
        throttle.turn(&mut standing, &limit_set),
        Err(Some(10 * SECOND))
    );
    assert_eq!(standing.queue, line);
    // Refused, and then all is free before it has looked again.
    for bound in &limit_set.limits {
        throttle.frees(bound);
    }
    let (now, demand) = (throttle.limiter.now(), Demand::default());
    let readings = throttle.limiter.peek(&limit_set, demand, now);
    let again = standing.refused(&limit_set, demand, QueueMoment::here(now, now), &readings);
    assert_eq!(again, Retry::At(now + 1), "it asks at once");
    assert_eq!(throttle.turn(&mut standing, &limit_set), Ok(0));
    // A request that can never pass does not wait.
    let closed = LimitSet::new(
        "GET /",
        None,
        BoundLimit::scope([
            slot(wait_policy(SECOND, 9)),
            every(0, wait_policy(SECOND, 9)),
        ]),
    );
    assert_eq!(throttle.denied(&closed, None), [false, false]);
}

/// A second budget lets nobody wait, whichever of its limits decide: those that a store does not keep, or their shares
/// while it is down.
#[test]
fn no_form_of_a_second_budget_is_patient() {
    let first = BoundLimit::scope([slot(wait_policy(9, 9))]).remove(0);
    let mut second = BoundLimit::scope([slot(None)]).remove(0);
    second.limit.degrades_after = Some(0);
    let limit_set = LimitSet::new("test", None, [first, second.clone()]);
    assert!(limit_set.is_patient);
    let budgets = limit_set.second.as_ref().expect("a second budget");
    let choice = budgets
        .scopes
        .choose([second.scope_number].into_iter(), None);
    let degraded = limit_set.degraded(choice.expect("its scope"));
    for form in [degraded.held(), degraded.share(2), degraded] {
        assert!(!form.is_patient);
        let patient = form
            .limits
            .iter()
            .filter(|bound| bound.limit.wait_policy.is_some());
        assert_eq!(
            patient.count(),
            1,
            "that of the other scope stays, and wakes who waits"
        );
    }
}
