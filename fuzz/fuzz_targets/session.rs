//! A session past a good Hello; the input says what its peer sends and what its host does. Nothing panics, the tables
//! keep to the limits, and all that it says is well formed (MSG-1, ADM-6, ADM-7).

#![no_main]

use farref_core::Uuid;
use farref_core::frame::{Split, split};
use farref_core::message::{Descriptor, ErrorCode, FinishMode, Limits, Message, Op};
use farref_core::session::{
    Answer, Call, Callee, Config, Event, Host, Import, LinkMode, ObjectKey, Question, Ref, Reference, Request, Session,
};
use farref_core::value::{Top, Values};
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits = Limits { max_message: 128, imports: 6, answers: 4, call_bytes: 256, handles: 3, levels: 3 };
const PEER: Limits = Limits { max_message: 96, imports: 5, answers: 3, call_bytes: 160, handles: 3, levels: 3 };
const EXPORTS: u32 = 6;

fuzz_target!(|input: &[u8]| {
    let mut input = Input(input);
    let mut host = Program::new();
    while let Some(step) = input.byte() {
        host.step(step, &mut input);
        host.check();
    }
});

struct Input<'i>(&'i [u8]);

impl<'i> Input<'i> {
    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    fn take(&mut self, count: usize) -> &'i [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

/// The session and what its host has in hands.
struct Program {
    session: Session<Host>,
    calls: Vec<Answer>,
    questions: Vec<Question>,
    held: Vec<Import>,
}

impl Program {
    fn new() -> Self {
        let mut session = session(LIMITS);
        let mut peer = session_of_peer();
        let hello = peer.transmit().to_vec();
        let Split::Record { body, .. } = split(&hello, 256) else { panic!("no Hello") };
        let Ok(Some(Event::Ready)) = session.handle(body) else { panic!("not ready") };
        Self { session, calls: Vec::new(), questions: Vec::new(), held: vec![Import::DIRECTORY] }
    }

    fn step(&mut self, step: u8, input: &mut Input<'_>) {
        match step & 7 {
            0..=2 => {
                let length = input.byte().unwrap_or(0);
                self.receive(input.take(length.into()));
            }
            3 => self.reply(input),
            4 => self.call(step >> 3, input.byte().unwrap_or(0)),
            5 => self.let_go(step >> 3),
            6 => self.cancel(step >> 3),
            _ => self.send(),
        }
        while self.session.poll_notice().is_some() {}
        let mut scratch = [0; LIMITS.max_message as usize];
        while let Some(request) = self.session.poll_ready(&mut scratch) {
            let (call, holds) = noted(&self.session, request);
            self.calls.push(call);
            self.held.extend(holds);
        }
        self.calls.retain(|&call| self.session.is_open(call));
    }

    fn receive(&mut self, body: &[u8]) {
        let ended = self.session.ended();
        match self.session.handle(body) {
            Ok(Some(Event::Request(request))) => {
                let (call, holds) = noted(&self.session, request);
                self.calls.push(call);
                self.held.extend(holds);
            }
            Ok(Some(Event::Return(returned))) => {
                self.questions.retain(|&question| question != returned.question);
                let imports = returned.handles.filter_map(|handle| match self.session.resolve(handle) {
                    Some(Reference::Import(import)) => Some(import),
                    _ => None,
                });
                self.held.extend(imports);
            }
            Ok(_) => {}
            Err(error) => assert!(ended.is_none_or(|ended| ended == error)),
        }
    }

    fn reply(&mut self, input: &mut Input<'_>) {
        let how = input.byte().unwrap_or(0);
        let Some(&call) = self.calls.get(usize::from(how >> 4)) else { return };
        let local = [Ref::Local(ObjectKey(u32::from(how & 3)))];
        let home = [Ref::Import(self.held[usize::from(how & 3) % self.held.len()])];
        let long = [0; 200];
        let _ = match how >> 2 & 3 {
            0 => self.session.reply(call, &local, |result| result.reference(0)),
            1 if how & 1 == 0 => self.session.reply(call, &home, |result| {
                result.tuple(2)?;
                result.reference(0)?;
                result.str("ab")
            }),
            1 => self.session.reply(call, &[], |result| result.bytes(&long[..usize::from(how)])),
            2 => self.session.reply_error(call, ErrorCode::Raised, &[], |values| {
                values.exception("KeyError", 1, |args| args.int(5), None)
            }),
            _ => self.session.refuse(call, ErrorCode::NoSuchMember, 3),
        };
    }

