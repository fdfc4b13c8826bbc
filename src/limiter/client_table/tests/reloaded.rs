//! Balances that are told in terms of settings that are gone.

use super::*;
use crate::limiter::meter_history::MeterStep;

/// A limit whose units weigh 100 nanoseconds in version 1, and 200 in version 2.
struct Reloaded {
    memory: ClientTable,
    /// The buckets in the terms of each version, the later one first.
    pages: [ClientBuckets; 2],
    history: MeterHistory,
    meters: [Meter; 2],
}

impl Reloaded {
    fn new(capacity: usize) -> Self {
        let memory = ClientTable::new();
        memory.reserve(capacity).expect("there is as much memory");
        let meters = [meter(100, 9), meter(200, 5)];
        let first = MeterStep {
            version: 1,
            since: 0,
            meter: meters[0],
        };
        let page = ClientBuckets::new(3, 1);
        Self {
            memory,
            pages: [page.in_version(2), page],
            history: MeterHistory::new(Some(first)),
            meters,
        }
    }

    fn reload(&self) {
        self.history.push(MeterStep {
            version: 2,
            since: 1_000,
            meter: self.meters[1],
        });
    }

    fn terms(&self, version: Version) -> MeterTerms<'_> {
        let history = &self.history;
        MeterTerms { version, history }
    }

    fn key(&self, version: Version) -> TableKey<'_> {
        let page = &self.pages[version as usize % 2];
        TableKey::new(identity(7), page, self.terms(version))
    }

    /// Units charged by the settings of a version, at 1,000.
    fn take(&self, version: Version, units: u64) -> Result<BucketReading, Untaken<BucketReading>> {
        let meter = &self.meters[version as usize - 1];
        let key = self.key(version);
        self.memory.take(&key, meter, 1_000, units, || 1_000)
    }

    fn peek(&self, version: Version) -> BucketReading {
        self.memory.peek(&self.key(version), 1_000)
    }
}

#[test]
fn a_balance_is_read_in_the_terms_of_who_asks() {
    let it = Reloaded::new(64);
    assert_eq!(it.take(1, 3), Ok(BucketReading::own(1_300)));
    assert_eq!(it.peek(1), BucketReading::own(1_300));
    it.reload();
    assert_eq!(
        it.peek(2),
        BucketReading::own(1_600),
        "three that weigh more"
    );
    assert_eq!(
        it.peek(1),
        BucketReading::own(1_300),
        "a look tells nothing anew"
    );
    assert_eq!(it.take(2, 1), Ok(BucketReading::own(1_800)));
    assert_eq!(it.peek(2), BucketReading::own(1_800));
    // Those who were let in before it ask by what is gone.
    let outdated = BucketReading {
        outdated: true,
        ..BucketReading::own(1_800)
    };
    assert_eq!(it.peek(1), outdated);
    assert_eq!(it.take(1, 1), Err(Untaken::Outdated));
    assert!(!it.memory.refund(&it.key(1), |_| Some(0)));
    let told = it.key(1).in_version(2);
    assert_eq!(told.terms().version, 2);
    assert!(it.memory.refund(&told, |state| Some(state - 200)));
    assert_eq!(it.peek(2), BucketReading::own(1_600));
}

#[test]
fn a_balance_in_old_terms_is_told_anew_before_anything_comes_back() {
    let it = Reloaded::new(64);
    assert_eq!(it.take(1, 3), Ok(BucketReading::own(1_300)));
    it.reload();
    let given = it.memory.refund(&it.key(2), |state| {
        assert_eq!(state, 1_600);
        Some(1_400)
    });
    assert!(given);
    assert_eq!(it.peek(2), BucketReading::own(1_400));
}

#[test]
fn the_balance_of_one_who_finds_no_room_is_that_of_the_others() {
    let it = Reloaded::new(0);
    let shared = |state| BucketReading {
        shared: true,
        ..BucketReading::own(state)
    };
    assert_eq!(it.peek(1), shared(0));
    assert_eq!(it.take(1, 3), Ok(shared(1_300)));
    assert_eq!(it.take(1, 7), Err(Untaken::Refused(shared(1_300))));
    assert_eq!(it.memory.overflowed(), 1, "what was taken");
    assert_eq!(it.peek(1), shared(1_300));
    it.reload();
    assert_eq!(it.peek(2), shared(1_600));
    assert_eq!(it.take(2, 1), Ok(shared(1_800)));
    assert_eq!(it.take(1, 1), Err(Untaken::Outdated));
}

