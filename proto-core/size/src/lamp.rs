//! The device: a lamp that can be switched and watched.

use farref_core::Uuid;
use farref_core::dispatch::{Action, Arguments, Dispatcher, Done, Member, Object, Reply, Root};
use farref_core::message::{Limits, Op};
use farref_core::session::{
    Call, Callee, Config, Import, Least, LinkMode, Micro, Notice, ObjectKey, Question, Reference, Request, Session,
};

use crate::{MAX_MESSAGE, random};

/// 16 slots for references each way, 8 calls each way, room for the longest message and 64 bytes more in the output, and none for
/// calls that wait, since no answer is put off.
pub type Device = Session<Micro<16, 16, 8, OUTPUT, 0, false, Least>>;

/// Bytes of output, which is also what may have to be sent again.
pub const OUTPUT: usize = MAX_MESSAGE + 64;

/// A lamp; whoever watches it is called back when it is switched.
#[derive(Default)]
pub struct Lamp {
    on: bool,
    watcher: Option<Import>,
    told: Option<Question>,
}

impl Object for Lamp {
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
        match action {
            Action::Method(0) => {
                let Some(on) = args.bool(0) else { return reply.bad_arguments("set(on)") };
                self.on = on;
                if let Some(watcher) = self.watcher {
                    let call = Call::new(Callee::Import(watcher), Op::Call);
                    self.told = reply.call(call, |writer| writer.bool(on)).ok();
                }
                reply.none()
            }
            Action::Get(1) => reply.bool(self.on),
            Action::Method(2) => match args.reference(0).and_then(|handle| reply.resolve(handle)) {
                Some(Reference::Import(watcher)) => {
                    reply.keep(watcher);
                    self.watcher = Some(watcher);
                    reply.none()
                }
                _ => reply.bad_arguments("watch(function)"),
            },
            _ => reply.unsupported(),
        }
    }
}

const ROOTS: [Root; 1] = [Root { name: "lamp", key: ObjectKey(1), doc: "a lamp" }];

/// A session begins.
pub fn begin(device: &mut Device, link: LinkMode) {
    let limits = Limits {
        max_message: MAX_MESSAGE as u32,
        imports: 16,
        answers: 8,
        call_bytes: MAX_MESSAGE as u32,
        handles: 4,
        levels: 4,
    };
    let [a, b, c, d] = random().to_le_bytes();
    device.begin(&Config {
        limits,
        exports: 16,
        calls: 8,
        out_bytes: OUTPUT,
        store_bytes: 0,
        peer: Uuid::from_bytes([a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        incarnation: random().into(),
        link,
        patience: None,
    });
}

/// Does what a request asks for.
pub fn serve(device: &mut Device, lamp: &mut Lamp, request: &Request<'_>) {
    let mut objects: [&mut dyn Object; 1] = [lamp];
    Dispatcher::new(&ROOTS).dispatch(device, request, &mut objects[..]);
}

/// Lets go of what is no more.
pub fn notice(device: &mut Device, lamp: &mut Lamp) {
    while let Some(notice) = device.poll_notice() {
        if let Notice::Down { import, .. } = notice {
            lamp.watcher.take_if(|watcher| *watcher == import);
            let _ = device.release(import);
        }
    }
}
