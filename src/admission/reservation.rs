//! The reservation of model tokens: the tokens charged to one request in advance, and those that it has used.
//!
//! The cost of a request to a model is known only when it has ended. An estimate is therefore charged at admission,
//! counted tokens are compared with it while they are produced, and the difference is charged or given back once, at
//! the end.
//!
//! # Invariants
//!
//! - **Each limit by its measure.** The count is one of tokens by kind, and each limit is charged with what it measures
//!   of it: all tokens, those of the input or of the output, or their price.
//! - **Charged with the larger of the two.** Until it is settled, each limit is charged with its reserved units, or
//!   with the used ones if these are more. Limits with small bursts may have reserved fewer than others, so each has
//!   its own entry.
//! - **Settled once**, by the first of: [`settle`](TokenReservation::settle) or a report, and the end of the response.
//!   After that nothing changes, and [`add`](TokenReservation::add) returns `false`.
//! - **Conserved.** Each change charges a limit with the difference between its present charge and the new amount. The
//!   differences sum up to the settled amount, in whatever order reports come. In a store the present charge is what
//!   the store owes, less than what was counted where corrections were lost: see [`store_account`](super::store_account).
//! - **Only what was charged comes back.** A shadow that would have refused was not charged, and is left alone. A quota
//!   whose window has ended gets nothing back: the new window was not charged.
//!
//! # The ends
//!
//! | end | each limit is charged with |
//! |---|---|
//! | settled | what was used |
//! | ended or cut short, not settled | the largest of the rows below |
//! | | its reservation |
//! | | what was counted, by the handler or by the reader of the answer |
//! | | the estimated input with the output that was counted, where no input was counted |
//! | an implausible report | as if there were none |
//! | refunded, after a failure of the inner service | nothing, or what was settled before |
//!
//! Without a settlement nothing comes back, for a client that goes away early must not pay less than what it received:
//! the model has read its input, and a part of a count is no total.
//!
//! # Locking
//!
//! A lock orders reports, for a handler may count on one thread while the body is dropped on another. It is held while
//! limits are charged, so that two differences do not overlap: it comes before all locks of the limiter and of the
//! store client. Requests that wait for tokens are woken under it, and nothing is awaited.
//!
//! # Who may call it
//!
//! The [admission](super) makes it, ends it; `Usage` counts, settles and reads; the reader of
//! answers reports.

use std::sync::{Arc, PoisonError};

use super::{Origin, Permits, origin::PastCharge, store_account::StoreAccount};
use crate::{
    clock::Nanos,
    limit::{
        Limit, Unit, token_class::TokenClass, token_demand::TokenDemand, token_usage::TokenUsage,
    },
    limiter::{
        limit_set::{BoundLimit, Demand},
        missing_reason::MissingReason,
        readings::LimitReadings,
    },
    store::client::CorrectionBatch,
    sync::Mutex,
};

/// The model tokens of one request: reserved when it was admitted, settled once.
#[derive(Debug)]
pub(crate) struct TokenReservation {
    /// The limits that were charged, and where.
    origin: Arc<Origin>,
    /// The client that was charged.
    identity: u128,
    /// The tokens that the request was estimated at. A limit reserves as many as it counts of them, or fewer if its
    /// burst is smaller.
    estimate: TokenDemand,
    /// The class of the request among the models whose tokens have a price or an estimate of their own.
    token_class: TokenClass,
    /// One entry for each limit of the account, in their order: those that are settled, and those whose units a failure
    /// gives back.
    entries: Box<[LimitReservation]>,
    /// The count, which changes with the charges.
    state: Mutex<ReservationState>,
}

/// The part of one limit in a reservation. It never changes: what is charged besides follows from it and the count.
#[derive(Debug, Clone, Copy)]
struct LimitReservation {
    /// Units that were taken from its bucket at admission.
    reserved: u64,
    /// Set if it was charged, which a shadow that would have refused was not.
    is_charged: bool,
    /// Set if strangers share the balance, since the table of clients had no room.
    is_shared: bool,
    /// The state of its bucket after the charge: for a bucket in a store, what is left is told from it later, and of a
    /// quota it has the window that was charged.
    state: u64,
}

/// The count of tokens: written under one lock, together with the charges that follow from it.
#[derive(Debug)]
struct ReservationState {
    /// Tokens that were counted so far, or those that were settled.
    used: TokenUsage,
    /// The units that were charged since the admission.
    late: LateCharges,
    /// Set once nothing changes any more.
    is_settled: bool,
    /// Set if a guard keeps the request beyond its answer, whose report is added.
    is_kept: bool,
    /// The slots of the request, which the reservation has on the heap for the admission. Taken when that is dropped.
    permits: Option<Permits>,
}

