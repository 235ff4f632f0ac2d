//! Listing, facts and walking.

use super::*;

#[test]
fn listdir_sorts_names() {
    let fixture = Fixture::with(&[("b", b""), ("a", b""), ("d/e", b""), ("C", b""), ("é", b"")]);
    let tree = fixture.reader();
    assert_eq!(tree.listdir(".", LIMIT).unwrap(), ["C", "a", "b", "d", "é"]);
    assert_eq!(tree.listdir("d/", LIMIT).unwrap(), ["e"]);
    assert_eq!(tree.listdir("d/..", LIMIT).unwrap().len(), 5);
    assert_eq!(kind(tree.listdir("a", LIMIT)), ("NotADirectoryError", Some(20)));
    assert_eq!(kind(tree.listdir("z", LIMIT)), ("FileNotFoundError", Some(2)));
    assert_eq!(kind(tree.listdir("", LIMIT)), ("FileNotFoundError", Some(2)));
    let error = fault(tree.listdir(".", 100));
    assert_eq!(error.errno(), Some(27));
    assert!(error.to_string().contains("more than the limit of 100 bytes"), "{error}");
}

#[test]
fn errors_have_pythons_names_and_arguments() {
    let fixture = Fixture::with(&[("f", b""), ("d/e", b"")]);
    let tree = fixture.writer();
    let cases = [
        ("none", "r", "FileNotFoundError", 2, "No such file or directory"),
        ("", "r", "FileNotFoundError", 2, "No such file or directory"),
        ("no/f", "w", "FileNotFoundError", 2, "No such file or directory"),
        ("f/x", "r", "NotADirectoryError", 20, "Not a directory"),
        ("f/", "r", "NotADirectoryError", 20, "Not a directory"),
        ("f/..", "r", "NotADirectoryError", 20, "Not a directory"),
        ("d", "r", "IsADirectoryError", 21, "Is a directory"),
        ("d", "w", "IsADirectoryError", 21, "Is a directory"),
        ("d", "x", "FileExistsError", 17, "File exists"),
        (".", "r", "IsADirectoryError", 21, "Is a directory"),
    ];
    for (path, mode, exception, errno, message) in cases {
        let error = fault(tree.open(path, mode));
        assert_eq!(error.exception(), exception, "{path} {mode}");
        let args = [ErrorArg::Int(errno), ErrorArg::Str(message.into()), ErrorArg::Str(path.into())];
        assert_eq!(error.args(), args, "{path} {mode}");
        let shown = format!("{exception}: [Errno {errno}] {message}: '{path}'");
        assert_eq!(error.to_string(), shown);
    }
    let long = "n".repeat(300);
    let error = fault(tree.open(&long, "r"));
    assert_eq!(error.exception(), "OSError");
    let missing = Tree::rooted_at(&fixture.path("none"), false);
    assert_eq!(kind(missing), ("FileNotFoundError", Some(2)));
    let no_folder = Tree::rooted_at(&fixture.path("f"), false);
    assert_eq!(kind(no_folder), ("NotADirectoryError", Some(20)));
}

#[test]
fn nul_bytes_are_refused_everywhere() {
    let fixture = Fixture::with(&[("f", b"")]);
    let tree = fixture.writer();
    for path in ["\0", "f\0", "f\0/../../outside", "\0f"] {
        let expected = FileError::Value("embedded null byte".into());
        assert_eq!(fault(tree.open(path, "r")), expected);
        assert_eq!(fault(tree.open(path, "w")), expected);
        assert_eq!(fault(tree.listdir(path, LIMIT)), expected);
        assert_eq!(fault(tree.stat(path)), expected);
        assert_eq!(fault(tree.lstat(path)), expected);
        assert_eq!(fault(tree.walk(path, LIMIT)), expected);
    }
}

#[cfg(unix)]
#[test]
fn stat_tells_what_is_there() {
    use std::os::unix::fs::PermissionsExt;
    use std::time::{Duration, SystemTime};

    let fixture = Fixture::with(&[("f", b"12345"), ("d/e", b"")]);
    std::os::unix::fs::symlink("f", fixture.path("link")).unwrap();
    let permissions = fs::Permissions::from_mode(0o640);
    fs::set_permissions(fixture.path("f"), permissions).unwrap();
    let file = fs::File::options().write(true).open(fixture.path("f")).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_millis(1500)).unwrap();
    let expected = Stat { kind: Kind::File, size: 5, modified: 1.5, mode: 0o100_640, read_only: false };
    let tree = fixture.writer();
    assert_eq!(tree.stat("f").unwrap(), expected);
    assert_eq!(tree.stat("link").unwrap(), expected);
    assert_eq!(tree.lstat("f").unwrap(), expected);
    let link = tree.lstat("link").unwrap();
    assert_eq!((link.kind, link.size, link.mode), (Kind::Symlink, 1, 0o120_777));
    assert!(fixture.reader().stat("f").unwrap().read_only);
    assert_eq!(tree.stat("d").unwrap().kind, Kind::Dir);
    assert_eq!(tree.stat(".").unwrap().kind, Kind::Dir);
    assert_eq!(kind(tree.stat("none")), ("FileNotFoundError", Some(2)));
    assert_eq!(kind(tree.stat("")), ("FileNotFoundError", Some(2)));

    file.set_modified(SystemTime::UNIX_EPOCH - Duration::from_millis(1500)).unwrap();
    assert_eq!(tree.stat("f").unwrap().modified, -1.5);
    fs::set_permissions(fixture.path("f"), fs::Permissions::from_mode(0o440)).unwrap();
    assert!(tree.stat("f").unwrap().read_only);
    let names = [Kind::Dir, Kind::File, Kind::Other, Kind::Symlink].map(Kind::name);
    assert_eq!(names, ["dir", "file", "other", "symlink"]);
}

