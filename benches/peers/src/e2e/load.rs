//! Clients that keep their connections and ask again as soon as they are answered.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{BoxError, apps::PATH};

/// The results of one turn.
pub struct Turn {
    pub passed: u64,
    pub refused: u64,
    pub seconds: f64,
    pub p99_micros: f64,
}

/// All clients of one server.
pub struct Clients(Vec<Client>);

struct Client {
    stream: TcpStream,
    request: Vec<u8>,
    answer: Vec<u8>,
    /// Nanoseconds of each answer of this turn.
    latencies: Vec<u64>,
    passed: u64,
    refused: u64,
}

/// One answer, as far as it is looked at.
struct Answer {
    status: u16,
    length: usize,
    closes: bool,
}

impl Clients {
    /// So many, each with a connection of its own.
    pub async fn connect(address: SocketAddr, count: usize) -> Result<Self, BoxError> {
        let mut clients = Vec::with_capacity(count);
        for _ in 0..count {
            clients.push(Client::connect(address).await?);
        }
        Ok(Self(clients))
    }

    /// Asks once and gives the whole answer.
    pub async fn ask(&mut self) -> Result<String, BoxError> {
        let client = self.0.first_mut().ok_or("a client")?;
        let length = client.ask().await?.length;
        Ok(String::from_utf8(client.answer[..length].to_vec())?)
    }

    /// Makes all clients ask for so long.
    pub async fn turn(&mut self, time: Duration) -> Result<Turn, BoxError> {
        let begun = Instant::now();
        let end = begun + time;
        let asking: Vec<_> = self
            .0
            .drain(..)
            .map(|client| tokio::spawn(client.until(end)))
            .collect();
        let mut turn = Turn {
            passed: 0,
            refused: 0,
            seconds: 0.0,
            p99_micros: 0.0,
        };
        let mut latencies = Vec::new();
        for asking in asking {
            let mut client = asking.await??;
            turn.passed += client.passed;
            turn.refused += client.refused;
            latencies.append(&mut client.latencies);
            self.0.push(client);
        }
        turn.seconds = begun.elapsed().as_secs_f64();
        let at = latencies.len() * 99 / 100;
        let (_, p99, _) = latencies.select_nth_unstable(at);
        turn.p99_micros = *p99 as f64 / 1_000.0;
        Ok(turn)
    }
}

impl Client {
    async fn connect(address: SocketAddr) -> Result<Self, BoxError> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            request: format!("GET {PATH} HTTP/1.1\r\nhost: {address}\r\n\r\n").into_bytes(),
            answer: vec![0; 16 * 1_024],
            latencies: Vec::new(),
            passed: 0,
            refused: 0,
        })
    }

    async fn until(mut self, end: Instant) -> Result<Self, BoxError> {
        (self.passed, self.refused) = (0, 0);
        let mut asked = Instant::now();
        while asked < end {
            match self.ask().await?.status {
                200 => self.passed += 1,
                429 => self.refused += 1,
                other => return Err(format!("status {other}").into()),
            }
            let answered = Instant::now();
            self.latencies.push((answered - asked).as_nanos() as u64);
            asked = answered;
        }
        Ok(self)
    }

    async fn ask(&mut self) -> Result<Answer, BoxError> {
        self.stream.write_all(&self.request).await?;
        let mut filled = 0;
        loop {
            let read = self.stream.read(&mut self.answer[filled..]).await?;
            if read == 0 {
                return Err("the server hung up, or its answer is too long".into());
            }
            filled += read;
            match Answer::read(&self.answer[..filled])? {
                Some(answer) if answer.closes => {
                    return Err("the server does not keep the connection".into());
                }
                Some(answer) if answer.length == filled => return Ok(answer),
                Some(answer) if answer.length < filled => {
                    return Err("more than the answer came".into());
                }
                _ => {}
            }
        }
    }
}

impl Answer {
    /// `None` while the head is not there as a whole.
    fn read(bytes: &[u8]) -> Result<Option<Self>, BoxError> {
        let mut rest = bytes;
        let mut line = || {
            let end = rest.iter().position(|&byte| byte == b'\n')?;
            let (line, after) = rest.split_at(end + 1);
            rest = after;
            line.strip_suffix(b"\r\n")
        };
        let Some(first) = line() else {
            return Ok(None);
        };
        let status = first
            .strip_prefix(b"HTTP/1.1 ")
            .and_then(|rest| str::from_utf8(rest.get(..3)?).ok())
            .and_then(|digits| digits.parse().ok())
            .ok_or("not an answer of HTTP/1.1")?;
        let (mut body, mut closes) = (None, false);
        loop {
            match line() {
                None => return Ok(None),
                Some([]) => break,
                Some(field) => {
                    if let Some(value) = value(field, b"content-length:") {
                        body = str::from_utf8(value)?.trim().parse().ok();
                    } else if let Some(value) = value(field, b"connection:") {
                        closes = value.trim_ascii().eq_ignore_ascii_case(b"close");
                    }
                }
            }
        }
        let body: usize = body.ok_or("an answer tells no length")?;
        Ok(Some(Self {
            status,
            length: bytes.len() - rest.len() + body,
            closes,
        }))
    }
}

/// Returns the part of a field that stands after this name, in whatever case.
fn value<'a>(field: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (found, value) = field.split_at_checked(name.len())?;
    found.eq_ignore_ascii_case(name).then_some(value)
}
