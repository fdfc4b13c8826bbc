//! All interleavings of a bucket that is closed and of those that still have it. Run with `--cfg throttle_loom`.

use std::{sync::Arc, time::Duration};

use loom::thread;

use super::*;
use crate::{
    limit::rate::Rate,
    limiter::{
        balance::BalanceRef,
        meter_history::{MeterStep, MeterTerms},
    },
    sync::{AtomicUsize, model},
};

/// Time stands still.
const NOW: Nanos = 5;

/// A bucket under some rules.
struct Under {
    bucket: Arc<Bucket>,
    history: MeterHistory,
    version: Version,
    meter: Meter,
}

impl Under {
    fn new(version: Version, meter: Meter) -> Self {
        Self {
            bucket: Arc::new(Bucket::full(version)),
            history: MeterHistory::new(Some(MeterStep {
                version,
                since: 0,
                meter,
            })),
            version,
            meter,
        }
    }

    fn balance(&self) -> BalanceRef<'_> {
        let terms = MeterTerms {
            version: self.version,
            history: &self.history,
        };
        BalanceRef::Bucket(&self.bucket, terms)
    }

    /// A charge of one. `None`: these rules are outdated.
    fn take(&self) -> Option<bool> {
        let balance = self.balance();
        match balance.take(balance.start(), &self.meter, NOW, 1, || NOW) {
            Ok(_) => Some(true),
            Err(Untaken::Refused(_)) => Some(false),
            Err(Untaken::Outdated) => None,
        }
    }

    fn refund(&self) {
        self.balance().refund(false, &self.meter, NOW, 1);
    }

    fn used(&self) -> u64 {
        let (Ok(state) | Err(state)) = self.bucket.peek(self.version, &self.history);
        self.meter.used(state, NOW)
    }
}

/// One route under two rules, of which the second take the place of the first, with a bucket of its own.
struct Scene {
    old: Under,
    new: Under,
    is_reloaded: AtomicUsize,
}

impl Scene {
    fn new(meter: Meter) -> Arc<Self> {
        Arc::new(Self {
            old: Under::new(1, meter),
            new: Under::new(2, meter),
            is_reloaded: AtomicUsize::new(0),
        })
    }

    fn reload(&self, adds: bool) {
        let Under {
            bucket,
            history,
            version,
            meter,
        } = &self.new;
        let source = Source {
            bucket: &self.old.bucket,
            history: &self.old.history,
            meter: Some(self.old.meter),
        };
        let heir = Successor {
            bucket,
            history,
            version: *version,
            meter: Some(*meter),
        };
        heir.inherit(&[source], || NOW, adds);
        self.is_reloaded.store(1, Ordering::Release);
    }

    /// The rules that a request finds.
    fn found(&self) -> &Under {
        match self.is_reloaded.load(Ordering::Acquire) {
            0 => &self.old,
            _ => &self.new,
        }
    }
}

fn rate(burst: u64) -> Meter {
    Meter::of_rate(&Rate::per_hour(1).burst(burst)).expect("open")
}

fn slots(count: u64) -> Meter {
    Meter::of_slots(count).expect("some")
}

#[test]
fn loom_charges_during_a_reload_are_a_part_of_what_the_heir_begins_with_or_are_made_anew() {
    model(|| {
        let scene = Scene::new(rate(2));
        let requests = [(); 2].map(|()| {
            let scene = Arc::clone(&scene);
            thread::spawn(move || scene.found().take())
        });
        scene.reload(false);
        let admitted = requests.map(|request| {
            let admitted = request.join().expect("no panic");
            admitted.or_else(|| scene.new.take())
        });
        assert_eq!(admitted, [Some(true); 2], "there is room for two");
        assert_eq!(scene.new.used(), 2);
        assert_eq!(scene.new.take(), Some(false), "and for no third");
        assert_eq!(scene.old.take(), None, "the old rules are outdated");
    });
}

/// A route that was entered during the reload: its bucket is added to one that others have charged.
#[test]
fn loom_charges_of_a_late_route_are_added_to_what_its_heir_has_each_once() {
    model(|| {
        let scene = Scene::new(rate(3));
        assert_eq!(scene.new.take(), Some(true));
        let request = {
            let scene = Arc::clone(&scene);
            thread::spawn(move || scene.found().take())
        };
        scene.reload(true);
        let admitted = request.join().expect("no panic");
        assert_eq!(admitted.or_else(|| scene.new.take()), Some(true));
        assert_eq!(scene.new.used(), 2);
    });
}

