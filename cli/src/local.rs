//! Files of this side: where a copy goes, and where one comes from.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::exit::{Exit, Failure, written};
use crate::watch::{Undo, Watch};

/// What stands for standard input or output.
const STANDARD: &str = "-";

/// Where a copy goes.
#[derive(Debug)]
pub enum Destination {
    /// Standard output.
    Standard,
    /// A device or a FIFO, written as it is.
    Special(PathBuf),
    /// A file, which is replaced when the copy is complete.
    File {
        /// As the user knows it.
        shown: PathBuf,
        /// Where links lead to.
        path: PathBuf,
        /// Those of the file that is there.
        permissions: Option<fs::Permissions>,
    },
}

impl Destination {
    /// What the user means by `local`, for a copy of the peer's `path`. What can be told to be wrong is told at once.
    pub fn find(local: Option<&Path>, path: &str) -> Result<Self, Failure> {
        let name = || {
            let name = Path::new(path).file_name();
            name.ok_or_else(|| Failure::usage(format!("{path:?} names no file; say what it is to be called here")))
        };
        let shown = match local {
            None => PathBuf::from(name()?),
            Some(local) if local == Path::new(STANDARD) => return Ok(Self::Standard),
            Some(local) if local.is_dir() => local.join(name()?),
            Some(local) => local.to_owned(),
        };
        let fault = |error: &io::Error| cannot("write", &shown, error);
        match fs::metadata(&shown) {
            Ok(found) if found.is_dir() => Err(Failure::usage(format!("{} is a folder here", shown.display()))),
            Ok(found) if !found.is_file() => Ok(Self::Special(shown)),
            Ok(found) => {
                // What may not be written may not be replaced: to replace it takes no more than a folder that can be written.
                OpenOptions::new().write(true).open(&shown).map_err(|error| fault(&error))?;
                let path = fs::canonicalize(&shown).map_err(|error| fault(&error))?;
                Ok(Self::File { shown, path, permissions: Some(found.permissions()) })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let ends_in_folder = shown.as_os_str().as_encoded_bytes().ends_with(b"/");
                if ends_in_folder || !folder_of(&shown).is_dir() {
                    let folder = if ends_in_folder { &shown } else { folder_of(&shown) };
                    return Err(Failure::new(Exit::Local, format!("there is no folder {} here", folder.display())));
                }
                Ok(Self::File { path: shown.clone(), shown, permissions: None })
            }
            Err(error) => Err(fault(&error)),
        }
    }

    /// Starts to write. `mode` is that of the file that is copied: a new file gets what this process' mask leaves of it.
    pub fn create(self, mode: Option<u32>, watch: &Watch) -> Result<Output, Failure> {
        Ok(match self {
            Self::Standard => Output::Standard,
            Self::Special(path) => {
                let file =
                    OpenOptions::new().write(true).open(&path).map_err(|error| cannot("write", &path, &error))?;
                Output::Special(file, path)
            }
            Self::File { shown, path, permissions } => {
                let mode = if permissions.is_some() { 0o600 } else { mode.unwrap_or(0o666) & 0o777 };
                let create = || {
                    let temporary = temporary(folder_of(&path), mode)?;
                    let name = temporary.path().to_owned();
                    Ok((temporary, move || drop(fs::remove_file(name))))
                };
                let made = watch.undoable(create).map_err(|error| cannot("write", &shown, &error))?;
                let (temporary, undo) = made;
                Output::File(Box::new(Replacing { temporary, undo, path, shown, permissions }))
            }
        })
    }
}

/// A copy that is being written.
pub enum Output {
    /// To standard output.
    Standard,
    /// To a device or a FIFO.
    Special(File, PathBuf),
    /// To a file.
    File(Box<Replacing>),
}

/// A file that will take another's place.
pub struct Replacing {
    temporary: NamedTempFile,
    undo: Undo,
    path: PathBuf,
    shown: PathBuf,
    permissions: Option<fs::Permissions>,
}

