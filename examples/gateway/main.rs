//! A gateway in front of any model server: API Gateway's throttling, from its own files.
//!
//! ```text
//! cargo run --example inference &
//! cargo run --features watch --example gateway -- \
//!     --stage examples/gateway/stage.json --upstream http://127.0.0.1:3000
//! ```
//!
//! The stage is a file as API Gateway's tools have it (the AWS CLI, CloudFormation, SAM, Pulumi, Terraform) or rules
//! of this crate (TOML, YAML, JSON). It is followed: when it changes, its limits hold at once, and nothing is given back
//! that was used before. What is refused never reaches the upstream.
//!
//! HTTP/1.1 and HTTP/2 on one port. Answers are streamed, and so are uploads. `proxy.rs` is the proxy, this file has
//! the limits around it.

mod options;
mod proxy;

use std::convert::Infallible;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tower::{Layer as _, service_fn};
use tower_throttle::config::{self, Imported, api_gateway};
use tower_throttle::{Dialect, PeerAddr, ResponseBody, Rules, Throttle, ThrottleLayer};

use crate::options::Options;
use crate::proxy::{Proxy, ProxyBody};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How long open answers may still take once the gateway was asked to end.
const GRACE: Duration = Duration::from_secs(10);

/// Reads a stage, or rules of this crate. TOML is always the latter.
fn read(path: &Path, text: &str) -> Result<Imported, BoxError> {
    let own = |rules| Imported::from(rules);
    if path
        .extension()
        .is_some_and(|extension| extension == "toml")
    {
        return Ok(own(Rules::from_toml(text)?));
    }
    match api_gateway::stage(text) {
        Ok(imported) => Ok(imported),
        // What is neither is told as a bad stage.
        Err(error) => Rules::from_yaml(text).map(own).map_err(|_| error.into()),
    }
}

/// As [`read`], and says what is different here.
fn rules(path: &Path, text: &str) -> Result<Rules, BoxError> {
    let imported = read(path, text)?;
    for warning in &imported.warnings {
        eprintln!("{}: {warning}", path.display());
    }
    Ok(imported.rules)
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let Options {
        stage,
        upstream,
        address,
    } = Options::from_arguments()?;

    let throttle = ThrottleLayer::new(rules(&stage, &fs::read_to_string(&stage)?)?)?
        .rejection(Dialect::ApiGateway);
    let watch = config::watch(&stage);
    let _watching = {
        let path = stage.clone();
        watch
            .reading(move |text| rules(&path, text))
            .telling(|changes| match changes {
                Ok(changes) => println!("reloaded: {changes}"),
                Err(error) => eprintln!("not reloaded: {error}"),
            })
            .start(&throttle.handle())?
    };

    let proxy = Arc::new(Proxy::new(upstream));
    let serve = service_fn(move |request| {
        let proxy = Arc::clone(&proxy);
        async move { Ok::<_, Infallible>(proxy.forward(request).await) }
    });
    let service = throttle.layer(serve);

    let listener = TcpListener::bind(address).await?;
    println!("invoke URL: http://{}", listener.local_addr()?);
    let connections = GracefulShutdown::new();
    let mut end = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => connect(stream, peer, service.clone(), &connections),
                // Too many open files, for one: the next connection may find room again.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            _ = &mut end => break,
        }
    }
    drop(listener);
    // Streams that last longer are cut.
    let _ = tokio::time::timeout(GRACE, connections.shutdown()).await;
    Ok(())
}

/// Serves one connection.
fn connect<S, F>(
    stream: TcpStream,
    peer: SocketAddr,
    service: Throttle<S>,
    connections: &GracefulShutdown,
) where
    Throttle<S>: tower::Service<
            Request<Incoming>,
            Response = Response<ResponseBody<ProxyBody>>,
            Error = Infallible,
            Future = F,
        > + Clone
        + Send
        + 'static,
    F: Future<Output = Result<Response<ResponseBody<ProxyBody>>, Infallible>> + Send + 'static,
{
    // For limits of clients by address, and for what the upstream is told.
    let service = tower::util::MapRequest::new(service, move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(PeerAddr(peer));
        request
    });
    let server = auto::Builder::new(TokioExecutor::new());
    let connection = server
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
        .into_owned();
    let connection = connections.watch(connection);
    tokio::spawn(async move {
        // A connection that breaks off is the client's business.
        let _ = connection.await;
    });
}
