//! All of it as a service.

use farref_embassy::{Notice, Object, ObjectKey, Objects, Root, Service};

use crate::button::Button;
use crate::client::Client;
use crate::led::Led;
use crate::log::Log;
use crate::sensor::Sensor;
use crate::store::Store;
use crate::system::System;

/// What one session sees.
pub struct Served {
    client: &'static Client,
    led: Led,
    button: Button,
    sensor: Sensor,
    store: Store,
    log: Log,
    system: System,
}

const LED: ObjectKey = ObjectKey(1);
const BUTTON: ObjectKey = ObjectKey(2);
const SENSOR: ObjectKey = ObjectKey(3);
const STORE: ObjectKey = ObjectKey(4);
const LOG: ObjectKey = ObjectKey(5);
const SYSTEM: ObjectKey = ObjectKey(6);

/// The names of a device's objects.
pub const ROOTS: &[Root] = &[
    Root { name: "led", key: LED, doc: "a light to be switched" },
    Root { name: "button", key: BUTTON, doc: "calls whoever subscribes when it is pressed" },
    Root { name: "sensor", key: SENSOR, doc: "measures the temperature" },
    Root { name: "store", key: STORE, doc: "keeps objects and small values until you leave" },
    Root { name: "log", key: LOG, doc: "what happened here" },
    Root { name: "system", key: SYSTEM, doc: "the firmware: its version, uptime, memory, a reboot" },
];

impl Served {
    /// For this client's connection.
    pub fn new(client: &'static Client) -> Self {
        Self {
            client,
            led: Led(client.device),
            button: Button(client),
            sensor: Sensor(client),
            store: Store(client),
            log: Log(client.device),
            system: System(client),
        }
    }
}

impl Objects for Served {
    fn object(&mut self, key: ObjectKey) -> Option<&mut dyn Object> {
        Some(match key {
            LED => &mut self.led,
            BUTTON => &mut self.button,
            SENSOR => &mut self.sensor,
            STORE => &mut self.store,
            LOG => &mut self.log,
            SYSTEM => &mut self.system,
            _ => return None,
        })
    }
}

impl Service for Served {
    fn roots(&self) -> &'static [Root] {
        ROOTS
    }

    fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Interrupted(call) => {
                for sampling in self.client.samplings.borrow_mut().iter_mut() {
                    sampling.is_interrupted |= sampling.call.call() == call;
                }
            }
            Notice::Down { import, .. } => {
                self.client.subscribers.borrow_mut().retain(|subscriber| !subscriber.listener.is(import));
            }
            _ => {}
        }
    }

    fn over(&mut self) {
        self.client.reset();
        self.client.device.note(format_args!("a session is over"));
    }
}
