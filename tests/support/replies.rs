//! Replies of Redis: bytes determine what a server sends on a socket to the real client, in reply to what, and when.
//!
//! - Nothing panics, and each request is decided soon after the deadline of the store, in time that otherwise stands
//!   still.
//! - *No admission that the replies forbid.* No more requests are admitted than the server has sent ones, the reply to
//!   a taken charge; or, with leases, as many more as were asked for.
//! - Snapshots count each request once.

use std::{
    convert::Infallible,
    fs,
    future::{Ready, ready},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    signal::unix::{SignalKind, signal},
    task::JoinHandle,
    time::{sleep, timeout},
};
use tower::{Layer, Service};
use tower_throttle::{
    Decision, Limits, Quota, Rate, Rules, ThrottleLayer,
    decision::DecisionIn,
    future::ResponseFuture,
    store::{OnOutage, RedisStore},
};

use super::choices::{self, Choices, now};

/// More steps would only make each run slower.
const MAX_STEPS: usize = 24;

const DEADLINE: Duration = Duration::from_millis(25);

/// By then each request is decided: it asks, may follow another that asks for a lease, and may ask what is there.
const DECIDED: Duration = Duration::from_millis(100);

/// Lives the life that some bytes tell of.
pub(crate) fn live(input: &[u8]) {
    choices::live(input, run);
}

async fn run(choices: &mut Choices<'_>) {
    // A program of Rust's ignores it; that of a fuzzer would end where a socket is closed.
    let _pipe = signal(SignalKind::pipe()).expect("a handler");
    let mut world = World::new(choices);
    for _ in 0..MAX_STEPS {
        if choices.is_empty() {
            break;
        }
        world.step(choices).await;
    }
    world.end();
}

// ---- What the server sends

/// The reply to a command.
#[derive(Debug, Clone)]
enum Reply {
    Bytes(Vec<u8>),
    Silence,
    Closes,
}

#[derive(Debug, Clone)]
struct Says {
    /// One for each call of a script, over and over.
    replies: Vec<Reply>,
    /// After so many milliseconds.
    after: u64,
    /// The replies to the commands that open a connection, if it is not what a server says.
    hello: Option<Reply>,
    role: Option<Reply>,
    /// In how many pieces a reply comes.
    pieces: usize,
}

impl Reply {
    fn read(choices: &mut Choices<'_>) -> Self {
        const LINES: [&str; 14] = [
            "-NOSCRIPT No matching script. Please use EVAL.\r\n",
            "-MOVED 1 127.0.0.1:1\r\n",
            "-MOVED 1 nowhere\r\n",
            "-ASK 1 :0\r\n",
            "-READONLY You can't write against a read only replica.\r\n",
            "-LOADING Redis is loading the dataset in memory\r\n",
            "-ERR user_script:1: wrong\r\n",
            "+OK\r\n",
            "$-1\r\n",
            "*-1\r\n",
            "*1\r\n:-1\r\n",
            "*2147483647\r\n",
            "$2147483647\r\n",
            ">2\r\n$13\r\nDisconnection\r\n:1\r\n",
        ];
        match choices.next() % 32 {
            0..=15 => Self::Bytes(numbers(choices)),
            16..=21 => Self::Bytes(choices.of_these(&LINES).into()),
            22 | 23 => {
                let mut bytes = numbers(choices);
                let place = choices.below(bytes.len().max(1));
                if let Some(byte) = bytes.get_mut(place) {
                    *byte = choices.next();
                }
                Self::Bytes(bytes)
            }
            24 => {
                let mut bytes = numbers(choices);
                bytes.truncate(choices.below(bytes.len() + 1));
                Self::Bytes(bytes)
            }
            25 | 26 => {
                // Two at once.
                let bytes = [numbers(choices), numbers(choices)].concat();
                Self::Bytes(bytes)
            }
            27..=29 => {
                let count = choices.below(48);
                Self::Bytes(choices.bytes(count).to_vec())
            }
            30 => Self::Silence,
            _ => Self::Closes,
        }
    }
}

/// An array of numbers, as the script answers with.
fn numbers(choices: &mut Choices<'_>) -> Vec<u8> {
    const NUMBERS: [i64; 12] = [
        0,
        1,
        1,
        1,
        -1,
        2,
        1_000_000,
        1_800_000_000_000_000,
        i64::MAX,
        i64::MIN,
        1 << 53,
        -1_000_001,
    ];
    let count = choices.below(8);
    let mut bytes = format!("*{count}\r\n").into_bytes();
    for place in 0..count {
        let number = match (choices.next(), place) {
            // The clock, most often.
            (byte, 0) if byte < 200 => 1_800_000_000_000_000,
            (byte, _) if byte < 240 => NUMBERS[usize::from(byte) % NUMBERS.len()],
            _ => choices.number() as i64,
        };
        bytes.extend_from_slice(format!(":{number}\r\n").as_bytes());
    }
    bytes
}

