//! `ssh://` from end to end, through a real sshd with throwaway keys.

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use std::{fs, thread};

use common::{FARREF, Run, Served, quote, run, within};
use farref_conformance::sshd::Sshd;
use farref_pipe::{Args, ChildProcess, Directory, Error, Function, Options, Reference, Remote, Ssh, SshTarget, Value};

/// A served tree on the other side of an sshd.
struct Far {
    sshd: Sshd,
    served: Served,
}

impl Far {
    fn new() -> Self {
        Self::with(&[])
    }

    fn with(lines: &[&str]) -> Self {
        Self { sshd: Sshd::start(lines), served: Served::new() }
    }

    /// The URL of a command on the other side; only what has to be is encoded.
    fn url(&self, command: &str) -> String {
        format!("ssh://127.0.0.1:{}/{}", self.sshd.port(), command.replace('%', "%25"))
    }

    fn serve(&self, more: &str) -> String {
        self.url(&format!("{} {more}", self.served.command()))
    }

    /// The program, which finds its way through our ssh.
    fn farref(&self, args: &[&str]) -> Command {
        let mut command = Command::new(FARREF);
        command.args(args).env("FARREF_SSH", self.sshd.ssh_command());
        command
    }

    fn run(&self, args: &[&str]) -> Run {
        run(&mut self.farref(args))
    }

    /// A connection of our own.
    fn connect(&self, more: &str) -> ChildProcess {
        let ssh = Ssh::new(shell_words::split(&self.sshd.ssh_command()).expect("words"));
        let target: SshTarget = self.serve(more).parse().expect("a URL");
        ssh.connect(&target, Directory::new(), Options::default()).expect("it serves")
    }
}

/// A10, A18: the file server, on the other side of an sshd.
#[test]
fn a10_files_are_read_over_ssh() {
    let far = Far::new();
    let listed = far.run(&["ls", &far.serve("")]);
    let names: Vec<_> = listed.printed().lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(names, ["listdir", "open", "replace", "stat", "walk"]);
    assert_eq!(far.run(&["call", &far.serve(""), "open(\"notes.txt\").read()"]).printed(), "one\ntwo\nthree\n");
    let name = "open(\"sub/grüße.txt\").read()";
    assert_eq!(far.run(&["call", &far.serve(""), name]).printed(), "äöü\n");
    let missing = far.run(&["call", &far.serve(""), "open(\"nothing\")"]);
    assert!(missing.failed(1).starts_with("FileNotFoundError: "), "{missing:?}");
    // Nothing was added to what went well, and nothing is asked for.
    assert_eq!(listed.stderr, "");
}

