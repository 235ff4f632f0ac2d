//! farref on microcontrollers: embassy-net TCP and any `embedded-io-async` stream; no heap.
//!
//! The backend itself is not written yet. What is here is what it will stand on: the session type of a small device.

#![no_std]

use farref_core::session::{Micro, Session};

/// A session of 16 slots for references and 8 calls each way, for messages of 256 bytes: one type for all sessions of a device, so
/// that the state machine is in flash once. It keeps no values for calls that build on them, which would take half as much flash
/// again; references it keeps.
pub type DeviceSession = Session<Micro<16, 16, 8, 512, 320, false>>;

#[cfg(test)]
mod tests {
    /// Tables, output and waiting calls, all of it: with pointers of 8 bytes, deadlines, a link and a clock.
    #[test]
    fn a_device_session_is_small() {
        let size = core::mem::size_of::<super::DeviceSession>();
        assert!(size <= 3352, "{size} bytes on this machine");
    }
}
