//! Something that calls back.

use farref_embassy::{Action, Arguments, Done, Member, Object, Reference, Remote, Reply};

use crate::client::Client;

pub struct Button(pub &'static Client);

/// Who is to be told that the button was pressed.
pub struct Subscriber {
    pub listener: Remote<'static>,
    /// The number of the press that it is told next.
    pub next: u32,
}

impl Object for Button {
    fn members(&self) -> &'static [Member] {
        const {
            &[
                Member::method("subscribe", "have a function called with the number of each press: subscribe(f)"),
                Member::method("unsubscribe", "no more of that: unsubscribe(f)"),
                Member::method("press", "press it, and tell how often that was done"),
                Member::readable("presses", "how often it was pressed"),
            ]
        }
    }

    fn perform(&mut self, action: Action, args: &Arguments<'_>, mut reply: Reply<'_>) -> Done {
        let client = self.0;
        match action {
            Action::Method(0) => {
                let Some(listener) = client.peer.keep(args, 0, &mut reply) else {
                    return reply.bad_arguments("subscribe(f), a function that is not lent");
                };
                let subscriber = Subscriber { listener, next: client.device.presses() + 1 };
                match client.subscribers.borrow_mut().push(subscriber) {
                    Ok(()) => reply.none(),
                    Err(_) => reply.raise("RuntimeError", "there are as many subscriptions as there is room for"),
                }
            }
            Action::Method(1) => match args.reference(0).and_then(|handle| reply.resolve(handle)) {
                Some(Reference::Import(import) | Reference::Weak(import)) => {
                    let mut subscribers = client.subscribers.borrow_mut();
                    let place = subscribers.iter().position(|subscriber| subscriber.listener.is(import));
                    match place {
                        Some(place) => {
                            subscribers.remove(place);
                            reply.none()
                        }
                        None => reply.raise("ValueError", "it is not subscribed"),
                    }
                }
                _ => reply.bad_arguments("unsubscribe(f)"),
            },
            Action::Method(2) => {
                client.device.press();
                reply.int(client.device.presses().into())
            }
            Action::Get(3) => reply.int(client.device.presses().into()),
            _ => reply.unsupported(),
        }
    }
}
