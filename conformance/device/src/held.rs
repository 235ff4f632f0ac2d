//! Values that are kept beyond a call, with what they refer to, in a fixed number of bytes.

use core::cell::Cell;

use farref_embassy::farref_core::codec::Writer;
use farref_embassy::farref_core::value::Top;
use farref_embassy::{
    Arguments, Error, ObjectKey, Peer, Ref, Reference, Remote, Reply, Returned, Value, ValueError, ValueWriter, Values,
};
use heapless::Vec;

/// Who holds which of our objects: the peer, and values that are kept.
#[derive(Debug)]
pub struct Holds<const OBJECTS: usize>([Cell<Hold>; OBJECTS]);

/// Of one object.
#[derive(Clone, Copy, Debug, Default)]
struct Hold {
    serial: u16,
    is_used: bool,
    is_exported: bool,
    count: u16,
}

/// The roots have keys below it.
const FIRST: u32 = 16;

impl<const OBJECTS: usize> Holds<OBJECTS> {
    /// Of nothing.
    #[allow(clippy::new_without_default, reason = "it is for statics")]
    pub const fn new() -> Self {
        Self([const { Cell::new(Hold { serial: 0, is_used: false, is_exported: false, count: 0 }) }; OBJECTS])
    }

    /// A place for an object, and its key.
    pub(crate) fn claim(&self) -> Option<(usize, ObjectKey)> {
        let place = self.0.iter().position(|hold| !hold.get().is_used)?;
        let hold = self.0.get(place)?;
        let serial = hold.get().serial.wrapping_add(1);
        hold.set(Hold { serial, is_used: true, ..Hold::default() });
        Some((place, ObjectKey(u32::from(serial) << 16 | (place as u32 + FIRST))))
    }

    /// Where the object is.
    pub(crate) fn place(&self, key: ObjectKey) -> Option<usize> {
        let place = usize::try_from((key.0 & 0xFFFF).checked_sub(FIRST)?).ok()?;
        let hold = self.0.get(place)?.get();
        (hold.is_used && u32::from(hold.serial) == key.0 >> 16).then_some(place)
    }

    pub(crate) fn set_exported(&self, key: ObjectKey, is_exported: bool) {
        if let Some(hold) = self.place(key).and_then(|place| self.0.get(place)) {
            hold.set(Hold { is_exported, ..hold.get() });
        }
    }

    pub(crate) fn is_alive(&self, place: usize) -> bool {
        self.0.get(place).is_some_and(|hold| hold.get().is_used && (hold.get().is_exported || hold.get().count > 0))
    }

    /// The place is free again.
    pub(crate) fn free(&self, place: usize) {
        if let Some(hold) = self.0.get(place) {
            hold.set(Hold { serial: hold.get().serial, ..Hold::default() });
        }
    }

    /// The session is over: nobody else holds anything.
    pub(crate) fn clear(&self) {
        self.0.iter().for_each(|hold| hold.set(Hold { is_exported: false, ..hold.get() }));
    }
}

/// Counts of whatever number of objects.
pub(crate) trait Counts {
    fn count(&self, key: ObjectKey, change: i16);
    fn export(&self, key: ObjectKey);
}

impl<const OBJECTS: usize> Counts for Holds<OBJECTS> {
    fn count(&self, key: ObjectKey, change: i16) {
        if let Some(hold) = self.place(key).and_then(|place| self.0.get(place)) {
            let count = hold.get().count.saturating_add_signed(change);
            hold.set(Hold { count, ..hold.get() });
        }
    }

    fn export(&self, key: ObjectKey) {
        self.set_exported(key, true);
    }
}

/// An object of ours, held.
pub(crate) struct Own<'c> {
    pub key: ObjectKey,
    counts: &'c dyn Counts,
}

impl<'c> Own<'c> {
    pub fn new(key: ObjectKey, counts: &'c dyn Counts) -> Self {
        counts.count(key, 1);
        Self { key, counts }
    }
}

impl Clone for Own<'_> {
    fn clone(&self) -> Self {
        Self::new(self.key, self.counts)
    }
}

impl Drop for Own<'_> {
    fn drop(&mut self) {
        self.counts.count(self.key, -1);
    }
}

/// What a value refers to.
#[derive(Clone)]
pub(crate) enum Item<'c> {
    Ours(Own<'c>),
    Theirs(Remote<'c>),
}

impl Item<'_> {
    pub fn reference(&self, to: Peer<'_>) -> Result<Ref, Error> {
        match self {
            Self::Ours(own) => {
                own.counts.export(own.key);
                Ok(Ref::Local(own.key))
            }
            Self::Theirs(remote) => remote.reference(to),
        }
    }
}

/// So many references in one value or call: as many as a message may have.
pub const REFERENCES: usize = 16;

/// A run of values.
#[derive(Clone)]
pub(crate) struct Held<'c, const BYTES: usize> {
    bytes: [u8; BYTES],
    length: usize,
    pub items: Vec<Item<'c>, REFERENCES>,
}

