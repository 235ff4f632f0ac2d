//! The raw echo over blocking streams.

use std::io::{ErrorKind, Read, Write};

use crate::Result;
use crate::cases::Exchange;
use crate::counts::{Counted, Gauge, StreamCounts, Wire};
use crate::measure::Subject;
use crate::raw::{Inbox, batch};

/// Echoes until the stream ends.
pub fn serve(read: impl Read, write: impl Write, gauge: &Gauge) -> Result<()> {
    let counts = StreamCounts::default();
    let (mut read, mut write) = (counts.count(read), counts.count(write));
    gauge.set(move || counts.wire());
    let mut inbox = Inbox::new();
    loop {
        match read.read(inbox.space()) {
            Ok(0) => return Ok(()),
            Ok(count) => inbox.filled(count),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        }
        let (messages, count) = inbox.take_messages();
        if count > 0 {
            write.write_all(messages)?;
        }
    }
}

/// The client of a server.
pub struct Client<R, W> {
    read: Counted<R>,
    write: Counted<W>,
    counts: StreamCounts,
    exchange: Exchange,
    batch: Vec<u8>,
    inbox: Inbox,
    messages: u64,
}

impl<R: Read, W: Write> Client<R, W> {
    /// Over those streams.
    pub fn new(read: R, write: W, exchange: Exchange) -> Self {
        let counts = StreamCounts::default();
        let (read, write) = (counts.count(read), counts.count(write));
        Self { read, write, counts, exchange, batch: batch(exchange), inbox: Inbox::new(), messages: 0 }
    }
}

impl<R: Read, W: Write> Subject for Client<R, W> {
    fn run(&mut self, operations: u64) -> Result<()> {
        for _ in 0..operations / self.exchange.batch {
            self.write.write_all(&self.batch)?;
            let mut missing = self.exchange.batch;
            while missing > 0 {
                match self.read.read(self.inbox.space())? {
                    0 => return Err("the raw server has gone".into()),
                    count => self.inbox.filled(count),
                }
                missing -= self.inbox.take_messages().1;
            }
        }
        self.messages += 2 * operations;
        Ok(())
    }

    fn wire(&self) -> Wire {
        Wire { messages: self.messages, ..self.counts.wire() }
    }
}