/// Balances that are left, owed and given back by settings that are gone are so by those that hold, wherever it lies.
#[test]
fn work_of_old_settings_is_done_in_the_terms_of_the_new() {
    let it = Reloaded::new(64);
    let bucket = Bucket::full(1);
    let places = |version| {
        [
            BalanceRef::Bucket(&bucket, it.terms(version)),
            BalanceRef::Table(&it.memory, it.key(version)),
        ]
    };
    let [old, new] = &it.meters;
    let clock = || 1_000;
    for balance in places(1) {
        assert_eq!(balance.remaining(old, 1_000), 9);
        let taken = balance.take(balance.start(), old, 1_000, 3, clock);
        assert_eq!(taken, Ok(BucketReading::own(1_300)));
        assert_eq!(balance.remaining(old, 1_000), 6);
        balance.owe(old, 1_000, 1, clock);
        assert_eq!(balance.peek(1_000), BucketReading::own(1_400));
        balance.refund(false, old, 1_000, 3);
        assert_eq!(balance.peek(1_000), BucketReading::own(1_100));
    }
    it.reload();
    for (before, after) in places(1).into_iter().zip(places(2)) {
        let taken = after.take(after.start(), new, 1_000, 1, clock);
        assert_eq!(
            taken,
            Ok(BucketReading::own(1_400)),
            "one from before, and one"
        );
        assert!(before.peek(1_000).outdated);
        assert_eq!(before.remaining(old, 1_000), 3);
        assert_eq!(after.remaining(new, 1_000), 3);
        before.owe(old, 1_000, 2, clock);
        assert_eq!(after.peek(1_000), BucketReading::own(1_800));
        before.refund(false, old, 1_000, 3);
        assert_eq!(after.peek(1_000), BucketReading::own(1_200));
        before.refund(false, old, 1_200, 1);
        assert_eq!(
            after.peek(1_000),
            BucketReading::own(1_200),
            "it was full by then"
        );
        // Only the last holder gives back a lease, and in its own terms.
        before.return_lease(1_200, old, 1_000, 1);
        after.return_lease(1_100, new, 1_000, 1);
        assert_eq!(after.peek(1_000), BucketReading::own(1_200));
        after.return_lease(1_200, new, 1_000, 1);
        assert_eq!(after.peek(1_000), BucketReading::own(1_000));
    }
}

#[test]
fn what_was_shared_comes_back_to_those_who_share_by_the_settings_that_hold() {
    let it = Reloaded::new(64);
    let key = it.key(1);
    let shared = key.overflow();
    let taken = shared.step(0, 1, &it.history, |_| Some(1_300));
    assert_eq!(taken, Ok(1_300));
    it.reload();
    BalanceRef::Table(&it.memory, key).refund(true, &it.meters[0], 1_000, 1);
    assert_eq!(
        shared.peek(1, &it.history),
        Ok(1_200),
        "nobody asks in new terms yet"
    );
    assert_eq!(shared.update(2, &it.history), Order::Equal);
    BalanceRef::Table(&it.memory, key).refund(true, &it.meters[0], 1_000, 1);
    assert_eq!(
        shared.peek(2, &it.history),
        Ok(1_200),
        "two, which weigh more, less one"
    );
}

/// A request has found its limits and is kept from running. The table has its client in the same terms, in which nobody
/// is charged any more.
#[test]
fn nobody_is_charged_in_terms_that_are_retired() {
    let it = Reloaded::new(64);
    let early = it.key(1);
    assert_eq!(it.take(1, 3), Ok(BucketReading::own(1_300)));
    it.pages[1].retire();
    let late = it.key(1);
    let take = |key: &TableKey<'_>, now| it.memory.take(key, &it.meters[0], now, 1, || now);
    assert_eq!(take(&late, 1_000), Err(Untaken::Outdated));
    assert_eq!(
        it.memory.peek(&late, 1_000),
        BucketReading::own(1_300),
        "it may be looked at"
    );
    let seen = take(&early, 1_000);
    assert_eq!(
        seen,
        Ok(BucketReading::own(1_400)),
        "by a reading of before"
    );
    let weight = it.meters[0].weight(1);
    (it.memory).give_back(
        &late,
        BucketReading::own(1_400),
        &it.meters[0],
        1_000,
        weight,
        || 1_000,
    );
    assert_eq!(it.peek(1), BucketReading::own(1_300), "it comes back");
    BalanceRef::Table(&it.memory, late).return_lease(1_300, &it.meters[0], 1_000, 1);
    assert_eq!(it.peek(1), BucketReading::own(1_200), "it comes back");
    it.reload();
    assert_eq!(it.peek(2), BucketReading::own(1_400), "two that weigh more");
    assert_eq!(take(&late, 9_000), Err(Untaken::Outdated));
    assert_eq!(it.peek(2), BucketReading::own(1_400));
}

/// A client that is new is charged with a reading of its own, which may be later than the reload.
#[test]
fn no_client_is_entered_in_terms_that_are_gone() {
    for capacity in [64, 0] {
        let it = Reloaded::new(capacity);
        let early = it.key(1);
        let clock = || {
            it.pages[1].retire();
            it.reload();
            9_000
        };
        let taken = it.memory.take(&early, &it.meters[0], 900, 1, clock);
        assert_eq!(taken, Err(Untaken::Outdated), "{capacity}");
        assert_eq!(it.peek(2).state, 0, "{capacity}");
    }
}
