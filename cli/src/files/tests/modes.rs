//! Modes, writing, seeking, closing.

use super::*;
use proptest::prelude::*;
use std::io::{Cursor, Read, Seek, SeekFrom, Write};

#[test]
fn valid_modes() {
    for (source, printed, reads, writes) in [
        ("r", "r", true, false),
        ("rt", "r", true, false),
        ("tr", "r", true, false),
        ("rb", "rb", true, false),
        ("br", "rb", true, false),
        ("w", "w", false, true),
        ("a", "a", false, true),
        ("x", "x", false, true),
        ("r+", "r+", true, true),
        ("+r", "r+", true, true),
        ("w+t", "w+", true, true),
        ("rb+", "rb+", true, true),
        ("r+b", "rb+", true, true),
        ("a+", "a+", true, true),
        ("x+", "x+", true, true),
    ] {
        let mode: Mode = source.parse().unwrap();
        assert_eq!(mode.to_string(), printed);
        assert_eq!((mode.reads(), mode.writes()), (reads, writes), "{source}");
    }
}

#[test]
fn invalid_modes_have_pythons_words() {
    for (mode, message) in [
        ("q", "invalid mode: 'q'"),
        ("r++", "invalid mode: 'r++'"),
        ("rr", "invalid mode: 'rr'"),
        ("R", "invalid mode: 'R'"),
        ("r\u{1b}", "invalid mode: 'r\\u{1b}'"),
        ("rbt", "can't have text and binary mode at once"),
        ("rw", "must have exactly one of create/read/write/append mode"),
        ("", "Must have exactly one of create/read/write/append mode and at most one plus"),
        ("b+", "Must have exactly one of create/read/write/append mode and at most one plus"),
    ] {
        assert_eq!(mode.parse::<Mode>(), Err(FileError::Value(message.into())), "{mode}");
    }
    let long = "z".repeat(100_000).parse::<Mode>();
    assert!(fault(long).to_string().len() < 100);
}

#[test]
fn read_only_refuses_every_mode_that_writes() {
    let fixture = Fixture::with(&[("f", b"old")]);
    let tree = fixture.reader();
    let letters = ["r", "w", "a", "x"];
    for mode in
        letters.iter().flat_map(|letter| ["", "b", "t", "+", "b+", "+b", "t+"].map(|more| format!("{letter}{more}")))
    {
        for path in ["f", "new", "d/new", ".."] {
            if mode.parse::<Mode>().unwrap().writes() {
                let error = fault(tree.open(path, &mode));
                assert_eq!(error, FileError::read_only(path), "{mode}");
                assert_eq!(error.exception(), "PermissionError");
            }
        }
    }
    assert_eq!(fs::read(fixture.path("f")).unwrap(), b"old");
    assert_eq!(fs::read_dir(fixture.path("")).unwrap().count(), 1);
    let file = tree.open("f", "r").unwrap();
    assert_eq!(file.write(DataRef::Text("x")), Err(FileError::Unsupported("not writable")));
    assert_eq!(file.truncate(None), Err(FileError::Unsupported("not writable")));
}

#[test]
fn each_mode_opens_as_python_does() {
    let fixture = Fixture::with(&[("f", b"old")]);
    let tree = fixture.writer();
    let contents = || fs::read_to_string(fixture.path("f")).unwrap();

    let file = tree.open("f", "r+").unwrap();
    assert_eq!(file.write(DataRef::Text("é")), Ok(1));
    assert_eq!(file.tell(), Ok(2));
    assert_eq!(file.read(None, LIMIT), Ok(text("d")));
    assert_eq!(contents(), "éd");

    let file = tree.open("f", "a+").unwrap();
    assert_eq!(file.tell(), Ok(3));
    assert_eq!(file.seek(0, 0), Ok(0));
    assert_eq!(file.read(Some(1), LIMIT), Ok(text("é")));
    assert_eq!(file.write(DataRef::Text("!")), Ok(1));
    assert_eq!(file.tell(), Ok(4));
    assert_eq!(contents(), "éd!");

    let file = tree.open("f", "w").unwrap();
    assert_eq!(contents(), "");
    assert_eq!(file.write(DataRef::Text("new")), Ok(3));
    assert_eq!(contents(), "new");
    assert_eq!(file.read(None, LIMIT), Err(FileError::Unsupported("not readable")));
    assert_eq!(file.lines(1, LIMIT), Err(FileError::Unsupported("not readable")));

    assert_eq!(kind(tree.open("f", "x")), ("FileExistsError", Some(17)));
    assert_eq!(contents(), "new");
    let file = tree.open("g", "xb+").unwrap();
    assert_eq!(file.write(DataRef::Bytes(b"\xff\0")), Ok(2));
    assert_eq!(file.seek(-2, 2), Ok(0));
    assert_eq!(file.read(Some(9), LIMIT), Ok(bytes(b"\xff\0")));

    assert_eq!(kind(tree.open("h", "r+")), ("FileNotFoundError", Some(2)));
    assert_eq!(tree.open("h", "a").unwrap().tell(), Ok(0));
    assert!(fixture.path("h").exists());
}

