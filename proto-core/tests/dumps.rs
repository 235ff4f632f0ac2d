//! The annotated dumps of SPEC.md: what two sessions say to each other is, byte by byte, what the text shows.

use std::fs;
use std::path::Path;

use farref_core::Uuid;
use farref_core::frame::{PREAMBLE, Split, split};
use farref_core::message::{ErrorCode, Limits, Op};
use farref_core::session::{
    Answer, Call, Callee, Config, Event, Host, Import, LinkMode, Notice, ObjectKey, Outcome, Ref, Reference, Session,
    Tables,
};

/// What one side writes at once: "A > B" or "B > A", and the bytes.
type Write = (String, Vec<u8>);

const BASELINE: Tables = Tables { exports: 1, imports: 0, questions: 0, answers: 0 };

#[test]
fn the_dumps_are_what_sessions_say() {
    let said = [hellos(), ping_and_exception(), chain()].concat();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let text = fs::read_to_string(root.join("SPEC.md")).expect("SPEC.md");
    let shown = dumps(&text);
    for (number, (shown, said)) in shown.iter().zip(&said).enumerate() {
        assert_eq!(shown, said, "write {number}: the text says\n{}\nthe sessions\n{}", hex(&shown.1), hex(&said.1));
    }
    assert_eq!(shown.len(), said.len());
}

/// HEL-1, FRM-1: both begin at once.
fn hellos() -> Vec<Write> {
    let mut pair = Pair::new();
    let first = |direction: &str, session: &mut Session<Host>| {
        let bytes = [&PREAMBLE[..], session.transmit()].concat();
        (direction.to_owned(), bytes)
    };
    vec![first("A > B", &mut pair.a), first("B > A", &mut pair.b)]
}

/// OPS-3, CAL-2, VAL-7: a ping, and a call that raises. A holds B's object in slot 1.
fn ping_and_exception() -> Vec<Write> {
    let mut pair = Pair::connected();
    let x = pair.fetch_object();
    pair.said.clear();

    pair.a.call(Call::new(Callee::Import(x), Op::member(0)), |args| args.int(5)).unwrap();
    let ping = pair.requests_of_a()[0];
    pair.b.reply(ping, &[], |result| result.int(5)).unwrap();
    assert_eq!(pair.returns_to_a(), [Ok(())]);
    assert_eq!(pair.said.iter().map(|(_, bytes)| bytes.len()).sum::<usize>(), 10, "a ping is ten bytes in all");

    pair.a.call(Call::new(Callee::Import(x), Op::member(1)), |args| args.str("color")).unwrap();
    let lookup = pair.requests_of_a()[0];
    pair.b
        .reply_error(lookup, ErrorCode::Raised, &[], |values| {
            values.exception("KeyError", 1, |args| args.str("color"), None)
        })
        .unwrap();
    assert_eq!(pair.returns_to_a(), [Err(ErrorCode::Raised)]);
    pair.said
}

/// ANS-1, ANS-5, FIN-1, REL-1: `open("notes.txt").read()`, and nothing is left over.
fn chain() -> Vec<Write> {
    let mut pair = Pair::connected();
    pair.said.clear();

    let open = Call::new(Callee::Import(Import::DIRECTORY), Op::CallMethod).pipelined();
    let open = pair.a.call(open, |args| args.str("open").and_then(|()| args.str("notes.txt"))).unwrap();
    pair.a.call(Call::new(Callee::Promise(open), Op::CallMethod), |args| args.str("read")).unwrap();
    let open = pair.requests_of_a()[0];
    pair.b.reply(open, &[Ref::Local(ObjectKey(7))], |result| result.reference(0)).unwrap();
    let mut scratch = [0; 256];
    let read = pair.b.poll_ready(&mut scratch).unwrap();
    pair.b.reply(read.call, &[], |result| result.str("Buy milk.\n")).unwrap();
    assert_eq!(pair.returns_to_a(), [Ok(()), Ok(())]);

    pair.a.release(pair.held.unwrap()).unwrap();
    pair.requests_of_a();
    assert_eq!(pair.b.poll_notice(), Some(Notice::Freed(ObjectKey(7))));
    assert_eq!((pair.a.tables(), pair.b.tables()), (BASELINE, BASELINE));
    pair.said
}

