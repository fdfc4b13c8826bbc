//! A throttle for axum, whose responses have axum's own body.
//!
//! [`ThrottleLayer`](crate::ThrottleLayer) fits axum as it does any host, and answers with a
//! [`ResponseBody`](crate::body::ResponseBody) around the body of the inner service. axum puts each body that is not
//! its own [`Body`] into a box, with an allocation for each response and a call through the box for each frame. A
//! throttle that is made with [`ThrottleLayer::for_axum`](crate::ThrottleLayer::for_axum) answers with axum's body
//! itself:
//!
//! - A response that holds nothing passes on the body of the inner service as it is, if that is axum's, as in a
//!   `Router`. Most responses hold nothing: rates and quotas are charged when the request comes.
//! - A response that holds something until it ends (a slot, a reservation of model tokens) has its body in a box, and so
//!   has the answer to a refused request. They cost what they cost with the other layer.
//!
//! All else is the same: the decision, the fields, the answers, and the [`Handle`](crate::Handle). Both layers may stand
//! in one server, and if they are made from one, they share its limits.
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
mod layer;
mod service;

pub use self::{future::AxumResponseFuture, layer::AxumThrottleLayer, service::AxumThrottle};
