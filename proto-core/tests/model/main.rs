//! All interleavings of two real sessions over a wire, within small bounds.
//!
//! The state is two [`farref_core::session::Session`]s, the records between them, and what the two applications remember;
//! every step is a command, a poll, or a record that arrives. What is only state in a session (Finish, Release, refusals)
//! becomes records in a step of its own, so that it is early or late in all ways (ADM-6, ORD-1).

mod check;
mod state;
mod step;

use check::Case;
use state::{Left, State};
use stateright::{Checker, Expectation, HasDiscoveries, Model, Property};
use step::{Action, Reply};

/// What the two sides may do.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Objects of each side, beside the directory.
    objects: [u32; 2],
    left: [Left; 2],
    /// What each side answers.
    replies: [&'static [Reply]; 2],
    /// Whether calls of each side are pipelined.
    pipelined: [&'static [bool]; 2],
    /// Whether a side makes calls without references among the arguments.
    plain: [bool; 2],
    /// Whether held references and promises are arguments too.
    arguments: bool,
    /// Whether notices and calls that are ready are polled after each step, or any time later.
    eager: bool,
    reaches: &'static [Case],
}

impl Model for Setup {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::new(self.objects, self.left)]
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
    let begun = std::time::Instant::now();
    let properties = setup.properties();
    let checker = setup.checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let (states, depth) = (checker.unique_state_count(), checker.max_depth());
    println!("{name}: {states} states, {depth} steps deep, {:.1} s", begun.elapsed().as_secs_f32());
    let discoveries = checker.discoveries();
    for property in properties {
        let found = discoveries.get(property.name);
        match (property.expectation, found) {
            (Expectation::Always, Some(path)) => {
                let steps: Vec<_> = path.clone().into_actions().iter().map(|step| format!("  {step:?}")).collect();
                let last = path.last_state();
                let tables = last.sides.each_ref().map(|side| side.core.tables());
                panic!("{name}: not so: {}\n{}\n{:?}\n{tables:?}", property.name, steps.join("\n"), last.broken);
            }
            (Expectation::Sometimes, None) => panic!("{name}: never seen: {}", property.name),
            _ => {}
        }
    }
    assert!(checker.is_done(), "{name}: not all states were seen");
}

const ONE_WAY: Setup = Setup {
    objects: [0, 1],
    left: [Left { calls: 2, sends: 0, cancels: 1 }, Left { calls: 1, sends: 1, cancels: 0 }],
    replies: [&[Reply::Value], &[Reply::Object(0), Reply::Value, Reply::Error]],
    pipelined: [&[false, true], &[false]],
    plain: [true, false],
    arguments: false,
    eager: false,
    reaches: &[],
};

#[test]
fn model_two_calls() {
    explore("two calls", ONE_WAY);
}
