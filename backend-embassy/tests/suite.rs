//! C1, C11: the conformance suite against the fixtures of a device, over TCP between two network stacks.

mod common;

use std::collections::VecDeque;
use std::future::{pending, poll_fn};
use std::io::{self, ErrorKind, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, mpsc};
use std::task::{Poll, Waker};
use std::thread;

use common::net::{address, stacks};
use common::{Tasks, config};
use embassy_futures::select::{Either, select};
use embassy_net::Stack;
use embassy_net::tcp::TcpSocket;
use embassy_time::Timer;
use farref_conformance::suite::{self, Transport};
use farref_conformance_device::{FixtureConnection, Fixtures, Holds, MESSAGE};
use farref_embassy::{Config, Endpoint, tcp};

type Socket = tcp::Socket<2048, 2048, { MESSAGE + 5 }, 256>;

#[test]
fn cases_that_make_sense_on_a_device() {
    let (asking, asked) = mpsc::channel::<[Arc<Pipe>; 2]>();
    let is_over = Arc::new(AtomicBool::new(false));
    let device = thread::spawn({
        let is_over = is_over.clone();
        move || serve(&asked, &is_over)
    });
    let connect = move || {
        let pipes = [Arc::new(Pipe::default()), Arc::new(Pipe::default())];
        asking.send(pipes.clone()).map_err(io::Error::other)?;
        let [up, down] = pipes;
        Ok(Transport::new(End(down.clone()), End(up)).with_guard(End(down)))
    };
    let report = suite::run_selected("embassy", connect, suite::is_for_devices);
    is_over.store(true, Ordering::Relaxed);
    device.join().expect("the device does not panic");
    report.save().expect("the report is written");
    println!("{report}");
    assert!(report.is_green(), "{report}");
}

/// The device, and a stack of the tester's side whose sockets carry what its pipes hold.
fn serve(asked: &mpsc::Receiver<[Arc<Pipe>; 2]>, is_over: &AtomicBool) {
    // Sessions that end with their connection: a device that keeps them says nothing before its peer does (LNK-4).
    let config = farref_conformance_device::config(Config { park: None, ..config(1) });
    let connections = [FixtureConnection::new(config), FixtureConnection::new(config)];
    let holds = [Holds::new(), Holds::new()];
    let fixtures: [_; 2] = std::array::from_fn(|place| Fixtures::new(connections[place].peer(), &holds[place]));
    let mut tasks = Tasks::new();
    let ([device, tester], _) = stacks(&mut tasks, 1);
    for fixtures in &fixtures {
        tasks.spawn(async { fixtures.run().await });
    }
    let (all, on) = (&fixtures, &connections);
    tasks.spawn(async move {
        let mut services = all.each_ref().map(Fixtures::service);
        let [first, second] = &mut services;
        let endpoints = [Endpoint::new(&on[0], first), Endpoint::new(&on[1], second)];
        let mut sockets = Box::new([const { Socket::new() }; 4]);
        tcp::serve(device, tcp::PORT, &endpoints, &mut sockets).await
    });
    for _ in 0..3 {
        tasks.spawn(async move {
            loop {
                match asked.try_recv() {
                    Ok([up, down]) => carry(tester, &up, &down).await,
                    Err(_) => Timer::after_millis(1).await,
                }
            }
        });
    }
    tasks.run_live(async {
        while !is_over.load(Ordering::Relaxed) {
            Timer::after_millis(1).await;
        }
    });
}

/// Carries one connection of the tester until both directions have ended.
async fn carry(stack: Stack<'static>, up: &Pipe, down: &Pipe) {
    let mut memory = [vec![0; 2048], vec![0; 2048]];
    let [receive, transmit] = &mut memory;
    let mut socket = TcpSocket::new(stack, receive, transmit);
    socket.set_nagle_enabled(false);
    // The device may still be letting go of the connection before.
    while socket.connect((address(0), tcp::PORT)).await.is_err() {
        socket.abort();
        Timer::after_millis(1).await;
    }
    let (mut is_up, mut is_down) = (true, true);
    let (mut buffer, mut heard) = ([0; 512], [0; 512]);
    while is_up || is_down {
        let said = async { if is_up { up.readable().await } else { pending().await } };
        let hears = async {
            match is_down {
                true => {
                    down.writable().await;
                    socket.read(&mut heard).await
                }
                false => pending().await,
            }
        };
        match select(said, hears).await {
            Either::First(()) => match up.take(&mut buffer) {
                0 => {
                    socket.close();
                    is_up = false;
                }
                count => {
                    let mut rest = &buffer[..count];
                    while !rest.is_empty() {
                        match socket.write(rest).await {
                            Ok(count) => rest = &rest[count..],
                            Err(_) => break,
                        }
                    }
                }
            },
            Either::Second(read) => match read {
                Ok(count @ 1..) if down.put(&heard[..count]) => {}
                _ => {
                    down.close();
                    is_down = false;
                    if down.is_forsaken() {
                        break;
                    }
                }
            },
        }
    }
    socket.abort();
    let _ = socket.flush().await;
}

/// One direction between a thread and the tasks.
#[derive(Default)]
struct Pipe {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    bytes: VecDeque<u8>,
    is_closed: bool,
    /// Whoever was to read is gone.
    is_forsaken: bool,
    waker: Option<Waker>,
}

const CAPACITY: usize = 16 * 1024;

impl Pipe {
    fn change<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.lock();
        let changed = change(&mut state);
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
        self.changed.notify_all();
        changed
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics with it")
    }

    async fn until(&self, is_true: impl Fn(&State) -> bool) {
        poll_fn(|cx| {
            let mut state = self.lock();
            if is_true(&state) {
                return Poll::Ready(());
            }
            state.waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    async fn readable(&self) {
        self.until(|state| !state.bytes.is_empty() || state.is_closed).await;
    }

    async fn writable(&self) {
        self.until(|state| state.bytes.len() < CAPACITY || state.is_closed).await;
    }

    fn take(&self, buffer: &mut [u8]) -> usize {
        self.change(|state| state.bytes.read(buffer).unwrap_or(0))
    }

    fn put(&self, bytes: &[u8]) -> bool {
        self.change(|state| {
            state.bytes.extend(bytes);
            !state.is_closed
        })
    }

    fn close(&self) {
        self.change(|state| state.is_closed = true);
    }

    fn is_forsaken(&self) -> bool {
        self.lock().is_forsaken
    }
}

/// The end of a pipe at the tester; dropping it closes the pipe.
struct End(Arc<Pipe>);

impl Read for End {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let state = self.0.lock();
        drop(self.0.changed.wait_while(state, |state| state.bytes.is_empty() && !state.is_closed));
        Ok(self.0.take(into))
    }
}

impl Write for End {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let state = self.0.lock();
        drop(self.0.changed.wait_while(state, |state| state.bytes.len() >= CAPACITY && !state.is_closed));
        let bytes = &bytes[..bytes.len().min(CAPACITY)];
        if self.0.put(bytes) { Ok(bytes.len()) } else { Err(ErrorKind::BrokenPipe.into()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.0.change(|state| (state.is_closed, state.is_forsaken) = (true, true));
    }
}
