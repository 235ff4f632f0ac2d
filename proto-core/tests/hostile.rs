//! A scripted peer that breaks rules, and one that keeps them in unusual ways.

use farref_conformance::fixtures::{counter, function, int, later};
use farref_conformance::sim::{BASELINE, LIMITS, Random, Side, body, config, hello, hello_with};
use farref_core::Uuid;
use farref_core::codec::Writer;
use farref_core::frame::{Split, split};
use farref_core::message::{CloseCode, ErrorCode, FinishMode, Limits, Message, Op};
use farref_core::session::{Call, CallError, Callee, Ended, Host, Import, Question, Ref, Rule, turned_away};
use farref_core::value::OwnedValue;

type Peer = Side<Host>;

/// A side that serves the root `x`, a counter, and has one call of its own open, with id 0.
fn side() -> (Peer, Question) {
    let mut side = Peer::scripted(config(LIMITS), LIMITS);
    side.add_root("x", counter());
    let call = Call::new(Callee::Import(Import::DIRECTORY), Op::Length);
    let question = side.call(call, &[]).unwrap();
    side.output();
    (side, question)
}

fn call_body(id: u64, target: u64, op: u64, values: &[u8]) -> Vec<u8> {
    body(|writer| {
        writer.byte(0);
        [id, target, op].into_iter().for_each(|field| writer.varint(field));
        writer.put(values);
    })
}

/// Calls the method number 0 of root `x` by name: op CallMethod of the directory.
const LENGTH: u64 = 5;

fn fault(rule: Rule) -> Result<(), Ended> {
    Err(Ended::PeerFault(rule))
}

/// C06. A session is driven by a script: replies popped from a list, no IO.
#[test]
fn c06_a_session_is_driven_by_a_script() {
    let mut side = Peer::scripted(config(LIMITS), LIMITS);
    let get = Call::new(Callee::Import(Import::DIRECTORY), Op::GetAttr).pipelined();
    let function = side.call(get, &["f".into()]).unwrap();
    let result = side.call(Call::new(Callee::Promise(function), Op::Call), &[int(3), int(2)]).unwrap();
    assert_eq!(side.output(), [vec![0x20, 0, 0, 1, 0x41, b'f'], vec![0, 1, 2, 0, 0x83, 0x82]]);
    let replies = [vec![0x41, 0, 1, 4 << 3, 0x0D, 0], vec![1, 1, 0x85]];
    assert_eq!(side.receive_all(&replies), None);
    assert_eq!(side.take(result).unwrap().outcome, Ok(int(5)));
    let function = side.take(function).unwrap();
    assert!(matches!(function.outcome, Ok(OwnedValue::Reference(Ref::Import(import))) if import.slot() == 4));
    side.release(&function);
    // Finish(0, done), Release(upto 2: slot 4).
    assert_eq!(side.output(), [vec![2, 0], vec![3, 2, 4 << 1]]);
    assert_eq!(side.session.tables(), BASELINE);
}

