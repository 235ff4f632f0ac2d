//! `farref serve --listen` and the URLs of sockets, with the built program.

#[path = "../../backend-tokio/tests/common/authority.rs"]
mod authority;
mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use authority::Authority;
use common::{FARREF, Run, Served, farref, run, within};
use farref_pipe::{Args, Connection, Directory, Error, ErrorCode, Function, Options, Reference, Remote, Value};
use rustix::process::{Pid, Signal, kill_process};

/// A server that listens.
struct Listening {
    child: Child,
    errors: BufReader<ChildStderr>,
    /// Where, as it said.
    urls: Vec<String>,
}

impl Listening {
    fn start(served: &Served, urls: &[&str], more: &[&str]) -> Self {
        let mut command = Command::new(FARREF);
        command.args(["serve", "--root"]).arg(served.root()).args(more).env_remove("RUST_LOG");
        command.args(urls.iter().flat_map(|url| ["--listen", url]));
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts");
        let errors = BufReader::new(child.stderr.take().expect("a pipe"));
        let mut listening = Self { child, errors, urls: Vec::new() };
        for url in urls {
            let line = listening.line();
            let told = line.strip_prefix("listening on ").unwrap_or_else(|| panic!("{url}: {line}"));
            listening.urls.push(told.to_owned());
        }
        listening
    }

