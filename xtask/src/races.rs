//! Part of `cargo xtask spec`: conformance/RACES.md names cases that exist.
//!
//! Its tables have a row for each race and each bug that other implementations had. The last cell names the cases that show
//! it, `path/of/a/test.rs::name` or `REL-2/case-of-the-suite`, or begins with `never` or `with …` and says why there is
//! none, or none yet.

use std::path::Path;

use crate::tree;

const RACES: &str = "conformance/RACES.md";

/// Where the cases of the suite are.
const CASES: &str = "conformance/src/suite/cases/";

/// How many rows there are and how many cases they name, and what is wrong with them.
pub fn check(root: &Path) -> Result<(usize, usize, Vec<String>), String> {
    let text = tree::read(root, RACES)?;
    let mut suite = String::new();
    for path in tree::files(root)?.iter().filter(|path| path.starts_with(CASES)) {
        suite += &tree::read(root, path)?;
    }
    let has_test = |path: &str, test: &str| tree::read(root, path).is_ok_and(|code| has_function(&code, test));
    let (mut rows, mut named, mut problems) = (0, 0, Vec::new());
    for (line, row) in (1..).zip(text.lines()).filter(|(_, row)| is_row(row)) {
        rows += 1;
        let cell = row.trim_end_matches(['|', ' ']).rsplit(" | ").next().unwrap_or_default().trim();
        let cases: Vec<_> = cases(cell).collect();
        named += cases.len();
        if cases.is_empty() && !["never", "with "].iter().any(|word| cell.starts_with(word)) {
            problems.push(format!("{RACES}:{line} names no case and gives no reason"));
        }
        for case in cases {
            let exists = match case.split_once("::") {
                Some((path, test)) => has_test(path, test),
                None => suite.contains(&format!("\"{case}\"")),
            };
            if !exists {
                problems.push(format!("{RACES}:{line} names {case}, which does not exist"));
            }
        }
    }
    if rows == 0 {
        problems.push(format!("{RACES} has no rows"));
    }
    Ok((rows, named, problems))
}

/// A row of a table that begins with a number.
fn is_row(line: &str) -> bool {
    line.strip_prefix("| ").is_some_and(|row| row.starts_with(|first: char| first.is_ascii_digit()))
}

/// What stands in backticks and looks like a case.
fn cases(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2).filter(|code| code.contains(".rs::") || is_suite_case(code))
}

/// A rule's id, a slash and a name.
fn is_suite_case(code: &str) -> bool {
    code.split_once('/').is_some_and(|(rule, _)| {
        rule.split_once('-').is_some_and(|(prefix, number)| {
            prefix.len() == 3 && prefix.bytes().all(|byte| byte.is_ascii_uppercase()) && number.parse::<u32>().is_ok()
        })
    })
}

fn has_function(code: &str, name: &str) -> bool {
    code.match_indices(&format!("fn {name}")).any(|(at, found)| {
        let next = code[at + found.len()..].chars().next();
        next.is_some_and(|next| !next.is_alphanumeric() && next != '_')
    })
}

#[cfg(test)]
mod tests {
    use std::{env, fs, process};

    use super::*;

    fn problems(name: &str, races: &str) -> (usize, usize, Vec<String>) {
        let root = env::temp_dir().join(format!("xtask-races-{name}-{}", process::id()));
        for (path, text) in [
            (RACES, races),
            ("core/tests/a.rs", "/// fn other()\nfn it_holds() {}\n"),
            ("conformance/src/suite/cases/release.rs", "Case::new(\"REL-2/crosses\", crosses),"),
        ] {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let outcome = check(&root).unwrap();
        fs::remove_dir_all(root).unwrap();
        outcome
    }

    #[test]
    fn cases_exist() {
        let races = "| n | race | shown by |\n|---|---|---|\n\
                     | 1 | a | `core/tests/a.rs::it_holds`, `REL-2/crosses` (REL-2) |\n\
                     | 2 | b `REL-9/what-was-seen` | with link |\n| 3 | c | never: there is no `count` |\n";
        assert_eq!(problems("fine", races), (3, 2, vec![]));
    }

    #[test]
    fn what_does_not_exist_is_a_problem() {
        let races = "| 1 | a | `core/tests/a.rs::it` |\n| 2 | b | `core/tests/b.rs::it_holds` |\n\
                     | 3 | c | `REL-2/cross` |\n| 4 | d | shown elsewhere |\n";
        let expected = [
            "conformance/RACES.md:1 names core/tests/a.rs::it, which does not exist",
            "conformance/RACES.md:2 names core/tests/b.rs::it_holds, which does not exist",
            "conformance/RACES.md:3 names REL-2/cross, which does not exist",
            "conformance/RACES.md:4 names no case and gives no reason",
        ];
        assert_eq!(problems("broken", races).2, expected);
        assert_eq!(problems("empty", "# Races\n").2, ["conformance/RACES.md has no rows"]);
    }
}
