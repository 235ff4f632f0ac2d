//! Handles: identity, coming home, staleness (SPEC section 5, REF).

use farref_core::message::{Descriptor, ErrorCode, Limits, Op};

use super::Case;
use super::messages::each_ends_the_session;
use crate::suite::peer::{LIMITS, Peer, Tester, Verdict, as_theirs, check, same};
use crate::suite::wire::{Call, ROOT, Theirs, Value, answer, int, mine, mine_of, returning, text, tuple};

pub(super) const CASES: &[Case] = &[
    Case::new("REF-1/one-object-is-one-slot", one_object_is_one_slot),
    Case::connecting("REF-2/lists-of-handles-are-checked", bad_lists),
    Case::new("REF-2/handles-of-all-kinds-in-one-message", handles_of_all_kinds),
    Case::new("REF-3/handles-of-a-refused-call-go-back", handles_of_refused_calls),
    Case::new("REF-3/handles-of-malformed-values-go-back", handles_of_malformed_values),
    Case::new("REF-3/handles-of-an-unwanted-return-go-back", handles_of_unwanted_returns),
    Case::new("REF-3/handle-listed-twice-is-one", handle_listed_twice),
    Case::connecting("REF-4/return-that-fails-takes-no-slot", failed_return_takes_no_slot),
    Case::new("REF-5/coming-home-is-the-object-itself", coming_home),
    Case::new("REF-5/stale-target-fails-its-call-alone", stale_target),
    Case::new("REF-5/stale-argument-fails-its-call-alone", stale_argument),
    Case::new("REF-5/stale-result-fails-its-call-alone", stale_result),
    Case::new("REF-6/slot-beyond-the-limit-ends-the-session", slot_beyond_the_limit),
    Case::new("REF-6/live-slot-in-another-generation-ends-the-session", another_generation),
    Case::new("REF-7/directory-is-an-ordinary-object", directory_is_ordinary),
    Case::new("REF-7/directory-is-never-released", directory_is_never_released),
    Case::connecting("REF-7/directory-has-one-generation", directory_has_one_generation),
    Case::connecting("REF-7/directory-takes-one-number-of-imports", room_for_others),
];

fn one_object_is_one_slot(peer: &mut Peer) -> Verdict {
    let maker = peer.make("maker", &[])?;
    let thing = as_theirs(&peer.ask_method(maker, "hold", &[])?)?;
    let again = as_theirs(&peer.ask_method(maker, "held", &[])?)?;
    same("the handle of the same object", &thing, &again)?;
    let other = as_theirs(&peer.ask_method(maker, "make", &[])?)?;
    check(other.slot != thing.slot, "another object to have another slot", other)
}

fn bad_lists(tester: &mut Tester<'_>) -> Verdict {
    let bodies: &[&[u8]] = &[
        // An empty list, one cut short, the reserved kind, generation 0 written out, a promise with a generation.
        &[0x40, 1, 0, 0, 0],
        &[0x40, 1, 0, 0, 2, 1 << 3],
        &[0x40, 1, 0, 0, 1, 3],
        &[0x40, 1, 0, 0, 1, 1 << 3 | 4, 0],
        &[0x40, 1, 0, 0, 1, 6, 1],
        // A target that is reserved, and one whose generation 0 is written out.
        &[0, 1, 3, 5],
        &[0, 1, 1, 0, 5],
    ];
    each_ends_the_session(tester, bodies, &["MSG-1", "REF-2"])?;
    // Only a Call names answers.
    let mut peer = tester.open()?;
    let caller = peer.root("caller")?;
    peer.method(1, caller, "once", &[mine(1)]);
    let call = peer.expect_call_of(1)?;
    peer.send(returning(call.id, &answer(1)));
    peer.expect_close_of(&["MSG-1", "REF-2"])
}

fn handles_of_all_kinds(peer: &mut Peer) -> Verdict {
    let maker = peer.make("maker", &[])?;
    let all = [mine(5), maker.home(), answer(1)];
    let promise = Call::method(1, ROOT, "echo", &[int(7)]).pipelined();
    peer.send_together([promise.body(), Call::method(2, ROOT, "echo", &all).body()]);
    let home = Value::Reference(Descriptor::Receiver { slot: 5, generation: 0 });
    let there = Value::Reference(Descriptor::Sender { slot: maker.slot, generation: maker.generation });
    peer.expect_value(2, &tuple([home, there, int(7)]))?;
    peer.expect_released(5).map(drop)
}

