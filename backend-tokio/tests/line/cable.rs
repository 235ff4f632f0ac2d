//! Serial ports, which are pseudo terminals here, with a bad cable between them.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use farref_conformance::faults::{Faults, Plug, connect};
use farref_tokio::{
    Connection, Directory, Ended, Error, LineOptions, LinkState, Options, Remote, Resuming, Server, ServerOptions,
    connect_serial,
};
use rustix::fs::OFlags;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, ptsname, unlockpt};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::unix::pipe;
use tokio::task::JoinHandle;

use super::{Log, directory, use_each_other};

/// A pseudo terminal, at a path of our own; unplugged when it is dropped.
struct Pty {
    path: PathBuf,
    master: OwnedFd,
    /// Held open: a master whose port nobody has open cannot be read.
    _port: OwnedFd,
}

impl Pty {
    fn new(path: PathBuf) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
        let master = openpt(flags).expect("a pseudo terminal");
        grantpt(&master).and_then(|()| unlockpt(&master)).expect("it can be used");
        let name = ptsname(&master, Vec::new()).expect("it has a name").into_string().expect("a plain one");
        let _port = ioctl_tiocgptpeer(&master, flags).expect("its other side");
        symlink(name, &path).expect("a link");
        let status = rustix::fs::fcntl_getfl(&master).expect("flags");
        rustix::fs::fcntl_setfl(&master, status | OFlags::NONBLOCK).expect("it need not block");
        Self { path, master, _port }
    }

    /// The cable's end.
    fn stream(&self) -> impl AsyncRead + AsyncWrite + Send + use<> {
        let fd = || self.master.try_clone().expect("a file descriptor");
        let read = pipe::Receiver::from_owned_fd_unchecked(fd()).expect("it can be read");
        let write = pipe::Sender::from_owned_fd_unchecked(fd()).expect("it can be written");
        tokio::io::join(read, write)
    }

    fn path(&self) -> &str {
        self.path.to_str().expect("a plain path")
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Two ports, and the cable between them.
struct Cable {
    here: Pty,
    there: Pty,
    carrying: JoinHandle<()>,
}

impl Cable {
    fn new(folder: &Path, faults: Faults) -> Self {
        let [here, there] = ["here", "there"].map(|name| Pty::new(folder.join(name)));
        let carrying = tokio::spawn(connect(here.stream(), there.stream(), faults, Plug::default(), 77));
        Self { here, there, carrying }
    }

    /// The port here is no more; the other one stays.
    async fn unplug(self) -> Pty {
        self.carrying.abort();
        let _ = self.carrying.await;
        drop(self.here);
        self.there
    }

    /// It is there again, under the same name.
    fn plug(folder: &Path, there: Pty, faults: Faults) -> Self {
        let here = Pty::new(folder.join("here"));
        let carrying = tokio::spawn(connect(here.stream(), there.stream(), faults, Plug::default(), 78));
        Self { here, there, carrying }
    }
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

/// Enough to be felt in the time of a test.
const SOME: Faults = Faults { lost: 20, repeated: 20, disturbed: 20 };

fn fast() -> LineOptions {
    LineOptions { max_message: 256, ..LineOptions::at(921_600) }
}

async fn begin(path: &str, directory: Directory, options: Options) -> Result<Connection, Error> {
    connect_serial(path, directory, options, fast()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn serial_ports_carry_sessions() {
    let folder = folder();
    let cable = Cable::new(folder.path(), SOME);
    let options = || Options { handshake: Duration::from_secs(60), ..Options::default() };
    let logs = [Log::default(), Log::default()];
    let (a, b) = tokio::join!(
        begin(cable.here.path(), directory(&logs[0]), options()),
        begin(cable.there.path(), directory(&logs[1]), options())
    );
    let [log_a, log_b] = logs;
    let sides = [
        super::Side { connection: a.expect("the other side is there"), log: log_a },
        super::Side { connection: b.expect("the other side is there"), log: log_b },
    ];
    use_each_other(&sides, 77, 10).await;
}

/// A server at a port goes on with the session of a client whose port was unplugged and plugged in again.
#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_unplugged_is_opened_again() {
    let folder = folder();
    let cable = Cable::new(folder.path(), SOME);
    let log = Log::default();
    let server = Server::new(directory(&log), ServerOptions::default());
    server.listen_serial(cable.there.path(), fast()).await.expect("the port is there");
    let resume = Some(Resuming::within(Duration::from_secs(60)));
    let client = begin(cable.here.path(), Directory::new(), Options { resume, ..Options::default() }).await;
    let client = client.expect("the server is there");
    assert_eq!(client.root().invoke("note", [1]).await, Ok(1.into()));

    let there = cable.unplug().await;
    let down = client.link_changed(&LinkState::Up).await;
    assert!(matches!(down, LinkState::Parked { .. }), "{down:?}");
    let call = client.root().start("note", [2]).await.expect("it may come back");
    let cable = Cable::plug(folder.path(), there, SOME);
    assert_eq!(call.await, Ok(2.into()));
    assert_eq!((client.link(), server.counters().sessions), (LinkState::Up, 1));
    assert_eq!(*log.lock().expect("no panic"), [1, 2]);

    // The port of the server goes, and comes back after the session.
    let folder_of = cable.there.path.clone();
    client.close();
    client.closed().await;
    drop(cable);
    let cable = Cable::new(folder_of.parent().expect("a folder"), SOME);
    let options = Options { handshake: Duration::from_secs(60), ..Options::default() };
    let next = begin(cable.here.path(), Directory::new(), options).await.expect("the server is there again");
    assert_eq!(next.root().invoke("note", [3]).await, Ok(3.into()));
    let ((), ended) = tokio::join!(server.shut_down(Duration::from_secs(30)), next.closed());
    assert_eq!(ended, Ended::Done);
}

#[tokio::test]
async fn what_is_wrong_with_a_port_is_told() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name).to_str().expect("a plain path").to_owned();
    let fails = async |path: String| match begin(&path, Directory::new(), Options::default()).await {
        Err(Error::Io(kind, text)) => (kind, text),
        other => panic!("{path}: {other:?}"),
    };
    let (kind, text) = fails(path("none")).await;
    assert!(kind == io::ErrorKind::NotFound && text.ends_with("is it plugged in?"), "{kind:?} {text}");

    fs::write(path("file"), "no port").expect("a file");
    for path in [path("file"), "/dev/null".to_owned()] {
        let (kind, text) = fails(path).await;
        assert!(kind == io::ErrorKind::InvalidInput && text.ends_with("it is no serial port"), "{kind:?} {text}");
    }

    let cable = Cable::new(folder.path(), Faults::default());
    let server = Server::new(Directory::new(), ServerOptions::default());
    server.listen_serial(cable.there.path(), fast()).await.expect("the port is there");
    let (kind, text) = fails(cable.there.path().to_owned()).await;
    assert!(kind == io::ErrorKind::ResourceBusy && text.ends_with("another program uses it"), "{kind:?} {text}");
}