/// The record of charges after the admission.
#[derive(Debug, Default)]
struct LateCharges {
    /// The moment since which units are owed to a window of a quota: in a later window they do not come back.
    owed_since: Option<Nanos>,
    /// One account for each entry, from the first units on that are owed to a store while the request goes on: what the
    /// store owes does not follow from the count, since corrections may be lost.
    in_store: Option<Box<[StoreAccount]>>,
}

/// The fate of a report of what was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Report {
    /// The reservation has the report, or was settled before it.
    Settled,
    /// The report is above the `most` that it can be, and changes nothing.
    Implausible { most: u64 },
}

/// The tokens that all limits are charged with.
#[derive(Debug, Clone, Copy)]
enum Charged {
    /// The limit's reservation, or so many tokens if that is more.
    AtLeast(TokenUsage),
    /// The limit's reservation, or so many tokens of either count, whichever is the most.
    AtLeastEither(TokenUsage, TokenUsage),
    /// So many tokens, for it is settled.
    Exactly(TokenUsage),
    /// Nothing, for the inner service has failed, or so many tokens if these were settled before.
    Refunded(Option<TokenUsage>),
}

impl Charged {
    /// Returns the units that one limit is charged with.
    fn of(self, entry: &LimitReservation, limit: &Limit, class: TokenClass) -> u64 {
        let units = |usage| limit.measure.of(usage, class);
        if !limit.is_settled() {
            // Requests are no tokens: they are given back, or stand.
            let is_refunded = matches!(self, Self::Refunded(_));
            return if is_refunded { 0 } else { entry.reserved };
        }
        match self {
            Self::Refunded(settled) => settled.map_or(0, units),
            Self::AtLeast(usage) => units(usage).max(entry.reserved),
            Self::AtLeastEither(one, other) => units(one).max(units(other)).max(entry.reserved),
            Self::Exactly(usage) => units(usage),
        }
    }
}

impl TokenReservation {
    /// The most tokens that one byte of an answer carries. Tokenizers make of a byte one at most.
    const PER_BYTE: u64 = 4;
    /// The most tokens that leave no byte in an answer: what a model reads, and reasoning that is not sent. The largest
    /// context of a model is ten million tokens.
    const UNSEEN: u64 = 1 << 24;

    /// Makes the reservation of a request that was admitted, from the `readings` of its limits, in their order. It
    /// charges nothing: the reserved tokens were taken by the admission. `permits` are kept until they are
    /// [taken](Self::take_permits).
    pub(crate) fn new(
        origin: &Arc<Origin>,
        demand: Demand,
        readings: &LimitReadings,
        permits: Permits,
    ) -> Arc<Self> {
        let readings = origin.limit_set.limits.iter().zip(readings.as_slice());
        let in_account = readings.filter(|(bound, _)| origin.limit_set.is_in_account(bound));
        let entries = in_account.map(|(_, reading)| LimitReservation {
            reserved: reading.cost,
            is_charged: reading.is_charged(),
            is_shared: reading.shared,
            state: reading.state,
        });
        Arc::new(Self {
            origin: Arc::clone(origin),
            identity: demand.identity,
            estimate: demand.tokens,
            token_class: demand.token_class,
            entries: entries.collect(),
            state: Mutex::new(ReservationState {
                used: TokenUsage::new(),
                late: LateCharges::default(),
                is_settled: false,
                is_kept: false,
                permits: Some(permits),
            }),
        })
    }

    /// Takes the slots out. The caller drops them when the lock is free.
    pub(super) fn take_permits(&self) -> Option<Permits> {
        self.with(|state| state.permits.take())
    }

    /// Returns the tokens reserved at admission, by the limit on all tokens that reserved the least. A shadow counts
    /// only if no such limit is enforced; without one it is the estimate.
    pub(crate) fn reserved(&self) -> u64 {
        let reserved = |is_shadow: bool| {
            let entries = self.entries().filter(move |(_, bound)| {
                let limit = &bound.limit;
                limit.shadow == is_shadow && limit.settings.unit() == Unit::Tokens
            });
            entries.map(|(entry, _)| entry.reserved).min()
        };
        let enforced = reserved(false).or_else(|| reserved(true));
        enforced.unwrap_or(self.estimate.total())
    }

    /// Returns the tokens counted so far, or those that were settled.
    pub(crate) fn used(&self) -> TokenUsage {
        self.with(|state| state.used)
    }

