//! Admissions that outlive their answers: those of requests that a handler keeps in flight.
//!
//! On a route with [`Limits::keep`](crate::Limits::keep) the admission of a request is shared by holders: its answer,
//! and the guards that its handler keeps. The last holder ends it. All other admissions belong to their answers alone.
//!
//! # Invariants
//!
//! - **Ended once**: by the last holder, or at the bound of its guards. The admission is taken out under the lock, and
//!   dropped when the lock is free.
//! - **No guard after the end.** The answer that is the only holder closes the admission before it settles, so that
//!   whoever has a guard has an open account.
//! - **A bound ends only lost guards**: a request is among the [`BoundedRequests`] exactly while guards with bounds
//!   hold it, and nothing else does. So these are no more than requests in flight.
//!
//! # Locking
//!
//! The lock of an admission comes before that of the bounded requests and before that of the reservation. No lock is
//! held while slots come back.
//!
//! # Memory ordering
//!
//! `earliest` is relaxed: it is written under the lock of the requests, and a thread that does not see it yet ends a
//! lost request at its next refusal.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, Weak},
    time::Duration,
};

use super::{Admission, Origin, reservation::TokenReservation};
use crate::{
    clock::{Nanos, nanos},
    sync::{AtomicU64, Mutex, Ordering},
};

/// An admission that the answer of a request shares with guards.
#[derive(Debug)]
pub(crate) struct SharedAdmission {
    origin: Arc<Origin>,
    /// The reservation of the admission, which is read without the lock.
    reservation: Option<Arc<TokenReservation>>,
    bounded: Arc<BoundedRequests>,
    state: Mutex<HoldState>,
}

/// The holders of an admission.
#[derive(Debug)]
struct HoldState {
    /// Taken at the end.
    admission: Option<Admission>,
    /// Set if no more guards are given, since the answer is ending and was the only holder.
    is_closed: bool,
    /// The holders without a bound: the answer, and guards.
    unbounded: usize,
    /// The bounds of the other guards.
    bounds: Vec<Nanos>,
    /// The place among the bounded requests.
    place: Option<BoundedPlace>,
}

/// The place of a request among the bounded ones: the latest bound of its guards, and a number.
type BoundedPlace = (Nanos, u64);

impl HoldState {
    /// Returns the moment from which the request counts as lost. `None`: a holder has no bound.
    fn until(&self) -> Option<Nanos> {
        let latest = self.bounds.iter().copied().max();
        latest.filter(|_| self.unbounded == 0)
    }
}

impl SharedAdmission {
    /// Shares an admission, and returns the hold of the answer, which is the first holder.
    pub(crate) fn share(
        admission: Admission,
        origin: &Arc<Origin>,
        bounded: &Arc<BoundedRequests>,
    ) -> AnswerHold {
        AnswerHold(Arc::new(Self {
            origin: Arc::clone(origin),
            reservation: admission.reservation().cloned(),
            bounded: Arc::clone(bounded),
            state: Mutex::new(HoldState {
                admission: Some(admission),
                is_closed: false,
                unbounded: 1,
                bounds: Vec::new(),
                place: None,
            }),
        }))
    }

    /// Adds a guard, with or without a bound. `None`: the request has ended.
    pub(super) fn keep(self: &Arc<Self>, most: Option<Duration>) -> Option<OneGuard> {
        let until = most.map(|most| self.origin.limiter.now().saturating_add(nanos(most)));
        self.with(|state| {
            if state.is_closed || state.admission.is_none() {
                return None;
            }
            match until {
                None => state.unbounded += 1,
                Some(until) => state.bounds.push(until),
            }
            self.moved(state);
            let request = Arc::clone(self);
            Some(OneGuard { request, until })
        })
    }

    /// Removes a holder, and ends the admission if it was the last. Without effect if the admission ended at a bound.
    ///
    /// If it has a bound from now on, or an earlier one, those in line look again, and wait no longer than to that.
    fn release(self: &Arc<Self>, until: Option<Nanos>) {
        let (ended, is_moved) = self.with(|state| {
            if state.admission.is_none() {
                return (None, false);
            }
            match until {
                None => state.unbounded -= 1,
                Some(until) => {
                    let own = state.bounds.iter().position(|bound| *bound == until);
                    if let Some(own) = own {
                        state.bounds.swap_remove(own);
                    }
                }
            }
            let is_moved = self.moved(state) && state.place.is_some();
            let is_last = state.unbounded == 0 && state.bounds.is_empty();
            (state.admission.take_if(|_| is_last), is_moved)
        });
        drop(ended);
        let Origin {
            limiter, limit_set, ..
        } = &*self.origin;
        if is_moved && limit_set.has_slots {
            limiter.queues.wake_all(|| limiter.now());
        }
    }

    /// Keeps the place among the bounded requests in step with the holders. Returns whether it has changed. The caller
    /// holds the lock.
    fn moved(self: &Arc<Self>, state: &mut HoldState) -> bool {
        let until = state.until();
        let is_moved = state.place.map(|(until, _)| until) != until;
        if is_moved {
            if let Some(place) = state.place.take() {
                self.bounded.remove(place);
            }
            state.place = until.map(|until| self.bounded.insert(until, self));
        }
        is_moved
    }

