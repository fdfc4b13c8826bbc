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

use super::{LeasedUnits, StoreClient, timers::TimerKey};
use crate::{
    clock::{Moment, Nanos, nanos},
    store::{Balance, Charge, Correction, StoreError, Taken},
};

/// A question to the store. Dropped before it is answered, what it takes is given back.
pub(crate) struct StoreCall {
    store_client: Arc<StoreClient>,
    /// Until it is answered. Nobody waits for its lock: it lets this be shared between threads.
    call: Option<Mutex<Call>>,
    deadline: Duration,
    sent: Moment,
    /// Where it waits for its deadline.
    timer: Option<TimerKey>,
    /// Whether what it takes too late stays taken.
    keeps_charges: bool,
    /// What was leased besides.
    leased: LeasedUnits,
    /// Those that ask for leases.
    lease_charges: Vec<Charge>,
    /// Whether this process has leases.
    uses_leases: bool,
    /// Whether it takes nothing, and is asked for what the buckets hold.
    is_peek: bool,
}

/// What was asked, and what the answer is.
type Answer = (Vec<Charge>, Result<Taken, StoreError>);
type Call = Pin<Box<dyn Future<Output = Answer> + Send>>;

impl StoreCall {
    pub(super) fn new(
        store_client: Arc<StoreClient>,
        charges: Vec<Charge>,
        sent: Moment,
        deadline: Duration,
        leased: LeasedUnits,
        uses_leases: bool,
    ) -> Self {
        let lease_charges = charges.iter().filter(|charge| charge.lease > 0);
        let lease_charges = lease_charges.cloned().collect();
        let store = Arc::clone(&store_client.store);
        let call: Call = Box::pin(async move {
            let taken = store.take(&charges).await;
            let taken = taken.map(|taken| taken.within_range(&charges));
            (charges, taken)
        });
        Self {
            sent,
            store_client,
            call: Some(Mutex::new(call)),
            deadline,
            timer: None,
            keeps_charges: false,
            leased,
            lease_charges,
            uses_leases,
            is_peek: false,
        }
    }

    /// A question that takes nothing: its charges are of zero units.
    pub(super) fn peek(
        store_client: Arc<StoreClient>,
        charges: Vec<Charge>,
        sent: Moment,
        deadline: Duration,
    ) -> Self {
        let mut call = Self::new(
            store_client,
            charges,
            sent,
            deadline,
            LeasedUnits::default(),
            false,
        );
        call.is_peek = true;
        call
    }

    /// When it is given up.
    fn gives_up_at(&self) -> Nanos {
        self.sent.now.saturating_add(nanos(self.deadline))
    }

    /// It is over, and was answered this, or not.
    fn finish(&mut self, answer: Option<(&[Charge], &Taken)>) {
        let lease_charges = mem::take(&mut self.lease_charges);
        if !lease_charges.is_empty() {
            let (charges, taken) = answer.unzip();
            let (sent, until) = (self.sent, self.gives_up_at());
            self.store_client.end_lease_calls(
                charges.unwrap_or(&lease_charges),
                taken,
                sent,
                until,
            );
        }
        let leased = mem::take(&mut self.leased);
        if !answer.is_some_and(|(_, taken)| taken.is_admitted) {
            self.store_client.unlend(&leased);
        }
    }

    /// What the store answers, or that it does not, in time.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Taken, StoreError>> {
        if let Ok(runtime) = Handle::try_current() {
            self.store_client.runtime.get_or_init(|| runtime);
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
            let (store_client, sent) = (&self.store_client, self.sent.now);
            match &taken {
                Ok(taken) => store_client.record_answer(&charges, taken, sent, self.is_peek),
                Err(error) => store_client.record_failure(error, self.deadline),
            }
            let leased = self.leased;
            self.finish(taken.as_ref().ok().map(|taken| (&charges[..], taken)));
            return Poll::Ready(taken.map(|mut taken| {
                // To a client, what was leased beside its charge is there.
                let balances = charges.iter().zip(&mut taken.balances);
                for (charge, balance) in balances.filter(|(_, balance)| balance.leased > 0) {
                    let meter = charge.budget.meter();
                    balance.state = meter.refund(balance.state, balance.leased);
                }
                leased.merge(taken)
            }));
        }
        let deadline = self.gives_up_at();
        if self.store_client.clock.now() < deadline {
            self.store_client
                .wake_at(&mut self.timer, deadline, cx.waker());
            return Poll::Pending;
        }
        let late = StoreError::unavailable(LateReply);
        self.store_client.record_failure(&late, self.deadline);
        self.finish(None);
        Poll::Ready(Err(late))
    }

    /// What it takes too late stays taken: the request was let through.
    pub(crate) fn keep(&mut self) {
        self.keeps_charges = true;
    }
}

impl Drop for StoreCall {
    fn drop(&mut self) {
        if let Some(timer) = self.timer {
            self.store_client.timers.cancel(timer);
        }
        let Some(call) = self.call.take() else {
            return;
        };
        let call = call.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.finish(None);
        let store_client = Arc::clone(&self.store_client);
        let (keeps_charges, uses_leases) = (self.keeps_charges, self.uses_leases);
        self.store_client.spawn(async move {
            let (charges, taken) = call.await;
            match taken {
                Ok(taken) if taken.is_admitted => {
                    let corrections_of =
                        corrections_of(charges, &taken, keeps_charges, uses_leases);
                    if !corrections_of.is_empty() {
                        store_client.send_corrections(corrections_of).await;
                    }
                }
                _ => {}
            }
        });
    }
}

/// What gives back all that was taken, or what was leased, if the rest is kept.
fn corrections_of(
    charges: Vec<Charge>,
    taken: &Taken,
    keeps_charges: bool,
    uses_leases: bool,
) -> Vec<Correction> {
    let charges = charges.into_iter().zip(&taken.balances);
    let undo = |(charge, balance): (Charge, &Balance)| {
        // Of these there are no leases.
        let is_unleased = charge.is_shadow || charge.is_settled;
        let Charge {
            key, budget, cost, ..
        } = charge;
        let cost = if keeps_charges { 0 } else { cost };
        let units = cost + balance.leased;
        if balance.is_refused || units == 0 {
            return None;
        }
        Some(match uses_leases && !is_unleased {
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
        f.debug_struct("StoreCall")
            .field("sent", &self.sent)
            .finish_non_exhaustive()
    }
}
