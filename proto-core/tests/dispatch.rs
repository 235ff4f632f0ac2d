//! Operations on objects and on the directory, as the dispatcher routes them.

use farref_conformance::fixtures::{Items, code, counter, echo, int, list, map, object, raiser, reference};
use farref_conformance::sim::{A, B, Failure, LIMITS, Owned, Sim};
use farref_core::dispatch::{Action, Member, MemberKind, Object};
use farref_core::message::{ErrorCode, Op};
use farref_core::session::{Call, Callee, Host, Import, Ref};
use farref_core::value::OwnedValue;

fn serving(object: impl Object + 'static) -> (Sim<Host>, Import) {
    Sim::new(LIMITS).serving(object)
}

fn tuple(items: &[Owned]) -> Owned {
    OwnedValue::Tuple(items.to_vec())
}

fn raised(outcome: Result<Owned, Failure>) -> String {
    let failure = outcome.unwrap_err();
    failure.exception().map(|(name, _)| name.to_owned()).unwrap_or_else(|| format!("{:?}", failure.code))
}

/// C07. OPS-2: attributes are read, set and deleted by name or number, and special methods are operations.
#[test]
fn c07_attributes_and_special_methods() {
    let (mut sim, x) = serving(counter());
    assert_eq!(sim.get(A, x, Op::GetAttr, &["value".into()]), Ok(int(0)));
    assert_eq!(sim.get(A, x, Op::SetAttr, &["value".into(), int(3)]), Ok(OwnedValue::None));
    assert_eq!(sim.get(A, x, Op::GetAttr, &[int(1)]), Ok(int(3)));
    assert_eq!(sim.get(A, x, Op::DelAttr, &[int(1)]), Ok(OwnedValue::None));
    assert_eq!(sim.get(A, x, Op::GetAttr, &["value".into()]), Ok(int(0)));
    assert_eq!(code(sim.get(A, x, Op::SetAttr, &["name".into(), int(3)])), ErrorCode::AccessDenied);
    assert_eq!(code(sim.get(A, x, Op::DelAttr, &["increment".into()])), ErrorCode::AccessDenied);
    assert_eq!(code(sim.get(A, x, Op::SetAttr, &["value".into()])), ErrorCode::BadArguments);
    sim.close(x);
    let board = Sim::<Host>::new(LIMITS).sides[B].board.clone();
    let items = Items::default();
    items.borrow_mut().extend((0..11).map(int));
    let (mut sim, x) = serving(list(&board, &items));
    assert_eq!(sim.get(A, x, Op::Length, &[]), Ok(int(11)));
    assert_eq!(sim.get(A, x, Op::GetItem, &[int(2)]), Ok(int(2)));
    assert_eq!(sim.get(A, x, Op::GetItem, &[int(-1)]), Ok(int(10)));
    assert_eq!(raised(sim.get(A, x, Op::GetItem, &[int(11)])), "IndexError");
    assert_eq!(sim.get(A, x, Op::SetItem, &[int(0), "first".into()]), Ok(OwnedValue::None));
    assert_eq!(sim.get(A, x, Op::DelItem, &[int(1)]), Ok(OwnedValue::None));
    assert_eq!(sim.get(A, x, Op::Contains, &["first".into()]), Ok(true.into()));
    assert_eq!(sim.get(A, x, Op::Contains, &[int(1)]), Ok(false.into()));
    assert_eq!(sim.get(A, x, Op::Text, &[]), Ok("a list of 10".into()));
    assert_eq!(sim.get(A, x, Op::Text, &[true.into()]), Ok("a list of 10".into()));
    assert_eq!(raised(sim.get(A, x, Op::Hash, &[])), "TypeError");
    let contents = OwnedValue::List(items.borrow().clone());
    assert_eq!(sim.get(A, x, Op::Equals, std::slice::from_ref(&contents)), Ok(true.into()));
    assert_eq!(sim.get(A, x, Op::Equals, &[OwnedValue::List(vec![])]), Ok(false.into()));
    assert_eq!(sim.get(A, x, Op::Equals, &[int(1)]), Ok(OwnedValue::NotImplemented));
    sim.close(x);
}

