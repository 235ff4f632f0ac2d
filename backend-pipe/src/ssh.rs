//! A peer on another machine, behind an `ssh`.

mod target;
mod words;

use std::env;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use farref_core::session::Ended;

use farref_host::{Directory, Error, Options};

use crate::again::{Next, Open};
use crate::child::ChildProcess;
use crate::connection::Ends;
use crate::process::{Before, Current, Process};

pub use target::{SshTarget, SshTargetError};
use words::{Words, quoted};

/// The `ssh` of this machine, and how it is used.
///
/// ```no_run
/// use std::time::Duration;
/// use farref_pipe::{Directory, Options, Ssh};
///
/// let ssh = Ssh::new(["ssh", "-F", "none", "-i", "/etc/robot/key"]).login_within(Duration::from_secs(20));
/// let server = ssh.connect(&"ssh://robot@arm/".parse()?, Directory::new(), Options::default())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Ssh {
    program: Vec<String>,
    login: Duration,
    quiet: bool,
}

/// As long as an sshd gives it unless it is told otherwise, so that somebody may look a password up.
const LOGIN: Duration = Duration::from_secs(120);

impl Ssh {
    /// These words in place of `ssh`. Options of ssh among them come before our own, so that they win.
    pub fn new(program: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { program: program.into_iter().map(Into::into).collect(), login: LOGIN, quiet: false }
    }

    /// What the environment variable `FARREF_SSH` says, such as `ssh -F none -i 'a key'`, split into words as a shell does;
    /// `ssh` if it is not set.
    ///
    /// # Errors
    /// [`Error::Io`] if it does not name a program.
    pub fn from_env() -> Result<Self, Error> {
        let fault = |what: &str| Error::Io(ErrorKind::InvalidInput, format!("FARREF_SSH {what}"));
        let Some(line) = env::var_os("FARREF_SSH") else { return Ok(Self::new(["ssh"])) };
        let line = line.to_str().ok_or_else(|| fault("is not UTF-8"))?;
        let words = shell_words::split(line).map_err(|_| fault("has a quote that is not closed"))?;
        match words.first() {
            Some(program) if !program.is_empty() => Ok(Self::new(words)),
            _ => Err(fault("names no program; unset it, or let it be such as: ssh -F none")),
        }
    }

    /// Limits how long connecting and logging in may take: two minutes unless it is said here. [`Options::handshake`] comes on
    /// top of it.
    #[must_use]
    pub fn login_within(self, login: Duration) -> Self {
        Self { login, ..self }
    }

    /// Lets a terminal be treated as anything else: nothing that ssh says is shown before the session stands, and errors quote
    /// it. Passwords are asked for all the same.
    #[must_use]
    pub fn quiet(self) -> Self {
        Self { quiet: true, ..self }
    }

    /// Logs in, runs the target's command there and starts a session with it.
    ///
    /// `ssh` asks on the terminal, for a password or whether a host key is right, if this process has one; otherwise it asks
    /// nobody. What it and the remote command write on standard error comes out on that of this process: at once if that is a
    /// terminal, else as soon as the session stands.
    ///
    /// # Errors
    /// [`Error::Io`] with what went wrong in one sentence. What ssh has said, its last lines, is at the end of it, unless they
    /// were shown on the terminal. The kinds: [`ErrorKind::NotFound`] if the host, the command or `ssh` itself is not found,
    /// [`ErrorKind::PermissionDenied`] for a login that is not permitted, [`ErrorKind::InvalidData`] for a wrong host key and
    /// for a program that speaks something else, [`ErrorKind::ConnectionRefused`], [`ErrorKind::HostUnreachable`],
    /// [`ErrorKind::TimedOut`], and [`ErrorKind::ConnectionAborted`] for all else that ended too early.
    ///
    /// With [`Options::resume`] ssh is started again when it has ended, and the session goes on if the far side has kept it, as
    /// `farref serve --stdio --park 60` does. Nobody is asked for a password then: the login has to do without.
    pub fn connect(&self, target: &SshTarget, directory: Directory, options: Options) -> Result<ChildProcess, Error> {
        let asks = can_ask();
        let (process, pipes) = Process::start(&mut self.command(target, asks)?)?;
        let words = pipes
            .stderr
            .ok_or(Error::Misplaced("ssh has no pipes"))
            .and_then(|stderr| Ok(Words::of(stderr, self.quiet)?));
        let words = words.inspect_err(|_| process.end())?;
        let heard = Arc::default();
        let read = Hearing { read: pipes.stdout, heard: Arc::clone(&heard), most: HEARD };
        let far = FarSide { target: target.clone(), words, heard, asks };
        let options = Options { handshake: options.handshake.saturating_add(self.login), ..options };
        let name = self.program.first().cloned().unwrap_or_default();
        let current = Current::new(process);
        let next = match options.resume.clone() {
            None => Next::None,
            Some(resuming) => {
                let again = Again {
                    ssh: self.clone(),
                    target: target.clone(),
                    current: current.clone(),
                    handshake: options.handshake,
                };
                Next::Open(Box::new(again), resuming)
            }
        };
        ChildProcess::over_ssh((current, name), far, Ends::any(read, pipes.stdin), next, directory, options)
    }

