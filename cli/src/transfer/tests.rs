//! What copies cost: counted, between two connections in this process.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::{fs, thread};

use farref_pipe::{Directory, Options};
use tempfile::TempDir;

use super::*;
use crate::files::Tree;
use crate::roots::{self, Share};

/// A folder, what serves it, and a connection to that.
struct Served {
    folder: TempDir,
    peer: Connection,
    connection: Connection,
}

impl Served {
    fn new(options: Options) -> Self {
        let folder = TempDir::new().expect("a folder");
        let tree = Tree::rooted_at(folder.path(), true).expect("it opens");
        let share = Arc::new(Share::new(tree));
        let directory = roots::files(Directory::new(), &share);
        let (left, right) = UnixStream::pair().expect("a pair");
        let open = |stream: UnixStream, directory, options| {
            farref_pipe::open(stream.try_clone().expect("a clone"), stream, directory, options).expect("it opens")
        };
        let peer = thread::spawn(move || open(right, directory, options));
        let connection = open(left, Directory::new(), Options::default());
        let peer = peer.join().expect("it opens");
        share.connected(&peer);
        Self { folder, peer, connection }
    }

    fn read(&self, path: &str) -> Vec<u8> {
        fs::read(self.folder.path().join(path)).expect("it is there")
    }

    /// The messages and round trips of some work, with all that comes of it.
    fn counted<T>(&self, work: impl FnOnce(&Connection) -> T) -> (T, u64, u64) {
        let before = self.connection.traffic();
        let result = work(&self.connection);
        while !(self.connection.is_at_baseline() && self.peer.is_at_baseline()) {
            thread::yield_now();
        }
        let after = self.connection.traffic();
        (result, after.messages - before.messages, after.round_trips - before.round_trips)
    }
}

/// So many bytes, no two parts of which are alike.
fn bytes(count: usize) -> Vec<u8> {
    (0..count as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn get(connection: &Connection, path: &str) -> Result<Vec<u8>, Error> {
    let mut incoming = Incoming::open(connection, path)?;
    let mut all = Vec::new();
    while let Some(part) = incoming.part()? {
        assert!(part.len() <= PART && incoming.reads.len() < WINDOW);
        all.extend(part);
    }
    assert_eq!(incoming.part(), Ok(None));
    Ok(all)
}

fn put(connection: &Connection, path: &str, bytes: &[u8]) -> Result<(), Error> {
    let mut outgoing = Outgoing::open(connection, path, None)?;
    for part in bytes.chunks(outgoing.part()) {
        outgoing.send(part.to_vec())?;
        assert!(outgoing.writes.len() <= WINDOW);
    }
    let commit = outgoing.commit()?;
    while outgoing.answer()? {}
    assert_eq!(outgoing.written(), bytes.len() as u64);
    commit.wait().map(drop)
}

const SIZES: [usize; 10] =
    [0, 1, PART - 1, PART, PART + 1, 2 * PART - 1, 2 * PART, 2 * PART + 1, 18 * PART - 1, 40 * PART];

#[test]
fn a_file_comes_in_parts_of_which_many_are_under_way() {
    let served = Served::new(Options::default());
    for size in SIZES {
        let contents = bytes(size);
        fs::write(served.folder.path().join("f"), &contents).expect("it is written");
        let (got, messages, round_trips) = served.counted(|connection| get(connection, "f"));
        assert!(got == Ok(contents), "{size}");
        let reads = (size / PART + 1).max(FIRST);
        // One for the first two parts, and one for each window from then on.
        assert_eq!(round_trips, 1 + (reads - FIRST).div_ceil(WINDOW) as u64, "{size}");
        // A call and its answer for each part, the file and what is known of it; then the file is let go.
        assert_eq!(messages, 2 * (reads as u64 + 2) + 2, "{size}");
    }
}

#[test]
fn a_file_goes_in_parts_of_which_many_are_under_way() {
    let served = Served::new(Options::default());
    for size in SIZES {
        let contents = bytes(size);
        let (done, messages, round_trips) = served.counted(|connection| put(connection, "f", &contents));
        assert_eq!(done, Ok(()), "{size}");
        assert!(served.read("f") == contents, "{size}");
        let writes = size.div_ceil(PART);
        // The first two parts, the file and its commit take one; 2, 4, 8 and then 16 parts go in each.
        let expected = match writes {
            0..=2 => 1,
            3 => 2,
            18 => 4,
            _ => 5,
        };
        assert_eq!(round_trips, expected, "{size}");
        // A call and its answer for each part, the file and its commit; then the file is let go.
        assert_eq!(messages, 2 * (writes as u64 + 2) + 2, "{size}");
    }
    assert_eq!(fs::read_dir(served.folder.path()).expect("a folder").count(), 1);
}

/// A peer that takes short messages, and few of them at a time.
#[test]
fn a_peer_with_little_room_gets_small_parts() {
    let options = Options { max_message: 1000, call_bytes: 2000, serving: 3, store: 4000, ..Options::default() };
    let served = Served::new(options);
    let contents = bytes(100_000);
    assert_eq!(put(&served.connection, "f", &contents), Ok(()));
    assert!(served.read("f") == contents);
    assert!(get(&served.connection, "f") == Ok(contents));
}

#[test]
fn a_file_that_changes_meanwhile_is_read_to_its_end() {
    let served = Served::new(Options::default());
    let path = served.folder.path().join("f");
    for (before, after) in [(30, 50), (20, 3), (20, 0)] {
        fs::write(&path, bytes(before * PART)).expect("it is written");
        let mut incoming = Incoming::open(&served.connection, "f").expect("it opens");
        assert_eq!(incoming.size(), Some((before * PART) as u64));
        let first = incoming.part().expect("a part").expect("not the end");
        fs::File::options().write(true).open(&path).and_then(|file| file.set_len((after * PART) as u64)).expect("cut");
        let mut got = first.len();
        while let Some(part) = incoming.part().expect("a part") {
            got += part.len();
        }
        // What was under way when it was cut may have been read before.
        assert!(got == after * PART || after < before && got <= (1 + WINDOW) * PART, "{before} {after} {got}");
    }
}

#[test]
fn a_write_that_fails_undoes_all() {
    let served = Served::new(Options::default());
    fs::write(served.folder.path().join("f"), "old").expect("it is written");
    let mut outgoing = Outgoing::open(&served.connection, "f", None).expect("on its way");
    outgoing.send(bytes(PART)).expect("on its way");
    // One that the peer refuses before it gets to the file.
    let refused = outgoing.file.start("write", ()).expect("on its way");
    outgoing.writes.push_back((refused, 10));
    outgoing.sent += 10;
    let commit = outgoing.commit().expect("on its way");
    assert_eq!(outgoing.answer(), Ok(true));
    assert!(matches!(outgoing.answer(), Err(Error::Refused(..))));
    let error = commit.wait().expect_err("not all was written").to_string();
    assert_eq!(error, format!("ValueError: {PART} bytes were written instead of {} to replace 'f'", PART + 10));
    assert_eq!(served.read("f"), b"old");
    assert_eq!(fs::read_dir(served.folder.path()).expect("a folder").count(), 1);
}
