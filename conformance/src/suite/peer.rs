//! The tester: a peer that says what a case tells it to, and waits for what a case expects.

use std::collections::{HashMap, VecDeque};
use std::fmt::Debug;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use farref_core::frame::{PREAMBLE, PreambleScanner, Scan, Split, split};
use farref_core::message::{Descriptor, ErrorCode, FinishMode, Hello, Limits, Op, Target};

use super::link::{Incoming, Link};
use super::referee::Referee;
use super::report::Failure;
use super::transport::Transport;
use super::wire::{self, Call, Called, ROOT, Returned, Said, Theirs, Value, record};

/// What a case ends with.
pub type Verdict<T = ()> = Result<T, Failure>;

/// What the tester announces, unless a case wants something else.
pub const LIMITS: Limits =
    Limits { max_message: 1 << 20, imports: 4096, answers: 32, call_bytes: 1 << 20, handles: 64, levels: 16 };

/// Opens the connections of one case, each when the one before was dropped: a serial line has one place.
pub struct Tester<'c> {
    connect: &'c mut dyn FnMut() -> io::Result<Transport>,
    deadline: Instant,
    /// Whoever has a connection holds it too.
    place: Arc<()>,
}

impl<'c> Tester<'c> {
    pub(super) fn new(connect: &'c mut dyn FnMut() -> io::Result<Transport>, deadline: Instant) -> Self {
        Self { connect, deadline, place: Arc::default() }
    }

    /// A session after both Hellos.
    pub fn open(&mut self) -> Verdict<Peer> {
        self.open_with(LIMITS)
    }

    /// A session in which the tester announced that it bears so many milliseconds of silence.
    pub fn open_with_patience(&mut self, patience: u32) -> Verdict<Peer> {
        let mut peer = self.raw()?;
        peer.send_bytes(&PREAMBLE);
        peer.send(wire::patient_hello(LIMITS, patience));
        peer.expect_hello()?;
        Ok(peer)
    }

    /// A session in which the tester announced these limits.
    pub fn open_with(&mut self, limits: Limits) -> Verdict<Peer> {
        let mut peer = self.raw_with(limits)?;
        peer.send_bytes(&PREAMBLE);
        peer.send(wire::hello(limits));
        peer.expect_hello()?;
        Ok(peer)
    }

    /// A connection on which the tester has said nothing yet.
    pub fn raw(&mut self) -> Verdict<Peer> {
        self.raw_with(LIMITS)
    }

    /// The same; the tester is going to announce these limits.
    pub fn raw_with(&mut self, limits: Limits) -> Verdict<Peer> {
        if Arc::strong_count(&self.place) > 1 {
            return Err(Failure::new("a case that drops its connection before the next", "it has both at a time"));
        }
        let transport =
            (self.connect)().map_err(|error| Failure::new("a connection", format!("it did not open: {error}")))?;
        Ok(Peer {
            link: Link::new(transport),
            deadline: self.deadline,
            scanner: Some(PreambleScanner::default()),
            unread: Vec::new(),
            hello: None,
            limits,
            referee: Referee::new(limits),
            calls: VecDeque::new(),
            returns: HashMap::new(),
            finishes: Vec::new(),
            releases: Vec::new(),
            unimplemented: 0,
            pings: 0,
            goodbye: None,
            arrivals: Vec::new(),
            closed: None,
            _place: self.place.clone(),
        })
    }
}

/// One connection to the subject.
///
/// What the subject says is sorted as it comes: waiting for a Return lets calls, Releases and other Returns aside for
/// whoever asks for them next.
pub struct Peer {
    link: Link,
    deadline: Instant,
    /// None once the preamble was found.
    scanner: Option<PreambleScanner>,
    unread: Vec<u8>,
    hello: Option<Hello>,
    limits: Limits,
    referee: Referee,
    calls: VecDeque<Called>,
    returns: HashMap<u16, Returned>,
    finishes: Vec<(u16, FinishMode)>,
    releases: Vec<(u64, Theirs)>,
    unimplemented: u32,
    pings: usize,
    goodbye: Option<u64>,
    /// Ids of Returns in the order in which they came.
    arrivals: Vec<u16>,
    /// The Close of the subject.
    closed: Option<(u64, String)>,
    /// Given back behind the link.
    _place: Arc<()>,
}

/// How the subject ended a call without a result.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    pub code: ErrorCode,
    pub values: Vec<Value>,
}