    /// The next line that it says.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.errors.read_line(&mut line).expect("a line");
        line.trim_end().to_owned()
    }

    fn url(&self) -> &str {
        &self.urls[0]
    }

    /// A session of our own.
    fn connect(&self) -> Result<Connection, Error> {
        let address = self.url().strip_prefix("tcp://").expect("TCP");
        let stream = TcpStream::connect(address)?;
        farref_pipe::open_fds(stream.try_clone()?, stream, Directory::new(), Options::default())
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    /// Its end, and what it said last.
    fn end(mut self) -> (ExitStatus, String) {
        let mut rest = String::new();
        self.errors.read_to_string(&mut rest).expect("text");
        (self.child.wait().expect("it ends"), rest)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// A new key in a file.
fn key(served: &Served, name: &str) -> PathBuf {
    let path = served.0.path().join(name);
    assert_eq!(farref(["key", text(&path)]).printed(), "");
    path
}

fn call(url: &str, more: &[&str]) -> Run {
    run(Command::new(FARREF).args(["call", url, "open(\"notes.txt\").readline()"]).args(more))
}

/// A18: one server at several places.
#[test]
fn a18_files_are_served_over_sockets() {
    within(|| {
        let served = Served::new();
        let socket = served.0.path().join("socket");
        let unix = format!("unix:{}", socket.display());
        let listening = Listening::start(&served, &["tcp://127.0.0.1:0", "tcp://[::1]:0", "tcp://:0", &unix], &[]);
        for url in &listening.urls {
            assert_eq!(call(url, &[]).printed(), "one\n", "{url}");
            assert!(farref(["ls", url]).printed().starts_with("listdir  "), "{url}");
            assert_eq!(farref(["get", url, "notes.txt", "-"]).printed(), "one\ntwo\nthree\n", "{url}");
        }
        assert_eq!(fs::metadata(&socket).expect("a socket").permissions().mode() & 0o777, 0o600);
        listening.signal(Signal::TERM);
        let (status, said) = listening.end();
        assert_eq!((status.code(), said.as_str()), (Some(0), ""));
        assert!(!socket.exists(), "it is removed");
    });
}

/// A24: TLS both ways.
#[test]
fn a24_files_are_served_over_tls() {
    within(|| {
        let served = Served::new();
        let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
        let (chain, chain_key) = ours.files(&["localhost", "127.0.0.1"]);
        let (ca, other_ca) = (ours.path(), theirs.path());
        let identity = ["--cert", text(&chain), "--cert-key", text(&chain_key)];
        let listening = Listening::start(&served, &["tls://127.0.0.1:0"], &identity);
        let url = listening.url();
        assert_eq!(call(url, &["--ca", text(&ca)]).printed(), "one\n");
        let unknown = call(url, &["--ca", text(&other_ca)]);
        let expected = format!("{url}: the peer's certificate comes from no authority that is trusted here");
        assert_eq!(unknown.failed(3), expected);
        let plain = call(&url.replace("tls:", "tcp:"), &[]);
        assert!(plain.failed(3).ends_with("no farref peer answers there"), "{plain:?}");

        let asking = [&identity[..], &["--client-ca", text(&ca)]].concat();
        let listening = Listening::start(&served, &["tls://127.0.0.1:0"], &asking);
        let url = listening.url();
        let nobody = call(url, &["--ca", text(&ca)]);
        assert_eq!(nobody.failed(3), format!("{url}: the peer wants a client certificate"));
        let (anna, anna_key) = ours.files(&["anna.example"]);
        let ours = ["--ca", text(&ca), "--cert", text(&anna), "--cert-key", text(&anna_key)];
        assert_eq!(call(url, &ours).printed(), "one\n");
        let (eve, eve_key) = theirs.files(&["anna.example"]);
        let theirs = ["--ca", text(&ca), "--cert", text(&eve), "--cert-key", text(&eve_key)];
        let stranger = call(url, &theirs);
        assert!(stranger.failed(3).contains("the peer does not accept our certificate"), "{stranger:?}");
    });
}

/// A24: who has no key, or another one, is told so, as is who has one and the server none.
#[test]
fn a24_a_key_lets_in_who_knows_it() {
    within(|| {
        let served = Served::new();
        let (right, wrong) = (key(&served, "right"), key(&served, "wrong"));
        let listening = Listening::start(&served, &["tcp://127.0.0.1:0"], &["--key", text(&right)]);
        let url = listening.url();
        assert_eq!(call(url, &["--key", text(&right)]).printed(), "one\n");
        let from_environment = run(Command::new(FARREF).args(["ls", url]).env("FARREF_KEY_FILE", &right));
        assert!(from_environment.printed().contains("listdir"));
        assert_eq!(call(url, &[]).failed(3), format!("{url}: the peer wants a key: --key names it"));
        assert_eq!(call(url, &["--key", text(&wrong)]).failed(3), format!("{url}: wrong key: the peer refused it"));
        let open = Listening::start(&served, &["tcp://127.0.0.1:0"], &[]);
        let refused = call(open.url(), &["--key", text(&right)]);
        assert!(refused.failed(3).contains("the peer uses no key"), "{refused:?}");
    });
}

/// Keys are random, of one's own, and never lost; a key that others can read is used with a warning.
#[test]
fn keys_are_made_and_kept() {
    let served = Served::new();
    let (one, other) = (key(&served, "one"), key(&served, "other"));
    let read = |path: &Path| fs::read_to_string(path).expect("a key");
    let before = read(&one);
    assert_ne!(before, read(&other));
    assert_eq!(before.trim_end().len(), 64);
    assert!(before.trim_end().bytes().all(|digit| digit.is_ascii_hexdigit()), "{before}");
    assert_eq!(fs::metadata(&one).expect("a key").permissions().mode() & 0o777, 0o600);
    let again = farref(["key", text(&one)]);
    assert!(again.failed(4).contains("File exists"), "{again:?}");
    assert_eq!(read(&one), before);
    assert_eq!(farref(["key"]).printed().len(), 65);

    fs::set_permissions(&one, fs::Permissions::from_mode(0o644)).expect("ours");
    let url = format!("unix:{}", served.0.path().join("none").display());
    let warned = call(&url, &["--key", text(&one)]);
    assert!(warned.stderr.starts_with("farref: warning: others may read "), "{warned:?}");
    fs::write(&other, "no key").expect("ours");
    let broken = call(&url, &["--key", text(&other)]);
    assert_eq!(broken.failed(2), format!("{}: the key is not hexadecimal: character 1 is no digit", other.display()));
}

#[test]
fn what_cannot_be_done_is_said_before_anything_is() {
    let served = Served::new();
    let root = served.root();
    let refused = |more: &[&str]| {
        let run = run(Command::new(FARREF).args(["serve", "--root", text(&root)]).args(more));
        (run.code, run.stderr)
    };
    for (more, expected) in [
        (&["--listen", "tcp://0.0.0.0:0"][..], "can be reached from other machines: use tls: or --key, or say"),
        (&["--listen", "tcp://127.0.0.1:0", "--listen", "tcp://[::]:0"], "tcp://[::]:0 can be reached"),
        (&["--listen", "tls://127.0.0.1:0"], "tls: needs --cert and --cert-key"),
        (&["--listen", "pipe:true"], "nobody can listen at pipe:true"),
        (&["--listen", "tcp:here"], "two slashes"),
        (&["--key", "x"], "--listen <URL>"),
        (&["--listen", "tls://:0", "--cert", "x"], "--cert-key <FILE>"),
        (&["--listen", "tcp://:0", "--key", "/none"], "cannot read the key /none: No such file"),
    ] {
        let (code, said) = refused(more);
        assert!(code == Some(2) && said.contains(expected) && !said.contains("listening"), "{more:?}: {said}");
    }
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("tcp://{}", taken.local_addr().expect("an address"));
    let (code, said) = refused(&["--listen", &url]);
    let expected = format!("farref: cannot listen on {url}: Address already in use (os error 98)\n");
    assert_eq!((code, said), (Some(3), expected));

    for (args, expected) in [
        (["ls", "pipe:true", "--key", "x"], "--key is for tcp:, tls: and unix: URLs"),
        (["ls", "tcp://localhost:1", "--ca", "x"], "--ca and --cert are for tls: URLs"),
    ] {
        assert_eq!(farref(args).failed(2), expected);
    }
    // Nobody listens there any more.
    drop(taken);
    assert_eq!(call(&url, &[]).failed(3), format!("{url}: Connection refused (os error 111)"));
}

/// B10: a call that runs when SIGTERM comes is answered; new ones are refused, and nobody gets in.
#[test]
fn b10_sigterm_lets_calls_end() {
    within(|| {
        let served = Served::new();
        let listening = Listening::start(&served, &["tcp://127.0.0.1:0"], &[]);
        let client = listening.connect().expect("it connects");
        let (walking, go_on, walk) = held_walk(&client);
        walking.recv().expect("it walks");
        listening.signal(Signal::TERM);
        let patience = Instant::now() + Duration::from_secs(30);
        loop {
            match client.root().invoke("listdir", ()) {
                Err(Error::Refused(ErrorCode::Overloaded, _)) => break,
                other => assert!(Instant::now() < patience, "{other:?}"),
            }
            thread::yield_now();
        }
        assert!(listening.connect().is_err(), "nobody listens any more");
        go_on.send(()).expect("it waits");
        assert_eq!(walk.join().expect("it ends"), Ok(3.into()));
        let (status, said) = listening.end();
        assert_eq!((status.code(), said.as_str()), (Some(0), ""));
    });
}

/// One that hangs is not waited for for ever, and by who is in a hurry not at all.
#[test]
fn calls_that_do_not_end_are_cut_off() {
    within(|| {
        let served = Served::new();
        for (grace, second) in [("0", None), ("3600", Some(Signal::INT))] {
            let listening = Listening::start(&served, &["tcp://127.0.0.1:0"], &["--grace", grace]);
            let client = listening.connect().expect("it connects");
            let (walking, held, walk) = held_walk(&client);
            walking.recv().expect("it walks");
            listening.signal(Signal::TERM);
            if let Some(second) = second {
                // Signals of one kind that wait are one: the first has been seen when nobody listens any more.
                let patience = Instant::now() + Duration::from_secs(30);
                while listening.connect().is_ok() {
                    assert!(Instant::now() < patience, "it goes on");
                }
                listening.signal(second);
            }
            let (status, _) = listening.end();
            assert_eq!((status.code(), status.signal()), second.map_or((Some(0), None), |s| (None, Some(s.as_raw()))));
            drop(held);
            assert!(walk.join().expect("it ends").is_err());
        }
    });
}

/// Walks three folders, and waits in the first.
fn held_walk(client: &Connection) -> (mpsc::Receiver<()>, mpsc::Sender<()>, thread::JoinHandle<Result<Value, Error>>) {
    let ((tell, walking), (go_on, wait)) = (mpsc::channel(), mpsc::channel::<()>());
    let wait = std::sync::Mutex::new(Some(wait));
    let visitor = Function::new(move |_| {
        if let Some(wait) = wait.lock().expect("a lock").take() {
            let _ = tell.send(());
            let _ = wait.recv();
        }
        Ok(Value::None)
    });
    let root = client.root();
    let walk = thread::spawn(move || root.invoke("walk", Args::from(["."]).and(Reference::local(visitor))));
    (walking, go_on, walk)
}

#[test]
fn connections_have_a_limit() {
    within(|| {
        let served = Served::new();
        let listening = Listening::start(&served, &["tcp://127.0.0.1:0"], &["--max-connections", "1"]);
        let first = listening.connect().expect("it connects");
        let second = call(listening.url(), &[]);
        assert!(second.failed(3).contains("out of resources"), "{second:?}");
        assert!(first.root().invoke("listdir", ()).is_ok());
        first.close();
        let patience = Instant::now() + Duration::from_secs(30);
        while call(listening.url(), &[]).code != Some(0) {
            assert!(Instant::now() < patience, "there is room again");
        }
    });
}

#[test]
fn a_server_that_is_silent_is_given_up() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("tcp://{}", silent.local_addr().expect("an address"));
    let given_up = farref(["ls", &url, "--timeout", "0.2"]);
    assert_eq!(given_up.failed(3), "no answer to the handshake within 0.2 s");
}

/// Standard input is one more place where somebody may be; it ends the program when it goes.
#[test]
fn standard_input_can_be_served_besides() {
    within(|| {
        let served = Served::new();
        let mut command = Command::new(FARREF);
        command.args(["serve", "--stdio", "--listen", "tcp://:0", "--root"]).arg(served.root());
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let (input, output) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
        let errors = BufReader::new(child.stderr.take().expect("a pipe"));
        let peer = farref_pipe::open_fds(output, input, Directory::new(), Options::default()).expect("it answers");
        let mut listening = Listening { child, errors, urls: Vec::new() };
        let line = listening.line();
        let url = line.strip_prefix("listening on ").expect("a URL");
        assert_eq!(call(url, &[]).printed(), "one\n");
        assert!(peer.root().invoke("listdir", ()).is_ok());
        peer.close();
        peer.wait_closed();
        let (status, said) = listening.end();
        assert_eq!((status.code(), said.as_str()), (Some(0), ""));
    });
}

/// Quiet, unless more is wanted; then who comes and what becomes of it.
#[test]
fn what_happens_is_told_on_demand() {
    within(|| {
        let served = Served::new();
        let key = key(&served, "key");
        let mut listening = Listening::start(&served, &["tcp://127.0.0.1:0"], &["--key", text(&key), "-v"]);
        assert_eq!(call(listening.url(), &[]).code, Some(3));
        let line = listening.line();
        let expected = "no session error=the peer uses no key: it began a session without the key check";
        assert!(line.contains(" INFO session{peer=127.0.0.1:") && line.ends_with(expected), "{line}");
    });
}
