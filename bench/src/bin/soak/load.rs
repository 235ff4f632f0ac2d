//! What the client's tasks do, one step after the other, at random; each answer is looked at.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use farref_tokio::{
    Args, Cancelled, Connection, Deadline, Directory, DownReason, Ended, Error, Function, Lost, Options, PeerIdentity,
    Proxy, Reference, Remote, Value,
};

use crate::serve::options;
use crate::{Random, Result};

/// What a step can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Call,
    Callback,
    Batch,
    Promise,
    Reference,
    Held,
    Large,
    Thread,
    Cancel,
    Deadline,
    Revoke,
    Session,
}

impl Kind {
    pub const ALL: [Self; 12] = [
        Self::Call,
        Self::Callback,
        Self::Batch,
        Self::Promise,
        Self::Reference,
        Self::Held,
        Self::Large,
        Self::Thread,
        Self::Cancel,
        Self::Deadline,
        Self::Revoke,
        Self::Session,
    ];

    /// As it is printed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Call => "calls",
            Self::Callback => "callbacks",
            Self::Batch => "batches",
            Self::Promise => "promises",
            Self::Reference => "references",
            Self::Held => "kept there",
            Self::Large => "large",
            Self::Thread => "on threads",
            Self::Cancel => "cancelled",
            Self::Deadline => "deadlines",
            Self::Revoke => "revoked",
            Self::Session => "sessions",
        }
    }
}

/// What all tasks have done so far.
#[derive(Default)]
pub struct Done {
    steps: [AtomicU64; Kind::ALL.len()],
    /// Calls of ours that were made.
    calls: AtomicU64,
    /// Numbers that the server has taken.
    pub marked: AtomicU64,
    /// Objects made for us.
    pub made: AtomicU64,
    /// Attempts to begin a session that were cut.
    pub cut_short: AtomicU64,
}

impl Done {
    /// Steps of that kind.
    pub fn steps(&self, kind: Kind) -> u64 {
        self.steps[kind as usize].load(Ordering::Relaxed)
    }

    /// Calls of all kinds.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    fn called(&self, count: u64) {
        self.calls.fetch_add(count, Ordering::Relaxed);
    }
}

/// One of the tasks.
pub struct Task {
    number: i64,
    random: Random,
    address: SocketAddr,
    /// A session of its own for each step, if there is none that lasts.
    lasting: Option<Lasting>,
    done: Arc<Done>,
    held: Held,
    /// What it does, and with which session.
    doing: (Kind, Option<Connection>),
    /// The last number that the server has taken.
    mark: i64,
    /// How many objects it had revoked.
    revoked: i64,
    /// Drawn once: whoever begins a session again frees what is left of the one before.
    name: [u8; 16],
}

/// A session that several tasks share, until there is another one in its place.
pub type Lasting = Arc<Mutex<Option<Connection>>>;

/// References that a task holds for a while.
pub type Held = Arc<Mutex<VecDeque<Proxy>>>;

/// So many of them.
const HELD: usize = 200;
/// The most bytes that are sent at a time.
const LARGE: u64 = 256 << 10;
/// Calls of a batch.
const BATCH: i64 = 16;
/// Attempts to begin a session.
const ATTEMPTS: u64 = 100;

impl Task {
    pub fn new(
        (number, seed): (u64, u64),
        address: SocketAddr,
        lasting: Option<Lasting>,
        done: Arc<Done>,
        held: Held,
    ) -> Self {
        let mut name = [0x50; 16];
        name[..8].copy_from_slice(&number.to_be_bytes());
        let random = Random::new(seed, number);
        Self {
            number: number as i64,
            random,
            address,
            lasting,
            done,
            held,
            doing: (Kind::Session, None),
            mark: 0,
            revoked: 0,
            name,
        }
    }

    /// One step, whatever it is.
    ///
    /// # Errors
    /// What is wrong: a call was lost, made twice or in doubt, an answer is not right.
    pub async fn step(&mut self) -> Result<(), String> {
        let lasting = self.lasting.as_ref().map(|lasting| lock(lasting).clone());
        match lasting {
            Some(Some(connection)) => self.use_once(&connection).await?,
            Some(None) => return Err("there is no session".into()),
            None => self.session().await?,
        }
        // Nothing of it is kept.
        self.doing = (Kind::Session, None);
        Ok(())
    }

    /// What it does just now.
    pub fn doing(&self) -> String {
        let (kind, connection) = &self.doing;
        let session = connection.as_ref().map(|connection| (connection.link(), connection.tables()));
        format!("task {}, {}: {session:?}", self.number, kind.name())
    }

