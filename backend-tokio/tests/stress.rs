//! Many tasks on several connections, from both ends, with objects of every kind, promises, callbacks and things dropped
//! half-way, at random: nothing hangs, every answer is right, and the tables are at their baseline in the end.
//!
//! `FARREF_STRESS_SECONDS=60 cargo test --release -p farref-tokio --test stress -- --nocapture` takes a minute for each runtime.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use farref_tokio::{
    Action, Args, Async, AsyncFunction, AsyncObject, CallError, Connection, Directory, Error, ErrorCode, Function,
    Object, Options, Promise, Proxy, Reference, Remote, Runs, Server, ServerOptions, Value,
};
use tokio::runtime::{Builder, Runtime};

const TASKS: usize = 64;
const CONNECTIONS: usize = 8;
/// A step that takes longer hangs.
const HANG: Duration = Duration::from_secs(30);

#[test]
fn on_one_thread() {
    stress(&Builder::new_current_thread().enable_all().build().expect("a runtime"), "current thread");
}

#[test]
fn on_many_threads() {
    stress(&Builder::new_multi_thread().worker_threads(4).enable_all().build().expect("a runtime"), "multi thread");
}

fn stress(runtime: &Runtime, name: &str) {
    let seconds = std::env::var("FARREF_STRESS_SECONDS").map_or(2, |seconds| seconds.parse().expect("a number"));
    let watch = Arc::new(Watch::default());
    let watching = watch.clone();
    let watcher = std::thread::spawn(move || watching.run());
    let start = Instant::now();
    runtime.block_on(run(watch.clone(), start + Duration::from_secs(seconds)));
    watch.is_over.store(true, Ordering::SeqCst);
    watcher.join().expect("nothing hangs");
    println!("{name}: {:.1} s, {}", start.elapsed().as_secs_f32(), watch.report());
}

