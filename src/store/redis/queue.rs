//! Batches of requests that share one call.
//!
//! A request that arrives while few calls are in flight makes one. Requests that arrive while enough are in flight wait
//! for the next call, together. So nobody waits for others to arrive, and under load more requests share a call.
//!
//! # Invariants
//!
//! - **Each entry is in one call, once.** An entry that is not sent is answered with an error, or its sender is
//!   dropped, which counts as one.
//! - **Entries are sent in the order in which they came.**
//! - **While entries wait, a call is in flight**, and whoever makes it sends them next. A call that is dropped (its
//!   runtime ended, its request was cancelled) hands over to a task of a runtime; without one, all that wait are
//!   answered with an error. A call that is never answered holds up nobody beyond [`Queue::STUCK`].

use std::{
    collections::VecDeque,
    mem,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{runtime::Handle, sync::oneshot, time::Instant};

use super::{
    RedisClient,
    script::{Batch, BatchEntry},
};
use crate::store::{StoreError, Taken};

pub(super) type TakeResult = Result<Taken, StoreError>;

/// Entries that wait for a call.
#[derive(Debug, Default)]
pub(super) struct Queue(Mutex<QueueState>);

#[derive(Debug, Default)]
struct QueueState {
    waiting: VecDeque<Job>,
    /// Calls in flight.
    calls: usize,
    /// The time at which the last call was sent.
    last: Option<Instant>,
    /// Calls that were sent so far.
    sent: u64,
    /// Set if many entries shared the last call.
    is_crowded: bool,
}

#[derive(Debug)]
struct Job {
    entry: BatchEntry,
    answer: oneshot::Sender<TakeResult>,
}

/// The right to make a call. When it is dropped, entries that wait by then go into the next one.
struct CallPermit {
    inner: Arc<RedisClient>,
    /// The number of the call, once it is sent.
    number: u64,
}

/// The right to make a call, on its way to a task of the runtime. If the runtime has ended, nobody makes it.
struct NextCall(Option<Arc<RedisClient>>);

impl Queue {
    /// The most calls in flight: the server works on one while it reads the next.
    const CALLS: usize = 2;

    /// Entries of a call above which one call at a time is made: fewer and larger calls cost both sides less.
    const CROWD: usize = 8;

    /// The age from which a call in flight does not count any more: it may never be answered.
    const STUCK: Duration = Duration::from_millis(5);

    fn with<T>(&self, work: impl FnOnce(&mut QueueState) -> T) -> T {
        // Each step leaves it whole.
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        work(&mut state)
    }
}

impl QueueState {
    /// Counts a call, if one may be made now.
    fn may_call(&mut self) -> bool {
        let now = now();
        let stuck = |last: Instant| now.saturating_duration_since(last) > Queue::STUCK;
        if self.calls >= self.most() && !self.last.is_some_and(stuck) {
            return false;
        }
        self.calls += 1;
        self.last = Some(now);
        true
    }

    /// Returns how many calls may be in flight.
    fn most(&self) -> usize {
        if self.is_crowded { 1 } else { Queue::CALLS }
    }

    /// Removes all entries that wait. They were not sent, so nothing was taken for them.
    fn give_up(&mut self) -> VecDeque<Job> {
        mem::take(&mut self.waiting)
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "of the connection, not of a decision"
)]
fn now() -> Instant {
    Instant::now()
}

impl RedisClient {
    /// Sends an entry and returns its answer.
    pub(super) async fn submit(self: &Arc<Self>, entry: BatchEntry) -> TakeResult {
        let (job, answered) = job(entry);
        self.enqueue([job]).await;
        heard(answered).await
    }

    /// Sends entries, and returns an error if one of them failed.
    pub(super) async fn submit_all(
        self: &Arc<Self>,
        entries: impl Iterator<Item = BatchEntry>,
    ) -> Result<(), StoreError> {
        let (jobs, answered): (Vec<_>, Vec<_>) = entries.map(job).unzip();
        self.enqueue(jobs).await;
        let mut all = Ok(());
        for answered in answered {
            all = all.and(heard(answered).await.map(|_| ()));
        }
        all
    }

    async fn enqueue(self: &Arc<Self>, jobs: impl IntoIterator<Item = Job>) {
        let leads = self.queue.with(|state| {
            state.waiting.extend(jobs);
            state.may_call()
        });
        if leads {
            CallPermit::new(self).call().await;
        }
    }
}

fn job(entry: BatchEntry) -> (Job, oneshot::Receiver<TakeResult>) {
    let (answer, answered) = oneshot::channel();
    (Job { entry, answer }, answered)
}

async fn heard(answered: oneshot::Receiver<TakeResult>) -> TakeResult {
    let answer = answered.await;
    answer.unwrap_or_else(|_| Err(StoreError::unavailable(DROPPED)))
}

const DROPPED: &str = "the call was dropped before it was answered";

impl CallPermit {
    fn new(inner: &Arc<RedisClient>) -> Self {
        Self {
            inner: Arc::clone(inner),
            number: 0,
        }
    }

    /// Makes one call of the entries that wait.
    async fn call(mut self) {
        let inner = Arc::clone(&self.inner);
        let mut call = Batch::default();
        let answers = inner.queue.with(|state| {
            let mut answers = Vec::with_capacity(state.waiting.len().min(Batch::MOST));
            while let Some(Job { entry, answer }) = state.waiting.pop_front() {
                match call.push(entry) {
                    Ok(()) => answers.push(answer),
                    Err(entry) => {
                        state.waiting.push_front(Job { entry, answer });
                        break;
                    }
                }
            }
            state.is_crowded = answers.len() > Queue::CROWD;
            state.last = Some(now());
            state.sent += 1;
            self.number = state.sent;
            answers
        });
        if answers.is_empty() {
            return;
        }
        let told = inner.call(&call).await;
        if let Err(error) = &told {
            // Nor would it answer those, and by the time that it does nobody wants to know.
            let waiting = inner.queue.with(QueueState::give_up);
            for Job { answer, .. } in waiting {
                let _ = answer.send(Err(error.clone()));
            }
        }
        let mut told = told.map(Vec::into_iter);
        for answer in answers {
            // Nobody may listen any more.
            let _ = answer.send(match &mut told {
                Ok(told) => told
                    .next()
                    .unwrap_or_else(|| Err(StoreError::unavailable(DROPPED))),
                Err(error) => Err(error.clone()),
            });
        }
    }
}

impl Drop for CallPermit {
    fn drop(&mut self) {
        let Self { inner, number } = self;
        let goes_on = inner.queue.with(|state| {
            // The last goes on, whatever has become of those before it.
            let goes_on =
                !state.waiting.is_empty() && (state.calls <= state.most() || *number == state.sent);
            state.calls -= usize::from(!goes_on);
            goes_on
        });
        if goes_on {
            let mut next = NextCall(Some(Arc::clone(inner)));
            let runtime = Handle::try_current();
            let runtime = runtime.as_ref().unwrap_or(&inner.runtime);
            runtime.spawn(async move {
                if let Some(inner) = next.0.take() {
                    CallPermit::new(&inner).call().await;
                }
            });
        }
    }
}

impl Drop for NextCall {
    fn drop(&mut self) {
        if let Some(inner) = self.0.take() {
            let waiting = inner.queue.with(|state| {
                state.calls -= 1;
                state.give_up()
            });
            drop(waiting);
        }
    }
}
