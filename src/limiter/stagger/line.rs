//! A line that exists in words alone: the places that callers of one bucket were told.

use super::{MOST, SECOND, ToldWait, mix};
use crate::{
    clock::Nanos,
    sync::{AtomicU64, Ordering},
};

/// Times that were told lie in whole microseconds, so that steps of such add up.
const MICROSECOND: Nanos = 1_000;

/// The virtual line of one bucket.
///
/// It holds no more than could really stand in it:
///
/// - It begins anew when the bucket may have been full since the last refusal, or has admitted beyond its end.
/// - A caller has one place. One that comes back before its time is told that place again, and it is given to the next
///   caller if it was the last: whoever does not sleep keeps nobody waiting.
/// - The last place is at most [`ToldLine::MULTIPLE`] times what the limit needs to serve the callers that were refused in
///   the last refill of its burst, of at least a second.
#[derive(Debug, Default)]
pub(super) struct ToldLine {
    bucket: u64,
    began: Nanos,
    /// When the next free place is due, in microseconds.
    end: u64,
    /// When the bucket is full, if nothing is taken after the last refusal.
    full: Nanos,
    /// When the present count of callers began.
    counts_from: Nanos,
    callers: u64,
    /// Those of the count before it.
    callers_before: u64,
}

/// The last place of one caller: a tag of its hash, whether it came back too early, and microseconds.
#[derive(Debug)]
pub(super) struct Caller(AtomicU64);

/// A place that a caller was told.
#[derive(Debug, Clone, Copy)]
struct CallerPlace {
    /// In microseconds.
    at: u64,
    /// Whether the caller has come back before that.
    is_early: bool,
}

impl ToldLine {
    /// A line is at most so many times as long as the callers in it need.
    const MULTIPLE: u64 = 2;

    /// Meets a refusal. Returns `true` if the line begins anew with it.
    pub(super) fn meet(&mut self, refused: &ToldWait) -> bool {
        let ToldWait {
            bucket,
            now,
            full_in,
            ..
        } = *refused;
        let is_new = self.bucket != bucket || now >= self.full;
        if is_new {
            *self = Self {
                bucket,
                began: now,
                counts_from: now,
                ..Self::default()
            };
        }
        self.full = now.saturating_add(full_in.max(1));
        is_new
    }

    /// The hash of a caller of this line: another one once the line has begun anew.
    pub(super) fn hash_of(&self, caller: u64) -> u64 {
        mix(caller ^ mix(self.bucket ^ self.began))
    }

    /// The nanoseconds that a caller is told beyond its true wait: at most `most`.
    pub(super) fn place(
        &mut self,
        refused: &ToldWait,
        hash: u64,
        caller: &Caller,
        most: Nanos,
    ) -> Nanos {
        // A place that is due beyond the longest spread is none: callers are spread all the same.
        let step = if refused.step > MOST {
            SECOND
        } else {
            refused.step
        };
        let step = step.div_ceil(MICROSECOND);
        let earliest = refused
            .now
            .saturating_add(refused.wait)
            .div_ceil(MICROSECOND);
        let known = caller.place(hash);
        if let Some(place) = known.filter(|place| place.at > refused.now / MICROSECOND) {
            if !place.is_early {
                self.callers = self.callers.saturating_sub(1);
                if self.end == place.at.saturating_add(step) {
                    self.end = place.at;
                }
                caller.tell(
                    hash,
                    CallerPlace {
                        is_early: true,
                        ..place
                    },
                );
            }
            let more = place
                .at
                .saturating_sub(earliest)
                .saturating_mul(MICROSECOND);
            return more.min(most);
        }
        let callers = self.count(refused);
        let most = most / MICROSECOND;
        // A line that would be longer than any client sleeps begins anew.
        let more = Some(self.end.saturating_sub(earliest)).filter(|&more| more <= most);
        let needed = callers.saturating_mul(step).saturating_mul(Self::MULTIPLE);
        let more = more.unwrap_or(0).min(needed);
        let at = earliest.saturating_add(more);
        self.end = at.saturating_add(step);
        let is_early = false;
        caller.tell(hash, CallerPlace { at, is_early });
        more * MICROSECOND
    }

    /// Counts one more caller. Returns those of the last refill, itself included.
    fn count(&mut self, refused: &ToldWait) -> u64 {
        let span = refused.refill.max(SECOND);
        let passed = refused.now.saturating_sub(self.counts_from);
        if passed >= span {
            self.callers_before = match passed / span {
                1 => self.callers,
                _ => 0,
            };
            self.callers = 0;
            self.counts_from = refused.now;
        }
        self.callers += 1;
        self.callers.saturating_add(self.callers_before)
    }
}

impl Caller {
    const TIME_BITS: u32 = 52;
    const TIME: u64 = (1 << Self::TIME_BITS) - 1;
    const EARLY: u64 = 1 << Self::TIME_BITS;
    const TAG: u64 = !(Self::EARLY | Self::TIME);

    pub(super) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    fn place(&self, hash: u64) -> Option<CallerPlace> {
        let word = self.0.load(Ordering::Relaxed);
        (word & Self::TAG == hash & Self::TAG).then_some(CallerPlace {
            at: word & Self::TIME,
            is_early: word & Self::EARLY != 0,
        })
    }

    fn tell(&self, hash: u64, CallerPlace { at, is_early }: CallerPlace) {
        let early = if is_early { Self::EARLY } else { 0 };
        let word = hash & Self::TAG | early | at.min(Self::TIME);
        self.0.store(word, Ordering::Relaxed);
    }
}
