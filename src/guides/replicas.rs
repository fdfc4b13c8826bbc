//! Replicas: limits that several processes share.
//!
//! ```no_run
//! use tower_throttle::store::{OnOutage, RedisStore};
//! use tower_throttle::{Clients, Limits, Quota, Rate, Rules, ThrottleLayer};
//!
//! # async fn run(secret: &[u8]) -> Result<(), Box<dyn std::error::Error>> {
//! let each = Limits::new()
//!     .rate(Rate::per_second(2).burst(10))
//!     .quota(Quota::per_day(1_000));
//! let rules = Rules::new()
//!     .total(Rate::per_second(100).burst(50))
//!     // The same secret for all replicas: clients are hashed under it.
//!     .clients(Clients::by_header("x-api-key").each(each).secret(secret));
//! let throttle = ThrottleLayer::builder(rules)
//!     .store(RedisStore::connect("redis://limits:password@10.0.0.5").await?)
//!     .on_outage(OnOutage::Local { share: 4 })
//!     .lease(50)
//!     .build()?;
//! # Ok(())
//! # }
//! ```
//!
//! Four replicas with these rules share one limit of a hundred a second, and each client has one quota, whichever
//! replica it calls. The example `shared` runs two such servers with one command.
//!
//! # What is exact
//!
//! The [bound](crate#guarantees) holds for all replicas together, to the nanosecond, by the clock of the store's
//! server. The clocks of replicas take no part. A request is charged on all of its limits in one call, or on none. It
//! is charged once: a call is never repeated, even if its answer is lost.
//!
//! A refusal needs no call if a bucket is known to be empty and all other buckets of the request are known, too.
//! Otherwise the store is asked, so that the stated wait is true. Such knowledge is used for at most ten seconds (a
//! quarter of a second for model tokens), so that the deletion of a key by hand takes effect by then. Units that other
//! replicas take or return meanwhile are not known: a wait may then turn out shorter or longer.
//!
//! [Slots](crate::guides::models#slots) are not shared, since they belong to a process and end with it.
//! [Queues](crate::guides::models#queues) are not shared either: requests wait for limits in a store as for others,
//! first come, first served in each process, but in any order between processes.
//!
//! # Losses
//!
//! | event | admitted beyond the limit, at most |
//! |---|---|
//! | a key is evicted or deleted, or the server starts empty | one burst of that bucket, and its [leased](#leases) units: `n` in each process |
//! | failover to a replica of the server | the charges within the replication lag |
//! | failover to a server whose clock is ahead | the refill of the difference; if its clock is behind, requests wait longer, at most as with an empty bucket |
//! | an outage, with [`OnOutage::Local`](crate::store::OnOutage::Local) and the number of replicas as `share` | one burst at its beginning and one at its end, each at least the number of replicas |
//! | one replica of four cannot reach the server, same setting | a quarter of the limit, while that lasts |
//! | an answer is late or lost | nothing; an unused charge may remain |
//! | a [correction](#corrections) is lost | the units that it owed |
//!
//! A quota's burst is the quota. Keep the clocks of servers that may replace each other in step, as NTP does.
//!
//! # Outages
//!
//! A request waits for the store at most [`store_deadline`](crate::ThrottleLayerBuilder::store_deadline), by default 25
//! ms. The first call that times out marks the store down. From then on one probe at a time asks it, and all other
//! requests are decided without it, as set by [`OnOutage`](crate::store::OnOutage): admitted, refused with 503, or
//! limited by this process at a share of the limits, by default all of them. The store is used again within about a
//! second of its return.
//!
//! The feature `tracing` logs both changes with their cause, and `metrics` has `throttle_store_up`,
//! `throttle_store_errors_total` and `throttle_store_outage_total`. A bucket that the store cannot charge, such as a
//! key that another program has written, is no outage: only its requests are decided without the store, and the cause
//! is logged.
//!
//! [`RedisStore::connect`](crate::store::RedisStore::connect) fails if the server cannot be reached;
//! [`connect_lazy`](crate::store::RedisStoreBuilder::connect_lazy) starts without it.
//!
//! # Corrections
//!
//! Requests do not wait for corrections of their charges: model tokens and money that are counted and settled, and
//! failures that are refunded. Each process adds them up by bucket, and sends them together.
//!
//! - While the store is down they wait for its return, and then count as if the requests had ended at that time. What a
//!   window of a quota owes is dropped once the window has ended. Corrections of at most 65,536 buckets wait, in about
//!   10 MB. Those of further buckets are not made: what was charged stands, without what was owed beyond it.
//! - The corrections of a call that fails, as the one that finds the store down, may be lost. The process cannot know,
//!   and never repeats them. A request that goes on gives back only what the store owes for certain, so that it takes
//!   nothing from what others owe, and does not owe again what the store may owe. In the end its charge differs from
//!   its use by at most the units of that call.
//! - Corrections that wait are lost if their process ends before the store is up again.
//!
//! # Leases
//!
//! With [`lease(50)`](crate::ThrottleLayerBuilder::lease) each process takes up to 50 units of a bucket at a time and
//! spends them without a call. It never admits more than the limit, since a unit is charged when it is leased. The cost
//! is that other processes may refuse while one still holds units: never more than half of the remaining units, a
//! quarter of the bucket, or one second's rate.
//!
//! Unspent units of a crashed process come back at the rate's pace; those of a quota at the end of its window.
//! [`Handle::return_leases`](crate::Handle::return_leases) returns them before a process ends. Do not use leases if
//! limits are small or replicas many.
//!
//! A lease pays if many requests are admitted: one call then serves 50 of them. If a limit is used only to a twentieth,
//! a lease lapses before it is spent. If it is used up, there is nothing to lease. In both cases there are about as
//! many calls as without.
//!
//! # The server
//!
//! - **Versions.** Redis 5 or newer, or Valkey: one server, [sentinels](crate::store::RedisStore::sentinels) or a
//!   [cluster](crate::store::RedisStore::cluster). A replica is never asked, since its data is old.
//! - **Memory.** About 170 bytes for each bucket that is not full. A bucket expires when it is full; that of a quota
//!   with its window. [`max_clients`](crate::Clients::max_clients) bounds the table of a process and not the server, so
//!   admit only verified identities, or give the server enough memory for a flood of others. Set `maxmemory-policy
//!   noeviction`: a full server is then an outage, whereas eviction forgets usage. Persistence is not needed; without
//!   it a restart loses balances, as in the table above.
//! - **Clusters.** All keys of one throttle are in one hash slot, since they are charged in one step. One node thus has
//!   all of its load, and another takes over when it fails. Several throttles are spread by
//!   [name](crate::store::RedisStoreBuilder::name). While their slot moves, requests may be decided as in an outage.
//! - **TLS.** `rediss://`, with the feature `redis-tls`; `RedisStoreBuilder::certificates` sets a custom authority and
//!   a client certificate.
//! - **Permissions.** A user needs only these: `ACL SETUSER limits on >password ~throttle:* +hello +eval +evalsha +mget
//!   +exists +set +del +time +ping +role`. Without `+hello`, an idle connection that the server has closed is noticed
//!   only by the next request, which is then decided as in an outage.
//! - **Stored data.** Names of limits and route keys. A client is stored as 32 hexadecimal digits, a hash under the
//!   [secret](crate::Clients::secret). An undeclared path is stored as such a hash, too, which hides it only if there
//!   is a secret.
//!
//! # Replicas with different rules
//!
//! Replicas with different rules, as during a rolling update, share the limits of a scope that have the same kind and
//! name, or without a name the same kind and period. Used units stay used under either of the settings. Such a limit is
//! refilled by the settings that charged it last, so a new rate holds once all replicas have it. A
//! [reload](crate::Handle::reload) changes the rules of one process.
//!
//! A limit with a new name, or an unnamed limit with a new period, is a different limit in the store and starts full.
//! So do limits of clients under a new secret. Replicas with different secrets do not share limits of clients, and no
//! error reports that.