/// Every fault that only a faulty peer can make ends the session with the id of its rule: FRM-2, MSG-1, MSG-4, HEL-1,
/// PRM-1, PRM-2, REF-2, REF-6, REF-7, REL-4, CAL-1, CAL-2, CAL-6, ANS-2, FIN-1, ADM-7.
#[test]
fn a_fault_ends_the_session_with_its_rule() {
    let too_long = vec![9; LIMITS.max_message as usize + 1];
    let imports = u64::from(LIMITS.imports);
    let with_handles = |count: u64, descriptors: &[u8]| {
        body(|writer| {
            writer.put(&[0x40, 1, 0, 0]);
            writer.varint(count);
            writer.put(descriptors);
        })
    };
    let many = with_handles(65, &[1 << 3; 65]);
    let slot = |slot: u64| {
        let mut bytes = [0; 8];
        let mut writer = Writer::new(&mut bytes);
        writer.varint(slot << 3);
        let length = writer.len();
        with_handles(1, &bytes[..length])
    };
    let cases: Vec<(&str, Vec<Vec<u8>>, Rule)> = vec![
        ("an empty record", vec![vec![]], Rule::FrameLength),
        ("a record above the limit", vec![too_long], Rule::FrameLength),
        ("Hello twice", vec![hello(LIMITS)], Rule::HelloFirst),
        ("a truncated call", vec![vec![0, 1]], Rule::Envelope),
        ("a call id in a longer form", vec![vec![0, 0x81, 0, 0, 5]], Rule::Envelope),
        ("a call id above 16 bits", vec![call_body(1 << 16, 0, LENGTH, &[])], Rule::Envelope),
        ("a reserved target", vec![vec![0, 1, 3, 5]], Rule::Envelope),
        ("a generation of 0 written out", vec![vec![0, 1, 1, 0, 5]], Rule::Envelope),
        ("an empty list of handles", vec![with_handles(0, &[])], Rule::Envelope),
        ("a list of handles cut short", vec![with_handles(2, &[1 << 3])], Rule::Envelope),
        ("a reserved kind of handle", vec![with_handles(1, &[3])], Rule::Envelope),
        ("a promise with a generation", vec![with_handles(1, &[6, 1])], Rule::Envelope),
        ("an empty extension", vec![vec![0x80, 1, 0, 5, 0]], Rule::Envelope),
        ("extension keys that do not ascend", vec![vec![0x80, 1, 0, 5, 4, 6 << 1, 0, 6 << 1, 0]], Rule::Envelope),
        ("a parent as a blob", vec![vec![0x80, 1, 0, 5, 3, 3, 1, 0]], Rule::Envelope),
        ("a blob past the end of the extension", vec![vec![0x80, 1, 0, 5, 2, 15, 9]], Rule::Envelope),
        ("Finish with a flag", vec![vec![0x22, 0]], Rule::Envelope),
        ("Finish of nothing", vec![vec![2]], Rule::Envelope),
        ("Finish with mode 3", vec![vec![2, 3]], Rule::Envelope),
        ("Release of nothing", vec![vec![3, 0]], Rule::Envelope),
        ("Release with a flag", vec![vec![0x83, 0, 2]], Rule::Envelope),
        ("Unimplemented with no kind", vec![vec![4, 0]], Rule::Envelope),
        ("Unimplemented with more behind", vec![vec![4, 1, 1]], Rule::Envelope),
        ("Close with more behind", vec![vec![17, 0, 0, 0, 0]], Rule::Envelope),
        ("Close with a rule that is too long", vec![[&[17, 1, 17][..], &[b'X'; 17], &[0]].concat()], Rule::Envelope),
        ("Close with a text that is no UTF-8", vec![vec![17, 1, 0, 1, 0xFF]], Rule::Envelope),
        ("a handle beyond the limit", vec![slot(imports)], Rule::ImportSlot),
        ("a handle far beyond the limit", vec![slot(u64::from(u32::MAX))], Rule::ImportSlot),
        ("slot 0 in another generation", vec![with_handles(1, &[4, 1])], Rule::ImportSlot),
        ("a live import in another generation", vec![with_handles(2, &[1 << 3, 1 << 3 | 4, 1])], Rule::ImportSlot),
        ("Release of what was never sent", vec![vec![3, 1, 2]], Rule::ReleaseNeverSent),
        ("Release of the directory", vec![vec![3, 1, 0]], Rule::ReleaseNeverSent),
        ("a Return without a call", vec![vec![1, 1]], Rule::ReturnWithoutCall),
        ("a second Return", vec![vec![1, 0], vec![1, 0]], Rule::ReturnWithoutCall),
        ("a Return that names an answer", vec![vec![0x41, 0, 1, 2, 0x0D, 0]], Rule::Envelope),
        ("a call that names five answers", vec![with_handles(5, &[2, 10, 18, 26, 34])], Rule::TooManyNamed),
        ("a parent that is not open", vec![vec![0x80, 1, 0, 5, 2, 2, 7]], Rule::ParentNotOpen),
        ("a call id beyond the limit", vec![call_body(256, 0, LENGTH, &[])], Rule::LimitExceeded),
        ("Finish beyond the limit", vec![vec![2, 0x80, 8]], Rule::LimitExceeded),
        ("more handles than we take", vec![many], Rule::LimitExceeded),
    ];
    for (what, bodies, rule) in cases {
        let (mut side, _) = side();
        assert_eq!(side.receive_all(&bodies), Some(Ended::PeerFault(rule)), "{what}");
        // CLS-1: a Close with the rule's id goes out, then nothing, and nothing more is read.
        let sent = side.output();
        let Some(Ok(Message::Close(close))) = sent.last().map(|body| Message::read(body)) else { panic!("{what}") };
        assert_eq!((close.code, close.rule), (CloseCode::ProtocolFault, rule.id()), "{what}");
        assert_eq!(side.receive(&call_body(2, 0, LENGTH, &[])), fault(rule), "{what}");
        assert!(side.output().is_empty(), "{what}");
    }
}

