//! There is no way out of the served folder.
#![cfg(unix)]

use super::*;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};

/// Ends the other thread of a race, also where an assertion fails.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Asserts that nothing can be done with `path`, and that the refusal names it.
fn assert_refused(tree: &Tree, path: &str) {
    let check = |error: FileError| {
        assert_eq!(error.exception(), "PermissionError", "{path}: {error}");
        let args = [
            ErrorArg::Int(13),
            ErrorArg::Str("the path leads out of the served folder".into()),
            ErrorArg::Str(path.into()),
        ];
        assert_eq!(error.args(), args);
    };
    for mode in ["r", "rb", "r+", "w", "a"] {
        check(fault(tree.open(path, mode)));
    }
    check(fault(tree.replace(path, 0o666)));
    check(fault(tree.stat(path)));
    check(fault(tree.listdir(path, LIMIT)));
    check(fault(tree.walk(path, LIMIT)));
}

#[test]
fn absolute_paths_are_refused() {
    let fixture = Fixture::with(&[("f", b"")]);
    let tree = fixture.writer();
    assert_refused(&tree, "/");
    assert_refused(&tree, "/etc/passwd");
    assert_refused(&tree, "//etc/passwd");
    // Even one that leads into the folder.
    assert_refused(&tree, fixture.path("f").to_str().unwrap());
}

#[test]
fn parents_are_refused_where_they_leave_the_folder() {
    let fixture = Fixture::with(&[("d/f", b"inside")]);
    let tree = fixture.writer();
    for path in [
        "..",
        "../",
        "./..",
        "../outside",
        "../outside/secret",
        "d/../..",
        "d/../../outside/secret",
        "./d/.././../outside/secret",
        "../../../../../../etc/passwd",
        "../served/d/f",
    ] {
        assert_refused(&tree, path);
    }
    for path in ["d/../d/f", "./d/./f", "d//f", "d/../d/../d/f"] {
        let read = tree.open(path, "r").unwrap().read(None, LIMIT);
        assert_eq!(read, Ok(text("inside")), "{path}");
    }
    let secret = fixture.outside().join("secret");
    assert_eq!(fs::read(secret).unwrap(), b"SECRET");
    for path in ["../new", "../outside/new", "/tmp/farref-new"] {
        assert_eq!(kind(tree.open(path, "x")), ("PermissionError", Some(13)));
    }
    assert_eq!(fs::read_dir(fixture.outside()).unwrap().count(), 1);
}

#[test]
fn symlinks_that_lead_out_are_refused() {
    let fixture = Fixture::with(&[("d/f", b"inside")]);
    let outside = fixture.outside();
    symlink(outside.join("secret"), fixture.path("absolute")).unwrap();
    symlink("../outside/secret", fixture.path("relative")).unwrap();
    symlink("../../outside/secret", fixture.path("d/deep")).unwrap();
    symlink(&outside, fixture.path("folder")).unwrap();
    symlink("../outside", fixture.path("relative-folder")).unwrap();
    symlink("relative", fixture.path("second")).unwrap();
    symlink("relative-folder/secret", fixture.path("through")).unwrap();
    symlink("..", fixture.path("up")).unwrap();
    symlink("../outside/none", fixture.path("dangling")).unwrap();
    symlink("/", fixture.path("root")).unwrap();
    let tree = fixture.writer();
    for path in [
        "absolute",
        "relative",
        "d/deep",
        "folder/secret",
        "folder",
        "relative-folder/secret",
        "second",
        "through",
        "up/outside/secret",
        "up/served/d/f",
        "dangling",
        "root/etc/passwd",
    ] {
        assert_refused(&tree, path);
    }
    for path in ["folder/new", "relative-folder/new", "up/outside/new", "up/new"] {
        assert_eq!(kind(tree.open(path, "x")), ("PermissionError", Some(13)), "{path}");
        assert_eq!(kind(tree.open(path, "w")), ("PermissionError", Some(13)), "{path}");
        assert_eq!(kind(tree.replace(path, 0o666)), ("PermissionError", Some(13)), "{path}");
    }
    // An exclusive mode never follows a link.
    assert_eq!(kind(tree.open("dangling", "x")).0, "FileExistsError");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    assert_eq!(fs::read(outside.join("secret")).unwrap(), b"SECRET");
    assert_eq!(tree.lstat("absolute").unwrap().kind, Kind::Symlink);
    assert_eq!(kind(tree.lstat("folder/secret")), ("PermissionError", Some(13)));
}

#[test]
fn symlinks_within_the_folder_are_followed() {
    let fixture = Fixture::with(&[("d/f", b"inside")]);
    symlink("d/f", fixture.path("file")).unwrap();
    symlink("d", fixture.path("folder")).unwrap();
    symlink("../d/f", fixture.path("d/back")).unwrap();
    symlink("loop", fixture.path("loop")).unwrap();
    let tree = fixture.reader();
    for path in ["file", "folder/f", "folder/back", "folder/../d/f"] {
        let read = tree.open(path, "r").unwrap().read(None, LIMIT);
        assert_eq!(read, Ok(text("inside")), "{path}");
    }
    assert_eq!(tree.listdir("folder", LIMIT).unwrap(), ["back", "f"]);
    assert_eq!(kind(tree.open("loop", "r")).0, "OSError");
    // A folder that is itself a link may be served.
    symlink(fixture.path("d"), fixture.path("served-link")).unwrap();
    let tree = Tree::rooted_at(&fixture.path("served-link"), false).unwrap();
    assert_eq!(tree.listdir(".", LIMIT).unwrap(), ["back", "f"]);
}

