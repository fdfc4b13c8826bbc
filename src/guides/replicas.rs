//! Limits that several replicas share.
//!
//! ```no_run
//! use tower_throttle::{Clients, Limits, Quota, Rate, Rules, ThrottleLayer, store::{OnOutage, RedisStore}};
//!
//! # async fn run(secret: &[u8]) -> Result<(), Box<dyn std::error::Error>> {
//! let each = Limits::new().rate(Rate::per_second(2).burst(10)).quota(Quota::per_day(1_000));
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
//! Four replicas that do so have one limit of a hundred a second, and each client has one quota, wherever it asks.
//! The example `shared` is two model servers of this kind in one command.
//!
//! # What is exact
//!
//! The [bound](crate#what-it-promises) holds for all replicas together, to the nanosecond of what is kept and by the
//! clock of the server alone; theirs may show what they like. A request is charged on all of its limits in one call,
//! or on none. It is charged once: a call is never sent again, whatever has become of its answer. A refusal needs no
//! call if a bucket is known to be empty and all others of the request are known too; otherwise the store is asked,
//! so that the wait is true. That is believed for ten seconds at most (a quarter of a second for model tokens), so
//! that somebody who deletes a key by hand is heard by then. What other replicas took or gave back meanwhile is not
//! known: such a wait may end earlier or later.
//!
//! Not shared are [slots](crate::guides::models#slots), which belong to a process and end with it, and
//! [lines](crate::guides::models#queues): requests wait for limits in a store as for others, first come, first served
//! in each process and by chance between them.
//!
//! # What may be lost
//!
//! | what happens | admitted beyond the limit, at most |
//! |---|---|
//! | a key is evicted or deleted, or the server starts empty | one burst of that bucket, and what was [leased](#leases) of it: `n` in each process |
//! | a replica of the server takes its place | what was charged within the lag of replication |
//! | it does so with a clock that is ahead | what comes back within the difference; behind, requests wait for longer, as at an empty bucket at most |
//! | the server is away, [`OnOutage::Local`](crate::store::OnOutage::Local) with the number of replicas | one burst when that begins and one when it ends; the number of replicas in place of a burst or quota that is smaller |
//! | one replica of four alone does not reach it, likewise | a quarter of the limit, for as long as that lasts |
//! | an answer is late or lost | nothing; a charge may be left that nobody used |
//!
//! A quota's burst is the quota. Keep the clocks of servers that may replace each other in step, as NTP does.
//!
//! # Outages
//!
//! A request waits no longer than [`store_deadline`](crate::ThrottleLayerBuilder::store_deadline), 25 ms without a
//! word. The first that waits in vain finds the store down; from then on it is probed, and all others are decided
//! without it as [`OnOutage`](crate::store::OnOutage) says: let through, refused with 503, or by limits of this
//! process at a share of the whole. Without a word it is the whole. Within about a second of the store's return it is
//! asked again. The feature `tracing` tells both, and the cause, and `metrics` has `throttle_store_up`,
//! `throttle_store_errors_total` and `throttle_store_outage_total`. A bucket that the store cannot charge, such as a
//! key that another program has written, is no outage: only its requests are decided so, and `tracing` tells why.
//!
//! [`RedisStore::connect`](crate::store::RedisStore::connect) is an error if the server is not there;
//! [`connect_lazy`](crate::store::RedisStoreBuilder::connect_lazy) starts without it.
//!
//! # Leases
//!
//! With [`lease(50)`](crate::ThrottleLayerBuilder::lease) each process takes up to 50 units of a bucket at a time and
//! spends them without a call. It never admits more than the limit: a unit is charged when it is leased. What it
//! costs is that others may be refused while one still has some: as many as it holds, which is never more than half
//! of what is left, a quarter of the bucket or a second's rate. What a process that crashes has not spent comes back
//! at the rate's pace, of a quota at the end of its window. [`Handle::return_leases`](crate::Handle::return_leases)
//! gives it back before a process ends. Where limits are small or replicas many, leave it out.
//!
//! A lease is of use where many requests are let through: of 50, one call serves 50 of them. Of a limit that is used
//! to a twentieth, a lease lapses before it is spent, and one that is used up has nothing to lease; then there are
//! about as many calls as without.
//!
//! # The server
//!
//! - **Versions.** Redis 5 or newer, or Valkey; one, [sentinels](crate::store::RedisStore::sentinels) or a
//!   [cluster](crate::store::RedisStore::cluster). A replica is never asked: what it tells is old.
//! - **Memory.** Some 170 bytes for each bucket that is not full, which expires when it is: of a quota with its
//!   window. [`max_clients`](crate::Clients::max_clients) bounds the table of a process and not the server, so let
//!   only verified identities through, or give the server as much memory as a flood of others may take. Set
//!   `maxmemory-policy noeviction`: a full server is then an outage, while one that evicts forgets what was used.
//!   Nothing has to be saved to disk; what is not is lost with a restart, as in the table above.
//! - **Clusters.** All keys of one throttle are in one hash slot, since they are charged in one step: so one node has
//!   all of its load, and another takes over when that fails. Several throttles are spread by
//!   [name](crate::store::RedisStoreBuilder::name). While their slot moves, requests may be decided as in an outage.
//! - **TLS.** `rediss://`, with the feature `redis-tls`; an authority and a certificate of one's own with
//!   `RedisStoreBuilder::certificates`.
//! - **A user.** It needs no more than this: `ACL SETUSER limits on >password ~throttle:* +hello +eval +evalsha +mget
//!   +exists +set +del +time +ping +role`. Without `+hello` a connection that the server closes while nobody asks is
//!   found to be closed by the next request, which is then decided as in an outage.
//! - **Its knowledge.** Names of limits and route keys. A client is 32 hexadecimal digits, a hash under the
//!   [secret](crate::Clients::secret); a path that nobody declared is one, too, which hides it only if there is a
//!   secret.
//!
//! # Other rules
//!
//! Replicas with other rules, as in a rolling update, share those limits of a scope that they know by the same kind
//! and name or, without a name, by the same kind and period; and what was used of one stays used under either of its
//! settings. Such a limit is refilled by the settings that charged it last, so another rate holds once all replicas
//! have it. A [reload](crate::Handle::reload) changes one process's rules. A limit that gets another name, or without
//! one another period, is another one there, and starts full; so do limits of clients under another secret. Replicas
//! with different secrets have the same limits each for itself, and nothing tells them.
