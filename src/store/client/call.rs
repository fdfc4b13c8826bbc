//! A call to the store: the charges of one request, or a peek at what their buckets hold.
//!
//! The store's future is polled in place, by the request that needs it: a call that is answered in time needs no task.
//! The future is moved to one only if the request gives up or goes away first.
//!
//! # Invariants
//!
//! - **Answered once.** The first `Ready` of [`poll`](StoreCall::poll) ends the call: the answer is recorded, the lease
//!   that it asked for is entered or given up, and the units that it spent of leases are kept or put back. Each of
//!   these is done once, since [`finish`](StoreCall::finish) takes what it works on.
//! - **Driven to its end.** A future of the store is never dropped half-way, unless the runtime ends: a charge may be
//!   on its way, and only its answer tells if it was taken. For the same reason it is never sent again.
//! - **Taken or given back.** What the store takes after the caller was told that nothing was taken is given back, with
//!   the units of a lease, unless the caller [keeps the charges](StoreCall::keep).
//!
//! # Cancellation
//!
//! Dropping a call before its answer, on a timeout or with its request, ends it at once for everybody else: the lease
//! is given up, so that those who wait for it call for one themselves, and leased units are put back. The future goes
//! on in a task, of the runtime at hand or else of the first that has polled a call. If that has ended, too, the future
//! is dropped, and nobody learns what was taken: it stays taken, which errs against the caller.
//!
//! # Who may call it
//!
//! Calls are made by [`StoreClient::ask`] and [`StoreClient::peek`] alone. The pending request that owns one polls it,
//! and drops it once it is ready.

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

use super::{LeasedUnits, StoreClient, leased::LeaseMark, timers::TimerKey};
use crate::{
    clock::{Moment, Nanos, nanos},
    store::{Balance, Charge, Correction, StoreError, Taken},
};

/// A call to the store. Dropped before it is answered, it gives back what the store takes for it.
pub(crate) struct StoreCall {
    store_client: Arc<StoreClient>,
    /// The store's future. `None` once it is answered. The lock is never contended, for it is only reached through
    /// `&mut`: it makes a future that is `Send` alone one that may lie in a type that is `Sync`, as hosts demand.
    call: Option<Mutex<Call>>,
    /// The longest time to wait for the answer, counted from `sent`.
    deadline: Duration,
    /// This process's clocks before the store was called. Leases lapse by it, and it bounds the store's clock from one
    /// side.
    sent: Moment,
    /// The entry among the [timers](super::timers), from the first poll that finds no answer. Removed when the call is
    /// dropped.
    timer: Option<TimerKey>,
    /// Set if charges that are taken after the deadline stay taken, for the request was let through. Leases that come
    /// with them are given back all the same.
    keeps_charges: bool,
    /// The units that the request spends of leases, for limits that are not among the charges.
    leased: LeasedUnits,
    /// The marks of the charges that ask for a lease. Each of them keeps others from asking for one until it is ended.
    lease_marks: Vec<LeaseMark>,
    /// Set if this process takes leases, of these buckets or of others. Other processes are taken to do the same.
    uses_leases: bool,
    /// Set if all costs are zero: nothing is taken, and the answer tells what the buckets hold.
    is_peek: bool,
}

/// The charges of a call, and the store's answer to them.
type CallReply = (Vec<Charge>, Result<Taken, StoreError>);
type Call = Pin<Box<dyn Future<Output = CallReply> + Send>>;

impl StoreCall {
    /// Begins a call. The store is not reached before the first poll.
    ///
    /// `deadline` counts from `sent`, which is read before this. `lease_marks` were begun for these charges, and are
    /// ended by the call. `leased` was spent for the same request and is put back if it does not pass. With
    /// `uses_leases`, what comes too late is given back in the way that is safe beside leases.
    pub(super) fn new(
        store_client: Arc<StoreClient>,
        charges: Vec<Charge>,
        lease_marks: Vec<LeaseMark>,
        sent: Moment,
        deadline: Duration,
        leased: LeasedUnits,
        uses_leases: bool,
    ) -> Self {
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
            lease_marks,
            uses_leases,
            is_peek: false,
        }
    }

    /// Begins a call that takes nothing. All costs of its `charges` are zero.
    pub(super) fn peek(
        store_client: Arc<StoreClient>,
        charges: Vec<Charge>,
        sent: Moment,
        deadline: Duration,
    ) -> Self {
        let mut call = Self::new(
            store_client,
            charges,
            Vec::new(),
            sent,
            deadline,
            LeasedUnits::default(),
            false,
        );
        call.is_peek = true;
        call
    }

    /// Returns the moment from which an answer is too late. It also names the call to [`Leases`](super::lease::Leases).
    fn gives_up_at(&self) -> Nanos {
        self.sent.now.saturating_add(nanos(self.deadline))
    }

    /// Ends the lease that the call asked for, and puts leased units back unless the request passes. `None`: no answer
    /// in time. A second time it finds nothing to do.
    fn finish(&mut self, answer: Option<&Taken>) {
        let lease_marks = mem::take(&mut self.lease_marks);
        if !lease_marks.is_empty() {
            let (sent, until) = (self.sent, self.gives_up_at());
            self.store_client
                .end_lease_calls(&lease_marks, answer, sent, until);
        }
        let leased = mem::take(&mut self.leased);
        if !answer.is_some_and(|taken| taken.is_admitted) {
            self.store_client.put_back(&leased);
        }
    }

    /// Polls for the store's answer. It has the balances of all limits of the request that lie in the store: those that
    /// were charged, and those of which leased units were spent.
    ///
    /// An answer that is there counts even after the deadline, since it is looked for first. A ready call is not to be
    /// polled again.
    ///
    /// # Errors
    ///
    /// The store's own, or [`LateReply`] at the deadline. The failure is recorded before this returns, so the breaker
    /// may have tripped by then.
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
                Err(error) => store_client.record_failure(error, Some(self.deadline)),
            }
            let leased = self.leased;
            self.finish(taken.as_ref().ok());
            return Poll::Ready(taken.map(|mut taken| {
                // Units that were leased beside a charge are at hand in this process: to a client they are there.
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
        self.store_client.record_failure(&late, Some(self.deadline));
        self.finish(None);
        Poll::Ready(Err(late))
    }

    /// Leaves taken what the store takes after the deadline: the request was let through by other means. A lease that
    /// comes with it is given back.
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

/// Lists the corrections that give back what was taken by a call that nobody waits for any more: costs and leases, or
/// leases alone with `keeps_charges`. Refused shadows have taken nothing.
///
/// - Beside leases a plain refund would be unsafe: a unit taken out of the middle of what a bucket owes moves the time
///   that leases of other processes count on. `Return` gives back to a rate only if nobody was charged since.
/// - Shadows and settled limits (model tokens) are never leased, so there `Undo` is exact, less what was refilled
///   since.
fn corrections_of(
    charges: Vec<Charge>,
    taken: &Taken,
    keeps_charges: bool,
    uses_leases: bool,
) -> Vec<Correction> {
    let charges = charges.into_iter().zip(&taken.balances);
    let undo = |(charge, balance): (Charge, &Balance)| {
        // See `BoundLimit::lease`: these are never leased.
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
            // Takes nothing from under the leases of others.
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

/// The error of a store that has not answered by the deadline. It counts as unavailable, so it trips the breaker.
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
