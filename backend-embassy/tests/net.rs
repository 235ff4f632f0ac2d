//! Sessions over TCP between two network stacks in virtual time: what is lost below them, and connections that are cut.

mod common;

use std::cell::Cell;

use common::net::{address, stacks};
use common::{Board, Random, Serving, Small, Tasks, config, until};
use embassy_futures::join::join;
use embassy_futures::select::{Either, select};
use embassy_net::Stack;
use embassy_net::tcp::{ConnectError, TcpSocket};
use embassy_time::{Instant, Timer};
use farref_embassy::{CloseCode, Config, Ended, Endpoint, Error, Peer, Tables, tcp};

type Socket = tcp::Socket<512, 512, 261, 64>;

/// What a client is told for whom there is no room.
const FULL: Result<Ended, tcp::NoSession> = Ok(Ended::PeerClosed(CloseCode::OutOfResources));

const BASELINE: Tables = Tables { exports: 1, imports: 0, questions: 0, answers: 0 };

/// Serves these boards, each with a session of its own, for ever.
async fn serve<const SOCKETS: usize>(stack: Stack<'static>, connections: &[Small; 2], boards: &[Board<'_>; 2]) {
    let [first, second] = boards;
    let mut services = [Serving::new(first), Serving::new(second)];
    let [first, second] = &mut services;
    let endpoints = [Endpoint::new(&connections[0], first), Endpoint::new(&connections[1], second)];
    let mut sockets = [const { Socket::new() }; SOCKETS];
    tcp::serve(stack, tcp::PORT, &endpoints, &mut sockets).await
}

/// A client that is connected until the session is over; then it gives why.
async fn client(stack: Stack<'static>, connection: &Small, board: &Board<'_>) -> Result<Ended, tcp::NoSession> {
    let mut service = Serving::new(board);
    let endpoint = Endpoint::new(connection, &mut service);
    let mut socket = Socket::new();
    tcp::connect(stack, (address(0), tcp::PORT), &endpoint, &mut socket).await
}

/// Numbers that the other side notes, each once.
async fn note(peer: Peer<'_>, numbers: std::ops::Range<i64>) -> Result<(), Error> {
    peer.connected().await;
    let log = peer.root().get("log").await?.remote()?;
    for number in numbers {
        assert_eq!(log.call(|writer| writer.int(number)).await?.int(), Ok(number));
    }
    Ok(())
}

/// B9: calls in both directions while frames are lost, all of them for a while: TCP makes up for the one, resuming for the
/// other. Every call is done once, in order, in time that depends on the seed alone.
#[test]
fn frames_are_lost() {
    let mut times = Vec::new();
    for (seed, loss) in [(1, 0), (2, 0), (3, 100), (4, 100), (5, 200), (6, 200), (6, 200)] {
        let connections = [1, 2].map(|peer| Small::new(config(peer)));
        let servers = [Small::new(config(3)), Small::new(config(3))];
        let boards = connections.each_ref().map(|connection| Board::new(connection.peer()));
        let served = servers.each_ref().map(|connection| Board::new(connection.peer()));
        let mut tasks = Tasks::new();
        let ([server, clients], lost) = stacks(&mut tasks, seed);
        lost.set(loss);
        tasks.spawn(serve::<3>(server, &servers, &served));
        let start = Instant::now();
        tasks.spawn({
            let (connection, board) = (&connections[0], &boards[0]);
            async move {
                let ended = client(clients, connection, board).await;
                // The last word may be lost: then nobody is there any more who could say it again.
                assert!(matches!(ended, Ok(Ended::Done | Ended::SessionGone)), "seed {seed}: {ended:?}");
                assert!(loss > 0 || ended == Ok(Ended::Done), "seed {seed}: {ended:?}");
            }
        });
        tasks.run(async {
            let (there, here) = (connections[0].peer(), servers[0].peer());
            let (forth, back) = join(note(there, 0..50), note(here, 0..50)).await;
            assert_eq!((forth, back), (Ok(()), Ok(())), "seed {seed}");
            until("all is given back", || there.tables() == BASELINE && here.tables() == BASELINE).await;
            there.shut_down();
            until("the end", || boards[0].sessions.get() == 1 && served[0].sessions.get() == 1).await;
        });
        assert_eq!(*boards[0].log.borrow(), Vec::from_iter(0..50));
        assert_eq!(*served[0].log.borrow(), Vec::from_iter(0..50));
        times.push(start.elapsed().as_millis());
    }
    assert!(times[0] < 1_000 && times[1] < 1_000, "without a loss: {times:?}");
    assert_eq!(times[5], times[6], "the same seed: {times:?}");
}

