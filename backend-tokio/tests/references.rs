//! Monitors as futures, and objects withdrawn from all peers of a server (REF-8, REF-10).

use std::sync::Arc;
use std::time::Duration;

use farref_tokio::{
    Connection, Directory, DownReason, Ended, Function, List, Lost, Object, Options, Peer, Proxy, Reference, Remote,
    Server, ServerOptions,
};

const LIMIT: Duration = Duration::from_secs(5);

async fn connected(server: &Server) -> (Connection, Proxy) {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    server.serve(theirs, Peer::named("test"));
    let client = farref_tokio::start(ours, Directory::new(), Options::default()).await.expect("it opens");
    let given = client.root().invoke("give", ()).await.expect("it is given");
    (client, Proxy::try_from(given).expect("an object of the peer"))
}

#[tokio::test]
async fn an_object_is_withdrawn_from_all_peers_of_a_server() {
    let object: Arc<dyn Object> = Arc::new(List::new(vec![1.into()]));
    let given = object.clone();
    let give = Function::inline(move |_| Ok(Reference::Local(given.clone()).into()));
    let server = Server::new(Directory::new().with("give", "", give), ServerOptions::default());
    let (first, held) = connected(&server).await;
    let (_second, other) = connected(&server).await;
    let monitors = [held.down(), held.down(), other.down()].map(tokio::spawn);
    assert_eq!(server.revoke(&object, DownReason::Revoked), 2);
    for monitor in monitors {
        let lost = tokio::time::timeout(LIMIT, monitor).await.expect("in time").expect("no panic");
        assert_eq!(lost, Lost::Down(DownReason::Revoked));
    }
    assert_eq!(held.length().await.expect_err("it is down").down(), Some(DownReason::Revoked));
    assert_eq!(server.revoke(&object, DownReason::Revoked), 0);
    // Told once: what comes later changes nothing.
    first.close();
    assert_eq!(held.down().await, Lost::Down(DownReason::Revoked));
    let of_root = tokio::time::timeout(LIMIT, first.root().down()).await.expect("in time");
    assert!(matches!(of_root, Lost::Ended(Ended::Closed(_))), "{of_root:?}");
}