async fn run(watch: Arc<Watch>, end: Instant) {
    let options = ServerOptions { connection: Options { output: 1 << 20, ..Options::default() }, ..Default::default() };
    let server = Server::new(directory(), options);
    let address = server.listen_tcp("127.0.0.1:0").await.expect("it listens");
    let folder = tempfile::tempdir().expect("a folder");
    server.listen_unix(folder.path().join("socket")).await.expect("it listens");
    let mut clients = Vec::new();
    for number in 0..CONNECTIONS {
        // Every other one is short of everything.
        let options = match number % 4 {
            0 | 1 => Options { serving: 8, calls: 8, output: 1 << 18, call_bytes: 1 << 18, ..Options::default() },
            _ => Options::default(),
        };
        clients.push(match number % 2 {
            0 => farref_tokio::connect_tcp(address, directory(), options).await,
            _ => farref_tokio::connect_unix(folder.path().join("socket"), directory(), options).await,
        });
    }
    let clients: Vec<_> = clients.into_iter().map(|client| client.expect("it connects")).collect();
    while server.counters().open < CONNECTIONS as u64 {
        tokio::task::yield_now().await;
    }
    let all: Vec<_> = clients.iter().cloned().chain(server.connections()).collect();
    watch.look_at(&all);
    let tasks: Vec<_> = (0..TASKS)
        .map(|number| {
            let user = User {
                number,
                random: Random(0x9E37_79B9_7F4A_7C15 ^ (number as u64 + 1)),
                here: all[number % all.len()].clone(),
                there: all[(number * 7 + 3) % all.len()].clone(),
                watch: watch.clone(),
                held: VecDeque::new(),
            };
            tokio::spawn(user.run(end))
        })
        .collect();
    for task in tasks {
        task.await.expect("every answer is right");
    }
    watch.set(0, "that all tables are at their baseline");
    while !all.iter().all(Connection::is_at_baseline) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    watch.set(0, "that the server shuts down");
    watch.look_at(&[]);
    drop(all);
    drop(clients);
    server.shut_down(Duration::from_secs(10)).await;
    while server.counters().memory > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// What both ends serve.
fn directory() -> Directory {
    let first = |mut args: Args| Ok(args.positional.pop().unwrap_or(Value::None));
    Directory::new()
        .with("inline", "gives back its argument", Function::inline(first))
        .with("blocking", "the same, on a thread", Function::new(first))
        .with(
            "async",
            "the same, as a task",
            AsyncFunction::new(move |args| async move {
                tokio::task::yield_now().await;
                first(args)
            }),
        )
        .with("bounce", "calls its first argument with a bouncer and one less", Function::new(bounce))
        .with("bounce_async", "the same, as a task", Async(Bouncer))
        .with("counter", "makes a counter", Function::inline(|args| Ok(counter(&args))))
        .with("raise", "raises", Function::inline(|_| Err(Error::raise("ValueError", "as asked"))))
        .with("hold", "keeps its argument for a while", Function::inline(hold()))
}

/// Calls back and forth until nothing is left, and gives how often that was.
fn bounce(mut args: Args) -> Result<Value, Error> {
    let Some((left, other)) = bounced(&mut args) else { return Err(Error::bad_arguments("a function, a number")) };
    if left == 0 {
        return Ok(Value::Int(0));
    }
    let next = Reference::local(Function::new(bounce));
    one_more(farref_host::Remote::call(&other, [next.into(), Value::Int(left - 1)])?)
}

/// The same as a task.
struct Bouncer;

impl AsyncObject for Bouncer {
    async fn perform(&self, _: Action<'_>, mut args: Args) -> Result<Value, Error> {
        let Some((left, other)) = bounced(&mut args) else { return Err(Error::bad_arguments("a function, a number")) };
        if left == 0 {
            return Ok(Value::Int(0));
        }
        one_more(other.call([Reference::local(Async(Bouncer)).into(), Value::Int(left - 1)]).await?)
    }

    fn is_concurrent(&self) -> bool {
        true
    }
}

fn bounced(args: &mut Args) -> Option<(i64, Proxy)> {
    let left = args.positional.pop()?.as_int()?;
    Some((left, Proxy::try_from(args.positional.pop()?).ok()?))
}

fn one_more(count: Value) -> Result<Value, Error> {
    count.as_int().map(|count| Value::Int(count + 1)).ok_or(Error::raise("TypeError", "no number"))
}

/// Counts calls, one after the other; runs in one of three ways.
struct Counter(Mutex<i64>, Runs);

fn counter(args: &Args) -> Value {
    let runs = match args.get(0).and_then(Value::as_int) {
        Some(0) => Runs::Blocking,
        _ => Runs::Inline,
    };
    Reference::local(Counter(Mutex::new(0), runs)).into()
}

impl Object for Counter {
    fn members(&self) -> std::borrow::Cow<'_, [farref_tokio::Member]> {
        const MEMBERS: &[farref_tokio::Member] = &[
            farref_tokio::Member::method("next", "counts"),
            farref_tokio::Member::method("same", "the object itself"),
        ];
        MEMBERS.into()
    }

    fn runs(&self) -> Runs {
        self.1
    }

    fn perform(&self, action: Action<'_>, mut args: Args) -> Result<Value, Error> {
        match action {
            Action::Method("next") => {
                let mut count = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                *count += 1;
                Ok(Value::Int(*count))
            }
            Action::Method("same") => Ok(args.positional.pop().unwrap_or_else(|| {
                Reference::local(Counter(Mutex::new(*self.0.lock().unwrap_or_else(PoisonError::into_inner)), self.1))
                    .into()
            })),
            other => other.unsupported(),
        }
    }
}

/// Keeps the last few things that it was given.
fn hold() -> impl Fn(Args) -> Result<Value, Error> {
    let held = Mutex::new(VecDeque::new());
    move |mut args| {
        let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
        held.extend(args.positional.pop().filter(|value| *value != Value::None));
        let most = if args.positional.is_empty() { 0 } else { 5 };
        let gone: Vec<_> = (most..held.len()).filter_map(|_| held.pop_front()).collect();
        Ok(Value::Int(gone.len() as i64))
    }
}

/// xorshift: the same every time, as far as that depends on it.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// A task that uses the other side's objects at random.
struct User {
    number: usize,
    random: Random,
    here: Connection,
    /// Whose objects are handed on.
    there: Connection,
    watch: Arc<Watch>,
    held: VecDeque<Proxy>,
}

