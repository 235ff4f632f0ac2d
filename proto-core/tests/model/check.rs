//! What must hold in every state, and what must occur in some.

use farref_core::message::{Descriptor, ErrorCode, FinishMode, Message, Target};
use farref_core::session::{Ended, Receiver, Tables};
use stateright::Property;

use super::Setup;
use super::state::{Broken, Made, Meant, Outcome, Record, Side, Stage, State, handles};

/// Interleavings that a setup must come across, else it explores less than it seems.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    ReleaseCrossesResend,
    CancelCrossesReturn,
    CancelCrossesReference,
    WaitsForReference,
    WaitsForValue,
    WaitsForError,
    WaitsForHome,
    CancelledUnstarted,
    SlotUsedAgain,
    SentAgainBeforeTold,
    RunsWithoutSlot,
    TableFull,
    TablesFull,
    ReleaseAgain,
    StaleLoan,
    ReturnCrossesResend,
    LentTwice,
}

pub fn properties(setup: &Setup) -> Vec<Property<Setup>> {
    let mut properties = vec![
        Property::always("no session ends: both sides are honest", |_, state: &State| !is(state, Broken::Ended)),
        Property::always("no command fails", |_, state| !is(state, Broken::Command)),
        Property::always("CAL-3: no id is free too early", |_, state| !is(state, Broken::IdReused)),
        Property::always("CAL-4, ANS-4: requests find their object", |_, state| !is(state, Broken::WrongTarget)),
        Property::always("arguments and results are those meant", |_, state| !is(state, Broken::WrongContent)),
        Property::always("CAL-2: no Return is for another call", |_, state| !is(state, Broken::WrongReturn)),
        Property::always("ANS-3: waiting calls run in order", |_, state| !is(state, Broken::OutOfOrder)),
        Property::always("REL-2: freed is what nobody holds", |_, state| !is(state, Broken::FreedInUse)),
        Property::always("REL-1, REL-2: handles held or under way are live", |_, state| handles_are_live(state)),
        Property::always("LNK-6: what became of calls is told as it is", |_, state| fates_are_true(state)),
        Property::always("no session refuses another connection", |_, state| !is(state, Broken::NotResumed)),
        Property::always("CAL-2: each call gets its Return", |_, state| !is_idle(state) || no_calls(state)),
        Property::always("tables hold what is held and no more", |_, state| !is_idle(state) || tables_are_exact(state)),
        Property::sometimes("all is quiet again", |_, state| is_over(state) && is_idle(state)),
    ];
    properties.extend(setup.reaches.iter().map(|&case| reached(case)));
    properties
}

fn is(state: &State, broken: Broken) -> bool {
    state.broken == Some(broken)
}

/// Every handle that an application holds or that is under way names a live slot, of that generation, of the object meant.
fn handles_are_live(state: &State) -> bool {
    state.broken.is_some()
        || (0..2).all(|side| {
            let (here, there) = (&state.sides[side], &state.sides[1 - side]);
            let held = here.held.iter().all(|hold| match here.core.holds(hold.import) {
                true => there.exported(hold.slot, hold.generation) == Some(hold.key),
                false => hold.lent,
            });
            let sent = state.under_way(side).all(|(message, meant)| {
                let handles = handles(&message).all(|handle| match handle {
                    Descriptor::Sender { slot, generation }
                    | Descriptor::Borrowed { slot, generation }
                    | Descriptor::Weak { slot, generation } => here.exported(slot, generation) == meant,
                    Descriptor::Receiver { slot, generation } => there.exported(slot, generation) == meant,
                    Descriptor::Answer(_) => true,
                });
                let target = match message {
                    Message::Call(call) => match call.target {
                        Target::Export { slot, generation } => there.exported(slot, generation).is_some(),
                        Target::Answer(_) => true,
                    },
                    _ => true,
                };
                handles && target
            });
            held && sent
        })
}

/// Nothing goes on by itself: nothing is under way, to be sent, to be told or to be answered.
fn is_idle(state: &State) -> bool {
    state.broken.is_none()
        && state.wires.iter().all(|wire| wire.is_empty())
        && state.sides.iter().all(|side| {
            let mut core = side.core.clone();
            let quiet = core.transmit().is_empty() && core.poll_notice().is_none();
            side.serving.is_empty() && quiet && core.poll_ready(&mut [0; 64]).is_none() && core == side.core
        })
}

