//! A TCP proxy that delays what goes through it, each direction by the same time, and changes nothing else: neither the
//! order nor how much may be under way.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::Result;

/// Starts a proxy to that address and tells its own. It takes one connection, and ends with it.
pub fn proxy(to: SocketAddr, delay: Duration) -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    thread::spawn(move || -> std::io::Result<()> {
        let (client, _) = listener.accept()?;
        let server = TcpStream::connect(to)?;
        for stream in [&client, &server] {
            stream.set_nodelay(true)?;
        }
        carry(client.try_clone()?, server.try_clone()?, delay);
        carry(server, client, delay);
        Ok(())
    });
    Ok(address)
}

/// One direction: a thread that reads and notes when, and one that writes when it is time. Threads of their own, since a
/// thread sleeps to within some ten microseconds and tokio's timer to within a millisecond.
fn carry(mut from: TcpStream, mut to: TcpStream, delay: Duration) {
    let (sender, receiver) = mpsc::channel::<(Instant, Vec<u8>)>();
    thread::spawn(move || {
        let mut buffer = vec![0; 256 << 10];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if sender.send((Instant::now() + delay, buffer[..count].to_vec())).is_err() {
                return;
            }
        }
    });
    thread::spawn(move || {
        for (due, bytes) in receiver {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                return;
            }
        }
        // The end of the stream, delayed like everything before it. The other side may have gone already.
        let _ = to.shutdown(Shutdown::Write);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_arrive_late_and_in_order_and_do_not_wait_for_each_other() {
        let delay = Duration::from_millis(30);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = proxy(listener.local_addr().unwrap(), delay).unwrap();
        let start = Instant::now();
        let mut client = TcpStream::connect(address).unwrap();
        let sent: Vec<u8> = (0..2_000_000u32).map(|number| (number % 251) as u8).collect();
        let echo = thread::spawn(move || {
            let (mut server, _) = listener.accept().unwrap();
            let mut received = Vec::new();
            server.read_to_end(&mut received).unwrap();
            server.write_all(&received).unwrap();
        });
        let mut writer = client.try_clone().unwrap();
        let bytes = sent.clone();
        let write = thread::spawn(move || {
            // Many pieces: each is delayed, and all of them at the same time.
            bytes.chunks(10_000).for_each(|piece| writer.write_all(piece).unwrap());
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut received = Vec::new();
        client.read_to_end(&mut received).unwrap();
        write.join().unwrap();
        echo.join().unwrap();
        assert!(received == sent);
        assert!(start.elapsed() >= 2 * delay);
        assert!(start.elapsed() < 100 * delay, "200 pieces one after the other would take 400 delays");
    }
}
