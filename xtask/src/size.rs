//! `cargo xtask size`: what the layers of the core take on a microcontroller.
//!
//! The programs in `proto-core/size` differ by a layer each, so that the difference of two is what the layer takes. That they
//! link is the proof that nothing in them can panic: their panic handler calls a function that does not exist.

use std::{
    fmt::{self, Display},
    fs,
    path::Path,
};

use crate::{elf, elf::Sizes, setup, shell, tree};

/// The chips of the table, and how people call them.
const TARGETS: [(&str, &str); 3] =
    [("thumbv6m-none-eabi", "Cortex-M0"), ("thumbv7m-none-eabi", "Cortex-M3"), ("thumbv7em-none-eabihf", "Cortex-M4F")];

/// The programs, each with the layer that it has more than the one before.
const PROGRAMS: [(&str, &str); 3] = [
    ("baseline", "a lamp that obeys lines of text"),
    ("core", "core and dispatcher"),
    ("serial", "serial frames and link"),
];

/// The chip that the budgets are for, and what all layers may take there, over the baseline for flash.
const BUDGET_TARGET: &str = "thumbv7m-none-eabi";
const FLASH_BUDGET: u32 = 24 * 1024;
const RAM_BUDGET: u32 = 2 * 1024;

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
    let table = Table(columns);
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
    let target_dir = root.join("target/size");
    let mut build = shell::cargo(&root.join("proto-core/size"));
    build.args(["build", "--release", "--locked", "--bins", "--target", target, "--target-dir"]);
    shell::run(build.arg(&target_dir))?;
    let sizes = PROGRAMS.map(|(program, _)| {
        let file = target_dir.join(target).join("release").join(program);
        let bytes = fs::read(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        elf::inspect(&bytes).map_err(|error| format!("{target}, {program}: {error}"))
    });
    sizes.into_iter().collect()
}

/// The sizes of all programs for one chip.
type Column = Vec<Sizes>;

struct Table(Vec<Column>);

impl Table {
    /// What the last program takes more than the baseline, and all of its RAM, against the budgets.
    fn check(&self) -> Result<(), String> {
        let place = TARGETS.iter().position(|(target, _)| *target == BUDGET_TARGET);
        let column = place.and_then(|place| self.0.get(place)).map(Vec::as_slice);
        let Some([baseline, .., all]) = column else { return Err("nothing was measured".into()) };
        let over = [
            ("flash", all.flash().saturating_sub(baseline.flash()), FLASH_BUDGET),
            ("static RAM", all.ram().saturating_sub(baseline.ram()), RAM_BUDGET),
        ];
        let broken: Vec<String> = over
            .iter()
            .filter(|(_, has, budget)| has > budget)
            .map(|(what, has, budget)| format!("{what} on {BUDGET_TARGET}: {has} bytes, {budget} are allowed"))
            .collect();
        if broken.is_empty() { Ok(()) } else { Err(broken.join("\n")) }
    }
}

impl Display for Table {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "| bytes |")?;
        for (_, chip) in TARGETS {
            write!(out, " {chip} flash | static RAM |")?;
        }
        writeln!(out, "\n|---|{}", "---:|".repeat(2 * TARGETS.len()))?;
        for (row, (_, layer)) in PROGRAMS.iter().enumerate() {
            write!(out, "| {}{layer} |", if row == 0 { "" } else { "+ " })?;
            for column in &self.0 {
                let before = row.checked_sub(1).map_or(Sizes::default(), |before| column[before]);
                let more = |now: u32, before: u32| i64::from(now) - i64::from(before);
                let flash = more(column[row].flash(), before.flash());
                write!(out, " {} | {} |", Grouped(flash), Grouped(more(column[row].ram(), before.ram())))?;
            }
            writeln!(out)?;
        }
        write!(out, "| all layers over the baseline |")?;
        for column in &self.0 {
            if let [baseline, .., all] = column.as_slice() {
                let (flash, ram) = (all.flash() - baseline.flash(), all.ram().saturating_sub(baseline.ram()));
                write!(out, " {} | {} |", Grouped(flash.into()), Grouped(ram.into()))?;
            }
        }
        writeln!(out)
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
        let column = vec![sizes(3_000, 500), sizes(23_000, 2_000), sizes(27_576, 2_548)];
        let mut table = Table(vec![column.clone(), column.clone(), column]);
        let text = table.to_string();
        assert!(text.contains("| + serial frames and link | 4,576 | 548 | 4,576 | 548 | 4,576 | 548 |\n"), "{text}");
        assert!(text.contains("| all layers over the baseline | 24,576 | 2,048 |"), "{text}");
        assert_eq!(table.check(), Ok(()));
        table.0[1][2] = sizes(27_577, 2_549);
        let broken = table.check().unwrap_err();
        assert!(broken.contains("flash on thumbv7m") && broken.contains("static RAM"), "{broken}");
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
