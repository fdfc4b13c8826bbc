//! A server as a process: signals that end it, and lines for whoever started it.

#![allow(dead_code, reason = "no example uses every part")]

use std::fmt::Display;
use std::io::{self, Write as _};
use std::process;

use tokio::net::TcpStream;

/// Prints a line to the standard output. Unlike `println!` it does not panic where nobody reads that any more.
pub(crate) fn tell(line: impl Display) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// Prints a line to the standard error, likewise.
pub(crate) fn warn(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Has each write of a connection leave at once. Otherwise a token of a stream waits until the one before has arrived.
pub(crate) fn no_delay(stream: &mut TcpStream) {
    let _ = stream.set_nodelay(true);
}

/// Waits until the process is asked to end, by Ctrl-C or by SIGTERM. The next time it is asked, it ends at once.
///
/// Service managers send SIGTERM. The first process of a container gets no signal that it does not handle, and so has
/// to handle this one.
pub(crate) async fn asked_to_end() {
    signal().await;
    tokio::spawn(async {
        signal().await;
        process::exit(1);
    });
}

#[cfg(unix)]
async fn signal() {
    use tokio::signal::unix::{SignalKind, signal};

    let terminate = async {
        match signal(SignalKind::terminate()) {
            Ok(mut terminate) => drop(terminate.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = terminate => {}
        () = ctrl_c() => {}
    }
}

#[cfg(not(unix))]
async fn signal() {
    ctrl_c().await;
}

async fn ctrl_c() {
    // Without a signal handler the server still serves; it only cannot be asked to end.
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}
