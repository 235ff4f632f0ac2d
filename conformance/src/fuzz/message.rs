//! Bodies: taken apart or refused, and put together again.

use farref_core::codec::Writer;
use farref_core::frame::{PreambleScanner, Split, split};
use farref_core::message::{Descriptor, Message, Target};
use farref_core::value::Top;

use super::values::check;
use crate::sim::body_within;

/// Any bytes, as a stream and as a body. A message that is accepted has one encoding: put together again from what was read,
/// by rules written down here a second time, it is the same bytes (MSG-1, PRM-1).
pub fn message(bytes: &[u8]) {
    let _ = PreambleScanner::default().scan(bytes);
    let mut rest = bytes;
    while let Split::Record { body, rest: more } = split(rest, 64) {
        assert!(!body.is_empty() && body.len() <= 64);
        rest = more;
    }
    let Ok(message) = Message::read(bytes) else { return };
    match message {
        Message::Call(call) => {
            assert_eq!(call.handles.count(), call.handles.len() as usize);
            check(call.values, Top::Arguments, call.handles.len());
        }
        Message::Return(back) => {
            assert_eq!(back.handles.count(), back.handles.len() as usize);
            check(back.values, if back.error.is_some() { Top::Error } else { Top::Result }, back.handles.len());
        }
        Message::Finish(entries) => assert!(entries.count() > 0),
        Message::Release(entries) => assert!(entries.count() > 0),
        _ => {}
    }
    let again = put_together(bytes.len(), &message);
    match message {
        // What later versions add is skipped, and so cannot be put together again (HEL-2, MSG-3).
        Message::Hello(_) => assert!(bytes.starts_with(&again), "{again:02x?}"),
        Message::Unknown(_) => {}
        // Unknown keys are skipped, too; all else is there.
        Message::Call(_) | Message::Return(_) if bytes[0] & EXTENSION != 0 => {
            let read = Message::read(&again).expect("well formed");
            assert_eq!(put_together(again.len(), &read), again);
        }
        _ => assert_eq!(again, bytes),
    }
}

const HANDLES: u8 = 0x40;
const EXTENSION: u8 = 0x80;

fn put_together(room: usize, message: &Message<'_>) -> Vec<u8> {
    body_within(room, |writer| write(writer, message))
}

/// SPEC sections 3 to 6 and 15 as a writer.
fn write(writer: &mut Writer<'_>, message: &Message<'_>) {
    match message {
        Message::Call(call) => {
            let mut head = if call.pipelined { 0x20 } else { 0 };
            head |= if call.handles.is_empty() { 0 } else { HANDLES };
            head |= if call.parent.is_some() || call.deadline.is_some() { EXTENSION } else { 0 };
            writer.byte(head);
            writer.varint(call.id.into());
            match call.target {
                Target::Export { slot, generation } => write_slot(writer, u64::from(slot) << 2, 1, generation),
                Target::Answer(id) => writer.varint(u64::from(id) << 2 | 2),
            }
            writer.varint(call.op.number().into());
            write_handles(writer, call.handles);
            if call.parent.is_some() || call.deadline.is_some() {
                writer.blob(&body_within(24, |writer| {
                    let consequence = call.deadline.map(|deadline| deadline.consequence as u64).filter(|&way| way > 0);
                    let fields = [
                        (1, call.parent.map(u64::from)),
                        (2, call.deadline.map(|deadline| deadline.remaining.into())),
                        (3, consequence),
                    ];
                    for (key, value) in fields {
                        if let Some(value) = value {
                            writer.byte(key << 1);
                            writer.varint(value);
                        }
                    }
                }));
            }
            writer.put(call.values);
        }
        Message::Return(back) => {
            let head = if back.error.is_some() { 0x21 } else { 1 };
            writer.byte(head | if back.handles.is_empty() { 0 } else { HANDLES });
            writer.varint(back.id.into());
            write_handles(writer, back.handles);
            if let Some(code) = back.error {
                writer.varint(code.number().into());
            }
            writer.put(back.values);
        }
        Message::Finish(entries) => {
            writer.byte(2);
            entries.for_each(|(id, mode)| writer.varint(u64::from(id) << 2 | mode as u64));
        }
        Message::Release(entries) => {
            writer.byte(3);
            writer.varint(entries.upto.into());
            entries.for_each(|(slot, generation)| write_slot(writer, u64::from(slot) << 1, 1, generation));
        }
        Message::Down(entries) => {
            writer.byte(5);
            entries.for_each(|(slot, generation, reason)| {
                write_slot(writer, u64::from(slot) << 1, 1, generation);
                writer.varint(reason.number().into());
            });
        }
        Message::Unimplemented(kinds) => {
            writer.byte(4);
            writer.varint((*kinds).into());
        }
        Message::Hello(hello) => {
            let limits = hello.limits;
            writer.byte(0x10);
            let numbers = [
                hello.version_min.into(),
                hello.version_max.into(),
                hello.features,
                limits.max_message.into(),
                limits.imports.into(),
                limits.answers.into(),
                limits.call_bytes.into(),
                limits.handles.into(),
                limits.levels.into(),
            ];
            numbers.into_iter().for_each(|number| writer.varint(number));
            writer.put(hello.peer.as_bytes());
            writer.varint(hello.incarnation);
            if let Some(offer) = hello.link {
                writer.put(&offer.token);
                writer.varint(offer.replay.into());
                writer.varint(offer.park.into());
            }
            if hello.features & 2 != 0 {
                writer.varint(hello.patience.into());
            }
        }
        Message::Close(close) => {
            writer.byte(0x11);
            writer.varint(close.code.number().into());
            writer.blob(close.rule.as_bytes());
            writer.blob(close.text.as_bytes());
        }
        Message::Ack(got) => {
            writer.byte(0x12);
            writer.varint(*got);
        }
        Message::Ping => writer.byte(0x13),
        Message::Goodbye(received) => {
            writer.byte(0x18);
            writer.varint(*received);
        }
        Message::Resume(resume) => {
            writer.byte(0x15);
            writer.put(&resume.token);
            writer.varint(resume.attempt.into());
            writer.varint(resume.got);
        }
        Message::ResumeOk { token, got } => {
            writer.byte(0x16);
            writer.put(token);
            writer.varint(*got);
        }
        Message::SessionGone { incarnation, got } => {
            writer.byte(0x17);
            writer.varint(*incarnation);
            writer.varint(*got);
        }
        Message::Unknown(_) => {}
    }
}

fn write_handles(writer: &mut Writer<'_>, handles: farref_core::message::Handles<'_>) {
    if !handles.is_empty() {
        writer.varint(handles.len().into());
    }
    for handle in handles {
        match handle {
            Descriptor::Sender { slot, generation } => write_slot(writer, u64::from(slot) << 3, 4, generation),
            Descriptor::Receiver { slot, generation } => write_slot(writer, u64::from(slot) << 3 | 1, 4, generation),
            Descriptor::Answer(id) => writer.varint(u64::from(id) << 3 | 2),
            Descriptor::Borrowed { slot, generation } => {
                write_slot(writer, u64::from(slot) << 3 | 3, 4, generation);
                writer.byte(0);
            }
            Descriptor::Weak { slot, generation } => {
                write_slot(writer, u64::from(slot) << 3 | 3, 4, generation);
                writer.byte(1);
            }
        }
    }
}

/// A number with a bit that says whether a generation follows.
fn write_slot(writer: &mut Writer<'_>, number: u64, bit: u64, generation: u16) {
    writer.varint(number | if generation == 0 { 0 } else { bit });
    if generation != 0 {
        writer.varint(generation.into());
    }
}
