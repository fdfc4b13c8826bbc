//! Real servers on this machine, on loopback.

#![allow(dead_code, reason = "each test file uses its part")]

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use redis::{Client, Value, aio::MultiplexedConnection};
use tokio::{
    net::{TcpListener as Listener, TcpStream},
    sync::watch,
    time::sleep,
};

/// The kind of a server: the program that it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Redis,
    Valkey,
}

const VALKEY: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/../valkey/valkey-server");

/// The servers that tests have to pass on.
pub(crate) const KINDS: [Kind; 2] = [Kind::Redis, Kind::Valkey];

impl Kind {
    fn program(self) -> &'static str {
        match self {
            Self::Redis => "redis-server",
            // Where the test command puts it, if there is none for all.
            Self::Valkey if Path::new(VALKEY).exists() => VALKEY,
            Self::Valkey => "valkey-server",
        }
    }
}

/// The number of turns for which tests wait for what has to come: a minute in all. No server here has such a limit:
/// what takes longer hangs.
pub(crate) const PATIENCE: u32 = 3_000;
pub(crate) const TURN: Duration = Duration::from_millis(20);

/// A server, ended when it is dropped.
pub(crate) struct Server {
    kind: Kind,
    pub(crate) port: u16,
    dir: PathBuf,
    settings: Vec<String>,
    child: Option<Child>,
}

/// The settings of one that watches over others.
const SENTINEL: &str = "sentinel.conf";