// Saying.
impl Peer {
    /// Sends one message: a [`Call`], or a body made otherwise.
    pub fn send(&mut self, body: impl Into<Vec<u8>>) {
        self.send_together([body.into()]);
    }

    /// Sends messages in one write.
    pub fn send_together(&mut self, bodies: impl IntoIterator<Item = Vec<u8>>) {
        let mut bytes = Vec::new();
        for body in bodies {
            self.referee.on_sent(&body);
            bytes.extend(record(&body));
        }
        self.link.send(bytes);
    }

    /// Sends bytes as they are; they are no part of what the tester takes itself to have said.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.link.send(bytes.to_vec());
    }

    /// Sends a message byte by byte.
    pub fn send_in_pieces(&mut self, body: &[u8]) {
        self.referee.on_sent(body);
        record(body).chunks(1).for_each(|byte| self.link.send(byte.to_vec()));
    }

    /// Starts an operation.
    pub fn call(&mut self, id: u16, target: impl Into<Target>, op: Op, args: &[Value]) {
        self.send(Call::new(id, target, op).args(args));
    }

    /// Starts the call of a method.
    pub fn method(&mut self, id: u16, target: impl Into<Target>, name: &str, args: &[Value]) {
        self.send(Call::method(id, target, name, args));
    }

    /// Returns a result of a call of the subject.
    pub fn reply(&mut self, call: &Called, value: &Value) {
        self.send(wire::returning(call.id, value));
    }

    /// Finish with mode 0.
    pub fn finish(&mut self, id: u16) {
        self.send(wire::finishing(&[(id, FinishMode::Done)]));
    }

    /// Finish of a call without a Return.
    pub fn cancel(&mut self, id: u16, mode: FinishMode) {
        self.send(wire::finishing(&[(id, mode)]));
    }

    /// Releases handles, with the ordinal up to which the tester has received.
    pub fn release(&mut self, handles: &[Theirs]) {
        self.send(wire::releasing(self.referee.received, handles));
    }

    /// Ends the tester's direction.
    pub fn end(&mut self) {
        self.link.finish();
    }

    /// Stops reading, or goes on.
    pub fn read(&mut self, goes_on: bool) {
        self.link.read(goes_on);
    }

    /// Expects that the subject takes all that was said so far.
    pub fn expect_taken(&mut self) -> Verdict {
        if self.link.flush(self.deadline) {
            return Ok(());
        }
        Err(Failure::new("that the subject reads what is sent (ADM-1)", "it stopped reading"))
    }
}

// Known.
impl Peer {
    /// The subject's limits.
    pub fn theirs(&self) -> Limits {
        self.hello.map_or(LIMITS, |hello| hello.limits)
    }

    /// The features that the subject has.
    pub fn features(&self) -> u64 {
        self.hello.map_or(0, |hello| hello.features)
    }

    /// Pings that came.
    pub fn pings(&self) -> usize {
        self.pings
    }

    /// The ordinal of the last message that was sent.
    pub fn sent(&self) -> u64 {
        self.referee.sent
    }

    /// The ordinal of the last message that was received.
    pub fn received(&self) -> u64 {
        self.referee.received
    }

    /// The ids of the Returns that came, in their order.
    pub fn arrivals(&self) -> &[u16] {
        &self.arrivals
    }

    /// Releases that came so far, with their `upto`.
    pub fn released(&self) -> &[(u64, Theirs)] {
        &self.releases
    }

    /// Calls that came and were not asked for yet.
    pub fn waiting_calls(&self) -> usize {
        self.calls.len()
    }

    /// The id that [`Self::ask`] uses: the last that the subject serves.
    fn asking(&self) -> u16 {
        self.theirs().answers.saturating_sub(1)
    }
}

// Asking: a call, and its outcome at once.
impl Peer {
    /// What an operation gives.
    pub fn ask(&mut self, target: impl Into<Target>, op: Op, args: &[Value]) -> Verdict<Value> {
        let id = self.asking();
        self.call(id, target, op, args);
        self.expect_return(id)
    }

    /// What a method gives.
    pub fn ask_method(&mut self, target: impl Into<Target>, name: &str, args: &[Value]) -> Verdict<Value> {
        let id = self.asking();
        self.method(id, target, name, args);
        self.expect_return(id)
    }