impl Output {
    /// Writes all of a part. False says that nobody reads on.
    pub fn write(&mut self, part: &[u8]) -> Result<bool, Failure> {
        let (result, shown) = match self {
            Self::Standard => {
                let mut stdout = io::stdout();
                let result = stdout.write_all(part).and_then(|()| stdout.flush());
                let goes_on = !matches!(&result, Err(error) if error.kind() == io::ErrorKind::BrokenPipe);
                return written(result).map(|()| goes_on);
            }
            Self::Special(file, path) => (file.write_all(part), path),
            Self::File(replacing) => (replacing.temporary.write_all(part), &mut replacing.shown),
        };
        result.map(|()| true).map_err(|error| cannot("write", shown, &error))
    }

    /// All is written: it takes its place.
    pub fn finish(self) -> Result<(), Failure> {
        let Self::File(replacing) = self else { return Ok(()) };
        let Replacing { temporary, undo, path, shown, permissions } = *replacing;
        let kept = permissions.map_or(Ok(()), |permissions| temporary.as_file().set_permissions(permissions));
        let done = kept.and_then(|()| temporary.persist(path).map(drop).map_err(|error| error.error));
        drop(undo);
        done.map_err(|error| cannot("write", &shown, &error))
    }

    /// What it would replace, if it is that.
    pub fn replaces(&self) -> Option<&Path> {
        if let Self::File(replacing) = self { Some(&replacing.shown) } else { None }
    }
}

/// Where a copy comes from.
pub struct Source {
    read: Box<dyn Read>,
    shown: PathBuf,
    /// The size, if it has one.
    pub size: Option<u64>,
    /// The permissions, if it has some.
    pub mode: Option<u32>,
}

impl Source {
    /// Opens a file of this side, or standard input.
    pub fn open(local: &Path) -> Result<Self, Failure> {
        if local == Path::new(STANDARD) {
            return Ok(Self { read: Box::new(io::stdin()), shown: "standard input".into(), size: None, mode: None });
        }
        let opened = File::open(local).and_then(|file| Ok((file.metadata()?, file)));
        let (found, file) = opened.map_err(|error| cannot("read", local, &error))?;
        if found.is_dir() {
            let message = format!("{} is a folder here; put copies one file", local.display());
            return Err(Failure::usage(message));
        }
        let is_file = found.is_file();
        let (size, mode) = (is_file.then_some(found.len()), unix_mode(&found).filter(|_| is_file));
        Ok(Self { read: Box::new(file), shown: local.to_owned(), size, mode })
    }

    /// The name that a copy gets in a folder.
    pub fn name(local: &Path) -> Option<&str> {
        local.file_name()?.to_str().filter(|name| *name != STANDARD)
    }

    /// The next so many bytes, fewer at the end; none behind it.
    pub fn part(&mut self, most: usize) -> Result<Vec<u8>, Failure> {
        let mut part = Vec::with_capacity(most);
        let read = (&mut self.read).take(most as u64).read_to_end(&mut part);
        read.map_err(|error| cannot("read", &self.shown, &error))?;
        Ok(part)
    }
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::new(Exit::Local, format!("cannot {what} {} here: {error}", path.display()))
}

/// The folder that a path is in.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."))
}

#[cfg(unix)]
fn temporary(folder: &Path, mode: u32) -> io::Result<NamedTempFile> {
    use std::os::unix::fs::PermissionsExt;
    tempfile::Builder::new().prefix(".farref-").permissions(fs::Permissions::from_mode(mode)).tempfile_in(folder)
}

#[cfg(not(unix))]
fn temporary(folder: &Path, _: u32) -> io::Result<NamedTempFile> {
    tempfile::Builder::new().prefix(".farref-").tempfile_in(folder)
}

#[cfg(unix)]
fn unix_mode(metadata: &fs::Metadata) -> Option<u32> {
    use std::os::unix::fs::PermissionsExt;
    Some(metadata.permissions().mode())
}

#[cfg(not(unix))]
fn unix_mode(_: &fs::Metadata) -> Option<u32> {
    None
}
