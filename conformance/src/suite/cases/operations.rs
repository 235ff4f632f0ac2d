//! Operations and the directory (SPEC sections 10 and 11).

use farref_core::message::{ErrorCode, Op, Target};

use super::Case;
use crate::suite::peer::{Peer, Verdict, as_theirs, check, same};
use crate::suite::wire::{Call, ROOT, Theirs, Value, int, mine, text, tuple};

pub(super) const CASES: &[Case] = &[
    Case::new("OPS-1/what-an-object-does-not-do", unsupported),
    Case::new("OPS-1/operands-are-checked", operands),
    Case::new("OPS-1/read-only-members-are-denied", read_only),
    Case::new("OPS-1/attributes-are-set-and-deleted", attributes),
    Case::new("OPS-1/text-equality-and-hash", text_equals_hash),
    Case::new("OPS-2/members-are-described", described),
    Case::new("OPS-3/member-by-name-by-number-and-as-an-op", three_ways),
    Case::new("OPS-3/names-reach-only-what-is-described", only_described),
    Case::new("OPS-4/force-gives-the-contents", force),
    Case::new("OPS-5/operations-on-a-string", on_a_string),
    Case::new("OPS-5/operations-on-bytes-and-tuples", on_bytes_and_tuples),
    Case::new("OPS-5/operations-on-contents", on_contents),
    Case::new("OPS-5/what-values-do-not-do", not_on_values),
    Case::new("OPS-1/items-by-index", items_by_index),
    Case::new("OPS-1/items-by-name", items_by_name),
    Case::new("OPS-1/iteration-in-batches", iteration),
    Case::new("OPS-1/subject-iterates-over-ours", subject_iterates),
    Case::new("DIR-1/roots-are-listed", roots_are_listed),
    Case::new("DIR-1/roots-by-attribute-item-and-call", roots_are_found),
    Case::new("DIR-1/unknown-root-is-no-such-member", unknown_root),
];

fn refused(peer: &mut Peer, call: Call, code: ErrorCode) -> Verdict<Vec<Value>> {
    let what = format!("{call:?}");
    peer.send(call);
    peer.expect_error(1, code).map_err(|mut failure| {
        failure.expected = format!("{} ({what})", failure.expected);
        failure
    })
}

fn unsupported(peer: &mut Peer) -> Verdict {
    let counter = peer.make("counter", &[])?;
    let ops = [Op::Call, Op::Length, Op::Iterate, Op::Force, Op::Hash].map(|op| (op, vec![]));
    let more = [
        (Op::GetItem, vec![int(0)]),
        (Op::SetItem, vec![int(0), int(1)]),
        (Op::DelItem, vec![int(0)]),
        (Op::Contains, vec![int(0)]),
        (Op::Next, vec![int(1)]),
        (Op::Equals, vec![int(1)]),
    ];
    let reserved = [18, 40, 63].map(|op| (Op::from_number(op), vec![int(1)]));
    for (op, args) in ops.into_iter().chain(more).chain(reserved) {
        let values = refused(peer, Call::new(1, counter, op).args(&args), ErrorCode::Unsupported)?;
        same("the op that is not supported", &[int(op.number() as i64)][..], &values)?;
    }
    same("what was added", &tuple([]), &peer.ask_method(counter, "history", &[])?)
}