impl<'c, const BYTES: usize> Held<'c, BYTES> {
    /// Arguments of a call; None if they do not fit.
    pub fn new<'f>(
        values: impl IntoIterator<Item = Value<'f>>,
        args: &Arguments<'_>,
        (peer, counts): (Peer<'c>, &'c dyn Counts),
        reply: &mut Reply<'_>,
    ) -> Option<Self> {
        let mut held = Self { bytes: [0; BYTES], length: 0, items: Vec::new() };
        let mut found: Vec<Reference, REFERENCES> = Vec::new();
        let written = {
            let mut writer = ValueWriter::new(Writer::new(&mut held.bytes), Top::Arguments, REFERENCES as u32);
            for value in values {
                write_args(&mut writer, value, args, reply, &mut found).ok()?;
            }
            writer.finish().ok()?.written()?.len()
        };
        held.length = written;
        for reference in found {
            held.items.push(item(reference, (peer, counts), reply)?).ok()?;
        }
        Some(held)
    }

    /// The result of a call of ours, or what came with its error.
    pub fn of_result(returned: &Returned<'c>, counts: &'c dyn Counts) -> Option<Self> {
        let mut held = Self { bytes: [0; BYTES], length: 0, items: Vec::new() };
        let mut indices: Vec<u32, REFERENCES> = Vec::new();
        let bytes = &mut held.bytes;
        let mut write = |values: &mut dyn Iterator<Item = Value<'_>>| {
            let mut writer = ValueWriter::new(Writer::new(bytes), Top::Arguments, REFERENCES as u32);
            for value in values {
                let mut number = |index| {
                    let _ = indices.push(index);
                    indices.len() - 1
                };
                copy(&mut writer, value, &mut number).ok()?;
            }
            Some(writer.finish().ok()?.written()?.len())
        };
        held.length = match returned.read_error(|_, values| write(&mut values.into_iter())) {
            Some(length) => length?,
            None => returned.read(|value| write(&mut core::iter::once(value))).ok()??,
        };
        for index in indices {
            let item = match returned.object(index) {
                Some(key) => Item::Ours(Own::new(key, counts)),
                None => Item::Theirs(returned.reference(index)?),
            };
            held.items.push(item).ok()?;
        }
        Some(held)
    }

    pub fn values(&self) -> Values<'_> {
        let bytes = self.bytes.get(..self.length).unwrap_or_default();
        Values::check(bytes, Top::Arguments, self.items.len() as u32).unwrap_or_default()
    }

    /// How the references are sent.
    pub fn references(&self, to: Peer<'_>) -> Result<Vec<Ref, REFERENCES>, Error> {
        self.items.iter().map(|item| item.reference(to)).collect()
    }

    /// Writes all values; their references are those from number `first` on.
    pub fn write(&self, writer: &mut ValueWriter<'_>, first: usize) -> Result<(), ValueError> {
        self.values().into_iter().try_for_each(|value| copy(writer, value, &mut |index| first + index as usize))
    }
}

fn item<'c>(
    reference: Reference,
    (peer, counts): (Peer<'c>, &'c dyn Counts),
    reply: &mut Reply<'_>,
) -> Option<Item<'c>> {
    match reference {
        Reference::Local(key) => Some(Item::Ours(Own::new(key, counts))),
        other => peer.hold(other, reply).map(Item::Theirs),
    }
}

/// Writes an argument. What it refers to comes into `found`, in the order in which it is written; values that promises have
/// settled to are written in their place.
pub(crate) fn write_args(
    writer: &mut ValueWriter<'_>,
    value: Value<'_>,
    args: &Arguments<'_>,
    reply: &Reply<'_>,
    found: &mut Vec<Reference, REFERENCES>,
) -> Result<(), ValueError> {
    let resolve = |index| args.handle(index).and_then(|handle| reply.resolve(handle));
    substitute(writer, value, &mut |writer, index| match resolve(index) {
        Some(Reference::Value(kept)) => {
            let Some((handles, values)) = reply.kept(kept) else { return writer.none() };
            let value = values.first().unwrap_or(Value::None);
            substitute(writer, value, &mut |writer, index| {
                let named = handles.get(index).and_then(|handle| reply.resolve_kept(handle));
                named_reference(writer, named, found)
            })
        }
        other => named_reference(writer, other, found),
    })
}

fn named_reference(
    writer: &mut ValueWriter<'_>,
    reference: Option<Reference>,
    found: &mut Vec<Reference, REFERENCES>,
) -> Result<(), ValueError> {
    match reference {
        Some(reference @ (Reference::Local(_) | Reference::Import(_) | Reference::Weak(_))) => {
            let number = found.len();
            let _ = found.push(reference);
            writer.reference(number)
        }
        _ => writer.none(),
    }
}

/// Writes a value with references by other numbers.
pub(crate) fn copy(
    writer: &mut ValueWriter<'_>,
    value: Value<'_>,
    number: &mut dyn FnMut(u32) -> usize,
) -> Result<(), ValueError> {
    substitute(writer, value, &mut |writer, index| writer.reference(number(index)))
}

type WriteReference<'r> = &'r mut dyn FnMut(&mut ValueWriter<'_>, u32) -> Result<(), ValueError>;

/// Writes a value; `reference` writes what stands in the place of each reference.
fn substitute(writer: &mut ValueWriter<'_>, value: Value<'_>, reference: WriteReference<'_>) -> Result<(), ValueError> {
    let items = match value {
        Value::Reference(index) => return reference(writer, index),
        Value::Tuple(items) => writer.tuple(items.len()).map(|()| items)?,
        Value::List(items) => writer.list(items.len()).map(|()| items)?,
        Value::Set(items) => writer.set(items.len()).map(|()| items)?,
        Value::Map(items) => writer.map(items.len() / 2).map(|()| items)?,
        Value::Named(named) => {
            writer.named(named.name())?;
            return substitute(writer, named.value(), reference);
        }
        Value::Exception(exception) => {
            writer.exception_head(exception.name(), exception.args().len())?;
            for value in exception.args() {
                substitute(writer, value, reference)?;
            }
            return match exception.traceback() {
                None => writer.exception_tail(exception.text(), None),
                Some(index) => {
                    match exception.text() {
                        Some(text) => writer.str(text)?,
                        None => writer.none()?,
                    }
                    reference(writer, index)
                }
            };
        }
        other => return writer.copy(other),
    };
    for value in items {
        substitute(writer, value, reference)?;
    }
    Ok(())
}