    /// Counts tokens as used, saturating at `u64::MAX`. What goes beyond a reservation is charged at once. `false` if
    /// it was settled before.
    pub(crate) fn add(&self, tokens: TokenUsage) -> bool {
        self.with(|state| {
            if state.is_settled {
                return false;
            }
            let before = Charged::AtLeast(state.used);
            state.used = state.used.plus(tokens);
            self.charge(&mut state.late, before, Charged::AtLeast(state.used));
            true
        })
    }

    /// Settles at `total` tokens, those counted before included: the rest of a reservation comes back, and what is
    /// beyond it is charged. `false` if it was settled before.
    pub(crate) fn settle(&self, total: TokenUsage) -> bool {
        self.with(|state| {
            if state.is_settled {
                return false;
            }
            let before = Charged::AtLeast(state.used);
            self.charge(&mut state.late, before, Charged::Exactly(total));
            (state.used, state.is_settled) = (total, true);
            true
        })
    }

    /// Settles at the tokens that an answer of `passed` bytes reports, or adds them if a guard keeps the request.
    ///
    /// A report above the [most](Self::most) is not believed, and changes nothing.
    pub(crate) fn settle_reported(&self, total: TokenUsage, passed: u64) -> Report {
        let most = self.most(passed);
        if total.total() > most && !self.with(|state| state.is_settled) {
            return Report::Implausible { most };
        }
        match self.with(|state| state.is_kept) {
            true => self.add(total),
            false => self.settle(total),
        };
        Report::Settled
    }

    /// Returns the most tokens that a request whose answer has so many bytes can have used: what was reserved, what
    /// these bytes can carry and what may have gone unseen, together.
    pub(crate) fn most(&self, passed: u64) -> u64 {
        let of_tokens = self.entries();
        let of_tokens = of_tokens.filter(|(_, bound)| bound.limit.measure.is_of_tokens());
        let reserved = of_tokens.map(|(entry, _)| entry.reserved).max();
        (reserved.unwrap_or(0))
            .saturating_add(passed.saturating_mul(Self::PER_BYTE))
            .saturating_add(Self::UNSEEN)
    }

    /// Counts an answer whose usage was not read. `false`, and nothing is counted, if the reservation was settled.
    pub(crate) fn missed(&self, reason: MissingReason) -> bool {
        let is_open = self.with(|state| !state.is_settled);
        if is_open {
            let counters = &self.origin.limit_set.counters;
            counters.missing_usage[reason as usize].add(1);
        }
        is_open
    }

    /// Ends a reservation whose answer has reported no total, after `read` was seen of it. With `has_input`, that
    /// includes the input; otherwise the estimated input stands in for it. An undivided estimate has none, and the
    /// reservation covers it.
    ///
    /// Each limit is charged with the most of its reservation, of what the handler has counted and of what was read.
    /// Changes nothing if it was settled before. If a guard keeps the request, what was read is added, and the
    /// reservation goes on.
    pub(crate) fn end_unreported(&self, read: TokenUsage, has_input: bool) {
        let read = self.with_input(read, has_input);
        if self.with(|state| state.is_kept) {
            self.add(read);
            return;
        }
        self.end_at(read);
    }

    /// Notes the end of the response, whole or cut short. Unsettled, nothing comes back, and what was counted is owed
    /// beyond it, with the estimated input if none was counted.
    pub(crate) fn end(&self) {
        self.end_at(TokenUsage::new());
    }

    fn end_at(&self, read: TokenUsage) {
        self.with(|state| {
            if state.is_settled {
                return;
            }
            let counted = state.used;
            let has_counted_input = counted.has_input() || counted.undivided > 0;
            let counted_with_input = self.with_input(counted, has_counted_input);
            let after = Charged::AtLeastEither(counted_with_input, read);
            self.charge(&mut state.late, Charged::AtLeast(counted), after);
            state.is_settled = true;
        });
    }

    /// Returns a count that has at least the estimated input, unless its own is certain.
    fn with_input(&self, counted: TokenUsage, has_input: bool) -> TokenUsage {
        match has_input {
            true => counted,
            false => counted.input(counted.input.max(self.estimate.input)),
        }
    }

    /// Notes that the inner service has failed: what comes back of a failure is given back, and the account is settled.
    pub(super) fn refund(&self) {
        self.with(|state| {
            if state.is_kept {
                return;
            }
            self.origin.limit_set.counters.refunded.add(1);
            let (before, after) = match state.is_settled {
                true => (Charged::Exactly(state.used), Some(state.used)),
                false => (Charged::AtLeast(state.used), None),
            };
            self.charge(&mut state.late, before, Charged::Refunded(after));
            if !state.is_settled {
                (state.used, state.is_settled) = (TokenUsage::new(), true);
            }
        });
    }

