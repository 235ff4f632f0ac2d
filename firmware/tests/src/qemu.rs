//! A guest: QEMU with the firmware, a port of the host that leads to it, and a socket or a terminal that is its serial line.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use farref_tokio::{
    CloseCode, Connection, Directory, Ended, LineOptions, Options, Remote, Value, connect_tcp, start_line,
};
use rustix::net::sockopt::set_socket_send_buffer_size;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::sync::watch;

use crate::program::Arguments;

/// It runs until this is dropped, or until its limit, whatever becomes of this process.
pub struct Guest {
    board: String,
    cli: PathBuf,
    elf: PathBuf,
    decoder: PathBuf,
    address: SocketAddr,
    folder: TempDir,
    pid: Option<Pid>,
    said: Arc<Mutex<Vec<u8>>>,
    /// How it ended.
    end: watch::Receiver<Option<String>>,
}

/// How a session ends for which there is no room.
pub const FULL: Ended = Ended::PeerClosed(CloseCode::OutOfResources);

/// What its serial line is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// A socket, which takes little more than what the guest has read.
    Socket,
    /// A terminal, which is a serial port to who opens it.
    Terminal,
}

/// A port that was free may be taken before QEMU has it.
const ATTEMPTS: u32 = 5;

/// How long a guest may take until it says that it runs.
const BOOT: Duration = Duration::from_secs(20);

impl Guest {
    /// Starts it, and waits until the firmware says that it runs.
    pub async fn start(arguments: &Arguments, elf: &Path, line: Line, limit: Duration) -> Result<Self, String> {
        let mut error = String::new();
        for _ in 0..ATTEMPTS {
            let guest = Self::launch(arguments, elf, line, limit)?;
            let mut end = guest.end.clone();
            let has_terminal = |said: &str| line == Line::Socket || said.contains("redirected to /dev/");
            let runs = |said: &str| said.contains("farref on") && has_terminal(said);
            let started = async {
                while !runs(&guest.said()) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::select! {
                () = started => return Ok(guest),
                _ = end.wait_for(Option::is_some) => {}
                () = tokio::time::sleep(BOOT) => {}
            }
            error = format!("the guest did not start: {}", guest.said());
            if !error.contains("host forwarding") {
                break;
            }
        }
        Err(error)
    }

    fn launch(arguments: &Arguments, elf: &Path, line: Line, limit: Duration) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let port = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
        let address = port.map_err(|error| error.to_string())?;
        let model = if arguments.board == "lm3s6965evb" { "model=stellaris," } else { "" };
        // coreutils' timeout ends QEMU even if this process is killed.
        let mut command = Command::new("timeout");
        command.args(["--kill-after=2", &limit.as_secs().to_string(), "qemu-system-arm", "-M", &arguments.board]);
        command.args(["-display", "none", "-monitor", "none", "-semihosting-config", "enable=on,target=native"]);
        command.args(["-nic", &format!("user,{model}restrict=on,hostfwd=tcp:{address}-:10101")]);
        command.args([
            "-serial",
            &match line {
                Line::Socket => format!("unix:{},server=on,wait=off", folder.path().join("line").display()),
                Line::Terminal => "pty".to_owned(),
            },
        ]);
        command.arg("-kernel").arg(elf).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("QEMU: {error}"))?;

