//! What is watched in every case: the subject says nothing that no peer may say.

use std::collections::{HashMap, HashSet};

use farref_core::message::{Descriptor, FinishMode, Limits, Message, Target};

use super::report::Failure;
use super::wire::{Called, Said};

/// What both sides have said, as far as it decides what the subject may say next.
pub(super) struct Referee {
    /// What the tester announced.
    limits: Limits,
    /// Ordinals (MSG-2).
    pub sent: u64,
    pub received: u64,
    /// The tester's calls without a Return.
    open: HashSet<u16>,
    /// The subject's calls whose ids are not free yet (CAL-3).
    theirs: HashMap<u16, Theirs>,
    /// Slots and generations of the tester's that the subject has been sent, with the ordinal of the last copy; none once
    /// it was released.
    exported: HashMap<(u32, u16), Option<u64>>,
    /// The subject's slots that the tester holds, with their generation.
    held: HashMap<u32, u16>,
    /// What the subject has lent to its calls: call and slot (REF-9).
    borrowed: HashSet<(u16, u32)>,
    /// What the tester has lent to its calls: call and handle.
    lent: HashMap<(u32, u16), u16>,
}

#[derive(Default)]
struct Theirs {
    length: usize,
    pipelined: bool,
    returned: bool,
    finished: bool,
    /// Calls without a Return that name its answer.
    named_by: usize,
    names: Vec<u16>,
}

