"""Two Python peers against each other, scripted bytes, and the vectors. Exit code 0 if all passed."""
import contextlib
import gc
import hashlib
import hmac
import json
import os
import re
import struct
import sys
import threading
import time
import traceback

import farref
from farref import CallFailed, Connection, Contents, Cursor, Malformed, Named, RemoteException, SessionClosed, op, wait

HERE = os.path.dirname(os.path.abspath(__file__))
VECTORS = os.path.join(HERE, "..", "..", "vectors")


# ---- the serving process ----

class Server:
    """Roots of the other process."""

    def __init__(self):
        self.gate = threading.Event()

    def open(self, path, mode="r"):
        return open(path, mode)

    def walk(self, path, visitor):
        for row in os.walk(path):
            visitor_result = wait(visitor(row[0], tuple(sorted(row[1])), tuple(sorted(row[2]))))
            if visitor_result is False:
                break

    def let_go(self):
        self.gate.set()

    def hold(self):
        self.gate.wait(10)
        return [1, 2, 3]

    def fail(self, kind):
        if kind == "app":
            error = type("Busy", (Exception,), {"__module__": "app.errors"})
            raise error("a", 1 << 80, (None, -0.0))
        if kind == "unicode":
            b"\xff".decode()
        return {}["missing"]

    def echo(self, *args):
        return args

    def same(self, x):
        return x

    def call(self, f, *args):
        return wait(f(*args))

    def up(self, f, n):
        """Calls back and forth n levels deep."""
        return 0 if n == 0 else 1 + wait(f(self.up, n - 1))

    def big(self, n):
        return b"x" * n

    def files(self, n):
        return tuple([i] for i in range(n))

    def none(self):
        return None


def serve():
    server = Server()
    roots = {n: getattr(server, n) for n in dir(server) if not n.startswith("_") and n != "gate"}
    os.write(1, b"Welcome to host\r\n\xffnot yet\n")  # a login banner
    conn = Connection(0, 1, roots, handles=4)
    conn.wait_closed()


# ---- cases between two processes ----

@contextlib.contextmanager
def session(**limits):
    conn = Connection.spawn([sys.executable, os.path.abspath(__file__), "--serve"], **limits)
    try:
        yield conn
        settle(conn)
    finally:
        conn.close()


def settle(conn):
    end = time.monotonic() + 10
    while True:
        gc.collect()
        conn.flush()
        op(conn.root, farref.DESCRIBE)
        if not any(conn.tables().values()):
            return
        assert time.monotonic() < end, conn.tables()


def raises(kind, f, *args):
    try:
        f(*args)
    except kind as e:
        return e
    raise AssertionError("%s was not raised" % kind.__name__)


def case_a_pipelined_read():
    with session() as conn:
        text = wait(conn.root.open(__file__).read())
        assert text == open(__file__).read()


def case_calls_on_an_answer_that_has_not_settled():
    with session() as conn:
        promise = conn.root.same([[1, 2], 3])  # a list of ours: it comes home
        assert wait(promise) == [[1, 2], 3]
        answer = conn.root.echo("abc", 5)
        length, item, text = op(answer, farref.LENGTH, pipelined=True), answer[0], answer[0][1]
        assert (wait(length), wait(item), wait(text)) == (2, "abc", "b")
        raises(IndexError, wait, conn.root.echo(1)[7])
        e = raises(CallFailed, wait, conn.root.fail("key").anything())
        assert (e.name, e.values) == ("Broken", (0,)), e
        e = raises(CallFailed, wait, conn.root.echo(1).nothing())
        assert e.name == "Unsupported", e


def case_a_promise_as_an_argument():
    with session() as conn:
        assert wait(conn.root.echo(conn.root.same(5), conn.root.same("x"))) == (5, "x")


def case_an_answer_that_came_home_is_called():
    with session() as conn:
        # The answer of `same` is our own function; the callee forwards the call to us (ANS-6).
        assert wait(conn.root.same(lambda x: x + 1)(41)) == 42


