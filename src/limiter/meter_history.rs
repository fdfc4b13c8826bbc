//! How a limit was measured, and since when: so that a balance which is told in terms of settings that are gone can be
//! read in those that hold.
//!
//! A reload changes what a unit weighs. What was used stays used: a balance is carried over in units, so that neither
//! a larger burst nor a faster rate gives back what was taken before. With that the bound of the weakest settings in
//! force holds over any number of changes: a charge needs room for its units beneath the burst of the moment, which is
//! at most the largest, and units come back at the rate of the moment, which is at most the fastest. (To carry over the
//! *fraction* of the burst would not do: a short time under a burst of 1 that is refilled at once, and it is full as
//! one of 100.)

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, PoisonError},
};

use crate::{clock::Nanos, limit::meter::Meter, sync::Mutex};

/// The number of the reload that brought a setting.
pub(crate) type Version = u64;

/// How one limit was measured since when. A clone shares it.
#[derive(Clone)]
pub(crate) struct MeterHistory(Arc<Mutex<MeterSteps>>);

/// The settings in whose terms a charge is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MeterTerms<'a> {
    pub(crate) version: Version,
    pub(crate) history: &'a MeterHistory,
}

/// From the oldest that is remembered to the present one.
#[derive(Debug)]
pub(crate) struct MeterSteps(VecDeque<MeterStep>);

#[derive(Debug, Clone)]
pub(crate) struct MeterStep {
    pub(crate) version: Version,
    pub(crate) since: Nanos,
    pub(crate) meter: Meter,
}

impl MeterHistory {
    pub(crate) fn new(first: Option<MeterStep>) -> Self {
        Self(Arc::new(Mutex::new(MeterSteps(
            first.into_iter().collect(),
        ))))
    }

    /// From now on units weigh something else.
    pub(crate) fn push(&self, step: MeterStep) {
        self.alone(|MeterSteps(steps)| {
            if steps.len() == MeterSteps::KEPT {
                steps.pop_front();
            }
            steps.push_back(step);
        });
    }

    /// No balance is told in terms of what was before the present settings.
    pub(crate) fn forget(&self) {
        self.alone(|MeterSteps(steps)| {
            steps.drain(..steps.len().saturating_sub(1));
            steps.shrink_to_fit();
        });
    }

    /// The settings that hold.
    pub(crate) fn present(&self) -> Option<(Version, Meter)> {
        self.alone(|MeterSteps(steps)| steps.back().map(|step| (step.version, step.meter)))
    }

    /// Until nobody is alone with it.
    #[cold]
    pub(crate) fn wait(&self) {
        self.alone(|_| ());
    }

    /// Work that nobody else does at the same time.
    pub(crate) fn alone<T>(&self, work: impl FnOnce(&mut MeterSteps) -> T) -> T {
        // Each step leaves it whole.
        let mut steps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        work(&mut steps)
    }
}

impl MeterSteps {
    /// How many settings are remembered. A balance that is still owed after so many changes of its limit, without a
    /// charge in between, is read as a burst that was used when the oldest of them began.
    const KEPT: usize = 4_096;

    /// A state of `from`, `None` if that is not remembered, in terms of `to`, which comes after it.
    pub(crate) fn read(&self, state: u64, from: Option<Version>, to: Version) -> u64 {
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
            state = after.meter.carry(&before.meter, state, after.since);
            if state == 0 {
                break;
            }
        }
        state
    }

    /// The version of which these are the last sixteen bits, if it is remembered.
    pub(crate) fn version(&self, mark: u16) -> Option<Version> {
        let versions = self.0.iter().rev().map(|step| step.version);
        { versions }.find(|version| *version as u16 == mark)
    }
}

impl fmt::Debug for MeterHistory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("History")
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
            || history.alone(|steps| [1, 2, 3].map(|mark| steps.version(mark))),
            || history.alone(|steps| steps.read(1_300, Some(1), 3)),
        );
        assert_eq!(remembered(), [Some(1), Some(2), Some(3)]);
        assert_eq!(read(), 1_900, "three that weigh thrice as much");
        history.forget();
        assert_eq!(remembered(), [None, None, Some(3)]);
        assert_eq!(history.present().map(|(version, _)| version), Some(3));
        assert_eq!(read(), 3_700, "as if all had been taken");
        assert!(history.alone(|MeterSteps(steps)| steps.capacity() < 4));
    }
}
