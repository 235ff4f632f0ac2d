//! The server process. Requests come line by line on standard input, with whose end it ends:
//!
//! ```text
//! (at once)   ADDRESS
//! state       a ServerState
//! let go      ok             of the clients' objects that it holds
//! ```

use std::collections::{HashMap, VecDeque};
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use farref_tokio::{
    Args, AsyncFunction, Directory, DownReason, Error, Function, Object, Options, Proxy, Reference, Remote, Resuming,
    Server, ServerOptions, Value,
};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::runtime::Handle;

use crate::Result;
use crate::run::entries;
use crate::sample::{Memory, ServerState};

/// For how long a session is kept that has no connection. A client needs milliseconds for another one; what it has left behind
/// itself is gone by the end of a quiet point.
const PARK: Duration = Duration::from_secs(5);

/// As the client has it, too. There is less room for output than the tasks of a session can want, so that they wait for it at
/// times, and buffers soon are as large as they ever get.
pub fn options() -> Options {
    let resume = Resuming {
        park: PARK,
        first_pause: Duration::from_millis(2),
        longest_pause: Duration::from_millis(100),
        ..Resuming::default()
    };
    Options { resume: Some(resume), output: 1 << 20, max_message: 512 << 10, ..ServerOptions::default().connection }
}

/// Serves until standard input ends.
pub fn serve() -> Result<()> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(async {
        let served = Arc::new(Served::default());
        let options = ServerOptions { connection: options(), memory: usize::MAX, ..ServerOptions::default() };
        let server = Server::new(directory(&served), options);
        let _ = served.server.set(server.clone());
        println!("{}", server.listen_tcp("127.0.0.1:0").await?);
        let mut requests = BufReader::new(tokio::io::stdin()).lines();
        while let Some(request) = requests.next_line().await? {
            match request.as_str() {
                "state" => println!("{}", served.state(&server)),
                "let go" => {
                    drop(std::mem::take(&mut *lock(&served.held)));
                    println!("ok");
                }
                other => return Err(format!("the client says {other:?}").into()),
            }
            std::io::stdout().flush()?;
        }
        Ok(())
    })
}

/// What all sessions share.
#[derive(Default)]
struct Served {
    /// The last number of each task.
    marks: Mutex<HashMap<i64, i64>>,
    marked: AtomicU64,
    made: AtomicU64,
    alive: Arc<AtomicU64>,
    waiting: Arc<AtomicU64>,
    revocable: Mutex<HashMap<i64, Arc<dyn Object>>>,
    held: Mutex<VecDeque<Proxy>>,
    server: OnceLock<Server>,
}

/// Objects of clients that are held at a time.
const HELD: usize = 256;

impl Served {
    /// Takes the numbers of each task once, and in order.
    fn mark(&self, task: i64, number: i64) -> Result<Value, Error> {
        let mut marks = lock(&self.marks);
        let last = marks.entry(task).or_default();
        if number != *last + 1 {
            let what = if number <= *last { "twice" } else { "one was lost" };
            return Err(Error::raise("Mark", format!("{number} of task {task} comes after {last}: {what}")));
        }
        *last = number;
        self.marked.fetch_add(1, Ordering::Relaxed);
        Ok(number.into())
    }

    /// An object that knows its number, and is counted for as long as it lives.
    fn make(&self, number: i64) -> Arc<dyn Object> {
        self.made.fetch_add(1, Ordering::Relaxed);
        let counted = Counted::new(&self.alive);
        Arc::new(Function::inline(move |_| {
            let _ = &counted;
            Ok(number.into())
        }))
    }

    fn state(&self, server: &Server) -> ServerState {
        let counters = server.counters();
        let connections = server.connections();
        ServerState {
            open: counters.open,
            parked: counters.parked,
            busy: connections.iter().filter(|connection| !connection.is_at_baseline()).count() as u64,
            entries: connections.iter().map(|connection| entries(connection.tables())).sum(),
            alive: self.alive.load(Ordering::SeqCst),
            waiting: self.waiting.load(Ordering::SeqCst),
            tasks: Handle::current().metrics().num_alive_tasks() as u64,
            marked: self.marked.load(Ordering::Relaxed),
            made: self.made.load(Ordering::Relaxed),
            sessions: counters.sessions,
            resumed: counters.resumed,
            memory: Memory::now(),
        }
    }
}

