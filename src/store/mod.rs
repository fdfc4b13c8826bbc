//! Where balances are kept: in this process, or in a store that several processes share.
//!
//! Without [`ThrottleLayer::store`](crate::ThrottleLayer::store) each process keeps its own balances and enforces its
//! own limits. With it, rates, quotas and rates of model tokens are charged to a store that all replicas of a server
//! share, so that a limit holds for all of them together. Slots in flight stay in the process: see
//! [`Limits::in_flight`](crate::Limits::in_flight).
//!
//! [`MemoryStore`] keeps balances in the process for several layers there; `RedisStore`, with the feature `redis`, in
//! Redis or Valkey. To bring another, implement [`Store`]; the arithmetic is in [`Budget`], so that all that is left
//! is to read and write some numbers together, at a time that all who share them agree on. With the feature
//! `test-util`, `store::conformance` tells whether it keeps what is promised here.

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

/// What a [`Store`] answers, in time.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// Keeps balances for several processes.
///
/// # What a store promises
///
/// - *All or nothing.* Either all enforced charges of one call are taken, or none is written anywhere.
/// - *One at a time.* What others take is before a call or after it, never in the midst.
/// - *One clock.* All who share it are answered by the same clock, in nanoseconds since the Unix epoch. It is the
///   store's, not theirs.
/// - *Once.* A call that may have been carried out is never sent again, whatever has become of its answer.
/// - *Nothing is forgotten early.* What it keeps of a bucket is kept until that is full again ([`Stored::full_at`]).
///
/// # What it may rely on
///
/// The throttle has a deadline of its own for each call, and drives every future to its end, beyond the deadline and
/// when the client has gone away: what was taken then is given back with [`Store::correct`]. A store needs no timeout
/// of its own but for what never ends, and nothing has to be undone where a future is dropped.
///
/// It holds no more charges in one call than a request has limits: rarely more than five.
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// Takes all charges, or none of them; and then the shadows among them, each by itself.
    ///
    /// - An enforced charge is refused if its bucket does not hold its cost. If one is, nothing is taken.
    /// - If none is, each shadow ([`Charge::is_shadow`]) is taken if its bucket holds its cost, and otherwise told as
    ///   [refused](Balance::is_refused).
    ///
    /// The answer has a balance for each charge, in their order, as the call has left it.
    ///
    /// Without charges it is asked whether charges could be taken now, as after an outage: a store that can be read
    /// and not be written answers with an error.
    ///
    /// # Errors
    ///
    /// [`StoreError::unavailable`] if it can take nothing from anybody; then it is asked no more for a while.
    /// [`StoreError::bucket`] if it is these buckets that cannot be taken from. In either case nothing was taken, or
    /// nobody knows; it is never tried again.
    fn take<'a>(&'a self, charges: &'a [Charge]) -> StoreFuture<'a, Taken>;

    /// Changes balances whatever they are. Each correction stands by itself.
    ///
    /// # Errors
    ///
    /// As [`Store::take`].
    fn correct<'a>(&'a self, corrections: &'a [Correction]) -> StoreFuture<'a, ()>;
}
