//! The conformance suite, over channels in this process and over the pipes of a child.

use std::process::{Command, Stdio};
use std::thread;

use farref_conformance::suite::{self, Report, Transport, fixtures};

#[test]
fn memory() {
    let report = suite::run("memory", || {
        let (transport, (read, write)) = suite::memory();
        thread::spawn(move || {
            // A session that does not begin is what some cases want.
            if let Ok(served) = farref_pipe::open(read, write, fixtures::directory(), fixtures::options()) {
                served.wait_closed();
            }
        });
        Ok(transport)
    });
    judge(&report);
}

#[test]
fn pipe() {
    let program = suite::fixtures_program().expect("the fixtures' program");
    // What a faulty peer is told, it tells its standard error, too.
    let connect = || Transport::spawn(Command::new(&program).arg("--stdio").stderr(Stdio::null()));
    let report = suite::run("pipe", connect);
    judge(&report);
}

fn judge(report: &Report) {
    report.save().expect("the report is written");
    println!("{report}");
    assert!(report.is_green(), "{report}");
}
