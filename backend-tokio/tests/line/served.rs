//! Servers on lines, peers that come and go there, and lines that are opened again.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use farref_conformance::faults::{BAD, Faults, Socket};
use farref_conformance::sim::Random;
use farref_tokio::{
    CloseCode, Connection, Directory, Ended, Error, LineOptions, LinkState, Options, Peer, Remote, Resuming, Server,
    ServerOptions, Validator, connect_line, start_line,
};
use tokio::io::AsyncWriteExt;

use super::{LIMIT, Log, directory, until};

/// A server at the side of a socket that stays.
fn serve(faults: Faults, seed: u64, options: ServerOptions) -> (Server, Socket, Log) {
    let log = Log::default();
    let server = Server::new(directory(&log), options);
    let (socket, stays) = Socket::new(faults, seed);
    server.serve_line(stays, Peer::named("the line"), LineOptions::default()).expect("no key is wanted");
    (server, socket, log)
}

async fn client(socket: &Socket) -> Result<Connection, Error> {
    let options = Options { handshake: LIMIT, ..Options::default() };
    start_line(socket.plug(), Directory::new(), options, LineOptions::default()).await
}

async fn note(client: &Connection, number: i64) -> Result<farref_tokio::Value, Error> {
    client.root().invoke("note", [number]).await
}

