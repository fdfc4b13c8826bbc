//! The admission: the guard of an admitted request, which gives back slots and unused tokens.
//!
//! A request that is charged only on rates and quotas has nothing to give back, and gets no admission. With slots or
//! model tokens it gets one, which moves with the request: from the decision through the future of the inner service to
//! the body of the response, which drops it at its end.
//!
//! # Invariants
//!
//! - **Freed once, whatever the end.** Slots come back in `Drop`, and nowhere else: at the end of the body, at its
//!   error, as a response or future is dropped, and on a panic. The guard is made before the inner service is called.
//! - **Back to its origin.** Units go back to the [`Origin`] that was charged: the limits, limiter and store client of
//!   the decision, even if a reload has replaced them. Buckets that a reload has closed pass them on.
//! - **Settled once.** A [`reservation`] of model tokens is settled by a report, by [`Admission::complete`]
//!   or by the drop of the admission, whichever comes first. The others change nothing then.
//! - **Tokens before slots.** An admission settles its tokens before it frees its slots, so that a request woken by a
//!   slot finds the final balance of tokens.
//!
//! # Size
//!
//! The guard is moved with each future and each response, so it has three words, or one if a request holds only one
//! slot ([`HeldSlot`]). Rare state is on the heap: a reservation with the slots beside it, and slots whose claim does
//! not fit (see [`Permits`]).
//!
//! # Who may call it
//!
//! The engine makes [`Admission`]s and, for a request that holds slots while its other limits are in a store,
//! [`Permits`]. The body of the response reports that it is [complete](Admission::complete). A handler's `Usage`
//! reaches only the reservation. Once a request is admitted, only this module gives back its units.

mod hold;
mod origin;
pub(crate) mod reservation;
mod shared;
mod store_account;
#[cfg(test)]
mod tests_support;

use std::sync::Arc;

pub use self::hold::{Hold, KeptRequest};
pub(crate) use self::{
    origin::Origin,
    shared::{BoundedRequests, SharedAdmission},
};
use self::{reservation::TokenReservation, shared::AnswerHold};
use crate::{
    gate::Passage,
    limiter::{
        limit_set::{BoundLimit, Demand},
        readings::LimitReadings,
    },
};

/// The guard of one admitted request. It lives as long as the request: from the decision, through the inner service's
/// future, to the end of the response body. Dropped without being [complete](Self::complete), the response was cut
/// short.
#[derive(Debug)]
pub(crate) enum Admission {
    /// Slots, which come back as they are dropped. Without caps it holds none.
    Slots { _permits: Permits },
    /// Model tokens, and the slots beside them.
    Tokens(TokenAdmission),
    /// Any of these or nothing, of a request that is counted as inside.
    Counted(Box<CountedAdmission>),
    /// The part of the answer in any of these, which guards may hold as well.
    Shared(AnswerHold),
}

/// An admission that is counted as inside. Counted out last.
#[derive(Debug)]
pub(crate) struct CountedAdmission {
    admission: Option<Admission>,
    _passage: Passage,
}

/// An admission with model tokens. Dropped, it ends the reservation, if nothing has settled it yet, and then frees the
/// slots, which lie in the reservation.
#[derive(Debug)]
pub(crate) struct TokenAdmission {
    /// Shared with the handler's `Usage`, which may outlive the admission.
    reservation: Arc<TokenReservation>,
}

impl Admission {
    /// Makes the guard of a request that was admitted by the limits of `origin`, whose charges have left `readings`:
    /// one for each limit, in their order. `held` are slots that it has taken before, for the same limits of this
    /// process; without them, the readings tell which slots it holds.
    #[inline]
    pub(crate) fn new(
        origin: &Arc<Origin>,
        demand: Demand,
        readings: &LimitReadings,
        held: Option<Permits>,
    ) -> Self {
        let permits = held.unwrap_or_else(|| Permits::new(origin, demand, readings));
        match origin.limit_set.has_account() {
            false => Self::of_slots(permits),
            true => Self::Tokens(TokenAdmission {
                reservation: TokenReservation::new(origin, demand, readings, permits),
            }),
        }
    }

    /// Makes the guard of a request that holds slots, where model tokens are not limited.
    #[inline]
    pub(crate) fn of_slots(permits: Permits) -> Self {
        Self::Slots { _permits: permits }
    }

