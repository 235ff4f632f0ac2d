"""farref over a byte pipe: one file, standard library only, written from SPEC.md (the wire, version 1).

    conn = Connection.spawn(["farref", "serve", "--stdio", "--root", "."])
    text = wait(conn.root.open("README.md").read())      # two calls, one round trip

Every public name of a `Remote` or a `Promise` is a name at the other side; calling and indexing give promises, on
which calls can be made before they settle. `wait` fetches. Values travel by value, all other objects by reference and
may be called back. Rule ids such as REL-2 are SPEC.md's.
"""
import collections, heapq, inspect, itertools, operator, os, struct, subprocess, threading, time, types, uuid
import weakref

PREAMBLE = b"\xfffarref\n"
CALL, RETURN, FINISH, RELEASE, UNIMPLEMENTED, DOWN, HELLO, CLOSE, ACK, PING = 0, 1, 2, 3, 4, 5, 16, 17, 18, 19
RESUME, RESUME_OK, SESSION_GONE, GOODBYE = 21, 22, 23, 24
(OP_CALL, GET_ATTR, SET_ATTR, DEL_ATTR, CALL_METHOD, LENGTH, GET_ITEM, SET_ITEM, DEL_ITEM, CONTAINS, ITERATE, NEXT,
 TEXT, EQUALS, HASH, FORCE, DESCRIBE, UPGRADE) = range(18)
CALL_MEMBER = 64
CODES = ("Raised NoSuchObject NoSuchMember Unsupported BadArguments AccessDenied Malformed Overloaded TableFull "
         "ResultTooLarge Broken PromiseCycle Cancelled NotKept TooDeep NoSuchAnswer Revoked DeadlineExceeded").split()
CANCEL, ABANDON, LATE = range(3)  # what becomes of a call whose deadline has passed (TIM-3)
MAX_REMAINING = (1 << 31) - 1
LIMITS = dict(max_message=1 << 20, imports=1 << 20, answers=256, call_bytes=1 << 24, handles=64, levels=16)
EXCEPTIONS = {c.__name__: c for c in (
    KeyError, IndexError, ValueError, TypeError, AttributeError, ZeroDivisionError, OverflowError, StopIteration,
    NotImplementedError, OSError, FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError,
    NotADirectoryError, UnicodeDecodeError, RuntimeError)}  # ERR-3


class SessionClosed(Exception):
    """The session has ended: arguments are code, rule, text of the Close (or what happened instead)."""


class Fault(Exception):
    """The peer broke a rule, which ends the session. Arguments: rule, text."""


class Malformed(Exception):
    """Bytes that are no canonical encoding."""


class CallFailed(Exception):
    """An error Return other than Raised. Raise it in a served object to refuse a call with a code of section 9."""

    def __init__(self, code, *values):
        self.code, self.values = CODES.index(code) if isinstance(code, str) else code, values
        self.name = CODES[self.code] if self.code < len(CODES) else str(self.code)
        super().__init__(self.name, *values)


class RemoteException(Exception):
    """An exception whose class is not known here. `name` is its dotted path, `args` are exact."""


class Named(collections.namedtuple("Named", "name value")):
    """A named argument."""


class Contents(list):
    """A container by value (VAL-5). `tag` is 0x0A for a list, 0x0B for a set, 0x0C for a map (a list of pairs)."""

    def __init__(self, tag, items):
        super().__init__(items)
        self.tag = tag


# ---- values (section 8) ----

VALUES = (type(None), bool, int, float, str, bytes, tuple, type(NotImplemented), BaseException, Contents)


def put(out, n):
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)


def put_value(out, v, reference, depth=1):
    """Appends one value. `reference(obj)` gives the handle index of anything that is no value."""
    if depth > 16:
        raise ValueError("nested too deep")
    if v is None or v is False or v is True or v is NotImplemented:
        out.append([None, False, True, NotImplemented].index(v) if v is not None else 0)
    elif isinstance(v, int):
        if -16 <= v <= 127:
            out.append(0x80 + v)
        elif -1 << 63 <= v < 1 << 63:
            out.append(0x04)
            put(out, v << 1 if v >= 0 else -2 * v - 1)
        else:
            size = (abs(v).bit_length() + 7) // 8
            out.append(0x05)
            put(out, size << 1 | (v < 0))
            out += abs(v).to_bytes(size, "little")
    elif isinstance(v, float):
        out += b"\x06" + (struct.pack("<d", v) if v == v else b"\0\0\0\0\0\0\xf8\x7f")
    elif isinstance(v, str):
        data = v.encode()
        if len(data) < 32:
            out.append(0x40 + len(data))
        else:
            out.append(0x07)
            put(out, len(data))
        out += data
    elif isinstance(v, bytes):
        out.append(0x08)
        put(out, len(v))
        out += v
    elif isinstance(v, Named):
        out.append(0x0F)
        put_value(out, v.name, reference, depth)
        put_value(out, v.value, reference, depth)  # a named argument is no level of its own
    elif isinstance(v, (tuple, Contents)):
        if isinstance(v, tuple) and len(v) < 16:
            out.append(0x60 + len(v))
        else:
            out.append(v.tag if isinstance(v, Contents) else 0x09)
            put(out, len(v))
        for item in itertools.chain(*v) if isinstance(v, Contents) and v.tag == 0x0C else v:
            put_value(out, item, reference, depth + 1)
    elif isinstance(v, BaseException):
        out.append(0x0E)
        for part in exception_parts(v):
            put_value(out, part, reference, depth + 1)
    else:
        out.append(0x0D)
        put(out, reference(v))


def exception_parts(e):
    if hasattr(e, "_farref"):  # it came from the wire: exact over any number of hops (VAL-7)
        return e._farref
    name = type(e).__name__ if type(e).__module__ == "builtins" else type(e).__module__ + "." + type(e).__qualname__
    path = (e.filename,) if isinstance(e, OSError) and e.filename is not None and len(e.args) == 2 else ()
    return name, tuple(e.args) + path, str(e)[:500], None


def make_exception(name, args, text, traceback):
    try:
        e = EXCEPTIONS[name](*args)
    except (KeyError, TypeError, ValueError):
        e = RemoteException(*args)
    e.name = name if isinstance(e, RemoteException) else getattr(e, "name", None)
    e._farref = name, args, text, traceback
    return e


