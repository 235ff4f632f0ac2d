//! `cargo xtask test`: every check, in one run, with one line at the end.

use std::{
    ops::AddAssign,
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use crate::{conformance, firmware, no_alloc, setup, shell, size, spec};

/// Runs every step, even after one that failed, and prints the sum as the last line.
pub fn run(root: &Path) -> ExitCode {
    let command = |arguments: &str| {
        let mut command = shell::cargo(root);
        command.args(arguments.split(' '));
        command
    };
    let cargo = |arguments| Tally::of(shell::run(&mut command(arguments)));

    let mut steps = Steps::default();
    steps.run("setup", || Tally::of(setup::run(root)));
    steps.run("fmt", || cargo("fmt --all --check"));
    steps.run("clippy", || cargo("clippy --workspace --all-targets --all-features -- -D warnings"));
    steps.run("clippy, bare core", || cargo("clippy -p farref-core --no-default-features --lib -- -D warnings"));
    steps.run("clippy, no TLS", || cargo("clippy -p farref-tokio --no-default-features --lib -- -D warnings"));
    steps.run("doc", || {
        let mut doc = command("doc --workspace --no-deps");
        Tally::of(shell::run(doc.env("RUSTDOCFLAGS", "-D warnings")))
    });
    steps.run("test", || match conformance::clear(root) {
        Ok(()) => {
            tests(|on_line| shell::run_reading(&mut command("test --workspace --all-features --no-fail-fast"), on_line))
        }
        error => Tally::of(error),
    });
    steps.run("spec", || Tally::of(spec::run(root)));
    steps.run("no-alloc", || Tally::of(no_alloc::run(root)));
    steps.run("size", || Tally::of(size::run(root, &[])));
    steps.run("firmware", || tests(|on_line| firmware::run(root, &[], on_line)));
    let suite = conformance::Table::read(root);
    steps.run("conformance", || {
        let (passed, failed) = suite.verdict();
        Tally { passed, failed }
    });
    println!("\n{suite}");
    steps.conclude()
}

/// Adds up what each test binary reports.
fn tests(run: impl FnOnce(&mut dyn FnMut(&str)) -> Result<(), String>) -> Tally {
    let mut results = Results::default();
    let outcome = run(&mut |line| results.read(line));
    if let Err(error) = &outcome {
        report(error);
    }
    results.tally(outcome.is_ok())
}

#[derive(Default)]
struct Steps {
    done: Vec<(&'static str, Tally, Duration)>,
}

impl Steps {
    fn run(&mut self, name: &'static str, step: impl FnOnce() -> Tally) {
        println!("\n== {name}");
        let start = Instant::now();
        let tally = step();
        self.done.push((name, tally, start.elapsed()));
    }

    fn conclude(self) -> ExitCode {
        let mut sum = Tally::default();
        println!();
        for (name, tally, elapsed) in self.done {
            let verdict = if tally.failed == 0 { "ok" } else { "FAILED" };
            println!("{name:18} {verdict:7} {:7.1} s", elapsed.as_secs_f64());
            sum += tally;
        }
        println!("{} passed, {} failed", sum.passed, sum.failed);
        if sum.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Tally {
    passed: u64,
    failed: u64,
}

impl Tally {
    /// A step that is one check.
    fn of(outcome: Result<(), String>) -> Self {
        match outcome {
            Ok(()) => Self { passed: 1, failed: 0 },
            Err(error) => {
                report(&error);
                Self { passed: 0, failed: 1 }
            }
        }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

fn report(error: &str) {
    println!("error: {error}");
}

/// The sum of the `test result:` lines of all test binaries.
#[derive(Default)]
struct Results {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Results {
    /// Adds up a line such as `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0
    /// filtered out; finished in 0.01s`. What a test itself prints has no such tail.
    fn read(&mut self, line: &str) {
        let Some(result) = line.strip_prefix("test result:") else {
            return;
        };
        let Some((result, _)) = result.split_once(" filtered out; finished in ") else {
            return;
        };
        let words: Vec<&str> = result.split_whitespace().collect();
        for pair in words.windows(2) {
            let Ok(count) = pair[0].parse::<u64>() else {
                continue;
            };
            match pair[1].trim_end_matches(';') {
                "passed" => self.passed += count,
                "failed" => self.failed += count,
                "ignored" => self.ignored += count,
                _ => {}
            }
        }
    }

    fn tally(&self, exited_with_0: bool) -> Tally {
        // A compile error or a test binary that died reports no count of its own.
        let unreported = u64::from(!exited_with_0 && self.failed == 0);
        Tally {
            passed: self.passed,
            // An ignored test is a promise that nobody checks.
            failed: self.failed + self.ignored + unreported,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(output: &str, exited_with_0: bool) -> Tally {
        let mut results = Results::default();
        output.lines().for_each(|line| results.read(line));
        results.tally(exited_with_0)
    }

    fn sum(passed: u64, failed: u64) -> Tally {
        Tally { passed, failed }
    }

    const GREEN: &str = "\
running 3 tests
test a ... ok
test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s
   Doc-tests farref_core
test result: ok. 40 passed; 0 failed; 0 ignored; 0 measured; 2 filtered out; finished in 0.50s
";

    fn line(passed: u64, failed: u64, ignored: u64) -> String {
        format!(
            "test result: ok. {passed} passed; {failed} failed; {ignored} ignored; 0 measured; \
             0 filtered out; finished in 0.00s\n"
        )
    }

    #[test]
    fn result_lines_are_summed() {
        assert_eq!(tally(GREEN, true), sum(43, 0));
        let output = format!("{GREEN}{}", line(5, 2, 0));
        assert_eq!(tally(&output, false), sum(48, 2));
    }

    #[test]
    fn ignored_tests_count_as_failed() {
        assert_eq!(tally(&line(1, 0, 4), true), sum(1, 4));
    }

    #[test]
    fn a_failure_that_no_line_reports_counts_once() {
        assert_eq!(tally("", false), sum(0, 1));
        assert_eq!(tally(GREEN, false), sum(43, 1));
    }

    #[test]
    fn an_ignored_test_does_not_hide_a_dead_binary() {
        assert_eq!(tally(&line(0, 0, 1), false), sum(0, 2));
    }

    #[test]
    fn what_a_test_prints_does_not_count() {
        let quoted = format!("note: {}test result: ok. 9 passed; 9 failed\n", line(9, 9, 9));
        assert_eq!(tally(&quoted, true), sum(0, 0));
    }

    #[test]
    fn a_colored_result_counts() {
        let colored = line(7, 0, 0).replace("ok.", "\x1b[32mok\x1b[0m.");
        assert_eq!(tally(&colored, true), sum(7, 0));
    }
}
