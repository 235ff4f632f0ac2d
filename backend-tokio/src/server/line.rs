//! One session after the other over a line: whoever is at its other end, for as long as the server is there.

use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use farref_host::{CloseCode, Error, Resuming};
use tokio::sync::watch;
use tracing::Instrument;

use super::{Inner, Open, Peer, Place, Server};
use crate::driver::{OnDrop, Stream};
use crate::line::{LineCarrier, LineOptions, Wire};

impl Server {
    /// Serves whoever is at the other end of a line that may lose, change and repeat bytes, until it ends: when one session is
    /// over, or its peer has started again, the next one may begin. `peer` is what is known of who that is.
    ///
    /// # Errors
    /// [`Error::Io`] with [`Unsupported`](std::io::ErrorKind::Unsupported) if the server wants a key.
    pub fn serve_line(&self, stream: impl Stream, peer: Peer, line: LineOptions) -> Result<(), Error> {
        self.serve_wire(Wire::new(stream), peer, line)
    }

    /// As [`Self::serve_line`], over lines that `open` opens: one now, and another one each time that one ends or fails. With
    /// [`Options::resume`](crate::Options::resume) the session that was there goes on, if that takes no longer than it says.
    ///
    /// # Errors
    /// Those of `open`, and as [`Self::serve_line`].
    pub async fn listen_line<S: Stream, F>(
        &self,
        open: impl Fn() -> F + Send + Sync + 'static,
        peer: Peer,
        line: LineOptions,
    ) -> Result<(), Error>
    where
        F: Future<Output = Result<S, Error>> + Send + 'static,
    {
        self.serve_wire(Wire::open(open).await?, peer, line)
    }

    /// Serves whoever is at the other end of a serial port: see [`connect_serial`](crate::connect_serial). When it is unplugged,
    /// it is opened again as soon as it is there.
    ///
    /// # Errors
    /// As [`connect_serial`](crate::connect_serial), but nobody is waited for.
    #[cfg(feature = "serial")]
    pub async fn listen_serial(&self, path: impl Into<String>, line: LineOptions) -> Result<(), Error> {
        let (path, line) = (path.into(), crate::port::with_speed(line));
        let wire = crate::port::wire(path.clone(), &line).await?;
        self.serve_wire(wire, Peer::named(path), line)
    }

    fn serve_wire<S: Stream>(&self, wire: Wire<S>, peer: Peer, line: LineOptions) -> Result<(), Error> {
        line.check(&self.0.options.connection)?;
        let span = tracing::info_span!("line", peer = %peer);
        let serving = Serving { server: self.clone(), leaving: self.0.leaving.subscribe(), wire, peer, line };
        drop(tokio::spawn(serving.run().instrument(span)));
        Ok(())
    }
}

/// A line that is served.
struct Serving<S> {
    server: Server,
    leaving: watch::Receiver<bool>,
    wire: Wire<S>,
    peer: Peer,
    line: LineOptions,
}

impl<S: Stream> Serving<S> {
    async fn run(mut self) {
        /// Between two sessions of which the first one was none: what is wrong may go on being so.
        const PAUSE: Duration = Duration::from_millis(100);
        loop {
            let was_one = self.serve().await;
            let mut leaving = self.leaving.clone();
            let next = async {
                if self.wire.is_lost() {
                    return self.open_again().await;
                }
                if !was_one {
                    tokio::time::sleep(PAUSE).await;
                }
                Ok(())
            };
            tokio::select! {
                biased;
                _ = leaving.wait_for(|is_leaving| *is_leaving) => return,
                next = next => if next.is_err() {
                    return tracing::info!("the line has ended");
                },
            }
        }
    }

    async fn open_again(&mut self) -> Result<(), ()> {
        let attempts = AtomicU32::new(0);
        let next = || attempts.fetch_add(1, Ordering::Relaxed) + 1;
        self.wire.open_again(&Resuming::default(), next, |_| {}).await
    }

    /// One session, from before there is a peer; false if there was none.
    async fn serve(&mut self) -> bool {
        let Inner { directory, options, threads, .. } = &*self.server.0;
        let connection = options.connection.clone();
        let carrier = LineCarrier::new(directory.clone(), connection, &self.line, None, threads.clone());
        let Ok(carrier) = carrier else { return false };
        let (link, tasks) = (carrier.link().clone(), carrier.tasks().clone());
        let _over = OnDrop(link.clone());
        let connection = link.connection();
        let mut running = pin!(carrier.run(&mut self.wire));
        let ready = tokio::select! {
            biased;
            ready = connection.ready() => ready,
            () = &mut running => return false,
            _ = self.leaving.wait_for(|is_leaving| *is_leaving) => return false,
        };
        let mut place = Place::on_line(&self.server);
        let is_admitted = match ready {
            Err(error) => {
                tracing::info!(%error, "no session");
                place.has_failed = true;
                false
            }
            Ok(()) if !(options.validator.0)(&self.peer) => {
                tracing::info!("not admitted");
                place.turn_away(&link, CloseCode::NotAllowed);
                false
            }
            Ok(()) => {
                let (connection, peer) = (connection.clone(), self.peer.clone());
                let is_admitted = place.admit(Open { link: link.clone(), connection, tasks, peer, token: None });
                if !is_admitted {
                    tracing::warn!("too many connections");
                    place.turn_away(&link, CloseCode::OutOfResources);
                }
                is_admitted
            }
        };
        drop(connection);
        running.await;
        tracing::debug!("is over");
        is_admitted
    }
}

impl Place {
    /// That of a session on a line: it never was among those that have not said Hello, since a line is there once and waits.
    fn on_line(server: &Server) -> Self {
        let mut state = server.state();
        state.counters.accepted += 1;
        let id = state.next;
        state.next += 1;
        drop(state);
        Self { server: server.clone(), id, is_on_line: true, has_failed: false }
    }
}
