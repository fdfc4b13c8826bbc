//! Groups of slots, and what is done to one slot.

use crate::{
    bucket,
    clock::Nanos,
    meter::Meter,
    sync::{AtomicU64, Ordering},
};

/// A few buckets, on two cache lines.
#[derive(Default)]
#[repr(align(128))]
pub(super) struct Group {
    keys: [AtomicU64; Group::SLOTS],
    states: [AtomicU64; Group::SLOTS],
}

/// A slot of some group.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot<'a> {
    pub(super) key: &'a AtomicU64,
    pub(super) state: &'a AtomicU64,
}

impl Group {
    /// Fewer under loom, which looks at all orders in which they may be read.
    pub(super) const SLOTS: usize = if cfg!(throttle_loom) { 2 } else { 8 };

    pub(super) fn slots(&self) -> impl Iterator<Item = Slot<'_>> {
        let pairs = self.keys.iter().zip(&self.states);
        pairs.map(|(key, state)| Slot { key, state })
    }

    /// The slots whose buckets are full at `now`, with their states.
    pub(super) fn full(&self, now: Nanos) -> impl Iterator<Item = (Slot<'_>, u64)> {
        self.slots().filter_map(move |slot| {
            let state = slot.state.load(Ordering::Acquire);
            (state <= now).then_some((slot, state))
        })
    }
}

impl Slot<'_> {
    /// Goes from the state that was seen to the `next`, if there is one. `None` if the slot has changed hands
    /// and is no more that of `hash`, or if the state has changed.
    #[inline]
    pub(super) fn step(
        &self,
        hash: u64,
        seen: u64,
        next: impl Fn(u64) -> Option<u64>,
    ) -> Option<Result<u64, u64>> {
        let still_ours = || self.key.load(Ordering::Acquire) == hash;
        let Some(next) = next(seen) else {
            return still_ours().then_some(Err(seen));
        };
        let exchange = |from, to| {
            self.state
                .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire)
        };
        exchange(seen, next).ok()?;
        if still_ours() {
            return Some(Ok(next));
        }
        let _ = exchange(next, seen);
        None
    }

    /// As [`bucket::give_back`]. A state that is `after` by chance in a stranger's hands is one that has
    /// just become full: taking from what it owes changes nothing.
    pub(super) fn give_back(
        &self,
        after: u64,
        meter: &Meter,
        taken: Nanos,
        weight: u64,
        clock: impl Fn() -> Nanos,
    ) {
        bucket::give_back(self.state, after, meter, taken, weight, clock);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bucket::BUSY;

    const OURS: u64 = 3;
    const STRANGERS: u64 = 5;

    #[test]
    fn what_happens_between_a_look_and_an_exchange_is_seen() {
        type Between = fn(&Slot<'_>);
        type Case = (
            &'static str,
            Between,
            Option<u64>,
            Option<Result<u64, u64>>,
            u64,
        );
        let given_away: Between = |slot| slot.key.store(STRANGERS, Ordering::Release);
        let charged: Between = |slot| slot.state.store(75, Ordering::Release);
        let busy: Between = |slot| slot.state.store(BUSY, Ordering::Release);
        // (what, what others do, the next state, what is told, the state that is left); all begin at 70.
        let table: [Case; 6] = [
            ("nothing", |_| {}, Some(80), Some(Ok(80)), 80),
            ("nothing, and refused", |_| {}, None, Some(Err(70)), 70),
            ("charged by another thread", charged, Some(80), None, 75),
            ("on its way to a stranger", busy, Some(80), None, BUSY),
            (
                "a stranger's, in a state that is the same by chance",
                given_away,
                Some(80),
                None,
                70,
            ),
            ("a stranger's state refused", given_away, None, None, 70),
        ];
        for (what, between, next, told, left) in table {
            let group = Group::default();
            let slot = group.slots().next().expect("a slot");
            slot.key.store(OURS, Ordering::Release);
            slot.state.store(70, Ordering::Release);
            let stepped = slot.step(OURS, 70, |state| {
                assert_eq!(state, 70, "{what}");
                between(&slot);
                next
            });
            assert_eq!(stepped, told, "{what}");
            assert_eq!(slot.state.load(Ordering::Acquire), left, "{what}");
        }
    }
}