    fn command(&self, target: &SshTarget, asks: bool) -> Result<Command, Error> {
        let [program, args @ ..] = &*self.program else {
            return Err(Error::Io(ErrorKind::InvalidInput, "no program is named that is ssh".into()));
        };
        let mut command = Command::new(program);
        command.args(args).args(["-T", "-e", "none"]);
        if !asks {
            command.args(["-o", "BatchMode=yes"]);
        }
        if let Some(user) = target.user() {
            command.args(["-l", user]);
        }
        if let Some(port) = target.port() {
            command.args(["-p", &port.to_string()]);
        }
        // Behind the dashes nothing is an option, whatever it begins with. The command is one argument: ssh would put
        // spaces between several, and the shell of the far side would split them again.
        command.args(["--", target.host(), target.command()]);
        command.stderr(Stdio::piped());
        Ok(command)
    }
}

/// Logs in again.
struct Again {
    ssh: Ssh,
    target: SshTarget,
    current: Current,
    handshake: Duration,
}

impl Open for Again {
    fn open(&mut self, _: Duration) -> Result<(Ends, Duration), Error> {
        let mut command = self.ssh.command(&self.target, false)?;
        let pipes = self.current.replace(&mut command, Before::Ends)?;
        if let Some(stderr) = pipes.stderr {
            // What it says of an attempt that may fail is for nobody; the attempts are told of by `Connection::link`.
            drop(Words::of(stderr, true)?);
        }
        Ok((Ends::any(pipes.stdout, pipes.stdin), self.handshake))
    }

    fn abort(&self) -> Box<dyn FnOnce() + Send> {
        let process = self.current.process();
        Box::new(move || drop(process.kill()))
    }

    fn hang_up(&self) -> Option<Box<dyn Fn() + Send>> {
        let current = self.current.clone();
        Some(Box::new(move || drop(current.process().kill())))
    }
}

/// Whether ssh can ask somebody: on the terminal, or with the program that is there for that.
fn can_ask() -> bool {
    env::var_os("SSH_ASKPASS").is_some_and(|program| !program.is_empty())
        || File::options().read(true).write(true).open("/dev/tty").is_ok()
}

/// What is known of the far side.
pub(crate) struct FarSide {
    target: SshTarget,
    pub words: Words,
    /// The beginning of what it wrote on standard output.
    heard: Arc<Mutex<Vec<u8>>>,
    asks: bool,
}

impl FarSide {
    /// Why there is no session. `status` is that of an ssh that has ended by itself.
    pub fn failure(&self, error: Error, status: Option<ExitStatus>) -> Error {
        let (tail, quote) = self.words.said();
        let place = self.target.place();
        let (kind, mut what) = match error {
            Error::NoPeer | Error::Ended(Ended::LinkLost) => match status.and_then(|status| status.code()) {
                Some(255) => self.failure_of_ssh(&tail).unwrap_or_else(|| self.no_peer(status, error == Error::NoPeer)),
                Some(127) => (ErrorKind::NotFound, self.failure_of_command("is not found")),
                Some(126) => (ErrorKind::PermissionDenied, self.failure_of_command("cannot be run")),
                _ => self.no_peer(status, error == Error::NoPeer),
            },
            Error::Ended(ended) => (ErrorKind::ConnectionAborted, format!("{place}: {ended}")),
            Error::Io(kind, text) => (kind, format!("{place}: {text}")),
            error => return error,
        };
        if !quote.is_empty() {
            what.push_str(": ");
            what.push_str(&quote);
        }
        Error::Io(kind, what)
    }

