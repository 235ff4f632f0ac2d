//! The device: sessions over TCP and one on the serial line, all on the same objects.

use embassy_executor::Spawner;
use embassy_futures::join::{join, join3};
use embassy_net::Stack;
use embassy_time::Instant;
use farref_device::{Client, Device, DeviceConnection, DeviceMemory, Hardware, Memory, Served};
use farref_embassy::tcp::{self, Socket};
use farref_embassy::{Config, Endpoint, LineBuffers, LineConfig, line_buffer};
use static_cell::{ConstStaticCell, StaticCell};

use crate::board;

/// The longest message that is taken.
const MESSAGE: usize = 512;

/// Sessions over TCP. There is a socket more: a peer whose connection is lost comes back before that is known here.
const SESSIONS: usize = 2;
pub const SOCKETS: usize = SESSIONS + 1;

// What is large is in statics of its own: a future that held it would be moved by way of the stack.
type TcpSocket = Socket<1024, 1024, { MESSAGE + 5 }, 256>;
type Line = LineBuffers<64, { line_buffer(MESSAGE) }>;

/// Spawns what serves.
pub fn start(spawner: Spawner, stack: Stack<'static>, serial: (board::Receiver, board::Sender), config: Config) {
    static DEVICE: StaticCell<Device> = StaticCell::new();
    let device: &'static Device = DEVICE.init(Device::new(&Here));
    static CONNECTIONS: [ConstStaticCell<DeviceMemory>; SESSIONS + 1] =
        [const { ConstStaticCell::new(DeviceMemory::new()) }; SESSIONS + 1];
    static CLIENTS: [StaticCell<Client>; SESSIONS + 1] = [const { StaticCell::new() }; SESSIONS + 1];
    let mut places = CONNECTIONS.iter().zip(&CLIENTS);
    let mut place = || {
        let (connection, client) = places.next().expect("one for the line, the others for TCP");
        let connection: &'static DeviceConnection = connection.take().connection(config);
        let client: &'static Client = client.init_with(|| Client::new(device, connection.peer()));
        (connection, client)
    };
    spawner.spawn(serve_line(serial, place()).expect("it is spawned once"));
    spawner.spawn(serve_tcp(stack, [place(), place()]).expect("it is spawned once"));
}

type Place = (&'static DeviceConnection, &'static Client);

#[embassy_executor::task]
async fn serve_tcp(stack: Stack<'static>, places: [Place; SESSIONS]) -> ! {
    let [(first, one), (second, other)] = places;
    let (mut to_one, mut to_other) = (Served::new(one), Served::new(other));
    let endpoints = [Endpoint::new(first, &mut to_one), Endpoint::new(second, &mut to_other)];
    static MEMORY: ConstStaticCell<[TcpSocket; SOCKETS]> = ConstStaticCell::new([const { TcpSocket::new() }; SOCKETS]);
    join3(tcp::serve(stack, tcp::PORT, &endpoints, MEMORY.take()), one.run(), other.run()).await.0
}

#[embassy_executor::task]
async fn serve_line(serial: (board::Receiver, board::Sender), place: Place) -> ! {
    let ((mut receiver, mut sender), (connection, client)) = (serial, place);
    let mut served = Served::new(client);
    let endpoint = Endpoint::new(connection, &mut served);
    static MEMORY: ConstStaticCell<Line> = ConstStaticCell::new(Line::new());
    let buffers = MEMORY.take();
    let sessions = async {
        loop {
            endpoint.line(&mut receiver, &mut sender, buffers, LineConfig::default()).await;
        }
    };
    join(sessions, client.run()).await.0
}

/// What the board does for the device.
struct Here;

impl Hardware for Here {
    fn name(&self) -> &'static str {
        board::NAME
    }

    /// There is none in QEMU.
    fn set_led(&self, _on: bool) {}

    /// There is no sensor in QEMU: between 20 and 24 degrees, up and down within a minute.
    fn temperature(&self) -> f32 {
        let step = (Instant::now().as_millis() / 500 % 128) as i32;
        24.0 - (step - 64).abs() as f32 / 16.0
    }

    fn memory(&self) -> Memory {
        board::stack::memory()
    }

    fn reboot(&self) {
        board::reboot()
    }
}
