//! A server process as the client sees it: it is started, asked what it counted, and ends when it is dropped.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::Result;
use crate::cases::{Kind, Transport, name};
use crate::serve;

/// How long a server may take to start, or to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// A server process.
pub struct Server {
    /// Where it listens, if it does.
    pub address: String,
    control: BufReader<UnixStream>,
    child: Child,
    /// It holds the sockets.
    _folder: TempDir,
}

/// What a server has counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counted {
    /// Heap allocations.
    pub allocations: u64,
    /// System calls that gave bytes.
    pub reads: u64,
    /// System calls that took bytes.
    pub writes: u64,
}

impl Server {
    /// Starts this program as a server, and waits until it listens.
    pub fn start(kind: Kind, transport: Transport) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let listener = UnixListener::bind(serve::control(folder.path()))?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["serve", "--kind", &name(kind), "--transport", &name(transport), "--folder"]).arg(folder.path());
        if transport == Transport::Pipe {
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
        } else {
            command.stdin(Stdio::null());
        }
        let mut child = command.spawn()?;
        let control = accept(&listener, &mut child).inspect_err(|_| kill(&mut child))?;
        let mut server = Self { address: String::new(), control: BufReader::new(control), child, _folder: folder };
        let ready = server.line()?;
        let address = ready.strip_prefix("ready ").ok_or_else(|| format!("the server says {ready:?}"))?;
        server.address = address.to_owned();
        Ok(server)
    }

    /// The child's stdin and stdout, once, if they are the transport.
    pub fn take_pipe(&mut self) -> Result<(ChildStdout, ChildStdin)> {
        self.child.stdout.take().zip(self.child.stdin.take()).ok_or_else(|| "the server has no pipe".into())
    }

    /// Has it count from here on.
    pub fn begin(&mut self) -> Result<()> {
        self.ask("begin").map(drop)
    }

    /// What it counted since.
    pub fn end(&mut self) -> Result<Counted> {
        let answer = self.ask("end")?;
        let numbers: Vec<u64> = answer.split(' ').map(str::parse).collect::<Result<_, _>>()?;
        match numbers[..] {
            [allocations, reads, writes] => Ok(Counted { allocations, reads, writes }),
            _ => Err(format!("the server says {answer:?}").into()),
        }
    }

    /// Has it look from here on how much more memory is live.
    pub fn begin_live(&mut self) -> Result<()> {
        self.ask("live").map(drop)
    }

    /// How much more it is.
    pub fn end_live(&mut self) -> Result<u64> {
        let answer = self.ask("alive")?;
        answer.parse().map_err(|_| format!("the server says: {answer}").into())
    }

    fn ask(&mut self, request: &str) -> Result<String> {
        writeln!(self.control.get_mut(), "{request}")?;
        self.line()
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.control.read_line(&mut line)?;
        if line.pop() != Some('\n') {
            return Err("the server has gone".into());
        }
        Ok(line)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.control.get_ref().shutdown(Shutdown::Both);
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
        kill(&mut self.child);
    }
}

fn kill(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// The child's control connection.
fn accept(listener: &UnixListener, child: &mut Child) -> Result<UnixStream> {
    listener.set_nonblocking(true)?;
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                stream.set_read_timeout(Some(Duration::from_secs(60)))?;
                return Ok(stream);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        if let Some(status) = child.try_wait()? {
            return Err(format!("the server has ended: {status}").into());
        }
        thread::sleep(Duration::from_millis(1));
    }
    Err("the server does not start".into())
}
