//! Which server is asked, and how it is reached.

use std::{
    fmt,
    sync::{
        PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ::redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind,
    IntoConnectionInfo, RedisError, RedisResult, ServerErrorKind, TlsMode, Value,
    aio::MultiplexedConnection,
    io::tcp::TcpSettings,
    sentinel::{SentinelClientBuilder, SentinelServerType},
};
use tokio::{sync::Mutex, time::timeout};

use super::RedisStoreError;
use crate::sync;

/// Where the servers are.
#[derive(Clone)]
pub(super) enum Servers {
    One(ConnectionInfo),
    /// Any nodes of a cluster, of which one has all buckets.
    Cluster(Vec<ConnectionInfo>),
    Sentinels {
        sentinels: Vec<ConnectionInfo>,
        service: String,
        /// Its address is what they tell.
        server: ConnectionInfo,
    },
}

/// How long is waited for a connection, and for an answer. A throttle waits no longer than its deadline; this is when
/// nobody listens any more.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often a call is sent on to where a cluster says that it belongs.
const MOVES: usize = 5;

/// What is read out of a URL.
pub(super) fn info(url: &str) -> Result<ConnectionInfo, RedisStoreError> {
    let info = url.into_connection_info().map_err(RedisStoreError::Url)?;
    // What waits for an answer is never held back for more.
    let tcp = TcpSettings::default().set_nodelay(true);
    #[cfg(target_os = "linux")]
    let tcp = tcp.set_user_timeout(PATIENCE);
    Ok(info.set_tcp_settings(tcp))
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

/// A connection, and which one it is.
#[derive(Clone)]
struct Line {
    connection: MultiplexedConnection,
    number: u64,
}

/// The connection to the server that has the buckets, made when it is asked for, and again when it has broken.
pub(super) struct Connector {
    servers: Servers,
    line: sync::Mutex<Option<Line>>,
    /// One connects, and the others wait for it.
    connecting: Mutex<()>,
    numbers: AtomicU64,
}

impl Connector {
    pub(super) fn new(servers: Servers) -> Self {
        Self {
            servers,
            line: sync::Mutex::new(None),
            connecting: Mutex::const_new(()),
            numbers: AtomicU64::new(0),
        }
    }

    pub(super) fn servers(&self) -> &Servers {
        &self.servers
    }

    /// Sends what `command` makes once to the server that carries it out.
    ///
    /// It is sent again only to where a server said that it belongs, having done nothing itself.
    pub(super) async fn send(&self, command: &Cmd) -> RedisResult<Value> {
        let mut line = self.line().await?;
        for _ in 0..MOVES {
            let answer = line.connection.send_packed_command(command).await;
            let answer = answer.and_then(Value::extract_error);
            let Err(error) = answer else {
                return answer;
            };
            match error.kind() {
                ErrorKind::Server(ServerErrorKind::Moved) => {
                    let addr = self.told(&error)?;
                    line = self.moved(addr).await?;
                }
                ErrorKind::Server(ServerErrorKind::Ask) => {
                    let addr = self.told(&error)?;
                    return self.asking(addr, command).await;
                }
                kind => {
                    if is_lost(kind) {
                        self.lose(line.number);
                    }
                    return Err(error);
                }
            }
        }
        Err(failure("the cluster sends the call from node to node"))
    }

    /// The connection that there is, or a new one.
    async fn line(&self) -> RedisResult<Line> {
        if let Some(line) = self.present() {
            return Ok(line);
        }
        let _alone = self.connecting.lock().await;
        if let Some(line) = self.present() {
            return Ok(line);
        }
        let connected = timeout(PATIENCE, self.connect()).await;
        let connection = connected.unwrap_or_else(|_| Err(failure("no server was reached")))?;
        Ok(self.keep(connection))
    }

    fn present(&self) -> Option<Line> {
        // Each step leaves it whole.
        let line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        line.clone()
    }

    fn keep(&self, connection: MultiplexedConnection) -> Line {
        let line = Line {
            connection,
            number: self.numbers.fetch_add(1, Ordering::Relaxed),
        };
        let mut kept = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        *kept = Some(line.clone());
        line
    }

    /// A connection is of no use any more.
    fn lose(&self, number: u64) {
        let mut kept = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.as_ref().is_some_and(|line| line.number == number) {
            *kept = None;
        }
    }

    async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        match &self.servers {
            Servers::One(server) => open_primary(server).await,
            Servers::Cluster(nodes) => {
                let mut last = failure("no node of the cluster was given");
                for node in nodes {
                    match open(node).await {
                        Ok(connection) => return Ok(connection),
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
                let addr = primary(sentinels, service, server).await?;
                open_primary(&server.clone().set_addr(addr)).await
            }
        }
    }

    /// Where an answer says that the bucket is.
    fn told(&self, error: &RedisError) -> RedisResult<ConnectionAddr> {
        let strange = || failure("the cluster names a node that is no address");
        let (addr, _) = error.redirect_node().ok_or_else(strange)?;
        let (host, port) = addr.rsplit_once(':').ok_or_else(strange)?;
        let port = port.parse().map_err(|_| strange())?;
        Ok(at(self.node()?.addr(), host, port))
    }

    /// Who logs in, and how.
    fn node(&self) -> RedisResult<&ConnectionInfo> {
        match &self.servers {
            Servers::One(server) | Servers::Sentinels { server, .. } => Ok(server),
            Servers::Cluster(nodes) => {
                let first = nodes.first();
                first.ok_or_else(|| failure("no node of the cluster was given"))
            }
        }
    }

    /// From now on another node has the buckets.
    async fn moved(&self, addr: ConnectionAddr) -> RedisResult<Line> {
        let connection = open(&self.node()?.clone().set_addr(addr)).await?;
        Ok(self.keep(connection))
    }

    /// Asks a node to which the buckets are on their way.
    async fn asking(&self, addr: ConnectionAddr, command: &Cmd) -> RedisResult<Value> {
        let mut connection = open(&self.node()?.clone().set_addr(addr)).await?;
        let mut pipeline = ::redis::pipe();
        pipeline.cmd("ASKING").ignore();
        pipeline.add_command(command.clone());
        let answers: Vec<Value> = pipeline.query_async(&mut connection).await?;
        let answer = answers.into_iter().next_back();
        answer.unwrap_or(Value::Nil).extract_error()
    }
}

/// Whether the connection is of no use any more, or its server cannot be written.
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

/// The same kind of address, elsewhere. A node that has no name for itself is on the host that told of it.
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

async fn open(server: &ConnectionInfo) -> RedisResult<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(PATIENCE))
        .set_response_timeout(Some(PATIENCE));
    let client = Client::open(server.clone())?;
    client
        .get_multiplexed_async_connection_with_config(&config)
        .await
}

/// A connection to a server that is no replica: what those tell is old.
async fn open_primary(server: &ConnectionInfo) -> RedisResult<MultiplexedConnection> {
    let mut connection = open(server).await?;
    let role = connection.send_packed_command(&::redis::cmd("ROLE")).await;
    match role.and_then(Value::extract_error) {
        Ok(Value::Array(role)) => match role.first() {
            Some(Value::BulkString(role)) if role == b"master" => Ok(connection),
            _ => Err(failure("the server is a replica")),
        },
        // Who may not ask has to know.
        Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm) => Ok(connection),
        Err(error) => Err(error),
        Ok(_) => Err(failure("the server does not know its role")),
    }
}