#[test]
fn kinds_of_data_do_not_mix() {
    let fixture = Fixture::with(&[("f", b"old")]);
    let tree = fixture.writer();
    let error = fault(tree.open("f", "r+b").unwrap().write(DataRef::Text("x")));
    assert_eq!(error.to_string(), "TypeError: a bytes-like object is required, not 'str'");
    let error = fault(tree.open("f", "r+").unwrap().write(DataRef::Bytes(b"x")));
    assert_eq!(error.to_string(), "TypeError: write() argument must be str, not bytes");
    assert_eq!(fs::read(fixture.path("f")).unwrap(), b"old");
}

#[test]
fn seek_and_truncate() {
    let fixture = Fixture::with(&[("f", b"0123456789")]);
    let file = fixture.writer().open("f", "rb+").unwrap();
    assert_eq!(file.seek(4, 0), Ok(4));
    assert_eq!(file.read(Some(2), LIMIT), Ok(bytes(b"45")));
    assert_eq!(file.seek(-3, 1), Ok(3));
    assert_eq!(file.read(Some(2), LIMIT), Ok(bytes(b"34")));
    assert_eq!(file.seek(0, 1), Ok(5));
    assert_eq!(file.seek(-1, 2), Ok(9));
    assert_eq!(file.read(None, LIMIT), Ok(bytes(b"9")));
    for (offset, whence) in [(-1, 0), (-11, 2), (-11, 1), (i64::MIN, 2), (i64::MAX, 2)] {
        let error = fault(file.seek(offset, whence));
        assert_eq!(error.to_string(), "OSError: [Errno 22] Invalid argument: 'f'");
    }
    let error = fault(file.seek(0, 7));
    assert_eq!(error.to_string(), "ValueError: whence value 7 unsupported");
    assert_eq!(file.tell(), Ok(10), "refused seeks change nothing");

    assert_eq!(file.seek(20, 0), Ok(20));
    assert_eq!(file.read(None, LIMIT), Ok(bytes(b"")));
    assert_eq!(file.truncate(Some(5)), Ok(5));
    assert_eq!(file.tell(), Ok(20));
    assert_eq!(file.seek(3, 0), Ok(3));
    assert_eq!(file.truncate(None), Ok(3));
    assert_eq!(file.write(DataRef::Bytes(b"xyz")), Ok(3));
    assert_eq!(fs::read(fixture.path("f")).unwrap(), b"012xyz");
    assert_eq!(file.seek(8, 0), Ok(8));
    assert_eq!(file.write(DataRef::Bytes(b"!")), Ok(1));
    assert_eq!(fs::read(fixture.path("f")).unwrap(), b"012xyz\0\0!");
    // How far is too far depends on the file system.
    match file.seek(i64::MAX, 0) {
        Ok(_) => assert_eq!(kind(file.write(DataRef::Bytes(b"!"))).0, "OSError"),
        Err(error) => assert_eq!(error.errno(), Some(22)),
    }
    assert_eq!(kind(file.truncate(Some(u64::MAX))).0, "OSError");
}

