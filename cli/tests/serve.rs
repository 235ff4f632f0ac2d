//! `farref serve` as a peer: its files, its sandbox, and what happens to the connection.

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use common::{FARREF, Served, farref, quote, run, until, within};
use farref_pipe::{Args, ChildProcess, Error, Function, List, Object, Proxy, Reference, Remote, Value};

/// C19, B1: a pipelined read is one round trip, whoever is at the other end.
#[test]
fn c19_open_and_read_is_one_round_trip() {
    within(|| {
        let served = Served::new();
        let peer = served.connect([]);
        let before = peer.connection().traffic().round_trips;
        let file = peer.connection().root().promise("open", ["notes.txt"]).expect("a promise");
        assert_eq!(file.invoke("read", ()), Ok("one\ntwo\nthree\n".into()));
        assert_eq!(peer.connection().traffic().round_trips - before, 1);
        drop(file);
        assert!(peer.finish().expect("it ends").success());
    });
}

/// C24, A7: a real process calls a function of ours, within the call that gave it.
#[test]
fn c24_a_real_process_calls_back() {
    within(|| {
        let served = Served::new();
        let peer = served.connect(["--demo"]);
        let add = Function::new(|args| Ok(Value::Int(args.get(0).and_then(Value::as_int).unwrap_or(0) + 3)));
        let args = Args::default().and(Reference::local(add)).and(13);
        assert_eq!(peer.connection().root().invoke("apply", args), Ok(16.into()));
        let fails = Function::new(|_| Err(Error::raise_with("app.Odd", vec![7.into()])));
        let error = peer.connection().root().invoke("apply", [Reference::local(fails).into(), Value::None]);
        let error = error.expect_err("it raises");
        let raised = error.exception().expect("an exception");
        assert_eq!((&*raised.name, &*raised.args), ("app.Odd", [7.into()].as_slice()));
    });
}

/// A7: the visitor is an object of the caller; it may stop the walk, or end it with an exception.
#[test]
fn a7_walk_calls_the_visitor_for_each_folder() {
    within(|| {
        let served = Served::new();
        let peer = served.connect([]);
        let walk = |most: usize| {
            let seen = Arc::new(Mutex::new(Vec::new()));
            let telling = seen.clone();
            let visitor = Function::new(move |args| {
                let mut telling = telling.lock().expect("no panic");
                telling.push(args.positional);
                Ok(Value::Bool(telling.len() < most))
            });
            let visited = peer.connection().root().invoke("walk", told(".", visitor));
            let seen = seen.lock().expect("no panic").clone();
            (visited.expect("it walks"), seen)
        };
        let texts = |texts: &[&str]| Value::Tuple(texts.iter().map(|&text| text.into()).collect());
        let (visited, seen) = walk(100);
        assert_eq!(visited, 3.into());
        assert_eq!(seen[0][..], [".".into(), texts(&["sub"]), texts(&["notes.txt"])]);
        assert_eq!(seen[1][..], ["./sub".into(), texts(&["deep"]), texts(&["grüße.txt"])]);
        assert_eq!(seen[2][..], ["./sub/deep".into(), texts(&[]), texts(&["x.bin"])]);
        assert_eq!(walk(2).0, 2.into());
        let raises = Function::new(|_| Err(Error::raise("StopIteration", "enough")));
        let error = peer.connection().root().invoke("walk", told(".", raises));
        assert_eq!(error.expect_err("it raises").to_string(), "StopIteration: enough");
        let missing = peer.connection().root().invoke("walk", told("nothing", List::default()));
        assert_eq!(missing.expect_err("no folder").exception().expect("an exception").name, "FileNotFoundError");
    });
}

#[test]
fn files_are_objects_with_lines_and_a_position() {
    within(|| {
        let served = Served::new();
        let peer = served.connect([]);
        let file = open(&peer, "notes.txt", "r");
        assert_eq!(file.invoke("readline", ()), Ok("one\n".into()));
        assert_eq!(file.invoke("tell", ()), Ok(4.into()));
        let lines: Result<Vec<_>, _> = file.iterate().expect("an iterator").collect();
        assert_eq!(lines, Ok(vec!["two\n".into(), "three\n".into()]));
        assert_eq!(file.invoke("readline", ()), Ok("".into()));
        assert_eq!(file.invoke("seek", [-6, 2]), Ok(8.into()));
        assert_eq!(file.invoke("read", [2]), Ok("th".into()));
        assert_eq!((file.get("name"), file.get("mode")), (Ok("notes.txt".into()), Ok("r".into())));
        assert_eq!(file.get("closed"), Ok(false.into()));
        assert!(file.set("name", "x").is_err());
        file.invoke("close", ()).expect("it closes");
        assert_eq!(file.get("closed"), Ok(true.into()));
        let closed = file.invoke("read", ()).expect_err("it is closed");
        assert_eq!(closed.to_string(), "ValueError: file is closed");
    });
}

