//! LNK-20 to LNK-27, FRM-3: sessions over lines that lose, change and repeat bytes.

#[cfg(all(unix, feature = "serial"))]
mod cable;
mod served;

use std::io::ErrorKind;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use farref_conformance::faults::{BAD, Faults, Plug, line};
use farref_conformance::sim::Random;
use farref_tokio::{
    AsyncFunction, CloseCode, Connection, Directory, Ended, Error, Function, Key, LineOptions, Options, Proxy,
    Reference, Remote, Value, start_line,
};
use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

/// No test takes longer, in the time of its runtime.
const LIMIT: Duration = Duration::from_secs(3600);

/// What a side has been called with, in that order.
type Log = Arc<Mutex<Vec<i64>>>;

/// `note(n)` notes a number, `make(n)` gives an object that gives it, `apply(f, x)` calls back, `keep(f)` keeps what `kept()`
/// calls and `forget()` lets go of.
fn directory(log: &Log) -> Directory {
    let log = log.clone();
    let kept = Arc::new(Mutex::new(None::<Proxy>));
    let (keeping, forgetting) = (kept.clone(), kept.clone());
    let number = |value: Option<&Value>| value.and_then(Value::as_int).ok_or_else(|| Error::bad_arguments("a number"));
    Directory::new()
        .with(
            "note",
            "",
            Function::inline(move |args| {
                let number = number(args.get(0))?;
                log.lock().expect("no panic").push(number);
                Ok(number.into())
            }),
        )
        .with(
            "make",
            "",
            Function::inline(move |args| {
                let number = number(args.get(0))?;
                Ok(Reference::local(Function::inline(move |_| Ok(number.into()))).into())
            }),
        )
        .with(
            "apply",
            "",
            AsyncFunction::new(|mut args| async move {
                let argument = args.positional.remove(1);
                Proxy::try_from(args.positional.remove(0))
                    .map_err(|_| Error::bad_arguments("a function"))?
                    .call([argument])
                    .await
            }),
        )
        .with(
            "keep",
            "",
            Function::inline(move |mut args| {
                let new = Proxy::try_from(args.positional.remove(0)).map_err(|_| Error::bad_arguments("a function"))?;
                *keeping.lock().expect("no panic") = Some(new);
                Ok(Value::None)
            }),
        )
        .with(
            "kept",
            "",
            AsyncFunction::new(move |_| {
                let kept = kept.lock().expect("no panic").clone();
                async move { kept.ok_or_else(|| Error::raise("KeyError", "nothing is kept"))?.call(()).await }
            }),
        )
        .with(
            "forget",
            "",
            Function::inline(move |_| {
                *forgetting.lock().expect("no panic") = None;
                Ok(Value::None)
            }),
        )
}

/// A side, and what it was called with.
struct Side {
    connection: Connection,
    log: Log,
}

/// Two sides with a bad line between them.
async fn sides(faults: Faults, plug: &Plug, seed: u64, options: LineOptions) -> [Side; 2] {
    let (a, b) = line(faults, plug, seed);
    let begin = |stream: DuplexStream| {
        let (log, options) = (Log::default(), options.clone());
        async move {
            let started =
                start_line(stream, directory(&log), Options { handshake: LIMIT, ..Options::default() }, options);
            Side { connection: started.await.expect("the other side is there"), log }
        }
    };
    let (a, b) = tokio::join!(begin(a), begin(b));
    [a, b]
}

/// Waits, in the time of the runtime.
async fn until(what: &str, settled: impl Fn() -> bool) {
    let settled = async {
        while !settled() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LIMIT, settled).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}

/// A side does something with the other one.
async fn act(side: &Side, random: &mut Random, number: i64) {
    let root = side.connection.root();
    match random.below(6) {
        0 | 1 => assert_eq!(root.invoke("note", [number]).await, Ok(number.into())),
        2 => {
            let made = root.promise("make", [number]).await.expect("it is called");
            assert_eq!(made.call(()).await, Ok(number.into()), "pipelined");
            let made = Proxy::try_from(made.settled().await.expect("it is made")).expect("an object of the peer");
            assert_eq!(made.call(()).await, Ok(number.into()));
        }
        3 => {
            let callback =
                Function::inline(move |args| Ok((args.get(0).and_then(Value::as_int).unwrap_or(0) + 1).into()));
            let called = root.invoke("apply", [Reference::local(callback).into(), Value::from(number)]);
            assert_eq!(called.await, Ok((number + 1).into()));
        }
        4 => {
            let kept = Function::inline(move |_| Ok(number.into()));
            assert_eq!(root.invoke("keep", [Reference::local(kept)]).await, Ok(Value::None));
            assert_eq!(root.invoke("kept", ()).await, Ok(number.into()));
        }
        _ => {
            let long = "x".repeat(random.below(200) as usize);
            let error = root.invoke(&long, ()).await.expect_err("there is no such name");
            assert!(error.to_string().contains("no such name"), "{error}");
        }
    }
}

