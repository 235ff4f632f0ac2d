//! What the conformance suite looks at, over TCP and on the serial line. It takes about 200 KiB of RAM, most of it for calls that
//! are made within calls: more than a board of 64 KiB has.

use embassy_executor::Spawner;
use embassy_net::Stack;
use farref_conformance_device::{FixtureConnection, Fixtures, Holds, MESSAGE, OBJECTS};
use farref_embassy::tcp::{self, Socket};
use farref_embassy::{Config, Endpoint, LineBuffers, LineConfig, line_buffer};
use static_cell::{ConstStaticCell, StaticCell};

use crate::board;

#[cfg(board = "lm3s6965evb")]
compile_error!("the fixtures need more RAM than this board has: build them for the other one");

/// Sessions over TCP: the one before may still be on its way out when the next begins.
const SESSIONS: usize = 2;
pub const SOCKETS: usize = SESSIONS + 2;

type TcpSocket = Socket<2048, 2048, { MESSAGE + 5 }, 256>;
type Line = LineBuffers<64, { line_buffer(MESSAGE) }>;

type Place = (&'static FixtureConnection, &'static Fixtures<'static>);

/// Spawns what serves.
pub fn start(spawner: Spawner, stack: Stack<'static>, serial: (board::Receiver, board::Sender), config: Config) {
    // Sessions end with their connection: a device that keeps them says nothing before its peer does (LNK-4), and the cases
    // want to hear it.
    let config = farref_conformance_device::config(Config { park: None, ..config });
    static CONNECTIONS: [StaticCell<FixtureConnection>; SESSIONS + 1] = [const { StaticCell::new() }; SESSIONS + 1];
    static HOLDS: [ConstStaticCell<Holds<OBJECTS>>; SESSIONS + 1] =
        [const { ConstStaticCell::new(Holds::new()) }; SESSIONS + 1];
    static FIXTURES: [StaticCell<Fixtures<'static>>; SESSIONS + 1] = [const { StaticCell::new() }; SESSIONS + 1];
    let mut places = CONNECTIONS.iter().zip(&HOLDS).zip(&FIXTURES);
    let mut place = || {
        let ((connection, holds), fixtures) = places.next().expect("one for the line, the others for TCP");
        let connection: &'static FixtureConnection = connection.init_with(|| FixtureConnection::new(config));
        let fixtures: &'static Fixtures<'static> =
            fixtures.init_with(|| Fixtures::new(connection.peer(), holds.take()));
        spawner.spawn(run_fixtures(fixtures).expect("there is one for each connection"));
        (connection, fixtures)
    };
    spawner.spawn(serve_line(serial, place()).expect("it is spawned once"));
    spawner.spawn(serve_tcp(stack, [place(), place()]).expect("it is spawned once"));
}

#[embassy_executor::task(pool_size = SESSIONS + 1)]
async fn run_fixtures(fixtures: &'static Fixtures<'static>) -> ! {
    fixtures.run().await
}

#[embassy_executor::task]
async fn serve_tcp(stack: Stack<'static>, places: [Place; SESSIONS]) -> ! {
    let [(first, one), (second, other)] = places;
    let (mut to_one, mut to_other) = (one.service(), other.service());
    let endpoints = [Endpoint::new(first, &mut to_one), Endpoint::new(second, &mut to_other)];
    static MEMORY: ConstStaticCell<[TcpSocket; SOCKETS]> = ConstStaticCell::new([const { TcpSocket::new() }; SOCKETS]);
    tcp::serve(stack, tcp::PORT, &endpoints, MEMORY.take()).await
}

#[embassy_executor::task]
async fn serve_line(serial: (board::Receiver, board::Sender), place: Place) -> ! {
    let ((mut receiver, mut sender), (connection, fixtures)) = (serial, place);
    let mut service = fixtures.service();
    let endpoint = Endpoint::new(connection, &mut service);
    static MEMORY: ConstStaticCell<Line> = ConstStaticCell::new(Line::new());
    let buffers = MEMORY.take();
    loop {
        endpoint.line(&mut receiver, &mut sender, buffers, LineConfig::default()).await;
    }
}
