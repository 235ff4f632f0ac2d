//! Something that measures, and takes its time.

use embassy_time::{Duration, Instant};
use farref_embassy::{Action, Arguments, Done, Later, Member, Object, Remote, Reply};
use heapless::Vec;

use crate::client::Client;

pub struct Sensor(pub &'static Client);

/// So many samples fit one answer.
const MOST: usize = 16;

/// Between two samples.
const INTERVAL: Duration = Duration::from_millis(20);

/// A call that waits for samples.
pub struct Sampling {
    pub call: Later<'static>,
    /// Who gets each sample, if it is not the answer that gets all of them.
    pub listener: Option<Remote<'static>>,
    pub wanted: u32,
    pub delivered: u32,
    pub samples: Vec<f32, MOST>,
    /// When the next one is due.
    pub due: Instant,
    pub is_interrupted: bool,
}

impl Sampling {
    /// The time of the sample after this one. One that is late does not make the others late.
    pub fn next_due(&self) -> Instant {
        self.due + INTERVAL
    }
}

impl Object for Sensor {
    fn members(&self) -> &'static [Member] {
        const {
            &[
                Member::method("read", "the temperature now, in degrees Celsius"),
                Member::method("samples", "that many measurements, one every 20 ms: samples(count)"),
                Member::method("stream", "the same, each given to a function as it is made: stream(count, f)"),
                Member::readable("unit", "what is measured"),
            ]
        }
    }

    fn perform(&mut self, action: Action, args: &Arguments<'_>, mut reply: Reply<'_>) -> Done {
        let client = self.0;
        let count = args.int(0).and_then(|count| u32::try_from(count).ok());
        match (action, count) {
            (Action::Method(0), _) => reply.float(client.device.hardware.temperature().into()),
            (Action::Method(1), Some(count)) => {
                if count as usize > MOST {
                    return reply.raise("ValueError", "at most 16 at a time");
                }
                self.begin(count, None, reply)
            }
            (Action::Method(2), Some(count)) => match client.peer.keep(args, 1, &mut reply) {
                Some(listener) => self.begin(count, Some(listener), reply),
                None => reply.bad_arguments("stream(count, f), a function that is not lent"),
            },
            (Action::Method(1), None) => reply.bad_arguments("samples(count)"),
            (Action::Method(2), None) => reply.bad_arguments("stream(count, f)"),
            (Action::Get(3), _) => reply.str("degrees Celsius"),
            _ => reply.unsupported(),
        }
    }
}

impl Sensor {
    fn begin(&self, wanted: u32, listener: Option<Remote<'static>>, reply: Reply<'_>) -> Done {
        let client = self.0;
        let mut samplings = client.samplings.borrow_mut();
        if samplings.is_full() {
            return reply.raise("RuntimeError", "it is measured for as many as there is room for");
        }
        let (call, done) = client.peer.later(reply);
        let (samples, due) = (Vec::new(), Instant::now());
        let _ = samplings.push(Sampling { call, listener, wanted, delivered: 0, samples, due, is_interrupted: false });
        client.news.signal(());
        done
    }
}
