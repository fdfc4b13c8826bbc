//! The events that the system tells of a file.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError, mpsc::Sender},
};

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher, event::ModifyKind};

use super::places::Places;

/// A message to the thread that follows a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FollowerMessage {
    /// Something was written.
    Written,
    /// Something else lies where something lay, or nothing: what was watched may be gone.
    Moved,
    /// Nobody follows it any more.
    Stop,
}

/// Watches all places on the way to a file.
pub(super) struct FileWatcher {
    watcher: RecommendedWatcher,
    places: Arc<Mutex<Places>>,
}

impl FileWatcher {
    pub(super) fn new(words: Sender<FollowerMessage>) -> notify::Result<Self> {
        let places = Arc::new(Mutex::new(Places::default()));
        let on_the_way = Arc::clone(&places);
        let tell = move |event: notify::Result<Event>| {
            let places = on_the_way.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(word) = word(&event, &places) {
                // Nobody listens any more: the watcher is about to be dropped.
                let _ = words.send(word);
            }
        };
        Ok(Self {
            watcher: notify::recommended_watcher(tell)?,
            places,
        })
    }

    /// Watches the places on the way to a file as the file system is now. Those that are watched already are watched
    /// anew: they may be others of the same name.
    ///
    /// # Errors
    ///
    /// The directory of the file cannot be watched. Other places may be closed to this process.
    pub(super) fn watch(&mut self, path: &Path) -> notify::Result<()> {
        let now = Places::of(path)?;
        let (watched, directory) = (now.watched.clone(), now.directory.clone());
        let before = {
            let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *places, now).watched
        };
        for place in before {
            // The place may be gone.
            let _ = self.watcher.unwatch(&place);
        }
        let mut result = Ok(());
        for place in watched {
            let watching = self.watcher.watch(&place, RecursiveMode::NonRecursive);
            if place == directory {
                result = watching;
            }
        }
        result
    }
}

fn word(event: &notify::Result<Event>, places: &Places) -> Option<FollowerMessage> {
    // An error of the watcher may hide a change.
    let Ok(event) = event else {
        return Some(FollowerMessage::Moved);
    };
    if !places.concern(&event.paths) {
        return None;
    }
    match event.kind {
        // Reading it is no change.
        EventKind::Access(_) => None,
        EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Metadata(_)) => {
            Some(FollowerMessage::Written)
        }
        _ => Some(FollowerMessage::Moved),
    }
}
