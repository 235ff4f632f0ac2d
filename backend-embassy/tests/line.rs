//! Sessions over a serial line that loses and changes bytes, in virtual time: both sides are devices.

mod common;

use std::cell::Cell;

use common::{Board, Cut, MADE, Random, Serving, Small, Tasks, Wire, config, until};
use embassy_futures::join::join;
use embassy_time::{Duration, Instant, Timer, with_timeout};
use embedded_io_async::{ErrorType, Write};
use farref_embassy::{
    Call, CloseCode, Connection, Ended, Endpoint, Error, LineBuffers, LineConfig, Micro, Op, Peer, Ref, Returned,
    Tables, line_buffer,
};

type Buffers = LineBuffers<32, { line_buffer(256) }>;

const BASELINE: Tables = Tables { exports: 1, imports: 0, questions: 0, answers: 0 };

/// Bytes in a millisecond, about: 115,200 baud.
const SPEED: usize = 11;

/// One direction of a line: each byte takes its time, and some runs of them come out as others, fewer or more.
struct Line<'l> {
    to: Wire,
    random: Random,
    /// One run in so many bytes is disturbed, 0 for none.
    faults: &'l Cell<u64>,
    left: u64,
    disturbed: &'l Cell<usize>,
}

impl ErrorType for Line<'_> {
    type Error = Cut;
}

impl Write for Line<'_> {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, Cut> {
        let bytes = &bytes[..bytes.len().min(SPEED)];
        let mut came = Vec::new();
        for &byte in bytes {
            match self.faults.get() {
                0 => self.left = 0,
                faults if self.left == 0 && self.random.below(faults) == 0 => self.left = 64 + self.random.below(193),
                _ => {}
            }
            if self.left == 0 {
                came.push(byte);
                continue;
            }
            self.left -= 1;
            self.disturbed.set(self.disturbed.get() + 1);
            match self.random.below(4) {
                0 => {}
                1 => came.push(byte ^ 1 << self.random.below(8)),
                2 => came.extend([byte, self.random.below(256) as u8]),
                _ => came.push(0),
            }
        }
        self.to.put(&came);
        Timer::after_millis(1).await;
        Ok(bytes.len())
    }

    async fn flush(&mut self) -> Result<(), Cut> {
        Ok(())
    }
}

/// Both directions, and what is wrong with them.
#[derive(Default)]
struct Cable {
    wires: [Wire; 2],
    faults: Cell<u64>,
    disturbed: Cell<usize>,
}

impl Cable {
    fn with_faults(faults: u64) -> Self {
        Self { faults: Cell::new(faults), ..Self::default() }
    }

    /// Where a side hears, and where it speaks.
    fn end(&self, side: usize, seed: u64) -> (Wire, Line<'_>) {
        let (random, faults, disturbed) = (Random::new(seed), &self.faults, &self.disturbed);
        (self.wires[1 - side].clone(), Line { to: self.wires[side].clone(), random, faults, left: 0, disturbed })
    }
}

/// Two boards on a line for as long as `with` takes, and then until the session is over on both sides.
fn two(seed: u64, cable: &Cable, with: impl AsyncFnOnce([&Board<'_>; 2], [Peer<'_>; 2])) -> usize {
    let connections = [1, 2].map(|peer| Small::new(config(peer)));
    let boards = connections.each_ref().map(|connection| Board::new(connection.peer()));
    let ended = Cell::new(0);
    let mut tasks = Tasks::new();
    for side in 0..2 {
        let (from, to) = cable.end(side, seed * 2 + side as u64);
        let (connection, board, ended) = (&connections[side], &boards[side], &ended);
        tasks.spawn(async move {
            let mut service = Serving::new(board);
            let endpoint = Endpoint::new(connection, &mut service);
            let over = endpoint.line(from, to, &mut Buffers::new(), LineConfig::default()).await;
            assert!(matches!(over, Ended::Done), "seed {seed}: {over:?}");
            ended.set(ended.get() + 1);
        });
    }
    let peers = connections.each_ref().map(Connection::peer);
    tasks.run(async {
        join(peers[0].connected(), peers[1].connected()).await;
        with([&boards[0], &boards[1]], [peers[0], peers[1]]).await;
        peers[0].shut_down();
        until("both sides are done", || ended.get() == 2).await;
    });
    cable.disturbed.get()
}

async fn note(peer: Peer<'_>, numbers: std::ops::Range<i64>) {
    let log = peer.root().get("log").await.unwrap().remote().unwrap();
    for number in numbers {
        assert_eq!(log.call(|writer| writer.int(number)).await.unwrap().int(), Ok(number));
    }
}

