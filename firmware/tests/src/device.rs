//! The device's objects, over TCP.

use std::future::Future;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use farref_tokio::{
    Connection, Directory, Ended, Error, ErrorCode, Function, LinkState, Options, Proxy, Reference, Remote, Resuming,
    Value, connect_tcp,
};

use crate::cut::Cutter;
use crate::qemu::{FULL, Guest};

pub async fn calls(guest: Arc<Guest>) {
    let connection = guest.connect(Directory::new(), Options::default()).await;
    calls_work(&connection, &guest).await;
    assert_eq!(connection.shutdown().await, Ended::Done);
}

/// What any session can do, whatever it goes over.
pub async fn calls_work(connection: &Connection, guest: &Guest) {
    let root = connection.root();
    let led = root.promise_get("led").await.expect("it is asked for");
    led.invoke("set", [true]).await.expect("it is switched");
    assert_eq!(led.get("on").await, Ok(true.into()));
    assert_eq!(led.invoke("toggle", ()).await, Ok(false.into()));
    led.set("on", true).await.expect("it is switched");
    assert_eq!(led.get("on").await, Ok(true.into()));
    // What is wrong is told, by name.
    let wrong = led.invoke("set", [7]).await.expect_err("it is no truth value");
    assert_eq!(wrong, Error::Refused(ErrorCode::BadArguments, vec!["set(on: bool)".into()]));
    let missing = root.promise_get("store").await.expect("it is asked for").invoke("get", ["nothing"]).await;
    match missing {
        Err(Error::Raised(exception)) => {
            assert_eq!(exception.name, "KeyError");
            assert_eq!(exception.args, [Value::from("nothing")]);
        }
        other => panic!("{other:?}"),
    }
    // What there is is told by the device.
    let named: Vec<_> = root.describe().await.expect("it is told").into_iter().map(|root| root.name).collect();
    assert_eq!(named, ["led", "button", "sensor", "store", "log", "system"]);
    let members = led.describe().await.expect("it is told");
    assert!(members.iter().any(|member| member.name == "set" && member.doc == "switch it: set(on)"), "{members:?}");
    let system = root.promise_get("system").await.expect("it is asked for");
    assert_eq!(system.get("board").await, Ok(guest.board().into()));
    let (before, after) = (number(system.get("uptime").await), number(system.get("uptime").await));
    assert!(0 <= before && before <= after, "{before} {after}");
}

pub fn number(result: Result<Value, Error>) -> i64 {
    result.as_ref().ok().and_then(Value::as_int).unwrap_or_else(|| panic!("no number: {result:?}"))
}

fn object(result: Result<Value, Error>) -> Proxy {
    Proxy::try_from(result.expect("it is there")).unwrap_or_else(|value| panic!("no object of the device: {value:?}"))
}

