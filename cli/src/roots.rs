//! What `farref serve` offers by name: a tree of files as objects.

mod demo;
mod file;
mod params;
mod replacement;

pub use demo::demo;

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use farref_pipe::{
    Action, Args, Connection, Directory, Error, Exception, Object, Reference, Remote, Value, callers_max_message,
};

use crate::files::{ErrorArg, FileError, Kind, ReplacementState, Stat, Tree};
use file::File;
use params::Signature;
use replacement::Replacement;

/// What the roots share.
pub struct Share {
    tree: Tree,
    connection: OnceLock<Connection>,
    replacements: Mutex<Replacements>,
}

/// The replacements that may be unfinished.
#[derive(Default)]
struct Replacements {
    states: Vec<Arc<ReplacementState>>,
    over: bool,
}

impl Share {
    /// Of a tree; for [`Share::connected`] to complete.
    pub fn new(tree: Tree) -> Self {
        Self { tree, connection: OnceLock::new(), replacements: Mutex::default() }
    }

    /// Tells which connection it is that the tree is served on. Calls that want to know wait for this.
    pub fn connected(&self, connection: &Connection) {
        // It is done once.
        let _ = self.connection.set(connection.clone());
    }

    /// Leaves nothing unfinished behind in the tree, now that nobody is there who would finish it. The program may end
    /// before all objects that the peer held are dropped.
    pub fn end(&self) {
        let mut replacements = self.replacements.lock().unwrap_or_else(PoisonError::into_inner);
        replacements.over = true;
        replacements.states.drain(..).for_each(|state| state.discard());
    }

    /// Has [`Share::end`] look after a replacement, too.
    fn look_after(&self, state: Arc<ReplacementState>) {
        let mut replacements = self.replacements.lock().unwrap_or_else(PoisonError::into_inner);
        replacements.states.retain(|state| state.is_unfinished());
        match replacements.over {
            true => state.discard(),
            false => replacements.states.push(state),
        }
    }

    fn connection(&self) -> &Connection {
        self.connection.wait()
    }

    /// The bytes that a result may hold, so that it fits into one message to who asks for it.
    fn limit(&self) -> usize {
        /// More than the head of a Return and of its value take.
        const HEAD: usize = 64;
        callers_max_message().saturating_sub(HEAD)
    }
}

/// With the roots for files.
pub fn files(directory: Directory, share: &Arc<Share>) -> Directory {
    directory
        .with("listdir", "the names in a folder, sorted: listdir(path=\".\")", routine(share, LISTDIR, listdir))
        .with("open", "a file, opened as Python does it: open(path, mode=\"r\")", routine(share, OPEN, open))
        .with(
            "replace",
            "a new file that takes the place of path once it is complete: replace(path, mode=none)",
            routine(share, REPLACE, replace),
        )
        .with(
            "stat",
            "kind, size, modified, mode and read_only of a path: stat(path, follow_symlinks=true)",
            routine(share, STAT, stat),
        )
        .with(
            "walk",
            "calls visitor(dir, subdirs, files) for each folder, until that is false: walk(path, visitor)",
            routine(share, WALK, walk),
        )
}

const LISTDIR: Signature = Signature { text: "listdir(path=\".\")", names: &["path"], required: 0 };
const OPEN: Signature = Signature { text: "open(path, mode=\"r\")", names: &["path", "mode"], required: 1 };
const REPLACE: Signature = Signature { text: "replace(path, mode=none)", names: &["path", "mode"], required: 1 };
const STAT: Signature =
    Signature { text: "stat(path, follow_symlinks=true)", names: &["path", "follow_symlinks"], required: 1 };
const WALK: Signature = Signature { text: "walk(path, visitor)", names: &["path", "visitor"], required: 2 };

fn listdir(share: &Arc<Share>, args: Args) -> Result<Value, Error> {
    let mut args = LISTDIR.bind(args)?;
    let path = args.text(0)?;
    let names = share.tree.listdir(path.as_deref().unwrap_or("."), share.limit()).map_err(raised)?;
    Ok(texts(names))
}

fn open(share: &Arc<Share>, args: Args) -> Result<Value, Error> {
    let mut args = OPEN.bind(args)?;
    let (path, mode) = (args.required_text(0)?, args.text(1)?);
    let file = share.tree.open(&path, mode.as_deref().unwrap_or("r")).map_err(raised)?;
    Ok(Reference::local(File::new(file, share.clone())).into())
}

