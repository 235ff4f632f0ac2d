//! Alone in its process, since it ends all children.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use farref_pipe::{Directory, Options, Ssh, end_children};

/// What a program does that ends by a signal: the child that somebody waits for is gone.
#[test]
fn children_are_ended_on_demand() {
    let sleeps = Ssh::new(["sh", "-c", "exec sleep 1000"]).quiet();
    let target = "ssh://host".parse().expect("a URL");
    let (tell, told) = mpsc::channel();
    thread::spawn(move || tell.send(sleeps.connect(&target, Directory::new(), Options::default()).err()));
    let start = Instant::now();
    // Before it has started there is nothing to end.
    let ended = loop {
        end_children();
        if let Ok(ended) = told.recv_timeout(Duration::from_millis(10)) {
            break ended;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "it lives on");
    };
    assert!(
        ended.expect("it was ended").to_string().starts_with("ssh to host ended before anybody answered (signal: 15")
    );
}
