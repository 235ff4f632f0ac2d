//! Sessions over streams that lose nothing but may be cut: both sides are devices, in virtual time.

mod common;

use std::cell::RefCell;

use common::{Board, MADE, Random, Serving, Small, Tasks, Wire, config, until};
use embassy_futures::join::join;
use embassy_futures::select::select;
use embassy_time::{Instant, Timer};
use farref_core::message::{CloseCode, Consequence, Deadline, DownReason, ErrorCode, Op};
use farref_core::session::{Call, CallError, Ended, Ref, Tables};
use farref_core::value::Value;
use farref_embassy::{Buffers, Config, End, Endpoint, Error, Peer, accept};

type Lent = Buffers<261, 64>;

/// Nothing is held but the directory.
const BASELINE: Tables = Tables { exports: 1, imports: 0, questions: 0, answers: 0 };

/// Two devices on a cable that is never cut; what `with` does is all that happens.
fn two<R>(
    configs: [Config; 2],
    with: impl AsyncFnOnce([&Board<'_>; 2], [Peer<'_>; 2], [&Wire; 2]) -> R,
) -> (R, [End; 2]) {
    let connections = configs.map(Small::new);
    let boards = [Board::new(connections[0].peer()), Board::new(connections[1].peer())];
    let wires = [Wire::default(), Wire::default()];
    let ends = RefCell::new([None; 2]);
    let mut tasks = Tasks::new();
    for side in 0..2 {
        let (connection, board, ends, wires) = (&connections[side], &boards[side], &ends, &wires);
        tasks.spawn(async move {
            let mut service = Serving::new(board);
            let endpoint = Endpoint::new(connection, &mut service);
            let (reader, writer) = (wires[1 - side].clone(), wires[side].clone());
            let mut buffers = Lent::new();
            let end = match side {
                0 => endpoint.connect(reader, writer, &mut buffers).await,
                _ => accept(&[endpoint], reader, writer, &mut buffers).await,
            };
            // What the other side says last goes nowhere any more.
            wires.iter().for_each(Wire::cut);
            ends.borrow_mut()[side] = Some(end);
        });
    }
    let peers = [connections[0].peer(), connections[1].peer()];
    let result = tasks.run(async {
        join(peers[0].connected(), peers[1].connected()).await;
        let result = with([&boards[0], &boards[1]], peers, [&wires[0], &wires[1]]).await;
        peers[0].shut_down();
        until("the end", || ends.borrow().iter().all(Option::is_some)).await;
        result
    });
    let ends = ends.borrow().map(|end| end.expect("both have ended"));
    (result, ends)
}

#[test]
fn calls_go_both_ways_and_a_session_ends_without_loss() {
    let ((), ends) = two([config(1), config(2)], async |boards, peers, _| {
        for (peer, other) in [(peers[0], boards[1]), (peers[1], boards[0])] {
            let root = peer.root();
            assert_eq!(root.invoke("log", |writer| writer.int(5)).await.unwrap().int(), Ok(5));
            assert_eq!(*other.log.borrow(), [5]);
            // An exception comes with its name and arguments.
            let raised = root.invoke("log", |writer| writer.int(-1)).await.unwrap();
            assert_eq!(raised.int(), Err(Error::Failed(ErrorCode::Raised)));
            let text = raised.read_error(|_, values| match values.first() {
                Some(Value::Exception(exception)) => {
                    (exception.name().to_string(), matches!(exception.args().first(), Some(Value::Str("below zero"))))
                }
                other => panic!("{other:?}"),
            });
            assert_eq!(text, Some(("ValueError".to_string(), true)));
            assert_eq!(root.get("nothing").await.unwrap().done(), Err(Error::Failed(ErrorCode::NoSuchMember)));
            let log = root.get("log").await.unwrap();
            assert_eq!(log.int(), Err(Error::Unexpected));
            let log = log.remote().unwrap();
            assert_eq!(log.call(|writer| writer.int(6)).await.unwrap().int(), Ok(6));
            log.tell(|writer| writer.int(7)).unwrap();
            until("all is said", || *other.log.borrow() == [5, 6, 7]).await;
        }
        until("all is given back", || peers.iter().all(|peer| peer.tables() == BASELINE)).await;
    });
    assert_eq!(ends, [End::Over(Ended::Done); 2]);
}

