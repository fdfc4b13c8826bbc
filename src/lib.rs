//! Burst and steady-state rate limits keyed by method and path, as a tower middleware.

mod admission;
mod body;
mod bucket;
mod clock;
mod decision;
mod future;
mod gcra;
mod layer;
mod limiter;
mod limits;
mod rate;
mod response;
mod route;
mod rules;
mod service;

pub use self::{
    body::ResponseBody,
    decision::{Decision, Denial, LimitStatus},
    future::ResponseFuture,
    layer::ThrottleLayer,
    limiter::Scope,
    limits::Limits,
    rate::Rate,
    response::{EXPOSE_HEADERS, Problem, Protocol, Rejection},
    route::{RouteKey, RouteKeyError},
    rules::{Rules, RulesError, Undeclared},
    service::Throttle,
};
