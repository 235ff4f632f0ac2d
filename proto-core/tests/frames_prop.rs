//! FRM-3: any payloads come through in any chunking, and whatever stands between two frames costs at most the next one.
#![cfg(feature = "serial")]

use farref_core::frame::serial::{CHECK, Decoder, encode, encoded_len};
use proptest::collection::vec;
use proptest::prelude::*;

const LONGEST: usize = 600;

/// Short and long ones, with many zeros, few and none.
fn payload() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![2 => Just(0), 3 => any::<u8>(), 1 => Just(0xFF)];
    prop_oneof![
        4 => vec(byte, 1..40),
        1 => vec(any::<u8>(), 1..=LONGEST),
        1 => vec(1_u8.., 248..=LONGEST),
    ]
}

/// Whatever a line may bring: noise, delimiters, the beginning or the end of a frame, one that is too long.
fn garbage() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        vec(any::<u8>(), 0..30),
        vec(0_u8..3, 0..30),
        vec(1_u8.., 0..2000),
        (payload(), any::<prop::sample::Index>(), any::<bool>()).prop_map(|(payload, at, head)| {
            let frame = encoded(&payload);
            let (front, back) = frame.split_at(at.index(frame.len()));
            // A whole frame is no garbage.
            if head || front.is_empty() { front.to_vec() } else { back.to_vec() }
        }),
        vec(any::<u8>(), LONGEST + 2..LONGEST + 300).prop_map(|payload| encoded(&payload)),
    ]
}

fn encoded(payload: &[u8]) -> Vec<u8> {
    let mut line = vec![0; encoded_len(payload.len())];
    let length = encode(&[payload], &mut line).expect("room for the worst case");
    line.truncate(length);
    line
}

/// What is found in a line that comes in pieces of these sizes, again and again.
fn decode(line: &[u8], pieces: &[usize]) -> Vec<Vec<u8>> {
    let mut decoder = Decoder::new(vec![0; LONGEST + 1 + CHECK]);
    let mut payloads = Vec::new();
    let (mut rest, mut sizes) = (line, pieces.iter().cycle());
    while !rest.is_empty() {
        let size = rest.len().min(*sizes.next().expect("sizes"));
        let (mut run, more) = rest.split_at(size);
        while let Some(payload) = decoder.next(&mut run) {
            payloads.push(payload.to_vec());
        }
        rest = more;
    }
    payloads
}

proptest! {
    #[test]
    fn payloads_come_through(payloads in vec(payload(), 1..8), pieces in vec(1_usize..700, 1..8)) {
        let line: Vec<u8> = payloads.iter().flat_map(|payload| encoded(payload)).collect();
        prop_assert_eq!(decode(&line, &pieces), payloads);
    }

    #[test]
    fn a_frame_is_no_longer_than_stated(payload in payload()) {
        let line = encoded(&payload);
        prop_assert!(line.len() <= encoded_len(payload.len()));
        prop_assert!(line.len() >= payload.len() + CHECK + 2);
        prop_assert_eq!(line.iter().position(|&byte| byte == 0), Some(line.len() - 1));
    }

    #[test]
    fn garbage_costs_at_most_the_next_frame(
        runs in vec((garbage(), vec(payload(), 2..4)), 1..5),
        pieces in vec(1_usize..700, 1..8),
    ) {
        let (mut line, mut runs) = (Vec::new(), runs);
        // No two are equal, so that what is found can be told apart.
        let payloads = runs.iter_mut().flat_map(|(_, payloads)| payloads);
        payloads.zip(0_u8..).for_each(|(payload, number)| payload.insert(0, number));
        for (garbage, payloads) in &runs {
            line.extend_from_slice(garbage);
            payloads.iter().for_each(|payload| line.extend(encoded(payload)));
        }
        let found = decode(&line, &pieces);
        let mut rest = found.as_slice();
        for (_, payloads) in &runs {
            // All but perhaps the first, and nothing that was not sent.
            let first = usize::from(rest.first() != payloads.first());
            let sent = &payloads[first..];
            prop_assert!(rest.starts_with(sent), "{:02x?} is not at the front of {:02x?}", sent, rest);
            rest = &rest[sent.len()..];
        }
        prop_assert!(rest.is_empty(), "{:02x?} was not sent", rest);
    }
}
