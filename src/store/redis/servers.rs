//! Servers: addresses, connections, and redirections of a cluster.

use std::{
    convert::Infallible,
    fmt,
    future::Future,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use ::redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind,
    IntoConnectionInfo, ProtocolVersion, PushInfo, PushKind, RedisError, RedisResult,
    ServerErrorKind, Value,
    aio::MultiplexedConnection,
    io::tcp::{TcpSettings, socket2::TcpKeepalive},
};
use tokio::time::timeout;

use super::{
    RedisStoreError,
    connection::{self, Current, End},
    tls,
};

/// Addresses of the servers.
#[derive(Clone)]
pub(super) enum Servers {
    One(ConnectionInfo),
    /// Some nodes of a cluster. One node of it has all buckets.
    Cluster(Vec<ConnectionInfo>),
    Sentinels {
        sentinels: Vec<ConnectionInfo>,
        service: String,
        /// User and kind of connection. The sentinels tell its address.
        server: ConnectionInfo,
    },
}

/// The longest wait for a connection, and for an answer. A throttle waits no longer than its own deadline; after this
/// time nobody listens any more.
const PATIENCE: Duration = Duration::from_secs(1);

/// The idle time after which the system probes a connection.
const KEPT_ALIVE: Duration = Duration::from_secs(15);

/// The most redirections of one call in a cluster.
const MOVES: usize = 5;

/// Reads a URL.
pub(super) fn info(url: &str) -> Result<ConnectionInfo, RedisStoreError> {
    tls::prepare();
    let info = url.into_connection_info();
    let info = info.map_err(|error| RedisStoreError::Url(error.to_string().into()))?;
    // Calls are sent at once, since a request waits for each.
    let tcp = TcpSettings::default().set_nodelay(true);
    // An idle connection that has ended is noticed, too.
    let tcp = tcp.set_keepalive(TcpKeepalive::new().with_time(KEPT_ALIVE));
    #[cfg(target_os = "linux")]
    let tcp = tcp.set_user_timeout(PATIENCE);
    Ok(info.set_tcp_settings(tcp))
}

impl Servers {
    /// Changes the address of each server.
    #[cfg_attr(
        not(feature = "redis-tls"),
        expect(dead_code, reason = "for certificates")
    )]
    pub(super) fn map<E>(
        self,
        change: impl Fn(ConnectionInfo) -> Result<ConnectionInfo, E>,
    ) -> Result<Self, E> {
        let all = |nodes: Vec<_>| -> Result<Vec<_>, E> { nodes.into_iter().map(&change).collect() };
        Ok(match self {
            Self::One(server) => Self::One(change(server)?),
            Self::Cluster(nodes) => Self::Cluster(all(nodes)?),
            Self::Sentinels {
                sentinels,
                service,
                server,
            } => Self::Sentinels {
                sentinels: all(sentinels)?,
                service,
                server: change(server)?,
            },
        })
    }
}

impl fmt::Debug for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Nothing of who logs in there.
            Self::One(server) => write!(f, "{}", server.addr()),
            Self::Cluster(nodes) => {
                let nodes = nodes.iter().map(|node| node.addr().to_string());
                f.debug_list().entries(nodes).finish()
            }
            Self::Sentinels { service, .. } => write!(f, "{service}"),
        }
    }
}

type ServerConnection = connection::TrackedConnection<MultiplexedConnection>;

/// A new connection, and the end that its server will tell.
type Opened = (MultiplexedConnection, End);

/// Connects to the server that has the buckets, when the first call is sent and again when the connection has broken.
pub(super) struct Connector {
    servers: Servers,
    current: Current<MultiplexedConnection>,
    /// The node that is tried first. After one that was of no use it is the next.
    begins: AtomicUsize,
}

impl Connector {
    pub(super) fn new(servers: Servers) -> Self {
        Self {
            servers,
            current: Current::new(),
            begins: AtomicUsize::new(0),
        }
    }

    pub(super) fn servers(&self) -> &Servers {
        &self.servers
    }

