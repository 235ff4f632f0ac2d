//! `cargo xtask mutate`: would the tests notice if a rule were not kept?
//!
//! Each patch in `conformance/mutations` takes one guard out of the code or bends one rule. Its first line says what it
//! does; a line `Suites: …` may name the suites that are to be tried first. The tree is copied to `target/mutate`, each
//! patch is applied to the copy in turn, and the quick suites run until a test fails. One that none of them notices, or
//! that does not apply or compile any more, is a failure here.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use diffy::patch_set::{FileOperation, ParseOptions, PatchSet};
use serde_json::Value;

use crate::{shell, tree};

/// Where the patches are.
pub const FOLDER: &str = "conformance/mutations/";

/// The quick suites: package, test target (none is the library's own tests), and what of it runs. In this order, the ones
/// that a patch names first.
const SUITES: [Suite; 22] = [
    Suite("farref-core", Some("release"), &[]),
    Suite("farref-core", Some("handles"), &[]),
    Suite("farref-core", Some("calls"), &[]),
    Suite("farref-core", Some("promises"), &[]),
    Suite("farref-core", Some("admission"), &[]),
    Suite("farref-core", Some("hostile"), &[]),
    Suite("farref-core", Some("put_off"), &[]),
    Suite("farref-core", Some("link"), &[]),
    Suite("farref-core", Some("faults"), &[]),
    Suite("farref-core", Some("references"), &[]),
    Suite("farref-core", Some("time"), &[]),
    Suite("farref-core", Some("line"), &[]),
    Suite("farref-conformance", Some("serial"), &["restart", "left_without_loss", "brings_a_close"]),
    Suite("farref-core", Some("storage"), &[]),
    Suite("farref-core", Some("dispatch"), &[]),
    Suite("farref-core", Some("vectors"), &[]),
    Suite("farref-core", Some("values_prop"), &[]),
    Suite("farref-core", None, &[]),
    Suite("farref-conformance", Some("corpus"), &[]),
    Suite("farref-host", Some("three_peers"), &[]),
    Suite("farref-pipe", Some("suite"), &["memory"]),
    Suite("farref-core", Some("model"), &["model_two_calls"]),
];

/// How long a suite may take. They take seconds; one that hangs has noticed the mutation, too.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq)]
struct Suite(&'static str, Option<&'static str>, &'static [&'static str]);

/// Runs `mutate [NAME]...`: the mutations with one of these words in their name, or all.
pub fn run(root: &Path, wanted: &[&str]) -> Result<(), String> {
    let mut mutations = mutations(root)?;
    mutations.retain(|mutation| wanted.is_empty() || wanted.iter().any(|word| mutation.name.contains(word)));
    if mutations.is_empty() {
        return Err(format!("no mutation in {FOLDER} has that name"));
    }
    let copy = Copy::of(root)?;
    println!("without a mutation");
    for suite in &SUITES {
        match copy.test(suite)? {
            Verdict::Passed => {}
            verdict => return Err(format!("{} does not pass as it is: {verdict:?}", suite.name())),
        }
    }
    let mut caught = 0;
    for mutation in &mutations {
        let begun = Instant::now();
        let (verdict, by) = copy.judge(root, mutation)?;
        caught += usize::from(matches!(verdict, Verdict::Failed(_)));
        let line = match (verdict, by) {
            (Verdict::Failed(test), Some(suite)) => format!("caught by {}::{test}", suite.name()),
            (Verdict::Broken(error), _) => format!("BROKEN PATCH: {error}"),
            _ => format!("NOT CAUGHT: {}", mutation.says),
        };
        println!("{:44} {:5.1} s  {line}", mutation.name, begun.elapsed().as_secs_f32());
    }
    println!("{caught} of {} caught", mutations.len());
    if caught == mutations.len() { Ok(()) } else { Err("mutations got through".into()) }
}

/// A patch, read.
#[derive(Debug)]
struct Mutation {
    name: String,
    /// Its first line.
    says: String,
    /// Suites that are to be tried first.
    first: Vec<Suite>,
    patch: String,
}

impl Mutation {
    fn read(name: &str, text: &str) -> Result<Self, String> {
        let (head, _) = text.split_once("\n---").ok_or(format!("{name} is no patch"))?;
        let says = head.lines().next().filter(|line| !line.trim().is_empty());
        let says = says.ok_or(format!("the first line of {name} does not say what it does"))?;
        let named =
            head.lines().find_map(|line| line.strip_prefix("Suites: ")).into_iter().flat_map(|line| line.split(", "));
        let find = |wanted: &str| {
            let suite = SUITES.into_iter().find(|suite| suite.1.unwrap_or("lib") == wanted);
            suite.ok_or(format!("{name} names a suite {wanted}, which is not one of the quick ones"))
        };
        let first = named.map(find).collect::<Result<_, _>>()?;
        Ok(Self { name: name.into(), says: says.into(), first, patch: text.into() })
    }