    /// Returns whether failures of the inner service are refunded.
    pub(super) fn refunds(&self) -> bool {
        self.origin.limit_set.refunds
    }

    /// Returns whether tokens or money are limited, so that a handler has something to count.
    pub(crate) fn has_tokens(&self) -> bool {
        self.origin.limit_set.has_tokens
    }

    /// Notes that a guard keeps the request: what its answer reports is added, and does not settle the reservation.
    pub(super) fn keep_open(&self) {
        self.with(|state| state.is_kept = true);
    }

    /// Returns the key of the request's route.
    pub(crate) fn route(&self) -> &str {
        &self.origin.limit_set.route
    }

    /// Returns the time by the limiter's clock.
    pub(crate) fn now(&self) -> Nanos {
        self.origin.limiter.now()
    }

    /// Returns the tokens of output that this request may still use without a debt: what is left of its reservation,
    /// and what its limits would admit now, by the limit that has the least. Others may take the latter at any time.
    /// Limits of the input take no part. `u64::MAX`: no limit on output is enforced.
    pub(crate) fn remaining(&self) -> u64 {
        let used = self.with(|state| (!state.is_settled).then_some(state.used));
        let now = self.now();
        let enforced = self.entries().filter(|(_, bound)| !bound.limit.shadow);
        let remaining = enforced.map(|(entry, bound)| {
            let measure = &bound.limit.measure;
            let used = used.map(|used| measure.of(used, self.token_class));
            let left = used.map_or(0, |used| entry.reserved.saturating_sub(used));
            let origin = &self.origin;
            let balance = origin.remaining(bound, self.identity, entry.state, now);
            measure.output_for(left.saturating_add(balance), self.token_class)
        });
        remaining.min().unwrap_or(u64::MAX)
    }

    /// Charges each limit with `after` in place of `before`. The caller holds the lock, and `late` is in its state.
    fn charge(&self, late: &mut LateCharges, before: Charged, after: Charged) {
        let goes_on = matches!(after, Charged::AtLeast(_));
        let entries = self.entries().enumerate();
        for (number, (entry, bound)) in entries.filter(|(_, (entry, _))| entry.is_charged) {
            let limit = &bound.limit;
            let [before, after] =
                [before, after].map(|charged| charged.of(entry, limit, self.token_class));
            let LateCharges {
                owed_since,
                in_store,
            } = late;
            let has_account = in_store.is_some() || goes_on && after > before;
            if has_account && self.origin.is_in_store(bound) {
                let accounts = in_store.get_or_insert_with(|| self.new_accounts());
                self.charge_in_store(&mut accounts[number], owed_since, entry, bound, after);
            } else if after > before {
                self.owe(owed_since, bound, after - before);
            } else if after < before {
                let since = owed_since.unwrap_or_default();
                self.give_back(since, entry, bound, before, after);
            }
        }
    }

    /// Makes the accounts of the limits in a store, of which nothing was owed before.
    #[cold]
    fn new_accounts(&self) -> Box<[StoreAccount]> {
        let accounts = self.entries.iter();
        accounts
            .map(|entry| StoreAccount::new(entry.reserved))
            .collect()
    }

    /// Charges a limit with `after` units, by what the store owes of them.
    #[cold]
    fn charge_in_store(
        &self,
        account: &mut StoreAccount,
        owed_since: &mut Option<Nanos>,
        entry: &LimitReservation,
        bound: &BoundLimit,
        after: u64,
    ) {
        account.raise(after, |units| self.owe(owed_since, bound, units));
        let since = owed_since.unwrap_or_default();
        let (before, after) = account.lower(after, |batch, units| {
            let charged = PastCharge::Owed { since };
            self.refund_charged(entry, bound, charged, units, Some(batch));
        });
        self.give_back(since, entry, bound, before, after);
    }

    /// Owes units of a limit.
    fn owe(
        &self,
        owed_since: &mut Option<Nanos>,
        bound: &BoundLimit,
        units: u64,
    ) -> Option<CorrectionBatch> {
        let has_windows = (bound.limit.meter).is_some_and(|meter| meter.window().is_some());
        if has_windows {
            owed_since.get_or_insert_with(|| self.now());
        }
        self.origin.owe(bound, self.identity, units)
    }

    /// Gives back what a limit is charged with beyond `after`, of `before` units. What was owed beyond the reservation
    /// comes back to the time in which it was owed.
    fn give_back(
        &self,
        since: Nanos,
        entry: &LimitReservation,
        bound: &BoundLimit,
        before: u64,
        after: u64,
    ) {
        let kept = after.max(entry.reserved).min(before);
        let state = entry.state;
        let owed = (PastCharge::Owed { since }, before - kept);
        let reserved = (PastCharge::Reserved { state }, kept - after.min(kept));
        for (charged, units) in [owed, reserved] {
            if units > 0 {
                self.refund_charged(entry, bound, charged, units, None);
            }
        }
    }

