//! Something to be switched.

use farref_embassy::{Action, Arguments, Done, Member, Object, Reply};

use crate::Device;

pub struct Led(pub &'static Device);

impl Object for Led {
    fn members(&self) -> &'static [Member] {
        const {
            &[
                Member::method("set", "switch it: set(on)"),
                Member::method("toggle", "switch it over, and tell whether it is on now"),
                Member::writable("on", "whether it is on"),
            ]
        }
    }

    fn perform(&mut self, action: Action, args: &Arguments<'_>, reply: Reply<'_>) -> Done {
        let device = self.0;
        match action {
            Action::Method(0) => match args.bool(0) {
                Some(on) => {
                    device.set_led(on);
                    reply.none()
                }
                None => reply.bad_arguments("set(on: bool)"),
            },
            Action::Method(1) => {
                device.set_led(!device.led.get());
                reply.bool(device.led.get())
            }
            Action::Get(2) => reply.bool(device.led.get()),
            Action::Set(2) => match args.bool(0) {
                Some(on) => {
                    device.set_led(on);
                    reply.none()
                }
                None => reply.bad_arguments("true or false"),
            },
            _ => reply.unsupported(),
        }
    }
}
