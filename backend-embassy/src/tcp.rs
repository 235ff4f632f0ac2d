//! Sessions over the TCP sockets of embassy-net: a server for several at a time, and a client. Both go on with a session when
//! its connection was lost, if [`Config::park`](crate::Config::park) has it so.

use core::convert::Infallible;
use core::future::{Future, poll_fn};
use core::pin::pin;
use core::task::Poll;

use embassy_futures::select::{Either, select, select_array};
use embassy_net::tcp::{ConnectError, TcpReader, TcpSocket, TcpWriter};
use embassy_net::{IpEndpoint, Stack};
use embassy_time::{Duration, Instant, Timer, with_timeout};
use embedded_io_async::{ErrorType, Write};
use farref_core::session::Ended;

use crate::drive::{Buffers, End, Endpoint, LINGER, accept_with};
use crate::log::info;

/// The port of farref.
pub const PORT: u16 = 10_101;

/// What is sent and not acknowledged for so long tells that a connection is lost.
const LOST: Duration = Duration::from_secs(20);

/// A client that could not connect tries again after so long at first, and later after up to so long.
const PAUSE: Duration = Duration::from_millis(250);
const LONG_PAUSE: Duration = Duration::from_secs(8);

/// The memory of one socket: `RECEIVE` and `TRANSMIT` bytes for the network stack, and [`Buffers`].
pub struct Socket<const RECEIVE: usize, const TRANSMIT: usize, const RECORD: usize, const CHUNK: usize> {
    receive: [u8; RECEIVE],
    transmit: [u8; TRANSMIT],
    buffers: Buffers<RECORD, CHUNK>,
}

impl<const RECEIVE: usize, const TRANSMIT: usize, const RECORD: usize, const CHUNK: usize>
    Socket<RECEIVE, TRANSMIT, RECORD, CHUNK>
{
    /// Empty.
    pub const fn new() -> Self {
        Self { receive: [0; RECEIVE], transmit: [0; TRANSMIT], buffers: Buffers::new() }
    }
}

impl<const RECEIVE: usize, const TRANSMIT: usize, const RECORD: usize, const CHUNK: usize> Default
    for Socket<RECEIVE, TRANSMIT, RECORD, CHUNK>
{
    fn default() -> Self {
        Self::new()
    }
}

/// Serves on a port, for ever. There is to be one socket more than there are endpoints: a peer whose connection is lost comes
/// back on that one, maybe before anybody here knows of the loss.
///
/// On that one a peer for whose session there is no room is told so, too: with a Close, out of resources. While no socket is
/// left, because somebody is being told or has not begun in time, connections are refused by TCP.
pub async fn serve<
    const SOCKETS: usize,
    const RECEIVE: usize,
    const TRANSMIT: usize,
    const RECORD: usize,
    const CHUNK: usize,
