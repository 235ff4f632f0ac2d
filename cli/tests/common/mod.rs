//! What the tests of the program share.
#![allow(dead_code, reason = "each test program uses what it needs")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use farref_pipe::{ChildProcess, Directory, Options};
use tempfile::TempDir;

/// The program under test.
pub const FARREF: &str = env!("CARGO_BIN_EXE_farref");

/// Nothing takes longer, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs something that must not hang.
pub fn within<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, waiting) = mpsc::channel();
    let worker = thread::spawn(move || {
        let _ = done.send(work());
    });
    match waiting.recv_timeout(PATIENCE) {
        Ok(result) => result,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("it hangs"),
        Err(mpsc::RecvTimeoutError::Disconnected) => match worker.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(()) => unreachable!("a result was sent"),
        },
    }
}

/// Waits for something that another process does.
pub fn until(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "it does not happen");
        thread::sleep(Duration::from_millis(2));
    }
}

/// What a run of the program wrote, and its exit code.
#[derive(Debug)]
pub struct Run {
    pub stdout: String,
    pub stderr: String,
    pub code: Option<i32>,
}

impl Run {
    /// What it printed, if all went well.
    pub fn printed(&self) -> &str {
        assert_eq!(self.code, Some(0), "{self:?}");
        &self.stdout
    }

    /// The one line of error, if it ended with this code and printed nothing else.
    pub fn failed(&self, code: i32) -> &str {
        assert_eq!((self.code, &*self.stdout), (Some(code), ""), "{self:?}");
        assert_eq!(self.stderr.lines().count(), 1, "one line: {self:?}");
        self.stderr.trim_end().strip_prefix("farref: ").unwrap_or_else(|| panic!("{self:?}"))
    }

    /// The error and what the carets below the expression point at.
    pub fn blamed(&self, code: i32) -> (&str, &str) {
        assert_eq!((self.code, &*self.stdout), (Some(code), ""), "{self:?}");
        let lines: Vec<_> = self.stderr.lines().collect();
        let [message, source, carets] = lines[..] else { panic!("a line and a place: {self:?}") };
        let (start, end) = (carets.find('^').expect("a caret"), carets.len());
        (message.strip_prefix("farref: ").expect("our name"), source.get(start..end).unwrap_or(""))
    }
}

/// Runs the program to its end.
pub fn farref<const N: usize>(args: [&str; N]) -> Run {
    run(Command::new(FARREF).args(args))
}

/// A word that no shell takes apart.
pub fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// Runs a program to its end.
pub fn run(command: &mut Command) -> Run {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let output = within(move || child.wait_with_output().expect("it ends"));
    let Output { status, stdout, stderr } = output;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Run { stdout: text(stdout), stderr: text(stderr), code: status.code() }
}

/// What comes after so many bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Then {
    End,
    Wait,
}

const PASS: &str = "
import os, signal, sys
left = int(sys.argv[1])
while left and (data := os.read(0, min(left, 65536))):
    left -= len(data)
    while data:
        data = data[os.write(1, data):]
if sys.argv[2:]:
    signal.pause()
";

/// A small tree of files, and the ways to serve it.
pub struct Served(pub TempDir);

impl Served {
    pub fn new() -> Self {
        let dir = TempDir::new().expect("a folder");
        fs::create_dir_all(dir.path().join("root/sub/deep")).expect("folders");
        let put = |path: &str, contents: &str| fs::write(dir.path().join(path), contents).expect("a file");
        put("secret.txt", "nobody reads this");
        put("root/notes.txt", "one\ntwo\nthree\n");
        put("root/sub/grüße.txt", "äöü");
        put("root/sub/deep/x.bin", "\0\u{1}");
        Self(dir)
    }

    pub fn root(&self) -> std::path::PathBuf {
        self.0.path().join("root")
    }

    /// The names in the root that start with a dot: files that are not complete.
    pub fn hidden(&self) -> Vec<String> {
        let names = fs::read_dir(self.root()).expect("a folder").map(|entry| entry.expect("an entry").file_name());
        names.filter_map(|name| name.into_string().ok().filter(|name| name.starts_with('.'))).collect()
    }

    /// The URL of a server with these words behind `serve --stdio --root ...`.
    pub fn url(&self, more: &str) -> String {
        format!("pipe:{} {more}", self.command())
    }

    /// The words of the serving command.
    pub fn command(&self) -> String {
        let quoted = |path: &Path| format!("'{}'", path.display());
        format!("{} serve --stdio --root {}", quoted(Path::new(FARREF)), quoted(&self.root()))
    }

    /// The words of a command that passes on so many bytes as they come, and then ends, or does nothing for ever.
    pub fn pass(&self, bytes: usize, then: Then) -> String {
        let script = self.0.path().join("pass.py");
        fs::write(&script, PASS).expect("a file");
        format!(
            "python3 {} {bytes} {}",
            quote(&script.display().to_string()),
            if then == Then::End { "" } else { "wait" }
        )
    }

    /// The URL of a server of which so many bytes come here.
    pub fn cut(&self, bytes: usize, then: Then) -> String {
        let fifo = quote(&self.0.path().join("fifo").display().to_string());
        let (serve, pass) = (self.command(), self.pass(bytes, then));
        // The shell becomes the command that passes them on: what ends it is the end.
        let serve = format!("rm -f {fifo}; mkfifo {fifo}; exec 4<&0; {serve} --write <&4 4<&- >{fifo} &");
        format!("pipe:sh -c {}", quote(&format!("{serve} exec {pass} <{fifo} 4<&-")))
    }

    /// The URL of a server to which so many bytes go from here.
    pub fn cut_off(&self, bytes: usize, then: Then) -> String {
        let fifo = quote(&self.0.path().join("fifo").display().to_string());
        let (serve, pass) = (self.command(), self.pass(bytes, then));
        let serve = format!("rm -f {fifo}; mkfifo {fifo}; {serve} --write <{fifo} &");
        format!("pipe:sh -c {}", quote(&format!("{serve} exec {pass} >{fifo}")))
    }

    /// Evaluates with the roots of the demonstration at hand.
    pub fn call(&self, expr: &str) -> Run {
        farref(["call", &self.url("--demo"), expr])
    }

    /// A connection of our own.
    pub fn connect<const N: usize>(&self, more: [&str; N]) -> ChildProcess {
        let mut command = Command::new(FARREF);
        command.args(["serve", "--stdio", "--root"]).arg(self.root()).args(more);
        ChildProcess::spawn(&mut command, Directory::new(), Options::default()).expect("it serves")
    }
}
