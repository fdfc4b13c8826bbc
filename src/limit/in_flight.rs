//! A cap on requests in flight.

use std::borrow::Cow;

/// A cap on the requests in flight at the same moment: from the decision to the end of the response body.
///
/// A streamed answer holds its slot until its last byte, its trailers or its error, or until it is dropped; see
/// [`ResponseBody`](crate::body::ResponseBody). A request whose body does not arrive holds a slot as long as the inner
/// service waits for the body; see [slots](crate::guides::models#slots) for timeouts.
/// A WebSocket holds a slot only with a guard of its [`Hold`](crate::body::Hold): the response that opens it, with the
/// status 101 or 200 to `CONNECT`, has no body.
///
/// ```
/// use tower_throttle::{InFlight, Limits};
///
/// let chat = Limits::new().in_flight(8);
/// let named = Limits::new().in_flight(InFlight::new(8).named("gpu"));
/// # let _ = (chat, named);
/// ```
///
/// A request without a free slot is refused, or waits for one if [`Limits::max_wait`] is set. The time until a slot is
/// free is unknown, so a refusal states one second. If all limits that refuse are caps of the total or of a route, the
/// server is busy, and the answer is 503 (gRPC `UNAVAILABLE`). A client's own cap is answered with 429, like a rate.
///
/// # Zero and the maximum
///
/// Zero is a **closed** limit: it refuses every request. More than 2⁶² counts as 2⁶².
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
    /// Creates a cap of `count` requests at a time.
    pub const fn new(count: u64) -> Self {
        Self {
            count,
            name: None,
            shadow: false,
        }
    }

    /// Sets the name of this limit in header fields, answers, metrics and logs: 1 to 64 of `A-Z a-z 0-9 _`.
    ///
    /// By default it is named after its scope, route key and kind: see [`Limits::named`](crate::Limits::named).
    ///
    /// # Errors
    ///
    /// [`ThrottleLayer::new`](crate::ThrottleLayer::new) returns an error for any other character, an empty name, a
    /// longer one, and a name that another limit was given.
    pub fn named(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Turns this limit into a shadow: see [`Rate::shadow`](crate::Rate::shadow).
    pub const fn shadow(mut self) -> Self {
        self.shadow = true;
        self
    }

    /// Returns the number of requests at a time.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Returns whether this limit is a shadow, which reports but never refuses.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cap_that_is_handed_down_has_no_name() {
        let cap = InFlight::new(3).shadow().named("slots");
        assert_eq!(cap.name(), Some("slots"));
        assert_eq!(cap.unnamed(), InFlight::new(3).shadow());
    }
}
