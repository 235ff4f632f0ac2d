//! The two halves of a carrier by themselves, over streams that take and give what a test says.

use std::task::Waker;

use farref_host::{AsyncRemote, Connection, Directory, Function, Pending, Value};
use tokio::io::{DuplexStream, duplex};

use super::*;

/// Does nothing of what a session wants done.
struct Idle;

impl Driver for Idle {
    fn output(&self) {}

    fn run(&self, work: Work) -> Result<(), Work> {
        Err(work)
    }
}

/// Both sides of a session, past Hello.
struct Pair {
    client: Link,
    connection: Connection,
    server: Link,
    _server: Connection,
}

impl Pair {
    fn new() -> Self {
        let link = |directory| Link::new(directory, &Options::default(), Arc::new(Idle));
        let length = Function::inline(|args| match args.get(0) {
            Some(Value::Bytes(bytes)) => Ok(Value::Int(bytes.len() as i64)),
            _ => Err(Error::bad_arguments("bytes")),
        });
        let (client, server) = (link(Directory::new()), link(Directory::new().with("length", "of bytes", length)));
        let (connection, other) = (client.connection(), server.connection());
        server.receive(&said(&client));
        client.receive(&said(&server));
        Self { client, connection, server, _server: other }
    }

    /// A call with so many bytes, made and not sent.
    async fn call(&self, bytes: usize) -> Pending {
        self.connection.root().start("length", [Value::Bytes(vec![0; bytes])]).await.expect("it can be made")
    }

    /// The same, sent over a stream.
    async fn send(&self, near: &mut DuplexStream, bytes: usize) -> Pending {
        let call = self.call(bytes).await;
        near.write_all(&said(&self.client)).await.expect("there is room");
        call
    }

    /// The server's answers arrive.
    async fn answer(&self, call: Pending, bytes: usize) {
        self.client.receive(&said(&self.server));
        assert_eq!(call.await, Ok(Value::Int(bytes as i64)));
    }
}

/// All that a side has to say.
fn said(link: &Link) -> Vec<u8> {
    let mut buffer = Vec::new();
    let taken = link.take_output(&mut buffer).expect("the session goes on");
    assert!(!taken.more);
    buffer[taken.bytes].to_vec()
}

/// What comes of one look. That a task has had its turn, as tokio counts it, is no matter here.
fn look<T>(poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
    pin!(tokio::task::unconstrained(poll_fn(poll))).poll(&mut Context::from_waker(Waker::noop()))
}

/// What has come through a stream.
fn arrived(far: &mut DuplexStream) -> Vec<u8> {
    let mut bytes = vec![0; 1 << 20];
    let mut free = ReadBuf::new(&mut bytes);
    let _ = look(|cx| Pin::new(&mut *far).poll_read(cx, &mut free));
    let count = free.filled().len();
    bytes.truncate(count);
    bytes
}

/// Writes once; whether all that there is was written.
fn write(output: &mut Output, near: &mut DuplexStream, link: &Link) -> bool {
    let mut stall = Stall { limit: Duration::MAX, until: None };
    match look(|cx| output.poll_write(near, link, &mut stall, cx)) {
        Poll::Ready(written) => matches!(written.expect("the stream goes on"), Written::All),
        Poll::Pending => false,
    }
}

/// Reads until there is nothing to be read.
fn read(input: &mut Input, far: &mut DuplexStream, link: &Link) {
    while let Poll::Ready(heard) = look(|cx| input.poll_read(far, link, cx)) {
        assert!(matches!(heard.expect("the stream goes on"), Heard::Some(_)));
    }
}

/// Who makes a call while output waits for the stream has woken the task already: what came meanwhile goes out with the rest.
#[tokio::test]
async fn output_that_came_since_goes_out_with_what_was_left() {
    let pair = Pair::new();
    let (mut near, mut far) = duplex(16);
    let mut output = Output::default();
    let first = pair.call(10).await;
    assert!(!write(&mut output, &mut near, &pair.client));
    let second = pair.call(20).await;
    let mut bytes = Vec::new();
    while !write(&mut output, &mut near, &pair.client) {
        bytes.append(&mut arrived(&mut far));
    }
    bytes.append(&mut arrived(&mut far));
    assert_eq!(pair.server.receive(&bytes).used, bytes.len());
    pair.client.receive(&said(&pair.server));
    let outcomes = [first, second].map(|call| farref_host::Promise::from(call).outcome());
    assert_eq!(outcomes, [Some(Ok(10.into())), Some(Ok(20.into()))]);
}

/// Arguments of a message for which a buffer grows, and of one for which it need not.
const LONG: usize = 400_000;
const SHORT: usize = 20;

/// A buffer that long messages are read into is kept while they come, whatever comes with them and however little in between, and
/// given back when they have become rare.
#[tokio::test]
async fn a_read_buffer_is_as_long_as_messages_are() {
    let pair = Pair::new();
    let (mut near, mut far) = duplex(1 << 20);
    let mut input = Input::new(Options::default().memory.charge());
    input.scanner = None;
    let first = pair.send(&mut near, LONG).await;
    read(&mut input, &mut far, &pair.server);
    pair.answer(first, LONG).await;
    let grown = input.buffer.len();
    assert!(grown > LONG);
    for _ in 0..4 * RARE {
        // The short one comes in two pieces: the first fills the buffer, the second stands alone in it.
        let long = pair.send(&mut near, LONG - 4).await;
        let short = pair.send(&mut near, SHORT).await;
        read(&mut input, &mut far, &pair.server);
        pair.answer(long, LONG - 4).await;
        assert_eq!(short.await, Ok(Value::Int(SHORT as i64)));
        assert_eq!(input.buffer.len(), grown);
    }
    // Looks that find nothing are no short messages.
    for _ in 0..4 * RARE {
        read(&mut input, &mut far, &pair.server);
    }
    assert_eq!(input.buffer.len(), grown);
    let mut count = 0;
    while input.buffer.len() == grown {
        let short = pair.send(&mut near, SHORT).await;
        read(&mut input, &mut far, &pair.server);
        pair.answer(short, SHORT).await;
        count += 1;
        assert!(count <= RARE + 1, "it is given back");
    }
    assert!(count >= RARE - 1 && input.buffer.len() <= BUFFER, "{count}: {}", input.buffer.len());
}

/// So it is with the buffers that are written from, one of which is the session's.
#[tokio::test]
async fn a_write_buffer_is_as_long_as_messages_are() {
    let pair = Pair::new();
    let (mut near, mut far) = duplex(1 << 20);
    let mut output = Output::default();
    let mut send = async |output: &mut Output, bytes| {
        let call = pair.call(bytes).await;
        assert!(write(output, &mut near, &pair.client));
        let bytes_of_it = arrived(&mut far);
        assert_eq!(pair.server.receive(&bytes_of_it).used, bytes_of_it.len());
        pair.answer(call, bytes).await;
        // The answer was the last that was to be said.
        for _ in 0..4 * RARE {
            assert!(write(output, &mut near, &pair.client));
        }
        output.buffer.len()
    };
    for _ in 0..4 * RARE {
        assert!(send(&mut output, LONG).await > LONG);
    }
    let mut lengths = Vec::new();
    while lengths.len() < 2 * RARE as usize {
        lengths.push(send(&mut output, SHORT).await);
    }
    let kept = lengths.iter().take_while(|length| **length > LONG).count();
    assert!((RARE as usize - 2..=RARE as usize + 2).contains(&kept), "{kept}");
    assert!(lengths[kept + 2..].iter().all(|length| *length <= LARGE), "{lengths:?}");
}
