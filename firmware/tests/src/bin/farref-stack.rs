//! Runs the programs of `proto-core/size` and `firmware/size` in QEMU, each with all that it can do, and tells how much stack
//! that took.
//!
//! `farref-stack KIND PROGRAM...`, pairs of what a program for the lm3s6965evb speaks and where it is; prints a number of bytes
//! for each. Memory is painted by QEMU before the program starts and looked at from outside when it has done its work, so that
//! nothing of the measuring is measured.

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use farref_tokio::{
    Connection, Directory, Function, LineOptions, Options, Reference, Remote, Value, connect_tcp, start, start_line,
};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::{Child, Command};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// How long a program may take for all that is asked of it.
const LIMIT: Duration = Duration::from_secs(60);

/// The upper part of its memory: what is static is below, and the stack begins at its end.
const RAM: u32 = 0x2000_4000;
const RAM_BYTES: usize = 48 * 1024;
/// A program with the firmware's board paints its stack itself, with the same.
const PAINT: u8 = 0xCC;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let pairs = words.chunks(2).map(|pair| match pair {
        [kind, program] => Some((Kind::of(kind)?, Path::new(program))),
        _ => None,
    });
    let Some(programs) = pairs.collect::<Option<Vec<_>>>() else {
        eprintln!(
            "error: it wants pairs of `text`, `stream`, `line`, `text-tcp` or `tcp`, and a program that speaks it"
        );
        return ExitCode::from(2);
    };
    for (kind, program) in programs {
        match measure(program, kind).await {
            Ok(bytes) => println!("{bytes}"),
            Err(error) => {
                eprintln!("error: {}: {error}", program.display());
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

/// What a program speaks.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Stream,
    Line,
    TextOverTcp,
    Tcp,
}

impl Kind {
    fn of(word: &str) -> Option<Self> {
        Some(match word {
            "text" => Self::Text,
            "stream" => Self::Stream,
            "line" => Self::Line,
            "text-tcp" => Self::TextOverTcp,
            "tcp" => Self::Tcp,
            _ => return None,
        })
    }
}

async fn measure(program: &Path, kind: Kind) -> Outcome<usize> {
    let folder = tempfile::tempdir()?;
    // Only a program on the network wants it. A port that was free may be taken before QEMU has it, which QEMU says.
    let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    let qemu = launch(program, folder.path(), address)?;
    let driven = timeout(LIMIT, async {
        let line = connect(&folder.path().join("line")).await;
        match kind {
            Kind::Text => talk(line).await?,
            Kind::Stream => use_lamp(start(line, Directory::new(), Options::default()).await?).await?,
            Kind::Line => {
                let options = LineOptions { max_message: 256, ..LineOptions::default() };
                use_lamp(start_line(line, Directory::new(), Options::default(), options).await?).await?;
            }
            // Each twice: what begins anew is more than what begins.
            Kind::TextOverTcp => {
                for _ in 0..2 {
                    talk(reach(async || greet(TcpStream::connect(address).await?).await).await).await?;
                }
            }
            Kind::Tcp => {
                // One that speaks something else is let go.
                reach(async || refused(TcpStream::connect(address).await?).await).await;
                for _ in 0..2 {
                    let session = async || Ok(connect_tcp(address, Directory::new(), Options::default()).await?);
                    use_lamp(reach(session).await).await?;
                }
            }
        }
        memory(folder.path()).await
    });
    let memory = driven.await.map_err(|_| "it takes too long")??;
    drop(qemu);
    stack(&memory)
}

/// QEMU, and the `timeout` that ends it even if this process is killed, and passes on what ends itself.
struct Qemu(Child);

impl Drop for Qemu {
    fn drop(&mut self) {
        if let Some(pid) = self.0.id().and_then(|id| Pid::from_raw(id.try_into().ok()?)) {
            let _ = kill_process(pid, Signal::TERM);
        }
    }
}

fn launch(program: &Path, folder: &Path, address: SocketAddr) -> Outcome<Qemu> {
    let paint = folder.join("paint");
    std::fs::write(&paint, vec![PAINT; RAM_BYTES])?;
    let socket = |name, wait| format!("unix:{},server=on,wait={wait}", folder.join(name).display());
    let mut command = Command::new("timeout");
    command.args(["--kill-after=2", &(LIMIT.as_secs() + 10).to_string(), "qemu-system-arm", "-M", "lm3s6965evb"]);
    command.args(["-display", "none", "-monitor", "none", "-qmp", &socket("qmp", "off")]);
    command.args(["-semihosting-config", "enable=on,target=native"]);
    command.args(["-nic", &format!("user,model=stellaris,restrict=on,hostfwd=tcp:{address}-:10101")]);
    // What the program says first is lost if nobody hears it.
    command.args(["-serial", &socket("line", "on")]);
    command.args(["-device", &format!("loader,file={},addr={RAM:#x},force-raw=on", paint.display())]);
    command.arg("-kernel").arg(program).stdin(Stdio::null());
    Ok(Qemu(command.spawn()?))
}

async fn connect(path: &Path) -> UnixStream {
    loop {
        match UnixStream::connect(path).await {
            Ok(stream) => return stream,
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    }
}

/// Until it works: a connection that comes before the program listens is refused, or cut, or not heard of for seconds.
async fn reach<T>(mut attempt: impl AsyncFnMut() -> Outcome<T>) -> T {
    loop {
        match timeout(Duration::from_secs(1), attempt()).await {
            Ok(Ok(reached)) => return reached,
            _ => sleep(Duration::from_millis(10)).await,
        }
    }
}

/// A connection over which a line was answered.
async fn greet(mut stream: TcpStream) -> Outcome<TcpStream> {
    stream.write_all(b"hello\n").await?;
    stream.read_exact(&mut [0; 256]).await?;
    Ok(stream)
}

/// Says something else, until the other side hangs up.
async fn refused(mut stream: TcpStream) -> Outcome<()> {
    stream.write_all(&[b'?'; 2048]).await?;
    stream.shutdown().await?;
    let mut said = Vec::new();
    stream.read_to_end(&mut said).await?;
    if said.is_empty() { Err("nobody is there".into()) } else { Ok(()) }
}

/// Sends lines to the baseline, which answers each with as many bytes.
async fn talk(mut line: impl AsyncRead + AsyncWrite + Unpin) -> Outcome<()> {
    let mut answer = [0; 256];
    for (said, expected) in [("lamp.set(true)", "done"), ("lamp.on", "true"), ("other", "other")] {
        line.write_all(format!("{said}\n").as_bytes()).await?;
        line.read_exact(&mut answer).await?;
        let answer = std::str::from_utf8(&answer)?;
        if answer.trim_end() != expected {
            return Err(format!("{said:?} is answered {answer:?}").into());
        }
    }
    Ok(())
}

/// Does with the lamp whatever can be done with it: attributes, methods, references that are kept, callbacks, errors, messages
/// of every length, and more at a time than there is room for.
async fn use_lamp(connection: Connection) -> Outcome<()> {
    let lamp = connection.root().promise_get("lamp").await?;
    let (seen, told) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let watcher = Function::inline({
        let seen = seen.clone();
        move |_| {
            seen.notify_one();
            Ok(Value::None)
        }
    });
    lamp.invoke("watch", [Value::from(Reference::local(watcher))]).await?;
    for on in [true, false] {
        lamp.invoke("set", [on]).await?;
        seen.notified().await;
        if lamp.get("on").await? != on.into() {
            return Err("the lamp is not as it was set".into());
        }
    }
    lamp.describe().await?;
    connection.root().describe().await?;
    for wrong in [vec![], vec![7.into()], vec![Value::from("x".repeat(180))]] {
        lamp.invoke("set", wrong).await.err().ok_or("what is wrong is not told")?;
    }
    lamp.invoke("nothing", ()).await.err().ok_or("what is not there is not told")?;
    let many = (0..40).map(|number| {
        let (lamp, told) = (lamp.clone(), told.clone());
        tokio::spawn(async move {
            let outcome = lamp.invoke("set", [number % 2 == 0]).await;
            told.notify_one();
            outcome
        })
    });
    for one in many.collect::<Vec<_>>() {
        one.await??;
    }
    // Another one takes its place, which is released.
    lamp.invoke("watch", [Value::from(Reference::local(Function::inline(|_| Ok(Value::None))))]).await?;
    lamp.invoke("set", [true]).await?;
    Ok(())
}

/// What is in memory, when QEMU has stopped the program.
async fn memory(folder: &Path) -> Outcome<Vec<u8>> {
    let (dump, mut qmp) = (folder.join("dump"), BufReader::new(connect(&folder.join("qmp")).await));
    let save = format!(
        r#"{{"execute":"pmemsave","arguments":{{"val":{RAM},"size":{RAM_BYTES},"filename":"{}"}}}}"#,
        dump.display()
    );
    let mut said = String::new();
    for command in [r#"{"execute":"qmp_capabilities"}"#, r#"{"execute":"stop"}"#, &save] {
        qmp.write_all(command.as_bytes()).await?;
        loop {
            said.clear();
            qmp.read_line(&mut said).await?;
            if said.contains(r#""error""#) || said.is_empty() {
                return Err(format!("QEMU: {command}: {said}").into());
            }
            if said.contains(r#""return""#) {
                break;
            }
        }
    }
    Ok(std::fs::read(dump)?)
}

/// What was touched, from the end on.
fn stack(memory: &[u8]) -> Outcome<usize> {
    match memory.iter().position(|&byte| byte != PAINT) {
        Some(lowest) if lowest > 0 => Ok(memory.len() - lowest),
        _ => Err("it has used all of its memory, or none".into()),
    }
}