/// CAL-1, ANS-1: an id is in use until its Return went out, and for a pipelined call until its Finish came.
#[test]
fn an_id_that_is_in_use_cannot_be_used_again() {
    let (mut running, _) = side();
    let (_, object) = later();
    running.add_root("later", object);
    let call = body(|writer| {
        writer.put(&[0, 1, 0, 4]);
        writer.put(b"\x45later");
    });
    assert_eq!(running.receive(&call), Ok(()));
    assert_eq!(running.receive(&call), fault(Rule::CallIdInUse));
    let (mut settled, _) = side();
    let pipelined = vec![0x20, 1, 0, LENGTH as u8];
    assert_eq!(settled.receive(&pipelined), Ok(()));
    assert_eq!(settled.output(), [vec![1, 1, 0x81]]);
    assert_eq!(settled.receive(&pipelined), fault(Rule::CallIdInUse));
    let (mut finished, _) = side();
    assert_eq!(finished.receive_all(&[pipelined.clone(), vec![2, 1 << 2], pipelined]), None);
}

/// CAL-2, CAL-6: a call that has its Return is over, also as long as its id is not free: it has no second one, and is nobody's
/// parent.
#[test]
fn a_call_that_has_its_return_is_over() {
    let mut side = Peer::scripted(config(LIMITS), LIMITS);
    let call = Call::new(Callee::Import(Import::DIRECTORY), Op::Call).pipelined();
    assert_eq!(side.call(call, &[]).map(|question| question.id()), Ok(0));
    side.output();
    assert_eq!(side.receive(&[1, 0]), Ok(()));
    assert_eq!(side.session.tables().questions, 1, "its Finish has not gone out");
    let second = side.session.clone().handle(&[1, 0]).err();
    assert_eq!(second, Some(Ended::PeerFault(Rule::ReturnWithoutCall)));
    assert_eq!(side.receive(&[0x80, 0, 0, 5, 2, 2, 0]), fault(Rule::ParentNotOpen));
}

/// ADM-7, ADM-2, ADM-4: call_bytes and levels that were announced cannot be exceeded.
#[test]
fn announced_limits_hold() {
    let limits = Limits { call_bytes: 60, levels: 2, ..LIMITS };
    let mut side = Peer::scripted(config(limits), LIMITS);
    let (postponed, object) = later();
    side.add_root("f", object);
    let call = |id: u8, extension: &[u8]| {
        let flags = if extension.is_empty() { 0 } else { 0x80 };
        [&[flags, id, 0, 4][..], extension, b"\x41f", &[0x08, 10], &[7; 10]].concat()
    };
    assert_eq!(side.receive_all(&[call(0, &[]), call(1, &[])]), None);
    let mut bytes = side.session.clone();
    assert!(bytes.handle(&call(2, &[])).is_ok_and(|event| event.is_some()), "54 bytes");
    assert_eq!(bytes.clone().handle(&call(3, &[])).err(), Some(Ended::PeerFault(Rule::LimitExceeded)), "72 bytes");
    let short = |values: &[u8]| [&[0, 3, 0, 5][..], values].concat();
    assert_eq!(bytes.clone().handle(&short(&[0; 3])).err(), Some(Ended::PeerFault(Rule::LimitExceeded)), "61 bytes");
    assert!(bytes.handle(&short(&[0; 2])).is_ok_and(|event| event.is_some()), "60 bytes");
    // A nested call of ours at level 1, and one of theirs for it at level 2.
    let answer = postponed.next().unwrap();
    let nested = Call::new(Callee::Import(Import::DIRECTORY), Op::Call).parent(answer);
    let question = side.call(nested, &[]).unwrap();
    assert_eq!(question.id(), 0);
    assert_eq!(side.receive(&[0x80, 3, 0, 5, 2, 2, 0]), fault(Rule::LimitExceeded));
}

