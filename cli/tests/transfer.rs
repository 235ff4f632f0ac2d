//! `farref get` and `farref put`: files that go there and back, and what is left when they do not.
#![cfg(unix)]

mod common;

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{FARREF, Run, Served, Then, farref, quote, run, until, within};
use tempfile::TempDir;

/// How the tests reach what serves a folder, with these words more on its command line. Each of them runs over all of these.
type Reach = fn(&Served, &str) -> String;
const REACHES: &[Reach] = &[Served::url];

/// A folder that is served, and one on this side.
struct Sides {
    served: Served,
    here: TempDir,
    reach: Reach,
}

impl Sides {
    fn url(&self, more: &str) -> String {
        (self.reach)(&self.served, more)
    }

    fn there(&self, name: &str) -> PathBuf {
        self.served.root().join(name)
    }

    fn here(&self, name: &str) -> String {
        self.here.path().join(name).into_os_string().into_string().expect("UTF-8")
    }

    fn get(&self, path: &str, local: &str) -> Run {
        farref(["get", &self.url(""), path, local])
    }

    fn put(&self, local: &str, path: &str) -> Run {
        farref(["put", &self.url("--write"), local, path])
    }

    /// Nothing that is not complete is left on either side, now or soon: the server may not have ended yet.
    fn nothing_is_left(&self) {
        let names = fs::read_dir(self.here.path()).expect("a folder").map(|entry| entry.expect("an entry").file_name());
        let hidden: Vec<_> = names.filter(|name| name.as_encoded_bytes().starts_with(b".")).collect();
        assert!(hidden.is_empty(), "{hidden:?}");
        until(|| self.served.hidden().is_empty());
    }
}

fn each_way(test: impl Fn(&Sides)) {
    for &reach in REACHES {
        let sides = Sides { served: Served::new(), here: TempDir::new().expect("a folder"), reach };
        test(&sides);
        sides.nothing_is_left();
    }
}

/// The bytes of a part.
const PART: usize = 256 << 10;

