//! Serving on standard input and output, with a session that outlives them.
//!
//! The process that began a session keeps it when its standard input and output have ended, and listens on a Unix socket.
//! Another process of the same program, which `ssh` starts and which finds an attempt to resume on its standard input, hands
//! its own standard input and output on to that socket, byte by byte.
//!
//! The socket is in a folder that only this user can enter: `$XDG_RUNTIME_DIR/farref`, which is made for such things and goes
//! when the user has gone from the machine for good; or else `/tmp/farref-UID`, which everybody can see and nobody else can
//! enter, and which is used only if it is a folder of this user with no rights for others. `TMPDIR` is not looked at: it may
//! differ from one login to the next. The socket's name comes from a hash of the token, so that a list of names gives no
//! session away.

use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use farref_core::message::Resume;
use farref_host::{Begun, Connection, Directory, Error, Link, Opening, Options, PeerIdentity, session_gone};
use rustix::event::{PollFd, PollFlags, poll};
use sha2::{Digest, Sha256};

use crate::again::{Arrived, Next};
use crate::connection::{self, Ends, Pipe, Started};

/// Serves on a pair of pipes or sockets, of which the first thing that comes says what is to be done.
///
/// If it is a session, it begins: with [`Options::resume`] it is kept so long when the pipes have ended, and the process has to
/// go on as long as the session does. If it is an attempt to resume one of another process, that process gets all that comes
/// from here on, and sends what goes out; None when that is over, or when there is no such session, which the peer is told.
///
/// # Errors
/// As [`open_fds`](crate::open_fds).
pub fn open_or_resume(
    read: impl Into<OwnedFd>,
    write: impl Into<OwnedFd>,
    directory: Directory,
    mut options: Options,
) -> Result<Option<Connection>, Error> {
    let (mut read, write) = (File::from(read.into()), File::from(write.into()));
    let Some(resuming) = options.resume.clone() else {
        return crate::open_fds(read, write, directory, options).map(Some);
    };
    let identity = *options.identity.get_or_insert_with(PeerIdentity::random);
    let end = Instant::now().checked_add(options.handshake);
    let first = match begin(&mut read, end)? {
        Begun::Session(first) => first,
        Begun::Resume { resume, record, behind } => {
            hand_on(&resume, &[&record, &behind[PREAMBLE..]].concat(), read, write, identity)?;
            return Ok(None);
        }
    };
    let ends = Ends::fds(read, write)?.behind(first);
    let Started { connection, link, pipe } = connection::start(ends, Next::Accept(resuming), directory, options)?;
    if let Some(token) = link.token() {
        Door::open(token, &link, &pipe)?;
    }
    Ok(Some(connection))
}

/// Its length.
const PREAMBLE: usize = farref_core::frame::PREAMBLE.len();

/// How long a process may take to say what it wants at a door.
const AT_DOOR: Duration = Duration::from_secs(10);

/// Reads what a channel begins with.
fn begin(read: &mut File, end: Option<Instant>) -> io::Result<Begun> {
    let mut opening = Opening::default();
    let mut buffer = [0; 1024];
    loop {
        wait_for(read, end)?;
        let count = match read.read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            count => count?,
        };
        if let Some(begun) = opening.take(&buffer[..count]) {
            return Ok(begun);
        }
    }
}

