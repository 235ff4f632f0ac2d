//! All interleavings of two real sessions over a wire, within small bounds.
//!
//! The state is two [`farref_core::session::Session`]s, the records between them, and what the two applications remember;
//! every step is a command, a poll, or a record that arrives. What is only state in a session (Finish, Release, refusals)
//! becomes records in a step of its own, so that it is early or late in all ways (ADM-6, ORD-1).

mod check;
mod forward;
mod revoke;
mod shutdown;
mod state;
mod step;

use std::fmt::Debug;
use std::hash::Hash;

use check::Case;
use state::{Left, State};
use stateright::{Checker, Expectation, HasDiscoveries, Model, Property};
use step::{Action, Reply};

/// What the two sides may do.
#[derive(Clone, Debug)]
struct Setup {
    /// Objects of each side, beside the directory.
    objects: [u32; 2],
    /// Call ids in each direction.
    ids: u16,
    left: [Left; 2],
    /// What each side answers.
    replies: [&'static [Reply]; 2],
    /// Whether calls of each side are pipelined.
    pipelined: [&'static [bool]; 2],
    /// Whether a side makes calls without references among the arguments.
    plain: [bool; 2],
    /// Whether what is sent may be lent instead.
    lends: bool,
    /// Whether held references and promises are arguments too.
    arguments: bool,
    /// Whether notices and calls that are ready are polled after each step, or any time later.
    eager: bool,
    /// How often the connection may be cut, if the sessions have a link.
    cuts: Option<u8>,
    reaches: &'static [Case],
}

impl Model for Setup {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::new(self.objects, self.ids, self.left, self.cuts)]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        self.all_actions(state, actions);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        self.step(last, action)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        check::properties(self)
    }
}

/// Explores all states. There is no bound of depth or number: the applications run out of things to do.
fn explore(name: &str, setup: Setup) {
    explore_all(name, setup, |last| {
        let tables = last.sides.each_ref().map(|side| side.core.tables());
        format!("{:?}\n{tables:?}", last.broken)
    });
}

/// As [`explore`], of any model; `describe` tells of a state that should not be.
fn explore_all<M>(name: &str, model: M, describe: impl Fn(&M::State) -> String)
where
    M: Model + Send + Sync + 'static,
    M::State: Hash + Clone + Debug + PartialEq + Send + Sync,
    M::Action: Debug + PartialEq + Clone,
{
    let begun = std::time::Instant::now();
    let properties = model.properties();
    let checker = model.checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let (states, depth) = (checker.unique_state_count(), checker.max_depth());
    println!("{name}: {states} unique states, {depth} steps deep, {:.1} s", begun.elapsed().as_secs_f32());
    let discoveries = checker.discoveries();
    for property in properties {
        let found = discoveries.get(property.name);
        match (property.expectation, found) {
            (Expectation::Always, Some(path)) => {
                let steps: Vec<_> = path.clone().into_actions().iter().map(|step| format!("  {step:?}")).collect();
                let last = describe(path.last_state());
                panic!("{name}: not so: {}\n{}\n{last}", property.name, steps.join("\n"));
            }
            (Expectation::Sometimes, None) => panic!("{name}: never seen: {}", property.name),
            _ => {}
        }
    }
    assert!(checker.is_done(), "{name}: not all states were seen");
}

const NOTHING: Left = Left { calls: 0, sends: 0, cancels: 0 };

/// One side calls, the other answers with its one object, a value or an error.
const ONE_WAY: Setup = Setup {
    objects: [0, 1],
    ids: 2,
    left: [Left { calls: 2, sends: 0, cancels: 2 }, NOTHING],
    replies: [&[Reply::Value], &[Reply::Object(0), Reply::Value, Reply::Error]],
    pipelined: [&[false, true], &[false]],
    plain: [true, false],
    lends: false,
    arguments: false,
    eager: false,
    cuts: None,
    reaches: &[
        Case::ReleaseCrossesResend,
        Case::CancelCrossesReturn,
        Case::CancelCrossesReference,
        Case::WaitsForReference,
        Case::WaitsForValue,
        Case::WaitsForError,
        Case::CancelledUnstarted,
        Case::SlotUsedAgain,
        Case::SentAgainBeforeTold,
        Case::RunsWithoutSlot,
    ],
};

/// Two calls, both may be cancelled, one slot: REF-3, REF-4, REL-1, REL-2, REL-5, CAL-1 to CAL-4, ANS-1, ANS-3 to ANS-5,
/// FIN-1 to FIN-4.
#[test]
fn model_two_calls() {
    explore("two calls", ONE_WAY);
}