#[test]
fn walk_is_top_down_and_sorted() {
    let fixture = Fixture::with(&[("b/x", b""), ("b/c/y", b""), ("a/z", b""), ("f", b""), ("e", b"")]);
    fs::create_dir(fixture.path("empty")).unwrap();
    let tree = fixture.reader();
    let steps = |path| {
        let walk = tree.walk(path, LIMIT).unwrap();
        let step = |step: Result<WalkStep, FileError>| {
            let step = step.unwrap();
            format!("{} {:?} {:?}", step.dir, step.subdirs, step.files)
        };
        walk.map(step).collect::<Vec<_>>()
    };
    assert_eq!(
        steps("."),
        [
            r#". ["a", "b", "empty"] ["e", "f"]"#,
            r#"./a [] ["z"]"#,
            r#"./b ["c"] ["x"]"#,
            r#"./b/c [] ["y"]"#,
            r#"./empty [] []"#,
        ]
    );
    assert_eq!(steps("b/"), [r#"b/ ["c"] ["x"]"#, r#"b/c [] ["y"]"#]);
    assert_eq!(steps("b/c"), [r#"b/c [] ["y"]"#]);
    assert_eq!(kind(tree.walk("f", LIMIT)), ("NotADirectoryError", Some(20)));
    assert_eq!(kind(tree.walk("none", LIMIT)), ("FileNotFoundError", Some(2)));
}

#[test]
fn walk_is_lazy_and_goes_on_after_an_error() {
    let fixture = Fixture::with(&[("a/x", b""), ("b/y", b""), ("c/z", b"")]);
    let mut walk = fixture.reader().walk(".", LIMIT).unwrap();
    assert_eq!(walk.next().unwrap().unwrap().subdirs, ["a", "b", "c"]);
    fs::remove_dir_all(fixture.path("a")).unwrap();
    fs::write(fixture.path("b/new"), "").unwrap();
    let error = walk.next().unwrap().unwrap_err();
    assert_eq!(error.to_string(), "FileNotFoundError: [Errno 2] No such file or directory: './a'");
    assert_eq!(walk.next().unwrap().unwrap().files, ["new", "y"]);
    assert_eq!(walk.next().unwrap().unwrap().dir, "./c");
    assert!(walk.next().is_none());
    assert!(walk.next().is_none());
}

#[test]
fn walk_bounds_folders_and_depth() {
    let fixture = Fixture::with(&[("big/x", b""), ("small/y", b"")]);
    for n in 0..100 {
        fs::write(fixture.path(&format!("big/{n}")), "").unwrap();
    }
    let mut walk = fixture.reader().walk(".", 200).unwrap();
    walk.next().unwrap().unwrap();
    assert_eq!(walk.next().unwrap().unwrap_err().errno(), Some(27));
    assert_eq!(walk.next().unwrap().unwrap().dir, "./small");
    assert!(walk.next().is_none());

    let fixture = Fixture::new();
    fs::create_dir_all(fixture.path(&"d/".repeat(300))).unwrap();
    let steps: Vec<_> = fixture.reader().walk(".", LIMIT).unwrap().collect();
    assert_eq!(steps.len(), 257);
    assert!(steps[..256].iter().all(Result::is_ok));
    let error = steps[256].as_ref().unwrap_err().to_string();
    assert!(error.contains("the folders nest more than 256 deep"), "{error}");
}

#[cfg(target_os = "linux")]
#[test]
fn names_that_are_not_utf8_are_shown_and_walked() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let fixture = Fixture::new();
    let odd = fixture.path("").join(OsStr::from_bytes(b"d\xff"));
    fs::create_dir(&odd).unwrap();
    fs::write(odd.join("f"), "").unwrap();
    let tree = fixture.reader();
    assert_eq!(tree.listdir(".", LIMIT).unwrap(), ["d\u{fffd}"]);
    let steps: Vec<_> = tree.walk(".", LIMIT).unwrap().map(Result::unwrap).collect();
    assert_eq!(steps[1].files, ["f"]);
    assert_eq!(kind(tree.listdir("d\u{fffd}", LIMIT)).0, "FileNotFoundError");
}
