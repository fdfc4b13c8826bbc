//! Calls that requests share.
//!
//! A request that comes while few calls are on their way makes one. Those that come while enough are wait for the
//! next, together: so nobody waits for others to come, and the more there are, the more share a call.

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

/// Who waits for a call.
#[derive(Debug, Default)]
pub(super) struct Queue(Mutex<QueueState>);

#[derive(Debug, Default)]
struct QueueState {
    waiting: VecDeque<Job>,
    /// How many calls are on their way.
    calls: usize,
    /// When the last one was sent.
    last: Option<Instant>,
    /// How many were sent.
    sent: u64,
    /// Whether many shared it.
    is_crowded: bool,
}

#[derive(Debug)]
struct Job {
    entry: BatchEntry,
    answer: oneshot::Sender<TakeResult>,
}

/// A call that may be made. When it is dropped, what waits by then goes into the next.
struct CallPermit {
    inner: Arc<RedisClient>,
    /// Which of all calls it was.
    number: u64,
}

/// A call that is made by nobody's future but the runtime's. If that has ended, it is made by nobody.
struct NextCall(Option<Arc<RedisClient>>);

impl Queue {
    /// The server works on one call while it reads the next.
    const CALLS: usize = 2;

    /// Where more than these share a call, one at a time is enough: fewer and larger ones cost both sides less.
    const CROWD: usize = 8;

    /// A call that is older than this holds up nobody: it may never be answered.
    const STUCK: Duration = Duration::from_millis(5);

    fn with<T>(&self, work: impl FnOnce(&mut QueueState) -> T) -> T {
        // Each step leaves it whole.
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        work(&mut state)
    }
}

impl QueueState {
    /// Whether a call is made now; then it counts.
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

    /// How many calls are made at a time.
    fn most(&self) -> usize {
        if self.is_crowded { 1 } else { Queue::CALLS }
    }

    /// Leaves all who wait without an answer. They were not heard, so nothing was taken for them.
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
    /// What becomes of an entry.
    pub(super) async fn submit(self: &Arc<Self>, entry: BatchEntry) -> TakeResult {
        let (job, answered) = job(entry);
        self.enqueue([job]).await;
        heard(answered).await
    }

    /// Whether all entries were done.
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

    /// Makes one call of what waits.
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
