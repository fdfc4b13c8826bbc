//! All interleavings of who waits and who lets go. Run with `--cfg throttle_loom`.

use std::{sync::Arc, task::Waker};

use loom::thread;

use super::{wait_queue::GRACE, *};
use crate::{
    gate::Gate,
    limit::meter::Meter,
    limiter::{bucket::Bucket, meter_history::MeterHistory},
    sync::{flag::Flag, model},
};

const LINE: QueueId = QueueId::Scope(0);

/// One slot, with a line in front of it.
struct Scene {
    lines: WaitQueues,
    slot: Bucket,
    history: MeterHistory,
}

fn slot() -> Meter {
    Meter::of_slots(1).expect("one")
}

impl Scene {
    /// A scene whose slot is taken.
    fn taken() -> Arc<Self> {
        let place = Arc::new(Self {
            lines: WaitQueues::new(),
            slot: Bucket::full(0),
            history: MeterHistory::new(None),
        });
        assert!(place.takes());
        place
    }

    /// Two that stand in line for the slot, each of which has had a turn in vain.
    fn two_wait(&self) -> ([Arc<Flag>; 2], [Waker; 2], [QueueTicket; 2]) {
        let flags = [(); 2].map(|()| Arc::new(Flag::default()));
        let wakers = flags.clone().map(Waker::from);
        let tickets = [(); 2].map(|()| self.enters());
        for (ticket, waker) in tickets.iter().zip(&wakers) {
            assert!(!self.turn(*ticket, waker));
        }
        (flags, wakers, tickets)
    }

    fn takes(&self) -> bool {
        let next = |state| slot().take(state, 0, 1).ok();
        self.slot
            .step(self.slot.load(), 0, &self.history, next)
            .is_ok()
    }

    fn frees(&self) {
        let next = |state| (state > 0).then(|| slot().refund(state, 1));
        let _ = self.slot.step(self.slot.load(), 0, &self.history, next);
        self.lines.wake(LINE, || 0);
    }

    /// One poll of a request in line: whether it has the slot now.
    fn turn(&self, ticket: QueueTicket, waker: &Waker) -> bool {
        self.turn_at(ticket, waker, 0)
    }

    fn turn_at(&self, ticket: QueueTicket, waker: &Waker, now: Nanos) -> bool {
        let has = self.lines.ask(LINE, ticket, waker, now) == QueuePosition::First && self.takes();
        if has {
            self.lines.leave(LINE, ticket, now);
        }
        has
    }

    fn enters(&self) -> QueueTicket {
        let ticket = self
            .lines
            .join(LINE, None, QueueUnits::default(), 9, 0, Nanos::MAX);
        ticket.expect("there is room")
    }
}

#[test]
fn loom_a_slot_that_comes_free_while_somebody_queues_is_not_missed() {
    model(|| {
        let place = Scene::taken();
        let holder = {
            let place = Arc::clone(&place);
            thread::spawn(move || place.frees())
        };
        let flag = Arc::new(Flag::default());
        let waker = Waker::from(Arc::clone(&flag));
        let ticket = place.enters();
        let has = place.turn(ticket, &waker);
        holder.join().expect("no panic");
        assert!(has || flag.is_set(), "asleep beside a free slot");
        assert!(has || place.turn(ticket, &waker), "woken in vain");
        assert!(place.lines.is_empty());
    });
}

#[test]
fn loom_a_waiter_that_goes_away_passes_its_wake_up_on() {
    model(|| {
        let place = Scene::taken();
        let (flags, wakers, tickets) = place.two_wait();
        let holder = {
            let place = Arc::clone(&place);
            thread::spawn(move || place.frees())
        };
        let first = {
            let place = Arc::clone(&place);
            thread::spawn(move || place.lines.leave(LINE, tickets[0], 0))
        };
        holder.join().expect("no panic");
        first.join().expect("no panic");
        assert!(
            flags[1].is_set(),
            "it is the first now, and the slot is free"
        );
        assert!(place.turn(tickets[1], &wakers[1]));
        assert!(place.lines.is_empty());
    });
}

/// The first was woken and does not ask. The second passes it, and at that moment it comes back.
#[test]
fn loom_a_slot_goes_to_one_of_two_where_the_first_is_passed_over_and_comes_back() {
    model(|| {
        let place = Scene::taken();
        let (flags, wakers, tickets) = place.two_wait();
        place.frees();
        let turns = [0, 1].map(|number| {
            let (place, waker) = (Arc::clone(&place), wakers[number].clone());
            let ticket = tickets[number];
            thread::spawn(move || place.turn_at(ticket, &waker, GRACE))
        });
        let [first, second] = turns.map(|turn| turn.join().expect("no panic"));
        assert!(first || second, "the slot is free, and nobody has it");
        assert!(!(first && second), "there is one slot");
        // The remaining request gets the slot when it comes back.
        let left = usize::from(first);
        flags[left].clear();
        place.frees();
        assert!(flags[left].is_set(), "asleep beside a free slot");
        assert!(place.turn_at(tickets[left], &wakers[left], GRACE));
        assert!(place.lines.is_empty());
    });
}

#[test]
fn loom_a_request_that_queues_while_the_gate_is_closed_does_not_sleep() {
    model(|| {
        let place = Scene::taken();
        let gate = Arc::new(Gate::open(false));
        let closer = {
            let (place, gate) = (Arc::clone(&place), Arc::clone(&gate));
            thread::spawn(move || {
                gate.close();
                place.lines.wake_all(|| 0);
            })
        };
        let flag = Arc::new(Flag::default());
        let waker = Waker::from(Arc::clone(&flag));
        let ticket = place.enters();
        assert!(!place.turn(ticket, &waker), "nobody frees the slot");
        // The look after the turn, as a decision has it.
        let is_refused = gate.is_closed();
        closer.join().expect("no panic");
        assert!(is_refused || flag.is_set(), "asleep behind a closed gate");
    });
}
