//! The key check (SPEC section 14): both roles against each other, against vectors, and against what is no peer.

#![cfg(feature = "key")]

use std::fs;
use std::path::Path;

use farref_core::frame::{BANNER_LIMIT, PREAMBLE, PreambleScanner, Scan};
use farref_core::key::{BadKey, Failure, Key, KeyCheck, Progress, Refusal, Role};
use proptest::prelude::*;
use serde_json::Value as Json;

const CONNECTING: [u8; 32] = [0xC0; 32];
const ACCEPTING: [u8; 32] = [0xA0; 32];
/// Bytes of a message with a nonce or a proof.
const MESSAGE: usize = 42;

/// KEY-1 to KEY-7: byte by byte, in pieces of any size.
#[test]
fn vectors() {
    for entry in load("key.json") {
        let name = &entry["name"];
        if let Some(text) = entry["text"].as_str() {
            assert_eq!(Key::from_text(text).is_err(), entry["refuse"] == true, "{name}");
            if let Some(digits) = entry["key"].as_str() {
                let (by_text, by_bytes) = (Key::from_text(text).unwrap(), Key::new(&hex(digits)).unwrap());
                assert_eq!(converse(&by_text, &by_bytes), (Progress::Passed, Progress::Passed), "{name}");
            }
            continue;
        }
        let key = Key::new(&hex(entry["key"].as_str().unwrap())).unwrap();
        let nonce = hex(entry["nonce"].as_str().unwrap()).try_into().unwrap();
        let role = if entry["role"] == "connecting" { Role::Connecting } else { Role::Accepting };
        let banner = entry["banner"].as_u64().unwrap_or(0) as usize;
        let receive = hex(entry["receive"].as_str().unwrap());
        for size in 1..=receive.len() + 1 {
            let mut check = KeyCheck::new(role, &key, nonce, banner);
            let mut used = 0;
            for piece in receive.chunks(size) {
                used += check.handle(piece).0;
            }
            assert_eq!(to_hex(check.transmit()), entry["send"].as_str().unwrap(), "{name}, pieces of {size}");
            assert_eq!(end(check.progress()), (entry["end"].as_str().unwrap(), entry["reason"].as_u64()), "{name}");
            if check.progress() == Progress::Passed {
                let rest = entry["rest"].as_str().unwrap_or_default();
                assert_eq!(to_hex(&receive[used..]), rest, "{name}, pieces of {size}");
            }
        }
    }
}

fn end(progress: Progress) -> (&'static str, Option<u64>) {
    let end = match progress {
        Progress::Going => "going",
        Progress::Passed => "passed",
        Progress::Failed(Failure::WrongKey) => "wrong key",
        Progress::Failed(Failure::NoKey) => "no key",
        Progress::Failed(Failure::Version(_)) => "version",
        Progress::Failed(Failure::SameRole) => "same role",
        Progress::Failed(Failure::OutOfOrder) => "out of order",
        Progress::Failed(Failure::NoPeer) => "no peer",
        Progress::Failed(Failure::Refused(refusal)) => {
            let reason = match refusal {
                Refusal::KeyWanted => 1,
                Refusal::WrongKey => 2,
                Refusal::Version => 3,
                Refusal::OutOfOrder => 4,
                Refusal::Other(number) => number.into(),
                other => panic!("{other:?}"),
            };
            return ("refused", Some(reason));
        }
        other => panic!("{other:?}"),
    };
    (end, None)
}

/// KEY-3: whoever connects proves first. The side that accepts sends nothing but random bytes before it has seen a proof.
#[test]
fn a_stranger_gets_nothing_that_depends_on_the_key() {
    let sent_by_server = |key: &Key| {
        let (mut client, mut server) = (client(&other_key()), server(key));
        pass_on(&mut client, &mut server);
        let challenge = server.transmit().to_vec();
        pass_on(&mut server, &mut client);
        pass_on(&mut client, &mut server);
        assert_eq!(server.progress(), Progress::Failed(Failure::WrongKey));
        [challenge, server.transmit().to_vec()].concat()
    };
    assert_eq!(sent_by_server(&key()), sent_by_server(&Key::new(&[9; 16]).unwrap()));
}

/// KEY-4, KEY-6: each side says what went wrong, and whose key it was.
#[test]
fn a_wrong_key_is_told_to_both() {
    let (client, server) = converse(&key(), &other_key());
    assert_eq!(server, Progress::Failed(Failure::WrongKey));
    assert_eq!(client, Progress::Failed(Failure::Refused(Refusal::WrongKey)));
    assert_eq!(Failure::Refused(Refusal::WrongKey).to_string(), "wrong key: the peer refused it");
}

