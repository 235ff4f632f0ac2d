//! A server with honest clients, who call all the while; and what happens to them, and to memory, under an attack.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use farref_tokio::{
    AsyncFunction, Connection, Directory, Error, Function, Options, Proxy, Reference, Remote, Server, ServerOptions,
    Value,
};
use peak_alloc::PeakAlloc;
use tokio::task::JoinHandle;

use crate::wire::PATIENCE;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Memory is that of the whole process, so that attacks take turns.
static TURN: Mutex<()> = Mutex::new(());

/// No honest call may take longer, on a busy machine either.
const SLOWEST: Duration = Duration::from_secs(5);
/// What the honest clients, their sessions and the tester may take more at one moment than at another.
const NOISE: usize = 256 << 10;

/// What an attack met.
pub struct Arena {
    pub server: Server,
    pub address: SocketAddr,
    /// What `keep` was given.
    kept: Arc<Mutex<Vec<Value>>>,
    /// Memory in use when the attack began.
    level: AtomicUsize,
}

/// Attacks a server with these options, and checks that honest clients are served, that the server takes at most `bound` bytes
/// more meanwhile, and that nothing is left of it all.
pub fn withstand(name: &str, options: ServerOptions, bound: usize, attack: impl AsyncFnOnce(&Arena)) {
    run(options, async |arena| {
        let honest = Honest::start(arena.address).await;
        let (start, calls) = (Instant::now(), honest.calls());
        let took = measured(arena, attack).await;
        let (elapsed, calls) = (start.elapsed(), honest.calls() - calls);
        let slowest = honest.stop().await;
        println!(
            "{name:32} {:6.1} s {:8} KiB of {:8} {calls:6} calls, slowest {:4} ms",
            elapsed.as_secs_f32(),
            took / 1024,
            bound / 1024,
            slowest.as_millis(),
        );
        assert!(took <= bound + NOISE, "{name}: {took} bytes of {bound}");
        assert!(slowest < SLOWEST, "{name}: an honest call took {slowest:?}");
        assert!(calls > 0 || elapsed < SLOWEST, "{name}: honest clients were not served for {elapsed:?}");
    });
}

/// The same without honest clients, for attacks that use up what there is for all together.
pub fn exhaust(name: &str, options: ServerOptions, bound: usize, attack: impl AsyncFnOnce(&Arena)) {
    run(options, async |arena| {
        let took = measured(arena, attack).await;
        println!("{name:32}          {:8} KiB of {:8}", took / 1024, bound / 1024);
        assert!(took <= bound + NOISE, "{name}: {took} bytes of {bound}");
    });
}

/// How much more memory was in use at a moment of the attack than before it.
async fn measured(arena: &Arena, attack: impl AsyncFnOnce(&Arena)) -> usize {
    arena.begin();
    attack(arena).await;
    MEMORY.peak_usage().saturating_sub(arena.level.load(Ordering::Relaxed))
}

fn run(options: ServerOptions, work: impl AsyncFnOnce(&Arena)) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    allow_many_files();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let kept = Arc::default();
        let server = Server::new(directory(&kept), options);
        let address = server.listen_tcp("127.0.0.1:0").await.expect("it listens");
        let arena = Arena { server, address, kept, level: AtomicUsize::new(0) };
        let before = MEMORY.current_usage();
        work(&arena).await;
        drop(std::mem::take(&mut *arena.kept.lock().unwrap_or_else(PoisonError::into_inner)));
        arena.until("no session is left", |arena| {
            let now = arena.server.counters();
            now.open == 0 && now.accepted == now.sessions + now.failed + now.refused
        });
        arena.until("memory is given back", |_| MEMORY.current_usage() < before + NOISE);
    });
}

impl Arena {
    /// The attack begins now: what it has prepared is no memory of the server.
    pub fn begin(&self) {
        self.level.store(MEMORY.current_usage(), Ordering::Relaxed);
        MEMORY.reset_peak_usage();
    }

