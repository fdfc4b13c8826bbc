//! The layer for axum.

use tower::Layer;

use super::AxumThrottle;
use crate::layer::ThrottleLayer;

/// A [`ThrottleLayer`] whose responses have axum's body. [`ThrottleLayer::for_axum`] makes it; the [module](super)
/// explains what it saves.
///
/// Clones share their limits with each other and with the layer that they are made from. The type has no type
/// parameters, so that a function can return it and a struct can hold it.
#[derive(Debug, Clone)]
#[must_use]
pub struct AxumThrottleLayer {
    layer: ThrottleLayer,
}

impl ThrottleLayer {
    /// Converts this layer for routes of axum: its services answer with axum's body, and a response that holds nothing
    /// is not boxed again. It keeps the limits and settings of this layer.
    ///
    /// Use it in `Router::layer`, `Router::route_layer` and `MethodRouter::layer`. In front of other hosts the general
    /// layer is as good. Inner services of any body can be wrapped.
    ///
    /// The layer saves the box only if no other layer in the stack changes the body, as tower-http's
    /// `RequestBodyLimitLayer` does inside and its `TraceLayer` outside. A response that holds slots or model tokens is
    /// boxed in any case.
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
