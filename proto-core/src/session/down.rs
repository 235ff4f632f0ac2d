//! References that go down: objects that are revoked, and what the peer says of its own (REF-8).

use super::entry::{Death, Fate, Held, RunsOn, Stage};
use super::list::List;
use super::receive::fault;
use super::storage::{Parts, Storage, Table};
use super::{Ended, Import, Notice, ObjectKey, Rule, Session, Stale};
use crate::codec::Writer;
use crate::message::{self, DownReason, ErrorCode};

impl<S: Storage> Session<S> {
    /// Withdraws an object from the peer, for good: calls on it that have not started fail with [`ErrorCode::Revoked`], those
    /// that run go on, and the peer is told. When nothing runs on it any more, [`Notice::Freed`] lets it go; until then its key
    /// cannot be sent. Its slot stays taken until the peer has released it. Done again it does nothing.
    ///
    /// # Errors
    /// If neither the peer nor a call holds it. The directory cannot be revoked.
    pub fn revoke(&mut self, key: ObjectKey, reason: DownReason) -> Result<(), Stale> {
        if !S::Parts::REVOKES {
            return Err(Stale);
        }
        let slot = super::handles::find_export::<S>(&self.exports, &self.keys, key).filter(|&slot| slot != 0);
        let slot = slot.ok_or(Stale)?;
        let export = self.exports.get_mut(slot).ok_or(Stale)?;
        if export.dead.reason().is_some() {
            return Ok(());
        }
        export.dead = Death::of(reason);
        // What is lent gets none: its end comes with the Return, and both sides must agree on which end it is (REF-9).
        if export.wire() && !export.scope.is_some() && !export.is_listed() {
            self.downs.push_back(&mut self.exports, slot);
        }
        self.break_calls_on(slot, reason);
        self.settle_export(slot);
        Ok(())
    }

    /// Whether an object was revoked and has not been told to be freed yet: it cannot be sent.
    pub(super) fn is_revoked(&self, key: ObjectKey) -> Option<DownReason> {
        if !S::Parts::REVOKES {
            return None;
        }
        let slot = super::handles::find_export::<S>(&self.exports, &self.keys, key)?;
        self.exports.get(slot)?.dead.reason()
    }

    /// Answers that settled to the object have it no more, and calls that have not started on it will not.
    fn break_calls_on(&mut self, slot: u32, reason: DownReason) {
        for id in 0..self.answers.len() as u32 {
            self.let_go_if_revoked(id as u16);
        }
        for id in 0..self.answers.len() as u32 {
            let Some(entry) = self.answers.get_mut(id) else { continue };
            if !matches!(entry.stage(), Stage::Waiting | Stage::Ready) {
                continue;
            }
            let (named, target) = (entry.named, entry.target());
            let broken = match self.named_state(named) {
                _ if target == RunsOn::Export(slot) => Some((ErrorCode::Revoked, reason.number().into())),
                state => state.err(),
            };
            let Some((code, detail)) = broken else { continue };
            self.break_unstarted(id as u16, code, detail);
            if target == RunsOn::Export(slot)
                && let Some(entry) = self.answers.get_mut(id)
            {
                // It is not needed until the Return can be written.
                entry.set_target(RunsOn::Nothing);
                self.unhold_export(slot);
            }
        }
        self.recheck_waiting();
    }

    /// An answer that settled to an object that is revoked holds it no more, unless a call runs for which it was named.
    pub(super) fn let_go_if_revoked(&mut self, id: u16) {
        if !S::Parts::REVOKES {
            return;
        }
        let Some(Held::Export(slot)) = self.answers.get(id.into()).map(|entry| entry.held()) else { return };
        let Some(reason) = self.exports.get(slot).and_then(|export| export.dead.reason()) else { return };
        let runs_with_it = |other: u32| {
            let entry = self.answers.get(other);
            entry.is_some_and(|entry| entry.is(Stage::Running) && entry.named.iter().any(|named| named == id))
        };
        if (0..self.answers.len() as u32).any(runs_with_it) {
            return;
        }
        if let Some(entry) = self.answers.get_mut(id.into()) {
            entry.end(Fate::revoked(reason));
            self.unhold_export(slot);
        }
    }

    /// The peer's objects are down: who holds one is told (REF-8).
    pub(super) fn on_down(&mut self, entries: message::Downs<'_>) -> Result<(), Ended> {
        for (slot, generation, reason) in entries {
            // The table is as long as the highest slot that ever came.
            if slot == 0 || slot as usize >= self.imports.len() {
                return Err(fault(Rule::DownNeverSent));
            }
            let Some(import) = self.imports.get_mut(slot) else { continue };
            // Released meanwhile.
            if !import.live || import.generation != generation || import.dead.reason().is_some() {
                continue;
            }
            import.dead = Death::of(reason);
            if import.scope.is_some() || !import.is_held() {
                continue;
            }
            match import.is_listed() {
                false => self.downed.push_back(&mut self.imports, slot),
                true => self.downed_among_marked = true,
            }
        }
        Ok(())
    }

    /// A reference whose end its holder has not been told of.
    pub(super) fn poll_down(&mut self) -> Option<Notice> {
        while let Some(slot) = self.downed.pop(&mut self.imports) {
            if self.imports.get(slot).is_some_and(|import| import.is_held()) {
                return self.down_notice(slot);
            }
            self.marked.push_back(&mut self.imports, slot);
        }
        // Marks that were cleared leave their list when the next Release is made; one of these came and went down before that.
        if self.downed_among_marked {
            let mut left = core::mem::replace(&mut self.marked, List::EMPTY);
            while let Some(slot) = left.pop(&mut self.imports) {
                let Some(import) = self.imports.get(slot) else { continue };
                match (import.is_held(), import.dead.reason()) {
                    (false, _) => self.marked.push_back(&mut self.imports, slot),
                    (_, Some(_)) => self.downed.push_back(&mut self.imports, slot),
                    _ => {}
                }
            }
            self.downed_among_marked = false;
            return self.poll_down();
        }
        None
    }

    fn down_notice(&self, slot: u32) -> Option<Notice> {
        let import = self.imports.get(slot)?;
        Some(Notice::Down { import: self.import(slot, import.generation), reason: import.dead.reason()? })
    }

    /// Why a reference of ours is down, if it is.
    pub fn down(&self, import: Import) -> Option<DownReason> {
        self.imports.get(import.slot).filter(|_| self.holds(import))?.dead.reason()
    }

    /// What is down is told (REF-8).
    pub(super) fn write_down(&mut self, writer: &mut Writer<'_>) {
        let Some(slot) = self.downs.pop(&mut self.exports) else { return };
        let Some(export) = self.exports.get(slot).filter(|export| export.wire()) else { return };
        // If not, it was released before it could be told, and is perhaps another object's by now.
        if let Some(reason) = export.dead.reason() {
            message::write_down_entry(writer, (slot, export.generation, reason));
        }
    }
}
