//! `farref demo`: what references are about, shown with a second process of this program.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use farref_pipe::{
    Args, ChildProcess, Connection, Directory, Error, Function, Op, Options, Reference, Remote, Traffic, Value,
};
use tempfile::TempDir;

use crate::eval::{self, Steps};
use crate::exit::{Exit, Failure, written};
use crate::expr;
use crate::look::look_at;
use crate::show;
use crate::visible::one_line;

/// Shows one step after the other; the first one that fails ends it.
pub fn run() -> Result<(), Failure> {
    let folder = Folder::find().map_err(|error| failed(format!("no folder to serve: {error}")))?;
    let mut serve = Command::new(env::current_exe().map_err(|error| failed(error.to_string()))?);
    serve.args(["serve", "--stdio", "--demo", "--root"]).arg(folder.path());
    let peer = ChildProcess::spawn(&mut serve, Directory::new(), Options::default())
        .map_err(|error| failed(format!("no second process: {error}")))?;
    say(&format!("A second process of this program, number {}, serves {}", peer.id(), folder.told()))?;

    let mut demo = Demo { peer: peer.connection(), steps: 0, counted: peer.connection().traffic() };
    let mut walked = String::from(".");
    demo.step("a real folder, and about each name in it, all asked together", |peer, told| {
        list(peer, told, &mut walked)
    })?;
    demo.step("the contents of a file: two calls, one round trip", read)?;
    demo.step("a walk that calls back into this process for each folder", |peer, told| walk(peer, told, &walked))?;
    demo.step("a list by reference, then its contents", lists)?;
    demo.step("an exception of the other process, caught by name", exception)?;
    demo.step("nothing is left behind", baseline)?;
    let status = peer.finish().map_err(|error| failed(error.to_string()))?;
    match status.success() {
        true => Ok(()),
        false => Err(failed(format!("the second process ended badly ({status})"))),
    }
}

/// The steps shown so far.
struct Demo<'c> {
    peer: &'c Connection,
    steps: u32,
    counted: Traffic,
}

/// What a step tells: lines, the last of which gets the counts.
type Told = Vec<String>;

impl Demo<'_> {
    /// Does a step and prints what it told, with all messages that came of it, releases included.
    fn step(
        &mut self,
        title: &str,
        work: impl FnOnce(&Connection, &mut Told) -> Result<(), Error>,
    ) -> Result<(), Failure> {
        self.steps += 1;
        let number = self.steps;
        say(&format!("\n{number}. {title}"))?;
        let mut told = Vec::new();
        let outcome = work(self.peer, &mut told).and_then(|()| settle(self.peer));
        let (before, after) = (self.counted, self.peer.traffic());
        self.counted = after;
        let (last, lines) = told.split_last().map_or(("", [].as_slice()), |(last, lines)| (last, lines));
        lines.iter().try_for_each(|line| say(&format!("   {line}")))?;
        let counts = format!(
            "({} messages, {} bytes, {} round trips)",
            after.messages - before.messages,
            after.bytes - before.bytes,
            after.round_trips - before.round_trips
        );
        outcome.map_err(|error| failed(format!("step {number} ({title}): {error}")))?;
        say(&format!("   {last} {counts}"))
    }
}

