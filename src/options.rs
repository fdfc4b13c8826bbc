//! How a layer talks, apart from what it decides.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response};

use crate::{
    decision::{Decision, Denial},
    remote::OnOutage,
    response::{Dialect, Framing, Protocol, Rejection, Written, grpc, problem, strip},
};

/// How a layer talks, apart from what it decides.
#[derive(Clone)]
pub(crate) struct Options {
    pub(crate) fields: bool,
    pub(crate) decision: bool,
    pub(crate) spread: bool,
    pub(crate) usage_from_answer: bool,
    pub(crate) protocol: Protocol,
    pub(crate) grpc_retry_pushback: bool,
    /// `None`: the built-in answer.
    pub(crate) rejection: Option<Arc<dyn Rejection>>,
    /// Whose fields admitted responses carry besides the IETF's.
    pub(crate) dialect: Dialect,
    pub(crate) on_outage: OnOutage,
    /// How long the store is waited for.
    pub(crate) store_deadline: Duration,
    /// How many units of each limit are taken there at once.
    pub(crate) lease: u64,
}

impl Options {
    /// The answer to a refused request. Out of line, so that the way of an admitted one stays short.
    #[cold]
    #[inline(never)]
    pub(crate) fn reject<B>(
        &self,
        denial: Denial,
        request: Request<B>,
        written: &Written,
        on_route: Option<&dyn Rejection>,
    ) -> Response<Bytes> {
        let mut answer = match self.protocol.framing(&request) {
            Framing::Grpc(content_type) => {
                let deadline = || grpc::deadline(request.headers());
                let pushback = self.grpc_retry_pushback.then(deadline);
                grpc::reject(
                    &denial,
                    content_type,
                    written.policies.as_ref().map(|policies| &policies.line),
                    pushback,
                )
            }
            Framing::Http => {
                let without_body = *request.method() == Method::HEAD;
                let mut answer = match on_route.or(self.rejection.as_deref()) {
                    None => problem(&denial, written.refusal.clone()),
                    Some(rejection) => rejection.reject(&denial, &request.into_parts().0),
                };
                if without_body {
                    strip(&mut answer);
                }
                answer
            }
        };
        if self.decision {
            answer.extensions_mut().insert(Decision::from(denial));
        }
        answer
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            fields: true,
            decision: true,
            spread: true,
            usage_from_answer: false,
            protocol: Protocol::default(),
            grpc_retry_pushback: false,
            rejection: None,
            dialect: Dialect::Problem,
            on_outage: OnOutage::default(),
            store_deadline: Duration::from_millis(25),
            lease: 0,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            fields,
            decision,
            spread,
            usage_from_answer,
            protocol,
            grpc_retry_pushback,
            rejection,
            dialect,
            on_outage,
            store_deadline,
            lease,
        } = self;
        f.debug_struct("Options")
            .field("fields", fields)
            .field("decision", decision)
            .field("spread", spread)
            .field("dialect", dialect)
            .field("on_outage", on_outage)
            .field("store_deadline", store_deadline)
            .field("lease", lease)
            .field("usage_from_answer", usage_from_answer)
            .field("protocol", protocol)
            .field("grpc_retry_pushback", grpc_retry_pushback)
            .field(
                "rejection",
                &rejection.as_ref().map(|_| format_args!("<fn>")),
            )
            .finish()
    }
}