#[test]
fn walk_follows_no_symlinks() {
    let fixture = Fixture::with(&[("d/f", b"")]);
    symlink("..", fixture.path("d/up")).unwrap();
    symlink(".", fixture.path("self")).unwrap();
    symlink(fixture.outside(), fixture.path("out")).unwrap();
    let tree = fixture.reader();
    let steps: Vec<_> = tree.walk(".", LIMIT).unwrap().map(Result::unwrap).collect();
    assert_eq!(steps.len(), 2);
    assert_eq!((&*steps[0].subdirs, &*steps[0].files), (&["d".into()][..], &["out".into(), "self".into()][..]));
    assert_eq!(steps[1].files, ["f", "up"]);

    // Nor one that takes a folder's place during the walk.
    let mut walk = tree.walk(".", LIMIT).unwrap();
    walk.next().unwrap().unwrap();
    fs::rename(fixture.path("d"), fixture.path("moved")).unwrap();
    symlink("moved", fixture.path("d")).unwrap();
    let error = walk.next().unwrap().unwrap_err();
    assert!(["NotADirectoryError", "OSError"].contains(&error.exception()), "{error}");
    assert!(walk.next().is_none());
}

#[test]
fn fifos_sockets_and_devices_are_not_opened() {
    let fixture = Fixture::new();
    let fifo = fixture.path("fifo");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status();
    assert!(made.unwrap().success());
    let _socket = std::os::unix::net::UnixListener::bind(fixture.path("socket")).unwrap();
    symlink("fifo", fixture.path("link")).unwrap();
    let tree = fixture.writer();
    for path in ["fifo", "socket", "link"] {
        for mode in ["r", "w", "a", "r+", "rb", "w+"] {
            assert_eq!(fault(tree.open(path, mode)), FileError::not_regular(path));
        }
        assert_eq!(fault(tree.replace(path, 0o666)), FileError::not_regular(path));
        assert_eq!(tree.stat(path).unwrap().kind, Kind::Other);
    }
    let devices = Tree::rooted_at(Path::new("/dev"), true).unwrap();
    for mode in ["r", "r+", "w"] {
        let error = fault(devices.open("null", mode));
        assert_eq!(error, FileError::not_regular("null"));
    }
}

/// A file that becomes a FIFO between the look and the opening neither hangs nor is opened.
#[test]
fn a_fifo_that_takes_a_files_place_does_not_hang() {
    let fixture = Fixture::with(&[("real", b"inside")]);
    let fifo = fixture.path("fifo");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status();
    assert!(made.unwrap().success());
    fs::hard_link(fixture.path("real"), fixture.path("f")).unwrap();
    let tree = fixture.writer();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for from in ["fifo", "real"] {
                    fs::hard_link(fixture.path(from), fixture.path("next")).unwrap();
                    fs::rename(fixture.path("next"), fixture.path("f")).unwrap();
                    // Renaming one link onto another of the same file leaves both.
                    let _ = fs::remove_file(fixture.path("next"));
                }
            }
        });
        for n in 0..3000 {
            let mode = ["r", "a", "r+"][n % 3];
            match tree.open("f", mode) {
                Ok(file) => assert_eq!(file.seek(0, 2), Ok(6)),
                // With no reader there, a FIFO cannot be opened for writing without waiting.
                Err(error) => assert!(error == FileError::not_regular("f") || error.errno() == Some(6), "{error}"),
            }
        }
    });
}

/// A folder is swapped for a link that leads out, over and over, while files are opened through it.
#[test]
fn a_folder_that_turns_into_a_symlink_lets_nothing_out() {
    let fixture = Fixture::with(&[("d/secret", b"inside")]);
    let outside = fixture.outside();
    fs::write(outside.join("only-outside"), "").unwrap();
    symlink(&outside, fixture.path("link")).unwrap();
    let tree = fixture.writer();
    let stop = AtomicBool::new(false);
    let (mut inside, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        scope.spawn(|| {
            let rename = |from, to| fs::rename(fixture.path(from), fixture.path(to)).unwrap();
            while !stop.load(Ordering::Relaxed) {
                rename("d", "d-resting");
                rename("link", "d");
                rename("d", "link");
                rename("d-resting", "d");
            }
        });
        for _ in 0..20_000 {
            match tree.open("d/secret", "r") {
                Ok(file) => {
                    assert_eq!(file.read(None, LIMIT), Ok(text("inside")));
                    inside += 1;
                }
                // Which error depends on what was swapped between which two steps of the way.
                Err(_) => refused += 1,
            }
            assert!(tree.open("d/only-outside", "r").is_err());
            assert!(tree.open("d/new", "x").is_err() || !outside.join("new").exists());
            let _ = fs::remove_file(fixture.path("d/new"));
            if let Ok(replacement) = tree.replace("d/only-inside", 0o666) {
                let _ = replacement.commit(None);
            }
            let names = tree.listdir("d", LIMIT).unwrap_or_default();
            assert!(!names.contains(&"only-outside".into()));
            if inside >= 500 && refused >= 500 {
                break;
            }
        }
    });
    assert!(inside > 0 && refused > 0, "{inside} inside, {refused} refused");
    assert_eq!(fs::read_dir(outside).unwrap().count(), 2);
}
