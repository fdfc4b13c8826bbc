//! A throttle for axum, whose responses have axum's own body.
//!
//! [`ThrottleLayer`](crate::ThrottleLayer) works with axum as with any host, and answers with a
//! [`ResponseBody`](crate::body::ResponseBody) around the body of the inner service. axum boxes each body that is not
//! its own [`Body`], with an allocation for each response and an indirect call for each frame. A throttle made with
//! [`ThrottleLayer::for_axum`](crate::ThrottleLayer::for_axum) answers with axum's body itself:
//!
//! - A response that holds nothing keeps the body of the inner service as it is, if that is axum's, as in a `Router`.
//!   Most responses hold nothing: rates and quotas are charged when the request arrives.
//! - A response that holds something until it ends (a slot, a reservation of model tokens) is boxed, and so is the
//!   answer to a refused request. They cost the same as with the other layer.
//!
//! Everything else is the same: the decision, the fields, the answers, and the [`Handle`](crate::Handle). Both layers
//! can be used in one server, and share their limits if they are made from one layer.
//!
//! ```
//! use axum::{Router, routing::get};
//! use tower_throttle::{Rate, Rules, RulesError, ThrottleLayer};
//!
//! fn app() -> Result<Router, RulesError> {
//!     let rules = Rules::new().default_route(Rate::per_second(10).burst(5));
//!     let throttle = ThrottleLayer::new(rules)?;
//!     Ok(Router::new()
//!         .route("/v1/models", get(async || "served"))
//!         .layer(throttle.for_axum()))
//! }
//! # app()?;
//! # Ok::<(), RulesError>(())
//! ```
//!
//! [`Body`]: https://docs.rs/axum/latest/axum/body/struct.Body.html

mod body;
mod future;
mod hold;
mod layer;
mod service;

pub use self::{
    future::AxumResponseFuture, hold::MissingHold, layer::AxumThrottleLayer, service::AxumThrottle,
};