impl User {
    async fn run(mut self, end: Instant) {
        while Instant::now() < end {
            let step = self.random.below(STEPS.len() as u64) as usize;
            self.watch.set(self.number, STEPS[step]);
            let result = self.step(step).await;
            self.watch.count(step, &result);
            match result {
                // What is short of everything says so: those are the outcomes that a nested call may have.
                Ok(()) | Err(Error::NotMade(CallError::Overloaded) | Error::Refused(ErrorCode::Overloaded, _)) => {}
                Err(Error::Raised(exception)) if exception.name == "RuntimeError" => {
                    let text = exception.args.first().and_then(Value::as_str).unwrap_or_default();
                    assert!(
                        text.contains("overloaded") || text.contains("too many calls"),
                        "{}: {exception}",
                        STEPS[step]
                    );
                }
                Err(error) => panic!("{}: {error}", STEPS[step]),
            }
        }
        self.held.clear();
        // What was held is let go.
        self.watch.set(self.number, "letting go");
        self.here.root().invoke("hold", ()).await.expect("it lets go");
        self.watch.set(self.number, "");
    }

    async fn step(&mut self, step: usize) -> Result<(), Error> {
        let root = self.here.root();
        let number = self.random.below(1 << 40) as i64;
        let kind = ["inline", "blocking", "async"][self.random.below(3) as usize];
        match STEPS[step] {
            "a value" => assert_eq!(root.invoke(kind, [number]).await?, Value::Int(number)),
            "many bytes" => {
                let bytes = Value::Bytes(vec![number as u8; self.random.below(100_000) as usize]);
                assert_eq!(root.invoke(kind, [bytes.clone()]).await?, bytes);
            }
            "an object that comes home" => {
                let mine: Arc<dyn Object> = Arc::new(Function::inline(|_| Ok(Value::None)));
                let back = root.invoke(kind, [Reference::from(mine.clone())]).await?;
                assert_eq!(back, Value::Reference(mine.into()));
            }
            "callbacks" => {
                let depth = self.random.below(6) as i64;
                let (method, bouncer) = match number % 4 {
                    0 => ("bounce", Reference::local(Function::new(bounce))),
                    1 => ("bounce", Reference::local(Async(Bouncer))),
                    2 => ("bounce_async", Reference::local(Function::new(bounce))),
                    _ => ("bounce_async", Reference::local(Async(Bouncer))),
                };
                assert_eq!(root.invoke(method, [bouncer.into(), Value::Int(depth)]).await?, Value::Int(depth));
            }
            "calls in order" => {
                let counter = Proxy::try_from(root.invoke("counter", [number % 2]).await?).expect("an object");
                let mut pending = Vec::new();
                for _ in 0..self.random.below(10) {
                    pending.push(counter.start("next", ()).await?);
                }
                for (before, pending) in pending.into_iter().enumerate() {
                    assert_eq!(pending.await?, Value::Int(before as i64 + 1));
                }
                self.held.push_back(counter);
                self.held.drain(..self.held.len().saturating_sub(20));
            }
            "a chain of promises" => {
                let mut promise: Promise = root.promise("counter", [number % 2]).await?;
                for _ in 0..self.random.below(6) {
                    promise = promise.promise("same", ()).await?;
                }
                let last = promise.start("next", ()).await?;
                drop(promise);
                assert_eq!(last.await?, Value::Int(1));
            }
            "a promise as an argument" => {
                let promise = root.promise(kind, [number]).await?;
                assert_eq!(root.invoke("inline", [Reference::from(promise)]).await?, Value::Int(number));
            }
            "a broken promise" => {
                let promise = root.promise("raise", ()).await?;
                let error = promise.invoke("next", ()).await.expect_err("it is broken");
                assert_eq!(error.exception().map(|exception| &*exception.name), Some("ValueError"), "{error}");
            }
            "dropped calls" => {
                for _ in 0..self.random.below(4) {
                    drop(root.start(kind, [number]).await?);
                    drop(root.promise("counter", [number % 2]).await?);
                    let mine = Reference::local(Async(Bouncer));
                    drop(root.start("bounce_async", [mine.into(), Value::Int(3)]).await?);
                }
            }
            "calls given up at any moment" => {
                let call = root.invoke(kind, [number]);
                let mut call = std::pin::pin!(call);
                for _ in 0..self.random.below(20) {
                    tokio::select! {
                        biased;
                        result = &mut call => return result.map(|value| assert_eq!(value, Value::Int(number))),
                        () = tokio::task::yield_now() => {}
                    }
                }
            }
            "many calls at once" => {
                let count = self.random.below(40) as i64;
                let results = root.invoke_many(kind, (0..count).map(|number| [number])).await;
                for (number, result) in results.into_iter().enumerate() {
                    assert_eq!(result?, Value::Int(number as i64));
                }
            }
            "references held over there" => {
                let mine = Reference::local(Function::new(|_| Ok(Value::None)));
                root.invoke("hold", [Value::Bool(true), mine.into()]).await?;
            }
            "an object handed on" => {
                let other = self.there.root().invoke("counter", [number % 2]).await?;
                let other = Proxy::try_from(other).expect("an object");
                let back = root.invoke(kind, [Reference::from(other.clone())]).await?;
                assert_eq!(back, Value::Reference(other.clone().into()));
                // And called from there: it is the other connection's server that bounces.
                let bouncer = self.there.root().get("bounce_async").await?;
                assert_eq!(root.invoke("bounce_async", [bouncer, Value::Int(1)]).await?, Value::Int(1));
            }
            "a description" => {
                assert_eq!(root.describe().await?.len(), 8);
            }
            other => unreachable!("{other}"),
        }
        Ok(())
    }
}

