//! `cargo xtask size`: what the layers of farref take on a microcontroller.
//!
//! The programs in `proto-core/size` differ by a layer each, so that the difference of two is what the layer takes. That they
//! link is the proof that nothing in them can panic: their panic handler calls a function that does not exist. Those in
//! `firmware/size` are on a TCP socket of embassy-net, which can panic, one without farref and one with it. How much stack
//! all of them use is seen in QEMU (`firmware/tests/src/bin/farref-stack.rs`).

use std::{
    fmt::{self, Display},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{elf, elf::Sizes, setup, shell, tree};

/// The chips of the table, and how people call them.
const TARGETS: [(&str, &str); 3] =
    [("thumbv6m-none-eabi", "Cortex-M0"), ("thumbv7m-none-eabi", "Cortex-M3"), ("thumbv7em-none-eabihf", "Cortex-M4F")];

/// The programs, and what they speak with `farref-stack`.
const PROGRAMS: [(&str, &str); 5] =
    [("baseline", "text"), ("core", "stream"), ("serial", "line"), ("net", "text-tcp"), ("tcp", "tcp")];

/// Where they are, and the arguments that build those there.
const WORKSPACES: [(&str, &[&str]); 2] =
    [("proto-core/size", &["--bins"]), ("firmware", &["--bins", "--package", "farref-firmware-size"])];

/// The rows of the table: of which program, and if it is a difference, from which.
const ROWS: [(&str, usize, Option<usize>); 6] = [
    ("a lamp that obeys lines of text", 0, None),
    ("+ core and dispatcher", 1, Some(0)),
    ("+ serial frames and link", 2, Some(1)),
    ("all layers over the baseline", 2, Some(0)),
    ("the baseline + embassy-net and a TCP socket", 3, Some(0)),
    ("+ core, dispatcher and sessions over TCP", 4, Some(3)),
];

/// The chip that the budgets are for, and what all layers may take there over the baseline.
const BUDGET_TARGET: &str = "thumbv7m-none-eabi";
const FLASH_BUDGET: u32 = 24 * 1024;
const RAM_BUDGET: u32 = 2 * 1024;
const STACK_BUDGET: u32 = 3 * 512;

/// What farref may take of a program that has embassy-net already: what is reached.
const TCP_FLASH_BUDGET: u32 = 36 * 1024;
const TCP_RAM_BUDGET: u32 = 3 * 1024;
const TCP_STACK_BUDGET: u32 = 1024;

/// The budgets, of flash, static RAM and stack, for what one program takes more than another.
const BUDGETS: [(usize, usize, [u32; 3]); 2] =
    [(2, 0, [FLASH_BUDGET, RAM_BUDGET, STACK_BUDGET]), (4, 3, [TCP_FLASH_BUDGET, TCP_RAM_BUDGET, TCP_STACK_BUDGET])];

/// Where the README has the table.
const BEGIN: &str = "<!-- cargo xtask size -->\n";
const END: &str = "<!-- end -->\n";

/// Builds, measures and shows; with `--write` the table goes into README.md. An error if a budget is exceeded.
pub fn run(root: &Path, arguments: &[&str]) -> Result<(), String> {
    let write = match arguments {
        [] => false,
        ["--write"] => true,
        _ => return Err("`size` takes nothing or `--write`".into()),
    };
    let columns = TARGETS.map(|(target, _)| measure(root, target));
    let columns: Vec<Column> = columns.into_iter().collect::<Result<_, _>>()?;
    let table = Table { columns, stacks: stacks(root)? };
    println!("\n{table}");
    if write {
        let readme = tree::read(root, "README.md")?;
        let readme = replace(&readme, &table.to_string()).ok_or("README.md has no place for the table")?;
        fs::write(root.join("README.md"), readme).map_err(|error| format!("README.md: {error}"))?;
    }
    table.check()
}

fn measure(root: &Path, target: &str) -> Result<Column, String> {
    setup::ensure_target(root, target)?;
    let folder = build(root, target, &[])?;
    let sizes = PROGRAMS.map(|(program, _)| {
        let file = folder.join(program);
        let bytes = fs::read(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        elf::inspect(&bytes).map_err(|error| format!("{target}, {program}: {error}"))
    });
    sizes.into_iter().collect()
}

/// Builds the programs, and tells where they are until they are built with other features.
fn build(root: &Path, target: &str, features: &[&str]) -> Result<PathBuf, String> {
    let target_dir = root.join("target/size");
    for (folder, programs) in WORKSPACES {
        let mut build = shell::cargo(&root.join(folder));
        build.args(["build", "--release", "--locked", "--target", target]).args(programs).args(features);
        shell::run(build.arg("--target-dir").arg(&target_dir))?;
    }
    Ok(target_dir.join(target).join("release"))
}

/// How much stack each program uses, which is seen when it runs: on a board of QEMU's with the chip that the budgets are for.
fn stacks(root: &Path) -> Result<Vec<u32>, String> {
    setup::ensure_qemu()?;
    let folder = build(root, BUDGET_TARGET, &["--features", "run"])?;
    shell::run(shell::cargo(root).args(["build", "--package", "farref-firmware-tests"]))?;
    let mut run = Command::new(root.join("target/debug/farref-stack"));
    for (program, speaks) in PROGRAMS {
        run.arg(speaks).arg(folder.join(program));
    }
    let output = run.output().map_err(|error| format!("farref-stack: {error}"))?;
    let stacks: Vec<u32> =
        String::from_utf8_lossy(&output.stdout).lines().filter_map(|line| line.parse().ok()).collect();
    match output.status.success() && stacks.len() == PROGRAMS.len() {
        true => Ok(stacks),
        false => Err(format!("no stack was measured: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}

/// The sizes of all programs for one chip.
type Column = Vec<Sizes>;

struct Table {
    columns: Vec<Column>,
    /// Of each program, on the chip that the budgets are for.
    stacks: Vec<u32>,
}

impl Table {
    /// What is over its budget is an error.
    fn check(&self) -> Result<(), String> {
        let place = TARGETS.iter().position(|(target, _)| *target == BUDGET_TARGET);
        let Some(column) = place.and_then(|place| self.columns.get(place)) else {
            return Err("nothing was measured".into());
        };
        let mut broken = Vec::new();
        for (program, before, budgets) in BUDGETS {
            let more = |of: &dyn Fn(usize) -> u32| of(program).saturating_sub(of(before));
            let has = [more(&|row| column[row].flash()), more(&|row| column[row].ram()), more(&|row| self.stacks[row])];
            for ((what, has), budget) in ["flash", "static RAM", "stack"].into_iter().zip(has).zip(budgets) {
                if has > budget {
                    let (program, before) = (PROGRAMS[program].0, PROGRAMS[before].0);
                    broken.push(format!(
                        "{what} of `{program}` over `{before}` on {BUDGET_TARGET}: {has} bytes, {budget} are allowed"
                    ));
                }
            }
        }
        if broken.is_empty() { Ok(()) } else { Err(broken.join("\n")) }
    }
}

impl Display for Table {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "| bytes |")?;
        for (target, chip) in TARGETS {
            write!(out, " {chip} flash | static RAM |")?;
            if target == BUDGET_TARGET {
                write!(out, " stack |")?;
            }
        }
        writeln!(out, "\n|---|{}", "---:|".repeat(2 * TARGETS.len() + 1))?;
        for (name, program, before) in ROWS {
            write!(out, "| {name} |")?;
            for (column, (target, _)) in self.columns.iter().zip(TARGETS) {
                let more = |of: &dyn Fn(usize) -> u32| {
                    Grouped(i64::from(of(program)) - before.map_or(0, |before| i64::from(of(before))))
                };
                write!(out, " {} | {} |", more(&|row| column[row].flash()), more(&|row| column[row].ram()))?;
                if target == BUDGET_TARGET {
                    write!(out, " {} |", more(&|row| self.stacks[row]))?;
                }
            }
            writeln!(out)?;
        }
        Ok(())
    }
}

/// A number with commas between its thousands.
struct Grouped(i64);

impl Display for Grouped {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.unsigned_abs().to_string();
        let sign = if self.0 < 0 { "−" } else { "" };
        out.write_str(sign)?;
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && (digits.len() - at).is_multiple_of(3) {
                out.write_str(",")?;
            }
            write!(out, "{digit}")?;
        }
        Ok(())
    }
}

/// The text with another table between its two marks.
fn replace(text: &str, table: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}{table}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(flash: u32, bss: u32) -> Sizes {
        Sizes { text: flash, bss, ..Sizes::default() }
    }

    #[test]
    fn layers_are_differences_and_budgets_are_kept() {
        let column = vec![
            sizes(3_000, 500),
            sizes(23_000, 2_000),
            sizes(3_000 + FLASH_BUDGET, 500 + RAM_BUDGET),
            sizes(50_000, 4_000),
            sizes(50_000 + TCP_FLASH_BUDGET, 4_000 + TCP_RAM_BUDGET),
        ];
        let stacks = vec![124, 1_500, 124 + STACK_BUDGET, 1_000, 1_000 + TCP_STACK_BUDGET];
        let mut table = Table { columns: vec![column.clone(), column.clone(), column], stacks };
        let text = table.to_string();
        assert!(
            text.contains("| + core and dispatcher | 20,000 | 1,500 | 20,000 | 1,500 | 1,376 | 20,000 |"),
            "{text}"
        );
        for (row, budget) in [(ROWS[3].0, FLASH_BUDGET), (ROWS[5].0, TCP_FLASH_BUDGET)] {
            assert!(text.contains(&format!("| {row} | {} |", Grouped(budget.into()))), "{text}");
        }
        assert_eq!(table.check(), Ok(()));
        table.columns[1][2] = sizes(3_001 + FLASH_BUDGET, 501 + RAM_BUDGET);
        table.stacks[2] += 1;
        table.stacks[4] += 1;
        let broken = table.check().unwrap_err();
        for (line, what) in
            broken.lines().zip(["flash of `serial`", "static RAM of `s", "stack of `s", "stack of `tcp`"])
        {
            assert!(line.starts_with(what), "{broken}");
        }
        assert_eq!(broken.lines().count(), 4, "{broken}");
    }

    #[test]
    fn numbers_are_grouped() {
        let shown = [0, 999, 1_000, 24_576, -1_234_567].map(|number| Grouped(number).to_string());
        assert_eq!(shown, ["0", "999", "1,000", "24,576", "−1,234,567"]);
    }

    #[test]
    fn the_table_goes_between_its_marks() {
        let text = format!("a\n{BEGIN}old\n{END}b\n");
        assert_eq!(replace(&text, "new\n"), Some(format!("a\n{BEGIN}new\n{END}b\n")));
        assert_eq!(replace("a\n", "new\n"), None);
    }
}
