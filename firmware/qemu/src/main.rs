//! farref on a Cortex-M: serves [`farref_device`] on TCP and on a serial line at the same time.
//!
//! All that depends on the board is in `board`.

#![no_std]
#![no_main]

mod board;

use embassy_executor::Spawner;
use embassy_futures::join::join3;
use embassy_net::{Config as NetConfig, Ipv4Address, Ipv4Cidr, Runner, Stack, StackResources, StaticConfigV4};
use embassy_time::Instant;
use farref_device::{Client, Device, DeviceConnection, Hardware, Memory, Served};
use farref_embassy::tcp::{self, Socket};
use farref_embassy::{Config, Endpoint, LineBuffers, LineConfig, Uuid, line_buffer};
use static_cell::{ConstStaticCell, StaticCell};

/// The longest message that is taken.
const MESSAGE: usize = 512;

/// Sessions over TCP. There is a socket more: a peer whose connection is lost comes back before that is known here.
const SESSIONS: usize = 2;
const SOCKETS: usize = SESSIONS + 1;

// What is large is in statics of its own: a future that held it would be moved by way of the stack.
type TcpSocket = Socket<1024, 1024, { MESSAGE + 5 }, 256>;
type Line = LineBuffers<64, { line_buffer(MESSAGE) }>;

#[cortex_m_rt::entry]
fn main() -> ! {
    board::executor::run(|spawner| {
        spawner.spawn(begin(spawner).expect("it is spawned once"));
    })
}

#[embassy_executor::task]
async fn begin(spawner: Spawner) {
    let board::Board { ethernet, serial: (receiver, sender) } = board::start();
    static DEVICE: StaticCell<Device> = StaticCell::new();
    let device: &'static Device = DEVICE.init(Device::new(&Here));

    // Locally administered, as the addresses that nobody has assigned are.
    let config = Config::new(Uuid::from_bytes(*b"farref-firmware\0"), board::random);
    static CONNECTIONS: [StaticCell<DeviceConnection>; SOCKETS] = [const { StaticCell::new() }; SOCKETS];
    static CLIENTS: [StaticCell<Client>; SOCKETS] = [const { StaticCell::new() }; SOCKETS];
    let mut places = CONNECTIONS.iter().zip(&CLIENTS);
    let mut place = || {
        let (connection, client) = places.next().expect("one for the line, the others for TCP");
        let connection: &'static DeviceConnection = connection.init_with(|| DeviceConnection::new(config));
        let client: &'static Client = client.init_with(|| Client::new(device, connection.peer()));
        (connection, client)
    };
    let on_line = place();
    let on_tcp = [place(), place()];

    static RESOURCES: StaticCell<StackResources<SOCKETS>> = StaticCell::new();
    // What QEMU's own network expects.
    let address = NetConfig::ipv4_static(StaticConfigV4 {
        address: Ipv4Cidr::new(Ipv4Address::new(10, 0, 2, 15), 24),
        gateway: Some(Ipv4Address::new(10, 0, 2, 2)),
        dns_servers: Default::default(),
    });
    let mut seed = [0; 8];
    board::random(&mut seed);
    let resources = RESOURCES.init_with(StackResources::new);
    let (stack, runner) = embassy_net::new(ethernet, address, resources, u64::from_le_bytes(seed));

    spawner.spawn(run_network(runner).expect("it is spawned once"));
    spawner.spawn(serve_tcp(stack, on_tcp).expect("it is spawned once"));
    spawner.spawn(serve_line(receiver, sender, on_line).expect("it is spawned once"));
    cortex_m_semihosting::hprintln!("farref on {}", board::NAME);
}

#[embassy_executor::task]
async fn run_network(mut runner: Runner<'static, board::Ethernet>) -> ! {
    runner.run().await
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
async fn serve_line(mut receiver: board::Receiver, mut sender: board::Sender, place: Place) -> ! {
    let (connection, client) = place;
    let mut served = Served::new(client);
    let endpoint = Endpoint::new(connection, &mut served);
    static MEMORY: ConstStaticCell<Line> = ConstStaticCell::new(Line::new());
    let buffers = MEMORY.take();
    let sessions = async {
        loop {
            endpoint.line(&mut receiver, &mut sender, buffers, LineConfig::default()).await;
        }
    };
    embassy_futures::join::join(sessions, client.run()).await.0
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
