//! What evaluation costs: counted, between two connections in this process.

use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use farref_pipe::{Directory, ErrorCode, Function, Options};

use super::*;
use crate::expr::parse;

/// Both ends: the peer has `echo` and `list`, which makes a list by reference of its arguments.
fn pair() -> (Connection, Connection) {
    let (left, right) = UnixStream::pair().expect("a pair");
    let echo = Function::new(|args: Args| args.get(0).cloned().ok_or_else(|| Error::bad_arguments("echo(value)")));
    let list = Function::new(|args: Args| Ok(Reference::local(List::new(args.positional.into_vec())).into()));
    let directory = Directory::new().with("echo", "", echo).with("list", "", list);
    let open = |stream: UnixStream, directory| {
        farref_pipe::open(stream.try_clone().expect("a clone"), stream, directory, Options::default())
            .expect("it opens")
    };
    let peer = thread::spawn(move || open(right, directory));
    (open(left, Directory::new()), peer.join().expect("it opens"))
}

fn until(settled: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !settled() {
        assert!(Instant::now() < deadline, "not settled");
        thread::sleep(Duration::from_millis(1));
    }
}

/// B1, ANS-2: round trips by expression.
#[test]
fn b1_what_need_not_be_waited_for_is_not() {
    let (connection, peer) = pair();
    let five = "echo((echo(1), echo(2), echo(3), echo(4), echo(5)))";
    for (source, round_trips) in [
        ("[1, 2].pop()", 0),
        ("echo(1)", 1),
        ("list(1, 2).pop()", 1),
        ("list(list(1, 2))[0][1]", 1),
        ("echo(echo(echo(echo(1))))", 1),
        ("echo(value=1)", 1),
        ("(echo(1), list(2).pop(), list)", 1),
        // More promises than a message may name: two of them are waited for.
        (five, 2),
        // What is in a list of ours has to be known when it is lent.
        ("echo([echo(1), echo(2)])", 2),
    ] {
        let expr = parse(source).expect("it parses");
        let before = connection.traffic().round_trips;
        let result = evaluate(&connection, &expr, &Steps::default());
        assert_eq!(connection.traffic().round_trips - before, round_trips, "{source}");
        assert_eq!(result.is_err(), source.contains('='), "{source}: {result:?}");
        drop(result);
        until(|| connection.is_at_baseline() && peer.is_at_baseline());
    }
}

/// A name and the call of it are one message; the last call needs no promise.
#[test]
fn b1_a_pipelined_read_is_six_messages() {
    let (connection, peer) = pair();
    let before = connection.traffic().messages;
    let value =
        evaluate(&connection, &parse("list(7, 8).pop()").expect("it parses"), &Steps::default()).expect("a value");
    assert_eq!(value, 8.into());
    until(|| connection.is_at_baseline() && peer.is_at_baseline());
    // Two calls, two returns, the end of the promise and the release of the list.
    assert_eq!(connection.traffic().messages - before, 6);
}

#[test]
fn the_step_that_failed_first_is_found() {
    let (connection, _peer) = pair();
    for (source, place, code) in [
        ("nothing(1).pop()", "nothing", ErrorCode::NoSuchMember),
        ("list(echo(list()[\"k\"])).pop().x", "[\"k\"]", ErrorCode::BadArguments),
        ("echo(list(1).push(2))", ".push", ErrorCode::NoSuchMember),
        ("echo(1)(2)", "(2)", ErrorCode::Unsupported),
        ("list([echo()])", "echo()", ErrorCode::BadArguments),
    ] {
        let fault = evaluate(&connection, &parse(source).expect("it parses"), &Steps::default()).expect_err("it fails");
        assert_eq!(&source[fault.span.start..fault.span.end], place, "{source}: {fault:?}");
        assert!(matches!(fault.error, Error::Refused(found, _) if found == code), "{source}: {fault:?}");
    }
}
