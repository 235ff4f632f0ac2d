//! `cargo xtask firmware-test`: the firmware on two boards in QEMU, seen from the host; and a real board's, which is only built.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{setup, shell};

/// A board of QEMU's, and what it is to rustc.
const BOARDS: [(&str, &str); 2] = [("lm3s6965evb", "thumbv7m-none-eabi"), ("mps2-an386", "thumbv7em-none-eabihf")];

/// The board with the memory that the fixtures of the conformance suite take.
const WITH_FIXTURES: &str = "mps2-an386";

/// The real board's.
const EXAMPLE: (&str, &str) = ("farref-rp2040", "thumbv6m-none-eabi");

/// What `cargo xtask size` measures.
const MEASURED: &str = "farref-firmware-size";

const PROGRAM: &str = "farref-firmware";
const TESTS: &str = "farref-firmware-tests";

/// Shows what was told by defmt. It runs here.
const DECODER: &str = "farref-firmware-defmt";

/// Runs the tests whose name contains one of the filters, or all of them; on both boards, or on the one that is named. Shows
/// each line that they print to `on_line`.
pub fn run(root: &Path, arguments: &[&str], mut on_line: impl FnMut(&str)) -> Result<(), String> {
    let (boards, filters) = selected(arguments)?;
    setup::ensure_qemu()?;
    let mut build = shell::cargo(root);
    build.args(["build", "--package", "farref", "--package", TESTS]);
    shell::run(&mut build)?;
    let mut failures = Vec::new();
    for (board, target) in boards {
        let firmware = firmware(root, board, target);
        let outcome = firmware.and_then(|firmware| test(root, board, &firmware, &filters, &mut on_line));
        failures.extend(outcome.err());
    }
    if filters.is_empty() {
        failures.extend(check(root).err());
    }
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n")) }
}

type Boards = Vec<(&'static str, &'static str)>;

fn selected<'a>(arguments: &[&'a str]) -> Result<(Boards, Vec<&'a str>), String> {
    match arguments {
        ["--board", name, filters @ ..] => match BOARDS.iter().find(|(board, _)| board == name) {
            Some(board) => Ok((vec![*board], filters.to_vec())),
            None => Err(format!("no such board: {name}; there are {} and {}", BOARDS[0].0, BOARDS[1].0)),
        },
        [option, ..] if option.starts_with('-') => Err(format!("no such option: {option}")),
        filters => Ok((BOARDS.to_vec(), filters.to_vec())),
    }
}

/// What serves the device, what serves the fixtures of the conformance suite, and the device that tells by defmt what happens.
struct Firmware {
    device: PathBuf,
    fixtures: Option<PathBuf>,
    defmt: Option<PathBuf>,
}

/// Builds them.
fn firmware(root: &Path, board: &str, target: &str) -> Result<Firmware, String> {
    setup::ensure_target(root, target)?;
    let folder = root.join("firmware");
    let built = folder.join("target").join(target).join("release");
    let build = |name: &str, features: &[&str]| {
        let mut build = shell::cargo(&folder);
        build.args(["build", "--release", "--locked", "--package", PROGRAM, "--target", target]).args(features);
        shell::run(&mut build)?;
        // The next one is built at the same place.
        let kept = built.join(name);
        fs::copy(built.join(PROGRAM), &kept).map_err(|error| format!("{}: {error}", kept.display()))?;
        Ok::<_, String>(kept)
    };
    // One of them on each board.
    let (fixtures, defmt) = match board {
        WITH_FIXTURES => (Some(build("farref-firmware-fixtures", &["--features", "fixtures"])?), None),
        _ => (None, Some(build("farref-firmware-telling", &["--features", "defmt"])?)),
    };
    Ok(Firmware { device: build("farref-firmware-device", &[])?, fixtures, defmt })
}

fn test(
    root: &Path,
    board: &str,
    firmware: &Firmware,
    filters: &[&str],
    on_line: impl FnMut(&str),
) -> Result<(), String> {
    let built = root.join("target/debug");
    let mut tests = std::process::Command::new(built.join(TESTS));
    tests.args(["--board", board, "--elf"]).arg(&firmware.device).arg("--cli").arg(built.join("farref")).args(filters);
    if let Some(fixtures) = &firmware.fixtures {
        tests.arg("--fixtures").arg(fixtures);
    }
    if let Some(defmt) = &firmware.defmt {
        let folder = root.join("firmware");
        shell::run(shell::cargo(&folder).args(["build", "--locked", "--package", DECODER]))?;
        tests.arg("--defmt").arg(defmt).arg("--decoder").arg(folder.join("target/debug").join(DECODER));
    }
    shell::run_reading(&mut tests, on_line)
}

/// What cannot be run has to build, and the lints have to be content with all of it.
fn check(root: &Path) -> Result<(), String> {
    let folder = root.join("firmware");
    let (example, target) = EXAMPLE;
    setup::ensure_target(root, target)?;
    let mut build = shell::cargo(&folder);
    shell::run(build.args(["build", "--release", "--locked", "--package", example, "--target", target]))?;
    let mut fmt = shell::cargo(&folder);
    shell::run(fmt.args(["fmt", "--all", "--check"]))?;
    let [(_, little), (_, large)] = BOARDS;
    let programs =
        [(PROGRAM, little, ""), (PROGRAM, little, "defmt"), (PROGRAM, large, ""), (PROGRAM, large, "fixtures")];
    let others = [(example, target, ""), (MEASURED, little, ""), (MEASURED, little, "run")];
    for (package, target, features) in programs.into_iter().chain(others) {
        let mut clippy = shell::cargo(&folder);
        clippy.args(["clippy", "--release", "--locked", "--package", package, "--target", target]);
        shell::run(clippy.args(["--features", features, "--", "-D", "warnings"]))?;
    }
    let mut clippy = shell::cargo(&folder);
    shell::run(clippy.args(["clippy", "--locked", "--package", DECODER, "--", "-D", "warnings"]))
}

#[cfg(test)]
mod tests {
    use super::selected;

    #[test]
    fn a_board_and_parts_of_names_are_selected() {
        assert_eq!(selected(&[]).map(|(boards, filters)| (boards.len(), filters.len())), Ok((2, 0)));
        let (boards, filters) = selected(&["--board", "mps2-an386", "serial", "tcp"]).unwrap();
        assert_eq!((boards, filters), (vec![("mps2-an386", "thumbv7em-none-eabihf")], vec!["serial", "tcp"]));
        assert!(selected(&["--board", "esp32"]).is_err());
        assert!(selected(&["--bord"]).is_err());
    }
}
