//! Peers that mean no good, or nothing at all: the device goes on serving the next honest one.

use std::sync::Arc;
use std::time::Duration;

use farref_conformance::sim::Random;
use farref_core::codec::Writer;
use farref_core::frame::PREAMBLE;
use farref_core::frame::serial::{Decoder, encode};
use farref_tokio::{Connection, Directory, Ended, LineOptions, Options, Proxy, Remote, start_line};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::device::{calls_work, number, resuming, within};
use crate::qemu::{Guest, line_options};

/// How long an honest peer may have to wait for its session.
const PATIENCE: Duration = Duration::from_secs(60);

async fn honest_one_is_served(guest: &Guest) {
    let connection = within("a session", PATIENCE, guest.connect(Directory::new(), Options::default())).await;
    within("a call", PATIENCE, calls_work(&connection, guest)).await;
    assert_eq!(connection.shutdown().await, Ended::Done);
}

async fn honest_one_is_served_on_the_line(guest: &Guest) {
    let options = Options { handshake: PATIENCE, ..Options::default() };
    let connection = within("a session", PATIENCE, guest.connect_line(Directory::new(), options)).await;
    within("a call", PATIENCE, calls_work(&connection, guest)).await;
    assert_eq!(connection.shutdown().await, Ended::Done);
}

/// A connection to the guest. It may be that nobody listens for a moment.
async fn dial(guest: &Guest) -> TcpStream {
    TcpStream::connect(guest.address()).await.expect("QEMU listens")
}

/// Says this, whatever is answered. It has to be taken from the socket: QEMU as a whole waits for room there, where a wire would
/// lose it.
async fn flood_line(line: &mut UnixStream, bytes: &[u8]) {
    let (mut answers, mut questions) = line.split();
    let mut heard = [0; 4096];
    tokio::select! {
        written = questions.write_all(bytes) => written.expect("the line takes it"),
        () = async { while matches!(answers.read(&mut heard).await, Ok(1..)) {} } => panic!("the line has ended"),
    }
}

fn noise(random: &mut Random, length: usize) -> Vec<u8> {
    (0..length).map(|_| random.below(256) as u8).collect()
}

/// Bytes that mean nothing, alone, behind a preamble, and behind a session that has begun.
pub async fn garbage(guest: Arc<Guest>) {
    let mut random = Random::new(0x6a5b);
    for round in 0..24u8 {
        let mut bytes = match round % 4 {
            0 => Vec::new(),
            1 => PREAMBLE.to_vec(),
            2 => begin(&mut random, false),
            _ => begin(&mut random, true),
        };
        bytes.extend(noise(&mut random, 100_000));
        let mut socket = dial(&guest).await;
        // It hangs up as soon as it has seen enough.
        let _ = tokio::time::timeout(Duration::from_secs(2), socket.write_all(&bytes)).await;
    }
    honest_one_is_served(&guest).await;

    let mut line = guest.line().await;
    for _ in 0..8 {
        flood_line(&mut line, &noise(&mut random, 8_000)).await;
        // Much of it looks like frames.
        let zeros: Vec<u8> = noise(&mut random, 8_000).into_iter().map(|byte| byte & 7).collect();
        flood_line(&mut line, &zeros).await;
    }
    drop(line);
    honest_one_is_served_on_the_line(&guest).await;
    honest_one_is_served(&guest).await;
}

/// Messages that are as they should be, as many as the network takes, and nothing of the answers is read.
pub async fn frames(guest: Arc<Guest>) {
    let mut random = Random::new(0xf1);
    let mut flooder = dial(&guest).await;
    flooder.write_all(&begin(&mut random, false)).await.expect("it listens");
    /// Pings, and messages of kinds that later versions may have.
    const FLOOD: [[u8; 2]; 3] = [[1, 19], [1, 25], [1, 13]];
    let flooding = tokio::spawn(async move {
        let chunk: Vec<u8> = FLOOD.iter().cycle().take(4_000).flatten().copied().collect();
        let mut written = 0;
        while flooder.write_all(&chunk).await.is_ok() {
            written += chunk.len();
        }
        written
    });
    // Somebody else is served meanwhile.
    for _ in 0..5 {
        honest_one_is_served(&guest).await;
    }
    flooding.abort();

    // One that reads its answers gets all of them.
    let connection = guest.connect(Directory::new(), Options::default()).await;
    let button = Proxy::try_from(connection.root().get("button").await.expect("it is there")).expect("an object");
    for result in button.invoke_many("press", (0..3000).map(|_| ())).await {
        number(result);
    }
    assert_eq!(number(button.get("presses").await), 3000);
    drop(button);

    // On the line: frames for somebody else, and those that say Hello for ever.
    let mut line = guest.line().await;
    let (other, hello) = (frame(0, 0xdead_beef, &[], &[]), line_hello(&mut random, 0));
    let chunk: Vec<u8> = [other, hello].concat().repeat(8);
    for _ in 0..60 {
        flood_line(&mut line, &chunk).await;
    }
    drop(line);
    honest_one_is_served_on_the_line(&guest).await;
    honest_one_is_served(&guest).await;
}

