//! Runs what was asked for, shows tables, checks the bars.

use std::io::IsTerminal;
use std::time::Duration;

use crate::affinity::Cpus;
use crate::args::BenchArgs;
use crate::cases::{Case, Transport, name};
use crate::contest::{Contest, HEADINGS, Verdict};
use crate::table::Table;
use crate::{Result, references};

/// How long a round takes.
const ROUND: Duration = Duration::from_millis(200);
const QUICK_ROUND: Duration = Duration::from_millis(20);
/// Does it all; false if a bar was missed.
pub fn run(args: &BenchArgs) -> Result<bool> {
    let cpus = Cpus::current()?;
    let mut verdicts = Vec::new();
    let both = args.pinned == args.unpinned;
    if args.check || args.pinned || both {
        cpus.use_first()?;
        section(args, "pinned: both processes on one CPU", &mut verdicts)?;
        cpus.use_all()?;
    }
    if !args.check && (args.unpinned || both) {
        section(args, "unpinned", &mut verdicts)?;
    }
    if !args.check {
        return Ok(true);
    }
    println!("## Bars");
    for verdict in &verdicts {
        println!("{verdict}");
    }
    if verdicts.is_empty() {
        return Err("nothing that was chosen has a bar".into());
    }
    Ok(verdicts.iter().all(|verdict| verdict.is_kept()))
}

fn section(args: &BenchArgs, placing: &str, verdicts: &mut Vec<Verdict>) -> Result<()> {
    let chosen = |transport: &Transport| args.transport.is_empty() || args.transport.contains(transport);
    for transport in [Transport::Tcp, Transport::Unix, Transport::Pipe, Transport::Memory].into_iter().filter(chosen) {
        let mut table = Table::new(&HEADINGS);
        let mut held = None;
        for case in Case::all().iter().copied() {
            let wanted = if args.check { case.is_checked(transport) } else { case.runs_over(transport) };
            if wanted && (args.case.is_empty() || args.case.contains(&case)) {
                progress(&format!("{} {}", name(transport), name(case)));
                if case == Case::Refs100k {
                    held = Some(references::measure()?);
                    continue;
                }
                let mut contest = Contest::new(case, transport);
                contest.measure(if args.quick { QUICK_ROUND } else { ROUND }, args.check)?;
                contest.show(&mut table);
                verdicts.extend(contest.verdicts());
            }
        }
        progress("");
        if !table.is_empty() || held.is_some() {
            println!("## {}, {placing}\n", transport.describe());
        }
        if !table.is_empty() {
            println!("{table}");
        }
        if let Some(held) = held {
            println!("{held}\n");
            verdicts.push(held.verdict());
        }
    }
    Ok(())
}

/// What is being measured, for somebody who waits.
fn progress(what: &str) {
    if std::io::stderr().is_terminal() {
        eprint!("{what:40}\r");
    }
}
