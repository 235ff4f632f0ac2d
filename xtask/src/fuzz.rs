//! `cargo xtask fuzz`: every fuzz target for a while, two at a time.
//!
//! The targets are built once and started by hand, so that no build stands between them. What they find new is kept in
//! `fuzz/target/corpus`, from one run to the next; `fuzz/corpus` is what is checked in.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Mutex,
    thread,
};

use crate::{setup, shell};

/// Targets that run at the same time.
const AT_A_TIME: usize = 2;

/// What does not depend on the target: hangs and long inputs are findings, and the counts are wanted.
const OPTIONS: [&str; 5] =
    ["-dict=fuzz/farref.dict", "-max_len=512", "-timeout=20", "-rss_limit_mb=2048", "-print_final_stats=1"];

/// Runs `fuzz [--seconds N] [TARGET]...`: each target for so many seconds.
pub fn run(root: &Path, arguments: &[&str]) -> Result<(), String> {
    let (seconds, wanted) = parse(arguments)?;
    let mut targets = names(&root.join("fuzz/fuzz_targets"))?;
    if let Some(unknown) = wanted.iter().find(|wanted| !targets.iter().any(|target| target == *wanted)) {
        return Err(format!("no fuzz target {unknown}; there are {}", targets.join(", ")));
    }
    targets.retain(|target| wanted.is_empty() || wanted.contains(&target.as_str()));

    setup::ensure_fuzzing(root)?;
    shell::run(setup::nightly_cargo(root).args(["fuzz", "build"]))?;
    let binaries = root.join("fuzz/target").join(setup::host_triple(root)?).join("release");

    println!("{} targets, {AT_A_TIME} at a time, {seconds} s each", targets.len());
    let queue = Mutex::new(targets.into_iter());
    let next = || queue.lock().ok()?.next();
    let outcomes = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                while let Some(target) = next() {
                    let outcome = fuzz(root, &binaries, &target, seconds);
                    if let Ok(mut outcomes) = outcomes.lock() {
                        outcomes.push((target, outcome));
                    }
                }
            });
        }
    });
    let mut outcomes = outcomes.into_inner().unwrap_or_default();
    outcomes.sort_by(|(one, _), (other, _)| one.cmp(other));
    conclude(&outcomes)
}

fn parse<'a>(arguments: &[&'a str]) -> Result<(u64, Vec<&'a str>), String> {
    let (mut seconds, mut targets) = (60, Vec::new());
    let mut arguments = arguments.iter();
    while let Some(&argument) = arguments.next() {
        match argument {
            "--seconds" => {
                let number = arguments.next().and_then(|number| number.parse().ok()).filter(|&number| number > 0);
                seconds = number.ok_or("--seconds wants a number from 1 on")?;
            }
            option if option.starts_with('-') => return Err(format!("fuzz has no option {option}")),
            target => targets.push(target),
        }
    }
    Ok((seconds, targets))
}

/// How a target ended.
#[derive(Debug, Default, PartialEq)]
struct Run {
    executions: u64,
    finding: Option<Finding>,
}

#[derive(Debug, PartialEq)]
struct Finding {
    /// What was said where it was found, most often a panic.
    said: String,
    /// The input, if the fuzzer has written one.
    input: Option<String>,
}

