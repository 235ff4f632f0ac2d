//! `farref call` and `farref ls` from end to end.

mod common;

use std::fs;
use std::process::Command;

use common::{FARREF, Served, farref, run};

/// C19, A10: the two-line file server.
#[test]
fn c19_a_file_is_read_over_a_real_process() {
    let served = Served::new();
    let plain = served.url("");
    assert_eq!(farref(["call", &plain, "open(\"notes.txt\").read()"]).printed(), "one\ntwo\nthree\n");
    assert_eq!(farref(["call", &plain, "open('sub/grüße.txt').read(2)"]).printed(), "äö\n");
    assert_eq!(farref(["call", &plain, "listdir()"]).printed(), "notes.txt\nsub\n");
}

/// A1: names are listed; an unknown one is a harmless error that points at the name.
#[test]
fn a1_roots_are_listed_by_name() {
    let served = Served::new();
    let listed = farref(["ls", &served.url("")]);
    let names: Vec<_> = listed.printed().lines().map(|line| line.split_once("  ").expect("two columns").0).collect();
    assert_eq!(
        names,
        ["listdir", "open", "replace", "stat", "walk"].map(|name| format!("{name:7}").trim_end().to_owned())
    );
    let unknown = farref(["call", &served.url(""), "opne(\"notes.txt\")"]);
    assert_eq!(unknown.blamed(1), ("no such name: opne", "opne"));
    assert_eq!(served.call("open(\"notes.txt\").reed()").blamed(1), ("no such name: reed", ".reed"));
}

#[test]
fn every_kind_of_literal_goes_there_and_back() {
    let served = Served::new();
    let cases = [
        ("none", ""),
        ("true", "true\n"),
        ("False", "false\n"),
        ("0", "0\n"),
        ("-129", "-129\n"),
        ("9223372036854775807", "9223372036854775807\n"),
        ("-9223372036854775809", "-9223372036854775809\n"),
        ("123456789012345678901234567890", "123456789012345678901234567890\n"),
        ("1.5", "1.5\n"),
        ("-0.0", "-0.0\n"),
        ("\"a\\tb\"", "a\tb\n"),
        ("'ends a line\\n'", "ends a line\n"),
        ("b\"\\x00a\\xff\"", "b\"\\x00a\\xff\"\n"),
        ("()", "()\n"),
        ("(1, (2.5, \"x\"), none)", "(1, (2.5, \"x\"), none)\n"),
        ("[1, [2], \"x\"]", "[1, <list of 1>, \"x\"]\n"),
        ("{\"key\": 1, 2: true}", "key: 1\n2:   true\n"),
        ("(\"a\", \"b\")", "a\nb\n"),
    ];
    for (literal, printed) in cases {
        assert_eq!(served.call(&format!("echo({literal})")).printed(), printed, "{literal}");
    }
}

/// B1: chains as arguments are promises, more than a message may name included.
#[test]
fn b1_chains_may_be_arguments() {
    let served = Served::new();
    assert_eq!(served.call("echo(echo(echo(7)))").printed(), "7\n");
    let many = "echo((echo(1), echo(2), echo(3), echo(4), echo(5), echo(6), echo(value=7)))";
    assert_eq!(served.call(many).printed(), "(1, 2, 3, 4, 5, 6, 7)\n");
    assert_eq!(served.call("open(echo(\"notes.txt\"), mode=echo(\"rb\")).read(echo(3))").printed(), "b\"one\"\n");
    assert_eq!(served.call("stat(\"notes.txt\")[echo(\"size\")]").printed(), "14\n");
    assert_eq!(served.call("[1, echo(2), listdir][1]").printed(), "2\n");
    assert_eq!(served.call("[listdir][0](\"sub\")[-1]").printed(), "grüße.txt\n");
    assert_eq!(served.call("(echo(1), \"abc\"[echo(1)])").printed(), "(1, \"b\")\n");
    let nested = format!("{}7{}", "echo(".repeat(60), ")".repeat(60));
    assert_eq!(served.call(&nested).printed(), "7\n");
    let chain = format!("echo{}", "(echo)".repeat(300));
    assert_eq!(served.call(&format!("{chain}(5)")).printed(), "5\n");
}

