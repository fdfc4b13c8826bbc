use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Wake, Waker},
};

use super::{
    Inner, QueueAhead, QueuePosition, QueueTicket, QueueUnits, WaitQueues, wait_queue::GRACE,
};
use crate::clock::Nanos;
use crate::limit::Unit;
use crate::limiter::limit_set::QueueId;

const ROUTE: QueueId = QueueId::Scope(1);
const CLIENT: QueueId = QueueId::Client(1);
const NOBODYS: QueueId = QueueId::Client(2);

/// The number of times that it was woken.
#[derive(Default)]
struct Woken(AtomicU64);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn wakers<const N: usize>() -> ([Arc<Woken>; N], [Waker; N]) {
    let woken = [(); N].map(|()| Arc::new(Woken::default()));
    let wakers = woken.clone().map(Waker::from);
    (woken, wakers)
}

/// The units of a request that costs three.
fn units(tokens: u64) -> QueueUnits {
    ahead(1, tokens).units
}

/// So many of these, which ask for so many tokens together.
fn ahead(requests: u64, tokens: u64) -> QueueAhead {
    let mut units = QueueUnits::default();
    units[Unit::Requests] = 3 * requests;
    units[Unit::Tokens] = tokens;
    QueueAhead { requests, units }
}

/// Without a deadline, before time has moved on.
fn join(
    lines: &WaitQueues,
    line: QueueId,
    ticket: Option<QueueTicket>,
    tokens: u64,
    most: usize,
) -> Option<QueueTicket> {
    lines.join(line, ticket, units(tokens), most, 0, Nanos::MAX)
}

fn is_first(lines: &WaitQueues, line: QueueId, ticket: QueueTicket, waker: &Waker) -> bool {
    lines.ask(line, ticket, waker, 0) == QueuePosition::First
}

fn counts(woken: &[Arc<Woken>]) -> Vec<u64> {
    woken
        .iter()
        .map(|woken| woken.0.load(Ordering::Relaxed))
        .collect()
}

#[test]
fn a_line_knows_who_stands_in_it_and_what_they_ask_for() {
    let lines = WaitQueues::new();
    assert!(lines.is_empty());
    assert_eq!(lines.ahead(ROUTE, 0), ahead(0, 0));
    let first = join(&lines, ROUTE, None, 5, 2).expect("room for two");
    let second = join(&lines, CLIENT, None, 1, 2).expect("a line of its own");
    let third = join(&lines, ROUTE, None, 7, 2).expect("room for two");
    assert!(
        first < second && second < third,
        "in the order in which they came"
    );
    assert!(!lines.is_empty());
    assert_eq!(lines.ahead(ROUTE, 0), ahead(2, 12));
    assert_eq!(join(&lines, ROUTE, None, 9, 2), None);
    assert_eq!(join(&lines, ROUTE, Some(second), 9, 2), None);
    assert_eq!(lines.ahead(ROUTE, 0), ahead(2, 12), "as before");
    assert_eq!(lines.ahead(CLIENT, 0), ahead(1, 1));

    lines.leave(ROUTE, first, 0);
    assert_eq!(lines.ahead(ROUTE, 0), ahead(1, 7));
    let moved = join(&lines, ROUTE, Some(second), u64::MAX, 2);
    assert_eq!(moved, Some(second), "it keeps its ticket");
    assert_eq!(lines.ahead(ROUTE, 0), ahead(2, u64::MAX));
    // A request that has left leaves nothing behind.
    lines.leave(ROUTE, first, 0);
    lines.leave(ROUTE, second, 0);
    lines.leave(ROUTE, third, 0);
    assert!(!lines.is_empty());
    lines.leave(CLIENT, second, 0);
    assert!(lines.is_empty());
}

#[test]
fn who_came_first_stands_before_the_others_wherever_it_has_stood() {
    let lines = WaitQueues::new();
    let (_, [waker]) = wakers();
    let early = join(&lines, CLIENT, None, 0, 9).expect("there is room");
    let late = join(&lines, ROUTE, None, 0, 9).expect("there is room");
    assert!(is_first(&lines, ROUTE, late, &waker));
    assert!(!lines.has_earlier(ROUTE, late, 0), "itself is not earlier");
    assert!(!lines.has_earlier(ROUTE, early, 0));
    assert!(lines.has_earlier(ROUTE, QueueTicket::MAX, 0));
    assert!(lines.has_earlier(CLIENT, late, 0));
    assert!(!lines.has_earlier(NOBODYS, QueueTicket::MAX, 0));
    assert!(!is_first(&lines, NOBODYS, early, &waker));

    join(&lines, ROUTE, Some(early), 0, 9).expect("there is room");
    assert!(lines.has_earlier(ROUTE, late, 0));
    assert!(!is_first(&lines, ROUTE, late, &waker));
    assert!(is_first(&lines, ROUTE, early, &waker));
}