/// A thousand sessions are begun and left: some by hanging up, some before the device has answered.
pub async fn abandoned(guest: Arc<Guest>) {
    let mut random = Random::new(0xaba);
    let mut begun = 0;
    while begun < 1000 {
        let mut socket = dial(&guest).await;
        let first = begin(&mut random, begun % 2 == 0);
        if socket.write_all(&first).await.is_err() {
            continue;
        }
        let mut answer = [0; 16];
        match begun % 4 {
            // Not even waited for.
            3 => begun += 1,
            // It may have no socket free at that moment, and resets the connection.
            _ => {
                let read = tokio::time::timeout(Duration::from_secs(5), socket.read_exact(&mut answer)).await;
                if matches!(read, Ok(Ok(_))) {
                    assert_eq!(answer[..8], PREAMBLE);
                    begun += 1;
                }
            }
        }
    }
    honest_one_is_served(&guest).await;
    // And one that goes on with its session has a place too.
    let connection = within("a session", PATIENCE, guest.connect(Directory::new(), resuming())).await;
    within("a call", PATIENCE, calls_work(&connection, &guest)).await;
}

/// The same on the line, where each Hello tells that the one before is no more (LNK-22).
pub async fn abandoned_on_line(guest: Arc<Guest>) {
    let mut random = Random::new(0xa11);
    let mut line = guest.line().await;
    let mut decoder = Decoder::new([0; 1024]);
    let mut last = 0;
    for _ in 0..1000 {
        let device = hear_hello(&mut line, &mut decoder, &mut random, last).await;
        assert_ne!(device, last, "each session has an id of its own");
        last = device;
        line.write_all(&line_hello(&mut random, device)).await.expect("the line takes it");
    }
    drop(line);
    honest_one_is_served_on_the_line(&guest).await;

    // Some that were real ones.
    for _ in 0..20 {
        let connection: Connection = {
            let options = Options { handshake: PATIENCE, ..Options::default() };
            let line: LineOptions = line_options();
            start_line(guest.line().await, Directory::new(), options, line).await.expect("it is there")
        };
        number(connection.root().promise_get("button").await.expect("it is asked for").invoke("press", ()).await);
    }
    honest_one_is_served_on_the_line(&guest).await;
}

/// Waits for the Hello of a session that is not the last one, which ends with ours.
async fn hear_hello(line: &mut UnixStream, decoder: &mut Decoder<[u8; 1024]>, random: &mut Random, last: u32) -> u32 {
    line.write_all(&line_hello(random, 0)).await.expect("the line takes it");
    loop {
        let mut chunk = [0; 512];
        let Ok(read) = tokio::time::timeout(Duration::from_secs(1), line.read(&mut chunk)).await else {
            line.write_all(&line_hello(random, 0)).await.expect("the line takes it");
            continue;
        };
        let count = read.expect("the line is there");
        assert!(count > 0, "the line is there");
        let mut run = &chunk[..count];
        let mut device = None;
        while let Some(payload) = decoder.next(&mut run) {
            // head, to, ack, from
            if let ([2, ..], Some(from)) = (payload, payload.get(7..11)) {
                device = Some(u32::from_le_bytes(from.try_into().expect("four bytes"))).filter(|&id| id != last);
            }
        }
        if let Some(device) = device {
            return device;
        }
    }
}

/// A preamble and a Hello, which may offer to resume the session.
fn begin(random: &mut Random, with_link: bool) -> Vec<u8> {
    let hello = hello(random, with_link);
    let mut bytes = PREAMBLE.to_vec();
    bytes.push(u8::try_from(hello.len()).expect("it is short"));
    bytes.extend(hello);
    bytes
}

fn hello(random: &mut Random, with_link: bool) -> Vec<u8> {
    let mut buffer = [0; 128];
    let mut writer = Writer::new(&mut buffer);
    writer.byte(16);
    // Both versions; the features; max_message, imports, answers, call_bytes, handles, levels.
    [1, 1, u64::from(with_link), 512, 16, 8, 1024, 8, 4].into_iter().for_each(|field| writer.varint(field));
    writer.put(&noise(random, 16));
    writer.varint(random.below(u64::MAX));
    if with_link {
        writer.put(&noise(random, 16));
        [1024, 60_000].into_iter().for_each(|field| writer.varint(field));
    }
    writer.written().expect("it fits").to_vec()
}

/// A Hello on the line, from somebody new.
pub fn line_hello(random: &mut Random, to: u32) -> Vec<u8> {
    let from = 1 + random.below(u64::from(u32::MAX) - 1) as u32;
    frame(2, to, &from.to_le_bytes(), &hello(random, false))
}

fn frame(head: u8, to: u32, from: &[u8], body: &[u8]) -> Vec<u8> {
    let mut line = [0; 512];
    let length = encode(&[&[head], &to.to_le_bytes(), &[0, 0], from, body], &mut line).expect("it fits");
    line[..length].to_vec()
}
