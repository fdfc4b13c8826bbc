//! A guard that keeps a request in flight beyond the body of its response.

use std::{
    fmt,
    sync::{Arc, PoisonError},
};

use http::Extensions;

use super::Held;
use crate::sync::Mutex;

/// Keeps a request in flight beyond the body of its response, such as one that opens a WebSocket.
///
/// A response that switches protocols (status 101, or 200 to `CONNECT`) has no body, so its slots come back while the
/// connection goes on. Insert a guard into the extensions of the response, and keep a clone for as long as the connection
/// is open. The slots, and the reservation of model tokens, are held until the last clone is dropped.
///
/// ```
/// use std::convert::Infallible;
///
/// use http::{Request, Response, StatusCode};
/// use hyper::{body::Incoming, upgrade::Upgraded};
/// use tower_throttle::body::InFlightGuard;
///
/// async fn open(mut request: Request<Incoming>) -> Result<Response<String>, Infallible> {
///     let upgrade = hyper::upgrade::on(&mut request);
///     let guard = InFlightGuard::new();
///     let kept = guard.clone();
///     tokio::spawn(async move {
///         if let Ok(connection) = upgrade.await {
///             serve(connection).await;
///         }
///         drop(kept); // The slot is free.
///     });
///     let mut response = Response::new(String::new());
///     *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
///     response.extensions_mut().insert(guard);
///     Ok(response)
/// }
///
/// async fn serve(connection: Upgraded) { /* … */ }
/// # let _ = open;
/// ```
///
/// In axum, `Extension` inserts it. With axum's feature `ws`:
///
/// ```text
/// async fn open(upgrade: WebSocketUpgrade) -> impl IntoResponse {
///     let guard = InFlightGuard::new();
///     let kept = guard.clone();
///     let answer = upgrade.on_upgrade(async move |socket| {
///         chat(socket).await;
///         drop(kept); // The slot is free.
///     });
///     (Extension(guard), answer)
/// }
/// ```
///
/// # Model tokens
///
/// The account of a [reservation](crate::Limits::tokens) stays open until the last clone is dropped: add what the
/// connection uses by [`Usage`](crate::Usage). A request that adds nothing owes its estimate. A response with a guard
/// is not read for [reported usage](crate::ThrottleLayerBuilder::usage_from_openai_response).
///
/// In a response that holds nothing the guard has no effect. Each of several throttles around one service finds the
/// guard. Use a new guard for each response.
#[derive(Clone, Default)]
pub struct InFlightGuard {
    held: Arc<Mutex<Vec<Held>>>,
}

impl InFlightGuard {
    /// Returns a guard that holds nothing until a response with a clone of it passes the throttle.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Hands what a response holds over to the guard in its extensions. Without one, the body has to hold it.
    #[inline(always)]
    pub(crate) fn take(extensions: &Extensions, held: Option<Held>) -> Option<Held> {
        match held {
            Some(held) if !extensions.is_empty() => Self::take_from(extensions, held),
            held => held,
        }
    }

    #[inline(never)]
    fn take_from(extensions: &Extensions, held: Held) -> Option<Held> {
        let Some(guard) = extensions.get::<Self>() else {
            return Some(held);
        };
        let all = guard.held.lock();
        all.unwrap_or_else(PoisonError::into_inner).push(held);
        None
    }
}

impl fmt::Debug for InFlightGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InFlightGuard").finish_non_exhaustive()
    }
}
