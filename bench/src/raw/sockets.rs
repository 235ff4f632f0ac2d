//! The raw echo over tokio's streams.

use std::rc::Rc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::runtime::Runtime;

use crate::Result;
use crate::cases::Exchange;
use crate::counts::{Counted, Gauge, StreamCounts, Wire};
use crate::measure::Subject;
use crate::raw::{Inbox, batch};

/// Starts a task that echoes until the stream ends.
pub fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, gauge: &Gauge) {
    let counts = StreamCounts::default();
    tokio::spawn(echo(counts.count(stream)));
    gauge.set(move || counts.wire());
}

async fn echo(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> std::io::Result<()> {
    let mut inbox = Inbox::new();
    loop {
        match stream.read(inbox.space()).await? {
            0 => return Ok(()),
            count => inbox.filled(count),
        }
        let (messages, count) = inbox.take_messages();
        if count > 0 {
            stream.write_all(messages).await?;
        }
    }
}

/// The client of a server.
pub struct Client<S> {
    runtime: Rc<Runtime>,
    stream: Counted<S>,
    counts: StreamCounts,
    exchange: Exchange,
    batch: Vec<u8>,
    inbox: Inbox,
    messages: u64,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Over that stream.
    pub fn new(runtime: Rc<Runtime>, stream: S, exchange: Exchange) -> Self {
        let counts = StreamCounts::default();
        let stream = counts.count(stream);
        Self { runtime, stream, counts, exchange, batch: batch(exchange), inbox: Inbox::new(), messages: 0 }
    }

    async fn exchange(stream: &mut Counted<S>, batch: &[u8], mut missing: u64, inbox: &mut Inbox) -> Result<()> {
        stream.write_all(batch).await?;
        while missing > 0 {
            match stream.read(inbox.space()).await? {
                0 => return Err("the raw server has gone".into()),
                count => inbox.filled(count),
            }
            missing -= inbox.take_messages().1;
        }
        Ok(())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Subject for Client<S> {
    fn run(&mut self, operations: u64) -> Result<()> {
        let runtime = self.runtime.clone();
        runtime.block_on(async {
            for _ in 0..operations / self.exchange.batch {
                Self::exchange(&mut self.stream, &self.batch, self.exchange.batch, &mut self.inbox).await?;
            }
            self.messages += 2 * operations;
            Ok(())
        })
    }

    fn wire(&self) -> Wire {
        Wire { messages: self.messages, ..self.counts.wire() }
    }
}
