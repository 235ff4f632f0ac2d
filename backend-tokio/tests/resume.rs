//! Sessions that outlive their connections (SPEC.md section 15), over TCP.

#[path = "common/authority.rs"]
#[cfg(feature = "tls")]
mod authority;
mod common;
#[path = "common/proxy.rs"]
mod proxy;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{PATIENCE, calls_work, counted, echo, key};
use farref_core::frame::{PREAMBLE, PreambleScanner, Scan, Split, split};
use farref_core::message::Message;
use farref_tokio::{
    Args, AsyncFunction, Connection, Deadline, Directory, Ended, Error, Function, LinkState, Options, PeerIdentity,
    Promise, Proxy as Object, Reference, Remote, Resuming, Server, ServerOptions, Stream, Value,
};
use proxy::Proxy;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

/// Tries again at once.
fn resuming() -> Resuming {
    Resuming {
        park: PATIENCE,
        first_pause: Duration::from_millis(1),
        longest_pause: Duration::from_millis(20),
        ..Resuming::default()
    }
}

fn options() -> Options {
    Options { resume: Some(resuming()), ..Options::default() }
}

fn server_options() -> ServerOptions {
    let defaults = ServerOptions::default();
    ServerOptions { connection: Options { resume: Some(resuming()), ..defaults.connection }, ..defaults }
}

async fn serving(directory: Directory, options: ServerOptions) -> (Server, SocketAddr) {
    let server = Server::new(directory, options);
    let address = server.listen_tcp("127.0.0.1:0").await.expect("it listens");
    (server, address)
}

/// A server, what is before it, and a client.
async fn linked(directory: Directory, options_: ServerOptions) -> (Server, Proxy, Connection) {
    let (server, address) = serving(directory, options_).await;
    let proxy = Proxy::new(address).await;
    let client = connect(&proxy).await;
    counted(&server, |counters| counters.open == 1).await;
    (server, proxy, client)
}

async fn connect(proxy: &Proxy) -> Connection {
    farref_tokio::connect_tcp(proxy.address, Directory::new(), options()).await.expect("it connects")
}

async fn in_time<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| panic!("{what} takes too long"))
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    in_time(what, async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

struct Random(u64);

impl Random {
    fn below(&mut self, most: u64) -> u64 {
        // xorshift64
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }
}

/// Takes each number once.
#[derive(Clone, Default)]
struct Once(Arc<Mutex<HashSet<i64>>>);

impl Once {
    fn take(&self, args: &Args) -> Result<Value, Error> {
        let number = args.get(0).and_then(Value::as_int).ok_or_else(|| Error::bad_arguments("a number"))?;
        match self.0.lock().expect("no panic").insert(number) {
            true => Ok(Value::Int(number + 1)),
            false => Err(Error::raise("Twice", number.to_string())),
        }
    }

    fn function(&self) -> Function<impl Fn(Args) -> Result<Value, Error> + Send + Sync + 'static> {
        let own = self.clone();
        Function::inline(move |args| own.take(&args))
    }

    fn count(&self) -> usize {
        self.0.lock().expect("no panic").len()
    }
}

fn function(run: impl Fn(Args) -> Result<Value, Error> + Send + Sync + 'static) -> Value {
    Reference::local(Function::inline(run)).into()
}

fn object(value: &Value) -> Object {
    match value {
        Value::Reference(reference) => reference.remote().expect("one of the peer").clone(),
        other => panic!("{other:?}"),
    }
}

