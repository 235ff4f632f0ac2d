//! What is lent for the time of a call (REF-9): slots that are freed by its Return, and not by a Release.
//!
//! Each call has a list of what was lent to it, through the entries of the tables. A slot that is sent in any other way while
//! the call lasts leaves the list, on both sides with the same message: from then on it is like any other.

use super::entry::Scope;
use super::list::{pop_lent, push_lent, unlink_lent};
use super::storage::{Blank, Parts, Storage, Table};
use super::width::Width;
use super::{Import, Ref, Session};

impl<S: Storage> Session<S> {
    /// A call of ours was written: what it lends is lent, unless the peer holds it already.
    pub(super) fn lend(&mut self, slot: u32, call: u16) {
        let (Some(export), Some(question)) = (self.exports.get_mut(slot), self.questions.get_mut(call.into())) else {
            return;
        };
        if !S::Parts::LENDS {
            return;
        }
        export.scope = Scope::of(call);
        push_lent::<1, _>(&mut question.lent, &mut self.exports, slot);
    }

    /// A slot is sent otherwise: it is no longer lent.
    pub(super) fn keep_lent_export(&mut self, slot: u32) {
        if !S::Parts::LENDS {
            return;
        }
        let scope = self.exports.get_mut(slot).and_then(|export| core::mem::take(&mut export.scope).call());
        if let Some(question) = scope.and_then(|call| self.questions.get_mut(call.into())) {
            unlink_lent::<1, _>(&mut question.lent, &mut self.exports, slot);
        }
    }

    /// The Return came: what is still lent is free (REF-9). To be called when the Return's handles have been looked up.
    pub(super) fn end_loans(&mut self, mut lent: Slot<S>) {
        if !S::Parts::LENDS {
            return;
        }
        while let Some(slot) = pop_lent::<1, _>(&mut lent, &mut self.exports) {
            self.free_slot(slot);
        }
    }

    /// One handle of a call of the peer that lends it: `lent` is the list of what that call was lent so far.
    pub(super) fn borrow(&mut self, slot: u32, call: u16, lent: &mut Slot<S>) {
        if let Some(import) = self.imports.get_mut(slot) {
            import.scope = Scope::of(call);
            push_lent(lent, &mut self.imports, slot);
        }
    }

    /// An import comes otherwise: it is no longer lent. `lent` is the list of the call `call`, which has no entry yet.
    pub(super) fn keep_lent_import(&mut self, slot: u32, call: Option<u16>, lent: &mut Slot<S>) {
        let scope = self.imports.get_mut(slot).and_then(|import| core::mem::take(&mut import.scope).call());
        let Some(scope) = scope else { return };
        if call == Some(scope) {
            unlink_lent(lent, &mut self.imports, slot);
        } else if let Some(answer) = self.answers.get_mut(scope.into()) {
            unlink_lent(&mut answer.lent, &mut self.imports, slot);
        }
    }

    /// The Return was written: what was lent to its call is gone, whoever holds it.
    pub(super) fn end_borrows(&mut self, call: u16) {
        let Some(answer) = self.answers.get_mut(call.into()) else { return };
        let mut lent = core::mem::take(&mut answer.lent);
        while let Some(slot) = pop_lent(&mut lent, &mut self.imports) {
            if let Some(import) = self.imports.get_mut(slot) {
                // The slot may come again in the same generation, if it was sent before the Return arrived. Who still has the
                // reference that was lent must not take that for it.
                let epoch = import.epoch.wrapping_add(1);
                *import = Blank::BLANK;
                import.epoch = epoch;
                self.live_imports -= 1;
            }
        }
    }

    /// Whether a reference ends with the Return of the call that it was lent to.
    pub fn is_lent(&self, import: Import) -> bool {
        self.holds(import) && self.imports.get(import.slot).is_some_and(|import| import.scope.is_some())
    }

    /// Whether a message of ours gives back what is lent to a call of the peer.
    pub(super) fn gives_back_lent(&self, reference: Ref) -> bool {
        let Ref::Import(Import { slot, .. }) = reference else { return false };
        self.imports.get(slot).is_some_and(|import| import.scope.is_some())
    }
}

/// The place of an export or import, and a list of what is lent.
pub(super) type Slot<S> = <<S as Storage>::Width as Width>::Slot;

/// The keys of our objects among references, and whether each is lent.
pub(super) fn local(reference: Ref) -> Option<(super::ObjectKey, bool)> {
    match reference {
        Ref::Local(key) | Ref::Weak(key) => Some((key, false)),
        Ref::Borrowed(key) => Some((key, true)),
        Ref::Import(_) | Ref::Promise(_) => None,
    }
}
