//! `cargo xtask spec`: every rule of SPEC.md is enforced in code and shown by a case.
//!
//! A rule is a line `- **REF-3** text`; `- **REF-3** (reserved)` only keeps the number from being
//! used again. Code and cases cite a rule by its id, most often in a comment.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::Path,
};

use crate::{races, tree};

const SPEC: &str = "SPEC.md";

/// Texts that name rules but neither enforce nor show them. The ids must exist all the same.
const TEXTS: [&str; 3] = [SPEC, "ARCHITECTURE.md", "README.md"];

/// Checks the tree at `root`; prints one row per rule, then what is wrong, then a summary.
pub fn run(root: &Path) -> Result<(), String> {
    let report = check(root)?;
    println!("{report}");
    let (races, cases, missing) = races::check(root)?;
    missing.iter().for_each(|problem| println!("problem: {problem}"));
    println!("{races} races and bugs of others, {cases} cases, {} problems", missing.len());
    let agree = report.problems.is_empty() && missing.is_empty();
    if agree { Ok(()) } else { Err(format!("{SPEC} and the tree do not agree")) }
}

fn check(root: &Path) -> Result<Report, String> {
    let spec = tree::read(root, SPEC)?;

    let mut citations = Citations::default();
    for path in tree::files(root)? {
        if let Some(role) = role(&path) {
            citations.read(&path, role, &tree::read(root, &path)?);
        }
    }
    Ok(Report::new(&spec, &citations))
}

struct Report {
    rows: Vec<Row>,
    reserved: usize,
    problems: Vec<String>,
}

struct Row {
    id: String,
    code: String,
    case: String,
}

impl Report {
    fn new(spec: &str, citations: &Citations) -> Self {
        let (rules, mut problems) = rules(spec);
        if rules.is_empty() {
            problems.push(format!("{SPEC} has no rule"));
        }

        let mut defined = BTreeMap::new();
        for rule in &rules {
            if let Some(earlier) = defined.insert(rule.id, rule.line) {
                let (id, line) = (rule.id, rule.line);
                problems.push(format!("{id} is defined twice, at {SPEC}:{earlier} and :{line}"));
            }
        }

        let prefixes: BTreeSet<&str> = rules.iter().map(|rule| prefix(rule.id)).collect();
        for ((id, _), places) in &citations.0 {
            if prefixes.contains(prefix(id)) && !defined.contains_key(id.as_str()) {
                let places = brief(places);
                problems.push(format!("{id} is cited at {places}, but {SPEC} has no such rule"));
            }
        }

        let mut rows = Vec::new();
        for rule in rules.iter().filter(|rule| !rule.reserved) {
            let code = citations.of(rule.id, Role::Code);
            let case = citations.of(rule.id, Role::Case);
            for (what, places) in [("code", code), ("case", case)] {
                if places.is_empty() {
                    problems.push(format!("{} has no {what}", rule.id));
                }
            }
            rows.push(Row { id: rule.id.to_owned(), code: brief(code), case: brief(case) });
        }
        let reserved = rules.len() - rows.len();
        Self { rows, reserved, problems }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.rows.iter().map(|row| row.code.len()).max();
        let width = width.unwrap_or_default();
        writeln!(f, "{:7} {:width$}  case", "rule", "code")?;
        for Row { id, code, case } in &self.rows {
            writeln!(f, "{id:7} {code:width$}  {case}")?;
        }
        for problem in &self.problems {
            writeln!(f, "problem: {problem}")?;
        }
        let (rules, reserved, problems) = (self.rows.len(), self.reserved, self.problems.len());
        write!(f, "{rules} rules, {reserved} reserved ids, {problems} problems")
    }
}

#[derive(Debug, PartialEq)]
struct Rule<'a> {
    id: &'a str,
    line: usize,
    reserved: bool,
}

/// The rules in the order of the text, and the lines that look like a rule but are none: a rule
/// that is overlooked would be a rule that nobody checks.
fn rules(spec: &str) -> (Vec<Rule<'_>>, Vec<String>) {
    let (mut rules, mut problems) = (Vec::new(), Vec::new());
    for (line, text) in numbered(spec) {
        let Some(text) = text.strip_prefix("- **") else {
            continue;
        };
        let Some(id) = ids(text).next().filter(|id| text.starts_with(id)) else {
            continue;
        };
        match text[id.len()..].strip_prefix("** ") {
            Some(text) => rules.push(Rule { id, line, reserved: text.starts_with("(reserved)") }),
            None => problems.push(format!("{SPEC}:{line} is not of the form `- **{id}** text`")),
        }
    }
    (rules, problems)
}

/// Where each id is named, by the role that the naming plays.
#[derive(Default)]
struct Citations(BTreeMap<(String, Role), Vec<Place>>);

type Place = (String, usize);

impl Citations {
    fn read(&mut self, path: &str, role: Role, text: &str) {
        let tests_from = match role {
            Role::Code => unit_tests(text).unwrap_or(usize::MAX),
            _ => usize::MAX,
        };
        for (line, text) in numbered(text) {
            let role = if line < tests_from { role } else { Role::Case };
            for id in ids(text) {
                let places = self.0.entry((id.to_owned(), role)).or_default();
                places.push((path.to_owned(), line));
            }
        }
    }

