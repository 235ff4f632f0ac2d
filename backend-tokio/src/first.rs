//! What a connection that was accepted begins with: a session, or an attempt to resume one (LNK-4).

use farref_core::message::Resume;
use farref_host::{Begun, Error, Opening};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::connect::fault;
use crate::driver::{Stream, hang_up};
use crate::key::Checked;

/// How a connection begins.
pub(crate) enum First<S> {
    /// As a session does.
    Session(Checked<S>),
    /// With this, which has been read.
    Resume(Resume, Checked<S>),
}

/// Reads the first record. There is no limit of time here.
pub(crate) async fn read<S: Stream>(mut stream: S) -> Result<First<S>, Error> {
    let mut opening = Opening::default();
    let mut buffer = vec![0; 512];
    loop {
        let count = stream.read(&mut buffer).await.map_err(|error| fault(&error).unwrap_or_else(|| error.into()))?;
        match opening.take(&buffer[..count]) {
            None => {}
            Some(Begun::Session(rest)) => return Ok(First::Session(Checked::new(stream, rest))),
            // Whoever carries the bytes looks for a preamble first, on each connection.
            Some(Begun::Resume { resume, behind, .. }) => {
                return Ok(First::Resume(resume, Checked::new(stream, behind)));
            }
        }
    }
}

/// Answers that there is no such session, and what it had got (LNK-6).
pub(crate) async fn answer_gone(mut stream: impl Stream, incarnation: u64, got: u64) {
    let answer = farref_host::session_gone(incarnation, got);
    if stream.write_all(&answer).await.is_ok() && stream.flush().await.is_ok() {
        hang_up(stream).await;
    }
}