    /// The fixture that the root of that name makes.
    pub fn make(&mut self, root: &str, args: &[Value]) -> Verdict<Theirs> {
        let made = self.ask_method(ROOT, root, args)?;
        as_theirs(&made)
    }

    /// The root of that name.
    pub fn root(&mut self, name: &str) -> Verdict<Theirs> {
        let root = self.ask(ROOT, Op::GetAttr, &[wire::text(name)])?;
        as_theirs(&root)
    }

    /// Expects that the session is alive and that all that came before was dealt with by the receiver.
    pub fn fence(&mut self) -> Verdict {
        let value = wire::text("fence");
        let got = self.ask_method(ROOT, "echo", std::slice::from_ref(&value))?;
        same("the echo of a fence", &value, &got)
    }

    /// Asks again until it is as expected: for what the subject does soon after it has answered, such as letting an object
    /// go.
    pub fn until(&mut self, target: Theirs, method: &str, expected: &Value) -> Verdict {
        loop {
            let got = self.ask_method(target, method, &[])?;
            if got == *expected {
                return Ok(());
            }
            if Instant::now() > self.deadline {
                return Err(Failure::new(format!("that {method} comes to be {expected:?}"), format!("it is {got:?}")));
            }
        }
    }
}

// Waiting.
impl Peer {
    /// The subject's Hello.
    pub fn expect_hello(&mut self) -> Verdict<Hello> {
        let expected = || "the preamble and a Hello".to_owned();
        let Some(body) = self.next_body(&expected)? else {
            return Err(Failure::new(expected(), "the stream ended"));
        };
        match Said::read(&body) {
            Ok(Said::Hello(hello)) => {
                let valid =
                    hello.limits.max_message >= 64 && hello.limits.imports <= 1 << 24 && hello.limits.levels > 0;
                if !valid || body.len() > 256 {
                    return Err(Failure::new("limits within their ranges (HEL-3)", format!("it sent {hello:?}")));
                }
                self.hello = Some(hello);
                Ok(hello)
            }
            Ok(other) => Err(Failure::new(expected(), format!("it sent {other:?}"))),
            Err(_) => Err(Failure::new(expected(), format!("it sent {body:02x?}"))),
        }
    }

    /// The Return of a call, as it came.
    pub fn expect_returned(&mut self, id: u16) -> Verdict<Returned> {
        self.wait(&|| format!("the Return of call {id}"), |peer| peer.returns.remove(&id))
    }

    /// The outcome of a call.
    pub fn expect_outcome(&mut self, id: u16) -> Verdict<Result<Value, Refusal>> {
        let mut returned = self.expect_returned(id)?;
        Ok(match returned.error {
            None => Ok(returned.values.pop().unwrap_or(Value::None)),
            Some(code) => Err(Refusal { code, values: returned.values }),
        })
    }

    /// The result of a call.
    pub fn expect_return(&mut self, id: u16) -> Verdict<Value> {
        self.expect_outcome(id)?.map_err(|error| Failure::new(format!("a result of call {id}"), failed(&error)))
    }

    /// That call's result, and no other.
    pub fn expect_value(&mut self, id: u16, value: &Value) -> Verdict {
        let got = self.expect_return(id)?;
        same(&format!("the result of call {id}"), value, &got)
    }

    /// A reference to an object of the subject as the result of a call.
    pub fn expect_object(&mut self, id: u16) -> Verdict<Theirs> {
        let got = self.expect_return(id)?;
        as_theirs(&got)
    }

    /// That a call fails with a code; its values.
    pub fn expect_error(&mut self, id: u16, code: ErrorCode) -> Verdict<Vec<Value>> {
        match self.expect_outcome(id)? {
            Err(error) if error.code == code => Ok(error.values),
            Err(error) => Err(Failure::new(format!("that call {id} fails with {code}"), failed(&error))),
            Ok(value) => Err(Failure::new(format!("that call {id} fails with {code}"), format!("it gave {value:?}"))),
        }
    }

    /// That a call raises an exception of that name; its arguments.
    pub fn expect_raised(&mut self, id: u16, name: &str) -> Verdict<Vec<Value>> {
        let mut values = self.expect_error(id, ErrorCode::Raised)?;
        match values.pop() {
            Some(Value::Exception(exception)) if exception.name == name => Ok(exception.args),
            other => Err(Failure::new(format!("that call {id} raises {name}"), format!("it raised {other:?}"))),
        }
    }