/// LNK-22: one peer after the other, whether it says that it leaves or not.
#[tokio::test(start_paused = true)]
async fn a_line_is_served_to_one_peer_after_the_other() {
    let (server, socket, log) = serve(BAD, 11, ServerOptions::default());
    for number in 0..6 {
        let client = client(&socket).await.expect("the server is there");
        assert_eq!(note(&client, number).await, Ok(number.into()));
        match number % 3 {
            0 => {
                client.close();
                client.closed().await;
            }
            1 => assert_eq!(client.shutdown().await, Ended::Done),
            // Nobody hears of its end.
            _ => socket.unplug(),
        }
    }
    assert_eq!(*log.lock().expect("no panic"), [0, 1, 2, 3, 4, 5]);
    until("all sessions but the last were told from each other", || server.counters().sessions == 6).await;

    let last = client(&socket).await.expect("the server is there");
    assert_eq!(note(&last, 6).await, Ok(6.into()));
    assert_eq!(server.counters().open, 1);
    // It ends gracefully.
    let ((), ended) = tokio::join!(server.shut_down(Duration::from_secs(10)), last.closed());
    assert_eq!(ended, Ended::Done);
    let counters = server.counters();
    assert_eq!((counters.open, counters.accepted, counters.sessions), (0, 7, 7));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_waits_at_a_line_can_shut_down() {
    let (server, socket, _) = serve(Faults::default(), 1, ServerOptions::default());
    server.shut_down(Duration::from_secs(10)).await;
    // The line is let go.
    let begun = start_line(socket.plug(), Directory::new(), Options::default(), LineOptions::default()).await;
    assert!(begun.is_err());
}

#[tokio::test(start_paused = true)]
async fn who_is_not_admitted_on_a_line_is_told() {
    let options =
        ServerOptions { validator: Validator::new(|peer| peer.to_string() != "the line"), ..ServerOptions::default() };
    let (server, socket, _) = serve(BAD, 5, options);
    for count in 1..=2 {
        let begun = client(&socket).await;
        let ended = match begun {
            Ok(client) => client.closed().await,
            Err(error) => error.ended().expect("the session has ended"),
        };
        assert_eq!(ended, Ended::PeerClosed(CloseCode::NotAllowed));
        until("it is counted", || server.counters().refused == count).await;
    }
}

/// Noise, and peers that begin and leave without a word, keep nobody from the line and leave nothing behind.
#[tokio::test(start_paused = true)]
async fn a_line_bears_noise_and_peers_that_abandon_it() {
    let (server, socket, log) = serve(Faults::default(), 51, ServerOptions::default());
    let mut random = Random::new(51);
    for number in 0..300 {
        let mut noise = socket.plug();
        let bytes: Vec<u8> = (0..random.below(4000)).map(|_| random.below(256) as u8).collect();
        // Nobody reads what the server says meanwhile.
        let _ = tokio::time::timeout(Duration::from_secs(1), noise.write_all(&bytes)).await;
        let client = client(&socket).await.expect("the server is there");
        assert_eq!(note(&client, number).await, Ok(number.into()));
        socket.unplug();
    }
    let client = client(&socket).await.expect("the server is there");
    assert_eq!(note(&client, 300).await, Ok(300.into()));
    assert!(log.lock().expect("no panic").iter().copied().eq(0..=300));
    let counters = server.counters();
    assert_eq!((counters.open, counters.sessions, counters.failed), (1, 301, 0));
    assert!(counters.memory < 64 * 1024, "{counters:?}");
}

/// One that is opened again each time that it is lost.
async fn reconnecting(socket: &Socket, options: Options) -> Connection {
    let opening = socket.clone();
    let open = move || {
        let stream = opening.plug();
        async move { Ok::<_, Error>(stream) }
    };
    connect_line(open, Directory::new(), options, LineOptions::default()).await.expect("the server is there")
}

#[tokio::test(start_paused = true)]
async fn a_session_outlives_the_streams_of_a_line() {
    let (server, socket, log) = serve(BAD, 21, ServerOptions::default());
    let resume = Some(Resuming::within(Duration::from_secs(60)));
    let client = reconnecting(&socket, Options { resume, handshake: LIMIT, ..Options::default() }).await;
    for number in 0..30 {
        let call = client.root().start("note", [number]).await.expect("it is called");
        if number % 3 == 0 {
            socket.unplug();
        }
        assert_eq!(call.await, Ok(number.into()));
    }
    assert!(log.lock().expect("no panic").iter().copied().eq(0..30), "each call once, in order");
    assert_eq!((server.counters().sessions, client.link()), (1, LinkState::Up));
    until("nothing is left", || client.is_at_baseline()).await;
}

/// A line that cannot be opened again ends the session when the time is up, and users see that it is tried.
#[tokio::test(start_paused = true)]
async fn a_line_that_does_not_come_back_ends_the_session() {
    let (_server, socket, _) = serve(Faults::default(), 31, ServerOptions::default());
    let opening = socket.clone();
    let is_first = std::sync::atomic::AtomicBool::new(true);
    let open = move || {
        let is_first = is_first.swap(false, std::sync::atomic::Ordering::SeqCst);
        let stream =
            if is_first { Ok(opening.plug()) } else { Err(Error::Io(std::io::ErrorKind::NotFound, "gone".into())) };
        async move { stream }
    };
    let resume = Some(Resuming::within(Duration::from_secs(20)));
    let options = Options { resume, ..Options::default() };
    let client = connect_line(open, Directory::new(), options, LineOptions::default()).await.expect("it is there");
    assert_eq!(note(&client, 1).await, Ok(1.into()));
    socket.unplug();
    let begin = tokio::time::Instant::now();
    until("it is tried", || match client.link() {
        LinkState::Parked { attempts, last: Some(Error::Io(_, text)), .. } => attempts > 2 && text == "gone",
        _ => false,
    })
    .await;
    // It is not known before that nobody will hear it, and then that it was never sent.
    let call = client.root().start("note", [2]).await.expect("it may come back");
    let lost = call.await.expect_err("it does not");
    assert_eq!((lost.ended(), lost.may_have_started()), (Some(Ended::LinkLost), false));
    assert!(begin.elapsed() >= Duration::from_secs(19), "{:?}", begin.elapsed());
}

/// Who is to wait for a line for longer than silence is borne does so, on both sides.
#[tokio::test(start_paused = true)]
async fn a_long_absence_is_borne() {
    let resume = Some(Resuming::within(Duration::from_secs(120)));
    let connection = Options { resume: resume.clone(), ..ServerOptions::default().connection };
    let (server, socket, log) = serve(BAD, 61, ServerOptions { connection, ..ServerOptions::default() });
    let opening = socket.clone();
    let back_at = Arc::new(Mutex::new(tokio::time::Instant::now()));
    let absence = back_at.clone();
    let open = move || {
        let is_there = tokio::time::Instant::now() >= *absence.lock().expect("no panic");
        let stream = is_there.then(|| opening.plug()).ok_or(Error::NoPeer);
        async move { stream }
    };
    let options = Options { resume, handshake: LIMIT, ..Options::default() };
    let client = connect_line(open, Directory::new(), options, LineOptions::default()).await.expect("it is there");
    assert_eq!(note(&client, 1).await, Ok(1.into()));
    *back_at.lock().expect("no panic") = tokio::time::Instant::now() + Duration::from_secs(90);
    socket.unplug();
    assert_eq!(note(&client, 2).await, Ok(2.into()));
    assert!(tokio::time::Instant::now() >= *back_at.lock().expect("no panic"));
    assert_eq!((server.counters().sessions, client.link()), (1, LinkState::Up));
    assert_eq!(*log.lock().expect("no panic"), [1, 2]);
}

/// A line that is lost before there is a peer is told at once, however long one would be waited for later.
#[tokio::test(start_paused = true)]
async fn a_line_that_is_lost_before_there_is_a_peer_is_told() {
    let (near, far) = tokio::io::duplex(64);
    let near = Mutex::new(Some(near));
    let open = move || {
        let stream = near.lock().expect("no panic").take().ok_or(Error::NoPeer);
        async move { stream }
    };
    let leave = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        drop(far);
    };
    let options = Options { resume: Some(Resuming::within(LIMIT)), ..Options::default() };
    let begin = tokio::time::Instant::now();
    let begun = connect_line(open, Directory::new(), options, LineOptions::default());
    let (begun, ()) = tokio::join!(begun, leave);
    assert_eq!(begun.expect_err("nobody is there"), Error::NoPeer);
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
}

/// Without leave to open it again the session ends with the stream.
#[tokio::test(start_paused = true)]
async fn without_resume_a_session_ends_with_its_line() {
    let (_server, socket, _) = serve(Faults::default(), 41, ServerOptions::default());
    let client = reconnecting(&socket, Options::default()).await;
    assert_eq!(note(&client, 1).await, Ok(1.into()));
    socket.unplug();
    assert_eq!(client.closed().await, Ended::LinkLost);
}