fn handles_of_refused_calls(peer: &mut Peer) -> Verdict {
    let counter = peer.make("counter", &[])?;
    let unknown = Theirs { slot: counter.slot + 700, generation: 0 };
    peer.method(1, counter, "nothing", &[mine(1)]);
    peer.expect_error(1, ErrorCode::NoSuchMember)?;
    peer.method(1, counter, "add", &[mine(2)]);
    peer.expect_error(1, ErrorCode::BadArguments)?;
    peer.method(1, unknown, "add", &[mine(3)]);
    peer.expect_error(1, ErrorCode::NoSuchObject)?;
    (1..=3).try_for_each(|slot| peer.expect_released(slot).map(drop))
}

fn handles_of_malformed_values(peer: &mut Peer) -> Verdict {
    // GetAttr of the directory: one handle, slot 9, and a reserved tag.
    peer.send([0x40, 1, 0, 1, 1, 9 << 3, 0x10]);
    peer.expect_error(1, ErrorCode::Malformed)?;
    peer.expect_released(9)?;
    peer.fence()
}

fn handles_of_unwanted_returns(peer: &mut Peer) -> Verdict {
    let caller = peer.root("caller")?;
    peer.method(1, caller, "abandon", &[mine(1)]);
    let call = peer.expect_call_of(1)?;
    peer.expect_finished(call.id)?;
    peer.reply(&call, &mine(2));
    peer.expect_return(1)?;
    peer.expect_released(2)?;
    peer.expect_released(1).map(drop)
}

fn handle_listed_twice(peer: &mut Peer) -> Verdict {
    let home = || Value::Reference(Descriptor::Receiver { slot: 3, generation: 0 });
    peer.method(1, ROOT, "echo", &[mine(3), mine(3)]);
    peer.expect_value(1, &tuple([home(), home()]))?;
    peer.expect_released(3)?;
    peer.fence()?;
    check(peer.released().is_empty(), "one Release", peer.released())
}

fn failed_return_takes_no_slot(tester: &mut Tester<'_>) -> Verdict {
    // The directory's number, the maker, and two more.
    let mut peer = tester.open_with(Limits { imports: 4, ..LIMITS })?;
    let maker = peer.make("maker", &[])?;
    peer.method(1, maker, "make_many", &[int(5)]);
    peer.expect_error(1, ErrorCode::TableFull)?;
    let first = as_theirs(&peer.ask_method(maker, "make", &[])?)?;
    let second = as_theirs(&peer.ask_method(maker, "make", &[])?)?;
    check(first.slot != second.slot, "two slots", (first, second))?;
    same("their generations", &(0, 0), &(first.generation, second.generation))?;
    peer.method(1, maker, "make", &[]);
    peer.expect_error(1, ErrorCode::TableFull)?;
    peer.until(maker, "alive", &int(2))
}

fn coming_home(peer: &mut Peer) -> Verdict {
    let maker = peer.make("maker", &[])?;
    let thing = as_theirs(&peer.ask_method(maker, "make", &[])?)?;
    let caller = peer.root("caller")?;
    // The subject calls it without asking us, and it is equal to itself.
    let number = peer.ask_method(caller, "once", &[thing.home()])?;
    same("what the thing gives", &int(1), &number)?;
    let equal = peer.ask(thing, Op::Equals, &[thing.home()])?;
    same("whether the thing is itself", &Value::Bool(true), &equal)?;
    let other = peer.ask_method(maker, "make", &[])?;
    let equal = peer.ask(thing, Op::Equals, &[as_theirs(&other)?.home()])?;
    same("whether it is another", &Value::Bool(false), &equal)
}

fn stale_target(peer: &mut Peer) -> Verdict {
    let maker = peer.make("maker", &[])?;
    let thing = as_theirs(&peer.ask_method(maker, "make", &[])?)?;
    let later = Theirs { generation: thing.generation + 1, ..thing };
    let unknown = [Theirs { slot: u32::MAX, generation: 0 }, Theirs { slot: 0xFFFF, generation: 3 }, later];
    let stale = |peer: &mut Peer, target: Theirs| {
        peer.call(1, target, Op::Call, &[]);
        let values = peer.expect_error(1, ErrorCode::NoSuchObject)?;
        check(values.is_empty(), "no values with NoSuchObject", values)
    };
    unknown.into_iter().try_for_each(|target| stale(peer, target))?;
    same("the thing meanwhile", &int(1), &peer.ask(thing, Op::Call, &[])?)?;
    peer.release(&[thing]);
    stale(peer, thing)?;
    let reused = as_theirs(&peer.ask_method(maker, "make", &[])?)?;
    stale(peer, thing)?;
    same("the next thing", &int(2), &peer.ask(reused, Op::Call, &[])?)
}