/// Waits until there is something to be read, or the end.
fn wait_for(file: &File, end: Option<Instant>) -> io::Result<()> {
    loop {
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        let timeout = left.and_then(|left| left.try_into().ok());
        match poll(&mut [PollFd::new(file, PollFlags::IN)], timeout.as_ref()) {
            Ok(0) => return Err(io::Error::new(ErrorKind::TimedOut, "nobody has said anything")),
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Gives a channel to the process that has its session, and carries its bytes.
fn hand_on(resume: &Resume, said: &[u8], read: File, mut write: File, identity: PeerIdentity) -> Result<(), Error> {
    let Some(mut socket) = folders().iter().find_map(|folder| knock(&folder.join(name(&resume.token)))) else {
        // What the session had got is known to nobody any more.
        write.write_all(&session_gone(identity.incarnation, 0))?;
        return Ok(());
    };
    socket.write_all(said)?;
    let (mut from, mut to) = (read, socket.try_clone()?);
    let inwards = move || {
        let _ = copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Write);
    };
    thread::Builder::new().name("farref-hand-on".into()).spawn(inwards)?;
    // Whatever became of it: the other process knows, and our peer finds that this is over.
    let _ = copy(&mut socket, &mut write);
    Ok(())
}

/// As `io::copy`, but not by `splice`: that keeps who reads the pipe from being ended as long as it waits for the socket.
fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => to.write_all(&buffer[..count])?,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// A process that listens there. A socket without one is removed.
fn knock(path: &Path) -> Option<UnixStream> {
    match UnixStream::connect(path) {
        Ok(socket) => Some(socket),
        Err(error) => {
            if error.kind() == ErrorKind::ConnectionRefused {
                let _ = fs::remove_file(path);
            }
            None
        }
    }
}

/// Where the sockets may be, the best place first.
fn folders() -> Vec<PathBuf> {
    let of_session = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
    let user = rustix::process::geteuid().as_raw();
    let all = of_session.map(|path| path.join("farref")).into_iter().chain([format!("/tmp/farref-{user}").into()]);
    all.collect()
}

/// The first of them that can be used; it is made if it is not there.
fn folder() -> io::Result<PathBuf> {
    let mut last = io::Error::from(ErrorKind::NotFound);
    for path in folders() {
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => last = error,
            _ => {
                let facts = fs::symlink_metadata(&path)?;
                let is_private = facts.is_dir()
                    && facts.uid() == rustix::process::geteuid().as_raw()
                    && facts.permissions().mode() & 0o077 == 0;
                if is_private {
                    return Ok(path);
                }
                let text = format!("{} is not a folder that only this user can enter", path.display());
                last = io::Error::new(ErrorKind::PermissionDenied, text);
            }
        }
    }
    Err(last)
}

fn name(token: &[u8; 16]) -> String {
    let hash = Sha256::new().chain_update(b"farref session").chain_update(token).finalize();
    hash[..16].iter().fold(String::new(), |mut name, byte| {
        let _ = write!(name, "{byte:02x}");
        name
    })
}

/// Where other processes bring channels for a session of this one.
struct Door {
    listener: UnixListener,
    is_over: Arc<AtomicBool>,
    token: [u8; 16],
    pipe: Weak<Pipe>,
    attempt: u32,
}

impl Door {
    /// Listens as long as the session lasts.
    fn open(token: [u8; 16], link: &Link, pipe: &Arc<Pipe>) -> Result<(), Error> {
        let folder = folder()?;
        sweep(&folder);
        let path = folder.join(name(&token));
        // Nobody takes it for one that was left behind before it listens.
        let hidden = folder.join(format!(".{}", name(&token)));
        let listener = UnixListener::bind(&hidden)?;
        fs::set_permissions(&hidden, fs::Permissions::from_mode(0o600))?;
        fs::rename(&hidden, &path)?;
        let is_over = Arc::new(AtomicBool::new(false));
        let door = Self { listener, is_over: is_over.clone(), token, pipe: Arc::downgrade(pipe), attempt: 0 };
        // The program may end as soon as the session has.
        pipe.mailbox.at_end(Box::new(move || {
            is_over.store(true, Ordering::SeqCst);
            // Wakes the one that listens.
            drop(UnixStream::connect(&path));
            let _ = fs::remove_file(&path);
        }));
        if link.is_over() {
            pipe.mailbox.wake();
        }
        thread::Builder::new().name("farref-door".into()).spawn(move || door.listen())?;
        Ok(())
    }

    fn listen(mut self) {
        while !self.is_over.load(Ordering::SeqCst) {
            match self.listener.accept() {
                Ok((stream, _)) => drop(self.take(stream)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // For want of descriptors, say: others are to end meanwhile.
                Err(_) => thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    /// Takes a channel, if it is for this session.
    fn take(&mut self, stream: UnixStream) -> io::Result<()> {
        let mut file = File::from(OwnedFd::from(stream));
        let Begun::Resume { resume, behind, .. } = begin(&mut file, Instant::now().checked_add(AT_DOOR))? else {
            return Ok(());
        };
        // LNK-5
        if resume.token != self.token || resume.attempt <= self.attempt {
            return Ok(());
        }
        self.attempt = resume.attempt;
        if let Some(pipe) = self.pipe.upgrade() {
            let ends = Ends::fds(file.try_clone()?, file)?.behind(behind);
            pipe.hand_over(Arrived { resume, ends });
        }
        Ok(())
    }
}

/// Removes sockets that processes have left behind which were killed.
fn sweep(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let is_hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        if !is_hidden || is_old(&entry) {
            drop(knock(&entry.path()));
        }
    }
}

/// Whether nobody can be about to listen there.
fn is_old(entry: &fs::DirEntry) -> bool {
    let made = entry.metadata().and_then(|facts| facts.modified());
    made.is_ok_and(|made| made.elapsed().is_ok_and(|age| age > AT_DOOR))
}