    /// What it means for a session that ssh has ended.
    pub fn end(&self, status: ExitStatus) -> String {
        let place = self.target.place();
        match status.code() {
            Some(255) => format!("the remote command was killed or {place} is gone (ssh: {status})"),
            Some(_) => format!("the remote command on {place} ended ({status})"),
            None => format!("ssh to {place} ended ({status})"),
        }
    }

    /// ssh's own failures have one exit status; its words, which are the same in all languages, tell them apart.
    fn failure_of_ssh(&self, tail: &str) -> Option<(ErrorKind, String)> {
        let (host, place) = (self.target.host(), self.target.place());
        let says = |some: &[&str]| some.iter().any(|words| tail.contains(words));
        Some(if says(&["REMOTE HOST IDENTIFICATION HAS CHANGED"]) {
            let what = "is not the one that is known: this is another machine, or it has a new key";
            (ErrorKind::InvalidData, format!("the host key of {host} {what}"))
        } else if says(&["Host key verification failed"]) {
            (ErrorKind::InvalidData, format!("the host key of {host} is not known; connect to it with ssh once"))
        } else if says(&["Permission denied", "Too many authentication failures"]) {
            let without =
                if self.asks { "" } else { " without a password, and there is no terminal to ask for one on" };
            (ErrorKind::PermissionDenied, format!("{place} permits no login{without}"))
        } else if says(&["Could not resolve hostname"]) {
            (ErrorKind::NotFound, format!("the host {host} is not found"))
        } else if says(&["Connection refused"]) {
            (ErrorKind::ConnectionRefused, format!("{place} refuses the connection; no sshd listens there"))
        } else if says(&["timed out", "No route to host", "Network is unreachable", "Host is down"]) {
            (ErrorKind::HostUnreachable, format!("{place} cannot be reached"))
        } else {
            return None;
        })
    }

    fn failure_of_command(&self, fault: &str) -> String {
        let (host, command) = (self.target.host(), self.target.command());
        let other = format!("ssh://{}//usr/local/bin/farref serve --stdio", self.target.place());
        format!("the remote command {command:?} {fault} on {host}; a URL may name another, such as {other}")
    }

    /// The far side ended before it answered, or wrote something else.
    fn no_peer(&self, status: Option<ExitStatus>, may_have_said: bool) -> (ErrorKind, String) {
        let (place, command) = (self.target.place(), self.target.command());
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let heard = quoted(&String::from_utf8_lossy(&heard));
        let how = status.map(|status| format!(" ({status})")).unwrap_or_default();
        if may_have_said && !heard.is_empty() {
            let what = format!("the remote command {command:?} on {place} is no farref peer{how}; it wrote {heard:?}");
            (ErrorKind::InvalidData, what)
        } else if matches!(status.map(|status| status.code()), Some(None | Some(255))) {
            (ErrorKind::ConnectionAborted, format!("ssh to {place} ended before anybody answered{how}"))
        } else {
            let what = format!("the remote command {command:?} on {place} ended before it answered{how}");
            (ErrorKind::ConnectionAborted, what)
        }
    }
}

/// How much of what the far side writes is remembered, bytes.
const HEARD: usize = 512;

/// Remembers how a stream begins.
struct Hearing<R> {
    read: R,
    heard: Arc<Mutex<Vec<u8>>>,
    /// How much more is to be remembered.
    most: usize,
}

impl<R: Read> Read for Hearing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.read.read(buffer)?;
        if self.most > 0 {
            let new = count.min(self.most);
            self.heard.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&buffer[..new]);
            self.most -= new;
        }
        Ok(count)
    }
}