#[test]
fn what_does_not_fit_into_a_message_is_read_in_parts() {
    within(|| {
        let served = Served::new();
        let size = 5 << 20;
        fs::write(served.root().join("big"), "0123456789abcdef".repeat(size / 16)).expect("a file");
        let peer = served.connect([]);
        let file = open(&peer, "big", "rb");
        let error = file.invoke("read", ()).expect_err("it is too large").to_string();
        assert!(
            error.contains(&format!("{size} bytes cannot be read at once")) && error.contains("read in parts"),
            "{error}"
        );
        // Nothing was lost by trying.
        let mut read = 0;
        while let Ok(Value::Bytes(part)) = file.invoke("read", [1 << 20]) {
            if part.is_empty() {
                break;
            }
            read += part.len();
        }
        assert_eq!(read, size);
    });
}

/// The sandbox holds over the wire, too.
#[test]
fn nothing_outside_the_root_is_reached() {
    let served = Served::new();
    let outside = served.0.path().join("secret.txt");
    std::os::unix::fs::symlink(&outside, served.root().join("link")).expect("a link");
    std::os::unix::fs::symlink("..", served.root().join("up")).expect("a link");
    within(move || {
        let peer = served.connect(["--write"]);
        let absolute = outside.to_str().expect("UTF-8").to_owned();
        let paths =
            ["../secret.txt", "sub/../../secret.txt", "link", "up/secret.txt", &absolute, "/etc/passwd", "..", "up"];
        for path in paths {
            for (root, args) in [
                ("open", vec![path]),
                ("open", vec![path, "w"]),
                ("open", vec![path, "a+"]),
                ("replace", vec![path]),
                ("stat", vec![path]),
                ("listdir", vec![path]),
            ] {
                let error = peer.connection().root().invoke(root, args.clone()).expect_err("it is refused");
                let name = &error.exception().unwrap_or_else(|| panic!("{root}{args:?}: {error}")).name;
                assert_eq!(name, "PermissionError", "{root}{args:?}: {error}");
            }
        }
        assert_eq!(fs::read_to_string(outside).expect("it is there"), "nobody reads this");
        let link = peer.connection().root().invoke("stat", Args::from(["link"]).named("follow_symlinks", false));
        let Ok(Value::Map(facts)) = link else { panic!("{link:?}") };
        assert_eq!(facts[0], ("kind".into(), "symlink".into()));
    });
}

#[test]
fn writing_takes_the_option() {
    let served = Served::new();
    let refused = farref(["call", &served.url(""), "open(\"new.txt\", \"w\")"]);
    assert_eq!(refused.failed(1), "PermissionError: [Errno 13] the folder is served read-only: 'new.txt'");
    assert!(!served.root().join("new.txt").exists());
    let written = farref(["call", &served.url("--write"), "open(\"new.txt\", mode=\"w\").write(\"grüße\")"]);
    assert_eq!(written.printed(), "5\n");
    assert_eq!(fs::read_to_string(served.root().join("new.txt")).expect("it is there"), "grüße");
    let cut = farref(["call", &served.url("--write"), "open(\"new.txt\", \"r+\").truncate(2)"]);
    assert_eq!((cut.printed(), fs::read_to_string(served.root().join("new.txt")).ok().as_deref()), ("2\n", Some("gr")));
}

#[test]
fn a_replacement_is_seen_once_it_is_committed() {
    let served = Served::new();
    let file = served.root().join("notes.txt");
    within(move || {
        let replace = |peer: &ChildProcess| {
            let replacement = peer.connection().root().invoke("replace", ["notes.txt"]).expect("a replacement");
            Proxy::try_from(replacement).expect("a reference")
        };
        let read = || fs::read_to_string(&file).expect("it is there");
        let hidden = || served.hidden().len();
        let peer = served.connect(["--write"]);
        let replacement = replace(&peer);
        assert_eq!(replacement.get("name"), Ok("notes.txt".into()));
        assert_eq!(replacement.invoke("write", ["grüße"]), Ok(7.into()));
        assert_eq!(replacement.invoke("write", [Value::Bytes(vec![b'\n'])]), Ok(1.into()));
        assert_eq!((read().as_str(), hidden()), ("one\ntwo\nthree\n", 1));
        assert_eq!(replacement.invoke("commit", [8]), Ok(8.into()));
        assert_eq!((read().as_str(), hidden()), ("grüße\n", 0));

        // Let go of, it leaves nothing, and so does the server that is left with it.
        let replacement = replace(&peer);
        assert_eq!(replacement.invoke("write", ["x"]), Ok(1.into()));
        drop(replacement);
        until(|| hidden() == 0);
        let replacement = replace(&peer);
        assert_eq!((replacement.invoke("write", ["x"]), hidden()), (Ok(1.into()), 1));
        assert!(peer.finish().expect("it ends").success());
        assert_eq!((read().as_str(), hidden()), ("grüße\n", 0));
    });
    let refused = farref(["call", &Served::new().url(""), "replace(\"notes.txt\")"]);
    assert_eq!(refused.failed(1), "PermissionError: [Errno 13] the folder is served read-only: 'notes.txt'");
}