impl Says {
    fn read(choices: &mut Choices<'_>) -> Self {
        const AFTER: [u64; 6] = [0, 0, 0, 1, 24, 40];
        let byte = choices.next();
        let odd = |choices: &mut Choices<'_>, bits: u8| {
            (byte >> bits & 7 == 7).then(|| Reply::read(choices))
        };
        Self {
            hello: odd(choices, 0),
            role: odd(choices, 3),
            after: choices.of_these(&AFTER),
            pieces: [1, 1, 2, 7][usize::from(byte >> 6)],
            replies: (0..choices.below(3) + 1)
                .map(|_| Reply::read(choices))
                .collect(),
        }
    }
}

/// A server that says what it is told to say.
#[derive(Clone)]
struct Server {
    book: Arc<Mutex<Book>>,
}

struct Book {
    says: Says,
    turn: usize,
    /// The number of ones that were sent.
    ones: u64,
}

impl Server {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(self, listener: UnixListener) {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(self.clone().serve(stream));
        }
    }

    async fn serve(self, mut stream: UnixStream) {
        let mut read = Vec::new();
        // The bytes sent on this connection without an end of line yet.
        let mut sent = Vec::new();
        loop {
            while let Some(command) = command(&mut read) {
                let (reply, after, pieces) = self.reply(&command);
                if after > 0 {
                    sleep(Duration::from_millis(after)).await;
                }
                let bytes = match reply {
                    Reply::Bytes(bytes) => bytes,
                    Reply::Silence => continue,
                    Reply::Closes => return,
                };
                sent.extend_from_slice(&bytes);
                self.book().ones += ones(&mut sent);
                let size = bytes.len().div_ceil(pieces).max(1);
                for piece in bytes.chunks(size) {
                    if stream.write_all(piece).await.is_err() {
                        return;
                    }
                    tokio::task::yield_now().await;
                }
            }
            match stream.read_buf(&mut read).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }

    fn reply(&self, command: &[Vec<u8>]) -> (Reply, u64, usize) {
        let mut book = self.book();
        let Book { says, turn, .. } = &mut *book;
        let plain = |line: &str| Reply::Bytes(line.into());
        let name = command.first().map_or(&[][..], Vec::as_slice);
        match &*name.to_ascii_uppercase() {
            b"EVAL" | b"EVALSHA" => {
                let reply = says.replies[*turn % says.replies.len()].clone();
                *turn += 1;
                (reply, says.after, says.pieces)
            }
            b"HELLO" => {
                let hello = || plain("%1\r\n$5\r\nproto\r\n:3\r\n");
                (says.hello.clone().unwrap_or_else(hello), 0, says.pieces)
            }
            b"ROLE" => {
                let role = || plain("*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n");
                (says.role.clone().unwrap_or_else(role), 0, says.pieces)
            }
            _ => (plain("+OK\r\n"), 0, 1),
        }
    }
}

/// Takes a command off what was read, once all of it is there.
fn command(read: &mut Vec<u8>) -> Option<Vec<Vec<u8>>> {
    fn line<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
        let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
        let line = &rest[..end];
        *rest = &rest[end + 2..];
        Some(line)
    }
    fn number(line: &[u8]) -> usize {
        let digits = std::str::from_utf8(&line[1..]).expect("the client writes digits");
        digits.parse().expect("the client writes digits")
    }
    let mut rest = &read[..];
    let count = number(line(&mut rest)?);
    let mut command = Vec::new();
    for _ in 0..count {
        let length = number(line(&mut rest)?);
        command.push(rest.get(..length)?.to_vec());
        rest = rest.get(length + 2..)?;
    }
    let left = rest.len();
    read.drain(..read.len() - left);
    Some(command)
}

/// Counts what may be read as the number one, and leaves what has no end yet.
fn ones(sent: &mut Vec<u8>) -> u64 {
    let mut count = 0;
    let mut begin = 0;
    while let Some(end) = sent[begin..].windows(2).position(|pair| pair == b"\r\n") {
        let line = &sent[begin..begin + end];
        // Wherever a number may begin in it.
        let starts = line.iter().enumerate().filter(|(_, byte)| **byte == b':');
        count += starts
            .filter(|(place, _)| {
                let number = std::str::from_utf8(&line[place + 1..]);
                number.is_ok_and(|number| number.trim().parse() == Ok(1_i64))
            })
            .count() as u64;
        begin += end + 2;
    }
    sent.drain(..begin);
    count
}