>(
    stack: Stack<'_>,
    port: u16,
    endpoints: &[Endpoint<'_>],
    sockets: &mut [Socket<RECEIVE, TRANSMIT, RECORD, CHUNK>; SOCKETS],
) -> ! {
    // They are pinned and polled here: each future around them is a copy of them on the stack, for as long as the task is polled.
    let mut workers = pin!(workers(stack, port, endpoints, sockets));
    let never = poll_fn(|cx| {
        for endpoint in endpoints {
            let _ = endpoint.poll_parked(cx);
        }
        workers.as_mut().poll(cx).map(|(never, _)| never)
    });
    match never.await {}
}

/// One for each socket. Not within the task, since its stack would keep what this takes.
#[inline(never)]
fn workers<
    const SOCKETS: usize,
    const RECEIVE: usize,
    const TRANSMIT: usize,
    const RECORD: usize,
    const CHUNK: usize,
>(
    stack: Stack<'_>,
    port: u16,
    endpoints: &[Endpoint<'_>],
    sockets: &mut [Socket<RECEIVE, TRANSMIT, RECORD, CHUNK>; SOCKETS],
) -> impl Future<Output = (Infallible, usize)> {
    select_array(sockets.each_mut().map(|socket| async move {
        let Socket { receive, transmit, buffers } = socket;
        let mut socket = TcpSocket::new(stack, receive, transmit);
        socket.set_timeout(Some(LOST));
        // Answers are written whole: there is nothing to wait for.
        socket.set_nagle_enabled(false);
        loop {
            if socket.accept(port).await.is_ok() {
                let (reader, writer) = socket.split();
                let _ = accept_with(endpoints, reader, Eager(writer), buffers.lend()).await;
            }
            hang_up(&mut socket).await;
        }
    }))
}

/// Holds one session with a server: until it is over, whatever becomes of its connections in the meantime. It is an error if
/// no session came about.
pub async fn connect<const RECEIVE: usize, const TRANSMIT: usize, const RECORD: usize, const CHUNK: usize>(
    stack: Stack<'_>,
    server: impl Into<IpEndpoint>,
    endpoint: &Endpoint<'_>,
    socket: &mut Socket<RECEIVE, TRANSMIT, RECORD, CHUNK>,
) -> Result<Ended, NoSession> {
    let server: IpEndpoint = server.into();
    let Socket { receive, transmit, buffers } = socket;
    let mut socket = TcpSocket::new(stack, receive, transmit);
    socket.set_timeout(Some(LOST));
    socket.set_nagle_enabled(false);
    let opening = endpoint.opening();
    let mut pause = PAUSE;
    let mut is_first = true;
    loop {
        let connected = {
            let connecting = pin!(with_timeout(Duration::from_millis(opening.into()), socket.connect(server)));
            let over = poll_fn(|cx| if is_first { Poll::Pending } else { endpoint.poll_parked(cx) });
            match select(connecting, over).await {
                Either::First(connected) => connected.unwrap_or(Err(ConnectError::TimedOut)),
                Either::Second(()) => return Ok(endpoint.ended()),
            }
        };
        match connected {
            Ok(()) => {
                let (reader, writer) = socket.split();
                let start = Instant::now();
                let end = endpoint.connect_with(reader, Eager(writer), buffers.lend(), Some(opening)).await;
                hang_up(&mut socket).await;
                match end {
                    End::Over(ended) => return Ok(ended),
                    End::Refused if is_first => return Err(NoSession::NoPeer),
                    End::Refused | End::Superseded => return Ok(endpoint.ended()),
                    End::Parked => is_first = false,
                }
                if start.elapsed() > LONG_PAUSE {
                    pause = PAUSE;
                }
            }
            Err(error) if is_first => return Err(NoSession::Connect(error)),
            Err(_) => socket.abort(),
        }
        info!("connects again");
        let over = poll_fn(|cx| endpoint.poll_parked(cx));
        if let Either::Second(()) = select(Timer::after(pause), over).await {
            return Ok(endpoint.ended());
        }
        pause = (pause * 2).min(LONG_PAUSE);
    }
}

/// Why a client has no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoSession {
    /// The server could not be reached.
    Connect(ConnectError),
    /// It speaks something else, or nothing.
    NoPeer,
}

/// Says that there is no more, and lets go of the connection.
async fn hang_up(socket: &mut TcpSocket<'_>) {
    socket.close();
    let _ = with_timeout(LINGER, socket.flush()).await;
    socket.abort();
    let _ = with_timeout(LINGER, socket.flush()).await;
}

/// A socket sends what is written by itself. Its `flush` waits until the peer has acknowledged all of it, which nobody here
/// wants to know.
struct Eager<'s>(TcpWriter<'s>);

impl ErrorType for Eager<'_> {
    type Error = <TcpReader<'static> as ErrorType>::Error;
}

impl Write for Eager<'_> {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, Self::Error> {
        Write::write(&mut self.0, bytes).await
    }

    async fn flush(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }
}