fn replace(share: &Arc<Share>, args: Args) -> Result<Value, Error> {
    /// What Python's `open` asks for, too.
    const ANYBODY_MAY_WRITE: u32 = 0o666;
    let mut args = REPLACE.bind(args)?;
    let (path, mode) = (args.required_text(0)?, args.count(1)?);
    let mode = mode.map_or(Ok(ANYBODY_MAY_WRITE), u32::try_from);
    let mode = mode.map_err(|_| args.wrong(1, "permissions such as those of stat"))?;
    let replacement = share.tree.replace(&path, mode).map_err(raised)?;
    share.look_after(replacement.state());
    Ok(Reference::local(Replacement::new(replacement)).into())
}

fn stat(share: &Arc<Share>, args: Args) -> Result<Value, Error> {
    let mut args = STAT.bind(args)?;
    let (path, follow) = (args.required_text(0)?, args.boolean(1)?);
    let stat = if follow.unwrap_or(true) { share.tree.stat(&path) } else { share.tree.lstat(&path) };
    let Stat { kind, size, modified, mode, read_only } = stat.map_err(raised)?;
    let entries = [
        ("kind", Value::from(Kind::name(kind))),
        ("size", count(size)),
        ("modified", modified.into()),
        ("mode", i64::from(mode).into()),
        ("read_only", read_only.into()),
    ];
    Ok(Value::Map(entries.into_iter().map(|(name, value)| (name.into(), value)).collect()))
}

/// Calls the visitor for each folder, those above before those below. It goes on where a folder cannot be read.
fn walk(share: &Arc<Share>, args: Args) -> Result<Value, Error> {
    let mut args = WALK.bind(args)?;
    let path = args.required_text(0)?;
    let visitor = args.reference(1)?;
    let mut visited = 0;
    for (nth, step) in share.tree.walk(&path, share.limit()).map_err(raised)?.enumerate() {
        let step = match step {
            Ok(step) => step,
            Err(error) if nth == 0 => return Err(raised(error)),
            Err(_) => continue,
        };
        visited += 1;
        let told = Args::from([step.dir.into(), texts(step.subdirs), texts(step.files)]);
        let answer = match &visitor {
            Reference::Remote(proxy) => proxy.call(told)?,
            Reference::Local(object) | Reference::Lent(object) => object.perform(Action::Call, told)?,
            Reference::Promise(_) => return Err(WALK.fault("a visitor is an object")),
        };
        if answer == Value::Bool(false) {
            break;
        }
    }
    Ok(Value::Int(visited))
}

/// A function of the share as an object.
struct Routine {
    share: Arc<Share>,
    signature: Signature,
    run: fn(&Arc<Share>, Args) -> Result<Value, Error>,
}

fn routine(
    share: &Arc<Share>,
    signature: Signature,
    run: fn(&Arc<Share>, Args) -> Result<Value, Error>,
) -> impl Object {
    Routine { share: share.clone(), signature, run }
}

impl Object for Routine {
    /// What the roots do for one caller is no business of another's; a visitor may even wait for another walk.
    fn is_concurrent(&self) -> bool {
        true
    }

    fn perform(&self, action: Action<'_>, args: Args) -> Result<Value, Error> {
        match action {
            Action::Call => (self.run)(&self.share, args),
            Action::Text(_) => Ok(Value::from(self.signature.text)),
            other => other.unsupported(),
        }
    }
}

/// An error of files as the exception of that name.
fn raised(error: FileError) -> Error {
    let args = error.args().into_iter().map(|arg| match arg {
        ErrorArg::Bytes(bytes) => Value::Bytes(bytes),
        ErrorArg::Int(number) => Value::Int(number),
        ErrorArg::Str(text) => Value::Str(text),
    });
    let name = error.exception();
    let shown = error.to_string();
    let text = shown.strip_prefix(name).and_then(|rest| rest.strip_prefix(": ")).map(str::to_owned);
    Error::Raised(Box::new(Exception { name: name.into(), args: args.collect(), text, traceback: None }))
}

fn texts(texts: Vec<String>) -> Value {
    Value::Tuple(texts.into_iter().map(Value::Str).collect())
}

/// A count of something of which no computer has 2⁶³.
fn count(count: u64) -> Value {
    Value::Int(i64::try_from(count).unwrap_or(i64::MAX))
}