/// A8: what comes home is the local object, and works as one.
#[test]
fn a8_lists_of_ours_come_home() {
    let served = Served::new();
    assert_eq!(served.call("echo([1, 2]).pop()").printed(), "2\n");
    assert_eq!(served.call("echo(echo([1, echo(2)]))[1]").printed(), "2\n");
}

#[test]
fn a_remote_container_is_shown_by_its_contents_and_another_object_by_its_text() {
    let served = Served::new();
    assert_eq!(served.call("squares(5)").printed(), "[0, 1, 4, 9, 16]\n");
    assert_eq!(served.call("(squares(5), open)").printed(), "(<list of 5>, open(path, mode=\"r\"))\n");
    let file = served.call("open(\"notes.txt\")");
    let lines: Vec<_> = file.printed().lines().collect();
    assert_eq!(lines[0], "<file \"notes.txt\", mode \"r\">");
    assert!(lines[1].starts_with("  read      so many characters"), "{lines:?}");
    assert_eq!(lines.len(), 12);
    assert_eq!(
        served.call("open(\"notes.txt\").read").printed(),
        "<method read of <file \"notes.txt\", mode \"r\">>\n"
    );
}

#[test]
fn arguments_bind_by_name_and_wrong_ones_name_the_signature() {
    let served = Served::new();
    assert_eq!(served.call("open(mode=\"rb\", path=\"notes.txt\").read(n=3)").printed(), "b\"one\"\n");
    let signature = "bad arguments; expected open(path, mode=\"r\")";
    for (wrong, why) in [
        ("open()", "path is missing"),
        ("open(\"a\", \"r\", 1)", "3 arguments instead of 2 at most"),
        ("open(\"a\", mod=\"r\")", "there is no argument \"mod\""),
        ("open(\"a\", path=\"b\")", "path is given twice"),
        ("open(1)", "path has to be text"),
    ] {
        let failed = served.call(&format!("echo({wrong})"));
        assert_eq!(failed.blamed(1), (&*format!("{signature} ({why})"), wrong));
    }
}

/// C14: exceptions by name.
#[test]
fn c14_remote_exceptions_are_one_line() {
    let served = Served::new();
    assert_eq!(served.call("divide(1, 0)").failed(1), "ZeroDivisionError: division by zero");
    assert_eq!(served.call("squares(3)[7]").failed(1), "IndexError: 7");
    assert_eq!(served.call("{(1, \"k\"): 2}[\"k\"]").failed(1), "KeyError: k");
    let missing = served.call("open(\"nothing\").read()");
    assert_eq!(missing.failed(1), "FileNotFoundError: [Errno 2] No such file or directory: 'nothing'");
    let line = served.call("open(\"nothing\\n\\x1b[2J\")");
    assert!(line.failed(1).contains("'nothing\\n\\u{1b}[2J'"), "{line:?}");
    assert_eq!(served.call("open(\"notes.txt\")[0]").blamed(1), ("the object does not support GetItem", "[0]"));
}

#[test]
fn wrong_usage_is_told_before_anything_starts() {
    let parse = farref(["call", "pipe:false", "open(\"a\""]);
    assert_eq!(parse.blamed(2), ("column 5: the bracket that opens here is not closed", "("));
    assert!(farref(["call", "serial:?baud=9600", "x"]).failed(2).starts_with("no serial: URL, a port belongs"));
    assert!(farref(["call", "tcp:somewhere", "x"]).failed(2).starts_with("no tcp: URL, two slashes"));
    assert!(farref(["call", "farref serve", "x"]).failed(2).contains("has no scheme"));
    assert!(farref(["ls", "pipe:"]).failed(2).starts_with("pipe: needs a program"));
    for wrong in [&["call", "pipe:false"][..], &["serve", "--root", "."], &["bogus"], &[]] {
        assert_eq!(run(Command::new(FARREF).args(wrong)).code, Some(2), "{wrong:?}");
    }
}