    /// Waits until something is so, while the runtime goes on.
    pub fn until(&self, what: &str, settled: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !settled(self) {
            assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}: {:?}", self.server.counters());
            tokio::task::block_in_place(|| std::thread::sleep(Duration::from_millis(1)));
        }
    }
}

/// Thousands of connections, both ends of each.
fn allow_many_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("more files");
}

fn directory(kept: &Arc<Mutex<Vec<Value>>>) -> Directory {
    let kept = kept.clone();
    let keep = move |args: farref_tokio::Args| {
        kept.lock().unwrap_or_else(PoisonError::into_inner).extend(args.positional);
        Ok(Value::None)
    };
    let number = |args: &farref_tokio::Args| args.get(0).and_then(Value::as_int).unwrap_or(0);
    Directory::new()
        .with("echo", "", Function::inline(|mut args| Ok(args.positional.pop().unwrap_or(Value::None))))
        .with("slow_echo", "", Function::new(|mut args| Ok(args.positional.pop().unwrap_or(Value::None))))
        .with("apply", "calls its first argument with its second", AsyncFunction::new(apply))
        .with("bytes", "so many", Function::inline(move |args| Ok(Value::Bytes(vec![7; number(&args) as usize]))))
        .with(
            "numbers",
            "so many",
            Function::inline(move |args| Ok(Value::Tuple((0..number(&args)).map(Value::Int).collect()))),
        )
        .with(
            "make",
            "an object",
            Function::inline(|_| Ok(Reference::local(Function::inline(|_| Ok(Value::None))).into())),
        )
        .with("keep", "keeps its arguments", Function::inline(keep))
        .with("wait", "for ever, with its arguments", AsyncFunction::new(wait))
}

async fn wait(args: farref_tokio::Args) -> Result<Value, Error> {
    std::future::pending::<()>().await;
    drop(args);
    Ok(Value::None)
}

async fn apply(mut args: farref_tokio::Args) -> Result<Value, Error> {
    let argument = args.positional.pop().unwrap_or(Value::None);
    let function = args.positional.pop().unwrap_or(Value::None);
    let function = Proxy::try_from(function).map_err(|_| Error::bad_arguments("a function, an argument"))?;
    function.call([argument]).await
}

/// Clients that behave: three that stay, with calls to objects of each kind, and one that comes and goes.
struct Honest {
    over: Arc<AtomicBool>,
    calls: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Duration>>,
}

impl Honest {
    async fn start(address: SocketAddr) -> Self {
        let (over, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut clients = Vec::new();
        for kind in 0..4 {
            let (over, calls) = (over.clone(), calls.clone());
            clients.push(tokio::spawn(async move {
                let mut slowest = Duration::ZERO;
                let mut connection = connect(address).await;
                for round in 0.. {
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                    let start = Instant::now();
                    if kind == 3 {
                        connection = connect(address).await;
                    }
                    call(&connection, kind, round).await;
                    slowest = slowest.max(start.elapsed());
                    calls.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                slowest
            }));
        }
        let honest = Self { over, calls, clients };
        while honest.calls() < 100 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        honest
    }

    fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// The longest that a call took. All have been answered, and rightly.
    async fn stop(self) -> Duration {
        self.over.store(true, Ordering::Relaxed);
        let mut slowest = Duration::ZERO;
        for client in self.clients {
            let client = tokio::time::timeout(PATIENCE, client).await.expect("honest clients are served");
            slowest = slowest.max(client.expect("they are served well"));
        }
        slowest
    }
}

async fn connect(address: SocketAddr) -> Connection {
    farref_tokio::connect_tcp(address, Directory::new(), Options::default()).await.expect("an honest client is let in")
}

async fn call(connection: &Connection, kind: u8, round: i64) {
    let root = connection.root();
    let result = match kind {
        0 | 3 => root.invoke("echo", [round]).await,
        1 => root.invoke("slow_echo", [round]).await,
        _ => {
            let same = Function::inline(|mut args| Ok(args.positional.remove(0)));
            root.invoke("apply", [Reference::local(same).into(), Value::Int(round)]).await
        }
    };
    assert_eq!(result, Ok(Value::Int(round)), "an honest call of kind {kind}");
}