def case_a_callback_runs_where_it_is_waited_for():
    with session() as conn:
        seen = []
        here = threading.get_ident()

        def visitor(path, directories, files):
            seen.append((path, directories, files, threading.get_ident()))

        wait(conn.root.walk(HERE, visitor))
        assert seen[0][0] == HERE and "farref.py" in seen[0][2], seen
        assert {row[3] for row in seen} == {here}


def case_nested_calls_both_ways():
    with session() as conn:
        def bounce(f, n):
            return 0 if n == 0 else 1 + wait(f(bounce, n - 1))
        assert wait(conn.root.up(bounce, 12)) == 12
        e = raises(CallFailed, wait, conn.root.up(bounce, 40))
        assert e.name == "TooDeep", e


def case_exceptions_are_exact():
    with session() as conn:
        e = raises(KeyError, wait, conn.root.fail("key"))
        assert e.args == ("missing",)
        e = raises(RemoteException, wait, conn.root.fail("app"))
        assert e.name == "app.errors.Busy" and e.args == ("a", 1 << 80, (None, -0.0)), (e.name, e.args)
        assert str(e.args[2][1]) == "-0.0"
        e = raises(UnicodeDecodeError, wait, conn.root.fail("unicode"))
        assert e.object == b"\xff"
        e = raises(FileNotFoundError, wait, conn.root.open("/no/such/file"))
        assert e._farref[1] == (2, "No such file or directory", "/no/such/file") and e.filename == "/no/such/file"
        # Over more hops: thrown by us, through the peer, back to us.
        def thrower():
            raise e
        again = raises(FileNotFoundError, wait, conn.root.call(thrower))
        assert again._farref == e._farref
        del again, e, thrower


def case_every_value_survives():
    with session() as conn:
        values = (None, True, False, NotImplemented, 0, 127, 128, -16, -17, 1 << 63, -(1 << 63), -(1 << 63) - 1, 1.5,
                  "é" * 40, b"", b"\0", ((), ((),)), tuple(range(20)), Contents(0x0A, [1, (2,)]), Contents(0x0B, [1]),
                  Contents(0x0C, [(1, 2)]))
        back = wait(conn.root.echo(*values))
        assert back == values, back
        assert [getattr(v, "tag", 0) for v in back] == [getattr(v, "tag", 0) for v in values]


def case_our_containers_stay_ours():
    with session() as conn:
        mine = {"a": [1, 2]}
        assert wait(conn.root.same(mine)) is mine
        f = wait(conn.root.open(__file__))
        assert wait(conn.root.same(f)) is f, "one object is one proxy"
        assert list(f)[0].startswith('"""Two Python peers')
        theirs = wait(conn.root.hold._fetch()) and wait(conn.root.call)  # members are objects too
        assert wait(theirs(lambda: 5)) == 5
        del f, theirs


def case_a_list_by_reference():
    with session() as conn:
        raises(CallFailed, wait, conn.root.nothing())
        names = [row[0] for row in op(conn.root, farref.DESCRIBE)]
        assert "walk" in names and names == sorted(names), names
        index = names.index("none")
        assert op(conn.root, farref.CALL_MEMBER + index) is None
        assert wait(conn.root["none"]()) is None
        e = raises(CallFailed, op, conn.root, farref.CALL_MEMBER + 999)
        assert (e.name, e.values) == ("NoSuchMember", (999,)), e
        e = raises(CallFailed, op, conn.root, 40)
        assert (e.name, e.values) == ("Unsupported", (40,)), e
        e = raises(CallFailed, wait, conn.root.none(1, 2))
        assert e.name == "BadArguments", e


