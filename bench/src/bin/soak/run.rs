//! Leads: rounds of load, and a quiet point after each.

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use farref_tokio::{Connection, Tables};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::runtime::{Builder, Handle};
use tokio::sync::{Notify, RwLock};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::Result;
use crate::load::{self, Done, Held, Lasting, Task};
use crate::proxy::Proxy;
use crate::report::{Point, Report};
use crate::sample::{Memory, ServerState};

/// Sessions that last for a quarter of the time, tasks that share each, and tasks that have a session of their own for a moment.
pub const LASTING: u64 = 4;
const SHARING: u64 = 4;
const COMING_AND_GOING: u64 = 4;

/// From one quiet point to the next, if there is time for that.
const ROUND: Duration = Duration::from_secs(15);
/// So often all sessions are ended and begun again: what is live then is nothing of theirs.
const QUARTERS: u32 = 4;
/// A step, or a quiet point, that takes longer hangs.
const HANG: Duration = Duration::from_secs(60);

/// Soaks for so long; false if something is wrong.
pub fn run(time: Duration, seed: u64) -> Result<bool> {
    Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(soak(time, seed))
}

async fn soak(time: Duration, seed: u64) -> Result<bool> {
    let rounds = (time.div_duration_f64(ROUND) / f64::from(QUARTERS)).round().max(1.0) as u32 * QUARTERS;
    let round = time / rounds;
    println!("seed {seed}, {rounds} rounds of {:.1} s", round.as_secs_f64());
    let mut soak = Soak::start(seed).await?;
    let mut report = Report::new(rounds);
    let start = Instant::now();
    for number in 1..=rounds {
        let end = start + round * number;
        let _ = timeout(end.saturating_duration_since(Instant::now()), soak.faults.any.notified()).await;
        if soak.faults.are_there() {
            break;
        }
        let is_quarter = number % (rounds / QUARTERS) == 0;
        match soak.look(start, is_quarter).await {
            Ok(point) => report.add(point, &soak.done),
            Err(wrong) => {
                soak.faults.add(wrong);
                break;
            }
        }
    }
    soak.tasks.iter().for_each(|task| task.abort());
    for task in soak.tasks {
        if task.await.is_err_and(|error| error.is_panic()) {
            soak.faults.add("a task has panicked".into());
        }
    }
    println!();
    for fault in soak.faults.take() {
        println!("WRONG: {fault}");
        report.has_failed = true;
    }
    Ok(report.conclude(&soak.done))
}

/// All that there is on the client's side.
struct Soak {
    server: Server,
    proxy: Proxy,
    lasting: Vec<Lasting>,
    held: Vec<Held>,
    tasks: Vec<JoinHandle<()>>,
    /// Tasks of both runtimes when there is no session.
    bare: [u64; 2],
    done: Arc<Done>,
    faults: Arc<Faults>,
    /// Nobody begins a step as long as this is locked.
    gate: Arc<RwLock<()>>,
}

impl Soak {
    async fn start(seed: u64) -> Result<Self> {
        let mut server = Server::start().await?;
        let proxy = Proxy::start(server.address, seed).await?;
        let all = LASTING * SHARING + COMING_AND_GOING;
        let bare = [alive_tasks() + all, server.state().await?.tasks];
        let mut soak = Self {
            server,
            proxy,
            lasting: (0..LASTING).map(|_| Lasting::default()).collect(),
            held: (0..all).map(|_| Held::default()).collect(),
            tasks: Vec::new(),
            bare,
            done: Arc::default(),
            faults: Arc::default(),
            gate: Arc::default(),
        };
        soak.begin_lasting().await?;
        for (number, held) in (0..).zip(&soak.held) {
            let lasting = soak.lasting.get((number / SHARING) as usize).cloned();
            let task = Task::new((number, seed), soak.proxy.address, lasting, soak.done.clone(), held.clone());
            soak.tasks.push(tokio::spawn(work(task, soak.gate.clone(), soak.faults.clone())));
        }
        Ok(soak)
    }

    async fn begin_lasting(&self) -> Result<(), String> {
        for (number, lasting) in (0..).zip(&self.lasting) {
            let connection = load::connect(self.proxy.address, [number; 16], &self.done).await?;
            *lock(lasting) = Some(connection);
        }
        Ok(())
    }

