//! Follows a file of rules.

mod error;
mod events;
mod follower;
mod places;

use std::{
    error::Error,
    ffi::OsStr,
    fmt,
    path::{Path, PathBuf},
    sync::mpsc::{Sender, channel},
    thread::{self, JoinHandle},
    time::Duration,
};

pub use self::error::WatchError;
use self::{
    events::{FileWatcher, FollowerMessage},
    follower::{Follower, ReadRules, ReportReload},
};
use super::ConfigError;
use crate::{
    handle::Handle,
    rules::{Changes, Rules},
};

/// Follows a file of rules: each time it changes, its rules replace the present ones.
///
/// ```
/// use tower_throttle::{Rules, ThrottleLayer, config};
///
/// # let directory = std::env::temp_dir().join(format!("throttle-watch-{}", std::process::id()));
/// # std::fs::create_dir_all(&directory)?;
/// # let file = directory.join("throttle.toml");
/// # std::fs::write(&file, "default_route = { rate = 10, burst = 5 }")?;
/// // `file` is the path of the rules, such as `throttle.toml`. They are in force when `start` returns.
/// let throttle = ThrottleLayer::new(Rules::new())?;
/// let watching = config::watch(&file).start(&throttle.handle())?;
/// # drop(watching);
/// # std::fs::remove_dir_all(directory)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// The name determines the format: `.toml` is read by [`Rules::from_toml`], `.yaml`, `.yml` and `.json` by
/// [`Rules::from_yaml`]; [`reading`](Watch::reading) sets another reader. The rules of the file replace all that were
/// in force, and [`map_rules`](Watch::map_rules) adds settings that only code can hold. See [`Handle::reload`] for what
/// a change keeps.
pub fn watch(path: impl Into<PathBuf>) -> Watch {
    Watch {
        path: path.into(),
        read: None,
        map: None,
        tell: Box::new(|_| ()),
        poll: Duration::from_secs(5),
        max_bytes: 8 * 1024 * 1024,
    }
}

/// A file to follow. Made by [`watch`].
#[must_use = "nothing is followed before `start`"]
pub struct Watch {
    path: PathBuf,
    read: Option<ReadRules>,
    map: Option<MapRules>,
    tell: ReportReload,
    poll: Duration,
    max_bytes: usize,
}

/// A change of rules that were read, before they are put into force.
type MapRules = Box<dyn Fn(Rules) -> Rules + Send>;

/// A file that is followed until this value is dropped. Made by [`Watch::start`].
#[derive(Debug)]
#[must_use = "the file is followed until this is dropped"]
pub struct Watching {
    words: Sender<FollowerMessage>,
    thread: JoinHandle<()>,
}

impl Watching {
    /// Returns whether the file is still followed. No known failure ends the following before this value is dropped:
    /// panics of the reader and of the listener do not. If it ends, an error is logged (feature `tracing`).
    #[must_use]
    pub fn is_following(&self) -> bool {
        !self.thread.is_finished()
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        // The follower may have ended already.
        let _ = self.words.send(FollowerMessage::Stop);
    }
}