    /// The files that it changes, as they are with it.
    fn apply(&self, root: &Path) -> Result<BTreeMap<String, String>, String> {
        let mut files = BTreeMap::new();
        for part in PatchSet::parse(&self.patch, ParseOptions::unidiff()) {
            let part = part.map_err(|error| format!("not a patch: {error}"))?;
            let FileOperation::Modify { modified: path, .. } = part.operation().strip_prefix(1) else {
                return Err("adds or removes a file".into());
            };
            let text = tree::read(root, &path)?;
            let patch = part.patch().as_text().ok_or("has bytes that are no text")?;
            let changed = diffy::apply(&text, patch).map_err(|error| format!("does not apply to {path}: {error}"))?;
            files.insert(path.into_owned(), changed);
        }
        if files.is_empty() { Err("changes nothing".into()) } else { Ok(files) }
    }

    fn suites(&self) -> impl Iterator<Item = &Suite> {
        self.first.iter().chain(SUITES.iter().filter(|suite| !self.first.contains(suite)))
    }
}

/// All patches, by name.
fn mutations(root: &Path) -> Result<Vec<Mutation>, String> {
    let files = tree::files(root)?;
    let patches = files.iter().filter_map(|path| Some((path, path.strip_prefix(FOLDER)?.strip_suffix(".patch")?)));
    patches.map(|(path, name)| Mutation::read(name, &tree::read(root, path)?)).collect()
}

#[derive(Debug)]
enum Verdict {
    Passed,
    /// The name of the first test that failed.
    Failed(String),
    /// It does not apply or compile.
    Broken(String),
}

/// A copy of the tree, with a target folder of its own. Both stay, so that only what changed is built again.
struct Copy {
    tree: PathBuf,
    target: PathBuf,
}

impl Copy {
    fn of(root: &Path) -> Result<Self, String> {
        let folder = root.join("target/mutate");
        let copy = Self { tree: folder.join("tree"), target: folder.join("target") };
        copy.refresh(root).map_err(|error| format!("{}: {error}", copy.tree.display()))?;
        Ok(copy)
    }

    fn refresh(&self, root: &Path) -> io::Result<()> {
        fs::create_dir_all(&self.tree)?;
        let files = tree::files(root).map_err(io::Error::other)?;
        for path in tree::files(&self.tree).map_err(io::Error::other)? {
            if !files.contains(&path) {
                fs::remove_file(self.tree.join(path))?;
            }
        }
        for path in files {
            put(&self.tree.join(&path), &fs::read(root.join(&path))?)?;
        }
        Ok(())
    }

    /// Applies a mutation, runs suites until one fails, and takes the mutation back.
    fn judge<'m>(&self, root: &Path, mutation: &'m Mutation) -> Result<(Verdict, Option<&'m Suite>), String> {
        let files = match mutation.apply(root) {
            Ok(files) => files,
            Err(error) => return Ok((Verdict::Broken(error), None)),
        };
        let put = |path: &String, text: &str| {
            put(&self.tree.join(path), text.as_bytes()).map_err(|error| format!("{path}: {error}"))
        };
        files.iter().try_for_each(|(path, text)| put(path, text))?;
        let mut verdict = Ok((Verdict::Passed, None));
        for suite in mutation.suites() {
            match self.test(suite) {
                Ok(Verdict::Passed) => {}
                other => {
                    verdict = other.map(|verdict| (verdict, Some(suite)));
                    break;
                }
            }
        }
        files.keys().try_for_each(|path| put(path, &tree::read(root, path)?))?;
        verdict
    }

    /// Builds and runs a suite.
    fn test(&self, suite: &Suite) -> Result<Verdict, String> {
        let Suite(package, target, filters) = suite;
        let mut build = shell::cargo(&self.tree);
        build.args([
            "test",
            "--no-run",
            "--message-format=json-render-diagnostics",
            "--all-features",
            "--package",
            package,
        ]);
        match target {
            Some(target) => build.args(["--test", target]),
            None => build.arg("--lib"),
        };
        build.env("CARGO_TARGET_DIR", &self.target).env("CARGO_PROFILE_DEV_DEBUG", "0").env("RUSTFLAGS", "-Awarnings");
        let built = build.stdin(Stdio::null()).output().map_err(|error| format!("cargo: {error}"))?;
        if !built.status.success() {
            let said = String::from_utf8_lossy(&built.stderr);
            let error = said.lines().find(|line| line.starts_with("error")).unwrap_or("error");
            return Ok(Verdict::Broken(format!("does not compile: {error}")));
        }
        let (file, folder) = executable(&String::from_utf8_lossy(&built.stdout)).ok_or("cargo names no test binary")?;
        let mut test = Command::new(file);
        test.args(*filters).current_dir(folder).env("RUST_BACKTRACE", "0").stdin(Stdio::null());
        // Not by pipes: a process that hangs would have to be read and waited for at once.
        let log = self.target.join("log");
        let out = fs::File::create(&log).map_err(|error| format!("{}: {error}", log.display()))?;
        let child = test.stdout(out).stderr(Stdio::null()).spawn().map_err(|error| format!("{test:?}: {error}"))?;
        let passed = wait(child).map_err(|error| format!("{test:?}: {error}"))?;
        let said = fs::read(&log).map_err(|error| format!("{}: {error}", log.display()))?;
        Ok(match passed {
            Some(true) => Verdict::Passed,
            Some(false) => Verdict::Failed(first_failure(&String::from_utf8_lossy(&said))),
            None => Verdict::Failed(format!("(nothing more after {} s)", PATIENCE.as_secs())),
        })
    }
}

