//! That the bench measures and shows, in one short run: what it measures is no matter of tests.

use std::process::{Command, Output};

fn bench(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_farref-bench")).args(args).output().unwrap()
}

/// The cells of the row that begins with that case and contestant.
fn row<'o>(output: &'o str, case: &str, by: &str) -> Vec<&'o str> {
    let mut last = "";
    for line in output.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        last = if cells[0].is_empty() { last } else { cells[0] };
        if (last, cells[1]) == (case, by) {
            return cells;
        }
    }
    panic!("no row for {case} by {by} in\n{output}")
}

#[test]
fn a_table_has_times_and_counts() {
    let output = bench(&["--quick", "--unpinned", "--transport", "pipe", "--case", "ping", "--case", "callbacks100"]);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    // Messages, and the reads and writes of both sides, for each operation.
    assert_eq!(row(&text, "ping", "raw")[8..12], ["2.00", "16.00", "1.00", "1.00"]);
    assert_eq!(row(&text, "ping", "farref")[8..12], ["2.00", "10.00", "1.00", "1.00"]);
    let ratio: f64 = row(&text, "ping", "farref")[6].parse().unwrap();
    assert!(ratio > 0.0 && ratio.is_finite());
    assert!(row(&text, "callbacks100", "farref")[8].starts_with("2.0"), "{text}");
}

#[test]
fn references_are_held_and_their_bytes_counted() {
    let output = bench(&["--quick", "--unpinned", "--transport", "tcp", "--case", "refs100k"]);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find(|line| line.starts_with("100000 references held: ")).unwrap();
    let bytes: Vec<f64> = line.split(' ').filter_map(|word| word.parse().ok()).skip(1).collect();
    assert_eq!(bytes.len(), 2, "{line}");
    assert!(bytes.iter().all(|bytes| (16.0..1000.0).contains(bytes)), "{line}");
}

#[test]
fn a_missing_bar_is_an_error() {
    let output = bench(&["--quick", "--check", "--transport", "pipe", "--case", "newref"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "farref-bench: nothing that was chosen has a bar\n");
}
