//! Storage of balances: in this process, or in a store that several processes share.
//!
//! Without [`ThrottleLayerBuilder::store`](crate::ThrottleLayerBuilder::store) each process keeps its own balances and
//! enforces its own limits. With it, rates, quotas and rates of model tokens are charged to a store that all replicas
//! of a server share, so that a limit holds for all of them together. Slots in flight stay in the process: see
//! [`Limits::in_flight`](crate::Limits::in_flight).
//!
//! - [`MemoryStore`] keeps balances in this process, for several layers in it.
//! - `RedisStore`, with the feature `redis`, keeps them in Redis or Valkey.
//! - Any other database needs an implementation of [`Store`].
//!
//! # Custom stores
//!
//! A [`Store`] has two methods: [`take`](Store::take) charges buckets, and [`correct`](Store::correct) changes them
//! afterwards. Each [`Charge`] names its bucket ([`BucketKey`]) and its allowance ([`Budget`]), so a store needs no
//! configuration. [`Budget`] describes two ways to do the arithmetic: in Rust, next to the data, with the methods of
//! `Budget`; or in the database, from the numbers of `Budget`. `RedisStore` does the latter in a script, using only the
//! public types of this module.
//!
//! With the feature `test-util`, `store::conformance` tests that a store keeps the promises of [`Store`].

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
/// - *One clock.* All answers follow one clock, the store's and not that of any process, in nanoseconds since the Unix
///   epoch. A store with a coarser clock rounds so that no unit comes back too soon.
/// - *At most once.* A call that may have been carried out is never sent again, even if its answer was lost.
/// - *No early expiry.* An entry is kept until its bucket is full again ([`Stored::full_at`]).
///
/// # Promises of the throttle
///
/// - The throttle sets a [deadline](crate::ThrottleLayerBuilder::store_deadline) for each call. It drives every future
///   to its end, even past the deadline or after the client has gone away, and returns with [`Store::correct`] what was
///   taken too late. A store needs a timeout only for calls that never end. When a future is dropped, as at the end of
///   the runtime, nothing has to be undone.
/// - A call of [`Store::take`] has no bucket twice, no limit with two budgets, and no more charges than a request has
///   limits, rarely more than five. A call of [`Store::correct`] may have a bucket several times.
/// - Several tasks call at once, and a request waits for each call: a store must not block.
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// Takes all enforced charges or none of them, and then each shadow by itself.
    ///
    /// - An enforced charge is refused if its bucket does not hold its cost. If one is refused, nothing is taken, and
    ///   [`Taken::is_admitted`] is `false`.
    /// - Otherwise all are taken. In addition, each takes up to [`Charge::lease`] more units, as many as
    ///   [`Budget::lease`] allows or fewer.
    /// - If the call is admitted, each shadow ([`Charge::is_shadow`]) whose bucket holds its cost is taken, too. On a
    ///   refused call no shadow is taken. A shadow whose bucket does not hold its cost is reported as
    ///   [refused](Balance::is_refused) in both cases.
    ///
    /// The answer has a balance for each charge, in the order of the charges, after the call.
    ///
    /// A cost of zero takes nothing and always fits: it reads the balance. A call without charges asks whether charges
    /// could be taken now, as after an outage. A store that can be read but not written answers it with an error.
    ///
    /// # Errors
    ///
    /// [`StoreError::unavailable`] if the store can charge no bucket: no request asks it again until it answers a call
    /// without charges. [`StoreError::bucket`] if only these buckets cannot be charged. In both cases nothing was
    /// taken, or the result is unknown; the call is never repeated.
    fn take<'a>(&'a self, charges: &'a [Charge]) -> StoreFuture<'a, Taken>;

    /// Changes balances unconditionally. Each correction is independent: if one fails, the others are still made.
    ///
    /// # Errors
    ///
    /// As [`Store::take`], if any of them failed. Then all of them count as unknown: none is sent again, and the
    /// throttle gives nothing back of what they owed. While the store is unavailable no corrections are sent. They wait
    /// until a call of [`Store::take`] without charges is answered.
    fn correct<'a>(&'a self, corrections: &'a [Correction]) -> StoreFuture<'a, ()>;
}
