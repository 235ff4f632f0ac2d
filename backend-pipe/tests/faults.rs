//! Peers that misbehave, limits that are reached, and references that cross several connections.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use common::{echo, open, pair, pair_with, until};
use farref_core::codec::Writer;
use farref_core::frame::{BANNER_LIMIT, PREAMBLE};
use farref_core::message::{CloseCode, Message};
use farref_core::session::Rule;
use farref_pipe::{
    Action, Args, CallError, ChildProcess, Connection, Directory, Ended, Error, ErrorCode, Function, Key, KeyFailure,
    KeyRefusal, Object, Options, Reference, Remote, Value,
};

/// What a scripted peer has sent, and what comes back.
fn scripted(bytes: &[u8]) -> Result<Connection, Error> {
    let (left, mut right) = UnixStream::pair().expect("a socket pair");
    right.write_all(bytes).expect("written");
    right.shutdown(std::net::Shutdown::Write).expect("the end");
    thread::spawn(move || right.read_to_end(&mut Vec::new()));
    farref_pipe::open(left.try_clone().expect("a clone"), left, Directory::new(), Options::default())
}

/// A Hello with generous limits.
fn hello() -> Vec<u8> {
    let mut body = [0; 64];
    let mut writer = Writer::new(&mut body);
    writer.put(&[0x10, 1, 1, 0]);
    [4096u64, 64, 8, 4096, 8, 8].iter().for_each(|limit| writer.varint(*limit));
    writer.put(&[7; 16]);
    writer.varint(1);
    record(writer.written().expect("it fits"))
}

fn record(body: &[u8]) -> Vec<u8> {
    let mut record = vec![body.len() as u8];
    record.extend_from_slice(body);
    record
}

/// FRM-1: no preamble before the end, or behind too long a banner; a banner of the right length is fine.
#[test]
fn what_is_no_peer_is_told_as_such() {
    assert!(matches!(scripted(b""), Err(Error::NoPeer)));
    assert!(matches!(scripted(b"Last login: yesterday\n"), Err(Error::NoPeer)));
    assert!(matches!(scripted(&[b'x'; BANNER_LIMIT + 100]), Err(Error::NoPeer)));
    let banner = [vec![b'x'; BANNER_LIMIT], PREAMBLE.to_vec(), hello()].concat();
    assert!(scripted(&banner).is_ok());
}

/// KEY-2: a peer that begins the key check is told from no peer; and a key that cannot be checked is not left out.
#[test]
fn a_peer_that_wants_a_key_is_told_as_such() {
    let wanted = Error::Key(KeyFailure::Refused(KeyRefusal::KeyWanted));
    for refusal in [&b"\xFFfarkey\n\x01\x05\x01"[..], b"Welcome\n\xFFfarkey\n\x01\x01"] {
        assert_eq!(scripted(refusal).expect_err("there is no session"), wanted);
    }
    assert_eq!(wanted.to_string(), "the peer wants a key");
    let (left, _right) = UnixStream::pair().expect("a socket pair");
    let options = Options { key: Key::new(&[1; 32]).ok(), ..Options::default() };
    let refused = farref_pipe::open(left.try_clone().expect("a clone"), left, Directory::new(), options);
    let unsupported = Error::Io(ErrorKind::Unsupported, "a key cannot be checked over pipes yet".into());
    assert_eq!(refused.expect_err("it would not be checked"), unsupported);
}

/// HEL-5: a channel that gives back what is written into it has no peer behind it.
#[test]
fn an_echo_is_no_peer() {
    let (left, right) = UnixStream::pair().expect("a socket pair");
    let mut write = right.try_clone().expect("a clone");
    thread::spawn(move || std::io::copy(&mut { right }, &mut write));
    let opened = farref_pipe::open(left.try_clone().expect("a clone"), left, Directory::new(), Options::default());
    assert!(matches!(opened, Err(Error::NoPeer)));
}

/// Who says nothing, or only a banner, or half a Hello, is waited for no longer than is said.
#[test]
fn silence_is_waited_for_as_long_as_is_said() {
    let limit = Duration::from_millis(50);
    let options = Options { handshake: limit, ..Options::default() };
    for said in [&b""[..], b"Password: ", &PREAMBLE, &[&PREAMBLE[..], &hello()[..20]].concat()] {
        let (left, mut right) = UnixStream::pair().expect("a socket pair");
        right.write_all(said).expect("written");
        let start = Instant::now();
        let read = left.try_clone().expect("a clone");
        let opened = farref_pipe::open(read, left, Directory::new(), options.clone());
        let error = opened.expect_err("nobody answers");
        assert_eq!(error, Error::Io(std::io::ErrorKind::TimedOut, "no farref peer answered within 50ms".into()));
        assert!(start.elapsed() >= limit);
    }
    let mut sleep = std::process::Command::new("sleep");
    let opened = ChildProcess::spawn(sleep.arg("1000"), Directory::new(), options);
    let error = opened.err().expect("nobody answers").to_string();
    assert_eq!(error, "sleep: no farref peer answered within 50ms");
}

