//! Walking a tree, folder by folder, as the caller asks for the next.

use super::error::FileError;
use super::{Entry, list};
use cap_fs_ext::DirExt;
use cap_std::fs::Dir;
use std::ffi::{OsStr, OsString};

/// How deep a walk goes.
const MAX_DEPTH: usize = 256;

/// A walk under way. It holds one open folder and, for each level, the folders still to come: at most
/// [`MAX_DEPTH`] listings.
pub struct Walk {
    start: Dir,
    start_path: String,
    started: bool,
    /// The folder of the last step and those above it, up to the start.
    levels: Vec<Level>,
    limit: usize,
}

/// One folder of a walk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalkStep {
    /// Its path, beginning with the path that the walk was asked for.
    pub dir: String,
    /// The names of the folders in it, sorted.
    pub subdirs: Vec<String>,
    /// The names of everything else in it, sorted.
    pub files: Vec<String>,
}

struct Level {
    /// In the folder above; empty for the start.
    name: OsString,
    path: String,
    /// Still to be visited.
    subdirs: std::vec::IntoIter<OsString>,
}

impl Walk {
    pub(super) fn new(start: Dir, path: &str, limit: usize) -> Self {
        Self { start, start_path: path.to_owned(), started: false, levels: Vec::new(), limit }
    }

    /// Lists the folder `name` in the last level's, and makes it the last level.
    fn enter(&mut self, name: OsString, path: String) -> Result<WalkStep, FileError> {
        let io = |error| FileError::from_io(&error, &path);
        if self.levels.len() >= MAX_DEPTH {
            let message = format!("the folders nest more than {MAX_DEPTH} deep");
            return Err(FileError::too_large(message, &path));
        }
        let dir = self.descend(&name).map_err(io)?;
        let entries = match &dir {
            Some(dir) => dir.entries(),
            None => self.start.entries(),
        };
        let entries = list(entries.map_err(io)?, &path, self.limit)?;
        let shown = |entry: &Entry| entry.name.to_string_lossy().into_owned();
        let (subdirs, files): (Vec<Entry>, Vec<Entry>) = entries.into_iter().partition(|entry| entry.is_dir);
        let step = WalkStep {
            dir: path.clone(),
            subdirs: subdirs.iter().map(shown).collect(),
            files: files.iter().map(shown).collect(),
        };
        let subdirs: Vec<OsString> = subdirs.into_iter().map(|entry| entry.name).collect();
        self.levels.push(Level { name, path, subdirs: subdirs.into_iter() });
        Ok(step)
    }

    /// Opens the folder `name` in the last level's; nothing stands for the start. It goes there from
    /// the start each time, so that a walk that rests keeps no folder open but that one, and never
    /// through a symbolic link, not even one that has just taken a folder's place.
    fn descend(&self, name: &OsStr) -> std::io::Result<Option<Dir>> {
        let mut dir: Option<Dir> = None;
        let above = self.levels.iter().skip(1).map(|level| level.name.as_os_str());
        for name in above.chain([name]).filter(|name| !name.is_empty()) {
            dir = Some(dir.as_ref().unwrap_or(&self.start).open_dir_nofollow(name)?);
        }
        Ok(dir)
    }
}

impl Iterator for Walk {
    type Item = Result<WalkStep, FileError>;

    fn next(&mut self) -> Option<Self::Item> {
        if !self.started {
            self.started = true;
            return Some(self.enter(OsString::new(), self.start_path.clone()));
        }
        while let Some(level) = self.levels.last_mut() {
            let Some(name) = level.subdirs.next() else {
                self.levels.pop();
                continue;
            };
            let shown = name.to_string_lossy();
            let path = match level.path.ends_with('/') {
                true => format!("{}{shown}", level.path),
                false => format!("{}/{shown}", level.path),
            };
            return Some(self.enter(name, path));
        }
        None
    }
}
