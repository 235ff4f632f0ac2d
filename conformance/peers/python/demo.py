"""Uses the peer that a command starts: python3 demo.py -- farref serve --stdio --root .

It reads a file with one round trip, lets the peer call back into a Python function, catches a remote exception by
name, and shows that nothing is left over. One line for each step; exit code 0 if all went well, else 1.
"""
import gc
import sys
import time

from farref import Connection, SessionClosed, wait, op, DESCRIBE


def read(conn):
    text = wait(conn.root.open("README.md").read(), 30)
    return "%d characters, first line %r" % (len(text), text.splitlines()[0])


def walk(conn):
    seen = []

    def visitor(directory, subdirectories, files):
        seen.append((directory, tuple(subdirectories), tuple(files)))

    wait(conn.root.walk(".", visitor), 60)
    assert seen, "the visitor was never called"
    assert any("README.md" in files for _, _, files in seen), seen
    directory, subdirectories, files = seen[0]
    return "the visitor was called %d times, first with %r, %d subdirectories, %d files" % (
        len(seen), directory, len(subdirectories), len(files))


def missing(conn):
    try:
        wait(conn.root.open("no/such/file.txt"), 30)
    except FileNotFoundError as e:
        _, arguments, _, _ = e._farref
        assert arguments[0] == 2 and len(arguments) == 3, arguments
        return "FileNotFoundError with arguments %r" % (arguments,)
    raise AssertionError("no exception")


def baseline(conn):
    end = time.monotonic() + 10
    while True:
        gc.collect()
        conn.flush()
        op(conn.root, DESCRIBE)  # a call to and fro brings what the peer still had to send
        tables = conn.tables()
        if not any(tables.values()):
            return ", ".join("%s %d" % kv for kv in tables.items())
        assert time.monotonic() < end, "not at baseline: %r" % tables
        time.sleep(0.01)


def main(argv):
    command = argv[argv.index("--") + 1:] if "--" in argv else argv
    if not command:
        print(__doc__, file=sys.stderr)
        return 2
    failed = 0
    conn = Connection.spawn(command)
    for name, step in ("read", read), ("walk", walk), ("exception", missing), ("baseline", baseline):
        try:
            print("%-10s ok: %s" % (name, step(conn)), flush=True)
        except (Exception, SessionClosed) as e:
            failed += 1
            print("%-10s FAILED: %s: %s" % (name, type(e).__name__, e), flush=True)
    conn.close()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