/// A10, A18: a file of several parts, copied there and back.
#[test]
fn a10_files_are_copied_over_ssh() {
    let far = Far::new();
    let contents: Vec<u8> = (0..1_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let here = |name: &str| far.served.0.path().join(name).into_os_string().into_string().expect("UTF-8");
    std::fs::write(here("big"), &contents).expect("a file");
    assert_eq!(far.run(&["put", &far.serve("--write"), &here("big"), "sub/"]).printed(), "");
    assert_eq!(far.run(&["get", &far.serve(""), "sub/big", &here("back")]).printed(), "");
    assert!(std::fs::read(here("back")).expect("it came") == contents);
    let refused = far.run(&["put", &far.serve(""), &here("big"), "new"]);
    assert!(refused.failed(1).contains("the folder is served read-only"), "{refused:?}");
}

/// The command that is run unless there is another serves the folder of the login.
#[test]
fn without_a_command_farref_is_found_on_the_path() {
    let folder = std::path::Path::new(FARREF).parent().expect("a folder").display();
    let far = Far::with(&[&format!("SetEnv \"PATH={folder}:/usr/bin:/bin\"")]);
    let url = format!("ssh://127.0.0.1:{}", far.sshd.port());
    assert_eq!(far.run(&["call", &url, "stat(\".\")[\"kind\"]"]).printed(), "dir\n");
}

/// C24, A7: calls back through the same connection.
#[test]
fn c24_walk_calls_back_over_ssh() {
    within(|| {
        let far = Far::new();
        let peer = far.connect("");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let telling = seen.clone();
        let visitor = Function::new(move |mut args| {
            telling.lock().expect("no panic").push(args.positional.remove(0));
            Ok(true.into())
        });
        let args = Args::from(["."]).and(Reference::local(visitor));
        assert_eq!(peer.connection().root().invoke("walk", args), Ok(3.into()));
        assert_eq!(*seen.lock().expect("no panic"), [".".into(), "./sub".into(), Value::from("./sub/deep")]);
        assert!(peer.finish().expect("it ends").success());
    });
}

/// What a login prints on standard output is skipped, and what it says on standard error is for the user.
#[test]
fn banners_disturb_nothing() {
    let far = Far::new();
    let shell = |line: &str| far.url(&format!("sh -c {}", quote(&format!("{line}; exec {}", far.served.command()))));
    let url = shell("echo Welcome; printf 'no end of line'; echo 'be careful' >&2");
    let called = far.run(&["call", &url, "open(\"notes.txt\").readline()"]);
    assert_eq!((called.printed(), &*called.stderr), ("one\n", "be careful\n"));
    // More than is held back while it is not known whether the session stands.
    let called = far.run(&["call", &shell("seq 10000 >&2"), "open(\"notes.txt\").readline()"]);
    assert_eq!(called.printed(), "one\n");
    assert_eq!(called.stderr, (1..=10000).map(|number| format!("{number}\n")).collect::<String>());

    let banner = far.sshd.folder().join("banner");
    fs::write(&banner, "For authorized use only.\n").expect("a file");
    let strict = Far::with(&[
        &format!("Banner {}", banner.display()),
        "ForceCommand echo forced; eval \"$SSH_ORIGINAL_COMMAND\"",
    ]);
    let called = strict.run(&["call", &strict.serve(""), "listdir(\"sub/deep\")"]);
    assert_eq!((called.printed(), &*called.stderr), ("x.bin\n", "For authorized use only.\n"));
}

/// The remote process that serves is killed, or the machine is gone: one error that says so, at once.
#[test]
fn who_is_killed_in_mid_call_is_told_of() {
    type Kill = fn(&Far, &str);
    let process: Kill = |_, process| signal(process, "-KILL");
    let machine: Kill = |far, _| far.sshd.cut();
    for kill in [process, machine] {
        let far = Far::new();
        let mut caller = Hanging::start(&mut far.farref(&["call", &far.serve("--demo"), "hang()"]));
        let start = Instant::now();
        kill(&far, &caller.remote);
        let (code, rest) = caller.end();
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
        let place = format!("127.0.0.1:{}", far.sshd.port());
        let expected = format!(
            "farref: the connection to the peer was lost: the remote command was killed or {place} is gone (ssh: exit status: 255)"
        );
        assert_eq!(code, Some(3), "{rest}");
        // ssh may say before what it has seen.
        assert_eq!(rest.lines().last(), Some(&*expected), "{rest}");
    }
    within(|| {
        let far = Far::new();
        let peer = far.connect("");
        far.sshd.cut();
        let error = peer.connection().root().get("open").expect_err("nobody answers");
        let Error::Io(kind, text) = peer.explain(error) else { panic!("it says why") };
        assert_eq!(kind, std::io::ErrorKind::ConnectionAborted, "{text}");
        assert_eq!(peer.explain(Error::raise("E", "x")), Error::raise("E", "x"));
    });
}

/// What is wrong is one line on the program's own account, with what ssh has said at its end.
#[test]
fn faults_are_one_line() {
    let far = Far::new();
    let failed = far.run(&["ls", &far.url("no-such-farref")]);
    assert!(
        failed.failed(3).starts_with("the remote command \"no-such-farref\" is not found on 127.0.0.1;"),
        "{failed:?}"
    );
    let failed = far.run(&["ls", &far.url("echo welcome")]);
    assert!(failed.failed(3).ends_with("is no farref peer (exit status: 0); it wrote \"welcome\""), "{failed:?}");
    let keyless = far.sshd.ssh_command_with("-o PubkeyAuthentication=no");
    // Without a terminal of its own nobody can be asked.
    let mut asks = Command::new("setsid");
    asks.args(["--wait", FARREF, "ls", &far.url("")]).env("FARREF_SSH", keyless).env_remove("SSH_ASKPASS");
    let failed = run(&mut asks);
    let expected = "permits no login without a password, and there is no terminal to ask for one on: ";
    assert!(failed.failed(3).contains(expected), "{failed:?}");
    for (wrong, why) in [("'", "has a quote that is not closed"), ("", "names no program")] {
        let failed = run(far.farref(&["ls", &far.url("")]).env("FARREF_SSH", wrong));
        assert!(failed.failed(3).starts_with(&format!("FARREF_SSH {why}")), "{failed:?}");
    }
    for (url, why) in [("ssh://-oProxyCommand=x/", "is no host name"), ("ssh://me:pw@host/", "has a password")] {
        let failed = far.run(&["ls", url]);
        assert!(failed.failed(2).contains(why) && !failed.stderr.contains(":pw"), "{failed:?}");
    }
}

/// An interrupted call ends as one, says nothing, and leaves no ssh behind: neither while it connects nor in a call.
#[test]
fn an_interrupted_call_leaves_no_ssh_behind() {
    let far = Far::new();
    for (name, number) in [("-INT", 2), ("-TERM", 15)] {
        let mut calling = Hanging::start(&mut far.farref(&["call", &far.serve("--demo"), "hang()"]));
        calling.interrupt(name, number);
        // Logged in, and nobody answers.
        let logins = || far.sshd.log().matches("Accepted publickey").count();
        let before = logins();
        let mut connecting = Hanging::silent(&mut far.farref(&["ls", &far.url("cat > /dev/null")]));
        until("it has logged in", || logins() > before);
        connecting.interrupt(name, number);
    }
}

/// On a terminal ssh asks; the interrupt key ends both, with the exit code that shells know, and the terminal as it was.
#[test]
fn the_interrupt_key_ends_a_prompt() {
    let far = Far::with(&["PasswordAuthentication yes"]);
    let line = format!("trap : INT; '{FARREF}' ls '{}'; echo \"exit code $?\"; stty -a", far.url(""));
    let keyless = far.sshd.ssh_command_with("-o PubkeyAuthentication=no");
    let shown = on_terminal(&line, &keyless, ("password: ", b"\x03"));
    assert!(shown.contains("'s password: "), "{shown}");
    assert!(shown.contains("exit code 130") && !shown.contains("farref: "), "{shown}");
    assert!(shown.contains(" echo ") && shown.contains(" icanon "), "{shown}");
}

/// On a terminal what ssh says comes at once, such as a banner before the password is asked for, and only once.
#[test]
fn a_terminal_shows_what_ssh_says_once() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let banner = folder.path().join("banner");
    fs::write(&banner, "For authorized use only.\n").expect("a file");
    let far = Far::with(&["PasswordAuthentication yes", &format!("Banner {}", banner.display())]);
    let keyless = far.sshd.ssh_command_with("-o PubkeyAuthentication=no -o NumberOfPasswordPrompts=1");
    let line = format!("'{FARREF}' ls '{}'", far.url(""));
    let shown = on_terminal(&line, &keyless, ("password: ", b"no password of anybody\r"));
    let places = ["For authorized use only.", "'s password: ", "ermission denied", "permits no login\r\n"]
        .map(|words| shown.find(words));
    // The prompt goes to the terminal by itself, and may come before the banner.
    let [banner, ref others @ ..] = places;
    assert!(places.iter().all(Option::is_some) && others.is_sorted() && banner < places[3], "{places:?} in {shown}");
}

