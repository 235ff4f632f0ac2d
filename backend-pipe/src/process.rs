//! Child processes of ours: started, watched and ended, whichever way they are spoken to.

use std::mem;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use farref_host::Error;

use crate::connection::Ends;

/// How long a child may take to end by itself when its input has ended.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long one may take that was told to end by a signal.
const LAST_WILL: Duration = Duration::from_secs(3);
/// Between two looks at a child.
const LOOK: Duration = Duration::from_millis(2);

/// All children that may still run. It is locked before any child is.
static CHILDREN: Mutex<Vec<Weak<Mutex<Child>>>> = Mutex::new(Vec::new());

/// Ends every child process that this crate has started and that still runs: by a signal, and a few seconds later by force.
///
/// Dropping a [`ChildProcess`](crate::ChildProcess) ends its process too, but neither a signal nor
/// [`std::process::exit`] drops anything, and a child may live on then: an `ssh` that asks for a password does. So this is
/// what a program calls before it ends in such a way. Sessions with those children are lost.
pub fn end_children() {
    let mut children = lock(&CHILDREN);
    let children: Vec<_> = children.drain(..).filter_map(|child| child.upgrade()).collect();
    for child in &children {
        ask_to_end(&mut lock(child));
    }
    for child in children {
        end(&child);
    }
}

/// A child process.
#[derive(Clone)]
pub(crate) struct Process(Arc<Mutex<Child>>);

/// The ends of its pipes that are ours.
pub(crate) struct Pipes {
    pub stdin: ChildStdin,
    pub stdout: ChildStdout,
    /// Only if the command says so.
    pub stderr: Option<ChildStderr>,
}

impl Pipes {
    /// As a channel.
    pub fn into_ends(self) -> Result<Ends, Error> {
        #[cfg(unix)]
        return Ok(Ends::fds(self.stdout, self.stdin)?);
        #[cfg(not(unix))]
        return Ok(Ends::any(self.stdout, self.stdin));
    }
}

impl Process {
    /// Starts the command with pipes as its standard input and output.
    pub fn start(command: &mut Command) -> Result<(Self, Pipes), Error> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        // Whoever ends all children finds this one or comes before it.
        let mut children = lock(&CHILDREN);
        let mut child = command.spawn().map_err(|error| {
            Error::Io(error.kind(), format!("cannot start {}: {error}", command.get_program().to_string_lossy()))
        })?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Error::Misplaced("the child has no pipes"));
        };
        let stderr = child.stderr.take();
        let child = Arc::new(Mutex::new(child));
        children.retain(|child| child.strong_count() > 0);
        children.push(Arc::downgrade(&child));
        Ok((Self(child), Pipes { stdin, stdout, stderr }))
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        lock(&self.0).id()
    }

    /// Kills it, without waiting for its end.
    pub fn kill(&self) -> Result<(), Error> {
        Ok(lock(&self.0).kill()?)
    }

    /// Waits a while for a process that has reason to end. None if it goes on.
    pub fn ends_by_itself(&self) -> Option<ExitStatus> {
        let start = Instant::now();
        loop {
            // The lock is given up between looks, so that another thread can kill the process meanwhile.
            match lock(&self.0).try_wait() {
                Ok(None) if start.elapsed() < PATIENCE => {}
                Ok(status) => return status,
                Err(_) => return None,
            }
            thread::sleep(LOOK);
        }
    }

    /// Ends it, if it has not ended by itself.
    pub fn end(&self) {
        ask_to_end(&mut lock(&self.0));
        end(&self.0);
    }

    /// Waits a while for a process whose input has ended, then kills it.
    pub fn finish(&self) -> Result<ExitStatus, Error> {
        if let Some(status) = self.ends_by_itself() {
            return Ok(status);
        }
        let mut child = lock(&self.0);
        child.kill()?;
        Ok(child.wait()?)
    }
}

/// The process that a session goes over at present.
#[derive(Clone)]
pub(crate) struct Current(Arc<Mutex<State>>);

struct State {
    process: Process,
    /// Those before it that may still run: a server that keeps its session while another process leads to it.
    before: Vec<Process>,
    is_done: bool,
}

impl Current {
    pub fn new(process: Process) -> Self {
        Self(Arc::new(Mutex::new(State { process, before: Vec::new(), is_done: false })))
    }

    /// As it is now.
    pub fn process(&self) -> Process {
        lock(&self.0).process.clone()
    }

    /// Starts the next one.
    pub fn replace(&self, command: &mut Command, before: Before) -> Result<Pipes, Error> {
        let mut state = lock(&self.0);
        if state.is_done {
            return Err(Error::Misplaced("the session is over"));
        }
        if before == Before::Ends {
            state.process.end();
        }
        let (process, pipes) = Process::start(command)?;
        let before = mem::replace(&mut state.process, process);
        state.before.retain(|process| matches!(lock(&process.0).try_wait(), Ok(None)));
        state.before.push(before);
        Ok(pipes)
    }

    /// There will be no other. Waits until all have ended, as [`Process::finish`] does, and tells how the last one has.
    pub fn finish(&self) -> Result<ExitStatus, Error> {
        let (process, before) = {
            let mut state = lock(&self.0);
            state.is_done = true;
            (state.process.clone(), mem::take(&mut state.before))
        };
        before.iter().for_each(|process| drop(process.finish()));
        process.finish()
    }
}

/// What becomes of a process when the next one is started.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Before {
    /// It only led to the peer.
    Ends,
    /// It may be the peer.
    GoesOn,
}

/// Asks in the way that lets an `ssh` put the terminal right, where there is such a way.
fn ask_to_end(child: &mut Child) {
    if !matches!(child.try_wait(), Ok(None)) {
        return;
    }
    #[cfg(unix)]
    let _ = rustix::process::kill_process(rustix::process::Pid::from_child(child), rustix::process::Signal::TERM);
    #[cfg(not(unix))]
    let _ = child.kill();
}

/// Waits for one that was asked to end, and kills it in the end.
fn end(child: &Mutex<Child>) {
    let start = Instant::now();
    while start.elapsed() < LAST_WILL && matches!(lock(child).try_wait(), Ok(None)) {
        thread::sleep(LOOK);
    }
    let mut child = lock(child);
    // Nothing happens to one that was waited for: its number may be another's by now.
    let _ = child.kill();
    let _ = child.wait();
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