/// A result that is longer than its place was still given, and leaks nothing.
#[test]
fn a_result_that_is_too_long_is_told() {
    two([config(1), config(2)], async |_, peers, _| {
        let described = peers[0].root().perform(Call::new(peers[0].root().callee(), Op::Describe), |_| Ok(())).await;
        assert!(matches!(described, Err(Error::TooLong(length)) if length > 48), "{described:?}");
        until("nothing is left", || peers[0].tables() == BASELINE).await;
    });
}

/// References are kept beyond the call, called back, sent home and released; also while an object performs.
#[test]
fn references_are_kept_and_released() {
    two([config(1), config(2)], async |boards, peers, _| {
        let [here, there] = boards;
        let store = peers[0].root().get("store").await.unwrap().remote().unwrap();
        let put = |number: i64, reference| {
            let (call, store) = (Call::new(store.callee(), Op::CallMethod), &store);
            async move {
                let references = [reference];
                let put = store.perform(call.references(&references), |writer| {
                    writer.str("put")?;
                    writer.int(number)?;
                    writer.reference(0)
                });
                put.await.unwrap().done()
            }
        };
        // Twice the same: two holders, one slot.
        put(1, Ref::Local(MADE)).await.unwrap();
        put(2, Ref::Local(MADE)).await.unwrap();
        assert_eq!(peers[1].tables(), Tables { imports: 1, exports: 2, ..BASELINE });
        let kept = |number: i64| async move {
            let kept = there.kept.borrow().get(&number).unwrap().reference(peers[1]).unwrap();
            let remote = there.kept.borrow_mut().remove(&number).unwrap();
            assert_eq!(remote.reference(peers[1]), Ok(kept));
            assert_eq!(remote.call(|writer| writer.int(number)).await.unwrap().int(), Ok(number));
            there.kept.borrow_mut().insert(number, remote);
        };
        kept(1).await;
        kept(2).await;
        assert_eq!(*here.log.borrow(), [1, 2]);
        // It comes home: that is no reference to an object of the other side.
        let home = store.invoke("get", |writer| writer.int(1)).await.unwrap();
        assert!(home.read(|value| matches!(value, Value::Reference(_))).unwrap());
        assert_eq!(home.remote().err(), Some(Error::Unexpected));
        drop(home);
        // One takes the place of another, and is removed, by the object that performs.
        put(2, Ref::Local(MADE)).await.unwrap();
        store.invoke("remove", |writer| writer.int(2)).await.unwrap().done().unwrap();
        assert_eq!(here.freed.get(), 0);
        store.invoke("remove", |writer| writer.int(1)).await.unwrap().done().unwrap();
        until("it is freed", || here.freed.get() == 1).await;
        // What is lent cannot be kept.
        assert_eq!(put(3, Ref::Borrowed(MADE)).await, Err(Error::Failed(ErrorCode::BadArguments)));
        // The owner withdraws it.
        put(4, Ref::Local(MADE)).await.unwrap();
        peers[0].revoke(MADE, DownReason::Revoked).unwrap();
        until("it is down", || {
            let kept = there.kept.borrow();
            let told = kept.get(&4).unwrap().tell(|_| Ok(()));
            matches!(told, Err(Error::Call(CallError::Revoked(_))))
        })
        .await;
        assert_eq!(there.kept.borrow().get(&4).unwrap().down(), Some(DownReason::Revoked));
        assert_eq!(store.down(), None);
        there.kept.borrow_mut().clear();
        drop(store);
        until("all is given back", || peers.iter().all(|peer| peer.tables() == BASELINE)).await;
    });
}

