//! The lamp over farref, on the same socket: whoever watches it is called back when it is switched.

#![no_std]
#![no_main]

use core::cell::{Cell, RefCell};

use embassy_executor::Spawner;
use embassy_futures::join::join;
use embassy_net::Stack;
use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use embassy_sync::signal::Signal;
use farref_embassy::farref_core::session::Least;
use farref_embassy::tcp::{self, Socket};
use farref_embassy::{
    Action, Arguments, Config, Connection, Done, Endpoint, Member, Memory, Micro, Notice, Object, ObjectKey, Objects,
    Peer, Remote, Reply, Root, Service, Uuid,
};
use farref_firmware_size::{MAX_MESSAGE, PORT, RECEIVE, TRANSMIT, random};
use static_cell::{ConstStaticCell, StaticCell};

/// 16 slots for references each way, 8 calls each way, room for the longest message and 64 bytes more in the output, and none for
/// calls that wait, since no answer is put off.
type Storage = Micro<16, 16, 8, { MAX_MESSAGE + 64 }, 0, false, Least>;

static CONNECTION: ConstStaticCell<Memory<Storage, 16, 4, 48>> = ConstStaticCell::new(Memory::new());
static SOCKETS: ConstStaticCell<[Socket<RECEIVE, TRANSMIT, { MAX_MESSAGE + 5 }, 64>; 1]> =
    ConstStaticCell::new([Socket::new()]);
static LAMP: StaticCell<Lamp> = StaticCell::new();

farref_firmware_size::start!(start_serving);

fn start_serving(spawner: Spawner, stack: Stack<'static>) {
    // A session ends with its connection.
    let config = Config { park: None, ..Config::new(Uuid::from_bytes(*b"the size of farr"), random) };
    let connection = CONNECTION.take().connection(config);
    let lamp = LAMP.init_with(|| Lamp {
        peer: connection.peer(),
        on: Cell::new(false),
        watcher: RefCell::new(None),
        switched: Signal::new(),
    });
    spawner.spawn(serve(stack, connection, lamp).expect("it is spawned once"));
}

#[embassy_executor::task]
async fn serve(stack: Stack<'static>, connection: &'static Connection<Storage, 16, 4, 48>, lamp: &'static Lamp) -> ! {
    let mut served = Served(lamp);
    let endpoints = [Endpoint::new(connection, &mut served)];
    join(tcp::serve(stack, PORT, &endpoints, SOCKETS.take()), lamp.tell()).await.0
}

struct Lamp {
    peer: Peer<'static>,
    on: Cell<bool>,
    watcher: RefCell<Option<Remote<'static>>>,
    switched: Signal<NoopRawMutex, bool>,
}

impl Lamp {
    /// Tells whoever watches.
    async fn tell(&self) -> ! {
        loop {
            let on = self.switched.wait().await;
            let watcher = self.watcher.borrow().clone();
            if let Some(watcher) = watcher {
                let _ = watcher.call(|writer| writer.bool(on)).await;
            }
        }
    }
}

/// The lamp as what one session sees.
struct Served(&'static Lamp);

impl Object for Served {
    fn members(&self) -> &'static [Member] {
        const {
            &[
                Member::method("set", "switches it on or off"),
                Member::readable("on", "whether it is on"),
                Member::method("watch", "calls this back whenever it is switched"),
            ]
        }
    }

    fn perform(&mut self, action: Action, args: &Arguments<'_>, mut reply: Reply<'_>) -> Done {
        let lamp = self.0;
        match action {
            Action::Method(0) => {
                let Some(on) = args.bool(0) else { return reply.bad_arguments("set(on)") };
                lamp.on.set(on);
                lamp.switched.signal(on);
                reply.none()
            }
            Action::Get(1) => reply.bool(lamp.on.get()),
            Action::Method(2) => match lamp.peer.keep(args, 0, &mut reply) {
                Some(watcher) => {
                    lamp.watcher.replace(Some(watcher));
                    reply.none()
                }
                None => reply.bad_arguments("watch(function)"),
            },
            _ => reply.unsupported(),
        }
    }
}

impl Objects for Served {
    fn object(&mut self, key: ObjectKey) -> Option<&mut dyn Object> {
        if key == ObjectKey(1) { Some(self) } else { None }
    }
}

impl Service for Served {
    fn roots(&self) -> &'static [Root] {
        const { &[Root { name: "lamp", key: ObjectKey(1), doc: "a lamp" }] }
    }

    fn notice(&mut self, notice: Notice) {
        if let Notice::Down { import, .. } = notice {
            self.0.watcher.borrow_mut().take_if(|watcher| watcher.is(import));
        }
    }

    fn over(&mut self) {
        self.0.watcher.take();
    }
}
