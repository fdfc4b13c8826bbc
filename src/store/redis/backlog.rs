//! Jobs that wait for a call, and the calls in flight.
//!
//! # Invariants
//!
//! - **No job waits without a call in flight.** A job is added together with the decision whether its caller makes a
//!   call. A call that ends while jobs wait is followed by the next one, unless enough others are in flight.
//! - **Each job is taken once**: into a call, or by whoever tells it that none is made. A call that nobody makes, since
//!   its runtime has ended, takes the jobs that wait along.
//! - **A few calls at a time**, but for those that are stuck.
//!
//! # Memory ordering
//!
//! One lock orders all.

use std::{collections::VecDeque, mem, sync::PoisonError, time::Duration};

#[cfg(throttle_loom)]
use loom::sync::Mutex;
#[cfg(not(throttle_loom))]
use std::sync::Mutex;
use tokio::time::Instant;

/// Jobs that wait for a call.
#[derive(Debug)]
pub(super) struct Backlog<J>(Mutex<BacklogState<J>>);

#[derive(Debug)]
struct BacklogState<J> {
    waiting: VecDeque<J>,
    /// Calls in flight.
    calls: usize,
    /// The time at which the last call was sent.
    last: Option<Instant>,
    /// Calls that were sent so far.
    sent: u64,
    /// Set if many jobs shared the last call.
    is_crowded: bool,
}

impl<J> Backlog<J> {
    /// The most calls in flight: the server works on one while it reads the next.
    const CALLS: usize = 2;

    /// Jobs of a call above which one call at a time is made: fewer and larger calls cost both sides less.
    const CROWD: usize = if cfg!(throttle_loom) { 1 } else { 8 };

    /// The age from which a call in flight does not count any more: it may never be answered.
    const STUCK: Duration = Duration::from_millis(5);

    pub(super) fn new() -> Self {
        Self(Mutex::new(BacklogState {
            waiting: VecDeque::new(),
            calls: 0,
            last: None,
            sent: 0,
            is_crowded: false,
        }))
    }

    /// Adds jobs. `true`: the caller makes a call, which is in flight from now on.
    pub(super) fn add(&self, jobs: impl IntoIterator<Item = J>, now: impl Fn() -> Instant) -> bool {
        self.with(|state| {
            state.waiting.extend(jobs);
            let now = now();
            let is_stuck = |last: Instant| now.saturating_duration_since(last) > Self::STUCK;
            if state.calls >= state.most() && !state.last.is_some_and(is_stuck) {
                return false;
            }
            state.calls += 1;
            state.last = Some(now);
            true
        })
    }

    /// Sends a call that is in flight, with the jobs that are taken for it. Returns its number.
    pub(super) fn send<T>(
        &self,
        now: impl Fn() -> Instant,
        take: impl FnOnce(&mut VecDeque<J>) -> T,
    ) -> (u64, T) {
        self.with(|state| {
            let before = state.waiting.len();
            let taken = take(&mut state.waiting);
            state.is_crowded = before - state.waiting.len() > Self::CROWD;
            state.last = Some(now());
            state.sent += 1;
            (state.sent, taken)
        })
    }

    /// Ends the call of this number. `true`: another follows, and is in flight instead.
    pub(super) fn end(&self, number: u64) -> bool {
        self.with(|state| {
            // The last goes on, whatever has become of those before it.
            let goes_on =
                !state.waiting.is_empty() && (state.calls <= state.most() || number == state.sent);
            state.calls -= usize::from(!goes_on);
            goes_on
        })
    }

    /// Ends a call that nobody makes, and removes the jobs that wait: nobody else may come for them.
    pub(super) fn abandon(&self) -> VecDeque<J> {
        self.with(|state| {
            state.calls -= 1;
            mem::take(&mut state.waiting)
        })
    }

    /// Removes all jobs that wait. They were not sent, so nothing was taken for them.
    pub(super) fn give_up(&self) -> VecDeque<J> {
        self.with(|state| mem::take(&mut state.waiting))
    }

    fn with<T>(&self, work: impl FnOnce(&mut BacklogState<J>) -> T) -> T {
        // Each step leaves it whole.
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        work(&mut state)
    }
}

impl<J> BacklogState<J> {
    /// Returns how many calls may be in flight.
    fn most(&self) -> usize {
        if self.is_crowded {
            1
        } else {
            Backlog::<J>::CALLS
        }
    }
}

/// All interleavings of jobs that come and calls that end. Run with `--cfg throttle_loom`.
#[cfg(all(test, throttle_loom))]
mod loom_tests {
    use std::sync::Arc;

    use loom::{
        sync::atomic::{AtomicU64, Ordering},
        thread,
    };

    use super::*;
    use crate::sync::model;

    /// Jobs by their numbers, and how often each was told what became of it.
    struct Scene {
        backlog: Backlog<usize>,
        told: [AtomicU64; 4],
        now: Instant,
    }

    impl Scene {
        fn new() -> Arc<Self> {
            #[expect(clippy::disallowed_methods, reason = "a moment that stands still")]
            let now = Instant::now();
            Arc::new(Self {
                backlog: Backlog::new(),
                told: [(); 4].map(|()| AtomicU64::new(0)),
                now,
            })
        }

        fn tell(&self, jobs: impl IntoIterator<Item = usize>) {
            for job in jobs {
                self.told[job].fetch_add(1, Ordering::Relaxed);
            }
        }

        /// Submits a job, and makes the calls that follow from it. Those after the first are made by nobody if the
        /// runtime `ends`.
        fn submit(&self, job: usize, ends: bool) {
            let now = || self.now;
            if !self.backlog.add([job], now) {
                return;
            }
            loop {
                let (number, jobs) = self.backlog.send(now, mem::take);
                self.tell(jobs);
                if !self.backlog.end(number) {
                    return;
                }
                if ends {
                    return self.tell(self.backlog.abandon());
                }
            }
        }

        /// A call that fails tells those that wait, too.
        fn fail(&self, job: usize) {
            let now = || self.now;
            if !self.backlog.add([job], now) {
                return;
            }
            let (number, jobs) = self.backlog.send(now, mem::take);
            self.tell(self.backlog.give_up());
            self.tell(jobs);
            if self.backlog.end(number) {
                self.tell(self.backlog.abandon());
            }
        }
    }

    fn race(works: [fn(&Scene, usize); 2]) {
        model(move || {
            let scene = Scene::new();
            let threads = [0, 1].map(|job| {
                let scene = Arc::clone(&scene);
                thread::spawn(move || works[job](&scene, job))
            });
            scene.submit(2, false);
            scene.submit(3, false);
            for thread in threads {
                thread.join().expect("no panic");
            }
            let told = [0, 1, 2, 3].map(|job| scene.told[job].load(Ordering::Relaxed));
            assert_eq!(told, [1; 4], "each once");
            assert_eq!(scene.backlog.with(|state| state.calls), 0, "in flight");
        });
    }

    #[test]
    fn loom_each_job_is_told_once_whoever_makes_its_call() {
        race([|scene, job| scene.submit(job, false); 2]);
    }

    #[test]
    fn loom_a_job_is_told_where_the_runtime_ends_that_was_to_make_its_call() {
        race([|scene, job| scene.submit(job, true); 2]);
    }

    #[test]
    fn loom_a_job_that_waits_is_told_where_the_call_before_it_fails() {
        race([
            |scene, job| scene.fail(job),
            |scene, job| {
                scene.submit(job, false);
            },
        ]);
    }
}
