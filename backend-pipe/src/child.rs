//! A peer that is a child process.

use std::io::{ErrorKind, Read, Write};
use std::process::{Command, ExitStatus};

use farref_host::{Connection, Directory, Ended, Error, Options};

use crate::connection;
use crate::process::Process;
use crate::ssh::{FarSide, Ssh, SshTarget};

/// A child process that serves on its standard input and output. Dropping it closes the session and waits for the process.
pub struct ChildProcess {
    connection: Connection,
    process: Process,
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
        let name = command.get_program().to_string_lossy().into_owned();
        let (process, pipes) = Process::start(command)?;
        match connection::open_fds(pipes.stdout, pipes.stdin, directory, options) {
            Ok(connection) => Ok(Self { connection, process, name, far: None }),
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
        (process, name): (Process, String),
        far: FarSide,
        (read, write): (impl Read + Send + 'static, impl Write + Send + 'static),
        directory: Directory,
        options: Options,
    ) -> Result<Self, Error> {
        match connection::open(read, write, directory, options) {
            Ok(connection) => {
                far.words.pass_on();
                Ok(Self { connection, process, name, far: Some(far) })
            }
            Err(error) => {
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

    /// The process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Kills the process. Every waiting call fails at once.
    pub fn kill(&self) -> Result<(), Error> {
        self.process.kill()
    }

    /// The same error, with what the process says about it: a session that was lost since the process has ended gets its
    /// exit status, as an [`Error::Io`] with [`ErrorKind::ConnectionAborted`]. Others are given back as they are.
    #[must_use]
    pub fn explain(&self, error: Error) -> Error {
        let Some(ended @ Ended::LinkLost) = error.ended() else { return error };
        let Some(status) = self.process.ends_by_itself() else { return error };
        let cause = match &self.far {
            Some(far) => far.end(status),
            None => format!("{} ended ({status})", self.name),
        };
        Error::Io(ErrorKind::ConnectionAborted, format!("{ended}: {cause}"))
    }

    /// Closes the session and waits for the process to end; after two seconds it is killed.
    pub fn finish(&self) -> Result<ExitStatus, Error> {
        self.connection.close();
        let status = self.process.finish()?;
        if let Some(far) = &self.far {
            far.words.wait_for_the_last();
        }
        Ok(status)
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        let _ = self.finish();
    }
}
