//! Messages: envelopes, ordinals, unknown kinds (SPEC sections 1 and 3).

use super::Case;
use crate::suite::peer::{Peer, Tester, Verdict, check, same};
use crate::suite::wire::{Call, ROOT, int, mine, text, tuple};

pub(super) const CASES: &[Case] = &[
    Case::connecting("PRM-1/fields-have-one-form", fields_in_longer_form),
    Case::connecting("PRM-2/lengths-and-text-are-checked", bad_texts),
    Case::connecting("MSG-1/undefined-flags-end-the-session", undefined_flags),
    Case::connecting("MSG-1/bytes-left-over-end-the-session", bytes_left_over),
    Case::connecting("MSG-1/cut-short-ends-the-session", cut_short),
    Case::connecting("MSG-1/extensions-are-checked", bad_extensions),
    Case::new("MSG-1/unknown-extension-keys-are-skipped", unknown_keys),
    Case::new("MSG-2/unknown-kinds-count-in-the-order", unknown_kinds_count),
    Case::new("MSG-3/unknown-kinds-are-skipped-and-told", unknown_kinds_are_told),
    Case::new("MSG-3/unimplemented-has-no-answer", unimplemented_has_no_answer),
    Case::new("MSG-4/handles-come-in-one-record", handles_in_one_record),
];

/// Each of these, on a connection of its own, ends the session for one of the rules.
pub(super) fn each_ends_the_session(tester: &mut Tester<'_>, bodies: &[&[u8]], rules: &[&str]) -> Verdict {
    bodies.iter().try_for_each(|body| {
        let mut peer = tester.open()?;
        peer.send(*body);
        let judged = peer.expect_close_of(rules);
        judged.map_err(|mut failure| {
            failure.expected = format!("{} after {body:02x?}", failure.expected);
            failure
        })
    })
}

fn fields_in_longer_form(tester: &mut Tester<'_>) -> Verdict {
    let bodies: &[&[u8]] = &[
        // A call id, a target, an op, a Finish and a Release with a zero group too many.
        &[0, 0x81, 0, 0, 5],
        &[0, 1, 0x80, 0, 5],
        &[0, 1, 0, 0x85, 0],
        &[2, 0x84, 0],
        &[3, 0x80, 0, 2],
        // A call id and a generation above 16 bits, an op above 32.
        &[0, 0x80, 0x80, 4, 0, 5],
        &[0, 1, 1, 0x80, 0x80, 4, 5],
        &[0, 1, 0, 0x80, 0x80, 0x80, 0x80, 0x10],
    ];
    each_ends_the_session(tester, bodies, &["MSG-1", "PRM-1"])
}

fn bad_texts(tester: &mut Tester<'_>) -> Verdict {
    let bodies: &[&[u8]] = &[
        // Close with texts that run past the end, that are no UTF-8, and a rule's id of 17 bytes.
        &[17, 1, 9, b'X'],
        &[17, 1, 0, 1, 0xFF],
        b"\x11\x01\x11XXXXXXXXXXXXXXXXX\x00",
        // An extension that is longer than the message.
        &[0x80, 1, 0, 5, 0x7F, 2, 0],
    ];
    each_ends_the_session(tester, bodies, &["MSG-1", "PRM-2", "CLS-1"])
}

fn undefined_flags(tester: &mut Tester<'_>) -> Verdict {
    let bodies: &[&[u8]] = &[&[0x22, 0], &[0x42, 0], &[0x23, 0, 2], &[0x83, 0, 2], &[0x24, 1], &[0x31, 0, 0, 0]];
    each_ends_the_session(tester, bodies, &["MSG-1"])
}

fn bytes_left_over(tester: &mut Tester<'_>) -> Verdict {
    each_ends_the_session(tester, &[&[4, 1, 1], &[17, 0, 0, 0, 0]], &["MSG-1"])
}

fn cut_short(tester: &mut Tester<'_>) -> Verdict {
    let bodies: &[&[u8]] = &[
        &[0],
        &[0, 1],
        &[0, 1, 0],
        &[1],
        &[0x21, 0],
        &[2],
        &[3],
        &[3, 0],
        &[3, 0, 3],
        &[4],
        // Unimplemented that names no kind.
        &[4, 0],
        &[17],
        &[17, 0, 0],
    ];
    each_ends_the_session(tester, bodies, &["MSG-1"])
}

fn bad_extensions(tester: &mut Tester<'_>) -> Verdict {
    let bodies: &[&[u8]] = &[
        // Empty, keys that do not ascend, a parent that is a blob, a blob past the end.
        &[0x80, 1, 0, 5, 0],
        &[0x80, 1, 0, 5, 4, 6 << 1, 0, 6 << 1, 0],
        &[0x80, 1, 0, 5, 3, 3, 1, 0],
        &[0x80, 1, 0, 5, 2, 15, 9],
    ];
    each_ends_the_session(tester, bodies, &["MSG-1"])
}

fn unknown_keys(peer: &mut Peer) -> Verdict {
    // A call of echo, with key 20 as a number and key 21 as a blob.
    peer.send([&[0x80, 1, 0, 4, 5, 20 << 1, 9, 21 << 1 | 1, 1, 0xAA], &b"\x44echo"[..], &[0x85]].concat());
    peer.expect_value(1, &int(5))
}

fn unknown_kinds_count(peer: &mut Peer) -> Verdict {
    let keeper = peer.make("keeper", &[])?;
    peer.ask_method(keeper, "keep", &[text("x"), mine(1)])?;
    // Sequenced ones count and others do not, whether they are known or not.
    (6..16).chain(25..32).for_each(|kind| peer.send([kind, 1, 2, 3]));
    peer.send([19]);
    peer.ask_method(keeper, "drop", &[text("x")])?;
    let dropped = peer.sent();
    let upto = peer.expect_released(1)?;
    check((dropped..=peer.sent()).contains(&upto), "the ordinal up to which the subject had received", upto)
}

fn unknown_kinds_are_told(peer: &mut Peer) -> Verdict {
    // With any flags and contents: only the length is known.
    peer.send_together([vec![0xE7], vec![12, 0xFF], vec![0xFE; 40], vec![30, 0]]);
    peer.fence()?;
    peer.expect_unimplemented(1 << 7 | 1 << 12 | 1 << 30)
}

fn unimplemented_has_no_answer(peer: &mut Peer) -> Verdict {
    let before = peer.received();
    peer.send([4, 0xA0, 1]);
    peer.fence()?;
    same("the messages that came", &(before + 1), &peer.received())
}

fn handles_in_one_record(peer: &mut Peer) -> Verdict {
    let count = peer.theirs().handles.min(48);
    let maker = peer.make("maker", &[])?;
    let before = peer.received();
    peer.method(1, maker, "make_many", &[int(count.into())]);
    let returned = peer.expect_returned(1)?;
    same("the handles of the Return", &usize::from(count), &returned.handles.len())?;
    same("the messages that came", &(before + 1), &peer.received())?;
    // And the other way.
    let ours: Vec<_> = (1..=u32::from(count)).map(mine).collect();
    peer.send(Call::method(1, ROOT, "echo", &[tuple(ours)]));
    let returned = peer.expect_returned(1)?;
    check(returned.handles.len() == usize::from(count), "all handles to come home", returned.handles.len())
}