// ---- Requests

#[derive(Clone)]
struct Inner(Arc<AtomicU64>);

impl Service<Request<()>> for Inner {
    type Response = Response<Empty<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Empty<Bytes>>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        self.0.fetch_add(1, Ordering::Relaxed);
        ready(Ok(Response::new(Empty::new())))
    }
}

struct World {
    server: Server,
    accepts: JoinHandle<()>,
    path: PathBuf,
    layer: ThrottleLayer,
    lease: u64,
    called: Arc<AtomicU64>,
    refused: u64,
}

impl World {
    fn new(choices: &mut Choices<'_>) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("tower-throttle-{}-{number}.sock", std::process::id());
        let path = std::env::temp_dir().join(name);
        // The file of an ended process with that number.
        let _ = fs::remove_file(&path);
        let listener = UnixListener::bind(&path).expect("a socket");
        let options = choices.next();
        let server = Server {
            book: Arc::new(Mutex::new(Book {
                says: Says::read(choices),
                turn: 0,
                ones: 0,
            })),
        };
        let accepts = tokio::spawn(server.clone().run(listener));
        let bit = |bit: u8| options >> bit & 1 == 1;
        let mut limits = Limits::new().rate(Rate::per_second(10).burst(5));
        if bit(0) {
            limits = limits.quota(Quota::per_month(100));
        }
        if bit(1) {
            limits = limits.rate(Rate::per_minute(1).shadow());
        }
        if bit(2) {
            limits = limits.tokens(Rate::per_minute(1_000));
        }
        let lease = if bit(3) { 8 } else { 0 };
        let url = format!("redis+unix://{}", path.display());
        let store = match bit(4) {
            true => RedisStore::server(&url),
            false => RedisStore::cluster([&*url]),
        };
        let store = store.expect("an address").connect_lazy().expect("a name");
        let layer = ThrottleLayer::builder(Rules::new().total(limits))
            .decision(DecisionIn::Response)
            .lease(lease)
            .on_outage(OnOutage::Refuse)
            .store_deadline(DEADLINE)
            .store(store)
            .build()
            .expect("rules that hold together");
        Self {
            server,
            accepts,
            path,
            layer,
            lease,
            called: Arc::default(),
            refused: 0,
        }
    }

    fn request(&self) -> ResponseFuture<Inner, ()> {
        let request = Request::post("/a").body(()).expect("a request");
        let inner = Inner(Arc::clone(&self.called));
        self.layer.layer(inner).call(request)
    }

    async fn step(&mut self, choices: &mut Choices<'_>) {
        match choices.next() % 8 {
            0 | 1 => self.server.book().says = Says::read(choices),
            2 => {
                const MILLIS: [u64; 5] = [1, 30, 300, 1_100, 6_000];
                sleep(Duration::from_millis(choices.of_these(&MILLIS))).await;
            }
            // One that goes away.
            3 => {
                let patience = Duration::from_millis(u64::from(choices.next() % 30));
                if let Ok(answer) = timeout(patience, self.request()).await {
                    self.decided(answer);
                }
            }
            _ => {
                let start = now();
                let answer = timeout(10 * DECIDED, self.request()).await;
                let took = now() - start;
                assert!(took <= DECIDED, "R21: decided after {took:?}");
                self.decided(answer.expect("in time"));
            }
        }
        self.bound();
    }

    fn decided<B>(&mut self, answer: Result<Response<B>, Infallible>) {
        let answer = answer.unwrap_or_else(|never| match never {});
        let decision: &Decision = answer.extensions().get().expect("a decision");
        self.refused += u64::from(!decision.is_admitted());
    }

    fn bound(&self) {
        let called = self.called.load(Ordering::Relaxed);
        let ones = self.server.book().ones;
        let most = ones.saturating_mul(1 + self.lease);
        assert!(called <= most, "{called} were let through by {ones} ones");
    }

    fn end(&self) {
        self.bound();
        let snapshot = self.layer.handle().snapshot();
        let routes = snapshot.routes.iter();
        let counted = routes.fold((0, 0), |(admitted, refused), route| {
            (admitted + route.admitted, refused + route.refused)
        });
        let called = self.called.load(Ordering::Relaxed);
        assert_eq!(counted, (called, self.refused), "admitted and refused");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.accepts.abort();
        let _ = fs::remove_file(&self.path);
    }
}
