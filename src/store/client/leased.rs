//! The leased units that one request spends, and the task that returns unused leases.
//!
//! A request that finds a leased unit for each of its limits in the store passes without a call. If it finds only some,
//! the call is for the others. If it does not pass, the code that decided so puts the spent units back.
//!
//! # Invariants
//!
//! - **Spent, then kept or put back.** [`spend_leased`](StoreClient::spend_leased) spends; a request that passes keeps
//!   what it has spent, and any other puts it back, once, by [`put_back`](StoreClient::put_back). A
//!   [`StoreCall`](super::StoreCall) that was given the units does that itself, also where it is dropped. Units that
//!   are never put back are lost to this process and refilled in the store, as if they had been used: an error here
//!   never admits more.
//! - **A waiter waits for at most half a deadline**, so that a request that waits in vain can still make a call of its
//!   own.
//! - **One task returns leases**, while there are any: see [`TaskSlot`](super::task_slot::TaskSlot). It holds the store
//!   client weakly, so it ends within a second of a throttle that is dropped.
//!
//! # Cancellation
//!
//! Dropping a [`LeaseWaiter`] cancels its timer. Its waker stays with the lease, and waking it has no effect. Dropping
//! the returning task, as with its runtime, gives its slot back, and the next granted lease spawns another.

use std::{
    sync::{Arc, Weak},
    task::{Context, Poll},
    time::Duration,
};

use super::{
    StoreClient,
    lease::{LeaseGrant, LeaseTerms, LeaseUse},
    timers::TimerKey,
};
use crate::{
    clock::{Moment, Nanos, nanos},
    limiter::{
        limit_set::{Demand, LimitSet},
        readings::LimitReadings,
    },
    store::{Balance, Budget, Correction, Taken},
};

/// The units that a request spends of leases, one at most for each of its limits in the store, by their number among
/// them.
///
/// A copy of what was spent, not a guard: dropping it puts nothing back.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LeasedUnits {
    /// `None`: no unit was found, so the limit is to be charged by a call.
    units: [Option<LeasedUnit>; LimitSet::MOST_LEASED],
    /// The number of limits that the request has in the store. 0 where leases do not serve it.
    count: usize,
    /// The hash of a bucket of which another call asks for a lease. Of several, the last.
    pending: Option<u64>,
}

/// The mark of a call that asks for a lease, which that call has to end.
#[derive(Debug, Clone, Copy)]
pub(super) struct LeaseMark {
    /// The number of the charge, among those of the call, that asks for it.
    pub(super) charge: usize,
    /// The bucket.
    pub(super) hash: u64,
    /// The terms in which the limit is charged.
    pub(super) terms: LeaseTerms,
}

/// A unit that was spent.
#[derive(Debug, Clone, Copy)]
struct LeasedUnit {
    /// The bucket.
    hash: u64,
    /// The end of the lease, which tells it from others of its bucket.
    end: Nanos,
    /// The bucket's balance with this unit spent.
    balance: Balance,
    /// The bucket's state with this unit at hand.
    unspent: Nanos,
}

impl LeasedUnits {
    /// Returns whether a unit was found for the limit of this number.
    pub(super) fn has(&self, index: usize) -> bool {
        self.units.get(index).is_some_and(Option::is_some)
    }

    /// Returns the state of a bucket as a refused request leaves it: with its unit at hand.
    pub(super) fn unspent(&self, index: usize) -> Option<Nanos> {
        let unit = self.units.get(index)?.as_ref()?;
        Some(unit.unspent)
    }

    /// Returns whether a unit was found for all limits in the store, and there are some: no call is needed.
    #[inline]
    pub(crate) fn is_all(&self) -> bool {
        self.count > 0 && self.units().count() == self.count
    }

    /// Lists the units that were found.
    fn units(&self) -> impl Iterator<Item = &LeasedUnit> {
        self.units.iter().flatten()
    }

