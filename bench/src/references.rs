//! What held references take: memory, not time.

use std::fmt;
use std::rc::Rc;

use tokio::net::TcpStream;

use crate::Result;
use crate::cases::{Case, Kind, REFERENCE_BAR, REFERENCES, Transport, name};
use crate::contest::{Verdict, runtime};
use crate::counts::LiveBytes;
use crate::farref::sockets::Client;
use crate::server::Server;

/// Live bytes for each reference.
pub struct Held {
    client: f64,
    server: f64,
}

/// Holds [`REFERENCES`] over one TCP session. Each is to an object of its own, which is as small as objects are; all that it
/// takes to hold them counts, the objects and the list of the proxies included.
pub fn measure() -> Result<Held> {
    let mut server = Server::start(Kind::Farref, Transport::Tcp)?;
    let runtime = Rc::new(runtime()?);
    let stream = runtime.block_on(TcpStream::connect(&server.address))?;
    let client = Client::open(runtime, stream, Case::Refs100k)?;
    server.begin_live()?;
    let live = LiveBytes::begin();
    let held = client.hold(REFERENCES)?;
    let bytes = [live.end()?, server.end_live()?];
    let [client, server] = bytes.map(|bytes| bytes as f64 / REFERENCES as f64);
    drop(held);
    Ok(Held { client, server })
}

impl Held {
    /// How the bar went in the process where more is live.
    pub fn verdict(&self) -> Verdict {
        let what = format!("{} {}, bytes", name(Transport::Tcp), name(Case::Refs100k));
        Verdict::at_most(what, self.client.max(self.server), REFERENCE_BAR)
    }
}

impl fmt::Display for Held {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { client, server } = self;
        write!(
            out,
            "{REFERENCES} references held: {client:.1} live bytes each in the client, {server:.1} in the server"
        )
    }
}
