//! Sessions over lines that lose, change and repeat bytes (SPEC section 16): a serial port, the socket of an emulator's, any
//! stream.

mod carrier;

use std::sync::Arc;
use std::time::Duration;

use farref_core::link::serial::{Config, SerialLink};
use farref_host::{Connection, Directory, Error, Options, Threads};
use tracing::Instrument;

pub(crate) use carrier::{LineCarrier, Wire};

use crate::connect::Patience;
use crate::driver::{OnDrop, Stream};

/// What is known of a line that may lose, change and repeat bytes. Both sides had better say the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineOptions {
    /// How many bits it carries each second, of which a byte takes ten. Frames are sent one by one, each when the one before has
    /// left, so that what is sent last is what is true last. None is for a stream that takes no more than it can carry, such as
    /// the socket of an emulator.
    pub baud: Option<u32>,
    /// The longest message, bytes; of this and [`Options::max_message`] the lower one counts. A message is one frame, and where a
    /// byte of it is changed all of it is sent again: a line that is disturbed often wants short ones.
    pub max_message: u32,
    /// How many messages may be under way, sent and not acknowledged.
    pub window: u16,
    /// How long the peer may acknowledge nothing that it should, until the line counts as lost. With [`Options::resume`] it is
    /// as long as [`Resuming::park`](crate::Resuming) says.
    pub patience: Duration,
}

impl Default for LineOptions {
    /// No baud rate, messages of 1 KiB, 16 of them under way, half a minute of patience.
    fn default() -> Self {
        Self { baud: None, max_message: 1024, window: 16, patience: Duration::from_secs(30) }
    }
}

impl LineOptions {
    /// For a line of so many bits each second.
    pub fn at(baud: u32) -> Self {
        Self { baud: Some(baud), ..Self::default() }
    }

    /// The times of the link follow from how long the longest frame takes.
    fn link(&self, options: &Options) -> Config {
        /// Of a stream whose speed nobody knows.
        const COMMON: u32 = 115_200;
        const ACK_DELAY: u32 = 20;
        /// What it may take to see a frame, and to answer.
        const SLACK: u32 = 100;
        let bits = 10 * SerialLink::frame_len(options.max_message as usize) as u64;
        let frame = 1000 * bits / u64::from(self.baud.unwrap_or(COMMON).max(1));
        let retry = u32::try_from(2 * frame).unwrap_or(u32::MAX).saturating_add(ACK_DELAY + SLACK);
        let patience = options.resume.as_ref().map_or(self.patience, |resuming| resuming.park);
        Config {
            window: self.window,
            ack_delay: ACK_DELAY,
            retry,
            // A disturbance may last for several frames of a side that waits.
            retry_max: retry.saturating_mul(4),
            patience: u64::try_from(patience.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// An error if a session with these options cannot be had on such a line.
    pub(crate) fn check(&self, options: &Options) -> Result<(), Error> {
        const WHY: &str = "a key cannot be checked on a line that may lose bytes (SPEC section 14)";
        match &options.key {
            Some(_) => Err(Error::Io(std::io::ErrorKind::Unsupported, WHY.to_owned())),
            None => Ok(()),
        }
    }

    /// The options of a session on such a line.
    fn limit(&self, options: Options) -> Result<Options, Error> {
        /// For how long silence is borne, if nobody says.
        const SILENCE: Duration = Duration::from_secs(30);
        self.check(&options)?;
        // A line that is unplugged is silent, and is waited for.
        let park = options.resume.as_ref().map(|resuming| resuming.park);
        let patience = match (options.patience, park) {
            (None, None) => SILENCE,
            (None, Some(park)) => SILENCE.max(park),
            (Some(Duration::ZERO), _) => Duration::ZERO,
            (Some(patience), park) => patience.max(park.unwrap_or_default()),
        };
        Ok(Options { max_message: options.max_message.min(self.max_message), patience: Some(patience), ..options })
    }
}

/// Starts a session over any stream that may lose, change and repeat bytes, and waits for the peer, at most as long as
/// [`Options::handshake`] says. Both sides are alike: either may be there first. The session ends with the stream;
/// [`connect_line`] opens another one.
///
/// The peer is a program with this function, a [`Server::serve_line`](crate::Server::serve_line), or a microcontroller:
///
/// ```no_run
/// use farref_tokio::{Directory, LineOptions, Options, Remote, start_line};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// // An emulator that was started with `-serial tcp:127.0.0.1:5555,server=on`.
/// let stream = tokio::net::TcpStream::connect("127.0.0.1:5555").await?;
/// let board = start_line(stream, Directory::new(), Options::default(), LineOptions::default()).await?;
/// board.root().promise_get("led").await?.invoke("set", [true]).await?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::Io`] with [`TimedOut`](std::io::ErrorKind::TimedOut) if nobody answers in time, with what came instead, with
/// [`Unsupported`](std::io::ErrorKind::Unsupported) if there is an [`Options::key`]; [`Error::Ended`] if the session ends before
/// it began.
pub async fn start_line(
    stream: impl Stream,
    directory: Directory,
    options: Options,
    line: LineOptions,
) -> Result<Connection, Error> {
    let options = Options { resume: None, ..options };
    let patience = Patience::new(&options);
    run(Wire::new(stream), directory, options, &line, patience).await
}

/// As [`start_line`], over streams that `open` opens: one now, and with [`Options::resume`] another each time that one ends or
/// fails, as a serial port does when it is unplugged. The session goes on meanwhile: nothing is lost, and calls only take longer.
///
/// # Errors
/// Those of `open`, and as [`start_line`].
pub async fn connect_line<S: Stream, F>(
    open: impl Fn() -> F + Send + Sync + 'static,
    directory: Directory,
    options: Options,
    line: LineOptions,
) -> Result<Connection, Error>
where
    F: Future<Output = Result<S, Error>> + Send + 'static,
{
    let patience = Patience::new(&options);
    let wire = patience.within(Wire::open(open)).await?;
    run(wire, directory, options, &line, patience).await
}

/// A session over a line.
pub(crate) async fn run<S: Stream>(
    mut wire: Wire<S>,
    directory: Directory,
    options: Options,
    line: &LineOptions,
    patience: Patience,
) -> Result<Connection, Error> {
    let threads = Arc::new(Threads::new(options.serving.into()));
    let carrier = LineCarrier::new(directory, options, line, Some(patience), threads)?;
    let connection = carrier.link().connection();
    let carrying = async move {
        let _over = OnDrop(carrier.link().clone());
        carrier.run(&mut wire).await;
    };
    tokio::spawn(carrying.in_current_span());
    connection.ready().await?;
    Ok(connection)
}
