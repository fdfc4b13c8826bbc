//! A server as a process: signals that end it, and lines for whoever started it.

#![allow(dead_code, reason = "no example uses every part")]

#[cfg(all(test, unix))]
mod tests;

use std::fmt::Display;
use std::future::{Future, pending};
use std::io::{self, Write as _};
use std::process;

use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Prints a line to the standard output. Unlike `println!` it does not panic where nobody reads that any more.
pub(crate) fn tell(line: impl Display) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// Prints a line to the standard error, likewise.
pub(crate) fn warn(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Makes each write of a connection leave at once. Otherwise a token of a stream waits until the one before has
/// arrived.
pub(crate) fn no_delay(stream: &mut TcpStream) {
    let _ = stream.set_nodelay(true);
}

/// Takes the signals that ask the process to end, Ctrl-C and SIGTERM, from now on. What is returned waits for the first;
/// the next ends the process at once, whenever it comes.
///
/// Service managers send SIGTERM. The first process of a container gets no signal that it does not handle, and so has
/// to handle this one.
pub(crate) fn asked_to_end() -> impl Future<Output = ()> + Send + 'static {
    let mut signals = Signals::taken();
    async move {
        signals.next().await;
        tokio::spawn(async move {
            signals.next().await;
            process::exit(1);
        });
    }
}

/// Without a signal handler the server still serves; it only cannot be asked to end.
#[cfg(unix)]
struct Signals([Option<Signal>; 2]);

#[cfg(unix)]
impl Signals {
    fn taken() -> Self {
        Self([SignalKind::interrupt(), SignalKind::terminate()].map(|kind| signal(kind).ok()))
    }

    async fn next(&mut self) {
        let [interrupt, terminate] = &mut self.0;
        tokio::select! {
            () = came(interrupt) => {}
            () = came(terminate) => {}
        }
    }
}

#[cfg(unix)]
async fn came(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => pending().await,
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn taken() -> Self {
        Self
    }

    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            pending::<()>().await;
        }
    }
}
