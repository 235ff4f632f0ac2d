//! Carries sessions over streams that lose nothing: a socket, USB CDC, a pipe.

use core::cell::RefCell;
use core::future::{pending, poll_fn};
use core::pin::pin;
use core::task::{Context, Poll};

use embassy_futures::select::{Either3, select3};
use embassy_time::{Duration, Instant, Timer, with_timeout};
use embedded_io_async::{Read, Write};
use farref_core::frame::{PREAMBLE, PreambleScanner, Scan, Split, split, wanted};
use farref_core::message::{CloseCode, Hello, Resume};
use farref_core::session::{Ended, session_gone, turned_away};

use crate::config::Config;
use crate::connection::{Carried, Mode, Status};
use crate::log::info;
use crate::peer::Peer;
use crate::service::Service;

/// A connection and what it serves.
pub struct Endpoint<'e> {
    pub(crate) connection: &'e dyn Carried,
    service: RefCell<&'e mut dyn Service>,
}

/// How the carrying of a session came to an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The session is over.
    Over(Ended),
    /// The stream is, and the session waits for another one.
    Parked,
    /// Another stream has taken the place of this one.
    Superseded,
    /// No session came about: no farref peer is there, it takes too long to begin, or all connections are in use.
    Refused,
}

/// What is between a stream and a session: the record that comes in, and output on its way.
///
/// `RECORD` is 5 bytes more than the longest message that is taken, and 261 at least; `CHUNK` bytes are written at a time.
pub struct Buffers<const RECORD: usize, const CHUNK: usize> {
    record: [u8; RECORD],
    chunk: [u8; CHUNK],
}

impl<const RECORD: usize, const CHUNK: usize> Buffers<RECORD, CHUNK> {
    /// Empty ones.
    pub const fn new() -> Self {
        const { assert!(RECORD >= PREFIX + 256, "a Hello has up to 256 bytes, and 5 before it") };
        const { assert!(CHUNK >= 32, "the longest message outside the order has to fit") };
        Self { record: [0; RECORD], chunk: [0; CHUNK] }
    }

    pub(crate) fn lend(&mut self) -> Lent<'_> {
        Lent { record: &mut self.record, chunk: &mut self.chunk }
    }
}

impl<const RECORD: usize, const CHUNK: usize> Default for Buffers<RECORD, CHUNK> {
    fn default() -> Self {
        Self::new()
    }
}

/// Buffers of whatever size.
pub(crate) struct Lent<'b> {
    pub record: &'b mut [u8],
    pub chunk: &'b mut [u8],
}

/// The longest length before a record.
const PREFIX: usize = 5;

/// For how long the last words of a session may take.
pub(crate) const LINGER: Duration = Duration::from_secs(1);

impl<'e> Endpoint<'e> {
    /// A connection that serves this.
    pub fn new<S, const IMPORTS: usize, const CALLS: usize, const RESULT: usize>(
        connection: &'e crate::Connection<S, IMPORTS, CALLS, RESULT>,
        service: &'e mut dyn Service,
    ) -> Self
    where
        S: farref_core::session::Storage,
    {
        Self { connection, service: RefCell::new(service) }
    }

