//! The cases by calls on objects.

pub mod objects;
pub mod pipe;
pub mod sockets;