/// TIM-1 to TIM-3: what takes too long is cancelled or abandoned, as the caller has it.
#[test]
fn deadlines_pass() {
    two([config(1), config(2)], async |boards, peers, _| {
        let later = peers[0].root().get("later").await.unwrap().remote().unwrap();
        let start = Instant::now();
        let deadline = Deadline { remaining: 300, consequence: Consequence::Abandon };
        let abandoned = later.perform(Call::new(later.callee(), Op::Call).deadline(deadline), |_| Ok(())).await;
        assert_eq!(abandoned.err(), Some(Error::DeadlineExceeded));
        let passed = start.elapsed().as_millis();
        assert!((300..310).contains(&passed), "{passed} ms");
        // The other one asks to stop, and hears what became of it.
        let mut cancelled =
            Box::pin(later.perform(Call::new(later.callee(), Op::Call).deadline(Deadline::new(200)), |_| Ok(())));
        select(&mut cancelled, until("it is interrupted", || boards[1].interrupted.get() == 1)).await;
        let answers: Vec<_> = boards[1].later.borrow_mut().drain(..).collect();
        for answer in answers {
            answer.cancel().unwrap();
        }
        assert_eq!(cancelled.await.unwrap().done(), Err(Error::Failed(ErrorCode::Cancelled)));
        // And one that is not waited for any more.
        let dropped = select(later.call(|_| Ok(())), Timer::after_millis(50)).await;
        drop(dropped);
        until("it is interrupted", || boards[1].interrupted.get() == 2).await;
        let answer = boards[1].later.borrow_mut().pop().unwrap();
        answer.reply(&[], |writer| writer.int(1)).await.unwrap();
        drop(later);
        until("all is given back", || peers.iter().all(|peer| peer.tables() == BASELINE)).await;
    });
}

/// ADM-2: more calls than there is room for wait for each other, and each gets its own answer.
#[test]
fn calls_that_find_no_place_wait() {
    two([config(1), config(2)], async |boards, peers, _| {
        let later = &peers[0].root().get("later").await.unwrap().remote().unwrap();
        let calls: [_; 10] =
            std::array::from_fn(|_| async move { later.call(|_| Ok(())).await.unwrap().int().unwrap() });
        let answer = async {
            for number in 0..10 {
                until("a call comes", || !boards[1].later.borrow().is_empty()).await;
                let answer = boards[1].later.borrow_mut().remove(0);
                answer.reply(&[], |writer| writer.int(number)).await.unwrap();
            }
        };
        let (mut got, ()) = join(embassy_futures::join::join_array(calls), answer).await;
        got.sort_unstable();
        assert_eq!(got, std::array::from_fn(|number| number as i64));
    });
}