#[test]
fn who_is_first_is_woken_and_nobody_else() {
    let lines = WaitQueues::new();
    let (woken, wakers) = wakers::<4>();
    // Three in one line, the last in another.
    let ids = [ROUTE, ROUTE, ROUTE, CLIENT];
    lines.wake(ROUTE, || 0);
    lines.wake_all(|| 0);
    let tickets = ids.map(|id| join(&lines, id, None, 0, 9).expect("there is room"));
    lines.wake(ROUTE, || 0);
    for (index, (id, ticket)) in ids.into_iter().zip(tickets).enumerate() {
        assert_eq!(is_first(&lines, id, ticket, &wakers[index]), index % 3 == 0);
    }
    assert_eq!(
        counts(&woken),
        [0, 0, 0, 0],
        "nothing has come free since they asked"
    );
    lines.wake(ROUTE, || 0);
    assert_eq!(counts(&woken), [1, 0, 0, 0]);
    lines.wake(NOBODYS, || 0);
    assert_eq!(counts(&woken), [1, 0, 0, 0]);
    lines.wake_all(|| 0);
    assert_eq!(counts(&woken), [2, 0, 0, 1]);
    lines.leave(ROUTE, tickets[1], 0);
    assert_eq!(
        counts(&woken),
        [2, 0, 0, 1],
        "the first is the same as before"
    );
    lines.leave(ROUTE, tickets[0], 0);
    assert_eq!(counts(&woken), [2, 0, 1, 1]);
    // Another task asks for it from now on.
    is_first(&lines, ROUTE, tickets[2], &wakers[0]);
    lines.wake(ROUTE, || 0);
    assert_eq!(counts(&woken), [3, 0, 1, 1]);
}

#[test]
fn what_a_crowd_has_needed_is_not_kept() {
    let lines = WaitQueues::new();
    let capacity = || lines.with(|inner| inner.queues.capacity());
    let ticket = join(&lines, ROUTE, None, 0, 9).expect("there is room");
    lines.leave(ROUTE, ticket, 0);
    assert!(capacity() > 0, "what one has needed is");
    let crowd = (0..9_999).map(|client| {
        let line = QueueId::Client(client);
        (line, join(&lines, line, None, 0, 9).expect("there is room"))
    });
    let crowd: Vec<_> = crowd.collect();
    for (line, ticket) in crowd {
        assert!(capacity() > 9_998, "while somebody waits");
        lines.leave(line, ticket, 0);
    }
    assert!(capacity() <= Inner::KEPT);
}

const SECOND: Nanos = 1_000_000_000;

/// Three in the line of a route, who have asked at the beginning; the first is woken by what comes back.
struct Three {
    lines: WaitQueues,
    tickets: [QueueTicket; 3],
    woken: [Arc<Woken>; 3],
    wakers: [Waker; 3],
}

impl Three {
    fn new() -> Self {
        let lines = WaitQueues::new();
        let (woken, wakers) = wakers::<3>();
        let tickets = [5, 7, 11].map(|tokens| {
            let ticket = lines.join(ROUTE, None, units(tokens), 9, 0, 10 * SECOND);
            ticket.expect("there is room")
        });
        let three = Self {
            lines,
            tickets,
            woken,
            wakers,
        };
        assert_eq!(three.asks(0, 0), QueuePosition::First);
        three.lines.expect(ROUTE, three.tickets[0], 10 * SECOND);
        assert_eq!(
            three.asks(1, 0),
            QueuePosition::Behind(GRACE),
            "the next in line"
        );
        assert_eq!(three.asks(2, 0), QueuePosition::Behind(2 * GRACE));
        three
    }

    fn asks(&self, number: usize, now: Nanos) -> QueuePosition {
        let (ticket, waker) = (self.tickets[number], &self.wakers[number]);
        self.lines.ask(ROUTE, ticket, waker, now)
    }