    /// Merges the answer to a call for the other limits with the units: balances of all limits in the store, in their
    /// order. A refused request has its units at hand again.
    pub(super) fn merge(&self, taken: Taken) -> Taken {
        if self.units().next().is_none() {
            return taken;
        }
        let mut answered = taken.balances.into_iter();
        let balances = self.units[..self.count].iter();
        let balances = balances.map(|unit| match unit {
            Some(unit) if taken.is_admitted => unit.balance,
            // Put back as the call ended.
            Some(unit) => Balance {
                state: unit.unspent,
                ..unit.balance
            },
            None => answered.next().unwrap_or_default(),
        });
        Taken {
            balances: balances.collect(),
            ..taken
        }
    }
}

impl StoreClient {
    /// Spends a unit of a lease for each limit of a request in the store, as far as there are any. The caller puts them
    /// back with [`put_back`](Self::put_back) if the request does not pass, or hands them to [`ask`](Self::ask).
    ///
    /// Does nothing for a set of limits of which some lie in the store and cannot be leased: shadows, model tokens,
    /// limits that hold fewer than four units, and rates that give less than one in a second. Nor for more than six.
    pub(crate) fn spend_leased(
        &self,
        limit_set: &LimitSet,
        demand: Demand,
        now: Nanos,
    ) -> LeasedUnits {
        let mut leased = LeasedUnits::default();
        if !limit_set.is_leased {
            return leased;
        }
        for (index, bound) in limit_set.shared().enumerate() {
            leased.count = index + 1;
            let (Some(hash), Some(meter)) = (self.hash(bound, demand.identity), bound.limit.meter)
            else {
                continue;
            };
            let terms = LeaseTerms::new(Budget::new(meter), bound);
            let at = || self.clock.moment_at(now);
            // All limits are looked at, even after one without a unit: the call for the others then charges less.
            match self.leases.spend(hash, &terms, at) {
                LeaseUse::Unit(balance, end) => {
                    leased.units[index] = Some(LeasedUnit {
                        hash,
                        end,
                        balance,
                        unspent: meter.refund(balance.state, 1),
                    });
                }
                LeaseUse::Pending => leased.pending = Some(hash),
                LeaseUse::Nothing => {}
            }
        }
        leased
    }

    /// Puts back the units of a request that does not pass. To be called once for what one
    /// [`spend_leased`](Self::spend_leased) has returned.
    pub(crate) fn put_back(&self, leased: &LeasedUnits) {
        for unit in leased.units() {
            self.leases.unspend(unit.hash, unit.end);
        }
    }

    /// Returns the readings of all limits of a request that passes without a call, and the store's clock at `now`, or
    /// later. `held` are the readings of those of its limits that lie in this process.
    pub(crate) fn leased_readings(
        &self,
        limit_set: &LimitSet,
        demand: Demand,
        leased: &LeasedUnits,
        held: &LimitReadings,
        now: Nanos,
    ) -> (LimitReadings, Nanos) {
        let balances = leased.units().map(|unit| unit.balance);
        let readings = Self::readings(limit_set, demand, balances, held);
        (readings, self.at(now))
    }

    /// Ends the `marks` of a call that was sent at `sent` and given up by `until`. `taken` is its answer: `None` if
    /// there was none in time. The first lease that is granted spawns the task that returns leases.
    pub(super) fn end_lease_calls(
        self: &Arc<Self>,
        marks: &[LeaseMark],
        taken: Option<&Taken>,
        sent: Moment,
        until: Nanos,
    ) {
        let mut has_grant = false;
        for mark in marks {
            let grant = taken.and_then(|taken| {
                let balance = *taken.balances.get(mark.charge)?;
                (taken.is_admitted && balance.leased > 0).then_some(LeaseGrant {
                    balance,
                    now: taken.now,
                    sent,
                })
            });
            // Also without a grant: the mark is ended, and those who wait look again.
            has_grant |= self.leases.end(mark.hash, mark.terms, until, grant);
        }
        if has_grant && self.return_task.claim() {
            self.spawn(LeaseReturn(Arc::downgrade(self)).run());
        }
    }

