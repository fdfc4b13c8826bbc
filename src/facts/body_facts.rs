//! The result of reading a body.

use std::sync::Arc;

use super::{RequestFacts, UnreadReason, scan::FactsScanner};

/// The facts of a request's body, or the reason why it was not read. A handler finds them in the extensions.
///
/// ```
/// use http::Request;
/// use tower_throttle::facts::BodyFacts;
///
/// fn model(request: &Request<()>) -> Option<&str> {
///     request.extensions().get::<BodyFacts>()?.facts()?.model()
/// }
/// # assert_eq!(model(&Request::new(())), None);
/// ```
///
/// Clones share the facts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BodyFacts {
    facts: Result<Arc<RequestFacts>, UnreadReason>,
}

impl BodyFacts {
    /// Reads a whole body, for a layer of your own that has it, for [previews](crate::Handle::preview), and for tests of
    /// handlers.
    ///
    /// ```
    /// use tower_throttle::facts::BodyFacts;
    ///
    /// let body = BodyFacts::of(br#"{"model":"small","max_tokens":20}"#);
    /// assert_eq!(body.facts().and_then(|facts| facts.max_output_tokens()), Some(20));
    /// ```
    #[must_use]
    pub fn of(body: &[u8]) -> Self {
        let mut scanner = FactsScanner::new();
        scanner.feed(body);
        Self::new(scanner.finish())
    }

    /// Returns the facts, if the body was read.
    #[must_use]
    pub fn facts(&self) -> Option<&RequestFacts> {
        self.facts.as_deref().ok()
    }

    /// Returns the reason why the body was not read, if it was not.
    #[must_use]
    pub fn unread(&self) -> Option<UnreadReason> {
        self.facts.as_ref().err().copied()
    }

    /// Makes the result of a scan.
    pub(crate) fn new(facts: Result<RequestFacts, UnreadReason>) -> Self {
        Self {
            facts: facts.map(Arc::new),
        }
    }
}