/// HEL-1, HEL-2, HEL-3: what stands in a Hello.
#[test]
fn a_hello_is_checked() {
    let limits = |change: fn(&mut Limits)| {
        let mut limits = LIMITS;
        change(&mut limits);
        hello(limits)
    };
    let later_fields = [hello(LIMITS), vec![1, 2, 3]].concat();
    let padded = [hello(LIMITS), vec![0; 256]].concat();
    let cases: Vec<(&str, Vec<u8>, Result<(), Ended>)> = vec![
        ("as it should be", hello(LIMITS), Ok(())),
        ("fields of later versions", later_fields, Ok(())),
        ("later versions, too", hello_with(1, 65_535, LIMITS), Ok(())),
        (
            "the least limits",
            limits(|limits| {
                *limits = Limits { max_message: 64, imports: 0, answers: 0, call_bytes: 0, handles: 0, levels: 1 }
            }),
            Ok(()),
        ),
        ("later versions only", hello_with(2, 3, LIMITS), Err(Ended::NoCommonVersion)),
        ("versions the wrong way round", hello_with(2, 1, LIMITS), Err(Ended::NoCommonVersion)),
        ("version 0", hello_with(0, 1, LIMITS), fault(Rule::Envelope)),
        ("more than 256 bytes", padded, fault(Rule::HelloLength)),
        ("max_message below 64", limits(|limits| limits.max_message = 63), fault(Rule::HelloLimits)),
        ("imports above 2^24", limits(|limits| limits.imports = (1 << 24) + 1), fault(Rule::HelloLimits)),
        ("no level", limits(|limits| limits.levels = 0), fault(Rule::HelloLimits)),
        ("a call first", vec![0, 0, 0, 5], fault(Rule::HelloFirst)),
        ("an unknown kind first", vec![25], fault(Rule::HelloFirst)),
        ("a Close first", vec![17, 0, 0, 0], fault(Rule::HelloFirst)),
        ("cut short", hello(LIMITS)[..20].to_vec(), fault(Rule::Envelope)),
        ("a flag", [&[0x30], &hello(LIMITS)[1..]].concat(), fault(Rule::Envelope)),
    ];
    for (what, received, expected) in cases {
        let mut side = Peer::new(config(LIMITS));
        assert_eq!(side.receive(&received), expected, "{what}");
        let sent: Vec<_> = side.output();
        let close = sent.iter().find_map(|body| match Message::read(body) {
            Ok(Message::Close(close)) => Some(close.code),
            _ => None,
        });
        let expected = match expected {
            Ok(()) => None,
            Err(Ended::NoCommonVersion) => Some(CloseCode::NoCommonVersion),
            Err(_) => Some(CloseCode::ProtocolFault),
        };
        assert_eq!(close, expected, "{what}");
    }
}