class Cursor:
    """Reads canonical bytes from `data[pos:end]`."""

    def __init__(self, data, pos=0, end=None):
        self.data, self.pos, self.end = data, pos, len(data) if end is None else end

    def left(self):
        return self.end - self.pos

    def take(self, n):
        if n > self.left():
            raise Malformed("truncated")
        self.pos += n
        return bytes(self.data[self.pos - n:self.pos])

    def varint(self, most=(1 << 64) - 1, least=0):
        n = shift = 0
        while True:
            b = self.take(1)[0]
            n |= (b & 0x7F) << shift
            if b < 0x80:
                break
            shift += 7
            if shift > 63:
                raise Malformed("varint too long")
        if b == 0 and shift or not least <= n <= most:
            raise Malformed("varint not canonical or out of range")
        return n

    def text(self, length=None):
        try:
            return self.take(self.varint() if length is None else length).decode()
        except UnicodeDecodeError:
            raise Malformed("not UTF-8") from None

    def count(self, least=0):
        n = self.varint(least=least)
        if n > self.left():  # each item takes a byte at least
            raise Malformed("count")
        return n

    def value(self, handles, depth=1, tags=None):
        tag = self.take(1)[0]
        if depth > 16 or tags and tag not in tags:
            raise Malformed("too deep or out of place")
        items = lambda n: [self.value(handles, depth + 1) for _ in range(n)]
        if tag >= 0x70:
            return tag - 0x80
        if 0x40 <= tag <= 0x5F:
            return self.text(tag - 0x40)
        if 0x60 <= tag <= 0x6F:
            return tuple(items(tag - 0x60))
        if tag <= 0x03:
            return (None, False, True, NotImplemented)[tag]
        if tag == 0x04:
            z = self.varint()
            v = -(z + 1 >> 1) if z & 1 else z >> 1
            if -16 <= v <= 127:
                raise Malformed("integer not folded")
            return v
        if tag == 0x05:
            head = self.varint()
            data = self.take(head >> 1)
            v = int.from_bytes(data, "little") * (-1 if head & 1 else 1)
            if not data or data[-1] == 0 or -1 << 63 <= v < 1 << 63:
                raise Malformed("big integer not canonical")
            return v
        if tag == 0x06:
            data = self.take(8)
            v = struct.unpack("<d", data)[0]
            if v != v and data != b"\0\0\0\0\0\0\xf8\x7f":
                raise Malformed("NaN not canonical")
            return v
        if tag == 0x07:
            return self.text(self.varint(least=32))
        if tag == 0x08:
            return self.take(self.varint())
        if tag == 0x09:
            return tuple(items(self.count(16)))
        if tag in (0x0A, 0x0B):
            return Contents(tag, items(self.count()))
        if tag == 0x0C:
            return Contents(tag, [tuple(items(2)) for _ in range(self.count())])
        if tag == 0x0D:
            index = self.varint()
            if index >= len(handles):
                raise Malformed("no such handle")
            return handles[index]
        if tag == 0x0E:
            return make_exception(self.value(handles, depth + 1, STRING), self.value(handles, depth + 1, TUPLE),
                                  self.value(handles, depth + 1, STRING | {0}), self.value(handles, depth + 1, {0, 13}))
        if tag == 0x0F and depth == 1:  # VAL-8; `values` refuses it where none may stand
            return Named(self.value(handles, 2, STRING), self.value(handles, 1, PLAIN))
        raise Malformed("reserved tag")

    def values(self, handles, named=False):
        """All that is left: a list of values, then `Named` ones if they are allowed."""
        out = []
        while self.left():
            v = self.value(handles)
            if isinstance(v, Named) and not named or out and isinstance(out[-1], Named) and not isinstance(v, Named):
                raise Malformed("named argument out of place")
            out.append(v)
        return out


PLAIN = set(range(256)) - {0x0F}
STRING, TUPLE = {7, *range(0x40, 0x60)}, {9, *range(0x60, 0x70)}


# ---- framing (section 2) ----

class Stream:
    """Bytes to records: append to `data`, ask for the `next` body."""

    def __init__(self, max_message):
        self.data, self.max_message, self.skipped = bytearray(), max_message, None  # skipped: bytes of banner

    def next(self):
        """A record's body, or None if it is not all there."""
        data = self.data
        if self.skipped is None:
            at = data.find(PREAMBLE)
            if at > 65536 or at < 0 and len(data) >= 65536 + len(PREAMBLE):
                raise Fault("FRM-1", "no farref peer is there")
            if at < 0:
                return None
            self.skipped = at
            del data[:at + len(PREAMBLE)]
        cursor = Cursor(data, 0, min(len(data), 10))
        try:
            length = cursor.varint(self.max_message, 1)
        except Malformed as e:
            if str(e) == "truncated" and len(data) < 10:
                return None
            raise Fault("FRM-2", "bad record length") from None
        if len(data) - cursor.pos < length:
            return None
        body = bytes(data[cursor.pos:cursor.pos + length])
        del data[:cursor.pos + length]
        return body


# ---- messages (sections 3 to 6): an envelope taken apart, without any state ----

U16, U32 = (1 << 16) - 1, (1 << 32) - 1


def parse(body):
    """The message in a record's body. Malformed if the envelope is; the values are left where `values` stands."""
    c, kind, flags, m = Cursor(body, 1), body[0] & 0x1F, body[0] >> 5, types.SimpleNamespace()
    m.kind, m.size = kind, len(body)
    if not (kind <= DOWN or HELLO <= kind <= PING or RESUME <= kind <= GOODBYE):
        return m
    if flags and kind > RETURN:
        raise Malformed("undefined flag")
    if kind in (CALL, RETURN):
        m.id = c.varint(U16)
        if kind == CALL:
            m.pipelined, m.target = bool(flags & 1), parse_named(c, 2)
            m.op = c.varint(U32)
        m.handles = [parse_named(c, 3) for _ in range(c.varint(U32, 1))] if flags & 2 else []
        fields = parse_extension(c) if flags & 4 else {}
        m.parent = fields.get(1) if kind == CALL else None
        m.deadline = parse_deadline(fields) if kind == CALL else None
        m.error = c.varint(U32) if kind == RETURN and flags & 1 else None
        if not (m.parent is None or isinstance(m.parent, int) and m.parent <= U16) or kind == RETURN and any(
                h[0] in ("answer", "borrowed") for h in m.handles):
            raise Malformed("parent or descriptor")
        m.values = c
        return m
    if kind == HELLO:
        m.versions, m.features = (c.varint(U16, 1), c.varint(U16, 1)), c.varint()
        m.limits = dict(max_message=c.varint(U32, 64), imports=c.varint(1 << 24), answers=c.varint(U16),
                        call_bytes=c.varint(U32), handles=c.varint(U16), levels=c.varint(U16, 1))
        m.peer, m.incarnation = c.take(16), c.varint()
        m.link = (c.take(16), c.varint(U32), c.varint(U32)) if m.features & 1 else None  # not offered here (LNK-1)
        m.patience = c.varint(U32) if m.features & 2 else None
        if len(body) > 256:
            raise Malformed("Hello too long")
        return m  # what follows are fields of later versions (HEL-2)
    if kind == UNIMPLEMENTED:
        m.kinds = c.varint(U32, 1)
    elif kind == PING:
        pass
    elif kind == GOODBYE:
        m.received = c.varint()
    elif kind == CLOSE:
        m.code, m.rule, m.text = c.varint(U32), c.text(), c.text()
        if len(m.rule.encode()) > 16 or len(m.text.encode()) > 256:
            raise Malformed("Close")
    elif kind >= ACK:
        m.token = c.take(16) if kind in (RESUME, RESUME_OK) else None
        m.attempt = c.varint(U32) if kind == RESUME else None
        m.incarnation = c.varint() if kind == SESSION_GONE else None
        m.got = c.varint()
    elif kind == DOWN:
        m.entries = []
        while c.left() or not m.entries:
            n = c.varint(U32 << 1 | 1)
            m.entries.append((n >> 1, c.varint(U16, 1) if n & 1 else 0, c.varint(254)))
    else:
        m.upto, m.entries = c.varint(U32) if kind == RELEASE else None, []
        while c.left() or not m.entries:
            n = c.varint(U16 << 2 | 3 if kind == FINISH else U32 << 1 | 1)
            m.entries.append((n >> 2, n & 3) if kind == FINISH else (n >> 1, c.varint(U16, 1) if n & 1 else 0))
            if kind == FINISH and n & 3 == 3:
                raise Malformed("reserved mode")
    if c.left():
        raise Malformed("trailing bytes")
    return m


