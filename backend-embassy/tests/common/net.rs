//! Two network stacks on one cable, which loses frames by chance or all of them.

use std::cell::Cell;
use std::rc::Rc;

use embassy_futures::join::join;
use embassy_net::{Config, Ipv4Address, Ipv4Cidr, Stack, StackResources, StaticConfigV4};
use embassy_net_driver_channel::driver::{HardwareAddress, LinkState};
use embassy_net_driver_channel::{self as channel, RxRunner, TxRunner};
use heapless::Vec;

use super::{Random, Tasks};

/// How many frames of a thousand are lost.
pub type Loss = Rc<Cell<u64>>;

/// Below it a whole segment of a small device.
const MTU: usize = 600;

/// The address of the one on this side.
pub fn address(side: usize) -> Ipv4Address {
    Ipv4Address::new(10, 0, 0, side as u8 + 1)
}

/// Two stacks; how many frames are lost can be changed at any time.
pub fn stacks(tasks: &mut Tasks<'_>, seed: u64) -> ([Stack<'static>; 2], Loss) {
    let loss = Loss::default();
    let [(first, mut from_first, to_first), (second, mut from_second, to_second)] = [0, 1].map(|side| {
        // Memory of a device that is never switched off.
        let state = Box::leak(Box::new(channel::State::<MTU, 4, 4>::new()));
        let (runner, device) = channel::new(state, HardwareAddress::Ip);
        let address = Ipv4Cidr::new(address(side), 24);
        let config = Config::ipv4_static(StaticConfigV4 { address, gateway: None, dns_servers: Vec::new() });
        let resources = Box::leak(Box::new(StackResources::<4>::new()));
        let (stack, mut network) = embassy_net::new(device, config, resources, seed * 2 + side as u64);
        tasks.spawn(async move { network.run().await });
        let (state, to, from) = runner.split();
        state.set_link_state(LinkState::Up);
        (stack, from, to)
    });
    let chances = [Random::new(seed), Random::new(seed + 1)];
    let [mut first_chance, mut second_chance] = chances;
    let (mut to_first, mut to_second) = (to_first, to_second);
    let lost = [loss.clone(), loss.clone()];
    tasks.spawn(async move {
        let [forth, back] = lost;
        join(
            carry(&mut from_first, &mut to_second, &forth, &mut first_chance),
            carry(&mut from_second, &mut to_first, &back, &mut second_chance),
        )
        .await;
    });
    ([first, second], loss)
}

/// As a network card does: a frame that finds no room is lost.
async fn carry(from: &mut TxRunner<'_, MTU>, to: &mut RxRunner<'_, MTU>, loss: &Loss, random: &mut Random) {
    loop {
        let frame = from.tx_buf().await;
        if random.below(1000) >= loss.get()
            && let Some(room) = to.try_rx_buf()
        {
            let length = frame.len();
            room[..length].copy_from_slice(frame);
            to.rx_done(length);
        }
        from.tx_done();
    }
}
