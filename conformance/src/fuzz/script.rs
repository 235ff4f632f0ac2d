//! Messages as a hostile peer may write them: well formed for the most part, and wrong in one number or another.

use farref_core::codec::Writer;

use super::input::Input;
use super::peer::{self, Peer};
use crate::sim::body_within;

/// The values of a message, good and bad.
const VALUES: [&[u8]; 16] = [
    &[],
    &[0x80],
    &[0x41, b'm'],
    &[0x41, b'm', 0x0D, 0],
    &[0x41, b'm', 0x0D, 0, 0x0D, 1],
    &[0x0D, 0],
    &[0x62, 0x0D, 0, 0x0D, 0],
    &[0x0E, 0x41, b'E', 0x60, 0x00, 0x00],
    &[0x0E, 0x41, b'E', 0x60, 0x00, 0x0D, 0],
    &[0x0A, 2, 0x80, 0x41, b'x'],
    &[0x0C, 1, 0x80, 0x0D, 0],
    &[0x0F, 0x41, b'n', 0x80],
    // A reference that is not listed, a tuple cut short, a folded tag not used, a none that is explicit.
    &[0x0D, 3],
    &[0x63, 0x80],
    &[0x07, 1, b'x'],
    &[0x00],
];

/// Operations that mean something to a kept value or to the host, and one that nobody knows.
const OPS: [u64; 8] = [0, 1, 4, 5, 6, 15, 64, 50];

/// A run of the input and a little more.
const LONGEST: usize = 300;

/// The next message that the input spells.
pub fn message(input: &mut Input<'_>, peer: &Peer) -> Vec<u8> {
    let head = input.byte();
    body_within(LONGEST, |writer| match head & 7 {
        0..=2 => call(writer, head >> 3, input, peer),
        3 | 4 => returned(writer, head >> 3, input, peer),
        5 => {
            writer.byte(2);
            for _ in 0..=head >> 6 {
                let entry = input.byte();
                writer.varint(u64::from(entry >> 4) << 2 | u64::from(entry & 3));
            }
        }
        6 => {
            // Up to what was received, or a little less or more.
            let upto = peer.received.wrapping_add([0, 0, 0, 1, u64::MAX, u64::MAX - 1][usize::from(head >> 3) % 6]);
            writer.byte(3);
            writer.varint(u64::from(upto as u32));
            for _ in 0..=head >> 6 {
                slot(writer, 1, 0, input, peer);
            }
        }
        _ => match head >> 3 {
            0..=7 => writer.put(&[5 + (head >> 3), 1, 2]),
            8..=10 => writer.put(&peer::ack(peer.got() + u64::from(head >> 3 & 3))),
            11 => writer.put(&peer::ack(peer.got().saturating_sub(input.byte().into()))),
            12 => writer.byte(19),
            13 => writer.put(&peer::resume_ok([0; 16], peer.got())),
            14 => writer.put(&[23, 0, 0]),
            15 => writer.put(&[25]),
            16..=23 => writer.put(&[4, 1 << (head >> 3 & 7)]),
            24..=26 => writer.put(input.run()),
            27 => down(writer, input),
            28 => {
                // What was received, or a little less or more.
                let how = input.byte();
                writer.byte(24);
                writer.varint(peer.received.wrapping_add([0, 0, 1, u64::MAX][usize::from(how & 3)]));
            }
            29 => peer::resume(writer, input.byte(), peer.got()),
            30 => writer.put(&[0x11, 0, 0, 0]),
            _ => writer.put(&[0x10, 1, 1, 0, 64, 0, 0, 0, 0, 1]),
        },
    })
}

/// The end of objects of the peer's own: live or not, told already or never sent (REF-8).
fn down(writer: &mut Writer<'_>, input: &mut Input<'_>) {
    let how = input.byte();
    writer.byte(5);
    for _ in 0..=how & 1 {
        let which = input.byte();
        let number = u64::from(which & 7).min(if which & 0x80 == 0 { 5 } else { 7 });
        match which >> 3 & 7 {
            7 => writer.put(&[(number << 1 | 1) as u8, 1]),
            _ => writer.varint(number << 1),
        }
        writer.varint([0, 1, 3, 254, 255][usize::from(how >> 1) % 5]);
    }
}