impl Referee {
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            sent: 0,
            received: 0,
            open: HashSet::new(),
            theirs: HashMap::new(),
            exported: HashMap::from([((0, 0), Some(0))]),
            held: HashMap::new(),
            borrowed: HashSet::new(),
            lent: HashMap::new(),
        }
    }

    /// Notes what the tester says, right or wrong.
    pub fn on_sent(&mut self, body: &[u8]) {
        self.sent += u64::from(Message::is_sequenced(body));
        match Message::read(body) {
            Ok(Message::Call(call)) => {
                self.open.insert(call.id);
                self.export(call.handles, Some(call.id));
            }
            Ok(Message::Return(returned)) => {
                self.export(returned.handles, None);
                let ended: Vec<_> =
                    self.borrowed.extract_if(|(call, _)| *call == returned.id).map(|(_, slot)| slot).collect();
                self.held.retain(|held, _| !ended.contains(held));
                let names = match self.theirs.get_mut(&returned.id) {
                    Some(call) => {
                        call.returned = true;
                        std::mem::take(&mut call.names)
                    }
                    None => return,
                };
                for name in names {
                    if let Some(call) = self.theirs.get_mut(&name) {
                        call.named_by = call.named_by.saturating_sub(1);
                    }
                }
                self.free_ids();
            }
            Ok(Message::Release(entries)) => {
                for (slot, generation) in entries {
                    if self.held.get(&slot) == Some(&generation) {
                        self.held.remove(&slot);
                    }
                }
            }
            _ => {}
        }
    }

    fn export(&mut self, handles: impl Iterator<Item = Descriptor>, call: Option<u16>) {
        for handle in handles {
            let Some(theirs) = handle.of_sender() else { continue };
            match (handle, call) {
                (Descriptor::Borrowed { .. }, Some(call)) if !self.is_exported(theirs.0, theirs.1) => {
                    self.lent.insert(theirs, call);
                }
                (Descriptor::Borrowed { .. }, _) if self.lent.get(&theirs).copied() == call => {}
                _ => drop(self.lent.remove(&theirs)),
            }
            self.exported.insert(theirs, Some(self.sent));
        }
    }

    fn free_ids(&mut self) {
        self.theirs.retain(|_, call| !call.returned || call.pipelined && !call.finished || call.named_by > 0);
    }

    /// Judges a message of the subject.
    pub fn on_received(&mut self, body: &[u8], said: &Said) -> Result<(), Failure> {
        self.received += u64::from(Message::is_sequenced(body));
        if body.len() > self.limits.max_message as usize && !matches!(said, Said::Hello(_)) {
            let got = format!("a message of {} bytes came", body.len());
            return Err(Failure::new(format!("at most {} bytes (FRM-2, HEL-3)", self.limits.max_message), got));
        }
        match said {
            Said::Call(call) => self.on_call(call),
            Said::Return(returned) => {
                if !self.open.remove(&returned.id) {
                    return Err(broken("CAL-2", format!("a Return of call {}, which is not open", returned.id)));
                }
                self.enter(&returned.handles, None)?;
                // Nothing more may be said of what was lent to the call (REF-9).
                let ended: Vec<_> = self.lent.extract_if(|_, call| *call == returned.id).collect();
                self.exported.extend(ended.into_iter().map(|(theirs, _)| (theirs, None)));
                Ok(())
            }
            Said::Down(entries) => entries.iter().try_for_each(|&(slot, generation, _)| self.on_down(slot, generation)),
            Said::Finish(entries) => entries.iter().try_for_each(|&(id, mode)| self.on_finish(id, mode)),
            Said::Release { upto, entries } => self.on_release(*upto, entries),
            Said::Hello(_) => Err(broken("HEL-1", "a second Hello".to_owned())),
            Said::Link(name) => Err(broken("LNK-1", format!("{name}, though there is no link"))),
            Said::Unknown(kind) => Err(broken("MSG-3", format!("a message of kind {kind}, which version 1 has not"))),
            Said::Goodbye(received) if *received > self.sent => {
                Err(broken("CLS-2", format!("a Goodbye after {received} messages, of {} sent", self.sent)))
            }
            Said::Goodbye(_) if !self.open.is_empty() || self.theirs.values().any(|call| !call.returned) => {
                Err(broken("CLS-2", "a Goodbye while calls are under way".to_owned()))
            }
            Said::Unimplemented(_) | Said::Close { .. } | Said::Ping | Said::Goodbye(_) => Ok(()),
        }
    }

    fn on_call(&mut self, call: &Called) -> Result<(), Failure> {
        if call.id >= self.limits.answers {
            return Err(broken("CAL-1", format!("a call with id {}, beyond the limit", call.id)));
        }
        if self.theirs.contains_key(&call.id) {
            return Err(broken("CAL-3", format!("a call with id {}, which is not free", call.id)));
        }
        if call.parent.is_some_and(|parent| !self.open.contains(&parent)) {
            return Err(broken("CAL-6", format!("a call of parent {:?}, which is not open", call.parent)));
        }
        let names = call.handles.iter().filter_map(|handle| match handle {
            Descriptor::Answer(id) => Some(*id),
            _ => None,
        });
        let target = match call.target {
            Target::Answer(id) => Some(id),
            Target::Export { slot, generation } if self.is_exported(slot, generation) => None,
            Target::Export { slot, .. } => {
                return Err(broken("ORD-1", format!("a call of our slot {slot}, which it does not hold")));
            }
        };
        let mut names: Vec<u16> = target.into_iter().chain(names).collect();
        names.sort_unstable();
        names.dedup();
        if names.len() > 4 {
            return Err(broken("ANS-2", format!("a call that names {} answers", names.len())));
        }
        for name in &names {
            match self.theirs.get_mut(name).filter(|named| named.pipelined && !named.finished) {
                Some(named) => named.named_by += 1,
                None => return Err(broken("ANS-2", format!("a call that names answer {name}, which is no promise"))),
            }
        }
        self.enter(&call.handles, Some(call.id))?;
        let pending: usize = self.theirs.values().filter(|call| !call.returned).map(|call| call.length).sum();
        if pending + call.length > self.limits.call_bytes as usize {
            return Err(broken("ADM-2", format!("{} bytes of calls at a time", pending + call.length)));
        }
        let entry = Theirs { length: call.length, pipelined: call.pipelined, names, ..Theirs::default() };
        self.theirs.insert(call.id, entry);
        Ok(())
    }

    fn on_release(&mut self, upto: u32, entries: &[(u32, u16)]) -> Result<(), Failure> {
        let behind = (self.sent as u32).wrapping_sub(upto);
        let Some(upto) = self.sent.checked_sub(behind.into()) else {
            return Err(broken("REL-1", format!("a Release up to {upto}, which was not sent yet")));
        };
        for entry in entries {
            if self.lent.contains_key(entry) {
                return Err(broken("REF-9", format!("a Release of {entry:?}, which was lent to it")));
            }
            match self.exported.get_mut(entry).filter(|_| entry.0 > 0) {
                Some(last_sent) if last_sent.is_some_and(|last| last <= upto) => *last_sent = None,
                Some(_) => {}
                None => return Err(broken("REL-1", format!("a Release of {entry:?}, which was never sent"))),
            }
        }
        Ok(())
    }

    fn is_exported(&self, slot: u32, generation: u16) -> bool {
        self.exported.get(&(slot, generation)).is_some_and(Option::is_some)
    }

    fn on_finish(&mut self, id: u16, mode: FinishMode) -> Result<(), Failure> {
        // One that is not there any more was returned while a cancel was on its way (FIN-3).
        let Some(call) = self.theirs.get_mut(&id) else {
            return match mode {
                FinishMode::Done => Err(broken("FIN-1", format!("Finish of call {id}, which has no answer"))),
                _ => Ok(()),
            };
        };
        if mode == FinishMode::Done && !(call.returned && call.pipelined) {
            return Err(broken("FIN-1", format!("Finish of call {id} before its Return, or not pipelined")));
        }
        if call.finished {
            return Err(broken("FIN-1", format!("a second Finish of call {id}")));
        }
        call.finished = true;
        self.free_ids();
        Ok(())
    }

    fn on_down(&mut self, slot: u32, generation: u16) -> Result<(), Failure> {
        if slot == 0 || slot >= self.limits.imports {
            return Err(broken("REF-8", format!("a Down of slot {slot}, which was never sent")));
        }
        if self.borrowed.iter().any(|(_, lent)| *lent == slot) {
            return Err(broken(
                "REF-8",
                format!("a Down of slot {slot} in generation {generation}, which it has lent"),
            ));
        }
        Ok(())
    }

    /// Enters the handles of a message (REF-3).
    fn enter(&mut self, handles: &[Descriptor], call: Option<u16>) -> Result<(), Failure> {
        if handles.len() > self.limits.handles.into() {
            return Err(broken("ADM-3", format!("a message with {} handles", handles.len())));
        }
        for handle in handles {
            match *handle {
                Descriptor::Sender { slot, generation }
                | Descriptor::Borrowed { slot, generation }
                | Descriptor::Weak { slot, generation } => {
                    match (handle, call) {
                        (Descriptor::Borrowed { .. }, Some(call)) if !self.held.contains_key(&slot) => {
                            self.borrowed.insert((call, slot));
                        }
                        (Descriptor::Borrowed { .. }, Some(call)) if self.borrowed.contains(&(call, slot)) => {}
                        _ => self.borrowed.retain(|(_, lent)| *lent != slot),
                    }
                    if slot >= self.limits.imports && slot > 0 {
                        return Err(broken("REF-6", format!("a handle of slot {slot}, beyond the limit")));
                    }
                    let held = *self.held.entry(slot).or_insert(generation);
                    if held != generation || slot == 0 && generation > 0 {
                        let text = format!("a handle of slot {slot} in generation {generation}, held in {held}");
                        return Err(broken("REF-6", text));
                    }
                }
                Descriptor::Receiver { slot, generation } => {
                    if !self.is_exported(slot, generation) {
                        return Err(broken("ORD-1", format!("a handle of our slot {slot}, which it does not hold")));
                    }
                }
                Descriptor::Answer(_) => {}
            }
        }
        Ok(())
    }
}

fn broken(rule: &str, what: String) -> Failure {
    Failure::new(format!("that {rule} is kept"), format!("the subject sent {what}"))
}
