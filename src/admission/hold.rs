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
    fmt,
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
    fn keep(self: &Arc<Self>, most: Option<Duration>) -> Option<OneGuard> {
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

    /// Returns the inert hold for the handler. `outer` is that of a throttle around this one.
    pub(super) fn hold(&self, outer: Option<Hold>) -> Hold {
        Hold {
            request: Arc::clone(&self.0),
            outer: outer.map(Arc::new),
        }
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

/// The means of a handler to keep its request in flight beyond the response: for a WebSocket, a task, or an answer that
/// comes before the work is done.
///
/// A handler finds it in the extensions of a request, on routes with [`Limits::keep`](crate::Limits::keep) alone. With
/// the feature `axum` it is an extractor. It holds nothing by itself, so a copy that lies around does no harm:
/// [`keep`](Self::keep) returns the guard that holds.
///
/// ```
/// use std::convert::Infallible;
///
/// use http::{Request, Response, StatusCode};
/// use tower::{Layer, ServiceExt, service_fn};
/// use tower_throttle::{Limits, Rules, ThrottleLayer, body::Hold};
///
/// async fn start(mut request: Request<String>) -> Result<Response<String>, Infallible> {
///     let hold = request.extensions_mut().remove::<Hold>();
///     let kept = hold.and_then(|hold| hold.keep());
///     tokio::spawn(async move {
///         work(request.into_body()).await;
///         drop(kept); // The slot is free.
///     });
///     let mut response = Response::new(String::from("started"));
///     *response.status_mut() = StatusCode::ACCEPTED;
///     Ok(response)
/// }
///
/// async fn work(job: String) { /* … */ }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let rules = Rules::new().route("POST /jobs", Limits::new().in_flight(8).keep(true));
/// let service = ThrottleLayer::new(rules)?.layer(service_fn(start));
/// let request = Request::post("/jobs").body(String::from("a job"))?;
/// assert_eq!(service.oneshot(request).await?.status(), StatusCode::ACCEPTED);
/// # Ok(())
/// # }
/// ```
///
/// The guide [WebSockets and background work](crate::guides::connections) has more examples. Of several throttles
/// around one service each keeps its part.
#[derive(Clone)]
pub struct Hold {
    request: Arc<SharedAdmission>,
    outer: Option<Arc<Self>>,
}

impl Hold {
    /// Keeps the request in flight until the returned guard is dropped. `None`: the request has ended.
    ///
    /// The guard has the slots of the request, and keeps its account of model tokens open. Several guards may be kept;
    /// the request ends with the last of them, or with its response if that ends later. A guard is freed by a panic of
    /// its task and by the end of the runtime, as all values are. One that is never dropped holds its slots forever:
    /// [`keep_at_most`](Self::keep_at_most) bounds it.
    ///
    /// While a guard is kept, the [usage](crate::ThrottleLayerBuilder::usage_from_answers) that the response
    /// reports is added to the account, as by [`Usage::add`](crate::Usage::add), and does not settle it.
    pub fn keep(&self) -> Option<KeptRequest> {
        self.keep_for(None)
    }

    /// Keeps the request as [`keep`](Self::keep) does, for at most this time from now on.
    ///
    /// No timer ends it. When the time is over and the request is held by such guards alone, the next request that a
    /// cap in flight would refuse, or that may wait for a slot, ends the kept one first: its slots come back and its
    /// account ends, as if the guard had been dropped. A request that is the first in line for the slot does so when
    /// the time is over. The later drop of the guard does nothing. Such an end is counted in
    /// [`RouteSnapshot::expired`](crate::snapshot::RouteSnapshot::expired) and in metrics, and logged.
    ///
    /// With zero, the request may be ended as soon as its response has ended. The longest time is some 584 years; a
    /// longer one counts as that.
    pub fn keep_at_most(&self, most: Duration) -> Option<KeptRequest> {
        self.keep_for(Some(most))
    }

    fn keep_for(&self, most: Option<Duration>) -> Option<KeptRequest> {
        let own = self.request.keep(most)?;
        let outer = self.outer.as_ref().and_then(|outer| outer.keep_for(most));
        Some(KeptRequest {
            own,
            _outer: outer.map(Box::new),
        })
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let route = &self.request.origin.limit_set.route;
        f.debug_struct("Hold")
            .field("route", route)
            .finish_non_exhaustive()
    }
}

/// A guard that keeps a request in flight: its slots, its account of model tokens, and its count in
/// [`Handle::in_flight`](crate::Handle::in_flight). Made by [`Hold::keep`].
///
/// Move it into the task or the connection that goes on after the response. Dropping it ends the request, if nothing
/// else holds it. Tokens that were added until then stand.
#[must_use = "the request is kept until this is dropped"]
pub struct KeptRequest {
    own: OneGuard,
    _outer: Option<Box<Self>>,
}

impl KeptRequest {
    /// Tells whether the request was ended at the bound of [`Hold::keep_at_most`]. The guard holds nothing then.
    #[must_use]
    pub fn has_expired(&self) -> bool {
        let request = &self.own.request;
        request.with(|state| state.admission.is_none())
    }
}

impl fmt::Debug for KeptRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let route = &self.own.request.origin.limit_set.route;
        f.debug_struct("KeptRequest")
            .field("route", route)
            .field("has_expired", &self.has_expired())
            .finish_non_exhaustive()
    }
}

