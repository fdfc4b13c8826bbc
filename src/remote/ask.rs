//! One question to the store.

use std::{
    error::Error,
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use tokio::runtime::Handle;

use super::{Remote, deadlines::Key};
use crate::{
    clock::{Nanos, nanos},
    store::{Charge, Correction, StoreError, Taken},
};

/// A question to the store. Dropped before it is answered, what it takes is given back.
pub(crate) struct Ask {
    remote: Arc<Remote>,
    /// Until it is answered. Nobody waits for its lock: it lets this be shared between threads.
    call: Option<Mutex<Call>>,
    deadline: Duration,
    sent: Nanos,
    /// Where it waits for its deadline.
    key: Option<Key>,
    /// Whether what it takes too late stays taken.
    is_kept: bool,
}

/// What was asked, and what the answer is.
type Answer = (Vec<Charge>, Result<Taken, StoreError>);
type Call = Pin<Box<dyn Future<Output = Answer> + Send>>;

impl Ask {
    pub(super) fn new(remote: Arc<Remote>, charges: Vec<Charge>, deadline: Duration) -> Self {
        let store = Arc::clone(&remote.store);
        let call: Call = Box::pin(async move {
            let taken = store.take(&charges).await;
            (charges, taken)
        });
        Self {
            sent: remote.clock.now(),
            remote,
            call: Some(Mutex::new(call)),
            deadline,
            key: None,
            is_kept: false,
        }
    }

    /// What the store answers, or that it does not, in time.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Taken, StoreError>> {
        if let Ok(runtime) = Handle::try_current() {
            self.remote.runtime.get_or_init(|| runtime);
        }
        let answer = match &mut self.call {
            Some(call) => {
                let call = call.get_mut().unwrap_or_else(PoisonError::into_inner);
                call.as_mut().poll(cx)
            }
            None => return Poll::Ready(Err(StoreError::unavailable(Late))),
        };
        if let Poll::Ready((charges, taken)) = answer {
            self.call = None;
            match &taken {
                Ok(taken) => self.remote.heard(&charges, taken, self.sent),
                Err(error) => self.remote.failed(error, self.deadline),
            }
            return Poll::Ready(taken);
        }
        let remote = &self.remote;
        let deadline = self.sent.saturating_add(nanos(self.deadline));
        if remote.clock.now() < deadline {
            if remote.deadlines.enter(&mut self.key, deadline, cx.waker()) {
                let deadlines = Arc::clone(&remote.deadlines);
                remote.spawn(deadlines.watch(remote.clock));
            }
            return Poll::Pending;
        }
        let late = StoreError::unavailable(Late);
        self.remote.failed(&late, self.deadline);
        Poll::Ready(Err(late))
    }

    /// What it takes too late stays taken: the request was let through.
    pub(crate) fn keep(&mut self) {
        self.is_kept = true;
    }
}

impl Drop for Ask {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.remote.deadlines.leave(key);
        }
        let Some(call) = self.call.take() else {
            return;
        };
        let call = call.into_inner().unwrap_or_else(PoisonError::into_inner);
        let (remote, is_kept) = (Arc::clone(&self.remote), self.is_kept);
        self.remote.spawn(async move {
            let (charges, taken) = call.await;
            match taken {
                Ok(taken) if taken.is_admitted && !is_kept => {
                    remote.corrected(undone(charges, &taken)).await;
                }
                _ => {}
            }
        });
    }
}

/// What gives back all that was taken.
fn undone(charges: Vec<Charge>, taken: &Taken) -> Vec<Correction> {
    let charges = charges.into_iter().zip(&taken.balances);
    let charges = charges.filter(|(_, balance)| !balance.is_refused);
    let undo = |(charge, _): (Charge, _)| Correction::Undo {
        key: charge.key,
        budget: charge.budget,
        units: charge.cost,
        taken: taken.now,
    };
    charges.map(undo).collect()
}

/// The store has not answered in time.
#[derive(Debug)]
struct Late;

impl fmt::Display for Late {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it did not answer in time")
    }
}

impl Error for Late {}

impl fmt::Debug for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ask")
            .field("sent", &self.sent)
            .finish_non_exhaustive()
    }
}
