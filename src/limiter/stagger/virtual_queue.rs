//! Virtual queues: the turns that callers of one bucket were given, although none of them waits there.
//!
//! A turn is the moment at which a caller was told to return. The caller's word stores it, so that a caller that
//! returns early gets the same turn again; the queue stores only its end. Moments are in whole microseconds since the
//! Unix epoch, rounded up, so that 52 bits hold them until 2112, and steps add up without loss; waits are converted
//! back to nanoseconds.

use super::{MOST, RefusedWait, SECOND, mix};
use crate::{
    clock::Nanos,
    sync::{AtomicU64, Ordering},
};

/// Nanoseconds in a microsecond, the unit of turns.
const MICROSECOND: Nanos = 1_000;

/// The virtual queue of one bucket. Locked while it is used.
///
/// A virtual queue holds no more turns than a real queue could:
///
/// - The queue starts over when the bucket may have been full since the last refusal, or has admitted beyond its end.
/// - A caller has one turn. A caller that returns early gets that turn again, and the turn goes to the next caller if
///   it was the last: callers that do not sleep delay no other.
/// - The last turn is at most [`VirtualQueue::MULTIPLE`] times what the limit needs to serve the callers that were
///   refused in the last refill of its burst, of at least a second.
#[derive(Debug, Default)]
pub(super) struct VirtualQueue {
    /// The hash of the bucket; of another one's refusal, the queue begins anew.
    bucket: u64,
    /// The moment of the first refusal, which salts the hashes of callers, so that turns of an earlier queue are
    /// forgotten.
    began: Nanos,
    /// The moment of the next free turn, in microseconds.
    end: u64,
    /// The moment at which the bucket is full, if nothing is taken after the last refusal.
    full: Nanos,
    /// The moment at which the present count of callers began.
    counts_from: Nanos,
    /// The callers that were refused since then, without those that came back early. One that comes back after its
    /// turn counts again.
    callers: u64,
    /// The callers of the count before it, if that ended when this one began.
    callers_before: u64,
}

/// The last turn of one caller, in one word: 11 bits of its hash as a tag, a bit for having come back early, and 52
/// bits of microseconds. Zero is a turn of nobody, long over.
#[derive(Debug)]
pub(super) struct Caller(AtomicU64);

/// A turn that a caller was told.
#[derive(Debug, Clone, Copy)]
struct CallerTurn {
    /// The moment, in microseconds.
    at: u64,
    /// The caller has come back before that, and was taken off the count.
    is_early: bool,
}

impl VirtualQueue {
    /// The most by which a queue may be longer than the callers in it need.
    const MULTIPLE: u64 = 2;

    /// Meets a refusal, which every one does first. Returns `true` if the queue begins anew with it: it was another
    /// bucket's, or the bucket may have been full since.
    pub(super) fn meet(&mut self, refused: &RefusedWait) -> bool {
        let RefusedWait {
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

    /// Returns the hash of a caller of this queue: another one once the queue has begun anew.
    pub(super) fn hash_of(&self, caller: u64) -> u64 {
        mix(caller ^ mix(self.bucket ^ self.began))
    }

    /// Returns the nanoseconds that a caller is told beyond its true wait, at most `most`, and notes its turn.
    ///
    /// `caller` is the word that `hash` finds, which may be another caller's: then this one is new.
    pub(super) fn place(
        &mut self,
        refused: &RefusedWait,
        hash: u64,
        caller: &Caller,
        most: Nanos,
    ) -> Nanos {
        // A turn beyond the longest stagger is none: callers are staggered all the same.
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
        let known = caller.turn(hash);
        if let Some(turn) = known.filter(|turn| turn.at > refused.now / MICROSECOND) {
            if !turn.is_early {
                self.callers = self.callers.saturating_sub(1);
                if self.end == turn.at.saturating_add(step) {
                    self.end = turn.at;
                }
                caller.note(
                    hash,
                    CallerTurn {
                        is_early: true,
                        ..turn
                    },
                );
            }
            let more = turn.at.saturating_sub(earliest).saturating_mul(MICROSECOND);
            return more.min(most);
        }
        let callers = self.count(refused);
        let most = most / MICROSECOND;
        // A queue that would be longer than any client sleeps begins anew.
        let more = Some(self.end.saturating_sub(earliest)).filter(|&more| more <= most);
        let needed = callers.saturating_mul(step).saturating_mul(Self::MULTIPLE);
        let more = more.unwrap_or(0).min(needed);
        let at = earliest.saturating_add(more);
        self.end = at.saturating_add(step);
        let is_early = false;
        caller.note(hash, CallerTurn { at, is_early });
        more * MICROSECOND
    }

    /// Counts one more caller. Returns those of the present span and the one before, itself included: a span is the
    /// refill of the burst, a second at least.
    fn count(&mut self, refused: &RefusedWait) -> u64 {
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

    /// The word of nobody.
    pub(super) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Returns the turn of the caller with this hash, if the word is its own by the tag.
    fn turn(&self, hash: u64) -> Option<CallerTurn> {
        let word = self.0.load(Ordering::Relaxed);
        (word & Self::TAG == hash & Self::TAG).then_some(CallerTurn {
            at: word & Self::TIME,
            is_early: word & Self::EARLY != 0,
        })
    }

    /// Notes a turn. Under the lock of the caller's queue; one of another queue may write the same word, and wins or
    /// loses whole.
    fn note(&self, hash: u64, CallerTurn { at, is_early }: CallerTurn) {
        let early = if is_early { Self::EARLY } else { 0 };
        let word = hash & Self::TAG | early | at.min(Self::TIME);
        self.0.store(word, Ordering::Relaxed);
    }
}
