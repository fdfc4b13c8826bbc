//! The layer.

mod builder;

use std::sync::Arc;

use tower::Layer;

pub use self::builder::ThrottleLayerBuilder;
use crate::{
    engine::Engine,
    handle::Handle,
    rules::{Rules, RulesError},
    service::Throttle,
};

/// A layer that throttles by method and path. The [crate](crate) documentation describes it.
///
/// ```
/// use tower_throttle::{Rate, Rules, ThrottleLayer};
///
/// let rules = Rules::new()
///     .default_route(Rate::per_second(10).burst(5))
///     .route("POST /v1/chat/completions", Rate::per_second(2).burst(4));
/// let throttle = ThrottleLayer::new(rules)?;
/// # let _ = throttle;
/// # Ok::<(), tower_throttle::RulesError>(())
/// ```
///
/// [`ThrottleLayer::builder`] has all settings other than the rules. A built layer changes only through its
/// [`handle`](Self::handle).
///
/// The limits and their balances are made with the layer, and all services that it or its clones wrap share them,
/// however often a framework wraps and clones.
///
/// The type has no type parameters, so that a function can return it and a struct can hold it.
#[derive(Debug, Clone)]
#[must_use]
pub struct ThrottleLayer {
    engine: Arc<Engine>,
}

impl ThrottleLayer {
    /// Returns a layer that enforces `rules` and leaves all settings at their defaults. All buckets are full.
    ///
    /// # Errors
    ///
    /// Those of [`ThrottleLayerBuilder::build`].
    pub fn new(rules: Rules) -> Result<Self, RulesError> {
        Self::builder(rules).build()
    }

    /// Returns a builder of a layer that enforces `rules`, for all other settings.
    pub fn builder(rules: Rules) -> ThrottleLayerBuilder {
        ThrottleLayerBuilder::new(rules)
    }

    /// Returns a handle to this throttle, which reloads its rules and inspects it.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle::new(&self.engine)
    }

    /// The engine, for layers that stand outside of this one.
    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// Returns the number of requests that were charged to overflow buckets, since the table of clients had no room;
    /// see [`Clients::max_clients`](crate::Clients::max_clients). Each limit of a request counts, including those given
    /// back because another limit refused.
    #[must_use]
    pub fn overflowed(&self) -> u64 {
        self.engine.active.rules().limiter.clients.overflowed()
    }
}

impl<S> Layer<S> for ThrottleLayer {
    type Service = Throttle<S>;

    fn layer(&self, inner: S) -> Throttle<S> {
        Throttle::new(inner, Arc::clone(&self.engine))
    }
}

// After the others, as its methods are on the page of the layer.
#[cfg(feature = "test-util")]
mod at;

#[cfg(test)]
mod tests {
    use std::fmt;

    use super::*;

    #[test]
    fn auto_traits() {
        fn traits<T: Clone + fmt::Debug + Send + Sync + Unpin + 'static>() {}
        traits::<ThrottleLayer>();
        traits::<ThrottleLayerBuilder>();
        traits::<Throttle<()>>();
    }

    /// Threads ask for as long as two lines of the clock hold, and each request is decided between two of its moments.
    #[cfg(feature = "quanta")]
    #[test]
    fn the_bound_holds_by_the_counter() {
        use std::{convert::Infallible, thread, time::Duration};

        use http::{Request, Response};
        use tower::{ServiceExt, service_fn};

        use crate::{clock::Clock, limit::rate::Rate, windows};

        const BURST: u64 = 5;
        const INTERVAL: u64 = 100_000;
        let rate = Rate::new(1, Duration::from_nanos(INTERVAL)).burst(BURST);
        let throttle = ThrottleLayer::builder(Rules::new().total(rate))
            .clock(Clock::counter())
            .build()
            .expect("proper rules");
        let limiter = Arc::clone(&throttle.engine.active.rules().limiter);
        let end = limiter.now() + 1_500_000_000;
        let ask = || {
            let mut admitted = Vec::new();
            let runtime = tokio::runtime::Builder::new_current_thread().build();
            let runtime = runtime.expect("a runtime");
            let serve = |_: Request<()>| async { Ok::<_, Infallible>(Response::new(())) };
            loop {
                let before = limiter.now_ordered();
                let service = throttle.layer(service_fn(serve));
                let Ok(response) = runtime.block_on(service.oneshot(Request::new(())));
                let after = limiter.now_ordered();
                if response.status().is_success() {
                    admitted.push((before, after));
                }
                if after > end {
                    return admitted;
                }
            }
        };
        let admitted: Vec<_> = thread::scope(|scope| {
            let threads = [(); 3].map(|()| scope.spawn(ask));
            let admitted = threads.map(|thread| thread.join().expect("no panic"));
            admitted.into_iter().flatten().collect()
        });
        assert!(admitted.len() >= 5, "the burst at least");
        assert_eq!(windows::too_many(&admitted, BURST, INTERVAL), None);
    }
}
