//! Meter history: the settings of one limit over time, so that a balance in former terms can be read in the present
//! ones.
//!
//! # Carrying balances over a reload
//!
//! A reload changes the weight of a unit: the nanoseconds of state that one unit costs. Used units stay used: a balance
//! is converted in units, so that neither a larger burst nor a faster rate gives back earlier usage. The bound of the
//! weakest settings in force then holds over any number of changes: a charge needs room for its units beneath the
//! present burst, which is at most the largest, and units come back at the present rate, which is at most the fastest.
//! (Converting the *fraction* of the burst would not suffice: a burst of 1 refills at once, and would then be a full
//! burst of 100.)
//!
//! # Versions
//!
//! A [`Version`] is the number of a reload. A limit's version is that of the reload that made it, or that last changed
//! the weight of its unit: a reload that changes only a burst keeps it. Each balance has the version of its terms
//! (`Bucket` in a word of its own, the client table in sixteen bits of the key). The reload rewrites each bucket, and
//! the first charge of a later version rewrites an entry of the table; reading does not.
//!
//! # The moment of a change
//!
//! A balance is converted as of one moment: until then units come back by the former terms, and after it by the new
//! ones. A charge made in former terms by a later clock reading would be read as if the time in between had been used
//! as well: ten milliseconds are five thousand units of two microseconds. A thread may be paused for longer, with terms
//! that it found in force. So no balance takes such a charge:
//!
//! - A *bucket* is converted by the reload, as of a clock reading made while its state is
//!   [`BUSY`](super::bucket::BUSY), and so after each charge in it.
//! - An *entry of the table* is converted as of the step, whenever that happens. Its limit is
//!   [retired](super::client_table::ClientBuckets::retire) before the time of the step is read: a later request does
//!   not find the entry, and an earlier one has read the clock before.
//! - A *correction* reads the clock before it looks up the terms in force, and a step is pushed, with its time, under
//!   the lock.
//!
//! # Invariants
//!
//! - Steps are in order of versions, the present one last, and there is at least one once the limit has been open or
//!   has inherited. Closing a limit (a rate of zero) adds no step: its balance waits in the terms in which it was
//!   open.
//! - The version of a balance never decreases: charges of an older version get `Outdated` and are decided again.
//! - A step is pushed just before the rules are put into force. A request decided by the previous rules in that moment
//!   is [outdated](super::Outdated), and looks for the new ones.
//! - No charge in former terms is made by a clock reading later than the moment of the conversion.
//! - A late correction (a refund, a debt) of a bucket is tried in the terms of its charge first, then in the present
//!   ones, into which the reload converts each bucket. A correction of an entry in the client table is made in the
//!   present terms at once. The entry stays in former ones until it is changed, and is then converted as of the reload.
//!   Slots are an exception, since they weigh the same in all terms.
//!
//! # The lock
//!
//! A history is also the lock under which a balance of its limit changes its version: only the holder of
//! [`MeterHistory::with_lock`] may rewrite a bucket of the limit. Charges in present terms never take it. Lock order: a
//! stripe of the client table or the lock of [successions](super::bucket), then a history; nothing is locked inside.
//!
//! # Callers
//!
//! `rules/registry` makes histories and pushes steps, one reload at a time; `store/memory` does so for balances of its
//! own. [`Bucket`](super::bucket::Bucket) and [`ClientTable`](super::client_table::ClientTable) read states through
//! them.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, PoisonError},
};

use crate::{
    clock::Nanos,
    limit::meter::Meter,
    sync::{AtomicU64, Mutex, Ordering, fence},
};

/// The number of the reload that brought a setting, counted from 1; in a `MemoryStore`, of the change of a budget. The
/// largest `u64` is that of closed buckets.
pub(crate) type Version = u64;

/// The meters of one limit, with their moments. A clone shares them: all routes that have a limit by default share one.
#[derive(Clone)]
pub(crate) struct MeterHistory(Arc<SharedSteps>);

/// The steps, and the version of the present one beside their lock: `NEVER_OPEN` if there is none.
///
/// The version is written under the lock, before the step's moment is read, and it is read without the lock: a thread
/// that finds a version present has no reading of the clock that is later than the step after it.
struct SharedSteps {
    present: AtomicU64,
    steps: Mutex<MeterSteps>,
}

/// The terms in which a charge is made: the version of its bound limit, and the history that has that version's meter.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MeterTerms<'a> {
    pub(crate) version: Version,
    pub(crate) history: &'a MeterHistory,
}

