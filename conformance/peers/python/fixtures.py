"""Serves the fixtures of the conformance suite (conformance/FIXTURES.md) on standard input and output.

    cargo run -p farref-conformance --bin farref-conform -- python3 conformance/peers/python/fixtures.py
"""
import os, threading, weakref

import farref
from farref import CallFailed, Connection, RemoteException, Remote, wait

LIMITS = dict(max_message=65536, imports=1024, answers=24, call_bytes=262144, handles=48, levels=8)


def named(name, *args, text=None, traceback=None):
    """An exception that travels exactly like this."""
    e = RemoteException(*args)
    e._farref = name, args, text, traceback
    return e


def fixture(*names, concurrent=False):
    """A class whose members are these, in this order; `raise_` stands for `raise`."""
    def mark(cls):
        for name in names:
            if hasattr(cls, name + "_"):
                setattr(cls, name, getattr(cls, name + "_"))
        cls._members, cls._concurrent = lambda self: list(names), concurrent
        return cls
    return mark


def integer(x):
    if type(x) is not int:
        raise CallFailed("BadArguments", "an integer")
    return x


def string(x):
    if type(x) is not str:
        raise CallFailed("BadArguments", "a name")
    return x


def count(x):
    if not 0 <= integer(x) <= 1000000:
        raise CallFailed("BadArguments", "a count up to a million")
    return x


def call(f, *args, **names):
    if not callable(f):
        raise CallFailed("BadArguments", "something to call")
    return wait(f(*args, **names))


def caught(f, *args):
    try:
        return call(f, *args)
    except CallFailed as e:
        return (e.code, *e.values)
    except Exception as e:
        return e


@fixture(concurrent=True)
class Function:
    """A root that is called and nothing else."""

    def __init__(self, f):
        self._f = f

    def __call__(self, *args, **names):
        return farref.invoke(self._f, args, names)


def echo(*args, **names):
    return args[0] if len(args) == 1 and not names else args + tuple(names.items())


@fixture("add", "value", "name", "step", "history")
class Counter:
    step = 1
    __eq__ = __hash__ = None

    def __init__(self, start=0):
        self._sum, self._added = integer(start), []

    def add(self, number=1):
        self._sum += integer(number)
        self._added.append(number)
        return self._sum

    @property
    def value(self):
        return self._sum

    @value.setter
    def value(self, new):
        self._sum = integer(new)

    @value.deleter
    def value(self):
        self._sum = 0

    @property
    def name(self):
        return "counter"

    def history(self):
        return tuple(self._added)

    def __str__(self):
        return str(self._sum)

    def __repr__(self):
        return "<counter>"


@fixture("keep", "give", "drop", "drop_all", "call")
class Keeper(dict):
    __eq__ = __hash__ = __iter__ = None

    def keep(self, name, x):
        self[name] = x

    def give(self, name):
        return self[name]

    def drop(self, name):
        del self[name]

    def drop_all(self):
        self.clear()

    def call(self, name, *args, **names):
        return call(self[name], *args, **names)

    def __getitem__(self, name):
        return super().__getitem__(string(name))

    def __setitem__(self, name, x):
        super().__setitem__(string(name), x)

    def __delitem__(self, name):
        super().__delitem__(string(name))


@fixture("after", "number")
class Thing:
    def __init__(self, number):
        self._number = number

    def __call__(self):
        return self._number

    def after(self, f):
        call(f)
        return self._number

    @property
    def number(self):
        return self._number

    def __eq__(self, other):
        return NotImplemented if isinstance(other, (*farref.VALUES, Remote)) else self is other

    def __hash__(self):
        return self._number

    def __str__(self):
        return "<thing %d>" % self._number


@fixture("make", "make_many", "alive", "hold", "held", "let_go")
class Maker:
    def __init__(self):
        self._made, self._alive, self._held = 0, weakref.WeakSet(), None

    def make(self):
        self._made += 1
        thing = Thing(self._made)
        self._alive.add(thing)
        return thing

    def make_many(self, n):
        return tuple(self.make() for _ in range(count(n)))

    def alive(self):
        return len(self._alive)

    def hold(self):
        self._held = self.make()
        return self._held

    def held(self):
        return self._held

    def let_go(self):
        self._held = None


@fixture(concurrent=True)
class Deeper:
    def __call__(self, f, depth):
        return CALLER.nest(f, depth)