    fn woken(&self) -> Vec<u64> {
        counts(&self.woken)
    }
}

#[test]
fn who_is_woken_and_does_not_ask_is_passed_over_and_is_back_as_soon_as_it_asks() {
    let three = Three::new();
    assert_eq!(three.asks(1, GRACE), QueuePosition::Behind(2 * GRACE));
    three.lines.wake(ROUTE, || GRACE + 5);
    assert_eq!(three.woken(), [1, 0, 0]);
    let passes = 2 * GRACE + 5;
    assert_eq!(three.asks(1, 2 * GRACE), QueuePosition::Behind(passes));
    assert_eq!(three.asks(1, passes - 1), QueuePosition::Behind(passes));
    assert_eq!(three.lines.ahead(ROUTE, passes - 1), ahead(3, 23));
    assert_eq!(three.asks(1, passes), QueuePosition::First);
    assert_eq!(three.lines.ahead(ROUTE, passes), ahead(2, 18));
    assert!(!three.lines.has_earlier(ROUTE, three.tickets[1], passes));
    // A unit that comes back wakes the request that is first by now.
    let before = three.woken()[1];
    three.lines.wake(ROUTE, || passes);
    assert_eq!(three.woken()[1], before + 1);
    // Its turn is its own again, and who was first in its place is told so, to look after it.
    let before = three.woken()[1];
    assert_eq!(three.asks(0, passes), QueuePosition::First);
    assert_eq!(three.woken()[1], before + 1);
    assert_eq!(three.lines.ahead(ROUTE, passes), ahead(3, 23));
    assert_eq!(three.asks(1, passes), QueuePosition::Behind(passes + GRACE));
}

#[test]
fn who_does_not_ask_by_itself_is_woken_before_it_is_passed_over() {
    let three = Three::new();
    // The first has a timer of its own, and is held up.
    three.lines.expect(ROUTE, three.tickets[0], SECOND);
    let at = SECOND + GRACE;
    assert_eq!(three.asks(1, at - 1), QueuePosition::Behind(at - 1 + GRACE));
    assert_eq!(
        three.woken(),
        [0, 1, 1],
        "the others should have asked before"
    );
    assert_eq!(
        three.asks(1, at + GRACE),
        QueuePosition::Behind(at + 2 * GRACE)
    );
    assert_eq!(three.woken()[0], 1);
    assert_eq!(three.asks(1, at + 2 * GRACE), QueuePosition::First);
}

#[test]
fn those_who_have_gone_without_a_word_lose_their_places_with_their_time() {
    let three = Three::new();
    let over = 10 * SECOND + GRACE;
    assert!(three.lines.has_earlier(ROUTE, QueueTicket::MAX, 0));
    assert!(!three.lines.is_empty());
    assert!(!three.lines.has_earlier(ROUTE, QueueTicket::MAX, over + 1));
    assert!(three.lines.is_empty(), "they are not kept");
    assert_eq!(three.asks(0, over + 1), QueuePosition::Gone);
    three.lines.leave(ROUTE, three.tickets[0], over + 1);
    let again = three
        .lines
        .join(ROUTE, None, units(0), 1, over + 1, 20 * SECOND);
    assert!(again.is_some(), "there is room");
}

#[test]
fn who_is_passed_over_and_goes_is_counted_no_more() {
    let three = Three::new();
    three.asks(1, GRACE);
    three.lines.wake(ROUTE, || GRACE);
    assert_eq!(three.lines.ahead(ROUTE, 2 * GRACE), ahead(2, 18));
    three.lines.leave(ROUTE, three.tickets[0], 2 * GRACE);
    assert_eq!(three.lines.ahead(ROUTE, 2 * GRACE), ahead(2, 18));
}

#[test]
fn if_nobody_asks_the_first_is_woken_all_the_same() {
    let three = Three::new();
    // All are woken, and then passed over.
    for _ in 0..3 {
        three.lines.ahead(ROUTE, SECOND);
        three.lines.wake(ROUTE, || SECOND);
        three.lines.ahead(ROUTE, SECOND + GRACE);
    }
    let late = SECOND + 9 * GRACE;
    assert_eq!(three.lines.ahead(ROUTE, late), QueueAhead::default());
    let before = three.woken()[0];
    three.lines.wake(ROUTE, || late);
    assert_eq!(three.woken()[0], before + 1);
}