/// C2: nothing comes through for so long that both sides give their connection up. The client opens one after the other until
/// there is an answer, and the session goes on with what was under way.
#[test]
fn a_session_outlives_its_connection() {
    for seed in 10..20 {
        let connections = [1, 2].map(|peer| Small::new(Config { patience: Some(5_000), ..config(peer) }));
        let servers = [Small::new(config(3)), Small::new(config(3))];
        let boards = connections.each_ref().map(|connection| Board::new(connection.peer()));
        let served = servers.each_ref().map(|connection| Board::new(connection.peer()));
        let mut tasks = Tasks::new();
        let ([server, clients], lost) = stacks(&mut tasks, seed);
        tasks.spawn(serve::<3>(server, &servers, &served));
        tasks.spawn({
            let (connection, board) = (&connections[0], &boards[0]);
            async move { panic!("{:?}", client(clients, connection, board).await) }
        });
        let mut random = Random::new(seed);
        let (there, here) = (connections[0].peer(), servers[0].peer());
        tasks.run(async {
            there.connected().await;
            let cuts = async {
                for _ in 0..5 {
                    Timer::after_millis(random.below(100)).await;
                    lost.set(1_000);
                    Timer::after_millis(30_000 + random.below(60_000)).await;
                    lost.set(0);
                    note(there, 0..5).await.unwrap();
                }
            };
            let calls = async {
                for _ in 0..5 {
                    note(here, 0..30).await.unwrap();
                    Timer::after_millis(20).await;
                }
            };
            join(cuts, calls).await;
            until("all is given back", || there.tables() == BASELINE && here.tables() == BASELINE).await;
        });
        let five = |numbers: i64| Vec::from_iter((0..5).flat_map(|_| 0..numbers));
        assert_eq!(*served[0].log.borrow(), five(5), "seed {seed}");
        assert_eq!(*boards[0].log.borrow(), five(30), "seed {seed}");
        assert!([&boards[0], &served[0], &served[1]].iter().all(|board| board.sessions.get() == 0), "seed {seed}");
    }
}

/// LNK-4: a client that has lost its connection without a word comes back on a socket that is left, though the server takes the
/// one before for alive; and that is the end of that one.
#[test]
fn a_client_comes_back_before_its_loss_is_known() {
    let connections = [1, 2].map(|peer| Small::new(config(peer)));
    let servers = [Small::new(config(3)), Small::new(config(3))];
    let boards = connections.each_ref().map(|connection| Board::new(connection.peer()));
    let served = servers.each_ref().map(|connection| Board::new(connection.peer()));
    let mut tasks = Tasks::new();
    let ([server, clients], _) = stacks(&mut tasks, 30);
    tasks.spawn(serve::<3>(server, &servers, &served));
    let there = connections[0].peer();
    let start = Instant::now();
    tasks.run(async {
        let mut service = Serving::new(&boards[0]);
        let endpoint = Endpoint::new(&connections[0], &mut service);
        // The other client stays all the time.
        let stays = client(clients, &connections[1], &boards[1]);
        let comes_and_goes = async {
            for round in 0..20 {
                let mut socket = Socket::new();
                let connected = tcp::connect(clients, (address(0), tcp::PORT), &endpoint, &mut socket);
                // Here the socket is gone, without a word to the other side.
                let is_noted = select(connected, note(there, round * 10..round * 10 + 10)).await;
                assert!(matches!(is_noted, Either::Second(Ok(()))), "round {round}");
            }
        };
        assert!(matches!(select(stays, comes_and_goes).await, Either::Second(())));
    });
    assert!(start.elapsed().as_millis() < 10_000, "{:?}", start.elapsed());
    let noted: Vec<_> = served.iter().map(|board| board.log.borrow().len()).collect();
    assert!(noted.contains(&200) && noted.contains(&0), "{noted:?}");
    assert!(served.iter().all(|board| board.sessions.get() == 0));
}

