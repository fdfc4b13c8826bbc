//! The slot of a background task that runs while there is work. At most one task holds it.
//!
//! # Invariants
//!
//! - **One holder.** A task holds the slot from a [claim](TaskSlot::claim) that was granted until it gives the slot
//!   back.
//! - **No work without a holder.** Work is added first, and the slot is claimed after that. A task that finds no work
//!   gives the slot back first, and looks again after that. So either the claim finds the slot free, or the task finds
//!   the work and takes the slot again.
//! - A task that ends early, as with its runtime, [gives the slot back](TaskSlot::give_back) whatever work there is,
//!   which then waits for the next claim.
//!
//! # Memory ordering
//!
//! Each piece of work has to be added and looked for under the same lock, as a lease under that of its shard. The lock
//! orders the second look with an addition that the look misses: the slot was free before that. Acquire and release: a
//! task sees what the task before it has done.

use crate::sync::{AtomicU64, Ordering};

/// The slot of one kind of task, free at first.
#[derive(Debug)]
pub(super) struct TaskSlot(AtomicU64);

/// No task runs, or is about to be spawned.
const FREE: u64 = 0;
/// A task runs, or whoever claimed the slot is about to spawn it.
const HELD: u64 = 1;

impl TaskSlot {
    pub(super) fn new() -> Self {
        Self(AtomicU64::new(FREE))
    }

    /// Claims the slot for a task that is to be spawned. `false`: a task holds it.
    pub(super) fn claim(&self) -> bool {
        self.0.swap(HELD, Ordering::AcqRel) == FREE
    }

    /// Gives the slot back, whatever work there is.
    pub(super) fn give_back(&self) {
        self.0.swap(FREE, Ordering::AcqRel);
    }

    /// Gives the slot back if there is no work. `false`: the caller still holds it.
    pub(super) fn give_back_if(&self, is_done: impl Fn() -> bool) -> bool {
        if !is_done() {
            return false;
        }
        self.give_back();
        // Work may have been added in between, by somebody who found the slot held.
        is_done() || !self.claim()
    }
}

/// All interleavings of a task that ends and work that comes. Run with `--cfg throttle_loom`.
#[cfg(all(test, throttle_loom))]
mod loom_tests {
    use std::sync::Arc;

    use loom::thread;

    use super::*;
    use crate::sync::{Mutex, model};

    /// Pieces of work, and a count of the tasks that do them.
    struct Scene {
        slot: TaskSlot,
        work: Mutex<u64>,
        tasks: AtomicU64,
        done: AtomicU64,
    }

    impl Scene {
        fn new() -> Arc<Self> {
            Arc::new(Self {
                slot: TaskSlot::new(),
                work: Mutex::new(0),
                tasks: AtomicU64::new(0),
                done: AtomicU64::new(0),
            })
        }

        fn work(&self) -> u64 {
            *self.work.lock().expect("no panic")
        }

        /// Adds a piece of work, and does what there is if no task does. A task that `ends` early does not look again.
        fn add(&self, ends: bool) {
            *self.work.lock().expect("no panic") += 1;
            if self.slot.claim() {
                self.run(ends);
            }
        }

        fn run(&self, ends: bool) {
            loop {
                let others = self.tasks.fetch_add(1, Ordering::Relaxed);
                assert_eq!(others, 0, "two tasks at a time");
                let work = std::mem::take(&mut *self.work.lock().expect("no panic"));
                // No exchange: a task sees what those before it have done.
                let done = self.done.load(Ordering::Relaxed);
                self.done.store(done + work, Ordering::Relaxed);
                self.tasks.fetch_sub(1, Ordering::Relaxed);
                if ends {
                    return self.slot.give_back();
                }
                if self.slot.give_back_if(|| self.work() == 0) {
                    return;
                }
            }
        }
    }

    #[test]
    fn loom_no_work_is_left_by_a_task_that_ends_and_no_two_tasks_run() {
        model(|| {
            let scene = Scene::new();
            let threads = [(); 2].map(|()| {
                let scene = Arc::clone(&scene);
                thread::spawn(move || scene.add(false))
            });
            scene.add(false);
            for thread in threads {
                thread.join().expect("no panic");
            }
            assert_eq!(scene.work(), 0, "work without a task");
            assert_eq!(scene.done.load(Ordering::Relaxed), 3);
            assert!(scene.slot.claim(), "held by no task");
        });
    }

    #[test]
    fn loom_work_that_a_task_leaves_is_done_by_the_next() {
        model(|| {
            let scene = Scene::new();
            let early = {
                let scene = Arc::clone(&scene);
                thread::spawn(move || scene.add(true))
            };
            scene.add(false);
            early.join().expect("no panic");
            scene.add(false);
            assert_eq!(scene.work(), 0, "work without a task");
            assert_eq!(scene.done.load(Ordering::Relaxed), 3);
        });
    }
}