    /// A session from its beginning to its end, one way or the other.
    async fn session(&mut self) -> Result<(), String> {
        self.doing = (Kind::Session, None);
        let connection = connect(self.address, self.name, &self.done).await?;
        for _ in 0..1 + self.random.below(40) {
            self.use_once(&connection).await?;
        }
        self.doing = (Kind::Session, Some(connection.clone()));
        // What is held of it cannot be used any more.
        lock(&self.held).clear();
        if self.random.below(2) == 0 {
            // Its last words may be cut off.
            let ended = connection.shutdown().await;
            if !matches!(ended, Ended::Done | Ended::SessionGone | Ended::LinkLost) {
                return Err(format!("a session was shut down and ended: {ended}"));
            }
        } else {
            connection.close();
        }
        self.count(Kind::Session);
        Ok(())
    }

    async fn use_once(&mut self, connection: &Connection) -> Result<(), String> {
        let root = connection.root();
        let kind = match self.random.below(100) {
            0..30 => Kind::Call,
            30..45 => Kind::Callback,
            45..50 => Kind::Batch,
            50..60 => Kind::Promise,
            60..72 => Kind::Reference,
            72..78 => Kind::Held,
            78..82 => Kind::Large,
            82..88 => Kind::Thread,
            88..93 => Kind::Cancel,
            93..96 => Kind::Deadline,
            _ => Kind::Revoke,
        };
        self.doing = (kind, Some(connection.clone()));
        let done = match kind {
            Kind::Call => self.call(&root).await,
            Kind::Callback => self.callback(&root).await,
            Kind::Batch => self.batch(&root).await,
            Kind::Promise => self.promise(&root).await,
            Kind::Reference => self.reference(&root).await,
            Kind::Held => self.keep(&root).await,
            Kind::Large => self.large(&root).await,
            Kind::Thread => self.thread(&root).await,
            Kind::Cancel => self.cancel(&root).await,
            Kind::Deadline => self.deadline(&root).await,
            Kind::Revoke | Kind::Session => self.revoke(&root).await,
        };
        done.map_err(|wrong| format!("task {}, {}: {wrong}", self.number, kind.name()))?;
        self.count(kind);
        Ok(())
    }

