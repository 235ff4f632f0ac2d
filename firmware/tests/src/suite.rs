//! The conformance suite, against a firmware that serves its fixtures. That needs the board with more memory.

use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use farref_conformance::sim::Random;
use farref_conformance::suite::{self, Transport};
use rustix::net::sockopt::set_socket_send_buffer_size;

use crate::flood;
use crate::qemu::Guest;

/// The guest's clock is the host's, and the host may have little time for it.
const PATIENCE: Duration = Duration::from_secs(20);

pub async fn over_tcp(guest: Arc<Guest>) {
    let address = guest.address();
    let connect = move || {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        let over = socket.try_clone()?;
        let write = Tcp(socket.try_clone()?);
        Ok(Transport::new(socket, write).with_guard(OnDrop(move || drop(over.shutdown(Shutdown::Both)))))
    };
    judge("firmware-tcp", connect, suite::is_for_devices).await;
}

/// Nothing tells a UART that nobody is at the other end any more.
const NOT_ON_THE_LINE: &str = "CLS-1/end-of-stream-ends-the-session";

pub async fn on_the_line(guest: Arc<Guest>) {
    let path = guest.line_path();
    let mut random = Random::new(0x5017e);
    let connect = move || {
        let mut line = UnixStream::connect(&path)?;
        // Nobody has told the firmware that the case before is over: a Hello of somebody new does (LNK-22).
        // Whatever half a frame came last ends with a delimiter.
        line.write_all(&[0])?;
        line.write_all(&flood::line_hello(&mut random, 0))?;
        // What waits there would be sent again.
        set_socket_send_buffer_size(&line, 1)?;
        let over = line.try_clone()?;
        let write = line.try_clone()?;
        let line = Transport::new(line, write).with_guard(OnDrop(move || drop(over.shutdown(Shutdown::Both))));
        Ok(suite::over_line(line))
    };
    let is_run = |case: &str| suite::is_for_devices(case) && !suite::is_of_stream(case) && case != NOT_ON_THE_LINE;
    judge("firmware-serial", connect, is_run).await;
}

async fn judge(
    name: &'static str,
    connect: impl FnMut() -> io::Result<Transport> + Send + 'static,
    selected: fn(&str) -> bool,
) {
    let run = move || suite::run_within(PATIENCE, name, connect, selected);
    let report = tokio::task::spawn_blocking(run).await.expect("it does not panic");
    report.save().expect("the report is written");
    assert!(report.is_green(), "{report}");
    println!("{report}");
}

/// The writing half: when it is dropped, that direction ends.
struct Tcp(TcpStream);

impl Write for Tcp {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Tcp {
    fn drop(&mut self) {
        let _ = self.0.shutdown(Shutdown::Write);
    }
}

struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
