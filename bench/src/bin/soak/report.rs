//! Prints what was seen at the quiet points, and judges it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::load::{Done, Kind};
use crate::run::LASTING;
use crate::sample::{Memory, ServerState};

/// By so much live bytes without any session may be above those after the first quarter, which is the warm-up: lists that have
/// become longer than ever before.
const BOUND: u64 = 128 << 10;
/// And by so much for each lasting session, when these are there, since buffers keep the size that they once needed: 1 MiB for
/// output that waits or is kept, as much for what is being written, half of it for what is received and for a call that waited;
/// and 1 MiB for its tables.
const OF_A_SESSION: u64 = 4 << 20;

/// What was seen at a quiet point.
pub struct Point {
    pub at: Duration,
    /// Entries in the tables of the lasting sessions just before it.
    pub busy: u64,
    pub here: Memory,
    pub there: ServerState,
    pub cuts: u64,
    /// What the client and the server take without any session, if that was looked at.
    pub bare: Option<[Memory; 2]>,
}

/// All of them.
pub struct Report {
    rounds: usize,
    points: Vec<Point>,
    pub has_failed: bool,
}

impl Report {
    pub fn new(rounds: u32) -> Self {
        // Not to be allocated while memory is looked at.
        Self { rounds: rounds as usize, points: Vec::with_capacity(rounds as usize), has_failed: false }
    }

    /// Prints a line for it.
    pub fn add(&mut self, point: Point, done: &Done) {
        let Point { at, busy, here, there, cuts, bare } = &point;
        println!(
            "{:7.1} s  {} calls, {cuts} cuts, {} sessions, {} references; tables {busy} -> 0; \
             client: {here}; server: {}",
            at.as_secs_f64(),
            done.calls(),
            there.sessions,
            there.made,
            there.memory
        );
        if let Some([here, there]) = bare {
            println!("   no session  client: {here}; server: {there}");
        }
        self.points.push(point);
    }

    /// The sum; whether all is well.
    pub fn conclude(&self, done: &Done) -> bool {
        let steps = |kind| format!("{} {}", done.steps(kind), Kind::name(kind));
        println!("steps: {}", Kind::ALL.map(steps).join(", "));
        let Some(last) = self.points.last() else { return false };
        println!(
            "calls: {}; {} numbers each taken once and in order",
            done.calls(),
            done.marked.load(Ordering::Relaxed)
        );
        println!(
            "cuts: {}; {} connections went on with a session, {} sessions began, {} beginnings were cut short",
            last.cuts,
            last.there.resumed,
            last.there.sessions,
            done.cut_short.load(Ordering::Relaxed)
        );
        println!("references: {} made there, none left", last.there.made);
        let here = self.is_flat("client", |point| point.here, |[here, _]| here);
        let there = self.is_flat("server", |point| point.there.memory, |[_, there]| there);
        let is_whole = self.points.len() == self.rounds;
        let is_fine = here && there && is_whole && !self.has_failed;
        println!("{}", if is_fine { "nothing lost, nothing doubled, nothing in doubt, memory flat" } else { "FAILED" });
        is_fine
    }

    fn is_flat(&self, side: &str, full: impl Fn(&Point) -> Memory, bare: impl Fn([Memory; 2]) -> Memory) -> bool {
        let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let at = |part: usize| {
            let index = (self.points.len() * part / 100).clamp(1, self.points.len()) - 1;
            self.points.get(index).map_or(0.0, |point| mebibytes(full(point).rss))
        };
        println!("{side}: RSS {:.1} MiB at 10 %, {:.1} at 50 %, {:.1} at 100 %", at(10), at(50), at(100));
        let bare: Vec<_> = self.points.iter().filter_map(|point| point.bare).map(|both| bare(both).live).collect();
        let Some((first, others)) = bare.split_first() else { return false };
        let highest = others.iter().max().copied().unwrap_or(*first);
        let is_bare = highest <= first + BOUND;
        let said = |is_flat| if is_flat { "flat" } else { "NOT FLAT" };
        println!(
            "  live without sessions: {first} bytes after the warm-up, {highest} at most since, {BOUND} more allowed: {}",
            said(is_bare)
        );
        let (most, allowed) = (
            self.points.iter().map(|point| full(point).live).max().unwrap_or(0),
            first + BOUND + LASTING * OF_A_SESSION,
        );
        println!("  live with {LASTING} sessions: {most} bytes at most, {allowed} allowed: {}", said(most <= allowed));
        is_bare && most <= allowed
    }
}