/// KEY-4: a server that accepts any proof does not get through either.
#[test]
fn a_server_without_the_key_is_found_out() {
    let mut client = client(&key());
    let mut server = server(&other_key());
    pass_on(&mut client, &mut server);
    pass_on(&mut server, &mut client);
    // What an impostor could say: the head of Accept and anything.
    let accept = [&b"\xFFfarkey\n\x01\x04"[..], &[0; 32]].concat();
    assert_eq!(client.handle(&accept), (MESSAGE, Progress::Failed(Failure::WrongKey)));
}

/// KEY-4: one who connects here to hear a proof gets none that helps to connect elsewhere: proofs of one role are no proofs
/// of the other, even for the same nonces.
#[test]
fn a_proof_of_one_role_is_none_of_the_other() {
    let (mut client, mut server) = (client(&key()), server(&key()));
    pass_on(&mut client, &mut server);
    pass_on(&mut server, &mut client);
    let mut reflected = client.transmit().to_vec();
    reflected[9] = 4;
    assert_eq!(client.handle(&reflected), (MESSAGE, Progress::Failed(Failure::WrongKey)));
}

/// KEY-3, KEY-4: what was heard once opens nothing: the next challenge is another.
#[test]
fn a_recorded_client_does_not_get_in() {
    let (mut client, mut server) = (client(&key()), server(&key()));
    let mut recorded = client.transmit().to_vec();
    pass_on(&mut client, &mut server);
    pass_on(&mut server, &mut client);
    recorded.extend(client.transmit());
    pass_on(&mut client, &mut server);
    assert_eq!(server.progress(), Progress::Passed);

    let mut next = KeyCheck::new(Role::Accepting, &key(), [0xA1; 32], 0);
    assert_eq!(next.handle(&recorded).1, Progress::Failed(Failure::WrongKey));
    let mut same_nonce = KeyCheck::new(Role::Accepting, &key(), ACCEPTING, 0);
    assert_eq!(same_nonce.handle(&recorded).1, Progress::Passed, "only the nonce kept it out");
}