def parse_named(c, bits):
    """A call's target (2 bits) or a descriptor (3 bits): (kind, number, generation); kind is "sender", "receiver", "answer",
    or of the sender's objects "borrowed" (REF-9) or "weak" (REF-10)."""
    head = c.varint()
    n, g = head >> bits, head & 1 if bits == 2 else head >> 2 & 1
    kind = ("receiver", "answer")[head >> 1 & 1] if bits == 2 else ("sender", "receiver", "answer", "scoped")[head & 3]
    if kind == "answer" and g or n > (U16 if kind == "answer" else U32):
        raise Malformed("target or descriptor")
    generation = c.varint(U16, 1) if g else 0
    return ("borrowed", "weak")[c.varint(1)] if kind == "scoped" else kind, n, generation


def parse_extension(cursor):
    fields, c = {}, Cursor(cursor.take(cursor.varint(least=1)))
    while c.left():
        key = c.varint()
        if key >> 1 <= max(fields, default=-1):
            raise Malformed("keys must ascend")
        fields[key >> 1] = c.take(c.varint()) if key & 1 else c.varint()
    return fields


def parse_deadline(fields):
    """How many milliseconds a call has, and what its caller does then (TIM-1); None if it says nothing."""
    remaining, consequence = fields.get(2), fields.get(3)
    if consequence is not None and (remaining is None or consequence not in (ABANDON, LATE)):
        raise Malformed("consequence")
    if remaining is not None and not (isinstance(remaining, int) and remaining <= MAX_REMAINING):
        raise Malformed("deadline")
    return None if remaining is None else (remaining, consequence or CANCEL)


def after(ms, f, *args):
    """Calls f so many milliseconds from now, on a thread of its own."""
    timer = threading.Timer(ms / 1000, f, args)
    timer.daemon = True
    timer.start()


# ---- what operations do (section 10) ----

def members(obj):
    """What Describe lists, and so all that names off the wire can reach (OPS-3): the public names."""
    own = getattr(type(obj), "_members", None)
    return own(obj) if own else [n for n in dir(obj) if not n.startswith("_")]


def kind_of(obj, name):
    """0 method, 1 read only, 2 read and write, 3 constant (OPS-2)."""
    if isinstance(obj, Roots):
        return 3
    if callable(getattr(obj, name)):
        return 0
    on_type = getattr(type(obj), name, None)
    if isinstance(on_type, property):
        return 2 if on_type.fset else 1
    return 3 if hasattr(type(obj), name) and name not in getattr(obj, "__dict__", ()) else 2


def member(obj, name):
    names = members(obj)
    if type(name) not in (int, str):
        raise CallFailed("BadArguments", "a member's name or number")
    if isinstance(name, int) and 0 <= name < len(names):
        name = names[name]
    if name not in names:
        raise CallFailed("NoSuchMember", name)
    return name


def invoke(f, args, named):
    if not callable(f):
        raise CallFailed("Unsupported", OP_CALL)
    try:
        inspect.signature(f).bind(*args, **named)
    except TypeError as e:
        raise CallFailed("BadArguments", str(e)) from None
    except ValueError:
        pass  # a builtin without a signature
    return f(*args, **named)


def describe(obj):
    def row(name):
        m = getattr(obj, name)
        return name, kind_of(obj, name), (inspect.getdoc(m) or "") if callable(m) else ""
    return tuple(row(name) for name in members(obj))


def same(a, b):
    """Equality of values is that of their encodings (OPS-5)."""
    seen, out = {}, (bytearray(), bytearray())
    for v, o in zip((a, b), out):
        put_value(o, v, lambda obj: seen.setdefault(id(obj), len(seen)))
    return out[0] == out[1]


def value_item(v, key):
    if isinstance(v, Contents) and v.tag == 0x0C:
        for k, item in v:
            if same(k, key):
                return item
        raise KeyError(key)
    if not isinstance(v, (str, bytes, tuple, list)) or isinstance(v, Contents) and v.tag == 0x0B:
        raise CallFailed("Unsupported", GET_ITEM)
    if type(key) is not int:
        raise CallFailed("BadArguments", "an index is an integer")
    return v[key]


def perform(obj, op, args, named):
    """Applies an operation to a local object or value. Special methods are looked up on the type, as Python does."""
    is_value, arity = isinstance(obj, VALUES), (None, 1, 2, 1, None, 0, 1, 2, 1, 1, 0, 1, None, 1, 0, 0, 0, 0)
    if op >= CALL_MEMBER:
        op, args = CALL_METHOD, (op - CALL_MEMBER,) + tuple(args)
    if op > UPGRADE or is_value and op not in (LENGTH, GET_ITEM, CONTAINS, EQUALS, TEXT, FORCE):
        raise CallFailed("Unsupported", op)
    if op == CALL_METHOD and not args or arity[op] not in (None, len(args)) or named and op not in (0, CALL_METHOD):
        raise CallFailed("BadArguments", "wrong number of arguments")
    if op == OP_CALL:
        return invoke(obj, args, named)
    if op == CALL_METHOD:
        return invoke(getattr(obj, member(obj, args[0])), args[1:], named)
    if op in (GET_ATTR, SET_ATTR, DEL_ATTR):
        name = member(obj, args[0])
        if op != GET_ATTR and kind_of(obj, name) != 2:
            raise CallFailed("AccessDenied", name + " is read only")
        return (getattr, setattr, delattr)[op - 1](obj, name, *args[1:])
    if op == TEXT:
        if len(args) > 1 or args and type(args[0]) is not bool:
            raise CallFailed("BadArguments", "whether the text is to be exact")
        return repr(obj) if args and args[0] else str(obj)
    if op == EQUALS and (is_value or type(obj).__eq__):
        return same(obj, args[0]) if is_value else type(obj).__eq__(obj, args[0])
    if op == DESCRIBE:
        return describe(obj)
    if op == UPGRADE and isinstance(obj, Weak):
        return obj._ref()
    if op == FORCE:
        for kind, tag in (list, 0x0A), (set, 0x0B), (frozenset, 0x0B), (dict, 0x0C):
            if isinstance(obj, kind) and not is_value:
                return Contents(tag, obj.items() if kind is dict else obj)
        if isinstance(obj, (tuple, Contents, str, bytes)):
            return obj
    elif op == GET_ITEM and is_value:
        return value_item(obj, args[0])
    elif op == CONTAINS and isinstance(obj, (tuple, Contents)):
        return any(same(args[0], k[0] if isinstance(obj, Contents) and obj.tag == 0x0C else k) for k in obj)
    elif op == NEXT and hasattr(type(obj), "__next__"):
        if type(args[0]) is not int or args[0] < 1:
            raise CallFailed("BadArguments", "how many items at most")
        return tuple(itertools.islice(obj, args[0]))
    else:
        special = {LENGTH: "len", GET_ITEM: "getitem", SET_ITEM: "setitem", DEL_ITEM: "delitem", CONTAINS: "contains",
                   ITERATE: "iter", HASH: "hash"}.get(op)
        if special and getattr(type(obj), "__%s__" % special, None):
            f = {LENGTH: len, ITERATE: iter, HASH: hash}.get(op) or getattr(operator, special)
            return f(obj, *args)
    raise CallFailed("Unsupported", op)


