//! The connection in use, which is replaced when it has ended or is lost.
//!
//! # Invariants
//!
//! - **A connection that has [ended](End) is handed out no more.** So a charge that is sent after that reaches a
//!   server, and a caller that had the connection before is told by the connection's error.
//! - **Each connection has a number and an end of its own.** Whatever is reported of one takes no later one away.
//! - **One connection is made at a time.** Callers without one wait for that, and share it.
//! - **A connection is lost once.** Of all callers that report it, one is told so.
//!
//! # Memory ordering
//!
//! The lock orders all but the end, which is told without it and guards no memory, hence relaxed.

use std::{
    future::Future,
    sync::{Arc, PoisonError},
};

#[cfg(throttle_loom)]
use loom::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicU64, Ordering},
};
#[cfg(not(throttle_loom))]
use std::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicU64, Ordering},
};
use tokio::sync;

/// Holds the connection in use.
#[derive(Debug)]
pub(super) struct Current<C> {
    tracked: Mutex<Option<TrackedConnection<C>>>,
    /// Held by the caller that connects.
    connecting: sync::Mutex<()>,
    numbers: AtomicU64,
}

/// A connection with its number and its end.
#[derive(Debug, Clone)]
pub(super) struct TrackedConnection<C> {
    pub(super) connection: C,
    number: u64,
    end: End,
}

/// The end of a connection, which its server tells, though nobody asks.
#[derive(Debug, Clone)]
pub(super) struct End(Arc<AtomicBool>);

impl End {
    /// Returns the end of a connection that is open.
    pub(super) fn new() -> Self {
        Self(Arc::new(AtomicBool::new(false)))
    }

    /// The server has closed the connection.
    pub(super) fn tell(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn has_come(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl<C: Clone> Current<C> {
    pub(super) fn new() -> Self {
        Self {
            tracked: Mutex::new(None),
            connecting: sync::Mutex::const_new(()),
            numbers: AtomicU64::new(0),
        }
    }

    /// Returns the connection in use, or the one that `connect` makes.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the next caller connects.
    pub(super) async fn get<E>(
        &self,
        connect: impl Future<Output = Result<(C, End), E>>,
    ) -> Result<TrackedConnection<C>, E> {
        if let Some(tracked) = self.present() {
            return Ok(tracked);
        }
        let _alone = self.connecting.lock().await;
        if let Some(tracked) = self.present() {
            return Ok(tracked);
        }
        connect.await.map(|opened| self.replace(opened))
    }

    fn present(&self) -> Option<TrackedConnection<C>> {
        self.with(|tracked| {
            tracked
                .as_ref()
                .filter(|tracked| !tracked.end.has_come())
                .cloned()
        })
    }

    /// Puts a connection into the place of the one in use.
    pub(super) fn replace(&self, (connection, end): (C, End)) -> TrackedConnection<C> {
        let tracked = TrackedConnection {
            connection,
            number: self.numbers.fetch_add(1, Ordering::Relaxed),
            end,
        };
        self.with(|present| *present = Some(tracked.clone()));
        tracked
    }

    /// Gives up a connection that is of no use. `false`: it was given up or replaced before.
    pub(super) fn lose(&self, lost: &TrackedConnection<C>) -> bool {
        self.with(|present| present.take_if(|tracked| tracked.number == lost.number))
            .is_some()
    }

    fn with<T>(&self, work: impl FnOnce(&mut Option<TrackedConnection<C>>) -> T) -> T {
        // Each step leaves it whole.
        work(&mut self.tracked.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// All interleavings of calls and the end of their connection. Run with `--cfg throttle_loom`.
#[cfg(all(test, throttle_loom))]
mod loom_tests {
    use std::{
        convert::Infallible,
        pin::pin,
        task::{Context, Poll, Waker},
    };

    use loom::thread;

    use super::*;
    use crate::sync::model;

    /// A server that closes the first connection, once.
    struct Server {
        current: Current<u64>,
        first: End,
        is_closed: AtomicBool,
        opened: AtomicU64,
        lost: AtomicU64,
    }

    impl Server {
        fn new() -> Arc<Self> {
            let server = Self {
                current: Current::new(),
                first: End::new(),
                is_closed: AtomicBool::new(false),
                opened: AtomicU64::new(1),
                lost: AtomicU64::new(0),
            };
            server.current.replace((0, server.first.clone()));
            Arc::new(server)
        }

        fn closes(&self) {
            self.is_closed.store(true, Ordering::Relaxed);
            self.first.tell();
        }

        fn connection(&self) -> TrackedConnection<u64> {
            let connect = async {
                let number = self.opened.fetch_add(1, Ordering::Relaxed);
                Ok::<_, Infallible>((number, End::new()))
            };
            let mut tracked = pin!(self.current.get(connect));
            let mut cx = Context::from_waker(Waker::noop());
            loop {
                if let Poll::Ready(Ok(tracked)) = tracked.as_mut().poll(&mut cx) {
                    return tracked;
                }
                thread::yield_now();
            }
        }

        /// A call: whether it was answered. A caller that is not reports the connection.
        fn call(&self) -> bool {
            let tracked = self.connection();
            let is_lost = tracked.connection == 0 && self.is_closed.load(Ordering::Relaxed);
            if is_lost && self.current.lose(&tracked) {
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
            !is_lost
        }
    }

    #[test]
    fn loom_a_connection_that_has_ended_is_replaced_once_and_by_one_that_stays() {
        model(|| {
            let server = Server::new();
            let closing = {
                let server = Arc::clone(&server);
                thread::spawn(move || server.closes())
            };
            let calling = {
                let server = Arc::clone(&server);
                thread::spawn(move || {
                    // A caller that is told has the next one.
                    let is_answered = server.call() || server.call();
                    assert!(is_answered, "told twice of one end");
                })
            };
            let is_answered = server.call() || server.call();
            assert!(is_answered, "told twice of one end");
            closing.join().expect("no panic");
            assert!(server.call(), "sent after the end");
            calling.join().expect("no panic");
            assert_eq!(server.connection().connection, 1, "the second stays");
            assert_eq!(server.opened.load(Ordering::Relaxed), 2);
            assert!(server.lost.load(Ordering::Relaxed) <= 1, "lost twice");
        });
    }
}