    /// Who is on the other side.
    pub fn peer(&self) -> Peer<'e> {
        Peer(self.connection)
    }

    /// Carries a session over a stream that this side has opened, or of which both sides are alike, such as a USB cable. One
    /// that waits for another stream goes on; else a new one begins.
    ///
    /// It waits for the peer as long as it takes. If this is dropped, the session waits for another stream.
    pub async fn connect<const RECORD: usize, const CHUNK: usize>(
        &self,
        reader: impl Read,
        writer: impl Write,
        buffers: &mut Buffers<RECORD, CHUNK>,
    ) -> End {
        self.connect_with(reader, writer, buffers.lend(), None).await
    }

    /// The peer has to answer within so many milliseconds.
    pub(crate) async fn connect_with(
        &self,
        reader: impl Read,
        writer: impl Write,
        buffers: Lent<'_>,
        opening: Option<u32>,
    ) -> End {
        let turn = self.connection.next_turn();
        if self.connection.status() == Status::Live {
            self.serve(|service| self.connection.park(now(), service));
        }
        match self.connection.status() {
            Status::Parked => self.connection.resume(),
            _ => self.begin(Mode::Stream, buffers.record.len() - PREFIX),
        }
        self.carry(turn, reader, writer, buffers, Begins::WithPreamble(opening)).await
    }

    /// How long a peer may take to begin, milliseconds.
    #[cfg(feature = "tcp")]
    pub(crate) fn opening(&self) -> u32 {
        self.connection.config().opening
    }

    /// Why there is no session any more.
    #[cfg(feature = "tcp")]
    pub(crate) fn ended(&self) -> Ended {
        if let Status::Over(ended) = self.connection.status() { ended } else { Ended::LinkLost }
    }

    pub(crate) fn begin(&self, mode: Mode, max_message: usize) {
        let max_message = u32::try_from(max_message).unwrap_or(u32::MAX);
        self.serve(|service| self.connection.begin(mode, max_message, service));
    }

    /// Has the service do something.
    pub(crate) fn serve<R>(&self, ask: impl FnOnce(&mut dyn Service) -> R) -> Option<R> {
        Some(ask(&mut **self.service.try_borrow_mut().ok()?))
    }

    /// Until the session is over, or the stream.
    async fn carry(
        &self,
        turn: u32,
        mut reader: impl Read,
        mut writer: impl Write,
        buffers: Lent<'_>,
        begins: Begins,
    ) -> End {
        let carrying = Carrying { endpoint: self, turn };
        let Lent { record, chunk } = buffers;
        let is_new = self.connection.hello().is_none();
        let opening = if let Begins::WithPreamble(opening) = begins { opening } else { None };
        let stopped = select3(
            self.receive(turn, &mut reader, record, begins),
            self.keep_time(turn, opening),
            self.send(turn, &mut writer, chunk),
        );
        let stopped = stopped.await;
        if self.connection.turn() != turn {
            return End::Superseded;
        }
        // One that goes on may find its peer on the next stream: there may be a proxy that has nobody behind it now.
        if let (true, Either3::First(Stop::NoPeer) | Either3::Second(Stop::NoPeer)) = (is_new, stopped) {
            info!("no farref peer");
            self.serve(|service| self.connection.give_up(Ended::LinkLost, service));
            return End::Refused;
        }
        drop(carrying);
        match self.connection.status() {
            Status::Over(ended) => End::Over(ended),
            Status::Live | Status::Parked => End::Parked,
        }
    }

    /// Hands records to the session, until the stream ends.
    async fn receive(&self, turn: u32, reader: &mut impl Read, record: &mut [u8], begins: Begins) -> Stop {
        if begins != Begins::WithRecord && !find_preamble(reader).await {
            return Stop::NoPeer;
        }
        loop {
            let (head, body) = record.split_at_mut(PREFIX);
            let Some(length) = self.read_length(reader, head, body).await else { return Stop::Lost };
            if self.connection.turn() != turn {
                return Stop::Lost;
            }
            // FRM-2: nothing is taken for a record that cannot be one. The session says so.
            let body = body.get_mut(..length).unwrap_or_default();
            if !read_all(reader, body).await || self.connection.turn() != turn {
                return Stop::Lost;
            }
            self.serve(|service| self.connection.handle(body, service));
            if let Status::Over(_) = self.connection.status() {
                // Nothing more is read; the last word may be on its way.
                pending::<()>().await;
            }
        }
    }

    /// The length of the next record, 0 if that is none. While nothing of it has come, what was waiting may use the buffer of
    /// its body.
    async fn read_length(&self, reader: &mut impl Read, head: &mut [u8], body: &mut [u8]) -> Option<usize> {
        let mut filled = 0;
        loop {
            {
                let place = head.get_mut(filled..filled + 1)?;
                let mut read = pin!(read_all(reader, place));
                let is_read = poll_fn(|cx| {
                    if filled == 0 {
                        self.serve(|service| self.connection.settle(Some(&mut *body), service));
                    }
                    read.as_mut().poll(cx)
                });
                if !is_read.await {
                    return None;
                }
            }
            filled += 1;
            if let Some(length) = length_of(head.get(..filled)?, body.len()) {
                return Some(length);
            }
        }
    }

    /// Writes output, until the session is over and all is written, or the stream ends.
    async fn send(&self, turn: u32, writer: &mut impl Write, chunk: &mut [u8]) {
        if writer.write_all(&PREAMBLE).await.is_err() {
            return;
        }
        let mut is_flushed = false;
        loop {
            let count = match self.connection.turn() == turn {
                true => self.connection.transmit(chunk),
                false => return,
            };
            let is_written = match count {
                0 if !is_flushed => {
                    is_flushed = true;
                    writer.flush().await.is_ok()
                }
                0 if matches!(self.connection.status(), Status::Over(_)) => return,
                0 => {
                    next_poll().await;
                    true
                }
                count => {
                    is_flushed = false;
                    writer.write_all(chunk.get(..count).unwrap_or_default()).await.is_ok()
                }
            };
            if !is_written {
                return;
            }
        }
    }

    /// Tells the session the time, until it has given up its connection, or was to begin before that.
    async fn keep_time(&self, turn: u32, opening: Option<u32>) -> Stop {
        let mut opening = opening.map(|opening| now().saturating_add(opening.into()));
        let mut lingers = None;
        poll_fn(|cx| {
            if self.connection.turn() != turn {
                return Poll::Ready(Stop::Lost);
            }
            let is_parked = self.poll_time(cx).is_ready();
            // While half a record has come, too.
            self.serve(|service| self.connection.settle(None, service));
            if let Status::Over(_) = self.connection.status() {
                // The last word does not wait for a peer that reads nothing.
                let lingers = lingers.get_or_insert_with(|| Timer::after(LINGER));
                return pin!(lingers).poll(cx).map(|()| Stop::Lost);
            }
            opening = opening.filter(|_| !self.connection.is_up());
            wake_at(opening, cx);
            match opening {
                _ if is_parked => Poll::Ready(Stop::Lost),
                Some(at) if at <= now() => Poll::Ready(Stop::NoPeer),
                _ => Poll::Pending,
            }
        })
        .await
    }

    /// Tells the session the time when that is due, and waits for when it is due next. Ready if it is parked.
    pub(crate) fn poll_time(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.connection.register(cx.waker());
        if self.connection.timeout().is_some_and(|at| at <= now()) {
            self.connection.advance(now());
            // There may be output now.
            cx.waker().wake_by_ref();
        }
        wake_at(self.connection.timeout(), cx);
        if self.connection.status() == Status::Parked { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Tells a session that waits for another stream the time: its calls have deadlines all the same, and it does not wait for
    /// ever. Ready when it is over.
    #[cfg(feature = "tcp")]
    pub(crate) fn poll_parked(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.connection.status() == Status::Parked {
            let _ = self.poll_time(cx);
            self.serve(|service| self.connection.settle(None, service));
        }
        if self.connection.status() == Status::Parked { Poll::Pending } else { Poll::Ready(()) }
    }
}

/// Carries a session over a stream that the peer has opened: one of those that wait for another stream, if the peer says so,
/// or a new one on a connection that has none. If each has one, it takes the place of the one that has been parked for
/// longest; if none is parked, the peer is told that there is no room. It has to begin in the time for
/// [opening](crate::Config::opening).
pub async fn accept<const RECORD: usize, const CHUNK: usize>(
    endpoints: &[Endpoint<'_>],
    reader: impl Read,
    writer: impl Write,
    buffers: &mut Buffers<RECORD, CHUNK>,
) -> End {
    accept_with(endpoints, reader, writer, buffers.lend()).await
}

pub(crate) async fn accept_with(
    endpoints: &[Endpoint<'_>],
    mut reader: impl Read,
    mut writer: impl Write,
    buffers: Lent<'_>,
) -> End {
    let Some(opening) = endpoints.first().map(|endpoint| endpoint.connection.config().opening) else {
        return End::Refused;
    };
    let longest = buffers.record.len().saturating_sub(PREFIX);
    // HEL-1, LNK-4: who does not offer to resume sessions speaks at once.
    if endpoints.iter().all(|endpoint| endpoint.connection.config().park.is_none()) {
        let Some(endpoint) = free(endpoints) else { return refuse(endpoints, &mut writer, no_room).await };
        let turn = endpoint.connection.next_turn();
        endpoint.begin(Mode::Stream, longest);
        return endpoint.carry(turn, reader, writer, buffers, Begins::WithPreamble(Some(opening))).await;
    }
    let patience = Duration::from_millis(opening.into());
    let first = with_timeout(patience, read_first(&mut reader, buffers.record)).await;
    let Ok(Some(body)) = first else {
        info!("no farref peer");
        return End::Refused;
    };
    if let Ok(resume) = Resume::of(body) {
        let is_it = |endpoint: &&Endpoint<'_>| endpoint.connection.token() == Some(resume.token);
        let Some(endpoint) = endpoints.iter().find(is_it) else {
            return refuse(endpoints, &mut writer, gone).await;
        };
        // From here on nothing of the connection before is read: whoever carries that looks at the turn first.
        if endpoint.serve(|service| endpoint.connection.accept(&resume, service)) != Some(true) {
            return End::Refused;
        }
        let turn = endpoint.connection.next_turn();
        return endpoint.carry(turn, reader, writer, buffers, Begins::WithRecord).await;
    }
    if let Ok(hello) = Hello::of(body) {
        for endpoint in endpoints {
            let other = endpoint.connection.hello().filter(|other| other.peer == hello.peer);
            // LNK-8: it has started again, and knows nothing of that one.
            if other.is_some_and(|other| other.incarnation != hello.incarnation) {
                endpoint.connection.next_turn();
                endpoint.serve(|service| endpoint.connection.give_up(Ended::PeerRestarted, service));
            }
        }
    }
    let Some(endpoint) = free(endpoints) else { return refuse(endpoints, &mut writer, no_room).await };
    let turn = endpoint.connection.next_turn();
    endpoint.begin(Mode::Stream, longest);
    endpoint.serve(|service| endpoint.connection.handle(body, service));
    endpoint.carry(turn, reader, writer, buffers, Begins::WithRecord).await
}

/// One that has no session; else the one whose session has been waiting for a stream for longest (LNK-8).
fn free<'a, 'e>(endpoints: &'a [Endpoint<'e>]) -> Option<&'a Endpoint<'e>> {
    let is_over = |endpoint: &&Endpoint<'_>| matches!(endpoint.connection.status(), Status::Over(_));
    let parked = || endpoints.iter().filter_map(|endpoint| Some((endpoint, endpoint.connection.parked_until()?)));
    endpoints.iter().find(is_over).or_else(|| Some(parked().min_by_key(|&(_, until)| until)?.0))
}

/// The longest answer on a stream that carries no session: [`turned_away`].
const ANSWER: usize = 56;

/// Says why there is no session, and nothing more.
async fn refuse(
    endpoints: &[Endpoint<'_>],
    writer: &mut impl Write,
    answer: fn(&Config, &mut [u8; ANSWER]) -> usize,
) -> End {
    let mut records = [0; ANSWER];
    let length = endpoints.first().map_or(0, |endpoint| answer(endpoint.connection.config(), &mut records));
    let said = async {
        writer.write_all(&PREAMBLE).await.ok()?;
        writer.write_all(records.get(..length)?).await.ok()?;
        writer.flush().await.ok()
    };
    let _ = with_timeout(LINGER, said).await;
    End::Refused
}

/// There is no such session (LNK-6).
fn gone(config: &Config, answer: &mut [u8; ANSWER]) -> usize {
    answer.first_chunk_mut().map_or(0, |record| session_gone(config.incarnation, 0, record))
}

/// Each connection has a session.
fn no_room(config: &Config, answer: &mut [u8; ANSWER]) -> usize {
    info!("all connections are in use");
    turned_away(config.peer, config.incarnation, CloseCode::OutOfResources, answer)
}

/// The first record of a stream.
async fn read_first<'r>(reader: &mut impl Read, record: &'r mut [u8]) -> Option<&'r [u8]> {
    if !find_preamble(reader).await {
        return None;
    }
    let mut filled = 0;
    loop {
        if !read_all(reader, record.get_mut(filled..filled + 1)?).await {
            return None;
        }
        filled += 1;
        match length_of(record.get(..filled)?, 256) {
            Some(length) => {
                let body = record.get_mut(filled..filled + length)?;
                return read_all(reader, body).await.then_some(&*body);
            }
            None => continue,
        }
    }
}

/// The length that these bytes tell, 0 if it is none or above the limit (FRM-2); None if they are not all of it.
fn length_of(head: &[u8], max: usize) -> Option<usize> {
    match split(head, u32::try_from(max).unwrap_or(u32::MAX)) {
        Split::Incomplete if head.last().is_some_and(|byte| byte & 0x80 != 0) => None,
        Split::Incomplete => Some(wanted(head).saturating_sub(head.len())),
        Split::Record { .. } | Split::Bad => Some(0),
    }
}

/// Reads up to the end of a preamble (FRM-1); false if there is none.
async fn find_preamble(reader: &mut impl Read) -> bool {
    let mut scanner = PreambleScanner::default();
    let mut byte = [0];
    while read_all(reader, &mut byte).await {
        match scanner.scan(&byte) {
            Scan::Found(_) => return true,
            Scan::Searching => {}
            Scan::NoPeer => return false,
        }
    }
    false
}

/// Fills the buffer; false if the stream ends before that.
async fn read_all(reader: &mut impl Read, buffer: &mut [u8]) -> bool {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match reader.read(rest).await {
            Ok(count) if count > 0 => filled += count,
            _ => return false,
        }
    }
    true
}