fn operands(peer: &mut Peer) -> Verdict {
    let counter = peer.make("counter", &[])?;
    let source = peer.root("source")?;
    let items = as_theirs(&peer.ask_method(source, "items", &[int(3)])?)?;
    let iterator = as_theirs(&peer.ask(items, Op::Iterate, &[])?)?;
    let wrong = [
        (counter, Op::GetAttr, vec![]),
        (counter, Op::GetAttr, vec![text("value"), int(1)]),
        (counter, Op::GetAttr, vec![Value::Float(1.0)]),
        (counter, Op::SetAttr, vec![text("value")]),
        (counter, Op::SetAttr, vec![text("value"), text("five")]),
        (counter, Op::CallMethod, vec![]),
        (counter, Op::CallMethod, vec![text("add"), text("five")]),
        (counter, Op::Text, vec![int(5)]),
        (items, Op::Length, vec![int(1)]),
        (items, Op::GetItem, vec![]),
        (items, Op::GetItem, vec![text("a")]),
        (items, Op::Force, vec![Value::None]),
        (iterator, Op::Next, vec![]),
        (iterator, Op::Next, vec![int(0)]),
        (iterator, Op::Next, vec![int(-1)]),
        (iterator, Op::Next, vec![text("all")]),
        (ROOT, Op::Describe, vec![int(1)]),
    ];
    for (target, op, args) in wrong {
        let values = refused(peer, Call::new(1, target, op).args(&args), ErrorCode::BadArguments)?;
        check(matches!(values[..], [Value::Str(_)]), "a text with BadArguments", values)?;
    }
    same("the sum", &int(0), &peer.ask(counter, Op::GetAttr, &[text("value")])?)
}

fn read_only(peer: &mut Peer) -> Verdict {
    let counter = peer.make("counter", &[])?;
    for member in ["name", "step", "add"] {
        let set = Call::new(1, counter, Op::SetAttr).args(&[text(member), int(5)]);
        let values = refused(peer, set, ErrorCode::AccessDenied)?;
        check(matches!(values[..], [Value::Str(_)]), "a text with AccessDenied", values)?;
        refused(peer, Call::new(1, counter, Op::DelAttr).args(&[text(member)]), ErrorCode::AccessDenied)?;
    }
    same("the name", &text("counter"), &peer.ask(counter, Op::GetAttr, &[text("name")])?)?;
    same("the step", &int(1), &peer.ask(counter, Op::GetAttr, &[text("step")])?)
}

fn attributes(peer: &mut Peer) -> Verdict {
    let counter = peer.make("counter", &[int(5)])?;
    same("the sum", &int(5), &peer.ask(counter, Op::GetAttr, &[text("value")])?)?;
    same("a set", &Value::None, &peer.ask(counter, Op::SetAttr, &[text("value"), int(40)])?)?;
    same("the sum", &int(42), &peer.ask_method(counter, "add", &[int(2)])?)?;
    same("a deletion", &Value::None, &peer.ask(counter, Op::DelAttr, &[text("value")])?)?;
    same("the sum", &int(0), &peer.ask(counter, Op::GetAttr, &[text("value")])?)?;
    peer.send(Call::method(1, counter, "add", &[]).named("number", int(9)));
    peer.expect_value(1, &int(9))
}

fn text_equals_hash(peer: &mut Peer) -> Verdict {
    let counter = peer.make("counter", &[int(5)])?;
    same("the text", &text("5"), &peer.ask(counter, Op::Text, &[])?)?;
    same("the text", &text("5"), &peer.ask(counter, Op::Text, &[Value::Bool(false)])?)?;
    same("the exact text", &text("<counter>"), &peer.ask(counter, Op::Text, &[Value::Bool(true)])?)?;
    let maker = peer.make("maker", &[])?;
    let thing = as_theirs(&peer.ask_method(maker, "make", &[])?)?;
    same("its hash", &int(1), &peer.ask(thing, Op::Hash, &[])?)?;
    same("whether it is itself", &Value::Bool(true), &peer.ask(thing, Op::Equals, &[thing.home()])?)?;
    same("whether it is another", &Value::Bool(false), &peer.ask(thing, Op::Equals, &[counter.home()])?)?;
    same("whether it is 1", &Value::NotImplemented, &peer.ask(thing, Op::Equals, &[int(1)])?)?;
    same("whether it is ours", &Value::NotImplemented, &peer.ask(thing, Op::Equals, &[mine(1)])?)?;
    peer.expect_released(1).map(drop)
}

/// Names and kinds of the members of an object.
fn members(peer: &mut Peer, target: Theirs) -> Verdict<Vec<(String, i64)>> {
    let Value::Tuple(members) = peer.ask(target, Op::Describe, &[])? else {
        return check(false, "a tuple of members", "something else").map(|()| Vec::new());
    };
    let described = members.into_iter().map(|member| match &member {
        Value::Tuple(parts) => match &parts[..] {
            [Value::Str(name), Value::Int(kind @ 0..=3), Value::Str(_)] => Ok((name.clone(), *kind)),
            _ => check(false, "(name, kind, documentation)", &member).map(|()| Default::default()),
        },
        _ => check(false, "(name, kind, documentation)", &member).map(|()| Default::default()),
    });
    described.collect()
}

