//! Alone in its process, since it counts threads.

mod common;

use std::fs;

use common::{echo, pair, until};
use farref_pipe::{Directory, List, Reference, Remote};

fn threads() -> usize {
    fs::read_dir("/proc/self/task").expect("the threads of this process").count()
}

/// A connection takes its threads with it, those that served and those that dropped objects too.
#[test]
fn connections_leave_no_thread_behind() {
    let before = threads();
    for _ in 0..20 {
        let (client, server) = pair(Directory::new(), echo());
        let list = client.root().invoke("echo", [Reference::local(List::default())]).expect("it comes back");
        drop(list);
        client.root().invoke("echo", [1]).expect("a call");
        until(|| client.is_at_baseline() && server.is_at_baseline());
        assert!(threads() > before);
    }
    until(|| threads() <= before);
}
