//! A run: the requests of a world against some rules, through the layer itself, in virtual time.
//!
//! The runtime's clock is paused, and advanced to each moment at which a request arrives. A request is polled once, at
//! once; most are decided by then. Queued requests, and those in the service, are kept and polled when they are woken,
//! as a runtime would. Between two moments tokio's own timers run, each at its time.

use std::collections::{BTreeMap, VecDeque};

use std::net::{Ipv4Addr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, SystemTime};

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use tokio::runtime::Builder;
use tokio::time::{Instant, advance, sleep_until};
use tower::{Layer as _, Service as _, ServiceExt as _, service_fn};
use tower_throttle::{
    Decision, Handle, Throttle, ThrottleLayer, ThrottleLayerBuilder, client::PeerAddr,
    decision::DecisionIn, future::ResponseFuture,
};

use crate::BoxError;
use crate::document::{Document, OnPlan};
use crate::ledger::Ledger;
use crate::model::{Model, Work};
use crate::options::{Manner, Options};
use crate::quantity::{MILLISECOND, Nanos};
use crate::world::{Call, World};

/// Virtual time begins at midnight, UTC, on a Monday which is the first of a month: the first of January 2024. So
/// windows of quotas begin with the run.
const BEGINNING: Duration = Duration::from_secs(1_704_067_200);

/// Simulates a run. `admitted` is told of each call that is admitted, and when.
pub(crate) fn run(
    document: &Document,
    world: &World,
    options: &Options,
    admitted: impl FnMut(Nanos, &Call),
) -> Result<Ledger, BoxError> {
    let names = runtime()?.block_on(names(document, world))?;
    // Its clock begins with that of the run, so that timers, which are exact to a millisecond of the runtime's, fall on
    // whole milliseconds of the run.
    let runtime = runtime()?;
    let ledger = Ledger::new(world, &names);
    // Without a budget: what is polled here is a whole server.
    runtime.block_on(tokio::task::unconstrained(async {
        let run = Run::new(document, world, options, ledger, admitted)?;
        Ok(run.run().await)
    }))
}

fn runtime() -> Result<tokio::runtime::Runtime, BoxError> {
    let mut builder = Builder::new_current_thread();
    Ok(builder.enable_time().start_paused(true).build()?)
}

/// Builds the document's throttle, whose wall clock shows the beginning.
fn build(
    document: &Document,
    set: impl FnOnce(ThrottleLayerBuilder) -> ThrottleLayerBuilder,
) -> Result<ThrottleLayer, BoxError> {
    let builder = ThrottleLayer::builder(document.rules.clone());
    let builder = builder.wall_clock(SystemTime::UNIX_EPOCH + BEGINNING);
    let built = set(builder).build();
    Ok(built.map_err(|error| format!("{}: {error}", document.name))?)
}

/// The keys to which the routes of the world are charged.
async fn names(document: &Document, world: &World) -> Result<Vec<String>, BoxError> {
    let throttle = build(document, |builder| builder.decision(DecisionIn::Response))?;
    let serve = |_: Request<()>| async { Ok::<_, std::convert::Infallible>(Response::new(())) };
    let mut names = Vec::with_capacity(world.routes.len());
    for route in &world.routes {
        let mut request = Request::new(());
        *request.method_mut() = route.method.clone();
        *request.uri_mut() = route.uri.clone();
        let response = throttle.layer(service_fn(serve)).oneshot(request).await?;
        let decision = response.extensions().get::<Decision>();
        let decision = decision.ok_or("a response without a decision")?;
        names.push(decision.route().to_owned());
    }
    Ok(names)
}

struct Run<'a, A> {
    document: &'a Document,
    world: &'a World,
    step: Nanos,
    admitted: A,
    model: Model,
    throttle: Throttle<Model>,
    handle: Handle,
    ledger: Ledger,
    /// The runtime's clock when the run began.
    start: Instant,
    now: Nanos,
    parked: Parked,
    /// Calls that come back, in the order of their times.
    retries: BTreeMap<(Nanos, u64), Call>,
    /// The number of calls that were entered in `retries` so far.
    retried: u64,
}

impl<'a, A: FnMut(Nanos, &Call)> Run<'a, A> {
    fn new(
        document: &'a Document,
        world: &'a World,
        options: &Options,
        ledger: Ledger,
        admitted: A,
    ) -> Result<Self, BoxError> {
        // Header fields cost time, and nothing reads them here.
        let throttle = build(document, |builder| builder.rate_limit_headers(false))?;
        let model = Model::new(options);
        Ok(Self {
            document,
            world,
            step: options.step,
            admitted,
            throttle: throttle.layer(model.clone()),
            handle: throttle.handle(),
            model,
            ledger,
            start: now(),
            now: 0,
            parked: Parked::default(),
            retries: BTreeMap::new(),
            retried: 0,
        })
    }

