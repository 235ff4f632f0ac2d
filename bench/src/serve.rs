//! The server process of a measurement: it answers, and tells on request what it has counted.
//!
//! Requests come line by line over a Unix socket of their own, and the process ends with that socket:
//!
//! ```text
//! (at once)   ready ADDRESS
//! begin       ok
//! end         ALLOCATIONS READS WRITES   since begin
//! live        ok
//! alive       BYTES                      more than at live
//! ```

use std::io::{BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::os::unix::net;
use std::path::Path;
use std::thread;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener, UnixStream};

use crate::Result;
use crate::args::ServeArgs;
use crate::cases::{Kind, Transport};
use crate::counts::{Allocations, Gauge, LiveBytes, Wire};
use crate::{farref, raw};

/// Serves until the control socket ends.
pub fn serve(args: &ServeArgs) -> Result<()> {
    match args.transport {
        Transport::Pipe => serve_pipe(args.kind, &control(&args.folder)),
        Transport::Tcp | Transport::Unix => crate::contest::runtime()?.block_on(serve_sockets(args)),
        Transport::Memory => Err("memory is not shared with another process".into()),
    }
}

/// The name of the control socket in the folder of a server.
pub fn control(folder: &Path) -> std::path::PathBuf {
    folder.join("control")
}

fn serve_pipe(kind: Kind, control: &Path) -> Result<()> {
    let (read, write) = farref_pipe::take_stdio()?;
    let mut recorder = Recorder::default();
    let gauge = recorder.gauge.clone();
    thread::Builder::new().name("serve".into()).spawn(move || {
        let served = match kind {
            Kind::Raw => raw::blocking::serve(read, write, &gauge),
            Kind::Farref | Kind::Resume => farref::pipe::serve(read, write, &gauge),
        };
        if let Err(error) = served {
            eprintln!("farref-bench, server: {error}");
        }
    })?;
    let stream = net::UnixStream::connect(control)?;
    let mut answer = String::from("ready -\n");
    let mut requests = BufReader::new(&stream);
    let mut request = String::new();
    loop {
        (&stream).write_all(answer.as_bytes())?;
        request.clear();
        if requests.read_line(&mut request)? == 0 {
            return Ok(());
        }
        recorder.obey(&request, &mut answer);
    }
}

async fn serve_sockets(args: &ServeArgs) -> Result<()> {
    let mut control = UnixStream::connect(control(&args.folder)).await?;
    let mut recorder = Recorder::default();
    let gauge = recorder.gauge.clone();
    let kind = args.kind;
    let address = match args.transport {
        Transport::Tcp => {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
            let address = listener.local_addr()?.to_string();
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    if stream.set_nodelay(true).is_ok() {
                        serve_stream(kind, stream, &gauge);
                    }
                }
            });
            address
        }
        _ => {
            let listener = UnixListener::bind(args.folder.join("socket"))?;
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    serve_stream(kind, stream, &gauge);
                }
            });
            args.folder.join("socket").display().to_string()
        }
    };
    let mut answer = format!("ready {address}\n");
    let (requests, mut answers) = control.split();
    let mut requests = tokio::io::BufReader::new(requests);
    let mut request = String::new();
    loop {
        answers.write_all(answer.as_bytes()).await?;
        request.clear();
        if requests.read_line(&mut request).await? == 0 {
            return Ok(());
        }
        recorder.obey(&request, &mut answer);
    }
}

fn serve_stream(kind: Kind, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, gauge: &Gauge) {
    match kind {
        Kind::Raw => raw::sockets::serve(stream, gauge),
        Kind::Resume => farref::sockets::serve_resuming(stream, gauge),
        Kind::Farref => {
            let gauge = gauge.clone();
            tokio::spawn(async move {
                if let Err(error) = farref::sockets::serve(stream, gauge).await {
                    eprintln!("farref-bench, server: {error}");
                }
            });
        }
    }
}

/// Keeps what was counted when counting began.
#[derive(Default)]
struct Recorder {
    gauge: Gauge,
    begun: Option<(Allocations, Wire)>,
    live: Option<LiveBytes>,
}

impl Recorder {
    /// Does what the line says and writes what is to be answered.
    fn obey(&mut self, request: &str, answer: &mut String) {
        answer.clear();
        let said = match request.trim_end() {
            "begin" => {
                let wire = self.gauge.wire();
                self.begun = Some((Allocations::begin(), wire));
                Some("ok".to_owned())
            }
            "end" => self.begun.take().map(|(allocations, before)| {
                let since = self.gauge.wire() - before;
                format!("{} {} {}", allocations.end(), since.reads, since.writes)
            }),
            "live" => {
                self.live = Some(LiveBytes::begin());
                Some("ok".to_owned())
            }
            "alive" => self
                .live
                .take()
                .map(|live| live.end().map_or_else(|error| error.to_string(), |bytes| bytes.to_string())),
            _ => None,
        };
        answer.push_str(said.as_deref().unwrap_or("not now"));
        answer.push('\n');
    }
}
