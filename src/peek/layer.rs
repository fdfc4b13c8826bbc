//! The layer.

use std::{fmt, sync::Arc, time::Duration};

use tower::Layer;

use super::{service::Peek, settings::PeekSettings};
use crate::layer::ThrottleLayer;

/// A layer outside of a [`ThrottleLayer`], which reads bodies for it. Made by [`ThrottleLayer::peek_layer`]; the
/// [module](super) describes it.
///
/// Clones share the memory that kept bodies take. Each setter returns a layer with memory of its own, so set everything
/// before the layer is cloned or used. The type has no type parameters, so that a function can return it and a struct
/// can hold it.
#[derive(Clone)]
#[must_use]
pub struct PeekLayer {
    settings: Arc<PeekSettings>,
    max_body: usize,
    max_pool: usize,
}

impl ThrottleLayer {
    /// Returns a layer that reads bodies for this throttle, where its limits need facts of them. Put it outside of the
    /// throttle. The [module](crate::peek) describes it.
    ///
    /// Each call makes a layer with a [pool](PeekLayer::max_pool) of its own. Clone the layer to share the pool.
    pub fn peek_layer(&self) -> PeekLayer {
        let settings = PeekSettings::new(
            Arc::clone(self.engine()),
            PeekSettings::MAX_BODY,
            PeekSettings::READ_TIMEOUT,
            PeekSettings::MAX_POOL,
        );
        PeekLayer {
            settings: Arc::new(settings),
            max_body: PeekSettings::MAX_BODY,
            max_pool: PeekSettings::MAX_POOL,
        }
    }
}

impl PeekLayer {
    /// Sets the most bytes of a body that are read. Default: 2 MiB.
    ///
    /// A larger body passes, and its request is decided on as one whose body was not read. With zero, no body is read
    /// that is not known to be empty. No body is read that is larger than [the pool](Self::max_pool) has room for, so
    /// with `usize::MAX` the pool alone is the bound, and a single request may take all of it.
    pub fn max_body(self, bytes: usize) -> Self {
        let body_deadline = self.settings.body_deadline;
        self.with(bytes, body_deadline, self.max_pool)
    }

    /// Sets the time within which a whole body has to arrive, from when it is first waited for. Default: 10 seconds. It
    /// includes the wait for room in the pool, and does not begin anew with each frame.
    ///
    /// After that the request is answered: with 408 if the client is too slow, with 503 if the request has stood in line
    /// for room in [the pool](Self::max_pool), however briefly. With zero, only a body is read that is there at once, which bodies from a network are often
    /// not. With [`Duration::MAX`], a client may take as long as the server lets it. The time is measured by tokio's
    /// clock.
    pub fn body_deadline(self, time: Duration) -> Self {
        self.with(self.max_body, time, self.max_pool)
    }

    /// Sets the most bytes that the kept bodies of all requests take together, those of clones of this layer included.
    /// Default: 64 MiB.
    ///
    /// A body that finds no room is not polled until others have given theirs back, in the order in which the requests
    /// came. So the client is slowed down, and what it sends decides on its request nevertheless. Each piece of a body
    /// counts with 64 bytes more. Not counted are a few kilobytes for each request that is read, and one frame that the
    /// server has handed over and for which there is no room yet.
    ///
    /// A client, if clients are [identified](crate::Rules::clients), takes at most an eighth, or a sixteenth and two
    /// bodies of [`max_body`](Self::max_body) if that is more. Requests without identity are one client.
    ///
    /// With zero, no body is read that is not known to be empty. With `usize::MAX` the pool is never full.
    pub fn max_pool(self, bytes: usize) -> Self {
        let body_deadline = self.settings.body_deadline;
        self.with(self.max_body, body_deadline, bytes)
    }

    fn with(&self, max_body: usize, body_deadline: Duration, max_pool: usize) -> Self {
        let engine = Arc::clone(&self.settings.engine);
        let settings = PeekSettings::new(engine, max_body, body_deadline, max_pool);
        Self {
            settings: Arc::new(settings),
            max_body,
            max_pool,
        }
    }

    /// The settings, with the pool.
    #[cfg(test)]
    pub(super) fn settings(&self) -> &PeekSettings {
        &self.settings
    }
}

impl<S> Layer<S> for PeekLayer {
    type Service = Peek<S>;

    fn layer(&self, inner: S) -> Peek<S> {
        Peek::new(inner, Arc::clone(&self.settings))
    }
}

impl fmt::Debug for PeekLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            settings,
            max_body,
            max_pool,
        } = self;
        f.debug_struct("PeekLayer")
            .field("max_body", max_body)
            .field("body_deadline", &settings.body_deadline)
            .field("max_pool", max_pool)
            .finish_non_exhaustive()
    }
}