/// Is one more for as long as it is there.
struct Counted(Arc<AtomicU64>);

impl Counted {
    fn new(count: &Arc<AtomicU64>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn directory(served: &Arc<Served>) -> Directory {
    let mark = served.clone();
    let mark = Function::inline(move |args| mark.mark(int(&args, 0)?, int(&args, 1)?));
    let relay = served.clone();
    let relay = AsyncFunction::new(move |args: Args| {
        let served = relay.clone();
        async move {
            let (task, number) = (int(&args, 0)?, int(&args, 1)?);
            let back = proxy(&args, 2)?.call([number]).await?;
            if back.as_int() != Some(number + 1) {
                return Err(Error::raise("Relay", format!("{number} gave {back:?}")));
            }
            served.mark(task, number)
        }
    });
    let make = served.clone();
    let make = Function::inline(move |args| Ok(Reference::Local(make.make(int(&args, 0)?)).into()));
    let waiting = served.waiting.clone();
    let wait = AsyncFunction::new(move |_| {
        let inside = Counted::new(&waiting);
        async move {
            std::future::pending::<()>().await;
            drop(inside);
            Ok(Value::None)
        }
    });
    let napping = served.waiting.clone();
    let nap = AsyncFunction::new(move |args: Args| {
        let inside = Counted::new(&napping);
        async move {
            tokio::time::sleep(Duration::from_millis(int(&args, 0)?.unsigned_abs())).await;
            drop(inside);
            Ok(Value::None)
        }
    });
    let revocable = served.clone();
    let revocable = Function::inline(move |args| {
        let number = int(&args, 0)?;
        let made = revocable.make(number);
        lock(&revocable.revocable).insert(number, made.clone());
        Ok(Reference::Local(made).into())
    });
    let revoke = served.clone();
    let revoke = Function::new(move |args| {
        let made = lock(&revoke.revocable).remove(&int(&args, 0)?);
        let (made, server) = made.zip(revoke.server.get()).ok_or_else(|| Error::bad_arguments("what was made"))?;
        Ok(Value::Bool(server.revoke(&made, DownReason::Gone) == 1))
    });
    let hold = served.clone();
    let hold = AsyncFunction::new(move |args: Args| {
        let served = hold.clone();
        async move {
            let held = proxy(&args, 0)?.clone();
            let answer = held.call([1]).await?;
            let mut all = lock(&served.held);
            all.push_back(held);
            let oldest = if all.len() > HELD { all.pop_front() } else { None };
            drop((all, oldest));
            Ok(answer)
        }
    });
    let echo = |mut args: Args| Ok(args.positional.pop().unwrap_or(Value::None));
    Directory::new()
        .with("mark", "takes each number of a task once: mark(task, number)", mark)
        .with("relay", "the same, after a callback: relay(task, number, callback)", relay)
        .with("make", "an object that gives its number: make(number)", make)
        .with("wait", "for ever", wait)
        .with("nap", "for so many milliseconds: nap(time)", nap)
        .with("revocable", "as make, until it is revoked", revocable)
        .with("revoke", "revokes it: revoke(number)", revoke)
        .with("hold", "calls an object and keeps it for a while: hold(object)", hold)
        .with("echo", "gives its argument", Function::inline(echo))
        .with("echo_on_a_thread", "gives its argument", Function::new(echo))
}

fn int(args: &Args, index: usize) -> Result<i64, Error> {
    args.get(index).and_then(Value::as_int).ok_or_else(|| Error::bad_arguments("a number"))
}

fn proxy(args: &Args, index: usize) -> Result<&Proxy, Error> {
    match args.get(index) {
        Some(Value::Reference(reference)) => reference.remote(),
        _ => None,
    }
    .ok_or_else(|| Error::bad_arguments("an object of the client"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
