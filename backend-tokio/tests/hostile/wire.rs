//! What hostile peers say: bytes, well formed or not, and single messages.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use farref_core::frame::{PREAMBLE, PreambleScanner, Scan, Split, split};
use farref_core::message::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Nothing here takes longer, however busy the machine is.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

pub fn record(body: &[u8]) -> Vec<u8> {
    [&varint(body.len() as u64), body].concat()
}

pub fn text(text: &str) -> Vec<u8> {
    assert!(text.len() < 32);
    [&[0x40 + text.len() as u8], text.as_bytes()].concat()
}

/// The preamble and a Hello that takes messages of 1 MiB, 65,536 references and 256 calls.
pub fn greeting() -> Vec<u8> {
    let numbers = [1, 1, 0, 1 << 20, 1 << 16, 256, 1 << 20, 1024, 32];
    let numbers: Vec<u8> = numbers.into_iter().flat_map(varint).collect();
    [&PREAMBLE[..], &record(&[&[16], &numbers[..], b"a hostile peer..\x01"].concat())].concat()
}

/// A call, as far as it is the same for all that are made here.
#[derive(Default)]
pub struct Call {
    pub id: u64,
    pub pipelined: bool,
    /// As it stands on the wire; 0 is the directory.
    pub target: u64,
    /// As they stand on the wire.
    pub handles: Vec<Vec<u8>>,
    pub parent: Option<u64>,
    pub values: Vec<u8>,
}

impl Call {
    /// Of a root: its name, and then what `values` are.
    pub fn root(id: u64, name: &str, values: &[u8]) -> Self {
        Self { id, values: [&text(name), values].concat(), ..Self::default() }
    }

    /// The operation CallMethod.
    pub fn body(&self) -> Vec<u8> {
        let flags = [(self.pipelined, 0x20), (!self.handles.is_empty(), 0x40), (self.parent.is_some(), 0x80)];
        let mut body = vec![flags.iter().filter(|(is_set, _)| *is_set).map(|(_, flag)| flag).sum()];
        [self.id, self.target, 4].into_iter().for_each(|number| body.extend(varint(number)));
        if !self.handles.is_empty() {
            body.extend(varint(self.handles.len() as u64));
            body.extend(self.handles.concat());
        }
        if let Some(parent) = self.parent {
            let field = [&[2], &varint(parent)[..]].concat();
            body.extend(record(&field));
        }
        body.extend(&self.values);
        body
    }

    pub fn record(&self) -> Vec<u8> {
        record(&self.body())
    }
}

/// The sender's object in that slot, as a handle.
pub fn mine(slot: u64) -> Vec<u8> {
    varint(slot << 3)
}

/// A connection to the server.
pub struct Raw {
    stream: TcpStream,
    unread: Vec<u8>,
    has_begun: bool,
}

impl Raw {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("it connects");
        stream.set_nodelay(true).expect("no delay");
        Self { stream, unread: Vec::new(), has_begun: false }
    }

    /// One whose session has begun.
    pub async fn greet(address: SocketAddr) -> Self {
        let mut raw = Self::connect(address).await;
        raw.say(&greeting()).await.expect("it is taken");
        let hello = raw.hear().await.expect("the server's Hello");
        assert_eq!(hello.first(), Some(&16));
        raw
    }

    /// Says something; an error if the server has hung up.
    pub async fn say(&mut self, bytes: &[u8]) -> io::Result<()> {
        tokio::time::timeout(PATIENCE, self.stream.write_all(bytes)).await.expect("the server reads")
    }

    /// Says all that the server takes at once, and then what is left for as long as it takes nothing. Tells how much it took.
    pub async fn flood(&mut self, bytes: impl Fn(u64) -> Vec<u8>) -> u64 {
        let mut taken = 0;
        for count in 0.. {
            let bytes = bytes(count);
            match tokio::time::timeout(Duration::from_millis(100), self.stream.write_all(&bytes)).await {
                Ok(Ok(())) => taken += bytes.len() as u64,
                _ => break,
            }
        }
        taken
    }

    /// The next message; none at the end.
    pub async fn hear(&mut self) -> Option<Vec<u8>> {
        loop {
            if self.has_begun
                && let Split::Record { body, rest } = split(&self.unread, u32::MAX)
            {
                let (body, rest) = (body.to_vec(), rest.to_vec());
                self.unread = rest;
                return Some(body);
            }
            let mut buffer = [0; 4096];
            let count =
                tokio::time::timeout(PATIENCE, self.stream.read(&mut buffer)).await.expect("the server answers");
            match count {
                Ok(count @ 1..) => self.unread.extend(&buffer[..count]),
                _ => return None,
            }
            if !self.has_begun {
                match PreambleScanner::default().scan(&self.unread) {
                    Scan::Found(at) => self.unread.drain(..at),
                    _ => continue,
                };
                self.has_begun = true;
            }
        }
    }

    /// The outcome of a call: the code of its error, if it is one. What else is said meanwhile goes by.
    pub async fn outcome(&mut self, id: u64) -> Option<u64> {
        loop {
            let body = self.hear().await.expect("a Return");
            if let Ok(Message::Return(returned)) = Message::read(&body)
                && u64::from(returned.id) == id
            {
                return returned.error.map(|code| code.number().into());
            }
        }
    }

    /// The rule for which the server ends the session: all that is said before goes by. Empty if there is none, or no Close.
    pub async fn end(&mut self) -> String {
        let mut rule = String::new();
        while let Some(body) = self.hear().await {
            if let Ok(Message::Close(close)) = Message::read(&body) {
                rule = close.rule.to_owned();
            }
        }
        rule
    }

    /// Reads what comes, which is nothing that matters, until the server hangs up.
    pub async fn drain(mut self) {
        let mut buffer = [0; 4096];
        let drained = async { while matches!(self.stream.read(&mut buffer).await, Ok(1..)) {} };
        tokio::time::timeout(PATIENCE, drained).await.expect("the server hangs up");
    }

    /// Reads nothing, and says things that mean nothing until the server has cut the connection.
    pub async fn until_cut(&mut self) {
        let start = Instant::now();
        // A Finish without an answer.
        while matches!(tokio::time::timeout(PATIENCE, self.stream.write_all(&[2, 2, 0])).await, Ok(Ok(()))) {
            assert!(start.elapsed() < PATIENCE, "it was not cut");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Says that there is no more.
    pub async fn finish(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// Cuts the connection: what is under way is lost.
    pub fn reset(self) {
        self.stream.set_zero_linger().expect("no linger");
    }
}
