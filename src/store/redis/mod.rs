//! Balances in Redis or Valkey.

#[cfg(not(feature = "redis-tls"))]
#[path = "no_tls.rs"]
mod tls;
#[cfg(feature = "redis-tls")]
mod tls;

mod backlog;
mod connection;
mod queue;
mod script;
mod servers;

use std::{error::Error, fmt, sync::Arc};

use ::redis::{Cmd, ErrorKind, Script, ServerErrorKind, Value};
use tokio::runtime::Handle;

#[cfg(feature = "redis-tls")]
pub use self::tls::RedisCertificates;
use self::{
    queue::Queue,
    script::{BODY, Batch, BatchEntry, PROBE},
    servers::{Connector, Servers, info},
};
use crate::store::{BucketKey, Charge, Correction, Store, StoreError, StoreFuture, Taken};

/// Balances in Redis or Valkey. All processes that connect to the same server with the same
/// [name](RedisStoreBuilder::name) share them.
///
/// ```no_run
/// use tower_throttle::{Rate, Rules, ThrottleLayer, store::RedisStore};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let rules = Rules::new().total(Rate::per_second(100).burst(50));
/// let throttle = ThrottleLayer::builder(rules)
///     .store(RedisStore::connect("redis://localhost").await?)
///     .build()?;
/// # Ok(())
/// # }
/// ```
///
/// # Calls and keys
///
/// All charges of a request are checked and taken in one call of a script, by the server's clock. Simultaneous requests
/// share a call, and each is still taken whole or not at all. A call is sent only once, unless the server reports that
/// it did not carry the call out (`NOSCRIPT`, `MOVED`, `ASK`). Broken connections are made anew.
///
/// A bucket is a key, such as `throttle:{default}:route POST /chat/rate-60s`, or `throttle:{default}:client/rate-60s:`
/// and 32 hexadecimal digits for a client, and expires when it is full. Nothing else is stored, and a client only as a
/// hash under [a secret](crate::Clients::secret). All keys of a throttle have one hash tag and so are on one node of a
/// cluster.
///
/// # Requirements
///
/// - Redis 5 or newer, or Valkey, on a 64-bit machine.
/// - `maxmemory-policy noeviction`: an evicted key is a full bucket.
/// - A user with access to the keys `throttle:*` and the commands `+hello +eval +evalsha +mget +exists +set +del +time
///   +ping +role`.
#[derive(Clone)]
pub struct RedisStore {
    inner: Arc<RedisClient>,
}

struct RedisClient {
    connector: Connector,
    queue: Queue,
    script: Code,
    probe: Code,
    /// The beginning of each key.
    prefix: String,
    runtime: Handle,
}

/// A script, and the hash by which the server knows it.
struct Code {
    body: &'static str,
    hash: String,
}

impl Code {
    fn new(body: &'static str) -> Self {
        let hash = Script::new(body).get_hash().to_owned();
        Self { body, hash }
    }
}

/// An error while setting up a [`RedisStore`].
///
/// Its source is the cause, with the address of the server and without the user. It exposes no type of the crate
/// `redis`.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum RedisStoreError {
    /// An invalid address.
    #[error("the server's address is invalid; write one such as `redis://localhost:6379`")]
    Url(#[source] Box<dyn Error + Send + Sync>),
    /// A name or a prefix that would break the form of keys.
    #[error("`{0}` is empty or contains braces, a colon or spaces; choose another prefix")]
    Name(String),
    /// Certificates that cannot be read.
    #[error("the certificates cannot be read; they are PEM, which begins with `-----BEGIN`")]
    Certificates(#[source] Box<dyn Error + Send + Sync>),
    /// The server could not be reached, refuses the user, or is a replica.
    #[error("the server cannot be used")]
    Connect(#[source] StoreError),
}

/// Writes the text of `Display`, and the causes.
impl fmt::Debug for RedisStoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        match self {
            Self::Url(source) | Self::Certificates(source) => write!(f, ": {source}"),
            Self::Connect(source) => write!(f, ": {source:?}"),
            Self::Name(_) => Ok(()),
        }
    }
}

