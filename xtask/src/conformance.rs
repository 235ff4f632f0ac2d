//! The table of the conformance suite: what each transport's own test has left in `target/conformance`.

use std::{
    env, fmt, fs, io,
    path::{Path, PathBuf},
};

use serde_json::Value;

/// Every transport over which the suite has to pass, and the peer in another language, which runs it over a pipe.
const TRANSPORTS: [&str; 12] = [
    "memory",
    "pipe",
    "ssh",
    "tcp",
    "unix",
    "tls",
    "stream",
    "serial",
    "embassy",
    "firmware-tcp",
    "firmware-serial",
    "python",
];

/// How many cases a transport leaves out, and why.
const LEFT_OUT: [(&str, u64, &str); 4] = [
    ("serial", 7, "about preamble and record lengths, which a lossy line has not (suite::is_of_stream)"),
    ("embassy", 8, "not for devices (suite::NOT_FOR_DEVICES)"),
    ("firmware-tcp", 8, "not for devices"),
    ("firmware-serial", 16, "7 as for serial, 8 not for devices, and the end of a stream, which a UART has not"),
];

/// Forgets the reports of earlier runs, so that none stands for a test that did not run.
pub fn clear(root: &Path) -> Result<(), String> {
    let folder = folder(root);
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(format!("{}: {error}", folder.display())),
        _ => Ok(()),
    }
}

/// One row for each transport.
pub struct Table(Vec<(&'static str, Result<Row, String>)>);

struct Row {
    cases: u64,
    passed: u64,
    failed: Vec<String>,
}

impl Table {
    /// What the tests have reported.
    pub fn read(root: &Path) -> Self {
        let report = |transport: &str| fs::read_to_string(folder(root).join(format!("{transport}.json")));
        Self::new(&TRANSPORTS, |transport| report(transport).map_err(|_| "its test left no report".to_owned()))
    }

    fn new(transports: &[&'static str], report: impl Fn(&str) -> Result<String, String>) -> Self {
        let row = |text: String| Row::read(&text).ok_or_else(|| "its report cannot be read".to_owned());
        Self(transports.iter().map(|transport| (*transport, report(transport).and_then(row))).collect())
    }

    /// Transports that are green, and the others. One that left cases out is not.
    pub fn verdict(&self) -> (u64, u64) {
        let most = self.0.iter().filter_map(|(_, row)| Some(row.as_ref().ok()?.cases)).max();
        let is_green = |transport: &str, row: &Row| {
            let left_out = left_out(transport).map_or(0, |(count, _)| count);
            row.cases > 0 && Some(row.cases + left_out) == most && row.passed == row.cases
        };
        let green =
            self.0.iter().filter(|(transport, row)| row.as_ref().is_ok_and(|row| is_green(transport, row))).count();
        (green as u64, (self.0.len() - green) as u64)
    }
}

fn left_out(transport: &str) -> Option<(u64, &'static str)> {
    LEFT_OUT.iter().find(|(name, ..)| *name == transport).map(|&(_, count, why)| (count, why))
}

impl Row {
    fn read(text: &str) -> Option<Self> {
        let report: Value = serde_json::from_str(text).ok()?;
        let failed = report["failed"].as_array()?.iter().map(|case| Some(case.as_str()?.to_owned()));
        Some(Self {
            cases: report["cases"].as_u64()?,
            passed: report["passed"].as_u64()?,
            failed: failed.collect::<Option<_>>()?,
        })
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "conformance suite  cases  passed  failed")?;
        for (transport, row) in &self.0 {
            match row {
                Ok(Row { cases, passed, failed }) => {
                    write!(f, "\n  {transport:16} {cases:>5} {passed:>7} {:>7}", failed.len())?;
                    if let Some((count, why)) = left_out(transport) {
                        write!(f, "  {count} left out: {why}")?;
                    }
                    failed.iter().try_for_each(|case| write!(f, "\n    {case}"))?;
                }
                Err(error) => write!(f, "\n  {transport:16} MISSING: {error}")?,
            }
        }
        Ok(())
    }
}

fn folder(root: &Path) -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from).join("conformance")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(memory: &str, pipe: Option<&str>) -> Table {
        Table::new(&["memory", "pipe"], |transport| match transport {
            "memory" => Ok(memory.to_owned()),
            _ => pipe.map(str::to_owned).ok_or_else(|| "its test left no report".to_owned()),
        })
    }

    const GREEN: &str = r#"{"transport": "memory", "cases": 160, "passed": 160, "failed": []}"#;

    #[test]
    fn green_transports_are_counted() {
        let table = table(GREEN, Some(GREEN));
        assert_eq!(table.verdict(), (2, 0));
        assert_eq!(
            table.to_string(),
            "conformance suite  cases  passed  failed\n  \
               memory             160     160       0\n  \
               pipe               160     160       0"
        );
    }

    #[test]
    fn failed_cases_are_named() {
        let red = r#"{"cases": 160, "passed": 159, "failed": ["REL-2/release-crosses-resend"]}"#;
        let table = table(GREEN, Some(red));
        assert_eq!(table.verdict(), (1, 1));
        assert!(table.to_string().ends_with("159       1\n    REL-2/release-crosses-resend"));
    }

    #[test]
    fn a_transport_without_a_report_fails() {
        for broken in [None, Some("{}"), Some("no report")] {
            let table = table(GREEN, broken);
            assert_eq!(table.verdict(), (1, 1));
            assert!(table.to_string().contains("pipe             MISSING: its "));
        }
    }

    #[test]
    fn a_line_leaves_out_what_it_has_frames_for_and_nothing_else() {
        for (cases, verdict) in [(152, (1, 1)), (153, (2, 0)), (154, (1, 1))] {
            let serial = format!(r#"{{"cases": {cases}, "passed": {cases}, "failed": []}}"#);
            let table = Table::new(&["memory", "serial"], |transport| match transport {
                "memory" => Ok(GREEN.to_owned()),
                _ => Ok(serial.clone()),
            });
            assert_eq!(table.verdict(), verdict, "{cases} cases");
            assert!(table.to_string().contains("0  7 left out: about preamble"), "{table}");
        }
    }

    #[test]
    fn a_transport_that_left_cases_out_fails() {
        let few = r#"{"cases": 3, "passed": 3, "failed": []}"#;
        assert_eq!(table(GREEN, Some(few)).verdict(), (1, 1));
        let none = r#"{"cases": 0, "passed": 0, "failed": []}"#;
        assert_eq!(table(none, Some(none)).verdict(), (0, 2));
    }
}
