//! Two peers over sockets and in memory: values, references, callbacks, pipelining, many tasks.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use farref_tokio::{
    Action, Args, AsyncFunction, CloseCode, Connection, Directory, Ended, Error, Function, Member, MemberKind, Object,
    Options, Peer, Proxy, Reference, Remote, Server, ServerOptions, Value,
};
use tokio::io::BufStream;
use tokio::sync::Semaphore;

/// What the tests call.
fn directory() -> Directory {
    Directory::new()
        .with("echo", "gives back its argument", Function::inline(|mut args| Ok(args.positional.remove(0))))
        .with("slow_echo", "the same, on a thread", Function::new(|mut args| Ok(args.positional.remove(0))))
        .with(
            "apply",
            "calls its first argument with its second",
            AsyncFunction::new(|mut args| async move {
                let argument = args.positional.remove(1);
                let function =
                    Proxy::try_from(args.positional.remove(0)).map_err(|_| Error::bad_arguments("a function"))?;
                function.call([argument]).await
            }),
        )
        .with(
            "identity",
            "an object",
            Function::inline(|_| {
                Ok(Reference::local(Function::inline(|args| {
                    Ok(args.positional.into_iter().next().unwrap_or(Value::None))
                }))
                .into())
            }),
        )
}

async fn over_tcp() -> (Connection, Server) {
    served_by(directory()).await
}

async fn until(settled: impl Fn() -> bool) {
    for _ in 0..5000 {
        if settled() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("not settled within five seconds");
}

fn are_at_baseline(client: &Connection, server: &Server) -> bool {
    client.is_at_baseline() && server.connections().iter().all(Connection::is_at_baseline)
}

#[tokio::test]
async fn calls_go_both_ways_on_one_thread() {
    calls_go_both_ways().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_go_both_ways_on_many_threads() {
    calls_go_both_ways().await;
}

async fn calls_go_both_ways() {
    let (client, server) = over_tcp().await;
    let root = client.root();
    assert_eq!(root.invoke("echo", [7]).await, Ok(7.into()));
    assert_eq!(root.invoke("slow_echo", ["x"]).await, Ok("x".into()));
    let seen = Arc::new(AtomicI64::new(0));
    let see = seen.clone();
    let callback = Reference::local(Function::inline(move |args| {
        see.fetch_add(args.get(0).and_then(Value::as_int).unwrap_or(0), Ordering::SeqCst);
        Ok(Value::from(see.load(Ordering::SeqCst)))
    }));
    assert_eq!(root.invoke("apply", [callback.into(), Value::Int(5)]).await, Ok(5.into()));
    assert_eq!(seen.load(Ordering::SeqCst), 5);
    until(|| are_at_baseline(&client, &server)).await;
}

/// An object that waits until it is told to go on, and counts those that wait.
fn gate() -> (Directory, Arc<Semaphore>, Arc<AtomicI64>) {
    let (gate, waiting) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicI64::new(0)));
    let (gate_there, waiting_there) = (gate.clone(), waiting.clone());
    let wait = AsyncFunction::new(move |_| {
        let (gate, waiting) = (gate_there.clone(), waiting_there.clone());
        async move {
            waiting.fetch_add(1, Ordering::SeqCst);
            gate.acquire().await.map_err(|_| Error::raise("RuntimeError", "closed"))?.forget();
            Ok(Value::from("open"))
        }
    });
    (directory().with("wait", "until the gate opens", wait), gate, waiting)
}

async fn served_by(directory: Directory) -> (Connection, Server) {
    let server = Server::new(directory, ServerOptions::default());
    let address = server.listen_tcp("127.0.0.1:0").await.expect("it listens");
    let client = farref_tokio::connect_tcp(address, Directory::new(), Options::default()).await.expect("it connects");
    // The client's Hello may still be under way.
    until(|| server.counters().open == 1).await;
    (client, server)
}

