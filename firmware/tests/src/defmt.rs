//! What the device tells by defmt.

use std::sync::Arc;
use std::time::Duration;

use farref_tokio::{Directory, Remote};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::cut::Cutter;
use crate::device::resuming;
use crate::qemu::Guest;

/// Somebody who speaks no farref comes, and then a session that loses a connection and goes on over another one.
pub async fn sessions(guest: Arc<Guest>) {
    let mut stranger = TcpStream::connect(guest.address()).await.expect("it listens");
    stranger.write_all(b"GET / HTTP/1.0\r\n\r\n").await.expect("it reads");
    stranger.shutdown().await.expect("it is still there");
    let _ = stranger.read_to_end(&mut Vec::new()).await;
    told(&guest, &["no farref peer"]).await;

    let cutter = Cutter::new(guest.address()).await;
    let connection = guest.connect_at(cutter.address, Directory::new(), resuming()).await;
    let led = connection.root().promise_get("led").await.expect("there is one");
    led.invoke("set", [true]).await.expect("it can be switched");
    cutter.cut();
    led.invoke("set", [false]).await.expect("it goes on");
    drop((led, connection));
    told(&guest, &["no farref peer", "session begins", "session resumed", "session over: "]).await;
}

/// Waits until these are the beginnings of what was told. Whether a loss is noticed before the peer is back is not in our hands.
async fn told(guest: &Guest, expected: &[&str]) {
    loop {
        let told = guest.told().await;
        let told: Vec<_> = told.iter().filter(|line| *line != "connection lost, session parked").collect();
        assert!(told.iter().zip(expected).all(|(line, expected)| line.starts_with(expected)), "{told:?}");
        if told.len() >= expected.len() {
            return assert_eq!(told.len(), expected.len(), "{told:?}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
