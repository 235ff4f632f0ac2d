//! References: exports and imports, holds, marks and Release (SPEC section 5).

use super::entry::{Export, ExportState, Held, Scope};
use super::lent::{Slot, local};
use super::receive::fault;
use super::storage::{KeyIndex, Parts, Storage, Table};
use super::width::Number;
use super::{Ended, Import, ImportEntry, ObjectKey, Ref, Rule, Session, Stale};
use crate::codec::{SHORTCUTS, Writer};
use crate::message::{self, Descriptor, Handles};

/// The furthest that the `upto` of a Release may lie behind what was sent (REL-4).
const OLDEST: u32 = 1 << 31;
/// After so many messages it is looked how old exports are: before the low bits of one that was not too old begin again.
pub(super) const AGING: u64 = 1 << 30;

/// Why references could not be pinned.
pub(super) enum PinError {
    BadReference(usize),
    TableFull,
}

impl<S: Storage> Session<S> {
    /// One more holder of a reference.
    pub fn retain(&mut self, import: Import) -> Result<(), Stale> {
        if import.slot == 0 {
            return Ok(());
        }
        let entry = self.imports.get_mut(import.slot).ok_or(Stale)?;
        if !entry.live || entry.generation != import.generation || entry.epoch != import.epoch {
            return Err(Stale);
        }
        entry.holds.up();
        Ok(())
    }

    /// One holder of a reference less. The last one marks it; it is released with the next output (REL-1).
    pub fn release(&mut self, import: Import) -> Result<(), Stale> {
        if import.slot != 0 {
            if !self.holds(import) {
                return Err(Stale);
            }
            self.release_entry(import.slot, import.generation);
        }
        Ok(())
    }

    pub(super) fn release_entry(&mut self, slot: u32, generation: u16) {
        let Some(entry) = self.imports.get_mut(slot) else { return };
        if !entry.live || entry.generation != generation || !entry.is_held() {
            return;
        }
        entry.holds.down();
        // What is lent goes by itself (REF-9); what is in a list already is looked at there.
        if !entry.is_held() && !entry.scope.is_some() && !entry.is_listed() {
            self.marked.push_back(&mut self.imports, slot);
        }
    }

    /// Whether a reference is held here.
    #[cfg_attr(not(feature = "alloc"), inline(never))]
    pub fn holds(&self, import: Import) -> bool {
        let held = |entry: &ImportEntry<S::Width>| {
            entry.live && entry.is_held() && (entry.generation, entry.epoch) == (import.generation, import.epoch)
        };
        import.slot == 0 || self.imports.get(import.slot).is_some_and(held)
    }

    /// The object of ours that a handle names, if the peer may hold that, whether the object is revoked or not.
    pub fn exported(&self, slot: u32, generation: u16) -> Option<ObjectKey> {
        let is_it = |export: &&Export<S::Width>| export.wire() && export.used() && export.generation == generation;
        self.exports.get(slot).filter(is_it).map(|export| export.key)
    }

    /// Whether an object of ours has a slot: the peer or a call may hold it.
    pub fn is_exported(&self, key: ObjectKey) -> bool {
        find_export::<S>(&self.exports, &self.keys, key).is_some()
    }

    /// Frees the slots of which no newer copy is under way (REL-2). Nothing is answered (REL-5).
    pub(super) fn on_release(&mut self, entries: message::Releases<'_>) -> Result<(), Ended> {
        // The low 32 bits tell the ordinal, since far fewer messages are under way (REL-4).
        let behind = self.age(entries.upto);
        if behind > OLDEST || u64::from(behind) > self.sent {
            return Err(fault(Rule::ReleaseNeverSent));
        }
        for (slot, generation) in entries {
            let is_one = slot > 0 && (slot as usize) < self.exports.len();
            let Some(export) = self.exports.get(slot).filter(|_| is_one) else {
                return Err(fault(Rule::ReleaseNeverSent));
            };
            let age = export.generation.wrapping_sub(generation);
            if age >= 0x8000 || age == 0 && !export.wire() {
                return Err(fault(Rule::ReleaseNeverSent));
            }
            // Between two messages nothing is pinned (REF-4): a command is done with its message when it returns.
            if age == 0 && !export.scope.is_some() && self.age(export.last_sent) >= behind {
                self.free_slot(slot);
            }
        }
        Ok(())
    }

