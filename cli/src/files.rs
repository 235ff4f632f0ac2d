//! The file tree that is served: one folder, and no way out of it.
//!
//! Every path is resolved by the operating system beneath the folder's handle (by cap-std), so that
//! `..`, absolute paths and symbolic links that lead out are refused even where somebody changes the
//! tree meanwhile. Only regular files and folders are ever opened. Hard links and mount points are
//! part of the tree, as they are for any program.

mod ahead;
mod error;
mod mode;
mod open_file;
mod replacement;
#[cfg(test)]
mod tests;
mod walk;

pub use error::{ErrorArg, FileError};
pub use mode::{Access, Mode};
pub use open_file::{Data, DataRef, OpenFile};
pub use replacement::{Replacement, State as ReplacementState};
pub use walk::Walk;

use cap_fs_ext::OpenOptionsSyncExt;
use cap_std::ambient_authority;
use cap_std::fs::{Dir, Metadata, OpenOptions, ReadDir};
use std::ffi::OsString;
use std::io;
use std::path::{Component, Path};
use std::time::UNIX_EPOCH;

/// A folder and everything below it. Threads may share it.
pub struct Tree {
    root: Dir,
    writable: bool,
}

/// What is known of a path without opening it.
#[derive(Clone, Debug, PartialEq)]
pub struct Stat {
    /// What it is.
    pub kind: Kind,
    /// The size in bytes.
    pub size: u64,
    /// When the contents last changed, in seconds since 1970.
    pub modified: f64,
    /// Kind and permissions as Unix has them (Python's `st_mode`).
    pub mode: u32,
    /// Whether it cannot be written here: because of its permissions, or because the tree is read-only.
    pub read_only: bool,
}

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A folder.
    Dir,
    /// A regular file.
    File,
    /// A FIFO, a socket or a device.
    Other,
    /// A symbolic link.
    Symlink,
}

impl Kind {
    /// `dir`, `file`, `other` or `symlink`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dir => "dir",
            Self::File => "file",
            Self::Other => "other",
            Self::Symlink => "symlink",
        }
    }
}

impl Tree {
    /// The tree below `root`, a path of this process. Without `writable` nothing can change it.
    pub fn rooted_at(root: &Path, writable: bool) -> Result<Self, FileError> {
        let opened = Dir::open_ambient_dir(root, ambient_authority());
        let root = opened.map_err(|error| FileError::from_io(&error, &root.to_string_lossy()))?;
        Ok(Self { root, writable })
    }

    /// Opens a file as Python's `open` does. `mode` is one of r, w, a, x, with `+`, `b` or `t`.
    pub fn open(&self, path: &str, mode: &str) -> Result<OpenFile, FileError> {
        let mode: Mode = mode.parse()?;
        let checked = check(path)?;
        if mode.writes() && !self.writable {
            return Err(FileError::read_only(path));
        }
        // To open a FIFO wakes its writer and to open a device may do anything, so look first.
        // (An exclusive mode opens nothing that exists.)
        if mode.access != Access::Create
            && let Ok(metadata) = self.root.metadata(checked)
        {
            require_regular(&metadata, path)?;
        }
        let mut options = OpenOptions::new();
        options
            .read(mode.reads())
            .append(mode.access == Access::Append)
            .write(mode.writes() && mode.access != Access::Append)
            .truncate(mode.access == Access::Write)
            .create(matches!(mode.access, Access::Append | Access::Write))
            .create_new(mode.access == Access::Create)
            // Should it have become a FIFO since, then opening it must not wait for its other end.
            .nonblock(true);
        let io = |error: io::Error| FileError::from_io(&error, path);
        let file = self.root.open_with(checked, &options).map_err(io)?;
        require_regular(&file.metadata().map_err(io)?, path)?;
        OpenFile::new(file, mode, path)
    }

