//! Sessions over pipes that outlive what leads to them: an ssh that is killed, and other processes.

mod common;

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{fs, thread};

use common::{FARREF, Served, quote, run, until, within};
use farref_conformance::sshd::Sshd;
use farref_pipe::{
    ChildProcess, Directory, Ended, Error, LinkState, Options, Reference, Remote, Resuming, Ssh, SshTarget, Value,
};
use rustix::process::{Pid, Signal, kill_process_group};

fn options() -> Options {
    let resume = Resuming {
        park: Duration::from_secs(30),
        first_pause: Duration::from_millis(5),
        longest_pause: Duration::from_millis(100),
        ..Resuming::default()
    };
    Options { resume: Some(resume), ..Options::default() }
}

/// The words that serve a tree and keep the session, with the folder for the sockets in the tree's.
fn serving(served: &Served, park: &str) -> String {
    let folder = quote(&served.0.path().display().to_string());
    format!("env XDG_RUNTIME_DIR={folder} {} --write --park {park}", served.command())
}

/// Those that are listened to. One has a hidden name until its permissions are set.
fn sockets(served: &Served) -> Vec<PathBuf> {
    let entries = fs::read_dir(served.0.path().join("farref")).into_iter().flatten();
    let entries = entries.map(|entry| entry.expect("an entry"));
    entries.filter(|entry| !entry.file_name().as_bytes().starts_with(b".")).map(|entry| entry.path()).collect()
}

/// Writes numbers to a file through one reference, one call for each, while somebody cuts; each is there once in the end.
fn write_numbers(served: &Served, peer: &ChildProcess, count: i64, cut: impl Fn() + Send + Sync) {
    let root = peer.connection().root();
    let log = match root.invoke("open", ["log.txt", "wb"]) {
        Ok(Value::Reference(Reference::Remote(log))) => log,
        other => panic!("{other:?}"),
    };
    let is_over = AtomicBool::new(false);
    // Also if the numbers cannot be written.
    struct OnDrop<'a>(&'a AtomicBool);
    impl Drop for OnDrop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    thread::scope(|scope| {
        let _over = OnDrop(&is_over);
        scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                cut();
                until(|| {
                    !matches!(peer.connection().link(), LinkState::Parked { .. }) || is_over.load(Ordering::SeqCst)
                });
                thread::sleep(Duration::from_millis(60));
            }
        });
        for number in 0..count {
            let line = format!("{number}\n").into_bytes();
            log.invoke("write", [Value::Bytes(line)]).expect("it is written");
        }
    });
    log.invoke("close", ()).expect("it is closed");
    let expected: String = (0..count).map(|number| format!("{number}\n")).collect();
    assert_eq!(fs::read_to_string(served.root().join("log.txt")).expect("a file"), expected);
    drop(log);
    until(|| peer.connection().is_at_baseline());
}

/// What leads to a server that is in a session of its own: killed as a group, it leaves the server where it is.
fn bridge(words: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("cat | setsid {words} | cat")]).process_group(0);
    command
}

fn kill_group(peer: &ChildProcess) {
    let group = Pid::from_raw(peer.id() as i32).expect("a process");
    // It may be gone, or not yet be a group.
    let _ = kill_process_group(group, Signal::KILL);
}

fn over_a_bridge(served: &Served, park: &str, options: Options) -> ChildProcess {
    let words = serving(served, park);
    ChildProcess::spawn_with(move || bridge(&words), Directory::new(), options).expect("it serves")
}

#[test]
fn a_session_survives_the_processes_that_lead_to_it() {
    within(|| {
        let served = Served::new();
        let peer = over_a_bridge(&served, "30", options());
        until(|| !sockets(&served).is_empty());
        let socket = sockets(&served).remove(0);
        let mode = |path: &Path| fs::symlink_metadata(path).expect("it is there").permissions().mode() & 0o777;
        assert_eq!((mode(&socket), mode(&served.0.path().join("farref"))), (0o600, 0o700));
        let first = peer.id();
        write_numbers(&served, &peer, 2000, || kill_group(&peer));
        assert_ne!(peer.id(), first);
        drop(peer);
        until(|| sockets(&served).is_empty());
    });
}

#[test]
fn a_session_survives_its_ssh() {
    within(|| {
        let (sshd, served) = (Sshd::start(&[]), Served::new());
        let ssh = Ssh::new(shell_words::split(&sshd.ssh_command()).expect("words"));
        let url = format!("ssh://127.0.0.1:{}/{}", sshd.port(), serving(&served, "30"));
        let target: SshTarget = url.parse().expect("a URL");
        let peer = ssh.connect(&target, Directory::new(), options()).expect("it serves");
        let kills = AtomicBool::new(false);
        write_numbers(&served, &peer, 1500, || match kills.fetch_not(Ordering::SeqCst) {
            // Our end, and then the other's.
            false => peer.kill().expect("it can be killed"),
            true => sshd.cut(),
        });
        drop(peer);
        until(|| sockets(&served).is_empty());
    });
}

