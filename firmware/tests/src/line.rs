//! The device on its serial line.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use farref_conformance::faults::{Faults, Plug, line_to};
use farref_tokio::{
    AsyncFunction, Connection, Directory, Ended, Function, Options, Proxy, Reference, Remote, Value, start_line,
};

use crate::device::{self, number, recorder, until};
use crate::qemu::{Guest, line_options};

pub async fn good(guest: Arc<Guest>) {
    let connection = guest.connect_line(Directory::new(), Options::default()).await;
    device::calls_work(&connection, &guest).await;
    device::callbacks_work(&connection).await;
    device::references_work(&connection).await;
    device::samples_work(&connection).await;
    assert_eq!(connection.shutdown().await, Ended::Done);
    // The next one on the same line.
    let connection = guest.connect_line(Directory::new(), Options::default()).await;
    device::calls_work(&connection, &guest).await;
}

/// A line on which a tenth of the bytes is disturbed.
async fn connect(guest: &Guest, directory: Directory, plug: &Plug, seed: u64) -> Connection {
    let options = Options { handshake: Duration::from_secs(60), ..Options::default() };
    let near = line_to(guest.line().await, Faults { disturbed: 100, ..Faults::default() }, plug, seed);
    start_line(near, directory, options, line_options()).await.expect("the firmware is there")
}

/// LNK-20 to LNK-27: calls both ways take effect once, references are kept and released, whatever the line does.
pub async fn bad(guest: Arc<Guest>) {
    const CALLS: i64 = 100;
    const SEED: u64 = 0x5eed;
    let plug = Plug::default();
    let connection = connect(&guest, Directory::new(), &plug, SEED).await;
    device::calls_work(&connection, &guest).await;
    device::references_work(&connection).await;
    let button = Proxy::try_from(connection.root().get("button").await.expect("it is there")).expect("an object");
    let (listener, heard) = recorder();
    button.invoke("subscribe", [listener]).await.expect("there is room");
    // Several at a time: the answers may come in any order, but each number once.
    let next = Arc::new(AtomicI64::new(0));
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let (button, next) = (button.clone(), next.clone());
            tokio::spawn(async move {
                let mut pressed = Vec::new();
                while next.fetch_add(1, Ordering::SeqCst) < CALLS {
                    pressed.push(number(button.invoke("press", ()).await));
                }
                pressed
            })
        })
        .collect();
    let mut pressed = Vec::new();
    for caller in callers {
        pressed.extend(caller.await.expect("each answer is a number"));
    }
    pressed.sort_unstable();
    assert_eq!(pressed, (1..=CALLS).collect::<Vec<_>>(), "each press once");
    until(|| heard.lock().expect("no panic").len() >= CALLS as usize).await;
    let told: Vec<_> = heard.lock().expect("no panic").iter().filter_map(Value::as_int).collect();
    assert_eq!(told, (1..=CALLS).collect::<Vec<_>>(), "each told once, in order");
    device::samples_work(&connection).await;
    let disturbed = plug.disturbed();
    assert!((70..=130).contains(&disturbed) && plug.bytes() > 5_000, "{disturbed} of 1000, {} bytes", plug.bytes());
}

/// LNK-26: a line that comes back goes on; what was kept is still there.
pub async fn unplugged(guest: Arc<Guest>) {
    let plug = Plug::default();
    let calls = Arc::new(AtomicI64::new(0));
    let counted = calls.clone();
    let clock = Function::inline(move |_| Ok(counted.fetch_add(1, Ordering::SeqCst).into()));
    let connection = connect(&guest, Directory::new().with("clock", "counts its calls", clock), &plug, 1).await;
    let root = connection.root();
    let store = Proxy::try_from(root.get("store").await.expect("it is there")).expect("an object");
    let kept = Value::from(Reference::local(AsyncFunction::new(|_| async { Ok(Value::None) })));
    store.set_item("f", kept.clone()).await.expect("it is kept");
    for turn in 0..3 {
        plug.pull(true);
        let system = root.promise_get("system").await.expect("it waits");
        let asked = tokio::spawn(async move { system.invoke("sync", ()).await });
        // Long enough that both sides have tried in vain.
        tokio::time::sleep(Duration::from_millis(700)).await;
        assert!(!asked.is_finished());
        plug.pull(false);
        assert_eq!(asked.await.expect("no panic"), Ok(turn.into()), "the clock was asked once");
    }
    assert_eq!(calls.load(Ordering::SeqCst), 3);
    assert_eq!(store.item("f").await, Ok(kept));
}
