//! The thread that follows a file.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, RecvTimeoutError, Sender},
    time::Duration,
};

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};

use super::{Read, Tell, WatchError};
use crate::{handle::Handle, observe, rules::Changes};

/// Sends a word for whatever happens where the file lies.
pub(super) fn follow(path: &Path, changed: Sender<()>) -> notify::Result<RecommendedWatcher> {
    let tell = move |event: notify::Result<notify::Event>| {
        // Reading it is no change. What cannot be told may be one.
        if event.is_ok_and(|event| matches!(event.kind, EventKind::Access(_))) {
            return;
        }
        // Nobody listens any more: the watcher is about to be dropped.
        let _ = changed.send(());
    };
    let mut watcher = notify::recommended_watcher(tell)?;
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    watcher.watch(directory, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

/// The thread that follows a file.
pub(super) struct Follower {
    pub(super) path: PathBuf,
    pub(super) read: Read,
    pub(super) tell: Tell,
    pub(super) handle: Handle,
    /// What stood in the file, or why it could not be read.
    pub(super) seen: Option<Result<String, io::ErrorKind>>,
}

impl Follower {
    /// How long a file rests before it is read.
    const REST: Duration = Duration::from_millis(50);
    /// How many rests it is waited for at most.
    const RESTS: usize = 10;

    pub(super) fn run(mut self, changes: &Receiver<()>) {
        while changes.recv().is_ok() {
            for _ in 0..Self::RESTS {
                match rest(changes, Self::REST) {
                    Rest::Quiet => break,
                    Rest::Busy => {}
                    Rest::Over => return,
                }
            }
            if let Some(changes) = self.look() {
                if let Err(error) = &changes {
                    observe::not_reloaded(error);
                }
                (self.tell)(&changes);
            }
        }
    }

    /// Reads the file, if it is not as it was seen last.
    pub(super) fn look(&mut self) -> Option<Result<Changes, WatchError>> {
        let path = || self.path.clone();
        let text = fs::read_to_string(&self.path);
        let seen = text.as_ref().map(String::clone).map_err(io::Error::kind);
        if self.seen.as_ref() == Some(&seen) {
            return None;
        }
        self.seen = Some(seen);
        let changes = match text {
            Err(source) => Err(WatchError::File {
                path: path(),
                source,
            }),
            Ok(text) => match (self.read)(&text) {
                Err(source) => Err(WatchError::Document {
                    path: path(),
                    source,
                }),
                Ok(rules) => self
                    .handle
                    .reload(rules)
                    .map_err(|source| WatchError::Rules {
                        path: path(),
                        source,
                    }),
            },
        };
        Some(changes)
    }
}

/// What happened within a while.
enum Rest {
    Quiet,
    Busy,
    /// Nobody follows it any more.
    Over,
}

/// Waits for one rest, and takes along what came in it.
fn rest(changes: &Receiver<()>, rest: Duration) -> Rest {
    match changes.recv_timeout(rest) {
        Err(RecvTimeoutError::Timeout) => Rest::Quiet,
        Err(RecvTimeoutError::Disconnected) => Rest::Over,
        Ok(()) => {
            while changes.try_recv().is_ok() {}
            Rest::Busy
        }
    }
}
