//! What a run of the suite has shown.

use std::path::PathBuf;
use std::{env, fmt, fs, io};

/// Why a case failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What the rule wants.
    pub expected: String,
    /// What came.
    pub got: String,
}

impl Failure {
    pub(super) fn new(expected: impl Into<String>, got: impl Into<String>) -> Self {
        Self { expected: expected.into(), got: got.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "expected {}; {}", self.expected, self.got)
    }
}

/// The outcome of each case over one transport.
#[derive(Clone, Debug)]
pub struct Report {
    transport: String,
    outcomes: Vec<(&'static str, Result<(), Failure>)>,
}

impl Report {
    pub(super) fn new(transport: &str) -> Self {
        Self { transport: transport.to_owned(), outcomes: Vec::new() }
    }

    pub(super) fn add(&mut self, case: &'static str, outcome: Result<(), Failure>) {
        self.outcomes.push((case, outcome));
    }

    /// How many cases were run.
    pub fn cases(&self) -> usize {
        self.outcomes.len()
    }

    /// The cases that failed, and why.
    pub fn failed(&self) -> impl Iterator<Item = (&'static str, &Failure)> {
        self.outcomes.iter().filter_map(|(case, outcome)| Some((*case, outcome.as_ref().err()?)))
    }

    /// Whether cases were run and all passed.
    pub fn is_green(&self) -> bool {
        self.cases() > 0 && self.failed().count() == 0
    }

    /// Writes the figures to `target/conformance/<transport>.json`, from where `cargo xtask test` takes its table.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self) -> io::Result<()> {
        let target = env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
        let target = target.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target"));
        let folder = target.join("conformance");
        fs::create_dir_all(&folder)?;
        let failed: Vec<_> = self.failed().map(|(case, _)| case).collect();
        let figures = serde_json::json!({
            "transport": self.transport,
            "cases": self.cases(),
            "passed": self.cases() - failed.len(),
            "failed": failed,
        });
        fs::write(folder.join(format!("{}.json", self.transport)), format!("{figures}\n"))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (case, outcome) in &self.outcomes {
            match outcome {
                Ok(()) => writeln!(out, "ok      {case}")?,
                Err(failure) => writeln!(out, "FAILED  {case}\n        {failure}")?,
            }
        }
        let failed = self.failed().count();
        write!(out, "{}: {} cases, {} passed, {failed} failed", self.transport, self.cases(), self.cases() - failed)
    }
}