/// TIM-5, LNK-8: a peer that has gone silent costs no more than its patience and the time for which its session is kept.
#[test]
fn a_silent_peer_is_given_up() {
    let config = |peer| Config { patience: Some(2_000), park: Some(5_000), ..config(peer) };
    let connection = Small::new(config(1));
    let board = Board::new(connection.peer());
    let silent = Small::new(Config { patience: Some(0), ..config(2) });
    let other = Board::new(silent.peer());
    let wires = [Wire::default(), Wire::default()];
    let mut tasks = Tasks::new();
    let mut service = Serving::new(&board);
    let endpoint = Endpoint::new(&connection, &mut service);
    tasks.run(async {
        let mut buffers = Lent::new();
        let carried = endpoint.connect(wires[1].clone(), wires[0].clone(), &mut buffers);
        let mut other_service = Serving::new(&other);
        let other_endpoint = [Endpoint::new(&silent, &mut other_service)];
        let mut other_buffers = Lent::new();
        // It is there until the session has begun, and then stops without a word.
        let mut accepted = Box::pin(accept(&other_endpoint, wires[0].clone(), wires[1].clone(), &mut other_buffers));
        let mut carried = Box::pin(carried);
        select(select(&mut carried, &mut accepted), connection.peer().connected()).await;
        let start = Instant::now();
        assert_eq!(carried.await, End::Parked);
        assert!((2_000..3_000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
        assert!(connection.peer().is_connected(), "it waits for another stream");
    });
}

/// Both sides use each other while their cable is cut at any byte, and plugged in again: each call is done once, and in order.
#[test]
fn a_session_goes_on_over_streams_that_are_cut() {
    let mut cuts = 0;
    for seed in 0..200 {
        let mut random = Random::new(seed);
        let connections = [Small::new(config(1)), Small::new(config(2))];
        let boards = [Board::new(connections[0].peer()), Board::new(connections[1].peer())];
        let cable: RefCell<Option<[Wire; 2]>> = RefCell::default();
        let mut tasks = Tasks::new();
        for side in 0..2 {
            let (connection, board, cable) = (&connections[side], &boards[side], &cable);
            tasks.spawn(async move {
                let mut service = Serving::new(board);
                let endpoint = [Endpoint::new(connection, &mut service)];
                let mut buffers = Lent::new();
                let mut last: Option<Wire> = None;
                loop {
                    let is_new = |wires: &[Wire; 2]| last.as_ref().is_none_or(|last| !last.is(&wires[0]));
                    until("another cable", || cable.borrow().as_ref().is_some_and(is_new)).await;
                    let wires = cable.borrow().clone().unwrap();
                    last = Some(wires[0].clone());
                    let (reader, writer) = (wires[1 - side].clone(), wires[side].clone());
                    let end = match side {
                        0 => endpoint[0].connect(reader, writer, &mut buffers).await,
                        _ => accept(&endpoint, reader, writer, &mut buffers).await,
                    };
                    wires.iter().for_each(Wire::cut);
                    assert!(matches!(end, End::Parked | End::Refused), "seed {seed}: {end:?}");
                }
            });
        }
        let peers = [connections[0].peer(), connections[1].peer()];
        let plug = async {
            loop {
                let wires = [Wire::default(), Wire::default()];
                let has_begun = peers.iter().all(|peer| peer.is_connected());
                // Before each side has the other's Hello, a session may have to begin anew (LNK-7).
                for wire in wires.iter().filter(|_| has_begun) {
                    if random.below(2) == 0 {
                        wire.cut_after(random.below(200));
                    }
                }
                *cable.borrow_mut() = Some(wires.clone());
                until("it has begun", || peers.iter().all(|peer| peer.is_connected())).await;
                Timer::after_millis(20 + random.below(200)).await;
                wires.iter().for_each(Wire::cut);
                cuts += 1;
            }
        };
        let calls = async |peer: Peer<'_>| {
            peer.connected().await;
            let log = peer.root().get("log").await.unwrap().remote().unwrap();
            for number in 0..30 {
                Timer::after_millis((number as u64 * 37 + seed) % 60).await;
                assert_eq!(log.call(|writer| writer.int(number)).await.unwrap().int(), Ok(number), "seed {seed}");
            }
        };
        tasks.run(select(plug, join(calls(peers[0]), calls(peers[1]))));
        for board in &boards {
            assert_eq!(*board.log.borrow(), Vec::from_iter(0..30), "seed {seed}: each once, in order");
            assert_eq!(board.sessions.get(), 0, "seed {seed}: one session");
        }
    }
    assert!(cuts > 1_000, "only {cuts} cuts");
}

/// LNK-6, LNK-8: a session that was kept for too long is gone for both, and what belonged to it is stale.
#[test]
fn a_session_that_waited_for_too_long_is_gone() {
    let connections = [Small::new(config(1)), Small::new(config(2))];
    let boards = [Board::new(connections[0].peer()), Board::new(connections[1].peer())];
    let mut services = boards.each_ref().map(Serving::new);
    let [first, second] = &mut services;
    let endpoints = [Endpoint::new(&connections[0], first), Endpoint::new(&connections[1], second)];
    let [connector, acceptor] = &endpoints;
    let acceptor = std::slice::from_ref(acceptor);
    let mut tasks = Tasks::new();
    tasks.run(async {
        let mut buffers = [Lent::new(), Lent::new()];
        let [near, far] = &mut buffers;
        let carry = async |near: &mut Lent, far: &mut Lent, then: &mut dyn FnMut(&[Wire; 2])| {
            let wires = [Wire::default(), Wire::default()];
            let both = join(
                connector.connect(wires[1].clone(), wires[0].clone(), near),
                accept(acceptor, wires[0].clone(), wires[1].clone(), far),
            );
            let cut = async {
                Timer::after_millis(100).await;
                then(&wires);
                wires.iter().for_each(Wire::cut);
            };
            join(both, cut).await.0
        };
        let mut log = None;
        let got = async {
            connections[0].peer().connected().await;
            log = Some(connections[0].peer().root().get("log").await.unwrap().remote().unwrap());
        };
        let (ends, ()) = join(carry(near, far, &mut |_| {}), got).await;
        assert_eq!(ends, (End::Parked, End::Parked));
        let log = log.unwrap();
        // The other side gives it up, and does not say so to anybody.
        connections[1].peer().close();
        let waiting = log.call(|writer| writer.int(1));
        let (ends, called) = join(carry(near, far, &mut |_| {}), waiting).await;
        assert_eq!(ends, (End::Over(Ended::SessionGone), End::Refused));
        assert!(matches!(called, Err(Error::Ended { ended: Ended::SessionGone, .. })), "{called:?}");
        assert_eq!(boards[0].sessions.get(), 1);
        assert!(log.is_stale());
        // The next one is as good as any, and knows nothing of the one before.
        let again = async {
            connections[0].peer().connected().await;
            assert_eq!(log.call(|writer| writer.int(1)).await.err(), Some(Error::Stale));
            connections[0].peer().root().invoke("log", |writer| writer.int(2)).await.unwrap().int()
        };
        let (_, got) = join(carry(near, far, &mut |_| {}), again).await;
        assert_eq!(got, Ok(2));
        assert_eq!(*boards[1].log.borrow(), [2]);
    });
}

/// What comes from strangers: nothing, noise, half a Hello, sessions that are begun and left. The next honest peer is served.
#[test]
fn strangers_do_not_keep_honest_peers_out() {
    let device = Small::new(config(1));
    let board = Board::new(device.peer());
    let mut service = Serving::new(&board);
    let endpoints = [Endpoint::new(&device, &mut service)];
    let mut tasks = Tasks::new();
    let mut random = Random::new(1);
    tasks.run(async {
        let mut buffers = Lent::new();
        let mut hello = Vec::new();
        for stranger in 0..1_000 {
            let wires = [Wire::default(), Wire::default()];
            let accepted = accept(&endpoints, wires[0].clone(), wires[1].clone(), &mut buffers);
            let play = async {
                match stranger % 5 {
                    0 => {}
                    1 => wires[0].put(&Vec::from_iter((0..200).map(|_| random.below(256) as u8))),
                    2 => wires[0].put(b"GET / HTTP/1.1\r\n\r\n"),
                    3 => wires[0].put(b"\xFFfarref\n\xFF\xFF\xFF\xFF\xFF"),
                    _ => {
                        // What another device says first.
                        let other = Small::new(config(9));
                        let board = Board::new(other.peer());
                        let mut service = Serving::new(&board);
                        let endpoint = Endpoint::new(&other, &mut service);
                        let said = Wire::default();
                        let mut buffers = Lent::new();
                        select(endpoint.connect(Wire::default(), said.clone(), &mut buffers), Timer::after_millis(1))
                            .await;
                        hello = said.take();
                        wires[0].put(&hello);
                        if stranger % 2 == 0 {
                            wires[0].put(&[3, 0, 0, 0, 7, 7, 7]);
                        }
                    }
                }
                Timer::after_millis(20).await;
                wires.iter().for_each(Wire::cut);
            };
            join(accepted, play).await;
        }
        assert!(hello.starts_with(b"\xFFfarref\n"));

        let honest = Small::new(config(3));
        let other = Board::new(honest.peer());
        let mut service = Serving::new(&other);
        let endpoint = Endpoint::new(&honest, &mut service);
        let wires = [Wire::default(), Wire::default()];
        let mut near = Lent::new();
        let both = join(
            endpoint.connect(wires[1].clone(), wires[0].clone(), &mut near),
            accept(&endpoints, wires[0].clone(), wires[1].clone(), &mut buffers),
        );
        let call = async {
            honest.peer().connected().await;
            let got = honest.peer().root().invoke("log", |writer| writer.int(8)).await.unwrap().int();
            honest.peer().close();
            got
        };
        let (ends, got) = join(both, call).await;
        assert_eq!(got, Ok(8));
        assert_eq!(ends.1, End::Over(Ended::PeerClosed(CloseCode::Leaving)));
    });
}