/// Both use each other, many at a time; then each has been called once for each call, and nothing is left.
async fn use_each_other(sides: &[Side; 2], seed: u64, turns: i64) {
    let mut random = Random::new(seed ^ 0x5EED);
    for turn in 0..turns {
        let mut random = [(); 2].map(|()| Random::new(random.below(u64::MAX)));
        let [one, two] = &mut random;
        tokio::join!(act(&sides[0], one, turn), act(&sides[1], two, 1000 + turn));
    }
    // Exactly once, and in order: calls of one side that do not wait for each other.
    for side in sides {
        let root = side.connection.root();
        let mut calls = Vec::new();
        for number in 0..40 {
            calls.push(root.start("note", [10_000 + number]).await.expect("it is called"));
        }
        for (number, call) in (0..40).zip(calls) {
            assert_eq!(call.await, Ok((10_000 + number).into()));
        }
        assert_eq!(root.invoke("forget", ()).await, Ok(Value::None));
    }
    for side in sides {
        let noted = side.log.lock().expect("no panic").clone();
        assert!(noted.is_sorted_by(|a, b| a < b), "each call once, in order: {noted:?}");
        assert_eq!(noted.iter().filter(|&&number| number >= 10_000).count(), 40);
    }
    until("nothing is left", || sides.iter().all(|side| side.connection.is_at_baseline())).await;
}

#[tokio::test(start_paused = true)]
async fn a_good_line_carries_a_session() {
    let sides = sides(Faults::default(), &Plug::default(), 1, LineOptions::default()).await;
    use_each_other(&sides, 1, 20).await;
}

/// LNK-23 to LNK-26: 10 % of bytes disturbed in bursts, frames lost and repeated.
#[tokio::test(start_paused = true)]
async fn a_bad_line_loses_nothing() {
    for seed in 0..8 {
        println!("seed {seed}");
        let short = LineOptions { max_message: 256, ..LineOptions::default() };
        let options = if seed % 2 == 0 { short } else { LineOptions::at(115_200) };
        let plug = Plug::default();
        let sides = sides(BAD, &plug, seed, options).await;
        use_each_other(&sides, seed, 25).await;
        assert!((50..200).contains(&plug.disturbed()), "{} of 1,000 bytes were disturbed", plug.disturbed());
        let [a, b] = sides;
        // Both learn of the end, and why.
        let closing = async {
            a.connection.close();
            a.connection.closed().await
        };
        assert_eq!(
            tokio::join!(closing, b.connection.closed()),
            (Ended::Closed(CloseCode::Leaving), Ended::PeerClosed(CloseCode::Leaving))
        );
    }
}

/// A line whose plug is pulled for a while goes on, and its session does not notice.
#[tokio::test(start_paused = true)]
async fn a_line_that_is_silent_for_a_while_goes_on() {
    let plug = Plug::default();
    // Bursts would add to the silence.
    let sides = sides(Faults { disturbed: 0, ..BAD }, &plug, 3, LineOptions::default()).await;
    let root = sides[0].connection.root();
    for number in 0..5 {
        plug.pull(true);
        let call = root.start("note", [number]).await.expect("it is called");
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert!(sides[1].log.lock().expect("no panic").len() == number as usize, "nothing comes through");
        plug.pull(false);
        assert_eq!(call.await, Ok(number.into()));
    }
    plug.pull(true);
    // Who waits for something learns it from that; the other one says that it is there, and waits for an answer to that.
    let lost = root.invoke("note", [5]).await.expect_err("for too long");
    assert_eq!((lost.ended(), lost.may_have_started()), (Some(Ended::LinkLost), true));
    assert!(matches!(sides[1].connection.closed().await, Ended::Silent | Ended::LinkLost));
}

