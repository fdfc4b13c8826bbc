//! The example's server, in a process of its own.

use std::{
    env,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use tokio::net::TcpListener;
use tower_throttle::{Rules, ThrottleLayer};

use crate::{
    BoxError,
    api::ServedModels,
    app,
    guard::ApiKey,
    model::{Device, Model},
    openai::TEXT_MODEL,
};

pub(crate) const KEY: &str = "sk-local";

const TOKENS_PER_SECOND: u32 = 4_000;

/// Serves until it is killed, and says where.
pub(crate) fn serve(throttled: bool) -> Result<(), BoxError> {
    let rules = if throttled {
        Rules::new().total(app::slots())
    } else {
        Rules::new()
    };
    let model = Model::train().on(Device::new(TOKENS_PER_SECOND));
    let app = app::app(
        ServedModels(vec![(TEXT_MODEL, Arc::new(model))]),
        ApiKey::new(KEY.to_owned()),
        ThrottleLayer::new(rules)?,
    );
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?);
        axum::serve(listener, app).await
    })?;
    Ok(())
}

/// A server process; killed when dropped.
pub(crate) struct Server {
    process: Child,
    address: SocketAddr,
}

impl Server {
    pub(crate) fn start(throttled: bool) -> Result<Self, BoxError> {
        let mut process = Command::new(env::current_exe()?)
            .arg("serve")
            .arg(if throttled { "throttled" } else { "open" })
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let output = process.stdout.take().ok_or("it was piped")?;
        BufReader::new(output).read_line(&mut line)?;
        let address = line.trim().parse();
        if address.is_err() {
            process.kill()?;
        }
        Ok(Self {
            process,
            address: address?,
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to do.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
