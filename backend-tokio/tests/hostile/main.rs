//! Hostile peers. Each costs its own connection and nothing else: honest clients are served meanwhile, memory stays under the
//! numbers of SECURITY.md, and nothing is left when they are gone.

mod arena;
mod wire;

use std::time::{Duration, Instant};

use farref_core::message::Message;

use farref_tokio::{Options, ServerOptions};
use tokio::net::TcpStream;

use arena::{exhaust, withstand};
use wire::{Call, Raw, greeting, mine, record, text, varint};

/// Short limits, so that nobody waits long; otherwise the defaults.
fn impatient() -> ServerOptions {
    let mut options = ServerOptions::default();
    options.connection.handshake = Duration::from_millis(300);
    options.connection.stall = Duration::from_millis(300);
    options
}

// What SECURITY.md says; it is asserted at the end that it does.

/// Of a connection as such.
const CONNECTION: usize = 32 << 10;
/// Of a reference, on either side.
const REFERENCE: usize = 200;
/// What one message adds to the tables before that is counted, and buffers while they become longer ones.
const STEP: usize = 6 << 20;

/// Of one connection, results that wait to be sent aside.
fn of_connection(options: &Options) -> usize {
    let message = options.max_message as usize;
    let references = (options.imports + options.exports) as usize;
    CONNECTION
        + 2 * message.max(64 << 10) // read
        + message // calls that waited
        + 2 * options.output
        + options.store
        + 32 * options.call_bytes as usize
        + usize::from(options.serving) * 2 * message // answers named in calls
        + REFERENCE * references
}

/// Of all connections together, what objects take aside.
fn of_server(options: &ServerOptions, threads: usize) -> usize {
    options.memory + (options.connections + options.handshakes) * CONNECTION + threads * STEP
}

/// Those of a peer that comes again and again: the ones before are on their way out.
const FEW: usize = 8 * CONNECTION;

fn handshakes(options: &ServerOptions) -> usize {
    (options.handshakes + 1) * CONNECTION
}

/// A result that fills buffers: so many bytes, and how the argument that asks for it is written.
const RESULT: usize = 500_000;

fn result() -> Vec<u8> {
    [&[0x04], &varint((RESULT as u64) << 1)[..]].concat()
}

#[test]
fn a_port_scan() {
    let options = impatient();
    let bound = handshakes(&options);
    withstand("a port scan", options, bound, async |arena| {
        for count in 0..1000 {
            let stream = TcpStream::connect(arena.address).await.expect("it connects");
            if count % 2 == 0 {
                stream.set_zero_linger().expect("no linger");
            }
        }
    });
}

#[test]
fn an_http_request() {
    let options = impatient();
    let bound = handshakes(&options);
    withstand("an HTTP request", options, bound, async |arena| {
        let mut waiting = Vec::new();
        for _ in 0..50 {
            let mut raw = Raw::connect(arena.address).await;
            let _ = raw.say(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n").await;
            waiting.push(tokio::spawn(raw.drain()));
        }
        for raw in waiting {
            raw.await.expect("the server hangs up");
        }
    });
}

#[test]
fn random_bytes() {
    let options = impatient();
    let bound = FEW + (1 << 20);
    withstand("random bytes", options, bound, async |arena| {
        let mut random = Random(1);
        for count in 0..300 {
            let mut raw = Raw::connect(arena.address).await;
            if count % 2 == 0 {
                let _ = raw.say(&greeting()).await;
            }
            let mut left = random.below(100_000);
            while left > 0 {
                let chunk: Vec<u8> = (0..1 + random.below(left.min(20_000))).map(|_| random.next() as u8).collect();
                left = left.saturating_sub(chunk.len() as u64);
                if raw.say(&chunk).await.is_err() {
                    break;
                }
            }
            raw.finish().await;
            raw.drain().await;
        }
    });
}

/// xorshift: the same every time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }
}

#[test]
fn a_record_of_four_gibibytes() {
    let options = impatient();
    let bound = FEW;
    withstand("a record of 4 GiB", options, bound, async |arena| {
        for length in [u64::from(u32::MAX), 1 << 32, u64::MAX, (1 << 20) + 1] {
            let mut raw = Raw::greet(arena.address).await;
            let _ = raw.say(&varint(length)).await;
            assert_eq!(raw.end().await, "FRM-2", "{length}");
            let mut raw = Raw::connect(arena.address).await;
            let _ = raw.say(&[b"\xFFfarref\n", &varint(length)[..]].concat()).await;
            assert_eq!(raw.end().await, "HEL-1", "{length}");
        }
    });
}

