//! The face of a request that a handler keeps in flight: the hold in its extensions, and the guards that it gives.

use std::{fmt, sync::Arc, time::Duration};

use super::shared::{AnswerHold, OneGuard, SharedAdmission};

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
    /// Makes the hold of the request of an answer. `outer` is that of a throttle around this one.
    pub(super) fn of(answer: &AnswerHold, outer: Option<Self>) -> Self {
        Self {
            request: Arc::clone(answer.request()),
            outer: outer.map(Arc::new),
        }
    }

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
        f.debug_struct("Hold")
            .field("route", &self.request.route())
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
        self.own.has_expired()
    }
}

impl fmt::Debug for KeptRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeptRequest")
            .field("route", &self.own.request().route())
            .field("has_expired", &self.has_expired())
            .finish_non_exhaustive()
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
    use crate::clock::Nanos;

    #[test]
    fn an_answer_that_is_complete_gives_no_guards() {
        let slots = KeptLimit::slots(2);
        for is_kept in [false, true] {
            let answer = slots.admit();
            let hold = Hold::of(&answer, None);
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
        let listed = || slots.bounded.len();
        let answers: Vec<_> = (0..8).map(|_| slots.admit()).collect();
        let holds: Vec<_> = answers
            .iter()
            .map(|answer| Hold::of(answer, None))
            .collect();
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

    use super::{
        super::{reservation::TokenReservation, tests_support::KeptLimit},
        *,
    };
    use crate::{
        clock::Nanos,
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
            let hold = Hold::of(&answer, None);
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
            let kept = Hold::of(&answer, None).keep_at_most(Duration::ZERO);
            drop(answer);
            let bounded = Arc::clone(&slots.bounded);
            let refusal = thread::spawn(move || {
                bounded.end_lost(Nanos::MAX - 1, |_| ());
            });
            drop(kept);
            refusal.join().expect("no panic");
            assert_eq!(slots.used(), 1, "freed once");
            assert_eq!(slots.bounded.len(), 0);
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
            let hold = Hold::of(&answer, None);
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
            let hold = Hold::of(&answer, None);
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
            assert_eq!(slots.bounded.len(), 0);
            drop(other);
        });
    }
}
