//! References: exports and imports, holds, marks and Release (SPEC section 5).

use super::entry::Held;
use super::receive::fault;
use super::storage::{KeyIndex, Storage, Table};
use super::{Ended, Import, ImportEntry, ObjectKey, Ref, Rule, Session, Stale};
use crate::codec::Writer;
use crate::message::{self, Descriptor, Handles};

/// Why references could not be pinned.
pub(super) enum PinError {
    BadReference(usize),
    TableFull,
}

impl<S: Storage> Session<S> {
    /// One more holder of a reference.
    pub fn retain(&mut self, import: Import) -> Result<(), Stale> {
        if import == Import::DIRECTORY {
            return Ok(());
        }
        let entry = self.imports.get_mut(import.slot).ok_or(Stale)?;
        if !entry.live || entry.generation != import.generation {
            return Err(Stale);
        }
        entry.holds = entry.holds.saturating_add(1);
        Ok(())
    }

    /// One holder of a reference less. The last one marks it; it is released with the next output (REL-1).
    pub fn release(&mut self, import: Import) -> Result<(), Stale> {
        if import == Import::DIRECTORY {
            return Ok(());
        }
        let entry = self.imports.get_mut(import.slot).ok_or(Stale)?;
        if !entry.live || entry.generation != import.generation || entry.holds == 0 {
            return Err(Stale);
        }
        entry.holds -= 1;
        if entry.holds == 0 && !entry.listed {
            entry.listed = true;
            self.marked.push_back(&mut self.imports, import.slot);
        }
        Ok(())
    }

    /// Whether a reference is held here.
    pub fn holds(&self, import: Import) -> bool {
        let held = |entry: &ImportEntry| entry.live && entry.generation == import.generation && entry.holds > 0;
        import == Import::DIRECTORY || self.imports.get(import.slot).is_some_and(held)
    }

    /// Whether an object of ours has a slot: the peer or a call may hold it.
    pub fn is_exported(&self, key: ObjectKey) -> bool {
        find_export::<S>(&self.exports, &self.keys, key).is_some()
    }

    /// Frees the slots of which no newer copy is under way (REL-2). Nothing is answered (REL-5).
    pub(super) fn on_release(&mut self, entries: message::Releases<'_>) -> Result<(), Ended> {
        // The low 32 bits tell the ordinal, since far fewer messages are under way (REL-4).
        let behind = (self.sent as u32).wrapping_sub(entries.upto);
        let upto = self.sent.checked_sub(behind.into()).ok_or(fault(Rule::ReleaseNeverSent))?;
        for (slot, generation) in entries {
            let Some(export) = self.exports.get_mut(slot).filter(|_| slot > 0) else {
                return Err(fault(Rule::ReleaseNeverSent));
            };
            let age = export.generation.wrapping_sub(generation);
            if age >= 0x8000 || age == 0 && !export.wire {
                return Err(fault(Rule::ReleaseNeverSent));
            }
            if age == 0 && export.pins == 0 && export.last_sent <= upto {
                (export.wire, export.last_sent) = (false, 0);
                export.generation = export.generation.wrapping_add(1);
                self.wire_exports -= 1;
                self.settle_export(slot);
            }
        }
        Ok(())
    }

    /// Enters a message's handles before anything else is looked at (REF-3): one hold for each.
    pub(super) fn enter_handles(&mut self, handles: Handles<'_>) -> Result<(), Ended> {
        if handles.len() > self.limits.handles.into() {
            return Err(fault(Rule::LimitExceeded));
        }
        for handle in handles {
            let Descriptor::Sender { slot, generation } = handle else { continue };
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
            if !import.live {
                (import.live, import.generation, import.holds) = (true, generation, 0);
                self.live_imports += 1;
            }
            import.holds = import.holds.saturating_add(1);
        }
        Ok(())
    }

    pub(super) fn release_handles(&mut self, handles: Handles<'_>) {
        handles.for_each(|handle| self.release_handle(handle));
    }

