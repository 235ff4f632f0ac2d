//! A file that takes another's place once it is complete.

use super::error::FileError;
use super::mode::quoted;
use cap_std::fs::{Dir, File, OpenOptions, Permissions};
use std::ffi::{OsStr, OsString};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What is written here is seen under its path after [`Replacement::commit`] and not before. Dropped before, nothing of it
/// is left. Threads may share it: each call is done as a whole.
///
/// Meanwhile it stands next to its path under a name that starts with `.farref-`, so that the last step is a rename.
pub struct Replacement {
    path: String,
    state: Arc<State>,
}

/// What becomes of a replacement.
pub struct State(Mutex<Progress>);

enum Progress {
    Unfinished(Box<Unfinished>),
    /// It is not written any more, because of an error.
    Failed(FileError),
    Committed,
}

struct Unfinished {
    /// The folder of both names. It is the one that was found at the start, wherever it is moved meanwhile.
    folder: Dir,
    temporary: String,
    name: OsString,
    file: File,
    written: u64,
    /// Those of the file that is there.
    permissions: Option<Permissions>,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Nothing is there if it was committed, and nobody can be told if this fails.
        let _ = self.folder.remove_file(&self.temporary);
    }
}

impl Replacement {
    /// `found` is where `path` leads to within `root`.
    pub(super) fn new(
        root: &Dir,
        found: &Path,
        path: &str,
        mode: u32,
        permissions: Option<Permissions>,
    ) -> Result<Self, FileError> {
        let io = |error: io::Error| FileError::from_io(&error, path);
        let (folder, name) = match (found.parent(), found.file_name()) {
            (Some(parent), Some(name)) if !path.ends_with('/') => (parent, name),
            _ => return Err(FileError::is_a_directory(path)),
        };
        let folder = if folder == Path::new("") { Path::new(".") } else { folder };
        let folder = root.open_dir(folder).map_err(io)?;
        // Nobody may read on the way what nobody could read before.
        let mode = if permissions.is_some() { 0o600 } else { mode & 0o777 };
        let (temporary, file) = create(&folder, mode).map_err(io)?;
        let name = OsStr::to_owned(name);
        let permissions = permissions.map(without_special_bits);
        let unfinished = Unfinished { folder, temporary, name, file, written: 0, permissions };
        let state = State(Mutex::new(Progress::Unfinished(Box::new(unfinished))));
        Ok(Self { path: path.to_owned(), state: Arc::new(state) })
    }

    /// Adds to it and returns how many bytes that were. After an error it cannot be committed any more.
    pub fn write(&self, data: &[u8]) -> Result<u64, FileError> {
        let mut state = self.state.lock();
        let unfinished = state.unfinished()?;
        match unfinished.file.write_all(data) {
            Ok(()) => {
                unfinished.written += data.len() as u64;
                Ok(data.len() as u64)
            }
            Err(error) => Err(state.fail(FileError::from_io(&error, &self.path))),
        }
    }

    /// Puts it in its place and returns its size, which has to be `size` if that is known. If it cannot be done, what was
    /// there is as it was.
    pub fn commit(&self, size: Option<u64>) -> Result<u64, FileError> {
        let mut state = self.state.lock();
        let Unfinished { folder, temporary, name, file, written, permissions } = state.unfinished()?;
        let written = *written;
        if let Some(size) = size.filter(|&size| size != written) {
            let path = quoted(&self.path);
            let error = FileError::Value(format!("{written} bytes were written instead of {size} to replace {path}"));
            return Err(state.fail(error));
        }
        let kept = permissions.take().map_or(Ok(()), |permissions| file.set_permissions(permissions));
        match kept.and_then(|()| folder.rename(&*temporary, folder, &*name)) {
            Ok(()) => {
                *state = Progress::Committed;
                Ok(written)
            }
            Err(error) => Err(state.fail(FileError::from_io(&error, &self.path))),
        }
    }

    /// The path whose place it takes.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// For who has to see to it that nothing is left behind, whoever else holds it.
    pub fn state(&self) -> Arc<State> {
        self.state.clone()
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        self.state.discard();
    }
}

impl State {
    /// Leaves nothing behind, unless it was committed.
    pub fn discard(&self) {
        let mut state = self.lock();
        if matches!(*state, Progress::Unfinished(_)) {
            *state = Progress::Failed(FileError::closed());
        }
    }

    /// Whether there is something to discard.
    pub fn is_unfinished(&self) -> bool {
        matches!(*self.lock(), Progress::Unfinished(_))
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        // No step in between leaves it wrong for the next caller.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress {
    fn unfinished(&mut self) -> Result<&mut Unfinished, FileError> {
        match self {
            Self::Unfinished(unfinished) => Ok(unfinished),
            Self::Failed(error) => Err(error.clone()),
            Self::Committed => Err(FileError::closed()),
        }
    }

    fn fail(&mut self, error: FileError) -> FileError {
        *self = Self::Failed(error.clone());
        error
    }
}

/// As the operating system does it where a file gets other contents.
fn without_special_bits(mut permissions: Permissions) -> Permissions {
    #[cfg(unix)]
    {
        use cap_std::fs::PermissionsExt;
        permissions.set_mode(permissions.mode() & 0o777);
    }
    permissions
}

/// A new file under a name that nobody uses.
fn create(folder: &Dir, mode: u32) -> io::Result<(String, File)> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    cap_std::fs::OpenOptionsExt::mode(&mut options, mode);
    #[cfg(not(unix))]
    let _ = mode;
    loop {
        // The standard library's only source of random numbers.
        let name = format!(".farref-{:016x}", RandomState::new().hash_one(0));
        match folder.open_with(&name, &options) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            created => return created.map(|file| (name, file)),
        }
    }
}