const STEPS: [&str; 14] = [
    "a value",
    "many bytes",
    "an object that comes home",
    "callbacks",
    "calls in order",
    "a chain of promises",
    "a promise as an argument",
    "a broken promise",
    "dropped calls",
    "calls given up at any moment",
    "many calls at once",
    "references held over there",
    "an object handed on",
    "a description",
];

/// Sees to it that nothing hangs, and says what everybody waits for if something does.
struct Watch {
    steps: [Mutex<(&'static str, Option<Instant>)>; TASKS],
    done: [AtomicU64; STEPS.len()],
    overloaded: AtomicU64,
    connections: Mutex<Vec<Connection>>,
    is_over: AtomicBool,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            steps: std::array::from_fn(|_| Mutex::new(("", None))),
            done: Default::default(),
            overloaded: AtomicU64::new(0),
            connections: Mutex::default(),
            is_over: AtomicBool::new(false),
        }
    }
}

impl Watch {
    fn look_at(&self, connections: &[Connection]) {
        *self.connections.lock().unwrap_or_else(PoisonError::into_inner) = connections.to_vec();
    }

    /// What a task does from now on; nothing if that is empty.
    fn set(&self, task: usize, step: &'static str) {
        let since = (!step.is_empty()).then(Instant::now);
        *self.steps[task].lock().unwrap_or_else(PoisonError::into_inner) = (step, since);
    }

    fn count(&self, step: usize, result: &Result<(), Error>) {
        self.done[step].fetch_add(1, Ordering::Relaxed);
        self.overloaded.fetch_add(u64::from(result.is_err()), Ordering::Relaxed);
    }

    fn report(&self) -> String {
        let done: Vec<_> = self.done.iter().map(|done| done.load(Ordering::Relaxed)).collect();
        let steps: Vec<_> = STEPS.iter().zip(&done).map(|(step, done)| format!("{step} {done}")).collect();
        let overloaded = self.overloaded.load(Ordering::Relaxed);
        format!("{} steps, {overloaded} overloaded ({})", done.iter().sum::<u64>(), steps.join(", "))
    }

    fn run(&self) {
        while !self.is_over.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(50));
            let steps = self.steps.iter().map(|step| *step.lock().unwrap_or_else(PoisonError::into_inner));
            let steps: Vec<_> = steps.collect();
            if steps.iter().any(|(_, since)| since.is_some_and(|since| since.elapsed() > HANG)) {
                eprintln!("it hangs after {}", self.report());
                for (task, (step, since)) in steps.iter().enumerate() {
                    let since = since.map(|since| since.elapsed()).unwrap_or_default();
                    eprintln!("  task {task:2} on connection {:2} for {since:8.1?}: {step}", task % (2 * CONNECTIONS));
                }
                for (number, connection) in
                    self.connections.lock().unwrap_or_else(PoisonError::into_inner).iter().enumerate()
                {
                    eprintln!("  connection {number:2}: {:?} {:?}", connection.tables(), connection.traffic());
                }
                // The runtime may be what hangs: there is nobody who could fail.
                std::process::exit(101);
            }
        }
    }
}