/// The guard of one throttle.
struct OneGuard {
    request: Arc<SharedAdmission>,
    /// Its bound.
    until: Option<Nanos>,
}

impl Drop for OneGuard {
    fn drop(&mut self) {
        self.request.release(self.until);
    }
}

#[cfg(all(test, not(throttle_loom)))]
mod tests {
    use super::*;

    #[test]
    fn auto_traits() {
        fn traits<T: fmt::Debug + Send + Sync + Unpin + 'static>() {}
        traits::<Hold>();
        traits::<KeptRequest>();
    }
}

#[cfg(all(test, not(throttle_loom)))]
mod bounded_tests {
    use super::{super::tests_support::KeptLimit, *};

    #[test]
    fn an_answer_that_is_complete_gives_no_guards() {
        let slots = KeptLimit::slots(2);
        for is_kept in [false, true] {
            let answer = slots.admit();
            let hold = answer.hold(None);
            let kept = is_kept.then(|| hold.keep());
            answer.complete();
            assert_eq!(hold.keep().is_some(), is_kept);
            drop((answer, kept));
            assert!(hold.keep().is_none());
            assert_eq!(slots.used(), 0);
        }
    }

    /// However many guards come and go, no more requests are listed than are held by bounded guards alone.
    #[test]
    fn the_list_is_no_longer_than_the_requests_that_only_bounded_guards_hold() {
        let slots = KeptLimit::slots(8);
        let listed = || slots.bounded.with(|places| places.requests.len());
        let answers: Vec<_> = (0..8).map(|_| slots.admit()).collect();
        let holds: Vec<_> = answers.iter().map(|answer| answer.hold(None)).collect();
        let minute = |minutes| Duration::from_secs(60 * minutes);
        let mut guards: Vec<_> = (0..100)
            .filter_map(|turn| holds[turn % 8].keep_at_most(minute(turn as u64)))
            .collect();
        assert_eq!(listed(), 0, "the answers hold them");
        drop(answers);
        assert_eq!(listed(), 8);
        let unbounded = holds[3].keep();
        assert_eq!(listed(), 7);
        guards.extend(holds[4].keep_at_most(Duration::MAX));
        assert_eq!((listed(), slots.used()), (7, 8));
        drop(unbounded);
        assert_eq!(listed(), 8);
        assert!(!slots.bounded.end_lost(0, |_| ()));
        assert!(slots.bounded.end_lost(Nanos::MAX - 1, |_| ()));
        assert_eq!((listed(), slots.used()), (1, 1), "the one without an end");
        for guard in guards {
            drop(guard);
            assert!(listed() <= 1, "those that have ended stay so");
        }
        assert_eq!((listed(), slots.used()), (0, 0));
        assert_eq!(slots.bounded.earliest(), Nanos::MAX);
    }
}

/// All interleavings of who keeps, who ends, and the refusal that ends what is lost. Run with `--cfg throttle_loom`.
#[cfg(all(test, throttle_loom))]
mod loom_tests {
    use loom::thread;

    use super::{super::tests_support::KeptLimit, *};
    use crate::{
        limit::{LimitSettings, rate::Rate, token_usage::TokenUsage},
        sync::model,
    };