/// Many tasks of both sides share a line, on many threads.
#[tokio::test(flavor = "multi_thread")]
async fn many_tasks_share_a_line() {
    const TASKS: i64 = 8;
    const CALLS: i64 = 40;
    let few = Faults { lost: 2, repeated: 20, disturbed: 0 };
    let sides = sides(few, &Plug::default(), 9, LineOptions::at(10_000_000)).await;
    let mut tasks = Vec::new();
    for side in &sides {
        for task in 0..TASKS {
            let root = side.connection.root();
            tasks.push(tokio::spawn(async move {
                for call in 0..CALLS {
                    let number = task * CALLS + call;
                    let doubled =
                        Function::inline(move |args| Ok((2 * args.get(0).and_then(Value::as_int).unwrap_or(0)).into()));
                    let applied = root.invoke("apply", [Reference::local(doubled).into(), Value::from(number)]);
                    assert_eq!(applied.await, Ok((2 * number).into()));
                    assert_eq!(root.invoke("note", [number]).await, Ok(number.into()));
                }
            }));
        }
    }
    for task in tasks {
        tokio::time::timeout(Duration::from_secs(60), task).await.expect("in time").expect("no panic");
    }
    for side in &sides {
        let mut noted = side.log.lock().expect("no panic").clone();
        noted.sort_unstable();
        assert!(noted.iter().copied().eq(0..TASKS * CALLS), "each call once");
    }
    until("nothing is left", || sides.iter().all(|side| side.connection.is_at_baseline())).await;
}

/// KEY-7: somebody who asks for a key is told that there is none on a line.
#[tokio::test]
async fn a_key_is_refused_on_a_line() {
    let (near, _far) = duplex(64);
    let options = Options { key: Some(Key::new(&[7; 32]).expect("a key")), ..Options::default() };
    let refused = start_line(near, Directory::new(), options, LineOptions::default()).await.expect_err("a key");
    assert!(matches!(&refused, Error::Io(ErrorKind::Unsupported, text) if text.contains("key")), "{refused}");
}

/// What is told of a line without a peer: nothing comes, something else comes, what is said comes back, or it ends.
#[tokio::test(start_paused = true)]
async fn what_is_no_peer_is_told() {
    let begin = |near| start_line(near, Directory::new(), Options::default(), LineOptions::default());
    let told = |begun: Result<Connection, Error>| begun.expect_err("nobody is there").to_string();

    let (near, _far) = duplex(64);
    assert_eq!(told(begin(near).await), "nobody answered within 10s");

    let (near, mut far) = duplex(64);
    let babble = async {
        // It ends with the session.
        while far.write_all(b"U-Boot 2026.01 console>").await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let (begun, ()) = tokio::join!(begin(near), babble);
    let told_of_noise = told(begun);
    assert!(told_of_noise.contains("bytes came that are no farref: is it the right baud rate?"), "{told_of_noise}");

    let (near, far) = duplex(4096);
    tokio::spawn(async move {
        let (mut from, mut to) = tokio::io::split(far);
        tokio::io::copy(&mut from, &mut to).await
    });
    let told_of_echo = told(begin(near).await);
    assert!(told_of_echo.contains("none for us: is it an echo?"), "{told_of_echo}");

    let (near, far) = duplex(64);
    drop(far);
    assert_eq!(begin(near).await.expect_err("the line has ended"), Error::NoPeer);
}

/// Frames leave at the speed of the line, and no sooner.
#[tokio::test(start_paused = true)]
async fn frames_are_paced() {
    let slow = LineOptions { max_message: 256, ..LineOptions::at(9600) };
    let sides = sides(Faults::default(), &Plug::default(), 1, slow).await;
    let root = sides[0].connection.root();
    let (begin, before) = (tokio::time::Instant::now(), sides[0].connection.traffic().bytes);
    for number in 0..50 {
        assert_eq!(root.invoke("note", [number]).await, Ok(number.into()));
    }
    // Each side sends half of them, and a frame only when the one before has left.
    let bytes = sides[0].connection.traffic().bytes - before;
    let line = Duration::from_micros(bytes / 2 * 10 * 1_000_000 / 9600);
    let took = begin.elapsed();
    assert!(took >= line * 9 / 10 && took <= line * 3, "{bytes} bytes in {took:?}, {line:?} at least");
}