    fn refund_charged(
        &self,
        entry: &LimitReservation,
        bound: &BoundLimit,
        charged: PastCharge,
        units: u64,
        owed_by: Option<&CorrectionBatch>,
    ) {
        let (origin, identity, is_shared) = (&self.origin, self.identity, entry.is_shared);
        origin.refund_charged(bound, identity, is_shared, charged, units, owed_by);
    }

    /// Lists the entries, each with its limit.
    fn entries(&self) -> impl Iterator<Item = (&LimitReservation, &BoundLimit)> {
        let limits = self.origin.limit_set.limits.iter();
        let in_account = limits.filter(|bound| self.origin.limit_set.is_in_account(bound));
        self.entries.iter().zip(in_account)
    }

    /// Works on the count, under the lock.
    fn with<T>(&self, work: impl FnOnce(&mut ReservationState) -> T) -> T {
        // Each step leaves the count whole.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        work(&mut state)
    }
}

/// All interleavings of who counts, settles and cuts short. Run with `--cfg throttle_loom`.
#[cfg(all(test, throttle_loom))]
mod loom_tests {
    use std::time::Duration;

    use loom::thread;

    use super::*;
    use crate::{
        clock::Timeline,
        limit::{Limit, LimitSettings, rate::Rate},
        limiter::{
            Limiter,
            limit_set::{LimitSet, Storage},
        },
        sync::model,
    };

    const INTERVAL: u64 = 1 << 40;

    /// An account of 5 of 10 tokens, of a bucket that refills nothing while a model runs.
    fn account() -> Arc<TokenReservation> {
        let rate = Rate::new(1, Duration::from_nanos(INTERVAL)).burst(10);
        let limit = Limit::of(LimitSettings::Tokens(rate));
        let limiter = Arc::new(Limiter::new(Timeline::started_at(0)));
        let limit_set = Arc::new(LimitSet::new("test", None, BoundLimit::scope([limit])));
        let demand = Demand {
            tokens: TokenDemand::undivided(5),
            ..Demand::default()
        };
        let mut readings = LimitReadings::default();
        let admitted = limiter.admit(&limit_set, demand, limiter.now(), &mut readings);
        assert_eq!(admitted, Ok(true));
        let origin = Origin::new(&limiter, &None, &limit_set);
        let permits = Permits::new(&origin, demand, &readings);
        TokenReservation::new(&origin, demand, &readings, permits)
    }

    /// Returns the units with which the bucket of a reservation is charged.
    fn charged(account: &TokenReservation) -> u64 {
        let [bound] = &*account.origin.limit_set.limits else {
            unreachable!("it has one limit");
        };
        let Storage::Bucket(bucket) = &bound.storage else {
            unreachable!("with a bucket of its own");
        };
        let left = bucket.load() - account.origin.limiter.now();
        left.div_ceil(INTERVAL)
    }

    fn race(
        one: fn(&TokenReservation),
        other: fn(&TokenReservation),
        check: fn(&TokenReservation),
    ) {
        model(move || {
            let account = account();
            let threads = [one, other].map(|work| {
                let account = Arc::clone(&account);
                thread::spawn(move || work(&account))
            });
            for thread in threads {
                thread.join().expect("no panic");
            }
            check(&account);
        });
    }

    #[test]
    fn loom_what_is_counted_by_two_is_charged_once() {
        let count: fn(&TokenReservation) = |account| assert!(account.add(TokenUsage::undivided(4)));
        race(count, count, |account| {
            assert_eq!((account.used().total(), charged(account)), (8, 8));
        });
    }

    #[test]
    fn loom_an_account_is_settled_once_and_charged_with_that() {
        let settle: fn(&TokenReservation) = |account| {
            account.settle(TokenUsage::undivided(2));
        };
        let count: fn(&TokenReservation) = |account| {
            account.add(TokenUsage::undivided(7));
        };
        race(settle, count, |account| {
            let one = TokenUsage::undivided(1);
            assert!(!account.add(one) && !account.settle(one));
            assert_eq!((account.used().total(), charged(account)), (2, 2));
        });
        race(settle, TokenReservation::end, |account| {
            assert!(!account.settle(TokenUsage::undivided(1)));
            let expected = if account.used().total() == 2 { 2 } else { 5 };
            assert_eq!(charged(account), expected);
        });
    }
}
