//! The cases over sockets and in memory, by farref-tokio.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use farref_tokio::{
    Args, AsyncFunction, Connection, Directory, Error, Function, Object, Op, Options, Peer, Proxy, Reference, Remote,
    Resuming, Server, ServerOptions, Stream, Value,
};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::Result;
use crate::cases::Case;
use crate::counts::{Gauge, Wire};
use crate::farref::objects::{self, NUMBER, expect_number};
use crate::measure::Subject;

/// Serves a stream until the session ends.
pub async fn serve(stream: impl Stream, gauge: Gauge) -> Result<()> {
    let connection = farref_tokio::start(stream, directory(), Options::default()).await?;
    let counted = connection.clone();
    gauge.set(move || wire(&counted));
    connection.closed().await;
    Ok(())
}

/// Serves a stream to a session that would survive it.
pub fn serve_resuming(stream: impl Stream, gauge: &Gauge) {
    let connection = resuming();
    let options = ServerOptions { connection, memory: usize::MAX, ..ServerOptions::default() };
    let server = Server::new(directory(), options);
    server.serve(stream, Peer::named("the client"));
    gauge.set(move || server.connections().first().map(wire).unwrap_or_default());
}

fn resuming() -> Options {
    Options { resume: Some(Resuming::default()), ..Options::default() }
}

fn directory() -> Directory {
    let callback = AsyncFunction::new(|args: Args| async move {
        let [Value::Reference(Reference::Remote(back))] = &args.positional[..] else { return Err(misused()) };
        back.call([NUMBER]).await
    });
    let callbacks = AsyncFunction::new(|args: Args| async move {
        let [Value::Reference(Reference::Remote(back)), Value::Int(times)] = &args.positional[..] else {
            return Err(misused());
        };
        let mut last = Value::None;
        for _ in 0..*times {
            last = back.call([NUMBER]).await?;
        }
        Ok(last)
    });
    objects::directory().with("callback", "calls its argument with a number", callback).with(
        "callbacks",
        "calls its first argument so often",
        callbacks,
    )
}

fn misused() -> Error {
    Error::bad_arguments("a function, and for callbacks how often")
}

fn wire(connection: &Connection) -> Wire {
    let traffic = connection.traffic();
    Wire { messages: traffic.messages, bytes: traffic.bytes, reads: traffic.reads, writes: traffic.writes }
}

/// The client of a case.
pub struct Client {
    case: Case,
    roots: Roots,
    /// What `callback` and `callbacks` call, and how often they did.
    back: Arc<dyn Object>,
    called_back: Arc<AtomicU64>,
    /// What the echo of many bytes sends: what it got the last time.
    payload: Value,
    connection: Connection,
    runtime: Rc<Runtime>,
}

#[derive(Clone)]
struct Roots {
    echo: Proxy,
    make: Proxy,
    link: Proxy,
    callback: Proxy,
    callbacks: Proxy,
}

impl Client {
    /// Over a stream to a server.
    pub fn open(runtime: Rc<Runtime>, stream: impl Stream, case: Case) -> Result<Self> {
        let connection = runtime.block_on(farref_tokio::start(stream, Directory::new(), Options::default()))?;
        Self::over(runtime, connection, case)
    }

    /// Over TCP, with a session that would survive the connection.
    pub fn resuming(runtime: Rc<Runtime>, address: SocketAddr, case: Case) -> Result<Self> {
        let connection = runtime.block_on(farref_tokio::connect_tcp(address, Directory::new(), resuming()))?;
        Self::over(runtime, connection, case)
    }

    fn over(runtime: Rc<Runtime>, connection: Connection, case: Case) -> Result<Self> {
        let open = runtime.clone();
        open.block_on(async {
            let root = async |name| -> Result<Proxy> {
                let root = connection.root().get(name).await?;
                root.try_into().map_err(|value| format!("{name} is {value:?}").into())
            };
            let roots = Roots {
                echo: root("echo").await?,
                make: root("make").await?,
                link: root("link").await?,
                callback: root("callback").await?,
                callbacks: root("callbacks").await?,
            };
            let called_back = Arc::new(AtomicU64::new(0));
            let count = called_back.clone();
            let back = Function::inline(move |_| {
                count.fetch_add(1, Ordering::Relaxed);
                Ok(NUMBER.into())
            });
            let payload = Value::Bytes(vec![7; case.raw().payload]);
            Ok(Self { case, roots, back: Arc::new(back), called_back, payload, connection, runtime })
        })
    }