    /// A call of the subject.
    pub fn expect_call(&mut self) -> Verdict<Called> {
        self.wait(&|| "a call of the subject".to_owned(), |peer| peer.calls.pop_front())
    }

    /// A call of the tester's object in that slot.
    pub fn expect_call_of(&mut self, slot: u32) -> Verdict<Called> {
        let call = self.expect_call()?;
        same("the target of the subject's call", &Target::Export { slot, generation: 0 }, &call.target)?;
        Ok(call)
    }

    /// That the tester's object in that slot is released; the `upto` that came with it.
    pub fn expect_released(&mut self, slot: u32) -> Verdict<u64> {
        self.provoke(&format!("the Release of our slot {slot}"), |peer| {
            let at = peer.releases.iter().position(|(_, theirs)| theirs.slot == slot)?;
            Some(peer.releases.remove(at).0)
        })
    }

    /// That a call of the subject is finished, and how.
    pub fn expect_finished(&mut self, id: u16) -> Verdict<FinishMode> {
        self.provoke(&format!("the Finish of the subject's call {id}"), |peer| {
            let at = peer.finishes.iter().position(|(finished, _)| *finished == id)?;
            Some(peer.finishes.remove(at).1)
        })
    }

    /// What comes with the subject's next output at the latest (REL-1, ANS-5): so there has to be some.
    fn provoke<T>(&mut self, expected: &str, mut look: impl FnMut(&mut Self) -> Option<T>) -> Verdict<T> {
        while Instant::now() < self.deadline {
            if let Some(found) = look(self) {
                return Ok(found);
            }
            self.fence()?;
        }
        Err(Failure::new(expected, "it did not come in time"))
    }

    /// That these kinds are said to be unknown.
    pub fn expect_unimplemented(&mut self, kinds: u32) -> Verdict {
        let expected = || format!("Unimplemented for the kinds {kinds:#x}");
        self.wait(&expected, |peer| (peer.unimplemented & kinds == kinds).then_some(()))?;
        same("the kinds that are not implemented", &kinds, &self.unimplemented)
    }

    /// That the session ends with a Close for a broken rule, after which nothing comes.
    pub fn expect_close(&mut self, rule: &str) -> Verdict {
        self.expect_close_of(&[rule])
    }

    /// The same, where the bytes break more than one rule.
    pub fn expect_close_of(&mut self, rules: &[&str]) -> Verdict {
        let (code, got) = self.expect_closed(&|| format!("Close for {}", rules.join(" or ")))?;
        if code != 1 || !rules.contains(&got.as_str()) {
            let expected = format!("Close with code 1 for {}", rules.join(" or "));
            return Err(Failure::new(expected, format!("it was code {code} for {got:?}")));
        }
        Ok(())
    }

    /// A Close, after which nothing comes: its code and rule.
    pub fn expect_closed(&mut self, expected: &dyn Fn() -> String) -> Verdict<(u64, String)> {
        while self.closed.is_none() {
            let Some(body) = self.next_body(expected)? else {
                return Err(Failure::new(expected(), "the stream ended without a Close"));
            };
            self.take(&body)?;
        }
        // The subject may wait for our end before it ends the stream.
        self.end();
        match self.next_body(&|| "the end of the stream after Close (CLS-1)".to_owned())? {
            None => Ok(self.closed.take().unwrap_or_default()),
            Some(body) => Err(Failure::new("nothing after Close (CLS-1)", format!("{:?} came", Said::read(&body)))),
        }
    }

    /// That the stream ends, with a Close or without.
    pub fn expect_end(&mut self) -> Verdict {
        let expected = || "the end of the stream".to_owned();
        loop {
            match self.next_body(&expected) {
                Ok(Some(body)) => self.take(&body)?,
                Ok(None) => return Ok(()),
                Err(failure) => return Err(failure),
            }
        }
    }

    /// A Goodbye; after how many messages of the tester it was said.
    pub fn expect_goodbye(&mut self) -> Verdict<u64> {
        self.wait(&|| "a Goodbye".to_owned(), |peer| peer.goodbye.take())
    }

    /// So many Pings.
    pub fn expect_pings(&mut self, count: usize) -> Verdict {
        self.wait(&|| format!("{count} Pings"), |peer| (peer.pings >= count).then_some(()))
    }

