//! The core in a program that has no heap, no std and no operating system.
//!
//! It is linked, not run: that it links without a global allocator is the proof, and its section
//! sizes show what the core costs. `cargo xtask no-alloc` builds and checks it.

#![no_std]
#![no_main]

use core::hint::black_box;
use core::panic::PanicInfo;

use farref_core::Uuid;
use farref_core::dispatch::{Action, Arguments, Dispatcher, Done, Member, Object, Reply, Root};
use farref_core::frame::{PREAMBLE, PreambleScanner, Scan, Split, split};
use farref_core::message::{CloseCode, DownReason, FinishMode, Limits, Op};
use farref_core::session::{
    Call, Callee, Config, Event, Import, LinkMode, Micro, Notice, ObjectKey, Question, Reference, Session,
};

/// The entry point that the linker looks for when there is no linker script.
#[unsafe(no_mangle)]
pub extern "C" fn _start() -> ! {
    exercise();
    loop {
        core::hint::spin_loop();
    }
}

/// 16 slots for references each way, 8 calls each way, 512 bytes of output, 320 for calls that wait and results that are kept.
type Device = Session<Micro<16, 16, 8, 512, 320, false>>;

const MAX_MESSAGE: u32 = 256;

/// A lamp.
struct Led {
    on: bool,
}

impl Object for Led {
    fn members(&self) -> &'static [Member] {
        const { &[Member::method("set", "switch it on or off"), Member::writable("on", "whether it is on")] }
    }

    fn perform(&mut self, action: Action, args: &Arguments<'_>, reply: Reply<'_>) -> Done {
        match action {
            Action::Method(0) => match args.bool(0) {
                Some(on) => {
                    self.on = on;
                    reply.none()
                }
                None => reply.bad_arguments("set(on: bool)"),
            },
            Action::Get(1) => reply.bool(self.on),
            _ => reply.unsupported(),
        }
    }
}

/// Counts, and calls back whoever watches it.
struct Counter {
    count: i64,
    watcher: Option<Import>,
    told: Option<Question>,
}

impl Object for Counter {
    fn members(&self) -> &'static [Member] {
        const {
            &[
                Member::method("add", "adds so much and tells the sum"),
                Member::method("watch", "calls this back with each sum"),
                Member::readable("count", "the sum"),
            ]
        }
    }

    fn perform(&mut self, action: Action, args: &Arguments<'_>, mut reply: Reply<'_>) -> Done {
        match action {
            Action::Method(0) => {
                let Some(sum) = args.int(0).and_then(|more| self.count.checked_add(more)) else {
                    return reply.raise("OverflowError", "add");
                };
                self.count = sum;
                if let Some(watcher) = self.watcher {
                    let call = Call::new(Callee::Import(watcher), Op::Call);
                    self.told = reply.call(call, |writer| writer.int(sum)).ok();
                }
                reply.int(sum)
            }
            Action::Method(1) => match args.reference(0).and_then(|handle| reply.resolve(handle)) {
                Some(Reference::Import(watcher)) => {
                    reply.keep(watcher);
                    self.watcher = Some(watcher);
                    reply.none()
                }
                _ => reply.bad_arguments("watch(function)"),
            },
            Action::Get(2) => reply.int(self.count),
            _ => reply.unsupported(),
        }
    }
}

const ROOTS: [Root; 2] = [
    Root { name: "led", key: ObjectKey(1), doc: "a lamp" },
    Root { name: "counter", key: ObjectKey(2), doc: "a counter" },
];

/// Uses the core. Inputs and results go through `core::hint::black_box`, otherwise the optimizer
/// drops what it sees to be unused and the sizes say nothing.
fn exercise() {
    let limits = Limits { max_message: MAX_MESSAGE, imports: 16, answers: 8, call_bytes: 256, handles: 4, levels: 4 };
    let mut session = Device::new(Config {
        limits,
        exports: 16,
        calls: 8,
        out_bytes: 512,
        store_bytes: 320,
        peer: Uuid::from_bytes(black_box([7; 16])),
        incarnation: black_box(1),
        link: LinkMode::Off,
        patience: black_box(Some(60_000)),
    });
    let mut led = Led { on: false };
    let mut counter = Counter { count: 0, watcher: None, told: None };
    let dispatcher = Dispatcher::new(&ROOTS);
    let mut received = black_box([0u8; 512]);
    let mut output = [0u8; 64];
    let mut scratch = [0u8; MAX_MESSAGE as usize];

    black_box(&PREAMBLE);
    let mut scanner = PreambleScanner::default();
    let Scan::Found(start) = scanner.scan(black_box(&received)) else { return };
    let mut rest = received.get_mut(start..).unwrap_or_default() as &[u8];
    loop {
        let mut objects: [&mut dyn Object; 2] = [&mut led, &mut counter];
        match split(rest, MAX_MESSAGE) {
            Split::Record { body, rest: after } => {
                rest = after;
                match session.handle(body) {
                    Ok(Some(Event::Request(request))) => dispatcher.dispatch(&mut session, &request, &mut objects[..]),
                    Ok(Some(Event::Return(returned))) => {
                        black_box(returned.outcome.is_ok());
                    }
                    Ok(Some(Event::Ready) | None) => {}
                    Err(_) => rest = &[],
                }
            }
            Split::Incomplete => session.link_lost(),
            Split::Bad => session.close(CloseCode::ProtocolFault),
        }
        while let Some(request) = session.poll_ready(&mut scratch) {
            dispatcher.dispatch(&mut session, &request, &mut objects[..]);
        }
        while let Some(notice) = session.poll_notice() {
            match notice {
                Notice::Freed(key) => {
                    black_box(key);
                }
                Notice::Interrupted(call) => {
                    let _ = session.refuse(call, farref_core::message::ErrorCode::Cancelled, 1);
                }
                Notice::Down { import, reason } => {
                    black_box(reason);
                    let _ = session.release(import);
                }
                Notice::DeadlineExceeded(question) => {
                    black_box(question.id());
                }
            }
        }
        if session.poll_timeout().is_some() {
            session.advance(black_box(1));
        }
        if black_box(false) {
            let _ = session.revoke(ObjectKey(1), DownReason::Revoked);
            session.shutdown();
            if let Some(told) = counter.told.take() {
                let _ = session.cancel(told, FinishMode::Abandon);
            }
            if let Some(watcher) = counter.watcher.take() {
                let _ = session.release(watcher);
            }
        }
        loop {
            let count = session.poll_transmit(&mut output);
            if count == 0 {
                break;
            }
            black_box(output.get(..count));
        }
        if session.ended().is_some() {
            return;
        }
    }
}

#[panic_handler]
fn panic(_: &PanicInfo) -> ! {
    loop {
        core::hint::spin_loop();
    }
}
