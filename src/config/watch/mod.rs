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

/// Follows a file of rules: each time it changes, its rules take the place of those that hold.
///
/// ```
/// use tower_throttle::{Rules, ThrottleLayer, config};
///
/// # let directory = std::env::temp_dir().join(format!("throttle-watch-{}", std::process::id()));
/// # std::fs::create_dir_all(&directory)?;
/// # let file = directory.join("throttle.toml");
/// # std::fs::write(&file, "default_route = { rate = 10, burst = 5 }")?;
/// // `file` is where the rules stand, such as `throttle.toml`. They are in force when `start` returns.
/// let throttle = ThrottleLayer::new(Rules::new())?;
/// let watching = config::watch(&file).start(&throttle.handle())?;
/// # drop(watching);
/// # std::fs::remove_dir_all(directory)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// The name says how it is read: `.toml` by [`Rules::from_toml`], `.yaml`, `.yml` and `.json` by [`Rules::from_yaml`];
/// [`reading`](Watch::reading) says otherwise. The rules of the file replace all that were in force, and
/// [`map_rules`](Watch::map_rules) adds what only code can say. See [`Handle::reload`] for what a change keeps.
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

/// A file that will be followed. From [`watch`].
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

/// A file that is followed, until this is dropped. From [`Watch::start`].
#[derive(Debug)]
#[must_use = "the file is followed until this is dropped"]
pub struct Watching {
    words: Sender<FollowerMessage>,
    thread: JoinHandle<()>,
}

impl Watching {
    /// Returns whether the file is still followed. Nothing is known to end the following before this is dropped: panics
    /// of the reader of the file, and of the listener to changes, do not. If following does end, that is logged with
    /// the feature `tracing`.
    #[must_use]
    pub fn is_following(&self) -> bool {
        !self.thread.is_finished()
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        // It may have ended by itself.
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
    /// // `file` is what `aws apigatewayv2 get-stage` wrote.
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

    /// Sets the closure that adds to the rules of the file, each time the file is read, what no file says: closures, and
    /// the keys of plan members. What rules from elsewhere had of these is gone as soon as the file is read.
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

    /// Sets the closure that is told of each change of the file, on the thread that follows the file. With the feature
    /// `tracing` each change is logged, too.
    pub fn telling(
        mut self,
        tell: impl FnMut(&Result<Changes, WatchError>) + Send + 'static,
    ) -> Self {
        self.tell = Box::new(tell);
        self
    }

    /// Sets the time between two looks at the file that no event has called for. Default: five seconds. Zero: none.
    ///
    /// Not every change is an event: a file system of another machine tells none, and neither does a mount over the
    /// file. One look reads the file once.
    pub fn poll_every(mut self, interval: Duration) -> Self {
        self.poll = interval;
        self
    }

    /// Sets the most bytes that are read of the file. Default: 8 MiB. A longer file is [`WatchError::Length`].
    ///
    /// The reader of the file has a bound of its own: see [`Reader::max_bytes`](super::Reader::max_bytes).
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Reads the file, puts its rules into the place of those that hold, and does so again whenever it changes.
    ///
    /// Watched are the file, all links on the way to it, the directories in which these lie, and their
    /// parents, and they are watched anew when something else takes their place. So a file may be edited where it is
    /// or through another of its names, put into the place of another by a rename or by turning a link as Kubernetes
    /// does, mounted by itself, or lie in a directory that is removed and made anew. Beside that the file is looked at
    /// in an [interval](Watch::poll_every).
    ///
    /// When a file has come to rest for 50 milliseconds it is read, and at the latest half a second after it began to
    /// change. A file that is gone, empty, cannot be read, or holds bad rules changes nothing and is told as an error;
    /// one that reads as before is not told.
    ///
    /// # Errors
    ///
    /// All that can be wrong with the file as it is now, and a system that does not tell of changes.
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
        // Read now that no change is missed any more.
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
