//! Heap allocations of the whole core: none for each call, once its tables have their size.

use allocation_counter::measure;
use farref_conformance::sim::{LIMITS, config};
use farref_core::dispatch::{Action, Arguments, Dispatcher, Done, Member, Object, Reply, Root};
use farref_core::frame::{Split, split};
use farref_core::message::Op;
use farref_core::session::{Call, Callee, Event, Host, Import, Notice, ObjectKey, Question, Ref, Reference, Session};
use farref_core::value::Value;

/// Counts: `increment(by)`; `other` is a reference to an object.
struct Counter {
    value: i64,
    other: ObjectKey,
}

impl Object for Counter {
    fn members(&self) -> &'static [Member] {
        const MEMBERS: &[Member] = &[Member::method("increment", "adds"), Member::readable("other", "an object")];
        MEMBERS
    }

    fn perform(&mut self, action: Action, args: &Arguments<'_>, reply: Reply<'_>) -> Done {
        match (action, args.int(0)) {
            (Action::Method(0), Some(by)) => {
                self.value += by;
                reply.int(self.value)
            }
            (Action::Get(1), _) => reply.reference(Ref::Local(self.other)),
            _ => reply.unsupported(),
        }
    }
}

const COUNTER: ObjectKey = ObjectKey(1);

/// What a Return gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Got {
    Nothing,
    Int(i64),
    Import(Import),
}

/// Two sessions on growing storage, and the objects of the second.
struct Pair {
    client: Session<Host>,
    server: Session<Host>,
    objects: [Counter; 2],
    scratch: Vec<u8>,
    freed: u32,
    got: [(Option<Question>, Got); 4],
}

impl Pair {
    fn new() -> Self {
        let mut pair = Self {
            client: Session::new(config(LIMITS)),
            server: Session::new(config(LIMITS)),
            objects: [Counter { value: 0, other: ObjectKey(2) }, Counter { value: 0, other: COUNTER }],
            scratch: vec![0; LIMITS.max_message as usize],
            freed: 0,
            got: [(None, Got::Nothing); 4],
        };
        pair.exchange();
        pair
    }

    /// Moves records both ways until there is none: transmit, split, handle, dispatch, reply, and back.
    fn exchange(&mut self) {
        let dispatcher = Dispatcher::new(&[Root { name: "counter", key: COUNTER, doc: "" }]);
        loop {
            let [first, second] = &mut self.objects;
            let mut objects: [&mut dyn Object; 2] = [first, second];
            let mut rest = self.client.transmit();
            let moved = rest.len();
            while let Split::Record { body, rest: more } = split(rest, LIMITS.max_message) {
                if let Some(Event::Request(request)) = self.server.handle(body).unwrap() {
                    dispatcher.dispatch(&mut self.server, &request, &mut objects[..]);
                }
                rest = more;
            }
            self.client.transmitted(moved);
            while let Some(request) = self.server.poll_ready(&mut self.scratch) {
                dispatcher.dispatch(&mut self.server, &request, &mut objects[..]);
            }
            while let Some(notice) = self.server.poll_notice() {
                self.freed += u32::from(matches!(notice, Notice::Freed(_)));
            }
            let mut rest = self.server.transmit();
            let back = rest.len();
            while let Split::Record { body, rest: more } = split(rest, LIMITS.max_message) {
                if let Some(Event::Return(returned)) = self.client.handle(body).unwrap() {
                    assert_eq!(returned.outcome, Ok(()));
                    let got = match returned.values.first() {
                        Some(Value::Int(value)) => Got::Int(value),
                        Some(Value::Reference(index)) => {
                            match returned.handles.get(index).and_then(|handle| self.client.resolve(handle)) {
                                Some(Reference::Import(import)) => Got::Import(import),
                                other => panic!("{other:?}"),
                            }
                        }
                        other => panic!("{other:?}"),
                    };
                    let free = self.got.iter_mut().find(|(question, _)| question.is_none());
                    *free.unwrap() = (Some(returned.question), got);
                }
                rest = more;
            }
            self.server.transmitted(back);
            if moved + back == 0 {
                return;
            }
        }
    }

    fn take(&mut self, wanted: Question) -> Got {
        let found = self.got.iter_mut().find(|(question, _)| *question == Some(wanted));
        std::mem::replace(found.unwrap(), (None, Got::Nothing)).1
    }

    fn ping(&mut self, callee: Callee) -> Got {
        let question = self.client.call(Call::new(callee, Op::member(0)), |writer| writer.int(1)).unwrap();
        self.exchange();
        self.take(question)
    }

    fn attribute(&mut self, import: Import, name: &str) -> Import {
        let get = Call::new(Callee::Import(import), Op::GetAttr);
        let question = self.client.call(get, |writer| writer.str(name)).unwrap();
        self.exchange();
        let Got::Import(import) = self.take(question) else { panic!() };
        import
    }
}

/// In a thousand rounds, after three that make room.
fn allocations(pair: &mut Pair, mut each: impl FnMut(&mut Pair)) -> u64 {
    (0..3).for_each(|_| each(pair));
    measure(|| (0..1000).for_each(|_| each(pair))).count_total
}

/// No allocation for a ping, for a reference that is received, called and released, or for a chain of pipelined calls:
/// call, transmit, split, handle, dispatch, reply, transmit, handle.
#[test]
fn nothing_is_allocated_for_each_call() {
    let mut pair = Pair::new();
    let counter = pair.attribute(Import::DIRECTORY, "counter");
    let pings = allocations(&mut pair, |pair| {
        assert!(matches!(pair.ping(Callee::Import(counter)), Got::Int(_)));
    });
    assert_eq!(pings, 0, "for 1000 pings");
    let references = allocations(&mut pair, |pair| {
        let other = pair.attribute(counter, "other");
        assert!(matches!(pair.ping(Callee::Import(other)), Got::Int(_)));
        pair.client.release(other).unwrap();
        pair.exchange();
    });
    assert_eq!(pair.freed, 1003);
    assert_eq!(references, 0, "for 1000 references received, called and released");
    let pipelined = allocations(&mut pair, |pair| {
        let get = Call::new(Callee::Import(counter), Op::GetAttr).pipelined();
        let other = pair.client.call(get, |writer| writer.str("other")).unwrap();
        assert!(matches!(pair.ping(Callee::Promise(other)), Got::Int(_)));
        let Got::Import(other) = pair.take(other) else { panic!() };
        pair.client.release(other).unwrap();
        pair.exchange();
    });
    assert_eq!(pipelined, 0, "for 1000 pipelined calls on a reference");
    pair.client.release(counter).unwrap();
    pair.exchange();
    for tables in [pair.client.tables(), pair.server.tables()] {
        assert_eq!(tables, farref_conformance::sim::BASELINE);
    }
}
