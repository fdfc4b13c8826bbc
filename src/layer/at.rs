//! A layer with a custom wall clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{ThrottleLayer, ThrottleLayerBuilder};
use crate::clock::{Timeline, nanos};

impl ThrottleLayerBuilder {
    /// Sets the wall clock, by which windows of quotas begin and end, to `now` at this call. Default: the system's.
    /// With tokio's clock paused, a test knows when windows end, and a simulation has the same result at any time.
    ///
    /// A time before 1970 counts as the beginning of 1970, and a time after 8 August 2079 (2⁶² - 2⁶⁰ nanoseconds since
    /// the Unix epoch) as that moment.
    ///
    /// ```
    /// use std::time::{Duration, SystemTime};
    ///
    /// use tower_throttle::{Quota, Rules, ThrottleLayer};
    ///
    /// // Ten seconds before midnight.
    /// let now = SystemTime::UNIX_EPOCH + Duration::from_secs(20_000 * 86_400 - 10);
    /// let throttle = ThrottleLayer::builder(Rules::new().total(Quota::per_day(100)))
    ///     .wall_clock(now)
    ///     .build()?;
    /// # let _ = throttle;
    /// # Ok::<(), tower_throttle::RulesError>(())
    /// ```
    pub fn wall_clock(mut self, now: SystemTime) -> Self {
        let shown = now.duration_since(UNIX_EPOCH).map_or(0, nanos);
        self.timeline = Some(Timeline::suspendable_at(shown));
        self
    }
}

impl ThrottleLayer {
    /// Moves the wall clock forward by `passed` while the monotonic clock stands, as on a suspended machine. It has no
    /// effect on a layer that was built without [`wall_clock`](ThrottleLayerBuilder::wall_clock).
    pub fn suspend(&self, passed: Duration) {
        self.engine
            .active
            .rules()
            .limiter
            .clock()
            .suspend(nanos(passed));
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::{Request, Response, StatusCode};
    use tower::{Layer, ServiceExt, service_fn};

    use super::*;
    use crate::{
        decision::{Decision, DecisionIn},
        limit::{quota::Quota, rate::Rate},
        response::Dialect,
        rules::Rules,
    };

    #[tokio::test(start_paused = true)]
    async fn a_day_ends_when_the_clock_that_was_set_says_so() {
        let midnight = UNIX_EPOCH + Duration::from_secs(20_000 * 86_400);
        let before = Duration::from_nanos(10_000_000_001);
        let rules = Rules::new().total(Quota::per_day(1));
        let throttle = ThrottleLayer::builder(rules)
            .wall_clock(midnight - before)
            .decision(DecisionIn::Response)
            .build()
            .expect("rules");
        let serve = |_: Request<()>| async { Ok::<_, Infallible>(Response::new(())) };
        let ask = async || {
            let response = throttle
                .layer(service_fn(serve))
                .oneshot(Request::new(()))
                .await;
            let response = response.unwrap_or_else(|never| match never {});
            let decision = response.extensions().get::<Decision>().cloned();
            let decision = decision.expect("a decision");
            let quota = decision.limits().next().expect("one limit");
            (decision.is_admitted(), quota.full_in())
        };
        assert_eq!(ask().await, (true, before));
        tokio::time::advance(before - Duration::from_nanos(1)).await;
        assert_eq!(ask().await, (false, Duration::from_nanos(1)));
        tokio::time::advance(Duration::from_nanos(1)).await;
        let day = Duration::from_secs(86_400);
        assert_eq!(ask().await, (true, day));
    }

    #[tokio::test(start_paused = true)]
    async fn a_moment_that_is_told_goes_by_the_wall_clock_of_a_machine_that_was_suspended() {
        // 2024-10-04T00:00:00Z.
        let now = UNIX_EPOCH + Duration::from_secs(20_000 * 86_400);
        let rules = Rules::new().default_route(Rate::per_hour(1));
        let throttle = ThrottleLayer::builder(rules)
            .wall_clock(now)
            .rejection(Dialect::Anthropic)
            .build()
            .expect("rules");
        let serve = |_: Request<()>| async { Ok::<_, Infallible>(Response::new(())) };
        let reset = async || {
            let service = throttle.layer(service_fn(serve));
            let response = service.oneshot(Request::new(())).await;
            let response = response.unwrap_or_else(|never| match never {});
            let reset = &response.headers()["anthropic-ratelimit-requests-reset"];
            let reset = reset.to_str().expect("visible ASCII").to_owned();
            (response.status(), reset)
        };
        let at = |hour: u64| format!("2024-10-04T{hour:02}:00:00Z");
        assert_eq!(reset().await, (StatusCode::OK, at(1)));
        assert_eq!(reset().await, (StatusCode::TOO_MANY_REQUESTS, at(1)));
        throttle.suspend(Duration::from_secs(10 * 3_600));
        assert_eq!(reset().await, (StatusCode::TOO_MANY_REQUESTS, at(11)));
        tokio::time::advance(Duration::from_secs(3_600)).await;
        assert_eq!(reset().await, (StatusCode::OK, at(12)));
    }
}
