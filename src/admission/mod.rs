//! The guard of one admitted request.

mod origin;
pub(crate) mod reservation;

use std::sync::Arc;

pub(crate) use self::origin::Origin;
use self::reservation::TokenReservation;
use crate::limiter::{limit_set::Demand, readings::LimitReadings};

/// Lives as long as the request it admitted: from the decision, through the inner service's future, to
/// the end of the response body. What has to be given back when a request ends is given back by it.
#[derive(Debug)]
pub(crate) struct Admission {
    /// Given back when they are dropped. None are held where no limit is a cap.
    _permits: Permits,
    reservation: Option<Arc<TokenReservation>>,
}

impl Admission {
    /// Of a request that was admitted under a rule and has left `readings`. The slots may have been `held` before.
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

    /// Where model tokens are counted, if they are limited.
    pub(crate) fn account(&self) -> Option<&Arc<TokenReservation>> {
        self.reservation.as_ref()
    }

    /// The response came to its end. Dropped before that, it was cut short.
    pub(crate) fn complete(&self) {
        if let Some(reservation) = &self.reservation {
            reservation.complete();
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if let Some(reservation) = &self.reservation {
            reservation.cut_short();
        }
    }
}

/// The slots that a request holds. They come back when it is dropped.
#[derive(Debug)]
pub(crate) struct Permits {
    origin: Arc<Origin>,
    /// In halves, which need no more than a word's alignment.
    identity: [u64; 2],
    /// A bit for each of the first caps of the rule, in their order: whether a slot of it is held.
    held: u32,
    /// And whether it is one that strangers share.
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
