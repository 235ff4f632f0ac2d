//! The command line.

use std::path::PathBuf;

/// What to run, and with which programs.
#[derive(Debug, Default, Clone)]
pub struct Arguments {
    /// The board, as QEMU calls it.
    pub board: String,
    /// The firmware.
    pub elf: PathBuf,
    /// The same with the fixtures of the conformance suite, if the board has room for them.
    pub fixtures: Option<PathBuf>,
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

    /// Whether a test is asked for, and can be run.
    pub fn selects(&self, name: &str, wants_fixtures: bool) -> bool {
        if wants_fixtures && self.fixtures.is_none() {
            return false;
        }
        self.filters.is_empty() || self.filters.iter().any(|filter| name.contains(filter.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::Arguments;

    fn parse(line: &str) -> Result<Arguments, String> {
        Arguments::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn names_are_selected_by_a_part() {
        let all = parse("--board mps2-an386 --elf a --cli b").expect("it is well formed");
        assert!(all.selects("tcp/calls", false) && all.selects("serial/x", false) && !all.selects("suite/x", true));
        let some = parse("--board mps2-an386 serial").expect("it is well formed");
        assert!(!some.selects("tcp/calls", false) && some.selects("serial/x", false));
    }

    #[test]
    fn what_is_wrong_is_told() {
        assert!(parse("--board other").is_err());
        assert!(parse("--board").is_err());
        assert!(parse("--bord mps2-an386").is_err());
    }
}
