//! How the program is ended in the middle of its work: limits of time, signals; and what it says of itself.
#![cfg(unix)]

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use common::{FARREF, Served, Then, farref, quote, run, until, within};
use farref_pipe::{Proxy, Remote, Value};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tempfile::TempDir;

fn signal(process: u32, signal: Signal) {
    kill_process(pid(process), signal).expect("it is there");
}

fn is_there(process: u32) -> bool {
    test_kill_process(pid(process)).is_ok()
}

fn pid(process: u32) -> Pid {
    i32::try_from(process).ok().and_then(Pid::from_raw).expect("a process id")
}

/// What it wrote to standard error, and how it ended.
fn ended(mut child: Child) -> (String, ExitStatus) {
    let errors = child.stderr.take().expect("a pipe");
    within(move || (std::io::read_to_string(errors).expect("text"), child.wait().expect("it ends")))
}

/// A program that says nothing, and where it writes its number.
fn silent(folder: &Path) -> (String, std::path::PathBuf) {
    let number = folder.join("number");
    let line = format!("echo $$ >{}; exec sleep 1000", quote(&number.display().to_string()));
    (format!("pipe:sh -c {}", quote(&line)), number)
}

fn number_in(path: &Path) -> u32 {
    fs::read_to_string(path).expect("it was written").trim().parse().expect("a number")
}

#[test]
fn a_silent_program_is_given_up_and_killed() {
    let folder = TempDir::new().expect("a folder");
    let (url, number) = silent(folder.path());
    let local = folder.path().join("new").into_os_string().into_string().expect("UTF-8");
    let limit = ["--timeout", "0.5"];
    for words in [vec!["ls", &url], vec!["call", &url, "open"], vec!["get", &url, "f", &local], {
        vec!["put", &url, "/dev/null", "f"]
    }] {
        let given_up = run(Command::new(FARREF).args(words).args(limit));
        assert_eq!(given_up.failed(3), "no answer to the handshake within 0.5 s");
        assert!(!is_there(number_in(&number)));
    }
    assert!(!Path::new(&local).exists());
}

#[test]
fn a_call_without_an_answer_is_given_up_by_name() {
    let served = Served::new();
    let url = served.url("--demo");
    for (expr, step) in [("hang()", "hang()"), ("(echo(1), divide(hang(), 2).x)", "hang()"), ("echo(hang)()", "()")] {
        let given_up = run(Command::new(FARREF).args(["call", &url, expr, "--timeout", "2"]));
        let last = given_up.stderr.lines().last().expect("a line");
        assert_eq!((last, given_up.code), (&*format!("farref: {step} was not answered within 2 s"), Some(3)));
    }
    assert_eq!(farref(["call", &url, "echo(1)", "--timeout", "1e12"]).printed(), "1\n");
    for wrong in ["0", "-1", "x", "inf", "nan", "1e-99"] {
        let refused = farref(["ls", &url, &format!("--timeout={wrong}")]);
        assert!(refused.code == Some(2) && refused.stderr.contains("a number above 0"), "{refused:?}");
    }
}

/// For copies it is the time without progress: this one takes longer in all.
#[test]
fn a_copy_that_stands_still_is_given_up() {
    let served = Served::new();
    let here = TempDir::new().expect("a folder");
    fs::write(served.root().join("big"), vec![7; 5_000_000]).expect("a file");
    let local = here.path().join("big").into_os_string().into_string().expect("UTF-8");
    let get = farref(["get", &served.cut(1_000_000, Then::Wait), "big", &local, "--timeout", "2"]);
    assert_eq!(get.failed(3), "no more of \"big\" came within 2 s");
    assert_eq!(fs::read_dir(here.path()).expect("a folder").count(), 0);

    let big = served.root().join("big").into_os_string().into_string().expect("UTF-8");
    let put = farref(["put", &served.cut_off(1_000_000, Then::Wait), &big, "new", "--timeout", "2"]);
    assert_eq!(put.failed(3), "no part of \"new\" was taken on the far side within 2 s");
    assert!(!served.root().join("new").exists());
    until(|| served.hidden().is_empty());

    // Standard input may take as long as it wants.
    let line = format!("(echo slow; sleep 3; echo but sure) | {FARREF} put --timeout 2 {} - new", {
        quote(&served.url("--write"))
    });
    assert_eq!(run(Command::new("sh").args(["-c", &line])).printed(), "");
    assert_eq!(fs::read_to_string(served.root().join("new")).expect("it went"), "slow\nbut sure\n");
}

