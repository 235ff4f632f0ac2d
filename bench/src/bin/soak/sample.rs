//! What a process takes, and how one tells the other.

use std::fmt;
use std::fs;
use std::str::FromStr;

use crate::ALLOCATOR;

/// What a process takes at a moment, bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// Allocated and not freed.
    pub live: u64,
    /// In memory, as the system sees it; 0 where it does not tell.
    pub rss: u64,
}

impl Memory {
    /// Of this process, now.
    pub fn now() -> Self {
        let stats = ALLOCATOR.stats();
        let live = stats.bytes_allocated.saturating_sub(stats.bytes_deallocated) as u64;
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        Self { live, rss: kilobytes.unwrap_or(0) * 1024 }
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        write!(out, "live {:.2} MiB, RSS {:.1} MiB", mebibytes(self.live), mebibytes(self.rss))
    }
}

/// What the server tells of itself, as one line of numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct ServerState {
    pub memory: Memory,
    /// Sessions, those of them that have no connection, and those whose tables are not as they were at first.
    pub open: u64,
    pub parked: u64,
    pub busy: u64,
    /// Entries of all tables.
    pub entries: u64,
    /// Objects made for clients that live, and calls that wait.
    pub alive: u64,
    pub waiting: u64,
    /// Tasks of the runtime.
    pub tasks: u64,
    /// Since it began: numbers taken, objects made, sessions, and connections that went on with one.
    pub marked: u64,
    pub made: u64,
    pub sessions: u64,
    pub resumed: u64,
}

impl ServerState {
    /// Whether nothing is under way and all that was made for clients is gone, but for so many sessions.
    pub fn is_quiet(&self, sessions: u64) -> bool {
        (self.open, self.parked, self.busy, self.alive, self.waiting) == (sessions, 0, 0, 0, 0)
    }
}

impl fmt::Display for ServerState {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { memory, open, parked, busy, entries, alive, waiting, tasks, marked, made, sessions, resumed } = self;
        write!(out, "{} {} {open} {parked} {busy} {entries} {alive}", memory.live, memory.rss)?;
        write!(out, " {waiting} {tasks} {marked} {made} {sessions} {resumed}")
    }
}

impl FromStr for ServerState {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let numbers: Result<Vec<u64>, _> = line.split_whitespace().map(str::parse).collect();
        match numbers.as_deref() {
            Ok(&[live, rss, open, parked, busy, entries, alive, waiting, tasks, marked, made, sessions, resumed]) => {
                Ok(Self {
                    memory: Memory { live, rss },
                    open,
                    parked,
                    busy,
                    entries,
                    alive,
                    waiting,
                    tasks,
                    marked,
                    made,
                    sessions,
                    resumed,
                })
            }
            _ => Err(format!("the server says {line:?}")),
        }
    }
}
