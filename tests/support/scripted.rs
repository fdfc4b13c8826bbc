//! An inner service that does with each request what the request says, and a runtime whose time stands.

#![allow(dead_code, reason = "each test file uses its part")]

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response};
use tokio::{
    sync::{Notify, mpsc},
    task::yield_now,
};
use tower_throttle::{
    Decision, Usage,
    body::{Hold, ResponseBody},
};

/// The usage that an answer reports.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Report {
    Whole(u64, u64),
    Absent,
    /// The body fails before it has reported.
    Broken,
}

/// The behaviour of the inner service.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Serves {
    Answer {
        status: u16,
        report: Report,
    },
    /// The same, once it is told to.
    Later {
        status: u16,
        report: Report,
    },
    Error,
}

/// The instructions of a request to the inner service.
#[derive(Clone)]
pub(crate) struct Script {
    pub(crate) serves: Serves,
    pub(crate) go: Arc<Notify>,
    pub(crate) entered: mpsc::UnboundedSender<Entered>,
}

/// An admitted request, as its handler sees it.
pub(crate) struct Entered {
    pub(crate) usage: Option<Usage>,
    pub(crate) hold: Option<Hold>,
    pub(crate) decision: Decision,
}

pub(crate) type Answer = Response<ResponseBody<Body>>;

pub(crate) async fn serve(mut request: Request<Body>) -> Result<Response<Body>, &'static str> {
    let extensions = request.extensions_mut();
    let script = extensions.remove::<Script>().expect("a script");
    let entered = Entered {
        usage: extensions.get().cloned(),
        hold: extensions.get().cloned(),
        decision: extensions.get().cloned().expect("a decision"),
    };
    // A test that has ended does not listen.
    let _ = script.entered.send(entered);
    let (status, report) = match script.serves {
        Serves::Error => return Err("a broken service"),
        Serves::Answer { status, report } => (status, report),
        Serves::Later { status, report } => {
            script.go.notified().await;
            (status, report)
        }
    };
    let frames = match report {
        Report::Whole(input, output) => vec![
            Ok(Bytes::from_static(b"{\"model\":\"m\",")),
            Ok(Bytes::from(format!(
                "\"usage\":{{\"prompt_tokens\":{input},\"completion_tokens\":{output}}}}}"
            ))),
        ],
        Report::Absent => vec![Ok(Bytes::from_static(b"{")), Ok(Bytes::from_static(b"}"))],
        Report::Broken => vec![Ok(Bytes::from_static(b"{")), Err("a broken body")],
    };
    let body = Body::from_stream(tokio_stream::iter(frames));
    let response = Response::builder()
        .status(status)
        .header("content-type", "application/json");
    Ok(response.body(body).expect("a response"))
}

pub(crate) async fn settle_tasks() {
    for _ in 0..12 {
        yield_now().await;
    }
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build();
    runtime.expect("a runtime")
}