    /// Sends a command once to the server that carries it out.
    ///
    /// A command is sent again only where a server redirects it (`MOVED`, `ASK`), which has not carried it out.
    pub(super) async fn send(&self, command: &Cmd) -> RedisResult<Value> {
        let mut tracked = self.connection().await?;
        for _ in 0..MOVES {
            let answer = tracked.connection.send_packed_command(command).await;
            let answer = answer.and_then(Value::extract_error);
            let Err(error) = answer else {
                return answer;
            };
            match error.kind() {
                ErrorKind::Server(ServerErrorKind::Moved) => {
                    let addr = self.told(&error)?;
                    tracked = self.moved(addr).await?;
                }
                ErrorKind::Server(ServerErrorKind::Ask) => {
                    let addr = self.told(&error)?;
                    return self.asking(addr, command).await;
                }
                kind => {
                    if is_lost(kind) && self.current.lose(&tracked) {
                        self.goes_on();
                    }
                    return Err(error);
                }
            }
        }
        Err(failure("the cluster sends the call from node to node"))
    }

    /// Returns the connection in use, or a new one.
    async fn connection(&self) -> RedisResult<ServerConnection> {
        let connect = async {
            let connected = timeout(PATIENCE, self.connect()).await;
            let connected = connected.unwrap_or_else(|_| Err(failure("no server was reached")));
            connected.inspect_err(|_| self.goes_on())
        };
        self.current.get(connect).await
    }

    /// Lets the next connection be tried at another node first.
    fn goes_on(&self) {
        self.begins.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns all nodes, beginning with that whose turn it is, and the longest wait for each.
    fn in_turn<'a>(
        &self,
        nodes: &'a [ConnectionInfo],
    ) -> (impl Iterator<Item = &'a ConnectionInfo>, Duration) {
        let count = nodes.len().max(1);
        let begin = self.begins.load(Ordering::Relaxed) % count;
        let (later, first) = nodes.split_at(begin);
        let share = PATIENCE / u32::try_from(count).unwrap_or(u32::MAX);
        (first.iter().chain(later), share)
    }

    async fn connect(&self) -> RedisResult<Opened> {
        match &self.servers {
            Servers::One(server) => open_primary(server).await,
            Servers::Cluster(nodes) => {
                let mut last = failure("no node of the cluster was given");
                let (nodes, share) = self.in_turn(nodes);
                for node in nodes {
                    match in_time(share, open(node)).await {
                        Ok(opened) => return Ok(opened),
                        Err(error) => last = error,
                    }
                }
                Err(last)
            }
            Servers::Sentinels {
                sentinels,
                service,
                server,
            } => {
                let mut last = failure("no sentinel was given");
                let (sentinels, share) = self.in_turn(sentinels);
                for sentinel in sentinels {
                    let found = async {
                        let addr = primary(sentinel, service, server).await?;
                        open_primary(&server.clone().set_addr(addr)).await
                    };
                    match in_time(share, found).await {
                        Ok(opened) => return Ok(opened),
                        Err(error) => last = error,
                    }
                }
                Err(last)
            }
        }
    }

    /// Reads the address out of a redirection.
    fn told(&self, error: &RedisError) -> RedisResult<ConnectionAddr> {
        let strange = || failure("the cluster names a node that is no address");
        let (addr, _) = error.redirect_node().ok_or_else(strange)?;
        let (host, port) = addr.rsplit_once(':').ok_or_else(strange)?;
        let port = port.parse().map_err(|_| strange())?;
        Ok(at(self.node()?.addr(), host, port))
    }

    /// Returns the server whose user and kind of connection count.
    fn node(&self) -> RedisResult<&ConnectionInfo> {
        match &self.servers {
            Servers::One(server) | Servers::Sentinels { server, .. } => Ok(server),
            Servers::Cluster(nodes) => {
                let first = nodes.first();
                first.ok_or_else(|| failure("no node of the cluster was given"))
            }
        }
    }

    /// Connects to the node that has the buckets from now on.
    async fn moved(&self, addr: ConnectionAddr) -> RedisResult<ServerConnection> {
        let opened = open(&self.node()?.clone().set_addr(addr)).await?;
        Ok(self.current.replace(opened))
    }

    /// Sends a command once to a node to which the buckets are being moved.
    async fn asking(&self, addr: ConnectionAddr, command: &Cmd) -> RedisResult<Value> {
        let (mut connection, _) = open(&self.node()?.clone().set_addr(addr)).await?;
        let mut pipeline = ::redis::pipe();
        pipeline.cmd("ASKING").ignore();
        pipeline.add_command(command.clone());
        let answers: Vec<Value> = pipeline.query_async(&mut connection).await?;
        let answer = answers.into_iter().next_back();
        answer.unwrap_or(Value::Nil).extract_error()
    }
}