/// N10. REF-5, ANS-7: a call or a handle for what is unknown, of another generation, released, or an answer that is not
/// there: a typed error, and the connection goes on.
#[test]
fn n10_unknown_handles_are_typed_errors() {
    let (mut side, _) = side();
    let no_such_object = |id: u8| vec![0x21, id, 1];
    let no_such_answer = |id: u8| vec![0x21, id, 15];
    let cases: Vec<(Vec<u8>, Vec<u8>)> = vec![
        (call_body(1, 99 << 2, LENGTH, &[]), no_such_object(1)),
        (call_body(1, u64::from(u32::MAX) << 2, LENGTH, &[]), no_such_object(1)),
        // Slot 0 in generation 5; a slot as -1 would be in 16 bits; a handle that never came.
        (vec![0, 1, 1, 5, 5], no_such_object(1)),
        (call_body(1, 0xFFFF << 2, 0, &[]), no_such_object(1)),
        (vec![0x40, 1, 0, 1, 1, 9 << 3 | 1, 0x0D, 0], no_such_object(1)),
        // An answer that is not there, its own, and one that was not pipelined.
        (call_body(1, 200 << 2 | 2, LENGTH, &[]), no_such_answer(1)),
        (call_body(1, 1 << 2 | 2, LENGTH, &[]), no_such_answer(1)),
        (vec![0x60, 1, 0, 1, 1, 1 << 3 | 2, 0x0D, 0], no_such_answer(1)),
        (vec![0x40, 1, 0, 1, 1, 77 << 3 | 2, 0x0D, 0], no_such_answer(1)),
    ];
    for (call, expected) in cases {
        assert_eq!(side.receive(&call), Ok(()), "{call:02x?}");
        assert_eq!(side.output(), [expected], "{call:02x?}");
        // A call that failed and was pipelined is over with its Finish.
        assert_eq!(side.receive(&[2, 1 << 2]), Ok(()));
    }
    assert_eq!(side.receive(&call_body(1, 0, LENGTH, &[])), Ok(()));
    assert_eq!(side.output(), [vec![1, 1, 0x81]], "the session goes on");
    assert_eq!(side.session.tables().answers, 0);
}

/// N02. CAL-5, CAL-7, ERR-2: values that cannot be decoded fail their call alone; the next request gets its own answer.
/// VAL-1, VAL-2, VAL-3, VAL-4, VAL-6, VAL-8, VAL-9: what a receiver refuses.
#[test]
fn n02_malformed_values_do_not_desynchronize() {
    let deep = [0x61; 16];
    let very_deep = vec![0x61; 60_000];
    let bad: Vec<Vec<u8>> = vec![
        vec![0x10],
        vec![0x3F],
        vec![0x04, 0x02],
        vec![0x04],
        vec![0x05, 2, 1],
        vec![0x06, 0, 0],
        vec![0x06, 1, 0, 0, 0, 0, 0, 0xF8, 0x7F],
        vec![0x07, 1, b'a'],
        vec![0x41, 0xFF],
        vec![0x42, b'a'],
        vec![0x08, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F],
        vec![0x09, 2, 0x80, 0x80],
        vec![0x0A, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F],
        vec![0x0C, 1, 0x80],
        vec![0x0D, 0],
        vec![0x0E, 0x80, 0x60, 0, 0],
        vec![0x0E, 0x41, b'E', 0x80, 0, 0],
        vec![0x62, 0x80],
        [&deep[..], &[0x80]].concat(),
        very_deep,
    ];
    let (mut side, _) = side();
    for (values, number) in bad.iter().zip(0..) {
        assert_eq!(side.receive(&call_body(number, 0, 4, values)), Ok(()));
        // The next one is at once behind it.
        assert_eq!(side.receive(&call_body(100 + number, 0, LENGTH, &[])), Ok(()));
        let mut expected = vec![vec![0x21, number as u8, 6], vec![1, 100 + number as u8, 0x81]];
        expected.sort();
        let mut sent = side.output();
        sent.sort();
        assert_eq!(sent, expected, "{:02x?}", &values[..values.len().min(20)]);
    }
    // Arguments only: a positional one after a named one; a named one inside a value.
    for values in [&[0x0F, 0x41, b'a', 0x80, 0x80][..], &[0x61, 0x0F, 0x41, b'a', 0x80]] {
        assert_eq!(side.receive(&call_body(1, 0, 4, values)), Ok(()));
        assert_eq!(side.output(), [vec![0x21, 1, 6]]);
    }
    // The same in Returns, and what is malformed only there.
    let mut returns: Vec<(Vec<u8>, bool)> = bad.into_iter().map(|values| (values, false)).collect();
    returns.extend([vec![0x00], vec![0x80, 0x80], vec![0x0F, 0x41, b'a', 0x80]].map(|values| (values, false)));
    returns.extend(
        [vec![0], vec![0, 0x80], vec![0, 0x41, b'E'], vec![9, 0x80, 0x80, 0x80, 0x80, 0x80]]
            .map(|values| (values, true)),
    );
    for (values, is_error) in returns {
        let call = Call::new(Callee::Import(Import::DIRECTORY), Op::Length);
        let [first, second] = [(); 2].map(|()| side.call(call, &[]).unwrap());
        side.output();
        let head = if is_error { 0x21 } else { 1 };
        assert_eq!(side.receive(&[&[head, first.id() as u8][..], &values].concat()), Ok(()));
        assert_eq!(side.receive(&[1, second.id() as u8, 0x87]), Ok(()));
        let failure = side.take(first).unwrap().outcome.unwrap_err();
        assert_eq!((failure.code, failure.values.len()), (ErrorCode::Malformed, 0), "{values:02x?}");
        assert_eq!(side.take(second).unwrap().outcome, Ok(int(7)));
    }
}

