//! What the vectors cannot show: that what is written is what is read, byte by byte.

use super::*;

/// A body as written, and its length.
fn write(buffer: &mut [u8; 128], body: impl FnOnce(&mut Writer<'_>)) -> usize {
    let mut writer = Writer::new(buffer);
    body(&mut writer);
    assert!(writer.fits());
    writer.len()
}

/// CAL-1, REF-2, CAL-6: a Call with everything; each byte has its meaning.
#[test]
fn a_call_is_written_as_it_is_read() {
    let handles = [
        Descriptor::Sender { slot: 1, generation: 0 },
        Descriptor::Receiver { slot: 40, generation: 9 },
        Descriptor::Answer(3),
    ];
    let mut buffer = [0; 128];
    let length = write(&mut buffer, |writer| {
        let target = Target::Export { slot: 5, generation: 2 };
        let parent = Extension { parent: Some(300), deadline: None };
        Call::write_head(writer, (1, true, parent), (target, Op::member(0)), handles.len(), |writer| {
            handles.iter().for_each(|handle| handle.write(writer));
        });
        writer.put(&[0x85]);
    });
    let expected = [0xE0, 1, 0x15, 2, 0x40, 3, 0x08, 0xC5, 0x02, 9, 0x1A, 3, 0x02, 0xAC, 0x02, 0x85];
    assert_eq!(buffer[..length], expected);
    let Ok(Message::Call(call)) = Message::read(&expected) else { panic!("no call") };
    assert_eq!((call.id, call.pipelined, call.parent), (1, true, Some(300)));
    assert_eq!((call.target, call.op), (Target::Export { slot: 5, generation: 2 }, Op::member(0)));
    assert!(call.handles.eq(handles));
    assert_eq!(call.handles.get(1), Some(handles[1]));
    assert_eq!(call.handles.get(3), None);
    assert_eq!(call.values, [0x85]);
}

/// ANS-1, ANS-2: an answer as the target.
#[test]
fn a_promise_is_a_target() {
    for target in [Target::Answer(0), Target::Answer(u16::MAX), Target::Export { slot: u32::MAX, generation: u16::MAX }]
    {
        let mut buffer = [0; 128];
        let length = write(&mut buffer, |writer| {
            Call::write_head(
                writer,
                (u16::MAX, false, Extension::default()),
                (target, Op::from_number(u32::MAX)),
                0,
                |_| {},
            );
        });
        let Ok(Message::Call(call)) = Message::read(&buffer[..length]) else { panic!("no call") };
        assert_eq!((call.id, call.target, call.op), (u16::MAX, target, Op::from_number(u32::MAX)));
        assert!(call.handles.is_empty() && call.values.is_empty() && !call.pipelined && call.parent.is_none());
    }
}

/// TIM-1: what a call's extension says of its time is written in the fewest bytes, and read back.
#[test]
fn a_deadline_is_written_as_it_is_read() {
    for (parent, remaining, consequence, expected) in [
        (None, 0, Consequence::Cancel, &[2, 4, 0][..]),
        (Some(7), 1000, Consequence::Abandon, &[7, 2, 7, 4, 0xE8, 7, 6, 1]),
        (None, MAX_REMAINING, Consequence::Late, &[8, 4, 0xFF, 0xFF, 0xFF, 0xFF, 7, 6, 2]),
    ] {
        let extension = Extension { parent, deadline: Some(Deadline { remaining, consequence }) };
        let mut buffer = [0; 128];
        let length = write(&mut buffer, |writer| extension.write(writer));
        assert_eq!(&buffer[..length], expected);
        let mut reader = Reader::new(expected);
        assert_eq!((Extension::read(flag::EXTENSION, &mut reader, true), reader.check()), (extension, Ok(())));
    }
}

/// CAL-2, CAL-5, ERR-1: a Return, an error, and an error of a later version.
#[test]
fn a_return_is_written_as_it_is_read() {
    let handle = Descriptor::Sender { slot: 2, generation: 1 };
    for error in [None, Some(ErrorCode::Raised), Some(ErrorCode::from_number(70_000))] {
        for handles in [0, 1] {
            let mut buffer = [0; 128];
            let length = write(&mut buffer, |writer| {
                Return::write_head(writer, 7, error, handles, |writer| handle.write(writer));
                writer.put(&[0x00]);
            });
            let Ok(Message::Return(back)) = Message::read(&buffer[..length]) else { panic!("no return") };
            assert_eq!((back.id, back.error, back.values), (7, error, &[0][..]));
            assert!(back.handles.eq([handle].into_iter().take(handles)));
        }
    }
}

/// FIN-1, REL-1: lists are read to their end, and entries as they were written.
#[test]
fn entries_are_written_as_they_are_read() {
    let finishes = [(0, FinishMode::Done), (u16::MAX, FinishMode::Abandon), (3, FinishMode::Interrupt)];
    let mut buffer = [0; 128];
    let length = write(&mut buffer, |writer| {
        writer.byte(kind::FINISH);
        finishes.iter().for_each(|&(id, mode)| write_finish_entry(writer, id, mode));
    });
    let Ok(Message::Finish(entries)) = Message::read(&buffer[..length]) else { panic!("no finish") };
    assert!(entries.eq(finishes));

    let releases = [(1, 0), (u32::MAX, u16::MAX), (70, 1)];
    let length = write(&mut buffer, |writer| {
        writer.byte(kind::RELEASE);
        writer.varint(u32::MAX.into());
        releases.iter().for_each(|&(slot, generation)| write_release_entry(writer, slot, generation));
    });
    let Ok(Message::Release(entries)) = Message::read(&buffer[..length]) else { panic!("no release") };
    assert_eq!(entries.upto, u32::MAX);
    assert!(entries.eq(releases));
}

/// HEL-1: every field at both ends of its range.
#[test]
fn a_hello_is_written_as_it_is_read() {
    for all in [false, true] {
        let most = |number: u32| if all { number } else { 0 };
        let hello = Hello {
            version_min: 1,
            version_max: if all { u16::MAX } else { 1 },
            features: if all { u64::MAX } else { 0 },
            limits: Limits {
                max_message: if all { u32::MAX } else { Limits::MIN_MESSAGE },
                imports: most(Limits::MAX_IMPORTS),
                answers: most(u16::MAX.into()) as u16,
                call_bytes: most(u32::MAX),
                handles: most(u16::MAX.into()) as u16,
                levels: if all { u16::MAX } else { 1 },
            },
            peer: uuid::Uuid::from_bytes([if all { 0xFF } else { 0 }; 16]),
            incarnation: if all { u64::MAX } else { 0 },
            link: all.then_some(LinkOffer { token: [0xFF; 16], replay: u32::MAX, park: u32::MAX }),
            patience: if all { u32::MAX } else { 0 },
        };
        assert!(hello.limits.are_valid());
        let mut buffer = [0; 128];
        let length = write(&mut buffer, |writer| hello.write(writer));
        let Ok(Message::Hello(read)) = Message::read(&buffer[..length]) else { panic!("no hello") };
        assert_eq!(read, hello);
    }
}

/// MSG-2: the head alone tells whether a message counts, its kind known or not.
#[test]
fn kinds_below_sixteen_are_sequenced() {
    for head in 0..=0xFF {
        assert_eq!(Message::is_sequenced(&[head]), head & 0x1F < 16, "{head:02x}");
    }
    assert!(!Message::is_sequenced(&[]));
}

/// ERR-1, OPS-1: numbers without a name are kept; a name is found for each that has one.
#[test]
fn numbers_are_kept() {
    for number in 0..2000u32 {
        assert_eq!(Op::from_number(number).number(), number);
        assert_eq!(ErrorCode::from_number(number).number(), number);
        assert_eq!(CloseCode::from_number(number).number(), number);
        assert_eq!(Op::from_number(number).name().is_some(), number <= 17);
        assert_eq!(ErrorCode::from_number(number).name().is_some(), number <= 17);
        assert_eq!(CloseCode::from_number(number).name().is_some(), number <= 4);
    }
    assert_eq!(Op::member(u16::MAX).as_member(), Some(65_535));
    assert_eq!(Op::Describe.as_member(), None);
    assert_eq!(Op::from_number(63).as_member(), None);
}

/// REF-2: a list that says that it is longer than its message costs no more than it has bytes.
#[test]
fn a_list_of_handles_that_are_not_there_is_empty() {
    let mut reader = Reader::new(&[0xFF, 0xFF, 0xFF, 0xFF, 0x0F, 0x08]);
    let handles = Handles::read(flag::HANDLES, &mut reader, true);
    assert_eq!((handles.len(), reader.check()), (0, Err(Malformed)));
    // A Return is gone through for what it must not name; this took 17 s.
    assert!(Message::read(&[0x61, 0x02, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F, 0x0C]).is_err());
}
