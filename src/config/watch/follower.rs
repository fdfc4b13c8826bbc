//! The thread that follows a file.

use std::{
    any::Any,
    error::Error,
    fs::File,
    io::{self, Read as _},
    iter,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::mpsc::{Receiver, RecvTimeoutError},
    thread,
    time::Duration,
};

use super::{
    error::WatchError,
    events::{FileWatcher, FollowerMessage},
};
use crate::{
    config::ConfigError,
    handle::Handle,
    observe,
    rules::{Changes, Rules},
};

/// A reader of rules from the text of a file.
pub(super) type ReadRules = Box<dyn Fn(&str) -> Result<Rules, Box<dyn Error + Send + Sync>> + Send>;

/// A listener to changes of a file, and to what has become of them.
pub(super) type ReportReload = Box<dyn FnMut(&Result<Changes, WatchError>) + Send>;

/// Follows a file.
pub(super) struct Follower {
    pub(super) events: FileWatcher,
    pub(super) path: PathBuf,
    pub(super) read: ReadRules,
    pub(super) tell: ReportReload,
    /// The time between two looks that no event has called for. Zero: there are none.
    pub(super) poll: Duration,
    pub(super) max_bytes: usize,
    pub(super) handle: Handle,
    /// The text of the file, or why it could not be read.
    pub(super) seen: Option<Result<String, ReadError>>,
    /// True if the system tells of changes.
    pub(super) is_watched: bool,
}

/// A reason for which a file could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadError {
    TooLong,
    Error(io::ErrorKind),
}

impl Follower {
    /// The time for which a file rests before it is read.
    const REST: Duration = Duration::from_millis(50);
    /// The most waits of that length before a file is read.
    const RESTS: usize = 10;

    pub(super) fn run(mut self, words: &Receiver<FollowerMessage>) {
        let _ended = UnexpectedEnd(self.path.clone());
        while let Some(word) = self.wait(words) {
            let Some(word) = settled(word, words) else {
                return;
            };
            if word == FollowerMessage::Moved {
                self.watch_again();
            }
            self.look_and_tell();
        }
    }

    /// The next word. When it is time to look, something may have moved. `None`: nobody follows the file any more.
    fn wait(&self, words: &Receiver<FollowerMessage>) -> Option<FollowerMessage> {
        let word = match self.poll {
            Duration::ZERO => words.recv().map_err(RecvTimeoutError::from),
            poll => words.recv_timeout(poll),
        };
        match word {
            Ok(FollowerMessage::Stop) | Err(RecvTimeoutError::Disconnected) => None,
            Ok(word) => Some(word),
            Err(RecvTimeoutError::Timeout) => Some(FollowerMessage::Moved),
        }
    }

    /// Watches what is on the way to the file now. Where that fails, the looks that no event calls for remain.
    fn watch_again(&mut self) {
        let watched = self.events.watch(&self.path);
        if let Err(error) = watched.as_ref().map_err(ToString::to_string) {
            if self.is_watched {
                observe::not_watched(&self.path, &error);
            }
        }
        self.is_watched = watched.is_ok();
    }

    fn look_and_tell(&mut self) {
        let Some(changes) = self.look() else {
            return;
        };
        if let Err(error) = &changes {
            observe::not_reloaded(error);
        }
        let told = catch_unwind(AssertUnwindSafe(|| (self.tell)(&changes)));
        if let Err(panic) = told {
            observe::listener_panicked(&self.path, &message(&*panic));
        }
    }

    /// Reads the file, if it is not as it was seen last.
    pub(super) fn look(&mut self) -> Option<Result<Changes, WatchError>> {
        let read = self.text();
        let seen = read
            .as_ref()
            .map(String::clone)
            .map_err(|error| match error {
                None => ReadError::TooLong,
                Some(error) => ReadError::Error(error.kind()),
            });
        if self.seen.as_ref() == Some(&seen) {
            return None;
        }
        let is_first = self.seen.replace(seen).is_none();
        let path = || self.path.clone();
        Some(match read {
            // A program that writes a file in place has emptied it first.
            Ok(text) if !is_first && is_empty(&text) => Err(WatchError::Document {
                path: path(),
                source: ConfigError::new("", None, "an empty document").into(),
            }),
            Ok(text) => {
                catch_unwind(AssertUnwindSafe(|| self.take(&text))).unwrap_or_else(|panic| {
                    Err(WatchError::Panic {
                        path: path(),
                        message: message(&*panic),
                    })
                })
            }
            Err(Some(source)) => Err(WatchError::File {
                path: path(),
                source,
            }),
            Err(None) => Err(WatchError::Length {
                path: path(),
                max_bytes: self.max_bytes,
            }),
        })
    }

