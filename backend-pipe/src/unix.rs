//! What pipes and sockets of the operating system can do besides: write what can be written without waiting, and end a read
//! that waits.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileTypeExt;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{SendFlags, Shutdown, send, shutdown};

/// A file that can be written to without waiting.
pub(crate) struct TryWrite {
    file: File,
    is_socket: bool,
    /// Ends when nothing more is to be waited for.
    stopped: Option<PipeReader>,
}

/// Ends waiting for a [`TryWrite`] when it is dropped.
pub(crate) struct Stop(#[expect(dead_code, reason = "its end is seen at the other one")] PipeWriter);

impl TryWrite {
    /// # Errors
    /// Gives the file back, boxed, if it is neither a pipe that can be opened anew nor a socket.
    pub fn new(file: File) -> Result<Self, Box<dyn Write + Send>> {
        let Ok(kind) = file.metadata().map(|data| data.file_type()) else { return Err(Box::new(file)) };
        if kind.is_socket() {
            return Ok(Self { file, is_socket: true, stopped: None });
        }
        // Opened anew, so that not to wait is a property of this file alone and not of others that stand for the same pipe.
        match reopen(&file, OFlags::WRONLY | OFlags::NONBLOCK) {
            Ok(own) if kind.is_fifo() => Ok(Self { file: own, is_socket: false, stopped: None }),
            _ => Err(Box::new(file)),
        }
    }

    /// When what this gives is dropped, [`Self::write_all`] waits no more.
    pub fn stop(&mut self) -> io::Result<Stop> {
        let (stopped, stop) = io::pipe()?;
        self.stopped = Some(stopped);
        Ok(Stop(stop))
    }

    /// Writes what can be written now.
    pub fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match self.is_socket {
            false => rustix::io::write(&self.file, bytes),
            true => send(&self.file, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL),
        };
        match written {
            Err(Errno::AGAIN | Errno::INTR) => Ok(0),
            written => Ok(written?),
        }
    }

    /// Writes everything, and waits where that is necessary.
    ///
    /// # Errors
    /// Those of the file, and [`io::ErrorKind::BrokenPipe`] if it was [stopped](Self::stop).
    pub fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = self.try_write(bytes)?;
            bytes = &bytes[written..];
            if written == 0 && !self.wait()? {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
        }
        Ok(())
    }

    /// Waits until something can be written; false if that is not waited for any more.
    fn wait(&self) -> io::Result<bool> {
        let file = PollFd::new(&self.file, PollFlags::OUT);
        let waited = match &self.stopped {
            None => poll(&mut [file], None).map(|_| true),
            Some(stopped) => {
                let mut both = [file, PollFd::new(stopped, PollFlags::IN)];
                poll(&mut both, None).map(|_| both[1].revents().is_empty())
            }
        };
        match waited {
            Err(Errno::INTR) => Ok(true),
            waited => Ok(waited?),
        }
    }
}

/// Ends a read that waits, from another thread.
pub(crate) struct Interrupt {
    file: File,
    is_socket: bool,
}

impl Interrupt {
    /// None if reading from the file cannot be ended.
    pub fn of(file: &File) -> io::Result<Option<Self>> {
        let kind = file.metadata()?.file_type();
        let can_end = kind.is_socket() || kind.is_fifo() && reopen(file, OFlags::WRONLY | OFlags::NONBLOCK).is_ok();
        Ok(can_end.then_some(Self { file: file.try_clone()?, is_socket: kind.is_socket() }))
    }

    /// Nothing that the peer sends matters any more.
    pub fn end(&self) {
        if self.is_socket {
            let _ = shutdown(&self.file, Shutdown::Read);
        } else if let Ok(mut other_end) = reopen(&self.file, OFlags::WRONLY | OFlags::NONBLOCK) {
            // A byte from ourselves: whoever reads it finds that the session is over.
            let _ = other_end.write(&[0]);
        }
    }
}

/// Opens a pipe anew, either end of it. Only Linux can.
fn reopen(file: &File, flags: OFlags) -> io::Result<File> {
    let path = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    Ok(rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty())?.into())
}