    async fn run(mut self) -> Ledger {
        let mut calls = self.world.calls().peekable();
        loop {
            let new = calls.peek().map(|(at, _)| self.stepped(*at));
            let again = self.retries.keys().next().map(|(at, _)| *at);
            let Some(next) = new.into_iter().chain(again).min() else {
                if self.parked.count == 0 {
                    break;
                }
                self.rest(None).await;
                self.poll_woken();
                continue;
            };
            // Timers run at whole milliseconds: those before it come first.
            let tick = next - next % MILLISECOND;
            if self.parked.count > 0 && tick > self.now {
                self.rest(Some(tick)).await;
                self.poll_woken();
                continue;
            }
            self.move_to(next);
            let call = match again {
                Some(again) if again == next => self.retries.pop_first().map(|(_, call)| call),
                _ => calls.next().map(|(_, call)| call),
            };
            if let Some(call) = call {
                self.offer(call);
            }
            if self.parked.count > 0 {
                self.poll_woken();
            }
        }
        self.ledger.limits = self.handle.snapshot().limits;
        self.ledger
    }

    /// The first moment at or after this one at which requests come.
    fn stepped(&self, at: Nanos) -> Nanos {
        at.div_ceil(self.step) * self.step
    }

    /// Moves time on to where no timer lies in between.
    fn move_to(&mut self, at: Nanos) {
        if at > self.now {
            // The clock is moved by the first poll. The second would wait for timers to run.
            let moved = pin!(advance(Duration::from_nanos(at - self.now)));
            let _ = moved.poll(&mut Context::from_waker(Waker::noop()));
            self.now = at;
        }
    }

    /// Lets time pass until somebody is woken, and no longer than this.
    async fn rest(&mut self, until: Option<Nanos>) {
        let start = self.start;
        let mut sleep =
            until.map(|until| Box::pin(sleep_until(start + Duration::from_nanos(until))));
        let woken = &self.parked.woken;
        std::future::poll_fn(|cx| {
            if woken.is_some(cx.waker()) {
                return Poll::Ready(());
            }
            match &mut sleep {
                Some(sleep) => sleep.as_mut().poll(cx),
                None => Poll::Pending,
            }
        })
        .await;
        self.now = now().duration_since(start).as_nanos() as Nanos;
    }

    /// Sends a request.
    fn offer(&mut self, call: Call) {
        self.ledger.offered(&call, self.now);
        let request = self.request(&call);
        let mut future = self.throttle.call(request);
        let slot = self.parked.vacant();
        let mut cx = Context::from_waker(&self.parked.wakers[slot]);
        let polled = Pin::new(&mut future).poll(&mut cx);
        let is_admitted = self.model.was_called();
        if is_admitted {
            self.ledger.admitted(&call, self.now);
            (self.admitted)(self.now, &call);
        }
        match polled {
            Poll::Ready(Ok(_)) if is_admitted => {}
            Poll::Ready(Ok(response)) => self.refused(call, response.headers()),
            Poll::Pending => self.parked.put(
                slot,
                InFlight {
                    future,
                    call,
                    since: self.now,
                    is_admitted,
                },
            ),
        }
    }

    /// Polls all that were woken, and those that are woken by that.
    fn poll_woken(&mut self) {
        while let Some(slot) = self.parked.woken.next() {
            let Some(mut request) = self.parked.slots[slot].take() else {
                continue;
            };
            let mut cx = Context::from_waker(&self.parked.wakers[slot]);
            let polled = Pin::new(&mut request.future).poll(&mut cx);
            let wait = self.now - request.since;
            let call = request.call;
            if self.model.was_called() {
                request.is_admitted = true;
                self.ledger.stood(&call, wait);
                self.ledger.admitted(&call, self.now);
                (self.admitted)(self.now, &call);
            }
            match polled {
                Poll::Pending => self.parked.slots[slot] = Some(request),
                Poll::Ready(Ok(response)) => {
                    self.parked.free(slot);
                    if !request.is_admitted {
                        self.ledger.stood(&call, wait);
                        self.refused(call, response.headers());
                    }
                }
            }
        }
    }