/// The steps of a history, from the oldest that is remembered to the present one.
#[derive(Debug)]
pub(crate) struct MeterSteps(VecDeque<MeterStep>);

/// One change of what a unit weighs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MeterStep {
    pub(crate) version: Version,
    /// The moment of the change, at which balances are carried over: what had come back by then, by the meter before,
    /// had come back.
    pub(crate) since: Nanos,
    pub(crate) meter: Meter,
}

impl MeterHistory {
    /// The version of no reload, in the place of the present one where there are no steps.
    const NEVER_OPEN: Version = u64::MAX;

    /// A history that begins with a step, or with none if the limit is closed.
    pub(crate) fn new(first: Option<MeterStep>) -> Self {
        let present = first.as_ref().map_or(Self::NEVER_OPEN, |step| step.version);
        Self(Arc::new(SharedSteps {
            present: AtomicU64::new(present),
            steps: Mutex::new(MeterSteps(first.into_iter().collect())),
        }))
    }

    /// Adds the present step, of which there is nothing to carry over yet. Its version is larger than those before.
    pub(crate) fn push(&self, step: MeterStep) {
        self.go_on(step.version, step.meter, || step.since, |_| ());
    }

    /// Adds the present step, whose version is larger than those before, and has `carry_over` rewrite the buckets of
    /// the limit. `clock` tells the moment, after all readings of those who have found other terms to be present.
    ///
    /// At the most that is kept the oldest step is dropped.
    pub(crate) fn go_on(
        &self,
        version: Version,
        meter: Meter,
        clock: impl FnOnce() -> Nanos,
        carry_over: impl FnOnce(&MeterSteps),
    ) {
        self.with_lock(|steps| {
            if steps.0.len() == MeterSteps::KEPT {
                steps.0.pop_front();
            }
            self.0.present.store(version, Ordering::Release);
            // The clock is not read before others can see that, and that limits are retired.
            fence(Ordering::SeqCst);
            steps.0.push_back(MeterStep {
                version,
                since: clock(),
                meter,
            });
            carry_over(steps);
        });
    }

    /// Returns whether a version is that of the present step, without a lock. If it is, each reading of the clock that
    /// the caller has made before is no later than the step that follows.
    #[inline]
    pub(crate) fn is_present(&self, version: Version) -> bool {
        self.0.present.load(Ordering::Acquire) == version
    }

    /// Returns whether other terms are present than those of a version, without a lock. If not, the same is true of the
    /// caller's readings as of [`MeterHistory::is_present`].
    pub(crate) fn is_past(&self, version: Version) -> bool {
        let present = self.0.present.load(Ordering::Acquire);
        present != version && present != Self::NEVER_OPEN
    }

    /// Drops all steps but the present one, and the memory for them.
    ///
    /// The caller has seen to it that every bucket of the limit is in present terms. Balances in the table of clients
    /// are not looked through, so histories of clients' limits are never cut short.
    pub(crate) fn forget(&self) {
        self.with_lock(|MeterSteps(steps)| {
            steps.drain(..steps.len().saturating_sub(1));
            steps.shrink_to_fit();
        });
    }

    /// Returns the present step's version and meter; `None` if the limit has never been open.
    pub(crate) fn present(&self) -> Option<(Version, Meter)> {
        self.present_step().map(|step| (step.version, step.meter))
    }

    /// Returns the same with the time since which they hold.
    pub(crate) fn present_step(&self) -> Option<MeterStep> {
        self.with_lock(|MeterSteps(steps)| steps.back().copied())
    }

    /// Returns whether it is the same history, and not one with the same steps.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.place() == other.place()
    }

    /// Returns where the history is, by which it is told from others.
    pub(crate) fn place(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }

    /// Waits until nobody holds the lock: whoever has found [`BUSY`](super::bucket::BUSY) in a bucket waits here for
    /// the state that replaces it, instead of spinning.
    #[cold]
    pub(crate) fn wait(&self) {
        self.with_lock(|_| ());
    }

    /// Works on the steps while nobody else does, and while no bucket of the limit changes its version.
    ///
    /// Not reentrant: `work` calls no method of this history.
    pub(crate) fn with_lock<T>(&self, work: impl FnOnce(&mut MeterSteps) -> T) -> T {
        // Each step leaves it whole.
        let mut steps = self.0.steps.lock().unwrap_or_else(PoisonError::into_inner);
        work(&mut steps)
    }
}

