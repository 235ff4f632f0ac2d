//! What the two programs share: a board with an Ethernet port, an executor, and embassy-net with room for one socket.
//!
//! The board is not there, so that nothing of it is measured; with the feature `run` it is one of QEMU's, so that it can be seen
//! how much stack they use.

#![no_std]

use embassy_executor::{Spawner, raw};
use embassy_net::{Config, Ipv4Address, Ipv4Cidr, Runner, Stack, StackResources, StaticConfigV4};
use static_cell::StaticCell;

#[cfg_attr(not(feature = "run"), path = "nowhere.rs")]
#[cfg_attr(feature = "run", path = "../../qemu/src/board/mod.rs")]
#[cfg_attr(feature = "run", allow(dead_code, unused_imports, reason = "the firmware has more of it"))]
mod board;

pub use board::random;

/// The longest message, and the longest line of text.
pub const MAX_MESSAGE: usize = 256;

/// So much of what has come waits in the network stack.
pub const RECEIVE: usize = 512;

/// And so much of what is to go.
pub const TRANSMIT: usize = 512;

/// The port of both programs.
pub const PORT: u16 = 10_101;

/// What a program does from its start on: it spawns what serves.
#[macro_export]
macro_rules! start {
    ($serve:path) => {
        #[cfg(not(feature = "run"))]
        #[unsafe(no_mangle)]
        extern "C" fn _start() -> ! {
            $crate::run($serve)
        }

        #[cfg(feature = "run")]
        #[cortex_m_rt::entry]
        fn start() -> ! {
            $crate::run($serve)
        }
    };
}

/// Runs the network and what this spawns, for ever.
///
/// Interrupts come between two turns of the tasks only: what is seen of the stack is theirs alone, and the same each time.
pub fn run(serve: fn(Spawner, Stack<'static>)) -> ! {
    cortex_m::interrupt::disable();
    static EXECUTOR: StaticCell<raw::Executor> = StaticCell::new();
    let executor: &'static raw::Executor = EXECUTOR.init(raw::Executor::new(core::ptr::null_mut()));
    begin(executor.spawner(), serve);
    loop {
        // SAFETY: it is polled here only, and `__pender` does not poll it.
        unsafe { executor.poll() };
        // SAFETY: no critical section goes on here.
        unsafe { cortex_m::interrupt::enable() };
        cortex_m::interrupt::disable();
    }
}

/// Apart, so that its part of the stack is free again when the tasks run.
#[inline(never)]
fn begin(spawner: Spawner, serve: fn(Spawner, Stack<'static>)) {
    let board::Board { ethernet, .. } = board::start();
    // What QEMU's own network expects.
    let address = Config::ipv4_static(StaticConfigV4 {
        address: Ipv4Cidr::new(Ipv4Address::new(10, 0, 2, 15), 24),
        gateway: Some(Ipv4Address::new(10, 0, 2, 2)),
        dns_servers: Default::default(),
    });
    let mut seed = [0; 8];
    board::random(&mut seed);
    static RESOURCES: StaticCell<StackResources<1>> = StaticCell::new();
    let resources = RESOURCES.init_with(StackResources::new);
    let (stack, runner) = embassy_net::new(ethernet, address, resources, u64::from_le_bytes(seed));
    spawner.spawn(run_network(runner).expect("it is spawned once"));
    serve(spawner, stack);
}

#[embassy_executor::task]
async fn run_network(mut runner: Runner<'static, board::Ethernet>) -> ! {
    runner.run().await
}