/// Waits until something is so, until the test's time is over.
pub async fn until(mut is_so: impl FnMut() -> bool) {
    while !is_so() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A function that remembers what it was called with.
pub fn recorder() -> (Value, Arc<Mutex<Vec<Value>>>) {
    let heard: Arc<Mutex<Vec<Value>>> = Arc::default();
    let own = heard.clone();
    let function = Function::inline(move |mut args| {
        own.lock().expect("no panic").extend(args.positional.pop());
        Ok(Value::None)
    });
    (Reference::local(function).into(), heard)
}

fn numbers(heard: &Mutex<Vec<Value>>) -> Vec<i64> {
    heard.lock().expect("no panic").iter().map(|value| value.as_int().expect("a number")).collect()
}

pub async fn callbacks(guest: Arc<Guest>) {
    let connection = guest.connect(Directory::new(), Options::default()).await;
    callbacks_work(&connection).await;
}

/// Each press once, in order, to all who subscribed.
pub async fn callbacks_work(connection: &Connection) {
    const PRESSES: i64 = 20;
    let button = object(connection.root().get("button").await);
    let ((listener, heard), (other, also_heard)) = (recorder(), recorder());
    button.invoke("subscribe", [listener.clone()]).await.expect("there is room");
    button.invoke("subscribe", [other.clone()]).await.expect("there is room");
    let before = number(button.get("presses").await);
    for press in 1..=PRESSES {
        assert_eq!(number(button.invoke("press", ()).await), before + press);
    }
    let all: Vec<i64> = (before + 1..=before + PRESSES).collect();
    until(|| numbers(&heard).len() >= all.len() && numbers(&also_heard).len() >= all.len()).await;
    assert_eq!((numbers(&heard), numbers(&also_heard)), (all.clone(), all.clone()));
    // Who has left is told nothing, and the others all the same.
    button.invoke("unsubscribe", [listener]).await.expect("it was subscribed");
    button.invoke("press", ()).await.expect("it is pressed");
    until(|| numbers(&also_heard).len() > all.len()).await;
    assert_eq!(numbers(&heard), all);
    button.invoke("unsubscribe", [other]).await.expect("it was subscribed");
    drop(button);
    until(|| connection.is_at_baseline()).await;
}

/// REF-5, REL-1: what is kept beyond the call comes home as the same object, and is released when it is let go.
pub async fn references(guest: Arc<Guest>) {
    let connection = guest.connect(Directory::new(), Options::default()).await;
    references_work(&connection).await;
}

pub async fn references_work(connection: &Connection) {
    let root = connection.root();
    let store = object(root.get("store").await);
    let (function, heard) = recorder();
    let before = connection.tables();
    store.invoke("put", ["f".into(), function.clone()]).await.expect("it is kept");
    store.set_item("g", function.clone()).await.expect("it is kept");
    store.set_item("n", 5).await.expect("it is kept");
    assert_eq!(connection.tables().exports, before.exports + 1, "one object is one slot");
    assert_eq!(store.item("f").await, Ok(function.clone()), "it comes home");
    assert_eq!(store.length().await, Ok(3));
    assert_eq!(store.item("n").await, Ok(5.into()));
    // An object of the device is kept there as itself.
    let led = root.get("led").await.expect("it is there");
    store.set_item("led", led.clone()).await.expect("it is kept");
    assert_eq!(store.item("led").await, Ok(led.clone()));
    // While the device holds it, it is there.
    store.del_item("f").await.expect("it was kept");
    assert_eq!(connection.tables().exports, before.exports + 1);
    store.del_item("g").await.expect("it was kept");
    until(|| connection.tables().exports == before.exports).await;
    let gone = store.item("g").await.expect_err("it is gone");
    assert!(matches!(&gone, Error::Raised(exception) if exception.name == "KeyError"), "{gone:?}");
    store.invoke("clear", ()).await.expect("it is emptied");
    assert!(heard.lock().expect("no panic").is_empty());
    drop((led, store, root));
    until(|| connection.is_at_baseline()).await;
}

pub async fn samples(guest: Arc<Guest>) {
    let connection = guest.connect(Directory::new(), Options::default()).await;
    samples_work(&connection).await;
}

pub async fn samples_work(connection: &Connection) {
    let sensor = object(connection.root().get("sensor").await);
    let samples = sensor.invoke("samples", [5]).await.expect("they are made");
    let Value::Tuple(samples) = samples else { panic!("{samples:?}") };
    let is_celsius = |value: &Value| matches!(value, Value::Float(celsius) if (15.0..30.0).contains(celsius));
    assert!(samples.len() == 5 && samples.iter().all(is_celsius), "{samples:?}");
    // The same as they are made, while other calls are answered.
    let (listener, heard) = recorder();
    let streaming = sensor.start("stream", [Value::from(8), listener]).await.expect("it begins");
    until(|| !heard.lock().expect("no panic").is_empty()).await;
    sensor.invoke("read", ()).await.expect("it is answered meanwhile");
    assert_eq!(streaming.await, Ok(8.into()));
    assert_eq!(heard.lock().expect("no panic").iter().filter(|value| is_celsius(value)).count(), 8);
    let too_many = sensor.invoke("samples", [17]).await.expect_err("that is too many");
    assert!(matches!(&too_many, Error::Raised(exception) if exception.name == "ValueError"), "{too_many:?}");
}

/// CAL-6: within a call the device calls its caller.
pub async fn nested(guest: Arc<Guest>) {
    const NOW: i64 = 1_790_000_000_000;
    let clock = Directory::new().with("clock", "the time", Function::inline(|_| Ok(NOW.into())));
    let connection = guest.connect(clock, Options::default()).await;
    let system = object(connection.root().get("system").await);
    assert_eq!(system.get("time").await, Ok(Value::None));
    assert_eq!(system.invoke("sync", ()).await, Ok(NOW.into()));
    let time = number(system.get("time").await);
    assert!((NOW..NOW + 60_000).contains(&time), "{time}");
    // Who has none is told so.
    let other = guest.connect(Directory::new(), Options::default()).await;
    let system = object(other.root().get("system").await);
    let refused = system.invoke("sync", ()).await.expect_err("there is no clock");
    assert!(matches!(&refused, Error::Raised(exception) if exception.name == "RuntimeError"), "{refused:?}");
}

/// What one does, the others see; what one holds is its own.
pub async fn shared(guest: Arc<Guest>) {
    let first = guest.connect(Directory::new(), Options::default()).await;
    let second = guest.connect(Directory::new(), Options::default()).await;
    let line = guest.connect_line(Directory::new(), Options::default()).await;
    let (listener, heard) = recorder();
    object(line.root().get("button").await).invoke("subscribe", [listener]).await.expect("there is room");
    let (other, also_heard) = recorder();
    object(second.root().get("button").await).invoke("subscribe", [other]).await.expect("there is room");
    object(first.root().get("button").await).invoke("press", ()).await.expect("it is pressed");
    until(|| numbers(&heard) == [1] && numbers(&also_heard) == [1]).await;
    object(first.root().get("led").await).invoke("set", [true]).await.expect("it is switched");
    assert_eq!(object(line.root().get("led").await).get("on").await, Ok(true.into()));
    object(first.root().get("store").await).set_item("x", 1).await.expect("it is kept");
    assert_eq!(object(line.root().get("store").await).length().await, Ok(0));
    let log = object(second.root().get("log").await);
    log.invoke("write", ["all is well"]).await.expect("it is written");
    let last = object(line.root().get("log").await).invoke("last", [1]).await.expect("it is told");
    match last {
        Value::Tuple(lines) => {
            assert!(lines[0].as_str().is_some_and(|line| line.ends_with("all is well")), "{lines:?}")
        }
        other => panic!("{other:?}"),
    }
}

/// CLS-1: who finds all connections in use is told so.
pub async fn too_many(guest: Arc<Guest>) {
    let first = guest.connect(Directory::new(), Options::default()).await;
    let second = guest.connect(Directory::new(), Options::default()).await;
    for options in [Options::default(), resuming()] {
        let third = loop {
            // The one before may still be on its way out.
            if let Ok(third) = connect_tcp(guest.address(), Directory::new(), options.clone()).await {
                break third;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert_eq!(third.closed().await, FULL);
    }
    calls_work(&first, &guest).await;
    calls_work(&second, &guest).await;
    assert_eq!(first.shutdown().await, Ended::Done);
    let third = guest.connect(Directory::new(), Options::default()).await;
    calls_work(&third, &guest).await;
}

/// LNK-6: a device that has started again knows nothing of the session, and says so.
pub async fn reboot(guest: Arc<Guest>) {
    let connection = guest.connect(Directory::new(), resuming()).await;
    let system = object(connection.root().get("system").await);
    system.invoke("reboot", ()).await.expect("it is about to");
    // It answers until it is gone. Then calls are what tells that it is.
    let error = loop {
        if let Err(error) = system.get("uptime").await {
            break error;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let is_told = matches!(error, Error::NeverStarted(Ended::PeerRestarted) | Error::Ended(Ended::PeerRestarted));
    assert!(is_told, "{error:?}");
    assert_eq!(connection.closed().await, Ended::PeerRestarted);
    let connection = guest.connect(Directory::new(), resuming()).await;
    calls_work(&connection, &guest).await;
}

/// Goes on over another connection, at once.
pub fn resuming() -> Options {
    let resuming = Resuming {
        first_pause: Duration::from_millis(5),
        longest_pause: Duration::from_millis(50),
        ..Resuming::within(Duration::from_secs(30))
    };
    Options { resume: Some(resuming), ..Options::default() }
}

/// LNK-2: each call takes effect once, whatever happens to connections; references and subscriptions live on.
pub async fn resume(guest: Arc<Guest>) {
    const CALLS: i64 = 400;
    const CUTS: u64 = 12;
    let cutter = Cutter::new(guest.address()).await;
    let connection = guest.connect_at(cutter.address, Directory::new(), resuming()).await;
    let root = connection.root();
    let (store, button) = (object(root.get("store").await), object(root.get("button").await));
    let (listener, heard) = recorder();
    button.invoke("subscribe", [listener.clone()]).await.expect("there is room");
    store.set_item("f", listener.clone()).await.expect("it is kept");
    let done = Arc::new(AtomicI64::new(0));
    let calling = {
        let (button, done) = (button.clone(), done.clone());
        async move {
            let mut pressed = Vec::new();
            for _ in 0..CALLS {
                pressed.push(number(button.invoke("press", ()).await));
                done.fetch_add(1, Ordering::SeqCst);
            }
            pressed
        }
    };
    let cutting = async {
        for cut in 1..=CUTS {
            // Somewhere among the calls, and not before the one before has been made up for.
            until(|| done.load(Ordering::SeqCst) >= CALLS * cut as i64 / (CUTS as i64 + 2)).await;
            cutter.cut();
            until(|| cutter.opened() > cut).await;
        }
    };
    let (pressed, ()) = tokio::join!(calling, cutting);
    assert_eq!(pressed, (1..=CALLS).collect::<Vec<_>>(), "each press once");
    until(|| numbers(&heard).len() >= CALLS as usize).await;
    assert_eq!(numbers(&heard), (1..=CALLS).collect::<Vec<_>>(), "each told once");
    assert_eq!(store.item("f").await, Ok(listener));
    assert!(cutter.opened() > CUTS && connection.link() == LinkState::Up);
}

/// Whatever happens to the session meanwhile, this is what it gives.
pub async fn within<T>(what: &str, limit: Duration, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| panic!("{what} takes longer than {limit:?}"))
}
