//! A gateway in front of any model server: API Gateway's throttling, from its own files.
//!
//! ```text
//! cargo run --example inference &
//! cargo run --features watch --example gateway -- \
//!     --stage examples/gateway/stage.json --upstream http://127.0.0.1:3000
//! ```
//!
//! The stage is a file of API Gateway's tools (the AWS CLI, CloudFormation, SAM, Pulumi, Terraform), rules of this
//! crate (TOML, YAML, JSON), or a Pulumi program in Python. The file is followed: when it changes, the new limits hold
//! at once, and used units stay used. A refused request never reaches the upstream.
//!
//! A Pulumi program in Python is served as it is, without an account, a network or the command `pulumi`:
//!
//! ```sh
//! pip install pulumi pulumi-aws
//! cargo run --features watch --example gateway -- --pulumi program.py --upstream http://127.0.0.1:3000
//! ```
//!
//! ```python
//! import pulumi
//! import pulumi_aws as aws
//!
//! api = aws.apigatewayv2.Api(
//!     "api", protocol_type="HTTP", route_selection_expression="$request.method $request.path"
//! )
//! stage = aws.apigatewayv2.Stage(
//!     "stage",
//!     api_id=api.id,
//!     route_settings={"defaultRouteSettings": {"throttling_burst_limit": 5, "throttling_rate_limit": 10}},
//!     auto_deploy=True,
//! )
//! pulumi.export("url", stage.invoke_url)
//! ```
//!
//! Each method and path has its burst of 5 and 10 a second. API Gateway refuses `defaultRouteSettings` as a route and
//! takes `default_route_settings` of the stage; here either is read, the former with a warning.
//!
//! A path with several readings is refused, so that the upstream reads the path that was matched. Paths without route
//! settings share the limits of the default route, so that inventing them gains nothing; `--undeclared each` gives each
//! method and path its own.
//!
//! The gateway serves HTTP/1.1 and HTTP/2 on one port, and streams answers and uploads.
//!
//! - `stage.rs` reads documents and follows them,
//! - `pulumi.rs` runs programs by `pulumi_stages.py`,
//! - `proxy.rs` sends requests on, over connections that `connector.rs` makes, and once more where `again.rs` allows it,
//! - `server.rs` accepts connections and ends them.

mod again;
mod connector;
#[path = "../host/mod.rs"]
mod host;
mod options;
mod proxy;
mod pulumi;
mod server;
mod stage;

use std::convert::Infallible;
use std::process::ExitCode;
use std::sync::Arc;

use tower::{ServiceBuilder, service_fn};
use tower_throttle::{Rules, ThrottleLayer, canonical_path::CanonicalPathLayer, response::Dialect};

use crate::host::{listen, tell};
use crate::options::{Options, USAGE};
use crate::proxy::Proxy;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> ExitCode {
    host::ended(run().await)
}

async fn run() -> Result<(), BoxError> {
    let Some(options) = Options::from_arguments()? else {
        tell(USAGE);
        return Ok(());
    };
    let Options {
        stage,
        upstream,
        address,
    } = options;

    let listener = listen(&address).await;
    let listener = listener.map_err(|error| format!("--address {error}"))?;
    let url = format!("http://{}", listener.local_addr()?);
    let throttle = ThrottleLayer::builder(Rules::new())
        .rejection(Dialect::ApiGateway)
        .build()?;
    let _following = stage.start(&url, &throttle.handle())?;

    let proxy = Arc::new(Proxy::new(upstream));
    let service = ServiceBuilder::new()
        .layer(CanonicalPathLayer::strict())
        .layer(throttle)
        .service(service_fn(move |request| {
            let proxy = Arc::clone(&proxy);
            async move { Ok::<_, Infallible>(proxy.forward(request).await) }
        }));

    tell(format_args!("invoke URL: {url}"));
    server::serve(listener, service).await;
    Ok(())
}
