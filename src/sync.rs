//! Atomics and locks: the standard library's, or loom's where all their interleavings are looked at.

#[cfg(throttle_loom)]
pub(crate) use loom::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering},
};
#[cfg(not(throttle_loom))]
pub(crate) use std::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering},
};
