//! A peer that is a child process.

use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use farref_host::{Connection, Directory, Error, Options};

use crate::connection;

/// A child process that serves on its standard input and output. Its standard error is that of this process, unless the
/// command says otherwise. Dropping it closes the session and waits for the process.
pub struct ChildProcess {
    connection: Connection,
    child: Mutex<Child>,
}

/// How long a child may take to end by itself when its input has ended.
const PATIENCE: Duration = Duration::from_secs(2);

impl ChildProcess {
    /// Starts the command and a session with it.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be started or ends before it answers, with its exit status, or if it does not answer within
    /// [`Options::handshake`]; a program that may ask somebody for a password first needs a longer one.
    pub fn spawn(command: &mut Command, directory: Directory, options: Options) -> Result<Self, Error> {
        let name = command.get_program().to_string_lossy().into_owned();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| Error::Io(error.kind(), format!("cannot start {name}: {error}")))?;
        let (Some(read), Some(write)) = (child.stdout.take(), child.stdin.take()) else {
            return Err(Error::Misplaced("the child has no pipes"));
        };
        match connection::open_fds(read, write, directory, options) {
            Ok(connection) => Ok(Self { connection, child: Mutex::new(child) }),
            Err(error @ (Error::NoPeer | Error::Ended(_))) => {
                // One that was killed may well have been so for writing what nobody reads any more.
                let text = match end(&mut child) {
                    Some(status) if status.code().is_some() => format!("{name} ended before it answered ({status})"),
                    _ => format!("{name}: {error}"),
                };
                Err(Error::Io(std::io::ErrorKind::ConnectionRefused, text))
            }
            Err(error) => {
                // It has had its time.
                let _ = child.kill();
                let _ = child.wait();
                Err(match error {
                    Error::Io(kind, text) => Error::Io(kind, format!("{name}: {text}")),
                    error => error,
                })
            }
        }
    }

    /// The session.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.lock().id()
    }

    /// Kills the process. Every waiting call fails at once.
    pub fn kill(&self) -> Result<(), Error> {
        Ok(self.lock().kill()?)
    }

    /// Closes the session and waits for the process to end; after two seconds it is killed.
    pub fn finish(&self) -> Result<ExitStatus, Error> {
        self.connection.close();
        let start = Instant::now();
        // The lock is given up between looks, so that another thread can kill the process meanwhile.
        while start.elapsed() < PATIENCE {
            if let Some(status) = self.lock().try_wait()? {
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(2));
        }
        let mut child = self.lock();
        child.kill()?;
        Ok(child.wait()?)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        let _ = self.finish();
    }
}

/// Waits a while for a process whose input has ended, then kills it. Its status, if it ended by itself.
fn end(child: &mut Child) -> Option<ExitStatus> {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) => thread::sleep(Duration::from_millis(2)),
            Err(_) => break,
        }
    }
    let _ = child.kill();
    let _ = child.wait();
    None
}