    /// The text of the file. `None` as an error: it is too long.
    fn text(&self) -> Result<String, Option<io::Error>> {
        let most = u64::try_from(self.max_bytes).unwrap_or(u64::MAX);
        let mut bytes = Vec::new();
        let file = File::open(&self.path)?;
        file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
        if bytes.len() > self.max_bytes {
            return Err(None);
        }
        let text = String::from_utf8(bytes);
        text.map_err(|error| {
            Some(io::Error::new(
                io::ErrorKind::InvalidData,
                error.utf8_error(),
            ))
        })
    }

    /// Reads the rules of a text, and puts them into the place of those that hold.
    fn take(&self, text: &str) -> Result<Changes, WatchError> {
        let path = || self.path.clone();
        let rules = (self.read)(text).map_err(|source| WatchError::Document {
            path: path(),
            source,
        })?;
        let changes = self.handle.reload(rules);
        changes.map_err(|source| WatchError::Rules {
            path: path(),
            source,
        })
    }
}

/// Returns whether a text is empty, white space and a byte order mark apart, which some editors leave.
fn is_empty(text: &str) -> bool {
    text.trim_start_matches('\u{feff}').trim().is_empty()
}

/// Tells when following ends though nobody has ended it.
struct UnexpectedEnd(PathBuf);

impl Drop for UnexpectedEnd {
    fn drop(&mut self) {
        if thread::panicking() {
            observe::following_ended(&self.0);
        }
    }
}

/// Waits until nothing has come for a while, and takes along what came. `None`: nobody follows the file any more.
fn settled(first: FollowerMessage, words: &Receiver<FollowerMessage>) -> Option<FollowerMessage> {
    let mut all = first;
    for _ in 0..Follower::RESTS {
        match words.recv_timeout(Follower::REST) {
            Err(RecvTimeoutError::Timeout) => break,
            Err(RecvTimeoutError::Disconnected) => return None,
            Ok(next) => {
                for word in iter::once(next).chain(words.try_iter()) {
                    match word {
                        FollowerMessage::Stop => return None,
                        FollowerMessage::Moved => all = FollowerMessage::Moved,
                        FollowerMessage::Written => {}
                    }
                }
            }
        }
    }
    Some(all)
}

/// Returns the message of a panic, or `no text` if the message is none.
fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "no text".to_owned())
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::mpsc::channel};

    use super::*;
    use crate::{Rules, ThrottleLayer};

    #[test]
    fn a_file_is_looked_at_in_an_interval_whatever_the_system_tells() {
        let directory = std::env::temp_dir();
        let path = directory.join(format!("throttle-interval-{}.toml", std::process::id()));
        // Written beside it, so that it is never seen empty.
        let write = |text: &str| {
            let beside = path.with_extension("new");
            fs::write(&beside, text).expect("a file");
            fs::rename(&beside, &path).expect("put into its place");
        };
        write("default_route = 10");
        let layer = ThrottleLayer::new(Rules::new()).expect("no rules");
        let (unheard, _) = channel();
        let (told, tells) = channel();
        let mut follower = Follower {
            // Its events are not received.
            events: FileWatcher::new(unheard).expect("a system that tells"),
            path: path.clone(),
            read: Box::new(|text| Ok(Rules::from_toml(text)?)),
            tell: Box::new(move |changes| {
                let _ = told.send(changes.is_ok());
            }),
            poll: Duration::from_millis(1),
            max_bytes: 100,
            handle: layer.handle(),
            seen: None,
            is_watched: false,
        };
        assert!(follower.look().is_some_and(|changes| changes.is_ok()));
        let (stop, words) = channel();
        let thread = thread::spawn(move || follower.run(&words));
        let long = Duration::from_secs(60);
        write("default_route = 11");
        assert_eq!(tells.recv_timeout(long), Ok(true));
        fs::remove_file(&path).expect("removed");
        assert_eq!(tells.recv_timeout(long), Ok(false));
        write("default_route = 12");
        assert_eq!(tells.recv_timeout(long), Ok(true));
        stop.send(FollowerMessage::Stop).expect("it goes on");
        thread.join().expect("it ends when it is told to");
        fs::remove_file(&path).expect("removed");
    }
}