impl MeterSteps {
    /// The most steps that are kept. A balance that is still owed after so many changes of its limit, without a charge
    /// in between, is read as a burst that was used when the oldest of them began.
    const KEPT: usize = 4_096;

    /// Returns a state of version `from` in terms of `to`, a later one, by carrying it through each step between them.
    ///
    /// `from` is `None` if it is not remembered: the state is then read as a whole burst used when the oldest step
    /// began, which is never less than what it was, unless it was a debt. Full stays full (0), and a state is returned
    /// as it is if `to` is not remembered. Costs time in proportion to the steps between, and ends early at a full
    /// bucket.
    pub(crate) fn read(&self, state: u64, from: Option<Version>, to: Version) -> u64 {
        self.read_as_of(state, from, to, |step| step.since)
    }

    /// [`MeterSteps::read`] as of another moment than the last step's, which `clock` tells. It is no earlier.
    pub(crate) fn read_now(
        &self,
        state: u64,
        from: Version,
        to: Version,
        clock: impl Fn() -> Nanos,
    ) -> u64 {
        self.read_as_of(state, Some(from), to, |step| match step.version == to {
            true => clock(),
            false => step.since,
        })
    }

    /// [`MeterSteps::read`] with the moments as of which the state is carried through steps.
    fn read_as_of(
        &self,
        state: u64,
        from: Option<Version>,
        to: Version,
        moment: impl Fn(&MeterStep) -> Nanos,
    ) -> u64 {
        let Self(steps) = self;
        let at = |version| steps.iter().rposition(|step| step.version == version);
        let (Some(to), false) = (at(to), state == 0) else {
            return state;
        };
        let (mut state, from) = match from.and_then(at) {
            Some(from) => (state, from),
            None => {
                let MeterStep { since, meter, .. } = &steps[0];
                (meter.owe(0, *since, meter.capacity()), 0)
            }
        };
        let pairs = steps.iter().zip(steps.iter().skip(1));
        for (before, after) in pairs.take(to).skip(from) {
            state = after.meter.carry(&before.meter, state, moment(after));
            if state == 0 {
                break;
            }
        }
        state
    }

    /// Returns the version of the latest step that was made no later than `until` and weighs units as `meter` does.
    pub(crate) fn latest(&self, meter: &Meter, until: Nanos) -> Option<Version> {
        let weighs = |step: &&MeterStep| step.since <= until && step.meter.weighs_as(meter);
        let found = self.0.iter().rev().find(weighs);
        found.map(|step| step.version)
    }

    /// Returns the meter of a version, if it is remembered.
    pub(crate) fn meter(&self, version: Version) -> Option<Meter> {
        let step = self.0.iter().rfind(|step| step.version == version);
        step.map(|step| step.meter)
    }

    /// Returns the version whose last sixteen bits these are, if it is remembered: the latest, if there are several.
    pub(crate) fn version(&self, mark: u16) -> Option<Version> {
        let versions = self.0.iter().rev().map(|step| step.version);
        { versions }.find(|version| *version as u16 == mark)
    }
}

impl fmt::Debug for MeterHistory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MeterHistory")
            .field(&self.present().map(|(version, _)| version))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::limit::rate::Rate;

    #[test]
    fn what_no_balance_is_told_in_any_more_is_forgotten() {
        let rate = |interval| Rate::new(1, Duration::from_nanos(interval)).burst(9);
        let step = |version| MeterStep {
            version,
            since: 1_000,
            meter: Meter::of_rate(&rate(100 * version)).expect("open"),
        };
        let history = MeterHistory::new(Some(step(1)));
        history.push(step(2));
        history.push(step(3));
        let (remembered, read) = (
            || history.with_lock(|steps| [1, 2, 3].map(|mark| steps.version(mark))),
            || history.with_lock(|steps| steps.read(1_300, Some(1), 3)),
        );
        assert_eq!(remembered(), [Some(1), Some(2), Some(3)]);
        assert_eq!(read(), 1_900, "three that weigh thrice as much");
        history.forget();
        assert_eq!(remembered(), [None, None, Some(3)]);
        assert_eq!(history.present().map(|(version, _)| version), Some(3));
        assert_eq!(read(), 3_700, "as if all had been taken");
        assert!(history.with_lock(|MeterSteps(steps)| steps.capacity() < 4));
    }
}