/// Settings of a [`RedisStore`].
#[derive(Debug, Clone)]
#[must_use]
pub struct RedisStoreBuilder {
    servers: Servers,
    prefix: String,
    name: String,
}

impl RedisStore {
    /// Connects to one server with the default settings: [`RedisStore::server`] and [`RedisStoreBuilder::connect`].
    ///
    /// # Errors
    ///
    /// Those of [`RedisStore::server`] and [`RedisStoreBuilder::connect`].
    pub async fn connect(url: &str) -> Result<Self, RedisStoreError> {
        Self::server(url)?.connect().await
    }

    /// Sets up a store on one server: `redis://user:password@host:6379/0`, `rediss://…` for TLS (with the feature
    /// `redis-tls`), or `redis+unix:///path`.
    ///
    /// # Errors
    ///
    /// [`RedisStoreError::Url`].
    pub fn server(url: &str) -> Result<RedisStoreBuilder, RedisStoreError> {
        Ok(RedisStoreBuilder::new(Servers::One(info(url)?)))
    }

    /// Sets up a store on a cluster, given some of its nodes. All keys of a throttle are on one node, which any node
    /// can name. The user and the kind of connection are those of the first address.
    ///
    /// While the slot of that node moves to another, calls may find only some of the buckets; they are answered as in
    /// an outage until it has moved.
    ///
    /// # Errors
    ///
    /// [`RedisStoreError::Url`].
    pub fn cluster<'a>(
        urls: impl IntoIterator<Item = &'a str>,
    ) -> Result<RedisStoreBuilder, RedisStoreError> {
        let nodes = urls.into_iter().map(info).collect::<Result<_, _>>()?;
        Ok(RedisStoreBuilder::new(Servers::Cluster(nodes)))
    }

    /// Sets up a store on the primary of a service, as sentinels name it. They are asked whenever a connection is made.
    ///
    /// `server` is a URL as for [`RedisStore::server`] and sets the user and the kind of connection. Its host and port
    /// are replaced by those that the sentinels name.
    ///
    /// # Errors
    ///
    /// [`RedisStoreError::Url`].
    pub fn sentinels<'a>(
        urls: impl IntoIterator<Item = &'a str>,
        service: impl Into<String>,
        server: &str,
    ) -> Result<RedisStoreBuilder, RedisStoreError> {
        Ok(RedisStoreBuilder::new(Servers::Sentinels {
            sentinels: urls.into_iter().map(info).collect::<Result<_, _>>()?,
            service: service.into(),
            server: info(server)?,
        }))
    }
}

impl RedisStoreBuilder {
    fn new(servers: Servers) -> Self {
        Self {
            servers,
            prefix: "throttle".to_owned(),
            name: "default".to_owned(),
        }
    }

    /// Sets the prefix of all keys. Default: `throttle`.
    pub fn prefix(self, prefix: impl Into<String>) -> Self {
        Self {
            prefix: prefix.into(),
            ..self
        }
    }

