//! What the hosts of these tests serve.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};

use farref_host::{
    Action, Args, Async, AsyncFunction, AsyncObject, AsyncRemote, Directory, Error, Function, Member, Object, Proxy,
    Reference, Value,
};

use crate::desk::{Clock, lock};
use crate::net::{FAR, Peers};

/// What all things of a test have done.
#[derive(Default)]
pub struct Log {
    /// How often the method with a number has started, and how often it has ended by itself.
    pub started: Mutex<BTreeMap<i64, u32>>,
    pub done: Mutex<BTreeMap<i64, u32>>,
    /// In the order in which they started.
    pub order: Mutex<Vec<i64>>,
    pub alive: AtomicUsize,
    /// What B gives, and C's root.
    pub given: Mutex<Option<Value>>,
    the_one: OnceLock<Arc<dyn Object>>,
    things: Mutex<Vec<Weak<dyn Object>>>,
    next: AtomicI64,
}

impl Log {
    /// A number for a call that no test makes itself.
    fn number(&self) -> i64 {
        self.next.fetch_sub(1, Ordering::Relaxed) - 1
    }

    /// All things that are there.
    pub fn things(&self) -> Vec<Arc<dyn Object>> {
        let mut things = lock(&self.things);
        things.retain(|thing| thing.strong_count() > 0);
        things.iter().filter_map(Weak::upgrade).collect()
    }

    pub fn alive(&self) -> usize {
        self.alive.load(Ordering::Relaxed)
    }

    /// C's root.
    pub fn the_one(&self) -> Arc<dyn Object> {
        self.the_one.get().expect("C has one").clone()
    }

    fn start(&self, number: i64) {
        *lock(&self.started).entry(number).or_default() += 1;
        lock(&self.order).push(number);
    }

    pub fn has_started(&self, number: i64) -> bool {
        lock(&self.started).contains_key(&number)
    }

    pub fn is_done(&self, number: i64) -> bool {
        lock(&self.done).contains_key(&number)
    }
}

/// An object whose methods have the number of their call as first argument.
pub struct Thing {
    log: Arc<Log>,
    clock: Arc<Clock>,
    kept: Mutex<Vec<Value>>,
    me: Weak<Async<Self>>,
}

impl Thing {
    pub fn make(log: &Arc<Log>, clock: &Arc<Clock>) -> Arc<dyn Object> {
        log.alive.fetch_add(1, Ordering::Relaxed);
        let (log, clock) = (log.clone(), clock.clone());
        let thing: Arc<dyn Object> =
            Arc::new_cyclic(|me| Async(Self { log: log.clone(), clock, kept: Mutex::default(), me: me.clone() }));
        lock(&log.things).push(Arc::downgrade(&thing));
        thing
    }

    async fn method(&self, name: &str, number: i64, args: &[Value]) -> Result<Value, Error> {
        match (name, args) {
            ("echo", []) => Ok(number.into()),
            ("fail", []) => Err(Error::raise_with("KeyError", vec![number.into()])),
            ("give", []) => Ok(Reference::Local(Self::make(&self.log, &self.clock)).into()),
            ("return", [value]) => Ok(value.clone()),
            ("wait", [Value::Int(time)]) => {
                self.clock.sleep(*time as u64).await;
                Ok(number.into())
            }
            ("call", [Value::Reference(Reference::Remote(callee)), rest @ ..]) => {
                let mut args = Args::default();
                args.positional.extend(rest.iter().cloned());
                callee.call(args).await
            }
            // Has another call it back with one less, until none are left.
            ("bounce", [_, Value::Int(0)]) => Ok("bottom".into()),
            ("bounce", [Value::Reference(Reference::Remote(other)), Value::Int(left)]) => {
                let me = self.me.upgrade().expect("it is there");
                let args = Args::from([self.log.number()]).and(Reference::Local(me)).and(left - 1);
                other.invoke("bounce", args).await
            }
            ("is_self", [Value::Reference(Reference::Local(object))]) => {
                let me: Arc<dyn Object> = self.me.upgrade().expect("it is there");
                Ok(Value::Bool(Arc::ptr_eq(object, &me)))
            }
            ("keep", [value]) => {
                lock(&self.kept).push(value.clone());
                Ok(Value::None)
            }
            ("forget", []) => {
                let kept = std::mem::take(&mut *lock(&self.kept));
                Ok(Value::Int(kept.len() as i64))
            }
            ("call_kept", rest) => {
                let kept = lock(&self.kept).last().cloned();
                let Some(Value::Reference(Reference::Remote(kept))) = kept else { return Ok(Value::None) };
                let mut args = Args::default();
                args.positional.extend(rest.iter().cloned());
                kept.call(args).await
            }
            _ => Err(Error::bad_arguments("others")),
        }
    }
}

