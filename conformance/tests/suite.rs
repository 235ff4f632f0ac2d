//! The suite itself: its ids, and that no subject, however broken, can do it harm.

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use farref_conformance::suite::{self, Report, Transport};
use farref_core::frame::PREAMBLE;

#[test]
fn ids_are_a_rule_and_what_is_shown() {
    let mut seen = HashSet::new();
    for case in suite::cases() {
        let (rule, shows) = case.id.split_once('/').expect("a rule and a name");
        let (prefix, number) = rule.split_once('-').expect("a rule");
        assert!(prefix.len() == 3 && prefix.bytes().all(|byte| byte.is_ascii_uppercase()), "{}", case.id);
        assert!(number.parse::<u8>().is_ok(), "{}", case.id);
        assert!(shows.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'));
        assert!(seen.insert(case.id), "{} twice", case.id);
    }
    assert!(seen.len() >= 75, "{} cases", seen.len());
}

/// Runs some cases against a subject that is a function of its two streams.
fn against(subject: fn(Box<dyn Read>, Box<dyn Write>), patience: Duration, only: &str) -> Report {
    let connect = || {
        let (transport, (read, write)) = suite::memory();
        thread::spawn(move || subject(Box::new(read), Box::new(write)));
        Ok(transport)
    };
    suite::run_within(patience, "broken", connect, |id| id.starts_with(only))
}

fn all_fail(report: &Report) {
    assert!(report.cases() > 0);
    assert_eq!(report.failed().count(), report.cases(), "{report}");
    assert!(!report.is_green());
}

#[test]
fn a_subject_that_does_not_connect() {
    let report = suite::run("broken", || Err::<Transport, _>(io::Error::other("out of wire")));
    all_fail(&report);
    assert!(report.to_string().contains("it did not open: out of wire"));
    assert!(
        !suite::run_selected("broken", || Err(io::Error::other("")), |_| false).is_green(),
        "no case is no success"
    );
}

#[test]
fn a_subject_that_hangs_up() {
    all_fail(&against(|_, _| {}, Duration::from_secs(5), ""));
}

#[test]
fn a_subject_that_says_nothing() {
    let start = Instant::now();
    let listens = |mut read: Box<dyn Read>, _write: Box<dyn Write>| {
        let _ = io::copy(&mut read, &mut io::sink());
    };
    all_fail(&against(listens, Duration::from_millis(20), "REL-"));
    assert!(start.elapsed() < Duration::from_secs(10), "each wait has a limit");
}

#[test]
fn a_subject_that_does_not_read() {
    let silent = |_read: Box<dyn Read>, mut write: Box<dyn Write>| {
        let _ = write.write_all(&PREAMBLE);
        thread::park_timeout(Duration::from_secs(5));
    };
    all_fail(&against(silent, Duration::from_millis(20), "ADM-"));
}

#[test]
fn a_subject_that_is_an_echo() {
    let echo = |mut read: Box<dyn Read>, mut write: Box<dyn Write>| {
        let _ = io::copy(&mut read, &mut write);
    };
    all_fail(&against(echo, Duration::from_millis(20), "CAL-"));
}

#[test]
fn a_subject_that_talks_nonsense() {
    let noise = |_read: Box<dyn Read>, mut write: Box<dyn Write>| {
        let _ = write.write_all(&PREAMBLE);
        let mut state = 1_u32;
        for _ in 0..100_000 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if write.write_all(&state.to_be_bytes()).is_err() {
                return;
            }
        }
    };
    all_fail(&against(noise, Duration::from_secs(5), "VAL-"));
}