def case_a_result_too_large_and_a_full_table():
    with session(max_message=4096, handles=2) as conn:
        e = raises(CallFailed, wait, conn.root.big(10000))
        assert e.name == "ResultTooLarge" and e.values[0] > 10000, e
        assert len(wait(conn.root.big(3000))) == 3000
        assert wait(conn.root.files(2))
        e = raises(CallFailed, wait, conn.root.files(3))
        assert e.name == "TableFull", e
        e = raises(CallFailed, conn.root.echo, [], [], [], [], [])  # the peer accepts 4: refused before it is sent
        assert e.name == "TableFull" and conn.tables()["exports"] == 0, e
    with session(imports=2) as conn:
        first = wait(conn.root.open(__file__))
        e = raises(CallFailed, wait, conn.root.open(__file__))
        assert e.name == "TableFull", e
        del first, e
        conn.flush()
        wait(conn.root.open(__file__))


def case_a_thousand_references_are_released():
    with session() as conn:
        for _ in range(1000):
            op(conn.root, farref.CALL_METHOD, "open", __file__)
        gc.collect()
        conn.flush()
        f = wait(conn.root.open(__file__))
        assert f._state[0] < 40 and f._state[1] > 0, "slots are used again: %r" % (f._state,)
        del f


def case_several_threads_share_a_connection():
    with session() as conn:
        bad = []

        def work(n):
            for i in range(50):
                if wait(conn.root.echo(n, i)) != (n, i):
                    bad.append((n, i))
        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        [t.start() for t in threads], [t.join() for t in threads]
        assert not bad, bad


def case_the_end_of_the_stream_ends_every_wait():
    conn = Connection.spawn([sys.executable, os.path.abspath(__file__), "--serve"])
    held, waiting = conn.root.hold(), conn.root.hold().nothing()
    errors = []
    thread = threading.Thread(target=lambda: errors.append(raises(SessionClosed, wait, waiting)))
    thread.start()
    time.sleep(0.2)
    conn.process.kill()
    raises(SessionClosed, wait, held)
    thread.join(5)
    assert errors
    raises(SessionClosed, conn.root.none)
    conn.close()


# ---- scripted bytes against one connection ----

HELLO = bytes.fromhex("10 01 01 00 80 40 40 20 80 80 04 08 10".replace(" ", "")) + bytes(16) + b"\x07"


class Script:
    """The other end of a connection, by hand."""

    def __init__(self, roots=(), hello=True, **limits):
        ours, self.out = os.pipe()
        self.inp, theirs = os.pipe()
        self.conn = Connection(ours, theirs, roots, **limits)
        self.data = b""
        if hello:
            self.raw(farref.PREAMBLE)
            self.send(HELLO)

    def raw(self, data):
        os.write(self.out, data)

    def send(self, *bodies):
        for body in bodies:
            body = bytes.fromhex(body) if isinstance(body, str) else body
            farref.put(head := bytearray(), len(body))
            self.raw(bytes(head) + body)

    def next(self):
        """The next record, as hex; Hello is skipped."""
        while True:
            body = self._next()
            if body is None or body[0] != 0x10:
                return body and body.hex(" ")

    def _next(self):
        while True:
            data = self.data[8:] if self.data.startswith(farref.PREAMBLE) else self.data
            c = Cursor(data)
            try:
                length = c.varint()
                body = c.take(length)
                self.data = data[c.pos:]
                return body
            except Malformed:
                more = os.read(self.inp, 65536)
                if not more:
                    return None
                self.data += more

    def closed(self, rule):
        while True:
            body = self._next()
            assert body is not None, "no Close"
            if body[0] == 0x11:
                assert rule is None or body[3:3 + body[2]].decode() == rule, body
                return


class Counter:
    def __init__(self):
        self.n = 0

    def add(self, k):
        self.n += k
        return self.n