fn no_calls(state: &State) -> bool {
    state.sides.iter().all(|side| side.calls.iter().all(Option::is_none))
}

/// At the baseline, but for what the applications hold.
fn tables_are_exact(state: &State) -> bool {
    let [first, second] = [0, 1].map(|side| state.sides[side].usable().count() as u32);
    let tables = [(first, second), (second, first)];
    let tables = tables.map(|(imports, exports)| Tables { exports: 1 + exports, imports, questions: 0, answers: 0 });
    state.sides.iter().zip(tables).all(|(side, tables)| side.core.tables() == tables)
}

/// If the other side has given the session up with what it has got now, each side knows which of its calls were never started;
/// if it does not know what that was, or has started again, none is taken for unstarted that was started.
fn fates_are_true(state: &State) -> bool {
    state.cuts.is_none()
        || state.broken.is_some()
        || (0..2).all(|side| {
            let (here, there) = (&state.sides[side], &state.sides[1 - side]);
            let got = there.core.got();
            let gone = [(0, got, Ended::SessionGone), (0, 0, Ended::SessionGone), (1, 0, Ended::PeerRestarted)];
            gone.into_iter().all(|(incarnation, got, ended)| {
                let mut core = here.core.clone();
                core.park();
                core.resume();
                let _ = core.handle(&[23, incarnation, got as u8]);
                core.ended() == Some(ended)
                    && here.open_calls().all(|(_, made)| match core.may_have_started(made.question) {
                        false => made.stage == Stage::Sent,
                        true => got == 0 || made.stage != Stage::Sent,
                    })
            })
        })
}

/// All calls were made, and nothing is held.
fn is_over(state: &State) -> bool {
    state.sides.iter().all(|side| side.left.calls == 0 && side.held.is_empty())
}