#[test]
fn after_close_all_is_refused() {
    let fixture = Fixture::with(&[("f", b"x\ny\n")]);
    let file = fixture.writer().open("f", "r+").unwrap();
    assert!(!file.is_closed());
    file.next_line(LIMIT).unwrap();
    file.flush().unwrap();
    file.close();
    assert!(file.is_closed());
    let closed = || FileError::Value("file is closed".into());
    assert_eq!(file.read(None, LIMIT), Err(closed()));
    assert_eq!(file.read(Some(0), LIMIT), Err(closed()));
    assert_eq!(file.next_line(LIMIT), Err(closed()));
    assert_eq!(file.lines(0, LIMIT), Err(closed()));
    assert_eq!(file.write(DataRef::Text("")), Err(closed()));
    assert_eq!(file.write(DataRef::Bytes(b"")), Err(closed()));
    assert_eq!(file.seek(0, 0), Err(closed()));
    assert_eq!(file.tell(), Err(closed()));
    assert_eq!(file.truncate(None), Err(closed()));
    assert_eq!(file.flush(), Err(closed()));
    file.close();
    assert_eq!(file.path(), "f");
    assert_eq!(file.mode().to_string(), "r+");
}

#[test]
fn threads_share_a_file() {
    let line = |n: usize| format!("{n}{}\n", "é".repeat(50));
    let contents: String = (0..2000).map(line).collect();
    let fixture = Fixture::with(&[("f", contents.as_bytes())]);
    let file = fixture.reader().open("f", "r").unwrap();
    let read_all = || {
        let mut lines = Vec::new();
        while let Some(Data::Text(line)) = file.next_line(LIMIT).unwrap() {
            lines.push(line);
        }
        lines
    };
    let mut lines = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(read_all)).collect();
        let lines = threads.into_iter().flat_map(|thread| thread.join().unwrap());
        lines.collect::<Vec<_>>()
    });
    let mut expected: Vec<_> = (0..2000).map(line).collect();
    lines.sort();
    expected.sort();
    assert_eq!(lines, expected);
}

#[derive(Clone, Debug)]
enum Action {
    Line,
    Read(u64),
    Seek(i64, i64),
    Truncate(u64),
    Write(Vec<u8>),
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let data = || prop::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..40);
    let action = prop_oneof![
        Just(Action::Line),
        (0..60_u64).prop_map(Action::Read),
        ((-80..80_i64), (0..3_i64)).prop_map(|(offset, whence)| Action::Seek(offset, whence)),
        (0..80_u64).prop_map(Action::Truncate),
        data().prop_map(Action::Write),
    ];
    prop::collection::vec(action, 0..40)
}

proptest! {
    /// Reading ahead is never seen: a file acts as its bytes in memory would.
    #[test]
    fn acts_like_memory(actions in actions()) {
        let fixture = Fixture::new();
        let file = fixture.writer().open("f", "wb+").unwrap();
        let mut model = Cursor::new(Vec::<u8>::new());
        for action in actions {
            match action {
                Action::Line => {
                    let mut line = Vec::new();
                    std::io::BufRead::read_until(&mut model, b'\n', &mut line).unwrap();
                    let expected = (!line.is_empty()).then_some(Data::Bytes(line));
                    prop_assert_eq!(file.next_line(LIMIT).unwrap(), expected);
                }
                Action::Read(count) => {
                    let mut expected = Vec::new();
                    (&mut model).take(count).read_to_end(&mut expected).unwrap();
                    prop_assert_eq!(file.read(Some(count), LIMIT).unwrap(), Data::Bytes(expected));
                }
                Action::Seek(offset, whence) => {
                    let from = match whence {
                        0 if offset < 0 => continue,
                        0 => SeekFrom::Start(offset as u64),
                        1 => SeekFrom::Current(offset),
                        _ => SeekFrom::End(offset),
                    };
                    prop_assert_eq!(file.seek(offset, whence).ok(), model.seek(from).ok());
                }
                Action::Truncate(size) => {
                    file.truncate(Some(size)).unwrap();
                    model.get_mut().resize(size as usize, 0);
                }
                Action::Write(data) => {
                    // A cursor fills the gap behind its end even if there is nothing to write.
                    if !data.is_empty() {
                        model.write_all(&data).unwrap();
                    }
                    prop_assert_eq!(file.write(DataRef::Bytes(&data)), Ok(data.len() as u64));
                }
            }
            prop_assert_eq!(file.tell().unwrap(), model.position());
        }
        prop_assert_eq!(&fs::read(fixture.path("f")).unwrap(), model.get_ref());
    }
}
