//! All interleavings of corrections that come as an outage begins or ends. Run with `--cfg throttle_loom`.

use loom::thread;

use super::super::breaker::{Breaker, BreakerState};
use super::*;
use crate::sync::{AtomicU64, Ordering, model};

/// Corrections that wait, and a count of those that were sent.
struct Scene {
    breaker: Breaker,
    task: TaskSlot,
    waiting: crate::sync::Mutex<u64>,
    sent: AtomicU64,
}

impl Scene {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            breaker: Breaker::new(),
            task: TaskSlot::new(),
            waiting: crate::sync::Mutex::new(0),
            sent: AtomicU64::new(0),
        })
    }

    fn is_down(&self) -> bool {
        self.breaker.state() != BreakerState::Up
    }

    fn waiting(&self) -> u64 {
        *self.waiting.lock().expect("no panic")
    }

    fn add(&self) {
        *self.waiting.lock().expect("no panic") += 1;
        self.send_pending();
    }

    /// Ends the outage, as a probe that is answered does.
    fn recover(&self) {
        self.breaker.reset();
        self.send_pending();
    }

    fn send_pending(&self) {
        if !self.is_down() && self.task.claim() {
            self.run();
        }
    }

    fn run(&self) {
        loop {
            while !self.is_down() {
                match mem::take(&mut *self.waiting.lock().expect("no panic")) {
                    0 => break,
                    sent => self.sent.fetch_add(sent, Ordering::Relaxed),
                };
            }
            let is_done = || self.is_down() || self.waiting() == 0;
            if self.task.give_back_if(is_done) {
                return;
            }
        }
    }
}

#[test]
fn loom_what_waits_for_the_end_of_an_outage_is_sent_after_it() {
    model(|| {
        let scene = Scene::new();
        assert!(scene.breaker.trip());
        let threads = [Scene::recover as fn(&Scene), Scene::add].map(|work| {
            let scene = Arc::clone(&scene);
            thread::spawn(move || work(&scene))
        });
        scene.add();
        for thread in threads {
            thread.join().expect("no panic");
        }
        assert_eq!(scene.waiting(), 0, "it waits, and the store is up");
        assert_eq!(scene.sent.load(Ordering::Relaxed), 2);
        assert!(scene.task.claim(), "held by no task");
    });
}

#[test]
fn loom_what_comes_as_an_outage_begins_is_sent_or_waits_for_its_end() {
    model(|| {
        let scene = Scene::new();
        let outage = {
            let scene = Arc::clone(&scene);
            thread::spawn(move || {
                assert!(scene.breaker.trip());
                scene.recover();
            })
        };
        scene.add();
        scene.add();
        outage.join().expect("no panic");
        assert_eq!(scene.waiting(), 0, "it waits, and the store is up");
        assert_eq!(scene.sent.load(Ordering::Relaxed), 2);
    });
}