    /// How many messages were sent since the one of which these are the low bits.
    fn age(&self, ordinal: u32) -> u32 {
        (self.sent as u32).wrapping_sub(ordinal)
    }

    /// Makes what was sent before all that a Release can mean not older than its low bits can tell.
    #[cold]
    pub(super) fn age_exports(&mut self) {
        for slot in 0..self.exports.len() as u32 {
            let is_old = self.exports.get(slot).is_some_and(|export| self.age(export.last_sent) > OLDEST);
            if let Some(export) = self.exports.get_mut(slot).filter(|_| is_old) {
                export.last_sent = (self.sent as u32).wrapping_sub(OLDEST);
            }
        }
    }

    /// The peer does not hold a slot any more: by a Release, or because it was lent and that is over.
    pub(super) fn free_slot(&mut self, slot: u32) {
        let Some(export) = self.exports.get_mut(slot).filter(|export| export.wire()) else { return };
        export.set_wire(false);
        (export.last_sent, export.scope) = (0, Scope::default());
        export.generation = export.generation.wrapping_add(1);
        self.wire_exports -= 1;
        if export.used() {
            self.settle_export(slot);
        } else {
            // The object of a tombstone is gone already.
            export.dead = Default::default();
            self.free_exports.push_back(&mut self.exports, slot);
        }
    }

    /// Enters a message's handles before anything else is looked at (REF-3): one hold for each. `call` is the id of the
    /// call that they came with; gives the list of what is lent to it.
    #[inline]
    pub(super) fn enter_handles(&mut self, handles: Handles<'_>, call: Option<u16>) -> Result<Slot<S>, Ended> {
        // As with most messages.
        if SHORTCUTS && handles.is_empty() { Ok(Slot::<S>::default()) } else { self.enter_all(handles, call) }
    }

    fn enter_all(&mut self, handles: Handles<'_>, call: Option<u16>) -> Result<Slot<S>, Ended> {
        if handles.len() > self.limits.handles.into() {
            return Err(fault(Rule::LimitExceeded));
        }
        let mut lent = Slot::<S>::default();
        for handle in handles {
            let Some((slot, generation)) = handle.of_sender() else { continue };
            if slot == 0 && generation == 0 {
                continue;
            }
            if slot == 0 || slot >= self.limits.imports {
                return Err(fault(Rule::ImportSlot));
            }
            while self.imports.len() <= slot as usize {
                self.imports.grow().ok_or(Ended::Closed(message::CloseCode::OutOfResources))?;
            }
            let Some(import) = self.imports.get_mut(slot) else { continue };
            if import.live && import.generation != generation {
                return Err(fault(Rule::ImportSlot));
            }
            if import.live && import.dead.reason().is_some() {
                return Err(fault(Rule::DownNeverSent));
            }
            let is_new = !import.live;
            if is_new {
                (import.live, import.generation, import.holds) = (true, generation, Default::default());
                self.live_imports += 1;
            }
            import.holds.up();
            let scope = import.scope.call();
            match (handle, call) {
                (Descriptor::Borrowed { .. }, Some(call)) if is_new => self.borrow(slot, call, &mut lent),
                (Descriptor::Borrowed { .. }, Some(_)) if scope == call => {}
                _ if scope.is_some() => self.keep_lent_import(slot, call, &mut lent),
                _ => {}
            }
        }
        Ok(lent)
    }

    /// One holder less of each object of the peer among the handles.
    pub(crate) fn release_handles(&mut self, handles: Handles<'_>) {
        handles.for_each(|handle| self.release_handle(handle));
    }

    pub(super) fn release_handle(&mut self, handle: Descriptor) {
        if let Some((slot, generation)) = handle.of_sender() {
            self.release_entry(slot, generation);
        }
    }

