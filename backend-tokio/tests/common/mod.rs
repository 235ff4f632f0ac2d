//! What the tests of connections share.
#![allow(dead_code, reason = "each test program uses what it needs")]

use std::time::Duration;

use farref_tokio::{Connection, Counters, Directory, Function, Key, Options, Remote, Server, Value};

/// Nothing takes longer, however busy the machine is.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What is served.
pub fn echo() -> Directory {
    Directory::new().with("echo", "gives back its argument", Function::inline(|mut args| Ok(args.positional.remove(0))))
}

/// That calls work, small ones and ones that fill buffers.
pub async fn calls_work(client: &Connection) {
    assert_eq!(client.root().invoke("echo", [7]).await, Ok(7.into()));
    let large = Value::Bytes(vec![0x5A; 900_000]);
    assert_eq!(client.root().invoke("echo", [large.clone()]).await, Ok(large));
}

/// A key of 32 equal bytes.
pub fn key(byte: u8) -> Key {
    Key::new(&[byte; 32]).expect("it is long enough")
}

/// With a key, or without.
pub fn options(key: Option<Key>) -> Options {
    Options { key, ..Options::default() }
}

/// Waits for something that a server counts.
pub async fn counted(server: &Server, is_there: impl Fn(Counters) -> bool) {
    let counted = async {
        while !is_there(server.counters()) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, counted).await;
    assert!(in_time.is_ok(), "{:?}", server.counters());
}
