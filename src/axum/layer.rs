//! The layer for axum.

use tower::Layer;

use super::AxumThrottle;
use crate::layer::ThrottleLayer;

/// A [`ThrottleLayer`] whose responses have axum's body. Made by [`ThrottleLayer::for_axum`]; see the
/// [module](super) for what it spares.
///
/// Clones share their limits with each other and with the layer that they are made from. It has no type parameters, so
/// that a function can return it and a struct can hold it.
#[derive(Debug, Clone)]
#[must_use]
pub struct AxumThrottleLayer {
    layer: ThrottleLayer,
}

impl ThrottleLayer {
    /// Returns this layer for routes of axum: its services answer with axum's body, and a response that holds nothing
    /// is not put into a box anew. It has the limits and settings of this layer.
    ///
    /// Use it where axum takes the response, as in `Router::layer`, `Router::route_layer` and `MethodRouter::layer`; in
    /// front of other hosts the general layer is as good. Inner services of any body can be wrapped.
    ///
    /// The layer spares the box only if no layer beside it in the same stack changes the body, as tower-http's
    /// `RequestBodyLimitLayer` does inside, and its `TraceLayer` outside. A response that holds slots or model tokens is
    /// boxed either way.
    ///
    /// ```
    /// use axum::{Router, routing::post};
    /// use tower_throttle::{Rate, Rules, ThrottleLayer};
    ///
    /// let rules = Rules::new().route("POST /v1/chat/completions", Rate::per_second(2).burst(4));
    /// let throttle = ThrottleLayer::new(rules)?;
    /// let handle = throttle.handle();
    /// let app: Router = Router::new()
    ///     .route("/v1/chat/completions", post(async || "served"))
    ///     .layer(throttle.for_axum());
    /// # let _ = (handle, app);
    /// # Ok::<(), tower_throttle::RulesError>(())
    /// ```
    pub fn for_axum(self) -> AxumThrottleLayer {
        AxumThrottleLayer { layer: self }
    }
}

impl From<ThrottleLayer> for AxumThrottleLayer {
    fn from(layer: ThrottleLayer) -> Self {
        layer.for_axum()
    }
}

impl<S> Layer<S> for AxumThrottleLayer {
    type Service = AxumThrottle<S>;

    fn layer(&self, inner: S) -> AxumThrottle<S> {
        AxumThrottle::new(self.layer.layer(inner))
    }
}