def case_an_unknown_kind_is_answered_unimplemented():
    s = Script({"add": Counter().add})
    s.send("06 01 02 03", "19", "00 00 00 40 85")  # kinds 6 and 25, then add(5) by member number
    got = sorted([s.next(), s.next()])
    # Merged into one or sent as two, and both before or after the Return: it is sent when there is room.
    while not any(g.startswith("01") for g in got):
        got.append(s.next())
    bits = 0
    for g in got:
        if g.startswith("04"):
            bits |= Cursor(bytes.fromhex(g), 1).varint()
    while bits != 1 << 6 | 1 << 25:
        bits |= Cursor(bytes.fromhex(s.next()), 1).varint()
    assert "01 00 85" in got, got


def case_a_stale_release_changes_nothing():
    objects = [[1], [2]]
    s = Script({"item": lambda i: objects[i]})
    s.send("00 00 00 40 80")
    assert s.next() == "41 00 01 08 0d 00"  # ordinal 1: slot 1
    s.send("00 00 00 40 80")
    assert s.next() == "41 00 01 08 0d 00"  # ordinal 2: the same object, the same slot
    s.send("03 01 02", "00 00 04 05")  # Release{upto 1, slot 1} crossed it: ignored; len() still works
    assert s.next() == "01 00 81"
    s.send("03 03 02", "00 00 04 05")  # all seen: freed
    assert s.next() == "21 00 01"  # NoSuchObject
    s.send("03 03 02", "00 00 00 40 81")  # the same again does nothing; the slot has generation 1 now
    assert s.next() == "41 00 01 0c 01 0d 00"
    s.send("03 05 03 01")
    s.send("03 40 02")
    s.closed("REL-4")


def case_what_is_revoked_is_down():
    objects = [[1], [2]]
    s = Script({"item": lambda i: objects[i]})
    s.send("20 00 00 40 80")
    assert s.next() == "41 00 01 08 0d 00"
    assert not s.conn.revoke(objects[1])
    assert s.conn.revoke(objects[0])
    assert s.next() == "05 02 01"
    s.send("00 01 04 05", "40 01 00 40 01 09 80", "00 01 02 05")  # a call of it, it comes home, its promise: all Revoked
    assert [s.next() for _ in range(3)] == ["21 01 10 81"] * 3
    s.send("02 00", "03 02 02", "00 01 04 05")  # released, it is no more
    assert s.next() == "21 01 01"
    s.send("00 01 00 40 80")  # sent again it is a new reference
    assert s.next() == "41 01 01 0c 01 0d 00"


def next_after_flush(script):
    gc.collect()
    script.conn.flush()
    return script.next()


def case_nothing_is_called_that_is_down():
    kept = []
    s = Script({"keep": kept.append, "perform": lambda: wait(kept[0]()), "drop": kept.clear})
    s.send("40 00 00 40 01 08 0d 00")
    assert s.next() == "01 00"
    s.send("05 02 01", "00 00 00 41")
    assert s.next() == "21 00 10 81", "nothing was called"
    s.send("05 02 00", "00 00 00 42")  # told once; the second is ignored
    assert sorted([s.next(), next_after_flush(s)]) == ["01 00", "03 05 02"]
    s.send("05 02 01", "40 00 00 40 01 08 0d 00")  # it crossed the Release; the slot is sent again
    assert s.next() == "01 00"


def case_what_is_lent_is_not_released():
    kept = []
    s = Script({"keep": kept.append, "perform": lambda: wait(kept[0]()), "drop": kept.clear})
    s.send("40 00 00 40 01 0b 00 0d 00")
    assert s.next() == "01 00"
    s.send("00 00 00 41")
    assert s.next() == "21 00 01", "nothing was called"
    s.send("00 00 00 42", "00 01 00 05")
    assert sorted([s.next(), s.next()])[0] == "01 00"
    assert s.conn.tables()["imports"] == 0
    with session() as conn:
        before = conn._sent
        assert wait(conn.root.call(farref.Lent(lambda n: n + 1), 3)) == 4
        assert conn.tables()["exports"] == 0, "freed by the Return"
        assert conn._sent - before == 2, "a call and a Return"
        # Lent and sent: it stays until it is released.
        f = lambda: 1
        assert wait(conn.root.call(farref.Lent(f))) == 1
        assert wait(conn.root.same(f)) is f