fn described(peer: &mut Peer) -> Verdict {
    let counter = peer.make("counter", &[int(5)])?;
    let expected = [("add", 0), ("value", 2), ("name", 1), ("step", 3), ("history", 0)];
    let expected = expected.map(|(name, kind)| (name.to_owned(), kind));
    same("the members", &expected[..], &members(peer, counter)?)?;
    // They are numbered in this order.
    same("member 1", &int(5), &peer.ask(counter, Op::GetAttr, &[int(1)])?)?;
    same("member 2", &text("counter"), &peer.ask(counter, Op::GetAttr, &[int(2)])?)?;
    same("a set of member 1", &Value::None, &peer.ask(counter, Op::SetAttr, &[int(1), int(7)])?)?;
    same("member 1", &int(7), &peer.ask(counter, Op::GetAttr, &[int(1)])?)
}

fn three_ways(peer: &mut Peer) -> Verdict {
    let counter = peer.make("counter", &[])?;
    same("the sum", &int(1), &peer.ask(counter, Op::CallMethod, &[text("add"), int(1)])?)?;
    same("the sum", &int(3), &peer.ask(counter, Op::CallMethod, &[int(0), int(2)])?)?;
    same("the sum", &int(6), &peer.ask(counter, Op::member(0), &[int(3)])?)?;
    peer.send(Call::new(1, counter, Op::member(0)).named("number", int(4)));
    peer.expect_value(1, &int(10))?;
    let history = tuple([int(1), int(2), int(3), int(4)]);
    same("what was added", &history, &peer.ask(counter, Op::member(4), &[])?)
}

fn only_described(peer: &mut Peer) -> Verdict {
    let counter = peer.make("counter", &[])?;
    let names = ["", "Add", "add ", "__class__", "__init__", "perform", "history\0"].map(text);
    let numbers = [int(5), int(-1), int(i64::MAX)];
    for member in names.into_iter().chain(numbers) {
        for op in [Op::GetAttr, Op::DelAttr, Op::CallMethod] {
            let call = Call::new(1, counter, op).args(std::slice::from_ref(&member));
            let values = refused(peer, call, ErrorCode::NoSuchMember)?;
            same("the member that is not there", std::slice::from_ref(&member), &values[..])?;
        }
    }
    let values = refused(peer, Call::new(1, counter, Op::member(5)), ErrorCode::NoSuchMember)?;
    same("the member that is not there", &[int(5)][..], &values)?;
    let far = Call::new(1, counter, Op::from_number(u32::MAX));
    refused(peer, far, ErrorCode::NoSuchMember).map(drop)
}

fn force(peer: &mut Peer) -> Verdict {
    let source = peer.root("source")?;
    let items = as_theirs(&peer.ask_method(source, "items", &[int(20)])?)?;
    let before = peer.received();
    let contents = Value::List((0..20).map(int).collect());
    same("the contents", &contents, &peer.ask(items, Op::Force, &[])?)?;
    same("the messages that came", &(before + 1), &peer.received())?;
    // Items with identity are references.
    let keeper = peer.make("keeper", &[])?;
    peer.ask_method(keeper, "keep", &[text("ours"), mine(1)])?;
    peer.ask_method(keeper, "keep", &[text("theirs"), items.home()])?;
    let Value::Map(entries) = peer.ask(keeper, Op::Force, &[])? else { return check(false, "a map", "another value") };
    let ours = farref_core::message::Descriptor::Receiver { slot: 1, generation: 0 };
    let theirs = farref_core::message::Descriptor::Sender { slot: items.slot, generation: items.generation };
    let expected = [(text("ours"), Value::Reference(ours)), (text("theirs"), Value::Reference(theirs))];
    check(entries.len() == 2 && expected.iter().all(|entry| entries.contains(entry)), "both entries", &entries)
}