/// So many bytes, no two parts of which are alike.
fn bytes(count: usize) -> Vec<u8> {
    (0..count as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn mode(path: impl AsRef<Path>) -> u32 {
    fs::metadata(path).expect("it is there").permissions().mode() & 0o7777
}

fn set_mode(path: impl AsRef<Path>, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
}

/// A10: files of any size, those far above what a message holds too.
#[test]
fn a10_files_of_any_size_go_there_and_back() {
    each_way(|sides| {
        for size in [0, 1, PART - 1, PART, 3 * PART + 1, 50_000_000] {
            let contents = bytes(size);
            fs::write(sides.there("f"), &contents).expect("a file");
            assert_eq!(sides.get("f", &sides.here("f")).printed(), "");
            assert!(fs::read(sides.here("f")).expect("it came") == contents, "{size}");
            assert_eq!(sides.put(&sides.here("f"), "sub/g").printed(), "");
            assert!(fs::read(sides.there("sub/g")).expect("it went") == contents, "{size}");
        }
    });
}

#[test]
fn a_dash_is_standard_input_and_output() {
    each_way(|sides| {
        let contents = bytes(PART + 1);
        let mut put = Command::new(FARREF)
            .args(["put", &sides.url("--write"), "-", "sub/in"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("it starts");
        // In pieces that are no parts.
        let mut stdin = put.stdin.take().expect("a pipe");
        contents.chunks(10_000).for_each(|piece| stdin.write_all(piece).expect("it reads"));
        drop(stdin);
        assert_eq!(within(move || put.wait().expect("it ends").code()), Some(0));
        assert!(fs::read(sides.there("sub/in")).expect("it went") == contents);
        let mut get = Command::new(FARREF);
        get.args(["get", &sides.url(""), "sub/in", "-"]).stdin(Stdio::null());
        let got = within(move || get.output().expect("it runs"));
        assert!(got.stdout == contents && got.stderr.is_empty() && got.status.success());
        // That nobody reads on is no error, as everywhere in a pipeline.
        let line = format!("{FARREF} get {} sub/in - | head -c 1", quote(&sides.url("")));
        let first = run(Command::new("sh").args(["-c", &line]));
        assert_eq!((first.stdout.as_bytes(), &*first.stderr), (&contents[..1], ""));
        // Nothing at all is a file without contents.
        assert_eq!(sides.put("-", "sub/in").printed(), "");
        assert_eq!(fs::read(sides.there("sub/in")).expect("it went"), b"");
    });
}

#[test]
fn a_folder_gets_a_file_of_the_same_name() {
    each_way(|sides| {
        assert_eq!(sides.get("sub/grüße.txt", &sides.here("")).printed(), "");
        assert_eq!(fs::read_to_string(sides.here("grüße.txt")).expect("it came"), "äöü");
        let url = sides.url("");
        let get = run(Command::new(FARREF).args(["get", &url, "sub/deep/x.bin"]).current_dir(sides.here.path()));
        assert_eq!(get.printed(), "");
        assert_eq!(fs::read(sides.here("x.bin")).expect("it came"), b"\0\x01");
        assert_eq!(sides.put(&sides.here("grüße.txt"), "sub/deep/").printed(), "");
        assert_eq!(fs::read_to_string(sides.there("sub/deep/grüße.txt")).expect("it went"), "äöü");
        assert_eq!(sides.put("-", "sub/").failed(2), "say what it is to be called in \"sub/\"");
        assert!(sides.get("sub/..", &sides.here("")).failed(2).contains("names no file"));
    });
}

#[test]
fn what_is_there_is_replaced_and_keeps_its_permissions() {
    each_way(|sides| {
        fs::write(sides.there("tool"), "#!/bin/sh\n").expect("a file");
        set_mode(sides.there("tool"), 0o700);
        // New: as the one that is copied.
        assert_eq!(sides.get("tool", &sides.here("new")).printed(), "");
        assert_eq!(sides.put(&sides.here("new"), "new").printed(), "");
        assert_eq!([mode(sides.here("new")), mode(sides.there("new"))], [0o700; 2]);
        // There already, behind a link.
        for file in [PathBuf::from(sides.here("old")), sides.there("old")] {
            fs::write(&file, "something else that is longer").expect("a file");
            set_mode(&file, 0o640);
            symlink("old", file.with_file_name("link")).expect("a link");
        }
        assert_eq!(sides.get("tool", &sides.here("link")).printed(), "");
        assert_eq!(sides.put(&sides.here("new"), "link").printed(), "");
        for file in [PathBuf::from(sides.here("old")), sides.there("old")] {
            assert_eq!(fs::read_to_string(&file).expect("it is there"), "#!/bin/sh\n");
            assert_eq!(mode(&file), 0o640);
            assert!(fs::symlink_metadata(file.with_file_name("link")).expect("it is there").is_symlink());
        }
    });
}

#[test]
fn errors_name_the_side_and_the_path() {
    each_way(|sides| {
        let (here, there) = (sides.here("new"), sides.there("new"));
        let notes = sides.there("notes.txt").into_os_string().into_string().expect("UTF-8");
        let folder_there =
            "on the far side: IsADirectoryError: [Errno 21] Is a directory: 'sub'; get and put copy one file";
        assert_eq!(sides.get("sub", &here).failed(1), format!("cannot read \"sub\" {folder_there}"));
        assert_eq!(sides.put(&notes, "sub").failed(1), format!("cannot write \"sub\" {folder_there}"));
        let missing = "on the far side: FileNotFoundError: [Errno 2] No such file or directory: 'no/new'";
        assert_eq!(sides.get("no/new", &here).failed(1), format!("cannot read \"no/new\" {missing}"));
        assert_eq!(sides.put(&notes, "no/new").failed(1), format!("cannot write \"no/new\" {missing}"));
        assert!(sides.get("../secret.txt", &here).failed(1).contains("leads out of the served folder"));
        assert!(sides.put(&notes, "../new").failed(1).contains("leads out of the served folder"));
        assert_eq!(
            farref(["put", &sides.url(""), &notes, "new"]).failed(1),
            "cannot write \"new\" on the far side: PermissionError: [Errno 13] the folder is served read-only: 'new'"
        );
        let no_folder = format!("there is no folder {} here", sides.here("no"));
        assert_eq!(sides.get("notes.txt", &sides.here("no/new")).failed(4), no_folder);
        assert_eq!(
            sides.get("notes.txt", &sides.here("no/")).failed(4),
            format!("there is no folder {} here", sides.here("no/"))
        );
        fs::create_dir(sides.here("notes.txt")).expect("a folder");
        let folder_here = format!("{} is a folder here", sides.here("notes.txt"));
        assert_eq!(sides.get("notes.txt", &sides.here("")).failed(2), folder_here);
        assert_eq!(sides.put(&sides.here("notes.txt"), "new").failed(2), format!("{folder_here}; put copies one file"));
        let no_file = format!("cannot read {here} here: No such file or directory (os error 2)");
        assert_eq!(sides.put(&here, "new").failed(4), no_file);
        assert!(!Path::new(&here).exists() && !there.exists());
    });
}

/// A device is written as it is, and what it says is told.
#[test]
fn a_full_disk_here_is_told() {
    each_way(|sides| {
        fs::write(sides.there("big"), bytes(20 * PART)).expect("a file");
        let full = "cannot write /dev/full here: No space left on device (os error 28)";
        assert_eq!(sides.get("big", "/dev/full").failed(4), full);
        assert_eq!(sides.get("big", "/dev/null").printed(), "");
    });
}

/// Files of more than half of what is copied cannot be written there: it is as on a full disk.
#[test]
fn a_full_disk_there_leaves_what_was_there() {
    let served = Served::new();
    let here = TempDir::new().expect("a folder");
    let big = here.path().join("big");
    fs::write(&big, bytes(40 * PART)).expect("a file");
    // The limit counts in blocks of 512 or 1024 bytes, as the shell has it.
    let line = format!("trap '' XFSZ; ulimit -f {}; exec {} --write", 20 * PART / 1024, served.command());
    let url = format!("pipe:sh -c {}", quote(&line));
    let put = farref(["put", &url, big.to_str().expect("UTF-8"), "notes.txt"]);
    let expected = "cannot write \"notes.txt\" on the far side: OSError: [Errno 27] File too large: 'notes.txt'";
    assert_eq!(put.failed(1), expected);
    assert_eq!(fs::read_to_string(served.root().join("notes.txt")).expect("it is there"), "one\ntwo\nthree\n");
    until(|| served.hidden().is_empty());
}

/// The pipe breaks after a million bytes from there to here.
#[test]
fn a_cut_get_leaves_what_was_here() {
    let served = Served::new();
    let here = TempDir::new().expect("a folder");
    fs::write(served.root().join("big"), bytes(40 * PART)).expect("a file");
    let local = here.path().join("big");
    let local = local.to_str().expect("UTF-8");
    for before in [None, Some("as it was")] {
        before.map_or(Ok(()), |before| fs::write(local, before)).expect("a file");
        let get = farref(["get", &served.cut(1_000_000, Then::End), "big", local]);
        let lost =
            "cannot read \"big\" on the far side: the connection to the peer was lost: sh ended (exit status: 0)";
        assert_eq!(get.failed(3), format!("{lost}; {local} here is as it was"));
        assert_eq!(fs::read_to_string(local).ok().as_deref(), before);
        assert_eq!(fs::read_dir(here.path()).expect("a folder").count(), usize::from(before.is_some()));
    }
}

/// The pipe breaks after a million bytes from here to there.
#[test]
fn a_cut_put_leaves_what_was_there() {
    let served = Served::new();
    let here = TempDir::new().expect("a folder");
    let local = here.path().join("big");
    fs::write(&local, bytes(40 * PART)).expect("a file");
    let url = served.cut_off(1_000_000, Then::End);
    for path in ["notes.txt", "new"] {
        let put = farref(["put", &url, local.to_str().expect("UTF-8"), path]);
        let message = put.failed(3);
        assert!(message.starts_with(&format!("cannot write {path:?} on the far side: ")), "{message}");
        assert!(message.ends_with(&format!("; {path:?} there is as it was")), "{message}");
        until(|| served.hidden().is_empty());
    }
    assert_eq!(fs::read_to_string(served.root().join("notes.txt")).expect("it is there"), "one\ntwo\nthree\n");
    assert!(!served.root().join("new").exists());
}

#[test]
fn names_that_are_not_utf8_are_refused_where_they_cannot_be_told() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    each_way(|sides| {
        let odd = OsStr::from_bytes(b"\xff.txt");
        let local = sides.here.path().join(odd);
        // Here any name will do.
        let get = run(Command::new(FARREF).args(["get", &sides.url(""), "notes.txt"]).arg(&local));
        assert_eq!((get.printed(), fs::read_to_string(&local).expect("it came").as_str()), ("", "one\ntwo\nthree\n"));
        let put = |path: &str| run(Command::new(FARREF).args(["put", &sides.url("--write")]).arg(&local).arg(path));
        assert_eq!(put("new").printed(), "");
        assert_eq!(put("sub/").failed(2), "say what it is to be called in \"sub/\"");
        let get = run(Command::new(FARREF).args(["get", &sides.url("")]).arg(odd));
        assert_eq!(get.code, Some(2), "{get:?}");
        assert!(get.stderr.contains("invalid UTF-8"), "{get:?}");
    });
}

/// Progress is for people: on a terminal, unless they want none.
#[test]
fn progress_is_shown_on_a_terminal_only() {
    let served = Served::new();
    fs::write(served.root().join("big"), bytes(20 * PART)).expect("a file");
    let url = served.url("");
    let args = ["get", &url, "big", "/dev/null"];
    assert_eq!(farref(args).stderr, "");
    let shown = on_a_terminal(Command::new(FARREF).args(args));
    assert!(shown.contains("big") && shown.contains("MiB"), "{shown:?}");
    // The line is gone at the end.
    assert!(shown.trim_end_matches('\r').ends_with("\u{1b}[2K"), "{shown:?}");
    assert_eq!(on_a_terminal(Command::new(FARREF).args(args).arg("--quiet")), "");
}

/// What a program writes to its standard error if that is a terminal.
fn on_a_terminal(command: &mut Command) -> String {
    use rustix::fs::{Mode, OFlags, open};
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&ours).and_then(|()| unlockpt(&ours)).expect("it is ours");
    let name = ptsname(&ours, Vec::new()).expect("a name");
    let theirs = open(&*name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).expect("its other end");
    let mut child = command.env("TERM", "xterm").stdin(Stdio::null()).stderr(theirs).spawn().expect("it starts");
    // The command holds the other end, too, until it is given something else.
    command.stderr(Stdio::null());
    within(move || {
        let mut shown = Vec::new();
        // A terminal of which nobody has the other end any more is an error to read.
        let _ = std::io::Read::read_to_end(&mut fs::File::from(ours), &mut shown);
        assert_eq!(child.wait().expect("it ends").code(), Some(0), "{shown:?}");
        String::from_utf8(shown).expect("text")
    })
}
