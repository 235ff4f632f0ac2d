//! The byte stream, Hello and Close (SPEC sections 2 and 4).

use farref_core::codec::Writer;
use farref_core::frame::PREAMBLE;
use farref_core::message::{FinishMode, Limits, Op};

use super::Case;
use crate::suite::peer::{LIMITS, Peer, Tester, Verdict, check, same};
use crate::suite::report::Failure;
use crate::suite::wire::{self, Call, ROOT, Value, finishing, hello, hello_of, int, record, text};

pub(super) const CASES: &[Case] = &[
    Case::connecting("FRM-1/banner-is-dropped", banner_is_dropped),
    Case::connecting("FRM-1/longest-banner-is-dropped", longest_banner),
    Case::connecting("FRM-1/longer-banner-is-no-peer", longer_banner),
    Case::connecting("FRM-1/end-without-preamble", end_without_preamble),
    Case::new("FRM-2/records-arrive-in-pieces", records_in_pieces),
    Case::new("FRM-2/many-records-in-one-write", many_records),
    Case::new("FRM-2/empty-record-ends-the-session", empty_record),
    Case::new("FRM-2/too-long-a-record-is-told-by-its-length", too_long_a_record),
    Case::new("FRM-2/longest-record-is-taken", longest_record),
    Case::new("PRM-1/record-length-has-one-form", length_in_longer_form),
    Case::connecting("HEL-1/hello-comes-unasked", hello_unasked),
    Case::connecting("HEL-1/anything-else-first-ends-the-session", anything_else_first),
    Case::new("HEL-1/second-hello-ends-the-session", second_hello),
    Case::connecting("HEL-2/later-fields-are-skipped", later_fields),
    Case::connecting("HEL-2/highest-common-version", later_versions),
    Case::connecting("HEL-2/no-common-version", no_common_version),
    Case::connecting("HEL-2/hello-has-256-bytes-at-most", too_long_a_hello),
    Case::connecting("HEL-3/limits-have-ranges", limits_out_of_range),
    Case::connecting("HEL-3/least-limits-will-do", least_limits),
    Case::connecting("HEL-5/own-hello-is-an-echo", echo_of_hello),
    Case::new("CLS-1/nothing-is-read-after-a-fault", nothing_after_a_fault),
    Case::connecting("CLS-1/close-fits-a-small-peer", close_fits),
    Case::new("CLS-1/our-close-ends-the-session", our_close),
    Case::new("CLS-1/end-of-stream-ends-the-session", end_of_stream),
];

fn greeting(limits: Limits) -> Vec<u8> {
    [&PREAMBLE[..], &record(&hello(limits))].concat()
}

fn banner_is_dropped(tester: &mut Tester<'_>) -> Verdict {
    let mut peer = tester.raw()?;
    // Nearly a preamble, twice.
    peer.send_bytes(b"Last login: yesterday\r\n\xFFfarr\xFF");
    peer.send_bytes(&greeting(LIMITS));
    peer.expect_hello()?;
    peer.fence()
}

fn longest_banner(tester: &mut Tester<'_>) -> Verdict {
    let mut peer = tester.raw()?;
    peer.send_bytes(&vec![b'.'; 65_536]);
    peer.send_bytes(&greeting(LIMITS));
    peer.expect_hello()?;
    peer.fence()
}

fn longer_banner(tester: &mut Tester<'_>) -> Verdict {
    let mut peer = tester.raw()?;
    peer.expect_hello()?;
    peer.send_bytes(&vec![b'.'; 65_537]);
    peer.send_bytes(&greeting(LIMITS));
    peer.expect_end()
}

fn end_without_preamble(tester: &mut Tester<'_>) -> Verdict {
    let mut peer = tester.raw()?;
    peer.expect_hello()?;
    peer.end();
    peer.expect_end()
}

fn records_in_pieces(peer: &mut Peer) -> Verdict {
    peer.send_in_pieces(&Call::method(1, ROOT, "echo", &[text("piece by piece")]).body());
    peer.expect_value(1, &text("piece by piece"))
}

fn many_records(peer: &mut Peer) -> Verdict {
    let count = peer.theirs().answers;
    peer.send_together((0..count).map(|id| Call::method(id, ROOT, "echo", &[int(id.into())]).body()));
    (0..count).try_for_each(|id| peer.expect_value(id, &int(id.into())))
}

fn empty_record(peer: &mut Peer) -> Verdict {
    peer.send_bytes(&[0]);
    peer.expect_close("FRM-2")
}