const CALLS: i64 = 20_000;
const CUTS: u64 = 200;
const REFERENCES: usize = 1000;
const TASKS: i64 = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_by_two_hundred_cuts() {
    let (called, called_back) = (Once::default(), Once::default());
    let made = Arc::new(AtomicU64::new(0));
    let held: Arc<Mutex<Vec<Value>>> = Arc::default();
    let directory = Directory::new()
        .with("once", "takes each number once", called.function())
        .with("relay", "has its first argument take the second, and takes it then itself", {
            let called = called.clone();
            AsyncFunction::new(move |args| {
                let called = called.clone();
                async move {
                    let callback = object(args.get(0).unwrap_or(&Value::None));
                    let number = args.get(1).cloned().unwrap_or(Value::None);
                    let back = callback.call([number.clone()]).await?;
                    let here = called.take(&Args::from([number]))?;
                    assert_eq!(back, here);
                    Ok(here)
                }
            })
        })
        .with("make", "makes a function that knows its number", {
            let made = made.clone();
            Function::inline(move |_| {
                let number = made.fetch_add(1, Ordering::SeqCst);
                Ok(function(move |_| Ok(Value::Int(number as i64))))
            })
        })
        .with("hold", "keeps its argument", {
            let held = held.clone();
            Function::inline(move |mut args| {
                held.lock().expect("no panic").extend(args.positional.pop());
                Ok(Value::None)
            })
        });
    let (server, address) = serving(directory, server_options()).await;
    let random = Mutex::new(Random(0xC0FF_EE00_DEAD_BEEF));
    let lives = AtomicU64::new(0);
    let proxy = Proxy::cutting(address, move || {
        // Long enough in the middle to get on, and now and then too short for anything.
        let life = match lives.fetch_add(1, Ordering::SeqCst) {
            0 => 60_000,
            _ => random.lock().expect("no panic").below(8_000),
        };
        life + 1
    })
    .await;
    let client = connect(&proxy).await;
    let root = client.root();
    let mut references: Vec<Object> = Vec::new();
    for _ in 0..REFERENCES {
        let made = root.invoke("make", ()).await.expect("it is made");
        references.push(object(&made));
    }
    let references = Arc::new(references);
    root.invoke("hold", [function(|_| Ok("here".into()))]).await.expect("it is kept");
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let (client, references, called_back) = (client.clone(), references.clone(), called_back.clone());
            tokio::spawn(async move {
                let root = client.root();
                let callback = Value::from(Reference::local(called_back.function()));
                for number in (task..CALLS).step_by(TASKS as usize) {
                    let answer = match number % 4 {
                        0 => root.invoke("relay", [callback.clone(), Value::Int(number)]).await,
                        _ => root.invoke("once", [number]).await,
                    };
                    assert_eq!(answer, Ok(Value::Int(number + 1)));
                    if number % 16 == 1 {
                        let index = number as usize * 7 % REFERENCES;
                        assert_eq!(references[index].call(()).await, Ok(Value::Int(index as i64)));
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        in_time("a task", task).await.expect("every answer is right");
    }
    // What is left of the cuts comes while nothing but pings goes on.
    let mut more = CALLS;
    while proxy.cuts() < CUTS {
        assert_eq!(in_time("a call", root.invoke("once", [more])).await, Ok(Value::Int(more + 1)));
        more += 1;
    }
    assert_eq!(called.count() as i64, more);
    assert_eq!(called_back.count() as i64, CALLS / 4);
    for (index, reference) in references.iter().enumerate() {
        assert_eq!(in_time("a call", reference.call(())).await, Ok(Value::Int(index as i64)));
    }
    let back = object(&held.lock().expect("no panic").pop().expect("it was kept"));
    assert_eq!(in_time("a callback", back.call(())).await, Ok("here".into()));
    println!("{} cuts, {} connections, {:?}", proxy.cuts(), proxy.opened(), server.counters());
    assert!(server.counters().resumed >= CUTS / 2, "{:?}", server.counters());
    assert_eq!((server.counters().sessions, server.counters().open), (1, 1));
    drop((references, back));
    let other = server.connections().pop().expect("it is open");
    until("the baseline", || client.is_at_baseline() && other.is_at_baseline()).await;
}

#[tokio::test]
async fn holders_of_references_see_only_latency() {
    let (server, proxy, client) = linked(echo(), server_options()).await;
    calls_work(&client).await;
    proxy.close(true);
    let seen = in_time("a change", client.link_changed(&LinkState::Up)).await;
    assert!(matches!(seen, LinkState::Parked { .. }), "{seen:?}");
    let call = tokio::spawn({
        let client = client.clone();
        async move { client.root().invoke("echo", [5]).await }
    });
    until("some attempts", || matches!(client.link(), LinkState::Parked { attempts: 3.., last: Some(_), .. })).await;
    counted(&server, |counters| counters.parked == 1).await;
    assert!(!call.is_finished());
    proxy.close(false);
    assert_eq!(in_time("the call", call).await.expect("no panic"), Ok(5.into()));
    assert_eq!(client.link(), LinkState::Up);
    calls_work(&client).await;
    let counters = server.counters();
    assert_eq!((counters.parked, counters.resumed, counters.open, counters.sessions), (0, 1, 1, 1));
}

/// TIM-3: deadlines pass while there is no connection, and on the next one, also those that come after what was asked for on
/// the one before.
#[tokio::test]
async fn deadlines_pass_whatever_becomes_of_connections() {
    let (server, address) = serving(pending(), server_options()).await;
    let proxy = Proxy::new(address).await;
    let (is_away, through) = (Arc::new(AtomicBool::new(false)), proxy.address);
    let looked = is_away.clone();
    let open = move || {
        let is_away = looked.clone();
        async move {
            while is_away.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Ok(TcpStream::connect(through).await?)
        }
    };
    let client = farref_tokio::connect_with(open, Directory::new(), options()).await.expect("it connects");
    let root = client.root();
    let limit = |millis| Deadline::new(Duration::from_millis(millis)).then_abandon();
    let early = root.with_deadline(limit(100)).start("never", ()).await.expect("it is made");
    is_away.store(true, Ordering::SeqCst);
    proxy.cut();
    until("the cut", || matches!(client.link(), LinkState::Parked { .. })).await;
    let parked = in_time("a deadline without a connection", root.with_deadline(limit(20)).invoke("never", ())).await;
    assert_eq!(parked, Err(Error::DeadlineExceeded));
    assert!(matches!(client.link(), LinkState::Parked { .. }));
    is_away.store(false, Ordering::SeqCst);
    until("the next one", || client.link() == LinkState::Up).await;
    let late = in_time("a deadline on the next one", root.with_deadline(limit(200)).invoke("never", ())).await;
    assert_eq!(late, Err(Error::DeadlineExceeded));
    assert_eq!(in_time("an early deadline", early).await, Err(Error::DeadlineExceeded));
    assert_eq!(server.counters().resumed, 1);
}

#[tokio::test]
async fn calls_wait_for_room_while_there_is_no_connection() {
    let (server, address) = serving(echo(), server_options()).await;
    let proxy = Proxy::new(address).await;
    let short = Options { output: 4096, ..options() };
    let client = farref_tokio::connect_tcp(proxy.address, Directory::new(), short).await.expect("it connects");
    proxy.close(true);
    in_time("a change", client.link_changed(&LinkState::Up)).await;
    let calls: Vec<_> = (0..32)
        .map(|number| {
            let root = client.root();
            tokio::spawn(async move { root.invoke("echo", [Value::Bytes(vec![number; 1000])]).await })
        })
        .collect();
    until("some attempts", || matches!(client.link(), LinkState::Parked { attempts: 3.., .. })).await;
    proxy.close(false);
    for (number, call) in calls.into_iter().enumerate() {
        let answer = in_time("a call", call).await.expect("no panic");
        assert_eq!(answer, Ok(Value::Bytes(vec![number as u8; 1000])));
    }
    assert_eq!(server.counters().sessions, 1);
}

#[tokio::test]
async fn a_peer_that_has_started_again_is_known_at_once() {
    let (server, proxy, client) = linked(pending(), server_options()).await;
    let call = client.root().start("never", ()).await.expect("it is made");
    until("it runs", || server.connections()[0].tables().answers == 1).await;
    // Another server is at that place now.
    let (_other, address) = serving(echo(), server_options()).await;
    let moved = Arc::new(Mutex::new(proxy.address));
    let to = moved.clone();
    let open = move || {
        let address = *to.lock().expect("no panic");
        async move { Ok(TcpStream::connect(address).await?) }
    };
    let client_2 = farref_tokio::connect_with(open, Directory::new(), options()).await.expect("it connects");
    *moved.lock().expect("no panic") = address;
    let reference = client_2.root();
    let call_2 = client_2.root().start("never", ()).await.expect("it is made");
    until("it runs", || server.connections().iter().any(|other| other.tables().answers == 1)).await;
    proxy.cut();
    assert_eq!(in_time("the end", call_2).await, Err(Error::Ended(Ended::PeerRestarted)));
    assert_eq!(client_2.link(), LinkState::Over(Ended::PeerRestarted));
    let error = reference.invoke("echo", [1]).await.expect_err("it is over");
    assert_eq!(error, Error::NeverStarted(Ended::PeerRestarted));
    assert!(!error.may_have_started());
    // The one whose server is still there goes on.
    counted(&server, |counters| counters.resumed == 1).await;
    drop(call);
}

/// What is called never answers.
fn pending() -> Directory {
    echo().with("never", "does not answer", AsyncFunction::new(|_| std::future::pending()))
}

#[tokio::test]
async fn what_was_given_up_says_which_calls_were_never_started() {
    let limits = ServerOptions { parked: 1, ..server_options() };
    let (server, proxy, client) = linked(pending(), limits).await;
    let started = client.root().start("never", ()).await.expect("it is made");
    until("it runs", || server.connections()[0].tables().answers == 1).await;
    proxy.close(true);
    in_time("a change", client.link_changed(&LinkState::Up)).await;
    counted(&server, |counters| counters.parked == 1).await;
    let not_sent = client.root().start("never", ()).await.expect("it is made");
    // Another client loses its connection, too, and there is a place for one.
    let other_proxy = Proxy::new(server_address(&server).await).await;
    let other = connect(&other_proxy).await;
    counted(&server, |counters| counters.sessions == 2).await;
    other_proxy.close(true);
    counted(&server, |counters| counters.evicted == 1).await;
    proxy.close(false);
    assert_eq!(in_time("the end", started).await, Err(Error::Ended(Ended::SessionGone)));
    assert_eq!(in_time("the end", not_sent).await, Err(Error::NeverStarted(Ended::SessionGone)));
    // That which lost its connection last goes on.
    other_proxy.close(false);
    calls_work(&other).await;
    assert_eq!((server.counters().open, server.counters().parked), (1, 0));
}

/// Another place at which it listens.
async fn server_address(server: &Server) -> SocketAddr {
    server.listen_tcp("127.0.0.1:0").await.expect("it listens")
}

/// LNK-8
#[tokio::test]
async fn a_session_waits_no_longer_than_it_says() {
    let mut limits = server_options();
    limits.connection.resume = Some(Resuming::within(Duration::from_millis(20)));
    let (server, proxy, client) = linked(pending(), limits).await;
    let waits = server.connections().pop().expect("it is open");
    proxy.close(true);
    counted(&server, |counters| counters.open == 0).await;
    assert_eq!(in_time("the end", waits.closed()).await, Ended::LinkLost);
    drop(waits);
    counted(&server, |counters| counters.parked == 0 && counters.memory == 0).await;
    proxy.close(false);
    assert_eq!(in_time("the end", client.closed()).await, Ended::SessionGone);
}

#[tokio::test]
async fn a_client_tries_no_longer_and_no_more_often_than_it_says() {
    for (bound, attempts) in [(Duration::from_millis(30), u32::MAX), (PATIENCE, 2)] {
        let (_server, address) = serving(pending(), server_options()).await;
        let proxy = Proxy::new(address).await;
        let resume = Some(Resuming { park: bound, attempts, ..resuming() });
        let options = Options { resume, ..Options::default() };
        let client = farref_tokio::connect_tcp(proxy.address, Directory::new(), options).await.expect("it connects");
        let call = client.root().start("never", ()).await.expect("it is made");
        let opened = proxy.opened();
        proxy.close(true);
        assert_eq!(in_time("the end", client.closed()).await, Ended::LinkLost);
        assert!(call.await.expect_err("it is over").may_have_started());
        assert!(proxy.opened() - opened <= u64::from(attempts));
    }
}

#[tokio::test]
async fn parked_sessions_are_bounded_in_bytes() {
    let limits = ServerOptions { parked_memory: 400_000, ..server_options() };
    let (server, address) = serving(keeping(), limits).await;
    let mut all = Vec::new();
    for _ in 0..8 {
        let proxy = Proxy::new(address).await;
        let client = connect(&proxy).await;
        // What the server has sent is kept until it is acknowledged.
        let bytes = client.root().invoke("give", [40_000]).await.expect("it is given");
        assert!(matches!(bytes, Value::Bytes(bytes) if bytes.len() == 40_000));
        all.push((proxy, client));
    }
    counted(&server, |counters| counters.open == 8).await;
    for (proxy, _) in &all {
        let (parked, evicted) = (server.counters().parked, server.counters().evicted);
        proxy.close(true);
        counted(&server, |counters| counters.parked + counters.evicted > parked + evicted).await;
    }
    counted(&server, |counters| counters.open == counters.parked).await;
    let counters = server.counters();
    assert!(counters.evicted >= 1 && counters.parked >= 1 && counters.memory <= 400_000, "{counters:?}");
}

fn keeping() -> Directory {
    let give = |args: Args| Ok(Value::Bytes(vec![7; args.get(0).and_then(Value::as_int).unwrap_or(0) as usize]));
    Directory::new().with("give", "gives so many bytes", Function::inline(give))
}

/// LNK-8
#[tokio::test]
async fn a_parked_session_makes_place_for_one_that_begins() {
    let limits = ServerOptions { connections: 1, ..server_options() };
    let (server, proxy, client) = linked(echo(), limits).await;
    proxy.close(true);
    counted(&server, |counters| counters.parked == 1).await;
    let other = Proxy::new(server_address(&server).await).await;
    calls_work(&connect(&other).await).await;
    assert_eq!(server.counters().evicted, 1);
    proxy.close(false);
    assert_eq!(in_time("the end", client.closed()).await, Ended::SessionGone);
}

/// LNK-8
#[tokio::test]
async fn a_client_that_has_started_again_frees_what_waits_for_it() {
    let (server, address) = serving(pending(), server_options()).await;
    let proxy = Proxy::new(address).await;
    let begin = |incarnation| {
        let identity = Some(PeerIdentity { peer: [0x77; 16], incarnation });
        let options = Options { identity, ..options() };
        farref_tokio::connect_tcp(proxy.address, Directory::new(), options)
    };
    let first = begin(1).await.expect("it connects");
    counted(&server, |counters| counters.open == 1).await;
    let there = server.connections().pop().expect("it is open");
    proxy.close(true);
    counted(&server, |counters| counters.parked == 1).await;
    first.close();
    proxy.close(false);
    let again = begin(2).await.expect("it connects");
    assert_eq!(in_time("the end", there.closed()).await, Ended::PeerRestarted);
    let another = begin(2).await.expect("it connects");
    counted(&server, |counters| counters.open == 2 && counters.parked == 0).await;
    drop((again, another));
}

#[tokio::test]
async fn shutting_down_ends_parked_sessions() {
    let (server, proxy, client) = linked(pending(), server_options()).await;
    let there = server.connections().pop().expect("it is open");
    let never = client.root().start("never", ()).await.expect("it is made");
    until("it runs", || there.tables().answers == 1).await;
    proxy.close(true);
    counted(&server, |counters| counters.parked == 1).await;
    in_time("the end", server.shut_down(PATIENCE)).await;
    assert!(matches!(there.closed().await, Ended::Closed(_)));
    drop(there);
    counted(&server, |counters| counters.memory == 0).await;
    drop((never, client));
}

#[tokio::test]
async fn a_client_can_close_while_it_has_no_connection() {
    let (server, proxy, client) = linked(pending(), server_options()).await;
    let call = client.root().start("never", ()).await.expect("it is made");
    proxy.close(true);
    in_time("a change", client.link_changed(&LinkState::Up)).await;
    client.close();
    assert!(matches!(in_time("the end", client.closed()).await, Ended::Closed(_)));
    assert!(call.await.expect_err("it is over").ended().is_some());
    drop(server);
}

/// The server has not noticed that a connection is lost when the next one comes: what the old one still brings is not heard.
#[tokio::test]
async fn the_old_connection_is_not_read_any_more() {
    let taken = Once::default();
    let directory = Directory::new().with("once", "takes each number once", taken.function());
    let (server, proxy, client) = linked(directory, server_options()).await;
    assert_eq!(client.root().invoke("once", [1]).await, Ok(2.into()));
    proxy.keep_half_open();
    proxy.cut();
    assert_eq!(in_time("a call", client.root().invoke("once", [2])).await, Ok(3.into()));
    counted(&server, |counters| counters.resumed == 1).await;
    let mut old = proxy.half_open();
    assert_eq!(old.len(), 1);
    // It is closed, whatever comes over it: a Close would end the session, and garbage would, too.
    let mut old = old.remove(0);
    let _ = old.write_all(&[3, 0x11, 0, 0, 0, 0xFF, 0xFF]).await;
    let mut left = Vec::new();
    let _ = in_time("the end of the old one", old.read_to_end(&mut left)).await;
    assert_eq!(in_time("a call", client.root().invoke("once", [3])).await, Ok(4.into()));
    assert_eq!((taken.count(), server.counters().sessions), (3, 1));
}

/// A peer without a library, for what a library does not do.
struct Raw {
    stream: Box<dyn Stream>,
    received: Vec<u8>,
}

impl Raw {
    async fn begin(address: SocketAddr, record: &[u8]) -> Self {
        Self::over(TcpStream::connect(address).await.expect("it connects"), record).await
    }

    async fn over(mut stream: impl Stream, record: &[u8]) -> Self {
        let bytes = [&PREAMBLE, &[record.len() as u8][..], record].concat();
        stream.write_all(&bytes).await.expect("it is sent");
        Self { stream: Box::new(stream), received: Vec::new() }
    }

    /// All that the server says until it hangs up.
    async fn all(mut self) -> Vec<u8> {
        let mut all = std::mem::take(&mut self.received);
        let _ = in_time("the end", self.stream.read_to_end(&mut all)).await;
        all
    }

    /// The next record.
    async fn next(&mut self) -> Vec<u8> {
        in_time("a record", async {
            loop {
                if let Scan::Found(at) = PreambleScanner::default().scan(&self.received)
                    && let Split::Record { body, rest } = split(&self.received[at..], 4096)
                {
                    let (body, rest) = (body.to_vec(), rest.to_vec());
                    self.received = [&PREAMBLE, &*rest].concat();
                    return body;
                }
                let count = self.stream.read_buf(&mut self.received).await.expect("it can be read");
                assert!(count > 0, "it hangs up");
            }
        })
        .await
    }
}

/// A Hello with a link and this token.
fn hello(token: u8) -> Vec<u8> {
    let mut hello = vec![0x10, 1, 1, 1, 0x80, 0x80, 0x04, 0xA0, 0x8D, 0x06, 0x40, 0x80, 0x80, 0x20, 0x40, 0x10];
    hello.extend([9; 16]);
    hello.push(1);
    hello.extend([token; 16]);
    hello.extend([0x80, 0x80, 0x40, 0x80, 0x10]);
    hello
}

fn resume(token: [u8; 16], attempt: u8, got: u8) -> Vec<u8> {
    [&[21], &token[..], &[attempt, got]].concat()
}

/// The token that a server's Hello tells.
fn token_of(hello: &[u8]) -> [u8; 16] {
    match Message::read(hello) {
        Ok(Message::Hello(hello)) => hello.link.expect("it offers a link").token,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn who_knows_no_token_resumes_nothing() {
    let (server, address) = serving(echo(), server_options()).await;
    let mut peer = Raw::begin(address, &hello(1)).await;
    let mut token = token_of(&peer.next().await);
    counted(&server, |counters| counters.open == 1).await;
    token[7] ^= 1;
    let all = Raw::begin(address, &resume(token, 1, 0)).await.all().await;
    // SessionGone, of which nothing is known.
    assert_eq!((&all[..8], all[9], all.last()), (&PREAMBLE[..], 23, Some(&0)));
    counted(&server, |counters| counters.failed == 1).await;
    assert_eq!((server.counters().open, server.counters().resumed), (1, 0));
}

#[tokio::test]
async fn a_session_goes_on_by_the_way_on_which_it_began() {
    let (server, address) = serving(echo(), server_options()).await;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("socket");
    server.listen_unix(&path).await.expect("it listens");
    let token = token_of(&Raw::begin(address, &hello(1)).await.next().await);
    let stream = UnixStream::connect(&path).await.expect("it connects");
    assert_eq!(Raw::over(stream, &resume(token, 1, 1)).await.next().await[0], 23);
    assert_eq!(Raw::begin(address, &resume(token, 1, 1)).await.next().await[0], 22);
}

#[tokio::test]
async fn an_attempt_that_was_overtaken_changes_nothing() {
    let (server, address) = serving(echo(), server_options()).await;
    let mut peer = Raw::begin(address, &hello(1)).await;
    let token = token_of(&peer.next().await);
    let mut second = Raw::begin(address, &resume(token, 5, 1)).await;
    assert_eq!(second.next().await, [&[22], &[1; 16][..], &[1]].concat());
    assert_eq!(peer.all().await, PREAMBLE[..8].to_vec(), "the first is closed");
    counted(&server, |counters| counters.resumed == 1).await;
    for attempt in [5, 4, 1] {
        assert_eq!(Raw::begin(address, &resume(token, attempt, 1)).await.all().await, []);
    }
    let mut third = Raw::begin(address, &resume(token, 6, 1)).await;
    assert_eq!(third.next().await[0], 22);
    counted(&server, |counters| counters.resumed == 2 && counters.open == 1).await;
}

#[tokio::test]
async fn a_claim_to_have_got_what_was_never_sent_ends_the_session() {
    let (server, address) = serving(echo(), server_options()).await;
    let mut peer = Raw::begin(address, &hello(1)).await;
    let token = token_of(&peer.next().await);
    assert_eq!(Raw::begin(address, &resume(token, 1, 99)).await.all().await, []);
    counted(&server, |counters| counters.open == 0).await;
    let all = Raw::begin(address, &resume(token, 2, 1)).await.all().await;
    assert_eq!((all[9], all.last()), (23, Some(&1)), "it had got Hello");
}

#[tokio::test]
async fn what_begins_in_pieces_is_understood() {
    let (server, address) = serving(echo(), server_options()).await;
    let mut stream = TcpStream::connect(address).await.expect("it connects");
    stream.set_nodelay(true).expect("it can be set");
    let hello = hello(1);
    let bytes = [&b"a banner\n"[..], &PREAMBLE, &[hello.len() as u8], &hello].concat();
    for byte in bytes {
        stream.write_all(&[byte]).await.expect("it is sent");
        tokio::task::yield_now().await;
    }
    counted(&server, |counters| counters.open == 1).await;
}

#[tokio::test]
async fn a_key_is_checked_again() {
    let mut limits = server_options();
    limits.connection.key = Some(key(1));
    let (server, address) = serving(echo(), limits).await;
    let proxy = Proxy::new(address).await;
    let options = Options { key: Some(key(1)), ..options() };
    let client = farref_tokio::connect_tcp(proxy.address, Directory::new(), options).await.expect("it connects");
    for resumed in 1..=3 {
        proxy.cut();
        counted(&server, |counters| counters.resumed == resumed).await;
        calls_work(&client).await;
    }
    // Who knows no key cannot even ask for a session.
    let answer = Raw::begin(address, &resume([0; 16], 1, 0)).await.all().await;
    assert!(!answer.windows(8).any(|some| some == PREAMBLE), "{answer:?}");
}

#[tokio::test]
async fn sessions_without_it_end_with_their_connection() {
    for (here, there) in [(options(), ServerOptions::default()), (Options::default(), server_options())] {
        let (server, address) = serving(pending(), there).await;
        let proxy = Proxy::new(address).await;
        let client = farref_tokio::connect_tcp(proxy.address, Directory::new(), here).await.expect("it connects");
        calls_work(&client).await;
        let call = client.root().start("never", ()).await.expect("it is made");
        counted(&server, |counters| counters.open == 1).await;
        until("it runs", || server.connections()[0].tables().answers == 1).await;
        proxy.cut();
        assert_eq!(in_time("the end", call).await, Err(Error::Ended(Ended::LinkLost)));
        counted(&server, |counters| counters.open == 0 && counters.resumed == 0).await;
    }
}

#[tokio::test]
async fn promises_survive() {
    let make = Function::inline(|_| Ok(function(|_| Ok("made".into()))));
    let (_server, proxy, client) = linked(Directory::new().with("make", "makes", make), server_options()).await;
    proxy.close(true);
    in_time("a change", client.link_changed(&LinkState::Up)).await;
    let made: Promise = client.root().promise("make", ()).await.expect("it is made");
    let called = tokio::spawn(async move { made.call(()).await });
    until("some attempts", || matches!(client.link(), LinkState::Parked { attempts: 2.., .. })).await;
    proxy.close(false);
    assert_eq!(in_time("the call", called).await.expect("no panic"), Ok("made".into()));
}

#[cfg(feature = "tls")]
#[tokio::test]
async fn tls_is_set_up_again() {
    use farref_tokio::{Authorities, Identity, TlsClient, TlsServer};

    let ours = authority::Authority::new("ours");
    let (chain, private) = ours.files(&["localhost"]);
    let authorities = Authorities::from_file(ours.path()).expect("a certificate");
    let identity = Identity::from_files(chain, private).expect("an identity");
    let tls = TlsServer::new(&identity, None).expect("a server");
    let server = Server::new(echo(), server_options());
    let address = server.listen_tls("127.0.0.1:0", &tls).await.expect("it listens");
    let proxy = Proxy::new(address).await;
    let tls = TlsClient::new(&authorities, None).expect("a client");
    let client = farref_tokio::connect_tls(proxy.address, "localhost", &tls, Directory::new(), options());
    let client = client.await.expect("it connects");
    for resumed in 1..=3 {
        proxy.cut();
        counted(&server, |counters| counters.resumed == resumed).await;
        calls_work(&client).await;
    }
}
