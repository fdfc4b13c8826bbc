//! The servers: one route in axum that answers with a little JSON, and a limiter around it.

use std::{
    convert::Infallible,
    future::ready,
    io::stdin,
    num::{NonZeroU32, NonZeroU64},
    process::exit,
    sync::Arc,
    thread,
    time::Duration,
};

use axum::{
    Json, Router,
    error_handling::HandleErrorLayer,
    http::StatusCode,
    response::{IntoResponse as _, Response},
    routing::get,
    serve::ListenerExt as _,
};
use axum_gcra::{RateLimitLayer, gcra};
use serde::Serialize;
use tokio::{net::TcpListener, sync::mpsc::unbounded_channel};
use tower::ServiceBuilder;
use tower_governor::{
    GovernorLayer, governor::GovernorConfigBuilder, key_extractor::GlobalKeyExtractor,
};
use tower_throttle::{Rate, Rules, decision::DecisionIn};

use super::BoxError;
use crate::{
    instructions::counted,
    layers::{endless, plain, throttle},
    ours::By,
};

pub const PATH: &str = "/hello";
/// The body of the route's answer.
pub const BODY: &str = r#"{"message":"Hello, world!"}"#;

pub const BARE: &str = "bare";
pub const PLAIN: &str = "tower-throttle";
pub const FIELDS: &str = "tower-throttle-fields";
pub const DECIDED: &str = "tower-throttle-decided";
pub const REFUSED: &str = "tower-throttle-refused";
pub const GOVERNOR: &str = "tower_governor";
pub const GOVERNOR_HEADERS: &str = "tower_governor-headers";
pub const GOVERNOR_REFUSED: &str = "tower_governor-refused";
pub const AXUM_GOVERNOR: &str = "axum-governor";
pub const AXUM_GCRA: &str = "axum_gcra";

const MANY: NonZeroU32 = NonZeroU32::new(1_000_000_000).expect("not zero");

#[derive(Serialize)]
struct Hello {
    message: &'static str,
}

async fn hello() -> Json<Hello> {
    Json(Hello {
        message: "Hello, world!",
    })
}

fn rules(rate: Rate) -> Rules {
    Rules::new().route(format!("GET {PATH}"), rate)
}

/// tower_governor with one key for all; a macro, for its type changes with its headers.
macro_rules! governor {
    ($app:ident, $period:ident($n:expr), burst $burst:expr $(, $with:ident)?) => {{
        let config = GovernorConfigBuilder::default()
            .$period($n)
            .burst_size($burst)
            .key_extractor(GlobalKeyExtractor)
            $(.$with())?
            .finish()
            .ok_or("neither is zero")?;
        $app.layer(GovernorLayer::new(Arc::new(config)))
    }};
}

/// One bucket for all, as axum-governor's users build it: its fields are always told.
fn axum_governor() -> Result<axum_governor::GovernorLayer<()>, BoxError> {
    let config = axum_governor::GovernorConfigBuilder::default()
        .with_extractor(axum_governor::extractor::Global)
        .quota_default(axum_governor::Quota::requests_per_second(MANY))
        .finish()?;
    Ok(axum_governor::GovernorLayer::new(config))
}

/// The layer inside `axum_gcra`, which is for any service; the crate's own stack is for axum 0.7. The axum of this
/// bench handles the layer's errors.
fn axum_gcra() -> RateLimitLayer<()> {
    let quota = gcra::Quota::new(Duration::from_nanos(1), NonZeroU64::from(MANY));
    RateLimitLayer::<()>::builder()
        .with_default_quota(quota)
        .with_global_fallback(true)
        .build()
}

fn refusal(_: axum_gcra::Error<Infallible, Infallible>) -> std::future::Ready<Response> {
    ready(StatusCode::TOO_MANY_REQUESTS.into_response())
}

fn app(name: &str) -> Result<Router, BoxError> {
    let bare = Router::new().route(PATH, get(hello));
    let hourly = Rate::per_hour(1);
    let (by, row) = By::of(name);
    let ours = |throttle| by.layer(throttle).for_axum();
    Ok(match row {
        BARE => bare,
        PLAIN => bare.layer(ours(plain(rules(endless())))),
        FIELDS => bare.layer(ours(throttle(rules(endless())))),
        DECIDED => {
            let layer = throttle(rules(endless())).decision(DecisionIn::Both);
            bare.layer(ours(layer))
        }
        REFUSED => bare.layer(ours(throttle(rules(hourly)))),
        GOVERNOR => governor!(bare, per_nanosecond(1), burst MANY.get()),
        GOVERNOR_HEADERS => governor!(bare, per_nanosecond(1), burst MANY.get(), use_headers),
        GOVERNOR_REFUSED => governor!(bare, per_second(3_600), burst 1),
        AXUM_GOVERNOR => bare.layer(axum_governor()?),
        AXUM_GCRA => bare.layer(
            ServiceBuilder::new()
                .layer(HandleErrorLayer::new(refusal))
                .layer(axum_gcra()),
        ),
        _ => return Err(format!("no server is called {name:?}").into()),
    })
}

/// Serves on one thread until its standard input ends, and says where. Between two lines from there the thread is
/// counted; each is answered with a line.
pub fn serve(name: &str) -> Result<(), BoxError> {
    let (turn, mut turns) = unbounded_channel();
    thread::spawn(move || {
        // However it ends, the parent is gone.
        for _ in stdin().lines().map_while(Result::ok) {
            let _ = turn.send(());
        }
        exit(0);
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let app = app(name)?;
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
    println!("{}", listener.local_addr()?);
    let listener = listener.tap_io(|stream| {
        // A connection that is gone already is noticed soon enough.
        let _ = stream.set_nodelay(true);
    });
    let serving = runtime.spawn(async { axum::serve(listener, app).await });
    runtime.block_on(turns.recv());
    println!("counting");
    counted(|| runtime.block_on(turns.recv()));
    println!("counted");
    runtime.block_on(serving)??;
    Ok(())
}