/// REF-3, REF-5: handles of malformed messages are entered all the same, and released: of a Call, of a Return, and of a
/// Return that nobody wants.
#[test]
fn handles_of_malformed_messages_are_released() {
    let (mut side, question) = side();
    // Slots 1 and 2 come with a call that is malformed, slot 3 with a Return that is, slot 4 with one
    // that names a stale object of ours.
    assert_eq!(side.receive(&[0x40, 1, 0, 4, 2, 1 << 3, 2 << 3, 0x10]), Ok(()));
    assert_eq!(side.output(), [vec![0x21, 1, 6], vec![3, 1, 2, 4]]);
    assert_eq!(side.receive(&[0x41, 0, 1, 3 << 3, 0x10]), Ok(()));
    assert_eq!(side.output(), [vec![3, 2, 6]]);
    assert_eq!(side.take(question).unwrap().outcome.unwrap_err().code, ErrorCode::Malformed);
    let call = Call::new(Callee::Import(Import::DIRECTORY), Op::Length);
    let stale = side.call(call, &[]).unwrap();
    side.output();
    assert_eq!(side.receive(&[0x41, 0, 2, 4 << 3, 9 << 3 | 1, 0x0D, 0]), Ok(()));
    assert_eq!(side.output(), [vec![3, 3, 8]]);
    assert_eq!(side.take(stale).unwrap().outcome.unwrap_err().code, ErrorCode::NoSuchObject);
    // One that nobody wants.
    let abandoned = side.call(call, &[]).unwrap();
    side.session.cancel(abandoned, FinishMode::Abandon).unwrap();
    side.output();
    assert_eq!(side.receive(&[0x41, 0, 1, 5 << 3, 0x0D, 0]), Ok(()));
    assert_eq!(side.output(), [vec![3, 4, 10]]);
    assert_eq!(side.take(abandoned), None);
    assert_eq!(side.session.tables(), BASELINE);
}

/// N13. MSG-2, MSG-3: messages of unknown kinds are skipped, counted if sequenced, and answered by one Unimplemented for
/// all of them.
#[test]
fn n13_unknown_kinds_are_answered_unimplemented() {
    let (mut side, _) = side();
    for kind in [6, 9, 15, 9, 6] {
        assert_eq!(side.receive(&[kind, 1, 2, 3]), Ok(()));
    }
    assert_eq!(side.session.ordinals().1, 5);
    // With any flags; unsequenced ones are not counted.
    for kind in [20, 31 | 0xE0] {
        assert_eq!(side.receive(&[kind]), Ok(()));
    }
    assert_eq!(side.session.ordinals().1, 5);
    let kinds: u32 = 1 << 6 | 1 << 9 | 1 << 15 | 1 << 20 | 1 << 31;
    let expected = body(|writer| {
        writer.byte(4);
        writer.varint(kinds.into());
    });
    assert_eq!(side.output(), [expected]);
    assert!(side.output().is_empty());
    // Unimplemented itself is noted and answered by nothing.
    assert_eq!(side.receive(&[4, 0x20]), Ok(()));
    assert_eq!(side.session.refused_kinds(), 0x20);
    assert!(side.output().is_empty());
    // The watermark counted all of them: 7 is Unimplemented's own ordinal, and the call is 8 (REL-1).
    assert_eq!(side.receive(&[0x40, 1, 0, 4, 1, 1 << 3, 0x0D, 0]), Ok(()));
    let sent = side.output();
    assert_eq!(sent.last(), Some(&vec![3, 7, 2]));
}

