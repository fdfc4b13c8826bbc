//! Storage of balances: in this process, or in a store that several processes share.
//!
//! Without [`ThrottleLayerBuilder::store`](crate::ThrottleLayerBuilder::store) each process keeps its own balances and
//! enforces its own limits. With it, rates, quotas and rates of model tokens are charged to a store that all replicas
//! of a server share, so that a limit holds for all of them together. Slots in flight stay in the process: see
//! [`Limits::in_flight`](crate::Limits::in_flight).
//!
//! - [`MemoryStore`] keeps balances in this process, for several layers in it.
//! - `RedisStore`, with the feature `redis`, keeps them in Redis or Valkey.
//! - Any other database takes an implementation of [`Store`].
//!
//! # A store of one's own
//!
//! A [`Store`] has two methods: [`take`](Store::take) charges buckets, [`correct`](Store::correct) changes them
//! afterwards. Each [`Charge`] says which bucket it means ([`BucketKey`]) and what that allows ([`Budget`]), so a store
//! needs no configuration. There are two ways to do the arithmetic, both described at [`Budget`]: in Rust, next to the
//! data, with the methods of `Budget`; or in the database, from the numbers that `Budget` tells. `RedisStore` does the
//! latter, in a script, with nothing but the public types of this module.
//!
//! With the feature `test-util`, `store::conformance` checks that a store keeps the promises below.

mod budget;
mod charge;
pub(crate) mod client;
#[cfg(feature = "test-util")]
pub mod conformance;
mod error;
mod memory;
#[cfg(feature = "redis")]
mod redis;

use std::{fmt, future::Future, pin::Pin};

pub use self::client::OnOutage;
#[cfg(feature = "redis-tls")]
pub use self::redis::RedisCertificates;
#[cfg(feature = "redis")]
pub use self::redis::{RedisStore, RedisStoreBuilder, RedisStoreError};
pub use self::{
    budget::{Budget, Stored},
    charge::{Balance, BucketKey, Charge, Correction, Taken},
    error::StoreError,
    memory::MemoryStore,
};
pub use crate::limit::quota::Window;

/// The future of a call to a [`Store`].
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// Storage of balances for several processes.
///
/// # Promises of a store
///
/// - *All or nothing.* Either all enforced charges of a call are taken, or nothing is written.
/// - *One call at a time.* Calls that touch the same bucket are carried out one after the other.
/// - *One clock.* All processes are answered by the same clock, in nanoseconds since the Unix epoch: the store's, not
///   theirs. A store that counts more coarsely rounds so that nobody gets a unit too soon.
/// - *At most once.* A call that may have been carried out is never sent again, whatever became of its answer.
/// - *Nothing is forgotten early.* An entry is kept until its bucket is full again ([`Stored::full_at`]).
///
/// # Promises of the throttle
///
/// - The throttle has a [deadline](crate::ThrottleLayerBuilder::store_deadline) of its own for each call. It drives
///   every future to its end, beyond the deadline and when the client has gone away, and gives back with
///   [`Store::correct`] what was taken too late. A store needs no timeout but for calls that never end, and nothing has
///   to be undone where a future is dropped, as it is when the runtime ends.
/// - A call of [`Store::take`] has no bucket twice, no limit with two budgets, and no more charges than a request has
///   limits, rarely more than five. A call of [`Store::correct`] may have a bucket several times.
/// - Calls come from several tasks at once, and a request waits for each: a store does not block.
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// Takes all enforced charges or none of them, and then each shadow by itself.
    ///
    /// - An enforced charge is refused if its bucket does not hold its cost. If one is refused, nothing is taken, and
    ///   [`Taken::is_admitted`] is `false`.
    /// - Otherwise all are taken, and beside each up to [`Charge::lease`] units more, as many as [`Budget::lease`]
    ///   allows or fewer.
    /// - Otherwise each shadow ([`Charge::is_shadow`]) is taken, too, if its bucket holds its cost. A shadow whose
    ///   bucket does not is told as [refused](Balance::is_refused), whether the call is admitted or not.
    ///
    /// The answer has a balance for each charge, in the order of the charges, as the call has left it.
    ///
    /// A cost of zero takes nothing and always fits: it asks for the balance. A call without charges asks whether
    /// charges could be taken now, as after an outage: a store that can be read and not written answers with an error.
    ///
    /// # Errors
    ///
    /// [`StoreError::unavailable`] if it can take nothing from anybody: then no request asks it until it answers a call
    /// without charges. [`StoreError::bucket`] if it is these buckets that cannot be taken from. In either case nothing
    /// was taken, or nobody knows; the call is never made again.
    fn take<'a>(&'a self, charges: &'a [Charge]) -> StoreFuture<'a, Taken>;

    /// Changes balances, whatever they are. Each correction stands by itself: one that fails keeps no other from being
    /// made.
    ///
    /// # Errors
    ///
    /// As [`Store::take`], if any of them failed.
    fn correct<'a>(&'a self, corrections: &'a [Correction]) -> StoreFuture<'a, ()>;
}