    fn wait<T>(&mut self, expected: &dyn Fn() -> String, mut look: impl FnMut(&mut Self) -> Option<T>) -> Verdict<T> {
        loop {
            if let Some(found) = look(self) {
                return Ok(found);
            }
            match self.next_body(expected)? {
                Some(body) => self.take(&body)?,
                None => return Err(Failure::new(expected(), "the stream ended")),
            }
            if let Some((code, rule)) = &self.closed {
                return Err(Failure::new(expected(), format!("the session was closed: code {code}, rule {rule:?}")));
            }
        }
    }

    /// Sorts a message.
    fn take(&mut self, body: &[u8]) -> Verdict {
        let said = Said::read(body)
            .map_err(|_| Failure::new("well-formed messages (MSG-1, VAL-1)", format!("{body:02x?} came")))?;
        self.referee.on_received(body, &said)?;
        match said {
            Said::Call(call) => self.calls.push_back(call),
            Said::Return(returned) => {
                self.arrivals.push(returned.id);
                self.returns.insert(returned.id, returned);
            }
            Said::Finish(entries) => self.finishes.extend(entries),
            Said::Release { upto, entries } => {
                let entries = entries.into_iter().map(|(slot, generation)| (upto.into(), Theirs { slot, generation }));
                self.releases.extend(entries);
            }
            Said::Unimplemented(kinds) => self.unimplemented |= kinds,
            Said::Close { code, rule } => self.closed = Some((code, rule)),
            Said::Ping => self.pings += 1,
            Said::Goodbye(received) => self.goodbye = Some(received),
            Said::Down(_) | Said::Hello(_) | Said::Unknown(_) | Said::Link(_) => {}
        }
        Ok(())
    }

    /// The next record's body; None at the end of the stream.
    fn next_body(&mut self, expected: &dyn Fn() -> String) -> Verdict<Option<Vec<u8>>> {
        loop {
            if self.scanner.is_none() {
                let longest = self.limits.max_message.max(Hello::MAX_LENGTH as u32);
                match split(&self.unread, longest) {
                    Split::Record { body, rest } => {
                        let body = body.to_vec();
                        let used = self.unread.len() - rest.len();
                        self.unread.drain(..used);
                        return Ok(Some(body));
                    }
                    Split::Incomplete => {}
                    Split::Bad => {
                        let head = self.unread.iter().take(8).collect::<Vec<_>>();
                        return Err(Failure::new(
                            "records (FRM-2)",
                            format!("bytes came that begin none: {head:02x?}"),
                        ));
                    }
                }
            }
            match self.link.receive(self.deadline) {
                Incoming::Bytes(bytes) => self.take_bytes(bytes)?,
                Incoming::End => return Ok(None),
                Incoming::Late => return Err(Failure::new(expected(), "nothing came in time")),
            }
        }
    }

    fn take_bytes(&mut self, bytes: Vec<u8>) -> Verdict {
        let Some(scanner) = &mut self.scanner else {
            self.unread.extend(bytes);
            return Ok(());
        };
        match scanner.scan(&bytes) {
            Scan::Found(at) => {
                self.scanner = None;
                self.unread.extend(bytes.get(at..).unwrap_or_default());
                Ok(())
            }
            Scan::Searching => Ok(()),
            Scan::NoPeer => Err(Failure::new("the preamble (FRM-1)", "64 KiB came without one")),
        }
    }
}

/// Compares.
pub fn same<T: PartialEq + Debug + ?Sized>(what: &str, expected: &T, got: &T) -> Verdict {
    if expected == got {
        return Ok(());
    }
    Err(Failure::new(format!("{what} to be {expected:?}"), format!("it is {got:?}")))
}

/// Checks.
pub fn check(holds: bool, expected: &str, got: impl Debug) -> Verdict {
    if holds { Ok(()) } else { Err(Failure::new(expected, format!("it is {got:?}"))) }
}

/// The object of the subject that a value is.
pub fn as_theirs(value: &Value) -> Verdict<Theirs> {
    match value {
        Value::Reference(Descriptor::Sender { slot, generation }) => {
            Ok(Theirs { slot: *slot, generation: *generation })
        }
        other => Err(Failure::new("a reference to an object of the subject", format!("it is {other:?}"))),
    }
}

fn failed(error: &Refusal) -> String {
    format!("it failed with {} {:?}", error.code, error.values)
}