    fn of(&self, id: &str, role: Role) -> &[Place] {
        let places = self.0.get(&(id.to_owned(), role));
        places.map_or(&[], Vec::as_slice)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    Text,
    Code,
    Case,
}

/// What it means that the file at `path`, relative to the root, names a rule.
fn role(path: &str) -> Option<Role> {
    if TEXTS.contains(&path) {
        return Some(Role::Text);
    }
    let mut folders: Vec<&str> = path.split('/').collect();
    let name = folders.pop()?;
    let (stem, extension) = name.rsplit_once('.')?;
    let is_test = name == "tests.rs" || folders.contains(&"tests");
    match (folders.as_slice(), extension) {
        (_, "rs") if is_test => Some(Role::Case),
        // A peer in another language is an implementation; what tests it is a case.
        (["conformance", "peers", ..], _) => ["selftest", "demo"].contains(&stem).then_some(Role::Case),
        (["conformance", ..], "rs" | "json") => Some(Role::Case),
        (["proto-core" | "host" | "cli", "src", ..], "rs") => Some(Role::Code),
        ([backend, "src", ..], "rs") if backend.starts_with("backend-") => Some(Role::Code),
        _ => None,
    }
}

/// The line where the unit tests at the end of a source file begin.
fn unit_tests(source: &str) -> Option<usize> {
    let mut lines = numbered(source);
    while let Some((start, line)) = lines.next() {
        if line.starts_with("#[cfg(test)]") || line.starts_with("#[cfg(all(test") {
            let item = lines.clone().map(|(_, line)| line);
            let mut item = item.skip_while(|line| line.starts_with(['#', ' ', ')']));
            // `mod tests;` stands among the other modules at the head of a file.
            if item.next().is_some_and(|item| item.starts_with("mod ") && item.ends_with('{')) {
                return Some(start);
            }
        }
    }
    None
}

/// The rule ids in `text`: three capitals, a dash, digits, and nothing more in that word.
fn ids(text: &str) -> impl Iterator<Item = &str> {
    let word_ends = |c: char| !(c.is_alphanumeric() || c == '_' || c == '-');
    let words = text.split(word_ends).map(|word| word.trim_matches('-'));
    words.filter(|word| {
        word.split_once('-').is_some_and(|(prefix, number)| {
            prefix.len() == 3
                && prefix.bytes().all(|byte| byte.is_ascii_uppercase())
                && !number.is_empty()
                && number.bytes().all(|byte| byte.is_ascii_digit())
        })
    })
}

fn prefix(id: &str) -> &str {
    id.split('-').next().unwrap_or(id)
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> + Clone {
    (1..).zip(text.lines())
}

/// The first place, and how many more there are.
fn brief(places: &[Place]) -> String {
    match places {
        [] => "none".to_owned(),
        [(path, line)] => format!("{path}:{line}"),
        [(path, line), more @ ..] => format!("{path}:{line} +{}", more.len()),
    }
}

#[cfg(test)]
mod tests {
    use std::{env, fs, path::PathBuf, process};

    use super::*;

    /// A source tree in a temporary folder of its own.
    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str, files: &[(&str, &str)]) -> Self {
            let root = env::temp_dir().join(format!("xtask-spec-{name}-{}", process::id()));
            for (path, text) in files {
                let path = root.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            Self(root)
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// The problems of a spec whose rules are cited by one code file and one case file.
    fn problems(spec: &str, code: &str, case: &str) -> Vec<String> {
        let mut citations = Citations::default();
        citations.read(SPEC, Role::Text, spec);
        citations.read("proto-core/src/lib.rs", Role::Code, code);
        citations.read("conformance/tests/a.rs", Role::Case, case);
        Report::new(spec, &citations).problems
    }

    #[test]
    fn rules_are_found_with_their_lines() {
        let spec = "# Head\n- **REL-1** Frees.\n  see **REL-2** \n- **REL-12** (reserved) later\n\
                    - **Bold** text\n- **C01** another list\n";
        let (rules, problems) = rules(spec);
        let expected = [("REL-1", 2, false), ("REL-12", 4, true)];
        assert_eq!(rules, expected.map(|(id, line, reserved)| Rule { id, line, reserved }));
        assert_eq!(problems, [""; 0]);
    }

    #[test]
    fn a_line_that_only_looks_like_a_rule_is_a_problem() {
        let (rules, problems) = rules("- **REL-1**: Frees.\n- **REL-2 and more** text\n");
        assert_eq!(rules, []);
        assert_eq!(
            problems,
            ["SPEC.md:1 is not of the form `- **REL-1** text`", "SPEC.md:2 is not of the form `- **REL-2** text`"]
        );
    }

    #[test]
    fn ids_are_whole_words() {
        let found = |text| ids(text).collect::<Vec<_>>();
        assert_eq!(found("// REL-1, (REL-12)/`ANS-3`: REL-4's"), ["REL-1", "REL-12", "ANS-3", "REL-4"]);
        assert_eq!(found("XREL-1 REL-1a REL-1_b REL-1-2 non-REL-1 RE-1 REL- rel-1 ÄREL-1"), [""; 0]);
        assert_eq!(found("C01 N02 A1/B2 REL1"), [""; 0]);
    }

    #[test]
    fn files_play_the_role_of_their_place() {
        for (path, expected) in [
            ("proto-core/src/session/release.rs", Some(Role::Code)),
            ("backend-pipe/src/lib.rs", Some(Role::Code)),
            ("cli/src/main.rs", Some(Role::Code)),
            ("proto-core/src/session/tests.rs", Some(Role::Case)),
            ("proto-core/src/tests/release.rs", Some(Role::Case)),
            ("cli/tests/demo.rs", Some(Role::Case)),
            ("conformance/src/lib.rs", Some(Role::Case)),
            ("conformance/src/suite/cases/release.rs", Some(Role::Case)),
            ("conformance/FIXTURES.md", None),
            ("conformance/vectors/hello.json", Some(Role::Case)),
            ("conformance/peers/python/farref.py", None),
            ("conformance/peers/python/selftest.py", Some(Role::Case)),
            ("SPEC.md", Some(Role::Text)),
            ("README.md", Some(Role::Text)),
            ("cli/README.md", None),
            ("conformance/README.md", None),
            ("proto-core/no-alloc/src/main.rs", None),
            ("xtask/src/spec.rs", None),
        ] {
            assert_eq!(role(path), expected, "{path}");
        }
    }

    #[test]
    fn a_rule_needs_code_and_case() {
        let spec = "- **REL-1** a\n- **REL-2** b\n- **REL-3** c\n- **REL-12** d\n";
        assert_eq!(
            problems(spec, "REL-1 REL-2 REL-12", "REL-1 REL-3 REL-12"),
            ["REL-2 has no case", "REL-3 has no code"]
        );
        assert_eq!(
            problems("- **REL-1** a\n- **REL-12** b", "REL-12", "REL-12"),
            ["REL-1 has no code", "REL-1 has no case"]
        );
    }

    #[test]
    fn a_reserved_id_needs_nothing_but_stays_taken() {
        assert_eq!(problems("- **REL-1** (reserved)\n", "", "REL-1"), [""; 0]);
        assert_eq!(
            problems("- **REL-1** (reserved)\n- **REL-1** a\n", "REL-1", "REL-1"),
            ["REL-1 is defined twice, at SPEC.md:1 and :2"]
        );
    }

    #[test]
    fn an_unknown_id_of_a_known_prefix_is_a_problem() {
        assert_eq!(
            problems("- **REL-1** a, see REL-9\n", "REL-1 UTF-8\nREL-7", "REL-1 CRC-32"),
            [
                "REL-7 is cited at proto-core/src/lib.rs:2, but SPEC.md has no such rule",
                "REL-9 is cited at SPEC.md:1, but SPEC.md has no such rule"
            ]
        );
    }

    #[test]
    fn unit_tests_at_the_end_of_a_file_are_cases() {
        let code = "#[cfg(test)]\nmod simulator;\n// REL-1\n\
                    #[cfg(test)]\n#[allow(\n    clippy::panic\n)]\nmod tests {\n    // REL-2\n}\n";
        let spec = "- **REL-1** a\n- **REL-2** b\n";
        assert_eq!(problems(spec, code, ""), ["REL-1 has no case", "REL-2 has no code"]);
    }

    #[test]
    fn a_spec_without_rules_is_a_problem() {
        assert_eq!(problems("# Nothing yet\n", "", ""), ["SPEC.md has no rule"]);
    }

    #[test]
    fn a_tree_is_reported_row_by_row() {
        let tree = Tree::new(
            "rows",
            &[
                (SPEC, "- **REL-1** Frees.\n- **REL-2** (reserved)\n"),
                ("README.md", "REL-3\n"),
                ("proto-core/src/lib.rs", "\n// REL-1\n"),
                ("proto-core/src/message.rs", "// REL-1\n"),
                ("proto-core/target/tests/a.rs", "// REL-1\n"),
                ("conformance/vectors/a.json", "{\"rules\": [\"REL-1\"]}"),
            ],
        );
        assert_eq!(
            check(&tree.0).unwrap().to_string(),
            "rule    code                        case\n\
             REL-1   proto-core/src/lib.rs:2 +1  conformance/vectors/a.json:1\n\
             problem: REL-3 is cited at README.md:1, but SPEC.md has no such rule\n\
             1 rules, 1 reserved ids, 1 problems"
        );
        assert!(run(&tree.0).is_err());
    }

    #[test]
    fn without_a_spec_there_is_no_report() {
        let tree = Tree::new("none", &[("README.md", "")]);
        assert!(check(&tree.0).is_err_and(|error| error.starts_with("SPEC.md: ")));
    }
}
