//! Cancelled calls, deadlines, keepalive and the counted end, over real streams.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use farref_tokio::{
    Action, Args, Async, AsyncFunction, AsyncObject, CallError, Cancelled, Connection, Deadline, Directory, Ended,
    Error, Function, Options, Proxy, Reference, Remote, Value, is_cancelled, start,
};
use tokio::time::Instant;

/// Two sides over a stream in memory.
async fn pair(served: Directory, [ours, theirs]: [Options; 2]) -> (Connection, Connection) {
    let (left, right) = tokio::io::duplex(1 << 16);
    let (client, server) = tokio::join!(start(left, Directory::new(), ours), start(right, served, theirs));
    (client.expect("it opens"), server.expect("it opens"))
}

async fn served(directory: Directory) -> (Connection, Connection) {
    pair(directory, [Options::default(), Options::default()]).await
}

/// Counts how many of it there are.
struct Inside(Arc<AtomicUsize>);

impl Inside {
    fn enter(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count.clone())
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A directory with what waits for ever, and how many wait.
fn waiting() -> (Directory, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let inside = count.clone();
    let wait = AsyncFunction::new(move |_| {
        let inside = Inside::enter(&inside);
        async move {
            std::future::pending::<()>().await;
            drop(inside);
            Ok(Value::None)
        }
    });
    let relay = AsyncFunction::new(|mut args| async move {
        let function = Proxy::try_from(args.positional.remove(0)).map_err(|_| Error::bad_arguments("a function"))?;
        function.call(()).await
    });
    let directory = Directory::new().with("wait", "for ever", wait).with("relay", "calls its argument", relay);
    (directory, count)
}

/// Waits for ever; calls of it take turns.
struct InTurn(Arc<AtomicUsize>);

impl AsyncObject for InTurn {
    async fn perform(&self, action: Action<'_>, _: Args) -> Result<Value, Error> {
        match action {
            Action::Call => {
                let _inside = Inside::enter(&self.0);
                std::future::pending().await
            }
            other => other.unsupported(),
        }
    }
}

async fn until(settled: impl Fn() -> bool) {
    for _ in 0..5000 {
        if settled() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("not settled within five seconds");
}

/// FIN-2: a task is dropped where it waits, one that has not had its turn never starts, and both are told as it was.
#[tokio::test]
async fn a_cancelled_call_tells_what_became_of_it() {
    let (directory, inside) = waiting();
    let (client, server) = served(directory.with("in_turn", "one at a time", Async(InTurn(inside.clone())))).await;
    let root = client.root();
    let first = root.start("in_turn", ()).await.expect("it is sent");
    until(|| inside.load(Ordering::SeqCst) == 1).await;
    let second = root.start("in_turn", ()).await.expect("it is sent");
    assert_eq!(second.cancel().await, Cancelled::NeverStarted);
    assert_eq!(inside.load(Ordering::SeqCst), 1);
    assert_eq!(first.cancel().await, Cancelled::Stopped);
    assert_eq!(inside.load(Ordering::SeqCst), 0);
    let done = root.start("relay", [Reference::local(Function::inline(|_| Ok(7.into())))]).await.expect("it is sent");
    until(|| client.is_at_baseline() && server.is_at_baseline()).await;
    assert_eq!(done.cancel().await, Cancelled::Completed(Ok(7.into())));
}

/// FIN-1: many calls that nobody waits for any more are stopped, and so is what they have called.
#[tokio::test]
async fn dropped_calls_are_stopped_and_what_they_called_too() {
    let (directory, inside) = waiting();
    let (client, server) = served(directory).await;
    let wait = Proxy::try_from(client.root().get("wait").await.expect("it is there")).expect("an object");
    let many = tokio::spawn({
        let wait = wait.clone();
        async move { wait.call_many((0..10).map(|_| ())).await }
    });
    until(|| inside.load(Ordering::SeqCst) == 10).await;
    many.abort();
    until(|| inside.load(Ordering::SeqCst) == 0 && server.tables().answers == 0).await;
    // Its nested call goes with it: back here, and there again.
    let here = wait.clone();
    let nested = Reference::local(AsyncFunction::new(move |_| {
        let wait = here.clone();
        async move { wait.call(()).await }
    }));
    let call = client.root().start("relay", [nested]).await.expect("it is sent");
    until(|| inside.load(Ordering::SeqCst) == 1).await;
    drop(call);
    until(|| inside.load(Ordering::SeqCst) == 0).await;
    drop(wait);
    until(|| client.is_at_baseline() && server.is_at_baseline()).await;
}

/// FIN-2: what blocks may ask whether it is to stop, and may go on.
#[tokio::test(flavor = "multi_thread")]
async fn what_blocks_is_told_that_it_is_cancelled() {
    let entered = Arc::new(AtomicBool::new(false));
    let (is_in, goes_on) = (
        entered.clone(),
        Function::new({
            let entered = entered.clone();
            move |args| {
                entered.store(true, Ordering::SeqCst);
                while !is_cancelled() {
                    std::thread::yield_now();
                }
                if args.get(0) == Some(&Value::Bool(true)) { Ok("done".into()) } else { Err(Error::cancelled()) }
            }
        }),
    );
    let (client, _server) = served(Directory::new().with("spin", "until it is cancelled", goes_on)).await;
    for (goes_on, expected) in [(true, Cancelled::Completed(Ok("done".into()))), (false, Cancelled::Stopped)] {
        is_in.store(false, Ordering::SeqCst);
        let call = client.root().start("spin", [goes_on]).await.expect("it is sent");
        until(|| is_in.load(Ordering::SeqCst)).await;
        assert_eq!(call.cancel().await, expected);
    }
}

/// TIM-1, TIM-3: each consequence, and what is told.
#[tokio::test]
async fn deadlines_have_their_consequence() {
    let (directory, inside) = waiting();
    let (client, server) = served(directory).await;
    let short = Duration::from_millis(30);
    let begun = Instant::now();
    let stopped = client.root().with_deadline(short).invoke("wait", ()).await;
    assert_eq!(stopped, Err(Error::DeadlineExceeded));
    assert!(begun.elapsed() >= short);
    assert_eq!(inside.load(Ordering::SeqCst), 0, "it was stopped");
    let abandoned = client.root().with_deadline(Deadline::new(short).then_abandon()).invoke("wait", ()).await;
    assert_eq!(abandoned, Err(Error::DeadlineExceeded));
    let late = client.root().with_deadline(Deadline::new(short).then_wait_on());
    let late = late.start("wait", ()).await.expect("it is sent");
    until(|| late.is_late()).await;
    assert_eq!(late.cancel().await, Cancelled::Stopped);
    assert_eq!((inside.load(Ordering::SeqCst), server.tables().answers), (1, 1), "the abandoned one goes on");
    let in_time = client.root().with_deadline(Duration::from_secs(60)).get("relay").await;
    assert!(in_time.is_ok());
}

/// TIM-2: what is called within a call has what is left of it.
#[tokio::test]
async fn nested_calls_have_what_is_left() {
    let (directory, inside) = waiting();
    let (client, server) = served(directory).await;
    let wait = Proxy::try_from(client.root().get("wait").await.expect("it is there")).expect("an object");
    let outcome = Arc::new(std::sync::Mutex::new(None));
    let note = outcome.clone();
    // Called back by the server, it calls there again, with more time than is left.
    let back = Reference::local(AsyncFunction::new(move |_| {
        let (wait, note) = (wait.clone(), note.clone());
        async move {
            let result = wait.with_deadline(Duration::from_secs(60)).call(()).await;
            *note.lock().expect("it is free") = Some(result.clone());
            result
        }
    }));
    let deadline = Deadline::new(Duration::from_millis(50)).then_abandon();
    let call = client.root().with_deadline(deadline).invoke("relay", [back]).await;
    assert_eq!(call, Err(Error::DeadlineExceeded));
    until(|| *outcome.lock().expect("it is free") == Some(Err(Error::DeadlineExceeded))).await;
    assert_eq!((inside.load(Ordering::SeqCst), server.tables().answers), (1, 1), "what was abandoned goes on");
}

/// TIM-3: a default for calls that say nothing.
#[tokio::test]
async fn options_have_a_deadline_for_all_calls() {
    let (directory, _) = waiting();
    let ours = Options { deadline: Some(Duration::from_millis(20).into()), ..Options::default() };
    let (client, _server) = pair(directory, [ours, Options::default()]).await;
    assert_eq!(client.root().invoke("wait", ()).await, Err(Error::DeadlineExceeded));
}

/// TIM-5: a peer that says nothing is lost after one patience; one that does not care itself still pings for the other.
#[tokio::test(start_paused = true)]
async fn silence_ends_the_session() {
    let patience = |seconds| Options { patience: Some(Duration::from_secs(seconds)), ..Options::default() };
    let (directory, _) = waiting();
    let (client, server) = pair(directory, [patience(2), Options::default()]).await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(client.root().get("wait").await.is_ok(), "the peer was there all the time");
    drop(server);
}

/// CLS-2: nothing is lost: what is under way ends first, and both sides know.
#[tokio::test]
async fn shutdown_waits_for_what_is_under_way() {
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let inside = gate.clone();
    let slow = AsyncFunction::new(move |_| {
        let inside = inside.clone();
        async move {
            inside.acquire().await.map_err(|_| Error::raise("RuntimeError", "closed"))?.forget();
            Ok("done".into())
        }
    });
    let (client, server) = served(Directory::new().with("slow", "waits", slow)).await;
    let call = client.root().start("slow", ()).await.expect("it is sent");
    until(|| server.tables().answers == 1).await;
    let ending = tokio::spawn({
        let server = server.clone();
        async move { server.shutdown().await }
    });
    // Its peer goes on calling.
    assert!(client.root().describe().await.is_ok());
    until(|| !ending.is_finished()).await;
    let refused = server.root().describe().await;
    assert_eq!(refused.expect_err("it is leaving"), Error::NotMade(CallError::Leaving));
    gate.add_permits(1);
    assert_eq!(call.await, Ok("done".into()));
    assert_eq!(ending.await.expect("it ends"), Ended::Done);
    assert_eq!(client.closed().await, Ended::Done);
}