    pub(super) fn hold_home(&mut self, handle: Descriptor) {
        if let Descriptor::Receiver { slot, .. } = handle {
            self.hold(Held::Export(slot));
        }
    }

    pub(super) fn hold(&mut self, held: Held) {
        match held {
            Held::Export(slot) => {
                if let Some(export) = self.exports.get_mut(slot) {
                    export.holds.up();
                }
            }
            Held::Import { slot, generation } => {
                let _ = self.retain(self.import(slot, generation));
            }
            Held::Nothing => {}
        }
    }

    pub(super) fn unhold(&mut self, held: Held) {
        match held {
            Held::Export(slot) => self.unhold_export(slot),
            Held::Import { slot, generation } => self.release_entry(slot, generation),
            Held::Nothing => {}
        }
    }

    pub(super) fn unhold_export(&mut self, slot: u32) {
        if let Some(export) = self.exports.get_mut(slot) {
            export.holds.down();
        }
        self.settle_export(slot);
    }

    /// An object that neither the peer nor a call holds any more is told to the host.
    pub(super) fn settle_export(&mut self, slot: u32) {
        let Some(export) = self.exports.get_mut(slot) else { return };
        if export.state() == ExportState::Used && export.is_let_go() {
            export.set_state(ExportState::Freed);
            self.freed.push_back(&mut self.exports, slot);
        }
    }

    /// Makes slot 0 the directory (REF-7).
    pub(super) fn export_directory(&mut self) {
        if let Some(export) = self.exports.grow().and_then(|slot| self.exports.get_mut(slot)) {
            // As if sent before everything else.
            export.set_state(ExportState::Used);
            export.set_wire(true);
            export.key = ObjectKey::DIRECTORY;
            self.wire_exports = 1;
        }
    }

    /// Pins the objects among the references, giving slots to those without (REF-4, ADM-3). All or none. Before anything else
    /// happens, either [`Self::note_sent`] or [`Self::unpin`] follows.
    #[inline]
    pub(super) fn pin(&mut self, references: &[Ref]) -> Result<(), PinError> {
        if SHORTCUTS && references.is_empty() { Ok(()) } else { self.pin_all(references) }
    }

    fn pin_all(&mut self, references: &[Ref]) -> Result<(), PinError> {
        for (index, reference) in references.iter().enumerate() {
            let fine = match *reference {
                Ref::Import(import) => self.holds(import),
                Ref::Local(key) | Ref::Borrowed(key) | Ref::Weak(key) => self.is_revoked(key).is_none(),
                Ref::Promise(promise) => self.check_promise(promise).is_ok(),
            };
            if !fine {
                return Err(PinError::BadReference(index));
            }
        }
        for (index, reference) in references.iter().enumerate() {
            let Some((key, _)) = local(*reference) else { continue };
            if self.pin_one(key).is_none() {
                self.unpin(references.get(..index).unwrap_or_default());
                return Err(PinError::TableFull);
            }
        }
        Ok(())
    }

    /// An object that has a slot keeps it: one for each session, however often it is sent (REF-1).
    pub(super) fn pin_one(&mut self, key: ObjectKey) -> Option<()> {
        match find_export::<S>(&self.exports, &self.keys, key) {
            Some(_) => Some(()),
            None => self.new_export(key).map(drop),
        }
    }

    /// Gives an object a slot: the one that has been free longest (REL-3).
    pub(super) fn new_export(&mut self, key: ObjectKey) -> Option<u32> {
        let limit = self.peer_limits().imports as usize;
        let slot = match self.free_exports.pop(&mut self.exports) {
            Some(slot) => slot,
            None if self.exports.len() < limit => self.exports.grow()?,
            None => return None,
        };
        let export = self.exports.get_mut(slot)?;
        export.set_state(ExportState::Used);
        (export.key, export.born) = (key, export.generation);
        self.keys.insert(key, slot);
        Some(slot)
    }