    /// Takes the admission out if the request is lost at `now`.
    fn take_lost(&self, now: Nanos) -> Option<Admission> {
        self.with(|state| {
            let is_lost = state.until().is_some_and(|until| until <= now);
            if is_lost {
                state.place = None;
            }
            state.admission.take_if(|_| is_lost)
        })
    }

    /// Returns the key of its route.
    pub(super) fn route(&self) -> &str {
        &self.origin.limit_set.route
    }

    fn with<T>(&self, work: impl FnOnce(&mut HoldState) -> T) -> T {
        // Each step leaves the holders whole.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        work(&mut state)
    }
}

/// The hold of an answer on a shared admission, which its drop ends.
#[derive(Debug)]
pub(crate) struct AnswerHold(Arc<SharedAdmission>);

impl AnswerHold {
    pub(super) fn reservation(&self) -> Option<&Arc<TokenReservation>> {
        self.0.reservation.as_ref()
    }

    /// Returns the request, of which guards may be kept.
    pub(super) fn request(&self) -> &Arc<SharedAdmission> {
        &self.0
    }

    /// Notes that the answer is about to settle. Returns whether guards keep the account open, so that the answer adds
    /// to it. If not, no guard is given from now on.
    pub(super) fn close(&self) -> bool {
        let is_kept = self.0.with(|state| {
            let is_kept = state.unbounded > 1 || !state.bounds.is_empty();
            state.is_closed |= !is_kept;
            is_kept
        });
        if let Some(reservation) = self.reservation().filter(|_| is_kept) {
            reservation.keep_open();
        }
        is_kept
    }

    /// Notes that the answer came to its end, which is the end of the request unless a guard keeps it.
    pub(super) fn complete(&self) {
        if !self.close() {
            if let Some(reservation) = self.reservation() {
                reservation.end();
            }
        }
    }
}

impl Drop for AnswerHold {
    fn drop(&mut self) {
        self.0.release(None);
    }
}

/// The guard of one throttle.
pub(super) struct OneGuard {
    request: Arc<SharedAdmission>,
    /// Its bound.
    until: Option<Nanos>,
}

impl OneGuard {
    pub(super) fn request(&self) -> &SharedAdmission {
        &self.request
    }

    /// Returns whether the request has ended at the bound of its guards.
    pub(super) fn has_expired(&self) -> bool {
        self.request.with(|state| state.admission.is_none())
    }
}

impl Drop for OneGuard {
    fn drop(&mut self) {
        self.request.release(self.until);
    }
}

/// The requests of a throttle that are held by guards with bounds alone, in the order of these.
#[derive(Debug)]
pub(crate) struct BoundedRequests {
    /// The earliest bound, or `Nanos::MAX`: a refusal looks at this alone.
    earliest: AtomicU64,
    places: Mutex<BoundedPlaces>,
}

#[derive(Debug, Default)]
struct BoundedPlaces {
    /// The number of the next place.
    next: u64,
    /// Weak, since the requests have this, and whoever has a guard has the request.
    requests: BTreeMap<BoundedPlace, Weak<SharedAdmission>>,
}

impl BoundedRequests {
    pub(crate) fn new() -> Self {
        Self {
            earliest: AtomicU64::new(Nanos::MAX),
            places: Mutex::new(BoundedPlaces::default()),
        }
    }

    /// Returns whether a request may be lost at `now`.
    #[inline]
    pub(crate) fn is_due(&self, now: Nanos) -> bool {
        now >= self.earliest()
    }

    /// Returns the earliest bound, or `Nanos::MAX`.
    #[inline]
    pub(crate) fn earliest(&self) -> Nanos {
        self.earliest.load(Ordering::Relaxed)
    }

    /// Ends the requests that are lost at `now`, and calls `tell` with the key of the route of each. Returns whether
    /// there were some.
    pub(crate) fn end_lost(&self, now: Nanos, mut tell: impl FnMut(&str)) -> bool {
        let mut any = false;
        while let Some(request) = self.take_due(now) {
            let Some(request) = request.upgrade() else {
                continue;
            };
            if let Some(admission) = request.take_lost(now) {
                drop(admission);
                let limit_set = &request.origin.limit_set;
                limit_set.counters.expired.add(1);
                any = true;
                tell(&limit_set.route);
            }
        }
        any
    }

    fn insert(&self, until: Nanos, request: &Arc<SharedAdmission>) -> BoundedPlace {
        self.with(|places| {
            let place = (until, places.next);
            places.next += 1;
            places.requests.insert(place, Arc::downgrade(request));
            place
        })
    }

    fn remove(&self, place: BoundedPlace) {
        self.with(|places| places.requests.remove(&place));
    }

    /// Returns the number of requests.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.with(|places| places.requests.len())
    }

    fn take_due(&self, now: Nanos) -> Option<Weak<SharedAdmission>> {
        self.with(|places| {
            let first = places.requests.first_entry()?;
            let (until, _) = *first.key();
            (until <= now).then(|| first.remove())
        })
    }

    fn with<T>(&self, work: impl FnOnce(&mut BoundedPlaces) -> T) -> T {
        let places = self.places.lock();
        let mut places = places.unwrap_or_else(PoisonError::into_inner);
        let result = work(&mut places);
        let first = places.requests.first_key_value();
        let earliest = first.map_or(Nanos::MAX, |((until, _), _)| *until);
        self.earliest.store(earliest, Ordering::Relaxed);
        result
    }
}