    fn call(&mut self, how: u8, what: u8) {
        let held = self.held[usize::from(what) % self.held.len()];
        let promise = self.questions.get(usize::from(what & 3)).copied();
        let callee = match promise {
            Some(promise) if how & 1 != 0 => Callee::Promise(promise),
            _ => Callee::Import(held),
        };
        let references = [Ref::Local(ObjectKey(u32::from(what >> 6))), promise.map_or(Ref::Import(held), Ref::Promise)];
        let mut call = Call::new(callee, Op::CallMethod).references(&references);
        if how & 2 != 0 {
            call = call.pipelined();
        }
        if let (true, Some(&parent)) = (how & 4 != 0, self.calls.first()) {
            call = call.parent(parent);
        }
        let made = self.session.call(call, |args| {
            args.str("member")?;
            args.reference(0)?;
            args.reference(1)
        });
        self.questions.extend(made);
    }

    fn let_go(&mut self, which: u8) {
        // The directory stays, as the first.
        let at = 1 + usize::from(which);
        if at < self.held.len() {
            let import = self.held.swap_remove(at);
            let _ = self.session.release(import);
        }
    }

    fn cancel(&mut self, which: u8) {
        if let Some(&question) = self.questions.get(usize::from(which >> 1)) {
            let mode = if which & 1 == 0 { FinishMode::Abandon } else { FinishMode::Interrupt };
            let _ = self.session.cancel(question, mode);
        }
    }

    /// Takes the output, all of which the peer can read.
    fn send(&mut self) {
        let output = self.session.transmit().to_vec();
        self.session.transmitted(output.len());
        let mut rest = &output[..];
        while let Split::Record { body, rest: more } = split(rest, 256) {
            rest = more;
            match Message::read(body).expect("well formed") {
                Message::Hello(_) => continue,
                Message::Call(call) => {
                    assert!(call.handles.len() <= PEER.handles.into() && call.id < PEER.answers);
                    Values::check(call.values, Top::Arguments, call.handles.len()).expect("good values");
                }
                Message::Return(back) => {
                    assert!(back.handles.len() <= PEER.handles.into());
                    let top = if back.error.is_some() { Top::Error } else { Top::Result };
                    Values::check(back.values, top, back.handles.len()).expect("good values");
                }
                _ => {}
            }
            assert!(body.len() <= PEER.max_message as usize || body[0] & 0x1F == 0x11, "{body:02x?}");
        }
        assert!(rest.is_empty(), "{rest:02x?}");
    }

    fn check(&self) {
        let tables = self.session.tables();
        assert!(tables.exports <= PEER.imports.min(EXPORTS), "{tables:?}");
        assert!(tables.imports <= LIMITS.imports, "{tables:?}");
        assert!(tables.questions <= PEER.answers.into(), "{tables:?}");
        assert!(tables.answers <= LIMITS.answers.into(), "{tables:?}");
        assert!(self.session.output_len() <= OUT_BYTES);
        let dangling = self.held.iter().find(|&&import| self.session.ended().is_none() && !self.session.holds(import));
        assert!(dangling.is_none(), "{dangling:?}");
    }
}

const OUT_BYTES: usize = 1024;

fn session(limits: Limits) -> Session<Host> {
    let (peer, incarnation) = (Uuid::nil(), 0);
    Session::new(Config {
        limits,
        exports: EXPORTS,
        calls: 8,
        out_bytes: OUT_BYTES,
        store_bytes: 512,
        peer,
        incarnation,
        link: LinkMode::Off,
        patience: None,
    })
}

fn session_of_peer() -> Session<Host> {
    session(PEER)
}

/// What the host keeps of a request: the call, and its holds.
fn noted(session: &Session<Host>, request: Request<'_>) -> (Answer, Vec<Import>) {
    let Request { call, handles, args, .. } = request;
    assert_eq!({ args }.count(), args.len());
    let holds = handles.filter_map(|handle| match (handle, session.resolve(handle)) {
        (Descriptor::Sender { .. }, Some(Reference::Import(import))) => Some(import),
        _ => None,
    });
    (call, holds.collect())
}