/// A stray print, in this language or another, goes to standard error and corrupts nothing.
#[test]
fn stray_prints_go_to_standard_error() {
    let served = Served::new();
    let printed = served.call("(print(\"stray\"), echo(1), print(\"more\"))");
    assert_eq!(printed.printed(), "(true, 1, true)\n");
    for line in ["stray", "stray from a shell", "more", "more from a shell"] {
        assert!(printed.stderr.lines().any(|have| have == line), "{line}: {printed:?}");
    }
}

/// What a login prints before the peer speaks is skipped.
#[test]
fn a_banner_before_the_preamble_is_skipped() {
    let served = Served::new();
    let line = format!("echo Welcome; echo; printf 'no end of line'; exec {}", served.command());
    let url = format!("pipe:sh -c {}", quote(&line));
    assert_eq!(farref(["call", &url, "open(\"notes.txt\").readline()"]).printed(), "one\n");
}

/// A peer that says Hello and then breaks the rules.
#[test]
fn a_peer_that_breaks_the_rules_is_told_in_one_line() {
    let served = Served::new();
    let hello = within({
        let mut serve = Command::new(FARREF);
        serve.args(["serve", "--stdio", "--root", "."]).stdin(Stdio::piped()).stdout(Stdio::piped());
        move || {
            let mut serve = serve.spawn().expect("it starts");
            let mut stdout = serve.stdout.take().expect("a pipe");
            // The preamble and the length of Hello, then Hello.
            let mut hello = vec![0; 9];
            stdout.read_exact(&mut hello).expect("a preamble");
            hello.resize(9 + usize::from(hello[8]), 0);
            stdout.read_exact(&mut hello[9..]).expect("Hello");
            drop(serve.stdin.take());
            serve.wait().expect("it ends");
            hello
        }
    });
    let file = served.0.path().join("hello");
    fs::write(&file, hello).expect("a file");
    for garbage in ["\\377\\377\\377\\377\\377\\377", "\\000", "\\003\\001\\001\\001", &"garbage ".repeat(20)] {
        let line = format!("cat '{}'; printf '{garbage}'; cat > /dev/null", file.display());
        let failed = farref(["call", &format!("pipe:sh -c {}", quote(&line)), "open"]);
        assert!(failed.failed(3).len() > 10, "{failed:?}");
    }
}

/// CLS-1: a serving process that is killed in mid-call fails that call at once.
#[test]
fn a_peer_killed_in_mid_call_fails_the_call_at_once() {
    within(|| {
        let served = Served::new();
        let peer = Arc::new(served.connect([]));
        let killer = {
            let peer = peer.clone();
            // Within the call: the server waits for the visitor.
            Function::new(move |_| peer.kill().map(|()| Value::None))
        };
        let called = peer.connection().root().invoke("walk", told(".", killer));
        assert!(matches!(called, Err(Error::Ended(_))), "{called:?}");
        assert!(matches!(peer.connection().root().get("open"), Err(Error::NeverStarted(_))));
    });
}

#[test]
fn the_program_tells_that_its_peer_was_killed() {
    let served = Served::new();
    let mut child = Command::new(FARREF)
        .args(["call", &served.url("--demo"), "hang()"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut errors = BufReader::new(child.stderr.take().expect("a pipe"));
    let (code, rest) = within(move || {
        let mut line = String::new();
        errors.read_line(&mut line).expect("a line");
        let process = line.split(' ').nth(1).expect("process ... hangs");
        assert!(Command::new("kill").args(["-9", process]).status().expect("kill runs").success());
        let rest = std::io::read_to_string(errors).expect("text");
        (child.wait().expect("it ends").code(), rest)
    });
    let expected = format!("farref: the connection to the peer was lost: {FARREF} ended (signal: 9 (SIGKILL))\n");
    assert_eq!((code, rest), (Some(3), expected));
}

#[test]
fn it_ends_well_when_the_peer_goes_away() {
    let served = Served::new();
    let peer = served.connect([]);
    assert_eq!(within(move || peer.finish().expect("it ends").code()), Some(0));
    // One that never says anything.
    let silent = run(Command::new(FARREF).args(["serve", "--stdio", "--root"]).arg(served.root()));
    assert_eq!(silent.code, Some(3), "{silent:?}");
    assert_eq!(silent.stderr, "farref: no farref peer answers there\n");
}

fn open(peer: &ChildProcess, path: &str, mode: &str) -> Proxy {
    let file = peer.connection().root().invoke("open", [path, mode]).expect("it opens");
    file.as_reference().and_then(Reference::remote).expect("a reference").clone()
}

/// A path and an object to be called about it.
fn told(path: &str, visitor: impl Object) -> Args {
    Args::from([path]).and(Reference::local(visitor))
}