/// OPS-1, N13: an operation with a number that nobody knows is `Unsupported`; the number may have up to 32 bits.
#[test]
fn unknown_operations_are_unsupported() {
    let (mut side, _) = side();
    assert_eq!(side.receive(&call_body(1, 0, 63, &[])), Ok(()));
    assert_eq!(side.output(), [vec![0x21, 1, 3, 0xBF]]);
    assert_eq!(side.receive(&call_body(1, 0, u32::MAX.into(), &[])), Ok(()));
    assert_eq!(side.output()[0][..3], [0x21, 1, 2], "a member that is not there");
    assert_eq!(side.receive(&call_body(1, 0, 1 << 32, &[])), fault(Rule::Envelope));
}

/// FIN-3, REL-4: Finish for an id without an answer, and a Release that repeats an old one, are ignored.
#[test]
fn what_crossed_is_ignored() {
    let (mut side, _) = side();
    for mode in 0..3 {
        assert_eq!(side.receive(&[2, 9 << 2 | mode, 10 << 2]), Ok(()));
    }
    assert_eq!(side.session.tables(), farref_core::session::Tables { questions: 1, ..BASELINE });
    assert!(side.interrupted.is_empty());
}

/// CLS-1: after a Close, or the end of the stream, everything that waits is told why; commands say so, too.
#[test]
fn an_ended_session_says_why() {
    type End = fn(&mut Peer);
    let cases: [(End, Ended, usize); 3] = [
        (|side| assert!(side.receive(&[17, 3, 0, 1, b'x']).is_err()), Ended::PeerClosed(CloseCode::OutOfResources), 0),
        (|side| side.session.link_lost(), Ended::LinkLost, 0),
        (|side| side.session.close(CloseCode::Leaving), Ended::Closed(CloseCode::Leaving), 1),
    ];
    for (end, ended, closes) in cases {
        let (mut side, question) = side();
        end(&mut side);
        assert_eq!(side.session.ended(), Some(ended));
        let call = Call::new(Callee::Import(Import::DIRECTORY), Op::Length);
        assert_eq!(side.call(call, &[]), Err(CallError::Ended(ended)));
        assert_eq!(side.receive(&[1, 0]), Err(ended));
        assert_eq!(side.take(question), None);
        let sent = side.output();
        assert_eq!(sent.len(), closes, "{sent:02x?}");
        // What happens later does not change the reason.
        side.session.link_lost();
        assert_eq!(side.session.ended(), Some(ended));
    }
}

/// HEL-1, CLS-1: a side that has no room says so in two records, whoever it is and however long its incarnation.
#[test]
fn who_has_no_room_says_so() {
    for incarnation in [0, 1 << 40, u64::MAX] {
        let mut records = [0; 56];
        let length = turned_away(Uuid::from_bytes([9; 16]), incarnation, CloseCode::OutOfResources, &mut records);
        let mut rest = &records[..length];
        let mut bodies = Vec::new();
        while let Split::Record { body, rest: behind } = split(rest, Limits::MIN_MESSAGE) {
            bodies.push(body.to_vec());
            rest = behind;
        }
        assert_eq!((bodies.len(), rest), (2, &[][..]));
        let mut side = Peer::new(config(LIMITS));
        assert_eq!(side.receive(&bodies[0]), Ok(()));
        assert_eq!(side.session.peer().map(|hello| hello.incarnation), Some(incarnation));
        assert_eq!(side.receive(&bodies[1]), Err(Ended::PeerClosed(CloseCode::OutOfResources)));
    }
}