    /// The message was not written: an object that had no slot before has none now, and the host is not told of what never
    /// was (REF-4).
    pub(super) fn unpin(&mut self, references: &[Ref]) {
        // From the last to the first: slots that were taken off the free list go back in the order in which they stood.
        for (key, _) in references.iter().rev().filter_map(|reference| local(*reference)) {
            let Some(slot) = find_export::<S>(&self.exports, &self.keys, key) else { continue };
            let is_new =
                |export: &Export<S::Width>| export.state() == ExportState::Used && !export.wire() && !export.is_held();
            if self.exports.get(slot).is_some_and(is_new) {
                self.forget_export(slot, true);
            }
        }
    }

    /// The message was written and has its ordinal: its objects are sent (REF-4). `call` is its id if it is a call.
    pub(super) fn note_sent(&mut self, references: &[Ref], call: Option<u16>) {
        for (key, is_lent) in references.iter().filter_map(|reference| local(*reference)) {
            let Some(slot) = find_export::<S>(&self.exports, &self.keys, key) else { continue };
            let Some(export) = self.exports.get_mut(slot) else { continue };
            let (is_new, can_be_lent, scope) = (!export.wire(), export.can_be_lent(), export.scope.call());
            export.set_wire(true);
            export.last_sent = self.sent as u32;
            self.wire_exports += u32::from(is_new);
            match call.filter(|_| is_lent && S::Parts::LENDS) {
                Some(call) if can_be_lent => self.lend(slot, call),
                Some(call) if scope == Some(call) => {}
                _ if scope.is_some() => self.keep_lent_export(slot),
                _ => {}
            }
        }
    }

    pub(super) fn forget_export(&mut self, slot: u32, never_used: bool) {
        let Some(export) = self.exports.get_mut(slot) else { return };
        export.set_state(ExportState::Free);
        export.born = 0;
        let key = core::mem::take(&mut export.key);
        let is_tombstone = export.wire();
        if !is_tombstone {
            export.dead = Default::default();
        }
        self.keys.remove(key);
        if is_tombstone {
            // Only the peer's Release frees its slot (REL-5).
        } else if never_used {
            self.free_exports.push_front(&mut self.exports, slot);
        } else {
            self.free_exports.push_back(&mut self.exports, slot);
        }
    }
}

/// The slot of an object.
pub(super) fn find_export<S: Storage>(exports: &S::Exports, keys: &S::Keys, key: ObjectKey) -> Option<u32> {
    if key == ObjectKey::DIRECTORY {
        return Some(0);
    }
    if S::Keys::INDEXED {
        return keys.find(key);
    }
    let has_key = |slot: &u32| exports.get(*slot).is_some_and(|export| export.used() && export.key == key);
    (0..exports.len() as u32).find(has_key)
}

pub(super) fn write_references<S: Storage>(
    writer: &mut Writer<'_>,
    exports: &S::Exports,
    keys: &S::Keys,
    references: &[Ref],
) {
    for reference in references {
        let descriptor = match *reference {
            Ref::Local(key) | Ref::Borrowed(key) | Ref::Weak(key) => {
                let slot = find_export::<S>(exports, keys, key).unwrap_or_default();
                let generation = exports.get(slot).map_or(0, |export| export.generation);
                match reference {
                    // What the peer holds already is not lent.
                    Ref::Borrowed(_) if S::Parts::LENDS && exports.get(slot).is_some_and(Export::can_be_lent) => {
                        Descriptor::Borrowed { slot, generation }
                    }
                    Ref::Weak(_) => Descriptor::Weak { slot, generation },
                    _ => Descriptor::Sender { slot, generation },
                }
            }
            Ref::Import(Import { slot, generation, .. }) => Descriptor::Receiver { slot, generation },
            Ref::Promise(promise) => Descriptor::Answer(promise.id),
        };
        descriptor.write(writer);
    }
}

/// What a handle of our own Return holds here.
pub(super) fn held_by(handle: Descriptor) -> Held {
    match handle {
        Descriptor::Sender { slot, .. } | Descriptor::Weak { slot, .. } => Held::Export(slot),
        Descriptor::Receiver { slot, generation } => Held::Import { slot, generation },
        Descriptor::Answer(_) | Descriptor::Borrowed { .. } => Held::Nothing,
    }
}
