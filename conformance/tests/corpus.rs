//! What fuzzing starts from and what it has found, without a fuzzer: each file of `fuzz/seeds` and `fuzz/corpus`.

use std::{collections::BTreeSet, fs, panic, path::PathBuf};

use farref_conformance::fuzz::TARGETS;

fn folder(path: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "../fuzz", path].iter().collect()
}

/// The files of a folder, in order; none if there is no such folder.
fn files(path: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder(path)).into_iter().flatten();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// MSG-1, VAL-1, CAL-2, REF-3, ADM-6, ADM-7: see the targets, `conformance/src/fuzz`.
#[test]
fn every_input_passes() {
    let mut failed = Vec::new();
    for (name, run) in TARGETS {
        let seeds = files(&format!("seeds/{name}"));
        assert!(!seeds.is_empty(), "{name} has no seeds");
        for file in seeds.into_iter().chain(files(&format!("corpus/{name}"))) {
            let input = fs::read(&file).unwrap();
            if panic::catch_unwind(|| run(&input)).is_err() {
                failed.push(format!("{name}: {}", file.display()));
            }
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

/// Inputs that are cut short at any byte pass as well: every decision has a default.
#[test]
fn every_seed_passes_cut_short() {
    for (name, run) in TARGETS {
        for file in files(&format!("seeds/{name}")) {
            let input = fs::read(&file).unwrap();
            (0..input.len()).for_each(|length| run(&input[..length]));
        }
    }
}

/// A target that is in one list only would not be run, or not be replayed.
#[test]
fn every_target_has_its_file_and_its_folder() {
    let names = |path: &str, suffix: &str| -> BTreeSet<String> {
        let names = files(path).into_iter().map(|file| file.file_name().unwrap().to_string_lossy().into_owned());
        names.map(|name| name.strip_suffix(suffix).unwrap_or("?").to_owned()).collect()
    };
    let targets: BTreeSet<_> = TARGETS.iter().map(|&(name, _)| name.to_owned()).collect();
    assert_eq!(names("fuzz_targets", ".rs"), targets);
    assert_eq!(names("seeds", ""), targets);
}
