//! Files that take others' places.

use super::*;

fn names(fixture: &Fixture) -> Vec<String> {
    fixture.reader().listdir(".", LIMIT).unwrap()
}

#[test]
fn it_is_seen_when_it_is_committed_and_not_before() {
    let fixture = Fixture::with(&[("f", b"old"), ("d/g", b"")]);
    let tree = fixture.writer();
    let read = |path: &str| fs::read(fixture.path(path)).unwrap();
    for (path, size) in [("f", Some(8)), ("f", None), ("new", Some(8)), ("d/../d/g", None)] {
        let replacement = tree.replace(path, 0o666).unwrap();
        assert_eq!(replacement.path(), path);
        assert_eq!(replacement.write(b"new "), Ok(4));
        assert_eq!(replacement.write(b""), Ok(0));
        assert_eq!(replacement.write(b"text"), Ok(4));
        assert!(!fixture.path("new").exists());
        assert!(path != "f" || size.is_none() || read("f") == b"old");
        assert_eq!(replacement.commit(size), Ok(8));
        assert_eq!(read(path), b"new text");
        // It is over.
        assert_eq!(replacement.write(b"x"), Err(FileError::closed()));
        assert_eq!(replacement.commit(None), Err(FileError::closed()));
        drop(replacement);
        assert_eq!(read(path), b"new text");
        assert!(path != "new" || fs::remove_file(fixture.path("new")).is_ok());
    }
    assert_eq!(names(&fixture), ["d", "f"]);
}

#[test]
fn dropped_or_discarded_it_leaves_no_trace() {
    let fixture = Fixture::with(&[("f", b"old")]);
    let tree = fixture.writer();
    let replacement = tree.replace("f", 0o666).unwrap();
    replacement.write(b"new").unwrap();
    assert_eq!(names(&fixture).len(), 2);
    drop(replacement);
    assert_eq!(names(&fixture), ["f"]);

    let replacement = tree.replace("f", 0o666).unwrap();
    let state = replacement.state();
    assert!(state.is_unfinished());
    state.discard();
    assert!(!state.is_unfinished());
    assert_eq!(names(&fixture), ["f"]);
    assert_eq!(replacement.write(b"x"), Err(FileError::closed()));
    assert_eq!(replacement.commit(None), Err(FileError::closed()));
    assert_eq!(fs::read(fixture.path("f")).unwrap(), b"old");
}

#[test]
fn another_size_than_what_was_written_is_refused() {
    let fixture = Fixture::with(&[("f", b"old")]);
    let replacement = fixture.writer().replace("f", 0o666).unwrap();
    replacement.write(b"new").unwrap();
    let refused = FileError::Value("3 bytes were written instead of 4 to replace 'f'".into());
    assert_eq!(replacement.commit(Some(4)), Err(refused.clone()));
    // For good.
    assert_eq!(replacement.write(b"x"), Err(refused.clone()));
    assert_eq!(replacement.commit(Some(3)), Err(refused));
    assert_eq!(fs::read(fixture.path("f")).unwrap(), b"old");
    assert_eq!(names(&fixture), ["f"]);
}

#[test]
fn what_cannot_be_replaced_is_told_at_once() {
    let fixture = Fixture::with(&[("d/f", b""), ("g", b"")]);
    assert_eq!(fixture.reader().replace("g", 0o666).err(), Some(FileError::read_only("g")));
    assert_eq!(fixture.reader().replace("new", 0o666).err(), Some(FileError::read_only("new")));
    let tree = fixture.writer();
    for path in ["d", "d/", ".", "d/..", "new/", ""] {
        let error = kind(tree.replace(path, 0o666)).0;
        let expected = if path.is_empty() { ["FileNotFoundError"; 2] } else { ["IsADirectoryError"; 2] };
        assert!(expected.contains(&error), "{path:?}: {error}");
    }
    assert_eq!(kind(tree.replace("none/f", 0o666)).0, "FileNotFoundError");
    assert_eq!(kind(tree.replace("g/f", 0o666)).0, "NotADirectoryError");
    assert_eq!(kind(tree.replace("a\0b", 0o666)).0, "ValueError");
    assert_eq!(names(&fixture), ["d", "g"]);
}

#[cfg(unix)]
#[test]
fn permissions_and_links_stay() {
    use std::os::unix::fs::{PermissionsExt, symlink};

    let fixture = Fixture::with(&[("d/secret", b"old"), ("tool", b"old")]);
    let mode = |path: &str| fs::metadata(fixture.path(path)).unwrap().permissions().mode() & 0o7777;
    let set = |path: &str, mode| fs::set_permissions(fixture.path(path), fs::Permissions::from_mode(mode)).unwrap();
    set("d/secret", 0o600);
    set("tool", 0o751);
    symlink("d/secret", fixture.path("link")).unwrap();
    let tree = fixture.writer();
    for path in ["link", "tool", "private", "plain"] {
        let replacement = tree.replace(path, if path == "private" { 0o4700 } else { 0o666 }).unwrap();
        replacement.write(path.as_bytes()).unwrap();
        replacement.commit(None).unwrap();
    }
    assert!(fs::symlink_metadata(fixture.path("link")).unwrap().is_symlink());
    assert_eq!(fs::read(fixture.path("d/secret")).unwrap(), b"link");
    assert_eq!([mode("d/secret"), mode("tool"), mode("private")], [0o600, 0o751, 0o700]);
    // As any new file.
    fs::write(fixture.path("other"), "").unwrap();
    assert_eq!(mode("plain"), mode("other"));
}