/// Those who open a thousand sessions and leave them, and who say nothing or noise, keep nobody out for long.
#[test]
fn strangers_come_and_go() {
    let connections = [1, 2].map(|peer| Small::new(Config { patience: Some(2_000), ..config(peer) }));
    let servers = [Small::new(config(3)), Small::new(config(3))];
    let boards = connections.each_ref().map(|connection| Board::new(connection.peer()));
    let served = servers.each_ref().map(|connection| Board::new(connection.peer()));
    let mut tasks = Tasks::new();
    let ([server, clients], _) = stacks(&mut tasks, 40);
    tasks.spawn(serve::<3>(server, &servers, &served));
    tasks.run(async {
        let mut random = Random::new(40);
        let mut begun_sessions = 0;
        for stranger in 0..1_000 {
            let mut memory = [[0; 256]; 2];
            let [receive, transmit] = &mut memory;
            if stranger % 10 != 0 {
                // A session of somebody else each time, that is left as soon as it has begun.
                let connection = Small::new(config((10 + stranger % 200) as u8));
                let board = Board::new(connection.peer());
                let begun = select(client(clients, &connection, &board), connection.peer().connected()).await;
                match begun {
                    // All is in use by those who have not been silent for long enough.
                    Either::First(ended) => {
                        assert!(ended.is_err() || ended == FULL, "stranger {stranger}: {ended:?}");
                        Timer::after_millis(500).await;
                    }
                    Either::Second(_) => begun_sessions += 1,
                }
                continue;
            }
            let mut socket = TcpSocket::new(clients, receive, transmit);
            match socket.connect((address(0), tcp::PORT)).await {
                Ok(()) => {}
                // All sockets are taken, by strangers who have said nothing yet.
                Err(error) => assert_eq!(error, ConnectError::ConnectionReset),
            }
            let noise: Vec<u8> = (0..random.below(200)).map(|_| random.below(256) as u8).collect();
            let _ = socket.write(&noise).await;
            if stranger % 20 == 0 {
                socket.close();
                let _ = socket.flush().await;
            }
        }
        assert!(begun_sessions > 200, "{begun_sessions}");
        let start = Instant::now();
        let honest = async {
            loop {
                let ended = client(clients, &connections[0], &boards[0]).await;
                assert!(ended.is_err() || ended == FULL, "{ended:?}");
                Timer::after_millis(100).await;
            }
        };
        let ended = select(honest, note(connections[0].peer(), 0..10)).await;
        assert!(matches!(ended, Either::Second(Ok(()))));
        assert!(start.elapsed().as_secs() < 15, "{:?}", start.elapsed());
    });
    assert!(served.iter().any(|board| board.log.borrow().ends_with(&[7, 8, 9])));
}

