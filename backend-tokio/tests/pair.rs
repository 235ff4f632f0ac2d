//! Two peers over sockets and in memory: values, references, callbacks, pipelining, many tasks.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use farref_tokio::{
    AsyncFunction, Connection, Directory, Error, Function, Options, Proxy, Reference, Remote, Server, ServerOptions,
    Value,
};

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