/// KEY-6: any changed bit of any message keeps the two apart, and neither fails to notice unless it is the last to hear.
#[test]
fn a_changed_bit_is_noticed() {
    for (message, bit) in (0..4).flat_map(|message| (0..8 * MESSAGE).map(move |bit| (message, bit))) {
        let (mut client, mut server) = (client(&key()), server(&key()));
        for turn in 0..4 {
            let (from, to) = if turn % 2 == 0 { (&mut client, &mut server) } else { (&mut server, &mut client) };
            let mut bytes = from.transmit().to_vec();
            from.transmitted(bytes.len());
            if turn == message && bytes.len() == MESSAGE {
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
            to.handle(&bytes);
        }
        assert_ne!(client.progress(), Progress::Passed, "bit {bit} of message {message}");
        // The side that accepts has passed once the proof was right.
        assert_eq!(server.progress() == Progress::Passed, message == 3, "bit {bit} of message {message}");
    }
}

/// KEY-2, KEY-7: a peer without a key is told that one is wanted, in bytes that its scanner recognises.
#[test]
fn a_peer_without_a_key_learns_that_one_is_wanted() {
    let mut server = server(&key());
    assert_eq!(server.handle(&PREAMBLE), (8, Progress::Failed(Failure::NoKey)));
    let mut scanner = PreambleScanner::default();
    assert_eq!(scanner.scan(server.transmit()), Scan::NoPeer);
    assert!(scanner.wants_key());

    // And the other way round: whoever has a key does not go on with a peer that asks for none.
    let mut client = client(&key());
    assert_eq!(client.handle(&PREAMBLE).1, Progress::Failed(Failure::NoKey));
    client.transmitted(MESSAGE);
    assert_eq!(client.transmit(), b"", "no proof for it");
}

/// KEY-6: what the end of the stream means depends on what came before.
#[test]
fn the_end_of_the_stream_is_told() {
    let mut check = client(&key());
    assert_eq!(check.cut(), Failure::NoPeer);
    check.handle(b"\xFFfarkey\n");
    assert_eq!(check.cut(), Failure::Cut);
    let mut check = server(&key());
    pass_on(&mut client(&key()), &mut check);
    assert_eq!(check.cut(), Failure::Cut);
    check.handle(b"x");
    assert_eq!(check.cut(), Failure::OutOfOrder);
}

/// KEY-2: on a line, what a boot loader wrote is dropped, up to the limit of FRM-1.
#[test]
fn a_banner_may_stand_before_a_check() {
    let banner = [b'.'; BANNER_LIMIT];
    let mut server = KeyCheck::new(Role::Accepting, &key(), ACCEPTING, BANNER_LIMIT);
    assert_eq!(server.handle(&banner), (BANNER_LIMIT, Progress::Going));
    pass_on(&mut client(&key()), &mut server);
    assert_eq!(server.transmit().len(), MESSAGE);
    let mut server = KeyCheck::new(Role::Accepting, &key(), ACCEPTING, BANNER_LIMIT);
    server.handle(&banner);
    assert_eq!(server.handle(b".."), (1, Progress::Failed(Failure::NoPeer)));
    assert_eq!(server.transmit(), b"", "nothing is said to what is no peer");
}

/// KEY-1: too short, too long, not what a key file holds; and nothing shows the key.
#[test]
fn keys() {
    assert_eq!(Key::new(&[7; 15]).err(), Some(BadKey::TooShort));
    assert_eq!(Key::new(&[7; 65]).err(), Some(BadKey::TooLong));
    assert_eq!(Key::from_text("").err(), Some(BadKey::TooShort));
    assert_eq!(Key::from_text(" 0123x").err(), Some(BadKey::NotHex(4)));
    assert_eq!(Key::from_text("012").err(), Some(BadKey::OddDigits));
    assert_eq!(Key::from_text(&"ab".repeat(65)).err(), Some(BadKey::TooLong));
    assert_eq!(BadKey::NotHex(4).to_string(), "the key is not hexadecimal: character 5 is no digit");
    assert_eq!(format!("{:?}", Key::new(&[7; 32]).unwrap()), "Key(…)");
    assert!(!format!("{:?}", client(&Key::new(&[7; 32]).unwrap())).contains("7, 7"));
}

proptest! {
    /// KEY-6: whatever comes, in whatever pieces, nothing panics, nothing passes, and what is sent is bounded.
    #[test]
    fn garbage_does_not_pass(
        pieces in prop::collection::vec(prop_oneof![
            prop::collection::vec(any::<u8>(), 0..60),
            (0u8..7, 0u8..3, prop::collection::vec(any::<u8>(), 0..40)).prop_map(|(kind, version, body)| {
                [&b"\xFFfarkey\n"[..], &[version, kind], &body].concat()
            }),
            (1u8..5).prop_map(|kind| [&b"\xFFfarkey\n\x01"[..], &[kind], &[0x55; 32]].concat()),
            Just(b"\xFFfar".to_vec()),
            Just(PREAMBLE.to_vec()),
        ], 0..8),
        connecting: bool,
        banner in 0usize..100,
    ) {
        let role = if connecting { Role::Connecting } else { Role::Accepting };
        let mut check = KeyCheck::new(role, &key(), CONNECTING, banner);
        for piece in &pieces {
            let (used, progress) = check.handle(piece);
            prop_assert!(used <= piece.len());
            prop_assert!(progress != Progress::Passed);
            prop_assert!(progress != Progress::Going || used == piece.len());
        }
        prop_assert!(check.transmit().len() <= 2 * MESSAGE);
        check.transmitted(usize::MAX);
        prop_assert_eq!(check.transmit(), b"");
    }
}

fn key() -> Key {
    Key::new(&[0x4B; 32]).unwrap()
}

fn other_key() -> Key {
    Key::new(&[0x4C; 32]).unwrap()
}

fn client(key: &Key) -> KeyCheck {
    KeyCheck::new(Role::Connecting, key, CONNECTING, 0)
}

fn server(key: &Key) -> KeyCheck {
    KeyCheck::new(Role::Accepting, key, ACCEPTING, 0)
}

fn pass_on(from: &mut KeyCheck, to: &mut KeyCheck) {
    let bytes = from.transmit().to_vec();
    from.transmitted(bytes.len());
    to.handle(&bytes);
}

/// What comes of a check between a client and a server with these keys.
fn converse(client_key: &Key, server_key: &Key) -> (Progress, Progress) {
    let (mut client, mut server) = (client(client_key), server(server_key));
    for _ in 0..2 {
        pass_on(&mut client, &mut server);
        pass_on(&mut server, &mut client);
    }
    (client.progress(), server.progress())
}

fn load(file: &str) -> Vec<Json> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../conformance/vectors").join(file);
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn hex(digits: &str) -> Vec<u8> {
    digits.as_bytes().chunks(2).map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