class Roots:
    """The directory in slot 0 (DIR-1)."""

    def __init__(self, roots):
        self.__dict__.update(roots)

    def _members(self):
        return list(self.__dict__)

    def __getitem__(self, name):
        return getattr(self, member(self, name))


class Lent:
    """An argument that is lent to its call: the other side holds it until the Return, and no Release is needed (REF-9)."""

    def __init__(self, obj):
        self.obj = obj


class Weak:
    """A weak reference to send: `op(remote, UPGRADE)` gives the object, or none when it is gone (REF-10)."""

    def __init__(self, obj):
        self._ref = weakref.ref(obj)


# ---- proxies ----

class Target:
    """What can be called at the other side. All names without a leading underscore are remote ones."""

    def __init__(self, conn, state):
        self.__dict__.update(_conn=conn, _state=state)

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        return Member(self, name)

    def __setattr__(self, name, value):
        wait(self._conn._send(self, SET_ATTR, (name, value)))

    def __call__(self, *args, **named):
        return self._conn._send(self, OP_CALL, args, named)

    def __getitem__(self, key):
        return self._conn._send(self, GET_ITEM, (key,))

    def __setitem__(self, key, value):
        wait(self._conn._send(self, SET_ITEM, (key, value)))

    def __contains__(self, value):
        return wait(self._conn._send(self, CONTAINS, (value,)))

    def __iter__(self):
        iterator = self._conn._send(self, ITERATE)
        while True:
            items = wait(self._conn._send(iterator, NEXT, (256,)))
            if not items:
                return
            yield from items


class Remote(Target):
    """An object of the other side. `_state` is (slot, generation), or None when it was lent to a call that has returned.
    Dropping the last copy marks the slot (REL-1). `_down` is why it is down, if it is (REF-8)."""

    _down = None

    def __init__(self, conn, state, weak=False):
        super().__init__(conn, state)
        self.__dict__["_weak"] = weak


class Promise(Target):
    """The answer to a call that may not have settled yet. `_state` is its Question."""


class Member:
    """A named member that has not been fetched: calling it is one message, `wait` fetches it."""

    def __init__(self, target, name):
        self._target, self._name = target, name

    def __call__(self, *args, **named):
        return self._target._conn._send(self._target, CALL_METHOD, (self._name,) + args, named)

    def _fetch(self):
        return self._target._conn._send(self._target, GET_ATTR, (self._name,))

    def __getattr__(self, name):
        return getattr(self._fetch(), name)

    def __getitem__(self, key):
        return self._fetch()[key]


def wait(x, timeout=None):
    """The value that a promise settles to; raises what the call raised. Callbacks that it causes run here meanwhile."""
    x = x._fetch() if isinstance(x, Member) else x
    return x._conn._wait(x._state, timeout) if isinstance(x, Promise) else x


def op(x, code, *args, pipelined=False, deadline=None):
    """Any operation of section 10, in one call; waits for the value, or gives a promise if it is to be pipelined. The
    deadline is a pair: milliseconds, and CANCEL, ABANDON or LATE."""
    promise = x._conn._send(x, code, args, pipelined=pipelined, deadline=deadline)
    return promise if pipelined else wait(promise)


# ---- the session ----

class Question:
    """A call that was sent. Its id is free once it has its Return, its Finish and no dependents (CAL-3)."""

    def __init__(self, call_id, level, size, pipelined, names):
        self.id, self.level, self.size, self.pipelined, self.names = call_id, level, size, pipelined, names
        self.returned = self.finished = False
        self.dependents = self.waiters = 0
        self.value = self.error = None
        self.abandoned = False
        self.lent = []  # slots that were lent to it
        self.work = []  # calls that name this one as their parent run where it is waited for


class Answer:
    """A call that was received."""

    def __init__(self, call_id, ordinal, size, pipelined):
        self.id, self.ordinal, self.size, self.pipelined = call_id, ordinal, size, pipelined
        self.names, self.waiting, self.handles = [], set(), []  # waiting: the named answers that have not settled
        self.target = self.values = self.parent = self.value = self.error = None
        self.op = self.level = self.dependents = 0
        self.lent = []  # slots that were lent to it
        self.started = self.returned = self.finished = self.revoked = False
        self.deadline = None  # when it is over, by our clock, and what its caller does then

    def __lt__(self, other):
        return self.ordinal < other.ordinal


NO_ANSWER = Answer(None, 0, 0, False)


class Export:
    def __init__(self):
        self.obj, self.generation, self.issued, self.last_sent, self.live = None, 0, -1, 0, False
        self.scope = self.down = None  # the id of the call that it is lent to; why it is revoked


class Tombstone:
    """What the handle of a revoked object names (REF-8)."""

    def __init__(self, reason):
        self.reason = reason


MISSING = object()  # what a stale handle names


def failure_of(objects):
    """The error of a message in which one is stale or revoked, by identity: decoding runs no code of users, and so none of
    their comparisons (CAL-7)."""
    if any(o is MISSING for o in objects):
        return CallFailed("NoSuchObject")
    return next((CallFailed("Revoked", o.reason) for o in objects if type(o) is Tombstone), None)


serving = threading.local()  # .answer: the call that this thread is running