        let said = Arc::new(Mutex::new(Vec::new()));
        let readers = [
            child.stdout.take().map(|stream| tokio::spawn(hear(stream, said.clone()))),
            child.stderr.take().map(|stream| tokio::spawn(hear(stream, said.clone()))),
        ];
        let pid = child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?));
        let (sender, end) = watch::channel(None);
        tokio::spawn(wait(child, readers, said.clone(), sender));
        let (board, cli) = (arguments.board.clone(), arguments.cli.clone());
        let (elf, decoder) = (elf.to_owned(), arguments.decoder.clone());
        Ok(Self { board, cli, elf, decoder, address, folder, pid, said, end })
    }

    /// What QEMU calls the board.
    pub fn board(&self) -> &str {
        &self.board
    }

    /// The program `farref`.
    pub fn cli(&self) -> &Path {
        &self.cli
    }

    /// Where it is reached by TCP.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its serial line, for one at a time. It takes little more than what the guest has read: whoever sends on a line has to
    /// know when a frame has left, or sends it again while it still waits here.
    pub async fn line(&self) -> UnixStream {
        let line = UnixStream::connect(self.line_path()).await.expect("QEMU listens");
        // The kernel makes it the least that there is.
        set_socket_send_buffer_size(&line, 1).expect("it is a socket");
        line
    }

    /// The terminal that its line is, which QEMU has chosen.
    pub fn terminal(&self) -> PathBuf {
        let said = self.said();
        let path = said.split_whitespace().find(|word| word.starts_with("/dev/"));
        path.unwrap_or_else(|| panic!("no terminal: {said}")).into()
    }

    /// Where that line is.
    pub fn line_path(&self) -> PathBuf {
        self.folder.path().join("line")
    }

    /// A session over TCP.
    pub async fn connect(&self, directory: Directory, options: Options) -> Connection {
        self.connect_at(self.address, directory, options).await
    }

    /// The same, by way of something at another address. What comes too early is refused, reset, or told that there is no room:
    /// it is tried again.
    pub async fn connect_at(&self, address: SocketAddr, directory: Directory, options: Options) -> Connection {
        loop {
            if let Ok(connection) = connect_tcp(address, directory.clone(), options.clone()).await {
                let answer = connection.root().describe().await;
                if answer.err().and_then(|error| error.ended()) != Some(FULL) {
                    return connection;
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A session on the serial line.
    pub async fn connect_line(&self, directory: Directory, options: Options) -> Connection {
        start_line(self.line().await, directory, options, line_options()).await.expect("the firmware is there")
    }

    /// All that it has said.
    pub fn said(&self) -> String {
        text(&self.said)
    }

    /// What of that was told by defmt, in lines.
    pub async fn told(&self) -> Vec<String> {
        let said = self.said.lock().expect("no panic").clone();
        let mut decoder = Command::new(&self.decoder);
        decoder.arg(&self.elf).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut decoder = decoder.spawn().expect("the decoder starts");
        let mut input = decoder.stdin.take().expect("it is piped");
        let feeding = async move { input.write_all(&said).await.expect("the decoder reads") };
        let (output, ()) = tokio::join!(decoder.wait_with_output(), feeding);
        let output = output.expect("the decoder ends");
        assert!(output.status.success(), "the decoder: {}", output.status);
        String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
    }

    /// Waits until it has ended, and tells what it said.
    pub async fn ended(&self) -> String {
        let mut end = self.end.clone();
        let ended = end.wait_for(Option::is_some).await;
        ended.ok().and_then(|said| said.clone()).unwrap_or_default()
    }

    /// The same, if that is at once: a panic ends it while a test feels it.
    pub async fn last_words(&self) -> Option<String> {
        tokio::time::timeout(Duration::from_millis(500), self.ended()).await.ok()
    }

    /// How much memory it has used in the end. It has to serve one more session for that.
    pub async fn marks(&self) -> Result<String, String> {
        let marks = async {
            let connection = self.connect(Directory::new(), Options::default()).await;
            let system = connection.root().promise_get("system").await?;
            system.invoke("memory", ()).await
        };
        match tokio::time::timeout(Duration::from_secs(10), marks).await {
            Ok(Ok(Value::Map(marks))) => {
                let marks = marks.iter().map(|(name, bytes)| {
                    format!("{} {}", name.as_str().unwrap_or("?"), bytes.as_int().unwrap_or_default())
                });
                Ok(marks.collect::<Vec<_>>().join(", "))
            }
            other => Err(format!("it does not serve any more: {other:?}\n  the guest said: {}", self.said())),
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if let (Some(pid), None) = (self.pid, &*self.end.borrow()) {
            // `timeout` passes it on.
            let _ = kill_process(pid, Signal::TERM);
        }
    }
}

/// What suits a device that takes messages of 512 bytes, at whatever speed.
pub fn line_options() -> LineOptions {
    LineOptions { max_message: 512, ..LineOptions::default() }
}

fn text(said: &Mutex<Vec<u8>>) -> String {
    String::from_utf8_lossy(&said.lock().expect("no panic")).trim().to_owned()
}

async fn hear(mut stream: impl AsyncRead + Unpin, said: Arc<Mutex<Vec<u8>>>) {
    let mut chunk = [0; 1024];
    while let Ok(count @ 1..) = stream.read(&mut chunk).await {
        said.lock().expect("no panic").extend_from_slice(&chunk[..count]);
    }
}

async fn wait(
    mut child: Child,
    readers: [Option<tokio::task::JoinHandle<()>>; 2],
    said: Arc<Mutex<Vec<u8>>>,
    end: watch::Sender<Option<String>>,
) {
    let status = child.wait().await;
    for reader in readers.into_iter().flatten() {
        let _ = reader.await;
    }
    let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
    end.send_replace(Some(format!("{status}; {}", text(&said))));
}
