//! Messages as the tester writes and reads them.

use farref_core::codec::{Malformed, Writer};
use farref_core::message::{
    Consequence, Deadline, Descriptor, DownReason, ErrorCode, FinishMode, Handles, Hello, Limits, Message, Op, Target,
};
use farref_core::value::{OwnedException, OwnedValue, Top, Value as Borrowed, ValueError, ValueWriter, Values};

/// A value; its references are handles as they stand on the wire.
pub type Value = OwnedValue<Descriptor>;

/// An exception.
pub type Exception = OwnedException<Descriptor>;

/// A handle of the subject's: slot and generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Theirs {
    pub slot: u32,
    pub generation: u16,
}

/// The subject's directory.
pub const ROOT: Theirs = Theirs { slot: 0, generation: 0 };

impl Theirs {
    /// On its way home, as an argument or a result.
    pub fn home(self) -> Value {
        Value::Reference(Descriptor::Receiver { slot: self.slot, generation: self.generation })
    }
}

impl From<Theirs> for Target {
    fn from(theirs: Theirs) -> Self {
        Self::Export { slot: theirs.slot, generation: theirs.generation }
    }
}

/// An object of the tester's in that slot.
pub fn mine(slot: u32) -> Value {
    mine_of(slot, 0)
}

/// An object of the tester's in that slot, in a later generation.
pub fn mine_of(slot: u32, generation: u16) -> Value {
    Value::Reference(Descriptor::Sender { slot, generation })
}

/// An object of the tester's in that slot, lent to the call that it is an argument of.
pub fn lent(slot: u32, generation: u16) -> Value {
    Value::Reference(Descriptor::Borrowed { slot, generation })
}

/// A Down of slots of the tester's, all in generation 0, with their reasons.
pub fn down(entries: &[(u32, u8)]) -> Vec<u8> {
    let mut bytes = vec![0; 1 + 7 * entries.len()];
    let mut writer = Writer::new(&mut bytes);
    writer.byte(5);
    for &(slot, reason) in entries {
        writer.varint(u64::from(slot) << 1);
        writer.varint(reason.into());
    }
    let length = writer.len();
    bytes.truncate(length);
    bytes
}

/// What the tester's call with that id will answer.
pub fn answer(id: u16) -> Value {
    Value::Reference(Descriptor::Answer(id))
}

pub fn int(value: i64) -> Value {
    Value::Int(value)
}

pub fn text(value: &str) -> Value {
    value.into()
}

pub fn tuple(items: impl Into<Vec<Value>>) -> Value {
    Value::Tuple(items.into())
}

/// An exception without text or traceback.
pub fn exception(name: &str, args: impl Into<Vec<Value>>) -> Exception {
    Exception { name: name.to_owned(), args: args.into(), text: None, traceback: None }
}

/// A call to be sent.
#[derive(Clone, Debug)]
pub struct Call {
    id: u16,
    target: Target,
    op: u64,
    pipelined: bool,
    parent: Option<u16>,
    deadline: Option<Deadline>,
    args: Vec<Value>,
    named: Vec<(String, Value)>,
}

impl Call {
    pub fn new(id: u16, target: impl Into<Target>, op: Op) -> Self {
        Self {
            id,
            target: target.into(),
            op: op.number().into(),
            pipelined: false,
            parent: None,
            deadline: None,
            args: Vec::new(),
            named: Vec::new(),
        }
    }

    /// CallMethod by name.
    pub fn method(id: u16, target: impl Into<Target>, name: &str, args: &[Value]) -> Self {
        Self::new(id, target, Op::CallMethod).args(&[text(name)]).args(args)
    }

    /// Adds positional arguments.
    pub fn args(mut self, args: &[Value]) -> Self {
        self.args.extend_from_slice(args);
        self
    }

    /// Adds a named argument.
    pub fn named(mut self, name: &str, value: Value) -> Self {
        self.named.push((name.to_owned(), value));
        self
    }

