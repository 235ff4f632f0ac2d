//! Calls that are put off until there is room for their answers: they have their turn, or never start.

use farref_conformance::fixtures::{counter, int};
use farref_conformance::sim::{BASELINE, Side, config};
use farref_core::message::{DownReason, ErrorCode, Limits};
use farref_core::session::{Event, Micro, ObjectKey, Receiver, Reference, Tables};
use farref_core::value::Value;

type Small = Side<Micro<8, 8, 4, 512, 320>>;

fn side() -> Small {
    let limits = Limits { max_message: 256, imports: 8, answers: 4, call_bytes: 256, handles: 4, levels: 4 };
    Side::scripted(config(limits), limits)
}

/// A Call of what is in a slot, with the flags of its head, what they say is there, and its arguments.
fn call(id: u8, slot: u8, flags: u8, more: &[u8], args: &[u8]) -> Vec<u8> {
    [&[flags, id, slot << 2, 0], more, args].concat()
}

/// Hands a call over and puts it off.
fn put_off(side: &mut Small, body: &[u8]) {
    match side.session.handle(body) {
        Ok(Some(Event::Request(request))) => {
            assert!(side.session.put_off(&request, body));
            assert!(!side.session.put_off(&request, body), "it waits already");
        }
        other => panic!("{other:?}"),
    }
}

/// ADM-1, ORD-2: they come again in the order in which they came, with all that they brought, and have an answer each.
#[test]
fn calls_come_again_in_their_order() {
    let mut side = side();
    let mut scratch = [0; 256];
    // One object of theirs, and our directory, which comes home.
    put_off(&mut side, &call(2, 0, 0x40, &[2, 1 << 3, 1], &[0x0D, 0, 0x0D, 1]));
    for id in [0, 3] {
        put_off(&mut side, &call(id, 0, 0, &[], &[0x80 + id]));
    }
    assert!(side.session.has_ready());
    assert_eq!(side.session.tables(), Tables { imports: 1, answers: 3, ..BASELINE });
    for id in [2, 0, 3] {
        let request = side.session.poll_ready(&mut scratch).expect("it is ready");
        let (call, handles) = (request.call, request.handles);
        assert_eq!((call.id(), request.receiver), (id, Receiver::Object(ObjectKey::DIRECTORY)));
        match id {
            2 => assert_eq!((handles.len(), request.args.len()), (2, 2)),
            id => assert!(matches!(request.args.first(), Some(Value::Int(number)) if number == i64::from(id))),
        }
        for handle in handles {
            match side.session.resolve(handle) {
                Some(Reference::Import(import)) => side.session.release(import).expect("it is held"),
                other => assert_eq!(other, Some(Reference::Local(ObjectKey::DIRECTORY))),
            }
        }
        side.reply(call, &int(id.into()));
    }
    assert!(!side.session.has_ready());
    assert_eq!(side.output().len(), 4, "three Returns and a Release");
    assert_eq!(side.session.tables(), BASELINE);
}

/// FIN-2, TIM-3, REF-8: one that is interrupted, whose time is over, or whose target is withdrawn meanwhile never starts, and
/// lets go of what it brought.
#[test]
fn calls_that_are_given_up_never_start() {
    let mut side = side();
    let key = side.add_root("x", counter());
    // GetAttr of the directory: it is in slot 1 from now on.
    assert_eq!(side.receive(&[0, 0, 0, 1, 0x41, b'x']), Ok(()));
    side.output();
    let with_object = |id: u8, slot: u8| call(id, slot, 0x40, &[1, (id + 1) << 3], &[0x0D, 0]);
    put_off(&mut side, &with_object(0, 0));
    assert_eq!(side.receive(&[2, 2]), Ok(()), "Finish, interrupt");
    // Key 2: 100 ms, from when the time is told.
    put_off(&mut side, &call(1, 0, 0xC0, &[1, 2 << 3, 2, 4, 100], &[0x0D, 0]));
    [1, 101].into_iter().for_each(|now| side.session.advance(now));
    put_off(&mut side, &with_object(2, 1));
    side.session.revoke(key, DownReason::Revoked).expect("it is there");
    assert_eq!(side.session.poll_ready(&mut [0; 256]).map(|request| request.call), None);
    let sent = side.output();
    let error = |id: u8, code: ErrorCode| vec![0x21, id, code.number() as u8];
    for (id, code) in [(0, ErrorCode::Cancelled), (1, ErrorCode::DeadlineExceeded), (2, ErrorCode::Revoked)] {
        assert!(sent.iter().any(|body| body.starts_with(&error(id, code))), "{code}: {sent:02x?}");
    }
    assert_eq!(side.session.tables(), Tables { exports: 2, ..BASELINE });
}