/// What a terminal shows that runs this line of shell, on which somebody answers to a prompt.
fn on_terminal(line: &str, ssh: &str, (prompt, keys): (&'static str, &'static [u8])) -> String {
    let mut terminal = Command::new("script")
        .args(["--quiet", "--return", "--command", line, "/dev/null"])
        .env("FARREF_SSH", ssh)
        .env("SHELL", "/bin/sh")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("script starts");
    let (mut keyboard, mut screen) = (terminal.stdin.take().expect("a pipe"), terminal.stdout.take().expect("a pipe"));
    within(move || {
        let (mut shown, mut byte) = (Vec::new(), [0]);
        while screen.read(&mut byte).is_ok_and(|count| count == 1) {
            shown.push(byte[0]);
            if shown.ends_with(prompt.as_bytes()) {
                keyboard.write_all(keys).expect("keys");
            }
        }
        terminal.wait().expect("it ends");
        String::from_utf8_lossy(&shown).into_owned()
    })
}

/// A run of the program that waits for its peer.
struct Hanging {
    child: Child,
    stderr: BufReader<std::process::ChildStderr>,
    /// The process at the other end of the ssh.
    remote: String,
}

impl Hanging {
    /// Of `hang()`, which says when it hangs.
    fn start(command: &mut Command) -> Self {
        let mut hanging = Self::silent(command);
        within(move || {
            let mut line = String::new();
            hanging.stderr.read_line(&mut line).expect("a line");
            hanging.remote = line.split(' ').nth(1).unwrap_or_else(|| panic!("process ... hangs: {line}")).into();
            hanging
        })
    }

    fn silent(command: &mut Command) -> Self {
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let stderr = BufReader::new(child.stderr.take().expect("a pipe"));
        Self { child, stderr, remote: String::new() }
    }

    /// Its exit code, and what it says until then.
    fn end(&mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        self.stderr.read_to_string(&mut rest).expect("text");
        (self.child.wait().expect("it ends").code(), rest)
    }

    fn interrupt(&mut self, name: &str, number: i32) {
        let ssh = children(self.child.id());
        assert_eq!(ssh.len(), 1, "an ssh");
        signal(&self.child.id().to_string(), name);
        // Nobody reads on after the end, also if the ssh lives on.
        let status = self.child.wait().expect("it ends");
        assert_eq!(status.signal(), Some(number), "{status}");
        until("the ssh is gone", || !runs(ssh[0]));
        let mut rest = String::new();
        self.stderr.read_to_string(&mut rest).expect("text");
        assert!(!rest.contains("farref: "), "{rest}");
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn signal(process: &str, name: &str) {
    assert!(Command::new("kill").args([name, process]).status().expect("kill runs").success());
}

fn until(what: &str, settled: impl Fn() -> bool) {
    let start = Instant::now();
    while !settled() {
        assert!(start.elapsed() < Duration::from_secs(60), "never: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

fn children(of: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").expect("processes").flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter(|&process| stat(process).is_some_and(|(_, parent)| parent == of)).collect()
}

/// Whether it runs, and does not only wait for somebody to look at its end.
fn runs(process: u32) -> bool {
    stat(process).is_some_and(|(state, _)| state != "Z")
}

/// State and parent.
fn stat(process: u32) -> Option<(String, u32)> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let mut words = stat.rsplit_once(')')?.1.split_whitespace();
    Some((words.next()?.into(), words.next()?.parse().ok()?))
}
