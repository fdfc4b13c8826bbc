//! The service behind the throttle, with configured durations and model tokens.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::{Request, Response};
use tokio::time::{Sleep, sleep};
use tower::Service;
use tower_throttle::Usage;

use crate::options::{Draw, Options};
use crate::quantity;
use crate::random::Random;

/// The content of a request in the place of a body: the number of its call, by which the model draws. So whatever the
/// rules are, a call takes the same time and the same tokens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Work(pub(crate) u64);

#[derive(Debug, Clone)]
pub(crate) struct Model {
    seed: u64,
    service: Draw,
    tokens: Option<Draw>,
    /// True if the model was called since the last look.
    called: Rc<Cell<bool>>,
}

impl Model {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            seed: options.seed,
            service: options.service,
            tokens: options.tokens,
            called: Rc::default(),
        }
    }

    /// Tells whether the model was called since the last look.
    pub(crate) fn was_called(&self) -> bool {
        self.called.take()
    }
}

impl Service<Request<Work>> for Model {
    type Response = Response<()>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Work>) -> Answer {
        self.called.set(true);
        let Work(number) = *request.body();
        let usage = self.tokens.and_then(|tokens| {
            let usage = request.extensions().get::<Usage>()?.clone();
            let mut random = Random::of(self.seed, Random::TOKENS, number);
            Some((usage, tokens.draw(&mut random).round() as u64))
        });
        let sleep = (!self.service.is_zero()).then(|| {
            let mut random = Random::of(self.seed, Random::SERVICE, number);
            let time = quantity::nanos(self.service.draw(&mut random)).unwrap_or(0);
            Box::pin(sleep(Duration::from_nanos(time)))
        });
        Answer { sleep, usage }
    }
}

/// An answer that takes its time.
#[derive(Debug)]
pub(crate) struct Answer {
    sleep: Option<Pin<Box<Sleep>>>,
    usage: Option<(Usage, u64)>,
}

impl Future for Answer {
    type Output = Result<Response<()>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(sleep) = &mut self.sleep {
            std::task::ready!(sleep.as_mut().poll(cx));
        }
        if let Some((usage, tokens)) = self.usage.take() {
            usage.settle(tokens);
        }
        Poll::Ready(Ok(Response::new(())))
    }
}