/// Two sessions, and all that they wrote.
struct Pair {
    a: Session<Host>,
    b: Session<Host>,
    said: Vec<Write>,
    /// The last reference that A was given.
    held: Option<Import>,
}

impl Pair {
    fn new() -> Self {
        let config = |limits, peer| {
            Session::new(Config {
                limits,
                exports: 1000,
                calls: 100,
                out_bytes: 1 << 16,
                store_bytes: 1 << 20,
                peer: Uuid::from_bytes([peer; 16]),
                incarnation: 1,
                link: LinkMode::Off,
                patience: None,
            })
        };
        let host = Limits {
            max_message: 65_536,
            imports: 100_000,
            answers: 256,
            call_bytes: 1 << 19,
            handles: 64,
            levels: 16,
        };
        let device = Limits { max_message: 512, imports: 8, answers: 4, call_bytes: 1024, handles: 4, levels: 4 };
        Self { a: config(host, 0xAA), b: config(device, 0xBB), said: Vec::new(), held: None }
    }

    fn connected() -> Self {
        let mut pair = Self::new();
        pair.requests_of_a();
        pair.returns_to_a();
        pair
    }

    /// A fetches an object of B, which gets slot 1.
    fn fetch_object(&mut self) -> Import {
        self.a.call(Call::new(Callee::Import(Import::DIRECTORY), Op::GetAttr), |args| args.str("x")).unwrap();
        let call = self.requests_of_a()[0];
        self.b.reply(call, &[Ref::Local(ObjectKey(7))], |result| result.reference(0)).unwrap();
        self.returns_to_a();
        self.held.unwrap()
    }

    /// Brings what A has to say to B; the calls that B is to serve.
    fn requests_of_a(&mut self) -> Vec<Answer> {
        let mut calls = Vec::new();
        for body in take(&mut self.a, "A > B", &mut self.said) {
            if let Some(Event::Request(request)) = self.b.handle(&body).unwrap() {
                calls.push(request.call);
            }
        }
        calls
    }

    /// Brings what B has to say to A; how A's calls ended.
    fn returns_to_a(&mut self) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        for body in take(&mut self.b, "B > A", &mut self.said) {
            if let Some(Event::Return(mut returned)) = self.a.handle(&body).unwrap() {
                outcomes.push(returned.outcome);
                if let Some(Reference::Import(import)) =
                    returned.handles.next().and_then(|handle| self.a.resolve(handle))
                {
                    self.held = Some(import);
                }
            }
        }
        outcomes
    }
}

/// Takes a session's output, notes it, and splits it into bodies.
fn take(session: &mut Session<Host>, direction: &str, said: &mut Vec<Write>) -> Vec<Vec<u8>> {
    let bytes = session.transmit().to_vec();
    session.transmitted(bytes.len());
    let (mut bodies, mut rest) = (Vec::new(), &bytes[..]);
    while let Split::Record { body, rest: more } = split(rest, 65_536) {
        bodies.push(body.to_vec());
        rest = more;
    }
    assert!(rest.is_empty());
    said.push((direction.to_owned(), bytes));
    bodies
}

/// The writes in all dumps of a text. Within them a line is a direction, or bytes, two spaces and what they are for.
fn dumps(text: &str) -> Vec<Write> {
    let mut writes: Vec<Write> = Vec::new();
    let blocks = text.split("```dump\n").skip(1).filter_map(|rest| rest.split("```").next());
    for line in blocks.flat_map(str::lines) {
        if line.starts_with("A > B") || line.starts_with("B > A") {
            writes.push((line[..5].to_owned(), Vec::new()));
        } else if let Some((_, write)) = writes.last_mut() {
            let bytes = line.trim_start().split("  ").next().unwrap();
            write.extend(bytes.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).expect(line)));
        }
    }
    writes
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X} ")).collect()
}
