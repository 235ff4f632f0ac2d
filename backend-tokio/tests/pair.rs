//! Two peers over sockets and in memory: values, references, callbacks, pipelining, many tasks.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use farref_tokio::{
    AsyncFunction, Connection, Directory, Error, Function, Options, Peer, Proxy, Reference, Remote, Server,
    ServerOptions, Value,
};
use tokio::io::BufStream;

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
    let server = Server::new(directory(), ServerOptions::default());
    let address = server.listen_tcp("127.0.0.1:0").await.expect("it listens");
    let client = farref_tokio::connect_tcp(address, Directory::new(), Options::default()).await.expect("it connects");
    (client, server)
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

#[tokio::test]
async fn calls_go_both_ways_over_tcp() {
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
    until(|| client.is_at_baseline() && server.connections().iter().all(Connection::is_at_baseline)).await;
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