impl Drop for Thing {
    fn drop(&mut self) {
        self.log.alive.fetch_sub(1, Ordering::Relaxed);
    }
}

impl AsyncObject for Thing {
    fn members(&self) -> Cow<'_, [Member]> {
        const NAMES: [&str; 11] =
            ["echo", "fail", "give", "return", "wait", "call", "is_self", "keep", "forget", "call_kept", "bounce"];
        Cow::Owned(NAMES.iter().map(|&name| Member::method(name, "")).collect())
    }

    async fn perform(&self, action: Action<'_>, args: Args) -> Result<Value, Error> {
        let (Action::Method(name), Some(number)) = (&action, args.get(0).and_then(Value::as_int)) else {
            return action.unsupported();
        };
        self.log.start(number);
        let outcome = self.method(name, number, &args.positional[1..]).await;
        *lock(&self.log.done).entry(number).or_default() += 1;
        outcome
    }
}

/// What the three hosts serve: A an echo, C things, and B what it gets from C.
pub fn directories(log: &Arc<Log>, peers: &Arc<Peers>, clock: &Arc<Clock>) -> [Directory; 3] {
    let make = {
        let (log, clock) = (log.clone(), clock.clone());
        Function::inline(move |_| Ok(Reference::Local(Thing::make(&log, &clock)).into()))
    };
    let the_one = log.the_one.get_or_init(|| Thing::make(log, clock));
    log.alive.fetch_sub(1, Ordering::Relaxed);
    let weak = Reference::weak(the_one);
    let given = {
        let log = log.clone();
        Function::inline(move |_| Ok(lock(&log.given).clone().unwrap_or(Value::None)))
    };
    let fetch = {
        let peers = peers.clone();
        AsyncFunction::new(move |args: Args| {
            let far = peers.get(FAR, 0);
            async move {
                let far = far.ok_or_else(|| Error::raise("RuntimeError", "there is no C"))?;
                let name = args.get(0).and_then(Value::as_str).unwrap_or("make").to_owned();
                far.root().call_root(&name).await
            }
        })
    };
    let far_root = {
        let peers = peers.clone();
        Function::inline(move |_| match peers.get(FAR, 0) {
            Some(far) => Ok(Reference::from(far.root()).into()),
            None => Ok(Value::None),
        })
    };
    [
        Directory::new().with("echo", "", Function::inline(|args| Ok(Value::Tuple(args.positional.into_vec())))),
        Directory::new().with("fetch", "", fetch).with("far", "", far_root).with("given", "", given),
        Directory::new().with("make", "", make).with_shared("thing", "", the_one.clone()).with(
            "weak",
            "",
            Function::inline(move |_| Ok(weak.clone().into())),
        ),
    ]
}

trait CallRoot {
    fn call_root(self, name: &str) -> impl Future<Output = Result<Value, Error>> + Send;
}

impl CallRoot for Proxy {
    /// `make` and `weak` give something, the other root is given.
    async fn call_root(self, name: &str) -> Result<Value, Error> {
        if name == "make" || name == "weak" { self.invoke(name, ()).await } else { self.get(name).await }
    }
}

/// The proxy that a call has given.
pub fn proxy(value: Result<Value, Error>) -> Proxy {
    Proxy::try_from(value.expect("it is given")).expect("an object of a peer")
}