def case_weak_references_are_upgraded():
    class Thing:
        pass

    thing = Thing()
    weak = farref.Weak(thing)
    s = Script({"weak": lambda: weak, "other": lambda: None})
    s.send("00 00 00 40")
    assert s.next() == "41 00 01 0b 01 0d 00"
    s.send("00 00 04 11")
    assert s.next() == "41 00 01 10 0d 00"
    s.send("03 02 04", "00 00 00 41")
    assert s.next() == "01 00"
    del thing
    gc.collect()
    s.send("00 00 00 41")
    assert sorted([s.next(), s.next()]) == ["01 00", "05 02 00"]
    s.send("00 00 04 11")
    assert s.next() == "21 00 10 80"


def case_faults_end_the_session():
    for rule, bodies in {
        "HEL-1": [HELLO], "CAL-2": ["01 07"], "FRM-2": [], "CAL-6": ["80 00 00 40 02 02 05 80"],
        "REL-4": ["03 00 20"], "REF-6": ["40 00 00 40 01 80 80 80 08 80"], "ADM-7": ["00 ff 7f 00 40"],
        "MSG-1": ["00 80"], "REF-8": ["05 28 01"],
    }.items():
        s = Script()
        s.send(*bodies)
        if rule == "FRM-2":
            s.raw(b"\x80\x00")
        s.closed(rule)
        assert raises(SessionClosed, wait, s.conn.root.x)
    s = Script(hello=False)
    s.raw(farref.PREAMBLE)
    s.send("00 00 00 40")
    s.closed("HEL-1")
    s = Script(hello=False)
    s.raw(b"login: " * 10000 + farref.PREAMBLE)
    s.closed("FRM-1")
    s = Script(hello=False)
    s.raw(farref.PREAMBLE)
    s.send(b"\x10\x02\x03" + HELLO[3:])
    s.closed("HEL-2")


def case_malformed_values_fail_one_call():
    s = Script({"add": Counter().add})
    for values in "04 00", "0d 00", "ff 10", "62 80", "0f 41 61 80 81":
        s.send("00 00 00 40 " + values)
        assert s.next() == "21 00 06", values
    s.send("00 00 00 40 85")
    assert s.next() == "01 00 85"


def case_an_interrupted_waiting_call_never_starts():
    counter = Counter()
    gate = threading.Event()

    def slow():
        gate.wait(10)
        return counter
    s = Script({"slow": slow})
    s.send("20 00 00 40", "20 01 02 04 43 61 64 64 81", "02 06")  # slow(), pipelined; add(1) on it; interrupt add
    assert s.next() == "21 01 0c 01"
    gate.set()
    assert s.next() == "41 00 01 08 0d 00"
    assert counter.n == 0
    s.send("00 02 02 04 43 61 64 64 82")  # the answer is kept until its Finish
    assert s.next() == "01 02 82"
    s.send("02 00", "00 02 02 04 43 61 64 64 82")
    assert s.next() == "21 02 0f"  # NoSuchAnswer


def case_the_reader_never_waits_for_the_writer():
    """The other side writes requests and reads nothing: all of them are still taken in."""
    s = Script({"big": lambda: b"x" * 8000}, answers=64)
    s.send(*["00 %02x 00 40" % i for i in range(64)])  # 512 kB of answers into a pipe of 64 kB
    time.sleep(0.1)
    s.send("05")
    for _ in range(65):
        assert s.next()