impl Watch {
    /// Sets the closure that reads rules from the text of the file.
    ///
    /// ```
    /// use tower_throttle::{Rules, ThrottleLayer, config};
    ///
    /// # let directory = std::env::temp_dir().join(format!("throttle-reading-{}", std::process::id()));
    /// # std::fs::create_dir_all(&directory)?;
    /// # let file = directory.join("stage.json");
    /// # std::fs::write(&file, r#"{"DefaultRouteSettings":{"ThrottlingBurstLimit":5,"ThrottlingRateLimit":10}}"#)?;
    /// // `file` has the output of `aws apigatewayv2 get-stage`.
    /// let throttle = ThrottleLayer::new(Rules::new())?;
    /// let watching = config::watch(&file)
    ///     .reading(|text| Ok(config::api_gateway::stage(text)?.rules))
    ///     .start(&throttle.handle())?;
    /// # drop(watching);
    /// # std::fs::remove_dir_all(directory)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn reading(
        mut self,
        read: impl Fn(&str) -> Result<Rules, Box<dyn Error + Send + Sync>> + Send + 'static,
    ) -> Self {
        self.read = Some(Box::new(read));
        self
    }

    /// Sets a closure that adds, each time the file is read, what no file holds: closures, and the keys of plan
    /// members. Reading the file discards those of earlier rules.
    ///
    /// ```
    /// use tower_throttle::{Rules, ThrottleLayer, config};
    ///
    /// # let directory = std::env::temp_dir().join(format!("throttle-map-{}", std::process::id()));
    /// # std::fs::create_dir_all(&directory)?;
    /// # let file = directory.join("limits.toml");
    /// # std::fs::write(&file, "[clients]\nby = { header = \"x-api-key\" }\neach = 1\nplans.pro = 20")?;
    /// // `file` is the path of rules with `clients` and the plan `pro`.
    /// let throttle = ThrottleLayer::new(Rules::new())?;
    /// let watching = config::watch(&file)
    ///     .map_rules(|rules| rules.map_clients(|clients| clients.member("pro", "key-of-a-customer")))
    ///     .start(&throttle.handle())?;
    /// # drop(watching);
    /// # std::fs::remove_dir_all(directory)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn map_rules(mut self, change: impl Fn(Rules) -> Rules + Send + 'static) -> Self {
        self.map = Some(Box::new(change));
        self
    }

    /// Sets a closure that is called with each change of the file, on the thread that follows it. With the feature
    /// `tracing` each change is logged, too.
    pub fn telling(
        mut self,
        tell: impl FnMut(&Result<Changes, WatchError>) + Send + 'static,
    ) -> Self {
        self.tell = Box::new(tell);
        self
    }

    /// Sets the interval at which the file is polled without an event. Default: five seconds. Zero: never.
    ///
    /// Some changes cause no event: those on a network file system, and a mount over the file. A poll reads the file
    /// once.
    pub fn poll_every(mut self, interval: Duration) -> Self {
        self.poll = interval;
        self
    }

    /// Sets the maximum number of bytes to read. Default: 8 MiB. A longer file is [`WatchError::Length`].
    ///
    /// The reader has a bound of its own: see [`Reader::max_bytes`](super::Reader::max_bytes).
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Reads the file and applies its rules, then does so again whenever the file changes.
    ///
    /// The file is watched together with all links on the way to it, their directories and the parents of these, and
    /// again when any of them is replaced. The file may thus be edited in place or through another name, be replaced by
    /// a rename or by a changed link as in Kubernetes, be mounted by itself, or be in a directory that is recreated.
    /// The file is also polled at an [interval](Watch::poll_every).
    ///
    /// The file is read 50 milliseconds after its last change, and at the latest half a second after its first. A file
    /// that is missing, empty, unreadable or invalid changes nothing and is reported as an error. A file that reads as
    /// before is not reported.
    ///
    /// # Errors
    ///
    /// Any fault of the file as it is now, and a system that does not report changes.
    pub fn start(self, handle: &Handle) -> Result<Watching, WatchError> {
        let Self {
            path,
            read,
            map,
            tell,
            poll,
            max_bytes,
        } = self;
        let mut read = match read {
            Some(read) => read,
            None => by_name(&path)?,
        };
        if let Some(map) = map {
            read = Box::new(move |text| read(text).map(&map));
        }
        let (words, heard) = channel();
        let mut follower = Follower {
            events: FileWatcher::new(words.clone()).map_err(|source| system(&path, source))?,
            path,
            read,
            tell,
            poll,
            max_bytes,
            handle: handle.clone(),
            seen: None,
            is_watched: true,
        };
        let watched = follower.events.watch(&follower.path);
        watched.map_err(|source| system(&follower.path, source))?;
        // Reads the file once changes can no longer be missed.
        if let Some(changes) = follower.look() {
            changes?;
        }
        let named = thread::Builder::new().name("throttle-rules".to_owned());
        let path = follower.path.clone();
        let thread = named.spawn(move || follower.run(&heard));
        let thread = thread.map_err(|source| system(&path, source))?;
        Ok(Watching { words, thread })
    }
}

fn system(path: &Path, source: impl Into<Box<dyn Error + Send + Sync>>) -> WatchError {
    WatchError::System {
        path: path.to_owned(),
        source: source.into(),
    }
}

fn by_name(path: &Path) -> Result<ReadRules, WatchError> {
    fn boxed(rules: Result<Rules, ConfigError>) -> Result<Rules, Box<dyn Error + Send + Sync>> {
        Ok(rules?)
    }
    match path.extension().and_then(OsStr::to_str) {
        Some("toml") => Ok(Box::new(|text| boxed(Rules::from_toml(text)))),
        Some("yaml" | "yml" | "json") => Ok(Box::new(|text| boxed(Rules::from_yaml(text)))),
        _ => Err(WatchError::Format {
            path: path.to_owned(),
        }),
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}