fn reached(case: Case) -> Property<Setup> {
    match case {
        Case::ReleaseCrossesResend => Property::sometimes("a Release crosses its slot sent again", |_, state| {
            (0..2)
                .any(|side| released(state, side).any(|slot| sent(state, 1 - side).any(|(handle, _)| handle.0 == slot)))
        }),
        Case::CancelCrossesReturn => Property::sometimes("a cancel crosses the Return", |_, state| {
            (0..2).any(|side| crosses(state, side, |_| true))
        }),
        Case::CancelCrossesReference => Property::sometimes("a cancel crosses a Return with a handle", |_, state| {
            (0..2).any(|side| crosses(state, side, |handles| handles > 0))
        }),
        Case::WaitsForReference => Property::sometimes("a call waited for what became a reference", |_, state| {
            waited(state, |outcome| matches!(outcome, Outcome::Object(_)))
        }),
        Case::WaitsForValue => Property::sometimes("a call waited for what became a value", |_, state| {
            waited(state, |outcome| outcome == Outcome::Value)
        }),
        Case::WaitsForError => Property::sometimes("a call waited for what failed", |_, state| {
            waited(state, |outcome| outcome == Outcome::Failed(ErrorCode::AccessDenied))
        }),
        Case::WaitsForHome => Property::sometimes("a call waited for what came home", |_, state| {
            waited(state, |outcome| matches!(outcome, Outcome::Home(_)))
        }),
        Case::CancelledUnstarted => Property::sometimes("a waiting call is cancelled", |_, state| {
            (0..2).any(|side| returns(state, side, ErrorCode::Cancelled))
        }),
        Case::SlotUsedAgain => Property::sometimes("a freed slot is sent again", |_, state| {
            (0..2).any(|side| sent(state, side).any(|(handle, _)| handle.1 > 0))
        }),
        Case::SentAgainBeforeTold => Property::sometimes("a freed object is sent before that was told", |_, state| {
            (0..2).any(|side| sent(state, side).any(|(handle, key)| handle.1 > 0 && key < 16))
        }),
        Case::RunsWithoutSlot => Property::sometimes("a call runs whose object lost its slot", |_, state: &State| {
            state.sides.iter().any(|side| {
                let has_slot = |receiver| match receiver {
                    Receiver::Object(key) => [0, 1].iter().any(|&slot| side.exported_in(slot) == Some(key)),
                    _ => true,
                };
                side.serving.iter().any(|serving| !has_slot(serving.receiver))
            })
        }),
        Case::StaleLoan => Property::sometimes("what was lent is held and stale", |_, state: &State| {
            state.sides.iter().any(|side| side.held.iter().any(|hold| !side.core.holds(hold.import)))
        }),
        Case::LentTwice => Property::sometimes("a slot that was lent is held and lent again", |_, state: &State| {
            let stale =
                |side: &Side, slot| side.held.iter().any(|hold| hold.slot == slot && !side.core.holds(hold.import));
            state.sides.iter().any(|side| side.usable().any(|hold| hold.lent && stale(side, hold.slot)))
        }),
        Case::ReturnCrossesResend => {
            Property::sometimes("a Return crosses what it was lent, sent again", |_, state: &State| {
                (0..2).any(|side| {
                    let is_return = |(message, _)| matches!(message, Message::Return(_));
                    let loaned = state.sides[1 - side].held.iter().any(|hold| hold.lent);
                    loaned && sent(state, side).next().is_some() && state.under_way(1 - side).any(is_return)
                })
            })
        }
        Case::TableFull => Property::sometimes("a Return has no room for its reference", |_, state| {
            (0..2).any(|side| returns(state, side, ErrorCode::TableFull))
        }),
        Case::ReleaseAgain => Property::sometimes("a Release is sent again", |_, state: &State| {
            let is_release = |record: &Record| matches!(Message::read(&record.body), Ok(Message::Release(_)));
            state.wires.iter().flatten().any(|record| record.again && is_release(record))
        }),
        Case::TablesFull => Property::sometimes("all tables of both sides are full", |_, state: &State| {
            let full =
                |tables: Tables| (tables.exports, tables.imports, tables.questions, tables.answers) == (2, 1, 1, 1);
            state.sides.iter().all(|side| full(side.core.tables()) && !side.core.can_call())
        }),
    }
}

/// Slots in Releases that a side has under way.
fn released(state: &State, side: usize) -> impl Iterator<Item = u32> {
    state
        .under_way(side)
        .filter_map(|(message, _)| match message {
            Message::Release(entries) => Some(entries.map(|(slot, _)| slot)),
            _ => None,
        })
        .flatten()
}

/// Slots, generations and keys of the objects that a side has under way.
fn sent(state: &State, side: usize) -> impl Iterator<Item = ((u32, u16), u32)> {
    state.under_way(side).flat_map(|(message, meant)| {
        handles(&message).filter_map(move |handle| match handle {
            Descriptor::Sender { slot, generation } => Some(((slot, generation), meant?.0)),
            _ => None,
        })
    })
}

fn crosses(state: &State, side: usize, wanted: fn(u32) -> bool) -> bool {
    let cancelled = state.under_way(side).filter_map(|(message, _)| match message {
        Message::Finish(entries) => Some(entries.filter(|&(_, mode)| mode != FinishMode::Done).map(|(id, _)| id)),
        _ => None,
    });
    cancelled.flatten().any(|id| {
        state.under_way(1 - side).any(|(message, _)| match message {
            Message::Return(returned) => returned.id == id && wanted(returned.handles.len()),
            _ => false,
        })
    })
}

/// Whether a side has a Return with that error under way.
fn returns(state: &State, side: usize, code: ErrorCode) -> bool {
    let is_it = |message| matches!(message, Message::Return(returned) if returned.error == Some(code));
    state.under_way(side).any(|(message, _)| is_it(message))
}

fn waited(state: &State, wanted: fn(Outcome) -> bool) -> bool {
    state.sides.iter().any(|side| {
        let outcome = |made: &Made| match made.target {
            Meant::Answer(id) => side.made(id).and_then(|named| named.outcome),
            Meant::Object(_) => None,
        };
        side.open_calls().any(|(_, made)| made.stage == Stage::Parked && outcome(made).is_some_and(wanted))
    })
}
