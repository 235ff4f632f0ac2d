//! The cases over blocking streams, by farref-pipe.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::process::{ChildStdin, ChildStdout};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use farref_pipe::{
    Args, Connection, Directory, Error, Function, Object, Op, Options, Pending, Proxy, Reference, Remote, Value,
};

use crate::Result;
use crate::cases::Case;
use crate::counts::{Gauge, Wire};
use crate::farref::objects::{self, NUMBER, expect_number};
use crate::measure::Subject;

/// A session over the two ends of a pipe, and what goes over it.
fn open(
    read: impl Into<OwnedFd>,
    write: impl Into<OwnedFd>,
    directory: Directory,
) -> Result<(Connection, impl Fn() -> Wire + Send + Sync + 'static)> {
    let connection = farref_pipe::open_fds(read, write, directory, Options::default())?;
    let counted = connection.clone();
    let wire = move || {
        let traffic = counted.traffic();
        Wire { messages: traffic.messages, bytes: traffic.bytes, reads: traffic.reads, writes: traffic.writes }
    };
    Ok((connection, wire))
}

/// Serves until the session ends.
pub fn serve(read: File, write: File, gauge: &Gauge) -> Result<()> {
    let callback = Function::new(|args| {
        let [Value::Reference(Reference::Remote(back))] = &args.positional[..] else { return Err(misused()) };
        back.call([NUMBER])
    });
    let callbacks = Function::new(|args| {
        let [Value::Reference(Reference::Remote(back)), Value::Int(times)] = &args.positional[..] else {
            return Err(misused());
        };
        (0..*times).try_fold(Value::None, |_, _| back.call([NUMBER]))
    });
    let directory = objects::directory().with("callback", "calls its argument with a number", callback).with(
        "callbacks",
        "calls its first argument so often",
        callbacks,
    );
    let (connection, wire) = open(read, write, directory)?;
    gauge.set(wire);
    connection.wait_closed();
    Ok(())
}

fn misused() -> Error {
    Error::bad_arguments("a function, and for callbacks how often")
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
    /// It holds the connection.
    wire: Box<dyn Fn() -> Wire + Send + Sync>,
}

struct Roots {
    echo: Proxy,
    make: Proxy,
    link: Proxy,
    callback: Proxy,
    callbacks: Proxy,
}

impl Client {
    /// Over the pipes of a child.
    pub fn open(read: ChildStdout, write: ChildStdin, case: Case) -> Result<Self> {
        let (connection, wire) = open(read, write, Directory::new())?;
        let root = |name| -> Result<Proxy> {
            let root = connection.root().get(name)?;
            root.try_into().map_err(|value| format!("{name} is {value:?}").into())
        };
        let roots = Roots {
            echo: root("echo")?,
            make: root("make")?,
            link: root("link")?,
            callback: root("callback")?,
            callbacks: root("callbacks")?,
        };
        let called_back = Arc::new(AtomicU64::new(0));
        let count = called_back.clone();
        let back = Function::inline(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
            Ok(NUMBER.into())
        });
        let payload = Value::Bytes(vec![7; case.raw().payload]);
        Ok(Self { case, roots, back: Arc::new(back), called_back, payload, wire: Box::new(wire) })
    }

    fn ping(&self, operations: u64) -> Result<()> {
        (0..operations).try_for_each(|_| expect_number(&self.roots.echo.call([NUMBER])?))
    }

    /// A thread for each call that is in flight.
    fn inflight(&self, operations: u64) -> Result<()> {
        let tasks = self.case.step();
        thread::scope(|scope| {
            let each = || self.ping(operations / tasks).map_err(|error| error.to_string());
            let threads: Vec<_> = (0..tasks).map(|_| scope.spawn(each)).collect();
            threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| "a thread has panicked")?)
        })
        .map_err(Into::into)
    }

    fn batches(&self, operations: u64) -> Result<()> {
        let size = self.case.step();
        for _ in 0..operations / size {
            let start = |_| self.roots.echo.start_op(Op::Call, [NUMBER].into());
            let calls: Vec<Pending> = (0..size).map(start).collect::<Result<_, _>>()?;
            calls.into_iter().try_for_each(|call| expect_number(&call.wait()?))?;
        }
        Ok(())
    }

    fn echo_bytes(&mut self, operations: u64) -> Result<()> {
        for _ in 0..operations {
            let payload = std::mem::replace(&mut self.payload, Value::None);
            self.payload = self.roots.echo.call([payload])?;
        }
        match &self.payload {
            Value::Bytes(bytes) if bytes.len() == self.case.raw().payload => Ok(()),
            _ => Err("other bytes came back".into()),
        }
    }

    fn new_references(&self, operations: u64) -> Result<()> {
        for _ in 0..operations {
            let made: Proxy = self.roots.make.call(())?.try_into().map_err(|_| "no reference was made")?;
            expect_number(&made.call([NUMBER])?)?;
        }
        Ok(())
    }

    fn new_references_pipelined(&self, operations: u64) -> Result<()> {
        for _ in 0..operations {
            let made = self.roots.make.promise_op(Op::Call, Args::default())?;
            expect_number(&made.call([NUMBER])?)?;
        }
        Ok(())
    }

    /// Calls `through`, which calls back that often, as often as it takes.
    fn callbacks(&self, through: &Proxy, operations: u64, each: u64) -> Result<()> {
        let before = self.called_back.load(Ordering::Relaxed);
        for _ in 0..operations / each {
            let args = Args::default().and(Reference::Local(self.back.clone()));
            let args = if each == 1 { args } else { args.and(each as i64) };
            expect_number(&through.call(args)?)?;
        }
        let called = self.called_back.load(Ordering::Relaxed) - before;
        if called == operations { Ok(()) } else { Err(format!("{called} callbacks of {operations}").into()) }
    }

    fn chains(&self, operations: u64) -> Result<()> {
        for _ in 0..operations {
            let mut link = self.roots.link.promise("next", ())?;
            for _ in 0..6 {
                link = link.promise("next", ())?;
            }
            expect_number(&link.invoke("value", ())?)?;
        }
        Ok(())
    }
}

impl Subject for Client {
    fn run(&mut self, operations: u64) -> Result<()> {
        match self.case {
            Case::Ping => self.ping(operations),
            Case::Inflight64 => self.inflight(operations),
            Case::Batch64 => self.batches(operations),
            Case::Echo64k | Case::Echo1m => self.echo_bytes(operations),
            Case::Newref => self.new_references(operations),
            Case::NewrefPipelined => self.new_references_pipelined(operations),
            Case::Callback => self.callbacks(&self.roots.callback, operations, 1),
            Case::Callbacks100 => self.callbacks(&self.roots.callbacks, operations, 100),
            Case::Chain8 | Case::Chain8Delay10 => self.chains(operations),
            Case::Refs100k => Err("references are held, not timed".into()),
        }
    }

    fn wire(&self) -> Wire {
        (self.wire)()
    }
}