/// B8: a tenth of the bytes are disturbed, in runs of 64 to 256. Calls go both ways, each is done once and in order, what was
/// kept is released, and the session ends without loss.
#[test]
fn a_tenth_of_the_bytes_are_disturbed() {
    let mut disturbed = 0;
    for seed in 0..20 {
        disturbed += two(seed, &Cable::with_faults(1_440), async |boards, peers| {
            join(note(peers[0], 0..40), note(peers[1], 0..40)).await;
            assert!(boards.iter().all(|board| *board.log.borrow() == Vec::from_iter(0..40)), "seed {seed}");
            // A reference is kept there, called back, and let go.
            let store = peers[0].root().get("store").await.unwrap().remote().unwrap();
            let call = Call::new(store.callee(), Op::CallMethod).references(&[Ref::Local(MADE)]);
            let put = store.perform(call, |writer| {
                writer.str("put")?;
                writer.int(1)?;
                writer.reference(0)
            });
            put.await.unwrap().done().unwrap();
            let kept = boards[1].kept.borrow().get(&1).unwrap().clone();
            assert_eq!(kept.call(|writer| writer.int(40)).await.unwrap().int(), Ok(40));
            drop(kept);
            boards[1].kept.borrow_mut().clear();
            drop(store);
            until("it is freed", || boards[0].freed.get() == 1).await;
            until("all is given back", || peers.iter().all(|peer| peer.tables() == BASELINE)).await;
        });
    }
    assert!(disturbed > 5_000, "{disturbed}");
}

/// ADM-1, ORD-2: a call that comes while answers fill the output waits until some are acknowledged, in its turn; its caller has
/// done nothing that would have to be refused.
#[test]
fn calls_wait_for_room_for_their_answers() {
    two(200, &Cable::default(), async |boards, peers| {
        let root = peers[0].root();
        let later = root.get("later").await.unwrap().remote().unwrap();
        let log = root.get("log").await.unwrap().remote().unwrap();
        let long = join(later.call(|_| Ok(())), later.call(|_| Ok(())));
        let short = async {
            until("both wait", || boards[1].later.borrow().len() == 2).await;
            for later in boards[1].later.take() {
                later.reply(&[], |writer| writer.str(&"x".repeat(220))).await.unwrap();
            }
            let numbers = join(log.call(|writer| writer.int(1)), log.call(|writer| writer.int(2))).await;
            [numbers.0, numbers.1].map(|returned| returned.and_then(|returned| returned.int()))
        };
        let ((first, second), numbers) = join(long, short).await;
        assert_eq!(numbers, [Ok(1), Ok(2)]);
        assert_eq!(*boards[1].log.borrow(), [1, 2]);
        // They are longer than what is kept here.
        let too_long = |result: Result<Returned<'_>, Error>| matches!(result, Err(Error::TooLong(220..)));
        assert!(too_long(first) && too_long(second));
    });
}

/// C2: a line that is unplugged for half a minute goes on, and what was under way with it.
#[test]
fn a_line_is_unplugged() {
    let cable = Cable::default();
    two(100, &cable, async |boards, peers| {
        note(peers[0], 0..5).await;
        cable.faults.set(1);
        let start = Instant::now();
        let called = async {
            note(peers[0], 5..10).await;
            start.elapsed().as_secs()
        };
        let plugged = async {
            Timer::after_secs(30).await;
            assert_eq!(*boards[1].log.borrow(), [0, 1, 2, 3, 4]);
            cable.faults.set(0);
        };
        let (after, ()) = join(called, plugged).await;
        assert!((30..40).contains(&after), "{after} s");
        assert_eq!(*boards[1].log.borrow(), Vec::from_iter(0..10));
    });
}

/// CLS-1: the last word of a session is said, though everything before it has been acknowledged; and it is heard.
#[test]
fn a_session_is_closed_for_both() {
    let connections = [1, 2].map(|peer| Small::new(config(peer)));
    let boards = connections.each_ref().map(|connection| Board::new(connection.peer()));
    let cable = Cable::default();
    let mut services = boards.each_ref().map(Serving::new);
    let [first, second] = &mut services;
    let endpoints = [Endpoint::new(&connections[0], first), Endpoint::new(&connections[1], second)];
    let mut tasks = Tasks::new();
    let ended = tasks.run(async {
        let (mut near, mut far) = (Buffers::new(), Buffers::new());
        let [(near_in, near_out), (far_in, far_out)] = [0, 1].map(|side| cable.end(side, side as u64));
        let both = join(
            endpoints[0].line(near_in, near_out, &mut near, LineConfig::default()),
            endpoints[1].line(far_in, far_out, &mut far, LineConfig::default()),
        );
        let closes = async {
            connections[0].peer().connected().await;
            note(connections[0].peer(), 0..3).await;
            Timer::after_secs(2).await;
            connections[0].peer().close();
        };
        join(both, closes).await.0
    });
    assert_eq!(ended, (Ended::Closed(CloseCode::Leaving), Ended::PeerClosed(CloseCode::Leaving)));
}