/// With what a stream begins, for whoever carries a session over it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Begins {
    /// For which the peer has so many milliseconds, and for its first record.
    WithPreamble(Option<u32>),
    /// The preamble and the first record have been read.
    WithRecord,
}

/// Why no more is received.
enum Stop {
    NoPeer,
    Lost,
}

/// A session that is carried no longer waits for another stream, or is over.
struct Carrying<'c, 'e> {
    endpoint: &'c Endpoint<'e>,
    turn: u32,
}

impl Drop for Carrying<'_, '_> {
    fn drop(&mut self) {
        if self.endpoint.connection.turn() == self.turn {
            self.endpoint.serve(|service| self.endpoint.connection.park(now(), service));
        }
    }
}

/// The time that sessions are told.
pub(crate) fn now() -> u64 {
    Instant::now().as_millis()
}

/// Has the task polled at a time.
pub(crate) fn wake_at(at: Option<u64>, cx: &mut Context<'_>) {
    if let Some(at) = at {
        let _ = pin!(Timer::at(Instant::from_millis(at))).poll(cx);
    }
}

/// Waits until the task is polled again, whatever the reason.
pub(crate) async fn next_poll() {
    let mut is_next = false;
    poll_fn(|_| if core::mem::replace(&mut is_next, true) { Poll::Ready(()) } else { Poll::Pending }).await;
}
