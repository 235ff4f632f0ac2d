//! farref on a Cortex-M: serves [`farref_device`] on TCP and on a serial line at the same time; or, with the feature
//! `fixtures`, what the conformance suite looks at.
//!
//! All that depends on the board is in `board`.

#![no_std]
#![no_main]

#[cfg_attr(feature = "fixtures", allow(dead_code, reason = "only the device asks for memory and reboots"))]
mod board;
#[cfg_attr(feature = "fixtures", path = "fixtures.rs")]
#[cfg_attr(not(feature = "fixtures"), path = "device.rs")]
mod served;

#[cfg(feature = "defmt")]
use defmt_semihosting as _;
use embassy_executor::Spawner;
use embassy_net::{Config as NetConfig, Ipv4Address, Ipv4Cidr, Runner, StackResources, StaticConfigV4};
use farref_embassy::{Config, Uuid};
use static_cell::StaticCell;

#[cortex_m_rt::entry]
fn main() -> ! {
    board::executor::run(|spawner| {
        spawner.spawn(begin(spawner).expect("it is spawned once"));
    })
}

#[embassy_executor::task]
async fn begin(spawner: Spawner) {
    let board::Board { ethernet, serial } = board::start();
    // What QEMU's own network expects.
    let address = NetConfig::ipv4_static(StaticConfigV4 {
        address: Ipv4Cidr::new(Ipv4Address::new(10, 0, 2, 15), 24),
        gateway: Some(Ipv4Address::new(10, 0, 2, 2)),
        dns_servers: Default::default(),
    });
    let mut seed = [0; 8];
    board::random(&mut seed);
    static RESOURCES: StaticCell<StackResources<{ served::SOCKETS }>> = StaticCell::new();
    let resources = RESOURCES.init_with(StackResources::new);
    let (stack, runner) = embassy_net::new(ethernet, address, resources, u64::from_le_bytes(seed));
    spawner.spawn(run_network(runner).expect("it is spawned once"));
    served::start(spawner, stack, serial, Config::new(Uuid::from_bytes(*b"farref-firmware\0"), board::random));
    cortex_m_semihosting::hprintln!("farref on {}", board::NAME);
}

#[embassy_executor::task]
async fn run_network(mut runner: Runner<'static, board::Ethernet>) -> ! {
    runner.run().await
}
