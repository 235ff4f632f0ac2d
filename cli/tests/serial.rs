//! `serial:` URLs with the built program, over pseudo terminals and a cable between them.

mod common;

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, PipeReader, PipeWriter, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use common::{FARREF, Served, farref, run, until, within};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, ptsname, unlockpt};

/// A port, and the end of the cable that is in it.
struct Port {
    path: PathBuf,
    end: File,
    /// Held open: the end of a port that nobody has open cannot be read.
    _held: OwnedFd,
}

impl Port {
    fn new(path: PathBuf) -> Self {
        // A program that is started is not to hold it open.
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let end = openpt(flags).expect("a pseudo terminal");
        grantpt(&end).and_then(|()| unlockpt(&end)).expect("it can be used");
        let name = ptsname(&end, Vec::new()).expect("it has a name").into_string().expect("a plain one");
        let _held = ioctl_tiocgptpeer(&end, flags).expect("its other side");
        symlink(name, &path).expect("a link");
        Self { path, end: end.into(), _held }
    }

    fn url(&self) -> String {
        format!("serial:{}?baud=115200", self.path.display())
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// A cable that loses a hundred bytes of each five thousand, and is pulled when it is dropped.
struct Cable {
    carried: Arc<AtomicU64>,
    pulled: Option<PipeWriter>,
    carrying: Vec<JoinHandle<()>>,
}

impl Cable {
    fn new(a: &Port, b: &Port) -> Self {
        let (is_pulled, pulled) = std::io::pipe().expect("a pipe");
        let carried = Arc::<AtomicU64>::default();
        let directions = [(a, b), (b, a)].map(|(from, to)| {
            let [from, to] = [from, to].map(|port| port.end.try_clone().expect("a file descriptor"));
            let (carried, is_pulled) = (carried.clone(), is_pulled.try_clone().expect("a file descriptor"));
            thread::spawn(move || carry(from, to, &is_pulled, &carried))
        });
        Self { carried, pulled: Some(pulled), carrying: directions.into() }
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        drop(self.pulled.take());
        self.carrying.drain(..).for_each(|direction| direction.join().expect("no panic"));
    }
}

fn carry(mut from: File, mut to: File, is_pulled: &PipeReader, carried: &AtomicU64) {
    let mut buffer = [0; 256];
    loop {
        let mut waits = [PollFd::new(&from, PollFlags::IN), PollFd::new(is_pulled, PollFlags::IN)];
        poll(&mut waits, None).expect("it can be waited for");
        if !waits[1].revents().is_empty() {
            return;
        }
        let Ok(count @ 1..) = from.read(&mut buffer) else { return };
        let is_lost = |_: &u8| carried.fetch_add(1, Ordering::SeqCst) % 5003 < 100;
        let passed: Vec<_> = buffer[..count].iter().copied().filter(|byte| !is_lost(byte)).collect();
        if to.write_all(&passed).is_err() {
            return;
        }
    }
}

/// A server at a port.
struct Serving(Child);

impl Serving {
    fn start(served: &Served, url: &str, more: &[&str]) -> Self {
        let mut command = Command::new(FARREF);
        command.args(["serve", "--root"]).arg(served.root()).args(["--listen", url]).args(more);
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts");
        let mut line = String::new();
        BufReader::new(child.stderr.take().expect("a pipe")).read_line(&mut line).expect("a line");
        assert_eq!(line.trim_end(), format!("listening on {url}"));
        Self(child)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Two ports that nothing connects yet.
fn ports(folder: &Path) -> (Port, Port) {
    (Port::new(folder.join("ttyHere")), Port::new(folder.join("ttyThere")))
}

/// A18: every command over a serial port, to a server that stays while clients come and go.
#[test]
fn a18_files_are_served_over_serial_ports() {
    within(|| {
        let served = Served::new();
        let (here, there) = ports(served.0.path());
        let cable = Cable::new(&here, &there);
        let mut serving = Serving::start(&served, &there.url(), &["--write"]);
        let url = here.url();
        assert!(farref(["ls", &url]).printed().starts_with("listdir  "));
        assert_eq!(farref(["call", &url, "open(\"notes.txt\").readline()"]).printed(), "one\n");
        // Many frames, of which some are lost.
        let large: Vec<u8> = (0..40_000_u32).map(|at| (at % 251) as u8).collect();
        let file = served.0.path().join("large");
        fs::write(&file, &large).expect("a file");
        assert_eq!(farref(["put", "--quiet", &url, file.to_str().expect("UTF-8"), "large"]).printed(), "");
        assert_eq!(fs::read(served.root().join("large")).expect("it is there"), large);
        let back = served.0.path().join("back");
        assert_eq!(farref(["get", "--quiet", &url, "large", back.to_str().expect("UTF-8")]).printed(), "");
        assert_eq!(fs::read(back).expect("it is there"), large);
        assert!(cable.carried.load(Ordering::SeqCst) > 80_000);
        // One that is served has the port for itself, and so has the server.
        let busy = farref(["ls", &there.url()]);
        assert!(busy.failed(3).ends_with("another program uses it"), "{busy:?}");
        kill_process(Pid::from_child(&serving.0), Signal::TERM).expect("it runs");
        assert_eq!(serving.0.wait().expect("it ends").code(), Some(0));
    });
}

/// A copy goes on over a port that is unplugged in its midst and plugged in again.
#[test]
fn a_copy_outlives_the_port() {
    within(|| {
        let served = Served::new();
        let (here, there) = ports(served.0.path());
        let url = here.url();
        let cable = Cable::new(&here, &there);
        let _serving = Serving::start(&served, &there.url(), &[]);
        let large: Vec<u8> = (0..120_000_u32).map(|at| (at % 253) as u8).collect();
        fs::write(served.root().join("large"), &large).expect("a file");
        let back = served.0.path().join("back");
        let mut get = Command::new(FARREF);
        get.args(["get", "--quiet", "--resume", "50", &url, "large"]).arg(&back).stderr(Stdio::piped());
        let get = RefCell::new(get.spawn().expect("it starts"));
        until(|| {
            assert!(get.borrow_mut().try_wait().expect("it runs").is_none(), "it ended too soon");
            cable.carried.load(Ordering::SeqCst) > 30_000
        });
        // The port is no more when the cable has let go of it.
        drop((cable, here));
        let here = Port::new(served.0.path().join("ttyHere"));
        let _cable = Cable::new(&here, &there);
        let output = get.into_inner().wait_with_output().expect("it ends");
        assert!(output.status.success(), "{output:?}");
        assert_eq!(fs::read(back).expect("it is there"), large);
    });
}

#[test]
fn what_is_wrong_with_a_port_is_told() {
    within(|| {
        let served = Served::new();
        let none = format!("serial:{}/none", served.0.path().display());
        for command in
            [&["ls", &none][..], &["call", &none, "x"], &["get", &none, "x"], &["put", &none, "/dev/null", "x"]]
        {
            let missing = run(Command::new(FARREF).args(command));
            assert_eq!(missing.failed(3), format!("{none}?baud=115200: there is no such port; is it plugged in?"));
        }
        let listening = farref(["serve", "--root", ".", "--listen", &none]);
        assert!(listening.failed(3).ends_with("is it plugged in?"), "{listening:?}");
        assert!(farref(["ls", "serial:/dev/null"]).failed(3).ends_with("it is no serial port"));
        let slow = farref(["ls", "serial:/dev/ttyS0?baud=fast"]);
        assert!(slow.failed(2).contains("the baud rate is no number above 0"), "{slow:?}");

        // A key cannot be checked there, and nobody is to believe that it was.
        let key = served.0.path().join("key");
        let key = key.to_str().expect("UTF-8");
        assert_eq!(farref(["key", key]).printed(), "");
        let keyed = farref(["ls", &none, "--key", key]);
        assert_eq!(keyed.failed(2), "--key is for tcp:, tls: and unix: URLs");
        let (here, _there) = ports(served.0.path());
        let keyed = farref(["serve", "--root", ".", "--listen", &here.url(), "--key", key]);
        assert!(keyed.failed(3).contains("a key cannot be checked on a line that may lose bytes"), "{keyed:?}");

        // Nobody is there, or somebody who is no farref.
        let silent = farref(["ls", "--timeout", "5", &here.url()]);
        assert_eq!(silent.failed(3), format!("{}: nobody answered within 4.5s", here.url()));
        let mut end = here.end.try_clone().expect("a file descriptor");
        end.write_all(b"\xFE\x81\xFE U-Boot \x00\x80").expect("it is taken");
        let noisy = farref(["ls", "--timeout", "5", &here.url()]);
        assert!(noisy.failed(3).ends_with("bytes came that are no farref: is it the right baud rate?"), "{noisy:?}");
    });
}

#[test]
fn ports_are_listed() {
    let listed = farref(["ports"]);
    let lines = listed.printed().lines().count();
    let json: serde_json::Value = serde_json::from_str(farref(["ports", "--json"]).printed()).expect("JSON");
    let ports = json.as_array().expect("an array");
    assert_eq!(ports.len(), lines, "{listed:?}");
    assert!(ports.iter().all(|port| port["name"].is_string() && port.get("usb").is_some()), "{json}");
    assert_eq!(listed.stderr.is_empty(), lines > 0, "{listed:?}");
}