    pub fn pipelined(self) -> Self {
        Self { pipelined: true, ..self }
    }

    /// Caused by that call of the subject.
    pub fn parent(self, parent: u16) -> Self {
        Self { parent: Some(parent), ..self }
    }

    /// With so much time.
    pub fn deadline(self, remaining: u32, consequence: Consequence) -> Self {
        Self { deadline: Some(Deadline { remaining, consequence }), ..self }
    }

    pub fn body(&self) -> Vec<u8> {
        let mut handles = Vec::new();
        let values = self.args.iter().chain(self.named.iter().map(|(_, value)| value));
        values.for_each(|value| value.each_reference(&mut |handle| handles.push(*handle)));
        let values = encode(Top::Arguments, handles.len(), |writer| {
            let mut next = 0;
            self.args.iter().try_for_each(|value| value.write(writer, &mut next))?;
            self.named.iter().try_for_each(|(name, value)| {
                writer.named(name)?;
                value.write(writer, &mut next)
            })
        });
        body(|writer| {
            let mut fields = Vec::new();
            fields.extend(self.parent.map(|parent| (1, u64::from(parent))));
            fields.extend(self.deadline.map(|deadline| (2, u64::from(deadline.remaining))));
            let consequence = self.deadline.map_or(Consequence::Cancel, |deadline| deadline.consequence);
            fields.extend((consequence != Consequence::Cancel).then_some((3, consequence as u64)));
            let flags = [(self.pipelined, 0x20), (!handles.is_empty(), 0x40), (!fields.is_empty(), 0x80)];
            writer.byte(flags.iter().filter(|(is_set, _)| *is_set).map(|(_, flag)| flag).sum());
            writer.varint(self.id.into());
            put_target(writer, self.target);
            writer.varint(self.op);
            put_handles(writer, &handles);
            if !fields.is_empty() {
                writer.blob(&body(|extension| {
                    for &(key, value) in &fields {
                        extension.byte(key << 1);
                        extension.varint(value);
                    }
                }));
            }
            writer.put(&values);
        })
    }
}

impl From<Call> for Vec<u8> {
    fn from(call: Call) -> Self {
        call.body()
    }
}

/// The Return of a result.
pub fn returning(id: u16, value: &Value) -> Vec<u8> {
    return_body(0x01, id, None, std::slice::from_ref(value))
}

/// The Return of an error.
pub fn failing(id: u16, code: u32, values: &[Value]) -> Vec<u8> {
    return_body(0x21, id, Some(code), values)
}

fn return_body(head: u8, id: u16, code: Option<u32>, values: &[Value]) -> Vec<u8> {
    let mut handles = Vec::new();
    values.iter().for_each(|value| value.each_reference(&mut |handle| handles.push(*handle)));
    let top = if code.is_some() { Top::Error } else { Top::Result };
    let encoded = encode(top, handles.len(), |writer| {
        let mut next = 0;
        values.iter().try_for_each(|value| value.write(writer, &mut next))
    });
    body(|writer| {
        writer.byte(head | if handles.is_empty() { 0 } else { 0x40 });
        writer.varint(id.into());
        put_handles(writer, &handles);
        code.into_iter().for_each(|code| writer.varint(code.into()));
        writer.put(&encoded);
    })
}

/// Goodbye.
pub fn goodbye(received: u64) -> Vec<u8> {
    body(|writer| {
        writer.byte(24);
        writer.varint(received);
    })
}

/// Finish of some calls.
pub fn finishing(entries: &[(u16, FinishMode)]) -> Vec<u8> {
    body(|writer| {
        writer.byte(2);
        entries.iter().for_each(|&(id, mode)| writer.varint(u64::from(id) << 2 | mode as u64));
    })
}

/// Release of some slots.
pub fn releasing(upto: u64, handles: &[Theirs]) -> Vec<u8> {
    body(|writer| {
        writer.byte(3);
        writer.varint(upto & 0xFFFF_FFFF);
        for &Theirs { slot, generation } in handles {
            writer.varint(u64::from(slot) << 1 | u64::from(generation != 0));
            if generation != 0 {
                writer.varint(generation.into());
            }
        }
    })
}

