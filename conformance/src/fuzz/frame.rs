//! A serial line that brings anything: what is found does not depend on the pieces in which it comes, two frames later the
//! place is found again (FRM-3), and the link and the session behind it stand it (FRM-4).

use farref_core::Uuid;
use farref_core::frame::serial::{CHECK, Decoder, encode, encoded_len};
use farref_core::link::serial::{Config as LinkConfig, Header, SerialLink};
use farref_core::message::Limits;
use farref_core::session::{Config, LinkMode, Micro, Session};

const LONGEST: usize = 300;

/// Ids of the link that the seeds are for.
const ID: u32 = 0x0A0B_0C0D;

/// The first byte tells in how large pieces the line comes.
pub fn frame(bytes: &[u8]) {
    let Some((&size, line)) = bytes.split_first() else { return };
    let found = decode(line, line.len().max(1));
    assert_eq!(decode(line, usize::from(size) % 64 + 1), found);
    for payload in &found {
        assert!(!payload.is_empty() && payload.len() <= LONGEST);
        assert!(decode(&encoded(payload), 1) == [payload.clone()], "what is found can be sent");
    }
    // What came before costs at most the next frame, and nothing once its own end has come.
    let (one, two) = (encoded(b"one"), encoded(b"two"));
    let behind = decode(&[line, &one, &two].concat(), 7);
    assert_eq!(behind.last().map(Vec::as_slice), Some(&b"two"[..]));
    assert!((found.len() + 1..=found.len() + 2).contains(&behind.len()));
    let ended = decode(&[line, &[0], &one, &two].concat(), 7);
    assert!(ended.ends_with(&[b"one".to_vec(), b"two".to_vec()]));

    drive(&found);
    // Few lines have frames whose check is right: the same bytes as payloads.
    drive(&line.split(|&byte| byte == 0xFE).map(<[u8]>::to_vec).collect::<Vec<_>>());
}

fn encoded(payload: &[u8]) -> Vec<u8> {
    let mut line = vec![0; encoded_len(payload.len())];
    let length = encode(&[payload], &mut line).expect("room for the worst case");
    line.truncate(length);
    line
}

fn decode(line: &[u8], size: usize) -> Vec<Vec<u8>> {
    let mut decoder = Decoder::new([0; LONGEST + CHECK]);
    let mut payloads = Vec::new();
    for mut run in line.chunks(size) {
        while let Some(payload) = decoder.next(&mut run) {
            payloads.push(payload.to_vec());
        }
    }
    payloads
}

/// A link and a session that get these payloads: whatever they are, what is sent has the form that it must have.
fn drive(payloads: &[Vec<u8>]) {
    let limits = Limits { max_message: 256, imports: 8, answers: 4, call_bytes: 512, handles: 4, levels: 2 };
    let mut session = Session::<Micro<8, 8, 4, 512, 512>>::new(Config {
        limits,
        exports: 8,
        calls: 4,
        out_bytes: 512,
        store_bytes: 512,
        peer: Uuid::from_bytes([7; 16]),
        incarnation: 1,
        link: LinkMode::Line,
        patience: Some(100),
    });
    let mut link = SerialLink::new(LinkConfig::default(), ID);
    let mut line = [0; SerialLink::frame_len(512)];
    let mut now = 0;
    for payload in payloads {
        now += 7;
        if let Ok(Some(body)) = link.receive(now, payload, &mut session) {
            assert!(payload.ends_with(body) && !body.is_empty());
            let _ = session.handle(body);
        }
        session.advance(now);
        let _ = link.advance(now, &mut session);
        for _ in 0..100 {
            let length = link.transmit(now, &mut session, &mut line).expect("the line takes the longest frame");
            if length == 0 {
                break;
            }
            let frames = decode(&line[..length], 512);
            assert!(frames.len() == 1 && Header::read(&frames[0]).is_ok());
        }
        assert!(link.ended().is_none() || session.ended().is_some());
    }
}