    /// Sets the name of the throttle on its server: throttles with the same name share their limits. Default:
    /// `default`.
    pub fn name(self, name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            ..self
        }
    }

    /// Connects.
    ///
    /// # Errors
    ///
    /// [`RedisStoreError::Name`], and [`RedisStoreError::Connect`] if the server cannot be reached within a second,
    /// refuses the user, or cannot be written.
    ///
    /// # Panics
    ///
    /// Panics outside of a tokio runtime, like [`RedisStoreBuilder::connect_lazy`].
    pub async fn connect(self) -> Result<RedisStore, RedisStoreError> {
        let store = self.connect_lazy()?;
        store
            .inner
            .probe()
            .await
            .map_err(RedisStoreError::Connect)?;
        Ok(store)
    }

    /// Connects on first use. Until then, and while the server cannot be reached, requests are decided as in an outage.
    /// Use it for servers that must start even if Redis is down.
    ///
    /// # Errors
    ///
    /// [`RedisStoreError::Name`].
    ///
    /// # Panics
    ///
    /// Panics outside of a tokio runtime.
    pub fn connect_lazy(self) -> Result<RedisStore, RedisStoreError> {
        let Self {
            servers,
            prefix,
            name,
        } = self;
        let improper = |text: &String| {
            let taken = |c: char| matches!(c, '{' | '}' | ':') || c.is_whitespace();
            text.is_empty() || text.contains(taken)
        };
        if let Some(text) = [&prefix, &name].into_iter().find(|text| improper(text)) {
            return Err(RedisStoreError::Name(text.clone()));
        }
        let inner = RedisClient {
            connector: Connector::new(servers),
            queue: Queue::new(),
            script: Code::new(BODY),
            probe: Code::new(PROBE),
            prefix: format!("{prefix}:{{{name}}}:"),
            runtime: Handle::current(),
        };
        Ok(RedisStore {
            inner: Arc::new(inner),
        })
    }
}

impl RedisClient {
    fn key(&self, key: &BucketKey) -> String {
        format!("{}{key}", self.prefix)
    }

    /// Sends a batch and reads the answer to each of its entries.
    async fn call(&self, call: &Batch) -> Result<Vec<Result<Taken, StoreError>>, StoreError> {
        if call.is_plain() {
            let answer = self.run(&self.script, |command| call.write_plain(command));
            let answer = answer.await?;
            if !Batch::asks_for_more(&answer) {
                return call.read(answer);
            }
        }
        let answer = self.run(&self.script, |command| call.write(command));
        call.read(answer.await?)
    }

    /// Returns an error if the server cannot be written.
    async fn probe(&self) -> Result<Taken, StoreError> {
        let key = format!("{}probe", self.prefix);
        self.run(&self.probe, |command| {
            command.arg(1).arg(&key);
        })
        .await?;
        Ok(Taken {
            is_admitted: true,
            now: 0,
            balances: Vec::new(),
        })
    }

    /// Runs a script by its hash, or by its text if the server does not know the hash: then it has done nothing.
    async fn run(&self, code: &Code, arguments: impl Fn(&mut Cmd)) -> Result<Value, StoreError> {
        let mut command = ::redis::cmd("EVALSHA");
        arguments(command.arg(&code.hash));
        let answer = match self.connector.send(&command).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                let mut command = ::redis::cmd("EVAL");
                arguments(command.arg(code.body));
                self.connector.send(&command).await
            }
            answer => answer,
        };
        // As a text: the client's types are its own, and it repeats each cause.
        let servers = self.connector.servers();
        answer.map_err(|error| StoreError::unavailable(format!("{servers:?}: {error}")))
    }
}

impl Store for RedisStore {
    fn take<'a>(&'a self, charges: &'a [Charge]) -> StoreFuture<'a, Taken> {
        if charges.is_empty() {
            return Box::pin(self.inner.probe());
        }
        let inner = &self.inner;
        let entry = BatchEntry::of_charges(charges, |charge| inner.key(&charge.key));
        Box::pin(async move { inner.submit(entry).await })
    }

    fn correct<'a>(&'a self, corrections: &'a [Correction]) -> StoreFuture<'a, ()> {
        let inner = &self.inner;
        Box::pin(async move {
            let parts = corrections.chunks(Batch::MOST);
            queue::send_parts(parts, |some| {
                let entries = some.iter().map(|correction| {
                    let (key, ..) = correction.parts();
                    BatchEntry::of_correction(correction, inner.key(key))
                });
                let entries: Vec<_> = entries.collect();
                async move { inner.submit_all(entries.into_iter()).await }
            })
            .await
        })
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("servers", self.inner.connector.servers())
            .field("prefix", &self.inner.prefix)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for RedisClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisClient").finish_non_exhaustive()
    }
}