    /// Notes a refusal, and plans the next attempt of a client whose manner makes one.
    fn refused(&mut self, call: Call, headers: &HeaderMap) {
        let told = told(headers);
        self.ledger.refused(&call, self.now, told);
        let stops = headers
            .get("x-should-retry")
            .is_some_and(|value| value == "false");
        let wait = match self.world.clients[call.client as usize].manner {
            Manner::Hammers { every } => Some(every),
            Manner::Obeys { attempts } if call.attempt < attempts && !stops => {
                told.map(|told| told * MILLISECOND)
            }
            Manner::Obeys { .. } | Manner::Leaves => None,
        };
        let Some(wait) = wait else {
            self.ledger.given_up += 1;
            return;
        };
        let at = self.stepped(self.now + wait);
        if at >= self.world.span {
            self.ledger.open += 1;
            return;
        }
        let again = Call {
            attempt: call.attempt + 1,
            ..call
        };
        self.retried += 1;
        self.retries.insert((at, self.retried), again);
    }

    fn request(&self, call: &Call) -> Request<Work> {
        let route = &self.world.routes[call.route as usize];
        let client = &self.world.clients[call.client as usize];
        let document = self.document;
        let mut request = Request::new(Work(call.number));
        *request.method_mut() = route.method.clone();
        *request.uri_mut() = route.uri.clone();
        if let Some(key) = &client.key {
            for field in &document.fields {
                request
                    .headers_mut()
                    .insert(HeaderName::clone(field), HeaderValue::clone(key));
            }
            if document.by_address {
                // As many as there are in 10.0.0.0/8, and then others.
                let address =
                    Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 1).to_bits() + call.client);
                let peer = PeerAddr(SocketAddr::from((address, 443)));
                request.extensions_mut().insert(peer);
            }
        }
        if let Some(bearer) = client.bearer.as_ref().filter(|_| document.by_bearer) {
            request.headers_mut().insert(AUTHORIZATION, bearer.clone());
        }
        if let Some(plan) = client.plan {
            request.extensions_mut().insert(OnPlan(plan));
        }
        request
    }
}

/// The wait that a refusal tells, in milliseconds.
fn told(headers: &HeaderMap) -> Option<u64> {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.parse::<u64>().ok();
    number("retry-after-ms").or_else(|| Some(number("retry-after")? * 1_000))
}

/// Requests that wait in line or are at work in the service.
#[derive(Default)]
struct Parked {
    slots: Vec<Option<InFlight>>,
    /// The waker of each slot.
    wakers: Vec<Waker>,
    vacant: Vec<usize>,
    count: usize,
    woken: Arc<Woken>,
}

struct InFlight {
    future: ResponseFuture<Model, Work>,
    call: Call,
    since: Nanos,
    is_admitted: bool,
}

impl Parked {
    /// The number of a slot that is free, made if there is none.
    fn vacant(&mut self) -> usize {
        match self.vacant.last() {
            Some(&slot) => slot,
            None => {
                let slot = self.slots.len();
                let woken = Arc::clone(&self.woken);
                self.slots.push(None);
                self.wakers.push(Arc::new(Bell { slot, woken }).into());
                self.vacant.push(slot);
                slot
            }
        }
    }

    /// Fills the slot that was free.
    fn put(&mut self, slot: usize, request: InFlight) {
        self.vacant.pop();
        self.slots[slot] = Some(request);
        self.count += 1;
    }

    fn free(&mut self, slot: usize) {
        self.vacant.push(slot);
        self.count -= 1;
    }
}

/// Slots whose requests were woken, in their order; and the waker of the run.
#[derive(Default)]
struct Woken(Mutex<(VecDeque<usize>, Option<Waker>)>);

impl Woken {
    fn next(&self) -> Option<usize> {
        self.with(|(slots, _)| slots.pop_front())
    }

    /// Tells whether a request was woken. If not, `waker` is woken when one is.
    fn is_some(&self, waker: &Waker) -> bool {
        self.with(|(slots, run)| {
            *run = Some(waker.clone());
            !slots.is_empty()
        })
    }

    fn with<T>(&self, work: impl FnOnce(&mut (VecDeque<usize>, Option<Waker>)) -> T) -> T {
        // Each step leaves it whole.
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The waker of the request in one slot.
struct Bell {
    slot: usize,
    woken: Arc<Woken>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let run = self.woken.with(|(slots, run)| {
            slots.push_back(self.slot);
            run.take()
        });
        if let Some(run) = run {
            run.wake();
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the simulator moves the clock, and has to know where it stands"
)]
fn now() -> Instant {
    Instant::now()
}