/// Call 1 settles to a value, and call 2 is an operation on it that is sent with it.
fn on_value(peer: &mut Peer, value: &Value, op: Op, args: &[Value]) {
    peer.send_together([
        Call::method(1, ROOT, "echo", std::slice::from_ref(value)).pipelined().body(),
        Call::new(2, Target::Answer(1), op).args(args).body(),
    ]);
}

fn gives(peer: &mut Peer, value: &Value, op: Op, args: &[Value], expected: Value) -> Verdict {
    on_value(peer, value, op, args);
    peer.expect_value(1, value)?;
    let got = peer.expect_return(2)?;
    same(&format!("{op} {args:?} of {value:?}"), &expected, &got)?;
    peer.finish(1);
    Ok(())
}

fn raises(peer: &mut Peer, value: &Value, op: Op, key: &Value, name: &str) -> Verdict {
    on_value(peer, value, op, std::slice::from_ref(key));
    peer.expect_value(1, value)?;
    peer.expect_raised(2, name)?;
    peer.finish(1);
    Ok(())
}

fn is_refused(peer: &mut Peer, value: &Value, op: Op, args: &[Value], code: ErrorCode) -> Verdict {
    on_value(peer, value, op, args);
    peer.expect_value(1, value)?;
    let refused = peer.expect_error(2, code).map_err(|mut failure| {
        failure.expected = format!("{} ({op} {args:?} of {value:?})", failure.expected);
        failure
    });
    peer.finish(1);
    refused.map(drop)
}

fn on_a_string(peer: &mut Peer) -> Verdict {
    let word = text("h\u{e9}llo");
    gives(peer, &word, Op::Length, &[], int(5))?;
    gives(peer, &word, Op::GetItem, &[int(1)], text("\u{e9}"))?;
    gives(peer, &word, Op::GetItem, &[int(-1)], text("o"))?;
    gives(peer, &word, Op::Contains, &[text("\u{e9}ll")], Value::Bool(true))?;
    gives(peer, &word, Op::Contains, &[text("lh")], Value::Bool(false))?;
    gives(peer, &word, Op::Equals, std::slice::from_ref(&word), Value::Bool(true))?;
    gives(peer, &word, Op::Equals, &[text("hello")], Value::Bool(false))?;
    gives(peer, &word, Op::Text, &[], word.clone())?;
    gives(peer, &word, Op::Force, &[], word.clone())?;
    raises(peer, &word, Op::GetItem, &int(5), "IndexError")?;
    raises(peer, &word, Op::GetItem, &int(-6), "IndexError")?;
    is_refused(peer, &word, Op::GetItem, &[text("a")], ErrorCode::BadArguments)
}

fn on_bytes_and_tuples(peer: &mut Peer) -> Verdict {
    let bytes = Value::Bytes(vec![1, 2, 255]);
    gives(peer, &bytes, Op::Length, &[], int(3))?;
    gives(peer, &bytes, Op::GetItem, &[int(-1)], int(255))?;
    gives(peer, &bytes, Op::Contains, &[int(2)], Value::Bool(true))?;
    gives(peer, &bytes, Op::Contains, &[int(3)], Value::Bool(false))?;
    raises(peer, &bytes, Op::GetItem, &int(3), "IndexError")?;
    let items = tuple([int(1), text("a"), tuple([int(2)])]);
    gives(peer, &items, Op::Length, &[], int(3))?;
    gives(peer, &items, Op::GetItem, &[int(2)], tuple([int(2)]))?;
    gives(peer, &items, Op::GetItem, &[int(-3)], int(1))?;
    gives(peer, &items, Op::Contains, &[tuple([int(2)])], Value::Bool(true))?;
    gives(peer, &items, Op::Contains, &[int(2)], Value::Bool(false))?;
    gives(peer, &items, Op::Force, &[], items.clone())?;
    raises(peer, &items, Op::GetItem, &int(3), "IndexError")?;
    // Equal are those with equal encodings: 1 is not 1.0.
    gives(peer, &int(1), Op::Equals, &[int(1)], Value::Bool(true))?;
    gives(peer, &int(1), Op::Equals, &[Value::Float(1.0)], Value::Bool(false))?;
    gives(peer, &Value::Float(f64::INFINITY), Op::Equals, &[Value::Float(f64::INFINITY)], Value::Bool(true))
}

