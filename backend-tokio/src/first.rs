//! What a connection that was accepted begins with: a session, or an attempt to resume one (LNK-4).

use farref_core::frame::{PREAMBLE, PreambleScanner, Scan, Split, split};
use farref_core::message::{Message, Resume};
use farref_host::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::connect::fault;
use crate::driver::{Stream, hang_up};
use crate::key::Checked;

/// How a connection begins.
pub(crate) enum First<S> {
    /// As a session does, or as nothing that is known: it is for the session to say what is wrong.
    Session(Checked<S>),
    /// With this, which has been read.
    Resume(Resume, Checked<S>),
}

/// More than a Resume can have.
const LONGEST: u32 = 64;

/// Reads the first record. There is no limit of time here.
pub(crate) async fn read<S: Stream>(mut stream: S) -> Result<First<S>, Error> {
    let mut scanner = Some(PreambleScanner::default());
    let mut rest = Vec::new();
    loop {
        let mut buffer = [0; 1024];
        let count = stream.read(&mut buffer).await.map_err(|error| fault(&error).unwrap_or_else(|| error.into()))?;
        let chunk = &buffer[..count];
        rest.extend_from_slice(chunk);
        if let Some(searching) = &mut scanner {
            match searching.scan(chunk) {
                Scan::Found(at) => {
                    rest.clear();
                    rest.extend_from_slice(&chunk[at..]);
                    scanner = None;
                }
                // As much as a mark may have that says what it is instead.
                Scan::Searching if count > 0 => {
                    rest.drain(..rest.len().saturating_sub(PREAMBLE.len()));
                    continue;
                }
                Scan::Searching | Scan::NoPeer => return Ok(First::Session(Checked::new(stream, rest))),
            }
        }
        match split(&rest, LONGEST) {
            Split::Record { body, rest: behind } if let Ok(Message::Resume(resume)) = Message::read(body) => {
                // Whoever carries the bytes looks for the preamble first, on each connection.
                let behind = [&PREAMBLE, behind].concat();
                return Ok(First::Resume(resume, Checked::new(stream, behind)));
            }
            Split::Incomplete if count > 0 => {}
            Split::Record { .. } | Split::Incomplete | Split::Bad => {
                let all = [&PREAMBLE, &*rest].concat();
                return Ok(First::Session(Checked::new(stream, all)));
            }
        }
    }
}

/// Answers that there is no such session, and what it had got (LNK-6).
pub(crate) async fn answer_gone(mut stream: impl Stream, incarnation: u64, got: u64) {
    let mut record = [0; 24];
    let length = farref_core::session::session_gone(incarnation, got, &mut record);
    let answer = [&PREAMBLE, &record[..length]].concat();
    if stream.write_all(&answer).await.is_ok() && stream.flush().await.is_ok() {
        hang_up(stream).await;
    }
}