    /// So many new references.
    pub fn hold(&self, count: usize) -> Result<Vec<Proxy>> {
        /// At a time: what is under way is no part of what is held.
        const BATCH: usize = 500;
        self.runtime.block_on(async {
            let mut held = Vec::with_capacity(count);
            while held.len() < count {
                let batch = BATCH.min(count - held.len());
                for made in self.roots.make.call_many((0..batch).map(|_| ())).await {
                    held.push(made?.try_into().map_err(|_| "no reference was made")?);
                }
            }
            // One more round trip, so that nothing is left to be sent.
            self.ping(1).await?;
            Ok(held)
        })
    }

    async fn ping(&self, operations: u64) -> Result<()> {
        for _ in 0..operations {
            expect_number(&self.roots.echo.call([NUMBER]).await?)?;
        }
        Ok(())
    }

    /// A task for each call that is in flight.
    async fn inflight(&self, operations: u64) -> Result<()> {
        let tasks = self.case.step();
        let mut all = JoinSet::new();
        for _ in 0..tasks {
            let echo = self.roots.echo.clone();
            all.spawn(async move {
                for _ in 0..operations / tasks {
                    expect_number(&echo.call([NUMBER]).await.map_err(|error| error.to_string())?)
                        .map_err(|error| error.to_string())?;
                }
                Ok::<_, String>(())
            });
        }
        while let Some(task) = all.join_next().await {
            task??;
        }
        Ok(())
    }

    async fn batches(&self, operations: u64) -> Result<()> {
        let size = self.case.step();
        for _ in 0..operations / size {
            let answers = self.roots.echo.call_many((0..size).map(|_| [NUMBER])).await;
            answers.into_iter().try_for_each(|answer| expect_number(&answer?))?;
        }
        Ok(())
    }

    async fn echo_bytes(&mut self, operations: u64) -> Result<()> {
        for _ in 0..operations {
            let payload = std::mem::replace(&mut self.payload, Value::None);
            self.payload = self.roots.echo.call([payload]).await?;
        }
        match &self.payload {
            Value::Bytes(bytes) if bytes.len() == self.case.raw().payload => Ok(()),
            _ => Err("other bytes came back".into()),
        }
    }

    async fn new_references(&self, operations: u64) -> Result<()> {
        for _ in 0..operations {
            let made: Proxy = self.roots.make.call(()).await?.try_into().map_err(|_| "no reference was made")?;
            expect_number(&made.call([NUMBER]).await?)?;
        }
        Ok(())
    }

    async fn new_references_pipelined(&self, operations: u64) -> Result<()> {
        for _ in 0..operations {
            let made = self.roots.make.promise_op(Op::Call, Args::default()).await?;
            expect_number(&made.call([NUMBER]).await?)?;
        }
        Ok(())
    }

    /// Calls `through`, which calls back that often, as often as it takes.
    async fn callbacks(&self, through: &Proxy, operations: u64, each: u64) -> Result<()> {
        let before = self.called_back.load(Ordering::Relaxed);
        for _ in 0..operations / each {
            let args = Args::default().and(Reference::Local(self.back.clone()));
            let args = if each == 1 { args } else { args.and(each as i64) };
            expect_number(&through.call(args).await?)?;
        }
        let called = self.called_back.load(Ordering::Relaxed) - before;
        if called == operations { Ok(()) } else { Err(format!("{called} callbacks of {operations}").into()) }
    }

    async fn chains(&self, operations: u64) -> Result<()> {
        for _ in 0..operations {
            let mut link = self.roots.link.promise("next", ()).await?;
            for _ in 0..6 {
                link = link.promise("next", ()).await?;
            }
            expect_number(&link.invoke("value", ()).await?)?;
        }
        Ok(())
    }
}

impl Subject for Client {
    fn run(&mut self, operations: u64) -> Result<()> {
        let runtime = self.runtime.clone();
        runtime.block_on(async {
            match self.case {
                Case::Ping => self.ping(operations).await,
                Case::Inflight64 => self.inflight(operations).await,
                Case::Batch64 => self.batches(operations).await,
                Case::Echo64k | Case::Echo1m => self.echo_bytes(operations).await,
                Case::Newref => self.new_references(operations).await,
                Case::NewrefPipelined => self.new_references_pipelined(operations).await,
                Case::Callback => self.callbacks(&self.roots.callback, operations, 1).await,
                Case::Callbacks100 => self.callbacks(&self.roots.callbacks, operations, 100).await,
                Case::Chain8 | Case::Chain8Delay10 => self.chains(operations).await,
                Case::Refs100k => Err("references are held, not timed".into()),
            }
        })
    }

    fn wire(&self) -> Wire {
        wire(&self.connection)
    }
}

/// A server in this process.
pub fn serve_here(runtime: &Runtime, stream: impl Stream) {
    runtime.spawn(async move { serve(stream, Gauge::default()).await.map_err(|error| error.to_string()) });
}