#[test]
fn who_is_no_peer_is_told_in_one_line() {
    assert_eq!(farref(["call", "pipe:false", "x"]).failed(3), "false ended before it answered (exit status: 1)");
    assert!(farref(["ls", "pipe:/no/such/program"]).failed(3).starts_with("cannot start /no/such/program: No such"));
    // Prints without end, and is given up on.
    farref(["call", "pipe:yes", "x"]).failed(3);
    farref(["call", "pipe:cat /dev/zero", "x"]).failed(3);
}

#[test]
fn a_root_that_is_no_folder_is_one_clear_line() {
    let served = Served::new();
    let missing = served.0.path().join("missing");
    let path = missing.to_str().expect("UTF-8");
    let failed = farref(["serve", "--stdio", "--root", path]);
    assert_eq!(failed.failed(2), format!("cannot serve the folder {path}: No such file or directory"));
    let file = served.0.path().join("secret.txt");
    assert!(
        farref(["serve", "--stdio", "--root", file.to_str().expect("UTF-8")]).failed(2).contains("Not a directory")
    );
}

#[test]
fn json_is_one_exact_value() {
    let served = Served::new();
    let json = |expr: &str| farref(["call", "--json", &served.url("--demo"), expr]).printed().to_owned();
    assert_eq!(json("none"), "null\n");
    assert_eq!(json("echo(123456789012345678901234567890)"), "123456789012345678901234567890\n");
    assert_eq!(
        json("echo((1, 1.0, \"é\\n\", b\"\\x00\\xff\", true))"),
        "[1,1.0,\"é\\n\",{\"$bytes\":\"AP8=\"},true]\n"
    );
    assert_eq!(json("squares(3)"), "[0,1,4]\n");
    assert_eq!(json("(open,)"), "[{\"$ref\":\"open(path, mode=\\\"r\\\")\"}]\n");
    assert_eq!(json("open"), "{\"$ref\":\"open(path, mode=\\\"r\\\")\"}\n");
    assert_eq!(json("{\"a\": 1, \"$b\": none}"), "{\"$map\":[[\"a\",1],[\"$b\",null]]}\n");
    let stat = json("stat(\"notes.txt\")");
    let stat: serde_json::Value = serde_json::from_str(&stat).expect("JSON");
    assert_eq!((stat["kind"].as_str(), stat["size"].as_u64()), (Some("file"), Some(14)));
    assert_eq!(farref(["call", "--json", "--raw", "pipe:false", "x"]).code, Some(2));
}

#[test]
fn raw_adds_nothing() {
    let served = Served::new();
    fs::write(served.root().join("bytes"), [0, 159, 146, 150]).expect("a file");
    let output = Command::new(FARREF)
        .args(["call", "--raw", &served.url(""), "open(\"bytes\", \"rb\").read()"])
        .output()
        .expect("it runs");
    assert_eq!(output.stdout, [0, 159, 146, 150]);
    let raw = |expr: &str| farref(["call", &served.url("--demo"), expr, "--raw"]);
    assert_eq!(raw("echo(\"no newline\")").printed(), "no newline");
    assert!(raw("echo(1)").failed(2).starts_with("--raw writes strings and bytes"));
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let served = Served::new();
    let line = format!("'{FARREF}' call \"$0\" 'squares(100000)' | head -n 1; exit ${{PIPESTATUS[0]}}");
    let left = run(Command::new("bash").args(["-c", &line, &served.url("--demo")]));
    assert_eq!((left.printed(), &*left.stderr), ("0\n", ""));
    let full = run(Command::new("sh").args(["-c", &format!("'{FARREF}' call \"$0\" 1 > /dev/full"), &served.url("")]));
    assert!(full.failed(4).starts_with("cannot write the result"));
}

#[test]
fn help_tells_the_exit_codes() {
    for args in [&["--help"][..], &["call", "--help"], &["serve", "--help"], &["ls", "--help"], &["demo", "--help"]] {
        let help = run(Command::new(FARREF).args(args));
        assert!(help.printed().contains("Exit codes:\n  0  all went well\n  1  "), "{args:?}");
    }
}
