//! The guard of one admitted request.

use crate::decision::Decision;

/// Lives as long as the request it admitted: from the decision, through the inner service's future, to
/// the end of the response body. What has to be given back when a request ends is given back by it.
#[derive(Debug)]
pub(crate) struct Admission {
    decision: Option<Decision>,
}

impl Admission {
    pub(crate) fn new(decision: Option<Decision>) -> Self {
        Self { decision }
    }

    /// What was decided, if the layer tells decisions.
    pub(crate) fn decision(&self) -> Option<&Decision> {
        self.decision.as_ref()
    }
}