/// `how`: bit 0 pipelined, 1 handles, 2 a parent, 3 an answer as target, 4 a deadline.
fn call(writer: &mut Writer<'_>, how: u8, input: &mut Input<'_>, peer: &Peer) {
    let [pipelined, handles, parent, answer, deadline] = [0, 1, 2, 3, 4].map(|bit| how >> bit & 1 == 1);
    writer.byte(u8::from(pipelined) << 5 | u8::from(handles) << 6 | u8::from(parent || deadline) << 7);
    let ids = input.byte();
    // Ids are below 4, for the most part; of our calls 4 are served at most.
    writer.varint(u64::from(ids & if ids & 0xC0 == 0xC0 { 7 } else { 3 }));
    if answer {
        writer.varint(u64::from(ids >> 2 & 3) << 2 | 2);
    } else {
        slot(writer, 2, 0, input, peer);
    }
    writer.varint(OPS[input.below(OPS.len())]);
    if handles {
        list(writer, true, input, peer);
    }
    let due = if deadline { input.byte() } else { 0 };
    // What is left, and what becomes of the call then, right or not.
    let left = [4, due >> 2, 6, due & 3];
    let left = match (deadline, due & 3) {
        (false, _) => &left[..0],
        (true, 0) => &left[..2],
        (true, _) => &left[..],
    };
    if !parent && deadline {
        writer.byte(left.len() as u8);
        writer.put(left);
    }
    if parent {
        let asked = peer.asked();
        let id =
            if asked.is_empty() { u16::from(ids >> 4 & 3) } else { asked[usize::from(ids >> 4 & 3) % asked.len()] };
        writer.put(&[2 + left.len() as u8, 2, id as u8]);
        writer.put(left);
    }
    values(writer, input);
}

/// `how`: bit 0 error, 1 handles, 2 an id that may not be open.
fn returned(writer: &mut Writer<'_>, how: u8, input: &mut Input<'_>, peer: &Peer) {
    let [error, handles, any] = [0, 1, 2].map(|bit| how >> bit & 1 == 1);
    writer.byte(1 | u8::from(error) << 5 | u8::from(handles) << 6);
    match input.pick(&peer.asked()) {
        Some(id) if !any => writer.varint(id.into()),
        _ => writer.varint(u64::from(how >> 3)),
    }
    if handles {
        list(writer, false, input, peer);
    }
    if error {
        writer.varint(u64::from(input.byte() & 31));
    }
    values(writer, input);
}

fn values(writer: &mut Writer<'_>, input: &mut Input<'_>) {
    let which = input.byte();
    match VALUES.get(usize::from(which)) {
        Some(values) => writer.put(values),
        None if which < 64 => {
            writer.byte(8);
            writer.blob(&vec![which; usize::from(which)]);
        }
        None => writer.put(VALUES[usize::from(which >> 6)]),
    }
}

fn list(writer: &mut Writer<'_>, of_call: bool, input: &mut Input<'_>, peer: &Peer) {
    let how = input.byte();
    let count = 1 + (how & 3).min(if how & 0x40 == 0 { 2 } else { 3 });
    writer.varint(count.into());
    for place in 0..count {
        match how >> (2 + place) & 1 {
            // An object of the peer's own, in one of a few slots.
            0 => {
                let which = input.byte();
                let number = u64::from(which & 7).min(if which & 0x80 == 0 { 5 } else { 7 });
                // Lent or weak, if so it says.
                let scope = (which & 0x40 != 0).then_some(u64::from(which >> 3 & 3).min(2));
                let kind = if scope.is_some() { 3 } else { 0 };
                match which >> 3 & 7 {
                    7 => writer.put(&[(number << 3 | 4 | kind) as u8, 1]),
                    _ => writer.varint(number << 3 | kind),
                }
                scope.into_iter().for_each(|scope| writer.varint(scope));
            }
            _ if of_call && how & 0x80 != 0 => writer.varint(u64::from(input.byte() & 3) << 3 | 2),
            _ => slot(writer, 3, 1, input, peer),
        }
    }
}

/// A slot of the session's: one that the peer holds for the most part, the directory, or another.
fn slot(writer: &mut Writer<'_>, shift: u32, kind: u64, input: &mut Input<'_>, peer: &Peer) {
    let which = input.byte();
    let (slot, generation) = match (which & 3, peer.held().as_slice()) {
        (0, _) => (u32::from(which >> 2 & 7), u16::from(which >> 5)),
        (1, _) | (_, []) => (0, 0),
        (_, held) => held[usize::from(which >> 2) % held.len()],
    };
    let bit = u64::from(generation != 0);
    // In a target and in an entry the bit for the generation is the lowest, in a descriptor it is above the kind.
    let bit = if kind == 0 { bit } else { bit << 2 };
    writer.varint(u64::from(slot) << shift | bit | kind);
    if generation != 0 {
        writer.varint(generation.into());
    }
}