/// A port that nobody listens on, and that no connection is given: those are at 32,768 and above. The port is still
/// free when the server takes it, and when one that was killed comes back.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let first = u64::from(std::process::id()).wrapping_mul(131);
    loop {
        let next = first + NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 12_000 + u16::try_from(next % 20_000).expect("a small number");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

impl Server {
    pub(crate) async fn start(kind: Kind) -> Self {
        Self::with(kind, &[]).await
    }

    /// Starts a server with settings as on the command line: `["--maxmemory", "2mb"]`.
    pub(crate) async fn with(kind: Kind, settings: &[&str]) -> Self {
        // Somebody else may take the port before the server does.
        for _ in 0..20 {
            let mut server = Self::not_yet(kind, settings);
            if server.runs().await {
                return server;
            }
        }
        panic!("{} does not start", kind.program());
    }

    fn not_yet(kind: Kind, settings: &[&str]) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("tower-throttle-{}-{number}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        fs::create_dir_all(&dir).expect("a directory");
        Self {
            kind,
            port: free_port(),
            dir,
            settings: settings
                .iter()
                .map(|setting| (*setting).to_owned())
                .collect(),
            child: None,
        }
    }

    /// A node of a cluster that is not yet one.
    pub(crate) async fn node(kind: Kind) -> Self {
        let port = free_port().to_string();
        Self::with(kind, &["--cluster-enabled", "yes", "--cluster-port", &port]).await
    }

    /// Starts a sentinel that watches over a primary, which it calls `main`.
    pub(crate) async fn sentinel(kind: Kind, primary: u16) -> Self {
        let mut server = Self::not_yet(kind, &[]);
        let port = server.port;
        let settings = format!(
            "port {port}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {primary} 2\n\
             sentinel down-after-milliseconds main 2000\nsentinel failover-timeout main 6000\n"
        );
        fs::write(server.dir.join(SENTINEL), settings).expect("a file");
        server.run().await;
        server
    }

    /// Starts the server, again after [`Server::kill`].
    pub(crate) async fn run(&mut self) {
        let runs = self.runs().await;
        assert!(runs, "{} ended by itself", self.kind.program());
    }

    /// Starts the server, and waits until it answers, and no other server at its port. `false` if it has ended.
    async fn runs(&mut self) -> bool {
        self.launch();
        let own = format!("process_id:{}\r", self.id());
        for _ in 0..PATIENCE {
            if let Ok(mut connection) = self.connect().await {
                let info = ask(&mut connection, &["INFO", "server"]).await;
                let is_own = info.is_ok_and(|info| text(&info).contains(&own));
                if is_own && ask(&mut connection, &["PING"]).await.is_ok() {
                    return true;
                }
            }
            let child = self.child.as_mut().expect("it was started");
            if child.try_wait().expect("ours").is_some() {
                return false;
            }
            sleep(TURN).await;
        }
        panic!("{} does not answer", self.kind.program());
    }

    /// Starts the server without waiting for it.
    pub(crate) fn launch(&mut self) {
        let program = self.kind.program();
        let port = self.port.to_string();
        let mut command = Command::new(program);
        if self.dir.join(SENTINEL).exists() {
            command.args([SENTINEL, "--sentinel"]);
        } else {
            command
                .args(["--port", &port, "--bind", "127.0.0.1", "--save", ""])
                .args(["--appendonly", "no", "--repl-diskless-sync-delay", "0"])
                .args(&self.settings);
        }
        command
            .current_dir(&self.dir)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = command.spawn();
        self.child = Some(child.unwrap_or_else(|error| {
            panic!("{program}: {error}; the test command in the README installs it")
        }));
    }

    /// Ends the server, as a machine that is switched off does.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            child.wait().expect("it has ended");
        }
    }

    /// The id of the server's process.
    pub(crate) fn id(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// Sends the server a signal, such as one to stop or to go on.
    pub(crate) fn signal(&self, signal: &str) {
        let done = Command::new("kill")
            .args([signal, &self.id().to_string()])
            .status();
        assert!(done.expect("a shell").success());
    }

    pub(crate) fn url(&self) -> String {
        url(self.port)
    }

    async fn connect(&self) -> redis::RedisResult<MultiplexedConnection> {
        connect(&self.url()).await
    }

    /// Returns the server's answer to a command of an operator.
    pub(crate) async fn says(&self, words: &[&str]) -> Value {
        let mut connection = self.connect().await.expect("it runs");
        let answer = ask(&mut connection, words).await;
        answer.unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// Returns the server's answer to a command of an operator, in words.
    pub(crate) async fn tells(&self, words: &[&str]) -> String {
        text(&self.says(words).await)
    }
}

/// An operator's connection.
pub(crate) async fn connect(url: &str) -> redis::RedisResult<MultiplexedConnection> {
    Client::open(url)?.get_multiplexed_async_connection().await
}

pub(crate) fn url(port: u16) -> String {
    format!("redis://127.0.0.1:{port}")
}

pub(crate) async fn ask(
    connection: &mut MultiplexedConnection,
    words: &[&str],
) -> redis::RedisResult<Value> {
    let mut command = redis::cmd(words[0]);
    for word in &words[1..] {
        command.arg(word);
    }
    command.query_async(connection).await
}

fn text(value: &Value) -> String {
    match value {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::Array(values) => {
            let values: Vec<_> = values.iter().map(text).collect();
            values.join("\n")
        }
        Value::Int(number) => number.to_string(),
        Value::SimpleString(text) => text.clone(),
        Value::Okay => "OK".to_owned(),
        Value::VerbatimString { text, .. } => text.clone(),
        other => format!("{other:?}"),
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Waits until a replica has what its primary has.
pub(crate) async fn in_step(primary: &Server, replica: &Server) {
    for _ in 0..PATIENCE {
        let offset = |info: String| {
            let line = info
                .lines()
                .find_map(|line| line.strip_prefix("master_repl_offset:").map(str::to_owned));
            line.and_then(|line| line.trim().parse::<u64>().ok())
        };
        let info = replica.tells(&["INFO", "replication"]).await;
        let up = info.contains("master_link_status:up");
        if up && offset(primary.tells(&["INFO", "replication"]).await) == offset(info) {
            return;
        }
        sleep(TURN).await;
    }
    panic!("the replica is not in step");
}

/// Three nodes that are a cluster, the slots shared out in order.
pub(crate) async fn cluster(kind: Kind) -> [Server; 3] {
    let nodes = [
        Server::node(kind).await,
        Server::node(kind).await,
        Server::node(kind).await,
    ];
    for (node, slots) in nodes
        .iter()
        .zip([["0", "5460"], ["5461", "10922"], ["10923", "16383"]])
    {
        node.says(&["CLUSTER", "ADDSLOTSRANGE", slots[0], slots[1]])
            .await;
    }
    for node in &nodes[1..] {
        let bus = node.tells(&["CONFIG", "GET", "cluster-port"]).await;
        let bus = bus.lines().last().expect("a port").to_owned();
        nodes[0]
            .says(&["CLUSTER", "MEET", "127.0.0.1", &node.port.to_string(), &bus])
            .await;
    }
    for node in &nodes {
        united(node, 3).await;
    }
    nodes
}

/// Waits until a node knows of so many nodes, and that all slots are served.
pub(crate) async fn united(node: &Server, nodes: usize) {
    let known = format!("cluster_known_nodes:{nodes}");
    for _ in 0..PATIENCE {
        let info = node.tells(&["CLUSTER", "INFO"]).await;
        if info.contains("cluster_state:ok") && info.contains(&known) {
            return;
        }
        sleep(TURN).await;
    }
    panic!("the nodes are no cluster");
}

/// Waits until sentinels know of a replica and of each other.
pub(crate) async fn acquainted(sentinels: &[Server; 2]) {
    'sentinels: for sentinel in sentinels {
        for _ in 0..PATIENCE {
            let known = sentinel.tells(&["SENTINEL", "MASTER", "main"]).await;
            let of = |name: &str| {
                let mut lines = known.lines().skip_while(|line| *line != name);
                lines.nth(1).map(str::to_owned)
            };
            let one = Some("1".to_owned());
            if of("num-slaves") == one && of("num-other-sentinels") == one {
                continue 'sentinels;
            }
            sleep(TURN).await;
        }
        panic!("a sentinel is alone");
    }
}

/// Until a server has been told that so many units of one an hour are owed, of whichever bucket that is: what is given
/// back is told it when nobody waits any more.
pub(crate) async fn owes(server: &Server, units: u64) {
    let mut owed = 0;
    for _ in 0..PATIENCE {
        owed = 0;
        for key in server.tells(&["KEYS", "throttle:*total/*"]).await.lines() {
            let left = server.tells(&["PTTL", key]).await;
            let left: i64 = left.parse().expect("a number");
            owed += u64::try_from(left).map_or(0, |left| left.div_ceil(3_600_000));
        }
        if owed == units {
            return;
        }
        sleep(TURN).await;
    }
    panic!("{owed} units are owed, and not {units}");
}

/// The treatment that a proxy gives to what it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Passes {
    /// At once.
    All,
    /// After so long.
    Slowly(Duration),
    /// There, and nothing back: connections are reset when an answer comes.
    Reset,
    /// There, and nothing back until it is told otherwise.
    Held,
}

/// A way to a server that does as it is told.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    server: watch::Sender<u16>,
    passes: watch::Sender<Passes>,
}