fn stale_argument(peer: &mut Peer) -> Verdict {
    let counter = peer.make("counter", &[])?;
    let keeper = peer.make("keeper", &[])?;
    let unknown = Theirs { slot: counter.slot + 700, generation: 0 };
    peer.method(1, keeper, "keep", &[text("x"), unknown.home()]);
    peer.expect_error(1, ErrorCode::NoSuchObject)?;
    same("what is kept", &int(0), &peer.ask(keeper, Op::Length, &[])?)
}

fn stale_result(peer: &mut Peer) -> Verdict {
    let caller = peer.root("caller")?;
    peer.method(1, caller, "catch", &[mine(1)]);
    let call = peer.expect_call_of(1)?;
    peer.reply(&call, &Theirs { slot: caller.slot + 700, generation: 0 }.home());
    let code = ErrorCode::NoSuchObject.number() as i64;
    peer.expect_value(1, &tuple([int(code)]))?;
    peer.fence()
}

fn slot_beyond_the_limit(peer: &mut Peer) -> Verdict {
    let beyond = peer.theirs().imports;
    let last = peer.ask_method(ROOT, "echo", &[mine(beyond - 1)])?;
    same("the last slot, home", &Value::Reference(Descriptor::Receiver { slot: beyond - 1, generation: 0 }), &last)?;
    peer.method(1, ROOT, "echo", &[mine(beyond)]);
    peer.expect_close("REF-6")
}

fn another_generation(peer: &mut Peer) -> Verdict {
    let keeper = peer.make("keeper", &[])?;
    peer.ask_method(keeper, "keep", &[text("x"), mine_of(1, 7)])?;
    peer.ask_method(keeper, "keep", &[text("y"), mine_of(1, 7)])?;
    peer.method(1, keeper, "keep", &[text("z"), mine_of(1, 8)]);
    peer.expect_close("REF-6")
}

fn directory_is_ordinary(peer: &mut Peer) -> Verdict {
    let there = peer.ask_method(ROOT, "echo", &[ROOT.home()])?;
    same("the subject's directory", &ROOT, &as_theirs(&there)?)?;
    let here = peer.ask_method(ROOT, "echo", &[mine(0)])?;
    same("our directory", &Value::Reference(Descriptor::Receiver { slot: 0, generation: 0 }), &here)?;
    let caller = peer.root("caller")?;
    peer.method(1, caller, "once", &[mine(0), text("hello")]);
    let call = peer.expect_call_of(0)?;
    same("its arguments", &[text("hello")][..], &call.args)?;
    peer.reply(&call, &int(5));
    peer.expect_value(1, &int(5))
}

fn directory_is_never_released(peer: &mut Peer) -> Verdict {
    let keeper = peer.make("keeper", &[])?;
    peer.ask_method(keeper, "keep", &[text("directory"), mine(0)])?;
    peer.ask_method(keeper, "keep", &[text("other"), mine(1)])?;
    peer.ask_method(keeper, "drop", &[text("directory")])?;
    peer.ask_method(keeper, "drop", &[text("other")])?;
    peer.expect_released(1)?;
    peer.fence()?;
    check(peer.released().is_empty(), "no other Release", peer.released())
}

fn directory_has_one_generation(tester: &mut Tester<'_>) -> Verdict {
    let mut peer = tester.open()?;
    peer.call(1, Theirs { slot: 0, generation: 5 }, Op::Length, &[]);
    peer.expect_error(1, ErrorCode::NoSuchObject)?;
    peer.method(1, ROOT, "echo", &[mine_of(0, 1)]);
    peer.expect_close("REF-6")
}

fn room_for_others(tester: &mut Tester<'_>) -> Verdict {
    let mut peer = tester.open_with(Limits { imports: 3, ..LIMITS })?;
    let maker = peer.make("maker", &[])?;
    let thing = as_theirs(&peer.ask_method(maker, "make", &[])?)?;
    peer.method(1, maker, "make", &[]);
    peer.expect_error(1, ErrorCode::TableFull)?;
    // The directory needs no room.
    same("the directory", &ROOT, &as_theirs(&peer.ask_method(ROOT, "echo", &[ROOT.home()])?)?)?;
    peer.release(&[thing]);
    let next = as_theirs(&peer.ask_method(maker, "make", &[])?)?;
    same("the slot that was freed", &thing.slot, &next.slot)
}
