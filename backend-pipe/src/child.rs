//! A peer that is a child process.

use std::io::ErrorKind;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use farref_host::{Connection, Directory, Ended, Error, Options};

use crate::again::{Next, Open};
use crate::connection::{self, Ends, Started};
use crate::process::{Before, Current, Pipes, Process};
use crate::ssh::{FarSide, Ssh, SshTarget};

/// A child process that serves on its standard input and output. Dropping it closes the session and waits for the process.
pub struct ChildProcess {
    connection: Connection,
    current: Current,
    name: String,
    /// Of an `ssh`: what it connects to.
    far: Option<FarSide>,
}

impl ChildProcess {
    /// Starts the command and a session with it. Its standard error is that of this process, unless the command says
    /// otherwise.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be started or ends before it answers, with its exit status, or if it does not answer within
    /// [`Options::handshake`]; a program that may ask somebody for a password first needs a longer one.
    pub fn spawn(command: &mut Command, directory: Directory, options: Options) -> Result<Self, Error> {
        let (process, pipes) = Process::start(command)?;
        let name = command.get_program().to_string_lossy().into_owned();
        Self::begin((Current::new(process), name), pipes, Next::None, directory, options)
    }

    /// As [`Self::spawn`], with a command that leads to the same peer each time that it is started, as an `ssh` does: with
    /// [`Options::resume`] it is started again when its pipes have ended, and the session goes on. Without, it is the same.
    ///
    /// # Errors
    /// As [`Self::spawn`], for the first start. What goes wrong with others is tried again.
    pub fn spawn_with(
        mut command: impl FnMut() -> Command + Send + 'static,
        directory: Directory,
        options: Options,
    ) -> Result<Self, Error> {
        let mut first = command();
        let (process, pipes) = Process::start(&mut first)?;
        let name = first.get_program().to_string_lossy().into_owned();
        let current = Current::new(process);
        let next = match options.resume.clone() {
            None => Next::None,
            Some(resuming) => {
                let again =
                    Again { current: current.clone(), command: Box::new(command), handshake: options.handshake };
                Next::Open(Box::new(again), resuming)
            }
        };
        Self::begin((current, name), pipes, next, directory, options)
    }

    fn begin(
        (current, name): (Current, String),
        pipes: Pipes,
        next: Next,
        directory: Directory,
        options: Options,
    ) -> Result<Self, Error> {
        let process = current.process();
        let options = match next {
            Next::None => Options { resume: None, ..options },
            Next::Open(..) | Next::Accept(_) => options,
        };
        match connection::start(pipes.into_ends()?, next, directory, options) {
            Ok(Started { connection, .. }) => Ok(Self { connection, current, name, far: None }),
            Err(error @ (Error::NoPeer | Error::Ended(_))) => {
                // One that was killed may well have been so for writing what nobody reads any more.
                let text = match process.ends_by_itself() {
                    Some(status) if status.code().is_some() => format!("{name} ended before it answered ({status})"),
                    _ => format!("{name}: {error}"),
                };
                process.end();
                Err(Error::Io(ErrorKind::ConnectionRefused, text))
            }
            Err(error) => {
                // It has had its time.
                process.end();
                Err(match error {
                    Error::Io(kind, text) => Error::Io(kind, format!("{name}: {text}")),
                    error => error,
                })
            }
        }
    }

    /// Starts a session with a program on another machine, with the `ssh` that [`Ssh::from_env`] finds.
    ///
    /// ```no_run
    /// use farref_pipe::{ChildProcess, Directory, Options, Remote};
    ///
    /// let server = ChildProcess::ssh(&"ssh://pi@kitchen".parse()?, Directory::new(), Options::default())?;
    /// println!("{:?}", server.connection().root().invoke("listdir", ())?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Ssh::connect`].
    pub fn ssh(target: &SshTarget, directory: Directory, options: Options) -> Result<Self, Error> {
        Ssh::from_env()?.connect(target, directory, options)
    }

    /// A session with what is behind an `ssh` that runs.
    pub(crate) fn over_ssh(
        (current, name): (Current, String),
        far: FarSide,
        ends: Ends,
        next: Next,
        directory: Directory,
        options: Options,
    ) -> Result<Self, Error> {
        match connection::start(ends, next, directory, options) {
            Ok(Started { connection, .. }) => {
                far.words.pass_on();
                Ok(Self { connection, current, name, far: Some(far) })
            }
            Err(error) => {
                let process = current.process();
                let status = match error {
                    Error::NoPeer | Error::Ended(_) => process.ends_by_itself(),
                    _ => None,
                };
                process.end();
                Err(far.failure(error, status))
            }
        }
    }

    /// The session.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The process id: of the one that runs now, if it was started again.
    pub fn id(&self) -> u32 {
        self.current.process().id()
    }

    /// Kills the process. Every waiting call fails at once, unless the session goes on over another one.
    pub fn kill(&self) -> Result<(), Error> {
        self.current.process().kill()
    }

    /// The same error, with what the process says about it: a session that was lost since the process has ended gets its
    /// exit status, as an [`Error::Io`] with [`ErrorKind::ConnectionAborted`]. Others are given back as they are.
    #[must_use]
    pub fn explain(&self, error: Error) -> Error {
        let Some(ended @ Ended::LinkLost) = error.ended() else { return error };
        let Some(status) = self.current.process().ends_by_itself() else { return error };
        let cause = match &self.far {
            Some(far) => far.end(status),
            None => format!("{} ended ({status})", self.name),
        };
        Error::Io(ErrorKind::ConnectionAborted, format!("{ended}: {cause}"))
    }

    /// Closes the session and waits for the process to end; after two seconds it is killed.
    pub fn finish(&self) -> Result<ExitStatus, Error> {
        self.connection.close();
        let status = self.current.finish()?;
        if let Some(far) = &self.far {
            far.words.wait_for_the_last();
        }
        Ok(status)
    }
}

/// Starts a command again.
struct Again {
    current: Current,
    command: Box<dyn FnMut() -> Command + Send>,
    handshake: Duration,
}

impl Open for Again {
    fn open(&mut self, _: Duration) -> Result<(Ends, Duration), Error> {
        // The one before may be the peer, which waits for this.
        let pipes = self.current.replace(&mut (self.command)(), Before::GoesOn)?;
        Ok((pipes.into_ends()?, self.handshake))
    }

    fn abort(&self) -> Box<dyn FnOnce() + Send> {
        let process = self.current.process();
        Box::new(move || drop(process.kill()))
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        let _ = self.finish();
    }
}
