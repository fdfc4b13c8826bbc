//! Atomics and locks: the standard library's, or loom's where all their interleavings are looked at.

#[cfg(throttle_loom)]
pub(crate) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU64, AtomicUsize, Ordering, fence},
};
#[cfg(not(throttle_loom))]
pub(crate) use std::sync::{
    Mutex, MutexGuard, OnceLock,
    atomic::{AtomicU64, AtomicUsize, Ordering, fence},
};

#[cfg(throttle_loom)]
pub(crate) use self::once_lock::OnceLock;

/// A cell that is written once, of parts that loom knows: loom has none of its own.
#[cfg(throttle_loom)]
mod once_lock {
    use std::sync::PoisonError;

    use super::{AtomicUsize, Mutex, Ordering};

    #[derive(Debug)]
    pub(crate) struct OnceLock<T> {
        value: std::sync::OnceLock<T>,
        is_set: AtomicUsize,
        initializing: Mutex<()>,
    }

    impl<T> OnceLock<T> {
        pub(crate) fn new() -> Self {
            Self {
                value: std::sync::OnceLock::new(),
                is_set: AtomicUsize::new(0),
                initializing: Mutex::new(()),
            }
        }

        pub(crate) fn get(&self) -> Option<&T> {
            match self.is_set.load(Ordering::Acquire) {
                0 => None,
                _ => self.value.get(),
            }
        }

        pub(crate) fn get_or_init(&self, init: impl FnOnce() -> T) -> &T {
            if let Some(value) = self.get() {
                return value;
            }
            let initializing = self.initializing.lock();
            let _alone = initializing.unwrap_or_else(PoisonError::into_inner);
            if self.get().is_none() {
                let value = init();
                self.value.get_or_init(|| value);
                self.is_set.store(1, Ordering::Release);
            }
            self.get().expect("it is set")
        }
    }
}

/// A waker that remembers that it was woken, for models of who wakes whom.
#[cfg(all(test, throttle_loom))]
pub(crate) mod flag {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
        task::Wake,
    };

    /// The atomic is none of loom's: it is looked at when all threads have ended, or by the one that is woken.
    #[derive(Default)]
    pub(crate) struct Flag(AtomicBool);

    impl Flag {
        /// Returns whether it was woken.
        pub(crate) fn is_set(&self) -> bool {
            self.0.load(Ordering::SeqCst)
        }

        /// Forgets that it was woken, and tells whether it was.
        pub(crate) fn clear(&self) -> bool {
            self.0.swap(false, Ordering::SeqCst)
        }
    }

    impl Wake for Flag {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
}

/// Looks at the interleavings of `work`: all with up to three switches away from a thread that could go on. These have
/// every race of a few exchanges, and all of three threads would take hours.
#[cfg(all(test, throttle_loom))]
pub(crate) fn model(work: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(work);
}