/// CLS-1, FRM-2: a fault ends the session with a Close that names the rule, and every call with a typed error.
#[test]
fn a_faulty_peer_is_told_the_rule_it_broke() {
    let (left, mut right) = UnixStream::pair().expect("a socket pair");
    right.write_all(&[PREAMBLE.to_vec(), hello()].concat()).expect("written");
    let connection = open(left, Directory::new(), Options::default());
    let call = connection.root().start("anything", ()).expect("a call");
    // A Return to a call that nobody made.
    right.write_all(&record(&[0x01, 5])).expect("written");
    assert_eq!(call.wait(), Err(Error::Ended(Ended::PeerFault(Rule::ReturnWithoutCall))));
    assert_eq!(connection.wait_closed(), Ended::PeerFault(Rule::ReturnWithoutCall));
    drop(connection);
    right.shutdown(std::net::Shutdown::Write).expect("the end");
    let mut sent = Vec::new();
    right.read_to_end(&mut sent).expect("all of it");
    let mut rest = &sent[PREAMBLE.len()..];
    let mut last = None;
    while let farref_core::frame::Split::Record { body, rest: after } = farref_core::frame::split(rest, 1 << 20) {
        (last, rest) = (Some(body), after);
    }
    match Message::read(last.expect("a last message")).expect("well formed") {
        Message::Close(close) => assert_eq!((close.code, close.rule), (CloseCode::ProtocolFault, "CAL-2")),
        other => panic!("not a Close: {other:?}"),
    }
}

/// FRM-2: a record that is too long is the peer's fault, told before it is read.
#[test]
fn an_endless_record_ends_the_session() {
    let bytes = [PREAMBLE.to_vec(), hello(), vec![0xFF, 0xFF, 0xFF, 0xFF, 0x0F]].concat();
    // Hello may be taken before the fault is seen, or the fault may come first.
    match scripted(&bytes) {
        Ok(connection) => assert_eq!(connection.wait_closed(), Ended::PeerFault(Rule::FrameLength)),
        Err(error) => assert_eq!(error, Error::Ended(Ended::PeerFault(Rule::FrameLength))),
    }
}

/// ANS-6: a call on an answer that came home is forwarded to its caller.
#[test]
fn a_promise_that_comes_home_is_forwarded() {
    let (client, server) = pair(Directory::new(), echo());
    let mine = Reference::local(Function::new(|args| Ok(Value::Tuple(args.positional.into_vec()))));
    let home = client.root().promise("echo", [mine]).expect("a promise");
    let before = client.traffic().round_trips;
    assert_eq!(home.call([1, 2]), Ok(Value::Tuple(vec![1.into(), 2.into()])));
    assert!(client.traffic().round_trips - before <= 2);
    // Settled by now: the call is local.
    home.wait().expect("it came home");
    assert_eq!(home.call([3]), Ok(Value::Tuple(vec![3.into()])));
    drop(home);
    until(|| client.is_at_baseline() && server.is_at_baseline());
}

/// An object of C, handed on by B to A, works there and is itself again at C.
#[test]
fn references_travel_through_the_middle() {
    let (b_to_c, c) = pair(
        Directory::new(),
        Directory::new().with(
            "make",
            "",
            Function::new(|_| Ok(Reference::local(Function::new(|args| Ok(args.positional[0].clone()))).into())),
        ),
    );
    let upstream = b_to_c.clone();
    let (a, b_to_a) = pair(
        Directory::new(),
        Directory::new().with("fetch", "", Function::new(move |_| upstream.root().invoke("make", ()))).with(
            "same",
            "",
            {
                let upstream = b_to_c.clone();
                Function::new(move |args| {
                    // Back at B it is the proxy of C's object, not a proxy of a proxy.
                    match &args.positional[0] {
                        Value::Reference(Reference::Remote(proxy)) => Ok(Value::Bool(proxy.call([1]) == Ok(1.into()))),
                        _ => Ok(Value::from(format!("{:?}", upstream.tables()))),
                    }
                })
            },
        ),
    );
    let fetched = a.root().invoke("fetch", ()).expect("an object of C");
    let Value::Reference(Reference::Remote(proxy)) = &fetched else { panic!("no reference: {fetched:?}") };
    assert_eq!(proxy.call(["hello"]), Ok("hello".into()));
    assert_eq!(a.root().invoke("same", [fetched.clone()]), Ok(true.into()));
    drop(fetched);
    until(|| [&a, &b_to_a, &b_to_c, &c].into_iter().all(Connection::is_at_baseline));
}

/// Calls itself through the other side, as deep as it is told.
struct Deeper;

impl Object for Deeper {
    fn perform(&self, action: Action<'_>, args: Args) -> Result<Value, Error> {
        match (action, &args.positional[..]) {
            (Action::Call, [Value::Reference(Reference::Remote(other)), Value::Int(left)]) if *left > 0 => {
                other.call(Args::default().and(Reference::local(Deeper)).and(left - 1))
            }
            (Action::Call, _) => Ok(Value::from("bottom")),
            (other, _) => other.unsupported(),
        }
    }
}

