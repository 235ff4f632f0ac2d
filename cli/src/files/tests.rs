//! Shared by the tests: a folder to serve, and one next to it that must never be reached.

mod modes;
mod paths;
mod reading;
mod replacing;
mod sandbox;

use super::walk::WalkStep;
use super::*;
use std::fs;
use std::path::PathBuf;
use tempfile::TempDir;

/// More than any test reads.
const LIMIT: usize = 1 << 20;

struct Fixture {
    /// Holds `served/` and `outside/`, which has a file `secret`.
    both: TempDir,
}

impl Fixture {
    fn new() -> Self {
        let both = TempDir::new().unwrap();
        fs::create_dir(both.path().join("served")).unwrap();
        fs::create_dir(both.path().join("outside")).unwrap();
        fs::write(both.path().join("outside/secret"), "SECRET").unwrap();
        Self { both }
    }

    fn with(files: &[(&str, &[u8])]) -> Self {
        let fixture = Self::new();
        for (path, contents) in files {
            let path = fixture.path(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, contents).unwrap();
        }
        fixture
    }

    /// A path in the served folder, for the test's own use.
    fn path(&self, path: &str) -> PathBuf {
        self.both.path().join("served").join(path)
    }

    fn outside(&self) -> PathBuf {
        self.both.path().join("outside")
    }

    fn reader(&self) -> Tree {
        Tree::rooted_at(&self.path(""), false).unwrap()
    }

    fn writer(&self) -> Tree {
        Tree::rooted_at(&self.path(""), true).unwrap()
    }
}

fn text(text: &str) -> Data {
    Data::Text(text.into())
}

fn bytes(bytes: &[u8]) -> Data {
    Data::Bytes(bytes.into())
}

fn fault<T>(result: Result<T, FileError>) -> FileError {
    match result {
        Ok(_) => panic!("expected an error"),
        Err(error) => error,
    }
}

/// The exception's name and errno.
fn kind<T>(result: Result<T, FileError>) -> (&'static str, Option<i32>) {
    let error = fault(result);
    (error.exception(), error.errno())
}