/// Returns whether an error means that the connection is of no use any more, or that its server cannot be written.
fn is_lost(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Io
            | ErrorKind::Parse
            | ErrorKind::Server(
                ServerErrorKind::ReadOnly
                    | ServerErrorKind::MasterDown
                    | ServerErrorKind::ClusterDown
            )
    )
}

/// Returns the same kind of address for another host and port. A redirection without a host means the host that has
/// sent it.
fn at(like: &ConnectionAddr, host: &str, port: u16) -> ConnectionAddr {
    match like {
        ConnectionAddr::TcpTls {
            host: own,
            insecure,
            tls_params,
            ..
        } => ConnectionAddr::TcpTls {
            host: if host.is_empty() { own } else { host }.to_owned(),
            port,
            insecure: *insecure,
            tls_params: tls_params.clone(),
        },
        ConnectionAddr::Tcp(own, _) if host.is_empty() => ConnectionAddr::Tcp(own.clone(), port),
        _ => ConnectionAddr::Tcp(host.to_owned(), port),
    }
}

/// Returns the result of `work`, or an error if it takes longer than this.
async fn in_time<T>(
    patience: Duration,
    work: impl Future<Output = RedisResult<T>>,
) -> RedisResult<T> {
    let done = timeout(patience, work).await;
    done.unwrap_or_else(|_| Err(failure("a node did not answer in time")))
}

/// Opens a connection that speaks RESP3, in which the end of a connection is told. To a server that does not know that
/// version, it speaks RESP2.
async fn open(server: &ConnectionInfo) -> RedisResult<Opened> {
    let end = End::new();
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(PATIENCE))
        .set_response_timeout(Some(PATIENCE));
    let settings = server.redis_settings().clone();
    let third = settings.set_protocol(ProtocolVersion::RESP3);
    let told = end.clone();
    let telling = config.clone().set_push_sender(move |push: PushInfo| {
        if push.kind == PushKind::Disconnection {
            told.tell();
        }
        Ok::<_, Infallible>(())
    });
    let client = Client::open(server.clone().set_redis_settings(third))?;
    let opened = client
        .get_multiplexed_async_connection_with_config(&telling)
        .await;
    match opened {
        Ok(connection) => Ok((connection, end)),
        Err(error) if error.is_io_error() || error.is_timeout() => Err(error),
        Err(_) => {
            let client = Client::open(server.clone())?;
            let opened = client.get_multiplexed_async_connection_with_config(&config);
            // An end of the first connection does not concern this one.
            Ok((opened.await?, End::new()))
        }
    }
}

/// Opens a connection to a server that is no replica, whose data would be old.
async fn open_primary(server: &ConnectionInfo) -> RedisResult<Opened> {
    let (mut connection, end) = open(server).await?;
    let role = connection.send_packed_command(&::redis::cmd("ROLE")).await;
    match role.and_then(Value::extract_error) {
        Ok(Value::Array(role)) => match role.first() {
            Some(Value::BulkString(role)) if role == b"master" => Ok((connection, end)),
            _ => Err(failure("the server is a replica")),
        },
        // A user without permission for `ROLE` has to name a primary.
        Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm) => {
            Ok((connection, end))
        }
        Err(error) => Err(error),
        Ok(_) => Err(failure("the server does not know its role")),
    }
}

/// Asks a sentinel for the address of the primary.
async fn primary(
    sentinel: &ConnectionInfo,
    service: &str,
    server: &ConnectionInfo,
) -> RedisResult<ConnectionAddr> {
    let (mut connection, _) = open(sentinel).await?;
    let mut command = ::redis::cmd("SENTINEL");
    command.arg("GET-MASTER-ADDR-BY-NAME").arg(service);
    let answer = connection.send_packed_command(&command).await?;
    let Value::Array(addr) = answer.extract_error()? else {
        return Err(failure("a sentinel does not know the service"));
    };
    let text = |part: &Value| match part {
        Value::BulkString(bytes) => String::from_utf8(bytes.clone()).ok(),
        _ => None,
    };
    let mut parts = addr.iter().map(text);
    let host = parts.next().flatten();
    let port = parts.next().flatten().and_then(|port| port.parse().ok());
    match (host, port) {
        (Some(host), Some(port)) => Ok(at(server.addr(), &host, port)),
        _ => Err(failure("a sentinel names a server that is no address")),
    }
}

fn failure(what: &'static str) -> RedisError {
    RedisError::from((ErrorKind::Io, what))
}