/// ANS-2, ANS-3, ANS-7: no promise can be its own answer. A call that names itself, as a target or as an argument, names
/// nothing yet, and so does the first of two that name each other; the second is broken by the first.
#[test]
fn a_promise_cannot_be_its_own_answer() {
    let (mut side, _) = side();
    let on_answer = |id: u8, named: u8| [0x20, id, named << 2 | 2, 0];
    assert_eq!(side.receive(&on_answer(1, 1)), Ok(()));
    assert_eq!(side.receive(&[0x60, 2, 0, 5, 1, 2 << 3 | 2]), Ok(()));
    assert_eq!(side.output(), [vec![0x21, 1, 15], vec![0x21, 2, 15]]);
    assert_eq!(side.receive(&on_answer(3, 4)), Ok(()));
    assert_eq!(side.receive(&on_answer(4, 3)), Ok(()));
    assert_eq!(side.output(), [vec![0x21, 3, 15], vec![0x21, 4, 10, 0x80 + 15]]);
    assert_eq!(side.receive(&[2, 1 << 2, 2 << 2, 3 << 2, 4 << 2]), Ok(()));
    assert_eq!(side.session.tables().answers, 0);
}

/// ANS-7, CAL-2: an id that no call can have names no answer, as a target and as an argument; each call has its Return.
#[test]
fn the_highest_id_names_no_answer() {
    let (mut side, _) = side();
    // 65535 << 2 | 2, and 65535 << 3 | 2.
    assert_eq!(side.receive(&[0, 1, 0xFE, 0xFF, 0x0F, 5]), Ok(()));
    assert_eq!(side.receive(&[0x40, 2, 0, 5, 1, 0xFA, 0xFF, 0x1F]), Ok(()));
    assert_eq!(side.output(), [vec![0x21, 1, 15], vec![0x21, 2, 15]]);
    assert_eq!(side.session.tables().answers, 0);
}

/// CLS-1: a Close is no longer than what the peer takes; then its text is left out.
#[test]
fn a_close_fits_the_peers_messages() {
    let least = Limits { max_message: 64, ..LIMITS };
    let mut side = Side::<Host>::scripted(config(LIMITS), least);
    // A handle of a slot beyond the limit, of which there is much to say.
    assert!(side.receive(&[0x40, 0, 0, 5, 1, 0xF8, 0xFF, 0xFF, 0x7F]).is_err());
    let sent = side.output();
    assert_eq!(sent.len(), 1);
    assert!(sent[0].len() <= 64 && sent[0].starts_with(&[17, 1, 5]) && sent[0][3..8] == *b"REF-6", "{sent:02x?}");
}

/// Section 12, PRM-1, MSG-1: whatever bytes come, a session neither panics nor grows beyond its limits, and it either goes
/// on or is over.
#[test]
fn random_messages_do_no_harm() {
    let limits = Limits { max_message: 256, imports: 16, answers: 8, call_bytes: 512, handles: 4, levels: 4 };
    let mut ended = 0;
    for seed in 1..4000 {
        let mut random = Random::new(seed);
        let mut side = Side::<Host>::scripted(config(limits), LIMITS);
        let (postponed, object) = later();
        side.add_root("x", object);
        side.add_root("y", function(|args, reply| reply.int(args.values().len() as i64)));
        let mut over = None;
        for _ in 0..60 {
            if side.call(Call::new(Callee::Import(Import::DIRECTORY), Op::Length), &[]).is_err() {
                break;
            }
            let length = 1 + random.below(14) as usize;
            let mut message: Vec<u8> = (0..length)
                .map(|_| match random.below(3) {
                    0 => random.below(256) as u8,
                    _ => random.below(10) as u8,
                })
                .collect();
            // Mostly of known kinds, with flags.
            if random.below(8) > 0 {
                message[0] = random.below(5) as u8 | if random.below(3) == 0 { 0x40 } else { 0 };
                message[0] |= if random.below(4) == 0 { 0x20 } else { 0 };
            }
            over = side.receive(&message).err();
            if random.below(3) == 0
                && let Some(answer) = postponed.next()
            {
                let _ = side.session.reply(answer, &[], |writer| writer.int(1));
                side.settle();
            }
            if random.below(2) == 0 {
                side.output();
            }
            let tables = side.session.tables();
            assert!(tables.imports <= 16 && tables.answers <= 8, "seed {seed}: {tables:?}");
            if over.is_some() {
                break;
            }
        }
        assert_eq!(side.session.ended().is_some(), over.is_some(), "seed {seed}");
        ended += u32::from(over.is_some());
    }
    assert!(ended > 100, "{ended}");
}