    pub(super) fn release_handle(&mut self, handle: Descriptor) {
        if let Descriptor::Sender { slot, generation } = handle {
            let _ = self.release(Import { slot, generation });
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
                    export.holds = export.holds.saturating_add(1);
                }
            }
            Held::Import { slot, generation } => {
                let _ = self.retain(Import { slot, generation });
            }
            Held::Nothing | Held::Answer(_) => {}
        }
    }

    pub(super) fn unhold(&mut self, held: Held) {
        match held {
            Held::Export(slot) => self.unhold_export(slot),
            Held::Import { slot, generation } => {
                let _ = self.release(Import { slot, generation });
            }
            Held::Nothing | Held::Answer(_) => {}
        }
    }

    pub(super) fn unhold_export(&mut self, slot: u32) {
        if let Some(export) = self.exports.get_mut(slot) {
            export.holds = export.holds.saturating_sub(1);
        }
        self.settle_export(slot);
    }

    /// An object that neither the peer nor a call holds any more is told to the host.
    pub(super) fn settle_export(&mut self, slot: u32) {
        let Some(export) = self.exports.get_mut(slot) else { return };
        if export.used && !export.wire && export.holds == 0 && export.pins == 0 && !export.listed {
            export.listed = true;
            self.freed.push_back(&mut self.exports, slot);
        }
    }

    /// Makes slot 0 the directory (REF-7).
    pub(super) fn export_directory(&mut self) {
        if let Some(export) = self.exports.grow().and_then(|slot| self.exports.get_mut(slot)) {
            (export.used, export.wire, export.key) = (true, true, ObjectKey::DIRECTORY);
            self.wire_exports = 1;
        }
    }

    /// Pins the objects among the references, giving slots to those without (REF-4, ADM-3). All or none.
    pub(super) fn pin(&mut self, references: &[Ref]) -> Result<(), PinError> {
        for (index, reference) in references.iter().enumerate() {
            let fine = match *reference {
                Ref::Import(import) => self.holds(import),
                Ref::Local(_) => true,
                Ref::Promise(promise) => self.check_promise(promise).is_ok(),
            };
            if !fine {
                return Err(PinError::BadReference(index));
            }
        }
        for (index, reference) in references.iter().enumerate() {
            let Ref::Local(key) = *reference else { continue };
            if self.pin_one(key).is_none() {
                self.unpin(references.get(..index).unwrap_or_default(), None);
                return Err(PinError::TableFull);
            }
        }
        Ok(())
    }

    /// An object that has a slot keeps it: one for each session, however often it is sent (REF-1).
    pub(super) fn pin_one(&mut self, key: ObjectKey) -> Option<()> {
        let slot = match find_export::<S>(&self.exports, &self.keys, key) {
            Some(slot) => slot,
            None => self.new_export(key)?,
        };
        let export = self.exports.get_mut(slot)?;
        export.pins += 1;
        Some(())
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
        (export.used, export.key, export.born) = (true, key, export.generation);
        self.keys.insert(key, slot);
        Some(slot)
    }

    /// Undoes pins: with the message's ordinal they become sends, without nothing happened (REF-4).
    pub(super) fn unpin(&mut self, references: &[Ref], ordinal: Option<u64>) {
        // From the last to the first: slots that were taken off the free list go back in the order in which they stood.
        for reference in references.iter().rev() {
            let Ref::Local(key) = *reference else { continue };
            let Some(slot) = find_export::<S>(&self.exports, &self.keys, key) else { continue };
            let Some(export) = self.exports.get_mut(slot) else { continue };
            export.pins -= 1;
            match ordinal {
                Some(ordinal) => {
                    export.last_sent = ordinal;
                    if !export.wire {
                        export.wire = true;
                        self.wire_exports += 1;
                    }
                }
                // An object that had no slot before has none now; the host is not told of what never was.
                None if !export.wire && export.holds == 0 && export.pins == 0 && !export.listed => {
                    self.forget_export(slot, true);
                }
                None => {}
            }
        }
    }

    pub(super) fn forget_export(&mut self, slot: u32, never_used: bool) {
        let Some(export) = self.exports.get_mut(slot) else { return };
        (export.used, export.born) = (false, 0);
        let key = core::mem::take(&mut export.key);
        self.keys.remove(key);
        if never_used {
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
    let has_key = |slot: &u32| exports.get(*slot).is_some_and(|export| export.used && export.key == key);
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
            Ref::Local(key) => {
                let slot = find_export::<S>(exports, keys, key).unwrap_or_default();
                let generation = exports.get(slot).map_or(0, |export| export.generation);
                Descriptor::Sender { slot, generation }
            }
            Ref::Import(Import { slot, generation }) => Descriptor::Receiver { slot, generation },
            Ref::Promise(promise) => Descriptor::Answer(promise.id),
        };
        descriptor.write(writer);
    }
}

/// What a handle of our own Return holds here.
pub(super) fn held_by(handle: Descriptor) -> Held {
    match handle {
        Descriptor::Sender { slot, .. } => Held::Export(slot),
        Descriptor::Receiver { slot, generation } => Held::Import { slot, generation },
        Descriptor::Answer(_) => Held::Nothing,
    }
}
