//! The command line.

use std::path::{Path, PathBuf};

/// What a guest runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firmware {
    Device,
    /// What the conformance suite looks at.
    Fixtures,
    /// The device, which tells by defmt what happens.
    Defmt,
}

/// What to run, and with which programs.
#[derive(Debug, Default, Clone)]
pub struct Arguments {
    /// The board, as QEMU calls it.
    pub board: String,
    /// The firmware.
    pub elf: PathBuf,
    /// The same with the fixtures of the conformance suite, if the board has room for them.
    pub fixtures: Option<PathBuf>,
    /// The device, built with defmt.
    pub defmt: Option<PathBuf>,
    /// What shows what that one tells.
    pub decoder: PathBuf,
    /// The program `farref`.
    pub cli: PathBuf,
    /// Parts of the names of tests; none stands for all.
    pub filters: Vec<String>,
}

impl Arguments {
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut arguments = Self::default();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} wants a value"));
            match word.as_str() {
                "--board" => arguments.board = value()?,
                "--elf" => arguments.elf = value()?.into(),
                "--fixtures" => arguments.fixtures = Some(value()?.into()),
                "--defmt" => arguments.defmt = Some(value()?.into()),
                "--decoder" => arguments.decoder = value()?.into(),
                "--cli" => arguments.cli = value()?.into(),
                option if option.starts_with('-') => return Err(format!("no such option: {option}")),
                _ => arguments.filters.push(word),
            }
        }
        match arguments.board.as_str() {
            "lm3s6965evb" | "mps2-an386" => Ok(arguments),
            other => Err(format!("no such board: {other:?}")),
        }
    }

    /// Where that firmware is.
    pub fn elf(&self, firmware: Firmware) -> Option<&Path> {
        match firmware {
            Firmware::Device => Some(&self.elf),
            Firmware::Fixtures => self.fixtures.as_deref(),
            Firmware::Defmt => self.defmt.as_deref(),
        }
    }

    /// Whether a test is asked for, and can be run.
    pub fn selects(&self, name: &str, firmware: Firmware) -> bool {
        if self.elf(firmware).is_none() {
            return false;
        }
        self.filters.is_empty() || self.filters.iter().any(|filter| name.contains(filter.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::{Arguments, Firmware};

    fn parse(line: &str) -> Result<Arguments, String> {
        Arguments::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn names_are_selected_by_a_part() {
        let all = parse("--board mps2-an386 --elf a --cli b").expect("it is well formed");
        assert!(all.selects("tcp/calls", Firmware::Device) && all.selects("serial/x", Firmware::Device));
        assert!(!all.selects("suite/x", Firmware::Fixtures) && !all.selects("defmt/x", Firmware::Defmt));
        let some = parse("--board mps2-an386 --fixtures c serial").expect("it is well formed");
        assert!(!some.selects("tcp/calls", Firmware::Device) && some.selects("serial/x", Firmware::Fixtures));
    }

    #[test]
    fn what_is_wrong_is_told() {
        assert!(parse("--board other").is_err());
        assert!(parse("--board").is_err());
        assert!(parse("--bord mps2-an386").is_err());
    }
}