    /// Makes the guard of a request that is counted as inside, whatever else it holds.
    #[cold]
    pub(crate) fn counted(admission: Option<Self>, passage: Passage) -> Self {
        Self::Counted(Box::new(CountedAdmission {
            admission,
            _passage: passage,
        }))
    }

    /// Makes the guard of a request that its handler may keep, whatever it holds: charged by `origin`. Of these that
    /// are kept for a bounded time, `bounded` has a list.
    #[cold]
    pub(crate) fn shared(
        admission: Option<Self>,
        origin: &Arc<Origin>,
        bounded: &Arc<BoundedRequests>,
    ) -> Self {
        let nothing = || {
            let readings = LimitReadings::default();
            Self::of_slots(Permits::new(origin, Demand::default(), &readings))
        };
        let admission = admission.unwrap_or_else(nothing);
        Self::Shared(SharedAdmission::share(admission, origin, bounded))
    }

    /// Returns the hold for the handler, if it may keep the request. `outer` is that of a throttle around this one.
    pub(crate) fn hold(&self, outer: impl FnOnce() -> Option<Hold>) -> Option<Hold> {
        match self {
            Self::Shared(answer) => Some(Hold::of(answer, outer())),
            _ => None,
        }
    }

    /// Returns the reservation of model tokens, if they are limited.
    pub(crate) fn reservation(&self) -> Option<&Arc<TokenReservation>> {
        match self {
            Self::Slots { .. } => None,
            Self::Tokens(tokens) => Some(&tokens.reservation),
            Self::Counted(counted) => counted.admission.as_ref()?.reservation(),
            Self::Shared(answer) => answer.reservation(),
        }
    }

    /// Notes that the response came to its end. Without a report the reservation stands, and what was counted beyond
    /// it.
    pub(crate) fn complete(&self) {
        match self {
            Self::Shared(answer) => answer.complete(),
            others => {
                if let Some(reservation) = others.reservation() {
                    reservation.end();
                }
            }
        }
    }

    /// Returns whether a failure of the inner service is refunded.
    #[inline]
    pub(crate) fn refunds(&self) -> bool {
        self.reservation()
            .is_some_and(|reservation| reservation.refunds())
    }

    /// Notes that the inner service has failed, where that is refunded. A request that a guard keeps gets nothing back.
    #[cold]
    pub(crate) fn fail(&self) {
        self.close();
        if let Some(reservation) = self.reservation() {
            reservation.refund();
        }
    }

    /// Notes that the answer is about to report its usage. The report is added to the account, and does not settle it,
    /// if a guard keeps the request.
    pub(crate) fn close(&self) {
        if let Self::Shared(answer) = self {
            answer.close();
        }
    }
}

impl Drop for TokenAdmission {
    fn drop(&mut self) {
        self.reservation.end();
        drop(self.reservation.take_permits());
    }
}

/// The slot of a request, for a cap that is the only one of its limits and has one bucket for all clients. Dropping it
/// returns the slot and wakes waiting requests, as with [`Permits`], which hold any slots.
#[derive(Debug)]
pub(crate) struct HeldSlot(Arc<Origin>);

impl HeldSlot {
    /// Notes the slot that an admission has taken by the limits of `origin`. It takes nothing itself. `None`: they have
    /// other caps than one, and [`Permits`] note their slots.
    #[inline]
    pub(crate) fn own(origin: &Arc<Origin>) -> Option<Self> {
        let is_one = origin.only_cap.is_some();
        is_one.then(|| Self(Arc::clone(origin)))
    }
}

/// Gives the slot back to the bucket that it was taken from.
impl Drop for HeldSlot {
    #[inline]
    fn drop(&mut self) {
        self.0.free_only_slot();
    }
}

/// The slots that a request holds of caps in flight. Dropping them returns each slot and wakes waiting requests.
///
/// Caps are always in this process, even if other limits are in a store. The type is small, since it moves with each
/// request: two bits for each of sixteen caps and half of a client's hash, which is the whole hash if clients have no
/// secret. A larger claim is on the heap.
#[derive(Debug)]
pub(crate) struct Permits(Claim);

/// The slots that are held, and of which balances.
#[derive(Debug)]
enum Claim {
    /// The claim of most requests.
    Few {
        origin: Arc<Origin>,
        /// The client. Zero if no cap is one of clients.
        identity: u64,
        /// A bit for each cap of the limits, in their order. Set if a slot of it is held: shadows that would have
        /// refused have given none.
        held: u16,
        /// A bit for each of them. Set if the slot is one of a balance that strangers share, since the table of clients
        /// had no room.
        shared: u16,
    },
    /// The claim of a client whose hash is longer, or on more caps, as only requests have that may mean many routes, or
    /// whose model was not read.
    Many(Box<ManySlots>),
}

