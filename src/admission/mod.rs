//! The admission: the guard that an admitted request holds, and gives back what has to come back.
//!
//! A request that is charged on rates and quotas alone has nothing to give back, and gets no admission. With slots or
//! model tokens it gets one, and the guard wanders with the request: from the decision through the future of the inner
//! service to the body of the response, which lets it go when it ends.
//!
//! # Invariants
//!
//! - **Freed once, whatever the end.** Slots come back in `Drop`, and nowhere else: at the end of the body, at its
//!   error, as a response or future is dropped, and on a panic. The guard is made before the inner service is called.
//! - **Back to where it was taken.** What goes back goes to the [`Origin`] that was charged: the limits, limiter and
//!   store client of the decision, whatever a reload has put in their place. Buckets that a reload has closed pass it
//!   on.
//! - **Settled once.** A [`reservation`] of model tokens is settled by a report, by [`Admission::complete`]
//!   or by the drop of the admission, whichever comes first. The others change nothing then.
//! - **Tokens before slots.** An admission settles its tokens before it frees its slots, so that a request that is
//!   woken by a slot finds the balance of tokens as it will stay.
//!
//! # Who may call it
//!
//! The engine makes [`Admission`]s and, for a request that holds slots while its other limits lie in a store,
//! [`Permits`]. The body of the response tells that it is [complete](Admission::complete). A handler's `Usage` reaches
//! the reservation alone. Once a request is admitted, only this module gives back what it was charged.

mod origin;
pub(crate) mod reservation;

use std::sync::Arc;

pub(crate) use self::origin::Origin;
use self::reservation::TokenReservation;
use crate::limiter::{limit_set::Demand, readings::LimitReadings};

/// The guard of one admitted request. It lives as long as the request: from the decision, through the inner service's
/// future, to the end of the response body. Dropped without being [complete](Self::complete), the response was cut
/// short.
#[derive(Debug)]
pub(crate) struct Admission {
    /// The slots, which come back as this field is dropped: after the reservation is settled. Without caps it holds
    /// none.
    _permits: Permits,
    /// The model tokens, if they are limited. Shared with the handler's `Usage`, which may outlive the admission.
    reservation: Option<Arc<TokenReservation>>,
}

impl Admission {
    /// Makes the guard of a request that was admitted by the limits of `origin`, whose charges have left `readings`:
    /// one for each limit, in their order. `held` are slots that it has taken before, for the same limits of this
    /// process; without them, the readings tell which slots it holds.
    #[inline(never)]
    pub(crate) fn new(
        origin: &Arc<Origin>,
        demand: Demand,
        readings: &LimitReadings,
        held: Option<Permits>,
    ) -> Self {
        Self {
            _permits: held.unwrap_or_else(|| Permits::new(origin, demand, readings)),
            reservation: origin
                .limit_set
                .has_tokens
                .then(|| TokenReservation::new(origin, demand, readings)),
        }
    }

    /// Returns the reservation of model tokens, if they are limited.
    pub(crate) fn reservation(&self) -> Option<&Arc<TokenReservation>> {
        self.reservation.as_ref()
    }

    /// Notes that the response came to its end. Without a report the reservation stands, or what was counted if that is
    /// more.
    pub(crate) fn complete(&self) {
        if let Some(reservation) = &self.reservation {
            reservation.complete();
        }
    }
}

/// Settles a response that was cut short, if nothing has settled it yet.
impl Drop for Admission {
    fn drop(&mut self) {
        if let Some(reservation) = &self.reservation {
            reservation.cut_short();
        }
    }
}

/// The slots that a request holds of caps on requests in flight. Each comes back when this is dropped, and wakes who
/// waits for it.
///
/// Caps lie in this process always, also where other limits lie in a store. Kept small, for it moves with each request:
/// two bits for each of 32 caps, and a box for the rare request that has more.
#[derive(Debug)]
pub(crate) struct Permits {
    origin: Arc<Origin>,
    /// The client, in halves, which need no more than a word's alignment.
    identity: [u64; 2],
    /// A bit for each of the first caps of the limits, in their order. Set if a slot of it is held: shadows that would
    /// have refused have given none.
    held: u32,
    /// A bit for each of them. Set if the slot is one of a balance that strangers share, since the table of clients had
    /// no room.
    shared: u32,
    /// The other caps, which only requests have that may mean many routes.
    other_caps: Option<Box<OtherCaps>>,
}

/// Two flags for each cap that has no bit: a slot is held; strangers share it.
#[derive(Debug)]
struct OtherCaps(Vec<(bool, bool)>);

impl Permits {
    /// The number of caps that have a bit.
    const BITS: usize = 32;

    /// Notes the slots that an admission has taken, as its `readings` tell: one for each limit of `origin`, in their
    /// order. It takes nothing itself: the caller has charged them, and must not drop two of these for one charge.
    pub(crate) fn new(origin: &Arc<Origin>, demand: Demand, readings: &LimitReadings) -> Self {
        let (mut held, mut shared) = (0, 0);
        let mut others = Vec::new();
        let readings = origin.limit_set.limits.iter().zip(readings.as_slice());
        let slots = readings.filter(|(bound, _)| bound.limit.is_slots());
        for (bit, (_, reading)) in slots.enumerate() {
            if bit < Self::BITS {
                held |= u32::from(!reading.refused) << bit;
                shared |= u32::from(reading.shared) << bit;
            } else {
                others.push((!reading.refused, reading.shared));
            }
        }
        Self {
            origin: Arc::clone(origin),
            identity: [demand.identity as u64, (demand.identity >> 64) as u64],
            held,
            shared,
            other_caps: (!others.is_empty()).then(|| Box::new(OtherCaps(others))),
        }
    }

    /// Returns two flags of a cap: a slot is held; strangers share it.
    fn of(&self, cap: usize) -> (bool, bool) {
        match &self.other_caps {
            Some(others) if cap >= Self::BITS => others.0[cap - Self::BITS],
            _ => (self.held >> cap & 1 == 1, self.shared >> cap & 1 == 1),
        }
    }
}

/// Gives each slot back to the balance that it was taken from.
impl Drop for Permits {
    fn drop(&mut self) {
        let [low, high] = self.identity;
        let identity = u128::from(high) << 64 | u128::from(low);
        let limits = self.origin.limit_set.limits.iter();
        let slots = limits.filter(|bound| bound.limit.is_slots());
        for (cap, bound) in slots.enumerate() {
            let (is_held, is_shared) = self.of(cap);
            if is_held {
                self.origin.refund(bound, identity, is_shared, 1);
            }
        }
    }
}
