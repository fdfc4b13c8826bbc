//! How a layer talks, apart from what it decides.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response};

use crate::{
    decision::{Decision, Denial},
    response::{Dialect, Framing, Protocol, Rejection, Templates, grpc, problem, strip},
    store::client::OnOutage,
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
    /// The answer to a refused request.
    #[inline]
    pub(crate) fn reject<B>(
        &self,
        denial: Denial,
        request: Request<B>,
        written: &Templates,
        on_route: Option<&dyn Rejection>,
    ) -> Response<Bytes> {
        let rejection = on_route.or(self.rejection.as_deref());
        let mut answer = match (self.protocol.framing(&request), rejection) {
            (Framing::Http, Some(rejection)) => others(rejection, &denial, request),
            (framing, _) => self.own(framing, &denial, &request, written),
        };
        if self.decision {
            answer.extensions_mut().insert(Decision::from(denial));
        }
        answer
    }

    /// Out of line, so that the way of an admitted request stays short.
    #[cold]
    #[inline(never)]
    fn own<B>(
        &self,
        framing: Framing,
        denial: &Denial,
        request: &Request<B>,
        written: &Templates,
    ) -> Response<Bytes> {
        match framing {
            Framing::Grpc(content_type) => {
                let deadline = || grpc::deadline(request.headers());
                let pushback = self.grpc_retry_pushback.then(deadline);
                let policy = written.policies.as_ref().map(|policies| &policies.line);
                grpc::reject(denial, content_type, policy, pushback)
            }
            Framing::Http => {
                let template = |ends| written.refusals.template(ends);
                let mut answer = problem(denial, template, &written.bodies);
                if *request.method() == Method::HEAD {
                    strip(&mut answer);
                }
                answer
            }
        }
    }
}

/// The answer that somebody else gives.
#[cold]
#[inline(never)]
fn others<B>(rejection: &dyn Rejection, denial: &Denial, request: Request<B>) -> Response<Bytes> {
    let (parts, _) = request.into_parts();
    let mut answer = rejection.reject(denial, &parts);
    if parts.method == Method::HEAD {
        strip(&mut answer);
    }
    answer
}

impl Default for Options {
    fn default() -> Self {
        Self {
            fields: true,
            decision: true,
            spread: false,
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