impl Proxy {
    pub(crate) async fn to(port: u16) -> Self {
        let listener = Listener::bind("127.0.0.1:0").await.expect("a port");
        let own = listener.local_addr().expect("an address").port();
        let (passes, told) = watch::channel(Passes::All);
        let (server, port) = watch::channel(port);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = SocketAddr::from(([127, 0, 0, 1], *port.borrow()));
                tokio::spawn(pass(client, server, told.clone()));
            }
        });
        Self {
            port: own,
            server,
            passes,
        }
    }

    /// Leads whoever connects from now on to another server.
    pub(crate) fn leads_to(&self, port: u16) {
        self.server.send_replace(port);
    }

    pub(crate) fn passes(&self, passes: Passes) {
        self.passes.send_replace(passes);
    }

    pub(crate) fn url(&self) -> String {
        url(self.port)
    }
}

async fn pass(mut client: TcpStream, server: SocketAddr, mut told: watch::Receiver<Passes>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let Ok(mut server) = TcpStream::connect(server).await else {
        return;
    };
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let (mut asks, mut answers) = ([0; 16_384], [0; 16_384]);
    loop {
        tokio::select! {
            read = client.read(&mut asks) => match read {
                Ok(read @ 1..) if server.write_all(&asks[..read]).await.is_ok() => {}
                _ => return,
            },
            read = server.read(&mut answers) => {
                let Ok(read @ 1..) = read else {
                    return;
                };
                let passes = *told.borrow();
                match passes {
                    Passes::All => {}
                    Passes::Slowly(wait) => sleep(wait).await,
                    Passes::Held => {
                        if told.wait_for(|passes| *passes != Passes::Held).await.is_err() {
                            return;
                        }
                    }
                    Passes::Reset => {
                        #[allow(deprecated, reason = "it is what resets a connection")]
                        let _ = client.set_linger(Some(Duration::ZERO));
                        return;
                    }
                }
                if client.write_all(&answers[..read]).await.is_err() {
                    return;
                }
            }
        }
    }
}
