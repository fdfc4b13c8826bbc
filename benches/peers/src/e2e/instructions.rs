//! Instructions of a whole server for one request, the kernel's left out.
//!
//! One client asks, again as soon as it has its answer, so that the server is woken for each request. Under load a server
//! is woken for several at once, and takes less for each.

use std::process::Stdio;

use super::{
    BoxError, apps,
    contenders::{self, BARE},
    load::Clients,
    process::Process,
};
use crate::{
    instructions::{callgrind, collected, least, of_one},
    ours::By,
    rounds::Rounds,
};

/// Requests before those that are counted.
const FIRST: u32 = 100;
const FEW: u32 = 500;
const MANY: u32 = 2_500;

/// Instructions in the place of nanoseconds, in one round.
pub fn measure() -> Result<Rounds, BoxError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut rounds = Rounds::default();
    let mut row = |by: By, name, floor, app, status| -> Result<(), BoxError> {
        let app = by.name(app);
        let run = |count| -> Result<_, BoxError> {
            let once = || runtime.block_on(requests(&app, status, count));
            Ok((count, least(by, once)?))
        };
        let instructions = of_one(run(FEW)?, run(MANY)?);
        rounds.push(by.name(name), floor, vec![instructions]);
        Ok(())
    };
    row(By::Tokio, BARE, None, apps::BARE, 200)?;
    for layer in contenders::LAYERS {
        let status = if layer.refuses { 429 } else { 200 };
        let clocks = match layer.is_ours {
            true => &By::BOTH[..],
            false => &[By::Tokio],
        };
        for by in clocks {
            row(*by, layer.name, Some(BARE), layer.app, status)?;
        }
    }
    Ok(rounds)
}

/// Instructions of a server while it answers so many requests.
async fn requests(app: &str, status: u16, count: u32) -> Result<u64, BoxError> {
    let mut command = callgrind();
    command.stderr(Stdio::piped());
    let mut server = Process::start(command, app)?;
    let mut clients = Clients::connect(server.address(), 1).await?;
    for _ in 0..FIRST {
        clients.ask().await?;
    }
    server.turn()?;
    for _ in 0..count {
        let answer = clients.ask().await?;
        if !answer.starts_with(&format!("HTTP/1.1 {status} ")) {
            return Err(format!("{app} answers:\n{answer}").into());
        }
    }
    server.turn()?;
    let told = server.end()?;
    collected(&told).ok_or_else(|| format!("{app}: {told}").into())
}