#[test]
fn a_signal_leaves_nothing_behind() {
    let served = Served::new();
    let here = TempDir::new().expect("a folder");
    fs::write(served.root().join("big"), vec![7; 5_000_000]).expect("a file");
    for number in [Signal::INT, Signal::TERM] {
        let interrupted = |(said, status): (String, ExitStatus)| {
            assert_eq!((&*said, status.signal()), ("", Some(number.as_raw())));
        };
        // A copy that has begun.
        let url = served.cut(1_000_000, Then::Wait);
        let mut get = Command::new(FARREF);
        get.args(["get", &url, "big"]).arg(here.path()).stdin(Stdio::null()).stderr(Stdio::piped());
        let get = get.spawn().expect("it starts");
        until(|| fs::read_dir(here.path()).expect("a folder").count() == 1);
        signal(get.id(), number);
        interrupted(ended(get));
        assert_eq!(fs::read_dir(here.path()).expect("a folder").count(), 0);

        // A call.
        let mut call = Command::new(FARREF);
        call.args(["call", &served.url("--demo"), "hang()"]).stdin(Stdio::null()).stderr(Stdio::piped());
        let mut call = call.spawn().expect("it starts");
        let mut errors = BufReader::new(call.stderr.take().expect("a pipe"));
        let (process, rest) = within(move || {
            let mut line = String::new();
            errors.read_line(&mut line).expect("a line");
            let process =
                line.split(' ').nth(1).and_then(|number| number.parse::<u32>().ok()).expect("process ... hangs");
            signal(call.id(), number);
            assert_eq!(call.wait().expect("it ends").signal(), Some(number.as_raw()));
            (process, std::io::read_to_string(errors).expect("text"))
        });
        assert_eq!((is_there(process), &*rest), (false, ""));

        // A handshake.
        let (url, number_of) = silent(served.0.path());
        let mut ls = Command::new(FARREF);
        ls.args(["ls", &url]).stdin(Stdio::null()).stderr(Stdio::piped());
        let ls = ls.spawn().expect("it starts");
        until(|| fs::read_to_string(&number_of).is_ok_and(|text| text.ends_with('\n')));
        signal(ls.id(), number);
        interrupted(ended(ls));
        until(|| !is_there(number_in(&number_of)));
        fs::remove_file(number_of).expect("it is there");
    }
}

/// What it serves is closed, what was not complete is removed, and all is well.
#[test]
fn a_server_ends_well_on_a_signal() {
    let served = Served::new();
    for number in [Signal::TERM, Signal::INT] {
        let peer = served.connect(["--write"]);
        let replacement = peer.connection().root().invoke("replace", ["notes.txt"]).expect("a replacement");
        let replacement = Proxy::try_from(replacement).expect("a reference");
        replacement.invoke("write", [Value::from("x")]).expect("it is written");
        assert_eq!(served.hidden().len(), 1);
        signal(peer.id(), number);
        let (peer, ended) = within(move || {
            let ended = peer.connection().wait_closed();
            (peer, ended)
        });
        assert!(matches!(ended, farref_pipe::Ended::PeerClosed(farref_pipe::CloseCode::Leaving)), "{ended:?}");
        assert_eq!(within(move || peer.finish().expect("it ends").code()), Some(0));
        assert!(served.hidden().is_empty());
    }
    // Before anybody has come.
    let mut serve = Command::new(FARREF);
    serve.args(["serve", "--stdio", "--root"]).arg(served.root());
    let mut serve =
        serve.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut preamble = [0];
    std::io::Read::read_exact(serve.stdout.as_mut().expect("a pipe"), &mut preamble).expect("a preamble");
    signal(serve.id(), Signal::TERM);
    let (said, status) = ended(serve);
    assert_eq!((&*said, status.code()), ("", Some(0)));
}

#[test]
fn it_tells_shells_how_to_complete_and_people_its_version() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = farref(["completions", shell]);
        assert!(script.printed().contains("timeout"), "{shell}");
    }
    let script = farref(["completions", "bash"]);
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("farref.bash");
    fs::write(&file, script.printed()).expect("a file");
    let words = format!(
        "source {}; COMP_WORDS=(farref pu); COMP_CWORD=1; _farref farref pu farref; echo \"${{COMPREPLY[@]}}\"",
        file.display()
    );
    assert_eq!(run(Command::new("bash").arg("-n").arg(&file)).printed(), "");
    assert_eq!(run(Command::new("bash").args(["-c", &words])).printed(), "put\n");
    assert_eq!(farref(["completions", "csh"]).code, Some(2));
    assert_eq!(farref(["--version"]).printed(), format!("farref {}\n", env!("CARGO_PKG_VERSION")));
}