def case_a_call_has_what_is_left_of_its_deadline():
    """TIM-1, TIM-2, TIM-3."""
    s = Script({"echo": lambda x: x, "call": lambda f: farref.wait(f())})
    s.send("a0 00 00 01 02 04 00 84")  # no time left
    assert s.next() == "21 00 11"
    s.send("02 00", "80 00 00 00 04 04 00 06 02 44 65 63 68 6f 85".replace("00 00 04", "00 04 04", 1))
    assert s.next() == "01 00 85"  # a late result is welcome
    gate = threading.Event()
    s = Script({"slow": lambda: gate.wait(10) and 1})
    s.send("20 00 00 04 44 73 6c 6f 77", "80 01 02 0d 02 04 32 81")  # Equals 1, 50 ms after this at most
    assert s.next() == "21 01 11"
    gate.set()
    assert s.next() == "01 00 81"


def case_a_passed_deadline_of_ours_is_told():
    with session() as conn:
        slow = op(conn.root, farref.CALL_METHOD, "hold", pipelined=True, deadline=(50, farref.ABANDON))
        assert raises(farref.CallFailed, farref.wait, slow).code == farref.CODES.index("DeadlineExceeded")
        farref.wait(conn.root.let_go())
        del slow


def case_goodbye_ends_both_sides_when_all_is_quiet():
    """CLS-2."""
    s = Script({"echo": lambda x: x})
    s.send("00 00 00 04 44 65 63 68 6f 85", "18 00")  # it crosses the Return, and says nothing
    assert s.next() == "01 00 85"
    s.send("18 01")
    assert s.next() == "18 01"
    conn = Connection.spawn([sys.executable, os.path.abspath(__file__), "--serve"])
    op(conn.root, farref.DESCRIBE)
    conn.shutdown()
    assert conn.closed.args[1] == "CLS-2", conn.closed
    conn.close()


# ---- vectors ----

def load(name):
    with open(os.path.join(VECTORS, name)) as f:
        return json.load(f)


def same_value(v, j):
    """Whether a decoded value is what the JSON notation says."""
    if j is None or isinstance(j, (bool, str)):
        return type(v) is type(j) and v == j
    [(kind, j)] = j.items()
    if kind == "special":
        return v is NotImplemented
    if kind == "int":
        return type(v) is int and v == int(j)
    if kind == "float":
        return type(v) is float and struct.pack("<d", v) == struct.pack("<d", float(j))
    if kind == "bytes":
        return type(v) is bytes and v == bytes.fromhex(j)
    if kind == "reference":
        return isinstance(v, Entry) and v.index == j
    if kind == "named":
        return isinstance(v, Named) and v.name == j[0] and same_value(v.value, j[1])
    if kind == "exception":
        name, args, text, traceback = v._farref
        return name == j["name"] and same_value(args, {"tuple": j["args"]}) and text == j["text"] and (
            traceback is None if j["traceback"] is None else traceback.index == j["traceback"])
    if kind == "map":
        j = [{"tuple": pair} for pair in j]
    tag = dict(tuple=None, list=0x0A, set=0x0B, map=0x0C)[kind]
    return (type(v) is tuple if tag is None else isinstance(v, Contents) and v.tag == tag) and len(v) == len(j) and all(
        map(same_value, v, j))


class Entry:
    def __init__(self, index):
        self.index = index


def decode(entry, data):
    top = entry.get("top", "arguments")
    values = Cursor(data).values([Entry(i) for i in range(entry.get("handles", 0))], top == "arguments")
    if top == "result" and (len(values) > 1 or values == [None]) or top == "error" and len(values) > 4:
        raise Malformed(top)
    return values


def case_value_vectors():
    for entry in load("values.json"):
        data = bytes.fromhex(entry["hex"])
        if entry.get("refuse"):
            try:
                decode(entry, data)
            except Malformed:
                continue
            raise AssertionError("accepted: %s" % entry["name"])
        values = decode(entry, data)
        assert len(values) == len(entry["values"]) and all(map(same_value, values, entry["values"])), entry["name"]
        out = bytearray()
        for v in values:
            farref.put_value(out, v, lambda o: o.index)
        assert out == data, "%s: written as %s" % (entry["name"], out.hex(" "))
        for cut in range(len(data)):
            with contextlib.suppress(Malformed):
                decode(entry, data[:cut])


