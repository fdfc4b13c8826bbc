//! Follows a file of rules.

mod follower;

use std::{
    error::Error,
    ffi::OsStr,
    fmt, io,
    path::{Path, PathBuf},
    sync::mpsc::channel,
    thread,
};

use notify::RecommendedWatcher;

use self::follower::{Follower, follow};
use super::ConfigError;
use crate::{
    handle::Handle,
    rules::{Changes, Rules, RulesError},
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
/// // `file` is where the rules stand, such as `throttle.toml`.
/// let throttle = ThrottleLayer::new(Rules::from_toml(&std::fs::read_to_string(&file)?)?)?;
/// let watching = config::watch(&file).start(&throttle.handle())?;
/// # drop(watching);
/// # std::fs::remove_dir_all(directory)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// The name says how it is read: `.toml` by [`Rules::from_toml`], `.yaml`, `.yml` and `.json` by [`Rules::from_yaml`];
/// [`reading`](Watch::reading) says otherwise. See [`Handle::reload`] for what a change keeps.
pub fn watch(path: impl Into<PathBuf>) -> Watch {
    Watch {
        path: path.into(),
        read: None,
        tell: Box::new(|_| ()),
    }
}

type Read = Box<dyn Fn(&str) -> Result<Rules, Box<dyn Error + Send + Sync>> + Send>;
type Tell = Box<dyn FnMut(&Result<Changes, WatchError>) + Send>;

/// A file that will be followed. From [`watch`].
#[must_use = "nothing is followed before `start`"]
pub struct Watch {
    path: PathBuf,
    read: Option<Read>,
    tell: Tell,
}

/// A file that is followed, until this is dropped. From [`Watch::start`].
#[derive(Debug)]
#[must_use = "the file is followed until this is dropped"]
pub struct Watching {
    _watcher: RecommendedWatcher,
}

/// Why a file was not followed. The rules that hold go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WatchError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    #[non_exhaustive]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The name does not say how the file is read.
    #[error(
        "{}: no name that ends with `.toml`, `.yaml`, `.yml` or `.json`; say with `reading` how it is read",
        path.display()
    )]
    #[non_exhaustive]
    Format {
        /// The file.
        path: PathBuf,
    },
    /// What stands in the file cannot be read as rules.
    #[error("{}: {source}", path.display())]
    #[non_exhaustive]
    Document {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The rules do not hold together.
    #[error("{}: {source}", path.display())]
    #[non_exhaustive]
    Rules {
        /// The file.
        path: PathBuf,
        /// Why.
        source: RulesError,
    },
    /// The system does not tell when the file changes.
    #[error("{}: {source}", path.display())]
    #[non_exhaustive]
    System {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
}

impl Watch {
    /// How the file is read.
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

    /// Who is told of each change of the file, on the thread that follows it. With the feature `tracing` it is logged,
    /// too.
    pub fn telling(
        mut self,
        tell: impl FnMut(&Result<Changes, WatchError>) + Send + 'static,
    ) -> Self {
        self.tell = Box::new(tell);
        self
    }

    /// Reads the file, puts its rules into the place of those that hold, and does so again whenever it changes.
    ///
    /// It is the directory that is watched, so that files may be put into the place of others, by a rename or by
    /// symbolic links as Kubernetes does it. When a file has come to rest for 50 milliseconds it is read, and at the
    /// latest half a second after it began to change. A file that is gone, cannot be read, or holds bad rules changes
    /// nothing but who is told; so does one that reads as before.
    ///
    /// # Errors
    ///
    /// All that can be wrong with the file as it is now, and a system that does not tell of changes.
    pub fn start(self, handle: &Handle) -> Result<Watching, WatchError> {
        let Self { path, read, tell } = self;
        let read = match read {
            Some(read) => read,
            None => by_name(&path)?,
        };
        let (changed, changes) = channel();
        let watcher = follow(&path, changed).map_err(|source| WatchError::System {
            path: path.clone(),
            source: source.into(),
        })?;
        let mut follower = Follower {
            path,
            read,
            tell,
            handle: handle.clone(),
            seen: None,
        };
        // Read now that no change is missed any more.
        if let Some(changes) = follower.look() {
            changes?;
        }
        let named = thread::Builder::new().name("throttle-rules".to_owned());
        let path = follower.path.clone();
        let spawned = named.spawn(move || follower.run(&changes));
        spawned.map_err(|source| WatchError::System {
            path,
            source: source.into(),
        })?;
        Ok(Watching { _watcher: watcher })
    }
}

fn by_name(path: &Path) -> Result<Read, WatchError> {
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