fn fuzz(root: &Path, binaries: &Path, target: &str, seconds: u64) -> Result<Run, String> {
    let work = PathBuf::from("fuzz/target/corpus").join(target);
    let artifacts = format!("fuzz/artifacts/{target}/");
    for folder in [&work, Path::new(&artifacts)] {
        fs::create_dir_all(root.join(folder)).map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    let mut command = Command::new(binaries.join(target));
    command.current_dir(root).arg(&work);
    for folder in ["corpus", "seeds"].map(|folder| format!("fuzz/{folder}/{target}")) {
        if root.join(&folder).is_dir() {
            command.arg(folder);
        }
    }
    command.args(OPTIONS).arg(format!("-artifact_prefix={artifacts}")).arg(format!("-max_total_time={seconds}"));
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{target}: {error}"))?;
    Ok(read(&String::from_utf8_lossy(&output.stderr), output.status.success()))
}

/// Reads what libFuzzer has said.
fn read(said: &str, exited_with_0: bool) -> Run {
    let after = |mark: &str| said.lines().find_map(|line| Some(line.split_once(mark)?.1.trim()));
    let executions = after("stat::number_of_executed_units:").and_then(|number| number.parse().ok());
    let finding = || {
        let panic = said.lines().skip_while(|line| !line.contains("panicked at")).take(2).collect::<Vec<_>>().join(" ");
        let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("nothing was said");
        let error = after("ERROR: ").unwrap_or(last).to_owned();
        Finding {
            said: if panic.is_empty() { error } else { panic },
            input: after("Test unit written to").map(str::to_owned),
        }
    };
    // What ran up to a finding has no sum, but each new input was told with the number so far.
    let last = said.lines().rev().find_map(|line| line.strip_prefix('#')?.split_whitespace().next()?.parse().ok());
    Run { executions: executions.or(last).unwrap_or(0), finding: (!exited_with_0).then(finding) }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>12}", self.executions)?;
        match &self.finding {
            None => write!(f, "  no finding"),
            Some(Finding { said, input }) => {
                write!(f, "  FOUND {said}\n  {}", input.as_deref().unwrap_or("no input was written"))
            }
        }
    }
}

fn conclude(outcomes: &[(String, Result<Run, String>)]) -> Result<(), String> {
    println!("{:16} {:>12}", "target", "executions");
    let mut findings = 0;
    for (target, outcome) in outcomes {
        match outcome {
            Ok(run) => {
                findings += u64::from(run.finding.is_some());
                println!("{target:16} {run}");
            }
            Err(error) => {
                findings += 1;
                println!("{target:16} {error}");
            }
        }
    }
    match findings {
        0 => Ok(()),
        findings => Err(format!("{findings} of {} targets found something", outcomes.len())),
    }
}

/// The names of the files in a folder, without what is behind the dot, in order.
fn names(folder: &Path) -> Result<Vec<String>, String> {
    let entries = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let stem = |path: PathBuf| path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let mut names: Vec<_> = entries.filter_map(|entry| stem(entry.ok()?.path())).collect();
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_targets_are_read() {
        assert_eq!(parse(&[]), Ok((60, vec![])));
        assert_eq!(parse(&["pair", "--seconds", "300", "key"]), Ok((300, vec!["pair", "key"])));
        assert!(parse(&["--seconds"]).is_err());
        assert!(parse(&["--seconds", "0"]).is_err());
        assert!(parse(&["--minutes", "1"]).is_err());
    }

    #[test]
    fn executions_are_read_from_the_final_stats() {
        let said = "#2\tINITED cov: 5\n#4096\tpulse\nDone 5000 runs in 1 second(s)\n\
                    stat::number_of_executed_units: 5000\nstat::peak_rss_mb: 30\n";
        assert_eq!(read(said, true), Run { executions: 5000, finding: None });
    }

    #[test]
    fn a_finding_tells_its_panic_and_its_input() {
        let said = "#4096\tpulse\n\nthread '<unnamed>' (1) panicked at conformance/src/fuzz/pair.rs:9:5:\n\
                    each call ends\nnote: run with\n==9== ERROR: libFuzzer: deadly signal\n\
                    artifact_prefix='fuzz/artifacts/pair/'; Test unit written to fuzz/artifacts/pair/crash-1\n";
        let finding = Finding {
            said: "thread '<unnamed>' (1) panicked at conformance/src/fuzz/pair.rs:9:5: each call ends".into(),
            input: Some("fuzz/artifacts/pair/crash-1".into()),
        };
        assert_eq!(read(said, false), Run { executions: 4096, finding: Some(finding) });
        let said = "ALARM\n==9== ERROR: libFuzzer: timeout after 20 seconds\n";
        let finding = Finding { said: "libFuzzer: timeout after 20 seconds".into(), input: None };
        assert_eq!(read(said, false), Run { executions: 0, finding: Some(finding) });
    }
}
