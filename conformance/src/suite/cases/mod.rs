//! The cases, by the sections of SPEC.md.

mod admission;
mod calls;
mod handles;
mod messages;
mod operations;
mod promises;
mod references;
mod release;
mod stream;
mod time;
mod values;

use super::peer::{Peer, Tester, Verdict};

/// One case: what it shows, and how.
#[derive(Debug)]
pub struct Case {
    /// The id of the rule that it shows, and what about it: `REL-2/release-crosses-resend`.
    pub id: &'static str,
    steps: Steps,
}

#[derive(Debug)]
enum Steps {
    /// Within one session, after both Hellos.
    Session(fn(&mut Peer) -> Verdict),
    /// With connections of its own.
    Connections(fn(&mut Tester<'_>) -> Verdict),
}

impl Case {
    const fn new(id: &'static str, steps: fn(&mut Peer) -> Verdict) -> Self {
        Self { id, steps: Steps::Session(steps) }
    }

    const fn connecting(id: &'static str, steps: fn(&mut Tester<'_>) -> Verdict) -> Self {
        Self { id, steps: Steps::Connections(steps) }
    }

    pub(super) fn run(&self, tester: &mut Tester<'_>) -> Verdict {
        match self.steps {
            Steps::Session(steps) => steps(&mut tester.open()?),
            Steps::Connections(steps) => steps(tester),
        }
    }
}

pub(super) const ALL: &[&[Case]] = &[
    stream::CASES,
    messages::CASES,
    handles::CASES,
    release::CASES,
    references::CASES,
    calls::CASES,
    promises::CASES,
    time::CASES,
    admission::CASES,
    values::CASES,
    operations::CASES,
];