def message_as_json(m):
    def handle(h, export="export"):
        kind, n, generation = h
        return {"answer": n} if kind == "answer" else {kind: [n, generation]}
    kinds = {0: "call", 1: "return", 2: "finish", 3: "release", 4: "unimplemented", 5: "down", 16: "hello",
             17: "close", 18: "ack", 19: "ping", 21: "resume", 22: "resume ok", 23: "session gone", 24: "goodbye"}
    out = {"kind": kinds.get(m.kind, "unknown")}
    if m.kind in (0, 1):
        out.update(id=m.id, handles=[handle(h) for h in m.handles], values=m.values.data[m.values.pos:].hex())
    if m.kind == 0:
        target = handle(m.target)
        target = {"export": target["receiver"]} if "receiver" in target else target
        out.update(pipelined=m.pipelined, target=target, op=m.op, parent=m.parent)
        if m.deadline:
            out.update(deadline=list(m.deadline))
    elif m.kind == 1:
        out.update(error=m.error)
    elif m.kind == 2:
        out.update(entries=[[n, ("done", "abandon", "interrupt")[mode]] for n, mode in m.entries])
    elif m.kind == 3:
        out.update(upto=m.upto, entries=[list(e) for e in m.entries])
    elif m.kind == 5:
        out.update(entries=[list(e) for e in m.entries])
    elif m.kind == 4:
        out.update(kinds=m.kinds)
    elif m.kind == 16:
        out.update(m.limits, version_min=m.versions[0], version_max=m.versions[1], features=m.features,
                   peer=m.peer.hex(), incarnation=m.incarnation)
        if m.link is not None:
            out.update(link=dict(zip(("token", "replay", "park"), (m.link[0].hex(), *m.link[1:]))))
        if m.patience is not None:
            out.update(patience=m.patience)
    elif m.kind == 17:
        out.update(code=m.code, rule=m.rule, text=m.text)
    elif m.kind == 24:
        out.update(received=m.received)
    elif m.kind in kinds and m.kind != 19:
        fields = dict(token=m.token and m.token.hex(), attempt=m.attempt, incarnation=m.incarnation, got=m.got)
        out.update({name: field for name, field in fields.items() if field is not None})
    elif m.kind != 19:
        out.update(number=m.kind)
    return out


def case_message_vectors():
    for entry in load("messages.json"):
        data = bytes.fromhex(entry["hex"])
        if "message" in entry:
            got = message_as_json(farref.parse(data))
            assert got == entry["message"], "%s: %r" % (entry["name"], got)
            for cut in range(1, len(data)):
                with contextlib.suppress(Malformed):
                    farref.parse(data[:cut])
        elif len(data) > 0 and data[0] == 0x10:
            s = Script(hello=False)
            s.raw(farref.PREAMBLE)
            s.send(data)
            s.closed(None)
        elif len(data) > 0:
            try:
                farref.parse(data)
            except Malformed:
                continue
            raise AssertionError("accepted: %s" % entry["name"])


def case_stream_vectors():
    for entry in load("streams.json"):
        data = entry["hex"]
        if isinstance(data, dict):
            data = data["repeat"][0] * data["repeat"][1] + data["then"]
        data = bytes.fromhex(data)
        records, end = [], None
        stream = farref.Stream(entry.get("max_message", 64))
        for i in range(0, len(data), 7 if len(data) < 1000 else 1000):
            stream.data += data[i:i + (7 if len(data) < 1000 else 1000)]
            try:
                while True:
                    body = stream.next()
                    if body is None:
                        break
                    records.append(body.hex())
            except farref.Fault as e:
                end = "bad" if e.args[0] == "FRM-2" else "no peer"
                break
        end = end or ("searching" if stream.skipped is None else "incomplete" if stream.data else "complete")
        assert (records, end) == (entry["records"], entry["end"]), "%s: %r" % (entry["name"], (records, end))
        assert stream.skipped == entry.get("skipped", stream.skipped), entry["name"]


