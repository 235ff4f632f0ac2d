//! The objects of this process that the peer may hold.

use std::sync::Arc;

use farref_core::session::ObjectKey;
use rustc_hash::FxHashMap;

use crate::args::Args;
use crate::error::Error;
use crate::object::{Action, Object};
use crate::proxy::Proxy;
use crate::value::Value;

/// Objects of this process that the peer may hold, by key. One object has one key.
pub(crate) struct LocalObjects {
    /// With the address that identifies each: it lives as long as the entry.
    slots: Vec<Option<(usize, Arc<dyn Object>)>>,
    free: Vec<u32>,
    keys: FxHashMap<usize, ObjectKey>,
}

impl LocalObjects {
    pub fn new(directory: Arc<dyn Object>) -> Self {
        let mut objects = Self { slots: Vec::new(), free: Vec::new(), keys: FxHashMap::default() };
        objects.intern(&directory);
        objects
    }

    pub fn get(&self, key: ObjectKey) -> Option<Arc<dyn Object>> {
        self.slots.get(key.0 as usize)?.as_ref().map(|(_, object)| object.clone())
    }

    /// The key of an object.
    pub fn intern(&mut self, object: &Arc<dyn Object>) -> ObjectKey {
        let address = Arc::as_ptr(object).cast::<()>() as usize;
        self.intern_as(address, || object.clone())
    }

    /// The key of another peer's object, which is handed on as one of ours.
    pub fn intern_foreign(&mut self, proxy: &Proxy) -> ObjectKey {
        self.intern_as(proxy.address(), || Arc::new(Forwarder(proxy.clone())))
    }

    fn intern_as(&mut self, address: usize, object: impl FnOnce() -> Arc<dyn Object>) -> ObjectKey {
        if let Some(&key) = self.keys.get(&address) {
            return key;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            (self.slots.len() - 1) as u32
        });
        self.slots[slot as usize] = Some((address, object()));
        self.keys.insert(address, ObjectKey(slot));
        ObjectKey(slot)
    }

    /// The object, to be dropped without the lock.
    #[must_use]
    pub fn remove(&mut self, key: ObjectKey) -> Option<Arc<dyn Object>> {
        let (address, object) = self.slots.get_mut(key.0 as usize)?.take()?;
        self.keys.remove(&address);
        self.free.push(key.0);
        Some(object)
    }

    /// Bytes that the table takes, without the objects.
    pub fn memory(&self) -> usize {
        let of_a_slot = size_of::<Option<(usize, Arc<dyn Object>)>>();
        let of_a_key = size_of::<(usize, ObjectKey)>() + 1;
        // A hash table is full at seven eighths.
        self.slots.capacity() * of_a_slot
            + self.free.capacity() * size_of::<u32>()
            + self.keys.capacity() * of_a_key * 8 / 7
    }

    #[must_use]
    pub fn clear(&mut self) -> Vec<Arc<dyn Object>> {
        self.keys.clear();
        self.free.clear();
        self.slots.drain(..).flatten().map(|(_, object)| object).collect()
    }
}

/// Stands for another peer's object.
struct Forwarder(Proxy);

impl Object for Forwarder {
    fn perform(&self, action: Action<'_>, _: Args) -> Result<Value, Error> {
        action.unsupported()
    }

    fn stands_for(&self) -> Option<&Proxy> {
        Some(&self.0)
    }
}
