//! One connection of the tester: threads that read and write, so that every wait of the tester has a limit.

use std::any::Any;
use std::io::{Read, Write};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use super::transport::Transport;

pub(super) struct Link {
    /// None when our direction was ended.
    outgoing: Option<mpsc::Sender<Outgoing>>,
    incoming: mpsc::Receiver<Vec<u8>>,
    gate: Arc<Gate>,
    /// Dropped last: it makes the reading thread come back.
    _over: Box<dyn Any + Send>,
}

enum Outgoing {
    Bytes(Vec<u8>),
    /// Tell when everything before has been written.
    Written(mpsc::Sender<()>),
}

/// What came of waiting for bytes.
pub(super) enum Incoming {
    Bytes(Vec<u8>),
    /// The stream has ended.
    End,
    /// The time is up.
    Late,
}

/// Shut while the tester does not read.
#[derive(Default)]
struct Gate {
    is_shut: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    fn set(&self, is_shut: bool) {
        *self.is_shut.lock().unwrap_or_else(PoisonError::into_inner) = is_shut;
        self.opened.notify_all();
    }

    fn pass(&self) {
        let is_shut = self.is_shut.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.opened.wait_while(is_shut, |is_shut| *is_shut));
    }
}

impl Link {
    pub fn new(transport: Transport) -> Self {
        let Transport { read, write, over } = transport;
        let (outgoing, to_write) = mpsc::channel();
        let (from_read, incoming) = mpsc::channel();
        let gate = Arc::<Gate>::default();
        let of_reader = gate.clone();
        thread::spawn(move || write_loop(write, &to_write));
        thread::spawn(move || read_loop(read, &from_read, &of_reader));
        Self { outgoing: Some(outgoing), incoming, gate, _over: over }
    }

    /// Sends bytes in one write, sooner or later.
    pub fn send(&self, bytes: Vec<u8>) {
        if let Some(outgoing) = &self.outgoing {
            // When the writer has given up, what comes back tells why.
            let _ = outgoing.send(Outgoing::Bytes(bytes));
        }
    }

    /// Ends our direction.
    pub fn finish(&mut self) {
        self.outgoing = None;
    }

    /// Waits until all that was sent has been taken by the transport; false if it is not in time.
    pub fn flush(&self, deadline: Instant) -> bool {
        let (written, is_written) = mpsc::channel();
        let sent = self.outgoing.as_ref().is_some_and(|outgoing| outgoing.send(Outgoing::Written(written)).is_ok());
        sent && is_written.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_ok()
    }

    /// Stops reading what the subject writes, or goes on. What is being read just now still comes.
    pub fn read(&self, goes_on: bool) {
        self.gate.set(!goes_on);
    }

    pub fn receive(&self, deadline: Instant) -> Incoming {
        match self.incoming.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(bytes) => Incoming::Bytes(bytes),
            Err(RecvTimeoutError::Disconnected) => Incoming::End,
            Err(RecvTimeoutError::Timeout) => Incoming::Late,
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.finish();
        self.gate.set(false);
    }
}

fn write_loop(mut write: Box<dyn Write + Send>, to_write: &mpsc::Receiver<Outgoing>) {
    for outgoing in to_write {
        match outgoing {
            Outgoing::Bytes(bytes) => {
                if write.write_all(&bytes).and_then(|()| write.flush()).is_err() {
                    return;
                }
            }
            Outgoing::Written(tell) => {
                let _ = tell.send(());
            }
        }
    }
}

fn read_loop(mut read: Box<dyn Read + Send>, from_read: &mpsc::Sender<Vec<u8>>, gate: &Gate) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        gate.pass();
        match read.read(&mut buffer) {
            Ok(count @ 1..) => {
                let bytes = buffer.get(..count).unwrap_or_default().to_vec();
                if from_read.send(bytes).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => return,
        }
    }
}