/// Three calls, two at a time: ids are used again (CAL-3).
#[test]
fn model_three_calls() {
    explore(
        "three calls",
        Setup {
            left: [Left { calls: 3, sends: 0, cancels: 1 }, NOTHING],
            replies: [&[], &[Reply::Object(0), Reply::Error]],
            reaches: &[
                Case::ReleaseCrossesResend,
                Case::CancelCrossesReference,
                Case::WaitsForReference,
                Case::WaitsForError,
                Case::CancelledUnstarted,
                Case::SlotUsedAgain,
                Case::RunsWithoutSlot,
            ],
            ..ONE_WAY
        },
    );
}

/// Three calls at a time: two wait for the same answer, or each for the one before (ANS-3).
#[test]
fn model_three_calls_at_a_time() {
    let left = [Left { calls: 3, sends: 0, cancels: 0 }, NOTHING];
    let reaches = &[Case::WaitsForReference, Case::WaitsForValue, Case::WaitsForError, Case::ReleaseCrossesResend];
    explore("three calls at a time", Setup { ids: 3, left, reaches, ..ONE_WAY });
}

/// The object is sent in calls of the other side too (REL-1, REL-2).
#[test]
fn model_sent_both_ways() {
    explore(
        "sent in calls too",
        Setup {
            left: [Left { calls: 2, sends: 0, cancels: 1 }, Left { calls: 1, sends: 1, cancels: 0 }],
            replies: [&[Reply::Value], &[Reply::Object(0), Reply::Value]],
            pipelined: [&[true], &[false]],
            eager: true,
            reaches: &[Case::ReleaseCrossesResend, Case::CancelCrossesReference],
            ..ONE_WAY
        },
    );
}

/// Calls both ways, one at a time, and two objects for one slot: ids and exports run out on both sides (ADM-2, ADM-3).
#[test]
fn model_full_tables() {
    explore(
        "full tables",
        Setup {
            objects: [2, 2],
            ids: 1,
            left: [Left { calls: 2, sends: 0, cancels: 0 }; 2],
            replies: [&[Reply::Object(0), Reply::Object(1)], &[Reply::Object(0), Reply::Object(1)]],
            pipelined: [&[false], &[false]],
            plain: [true, true],
            lends: false,
            arguments: false,
            eager: true,
            cuts: None,
            reaches: &[Case::TableFull, Case::TablesFull, Case::ReleaseCrossesResend],
        },
    );
}

/// References come home, as results and as arguments; promises are arguments; what a call that fails has among its
/// arguments is released (REF-3, REF-5, ANS-2, ANS-3, ANS-4).
#[test]
fn model_home() {
    explore(
        "home",
        Setup {
            objects: [1, 1],
            ids: 2,
            left: [Left { calls: 2, sends: 1, cancels: 0 }, Left { calls: 1, sends: 0, cancels: 0 }],
            replies: [&[Reply::Object(0)], &[Reply::Home, Reply::Value, Reply::Error]],
            pipelined: [&[true], &[false]],
            plain: [true, true],
            lends: false,
            arguments: true,
            eager: false,
            cuts: None,
            reaches: &[Case::WaitsForHome, Case::WaitsForValue, Case::WaitsForError],
        },
    );
}

/// A call that waits holds the objects among its arguments, whatever is released meanwhile (CAL-4, REF-5, ANS-3).
#[test]
fn model_home_while_waiting() {
    explore(
        "home while waiting",
        Setup {
            left: [Left { calls: 3, sends: 0, cancels: 0 }, NOTHING],
            replies: [&[], &[Reply::Object(0), Reply::Error]],
            pipelined: [&[true], &[false]],
            arguments: true,
            reaches: &[Case::WaitsForReference, Case::WaitsForError, Case::SlotUsedAgain],
            ..ONE_WAY
        },
    );
}

/// The connection is cut and the session resumed at any point: everything still happens once (LNK-2, LNK-4, LNK-5), also a
/// Release that crosses its slot sent again, and a cancel that crosses its Return.
#[test]
fn model_cut_and_resume() {
    explore(
        "cut and resume",
        Setup {
            left: [Left { calls: 2, sends: 0, cancels: 1 }, NOTHING],
            replies: [&[], &[Reply::Object(0), Reply::Error]],
            pipelined: [&[true], &[false]],
            eager: true,
            cuts: Some(1),
            reaches: &[
                Case::ReleaseCrossesResend,
                Case::ReleaseAgain,
                Case::CancelCrossesReturn,
                Case::WaitsForReference,
                Case::SlotUsedAgain,
            ],
            ..ONE_WAY
        },
    );
}

/// A second cut, while the first is being mended too (LNK-5).
#[test]
fn model_cut_twice() {
    explore(
        "cut twice",
        Setup {
            left: [Left { calls: 1, sends: 0, cancels: 1 }, Left { calls: 1, sends: 1, cancels: 0 }],
            replies: [&[Reply::Value], &[Reply::Object(0)]],
            pipelined: [&[false], &[false]],
            eager: true,
            cuts: Some(2),
            reaches: &[Case::ReleaseCrossesResend, Case::ReleaseAgain, Case::CancelCrossesReturn],
            ..ONE_WAY
        },
    );
}

