//! The last things that happened.

use core::fmt::{self, Write};

use embassy_time::Instant;
use farref_embassy::{Action, Arguments, Done, Member, Object, Reply};
use heapless::{Deque, String};

use crate::Device;

pub struct Log(pub &'static Device);

/// So many lines are kept.
const LINES: usize = 12;

/// The last lines that were written.
pub struct Lines(Deque<String<48>, LINES>);

impl Lines {
    pub const fn new() -> Self {
        Self(Deque::new())
    }

    /// With the time before it, and cut where there is no more room.
    pub fn push(&mut self, line: fmt::Arguments<'_>) {
        if self.0.is_full() {
            self.0.pop_front();
        }
        let now = Instant::now().as_millis();
        let mut text = Cut(String::new());
        let _ = write!(text, "{}.{:03} {line}", now / 1000, now % 1000);
        let _ = self.0.push_back(text.0);
    }
}

/// Takes what fits.
struct Cut<const N: usize>(String<N>);

impl<const N: usize> Write for Cut<N> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|char| self.0.push(char)).map_err(|_| fmt::Error)
    }
}

impl Object for Log {
    fn members(&self) -> &'static [Member] {
        const {
            &[
                Member::method("write", "add a line, up to 40 bytes: write(text)"),
                Member::method("last", "the newest lines, the oldest of them first: last(count)"),
                Member::method("clear", "forget all of them"),
            ]
        }
    }

    fn perform(&mut self, action: Action, args: &Arguments<'_>, reply: Reply<'_>) -> Done {
        let lines = &self.0.log;
        match action {
            Action::Method(0) => match args.str(0) {
                Some(text) => {
                    self.0.note(format_args!("{text}"));
                    reply.none()
                }
                None => reply.bad_arguments("write(text)"),
            },
            Action::Method(1) => {
                let lines = &lines.borrow().0;
                let count = args.int(0).map_or(lines.len(), |count| usize::try_from(count).unwrap_or(0));
                let count = count.min(lines.len());
                reply.value(|writer| {
                    writer.tuple(count)?;
                    lines.iter().skip(lines.len() - count).try_for_each(|line| writer.str(line))
                })
            }
            Action::Method(2) => {
                lines.borrow_mut().0.clear();
                reply.none()
            }
            Action::Length => reply.int(lines.borrow().0.len() as i64),
            Action::GetItem => {
                let Some(index) = args.int(0) else { return reply.bad_arguments("an integer") };
                let lines = &lines.borrow().0;
                let line = usize::try_from(index).ok().and_then(|index| lines.iter().nth(index));
                match line {
                    Some(line) => reply.str(line),
                    None => reply.raise_with("IndexError", 1, |writer| writer.int(index)),
                }
            }
            _ => reply.unsupported(),
        }
    }
}