/// A Hello of version 1.
pub fn hello(limits: Limits) -> Vec<u8> {
    hello_of(1, 1, limits)
}

/// A Hello that asks for keepalive.
pub fn patient_hello(limits: Limits, patience: u32) -> Vec<u8> {
    hello_with(1, 1, limits, Some(patience))
}

/// A Hello of a peer that speaks other versions.
pub fn hello_of(version_min: u16, version_max: u16, limits: Limits) -> Vec<u8> {
    hello_with(version_min, version_max, limits, None)
}

fn hello_with(version_min: u16, version_max: u16, limits: Limits, patience: Option<u32>) -> Vec<u8> {
    body(|writer| {
        writer.byte(16);
        [version_min, version_max].iter().for_each(|version| writer.varint((*version).into()));
        writer.varint(if patience.is_some() { 2 } else { 0 });
        writer.varint(limits.max_message.into());
        writer.varint(limits.imports.into());
        writer.varint(limits.answers.into());
        writer.varint(limits.call_bytes.into());
        writer.varint(limits.handles.into());
        writer.varint(limits.levels.into());
        writer.put(b"conformance test");
        writer.varint(1);
        patience.into_iter().for_each(|patience| writer.varint(patience.into()));
    })
}

/// A record: the length before the body.
pub fn record(body_bytes: &[u8]) -> Vec<u8> {
    body(|writer| writer.blob(body_bytes))
}

