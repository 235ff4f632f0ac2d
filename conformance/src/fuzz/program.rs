//! One session whose peer is hostile, and whose host does anything that a host may do.

use farref_core::Uuid;
use farref_core::frame::{Split, split};
use farref_core::message::{Consequence, Deadline, Descriptor, DownReason, ErrorCode, FinishMode, Limits, Op, Resume};
use farref_core::session::{
    Answer, Call, Callee, Config, Ended, Event, Host, Import, LinkMode, Notice, ObjectKey, Question, Ref, Reference,
    Request, ResumeRefused, Session,
};

use super::input::Input;
use super::peer::{self, Peer};
use super::script;
use crate::sim::{BASELINE, body_within};

const LIMITS: Limits = Limits { max_message: 128, imports: 6, answers: 4, call_bytes: 256, handles: 3, levels: 3 };
const EXPORTS: u32 = 6;
const OUT_BYTES: usize = 1024;
const TOKEN: [u8; 16] = [0x70; 16];

/// The input says what the host does and, byte by byte, the bodies that the peer sends; its first byte whether the session has
/// a link, and then connections are lost as well.
///
/// Nothing panics, the tables keep to the limits, all that the session says is well formed, and if the session goes on to
/// the end, then a peer and a host that put everything right find nothing left behind (MSG-1, REF-3, CAL-2, ADM-6, ADM-7).
pub fn session_bytes(bytes: &[u8]) {
    drive(bytes, |program, input| program.receive(input.run()));
}

/// As [`session_bytes`], but of messages the input says only what is in them: nearly all are well formed, about ids and
/// slots that are in use.
pub fn session_script(bytes: &[u8]) {
    drive(bytes, |program, input| {
        let body = script::message(input, &program.peer);
        program.receive(&body);
    });
}

