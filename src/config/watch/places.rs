//! The places at which a change of a file may show.

use std::{
    collections::{BTreeSet, HashSet, VecDeque},
    ffi::{OsStr, OsString},
    fs, io,
    path::{Component, Path, PathBuf},
};

/// The most links that a path leads through, as on Linux.
const MOST_LINKS: usize = 40;

/// The places on the way to a file, as the file system is now.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// The file, the directories in which it and each link on the way to it lie, and their parents. Of what is not
    /// there, the directory that would have it.
    pub(super) watched: BTreeSet<PathBuf>,
    /// The directory in which the file lies, or the last one on the way to it that is there.
    pub(super) directory: PathBuf,
    /// The names of all that lies on the way.
    names: HashSet<OsString>,
}

impl Places {
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let path = std::path::absolute(path)?;
        let mut places = Self::default();
        let mut left: VecDeque<OsString> = parts(&path);
        // The way so far, without links.
        let mut at = PathBuf::new();
        let mut links = 0;
        while let Some(part) = left.pop_front() {
            if part == ".." {
                at.pop();
                continue;
            }
            let next = at.join(&part);
            places.names.insert(part);
            let Ok(metadata) = fs::symlink_metadata(&next) else {
                // Its name, and those that would follow.
                places.names.extend(left);
                places.watch_directory(&at);
                places.directory = at;
                return Ok(places);
            };
            if !metadata.is_symlink() {
                at = next;
                continue;
            }
            places.watch_directory(&at);
            links += 1;
            let target = fs::read_link(&next);
            let Some(target) = target.ok().filter(|_| links <= MOST_LINKS) else {
                places.directory = at;
                return Ok(places);
            };
            let mut target = parts(&target);
            target.extend(left);
            left = target;
        }
        if let Some(directory) = at.parent() {
            places.watch_directory(directory);
            places.directory = directory.to_owned();
        }
        places.watched.insert(at);
        Ok(places)
    }

    fn watch_directory(&mut self, directory: &Path) {
        self.watched.insert(directory.to_owned());
        if let Some(parent) = directory.parent() {
            self.watched.insert(parent.to_owned());
        }
    }

    /// Returns whether what has happened at these paths may concern the file.
    pub(super) fn concern(&self, paths: &[PathBuf]) -> bool {
        let mut names = paths.iter().map(|path| path.file_name());
        paths.is_empty()
            || names.any(|name| name.is_none_or(|name: &OsStr| self.names.contains(name)))
    }
}

/// The parts of a path. The root is one, after which the others begin anew.
fn parts(path: &Path) -> VecDeque<OsString> {
    let parts = path.components();
    let parts = parts.filter(|part| *part != Component::CurDir);
    parts.map(|part| part.as_os_str().to_owned()).collect()
}
