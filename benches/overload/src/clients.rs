//! Clients that ask for streams, and the outcomes of their requests.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    body::Bytes,
    http::{Request, StatusCode, Uri},
};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{
    client::legacy::Client, client::legacy::connect::HttpConnector, rt::TokioExecutor,
};
use tokio::{sync::mpsc, time::Instant};

use crate::{BoxError, server::KEY};

/// The time after which a client hangs up.
const PATIENCE: Duration = Duration::from_secs(10);

/// The time for which a load is on before anything is counted.
const WARM_UP: Duration = Duration::from_secs(3);

type Http = Client<HttpConnector, Full<Bytes>>;

/// The server that clients ask.
#[derive(Clone)]
pub(crate) struct Target {
    client: Http,
    uri: Uri,
}

/// The end of one client's request.
enum End {
    /// A whole answer, of so many tokens.
    Whole(u64),
    Refused,
    HungUp,
}

/// One client's story.
struct Story {
    began: Instant,
    ended: Instant,
    end: End,
}

/// The results of the clients of one measured span of time.
pub(crate) struct Outcome {
    time: Duration,
    tokens: u64,
    whole: u64,
    pub(crate) refused: u64,
    pub(crate) hung_up: u64,
    /// Latencies of the clients that were not refused, sorted: `PATIENCE` for one that hung up.
    latencies: Vec<Duration>,
}

impl Target {
    pub(crate) fn new(address: SocketAddr) -> Self {
        let uri = format!("http://{address}/v1/chat/completions").parse();
        Self {
            client: Client::builder(TokioExecutor::new()).build_http(),
            uri: uri.expect("an address makes an URI"),
        }
    }

    /// Asks once; the seed says for which answer.
    async fn ask(&self, seed: u64) -> Story {
        let began = now();
        let answer = tokio::time::timeout(PATIENCE, self.stream(seed)).await;
        let end = match answer {
            Ok(Ok(end)) => end,
            Ok(Err(fault)) => {
                eprintln!("a request failed: {fault}");
                End::HungUp
            }
            Err(_) => End::HungUp,
        };
        Story {
            began,
            ended: now(),
            end,
        }
    }

    async fn stream(&self, seed: u64) -> Result<End, BoxError> {
        let question = serde_json::json!({
            "model": "ngram",
            "messages": [{ "role": "user", "content": "Tell me about the river." }],
            "max_tokens": 1_024,
            "seed": seed,
            "stream": true,
            "stream_options": { "include_usage": true },
        });
        let request = Request::post(&self.uri)
            .header("authorization", format!("Bearer {KEY}"))
            .header("content-type", "application/json")
            .body(Full::new(question.to_string().into()))?;
        let response = self.client.request(request).await?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                return Ok(End::Refused);
            }
            other => return Err(format!("status {other}").into()),
        }
        let body = response.into_body().collect().await?.to_bytes();
        let text = str::from_utf8(&body)?;
        let whole = text.trim_end().ends_with("data: [DONE]");
        let tokens = text
            .rsplit_once("\"completion_tokens\":")
            .and_then(|(_, rest)| rest.split(|c: char| !c.is_ascii_digit()).next())
            .and_then(|digits| digits.parse().ok());
        match tokens {
            Some(tokens) if whole => Ok(End::Whole(tokens)),
            _ => Err("a stream broke off".into()),
        }
    }
}

/// Runs so many clients, each of which asks again as soon as it has its answer.
pub(crate) async fn in_turn(target: &Target, clients: usize, time: Duration) -> Outcome {
    let (stories, mut told) = mpsc::unbounded_channel();
    let began = now();
    let end = began + WARM_UP + time;
    for client in 0..clients {
        let (target, stories) = (target.clone(), stories.clone());
        tokio::spawn(async move {
            let mut seed = client as u64;
            while now() < end && stories.send(target.ask(seed).await).is_ok() {
                seed += clients as u64;
            }
        });
    }
    drop(stories);
    Outcome::gather(began + WARM_UP, time, &mut told).await
}

/// Runs so many clients a second, at random.
pub(crate) async fn at_random(target: &Target, rate: f64, time: Duration) -> Outcome {
    let (stories, mut told) = mpsc::unbounded_channel();
    let target = Arc::new(target.clone());
    let began = now();
    let end = began + WARM_UP + time;
    let mut random = fastrand::Rng::with_seed(1);
    let mut next = began;
    for seed in 0.. {
        next += Duration::from_secs_f64(-(1.0 - random.f64()).ln() / rate);
        if next >= end {
            break;
        }
        tokio::time::sleep_until(next).await;
        let (target, stories) = (Arc::clone(&target), stories.clone());
        tokio::spawn(async move {
            // Nobody listens any more once all is over.
            let _ = stories.send(target.ask(seed).await);
        });
    }
    drop(stories);
    Outcome::gather(began + WARM_UP, time, &mut told).await
}

impl Outcome {
    /// Goodput is of what ended in the time, all else of who began in it.
    async fn gather(
        from: Instant,
        time: Duration,
        stories: &mut mpsc::UnboundedReceiver<Story>,
    ) -> Self {
        let mut outcome = Self {
            time,
            tokens: 0,
            whole: 0,
            refused: 0,
            hung_up: 0,
            latencies: Vec::new(),
        };
        let counts = |at: Instant| at >= from && at < from + time;
        while let Some(Story { began, ended, end }) = stories.recv().await {
            if let (End::Whole(tokens), true) = (&end, counts(ended)) {
                outcome.tokens += tokens;
                outcome.whole += 1;
            }
            if !counts(began) {
                continue;
            }
            match end {
                End::Whole(_) => outcome.latencies.push(ended - began),
                End::Refused => outcome.refused += 1,
                End::HungUp => {
                    outcome.hung_up += 1;
                    outcome.latencies.push(PATIENCE);
                }
            }
        }
        outcome.latencies.sort();
        outcome
    }

    /// Tokens a second, in whole answers.
    pub(crate) fn goodput(&self) -> f64 {
        self.tokens as f64 / self.time.as_secs_f64()
    }

    /// Whole answers a second.
    pub(crate) fn answers(&self) -> f64 {
        self.whole as f64 / self.time.as_secs_f64()
    }

    /// A part of all who came.
    pub(crate) fn share(&self, part: u64) -> f64 {
        part as f64 / (self.latencies.len() as u64 + self.refused).max(1) as f64
    }

    /// Time to the end of the answer, of those who were not refused.
    pub(crate) fn quantile(&self, quantile: f64) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        let index = (last as f64 * quantile).round() as usize;
        self.latencies.get(index).copied().unwrap_or_default()
    }
}

#[expect(clippy::disallowed_methods, reason = "a bench reads the clock")]
fn now() -> Instant {
    Instant::now()
}