/// N12, ADM-2, ADM-4: callbacks within callbacks end at a limit, by an error and not by a hang.
#[test]
fn nesting_is_bounded() {
    let server = || Directory::new().with("deeper", "", Deeper);
    let dive = |client: &Connection, depth: i64| {
        let mine = Reference::local(Deeper);
        client.root().invoke("deeper", Args::default().and(mine).and(depth)).map_err(|error| error.to_string())
    };
    let (client, other) = pair(Directory::new(), server());
    assert_eq!(dive(&client, 31), Ok("bottom".into()));
    assert_eq!(dive(&client, 10_000), Err(format!("RuntimeError: {}", CallError::TooDeep)));
    until(|| client.is_at_baseline() && other.is_at_baseline());

    let few = Options { serving: 3, ..Options::default() };
    let (client, other) = pair_with(Directory::new(), few.clone(), server(), few);
    assert_eq!(dive(&client, 5), Ok("bottom".into()));
    assert_eq!(dive(&client, 6), Err(format!("RuntimeError: {}", CallError::Overloaded)));
    until(|| client.is_at_baseline() && other.is_at_baseline());
}

/// ADM-2: calls without a parent wait for credit instead.
#[test]
fn callers_wait_for_credit() {
    let one = Options { serving: 1, ..Options::default() };
    let (client, _server) = pair_with(Directory::new(), Options::default(), echo(), one);
    thread::scope(|scope| {
        for number in 0..8 {
            let root = client.root();
            scope.spawn(move || {
                for _ in 0..50 {
                    assert_eq!(root.invoke("echo", [number]), Ok(number.into()));
                }
            });
        }
    });
}

/// ADM-5: a result that is too large is an error with its size; the session goes on.
#[test]
fn a_result_that_is_too_large_is_told() {
    let small = Options { max_message: 1000, ..Options::default() };
    let blob = Directory::new().with(
        "blob",
        "",
        Function::new(|args| Ok(Value::Bytes(vec![0; args.positional[0].as_int().unwrap_or(0) as usize]))),
    );
    let (client, _server) = pair_with(Directory::new(), small, blob, Options::default());
    assert!(client.root().invoke("blob", [900]).is_ok());
    match client.root().invoke("blob", [5000]) {
        Err(Error::Refused(ErrorCode::ResultTooLarge, values)) => assert!(values[0].as_int() > Some(5000)),
        other => panic!("{other:?}"),
    }
    assert!(client.root().invoke("blob", [10]).is_ok());
    let server = Options { max_message: 1000, ..Options::default() };
    let (client, _server) = pair_with(Directory::new(), Options::default(), echo(), server);
    let large = client.root().invoke("echo", [Value::Bytes(vec![0; 5000])]);
    assert!(matches!(large, Err(Error::NotMade(CallError::TooLarge(5000..)))), "{large:?}");
}

/// A panic of an object is its own: the caller gets an exception, and the connection goes on.
#[test]
fn an_object_that_panics_raises() {
    let server = echo().with("panic", "", Function::new(|_| panic!("out of cheese")));
    let (client, _server) = pair(Directory::new(), server);
    let error = client.root().invoke("panic", ()).expect_err("it panics");
    assert_eq!(error.to_string(), "RuntimeError: the object panicked: out of cheese");
    assert_eq!(client.root().invoke("echo", [1]), Ok(1.into()));
}

/// N07: exactly the same arguments after hops through both sides.
#[test]
fn exceptions_keep_their_arguments_over_hops() {
    let relay = || {
        Directory::new().with(
            "relay",
            "",
            Function::new(|args| match &args.positional[..] {
                [Value::Reference(Reference::Remote(next)), Value::Int(hops)] if *hops > 0 => {
                    next.call(Args::default().and(Reference::local(Relay)).and(hops - 1))
                }
                _ => Relay.perform(Action::Call, args),
            }),
        )
    };
    struct Relay;
    impl Object for Relay {
        fn perform(&self, _: Action<'_>, args: Args) -> Result<Value, Error> {
            match &args.positional[..] {
                [Value::Reference(Reference::Remote(next)), Value::Int(hops)] if *hops > 0 => {
                    next.call(Args::default().and(Reference::local(Relay)).and(hops - 1))
                }
                _ => Err(Error::raise_with("KeyError", vec![("inner",).0.into(), Value::Tuple(vec![1.into()])])),
            }
        }
    }
    let (client, _server) = pair(Directory::new(), relay());
    let args = Args::default().and(Reference::Local(Arc::new(Relay))).and(7);
    let error = client.root().invoke("relay", args).expect_err("it raises");
    let exception = error.exception().expect("an exception");
    assert_eq!(
        (exception.name.as_str(), &exception.args[..]),
        ("KeyError", &["inner".into(), Value::Tuple(vec![1.into()])][..],)
    );
}