    fn count(&self, kind: Kind) {
        self.done.steps[kind as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// The next number for the server, which takes each once and in order.
    async fn call(&mut self, root: &Proxy) -> Result<(), Wrong> {
        self.done.called(1);
        let answer = root.invoke("mark", [self.number, self.mark + 1]).await?;
        self.marked(&answer)
    }

    fn marked(&mut self, answer: &Value) -> Result<(), Wrong> {
        self.mark += 1;
        self.done.marked.fetch_add(1, Ordering::Relaxed);
        expect(answer, self.mark)
    }

    async fn callback(&mut self, root: &Proxy) -> Result<(), Wrong> {
        self.done.called(1);
        let called = Arc::new(AtomicU64::new(0));
        let counted = called.clone();
        let back = Function::inline(move |args| {
            counted.fetch_add(1, Ordering::Relaxed);
            Ok(Value::Int(args.get(0).and_then(Value::as_int).unwrap_or(0) + 1))
        });
        let args = Args::from([self.number, self.mark + 1]).and(Reference::local(back));
        let answer = root.invoke("relay", args).await?;
        self.marked(&answer)?;
        match called.load(Ordering::Relaxed) {
            1 => Ok(()),
            times => Err(Wrong(format!("it was called back {times} times"))),
        }
    }

    async fn batch(&mut self, root: &Proxy) -> Result<(), Wrong> {
        self.done.called(BATCH as u64);
        let answers = root.invoke_many("echo", (0..BATCH).map(|number| [number])).await;
        answers.into_iter().zip(0..BATCH).try_for_each(|(answer, number)| expect(&answer?, number))
    }

    async fn promise(&mut self, root: &Proxy) -> Result<(), Wrong> {
        self.done.called(2);
        let made = root.promise("make", [self.mark]).await?;
        let answer = made.call(()).await?;
        self.done.made.fetch_add(1, Ordering::Relaxed);
        expect(&answer, self.mark)
    }

    /// One more reference is kept, and another one of those that are is called.
    async fn reference(&mut self, root: &Proxy) -> Result<(), Wrong> {
        self.done.called(3);
        let made = self.made(root.invoke("make", [self.mark]).await?)?;
        expect(&made.call(()).await?, self.mark)?;
        let other = {
            let mut held = lock(&self.held);
            held.push_back(made);
            if held.len() > HELD {
                let index = self.random.below(HELD as u64) as usize;
                held.remove(index);
            }
            let index = self.random.below(held.len() as u64) as usize;
            held.get(index).cloned()
        };
        match other {
            Some(other) => match other.call(()).await? {
                Value::Int(_) => Ok(()),
                other => Err(Wrong(format!("a reference gave {other:?}"))),
            },
            None => Ok(()),
        }
    }

    fn made(&self, value: Value) -> Result<Proxy, Wrong> {
        self.done.made.fetch_add(1, Ordering::Relaxed);
        Proxy::try_from(value).map_err(|value| Wrong(format!("made was {value:?}")))
    }

    /// An object of ours that is kept there.
    async fn keep(&mut self, root: &Proxy) -> Result<(), Wrong> {
        self.done.called(1);
        let number = self.mark;
        let object = Function::inline(move |_| Ok(number.into()));
        expect(&root.invoke("hold", [Reference::local(object)]).await?, number)
    }

    async fn large(&mut self, root: &Proxy) -> Result<(), Wrong> {
        self.done.called(1);
        let (length, byte) = (1 + self.random.below(LARGE) as usize, self.random.below(256) as u8);
        match root.invoke("echo", [Value::Bytes(vec![byte; length])]).await? {
            Value::Bytes(bytes) if bytes.len() == length && bytes.iter().all(|&have| have == byte) => Ok(()),
            _ => Err(Wrong(format!("{length} bytes did not come back as they were"))),
        }
    }

    async fn thread(&mut self, root: &Proxy) -> Result<(), Wrong> {
        self.done.called(1);
        expect(&root.invoke("echo_on_a_thread", [self.mark]).await?, self.mark)
    }

    async fn cancel(&mut self, root: &Proxy) -> Result<(), Wrong> {
        self.done.called(1);
        let call = root.start("wait", ()).await?;
        if self.random.below(3) == 0 {
            drop(call);
            return Ok(());
        }
        match call.cancel().await {
            Cancelled::NeverStarted | Cancelled::Stopped => Ok(()),
            Cancelled::Completed(outcome) => Err(Wrong(format!("what waits for ever ended: {outcome:?}"))),
        }
    }

    async fn deadline(&mut self, root: &Proxy) -> Result<(), Wrong> {
        self.done.called(1);
        let limit = Deadline::new(Duration::from_millis(self.random.below(30)));
        // One that is cancelled is stopped; one that is abandoned goes on, and has to end by itself.
        let outcome = match self.random.below(2) {
            0 => root.with_deadline(limit).invoke("wait", ()).await,
            _ => root.with_deadline(limit.then_abandon()).invoke("nap", [60]).await,
        };
        match outcome {
            Err(Error::DeadlineExceeded) => {}
            other => return Err(Wrong(format!("what lasts longer ended: {other:?}"))),
        }
        // Not all deadlines pass.
        self.done.called(1);
        let timed = root.with_deadline(Duration::from_secs(600));
        expect(&timed.invoke("echo", [7]).await?, 7)
    }

    async fn revoke(&mut self, root: &Proxy) -> Result<(), Wrong> {
        self.done.called(3);
        // Of this task alone.
        self.revoked += 1;
        let number = self.number << 40 | self.revoked;
        let made = self.made(root.invoke("revocable", [number]).await?)?;
        let down = made.down();
        if root.invoke("revoke", [number]).await? != Value::Bool(true) {
            return Err(Wrong("it was not held".into()));
        }
        match down.await {
            Lost::Down(DownReason::Gone) => {}
            other => return Err(Wrong(format!("it was told: {other}"))),
        }
        match made.call(()).await {
            Err(error) if error.down() == Some(DownReason::Gone) => Ok(()),
            other => Err(Wrong(format!("what was revoked gave {other:?}"))),
        }
    }
}

/// A session that begins, however often that is cut.
pub async fn connect(address: SocketAddr, name: [u8; 16], done: &Done) -> Result<Connection, String> {
    for _ in 0..ATTEMPTS {
        let options = Options { identity: Some(PeerIdentity::of(name)), ..options() };
        match farref_tokio::connect_tcp(address, Directory::new(), options).await {
            Ok(connection) => return Ok(connection),
            Err(Error::NoPeer | Error::Io(..) | Error::Ended(Ended::LinkLost)) => {
                done.cut_short.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => return Err(format!("no session: {error}")),
        }
    }
    Err(format!("no session after {ATTEMPTS} attempts"))
}

/// What is not as it has to be.
struct Wrong(String);

impl std::fmt::Display for Wrong {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.0)
    }
}

impl From<Error> for Wrong {
    fn from(error: Error) -> Self {
        let doubt = if error.may_have_started() { "in doubt: " } else { "lost: " };
        Self(format!("{doubt}{error}"))
    }
}

fn expect(answer: &Value, number: i64) -> Result<(), Wrong> {
    if answer.as_int() == Some(number) { Ok(()) } else { Err(Wrong(format!("{number} gave {answer:?}"))) }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
