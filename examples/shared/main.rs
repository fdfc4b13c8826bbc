//! Two servers behind one limit in Redis.
//!
//! ```text
//! redis-server &
//! THROTTLE_SECRET=$(openssl rand -hex 32) cargo run --features redis,tracing --example shared
//! ```
//!
//! From another terminal, ten of these twelve requests are answered with 200, whichever server is asked, and two with
//! 429:
//!
//! ```sh
//! for n in $(seq 6); do for port in 3001 3002; do
//!   curl -s -o /dev/null -w '%{http_code}\n' http://127.0.0.1:$port/v1/models -H 'x-api-key: sk-one'
//! done; done
//! ```
//!
//! Without Redis, each server answers five to a key that is new to it (`sk-two`), and says so in its log.
//!
//! Each replica has a connection and a throttle of its own, like two processes, and shares only the data in Redis. To
//! run it in two processes, start this twice, each with one `ADDR`, the same `THROTTLE_SECRET` and `REPLICAS=2`.
//!
//! The servers start even if Redis cannot be reached. Until it can, each replica enforces its share of each limit by
//! itself; with the feature `tracing`, the throttle logs the begin and the end of that.
//!
//! `--help` lists the environment variables that it reads.

#[path = "../host/mod.rs"]
mod host;

use std::{
    env,
    error::Error,
    io::{self, IsTerminal as _},
    net::SocketAddr,
    process::ExitCode,
    time::Duration,
};

use axum::{
    Router,
    extract::Request,
    http::StatusCode,
    middleware::{Next, from_fn},
    response::Response,
    routing::{get, post},
    serve::ListenerExt as _,
};
use tokio::task::JoinSet;
use tower_throttle::{
    Clients, Limits, Quota, Rate, Rules, RulesError, ThrottleLayer,
    store::{OnOutage, RedisStore, RedisStoreError},
};

use crate::host::{asked_to_end, listen, no_delay, parsed, tell, variable};

type BoxError = Box<dyn Error + Send + Sync>;

const USAGE: &str = "usage: shared

Environment variables:
  THROTTLE_SECRET    what clients are hashed under, at least 16 bytes and the same for all replicas; must be given
  REDIS_URL          the server (default redis://127.0.0.1:6379)
  ADDR               where to listen, a replica on each (default 127.0.0.1:3001,127.0.0.1:3002; port 0 takes a free one)
  REPLICAS           how many there are, here and elsewhere (default: those that are here)
  STORE_DEADLINE_MS  how long a request waits for Redis (default 25)";

/// A real service would ask its database.
const KEYS: [&str; 3] = ["sk-one", "sk-two", "sk-three"];

/// Lets those pass who have a key: with a made-up one anybody would be a new client, with a full bucket.
async fn authenticate(
    request: Request,
    next: Next,
) -> Result<Response, (StatusCode, &'static str)> {
    match request.headers().get("x-api-key") {
        Some(key) if KEYS.iter().any(|known| key == known) => Ok(next.run(request).await),
        _ => Err((
            StatusCode::UNAUTHORIZED,
            "Send a key that is known as `x-api-key: <key>`.\n",
        )),
    }
}

/// Rules that hold for all replicas together.
fn rules(secret: &str) -> Rules {
    let each = Limits::new()
        .rate(Rate::per_minute(12).burst(10).named("key"))
        // No restart of a replica makes it whole again.
        .quota(Quota::per_day(1_000).named("key_day"));
    Rules::new()
        .total(Rate::per_second(20).burst(40))
        .route(
            "POST /v1/chat/completions",
            Rate::per_minute(60).burst(20).named("chat"),
        )
        // In Redis a client is a hash under the secret, and nothing else of it is.
        .clients(Clients::by_header("x-api-key").each(each).secret(secret))
}

/// Settings that all replicas have in common.
struct Shared {
    secret: String,
    redis: String,
    replicas: u32,
    deadline: Duration,
}

impl Shared {
    /// A connection for one replica: now if Redis is there, and otherwise as soon as it is.
    async fn store(&self, replica: SocketAddr) -> Result<RedisStore, RedisStoreError> {
        let redis = RedisStore::server(&self.redis)?;
        match redis.clone().connect().await {
            Err(RedisStoreError::Connect(error)) => {
                eprintln!(
                    "{replica}: Redis does not answer ({}); until it does, each replica enforces its share of each \
                     limit, one part in {}",
                    cause(&error),
                    self.replicas
                );
                redis.connect_lazy()
            }
            connected => connected,
        }
    }

    fn throttle(&self, store: RedisStore) -> Result<ThrottleLayer, RulesError> {
        let share = self.replicas;
        ThrottleLayer::builder(rules(&self.secret))
            .store(store)
            .store_deadline(self.deadline)
            .on_outage(OnOutage::Local { share })
            .build()
    }
}

/// Returns the innermost source of an error, or the error itself.
fn cause<'a>(mut error: &'a (dyn Error + 'static)) -> &'a dyn Error {
    while let Some(source) = error.source() {
        error = source;
    }
    error
}

fn app(throttle: ThrottleLayer) -> Router {
    Router::new()
        .route(
            "/v1/chat/completions",
            post(async |_: String| "an answer\n"),
        )
        .route("/v1/models", get(async || "a model\n"))
        .layer(throttle)
        // The last of axum's layers is the outermost.
        .layer(from_fn(authenticate))
        // Outside of both: whoever watches over the server has no key.
        .route("/health", get(async || "healthy\n"))
}

#[tokio::main]
async fn main() -> ExitCode {
    host::run(USAGE, serve()).await
}

async fn serve() -> Result<(), BoxError> {
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();

    let addresses = variable("ADDR", "127.0.0.1:3001,127.0.0.1:3002");
    let addresses: Vec<_> = addresses.split(',').map(str::trim).collect();
    let shared = Shared {
        secret: env::var("THROTTLE_SECRET").map_err(
            |_| "set THROTTLE_SECRET, the same for all replicas: `openssl rand -hex 32` draws one",
        )?,
        redis: variable("REDIS_URL", "redis://127.0.0.1:6379"),
        replicas: parsed("REPLICAS", &addresses.len().to_string())?,
        deadline: Duration::from_millis(parsed("STORE_DEADLINE_MS", "25")?),
    };

    let mut servers = JoinSet::new();
    let mut urls = Vec::new();
    for address in addresses {
        let listener = listen(address).await?;
        let address = listener.local_addr()?;
        let store = shared.store(address).await?;
        let app = app(shared.throttle(store)?);
        tell(format_args!("listening on http://{address}"));
        urls.push(format!("http://{address}"));
        let server =
            axum::serve(listener.tap_io(no_delay), app).with_graceful_shutdown(asked_to_end());
        servers.spawn(server.into_future());
    }
    tell(format_args!(
        "try, with sk-one, sk-two and sk-three: for n in $(seq 6); do for server in {}; do \
         curl -s -o /dev/null -w '%{{http_code}}\\n' $server/v1/models -H 'x-api-key: sk-one'; done; done",
        urls.join(" ")
    ));
    while let Some(ended) = servers.join_next().await {
        ended??;
    }
    Ok(())
}