/// Bytes, written by hand.
pub fn body(write: impl Fn(&mut Writer<'_>)) -> Vec<u8> {
    let mut bytes = vec![0; 256];
    loop {
        let mut writer = Writer::new(&mut bytes);
        write(&mut writer);
        let (length, fits) = (writer.len(), writer.fits());
        bytes.resize(length, 0);
        if fits {
            return bytes;
        }
    }
}

/// One value as it stands on the wire; its references have the numbers from 0 on.
pub fn encoded(value: &Value) -> Vec<u8> {
    let mut references = 0;
    value.each_reference(&mut |_| references += 1);
    encode(Top::One, references, |writer| value.write(writer, &mut 0))
}

/// Values, which must be well formed: those that are not are written as bytes.
fn encode(top: Top, references: usize, write: impl Fn(&mut ValueWriter<'_>) -> Result<(), ValueError>) -> Vec<u8> {
    let mut bytes = vec![0; 256];
    loop {
        let mut values = ValueWriter::new(Writer::new(&mut bytes), top, references as u32);
        let Ok(writer) = write(&mut values).and_then(|()| values.finish()) else { return Vec::new() };
        let (length, fits) = (writer.len(), writer.fits());
        bytes.resize(length, 0);
        if fits {
            return bytes;
        }
    }
}

fn put_target(writer: &mut Writer<'_>, target: Target) {
    match target {
        Target::Export { slot, generation: 0 } => writer.varint(u64::from(slot) << 2),
        Target::Export { slot, generation } => {
            writer.varint(u64::from(slot) << 2 | 1);
            writer.varint(generation.into());
        }
        Target::Answer(id) => writer.varint(u64::from(id) << 2 | 2),
    }
}

fn put_handles(writer: &mut Writer<'_>, handles: &[Descriptor]) {
    if handles.is_empty() {
        return;
    }
    writer.varint(handles.len() as u64);
    for handle in handles {
        let (number, kind, generation) = match *handle {
            Descriptor::Sender { slot, generation } => (slot, 0, generation),
            Descriptor::Receiver { slot, generation } => (slot, 1, generation),
            Descriptor::Answer(id) => (id.into(), 2, 0),
            Descriptor::Borrowed { slot, generation } | Descriptor::Weak { slot, generation } => (slot, 3, generation),
        };
        writer.varint(u64::from(number) << 3 | u64::from(generation != 0) << 2 | kind);
        if generation != 0 {
            writer.varint(generation.into());
        }
        if kind == 3 {
            writer.varint(u64::from(matches!(handle, Descriptor::Weak { .. })));
        }
    }
}

/// What the subject said.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    Call(Called),
    Return(Returned),
    Finish(Vec<(u16, FinishMode)>),
    Release {
        upto: u32,
        entries: Vec<(u32, u16)>,
    },
    Down(Vec<(u32, u16, DownReason)>),
    Unimplemented(u32),
    Hello(Hello),
    Close {
        code: u64,
        rule: String,
    },
    Ping,
    Goodbye(u64),
    /// A message of the link, which the tester does not offer.
    Link(&'static str),
    Unknown(u8),
}

/// A call of the subject.
#[derive(Clone, Debug, PartialEq)]
pub struct Called {
    pub id: u16,
    pub pipelined: bool,
    pub target: Target,
    pub op: Op,
    pub parent: Option<u16>,
    pub deadline: Option<Deadline>,
    pub handles: Vec<Descriptor>,
    pub args: Vec<Value>,
    pub named: Vec<(String, Value)>,
    /// The length of its body.
    pub length: usize,
}

/// A Return of the subject.
#[derive(Clone, Debug, PartialEq)]
pub struct Returned {
    pub id: u16,
    pub error: Option<ErrorCode>,
    pub handles: Vec<Descriptor>,
    pub values: Vec<Value>,
    /// The values as they came.
    pub bytes: Vec<u8>,
}

impl Said {
    pub fn read(body: &[u8]) -> Result<Self, Malformed> {
        Ok(match Message::read(body)? {
            Message::Call(call) => {
                let values = Values::check(call.values, Top::Arguments, call.handles.len())?;
                let (mut args, mut named) = (Vec::new(), Vec::new());
                for value in values {
                    match value {
                        Borrowed::Named(one) => named.push((one.name().to_owned(), own(value, call.handles))),
                        value => args.push(own(value, call.handles)),
                    }
                }
                Self::Call(Called {
                    id: call.id,
                    pipelined: call.pipelined,
                    target: call.target,
                    op: call.op,
                    parent: call.parent,
                    deadline: call.deadline,
                    handles: call.handles.collect(),
                    args,
                    named,
                    length: body.len(),
                })
            }
            Message::Return(returned) => {
                let top = if returned.error.is_some() { Top::Error } else { Top::Result };
                let values = Values::check(returned.values, top, returned.handles.len())?;
                Self::Return(Returned {
                    id: returned.id,
                    error: returned.error,
                    handles: returned.handles.collect(),
                    values: values.map(|value| own(value, returned.handles)).collect(),
                    bytes: returned.values.to_vec(),
                })
            }
            Message::Finish(entries) => Self::Finish(entries.collect()),
            Message::Release(entries) => Self::Release { upto: entries.upto, entries: entries.collect() },
            Message::Down(entries) => Self::Down(entries.collect()),
            Message::Unimplemented(kinds) => Self::Unimplemented(kinds),
            Message::Hello(hello) => Self::Hello(hello),
            Message::Close(close) => Self::Close { code: close.code.number().into(), rule: close.rule.to_owned() },
            Message::Ack(_) => Self::Link("Ack"),
            Message::Ping => Self::Ping,
            Message::Resume(_) => Self::Link("Resume"),
            Message::ResumeOk { .. } => Self::Link("ResumeOk"),
            Message::SessionGone { .. } => Self::Link("SessionGone"),
            Message::Goodbye(received) => Self::Goodbye(received),
            Message::Unknown(kind) => Self::Unknown(kind),
        })
    }
}

fn own(value: Borrowed<'_>, handles: Handles<'_>) -> Value {
    // The values were checked against the list: the entry is there.
    Value::new(value, &mut |index| handles.get(index).unwrap_or(Descriptor::Answer(u16::MAX)))
}
