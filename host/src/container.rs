//! Containers as objects: by reference, with all their operations.

use std::borrow::Cow;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::args::Args;
use crate::error::Error;
use crate::object::{Action, Member, Object};
use crate::value::{Reference, Value};

/// A list that peers use by reference: items by index, negative ones from the end, `append`, `pop`, length, iteration over a
/// snapshot, comparison with a list by value, and all at once by force. An index that is out of range raises `IndexError`.
///
/// There is no limit to its length: a peer that may append can fill the memory.
#[derive(Debug, Default)]
pub struct List(Mutex<Vec<Value>>);

impl List {
    /// A list of these items.
    pub fn new(items: Vec<Value>) -> Self {
        Self(Mutex::new(items))
    }

    /// Its items now.
    pub fn items(&self) -> Vec<Value> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Value>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The place of an index, negative ones from the end.
    fn place(index: &Value, length: usize) -> Result<usize, Error> {
        let &Value::Int(number) = index else { return Err(Error::bad_arguments("an integer index")) };
        let place = if number < 0 { number.checked_add_unsigned(length as u64) } else { Some(number) };
        place
            .and_then(|place| usize::try_from(place).ok())
            .filter(|&place| place < length)
            .ok_or_else(|| Error::raise_with("IndexError", vec![Value::Int(number)]))
    }
}

impl Object for List {
    fn members(&self) -> Cow<'_, [Member]> {
        const MEMBERS: &[Member] =
            &[Member::method("append", "adds an item at the end"), Member::method("pop", "takes the last item away")];
        Cow::Borrowed(MEMBERS)
    }

    fn perform(&self, action: Action<'_>, mut args: Args) -> Result<Value, Error> {
        // What is replaced, and the operands, may be the last of an object whose dropping runs code of others: both outlive
        // the lock.
        let mut replaced = None;
        let mut items = self.lock();
        let length = items.len();
        let result = match &action {
            Action::Method("append") => match (args.positional.pop(), args == Args::default()) {
                (Some(item), true) => {
                    items.push(item);
                    Value::None
                }
                _ => return Err(Error::bad_arguments("append(item)")),
            },
            Action::Method("pop") if args != Args::default() => return Err(Error::bad_arguments("pop()")),
            Action::Method("pop") => {
                return items.pop().ok_or_else(|| Error::raise("IndexError", "pop from empty list"));
            }
            Action::Length => Value::Int(length as i64),
            Action::GetItem(index) => items[Self::place(index, length)?].clone(),
            Action::SetItem(index, item) => {
                replaced = Some(std::mem::replace(&mut items[Self::place(index, length)?], item.clone()));
                Value::None
            }
            Action::DelItem(index) => {
                replaced = Some(items.remove(Self::place(index, length)?));
                Value::None
            }
            Action::Contains(item) => Value::Bool(items.contains(item)),
            Action::Equals(Value::List(other)) => Value::Bool(*items == *other),
            Action::Equals(_) => Value::NotImplemented,
            Action::Force => Value::List(items.clone()),
            Action::Iterate => iterator(items.clone()),
            Action::Text(_) => Value::Str(format!("<list of {length}>")),
            other => return other.unsupported(),
        };
        drop(items);
        drop(replaced);
        Ok(result)
    }
}

/// A map that peers use by reference: items by key, length, iteration over a snapshot of the keys, comparison with a map by
/// value, and all at once by force. A key that is not there raises `KeyError`.
///
/// Keys are compared as values, one after the other: it is for few entries. There is no limit to their number.
#[derive(Debug, Default)]
pub struct Map(Mutex<Vec<(Value, Value)>>);

impl Map {
    /// A map of these entries; of equal keys the last one counts.
    pub fn new(entries: Vec<(Value, Value)>) -> Self {
        let map = Self::default();
        for (key, value) in entries {
            Self::put(&mut map.lock(), key, value);
        }
        map
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Value, Value)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(entries: &mut Vec<(Value, Value)>, key: Value, value: Value) -> Option<Value> {
        match entries.iter_mut().find(|(have, _)| *have == key) {
            Some((_, have)) => Some(std::mem::replace(have, value)),
            None => {
                entries.push((key, value));
                None
            }
        }
    }
}

impl Object for Map {
    fn perform(&self, action: Action<'_>, _: Args) -> Result<Value, Error> {
        // As with lists: what is replaced outlives the lock, and so do the operands.
        let mut replaced = None;
        let mut entries = self.lock();
        let place = |entries: &[(Value, Value)], key: &Value| {
            let place = entries.iter().position(|(have, _)| have == key);
            place.ok_or_else(|| Error::raise_with("KeyError", vec![key.clone()]))
        };
        let result = match &action {
            Action::Length => Value::Int(entries.len() as i64),
            Action::GetItem(key) => entries[place(&entries, key)?].1.clone(),
            Action::SetItem(key, value) => {
                replaced = Self::put(&mut entries, key.clone(), value.clone());
                Value::None
            }
            Action::DelItem(key) => {
                let at = place(&entries, key)?;
                replaced = Some(entries.remove(at).1);
                Value::None
            }
            Action::Contains(key) => Value::Bool(place(&entries, key).is_ok()),
            Action::Equals(Value::Map(other)) => {
                Value::Bool(entries.len() == other.len() && other.iter().all(|entry| entries.contains(entry)))
            }
            Action::Equals(_) => Value::NotImplemented,
            Action::Force => Value::Map(entries.clone()),
            Action::Iterate => iterator(entries.iter().map(|(key, _)| key.clone()).collect()),
            Action::Text(_) => Value::Str(format!("<map of {}>", entries.len())),
            other => return other.unsupported(),
        };
        drop(entries);
        drop(replaced);
        Ok(result)
    }
}

/// An iterator over a snapshot.
fn iterator(items: Vec<Value>) -> Value {
    Reference::local(Iterator(Mutex::new(items.into_iter()))).into()
}

struct Iterator(Mutex<std::vec::IntoIter<Value>>);

/// Items go out together up to so many bytes of memory, or half of what the peer takes: a batch that is too large to be sent
/// would be lost.
const BATCH_BYTES: usize = 32 * 1024;

impl Object for Iterator {
    fn perform(&self, action: Action<'_>, _: Args) -> Result<Value, Error> {
        match action {
            Action::Next(count) => {
                let mut items = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                let most = BATCH_BYTES.min(crate::current::callers_max_message() / 2);
                let mut batch = Vec::new();
                let mut bytes = 0;
                while let Some(next) = items.as_slice().first().filter(|_| batch.len() < count) {
                    bytes += crate::value::memory_of(next);
                    if bytes > most && !batch.is_empty() {
                        break;
                    }
                    batch.extend(items.next());
                }
                Ok(Value::Tuple(batch))
            }
            Action::Text(_) => Ok(Value::from("<iterator>")),
            other => other.unsupported(),
        }
    }
}