class Connection:
    """A session over two file descriptors. `roots` are the objects in our directory."""

    def __init__(self, read_fd, write_fd, roots=(), process=None, **limits):
        self._fds, self.process, self.ours = (read_fd, write_fd), process, dict(LIMITS, **limits)
        self._cond = threading.Condition(threading.RLock())
        self.peer = self.closed = None  # the other's Hello; why the session is over
        self.questions, self.answers, self.imports = {}, {}, {}  # imports: slot -> (generation, weak proxy)
        self.exports, self._slot_of, self._free = [Export()], {}, collections.deque()
        self._sent = self._received = 0  # ordinals (MSG-2)
        self._out, self._finish, self._unknown, self._work = [PREAMBLE], [], 0, []
        self._dropped = collections.deque()  # slots whose proxy is gone, perhaps: the mark of REL-1
        self._gone = collections.deque()  # weak references whose object is gone
        self._lent, self._downs = {}, {}  # imports that are lent, slot -> call id; that are down, slot -> reason
        self._highest = 0  # the highest slot that came
        self.unimplemented = 0
        self._leaving, self._said, self._heard = False, None, None  # Goodbyes: the ordinals when they were (CLS-2)
        directory = self.exports[0]
        directory.obj, directory.live, self.root = Roots(dict(roots)), True, Remote(self, (0, 0))
        self._slot_of[id(directory.obj)] = 0  # REF-7
        hello = bytearray([HELLO])
        for n in (1, 1, 0, *(self.ours[k] for k in LIMITS)):
            put(hello, n)
        self._own = uuid.uuid4().bytes, time.time_ns() & (1 << 63) - 1
        hello += self._own[0]
        put(hello, self._own[1])
        with self._cond:
            self._enqueue(hello)  # HEL-1: at once
        threads = [threading.Thread(target=f, daemon=True) for f in (self._write, self._read, self._serve)]
        self._writer = threads[0]
        for thread in threads:
            thread.start()

    @classmethod
    def spawn(cls, argv, roots=(), **limits):
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        return cls(process.stdout.fileno(), process.stdin.fileno(), roots, process, **limits)

    def tables(self):
        """Sizes of the tables, the directories left out; all zero at baseline."""
        with self._cond:
            return dict(questions=len(self.questions), answers=len(self.answers), imports=len(self.imports),
                        exports=sum(e.live for e in self.exports[1:]))

    def flush(self):
        """Sends the Release and Finish that would go with the next output."""
        with self._cond:
            self._chores()
            self._cond.notify_all()

    def abandon(self, promise):
        """Says that the result of a call is not wanted any more (FIN-1). It runs on."""
        with self._cond:
            q = promise._state
            if not q.returned and not q.finished and q.id is not None:
                self._finish.append(q.id << 2 | 1)
                q.finished = True
            self.flush()

    def shutdown(self):
        """Ends the session when nothing is under way any more, without the loss of a call (CLS-2)."""
        with self._cond:
            self._leaving = True
            self._part()
        self.wait_closed()

    def revoke(self, obj, reason=1):
        """Withdraws an object: calls on it that have not started fail, and the other side is told (REF-8). False if the other
        side does not hold it. Sent again it is a new reference."""
        with self._cond:
            slot = self._slot_of.get(id(obj))
            if not slot or self.exports[slot].obj is not obj:
                return False
            del self._slot_of[id(obj)]
            export = self.exports[slot]
            export.obj, export.down = None, reason
            for answer in sorted(self.answers.values()):
                if answer.returned and answer.value is obj:
                    answer.value, answer.error, answer.revoked = None, CallFailed("Revoked", reason), True
            for answer in sorted(self.answers.values()):
                if not answer.started and not answer.returned and (
                        answer.target is obj or any(a.revoked for a in answer.names)):
                    self._settle(answer, error=CallFailed("Revoked", reason))
            if export.scope is None and not self.closed:
                put(body := bytearray([DOWN]), slot << 1 | (export.generation > 0))
                if export.generation:
                    put(body, export.generation)
                put(body, reason)
                self._enqueue(body)
            return True

    def wait_closed(self):
        """Waits until the session is over, and its last words are written."""
        with self._cond:
            while not self.closed:
                self._cond.wait()
        self._writer.join(2)

    def close(self):
        self._end(SessionClosed(0, "", "closed here"), bytes([CLOSE, 0, 0, 0]))
        if self.process:
            try:
                self.process.wait(5)
            finally:
                self.process.stdin.close(), self.process.stdout.close()

    # -- sending --

    def _enqueue(self, body):
        put(record := bytearray(), len(body))
        self._out.append(bytes(record + body))
        if body[0] & 0x1F < 16:
            self._sent += 1  # under the lock, and one queue: the order of the wire (MSG-2)
        self._cond.notify_all()

    def _chores(self):
        """Finish and Release ride in front of the next output, and the Down of weak references; behind a Goodbye there is none
        (CLS-2)."""
        if self._said == (self._sent, self._received):
            return
        while self._gone:
            self.revoke(self._gone.popleft(), 0)
        finish, self._finish = self._finish, []
        if finish:
            body = bytearray([FINISH])
            for n in finish:
                put(body, n)
            self._enqueue(body)
        body = bytearray([RELEASE])
        put(body, self._received & 0xFFFFFFFF)
        head = len(body)
        while self._dropped and len(body) < self.peer["max_message"] - 12:
            slot = self._dropped.popleft()
            generation, proxy = self.imports.get(slot, (0, lambda: 0))
            if proxy() is None and slot not in self._lent:  # not named again since: still marked
                del self.imports[slot]
                self._downs.pop(slot, None)
                put(body, slot << 1 | (generation > 0))
                if generation:
                    put(body, generation)
        if len(body) > head:
            self._enqueue(body)

    def _part(self):
        """Says Goodbye if that is due, and ends the session if both sides have (CLS-2)."""
        here = self._sent, self._received
        if self.closed or not self.peer or not (self._leaving or self._heard == here):
            return
        self._chores()
        here = self._sent, self._received
        if self.questions or self.answers or self._unknown:
            return
        if self._said != here:
            put(body := bytearray([GOODBYE]), self._received)
            self._enqueue(body)
            self._said = here
        if self._heard == here:
            self._end(SessionClosed(None, "CLS-2", "both sides are done"))

    def _late(self, q, consequence):
        """The deadline of a call has passed (TIM-3)."""
        with self._cond:
            if q.returned or q.finished or self.closed:
                return
            q.finished = True
            self._finish.append(q.id << 2 | (1 if consequence == ABANDON else 2))
            if consequence == ABANDON:
                q.abandoned, q.error = True, CallFailed("DeadlineExceeded")
            self.flush()

    def _expire(self, answer):
        """The deadline of a call has passed that waits for answers: it never starts (TIM-3)."""
        with self._cond:
            if not answer.started and not answer.returned:
                self._settle(answer, error=CallFailed("DeadlineExceeded"))

    def _send(self, target, op, args=(), named=(), pipelined=True, deadline=None):
        args = [a._fetch() if isinstance(a, Member) else a for a in args] + [Named(*n) for n in dict(named).items()]
        parent = getattr(serving, "answer", None)
        parent = parent if parent and self.answers.get(parent.id) is parent and not parent.returned else None
        level = parent.level + 1 if parent else 0
        with self._cond:
            if parent and parent.deadline:  # the sooner one (TIM-2)
                left = max(0, int((parent.deadline[0] - time.monotonic()) * 1000)), parent.deadline[1]
                deadline = min(deadline or left, left, key=lambda d: d[0])
            if deadline and deadline[0] == 0 and deadline[1] != LATE:
                raise CallFailed("DeadlineExceeded")
            if not parent and self._leaving:
                raise CallFailed("Overloaded")
            while True:
                while not self.peer and not self.closed:
                    self._cond.wait()
                if self.closed:
                    raise self.closed
                if level >= self.peer["levels"]:
                    raise CallFailed("TooDeep")
                self._chores()
                local = target._state if isinstance(target, Promise) else None
                if local and local.returned:
                    if local.error or not (isinstance(local.value, Remote) and local.value._conn is self):
                        return self._locally(local, op, args)
                    target = local.value
                if isinstance(target, Remote) and (target._state is None or target._down is not None):
                    raise CallFailed(*("NoSuchObject",) if target._state is None else ("Revoked", target._down))
                call_id = next((i for i in range(self.peer["answers"]) if i not in self.questions), None)
                spent = sum(q.size for q in self.questions.values() if not q.returned)
                if call_id is not None:
                    body, names, undo = self._call_body(call_id, target, op, args, parent, pipelined, deadline)
                    if len(body) <= self.peer["max_message"] and spent + len(body) <= self.peer["call_bytes"]:
                        break
                    self._undo(undo)
                    if len(body) > self.peer["max_message"] or not spent:
                        raise ValueError("longer than the other side takes: %d bytes" % len(body))
                if parent:
                    raise CallFailed("Overloaded")  # ADM-2
                self._cond.wait()
            q = self.questions[call_id] = Question(call_id, level, len(body), pipelined, names)
            for n in names:
                n.dependents += 1
            self._enqueue(body)
            self._note_sent(undo, q)
            if deadline and deadline[1] != LATE:
                after(deadline[0], self._late, q, deadline[1])
            return Promise(self, q)

    def _locally(self, settled, op, args):
        """An operation on a promise that has settled to something that is here."""
        q = Question(None, 0, 0, True, [])
        q.returned = True
        try:
            if settled.error:
                raise CallFailed("Broken", code_of(settled.error))
            named = {a.name: a.value for a in args if isinstance(a, Named)}
            q.value = perform(settled.value, op, [wait(a) for a in args if not isinstance(a, Named)], named)
        except Exception as e:
            q.error = e
        return Promise(self, q)

    def _call_body(self, call_id, target, op, args, parent, pipelined, deadline):
        names, tail = [], bytearray()
        put(tail, op)
        if isinstance(target, Promise):
            names.append(target._state)
            where = (target._state.id << 2 | 2, 0)
        else:
            slot, generation = target._state
            where = (slot << 2 | (generation > 0), generation)
        values, handles, count, undo = self._values(args, names)
        if len({q.id for q in names}) > 4:
            self._undo(undo)
            raise ValueError("a message names at most 4 promises (ANS-2)")
        if count:
            put(tail, count)
            tail += handles
        fields = bytearray()
        remaining, consequence = deadline or (None, CANCEL)
        for key, value in (1, parent and parent.id), (2, remaining), (3, consequence or None):
            if value is not None:
                fields.append(key << 1)
                put(fields, value)
        if fields:
            put(tail, len(fields))
            tail += fields
        body = bytearray([CALL | pipelined << 5 | bool(count) << 6 | bool(fields) << 7])
        put(body, call_id)
        put(body, where[0])
        if where[1]:
            put(body, where[1])
        return body + tail + values, names, undo

    def _values(self, args, names=None):
        """Encodes values: the bytes, the descriptors and their number, and what to undo if the message is not sent."""
        out, handles, index, undo = bytearray(), bytearray(), {}, []

        def reference(obj):
            if isinstance(obj, Promise) and obj._conn is self and not obj._state.returned and names is not None:
                names.append(obj._state)
                n, kind, generation = obj._state.id, 2, 0
            elif isinstance(obj, Remote) and obj._conn is self:
                if obj._state is None:
                    raise CallFailed("NoSuchObject")  # it was lent, and is gone
                (n, generation), kind = obj._state, 1
            elif isinstance(obj, (Member, Promise)):
                raise TypeError("wait for it first")
            else:
                lent = isinstance(obj, Lent)
                if lent and names is None:
                    raise TypeError("only arguments are lent")
                obj = obj.obj if lent else obj
                n, generation, is_new = self._export(obj, undo, lent)
                kind = 3 if lent and is_new or isinstance(obj, Weak) else 0
            if (n, kind) not in index:
                if len(index) >= self.peer["handles"]:
                    raise CallFailed("TableFull")
                index[n, kind] = len(index)
                put(handles, n << 3 | (generation > 0) << 2 | kind)
                if generation:
                    put(handles, generation)
                if kind == 3:
                    put(handles, int(isinstance(obj, Weak)))
            return index[n, kind]

        def settled(v):
            return wait(v) if isinstance(v, Promise) and v._state.returned else v

        try:
            for v in args:
                put_value(out, Named(v.name, settled(v.value)) if isinstance(v, Named) else settled(v), reference)
        except BaseException:
            self._undo(undo)
            raise
        return out, handles, len(index), undo

    def _export(self, obj, undo, lent=False):
        slot = self._slot_of.get(id(obj))
        if slot is None:
            if self._free:
                slot = self._free.popleft()
            elif len(self.exports) < self.peer["imports"]:
                slot = len(self.exports)
                self.exports.append(Export())
            else:
                raise CallFailed("TableFull")  # ADM-3
            export = self.exports[slot]
            export.obj, export.live, self._slot_of[id(obj)] = obj, True, slot
            undo.append((slot, True, lent))
            if isinstance(obj, Weak) and obj._ref():
                weakref.finalize(obj._ref(), self._gone.append, obj).atexit = False
        else:
            undo.append((slot, False, lent))
        return slot, self.exports[slot].generation, any(n == slot and new for n, new, _ in undo)

    def _undo(self, undo):
        for slot, new, _ in undo:
            if new:
                export = self.exports[slot]
                del self._slot_of[id(export.obj)]
                export.obj, export.live = None, False
                self._free.append(slot)

    def _note_sent(self, undo, question=None):
        for slot, new, lent in undo:
            export = self.exports[slot]
            export.last_sent = self._sent  # REF-4
            export.issued = max(export.issued, export.generation)
            if lent and new:
                export.scope = question.id
                question.lent.append(slot)
            elif not lent or export.scope != question.id:
                export.scope = None  # a later send ends it for good (REF-9)

    def _write(self):
        try:
            while True:
                with self._cond:
                    while not self._out and not (self._unknown and self.peer) and not self.closed:
                        self._cond.wait()
                    if self._unknown and self.peer:
                        put(body := bytearray([UNIMPLEMENTED]), self._unknown)
                        self._unknown = 0
                        self._enqueue(body)
                    data, self._out = b"".join(self._out), []
                    last = self.closed
                while data:
                    data = data[os.write(self._fds[1], data):]
                if last:
                    break
        except OSError:
            pass  # the reader sees the end of the stream
        if self.process:
            self.process.stdin.close()

    # -- receiving: nothing here waits for the writer or runs user code --

    def _read(self):
        try:
            stream = Stream(256)  # HEL-2
            while True:
                body = stream.next()
                if body is None:
                    data = os.read(self._fds[0], 1 << 16)
                    if not data:
                        why = "the stream ended" if self.peer else "no farref peer is there"
                        raise SessionClosed(None, "CLS-1", why)
                    stream.data += data
                    continue
                with self._cond:
                    if self.closed:
                        return
                    try:
                        self._message(body)
                    except Malformed as e:
                        raise Fault("MSG-1", str(e)) from None
                    self._part()
                    stream.max_message = self.ours["max_message"]
                    self._cond.notify_all()
        except Fault as e:
            rule, text = (s.encode() for s in e.args)
            close = bytearray([CLOSE, 2 if rule == b"HEL-2" else 1, len(rule)]) + rule
            put(close, len(text[:256]))
            self._end(SessionClosed(close[1], *e.args), close + text[:256])
        except (SessionClosed, OSError) as e:
            self._end(e if isinstance(e, SessionClosed) else SessionClosed(None, "CLS-1", str(e)))

    def _message(self, body):
        if not body[0] & 0x10:
            self._received += 1
        if (body[0] & 0x1F == HELLO) == bool(self.peer):
            raise Fault("HEL-1", "Hello is the first message, and only that")
        m = parse(body)
        if m.kind == CALL:
            self._on_call(m)
        elif m.kind == RETURN:
            self._on_return(m)
        elif m.kind == FINISH:
            for n, mode in m.entries:
                self._on_finish(n, mode)
        elif m.kind == RELEASE:
            for slot, generation in m.entries:
                self._on_release(m.upto, slot, generation)
        elif m.kind == DOWN:
            for slot, generation, reason in m.entries:
                self._on_down(slot, generation, reason)
        elif m.kind == HELLO:
            self.peer = dict(m.limits, id=m.peer, incarnation=m.incarnation)
            if (m.peer, m.incarnation) == self._own:
                raise Fault("HEL-5", "an echo: there is no peer")
            if not m.versions[0] == 1 <= m.versions[1]:
                raise Fault("HEL-2", "no common version")
        elif m.kind == CLOSE:
            raise SessionClosed(m.code, m.rule, m.text)
        elif m.kind == UNIMPLEMENTED:
            self.unimplemented |= m.kinds
        elif m.kind == GOODBYE:
            if m.received > self._sent:
                raise Fault("CLS-2", "a Goodbye to what was never sent")
            self._heard = (self._sent, self._received) if m.received == self._sent else None
        elif m.kind >= ACK and hasattr(m, "got"):
            raise Fault("LNK-1" if m.kind == ACK else "LNK-4", "the session has no link")
        elif m.kind != PING:  # which says that it is there, and no more
            self._unknown |= 1 << m.kind  # merged; the writer sends it (MSG-3)

    def _enter(self, handles, answer=None):
        """Enters the handles of a message (REF-3), that of the call that `answer` is for. Gives objects, an Answer for a promise,
        MISSING for a stale one, a Tombstone for a revoked one."""
        if len(handles) > self.ours["handles"]:
            raise Fault("ADM-7", "too many handles")

        def imported(n, generation, kind):
            is_new, lent = n not in self.imports, self._lent.get(n)
            remote = self._import(n, generation, kind == "weak")
            if kind == "borrowed" and is_new and n:
                self._lent[n] = answer.id
                answer.lent.append(n)
            elif lent is not None and not (kind == "borrowed" and lent == answer.id):
                del self._lent[n]  # it is like any other from now on (REF-9)
            return remote

        enter = dict(sender=imported, borrowed=imported, weak=imported,
                     receiver=lambda n, generation, _: self._exported(n, generation),
                     answer=lambda n, *_: self.answers.get(n, NO_ANSWER))
        return [enter[kind](n, generation, kind) for kind, n, generation in handles]

    def _exported(self, slot, generation):
        export = self.exports[slot] if slot < len(self.exports) else Export()
        if not export.live or export.generation != generation:
            return MISSING  # REF-5
        return export.obj if export.down is None else Tombstone(export.down)

    def _on_down(self, slot, generation, reason):
        if not 0 < slot <= self._highest:
            raise Fault("REF-8", "the end of what was never sent")
        known, proxy = self.imports.get(slot, (None, None))
        if known == generation:
            self._downs.setdefault(slot, reason)
            remote = proxy()
            if remote is not None:
                remote.__dict__["_down"] = self._downs[slot]

    def _import(self, slot, generation, weak=False):
        if slot >= self.ours["imports"] and slot:
            raise Fault("REF-6", "slot above the limit")
        if slot == 0:
            if generation:
                raise Fault("REF-6", "slot 0 has generation 0")
            return self.root
        known, proxy = self.imports.get(slot, (generation, lambda: None))
        if known != generation:
            raise Fault("REF-6", "live import of another generation")
        if slot in self._downs:
            raise Fault("REF-8", "a handle that is down")
        self._highest = max(self._highest, slot)
        remote, dropped = proxy(), self._dropped
        if remote is None:
            remote = Remote(self, (slot, generation), weak)
            self.imports[slot] = generation, weakref.ref(remote, lambda _: dropped.append(slot))
        return remote

    def _on_call(self, m):
        if m.id >= self.ours["answers"]:
            raise Fault("ADM-7", "call id above the limit")
        if m.id in self.answers:
            raise Fault("CAL-1", "call id in use")
        if m.size + sum(a.size for a in self.answers.values() if not a.returned) > self.ours["call_bytes"]:
            raise Fault("ADM-7", "call_bytes exceeded")
        answer = Answer(m.id, self._received, m.size, m.pipelined)
        answer.op, answer.handles = m.op, self._enter(m.handles, answer)
        if m.parent is not None:
            parent = answer.parent = self.questions.get(m.parent)
            if parent is None or parent.returned:
                raise Fault("CAL-6", "the parent is no open call")
            answer.level = parent.level + 1
            if answer.level >= self.ours["levels"]:
                raise Fault("ADM-7", "too many levels")
        answer.target, = self._enter([m.target])
        self.answers[m.id] = answer
        names = {a for a in [answer.target, *answer.handles] if isinstance(a, Answer)}
        if len(names) > 4:
            raise Fault("ANS-2", "a message names at most 4 answers")
        failure = None if all(a.pipelined for a in names) else CallFailed("NoSuchAnswer")
        failure = failure_of([answer.target, *answer.handles]) or failure
        try:
            answer.values = m.values, m.values.pos
            m.values.values(answer.handles, True)
        except Malformed:
            failure = CallFailed("Malformed")  # it comes before the others (section 9)
        if failure:
            return self._settle(answer, error=failure)
        if m.deadline:
            answer.deadline = time.monotonic() + m.deadline[0] / 1000, m.deadline[1]
        answer.names, answer.waiting = names, {a for a in names if not a.returned}
        for a in names:
            a.dependents += 1
        broken = next((a for a in names if a.error), None)
        if broken:
            failure = CallFailed("Broken", code_of(broken.error))
            self._settle(answer, error=CallFailed("Revoked", *broken.error.values) if broken.revoked else failure)
        elif m.deadline and m.deadline[0] == 0 and m.deadline[1] != LATE:
            self._settle(answer, error=CallFailed("DeadlineExceeded"))
        elif not answer.waiting:
            self._ready(answer)
        elif m.deadline and m.deadline[1] != LATE:
            after(m.deadline[0], self._expire, answer)

    def _ready(self, answer):
        """A call that can start: where the call that caused it is waited for, else on the serving thread (ANS-3)."""
        waited = answer.parent and answer.parent.waiters and not answer.parent.returned
        heapq.heappush(answer.parent.work if waited else self._work, answer)

    def _on_return(self, m):
        q = self.questions.get(m.id)
        if q is None or q.returned:
            raise Fault("CAL-2", "no call has this id")
        handles, code = self._enter(m.handles), m.error
        try:
            values = m.values.values(handles)
            if len(values) > (1 if code is None else 4) or code is None and values and values[0] is None:
                raise Malformed("Return")
            if code == 0 and not (len(values) == 1 and isinstance(values[0], BaseException)):
                raise Malformed("Raised")
            if failure_of(handles):
                q.error = failure_of(handles)
            elif code is None:
                q.value = values[0] if values else None
            else:
                q.error = values[0] if code == 0 else CallFailed(code, *values)
        except Malformed:
            q.error = CallFailed("Malformed")
        q.returned = True
        for slot in q.lent:  # after the handles were looked up (REF-9)
            if self.exports[slot].live and self.exports[slot].scope == q.id:
                self._free_slot(slot)
        self._hand_over(q)
        for n in q.names:
            n.dependents -= 1
            self._retire(n)
        if q.pipelined and not q.finished:
            self._finish.append(q.id << 2)
            q.finished = True  # it leaves before any Call that could reuse the id
        self._retire(q)

    def _hand_over(self, q):
        """What was to run where q is waited for runs on the serving thread."""
        while q.work:
            heapq.heappush(self._work, q.work.pop())
        self._cond.notify_all()

    def _retire(self, q):
        if q.returned and (q.finished or not q.pipelined) and not q.dependents:
            self.questions.pop(q.id, None)

    def _on_finish(self, n, mode):
        answer = self.answers.get(n)
        if n >= self.ours["answers"]:
            raise Fault("ADM-7", "call id above the limit")
        if answer:
            answer.finished = True
            if mode == 2 and not answer.started and not answer.returned:
                self._settle(answer, error=CallFailed("Cancelled", False))
            self._retire_answer(answer)

    def _on_release(self, upto, slot, generation):
        upto = self._sent - ((self._sent - upto) & 0xFFFFFFFF)  # the low 32 bits, made whole again
        if upto < 0 or not 0 < slot < len(self.exports) or generation > self.exports[slot].issued:
            raise Fault("REL-4", "a release of what was never sent")
        export = self.exports[slot]
        if export.live and export.generation == generation and export.last_sent <= upto and export.scope is None:
            self._free_slot(slot)  # REL-2

    def _free_slot(self, slot):
        export = self.exports[slot]
        if export.down is None:
            del self._slot_of[id(export.obj)]
        export.obj = export.scope = export.down = None
        # When it wraps, any may have been issued.
        export.issued = 0xFFFF if export.generation == 0xFFFF else export.issued
        export.live, export.generation = False, (export.generation + 1) & 0xFFFF
        self._free.append(slot)

    # -- serving --

    def _settle(self, answer, value=None, error=None):
        """Sends the one Return of a call, and moves on the calls that wait for it."""
        if self.closed or answer.returned:
            return
        for _ in range(2):
            values = error.values if isinstance(error, CallFailed) else [error] if error else \
                [] if value is None else [value]
            undo = []
            try:
                out, handles, count, undo = self._values(values)
                head = bytearray([RETURN | bool(error) << 5 | bool(count) << 6])
                put(head, answer.id)
                if count:
                    put(head, count)
                    head += handles
                if error:
                    put(head, code_of(error))
                size = len(head) + len(out)
                if size <= self.peer["max_message"]:
                    break
                self._undo(undo)
                error = CallFailed("ResultTooLarge", size)  # ADM-5
            except CallFailed as e:
                error = CallFailed(e.code, *e.values)  # TableFull; a new one holds no frame, and so no object
            except Exception as e:
                error = RuntimeError(str(e))  # it cannot be encoded
        self._chores()
        self._enqueue(head + out)
        self._note_sent(undo)
        answer.value, answer.error, answer.returned = None if error else value, error, True
        for slot in answer.lent:  # it is gone, whoever holds it (REF-9)
            if self._lent.get(slot) == answer.id:
                remote = self.imports.pop(slot)[1]()
                del self._lent[slot]
                if remote is not None:
                    remote.__dict__["_state"] = None
        for other in sorted(self.answers.values()):
            if answer in other.waiting:
                other.waiting.remove(answer)
                if error:
                    self._settle(other, error=CallFailed("Broken", code_of(error)))
                elif not other.waiting and not other.returned:
                    self._ready(other)
        for a in answer.names:
            a.dependents -= 1
            self._retire_answer(a)
        self._retire_answer(answer)

    def _retire_answer(self, answer):
        """ANS-1: an answer stays for the calls that name it."""
        if answer.returned and (answer.finished or not answer.pipelined) and not answer.dependents:
            self.answers.pop(answer.id, None)

    def _run(self, answer):
        cursor, pos = answer.values
        handles = [h.value if isinstance(h, Answer) else h for h in answer.handles]
        target = answer.target.value if isinstance(answer.target, Answer) else answer.target
        before, serving.answer = getattr(serving, "answer", None), answer
        value = error = None
        try:
            values = Cursor(cursor.data, pos, cursor.end).values(handles, True)
            args, named = [v for v in values if not isinstance(v, Named)], [v for v in values if isinstance(v, Named)]
            if len({n for n, _ in named}) < len(named):
                raise CallFailed("BadArguments", "an argument is given twice")  # VAL-8
            if isinstance(target, Remote):  # it came home to the caller (ANS-6), or is a third party's
                value = wait(target._conn._send(target, answer.op, args, named))
            else:
                value = wait(perform(target, answer.op, args, dict(named)))
        except Exception as e:
            error = e
            e.__traceback__ = e.__context__ = None  # they would keep our proxies alive in a cycle
        serving.answer = before
        with self._cond:
            answer.target, answer.handles, answer.values = None, [], None
            self._settle(answer, value, error)
            self._part()

    def _work_until(self, done, work, timeout=None):
        """Runs the calls in `work` until `done()`; called with the lock held."""
        end = timeout and time.monotonic() + timeout
        while not done():
            answer = heapq.heappop(work) if work else None
            if answer is None:
                if not self._cond.wait(end and max(0, end - time.monotonic())) and end and time.monotonic() >= end:
                    raise TimeoutError("no answer yet")
            elif not answer.returned:
                answer.started = True
                self._cond.release()
                try:
                    self._run(answer)
                    answer = None
                finally:
                    self._cond.acquire()

    def _serve(self):
        with self._cond:
            self._work_until(lambda: self.closed, self._work)

    def _wait(self, q, timeout):
        with self._cond:
            q.waiters += 1
            try:
                self._work_until(lambda: q.returned or q.abandoned or self.closed, q.work, timeout)
            finally:
                q.waiters -= 1
                if not q.waiters:
                    self._hand_over(q)
        if not q.returned and not q.abandoned:
            raise self.closed
        if q.error:
            raise q.error
        return q.value

    def _end(self, why, close=None):
        """The session is over: whoever waits is told (CLS-1)."""
        with self._cond:
            if not self.closed:
                if close:
                    self._enqueue(close)
                self.closed = why
                self.imports.clear(), self.questions.clear(), self.answers.clear()
                self._cond.notify_all()


def code_of(error):
    return error.code if isinstance(error, CallFailed) else 0