    /// The answer ends while its handler keeps the request: a guard holds the slot, and no guard is given without one.
    #[test]
    fn loom_a_guard_has_the_slot_or_there_is_no_guard() {
        model(|| {
            let slots = KeptLimit::slots(2);
            let other = slots.admit();
            let answer = slots.admit();
            let hold = answer.hold(None);
            let ends = thread::spawn(move || {
                answer.complete();
                drop(answer);
            });
            let kept = hold.keep();
            ends.join().expect("no panic");
            assert_eq!(slots.used(), 1 + u64::from(kept.is_some()));
            drop(kept);
            assert_eq!(slots.used(), 1, "freed once");
            assert!(hold.keep().is_none());
            drop(other);
            assert_eq!(slots.used(), 0);
        });
    }

    /// A guard is dropped at its bound, while a refusal ends what is lost.
    #[test]
    fn loom_the_slot_of_a_lost_guard_comes_back_once() {
        model(|| {
            let slots = KeptLimit::slots(2);
            let other = slots.admit();
            let answer = slots.admit();
            let kept = answer.hold(None).keep_at_most(Duration::ZERO);
            drop(answer);
            let bounded = Arc::clone(&slots.bounded);
            let refusal = thread::spawn(move || {
                bounded.end_lost(Nanos::MAX - 1, |_| ());
            });
            drop(kept);
            refusal.join().expect("no panic");
            assert_eq!(slots.used(), 1, "freed once");
            assert_eq!(slots.bounded.with(|places| places.requests.len()), 0);
            drop(other);
        });
    }

    /// The answer reports three tokens and ends, while its handler keeps the request and does its part.
    fn loom_account(work: fn(&TokenReservation) -> bool, with_both: u64) {
        model(move || {
            // They are not refilled while the model runs.
            let rate = Rate::new(1, Duration::from_secs(1_000_000)).burst(10);
            let tokens = KeptLimit::new(LimitSettings::Tokens(rate));
            let answer = tokens.admit();
            let hold = answer.hold(None);
            let account = answer.reservation().cloned().expect("tokens are limited");
            let reported = Arc::clone(&account);
            let ends = thread::spawn(move || {
                answer.close();
                reported.settle_reported(TokenUsage::undivided(3), 0);
                answer.complete();
            });
            let kept = hold.keep();
            let is_taken = work(&account);
            drop(kept);
            ends.join().expect("no panic");
            let used = account.used().total();
            assert_eq!(tokens.used(), used, "charged with what was used");
            // Without a guard any more, the report may replace what was added.
            let expected = [3, if is_taken { with_both } else { 3 }];
            assert!(expected.contains(&used), "{used} of {expected:?}");
            assert!(!account.add(TokenUsage::undivided(1)), "settled");
        });
    }

    #[test]
    fn loom_what_a_guard_adds_and_the_answer_reports_is_charged_once() {
        loom_account(|account| account.add(TokenUsage::undivided(4)), 7);
    }

    #[test]
    fn loom_an_account_that_is_settled_under_a_guard_stays_so() {
        loom_account(|account| account.settle(TokenUsage::undivided(6)), 6);
    }

    /// The answer ends, its handler keeps the request, and a refusal ends what is lost, all at once.
    #[test]
    fn loom_a_request_is_kept_ended_and_lost_once() {
        model(|| {
            let slots = KeptLimit::slots(2);
            let other = slots.admit();
            let answer = slots.admit();
            let hold = answer.hold(None);
            let first = hold.keep_at_most(Duration::ZERO);
            let bounded = Arc::clone(&slots.bounded);
            let refusal = thread::spawn(move || {
                bounded.end_lost(Nanos::MAX - 1, |_| ());
            });
            let ends = thread::spawn(move || drop((answer, first)));
            let kept = hold.keep();
            refusal.join().expect("no panic");
            ends.join().expect("no panic");
            let is_kept = kept.as_ref().is_some_and(|kept| !kept.has_expired());
            assert_eq!(slots.used(), 1 + u64::from(is_kept));
            assert_eq!(
                kept.is_some(),
                is_kept,
                "a guard without a bound is not lost"
            );
            drop(kept);
            assert_eq!(slots.used(), 1, "freed once");
            assert_eq!(slots.bounded.with(|places| places.requests.len()), 0);
            drop(other);
        });
    }
}
