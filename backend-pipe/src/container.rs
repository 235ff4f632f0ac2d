//! Containers as objects: by reference, with all their operations.

use std::borrow::Cow;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::args::Args;
use crate::error::Error;
use crate::object::{Action, Member, Object};
use crate::value::{Reference, Value};

/// A list that peers use by reference.
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
    fn place(index: Value, length: usize) -> Result<usize, Error> {
        let Value::Int(number) = index else { return Err(Error::bad_arguments("an integer index")) };
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

    fn perform(&self, action: Action<'_>, args: Args) -> Result<Value, Error> {
        let mut items = self.lock();
        let length = items.len();
        // Items that are replaced may be objects whose dropping runs code of others: they go after the lock.
        let replaced = match action {
            Action::Method("append") => match <[Value; 1]>::try_from(args.positional) {
                Ok([item]) => {
                    items.push(item);
                    return Ok(Value::None);
                }
                Err(_) => return Err(Error::bad_arguments("append(item)")),
            },
            Action::Method("pop") => {
                return items.pop().ok_or_else(|| Error::raise("IndexError", "pop from empty list"));
            }
            Action::Length => return Ok(Value::Int(length as i64)),
            Action::GetItem(index) => return Ok(items[Self::place(index, length)?].clone()),
            Action::SetItem(index, item) => std::mem::replace(&mut items[Self::place(index, length)?], item),
            Action::DelItem(index) => items.remove(Self::place(index, length)?),
            Action::Contains(item) => return Ok(Value::Bool(items.contains(&item))),
            Action::Equals(Value::List(other)) => return Ok(Value::Bool(*items == other)),
            Action::Equals(_) => return Ok(Value::NotImplemented),
            Action::Force => return Ok(Value::List(items.clone())),
            Action::Iterate => return Ok(iterator(items.clone())),
            Action::Text(_) => return Ok(Value::Str(format!("<list of {length}>"))),
            other => return other.unsupported(),
        };
        drop(items);
        drop(replaced);
        Ok(Value::None)
    }
}

/// A map that peers use by reference. Keys are compared as values.
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
        let mut entries = self.lock();
        let place = |entries: &[(Value, Value)], key: &Value| {
            let place = entries.iter().position(|(have, _)| have == key);
            place.ok_or_else(|| Error::raise_with("KeyError", vec![key.clone()]))
        };
        let replaced = match action {
            Action::Length => return Ok(Value::Int(entries.len() as i64)),
            Action::GetItem(key) => return Ok(entries[place(&entries, &key)?].1.clone()),
            Action::SetItem(key, value) => Self::put(&mut entries, key, value),
            Action::DelItem(key) => {
                let at = place(&entries, &key)?;
                Some(entries.remove(at).1)
            }
            Action::Contains(key) => return Ok(Value::Bool(place(&entries, &key).is_ok())),
            Action::Equals(Value::Map(other)) => {
                let same = entries.len() == other.len() && other.iter().all(|entry| entries.contains(entry));
                return Ok(Value::Bool(same));
            }
            Action::Equals(_) => return Ok(Value::NotImplemented),
            Action::Force => return Ok(Value::Map(entries.clone())),
            Action::Iterate => return Ok(iterator(entries.iter().map(|(key, _)| key.clone()).collect())),
            Action::Text(_) => return Ok(Value::Str(format!("<map of {}>", entries.len()))),
            other => return other.unsupported(),
        };
        drop(entries);
        drop(replaced);
        Ok(Value::None)
    }
}

/// An iterator over a snapshot.
fn iterator(items: Vec<Value>) -> Value {
    Reference::local(Iterator(Mutex::new(items.into_iter()))).into()
}

struct Iterator(Mutex<std::vec::IntoIter<Value>>);

impl Object for Iterator {
    fn perform(&self, action: Action<'_>, _: Args) -> Result<Value, Error> {
        match action {
            Action::Next(count) => {
                let mut items = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                Ok(Value::Tuple(items.by_ref().take(count).collect()))
            }
            Action::Text(_) => Ok(Value::from("<iterator>")),
            other => other.unsupported(),
        }
    }
}
