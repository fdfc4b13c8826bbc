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

use std::sync::Arc;

use tokio::{runtime::Handle, sync::oneshot, time::Instant};

use super::{
    RedisClient,
    backlog::Backlog,
    script::{Batch, BatchEntry},
};
use crate::store::{StoreError, Taken};

pub(super) type TakeResult = Result<Taken, StoreError>;

/// Entries that wait for a call.
pub(super) type Queue = Backlog<Job>;

#[derive(Debug)]
pub(super) struct Job {
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
            all = both(all, heard(answered).await.map(|_| ()));
        }
        all
    }

    async fn enqueue(self: &Arc<Self>, jobs: impl IntoIterator<Item = Job>) {
        if self.queue.add(jobs, now) {
            CallPermit::new(self).call().await;
        }
    }
}

/// Sends parts one after the other, since requests wait behind each, and returns an error if one of them failed. After
/// one that has found the store unavailable none is sent: each would wait for its deadline.
pub(super) async fn send_parts<T, F>(
    parts: impl Iterator<Item = T>,
    mut send: impl FnMut(T) -> F,
) -> Result<(), StoreError>
where
    F: Future<Output = Result<(), StoreError>>,
{
    let mut all = Ok(());
    for part in parts {
        all = both(all, send(part).await);
        if all.as_ref().is_err_and(StoreError::is_unavailable) {
            break;
        }
    }
    all
}

/// Returns the error of either answer: the one that says the store is unavailable, or else the first.
fn both(one: Result<(), StoreError>, other: Result<(), StoreError>) -> Result<(), StoreError> {
    match (&one, &other) {
        (Err(first), Err(second)) if !first.is_unavailable() && second.is_unavailable() => other,
        _ => one.and(other),
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
        let (number, answers) = inner.queue.send(now, |waiting| {
            let mut answers = Vec::with_capacity(waiting.len().min(Batch::MOST));
            while let Some(Job { entry, answer }) = waiting.pop_front() {
                match call.push(entry) {
                    Ok(()) => answers.push(answer),
                    Err(entry) => {
                        waiting.push_front(Job { entry, answer });
                        break;
                    }
                }
            }
            answers
        });
        self.number = number;
        if answers.is_empty() {
            return;
        }
        let told = inner.call(&call).await;
        if let Err(error) = &told {
            // Nor would it answer those, and by the time that it does nobody wants to know.
            for Job { answer, .. } in inner.queue.give_up() {
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
        if inner.queue.end(*number) {
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
            drop(inner.queue.abandon());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, future::ready};

    use super::*;

    fn bucket() -> Result<(), StoreError> {
        Err(StoreError::bucket("foreign"))
    }

    fn unavailable() -> Result<(), StoreError> {
        Err(StoreError::unavailable("down"))
    }

    #[tokio::test]
    async fn nothing_is_sent_to_a_store_that_was_found_down() {
        // (answers, parts that are sent, whether all were made, whether the store is found to be unavailable)
        let table = [
            (vec![], 0, true, false),
            (vec![Ok(()), Ok(())], 2, true, false),
            (vec![Ok(()), unavailable(), Ok(())], 2, false, true),
            (vec![bucket(), Ok(()), Ok(())], 3, false, false),
            (vec![bucket(), unavailable(), Ok(())], 2, false, true),
            (vec![Ok(()), Ok(()), bucket()], 3, false, false),
        ];
        for (answers, sent, is_made, is_down) in table {
            let told = format!("{answers:?}");
            let count = Cell::new(0);
            let answer = send_parts(answers.into_iter(), |answer| {
                count.set(count.get() + 1);
                ready(answer)
            });
            let answer = answer.await;
            assert_eq!(count.get(), sent, "{told}");
            assert_eq!(answer.is_ok(), is_made, "{told}");
            let found = answer.is_err_and(|error| error.is_unavailable());
            assert_eq!(found, is_down, "{told}");
        }
    }

    #[test]
    fn of_two_errors_the_one_of_the_whole_store_counts() {
        for (one, other) in [(bucket(), unavailable()), (unavailable(), bucket())] {
            let error = both(one, other).expect_err("two errors");
            assert!(error.is_unavailable(), "{error}");
        }
        assert!(both(Ok(()), bucket()).is_err() && both(bucket(), Ok(())).is_err());
        assert!(both(Ok(()), Ok(())).is_ok());
    }
}