    /// A new file that takes the place of `path` when it is committed, and leaves no trace otherwise. A file that is there
    /// keeps its permissions, one that is not gets those in `mode` that the process' mask leaves. A symbolic link is
    /// followed to the file that it leads to.
    pub fn replace(&self, path: &str, mode: u32) -> Result<Replacement, FileError> {
        let checked = check(path)?;
        if !self.writable {
            return Err(FileError::read_only(path));
        }
        let io = |error: io::Error| FileError::from_io(&error, path);
        if let Ok(metadata) = self.root.metadata(checked) {
            require_regular(&metadata, path)?;
        }
        // What may not be written may not be replaced: to replace it takes no more than a folder that can be written.
        match self.root.open_with(checked, OpenOptions::new().write(true).nonblock(true)) {
            Ok(file) => {
                let metadata = file.metadata().map_err(io)?;
                require_regular(&metadata, path)?;
                let found = self.root.canonicalize(checked).map_err(io)?;
                Replacement::new(&self.root, &found, path, mode, Some(metadata.permissions()))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && checked.file_name().is_some() => {
                Replacement::new(&self.root, checked, path, mode, None)
            }
            Err(error) => Err(io(error)),
        }
    }

    /// The names in a folder, sorted. The memory that they take may be up to `limit` bytes. A name
    /// that is not UTF-8 is shown with replacement characters and cannot be opened.
    pub fn listdir(&self, path: &str, limit: usize) -> Result<Vec<String>, FileError> {
        let io = |error: io::Error| FileError::from_io(&error, path);
        let entries = self.root.read_dir(check(path)?).map_err(io)?;
        let entries = list(entries, path, limit)?;
        let shown = |entry: Entry| entry.name.to_string_lossy().into_owned();
        Ok(entries.into_iter().map(shown).collect())
    }

    /// What `path` leads to; symbolic links are followed within the tree.
    pub fn stat(&self, path: &str) -> Result<Stat, FileError> {
        let metadata = self.root.metadata(check(path)?);
        self.stat_of(metadata, path)
    }

    /// What stands at `path`, be it a symbolic link.
    pub fn lstat(&self, path: &str) -> Result<Stat, FileError> {
        let metadata = self.root.symlink_metadata(check(path)?);
        self.stat_of(metadata, path)
    }

    /// Every folder from `path` down, each before those in it. Symbolic links are not followed and
    /// count as files. `limit` is that of [`Tree::listdir`], for each folder; one that is too large or
    /// cannot be read is an error in its turn, and the walk goes on with the others.
    pub fn walk(&self, path: &str, limit: usize) -> Result<Walk, FileError> {
        let dir = self.root.open_dir(check(path)?);
        let dir = dir.map_err(|error| FileError::from_io(&error, path))?;
        Ok(Walk::new(dir, path, limit))
    }

    fn stat_of(&self, metadata: io::Result<Metadata>, path: &str) -> Result<Stat, FileError> {
        let metadata = metadata.map_err(|error| FileError::from_io(&error, path))?;
        let kind = if metadata.is_dir() {
            Kind::Dir
        } else if metadata.is_file() {
            Kind::File
        } else if metadata.is_symlink() {
            Kind::Symlink
        } else {
            Kind::Other
        };
        let modified = metadata.modified().map(cap_std::time::SystemTime::into_std);
        let modified = modified.map(|time| match time.duration_since(UNIX_EPOCH) {
            Ok(since) => since.as_secs_f64(),
            Err(before) => -before.duration().as_secs_f64(),
        });
        Ok(Stat {
            kind,
            size: metadata.len(),
            modified: modified.map_err(|error| FileError::from_io(&error, path))?,
            mode: unix_mode(&metadata, kind),
            read_only: !self.writable || metadata.permissions().readonly(),
        })
    }
}

/// A name in a folder.
struct Entry {
    name: OsString,
    /// Whether it is a folder itself; a symbolic link to one is not.
    is_dir: bool,
}

/// The names in a folder, sorted.
fn list(entries: ReadDir, path: &str, limit: usize) -> Result<Vec<Entry>, FileError> {
    let io = |error: io::Error| FileError::from_io(&error, path);
    let mut list = Vec::new();
    let mut size = 0;
    for entry in entries {
        let entry = entry.map_err(io)?;
        let name = entry.file_name();
        size += name.len() + size_of::<Entry>();
        if size > limit {
            let message = format!("the folder's names take more than the limit of {limit} bytes");
            return Err(FileError::too_large(message, path));
        }
        // What vanished meanwhile is listed all the same, as its name was read.
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        list.push(Entry { name, is_dir });
    }
    list.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(list)
}

/// Refuses what can be told from the text alone; the rest is found out on the way.
fn check(path: &str) -> Result<&Path, FileError> {
    if path.contains('\0') {
        return Err(FileError::Value("embedded null byte".into()));
    }
    let checked = Path::new(path);
    match checked.components().next() {
        Some(Component::RootDir | Component::Prefix(_)) => Err(FileError::escape(path)),
        _ => Ok(checked),
    }
}

fn require_regular(metadata: &Metadata, path: &str) -> Result<(), FileError> {
    if metadata.is_dir() {
        return Err(FileError::is_a_directory(path));
    }
    match metadata.is_file() {
        true => Ok(()),
        false => Err(FileError::not_regular(path)),
    }
}

#[cfg(unix)]
fn unix_mode(metadata: &Metadata, _: Kind) -> u32 {
    use cap_std::fs::MetadataExt;
    metadata.mode()
}

/// What Python makes up where the operating system has no such bits.
#[cfg(not(unix))]
fn unix_mode(metadata: &Metadata, kind: Kind) -> u32 {
    let writable = if metadata.permissions().readonly() { 0 } else { 0o222 };
    let rest = match kind {
        Kind::Dir => 0o40555,
        Kind::File | Kind::Other => 0o100444,
        Kind::Symlink => 0o120444,
    };
    rest | writable
}
