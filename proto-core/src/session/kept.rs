//! Answers that settled to a value, kept for the calls that name them (ANS-4).

use super::storage::{Storage, Store, Table};
use super::{Answer, Kept, NO_RESULT, ObjectKey, Ref, Reference, ReplyError, Session, kept_key};
use crate::codec::Reader;
use crate::message::{self, Descriptor, ErrorCode, Handles, Message, Op};
use crate::value::{Outcome, Top, Value, ValueError, ValueWriter, Values, operate};

/// References that a kept value may have to be worked on here.
const REFERENCES: usize = 32;

impl<S: Storage> Session<S> {
    /// A kept value and the handles of its references, until the reply of the call that named it.
    ///
    /// No value is none.
    pub fn kept(&self, kept: Kept) -> Option<(Handles<'_>, Values<'_>)> {
        read_kept(self.kept_body(kept))
    }

    /// A kept value as bytes, to be copied out and read with [`read_kept`].
    pub fn kept_body(&self, kept: Kept) -> &[u8] {
        self.store.get(kept_key(kept.0)).unwrap_or(NO_RESULT)
    }

    /// What a kept value's handle names. Its [`Reference::Local`] and [`Reference::Import`] live as long as the value.
    pub fn resolve_kept(&self, handle: Descriptor) -> Option<Reference> {
        // The handles are our own: what was the sender's object then is ours now.
        match handle {
            Descriptor::Sender { slot, .. } | Descriptor::Weak { slot, .. } => {
                self.exports.get(slot).filter(|export| export.used()).map(|export| Reference::Local(export.key))
            }
            Descriptor::Receiver { slot, generation } => self.live_import(slot, generation).map(Reference::Import),
            Descriptor::Answer(_) | Descriptor::Borrowed { .. } => None,
        }
    }

    /// Answers a call on a kept value with what the operation gives (OPS-5). What cannot be done is refused.
    pub fn reply_operated(&mut self, call: Answer, kept: Kept, op: Op, args: Values<'_>) -> Result<(), ReplyError> {
        if !S::KEEPS_VALUES {
            return self.refuse(call, ErrorCode::NotKept, 0);
        }
        let mut references = [Ref::Local(ObjectKey::DIRECTORY); REFERENCES];
        let (raises, count) = match self.try_operation(kept, op, args, &mut references) {
            Ok(tried) => tried,
            Err((ErrorCode::BadArguments, _)) => {
                let text = "other operands for this operation on a value";
                return self.reply_error(call, ErrorCode::BadArguments, &[], |writer| writer.str(text));
            }
            Err((code, detail)) => {
                return self.refuse(call, code, detail);
            }
        };
        let error = raises.then_some(ErrorCode::Raised);
        let references = references.get(..count).unwrap_or_default();
        // It may be written more than once, and is worked out anew each time.
        self.reply_from_store(call, error, references, |writer, store| {
            match operate(kept_value::<S>(store, kept), op, args) {
                Ok(outcome) => write_outcome(writer, outcome),
                Err(_) => Err(ValueError::Incomplete),
            }
        })
    }

    /// Whether the operation raises, and which of the value's references stand in its outcome: all or none.
    fn try_operation(
        &self,
        kept: Kept,
        op: Op,
        args: Values<'_>,
        references: &mut [Ref],
    ) -> Result<(bool, usize), (ErrorCode, u32)> {
        let (handles, _) = self.kept(kept).ok_or((ErrorCode::NotKept, 0))?;
        let operated = operate(kept_value::<S>(&self.store, kept), op, args);
        let part =
            match operated.map_err(|code| (code, if code == ErrorCode::Unsupported { op.number() } else { 0 }))? {
                // A key that is missing was the caller's, not a part of the value.
                Outcome::Raise(_, key) if mentions_reference(key) => return Err((ErrorCode::BadArguments, 0)),
                Outcome::Raise(..) => return Ok((true, 0)),
                Outcome::Value(part) => part,
                _ => return Ok((false, 0)),
            };
        if !mentions_reference(part) {
            return Ok((false, 0));
        }
        let mut count = 0;
        for handle in handles {
            let reference = match self.resolve_kept(handle) {
                Some(Reference::Local(key)) => match self.is_revoked(key) {
                    Some(reason) => return Err((ErrorCode::Revoked, reason.number().into())),
                    None => Ref::Local(key),
                },
                Some(Reference::Import(import)) => Ref::Import(import),
                _ => return Err((ErrorCode::NoSuchObject, 0)),
            };
            *references.get_mut(count).ok_or((ErrorCode::NotKept, 0))? = reference;
            count += 1;
        }
        Ok((false, count))
    }
}

/// Reads a kept value, a copy of [`Session::kept_body`]: the handles of its references, and the value, if it is not none.
pub fn read_kept(body: &[u8]) -> Option<(Handles<'_>, Values<'_>)> {
    let kept = message::Return::of(body).ok()?;
    Some((kept.handles, Values::check(kept.values, Top::Result, kept.handles.len()).ok()?))
}

/// The handles of a message in the store, one at a time: what is done about one changes the tables beside the store.
pub(super) struct StoredHandles {
    key: u32,
    at: usize,
    left: u32,
}

impl StoredHandles {
    pub fn new(store: &impl Store, key: u32) -> Self {
        let body = store.get(key).unwrap_or_default();
        let handles = match Message::read(body) {
            Ok(Message::Call(call)) => call.handles,
            Ok(Message::Return(kept)) => kept.handles,
            _ => Handles::default(),
        };
        Self { key, at: body.len() - handles.rest().len(), left: handles.len() }
    }

    pub fn next(&mut self, store: &impl Store) -> Option<Descriptor> {
        self.left = self.left.checked_sub(1)?;
        let mut reader = Reader::new(store.get(self.key)?.get(self.at..)?);
        let before = reader.rest().len();
        let handle = Descriptor::read(&mut reader);
        self.at += before - reader.rest().len();
        Some(handle)
    }
}

fn kept_value<S: Storage>(store: &S::Store, kept: Kept) -> Value<'_> {
    let body = store.get(kept_key(kept.0)).unwrap_or(NO_RESULT);
    read_kept(body).and_then(|(_, values)| values.first()).unwrap_or(Value::None)
}

fn mentions_reference(value: Value<'_>) -> bool {
    match value {
        Value::Reference(_) => true,
        Value::Tuple(mut items) | Value::List(mut items) | Value::Set(mut items) | Value::Map(mut items) => {
            items.any(mentions_reference)
        }
        Value::Exception(exception) => exception.traceback().is_some() || exception.args().any(mentions_reference),
        _ => false,
    }
}

fn write_outcome(writer: &mut ValueWriter<'_>, outcome: Outcome<'_>) -> Result<(), ValueError> {
    match outcome {
        Outcome::Value(value) => writer.copy(value),
        Outcome::Char(character) => writer.str(character.encode_utf8(&mut [0; 4])),
        Outcome::Int(value) => writer.int(value),
        Outcome::Bool(value) => writer.bool(value),
        Outcome::Text(value, true) => writer.text(format_args!("{value:#}")),
        Outcome::Text(value, false) => writer.text(format_args!("{value}")),
        Outcome::Raise(name, key) => {
            writer.exception_head(name, 1)?;
            writer.copy(key)?;
            writer.exception_tail(None, None)
        }
    }
}
