//! What one request spends of leases.

use std::{
    sync::{Arc, Weak},
    task::{Context, Poll},
    time::Duration,
};

use super::{
    StoreClient,
    lease::{LeaseGrant, LeaseUse},
    timers::TimerKey,
};
use crate::{
    clock::{Moment, Nanos, nanos},
    limiter::{
        limit_set::{Demand, LimitSet},
        readings::LimitReadings,
    },
    store::{Balance, Charge, Correction, Taken},
};

/// The units of leases that a request spends: by their number among its limits that lie in the store.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LeasedUnits {
    units: [Option<LeasedUnit>; LimitSet::MOST_LEASED],
    /// How many the rule has.
    count: usize,
    /// A bucket of which somebody else asks for a lease.
    pending: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
struct LeasedUnit {
    hash: u64,
    /// When its lease ends.
    end: Nanos,
    /// Of its bucket, with this unit spent.
    balance: Balance,
    /// The state of its bucket with this unit at hand.
    unspent: Nanos,
}

impl LeasedUnits {
    pub(super) fn has(&self, index: usize) -> bool {
        self.units.get(index).is_some_and(Option::is_some)
    }

    /// The state of a bucket as a refused request leaves it: with its unit at hand.
    pub(super) fn unspent(&self, index: usize) -> Option<Nanos> {
        let unit = self.units.get(index)?.as_ref()?;
        Some(unit.unspent)
    }

    /// Whether nothing is to be asked for.
    #[inline]
    pub(crate) fn is_all(&self) -> bool {
        self.count > 0 && self.units().count() == self.count
    }

    fn units(&self) -> impl Iterator<Item = &LeasedUnit> {
        self.units.iter().flatten()
    }

    /// An answer to a question for what was not leased, with what was.
    pub(super) fn merge(&self, taken: Taken) -> Taken {
        if self.units().next().is_none() {
            return taken;
        }
        let mut answered = taken.balances.into_iter();
        let balances = self.units[..self.count].iter();
        let balances = balances.map(|unit| match unit {
            Some(unit) if taken.is_admitted => unit.balance,
            // It is at hand again.
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
    /// Spends what there is of leases for a request.
    pub(crate) fn lend(&self, limit_set: &LimitSet, demand: Demand, now: Nanos) -> LeasedUnits {
        let mut leased = LeasedUnits::default();
        if !limit_set.is_leased {
            return leased;
        }
        for (index, bound) in limit_set.shared().enumerate() {
            leased.count = index + 1;
            let (Some(hash), Some(meter)) = (self.hash(bound, demand.identity), &bound.limit.meter)
            else {
                continue;
            };
            let at = || self.clock.moment_at(now);
            match self.leases.spend(hash, meter, at) {
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

    /// Takes back what was leased to a request that does not pass.
    pub(crate) fn unlend(&self, leased: &LeasedUnits) {
        for unit in leased.units() {
            self.leases.unspend(unit.hash, unit.end);
        }
    }

    /// What all buckets of a rule hold from which all was leased, and the store's clock. `held` are those of its limits
    /// that lie in this process.
    pub(crate) fn lent_levels(
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

    /// Whoever asked for these, from `sent` to `until` at most, has got them, or not.
    pub(super) fn end_lease_calls(
        self: &Arc<Self>,
        charges: &[Charge],
        taken: Option<&Taken>,
        sent: Moment,
        until: Nanos,
    ) {
        let mut balances = taken.iter().flat_map(|taken| &taken.balances);
        let mut has_grant = false;
        for charge in charges {
            let balance = balances.next();
            if charge.lease == 0 {
                continue;
            }
            let grant = taken.zip(balance).and_then(|(taken, balance)| {
                (taken.is_admitted && balance.leased > 0).then_some(LeaseGrant {
                    balance: *balance,
                    now: taken.now,
                    sent,
                })
            });
            let hash = self.hash_of(&charge.key);
            has_grant |= self.leases.end(hash, charge.budget, until, grant);
        }
        if has_grant && self.return_task.claim() {
            self.spawn(LeaseReturn(Arc::downgrade(self)).run());
        }
    }

    /// Gives back all that was leased and not spent.
    pub(crate) async fn return_leases(self: &Arc<Self>) {
        let rests = self.leases.unused(self.clock.moment(), true);
        let store_client = Arc::clone(self);
        // By a task of its own: whoever waits for it may go away, and it may have taken others along.
        let task = tokio::spawn(async move { store_client.send_returns(rests).await });
        let _ = task.await;
    }

    async fn send_returns(self: &Arc<Self>, rests: Vec<Correction>) {
        if !rests.is_empty() && !self.is_down() {
            self.send_corrections(rests).await;
        }
    }

    /// A request that waits for a lease that somebody else has asked for.
    pub(crate) fn follow(
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

/// Gives back what nobody uses, as long as there is something. Dropped before that, others are to.
struct LeaseReturn(Weak<StoreClient>);

impl LeaseReturn {
    async fn run(mut self) {
        const PAUSE: Duration = Duration::from_secs(1);
        loop {
            tokio::time::sleep(PAUSE).await;
            let Some(store_client) = self.0.upgrade() else {
                return;
            };
            let leases = &store_client.leases;
            let rests = leases.unused(store_client.clock.moment(), false);
            store_client.send_returns(rests).await;
            let return_task = &store_client.return_task;
            if return_task.give_back_if(|| leases.is_empty()) {
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

/// Waits for a lease that somebody else has asked for, no longer than until some moment: whoever asks may be held up.
#[derive(Debug)]
pub(crate) struct LeaseWaiter {
    store_client: Arc<StoreClient>,
    hash: u64,
    until: Nanos,
    /// Where it waits for that moment.
    timer: Option<TimerKey>,
}

impl LeaseWaiter {
    /// For how long it waits at most.
    pub(crate) fn patience(deadline: Duration) -> Nanos {
        nanos(deadline / 2)
    }

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