#[test]
fn loom_a_slot_that_is_freed_or_taken_during_a_reload_is_counted_once() {
    model(|| {
        let scene = Scene::new(slots(2));
        assert_eq!(scene.old.take(), Some(true));
        let frees = {
            let scene = Arc::clone(&scene);
            thread::spawn(move || scene.old.refund())
        };
        let takes = {
            let scene = Arc::clone(&scene);
            thread::spawn(move || {
                let under = scene.found();
                under.take().map(|taken| (under.version, taken))
            })
        };
        scene.reload(false);
        frees.join().expect("no panic");
        let taken = takes.join().expect("no panic");
        let held = match taken {
            Some((version, taken)) => {
                assert!(taken, "one of two is free");
                assert_eq!(scene.new.used(), 1, "held");
                if version == scene.old.version {
                    &scene.old
                } else {
                    &scene.new
                }
            }
            None => {
                assert_eq!(scene.new.used(), 0, "freed");
                assert_eq!(scene.new.take(), Some(true));
                &scene.new
            }
        };
        held.refund();
        assert_eq!(scene.new.used(), 0, "a slot is lost");
    });
}

#[test]
fn loom_a_charge_that_is_given_back_or_owed_during_a_reload_comes_to_the_heir() {
    model(|| {
        let scene = Scene::new(rate(3));
        assert_eq!(scene.old.take(), Some(true));
        let owes = {
            let scene = Arc::clone(&scene);
            thread::spawn(move || scene.old.balance().owe(&scene.old.meter, NOW, 1, || NOW))
        };
        let refunds = {
            let scene = Arc::clone(&scene);
            thread::spawn(move || scene.old.refund())
        };
        scene.reload(false);
        owes.join().expect("no panic");
        refunds.join().expect("no panic");
        assert_eq!(scene.new.used(), 1);
    });
}

/// A rate of which a unit weighs so many nanoseconds.
fn paced(interval: u64) -> Meter {
    let rate = Rate::new(1, Duration::from_nanos(interval)).burst(3);
    Meter::of_rate(&rate).expect("open")
}

/// A unit weighs a hundred times as much from a moment on, in which the clock goes on by 500.
#[test]
fn loom_a_bucket_owes_no_time_for_a_charge_as_its_terms_change() {
    model(|| {
        let old = Arc::new(Under::new(1, paced(10)));
        let time = Arc::new(AtomicU64::new(5));
        let request = {
            let (old, time) = (Arc::clone(&old), Arc::clone(&time));
            thread::spawn(move || {
                let now = time.load(Ordering::Acquire);
                let next = |state| old.meter.take(state, now, 1).ok();
                let taken = (old.bucket).step(old.bucket.load(), 1, &old.history, next);
                taken.is_ok()
            })
        };
        let now = || time.load(Ordering::Acquire);
        let passes = || time.fetch_add(500, Ordering::AcqRel);
        old.history.go_on(2, paced(1_000), passes, |steps| {
            old.bucket.carry_over(2, steps, now);
        });
        let is_taken = request.join().expect("no panic");
        let used = paced(1_000).used(old.bucket.load(), now());
        assert!(used <= 1 && (is_taken || used == 0), "{used}, {is_taken}");
        assert!(old.bucket.is_in(old.bucket.load(), 2));
    });
}

/// The same of what a closed bucket has left, and is owed late.
#[test]
fn loom_an_estate_owes_no_time_for_a_debt_as_its_terms_change() {
    model(|| {
        let old = Arc::new(Under::new(1, paced(10)));
        old.bucket.retire(&old.history);
        let time = Arc::new(AtomicU64::new(5));
        let owes = {
            let (old, time) = (Arc::clone(&old), Arc::clone(&time));
            thread::spawn(move || {
                let now = time.load(Ordering::Acquire);
                assert!(old.bucket.settle_late(LateCorrection::Owe, 1, now));
            })
        };
        let passes = || time.fetch_add(500, Ordering::AcqRel);
        old.history.go_on(2, paced(1_000), passes, |_| ());
        old.bucket.follow();
        owes.join().expect("no panic");
        let heir = Under::new(2, paced(1_000));
        let successor = Successor {
            bucket: &heir.bucket,
            history: &heir.history,
            version: 2,
            meter: Some(heir.meter),
        };
        let source = Source {
            bucket: &old.bucket,
            history: &old.history,
            meter: Some(paced(1_000)),
        };
        successor.inherit(&[source], || 505, false);
        let used = heir.meter.used(heir.bucket.load(), 505);
        assert!(used <= 1, "{used} of one");
    });
}