    /// Returns all leases to the store, used or not, and waits until that is done. While the store is down, what was
    /// leased is forgotten instead, and refilled with time.
    pub(crate) async fn return_leases(self: &Arc<Self>) {
        let rests = self.leases.unused(self.clock.moment(), true);
        let store_client = Arc::clone(self);
        // A task of its own: if the caller goes away, leases that were taken out here are returned all the same.
        let task = tokio::spawn(async move { store_client.send_returns(rests).await });
        let _ = task.await;
    }

    /// Sends corrections that return leases, unless the store is down. They have left [`Leases`](super::lease::Leases)
    /// by then: what is not sent is refilled with time.
    async fn send_returns(self: &Arc<Self>, rests: Vec<Correction>) {
        if !rests.is_empty() && !self.is_down() {
            self.send_corrections(rests).await;
        }
    }

    /// Returns a waiter for the lease that another call asks for, until `until` at most. `None`: there is no such call.
    pub(crate) fn lease_waiter(
        self: &Arc<Self>,
        leased: &LeasedUnits,
        until: Nanos,
    ) -> Option<LeaseWaiter> {
        Some(LeaseWaiter {
            store_client: Arc::clone(self),
            hash: leased.pending?,
            until,
            timer: None,
        })
    }
}

/// The task that returns what nobody uses, once a second, until nothing is leased. Dropped before that, it gives its
/// slot back.
struct LeaseReturn(Weak<StoreClient>);

impl LeaseReturn {
    /// Returns leases that no request has looked at since the last pass: so an idle lease is kept for one to two
    /// seconds.
    async fn run(mut self) {
        const PAUSE: Duration = Duration::from_secs(1);
        loop {
            tokio::time::sleep(PAUSE).await;
            // Held for one pass, and not over the pause.
            let Some(store_client) = self.0.upgrade() else {
                return;
            };
            let leases = &store_client.leases;
            let rests = leases.unused(store_client.clock.moment(), false);
            store_client.send_returns(rests).await;
            let return_task = &store_client.return_task;
            if return_task.give_back_if(|| leases.is_empty()) {
                // The slot is given back already.
                self.0 = Weak::new();
                return;
            }
        }
    }
}

impl Drop for LeaseReturn {
    fn drop(&mut self) {
        if let Some(store_client) = self.0.upgrade() {
            store_client.return_task.give_back();
        }
    }
}

/// A request that waits for a lease that another call asks for, until a moment at the latest: that call may be held up.
#[derive(Debug)]
pub(crate) struct LeaseWaiter {
    store_client: Arc<StoreClient>,
    /// The bucket.
    hash: u64,
    until: Nanos,
    /// The entry among the timers, from the first poll that has to wait.
    timer: Option<TimerKey>,
}

impl LeaseWaiter {
    /// Returns the longest time to wait, in nanoseconds: half the `deadline` of a call.
    pub(crate) fn longest_wait(deadline: Duration) -> Nanos {
        nanos(deadline / 2)
    }

    /// Polls until no call asks for a lease of the bucket, or the waiter's time is up. Ready does not mean that there
    /// is a unit: the request tries again to [spend](StoreClient::spend_leased) one.
    pub(crate) fn poll(&mut self, cx: &Context<'_>) -> Poll<()> {
        let store_client = &self.store_client;
        let now = store_client.clock.now();
        let leases = &store_client.leases;
        if leases.poll_pending(self.hash, now, cx).is_ready() || now >= self.until {
            return Poll::Ready(());
        }
        store_client.wake_at(&mut self.timer, self.until, cx.waker());
        Poll::Pending
    }
}

impl Drop for LeaseWaiter {
    fn drop(&mut self) {
        if let Some(timer) = self.timer {
            self.store_client.timers.cancel(timer);
        }
    }
}
