//! The conformance suite: over channels in this process, over the pipes of a child, and through an sshd.

use std::process::{Command, Stdio};
use std::thread;

use farref_conformance::sshd::Sshd;
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

#[test]
fn ssh() {
    let program = suite::fixtures_program().expect("the fixtures' program");
    let sshd = Sshd::start(&[]);
    // One login for all cases: each has an ssh and a channel of its own.
    let shared =
        format!("-o ControlMaster=auto -o ControlPersist=yes -o 'ControlPath={}/control'", sshd.folder().display());
    let words = shell_words::split(&sshd.ssh_command_with(&shared)).expect("words");
    let remote = format!("{} --stdio", shell_words::quote(&program.display().to_string()));
    let connect = || {
        let mut ssh = Command::new(&words[0]);
        ssh.args(&words[1..]).args(["-p", &sshd.port().to_string(), "127.0.0.1", &remote]);
        Transport::spawn(ssh.stderr(Stdio::null()))
    };
    let report = suite::run("ssh", connect);
    judge(&report);
}

fn judge(report: &Report) {
    report.save().expect("the report is written");
    println!("{report}");
    assert!(report.is_green(), "{report}");
}
