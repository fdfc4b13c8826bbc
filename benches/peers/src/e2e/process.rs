//! Processes that serve, and the processors that they and their clients run on.

use std::{
    env, fs,
    io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::BoxError;

/// The time that a server may take to begin.
const PATIENCE: Duration = Duration::from_secs(10);

/// A processor for what serves and one for what asks; all as it was when dropped.
pub struct Processors {
    serving: String,
    before: String,
}

impl Processors {
    /// `None` where there is but one, or no `taskset`.
    pub fn part() -> Option<Self> {
        let status = fs::read_to_string("/proc/self/status").expect("Linux");
        let list = status
            .lines()
            .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?
            .trim();
        // The first and the last are not the two threads of one core, except where there is one core.
        let (first, last) = (
            list.split([',', '-']).next()?,
            list.rsplit([',', '-']).next()?,
        );
        let parted = first != last && pin(last);
        parted.then(|| Self {
            serving: first.to_owned(),
            before: list.to_owned(),
        })
    }

    /// A command that runs on the processor of what serves.
    pub fn command(this: Option<&Self>, program: &str) -> Command {
        let Some(Self { serving, before: _ }) = this else {
            return Command::new(program);
        };
        let mut command = Command::new("taskset");
        command.args(["--cpu-list", serving, program]);
        command
    }
}

impl Drop for Processors {
    fn drop(&mut self) {
        pin(&self.before);
    }
}

/// Moves this thread, and tells whether it could be moved.
fn pin(list: &str) -> bool {
    let id = std::process::id().to_string();
    let moved = Command::new("taskset")
        .args(["--pid", "--cpu-list", list, &id])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    moved.is_ok_and(|status| status.success())
}

/// A process that serves; killed when dropped.
pub struct Process {
    child: Child,
    address: SocketAddr,
    /// What it says, if it is this program.
    output: Option<BufReader<ChildStdout>>,
}

impl Process {
    /// This program as one of `apps`.
    pub fn serve(processors: Option<&Processors>, name: &str) -> Result<Self, BoxError> {
        let this = env::current_exe()?;
        let this = this.to_str().ok_or("a path that is text")?;
        Self::start(Processors::command(processors, this), name)
    }

    /// The same, by a command that this program's arguments can be added to.
    pub fn start(mut command: Command, name: &str) -> Result<Self, BoxError> {
        let child = command
            .args(["serve", name])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        // Held from here on, so that it is killed whatever happens.
        let mut process = Self {
            child,
            address: ([127, 0, 0, 1], 0).into(),
            output: None,
        };
        process.output = process.child.stdout.take().map(BufReader::new);
        process.address = process
            .line()?
            .parse()
            .map_err(|_| format!("the server {name} did not begin"))?;
        Ok(process)
    }

    fn line(&mut self) -> Result<String, BoxError> {
        let mut line = String::new();
        let output = self.output.as_mut().ok_or("it was piped")?;
        output.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }

    /// Begins or ends what is counted of one of `apps`.
    pub fn turn(&mut self) -> Result<(), BoxError> {
        let input = self.child.stdin.as_mut().ok_or("it was piped")?;
        input.write_all(b"\n")?;
        match self.line()?.is_empty() {
            true => Err("it has ended".into()),
            false => Ok(()),
        }
    }

    /// Has one of `apps` end, and returns what it said of errors, which were piped.
    pub fn end(mut self) -> Result<String, BoxError> {
        drop(self.child.stdin.take());
        let mut told = String::new();
        let mut errors = self.child.stderr.take().ok_or("they were piped")?;
        errors.read_to_string(&mut told)?;
        Ok(told)
    }

    /// Another program, which is known to have begun by its port being open.
    pub fn proxy(mut command: Command, address: SocketAddr) -> Result<Self, BoxError> {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
        let mut process = Self {
            child,
            address,
            output: None,
        };
        let begun = Instant::now();
        loop {
            if let Some(status) = process.child.try_wait()? {
                return Err(format!("{command:?} ended with {status}").into());
            }
            match TcpStream::connect(address) {
                Ok(_) => return Ok(process),
                Err(fault)
                    if fault.kind() == ErrorKind::ConnectionRefused
                        && begun.elapsed() < PATIENCE =>
                {
                    thread::sleep(Duration::from_millis(10));
                }
                Err(fault) => return Err(format!("{command:?}: {fault}").into()),
            }
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Nanoseconds of a processor that this process has had.
    pub fn processor_time(&self) -> Result<f64, BoxError> {
        processor_time(&self.child.id().to_string())
    }
}

/// Nanoseconds of a processor that a process's first thread has had; none here has another one that works.
pub fn processor_time(process: &str) -> Result<f64, BoxError> {
    let times = fs::read_to_string(format!("/proc/{process}/schedstat"))?;
    let nanos = times.split(' ').next().unwrap_or_default();
    Ok(nanos.parse()?)
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