/// LNK-22: a side that starts again ends the session before, and the next one begins on the same line. One that falls silent
/// does so too, after the line's patience, and whoever waits is told.
#[test]
fn the_other_side_starts_again() {
    let (board_side, other) = (Small::new(config(1)), [2, 3].map(|peer| Small::new(config(peer))));
    let board = Board::new(board_side.peer());
    let others = other.each_ref().map(|connection| Board::new(connection.peer()));
    let cable = Cable::default();
    let ends = Cell::new(Vec::new());
    let config = LineConfig { patience: 5_000, ..LineConfig::default() };
    let mut tasks = Tasks::new();
    tasks.spawn(async {
        let mut service = Serving::new(&board);
        let endpoint = Endpoint::new(&board_side, &mut service);
        let mut buffers = Buffers::new();
        loop {
            let (from, to) = cable.end(0, 0);
            let ended = endpoint.line(from, to, &mut buffers, config).await;
            let mut all = ends.take();
            all.push(ended);
            ends.set(all);
        }
    });
    tasks.run(async {
        let mut stale = None;
        for (round, (connection, board_there)) in other.iter().zip(&others).enumerate() {
            let mut service = Serving::new(board_there);
            let endpoint = Endpoint::new(connection, &mut service);
            let mut buffers = Buffers::new();
            let (from, to) = cable.end(1, 1);
            let carried = endpoint.line(from, to, &mut buffers, config);
            let used = async {
                connection.peer().connected().await;
                note(connection.peer(), 0..3).await;
                board_side.peer().connected().await;
                stale = Some(board_side.peer().root().get("log").await.unwrap().remote().unwrap());
            };
            // It is switched off in the middle of everything.
            embassy_futures::select::select(carried, used).await;
            assert_eq!(board.log.borrow().len(), (round + 1) * 3);
        }
        let log = stale.unwrap();
        let waiting = with_timeout(Duration::from_secs(20), log.call(|writer| writer.int(1))).await;
        let told = waiting.expect("it is told in time").map(|_| ());
        assert_eq!(told, Err(Error::Ended { ended: Ended::LinkLost, may_have_started: true }));
    });
    assert_eq!(ends.take(), [Ended::PeerRestarted, Ended::LinkLost]);
    assert_eq!(board.sessions.get(), 2);
}

/// LNK-22, LNK-26: who says the last word to somebody who has left goes on saying it for a while, but not to the next one.
#[test]
fn the_next_peer_does_not_wait_for_the_last_word_of_the_session_before() {
    let (board_side, other) = (Small::new(config(1)), [2, 3].map(|peer| Small::new(config(peer))));
    let board = Board::new(board_side.peer());
    let others = other.each_ref().map(|connection| Board::new(connection.peer()));
    let cable = Cable::default();
    let mut tasks = Tasks::new();
    tasks.spawn(async {
        let mut service = Serving::new(&board);
        let endpoint = Endpoint::new(&board_side, &mut service);
        let mut buffers = Buffers::new();
        loop {
            let (from, to) = cable.end(0, 0);
            endpoint.line(from, to, &mut buffers, LineConfig::default()).await;
        }
    });
    tasks.run(async {
        for (connection, board_there) in other.iter().zip(&others) {
            let start = Instant::now();
            let mut service = Serving::new(board_there);
            let endpoint = Endpoint::new(connection, &mut service);
            let mut buffers = Buffers::new();
            let (from, to) = cable.end(1, 1);
            let carried = endpoint.line(from, to, &mut buffers, LineConfig::default());
            let used = async {
                connection.peer().connected().await;
                note(connection.peer(), 0..3).await;
            };
            embassy_futures::select::select(carried, used).await;
            assert!(start.elapsed().as_millis() < 2_000, "{:?}", start.elapsed());
            // Whom it tells has just been switched off.
            board_side.peer().close();
        }
    });
    assert_eq!(board.log.borrow().len(), 6);
}

/// Noise before, between and after is no session and no harm.
#[test]
fn noise_is_no_peer() {
    let connection = Connection::<Micro<8, 8, 4, 512, 320>, 8, 4, 48>::new(config(1));
    let board = Board::new(connection.peer());
    let wires = [Wire::default(), Wire::default()];
    let mut tasks = Tasks::new();
    tasks.spawn(async {
        let mut service = Serving::new(&board);
        let endpoint = Endpoint::new(&connection, &mut service);
        let ended = endpoint.line(wires[1].clone(), wires[0].clone(), &mut Buffers::new(), LineConfig::default()).await;
        panic!("{ended:?}");
    });
    tasks.spawn(async {
        loop {
            Timer::after_millis(10).await;
            wires[0].take();
        }
    });
    let mut random = Random::new(7);
    tasks.run(async {
        for _ in 0..2_000 {
            let noise: Vec<u8> = (0..random.below(100)).map(|_| random.below(256) as u8).collect();
            wires[1].put(&noise);
            Timer::after_millis(3).await;
        }
    });
    assert!(!connection.peer().is_connected());
    assert_eq!(board.sessions.get(), 0);
}
