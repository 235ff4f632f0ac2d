//! farref over tokio sockets: TCP, Unix sockets, TLS; client, server, reconnect.
//!
//! The backend itself is not written yet. What is here is what it will stand on: the session type of all its connections.

/// The one session type of this backend, so that the state machine is compiled once.
pub type HostSession = farref_core::session::Session<farref_core::session::Host>;

#[cfg(test)]
mod tests {
    /// A connection will be `Send + Sync`: the session is what it is made of.
    #[test]
    fn a_session_can_move_between_tasks() {
        fn is_send_and_sync<T: Send + Sync>() {}
        is_send_and_sync::<super::HostSession>();
    }
}