@fixture("once", "times", "nest", "both", "pipelined", "pass", "abandon", "catch", "offer", concurrent=True)
class Caller:
    def once(self, f, *args, **names):
        return call(f, *args, **names)

    def times(self, f, n):
        return tuple(call(f, i) for i in range(count(n)))

    def nest(self, f, depth):
        return "bottom" if count(depth) == 0 else call(f, Deeper(), depth - 1)

    def both(self, f, g):
        first, second = f(), g()
        return wait(first), wait(second)

    def pipelined(self, f, name, *args):
        return wait(getattr(f(), name)(*args))

    def pass_(self, f, g):
        return call(g, f())

    def abandon(self, f):
        promise = f()
        promise._conn.abandon(promise)

    def catch(self, f, *args):
        return caught(f, *args)

    def offer(self, f, n):
        return caught(f, *(Thing(i + 1) for i in range(count(n))))


CALLER = Caller()


@fixture("raise", "refuse", concurrent=True)
class Raiser:
    def raise_(self, name, *args, text=None, traceback=None):
        raise named(name, *args, text=text, traceback=traceback)

    def refuse(self, code, *values):
        raise CallFailed(code, *values)


@fixture("wait", "open", "fail", "entered", concurrent=True)
class Slow:
    def __init__(self):
        self._changed, self._open, self._entered = threading.Condition(), {}, 0

    def _until(self, true):
        if not self._changed.wait_for(true, 60):
            raise TimeoutError("nobody answered")

    def wait(self, name, *_):
        with self._changed:
            self._entered += 1
            self._changed.notify_all()
            self._until(lambda: name in self._open)
        x, exception = self._open[name]
        if exception:
            raise named(exception)
        return x

    def _say(self, name, x, exception):
        with self._changed:
            self._open[name] = x, exception
            self._changed.notify_all()

    def open(self, name, x=None):
        self._say(name, x, None)

    def fail(self, name, exception):
        self._say(name, None, exception)

    def entered(self, n):
        with self._changed:
            self._until(lambda: self._entered >= count(n))
            return self._entered


@fixture()
class Items(list):
    __eq__ = __hash__ = None

    def __getitem__(self, index):
        if not -len(self) <= integer(index) < len(self):
            raise IndexError(index)
        return super().__getitem__(index)


@fixture("text", "bytes", "items", concurrent=True)
class Source:
    def text(self, n):
        return "x" * count(n)

    def bytes(self, n):
        return bytes(i % 256 for i in range(count(n)))

    def items(self, n):
        return Items(range(count(n)))


@fixture("drain", concurrent=True)
class Sink:
    def __call__(self, x=None, **_):
        return len(x.encode() if isinstance(x, str) else x) if isinstance(x, (str, bytes)) else 0

    def drain(self, x):
        return sum(1 for _ in x)


class Threaded(Connection):
    """Runs each call on a thread of its own: those on one object in order, unless it is concurrent (ORD-2)."""

    def __init__(self, *args, **limits):
        self._lanes = {}  # what waits behind a call that runs
        super().__init__(*args, **limits)

    def _ready(self, answer):
        target = answer.target.value if isinstance(answer.target, farref.Answer) else answer.target
        parent = answer.parent.id if answer.parent else None
        in_order = parent is not None or not getattr(target, "_concurrent", True)
        lane = (id(target), parent) if in_order and not isinstance(target, farref.Roots) else None
        if lane in self._lanes:
            self._lanes[lane].append(answer)
            return
        if lane:
            self._lanes[lane] = []
        threading.Thread(target=self._run_lane, args=(lane, answer), daemon=True).start()

    def _run_lane(self, lane, answer):
        while answer:
            with self._cond:
                runs = not answer.returned
                answer.started = True
            if runs:
                self._run(answer)
            answer = None
            with self._cond:
                waiting = self._lanes.get(lane, [])
                if waiting:
                    answer = waiting.pop(0)
                elif lane:
                    del self._lanes[lane]


ROOTS = dict(
    caller=CALLER, counter=Function(Counter), echo=Function(echo), keeper=Function(lambda: Keeper()),
    maker=Function(lambda: Maker()), raiser=Raiser(), sink=Sink(), slow=Function(lambda: Slow()), source=Source())


if __name__ == "__main__":
    Threaded(0, 1, ROOTS, **LIMITS).wait_closed()
    os._exit(0)  # calls that still wait are nobody's any more