fn too_long_a_record(peer: &mut Peer) -> Verdict {
    let length = u64::from(peer.theirs().max_message) + 1;
    // No body: the length alone is enough.
    peer.send_bytes(&wire::body(|writer: &mut Writer<'_>| writer.varint(length)));
    peer.expect_close("FRM-2")
}

fn longest_record(peer: &mut Peer) -> Verdict {
    let longest = peer.theirs().max_message.min(peer.theirs().call_bytes) as usize;
    let swallow = |length: usize| Call::method(1, ROOT, "sink", &[Value::Bytes(vec![7; length])]).body();
    // A few lengths may need another byte for the length of the bytes.
    let fitting = (longest.saturating_sub(32)..longest).rev().find(|length| swallow(*length).len() == longest);
    let Some(length) = fitting else { return Err(Failure::new("a body of the greatest length", "none can be made")) };
    peer.send(swallow(length));
    peer.expect_value(1, &int(length as i64))
}

fn length_in_longer_form(peer: &mut Peer) -> Verdict {
    let body = Call::method(1, ROOT, "echo", &[int(1)]).body();
    let mut bytes = record(&body);
    if let Some(length) = bytes.first_mut() {
        *length |= 0x80;
    }
    bytes.insert(1, 0);
    peer.send_bytes(&bytes);
    peer.expect_close_of(&["FRM-2", "PRM-1"])
}

fn hello_unasked(tester: &mut Tester<'_>) -> Verdict {
    let mut peer = tester.raw()?;
    let theirs = peer.expect_hello()?;
    same("the versions", &(1, 1), &(theirs.version_min, theirs.version_max))?;
    same("features that version 1 has not", &0, &(theirs.features & !3))?;
    // Only now does the subject hear of us; what it says next is the answer to a call.
    peer.send_bytes(&greeting(LIMITS));
    peer.fence()
}

fn anything_else_first(tester: &mut Tester<'_>) -> Verdict {
    let firsts = [vec![0, 0, 0, 5], vec![2, 0], vec![25], vec![17, 0, 0, 0], vec![4, 1]];
    firsts.into_iter().try_for_each(|first| {
        let mut peer = tester.raw()?;
        peer.expect_hello()?;
        peer.send_bytes(&PREAMBLE);
        peer.send_bytes(&record(&first));
        peer.expect_close("HEL-1")
    })
}

fn second_hello(peer: &mut Peer) -> Verdict {
    peer.send_bytes(&record(&hello(LIMITS)));
    peer.expect_close("HEL-1")
}

/// Greets with a Hello of these bytes.
fn greeted_with(tester: &mut Tester<'_>, hello: &[u8]) -> Verdict<Peer> {
    let mut peer = tester.raw()?;
    peer.expect_hello()?;
    peer.send_bytes(&PREAMBLE);
    peer.send_bytes(&record(hello));
    Ok(peer)
}

fn later_fields(tester: &mut Tester<'_>) -> Verdict {
    let mut longest = [hello(LIMITS), vec![1, 2, 3]].concat();
    greeted_with(tester, &longest)?.fence()?;
    longest.resize(256, 0xFF);
    greeted_with(tester, &longest)?.fence()
}

fn later_versions(tester: &mut Tester<'_>) -> Verdict {
    greeted_with(tester, &hello_of(1, 65_535, LIMITS))?.fence()
}

fn no_common_version(tester: &mut Tester<'_>) -> Verdict {
    let mut peer = greeted_with(tester, &hello_of(60_000, 65_535, LIMITS))?;
    let (code, _) = peer.expect_closed(&|| "Close with code 2".to_owned())?;
    same("the code of the Close", &2, &code)
}

fn too_long_a_hello(tester: &mut Tester<'_>) -> Verdict {
    let mut long = hello(LIMITS);
    long.resize(257, 0);
    greeted_with(tester, &long)?.expect_close_of(&["HEL-2", "FRM-2"])
}

fn limits_out_of_range(tester: &mut Tester<'_>) -> Verdict {
    let wrong = [
        Limits { max_message: 63, ..LIMITS },
        Limits { imports: (1 << 24) + 1, ..LIMITS },
        Limits { levels: 0, ..LIMITS },
    ];
    wrong.into_iter().try_for_each(|limits| greeted_with(tester, &hello(limits))?.expect_close_of(&["HEL-3", "MSG-1"]))
}

fn least_limits(tester: &mut Tester<'_>) -> Verdict {
    let least = Limits { max_message: 64, imports: 0, answers: 0, call_bytes: 0, handles: 0, levels: 1 };
    tester.open_with(least)?.fence()
}

fn echo_of_hello(tester: &mut Tester<'_>) -> Verdict {
    let mut peer = tester.raw()?;
    let theirs = peer.expect_hello()?;
    peer.send_bytes(&PREAMBLE);
    peer.send_bytes(&record(&wire::body(|writer: &mut Writer<'_>| {
        let limits = theirs.limits;
        writer.byte(16);
        writer.varint(theirs.version_min.into());
        writer.varint(theirs.version_max.into());
        writer.varint(0); // the features are no part of who it is
        [limits.max_message, limits.imports, limits.answers.into(), limits.call_bytes, limits.handles.into()]
            .iter()
            .for_each(|limit| writer.varint((*limit).into()));
        writer.varint(limits.levels.into());
        writer.put(theirs.peer.as_bytes());
        writer.varint(theirs.incarnation);
    })));
    peer.expect_end()
}

fn nothing_after_a_fault(peer: &mut Peer) -> Verdict {
    let counter = peer.make("counter", &[])?;
    // A Return that nobody waits for, and calls right behind it.
    let add = |id: u16| Call::method(id, counter, "add", &[]).body();
    peer.send_together([vec![1, 9], add(1), add(2)]);
    peer.expect_close("CAL-2")
}

fn close_fits(tester: &mut Tester<'_>) -> Verdict {
    let small = Limits { max_message: 64, ..LIMITS };
    let mut peer = tester.open_with(small)?;
    peer.send(vec![1, 9]);
    // The referee sees to its length.
    peer.expect_close("CAL-2")
}

fn our_close(peer: &mut Peer) -> Verdict {
    let slow = peer.make("slow", &[])?;
    peer.method(1, slow, "wait", &[text("never")]);
    peer.send(vec![17, 0, 0, 0]);
    peer.expect_end()?;
    check(peer.arrivals().iter().all(|id| *id != 1), "no Return after our Close", peer.arrivals())
}

fn end_of_stream(peer: &mut Peer) -> Verdict {
    let slow = peer.make("slow", &[])?;
    peer.method(1, slow, "wait", &[text("never")]);
    peer.call(2, ROOT, Op::Describe, &[]);
    peer.send(finishing(&[(1, FinishMode::Abandon)]));
    peer.expect_return(2)?;
    peer.end();
    peer.expect_end()
}