/// A claim of any size.
#[derive(Debug)]
struct ManySlots {
    origin: Arc<Origin>,
    identity: u128,
    /// Two flags for each cap: a slot is held; strangers share it.
    flags: Vec<(bool, bool)>,
}

impl Permits {
    /// Notes the slots that an admission has taken, as its `readings` tell: one for each limit of `origin`, in their
    /// order. It takes nothing itself: the caller has charged them, and must not drop two of these for one charge.
    #[inline]
    pub(crate) fn new(origin: &Arc<Origin>, demand: Demand, readings: &LimitReadings) -> Self {
        let readings = readings.as_slice();
        let flags = |limit: usize| {
            let reading = readings.get(limit);
            reading.map_or((false, false), |it| (it.is_charged(), it.shared))
        };
        Self::of(origin, demand, flags)
    }

    /// Notes a slot of each cap of `origin`, all of them of balances that are not shared. As [`new`](Self::new), where
    /// there are no readings.
    #[inline]
    pub(crate) fn own(origin: &Arc<Origin>, demand: Demand) -> Self {
        Self::of(origin, demand, |_| (true, false))
    }

    /// Notes the slots of the caps. `flags` tells, by the number of the limit, whether its slot is held, and whether it
    /// is one of a balance that strangers share.
    #[inline(always)]
    fn of(origin: &Arc<Origin>, demand: Demand, flags: impl Fn(usize) -> (bool, bool)) -> Self {
        let (mut held, mut shared, mut caps) = (0, 0, 0);
        let mut identity = 0;
        for (limit, bound) in Self::caps(origin) {
            if bound.is_of_clients() {
                identity = demand.identity;
            }
            let (is_held, is_shared) = flags(limit);
            held |= u16::from(is_held).checked_shl(caps).unwrap_or(0);
            shared |= u16::from(is_shared).checked_shl(caps).unwrap_or(0);
            caps += 1;
        }
        match u64::try_from(identity) {
            Ok(identity) if caps <= u16::BITS => Self(Claim::Few {
                origin: Arc::clone(origin),
                identity,
                held,
                shared,
            }),
            _ => Self::many(origin, demand, flags),
        }
    }

    /// A claim that is too large to lie with the rest of the request.
    #[cold]
    fn many(origin: &Arc<Origin>, demand: Demand, flags: impl Fn(usize) -> (bool, bool)) -> Self {
        Self(Claim::Many(Box::new(ManySlots {
            origin: Arc::clone(origin),
            identity: demand.identity,
            flags: Self::caps(origin).map(|(limit, _)| flags(limit)).collect(),
        })))
    }

    /// Lists the caps among the limits, each with the number of the limit.
    fn caps(origin: &Origin) -> impl Iterator<Item = (usize, &BoundLimit)> {
        let limits = origin.limit_set.limits.iter().enumerate();
        limits.filter(|(_, bound)| bound.limit.is_slots())
    }
}

/// Gives each slot back to the balance that it was taken from.
impl Drop for Permits {
    fn drop(&mut self) {
        match &self.0 {
            Claim::Few {
                origin,
                identity,
                held,
                shared,
            } => {
                let is_set = |bits: u16, cap: usize| bits >> cap & 1 == 1;
                let flags = |cap| (is_set(*held, cap), is_set(*shared, cap));
                give_back(origin, (*identity).into(), flags);
            }
            Claim::Many(slots) => {
                let ManySlots {
                    origin,
                    identity,
                    flags,
                } = &**slots;
                give_back(origin, *identity, |cap| flags[cap]);
            }
        }
    }
}

/// Gives back the slots of which `flags` tells, by the number of their cap, that they are held, and if strangers share
/// them.
#[inline]
fn give_back(origin: &Origin, identity: u128, flags: impl Fn(usize) -> (bool, bool)) {
    let limits = origin.limit_set.limits.iter();
    let slots = limits.filter(|bound| bound.limit.is_slots());
    for (cap, bound) in slots.enumerate() {
        let (is_held, is_shared) = flags(cap);
        if is_held {
            origin.refund(bound, identity, is_shared, 1);
        }
    }
}