/// The server that sentinels call the primary.
async fn primary(
    sentinels: &[ConnectionInfo],
    service: &str,
    server: &ConnectionInfo,
) -> RedisResult<ConnectionAddr> {
    let addrs = sentinels.iter().map(|sentinel| sentinel.addr().clone());
    let mut builder = SentinelClientBuilder::new(addrs, service, SentinelServerType::Master)?;
    let own = server.redis_settings();
    if let Some(name) = own.username() {
        builder = builder.set_client_to_redis_username(name);
    }
    if let Some(password) = own.password() {
        builder = builder.set_client_to_redis_password(password);
    }
    if let ConnectionAddr::TcpTls { insecure, .. } = server.addr() {
        builder = builder.set_client_to_redis_tls_mode(tls(*insecure));
    }
    if let Some(sentinel) = sentinels.first() {
        let own = sentinel.redis_settings();
        if let Some(name) = own.username() {
            builder = builder.set_client_to_sentinel_username(name);
        }
        if let Some(password) = own.password() {
            builder = builder.set_client_to_sentinel_password(password);
        }
        if let ConnectionAddr::TcpTls { insecure, .. } = sentinel.addr() {
            builder = builder.set_client_to_sentinel_tls_mode(tls(*insecure));
        }
    }
    let client = builder.build()?.async_get_client().await?;
    Ok(client.get_connection_info().addr().clone())
}

fn tls(insecure: bool) -> TlsMode {
    if insecure {
        TlsMode::Insecure
    } else {
        TlsMode::Secure
    }
}

fn failure(what: &'static str) -> RedisError {
    RedisError::from((ErrorKind::Io, what))
}