KEY_MARK = b"\xfffarkey\n"


class KeyCheck:
    """One side of the check of SPEC.md section 14, fed byte by byte."""

    def __init__(self, role, key, nonce, banner):
        self.connecting, self.key, self.nonce, self.banner = role == "connecting", key, nonce, banner
        self.due = 2 if self.connecting else 1
        self.first, self.data, self.sent, self.end, self.reason = True, b"", b"", "going", None
        if self.connecting:
            self.send(1, nonce)

    def send(self, kind, body):
        self.sent += KEY_MARK + bytes([1, kind]) + body

    def proof(self, kind):
        head = KEY_MARK + bytes([1, kind])
        return hmac.new(self.key, head + self.nonces[0] + self.nonces[1], hashlib.sha256).digest()

    def fail(self, end, reason=None):
        self.end = end
        if reason and not self.connecting:
            self.send(5, bytes([reason]))

    def feed(self, byte):
        self.data += bytes([byte])
        if self.first and len(self.data) <= 8:
            while self.data and not any(mark.startswith(self.data) for mark in (KEY_MARK, farref.PREAMBLE)):
                self.data, self.banner = self.data[1:], self.banner - 1
            if self.banner < 0:
                self.fail("no peer")
            elif self.data == farref.PREAMBLE:
                self.fail("no key", 1)
            return
        if self.data[:8] != KEY_MARK[:len(self.data)]:
            self.fail("out of order", 4)
        elif len(self.data) == 10:
            version, kind = self.data[8:]
            if kind == 5:
                pass
            elif version != 1:
                self.fail("version", 3)
            elif kind == 1 and self.connecting:
                self.fail("same role")
            elif kind != self.due:
                self.fail("out of order", 4)
        elif len(self.data) == 11 and self.data[9] == 5:
            self.end, self.reason = "refused", self.data[10]
        elif len(self.data) == 42:
            body, self.data, first, self.first = self.data[10:], b"", self.first, False
            if first:
                self.nonces = (self.nonce, body) if self.connecting else (body, self.nonce)
                self.send(3, self.proof(3)) if self.connecting else self.send(2, self.nonce)
                self.due += 2
            elif not hmac.compare_digest(self.proof(self.due), body):
                self.fail("wrong key", 2)
            else:
                self.end = "passed"
                if not self.connecting:
                    self.send(4, self.proof(4))


def case_key_vectors():
    for entry in load("key.json"):
        if "text" in entry:
            digits = re.fullmatch(r"[ \t\n\f\r]*((?:[0-9a-fA-F]{2}){16,64})[ \t\n\f\r]*", entry["text"])
            assert (digits and digits[1].lower()) == entry.get("key"), entry["name"]
            continue
        check = KeyCheck(entry["role"], bytes.fromhex(entry["key"]), bytes.fromhex(entry["nonce"]), entry.get("banner", 0))
        rest = bytes.fromhex(entry["receive"])
        while rest and check.end == "going":
            check.feed(rest[0])
            rest = rest[1:]
        got = (check.sent.hex(), check.end, check.reason)
        assert got == (entry["send"], entry["end"], entry.get("reason")), "%s: %r" % (entry["name"], got)
        if check.end == "passed":
            assert rest.hex() == entry.get("rest", ""), "%s: left %r" % (entry["name"], rest)


def main():
    if "--serve" in sys.argv:
        return serve()
    failed, cases = 0, [(n, f) for n, f in globals().items() if n.startswith("case_")]
    for name, case in cases:
        try:
            case()
            print("ok      %s" % name[5:].replace("_", " "), flush=True)
        except BaseException:
            failed += 1
            print("FAILED  %s" % name[5:].replace("_", " "), flush=True)
            traceback.print_exc(file=sys.stdout)
    print("%d passed, %d failed" % (len(cases) - failed, failed))
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