/// C22. OPS-3, DIR-1: an unknown name is a typed error that harms nothing, and so is an unknown number.
#[test]
fn c22_an_unknown_name_is_a_typed_error() {
    let (mut sim, x) = serving(counter());
    let missing = |name: Owned| Err(Failure { code: ErrorCode::NoSuchMember, values: vec![name] });
    for target in [Import::DIRECTORY, x] {
        for op in [Op::GetAttr, Op::CallMethod] {
            for name in ["nothing", "__reduce_ex__", ""] {
                assert_eq!(sim.get(A, target, op, &[name.into()]), missing(name.into()));
            }
            for number in [99, -1, i64::MAX, i64::MIN] {
                assert_eq!(sim.get(A, target, op, &[int(number)]), missing(int(number)));
            }
            for name in [vec![], vec![OwnedValue::None], vec![1.5.into()]] {
                assert_eq!(code(sim.get(A, target, op, &name)), ErrorCode::BadArguments);
            }
        }
        assert_eq!(sim.get(A, target, Op::member(9), &[]), missing(int(9)));
    }
    assert_eq!(sim.get(A, Import::DIRECTORY, Op::GetItem, &["nothing".into()]), missing("nothing".into()));
    assert_eq!(sim.get(A, x, Op::SetAttr, &["nothing".into(), int(1)]), missing("nothing".into()));
    assert_eq!(sim.get(A, x, Op::member(0), &[int(1)]), Ok(int(1)));
    sim.close(x);
}

/// C23. DIR-1, OPS-2: the directory lists its names, and describes them.
#[test]
fn c23_the_directory_lists_its_names() {
    let mut sim = Sim::<Host>::new(LIMITS);
    for name in ["x", "y"] {
        sim.sides[B].add_root(name, echo());
    }
    let directory = Import::DIRECTORY;
    let names = tuple(&["x".into(), "y".into()]);
    assert_eq!(sim.get(A, directory, Op::Force, &[]), Ok(names));
    assert_eq!(sim.get(A, directory, Op::Length, &[]), Ok(int(2)));
    assert_eq!(sim.get(A, directory, Op::Contains, &["y".into()]), Ok(true.into()));
    assert_eq!(sim.get(A, directory, Op::Contains, &["z".into()]), Ok(false.into()));
    let constant = int(MemberKind::Constant as i64);
    let row = |name: &str| tuple(&[name.into(), constant.clone(), "a root".into()]);
    assert_eq!(sim.get(A, directory, Op::Describe, &[]), Ok(tuple(&[row("x"), row("y")])));
    // Operands that an operation does not have are refused, as those of any object (OPS-1).
    for op in [Op::Force, Op::Length, Op::Describe] {
        assert_eq!(code(sim.get(A, directory, op, &[int(1)])), ErrorCode::BadArguments);
    }
    // Fetching by attribute or item, and calling in one.
    for op in [Op::GetAttr, Op::GetItem] {
        for name in ["y".into(), int(1)] {
            let returned = sim.ask(A, directory, op, &[name]);
            assert!(matches!(returned.outcome, Ok(OwnedValue::Reference(Ref::Import(_)))));
            sim.sides[A].release(&returned);
        }
    }
    assert_eq!(sim.get(A, directory, Op::CallMethod, &["x".into(), int(5)]), Ok(int(5)));
    assert_eq!(sim.get(A, directory, Op::member(1), &[int(6)]), Ok(int(6)));
    sim.assert_baseline();
}

/// OPS-1: an operation that the object does not have is `Unsupported`, names the op, and has no effect; reserved ones, too.
#[test]
fn what_an_object_does_not_do_is_unsupported() {
    let (mut sim, x) = serving(counter());
    for op in
        [Op::Call, Op::Length, Op::Iterate, Op::Hash, Op::Force, Op::Text, Op::from_number(17), Op::from_number(63)]
    {
        let failure = sim.get(A, x, op, &[]).unwrap_err();
        assert_eq!(failure, Failure { code: ErrorCode::Unsupported, values: vec![int(op.number() as i64)] });
    }
    assert_eq!(code(sim.get(A, Import::DIRECTORY, Op::SetAttr, &["x".into(), int(1)])), ErrorCode::Unsupported);
    assert_eq!(sim.get(A, x, Op::GetAttr, &["value".into()]), Ok(int(0)));
    sim.close(x);
}

/// OPS-2, OPS-3: Describe numbers the members; by name, by number and as CallMember it is the same operation.
#[test]
fn a_member_is_called_by_name_by_number_and_as_an_op() {
    let (mut sim, x) = serving(counter());
    let Ok(OwnedValue::Tuple(rows)) = sim.get(A, x, Op::Describe, &[]) else { panic!() };
    assert_eq!(rows[0], tuple(&["increment".into(), int(0), "adds and gives the sum".into()]));
    assert_eq!(rows[1], tuple(&["value".into(), int(2), "the count".into()]));
    assert_eq!(rows[2], tuple(&["name".into(), int(1), "always counter".into()]));
    assert_eq!(sim.get(A, x, Op::CallMethod, &["increment".into(), int(1)]), Ok(int(1)));
    assert_eq!(sim.get(A, x, Op::CallMethod, &[int(0), int(1)]), Ok(int(2)));
    assert_eq!(sim.get(A, x, Op::member(0), &[int(1)]), Ok(int(3)));
    sim.close(x);
}

