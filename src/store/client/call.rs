//! One question to the store.

use std::{
    error::Error,
    fmt,
    future::Future,
    mem,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use tokio::runtime::Handle;

use super::{LeasedUnits, StoreClient, timers::Key};
use crate::{
    clock::{Moment, Nanos, nanos},
    store::{Balance, Charge, Correction, StoreError, Taken},
};

/// A question to the store. Dropped before it is answered, what it takes is given back.
pub(crate) struct StoreCall {
    remote: Arc<StoreClient>,
    /// Until it is answered. Nobody waits for its lock: it lets this be shared between threads.
    call: Option<Mutex<Call>>,
    deadline: Duration,
    sent: Moment,
    /// Where it waits for its deadline.
    key: Option<Key>,
    /// Whether what it takes too late stays taken.
    is_kept: bool,
    /// What was lent besides.
    lent: LeasedUnits,
    /// Those that ask for leases.
    leasing: Vec<Charge>,
    /// Whether this process has leases.
    is_leasing: bool,
    /// Whether it takes nothing, and is asked for what the buckets hold.
    is_peek: bool,
}

/// What was asked, and what the answer is.
type Answer = (Vec<Charge>, Result<Taken, StoreError>);
type Call = Pin<Box<dyn Future<Output = Answer> + Send>>;

impl StoreCall {
    pub(super) fn new(
        remote: Arc<StoreClient>,
        charges: Vec<Charge>,
        sent: Moment,
        deadline: Duration,
        lent: LeasedUnits,
        is_leasing: bool,
    ) -> Self {
        let leasing = charges.iter().filter(|charge| charge.lease > 0);
        let leasing = leasing.cloned().collect();
        let store = Arc::clone(&remote.store);
        let call: Call = Box::pin(async move {
            let taken = store.take(&charges).await;
            let taken = taken.map(|taken| taken.within_range(&charges));
            (charges, taken)
        });
        Self {
            sent,
            remote,
            call: Some(Mutex::new(call)),
            deadline,
            key: None,
            is_kept: false,
            lent,
            leasing,
            is_leasing,
            is_peek: false,
        }
    }

    /// A question that takes nothing: its charges are of zero units.
    pub(super) fn peek(
        remote: Arc<StoreClient>,
        charges: Vec<Charge>,
        sent: Moment,
        deadline: Duration,
    ) -> Self {
        let mut ask = Self::new(
            remote,
            charges,
            sent,
            deadline,
            LeasedUnits::default(),
            false,
        );
        ask.is_peek = true;
        ask
    }

    /// When it is given up.
    fn until(&self) -> Nanos {
        self.sent.now.saturating_add(nanos(self.deadline))
    }

    /// It is over, and was answered this, or not.
    fn end(&mut self, answer: Option<(&[Charge], &Taken)>) {
        let leasing = mem::take(&mut self.leasing);
        if !leasing.is_empty() {
            let (charges, taken) = answer.unzip();
            let (sent, until) = (self.sent, self.until());
            self.remote
                .leased(charges.unwrap_or(&leasing), taken, sent, until);
        }
        let lent = mem::take(&mut self.lent);
        if !answer.is_some_and(|(_, taken)| taken.is_admitted) {
            self.remote.unlend(&lent);
        }
    }

    /// What the store answers, or that it does not, in time.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Taken, StoreError>> {
        if let Ok(runtime) = Handle::try_current() {
            self.remote.runtime.get_or_init(|| runtime);
        }
        let answer = match &mut self.call {
            Some(call) => {
                let call = call.get_mut().unwrap_or_else(PoisonError::into_inner);
                call.as_mut().poll(cx)
            }
            None => return Poll::Ready(Err(StoreError::unavailable(LateReply))),
        };
        if let Poll::Ready((charges, taken)) = answer {
            self.call = None;
            match &taken {
                Ok(taken) => self
                    .remote
                    .heard(&charges, taken, self.sent.now, self.is_peek),
                Err(error) => self.remote.failed(error, self.deadline),
            }
            let lent = self.lent;
            self.end(taken.as_ref().ok().map(|taken| (&charges[..], taken)));
            return Poll::Ready(taken.map(|mut taken| {
                // To a client, what was leased beside its charge is there.
                let leased = charges.iter().zip(&mut taken.balances);
                for (charge, balance) in leased.filter(|(_, balance)| balance.leased > 0) {
                    let meter = charge.budget.meter();
                    balance.state = meter.refund(balance.state, balance.leased);
                }
                lent.with(taken)
            }));
        }
        let deadline = self.until();
        if self.remote.clock.now() < deadline {
            self.remote.wake_at(&mut self.key, deadline, cx.waker());
            return Poll::Pending;
        }
        let late = StoreError::unavailable(LateReply);
        self.remote.failed(&late, self.deadline);
        self.end(None);
        Poll::Ready(Err(late))
    }

    /// What it takes too late stays taken: the request was let through.
    pub(crate) fn keep(&mut self) {
        self.is_kept = true;
    }
}

impl Drop for StoreCall {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.remote.deadlines.leave(key);
        }
        let Some(call) = self.call.take() else {
            return;
        };
        let call = call.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.end(None);
        let remote = Arc::clone(&self.remote);
        let (is_kept, is_leasing) = (self.is_kept, self.is_leasing);
        self.remote.spawn(async move {
            let (charges, taken) = call.await;
            match taken {
                Ok(taken) if taken.is_admitted => {
                    let undone = undone(charges, &taken, is_kept, is_leasing);
                    if !undone.is_empty() {
                        remote.corrected(undone).await;
                    }
                }
                _ => {}
            }
        });
    }
}

/// What gives back all that was taken, or what was leased, if the rest is kept.
fn undone(charges: Vec<Charge>, taken: &Taken, is_kept: bool, is_leasing: bool) -> Vec<Correction> {
    let charges = charges.into_iter().zip(&taken.balances);
    let undo = |(charge, balance): (Charge, &Balance)| {
        // Of these there are no leases.
        let is_apart = charge.is_shadow || charge.is_settled;
        let Charge {
            key, budget, cost, ..
        } = charge;
        let cost = if is_kept { 0 } else { cost };
        let units = cost + balance.leased;
        if balance.is_refused || units == 0 {
            return None;
        }
        Some(match is_leasing && !is_apart {
            // Nothing is taken from under the leases of others.
            true => Correction::Return {
                key,
                budget,
                units,
                state: balance.state,
            },
            false => Correction::Undo {
                key,
                budget,
                units,
                taken: taken.now,
            },
        })
    };
    charges.filter_map(undo).collect()
}

/// The store has not answered in time.
#[derive(Debug)]
struct LateReply;

impl fmt::Display for LateReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it did not answer in time")
    }
}

impl Error for LateReply {}

impl fmt::Debug for StoreCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ask")
            .field("sent", &self.sent)
            .finish_non_exhaustive()
    }
}
