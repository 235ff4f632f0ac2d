//! What the tests of this crate share.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use farref_pipe::{Connection, Directory, Function, Options};

/// Two connections over a socket pair.
pub fn pair(client: Directory, server: Directory) -> (Connection, Connection) {
    pair_with(client, Options::default(), server, Options::default())
}

/// Two connections with options of their own.
pub fn pair_with(
    client: Directory,
    client_options: Options,
    server: Directory,
    server_options: Options,
) -> (Connection, Connection) {
    let (left, right) = UnixStream::pair().expect("a socket pair");
    let opened = thread::spawn(move || open(right, server, server_options));
    let client = open(left, client, client_options);
    (client, opened.join().expect("the server opens"))
}

pub fn open(stream: UnixStream, directory: Directory, options: Options) -> Connection {
    farref_pipe::open(stream.try_clone().expect("a clone"), stream, directory, options).expect("it opens")
}

/// A directory with a function that gives back its argument.
pub fn echo() -> Directory {
    Directory::new().with("echo", "gives back its argument", Function::new(|mut args| Ok(args.positional.remove(0))))
}

/// What is on its way when the last call has returned, such as a release, arrives soon after.
pub fn until(settled: impl Fn() -> bool) {
    for _ in 0..5000 {
        if settled() {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
    panic!("not settled within five seconds");
}