fn drive(bytes: &[u8], mut message: impl FnMut(&mut Program, &mut Input<'_>)) {
    let mut input = Input::new(bytes);
    let mut program = Program::new(input.byte() & 1 == 1);
    while let Some(step) = input.next() {
        match step & 7 {
            0..=2 => message(&mut program, &mut input),
            3 => program.reply(&mut input),
            4 => program.call(step >> 3, input.byte()),
            5 => program.let_go(step >> 3),
            6 => program.cancel(step >> 3),
            _ if step >> 3 & 3 == 3 => program.reconnect(&mut input),
            _ if step >> 5 == 7 => program.more(&mut input),
            _ => program.send(),
        }
        program.poll();
        program.check();
    }
    if program.session.ended().is_none() {
        program.put_right();
    }
}

/// The session, what its host has in hands, and what its peer knows.
struct Program {
    session: Session<Host>,
    /// Of the last attempt to resume it (LNK-5).
    attempt: u32,
    now: u64,
    peer: Peer,
    calls: Vec<Answer>,
    questions: Vec<Asked>,
    held: Vec<Import>,
}

/// A call of the host's that has not ended.
struct Asked {
    question: Question,
    abandoned: bool,
}

impl Program {
    fn new(link: bool) -> Self {
        let mut session = Session::new(Config {
            limits: LIMITS,
            exports: EXPORTS,
            calls: 8,
            out_bytes: OUT_BYTES,
            store_bytes: 512,
            peer: Uuid::nil(),
            incarnation: 0,
            link: if link { LinkMode::Resume { token: TOKEN, park: 0 } } else { LinkMode::Off },
            patience: None,
        });
        let Ok(Some(Event::Ready)) = session.handle(&peer::hello(link)) else { panic!("not ready") };
        let held = vec![Import::DIRECTORY];
        let peer = Peer::default();
        Self { session, attempt: 0, now: 0, peer, calls: Vec::new(), questions: Vec::new(), held }
    }

    fn receive(&mut self, body: &[u8]) {
        let ended = self.session.ended();
        match self.session.handle(body) {
            Ok(event) => {
                self.peer.accepted(body);
                match event {
                    Some(Event::Request(request)) => {
                        let noted = noted(&self.session, request);
                        self.note(noted);
                    }
                    Some(Event::Return(returned)) => {
                        let open = self.questions.iter().position(|asked| asked.question == returned.question);
                        let asked = self.questions.swap_remove(open.expect("each call ends once (CAL-2)"));
                        assert!(!asked.abandoned, "its result is not wanted");
                        let imports = returned.handles.filter_map(|handle| match self.session.resolve(handle) {
                            Some(Reference::Import(import) | Reference::Weak(import)) => Some(import),
                            _ => None,
                        });
                        self.held.extend(imports);
                    }
                    _ => {}
                }
            }
            Err(error) => assert!(ended.is_none_or(|ended| ended == error)),
        }
    }

    /// Takes what has become true.
    fn poll(&mut self) {
        while let Some(notice) = self.session.poll_notice() {
            match notice {
                Notice::DeadlineExceeded(late) => {
                    let asked = self.questions.iter_mut().find(|asked| asked.question == late);
                    if let Some(asked) = asked {
                        asked.abandoned |= !self.session.is_awaited(late);
                    }
                }
                // It may be held by a call that waits.
                Notice::Down { import, reason } => {
                    assert!(self.session.holds(import), "who does not hold it is not told");
                    assert_eq!(self.session.down(import), Some(reason));
                }
                Notice::Freed(_) | Notice::Interrupted(_) => {}
            }
        }
        let mut scratch = [0; LIMITS.max_message as usize];
        while let Some(request) = self.session.poll_ready(&mut scratch) {
            let noted = noted(&self.session, request);
            self.note(noted);
        }
        let session = &self.session;
        self.calls.retain(|&call| session.is_open(call));
    }

    fn note(&mut self, Noted { call, holds, lent }: Noted) {
        assert!(!self.calls.contains(&call), "each call starts once");
        self.calls.push(call);
        self.held.extend(holds);
        for import in lent {
            assert_eq!(self.session.release(import), Ok(()), "it is there as long as its call");
        }
    }

    fn reply(&mut self, input: &mut Input<'_>) {
        let how = input.byte();
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
        let promise = self.questions.get(usize::from(what & 3)).map(|asked| asked.question);
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
        let before = self.session.tables();
        let made = self.session.call(call, |args| {
            args.str("member")?;
            args.reference(0)?;
            args.reference(1)
        });
        match made {
            Ok(question) => self.questions.push(Asked { question, abandoned: false }),
            Err(_) => assert_eq!(self.session.tables(), before, "nothing has changed (REF-4)"),
        }
    }

    fn let_go(&mut self, which: u8) {
        // The directory stays, as the first.
        let at = 1 + usize::from(which);
        if at < self.held.len() {
            let import = self.held.swap_remove(at);
            assert_eq!(self.session.release(import), Ok(()), "it was held");
        }
    }

    fn cancel(&mut self, which: u8) {
        if let Some(asked) = self.questions.get_mut(usize::from(which >> 1)) {
            let mode = if which & 1 == 0 { FinishMode::Abandon } else { FinishMode::Interrupt };
            if self.session.cancel(asked.question, mode).is_ok() {
                asked.abandoned |= mode == FinishMode::Abandon;
            }
        }
    }

    /// What is in the protocol beside calls: objects that are withdrawn, lent and weak, time that passes, the counted end.
    fn more(&mut self, input: &mut Input<'_>) {
        let how = input.byte();
        let key = ObjectKey(u32::from(how >> 3 & 3));
        let reasons = [DownReason::Gone, DownReason::Revoked, DownReason::PeerLost, DownReason::from_number(9)];
        match how & 7 {
            0 | 1 => drop(self.session.revoke(key, reasons[usize::from(how >> 6)])),
            2 | 3 => {
                self.now += u64::from(how >> 3) * 10;
                self.session.advance(self.now);
            }
            4 => self.session.shutdown(),
            _ => {
                let consequences = [Consequence::Cancel, Consequence::Abandon, Consequence::Late];
                let deadline = usize::from(how >> 6).checked_sub(1).map(|at| consequences[at]);
                // A weak reference has a key of its own.
                let weak = Ref::Weak(ObjectKey(4));
                let references = [Ref::Borrowed(key), if how & 7 == 7 { weak } else { Ref::Borrowed(key) }];
                let held = self.held[usize::from(how >> 5) % self.held.len()];
                let mut call = Call::new(Callee::Import(held), Op::Call).references(&references);
                if let Some(consequence) = deadline {
                    call = call.deadline(Deadline { remaining: u32::from(input.byte()), consequence });
                }
                let before = self.session.tables();
                match self.session.call(call, |args| args.reference(1)) {
                    Ok(question) => self.questions.push(Asked { question, abandoned: false }),
                    Err(_) => assert_eq!(self.session.tables(), before, "nothing has changed (REF-4)"),
                }
            }
        }
    }

    /// Takes the output, all of which the peer can read.
    fn send(&mut self) {
        loop {
            let output = self.session.transmit().to_vec();
            self.session.transmitted(output.len());
            let mut rest = &output[..];
            while let Split::Record { body, rest: more } = split(rest, 256) {
                rest = more;
                self.peer.read(body);
            }
            assert!(rest.is_empty(), "{rest:02x?}");
            if output.is_empty() {
                break;
            }
        }
    }

    /// The connection is lost, and one of both opens another (LNK-4). The peer says that it has got all that it has read, or
    /// so many messages less; an attempt that comes too late changes nothing (LNK-5).
    fn reconnect(&mut self, input: &mut Input<'_>) {
        let how = input.byte();
        if !self.session.is_resumable() || self.session.ended().is_some() {
            return;
        }
        let got = self.peer.got().saturating_sub(u64::from(how >> 2));
        match how & 3 {
            0 | 1 => {
                self.attempt += 1;
                let resumed = self.session.accept(&Resume { token: TOKEN, attempt: self.attempt, got });
                assert!(resumed.is_ok() || self.session.ended().is_some(), "{resumed:?}");
            }
            2 => {
                let before = self.session.clone();
                let resumed = self.session.accept(&Resume { token: TOKEN, attempt: self.attempt, got });
                assert_eq!(resumed, Err(ResumeRefused::Superseded));
                assert!(self.session == before, "nothing has changed");
                return;
            }
            _ => {
                assert!(self.session.park());
                self.session.resume();
                self.attempt += 1;
                self.send();
                self.receive(&peer::resume_ok(if got > 0 { TOKEN } else { [0; 16] }, got));
            }
        }
        self.peer.goes_on_from(got);
    }

    fn check(&self) {
        let tables = self.session.tables();
        assert!(tables.exports <= peer::LIMITS.imports.min(EXPORTS), "{tables:?}");
        assert!(tables.imports <= LIMITS.imports, "{tables:?}");
        assert!(tables.questions <= peer::LIMITS.answers.into(), "{tables:?}");
        assert!(tables.answers <= LIMITS.answers.into(), "{tables:?}");
        assert!(self.session.output_len() <= OUT_BYTES);
        let dangling = self.held.iter().find(|&&import| self.session.ended().is_none() && !self.session.holds(import));
        assert!(dangling.is_none(), "{dangling:?}");
    }

    /// Everything is put right, more than once: between that, calls find all the room to wait in that was announced.
    fn put_right(&mut self) {
        self.settle();
        for first in [0, 3] {
            if self.session.ended().is_some() {
                return;
            }
            self.fill_with_waiting_calls(first);
            self.settle();
        }
    }

    /// The host answers and releases everything, and so does the peer. Then the tables are at the baseline.
    fn settle(&mut self) {
        loop {
            for call in std::mem::take(&mut self.calls) {
                let _ = self.session.refuse(call, ErrorCode::Cancelled, 0);
            }
            for import in self.held.drain(1..) {
                assert_eq!(self.session.release(import), Ok(()), "it was held");
            }
            self.send();
            let before = self.session.ordinals().0;
            for body in self.peer.amends(self.session.is_resumable()) {
                self.receive(&body);
                let ended = self.session.ended();
                assert!(
                    matches!(ended, None | Some(Ended::Done)),
                    "{body:02x?} is what an honest peer sends: {ended:?}"
                );
            }
            self.poll();
            self.send();
            if self.session.ended().is_some() {
                // Both have said Goodbye, so that nothing was under way.
                assert!(self.questions.iter().all(|asked| asked.abandoned), "each call has ended (CLS-2)");
                return;
            }
            let quiet = self.session.ordinals().0 == before && self.peer.asked().is_empty();
            if quiet && self.calls.is_empty() && self.held.len() == 1 {
                break;
            }
        }
        assert_eq!(self.session.tables(), BASELINE);
        assert!(!self.session.is_serving());
        assert!(self.questions.iter().all(|asked| asked.abandoned), "each call ends (CAL-2)");
    }

    /// One call runs, and the others wait for it, as long together as calls may be.
    fn fill_with_waiting_calls(&mut self, first: u8) {
        let ids = [0, 1, 2, 3].map(|place| (first + place) % LIMITS.answers as u8);
        let waits = |id: u8, length: usize| {
            body_within(128, |writer| {
                writer.put(&[0, id, first << 2 | 2, 0, 8]);
                writer.blob(&vec![0x55; length]);
            })
        };
        // 4 and 28 and twice 112 bytes are 256.
        self.peer.returns = 0;
        for body in [vec![0x20, first, 0, 0], waits(ids[1], 22), waits(ids[2], 106), waits(ids[3], 106)] {
            self.receive(&body);
            assert_eq!(self.session.ended(), None, "{body:02x?}");
        }
        self.poll();
        self.send();
        assert_eq!((self.calls.len(), self.peer.returns), (1, 0), "there is room for all to wait in (ADM-2)");
    }
}

/// What the host keeps of a request: the call, and its holds; not of what is lent, which goes by itself.
struct Noted {
    call: Answer,
    holds: Vec<Import>,
    lent: Vec<Import>,
}

fn noted(session: &Session<Host>, request: Request<'_>) -> Noted {
    let Request { call, handles, args, .. } = request;
    assert_eq!({ args }.count(), args.len());
    let (mut holds, mut lent) = (Vec::new(), Vec::new());
    for handle in handles {
        match (handle, session.resolve(handle)) {
            (Descriptor::Sender { .. }, Some(Reference::Import(import))) => holds.push(import),
            (Descriptor::Weak { .. }, Some(Reference::Weak(import))) => holds.push(import),
            (Descriptor::Borrowed { .. }, Some(Reference::Import(import))) => lent.push(import),
            _ => {}
        }
    }
    Noted { call, holds, lent }
}