    fn connections(&self) -> Vec<Connection> {
        self.lasting.iter().filter_map(|lasting| lock(lasting).clone()).collect()
    }

    /// A quiet point: nobody does anything, and both sides hold nothing for each other. `without` sessions, too, which then are
    /// begun again.
    async fn look(&mut self, start: Instant, without: bool) -> Result<Point, String> {
        let busy = self.connections().iter().map(|connection| entries(connection.tables())).sum();
        let gate = self.gate.clone();
        let _quiet = timeout(HANG, gate.write()).await.map_err(|_| "the tasks do not come to rest")?;
        self.held.iter().for_each(|held| lock(held).clear());
        let there = self.rest(LASTING, |soak, _| soak.connections().iter().all(Connection::is_at_baseline)).await?;
        let here = Memory::now();
        let (marked, made) = (self.done.marked.load(Ordering::SeqCst), self.done.made.load(Ordering::SeqCst));
        if (there.marked, there.made) != (marked, made) {
            return Err(format!("{marked} numbers and {made} objects here are {} and {}", there.marked, there.made));
        }
        let mut point = Point { at: start.elapsed(), busy, here, there, cuts: self.proxy.cuts(), bare: None };
        if without {
            self.lasting.iter().filter_map(|lasting| lock(lasting).take()).for_each(|connection| connection.close());
            let there = self.rest(0, |soak, there| [alive_tasks(), there.tasks] == soak.bare).await?;
            point.bare = Some([Memory::now(), there.memory]);
            self.begin_lasting().await?;
        }
        Ok(point)
    }

    /// Waits until the server has so many sessions and nothing is under way there, and here.
    async fn rest(
        &mut self,
        sessions: u64,
        is_so: impl Fn(&Self, &ServerState) -> bool,
    ) -> Result<ServerState, String> {
        let start = Instant::now();
        loop {
            self.server.let_go().await.map_err(|error| error.to_string())?;
            let there = self.server.state().await.map_err(|error| error.to_string())?;
            if there.is_quiet(sessions) && is_so(self, &there) {
                return Ok(there);
            }
            if start.elapsed() > HANG {
                let here: Vec<_> = self.connections().iter().map(Connection::tables).collect();
                let tasks = (alive_tasks(), self.bare);
                return Err(format!("something is left over: {here:?}, {there:?}, tasks {tasks:?}"));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn alive_tasks() -> u64 {
    Handle::current().metrics().num_alive_tasks() as u64
}

/// Of all tables of a session.
pub fn entries(tables: Tables) -> u64 {
    u64::from(tables.exports + tables.imports + tables.questions + tables.answers)
}

/// One step after the other, none while somebody wants it quiet.
async fn work(mut task: Task, gate: Arc<RwLock<()>>, faults: Arc<Faults>) {
    while !faults.are_there() {
        let _open = gate.read().await;
        match timeout(HANG, task.step()).await {
            Ok(Ok(())) => {}
            Ok(Err(wrong)) => faults.add(wrong),
            Err(_) => faults.add(format!("a step hangs: {}", task.doing())),
        }
    }
}

/// What went wrong. All ends with it.
#[derive(Default)]
struct Faults {
    all: Mutex<Vec<String>>,
    any: Notify,
}

impl Faults {
    fn add(&self, fault: String) {
        lock(&self.all).push(fault);
        self.any.notify_one();
    }

    fn are_there(&self) -> bool {
        !lock(&self.all).is_empty()
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.all))
    }
}

/// The server process, which ends when this is dropped.
struct Server {
    address: SocketAddr,
    requests: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Server {
    async fn start() -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("serve").stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (requests, answers) = pipes.ok_or("the server has no pipes")?;
        let mut answers = BufReader::new(answers).lines();
        let address = timeout(HANG, answers.next_line()).await??.ok_or("the server has not begun")?.parse()?;
        Ok(Self { address, requests, answers, _child: child })
    }

    async fn ask(&mut self, request: &str) -> Result<String> {
        self.requests.write_all(request.as_bytes()).await?;
        self.requests.flush().await?;
        Ok(timeout(HANG, self.answers.next_line()).await??.ok_or("the server has gone")?)
    }

    async fn state(&mut self) -> Result<ServerState> {
        Ok(self.ask("state\n").await?.parse()?)
    }

    async fn let_go(&mut self) -> Result<()> {
        self.ask("let go\n").await.map(drop)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