impl Suite {
    /// The file that it is in, as far as that is one.
    fn name(&self) -> String {
        let folder = match self.0 {
            "farref-core" => "proto-core",
            "farref-pipe" => "backend-pipe",
            "farref-host" => "host",
            _ => "conformance",
        };
        match self.1 {
            Some(target @ ("model" | "three_peers")) => format!("{folder}/tests/{target}/main.rs"),
            Some(target) => format!("{folder}/tests/{target}.rs"),
            None => format!("{folder}/src"),
        }
    }
}

/// Writes a file that differs; one that does not keeps its time, so that it is not built again.
fn put(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if fs::read(path).is_ok_and(|present| present == bytes) {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, bytes)
}

/// Whether it exits with 0; none if it had to be killed.
fn wait(mut child: Child) -> io::Result<Option<bool>> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status.success()));
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// The test binary that cargo has built, and the folder of its package.
fn executable(messages: &str) -> Option<(PathBuf, PathBuf)> {
    messages.lines().find_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        let file = message["executable"].as_str().filter(|_| message["profile"]["test"] == true)?;
        let manifest = Path::new(message["manifest_path"].as_str()?);
        Some((file.into(), manifest.parent()?.into()))
    })
}

/// The first test that failed, or the first case of the conformance suite.
fn first_failure(said: &str) -> String {
    let case = said.lines().find_map(|line| line.strip_prefix("FAILED")?.split_whitespace().next());
    let test = said.lines().find_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED"));
    case.or(test).unwrap_or("(died)").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
    }

    /// A patch that does not apply any more tests nothing; that should not wait for the next `cargo xtask mutate`.
    #[test]
    fn every_mutation_applies() {
        let mutations = mutations(root()).unwrap();
        assert!(mutations.len() >= 15, "{}", mutations.len());
        let broken: Vec<_> = mutations
            .iter()
            .filter_map(|mutation| mutation.apply(root()).err().map(|error| format!("{}: {error}", mutation.name)))
            .collect();
        assert!(broken.is_empty(), "{broken:#?}");
    }

    const PATCH: &str = "Nothing is checked.\nSuites: release, lib\n\n--- a/xtask/Cargo.toml\n+++ b/xtask/Cargo.toml\n\
                         @@ -1,2 +1,2 @@\n [package]\n-name = \"xtask\"\n+name = \"other\"\n";

    #[test]
    fn a_mutation_says_what_it_does_and_names_suites() {
        let mutation = Mutation::read("it", PATCH).unwrap();
        assert_eq!(mutation.says, "Nothing is checked.");
        assert_eq!(mutation.first, [Suite("farref-core", Some("release"), &[]), Suite("farref-core", None, &[])]);
        assert_eq!(mutation.suites().count(), SUITES.len());
        let files = mutation.apply(root()).unwrap();
        assert!(files["xtask/Cargo.toml"].starts_with("[package]\nname = \"other\"\n"));
        assert!(Mutation::read("it", "text").is_err());
        assert!(Mutation::read("it", "\n--- a/x\n").is_err());
        assert!(Mutation::read("it", &PATCH.replace("release", "nothing")).is_err());
    }

    #[test]
    fn a_mutation_that_does_not_fit_is_told() {
        let stale = PATCH.replace("-name = \"xtask\"", "-name = \"nothing\"");
        let error = Mutation::read("it", &stale).unwrap().apply(root()).unwrap_err();
        assert!(error.starts_with("does not apply to xtask/Cargo.toml"), "{error}");
    }

    #[test]
    fn what_failed_first_is_named() {
        assert_eq!(first_failure("test a ... ok\ntest b::c ... FAILED\ntest d ... FAILED\n"), "b::c");
        assert_eq!(first_failure("FAILED  REL-2/x  why\ntest memory ... FAILED\n"), "REL-2/x");
        assert_eq!(first_failure("test a ... ok\n"), "(died)");
    }

    #[test]
    fn the_test_binary_is_found_among_cargos_messages() {
        let said = "{\"reason\":\"compiler-artifact\",\"executable\":null,\"profile\":{\"test\":false}}\n\
            {\"manifest_path\":\"/t/core/Cargo.toml\",\"executable\":\"/t/x\",\"profile\":{\"test\":true}}\n";
        assert_eq!(executable(said), Some(("/t/x".into(), "/t/core".into())));
        assert_eq!(executable("{}"), None);
    }
}
