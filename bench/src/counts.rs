//! What is counted beside the time: messages, bytes, system calls, heap allocations, live bytes.

use std::hint::black_box;
use std::io::{self, IoSlice, Read, Write};
use std::ops::Sub;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use alloc_tracker::{ProcessSpan, Session, ThreadSpan};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::Result;

/// What went over a connection so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wire {
    /// Messages, both ways.
    pub messages: u64,
    /// Bytes, both ways.
    pub bytes: u64,
    /// System calls of this side that gave bytes.
    pub reads: u64,
    /// System calls of this side that took bytes.
    pub writes: u64,
}

impl Sub for Wire {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            messages: self.messages - before.messages,
            bytes: self.bytes - before.bytes,
            reads: self.reads - before.reads,
            writes: self.writes - before.writes,
        }
    }
}

/// What a [`Counted`] stream has done. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct StreamCounts(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    reads: AtomicU64,
    writes: AtomicU64,
    bytes: AtomicU64,
}

impl StreamCounts {
    /// So far; messages are nothing that a stream knows.
    pub fn wire(&self) -> Wire {
        let Counters { reads, writes, bytes } = &*self.0;
        let [reads, writes, bytes] = [reads, writes, bytes].map(|counter| counter.load(Ordering::Relaxed));
        Wire { messages: 0, bytes, reads, writes }
    }

    /// Counts what goes through the stream.
    pub fn count<S>(&self, stream: S) -> Counted<S> {
        Counted { stream, counts: self.clone() }
    }

    fn note(&self, calls: &AtomicU64, bytes: usize) {
        calls.fetch_add(1, Ordering::Relaxed);
        self.0.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn note_read(&self, bytes: usize) {
        self.note(&self.0.reads, bytes);
    }

    fn note_write(&self, bytes: usize) {
        self.note(&self.0.writes, bytes);
    }
}

/// A stream whose reads, writes and bytes are counted: those that were done, not those that would have had to wait.
#[derive(Debug)]
pub struct Counted<S> {
    stream: S,
    counts: StreamCounts,
}

impl<S: Read> Read for Counted<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.stream.read(buffer)?;
        self.counts.note_read(count);
        Ok(count)
    }
}

impl<S: Write> Write for Counted<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.stream.write(bytes)?;
        self.counts.note_write(count);
        Ok(count)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let count = self.stream.write_vectored(slices)?;
        self.counts.note_write(count);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        self.counts.note_read(buffer.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.counts.note_write(count);
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices))?;
        self.counts.note_write(count);
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Tells what went over the wire, as soon as whoever serves has said how. Clones are the same.
#[derive(Clone, Default)]
pub struct Gauge(Arc<OnceLock<Box<dyn Fn() -> Wire + Send + Sync>>>);

impl Gauge {
    /// How. A second one is not listened to: one connection is counted.
    pub fn set(&self, wire: impl Fn() -> Wire + Send + Sync + 'static) {
        let _ = self.0.set(Box::new(wire));
    }

    /// So far.
    pub fn wire(&self) -> Wire {
        self.0.get().map_or_else(Wire::default, |wire| wire())
    }
}

/// Counts the heap allocations of this process, all its threads together, from here to [`Self::end`].
pub struct Allocations(Session, ProcessSpan);

impl Allocations {
    /// Begins to count.
    pub fn begin() -> Self {
        let session = Session::new().no_stdout().no_file();
        let span = session.operation("").measure_process().iterations(1);
        Self(session, span)
    }

    /// How many there were.
    pub fn end(self) -> u64 {
        let Self(session, span) = self;
        drop(span);
        session.to_report().operations().map(|(_, operation)| operation.total_allocations_count()).sum()
    }
}

/// How much more memory is live at [`Self::end`] than it was here, in a process that does all its work on this thread.
///
/// What another thread frees is not seen: the number is too large then, and never too small, since that other threads do not
/// allocate is checked.
pub struct LiveBytes {
    session: Session,
    thread: ThreadSpan,
    process: Allocations,
}

/// More than the live bytes can have been above their last level meanwhile.
const MARK: usize = 256 << 20;

impl LiveBytes {
    /// From here on.
    pub fn begin() -> Self {
        let process = Allocations::begin();
        let session = Session::new().no_stdout().no_file();
        let thread = session.operation("").measure_thread().iterations(1);
        Self { session, thread, process }
    }

    /// How much more there is now.
    pub fn end(self) -> Result<u64> {
        let (bytes, here, all) = self.measured()?;
        if all > here + here / 100 + 100 {
            return Err(format!("other threads made {} of {all} allocations", all - here).into());
        }
        Ok(bytes)
    }

    /// With the allocations of this thread, and those of all.
    ///
    /// What the span keeps is the highest level. So a block that is larger than everything else makes it: the level of now
    /// and that block. No page of it is ever touched.
    fn measured(self) -> Result<(u64, u64, u64)> {
        let Self { session, thread, process } = self;
        drop(black_box(Vec::<u8>::with_capacity(MARK)));
        drop(thread);
        let report = session.to_report();
        let (_, here) = report.operations().next().ok_or("nothing was measured")?;
        let peak = here.peak_outstanding_bytes().ok_or("there is no highest level")?;
        Ok(((peak as u64).saturating_sub(MARK as u64), here.total_allocations_count(), process.end()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn live_bytes_are_those_of_the_end_and_not_of_the_peak() {
        let live = LiveBytes::begin();
        drop(black_box(vec![1u8; 5 << 20]));
        let kept = black_box(vec![2u8; 1 << 20]);
        let (bytes, ..) = live.measured().unwrap();
        assert!((1 << 20..(1 << 20) + 4096).contains(&bytes), "{bytes}");
        drop(kept);
    }

    #[test]
    fn live_bytes_of_other_threads_are_no_secret() {
        let live = LiveBytes::begin();
        std::thread::spawn(|| (0..10_000).for_each(|_| drop(black_box(Box::new(7))))).join().unwrap();
        assert!(live.end().is_err());
    }

    #[test]
    fn allocations_of_all_threads_are_counted() {
        let allocations = Allocations::begin();
        std::thread::spawn(|| (0..1000).for_each(|_| drop(black_box(Box::new(7))))).join().unwrap();
        assert!(allocations.end() >= 1000);
    }

    #[test]
    fn a_counted_stream_counts_what_was_done() {
        let counts = StreamCounts::default();
        let mut buffer = [0; 8];
        let count = counts.count(&b"hello"[..]).read(&mut buffer).unwrap();
        counts.count(Vec::new()).write_all(&buffer[..count]).unwrap();
        assert_eq!(counts.wire(), Wire { messages: 0, bytes: 10, reads: 1, writes: 1 });
    }
}
