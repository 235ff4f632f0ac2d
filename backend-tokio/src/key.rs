//! The check of the shared key (SPEC.md section 14), on a stream whose session has not begun.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use farref_core::frame::BANNER_LIMIT;
use farref_core::key::{Key, KeyCheck, Progress, Role};
use farref_host::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::connect::fault;
use crate::driver::{Stream, hang_up};

/// Makes sure that the peer knows the key. Gives the stream as the session is to find it. There is no limit of time here.
pub(crate) async fn check<S: Stream>(mut stream: S, role: Role, key: &Key) -> Result<Checked<S>, Error> {
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce).map_err(|error| Error::Io(io::ErrorKind::Other, format!("no randomness: {error}")))?;
    let mut check = KeyCheck::new(role, key, nonce, BANNER_LIMIT);
    let mut buffer = [0; 256];
    let mut rest = Vec::new();
    loop {
        // What cannot be written may be so because the peer has said why it hangs up.
        let is_written = send(&mut stream, &mut check).await.is_ok();
        match check.progress() {
            Progress::Going => {}
            Progress::Passed if is_written => return Ok(Checked::new(stream, rest)),
            Progress::Passed => return Err(check.cut().into()),
            Progress::Failed(failure) => {
                if role == Role::Accepting {
                    hang_up(stream).await;
                }
                return Err(failure.into());
            }
        }
        let count = stream.read(&mut buffer).await.map_err(|error| fault(&error).unwrap_or_else(|| error.into()))?;
        if count == 0 {
            return Err(check.cut().into());
        }
        let (used, _) = check.handle(&buffer[..count]);
        // KEY-5: what comes behind the check is the session's.
        rest.extend_from_slice(&buffer[used..count]);
    }
}

async fn send(stream: &mut impl Stream, check: &mut KeyCheck) -> io::Result<()> {
    while !check.transmit().is_empty() {
        match stream.write(check.transmit()).await? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            count => check.transmitted(count),
        }
    }
    stream.flush().await
}

impl<S> Checked<S> {
    /// `rest` was read before, and comes first.
    pub fn new(stream: S, rest: Vec<u8>) -> Self {
        Self { stream, rest, taken: 0 }
    }
}

/// A stream of which something was read before.
pub(crate) struct Checked<S> {
    stream: S,
    rest: Vec<u8>,
    taken: usize,
}

impl<S: Stream> AsyncRead for Checked<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.rest.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let rest = &self.rest[self.taken..];
        let count = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..count]);
        self.taken += count;
        if self.taken == self.rest.len() {
            self.rest = Vec::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: Stream> AsyncWrite for Checked<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
