//! What the firmware serves, on whatever board: an LED, a button, a temperature sensor, a store for references, a log, and
//! the system itself.
//!
//! A [`Device`] is what all sessions share; a [`Client`] is what one of them has: its subscriptions, what it has stored, and
//! the calls that take their time. [`Served`] is both as a service, and [`Client::run`] does meanwhile what objects cannot do
//! while they perform: it calls the peer.

#![no_std]
#![forbid(unsafe_code)]

mod button;
mod client;
mod led;
mod log;
mod sensor;
mod served;
mod store;
mod system;

use core::cell::{Cell, RefCell};

use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use embassy_sync::watch::Watch;
use farref_embassy::{Connection, Micro};

pub use client::Client;
use log::Lines;
pub use served::Served;

/// Room for one session: 24 references and 8 calls each way, answers of up to a KiB on their way, and results of 64 bytes.
pub type DeviceConnection = Connection<Micro<24, 24, 8, 1024, 256, false>, 24, 4, 64>;

/// The memory of one.
pub type DeviceMemory = farref_embassy::Memory<Micro<24, 24, 8, 1024, 256, false>, 24, 4, 64>;

/// As many sessions may be told of the button.
pub const CLIENTS: usize = 4;

/// What the board does.
pub trait Hardware {
    /// What it is called.
    fn name(&self) -> &'static str;

    /// Switches the LED.
    fn set_led(&self, on: bool);

    /// The temperature, in degrees Celsius.
    fn temperature(&self) -> f32;

    /// How its memory is used.
    fn memory(&self) -> Memory;

    /// Starts anew. It comes back only if there is nothing that could be started.
    fn reboot(&self);
}

/// How memory is used, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// RAM that is used as long as the program runs.
    pub fixed: usize,
    /// What is left for the stack.
    pub stack: usize,
    /// The most of it that was in use at a time.
    pub stack_used: usize,
}

/// What all sessions share.
pub struct Device {
    hardware: &'static dyn Hardware,
    led: Cell<bool>,
    /// How often the button was pressed.
    presses: Watch<NoopRawMutex, u32, CLIENTS>,
    log: RefCell<Lines>,
    /// What is to be added to the time since the start, in milliseconds, for the time of day.
    clock: Cell<Option<i64>>,
}

impl Device {
    /// On this board.
    pub fn new(hardware: &'static dyn Hardware) -> Self {
        hardware.set_led(false);
        let device = Self {
            hardware,
            led: Cell::new(false),
            presses: Watch::new_with(0),
            log: RefCell::new(Lines::new()),
            clock: Cell::new(None),
        };
        device.note(format_args!("started"));
        device
    }

    /// Writes a line to the log.
    pub fn note(&self, line: core::fmt::Arguments<'_>) {
        self.log.borrow_mut().push(line);
    }

    /// The button was pressed.
    pub fn press(&self) {
        self.presses.sender().send(self.presses() + 1);
    }

    fn presses(&self) -> u32 {
        self.presses.try_get().unwrap_or(0)
    }

    fn set_led(&self, on: bool) {
        self.led.set(on);
        self.hardware.set_led(on);
    }
}
