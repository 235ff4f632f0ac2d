//! What runs here, for how long, and in how much memory.

use embassy_time::Instant;
use farref_embassy::{Action, Arguments, Done, Member, MemberKind, Object, Reply};

use crate::client::Client;

pub struct System(pub &'static Client);

impl Object for System {
    fn members(&self) -> &'static [Member] {
        const fn constant(name: &'static str, doc: &'static str) -> Member {
            Member { name, kind: MemberKind::Constant, doc }
        }
        const {
            &[
                constant("name", "of the firmware"),
                constant("version", "of the firmware"),
                constant("board", "that it runs on"),
                Member::readable("uptime", "milliseconds since it was started"),
                Member::readable("time", "of day, if a peer with a `clock` has told: Unix, in milliseconds"),
                Member::method("sync", "ask for the time: call `clock` of the caller's directory"),
                Member::method("memory", "bytes: fixed, for the stack, and the most of that used"),
                Member::method("reboot", "start anew"),
            ]
        }
    }

    fn perform(&mut self, action: Action, _: &Arguments<'_>, reply: Reply<'_>) -> Done {
        let client = self.0;
        let device = client.device;
        let uptime = Instant::now().as_millis() as i64;
        match action {
            Action::Get(0) => reply.str("farref-firmware"),
            Action::Get(1) => reply.str(env!("CARGO_PKG_VERSION")),
            Action::Get(2) => reply.str(device.hardware.name()),
            Action::Get(3) => reply.int(uptime),
            Action::Get(4) => match device.clock.get() {
                Some(offset) => reply.int(uptime + offset),
                None => reply.none(),
            },
            Action::Method(5) => {
                if client.syncing.get().is_some() {
                    return reply.raise("RuntimeError", "it is asking already");
                }
                let (call, done) = client.peer.later(reply);
                client.syncing.set(Some(call));
                client.news.signal(());
                done
            }
            Action::Method(6) => {
                let memory = device.hardware.memory();
                reply.value(|writer| {
                    writer.map(3)?;
                    // In the order of names.
                    for (name, bytes) in
                        [("fixed", memory.fixed), ("stack", memory.stack), ("stack_used", memory.stack_used)]
                    {
                        writer.str(name)?;
                        writer.int(bytes as i64)?;
                    }
                    Ok(())
                })
            }
            Action::Method(7) => {
                client.is_rebooting.set(true);
                client.news.signal(());
                reply.none()
            }
            _ => reply.unsupported(),
        }
    }
}