/// The server has not noticed that the ssh is gone when the next one comes.
#[test]
fn a_server_that_still_hears_the_old_one_takes_the_new_one() {
    within(|| {
        let served = Served::new();
        let words = serving(&served, "30");
        // The first one is reached over two FIFOs.
        let fifos = quote(&served.0.path().join("fifo").display().to_string());
        let keeps = format!(
            "mkfifo {fifos}.in {fifos}.out; setsid {words} <{fifos}.in >{fifos}.out & \
             exec 8>{fifos}.in 9<{fifos}.out; (cat <&9 & exec cat >&8)"
        );
        let count = Arc::new(AtomicBool::new(false));
        let start = move || match count.swap(true, Ordering::SeqCst) {
            false => {
                let mut command = Command::new("sh");
                command.args(["-c", &keeps]).process_group(0);
                command
            }
            true => bridge(&words),
        };
        let peer = ChildProcess::spawn_with(start, Directory::new(), options()).expect("it serves");
        // Somebody else has the first one's pipes, too.
        let (input, output) = (served.0.path().join("fifo.in"), served.0.path().join("fifo.out"));
        let _input = fs::File::options().write(true).open(input).expect("it is read from");
        let _output = fs::File::options().read(true).write(true).open(output).expect("it is written to");
        write_numbers(&served, &peer, 500, || kill_group(&peer));
    });
}

#[test]
fn a_server_waits_no_longer_than_it_says() {
    within(|| {
        let served = Served::new();
        let words = serving(&served, "0.2");
        let gone = Arc::new(AtomicBool::new(false));
        let (is_gone, folder) = (gone.clone(), served.0.path().join("farref"));
        let start = move || {
            if is_gone.load(Ordering::SeqCst) {
                until(|| fs::read_dir(&folder).is_ok_and(|mut entries| entries.next().is_none()));
            }
            bridge(&words)
        };
        let peer = ChildProcess::spawn_with(start, Directory::new(), options()).expect("it serves");
        until(|| !sockets(&served).is_empty());
        gone.store(true, Ordering::SeqCst);
        kill_group(&peer);
        // Another process answers, which is another incarnation.
        assert_eq!(peer.connection().wait_closed(), Ended::PeerRestarted);
        let error = peer.connection().root().get("open").expect_err("it is over");
        assert_eq!(error, Error::NeverStarted(Ended::PeerRestarted));
    });
}

#[test]
fn a_socket_that_was_left_behind_is_removed() {
    within(|| {
        let served = Served::new();
        let folder = served.0.path().join("farref");
        fs::create_dir(&folder).expect("a folder");
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).expect("a folder of ours");
        drop(std::os::unix::net::UnixListener::bind(folder.join("stale")).expect("a socket"));
        let peer = over_a_bridge(&served, "30", options());
        until(|| sockets(&served).len() == 1 && !folder.join("stale").exists());
        drop(peer);
    });
}

#[test]
fn a_folder_that_others_can_enter_is_not_used() {
    within(|| {
        let served = Served::new();
        let folder = served.0.path().join("farref");
        fs::create_dir(&folder).expect("a folder");
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("a folder of ours");
        let peer = over_a_bridge(&served, "30", options());
        assert!(peer.connection().root().invoke("listdir", ["."]).is_ok());
        assert_eq!(sockets(&served), Vec::<PathBuf>::new());
    });
}

#[test]
fn the_program_comes_back() {
    within(|| {
        let served = Served::new();
        let url = format!("pipe:{}", serving(&served, "5"));
        let printed = run(Command::new(FARREF).args(["call", "--resume", "5", &url, "open(\"notes.txt\").read()"]));
        assert_eq!(printed.printed(), "one\ntwo\nthree\n");
        let plain = run(Command::new(FARREF).args(["call", &url, "stat(\"notes.txt\")[\"size\"]"]));
        assert_eq!(plain.printed(), "14\n");
    });
}

/// What leads to the server goes silent and does not end: with patience that is noticed.
#[test]
fn a_silent_way_is_given_up() {
    within(|| {
        let served = Served::new();
        let options = Options { patience: Some(Duration::from_millis(400)), ..options() };
        let peer = over_a_bridge(&served, "30", options);
        until(|| !sockets(&served).is_empty());
        assert!(peer.connection().root().invoke("listdir", ["."]).is_ok());
        let group = Pid::from_raw(peer.id() as i32).expect("a process");
        kill_process_group(group, Signal::STOP).expect("it runs");
        assert!(peer.connection().root().invoke("listdir", ["."]).is_ok());
        assert_ne!(peer.id(), group.as_raw_nonzero().get() as u32);
        kill_process_group(group, Signal::KILL).expect("it is there");
    });
}

/// A copy goes on where it was when the machine with the sshd has cut all connections.
#[test]
fn a_copy_survives_a_cut() {
    within(|| {
        let (sshd, served) = (Sshd::start(&[]), Served::new());
        let contents: Vec<u8> = (0..(64u32 << 20) / 4).flat_map(u32::to_le_bytes).collect();
        fs::write(served.root().join("large"), &contents).expect("a file");
        let url = format!("ssh://127.0.0.1:{}/{}", sshd.port(), serving(&served, "30"));
        let here = served.0.path().join("here");
        fs::create_dir(&here).expect("a folder");
        let mut command = Command::new(FARREF);
        command.args(["get", "--quiet", "--resume", "30", &url, "large"]).arg(&here);
        command.env("FARREF_SSH", sshd.ssh_command());
        let copying = thread::spawn(move || run(&mut command));
        let copied = || {
            let entries = fs::read_dir(&here).expect("a folder").flatten();
            entries.filter_map(|entry| entry.metadata().ok()).map(|facts| facts.len()).sum::<u64>()
        };
        until(|| copied() > 0);
        sshd.cut();
        assert_eq!(copying.join().expect("it runs").printed(), "");
        assert!(fs::read(here.join("large")).expect("it is there") == contents);
        let accepted = sshd.log().matches("Accepted publickey").count();
        assert!(accepted >= 2, "the connection was cut: {accepted}");
    });
}
