//! Both programs as processes: over TCP and a Unix socket, on both runtimes.
#![cfg(unix)]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::tempdir;

/// Nothing takes longer, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(60);
const TCP: &str = "127.0.0.1:0";

#[test]
fn over_tcp_on_one_thread() {
    chat(TCP, false);
}

#[test]
fn over_tcp_on_many_threads() {
    chat(TCP, true);
}

#[test]
fn over_a_unix_socket_on_one_thread() {
    let folder = tempdir().expect("a folder");
    let path = folder.path().join("chat");
    chat(path.to_str().expect("a name"), false);
    assert!(!path.exists(), "the socket goes with the server");
}

#[test]
fn over_a_unix_socket_on_many_threads() {
    let folder = tempdir().expect("a folder");
    let path = folder.path().join("chat");
    chat(path.to_str().expect("a name"), true);
    assert!(!path.exists(), "the socket goes with the server");
}

/// Two meet in a room; what they see is the same everywhere.
fn chat(address: &str, on_threads: bool) {
    let mut server = Program::start(env!("CARGO_BIN_EXE_server"), &[address], on_threads);
    let listening = server.line();
    let address = listening.strip_prefix("listening on ").expect("an address");
    let join = |name| Program::start(env!("CARGO_BIN_EXE_client"), &[address, name], on_threads);

    let mut ada = join("ada");
    ada.says("hello?");
    assert_eq!([ada.line(), ada.line()], ["\"ada: hello?\"", "heard by 1"]);
    let mut bob = join("bob");
    bob.says("it's \u{1b}me");
    assert_eq!([bob.line(), bob.line()], ["\"bob: it's \\u{1b}me\"", "heard by 2"]);
    assert_eq!(ada.line(), "\"bob: it's \\u{1b}me\"");
    ada.says("welcome");
    assert_eq!([ada.line(), ada.line()], ["\"ada: welcome\"", "heard by 2"]);
    assert_eq!(bob.line(), "\"ada: welcome\"");

    // The room learns from the end of the connection that a seat is free, some time after the process has ended.
    assert!(bob.ends().success());
    let start = Instant::now();
    loop {
        assert!(start.elapsed() < PATIENCE, "bob never leaves");
        ada.says("alone?");
        assert_eq!(ada.line(), "\"ada: alone?\"");
        if ada.line() == "heard by 1" {
            break;
        }
    }

    server.interrupt();
    assert!(server.ends().success());
    ada.says("anybody?");
    assert!(!ada.ends().success(), "the session is over");
}

/// A program under test. It does not outlive the test.
struct Program {
    child: Child,
    input: Option<ChildStdin>,
    output: Receiver<String>,
}

impl Program {
    fn start(program: &str, args: &[&str], on_threads: bool) -> Self {
        let mut command = Command::new(program);
        command.args(args).args(on_threads.then_some("threads")).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let (input, output) = (child.stdin.take(), child.stdout.take().expect("a pipe"));
        let (lines, receiver) = channel();
        thread::spawn(move || {
            BufReader::new(output).lines().map_while(Result::ok).try_for_each(|line| lines.send(line))
        });
        Self { child, input, output: receiver }
    }

    /// The next line of output.
    fn line(&self) -> String {
        self.output.recv_timeout(PATIENCE).expect("a line")
    }

    fn says(&mut self, line: &str) {
        writeln!(self.input.as_mut().expect("a pipe"), "{line}").expect("it listens");
    }

    fn interrupt(&self) {
        kill_process(Pid::from_child(&self.child), Signal::INT).expect("it runs");
    }

    /// Ends its input and waits for it.
    fn ends(&mut self) -> ExitStatus {
        self.input = None;
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("it is ours") {
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "it does not end");
            thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