/// Waits until both sides have let go of everything.
fn settle(peer: &Connection) -> Result<(), Error> {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !peer.is_at_baseline() {
        if Instant::now() > deadline {
            return Err(Error::raise("RuntimeError", format!("not back at baseline: {:?}", peer.tables())));
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Names shown of a folder, and lines of a file.
const SHOWN: usize = 8;

/// Characters shown of a line.
const WIDTH: usize = 90;

/// Names asked about: no more than a peer serves at a time, so that all are asked together.
const MOST_ASKED: usize = 50;

fn list(peer: &Connection, told: &mut Told, subfolder: &mut String) -> Result<(), Error> {
    let names = texts(evaluate(peer, told, "listdir(\".\")")?);
    told.push("stat(each of the names)".into());
    let names_asked = names.iter().take(MOST_ASKED);
    let asked: Result<Vec<_>, _> = names_asked.map(|name| peer.root().start("stat", [name.as_str()])).collect();
    let mut folders = 0;
    let mut lines = Vec::new();
    for (name, stat) in names.iter().zip(asked?) {
        // A link that leads nowhere has a name all the same.
        let stat = stat.wait();
        let fact = |key: &str| match &stat {
            Ok(Value::Map(facts)) => facts.iter().find(|(name, _)| name.as_str() == Some(key)).map(|(_, fact)| fact),
            _ => None,
        };
        if fact("kind").and_then(Value::as_str) == Some("dir") {
            folders += 1;
            let is_small = !name.starts_with('.') && name != "target" && name != "node_modules";
            if is_small && subfolder == "." {
                subfolder.clone_from(name);
            }
            lines.push(format!("{}/", one_line(name)));
        } else {
            let size = fact("size").and_then(Value::as_int).map_or("?".into(), |size| size.to_string());
            lines.push(format!("{} ({size} bytes)", one_line(name)));
        }
    }
    excerpt(told, lines);
    told.push(match names.len() {
        count @ ..=MOST_ASKED => format!("{count} names, {folders} of them folders"),
        count => format!("{count} names; of the first {MOST_ASKED}, {folders} are folders"),
    });
    Ok(())
}

fn read(peer: &Connection, told: &mut Told) -> Result<(), Error> {
    let value = evaluate(peer, told, "open(\"README.md\").read()")?;
    let text = value.as_str().ok_or_else(|| wrong("a file's contents"))?;
    excerpt(told, text.lines().map(one_line).collect());
    told.push(format!("{} characters", text.chars().count()));
    Ok(())
}

fn walk(peer: &Connection, told: &mut Told, folder: &str) -> Result<(), Error> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let visitor = {
        let seen = seen.clone();
        Function::new(move |args| {
            let count = |place| match args.get(place) {
                Some(Value::Tuple(names)) => names.len(),
                _ => 0,
            };
            let name = args.get(0).and_then(Value::as_str).map(one_line).unwrap_or_default();
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.push(format!("called back with {name}: {} subfolders, {} files", count(1), count(2)));
            // In a great tree this much is enough.
            Ok(Value::Bool(seen.len() < SHOWN))
        })
    };
    told.push(format!("walk({folder:?}, visitor)"));
    let args = Args::from([folder]).and(Reference::local(visitor));
    let visited = peer.root().invoke("walk", args)?;
    told.append(&mut seen.lock().unwrap_or_else(PoisonError::into_inner));
    told.push(format!("{} folders visited", visited.as_int().ok_or_else(|| wrong("how many folders"))?));
    Ok(())
}

fn lists(peer: &Connection, told: &mut Told) -> Result<(), Error> {
    told.push("list = squares(10)".into());
    let list = peer.root().invoke("squares", [10])?;
    let list = list.as_reference().and_then(Reference::remote).ok_or_else(|| wrong("a reference"))?;
    told.push("list, list[3], list.append(\"one more\"), all asked together".into());
    let text = list.start_op(Op::Text, Args::default())?;
    let item = list.start_op(Op::GetItem, [3].into())?;
    let appended = list.start("append", ["one more"])?;
    told.push(printed(peer, text.wait()?)?);
    told.push(printed(peer, item.wait()?)?);
    appended.wait()?;
    told.push("force(list)".into());
    told.push(printed(peer, list.force()?)?);
    Ok(())
}

fn exception(peer: &Connection, told: &mut Told) -> Result<(), Error> {
    match evaluate(peer, told, "open(\"no such file.txt\").read()") {
        Err(Error::Raised(exception)) if exception.name == "FileNotFoundError" => {
            let arguments = printed(peer, Value::Tuple(exception.args))?;
            told.push(format!("caught FileNotFoundError, arguments {arguments}"));
            Ok(())
        }
        Err(other) => Err(other),
        Ok(_) => Err(wrong("an exception")),
    }
}

fn baseline(peer: &Connection, told: &mut Told) -> Result<(), Error> {
    let tables = peer.tables();
    // The directory is always there.
    let here = [tables.exports.saturating_sub(1), tables.imports, tables.questions, tables.answers];
    let there = evaluate(peer, told, "tables()")?;
    let Value::Map(there) = there else { return Err(wrong("tables")) };
    let there: Vec<_> = there.iter().map(|(_, size)| size.as_int().unwrap_or(-1)).collect();
    told.push("          exports, imports, questions, answers".into());
    told.push(format!("here:     {here:?}"));
    told.push(format!("there:    {there:?}"));
    match here.iter().all(|&size| size == 0) && there.iter().all(|&size| size == 0) {
        true => Ok(()),
        false => Err(wrong(&format!("empty tables instead of {here:?} here and {there:?} there"))),
    }
}

/// Evaluates what `farref call` would.
fn evaluate(peer: &Connection, told: &mut Told, source: &str) -> Result<Value, Error> {
    told.push(source.to_owned());
    let expr = expr::parse(source).map_err(|error| wrong(&error.to_string()))?;
    eval::evaluate(peer, &expr, &Steps::default()).map_err(|fault| fault.error)
}

fn printed(peer: &Connection, value: Value) -> Result<String, Error> {
    Ok(show::text(&look_at(peer, value)?).lines().collect::<Vec<_>>().join(", "))
}

/// The first lines.
fn excerpt(told: &mut Told, lines: Vec<String>) {
    let left = lines.len().saturating_sub(SHOWN);
    told.extend(lines.iter().take(SHOWN).map(|line| {
        let start: String = line.chars().take(WIDTH).collect();
        let cut = if start.len() < line.len() { "…" } else { "" };
        format!("| {start}{cut}").trim_end().to_owned()
    }));
    if left > 0 {
        told.push(format!("| ... and {left} more"));
    }
}

fn texts(value: Value) -> Vec<String> {
    let Value::Tuple(items) = value else { return Vec::new() };
    items.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn wrong(wanted: &str) -> Error {
    Error::raise("RuntimeError", format!("expected {wanted}"))
}

fn failed(message: String) -> Failure {
    Failure::new(Exit::Remote, message)
}

fn say(line: &str) -> Result<(), Failure> {
    written(io::stdout().write_all(format!("{line}\n").as_bytes()))
}

/// What is served: the current folder if it has a README.md, else one made for the purpose.
enum Folder {
    Current(PathBuf),
    Made(TempDir),
}

impl Folder {
    fn find() -> io::Result<Self> {
        let current = env::current_dir()?;
        if current.join("README.md").is_file() {
            return Ok(Self::Current(current));
        }
        let made = TempDir::with_prefix("farref-demo-")?;
        fs::create_dir_all(made.path().join("docs/pictures"))?;
        fs::write(made.path().join("docs/notes.txt"), "Some notes.\n")?;
        fs::write(made.path().join("docs/pictures/empty.svg"), "<svg xmlns=\"http://www.w3.org/2000/svg\"/>\n")?;
        let text = "# A small folder\n\nMade by farref demo, since there was no README.md where it was started.\n";
        fs::write(made.path().join("README.md"), text)?;
        Ok(Self::Made(made))
    }

    fn path(&self) -> &Path {
        match self {
            Self::Current(path) => path,
            Self::Made(made) => made.path(),
        }
    }

    fn told(&self) -> String {
        let path = one_line(&self.path().to_string_lossy());
        match self {
            Self::Current(_) => path,
            Self::Made(_) => format!("{path} (there is no README.md here)"),
        }
    }
}