fn on_contents(peer: &mut Peer) -> Verdict {
    let list = Value::List(vec![int(1), text("a")]);
    gives(peer, &list, Op::GetItem, &[int(1)], text("a"))?;
    gives(peer, &list, Op::Contains, &[int(1)], Value::Bool(true))?;
    let map = Value::Map(vec![(text("a"), int(1)), (tuple([int(1)]), text("b"))]);
    gives(peer, &map, Op::Length, &[], int(2))?;
    gives(peer, &map, Op::GetItem, &[tuple([int(1)])], text("b"))?;
    gives(peer, &map, Op::Contains, &[text("a")], Value::Bool(true))?;
    gives(peer, &map, Op::Contains, &[int(1)], Value::Bool(false))?;
    gives(peer, &map, Op::Force, &[], map.clone())?;
    raises(peer, &map, Op::GetItem, &text("b"), "KeyError")?;
    let set = Value::Set(vec![int(3), int(1)]);
    gives(peer, &set, Op::Length, &[], int(2))?;
    gives(peer, &set, Op::Contains, &[int(3)], Value::Bool(true))
}

fn not_on_values(peer: &mut Peer) -> Verdict {
    let ops = [
        (Op::Call, vec![]),
        (Op::GetAttr, vec![text("real")]),
        (Op::SetAttr, vec![text("real"), int(1)]),
        (Op::CallMethod, vec![text("upper")]),
        (Op::SetItem, vec![int(0), int(1)]),
        (Op::DelItem, vec![int(0)]),
        (Op::Iterate, vec![]),
        (Op::Next, vec![int(1)]),
        (Op::Hash, vec![]),
        (Op::Describe, vec![]),
        (Op::from_number(20), vec![]),
        (Op::member(0), vec![]),
    ];
    for (op, args) in ops {
        is_refused(peer, &text("word"), op, &args, ErrorCode::Unsupported)?;
    }
    is_refused(peer, &int(5), Op::Length, &[], ErrorCode::Unsupported)?;
    is_refused(peer, &text("word"), Op::Length, &[int(1)], ErrorCode::BadArguments)
}

fn items_by_index(peer: &mut Peer) -> Verdict {
    let source = peer.root("source")?;
    let items = as_theirs(&peer.ask_method(source, "items", &[int(10)])?)?;
    same("the length", &int(10), &peer.ask(items, Op::Length, &[])?)?;
    same("an item", &int(7), &peer.ask(items, Op::GetItem, &[int(7)])?)?;
    same("the last item", &int(9), &peer.ask(items, Op::GetItem, &[int(-1)])?)?;
    same("whether 9 is in it", &Value::Bool(true), &peer.ask(items, Op::Contains, &[int(9)])?)?;
    same("whether 10 is in it", &Value::Bool(false), &peer.ask(items, Op::Contains, &[int(10)])?)?;
    peer.call(1, items, Op::GetItem, &[int(-11)]);
    peer.expect_raised(1, "IndexError").map(drop)
}

fn items_by_name(peer: &mut Peer) -> Verdict {
    let keeper = peer.make("keeper", &[])?;
    same("a set", &Value::None, &peer.ask(keeper, Op::SetItem, &[text("a"), int(1)])?)?;
    same("the item", &int(1), &peer.ask(keeper, Op::GetItem, &[text("a")])?)?;
    same("whether it is there", &Value::Bool(true), &peer.ask(keeper, Op::Contains, &[text("a")])?)?;
    same("the length", &int(1), &peer.ask(keeper, Op::Length, &[])?)?;
    same("a deletion", &Value::None, &peer.ask(keeper, Op::DelItem, &[text("a")])?)?;
    same("whether it is there", &Value::Bool(false), &peer.ask(keeper, Op::Contains, &[text("a")])?)?;
    for op in [Op::GetItem, Op::DelItem] {
        peer.call(1, keeper, op, &[text("a")]);
        peer.expect_raised(1, "KeyError")?;
    }
    Ok(())
}