#[tokio::test]
async fn a_pending_call_that_is_dropped_is_cancelled() {
    let (directory, _gate, waiting) = gate();
    let (client, server) = served_by(directory).await;
    for pipelined in [false, true] {
        let messages = client.traffic().messages;
        match pipelined {
            false => drop(client.root().start("wait", ()).await.expect("it is sent")),
            true => drop(client.root().promise("wait", ()).await.expect("it is sent")),
        }
        // The call, its Finish, and its Return, which nobody waits for (FIN-2).
        until(|| client.traffic().messages == messages + 3 && are_at_baseline(&client, &server)).await;
        waiting.store(0, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn a_future_that_is_dropped_before_it_was_polled_sends_nothing() {
    let (client, _server) = over_tcp().await;
    let messages = client.traffic().messages;
    drop(client.root().invoke("echo", [1]));
    assert_eq!(client.root().invoke("echo", [2]).await, Ok(2.into()));
    assert_eq!(client.traffic().messages, messages + 2);
}

#[tokio::test]
async fn a_proxy_that_is_dropped_is_released() {
    let (client, server) = over_tcp().await;
    let there = server.connections().remove(0);
    let one = client.root().invoke("identity", ()).await.expect("an object");
    let other = client.root().invoke("identity", ()).await.expect("an object");
    let copy = one.clone();
    assert_eq!((client.tables().imports, there.tables().exports), (2, 3));
    drop(one);
    drop(other);
    until(|| there.tables().exports == 2).await;
    drop(copy);
    until(|| are_at_baseline(&client, &server)).await;
}

#[tokio::test]
async fn many_connections_to_one_server() {
    let server = Server::new(directory(), ServerOptions::default());
    let address = server.listen_tcp("127.0.0.1:0").await.expect("it listens");
    let mut clients = Vec::new();
    for number in 0..100 {
        let client = farref_tokio::connect_tcp(address, Directory::new(), Options::default()).await;
        clients.push(client.expect("it connects"));
        assert_eq!(clients[number].root().invoke("echo", [number as i64]).await, Ok((number as i64).into()));
    }
    assert_eq!((server.counters().open, server.connections().len()), (100, 100));
    drop(clients);
    until(|| server.counters().open == 0).await;
    assert_eq!((server.counters().sessions, server.counters().failed), (100, 0));
}

/// A28: a connection is shared by as many tasks as one likes.
#[tokio::test(flavor = "multi_thread")]
async fn many_tasks_on_one_connection() {
    fn is_shared<T: Clone + Send + Sync + 'static>(_: &T) {}
    let (client, server) = over_tcp().await;
    is_shared(&client);
    is_shared(&client.root());
    let tasks = (0..500).map(|task: i64| {
        let client = client.clone();
        tokio::spawn(async move {
            for round in 0..10 {
                let method = ["echo", "slow_echo"][(task + round) as usize % 2];
                assert_eq!(client.root().invoke(method, [task * 100 + round]).await, Ok((task * 100 + round).into()));
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.expect("each has its own answers");
    }
    until(|| are_at_baseline(&client, &server)).await;
}

#[tokio::test]
async fn what_is_said_together_is_one_system_call() {
    let (client, server) = over_tcp().await;
    let there = server.connections().remove(0);
    assert_eq!(client.root().invoke("echo", [0]).await, Ok(0.into()));
    let (before, before_there) = (client.traffic(), there.traffic());
    let results = client.root().invoke_many("echo", (0..64).map(|number| [number])).await;
    assert_eq!(results, (0..64).map(|number| Ok(Value::Int(number))).collect::<Vec<_>>());
    let (after, after_there) = (client.traffic(), there.traffic());
    assert_eq!(after.messages - before.messages, 128);
    assert_eq!(after.writes - before.writes, 1);
    assert_eq!(after_there.reads - before_there.reads, 1);
    assert_eq!(after_there.writes - before_there.writes, 1);
    assert_eq!(after.reads - before.reads, 1);
}

#[tokio::test]
async fn large_payloads() {
    let server = Server::new(directory(), ServerOptions { connection: Options::default(), ..ServerOptions::default() });
    let address = server.listen_tcp("127.0.0.1:0").await.expect("it listens");
    let client = farref_tokio::connect_tcp(address, Directory::new(), Options::default()).await.expect("it connects");
    let bytes = |length: usize| Value::Bytes((0..length).map(|index| index as u8).collect());
    for length in [0, 1, 65_535, 65_536, 1 << 20, (4 << 20) - 100] {
        let root = client.root();
        let (one, other) =
            tokio::join!(root.invoke("echo", [bytes(length)]), root.invoke("slow_echo", [bytes(length)]));
        assert!(one == Ok(bytes(length)) && other == Ok(bytes(length)), "{length}");
    }
    // Longer ones are refused before anything is sent.
    let error = client.root().invoke("echo", [bytes(4 << 20)]).await.expect_err("it is too large");
    assert!(matches!(error, Error::NotMade(_)), "{error:?}");
    assert_eq!(client.root().invoke("echo", [1]).await, Ok(1.into()));
}

#[tokio::test(start_paused = true)]
async fn closing_fails_calls_at_once() {
    let (directory, _gate, waiting) = gate();
    let server = Server::new(directory, ServerOptions::default());
    let (near, far) = tokio::io::duplex(4096);
    server.serve(far, Peer::named("a client"));
    let client = farref_tokio::start(near, Directory::new(), Options::default()).await.expect("it starts");
    let root = client.root();
    let calls = [root.start("wait", ()).await.expect("it is sent"), root.start("wait", ()).await.expect("it is sent")];
    while waiting.load(Ordering::SeqCst) < 2 {
        tokio::task::yield_now().await;
    }
    let start = tokio::time::Instant::now();
    client.close();
    for call in calls {
        assert_eq!(call.await, Err(Error::Ended(Ended::Closed(CloseCode::Leaving))));
    }
    assert_eq!(root.invoke("echo", [1]).await, Err(Error::NeverStarted(Ended::Closed(CloseCode::Leaving))));
    while server.counters().open > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
}

/// Three peers that only come to an end together.
#[tokio::test]
async fn c25_independent_connections_progress_concurrently() {
    let together = Arc::new(std::sync::Barrier::new(3));
    let meet = Function::new(move |args| {
        together.wait();
        Ok(Value::Int(args.get(0).and_then(Value::as_int).unwrap_or(0) + 1))
    });
    let server = Server::new(Directory::new().with("meet", "waits for two others", meet), ServerOptions::default());
    let address = server.listen_tcp("127.0.0.1:0").await.expect("it listens");
    let mut clients = Vec::new();
    for _ in 0..3 {
        let client = farref_tokio::connect_tcp(address, Directory::new(), Options::default()).await;
        clients.push(client.expect("it connects"));
    }
    let call = |client: &Connection| {
        let root = client.root();
        tokio::spawn(async move { root.invoke("meet", [10]).await })
    };
    let calls: Vec<_> = clients.iter().map(call).collect();
    for call in calls {
        let result = tokio::time::timeout(Duration::from_secs(30), call).await.expect("none waits for another's end");
        assert_eq!(result.expect("it runs"), Ok(11.into()));
    }
}

struct Point;

impl Object for Point {
    fn members(&self) -> std::borrow::Cow<'_, [Member]> {
        const MEMBERS: &[Member] = &[Member::new("z", MemberKind::Readable, "3")];
        MEMBERS.into()
    }

    fn perform(&self, action: Action<'_>, _: Args) -> Result<Value, Error> {
        match action {
            Action::Get("z") => Ok(Value::Int(3)),
            other => other.unsupported(),
        }
    }
}

#[tokio::test]
async fn c26_roots_are_listed_and_used_over_tcp() {
    let directory = Directory::new().with("x", "a point", Point).with("y", "another", Point);
    let (client, _server) = served_by(directory).await;
    let names: Vec<_> = client.root().describe().await.expect("a list").into_iter().map(|member| member.name).collect();
    assert_eq!(names, ["x", "y"]);
    let x = client.root().promise_get("x").await.expect("it is sent");
    assert_eq!(x.get("z").await, Ok(3.into()));
}

/// Many calls at once go out in one write, their outcomes come in order, and none is left when the future is dropped.
#[tokio::test]
async fn many_calls_go_out_together() {
    let (client, server) = over_tcp().await;
    let echo: Proxy = client.root().get("echo").await.expect("a root").try_into().expect("an object");
    let before = client.traffic();
    let answers = echo.call_many((0..64).map(|number| [number])).await;
    assert_eq!(answers, (0..64).map(|number| Ok(Value::Int(number))).collect::<Vec<_>>());
    let after = client.traffic();
    assert_eq!((after.messages - before.messages, after.writes - before.writes), (128, 1));
    // More than the peer serves at a time: they wait for credit.
    let answers = client.root().invoke_many("slow_echo", (0..500).map(|number| [number])).await;
    assert!(answers.iter().enumerate().all(|(number, answer)| *answer == Ok(Value::Int(number as i64))));
    assert_eq!(answers.len(), 500);
    // What cannot be sent fails alone.
    let too_long = vec![0; 5 << 20];
    let answers = echo.call_many([Value::Int(1), Value::Bytes(too_long), Value::Int(2)].map(|value| [value])).await;
    assert!(matches!(answers[..], [Ok(Value::Int(1)), Err(Error::NotMade(_)), Ok(Value::Int(2))]), "{answers:?}");
    let mut dropped = Box::pin(echo.call_many((0..10).map(|number| [number])));
    assert!(std::future::poll_fn(|cx| std::task::Poll::Ready(dropped.as_mut().poll(cx).is_pending())).await);
    drop(dropped);
    drop(echo);
    until(|| client.is_at_baseline() && server.connections().iter().all(Connection::is_at_baseline)).await;
}

/// What a stream has taken and holds back, as TLS does while the socket takes no more, is written in the end.
#[tokio::test]
async fn what_a_stream_holds_back_is_written() {
    let server = Server::new(directory(), ServerOptions::default());
    // It takes 8 KiB at once, and lets out what others have read.
    let (here, there) = tokio::io::duplex(64);
    server.serve(BufStream::new(there), Peer::named("a pipe"));
    let connecting = farref_tokio::start(BufStream::new(here), Directory::new(), Options::default());
    let client = connecting.await.expect("it connects");
    let root = client.root();
    for size in [1, 100, 5000, 20_000] {
        let value = Value::Bytes(vec![1; size]);
        let echoed = tokio::time::timeout(Duration::from_secs(30), root.invoke("echo", [value.clone()])).await;
        assert_eq!(echoed, Ok(Ok(value)));
    }
}