/// The other side may be gone at any point, or start again: what became of each call is told as it is (LNK-6).
#[test]
fn model_restart_of_a_peer() {
    explore(
        "restart of a peer",
        Setup {
            left: [Left { calls: 2, sends: 0, cancels: 0 }, Left { calls: 1, sends: 1, cancels: 0 }],
            replies: [&[Reply::Value], &[Reply::Object(0)]],
            pipelined: [&[true], &[false]],
            eager: true,
            cuts: Some(0),
            reaches: &[Case::ReleaseCrossesResend],
            ..ONE_WAY
        },
    );
}

/// An object is lent, and lent or sent again meanwhile; the callee calls it, gives it back, keeps it too long.
const LENT: Setup = Setup {
    objects: [1, 0],
    ids: 2,
    left: [Left { calls: 2, sends: 2, cancels: 1 }, Left { calls: 1, sends: 0, cancels: 0 }],
    replies: [&[Reply::Value], &[Reply::Value, Reply::Home]],
    pipelined: [&[false], &[false]],
    plain: [false, true],
    lends: true,
    arguments: false,
    eager: true,
    cuts: None,
    reaches: &[Case::StaleLoan, Case::LentTwice, Case::ReturnCrossesResend, Case::CancelCrossesReturn],
};

/// REF-9: two calls, which may be cancelled, and a callback.
#[test]
fn model_lent() {
    explore("lent", LENT);
}

/// REF-9: three calls, two at a time: ids are used again while the slots that were lent to them are.
#[test]
fn model_lent_three_times() {
    let left = [Left { calls: 3, sends: 3, cancels: 0 }, NOTHING];
    let reaches = &[Case::StaleLoan, Case::LentTwice, Case::ReturnCrossesResend];
    explore("lent three times", Setup { left, reaches, ..LENT });
}

/// A cancel crosses the Return, with a reference or without, and the id is used again (FIN-1 to FIN-3, CAL-3, REF-3).
#[test]
fn model_cancel_crossing_return() {
    explore(
        "cancel crossing return",
        Setup {
            ids: 1,
            left: [Left { calls: 2, sends: 0, cancels: 2 }, NOTHING],
            replies: [&[], &[Reply::Object(0), Reply::Error]],
            reaches: &[Case::CancelCrossesReturn, Case::CancelCrossesReference, Case::ReleaseCrossesResend],
            ..ONE_WAY
        },
    );
}

/// Calls, callbacks and their Returns cross Goodbyes; either side leaves at any time (CLS-2).
#[test]
fn model_counted_shutdown_crossing_a_call() {
    let setup = shutdown::Setup { calls: [2, 1], nested: [0, 1], references: false, leaves: [true, true] };
    explore_all("counted shutdown crossing a call", setup, |last| {
        format!("{:?}", last.sides.each_ref().map(|side| side.core.ordinals()))
    });
}

/// The same where Releases come late (CLS-2, REL-1).
#[test]
fn model_counted_shutdown_crossing_a_release() {
    let setup = shutdown::Setup { calls: [1, 1], nested: [0, 0], references: true, leaves: [true, false] };
    explore_all("counted shutdown crossing a release", setup, |last| {
        format!("{:?}", last.sides.each_ref().map(|side| side.core.ordinals()))
    });
}

const REVOKED: revoke::Setup =
    revoke::Setup { calls: 3, revokes: 1, twice: true, home: true, weak: false, pipelined: false };

/// An object is withdrawn while calls on it, its Release and its next copy are under way (REF-8, REL-2, REF-5).
#[test]
fn model_revoke_crossing_release_and_resend() {
    explore_all("revoke crossing release and resend", REVOKED, |last| format!("{last:?}"));
}

/// The same where calls wait for the answer that settles to it (REF-8, ANS-3, ANS-4).
#[test]
fn model_revoke_of_what_calls_wait_for() {
    let setup = revoke::Setup { twice: false, home: false, pipelined: true, ..REVOKED };
    explore_all("revoke of what calls wait for", setup, |last| format!("{last:?}"));
}

/// What a weak reference is for goes, while it is asked for that (REF-10).
#[test]
fn model_upgrade_crossing_revoke() {
    let setup = revoke::Setup { twice: false, home: false, weak: true, ..REVOKED };
    explore_all("upgrade crossing revoke", setup, |last| format!("{last:?}"));
}

/// An object of a third peer is handed on, released and handed on again (REF-11, REL-2).
#[test]
fn model_release_crossing_forward() {
    let setup = forward::Setup { calls: 4, revokes: 0 };
    explore_all("release crossing forward", setup, |last| format!("{last:?}"));
}

/// It is withdrawn meanwhile (REF-8, REF-11).
#[test]
fn model_revoke_crossing_forward() {
    let setup = forward::Setup { calls: 2, revokes: 1 };
    explore_all("revoke crossing forward", setup, |last| format!("{last:?}"));
}