fn iteration(peer: &mut Peer) -> Verdict {
    let source = peer.root("source")?;
    // The iterator is asked before it is there.
    peer.send_together([
        Call::method(1, source, "items", &[int(7)]).pipelined().body(),
        Call::new(2, Target::Answer(1), Op::Iterate).pipelined().body(),
        Call::new(3, Target::Answer(2), Op::Next).args(&[int(3)]).body(),
    ]);
    let first = peer.expect_return(3)?;
    let iterator = peer.expect_object(2)?;
    let mut seen = Vec::new();
    let mut batch = first;
    loop {
        let Value::Tuple(items) = batch else { return check(false, "a tuple of items", batch) };
        check(items.len() <= 3, "at most three items", &items)?;
        if items.is_empty() {
            break;
        }
        seen.extend(items);
        batch = peer.ask(iterator, Op::Next, &[int(3)])?;
    }
    same("the items", &(0..7).map(int).collect::<Vec<_>>(), &seen)?;
    same("what comes after the end", &tuple([]), &peer.ask(iterator, Op::Next, &[int(3)])?)
}

fn subject_iterates(peer: &mut Peer) -> Verdict {
    let sink = peer.root("sink")?;
    peer.method(1, sink, "drain", &[mine(1)]);
    let call = peer.expect_call_of(1)?;
    same("the operation", &Op::Iterate, &call.op)?;
    peer.reply(&call, &mine(2));
    let mut left: i64 = 10;
    loop {
        let call = peer.expect_call()?;
        same("the operation", &Op::Next, &call.op)?;
        let most = match call.args[..] {
            [Value::Int(most @ 1..)] => most,
            _ => return check(false, "how many at most", &call.args),
        };
        // Fewer than it may have are fine; only none is the end.
        let count = left.min(most).min(4);
        peer.reply(&call, &tuple((0..count).map(int).collect::<Vec<_>>()));
        left -= count;
        if count == 0 {
            break;
        }
    }
    peer.expect_value(1, &int(10))?;
    (1..=2).try_for_each(|slot| peer.expect_released(slot).map(drop))
}

fn roots_are_listed(peer: &mut Peer) -> Verdict {
    let listed = members(peer, ROOT)?;
    let roots = ["caller", "counter", "echo", "keeper", "maker", "raiser", "sink", "slow", "source"];
    let missing: Vec<_> = roots.iter().filter(|root| !listed.iter().any(|(name, _)| name == *root)).collect();
    check(missing.is_empty(), "all roots of FIXTURES.md", format!("without {missing:?}"))
}

fn roots_are_found(peer: &mut Peer) -> Verdict {
    let echo = peer.root("echo")?;
    same("the root as an item", &echo, &as_theirs(&peer.ask(ROOT, Op::GetItem, &[text("echo")])?)?)?;
    let listed = members(peer, ROOT)?;
    let number = listed.iter().position(|(name, _)| name == "echo").unwrap_or_default() as i64;
    same("the root by number", &echo, &as_theirs(&peer.ask(ROOT, Op::GetAttr, &[int(number)])?)?)?;
    same("a call of the root", &int(5), &peer.ask(echo, Op::Call, &[int(5)])?)?;
    same("a call by name", &int(5), &peer.ask_method(ROOT, "echo", &[int(5)])?)?;
    let op = Op::member(u16::try_from(number).unwrap_or_default());
    same("a call by number", &int(5), &peer.ask(ROOT, op, &[int(5)])?)
}

fn unknown_root(peer: &mut Peer) -> Verdict {
    for op in [Op::GetAttr, Op::GetItem, Op::CallMethod] {
        let call = Call::new(1, ROOT, op).args(&[text("nothing")]);
        let values = refused(peer, call, ErrorCode::NoSuchMember)?;
        same("the name that is not there", &[text("nothing")][..], &values)?;
    }
    peer.fence()
}
