//! A cap on what is in flight.

use std::borrow::Cow;

/// A cap on the requests in flight at the same moment: from the decision to the end of the response body.
///
/// A streamed answer holds its slot until its last byte, its trailers or its error, or until it is dropped; see
/// [`ResponseBody`](crate::body::ResponseBody). A request head whose body does not come holds one as long as the inner
/// service waits for it: see [slots](crate::guides::models#slots) for the timeouts that bound that.
///
/// ```
/// use tower_throttle::{InFlight, Limits};
///
/// let chat = Limits::new().in_flight(8);
/// let named = Limits::new().in_flight(InFlight::new(8).named("gpu"));
/// # let _ = (chat, named);
/// ```
///
/// A request that finds no slot free is refused, or waits for one where [`Limits::max_wait`] says so. Nobody
/// knows beforehand for how long a slot is held: a refusal tells a second. Where all limits that refuse are caps of
/// the total or of a route, the server is busy, and the answer is 503 (gRPC `UNAVAILABLE`); a client's own cap is
/// answered with 429, as a rate is.
///
/// # Zero and the maximum
///
/// Zero is a **closed** limit: it admits nothing, ever. More than 2⁶² count as so many.
///
/// [`Limits::max_wait`]: crate::Limits::max_wait
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct InFlight {
    count: u64,
    name: Option<Cow<'static, str>>,
    shadow: bool,
}

impl InFlight {
    /// At most `count` requests at a time.
    pub const fn new(count: u64) -> Self {
        Self {
            count,
            name: None,
            shadow: false,
        }
    }

    /// Names this limit in header fields, answers, metrics and logs: 1 to 64 of `A-Z a-z 0-9 _`.
    ///
    /// Without this call it is named after its scope, route key and kind: see [`Limits::named`](crate::Limits::named).
    ///
    /// # Errors
    ///
    /// [`ThrottleLayer::new`](crate::ThrottleLayer::new) returns an error for any other character, an empty name, a
    /// longer one, and a name that another limit was given.
    pub fn named(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Decides without refusing: see [`Rate::shadow`](crate::Rate::shadow).
    pub const fn shadow(mut self) -> Self {
        self.shadow = true;
        self
    }

    /// Requests at a time.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Tells whether this limit is a shadow, which only tells what it would refuse.
    #[must_use]
    pub const fn is_shadow(&self) -> bool {
        self.shadow
    }

    pub(crate) fn unnamed(self) -> Self {
        Self { name: None, ..self }
    }

    pub(crate) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }
}

impl From<u64> for InFlight {
    fn from(count: u64) -> Self {
        Self::new(count)
    }
}
