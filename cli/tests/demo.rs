//! `farref demo`, and the client in another language.

mod common;

use std::path::Path;
use std::process::Command;

use common::{FARREF, Run, run};
use tempfile::TempDir;

/// Each step's last line ends in its counts.
fn check(demo: &Run) {
    let printed = demo.printed();
    assert_eq!(demo.stderr, "");
    let steps: Vec<_> = printed.split("\n\n").skip(1).collect();
    assert_eq!(steps.len(), 6, "{printed}");
    for (nth, step) in steps.iter().enumerate() {
        assert!(step.starts_with(&format!("{}. ", nth + 1)), "{step}");
        let last = step.lines().last().expect("a line");
        let counts = last.rsplit_once(" (").and_then(|(_, counts)| counts.strip_suffix(" round trips)"));
        let numbers = counts.and_then(|counts| counts.split_once(" messages, "));
        let (messages, rest) = numbers.unwrap_or_else(|| panic!("{last}"));
        let (bytes, trips) = rest.split_once(" bytes, ").unwrap_or_else(|| panic!("{last}"));
        let number = |text: &str| text.parse::<u64>().unwrap_or_else(|_| panic!("{last}"));
        assert!(number(messages) > 1 && number(bytes) > number(messages) && number(trips) > 0, "{last}");
    }
    assert!(steps[1].ends_with(" 1 round trips)") || steps[1].ends_with(" 1 round trips)\n"), "{}", steps[1]);
    assert!(steps[4].contains("caught FileNotFoundError"), "{}", steps[4]);
    assert!(steps[5].contains("here:     [0, 0, 0, 0]\n   there:    [0, 0, 0, 0] ("), "{}", steps[5]);
}

/// A1, A7, A15, B1, C8: the tour, where there is a README.md.
#[test]
fn demo_shows_the_folder_it_is_in() {
    let folder = TempDir::new().expect("a folder");
    std::fs::write(folder.path().join("README.md"), "# Of the test\n").expect("a file");
    std::fs::create_dir(folder.path().join("inner")).expect("a folder");
    let demo = run(Command::new(FARREF).arg("demo").current_dir(folder.path()));
    check(&demo);
    assert!(demo.stdout.contains("| README.md (14 bytes)\n   | inner/\n"), "{}", demo.stdout);
    assert!(demo.stdout.contains("| # Of the test\n   14 characters ("), "{}", demo.stdout);
    assert!(demo.stdout.contains("called back with inner: 0 subfolders, 0 files"), "{}", demo.stdout);
}

#[test]
fn demo_makes_a_folder_where_there_is_no_readme() {
    let folder = TempDir::new().expect("a folder");
    let demo = run(Command::new(FARREF).arg("demo").current_dir(folder.path()));
    check(&demo);
    assert!(demo.stdout.contains("called back with docs/pictures"), "{}", demo.stdout);
    assert_eq!(folder.path().read_dir().expect("it is there").count(), 0);
}

/// SPEC.md is enough to write a peer: a client in Python uses the program's files and is called back.
#[test]
fn python_client() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let demo = repository.join("conformance/peers/python/demo.py");
    let mut client = Command::new("python3");
    client.arg(demo).args(["--", FARREF, "serve", "--stdio", "--root"]).arg(repository);
    let client = run(&mut client);
    assert_eq!(client.code, Some(0), "{client:?}");
}
