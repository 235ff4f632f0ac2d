//! Gives back what comes, over TCP and over a serial line.

#![no_std]
#![no_main]

#[allow(dead_code, unused_imports)] // the application uses the rest
mod board;

use embassy_executor::Spawner;
use embassy_net::tcp::TcpSocket;
use embassy_net::{Config, Ipv4Address, Ipv4Cidr, Runner, Stack, StackResources, StaticConfigV4};
use embedded_io_async::{Read, Write};
use static_cell::StaticCell;

#[cortex_m_rt::entry]
fn main() -> ! {
    board::executor::run(|spawner| spawner.spawn(begin(spawner).unwrap()))
}

#[embassy_executor::task]
async fn begin(spawner: Spawner) {
    let board::Board { ethernet, serial } = board::start();
    static RESOURCES: StaticCell<StackResources<3>> = StaticCell::new();
    let config = Config::ipv4_static(StaticConfigV4 {
        address: Ipv4Cidr::new(Ipv4Address::new(10, 0, 2, 15), 24),
        gateway: Some(Ipv4Address::new(10, 0, 2, 2)),
        dns_servers: Default::default(),
    });
    let (stack, runner) = embassy_net::new(ethernet, config, RESOURCES.init(StackResources::new()), 7);
    spawner.spawn(network(runner).unwrap());
    spawner.spawn(tcp(stack).unwrap());
    spawner.spawn(line(serial).unwrap());
    cortex_m_semihosting::hprintln!("{} {}", board::NAME, board::stack::size());
}

#[embassy_executor::task]
async fn network(mut runner: Runner<'static, board::Ethernet>) -> ! {
    runner.run().await
}

#[embassy_executor::task]
async fn tcp(stack: Stack<'static>) {
    let (mut rx, mut tx) = ([0; 1024], [0; 1024]);
    loop {
        let mut socket = TcpSocket::new(stack, &mut rx, &mut tx);
        if socket.accept(10101).await.is_err() {
            continue;
        }
        let mut buf = [0; 256];
        while let Ok(n @ 1..) = socket.read(&mut buf).await {
            if buf[0] == b'!' {
                panic!("asked to {}", board::stack::used());
            }
            if socket.write_all(&buf[..n]).await.is_err() {
                break;
            }
        }
    }
}

#[embassy_executor::task]
async fn line(serial: (board::Receiver, board::Sender)) {
    let (mut rx, mut tx) = serial;
    let mut buf = [0; 64];
    loop {
        let Ok(n) = rx.read(&mut buf).await;
        let Ok(()) = tx.write_all(&buf[..n]).await;
        let Ok(()) = tx.flush().await;
    }
}
