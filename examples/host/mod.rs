//! The program as a process: its usage, its errors, signals that end it, and lines for its caller.

#![allow(dead_code, reason = "no example uses every part")]

#[cfg(all(test, unix))]
mod tests;

use std::env;
use std::error::Error;
use std::fmt::Display;
use std::future::{Future, pending};
use std::io::{self, Write as _};
use std::process::{self, ExitCode};
use std::str::FromStr;

use tokio::net::{TcpListener, TcpStream};
#[cfg(unix)]
use tokio::signal::unix::{Signal, SignalKind, signal};

type BoxError = Box<dyn Error + Send + Sync>;

/// Runs a server that takes no arguments, but for `--help`, which prints `usage`.
pub(crate) async fn run(
    usage: &str,
    server: impl Future<Output = Result<(), BoxError>>,
) -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    match words.first().map(String::as_str) {
        None => ended(server.await),
        Some("--help" | "-h") => {
            tell(usage);
            ExitCode::SUCCESS
        }
        Some(word) => ended(Err(format!("no argument `{word}`\n{usage}").into())),
    }
}

/// Tells how a program has ended: 2 for a wrong command line, a file that cannot be read, and whatever else kept it from
/// its work, which is printed with its causes.
pub(crate) fn ended(result: Result<(), BoxError>) -> ExitCode {
    let Err(error) = result else {
        return ExitCode::SUCCESS;
    };
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let because = error.to_string();
        // Some errors show their causes themselves.
        if !text.contains(&because) {
            text = format!("{text}: {because}");
        }
        cause = error.source();
    }
    warn(format_args!("error: {text}"));
    ExitCode::from(2)
}

/// Returns the value of an environment variable, or a default.
pub(crate) fn variable(name: &str, default: &str) -> String {
    env::var(name).unwrap_or_else(|_| default.to_owned())
}

/// Reads an environment variable, or a default.
pub(crate) fn parsed<T: FromStr<Err: Display>>(name: &str, default: &str) -> Result<T, BoxError> {
    let value = variable(name, default);
    value
        .parse()
        .map_err(|error| format!("{name}={value}: {error}").into())
}

/// Listens on an address.
pub(crate) async fn listen(address: &str) -> Result<TcpListener, BoxError> {
    let listener = TcpListener::bind(address).await;
    listener.map_err(|error| format!("{address}: {error}").into())
}

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