#[test]
fn half_a_hello_held_open() {
    let options = impatient();
    let bound = handshakes(&options);
    withstand("half a Hello held open", options, bound, async |arena| {
        let start = Instant::now();
        let mut waiting = Vec::new();
        for count in 0..64 {
            let mut raw = Raw::connect(arena.address).await;
            let _ = raw.say(&greeting()[..count % greeting().len()]).await;
            waiting.push(tokio::spawn(raw.drain()));
        }
        for raw in waiting {
            raw.await.expect("the server hangs up");
        }
        assert!(start.elapsed() >= Duration::from_millis(300));
    });
}

#[test]
fn a_byte_at_a_time() {
    let options = impatient();
    let bound = FEW;
    withstand("a byte at a time", options, bound, async |arena| {
        // In the handshake: that bytes come makes it no longer.
        let mut raw = Raw::connect(arena.address).await;
        let start = Instant::now();
        let slow = async {
            for byte in greeting() {
                if raw.say(&[byte]).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let _ = slow.await;
        assert!(raw.hear().await.is_none_or(|body| body[0] == 16));
        assert!(raw.hear().await.is_none(), "cut before its Hello was there, {:?}", start.elapsed());
        // And after it, where it may take its time.
        let mut raw = Raw::greet(arena.address).await;
        for byte in Call::root(0, "echo", &[0x85]).record() {
            raw.say(&[byte]).await.expect("it is taken");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(raw.outcome(0).await, None);
    });
}

#[test]
fn a_peer_that_never_reads() {
    for output in [4 << 20, 1 << 20] {
        let mut options = impatient();
        options.connection.output = output;
        let bound = FEW + 2 * output + 64 * RESULT;
        withstand("a peer that never reads", options, bound, async |arena| {
            let mut raw = Raw::greet(arena.address).await;
            let calls: Vec<u8> = (0..64).flat_map(|id| Call::root(id, "bytes", &result()).record()).collect();
            raw.say(&calls).await.expect("it is taken");
            let start = Instant::now();
            raw.until_cut().await;
            assert!(start.elapsed() > Duration::from_millis(200), "it had its time");
        });
    }
}

/// It asks for more than it may, too.
#[test]
fn a_flood_of_calls_that_nobody_reads_the_results_of() {
    let options = impatient();
    let bound = FEW + 2 * options.connection.output + 64 * RESULT;
    withstand("a flood of calls", options, bound, async |arena| {
        let mut raw = Raw::greet(arena.address).await;
        raw.flood(|count| Call::root(count % 64, "bytes", &result()).record()).await;
        raw.until_cut().await;
    });
}

#[test]
fn ten_thousand_connections_opened_and_dropped() {
    let options = impatient();
    let bound = handshakes(&options);
    withstand("10,000 connections", options, bound, async |arena| {
        for count in 0..10_000 {
            let stream = TcpStream::connect(arena.address).await.expect("it connects");
            if count % 4 > 0 {
                stream.set_zero_linger().expect("no linger");
            }
        }
        arena.until("all have come", |arena| arena.server.counters().accepted >= 10_000);
    });
}

#[test]
fn two_thousand_connections_held_in_the_handshake() {
    let options = ServerOptions::default();
    let bound = handshakes(&options) + 2000 * 1024;
    withstand("2,000 connections held", options, bound, async |arena| {
        let mut held = Vec::new();
        for _ in 0..2000 {
            held.push(TcpStream::connect(arena.address).await.expect("it connects"));
        }
        arena.until("all have come", |arena| arena.server.counters().accepted >= 2000);
        // Those who have just come may have pushed out one more than is left.
        arena.until("the oldest are gone", |arena| arena.server.counters().failed >= 2000 - 130);
        tokio::time::sleep(Duration::from_millis(300)).await; // honest clients come
    });
}

#[test]
fn values_nested_too_deep() {
    let options = impatient();
    let bound = FEW + (1 << 20);
    withstand("values nested too deep", options, bound, async |arena| {
        let level: [&[u8]; 5] = [&[0x61], &[0x0A, 1], &[0x0B, 1], &[0x0C, 1, 0], &[0x0E, 0x40, 0x61]];
        let depths = level.into_iter().flat_map(|level| [17, 1000, 100_000].map(|depth| level.repeat(depth)));
        let calls: Vec<_> =
            depths.map(|values| Call::root(0, "echo", &[&values, &[0][..]].concat()).record()).collect();
        arena.begin();
        let mut raw = Raw::greet(arena.address).await;
        for call in &calls {
            raw.say(call).await.expect("it is taken");
            assert_eq!(raw.outcome(0).await, Some(6), "malformed: {:x?}", &call[..call.len().min(20)]);
        }
        raw.say(&Call::root(0, "echo", &[&[0x61; 15], &[0x85][..]].concat()).record()).await.expect("it is taken");
        assert_eq!(raw.outcome(0).await, None, "the session goes on");
    });
}

#[test]
fn calls_nested_too_deep() {
    let options = impatient();
    let bound = FEW;
    withstand("calls nested too deep", options, bound, async |arena| {
        let mut raw = Raw::greet(arena.address).await;
        let mut parent = None;
        for level in 0..16 {
            let values = [&text("apply"), &[0x0D, 0, 0x81][..]].concat();
            let call = Call { id: level, handles: vec![mine(1)], parent, values, ..Call::default() };
            raw.say(&call.record()).await.expect("it is taken");
            parent = loop {
                match Message::read(&raw.hear().await.expect("a call back")) {
                    Ok(Message::Call(call)) => break Some(call.id.into()),
                    _ => continue,
                }
            };
        }
        let beyond = Call { parent, ..Call::root(16, "echo", &[0x85]) };
        raw.say(&beyond.record()).await.expect("it is taken");
        assert_eq!(raw.end().await, "ADM-7");
    });
}

#[test]
fn every_kind_with_every_id() {
    let options = impatient();
    let bound = FEW + (4 << 20);
    let ids = [0, 1, 63, 64, 65_535, 65_536, (1 << 32) - 1, 1 << 32, u64::MAX].map(varint);
    withstand("every kind with every id", options, bound, async |arena| {
        let heads = (0..32).flat_map(|kind| [0, 1, 2, 4, 7].map(|flags| kind | flags << 5));
        for head in heads {
            for id in &ids {
                for repeat in 1..5 {
                    let mut raw = Raw::connect(arena.address).await;
                    let body = [&[head], &id.repeat(repeat)[..]].concat();
                    let _ = raw.say(&[greeting(), record(&body)].concat()).await;
                    raw.finish().await;
                    raw.drain().await;
                }
            }
        }
    });
}

#[test]
fn limits_that_were_announced() {
    let options = impatient();
    let bound = FEW + (4 << 20);
    withstand("beyond what was announced", options, bound, async |arena| {
        let echo = |id, values: &[u8]| Call::root(id, "echo", values);
        let blob = |length: u64| [&[0x08], &varint(length)[..], &vec![0; length as usize]].concat();
        let keep = |handles: Vec<Vec<u8>>| Call { handles, ..Call::root(0, "keep", &[]) };
        let wait = |id| Call { pipelined: true, ..Call::root(id, "wait", &blob(600_000)) };
        // What is said, the rule that ends the session.
        let cases = [
            (echo(64, &[0x85]).record(), "ADM-7"),
            (echo(65_535, &[0x85]).record(), "ADM-7"),
            ([wait(0).record(), wait(1).record()].concat(), "ADM-7"),
            (keep((1..=1025).map(mine).collect()).record(), "ADM-7"),
            (keep(vec![mine((1 << 16) + 1)]).record(), "REF-6"),
            (keep(vec![mine((1 << 29) - 1)]).record(), "REF-6"),
            (Call { parent: Some(0), ..echo(0, &[0x85]) }.record(), "CAL-6"),
            (Call { parent: Some(65_535), ..echo(0, &[0x85]) }.record(), "CAL-6"),
            // More handles than there are bytes.
            (record(&[&[0x40, 0, 0, 4], &varint(65_535)[..], &mine(1)].concat()), "MSG-1"),
            (record(&[&[0x40, 0, 0, 4], &varint(u32::MAX.into())[..], &mine(1)].concat()), "MSG-1"),
        ];
        for (said, rule) in cases {
            let mut raw = Raw::greet(arena.address).await;
            let _ = raw.say(&said).await;
            assert_eq!(raw.end().await, rule, "{:x?}", &said[..said.len().min(20)]);
        }
    });
}

#[test]
fn releases_of_everything() {
    let options = impatient();
    let bound = FEW;
    withstand("releases of everything", options, bound, async |arena| {
        for upto in [0, 1, 2, 1000, u32::MAX] {
            for slots in [1..2, 0..1, 1..20_000, 65_535..65_537] {
                let mut raw = Raw::greet(arena.address).await;
                raw.say(&Call::root(0, "make", &[]).record()).await.expect("it is taken");
                assert_eq!(raw.outcome(0).await, None);
                let slots: Vec<u8> = slots.flat_map(|slot: u64| varint(slot << 1)).collect();
                let _ = raw.say(&record(&[&[3], &varint(upto.into())[..], &slots].concat())).await;
                raw.finish().await;
                let rule = raw.end().await;
                assert!(rule.is_empty() || rule == "REL-4", "{rule}");
            }
        }
    });
}

#[test]
fn one_reference_in_the_last_slot() {
    let options = impatient();
    let slots = options.connection.imports as usize;
    let bound = FEW + 28 * slots;
    withstand("one reference in the last slot", options, bound, async |arena| {
        let mut raw = Raw::greet(arena.address).await;
        raw.say(&Call { handles: vec![mine(slots as u64)], ..Call::root(0, "keep", &[0x0D, 0]) }.record())
            .await
            .expect("it is taken");
        assert_eq!(raw.outcome(0).await, None);
    });
}

#[test]
fn as_many_references_as_there_can_be() {
    let options = impatient();
    let references = (options.connection.imports + options.connection.exports) as usize;
    let bound = FEW + REFERENCE * references;
    withstand("131,072 references", options, bound, async |arena| {
        let mut raw = Raw::greet(arena.address).await;
        let all: Vec<u8> = (0..1024).flat_map(|index| [&[0x0D], &varint(index)[..]].concat()).collect();
        for message in 0..64 {
            let handles = (0..1024).map(|handle| mine(1 + message * 1024 + handle)).collect();
            raw.say(&Call { handles, ..Call::root(0, "keep", &all) }.record()).await.expect("it is taken");
            assert_eq!(raw.outcome(0).await, None);
        }
        let make: Vec<u8> = (0..32).flat_map(|id| Call::root(id, "make", &[]).record()).collect();
        for _ in 0..(1 << 16) / 32 {
            raw.say(&make).await.expect("it is taken");
            raw.outcome(31).await;
        }
        raw.say(&Call::root(0, "make", &[]).record()).await.expect("it is taken");
        // The table is full: an error, and the session goes on.
        assert_eq!(raw.outcome(0).await, Some(8));
        raw.reset();
    });
}

/// A short message must not grow to more than a long one could have held.
#[test]
fn one_answer_named_a_thousand_times() {
    let options = impatient();
    let bound = FEW + (2 << 20);
    withstand("one answer named 1,000 times", options, bound, async |arena| {
        let mut raw = Raw::greet(arena.address).await;
        let numbers = [&[0x04], &varint(20_000 << 1)[..]].concat();
        raw.say(&Call { pipelined: true, ..Call::root(1, "numbers", &numbers) }.record()).await.expect("it is taken");
        assert_eq!(raw.outcome(1).await, None);
        let answer = varint(1 << 3 | 2);
        let twice = Call { handles: vec![answer.clone()], ..Call::root(2, "keep", &[0x0D, 0]) };
        raw.say(&twice.record()).await.expect("it is taken");
        assert_eq!(raw.outcome(2).await, None, "it was kept");
        for values in [&[0x0D, 0][..], &[0x0D, 0].repeat(1000)] {
            for handles in [vec![answer.clone(); 1000], vec![answer.clone()]] {
                let is_fine = handles.len() * values.len() == 2;
                raw.say(&Call { handles, ..Call::root(2, "echo", values) }.record()).await.expect("it is taken");
                assert_eq!(raw.outcome(2).await, if is_fine { None } else { Some(13) });
            }
        }
    });
}

/// Values take more memory than bytes on the wire, which is counted before it is taken.
#[test]
fn values_that_grow() {
    let options = ServerOptions { memory: 16 << 20, ..impatient() };
    let bound = FEW + 2 * options.connection.max_message as usize;
    withstand("values that grow", options, bound, async |arena| {
        let count = (1 << 20) - 64;
        let values = |item| [&[0x09], &varint(count)[..], &vec![item; count as usize]].concat();
        let calls = [0x60, 0x40, 0x00].map(|item| Call::root(0, "echo", &values(item)).record());
        arena.begin();
        let mut raw = Raw::greet(arena.address).await;
        for call in &calls {
            raw.say(call).await.expect("it is taken");
            assert_eq!(raw.outcome(0).await, Some(7), "overloaded");
        }
        raw.say(&Call::root(0, "echo", &[0x85]).record()).await.expect("it is taken");
        assert_eq!(raw.outcome(0).await, None);
    });
}

#[test]
fn calls_that_wait_for_a_promise_that_is_never_kept() {
    let options = impatient();
    let bound = FEW + options.connection.store + (1 << 20);
    withstand("calls that wait", options, bound, async |arena| {
        let mut raw = Raw::greet(arena.address).await;
        raw.say(&Call { pipelined: true, ..Call::root(0, "wait", &[]) }.record()).await.expect("it is taken");
        let blob = [&[0x08], &varint(16_000)[..], &[7; 16_000]].concat();
        for id in 1..64 {
            let call = Call { target: 2, ..Call::root(id, "any", &blob) };
            raw.say(&call.record()).await.expect("it is taken");
        }
        raw.say(&Call::root(63, "echo", &[0x85]).record()).await.expect("it is taken");
        assert_eq!(raw.end().await, "CAL-1");
    });
}

/// Peers that together want more than there is: some are closed, and what all take stays under `memory`.
#[test]
fn all_memory() {
    let mut options = impatient();
    (options.memory, options.connection.stall) = (16 << 20, Duration::from_secs(2));
    // Results are the objects' until they are sent: those of a few calls, on each of two threads.
    let bound = of_server(&ServerOptions { connections: 64, handshakes: 0, ..options.clone() }, 2) + 2 * 8 * RESULT;
    exhaust("all memory", options, bound, async |arena| {
        let results: Vec<u8> = (0..64).flat_map(|id| Call::root(id, "bytes", &result()).record()).collect();
        let half = [&varint(1 << 20)[..], &vec![0; 1 << 19]].concat();
        let values = [&[0x09], &varint(30_000)[..], &[0x60; 30_000]].concat();
        let waits: Vec<u8> = (0..30).flat_map(|id| Call::root(id, "wait", &values).record()).collect();
        let slot = Call { handles: vec![mine(65_000)], ..Call::root(0, "keep", &[0x0D, 0]) }.record();
        let mut peers = Vec::new();
        for count in 0..64 {
            let mut raw = Raw::connect(arena.address).await;
            let _ = raw.say(&greeting()).await;
            let _ = raw.say([&results, &half, &waits, &slot][count % 4]).await;
            peers.push(raw);
            assert!(arena.server.counters().memory <= 16 << 20);
        }
        arena.until("all have been heard", |arena| {
            let now = arena.server.counters();
            now.sessions + now.failed == 64 && now.open < 60
        });
        assert!(arena.server.counters().memory > 8 << 20);
    });
}

/// All that one connection can take, at once.
#[test]
fn one_connection_takes_all_it_can() {
    let options = ServerOptions::default();
    let bound = of_connection(&options.connection) + 34 * RESULT;
    withstand("all of one connection", options, bound, async |arena| {
        let values = [&[0x09], &varint(30_000)[..], &[0x60; 30_000]].concat();
        let waits: Vec<u8> = (0..30).flat_map(|id| Call::root(id, "wait", &values).record()).collect();
        let results: Vec<u8> = (30..64).flat_map(|id| Call::root(id, "bytes", &result()).record()).collect();
        let all: Vec<u8> = (0..1024).flat_map(|index| [&[0x0D], &varint(index)[..]].concat()).collect();
        let half = [&varint(1 << 20)[..], &vec![0; 1 << 19]].concat();
        arena.begin();
        let mut raw = Raw::greet(arena.address).await;
        for message in 0..64 {
            let handles = (0..1024).map(|handle| mine(1 + message * 1024 + handle)).collect();
            raw.say(&Call { handles, ..Call::root(0, "keep", &all) }.record()).await.expect("it is taken");
            assert_eq!(raw.outcome(0).await, None);
        }
        for said in [waits, results, half] {
            raw.say(&said).await.expect("it is taken");
        }
        arena.until("it is all there", |arena| arena.server.counters().memory > 40 << 20);
        raw.reset();
    });
}

#[test]
fn security_md_has_the_numbers() {
    let text = include_str!("../../../SECURITY.md").split_whitespace().collect::<Vec<_>>().join(" ");
    let ServerOptions { connection, .. } = ServerOptions::default();
    let mebibytes = |bytes: usize| format!("{} MiB", bytes.next_multiple_of(1 << 20) >> 20);
    let numbers = [
        format!("{} KiB", CONNECTION >> 10),
        format!("{REFERENCE} × (`imports` + `exports`)"),
        format!("**{}**", mebibytes(of_connection(&connection))),
        format!("**{}**", mebibytes(of_server(&ServerOptions::default(), 0))),
        format!("{} for each thread of the runtime", mebibytes(STEP)),
    ];
    let missing: Vec<_> = numbers.iter().filter(|number| !text.contains(*number)).collect();
    assert!(missing.is_empty(), "SECURITY.md does not say: {missing:?}");
}