/// OPS-4, VAL-5: Force gives all contents in one Return; what has an identity among them stays a reference.
#[test]
fn force_gives_the_contents_in_one_return() {
    let mut sim = Sim::<Host>::new(LIMITS);
    let board = sim.sides[B].board.clone();
    let inner = sim.sides[B].add_permanent(counter());
    let items = Items::default();
    items.borrow_mut().extend([int(1), "two".into(), reference(Ref::Local(inner)), tuple(&[int(4)])]);
    sim.sides[B].add_root("x", list(&board, &items));
    sim.sides[B].add_root("map", map(vec![("k".into(), int(1)), (int(2), reference(Ref::Local(inner)))]));
    let [x, table] = ["x", "map"].map(|name| sim.root(A, name));
    sim.mark();
    let returned = sim.ask(A, x, Op::Force, &[]);
    assert_eq!(sim.round_trips(returned.at), 1.0);
    assert_eq!(sim.counts().messages, 2);
    let Ok(OwnedValue::List(items)) = &returned.outcome else { panic!("{returned:?}") };
    let [first, second, OwnedValue::Reference(Ref::Import(inner)), last] = &items[..] else { panic!("{items:?}") };
    assert_eq!((first, second, last), (&int(1), &"two".into(), &tuple(&[int(4)])));
    assert_eq!(sim.get(A, *inner, Op::member(0), &[int(2)]), Ok(int(2)));
    let forced = sim.ask(A, table, Op::Force, &[]);
    let inner = reference(Ref::Import(*inner));
    assert_eq!(forced.outcome, Ok(OwnedValue::Map(vec![("k".into(), int(1)), (int(2), inner)])));
    assert_eq!(raised(sim.get(A, table, Op::GetItem, &["missing".into()])), "KeyError");
    sim.sides[A].release(&returned);
    sim.sides[A].release(&forced);
    sim.sides[A].session.release(table).unwrap();
    sim.close(x);
}

/// OPS-1, REL-5: an iterator is a reference; Next gives up to so many items, and an empty tuple at the end.
#[test]
fn an_iterator_gives_items_in_batches() {
    let mut sim = Sim::<Host>::new(LIMITS);
    let board = sim.sides[B].board.clone();
    let items = Items::default();
    items.borrow_mut().extend((0..5).map(int));
    sim.sides[B].add_root("x", list(&board, &items));
    let x = sim.root(A, "x");
    let iterator = sim.ask(A, x, Op::Iterate, &[]);
    let Ok(OwnedValue::Reference(Ref::Import(next))) = iterator.outcome else { panic!("{iterator:?}") };
    for expected in [&[0, 1][..], &[2, 3], &[4], &[]] {
        let expected: Vec<Owned> = expected.iter().map(|&value| int(value)).collect();
        assert_eq!(sim.get(A, next, Op::Next, &[int(2)]), Ok(tuple(&expected)));
    }
    sim.sides[A].release(&iterator);
    sim.close(x);
}

/// ERR-3: exceptions of an object, and results of an object that are not well formed.
#[test]
fn an_object_that_errs_harms_only_its_call() {
    let (mut sim, x) = serving(raiser());
    assert_eq!(raised(sim.get(A, x, Op::Call, &["KeyError".into(), "k".into()])), "KeyError");
    sim.close(x);
    const MEMBERS: &[Member] = &[Member::method("bad", "its result is not well formed")];
    let (mut sim, x) = serving(object(MEMBERS, |action, _, reply| match action {
        Action::Method(0) => reply.value(|writer| writer.tuple(2)),
        _ => reply.with(&[], |writer| writer.reference(0)),
    }));
    for op in [Op::member(0), Op::Call] {
        assert_eq!(raised(sim.get(A, x, op, &[])), "RuntimeError");
    }
    sim.close(x);
}

/// REF-3, ANS-1: a reply may be given later, in any order, and an object may keep a reference beyond the call; what it did
/// not keep is released after the dispatch.
#[test]
fn references_that_are_not_kept_go_after_the_dispatch() {
    let (postponed, put_off) = farref_conformance::fixtures::later();
    let (mut sim, x) = serving(put_off);
    let key = sim.sides[A].add(counter());
    let call = Call::new(Callee::Import(x), Op::Call);
    let question = sim.call(A, call, &[reference(Ref::Local(key))]);
    sim.run();
    assert!(!sim.sides[A].has(key));
    assert_eq!(sim.sides[B].session.tables().imports, 0);
    sim.sides[B].reply(postponed.next().unwrap(), &int(1));
    sim.run();
    assert_eq!(sim.returned(A, question).outcome, Ok(int(1)));
    sim.close(x);
}