/// What a client is told when it finds nobody, and when it finds somebody else.
#[test]
fn clients_are_told_why_there_is_no_session() {
    let connection = Small::new(config(1));
    let board = Board::new(connection.peer());
    let mut tasks = Tasks::new();
    let ([server, clients], lost) = stacks(&mut tasks, 50);
    tasks.run(async {
        let refused = client(clients, &connection, &board).await;
        assert_eq!(refused, Err(tcp::NoSession::Connect(ConnectError::ConnectionReset)));
        lost.set(1_000);
        let start = Instant::now();
        let silence = client(clients, &connection, &board).await;
        assert_eq!(silence, Err(tcp::NoSession::Connect(ConnectError::TimedOut)));
        assert_eq!(start.elapsed().as_secs(), 10);
        lost.set(0);
        // Someone who says nothing at all.
        let mute = async {
            let mut memory = [[0; 256]; 2];
            let [receive, transmit] = &mut memory;
            let mut socket = TcpSocket::new(server, receive, transmit);
            socket.accept(tcp::PORT).await.unwrap();
            std::future::pending::<()>().await;
        };
        let start = Instant::now();
        let Either::First(mute) = select(client(clients, &connection, &board), mute).await else { unreachable!() };
        assert_eq!(mute, Err(tcp::NoSession::NoPeer));
        assert_eq!(start.elapsed().as_secs(), 10);
    });
    // None of them was a session.
    assert_eq!(
        connection.peer().root().tell(|_| Ok(())),
        Err(Error::Ended { ended: Ended::LinkLost, may_have_started: false })
    );
    assert!(!connection.peer().is_connected());
}

/// CLS-1: a client that finds all connections in use is told so, whether the device keeps sessions and waits for its first word
/// or not; the others are not disturbed, and when one of them leaves it has a place.
#[test]
fn one_session_too_many_is_told_so() {
    for park in [Some(60_000), None] {
        let config = |peer| Config { park, ..config(peer) };
        let connections = [1, 2, 4].map(|peer| Small::new(config(peer)));
        let servers = [Small::new(config(3)), Small::new(config(3))];
        let boards = connections.each_ref().map(|connection| Board::new(connection.peer()));
        let served = servers.each_ref().map(|connection| Board::new(connection.peer()));
        let over = Cell::new(0);
        let mut tasks = Tasks::new();
        let ([server, clients], _) = stacks(&mut tasks, 70);
        tasks.spawn(serve::<3>(server, &servers, &served));
        for place in 0..2 {
            let (connection, board, over) = (&connections[place], &boards[place], &over);
            tasks.spawn(async move {
                assert_eq!(client(clients, connection, board).await, Ok(Ended::Done));
                over.set(over.get() + 1);
            });
        }
        let [first, second, third] = connections.each_ref().map(Small::peer);
        tasks.run(async {
            note(first, 0..3).await.unwrap();
            note(second, 0..3).await.unwrap();
            for _ in 0..10 {
                let start = Instant::now();
                assert_eq!(client(clients, &connections[2], &boards[2]).await, FULL);
                assert!(start.elapsed().as_millis() < 100, "{:?}", start.elapsed());
            }
            note(first, 3..6).await.unwrap();
            note(second, 3..6).await.unwrap();
            assert_eq!(over.get(), 0);
            first.shut_down();
            until("the first has left", || over.get() == 1).await;
            let noted = select(client(clients, &connections[2], &boards[2]), note(third, 6..9)).await;
            assert!(matches!(noted, Either::Second(Ok(()))), "{park:?}");
        });
        let mut noted: Vec<_> = served.iter().map(|board| board.log.borrow().len()).collect();
        noted.sort_unstable();
        assert_eq!(noted, [6, 9], "{park:?}");
    }
}

/// CLS-1: who is closed hears why.
#[test]
fn a_session_is_closed_for_both() {
    let connections = [1, 2].map(|peer| Small::new(config(peer)));
    let servers = [Small::new(config(3)), Small::new(config(3))];
    let boards = connections.each_ref().map(|connection| Board::new(connection.peer()));
    let served = servers.each_ref().map(|connection| Board::new(connection.peer()));
    let mut tasks = Tasks::new();
    let ([server, clients], _) = stacks(&mut tasks, 60);
    tasks.spawn(serve::<3>(server, &servers, &served));
    tasks.run(async {
        let closes = async {
            servers[0].peer().connected().await;
            servers[0].peer().close();
            std::future::pending::<()>().await;
        };
        let ended = select(client(clients, &connections[0], &boards[0]), closes).await;
        assert!(matches!(ended, Either::First(Ok(Ended::PeerClosed(CloseCode::Leaving)))));
    });
}
