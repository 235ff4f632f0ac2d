//! What the fixtures say of themselves.

use farref_embassy::{Member, MemberKind};

pub(crate) const CALLER: &[Member] = &[
    Member::method("once", "calls f: once(f, args...)"),
    Member::method("times", "calls f with 0 to n-1 and gives the tuple of the results: times(f, n)"),
    Member::method("nest", "\"bottom\" if depth is 0; else f(g, depth-1), where g does the same: nest(f, depth)"),
    Member::method("both", "calls f and g before it waits for either; both results: both(f, g)"),
    Member::method("pipelined", "not on a device"),
    Member::method("pass", "not on a device"),
    Member::method("abandon", "calls f and does not wait: abandon(f)"),
    Member::method("catch", "calls f; an error is a result: catch(f, args...)"),
    Member::method("offer", "calls f with n new things: offer(f, n)"),
];

pub(crate) const RAISER: &[Member] = &[
    Member::method("raise", "raises an exception: raise(name, args..., text=none, traceback=none)"),
    Member::method("refuse", "refuses with an error code: refuse(code, values...)"),
];

pub(crate) const SINK: &[Member] =
    &[Member::method("drain", "iterates over a sequence of the caller and tells how many: drain(x)")];

pub(crate) const SOURCE: &[Member] = &[
    Member::method("text", "a string of n times \"x\": text(n)"),
    Member::method("bytes", "n bytes, byte i is i modulo 256: bytes(n)"),
    Member::method("items", "a sequence of the integers 0 to n-1, by reference: items(n)"),
];

pub(crate) const COUNTER: &[Member] = &[
    Member::method("add", "adds a number and tells the sum: add(number=1)"),
    Member::writable("value", "the sum"),
    Member::readable("name", "always \"counter\""),
    Member { name: "step", kind: MemberKind::Constant, doc: "1" },
    Member::method("history", "the numbers that were added, in order"),
];

pub(crate) const KEEPER: &[Member] = &[
    Member::method("keep", "keeps anything under a name: keep(name, x)"),
    Member::method("give", "gives it back: give(name)"),
    Member::method("drop", "lets it go: drop(name)"),
    Member::method("drop_all", "lets everything go"),
    Member::method("call", "calls what it keeps: call(name, args...)"),
];

pub(crate) const MAKER: &[Member] = &[
    Member::method("make", "a new thing"),
    Member::method("make_many", "a tuple of new things: make_many(n)"),
    Member::method("alive", "how many things are alive"),
    Member::method("hold", "a new thing, which the maker holds, too"),
    Member::method("held", "the thing that it holds"),
    Member::method("let_go", "holds it no more"),
];

pub(crate) const THING: &[Member] = &[
    Member::method("after", "calls a function, then tells its number: after(f)"),
    Member::readable("number", "its number"),
];

pub(crate) const SLOW: &[Member] = &[
    Member::method("wait", "waits until its name is opened or failed, and gives what that says: wait(name, ...)"),
    Member::method("open", "lets calls that wait for the name go on, now and later: open(name, x=none)"),
    Member::method("fail", "makes them raise an exception of that name: fail(name, exception)"),
    Member::method("entered", "waits until n calls of wait have begun in all: entered(n)"),
];
