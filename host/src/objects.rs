//! The objects of this process that the peer may hold.

use std::collections::VecDeque;
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
    /// Keys of weak references, by the address of what they are for, which stays that one's as long as they live.
    weak_keys: FxHashMap<usize, ObjectKey>,
    /// The same keys, those that were looked at last at the end; some may be other objects' by now.
    weak: VecDeque<ObjectKey>,
}

impl LocalObjects {
    pub fn new(directory: Arc<dyn Object>) -> Self {
        let mut objects = Self {
            slots: Vec::new(),
            free: Vec::new(),
            keys: FxHashMap::default(),
            weak_keys: FxHashMap::default(),
            weak: VecDeque::new(),
        };
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

    /// The key of another peer's object, which is handed on as one of ours, and whether it is new.
    pub fn intern_foreign(&mut self, proxy: &Proxy) -> (ObjectKey, bool) {
        let mut is_new = false;
        let key = self.intern_as(proxy.address(), || {
            is_new = true;
            Arc::new(Forwarder(proxy.clone()))
        });
        (key, is_new)
    }

    /// The key of a weak reference to an object, and whether it is new: there is one for each object.
    pub fn intern_weak(&mut self, weak: &Arc<dyn Object>, address: usize) -> (ObjectKey, bool) {
        if let Some(&key) = self.weak_keys.get(&address) {
            return (key, false);
        }
        let key = self.add(address, weak.clone());
        self.weak_keys.insert(address, key);
        self.weak.push_back(key);
        (key, true)
    }

    fn intern_as(&mut self, address: usize, object: impl FnOnce() -> Arc<dyn Object>) -> ObjectKey {
        if let Some(&key) = self.keys.get(&address) {
            return key;
        }
        let key = self.add(address, object());
        self.keys.insert(address, key);
        key
    }

    fn add(&mut self, address: usize, object: Arc<dyn Object>) -> ObjectKey {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            (self.slots.len() - 1) as u32
        });
        self.slots[slot as usize] = Some((address, object));
        ObjectKey(slot)
    }

    /// The object, to be dropped without the lock.
    #[must_use]
    pub fn remove(&mut self, key: ObjectKey) -> Option<Arc<dyn Object>> {
        let (address, object) = self.slots.get_mut(key.0 as usize)?.take()?;
        // An object that was withdrawn may have another key since.
        let keys = if object.weak_of().is_some() { &mut self.weak_keys } else { &mut self.keys };
        if keys.get(&address) == Some(&key) {
            keys.remove(&address);
        }
        self.free.push(key.0);
        Some(object)
    }

    /// An object that is withdrawn: its key, and that of a weak reference to it. Sent again it has another one.
    pub fn withdraw(&mut self, address: usize) -> impl Iterator<Item = ObjectKey> + use<> {
        [self.keys.remove(&address), self.weak_keys.remove(&address)].into_iter().flatten()
    }

    pub fn has_weak(&self) -> bool {
        !self.weak.is_empty()
    }

    /// Keys of weak references whose object is gone, of so many at most that are looked at.
    pub fn gone(&mut self, most: usize) -> Vec<ObjectKey> {
        let mut gone = Vec::new();
        for _ in 0..most.min(self.weak.len()) {
            let Some(key) = self.weak.pop_front() else { break };
            let object = self.slots.get(key.0 as usize).and_then(Option::as_ref).map(|(_, object)| object);
            match object.and_then(|object| object.weak_of()) {
                Some(weak) if weak.strong_count() > 0 => self.weak.push_back(key),
                Some(_) => gone.push(key),
                None => {}
            }
        }
        gone
    }

    /// Bytes that the table takes, without the objects.
    pub fn memory(&self) -> usize {
        let of_a_slot = size_of::<Option<(usize, Arc<dyn Object>)>>();
        let of_a_key = size_of::<(usize, ObjectKey)>() + 1;
        // A hash table is full at seven eighths.
        self.slots.capacity() * of_a_slot
            + self.free.capacity() * size_of::<u32>()
            + (self.keys.capacity() + self.weak_keys.capacity()) * of_a_key * 8 / 7
            + self.weak.capacity() * size_of::<ObjectKey>()
    }

    #[must_use]
    pub fn clear(&mut self) -> Vec<Arc<dyn Object>> {
        self.keys.clear();
        self.weak_keys.clear();
        self.weak.clear();
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
