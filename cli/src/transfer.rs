//! Files copied in parts, many of which are under way at a time: the link stays busy, a copy takes no round trip for each
//! part, and the memory it takes has a bound.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use farref_pipe::{Args, Connection, Error, Pending, Promise, Remote, Value};

/// Bytes of a part, if messages may be so long.
pub const PART: usize = 256 << 10;

/// Parts under way at a time.
pub const WINDOW: usize = 16;

/// More than a message has besides the part.
const HEAD: u32 = 64;

/// Parts under way before the first answer. Most files are no longer than these: they take one round trip.
const FIRST: usize = 2;

/// A file of the peer that comes here.
pub struct Incoming {
    file: Promise,
    reads: VecDeque<Pending>,
    part: usize,
    size: Option<u64>,
    mode: Option<u32>,
    /// Parts asked for.
    asked: u64,
    received: u64,
    over: bool,
}

impl Incoming {
    /// Asks for the file, for what is known of it, and for its first parts, all together; waits for the second.
    pub fn open(connection: &Connection, path: &str) -> Result<Self, Error> {
        let root = connection.root();
        let file = root.promise("open", [path, "rb"])?;
        let stat = root.start("stat", [path])?;
        let (reads, part) = (VecDeque::new(), part_within(connection.max_message()));
        let mut incoming = Self { file, reads, part, size: None, mode: None, asked: 0, received: 0, over: false };
        incoming.ask(FIRST)?;
        match stat.wait() {
            Ok(Value::Map(facts)) => {
                let fact = |name: &str| facts.iter().find(|(key, _)| key.as_str() == Some(name))?.1.as_int();
                incoming.size = fact("size").and_then(|size| u64::try_from(size).ok());
                incoming.mode = fact("mode").and_then(|mode| u32::try_from(mode).ok());
            }
            Err(error) if error.ended().is_some() => return Err(error),
            // What is wrong with the path shows in the reads; and a file can be read of which nothing is known.
            _ => {}
        }
        Ok(incoming)
    }

    /// Its size, if that is known.
    pub fn size(&self) -> Option<u64> {
        self.size
    }

    /// Its permissions, if they are known.
    pub fn mode(&self) -> Option<u32> {
        self.mode
    }

    /// The next part; nothing at the end.
    pub fn part(&mut self) -> Result<Option<Vec<u8>>, Error> {
        if self.over {
            return Ok(None);
        }
        // The last read finds that there is no more, unless the file has grown meanwhile.
        let size = self.size.filter(|&size| self.received <= size);
        let wanted = size.map_or(u64::MAX, |size| size / self.part as u64 + 1).saturating_sub(self.asked);
        let room = WINDOW - self.reads.len();
        self.ask(usize::try_from(wanted).map_or(room, |wanted| wanted.min(room)))?;
        if self.reads.is_empty() {
            self.ask(1)?;
        }
        let Some(read) = self.reads.pop_front() else { return Ok(None) };
        let Value::Bytes(part) = read.wait()? else { return Err(Error::Misplaced("the peer's file gives no bytes")) };
        self.received += part.len() as u64;
        // A part that is shorter than it might be ends the file, if no more was announced.
        self.over = part.is_empty() || part.len() < self.part && self.size.is_some_and(|size| self.received >= size);
        if self.over {
            // They are on their way here, and nothing is in them.
            self.reads.drain(..).for_each(|read| drop(read.wait()));
        }
        Ok((!part.is_empty()).then_some(part))
    }

    fn ask(&mut self, parts: usize) -> Result<(), Error> {
        for _ in 0..parts {
            self.reads.push_back(self.file.start("read", [self.part as i64])?);
            self.asked += 1;
        }
        Ok(())
    }
}

/// A file of this side that goes to the peer, to take the place of another when it is complete.
pub struct Outgoing {
    file: Promise,
    /// With the bytes of each.
    writes: VecDeque<(Pending, usize)>,
    /// Writes that may be under way now.
    window: usize,
    part: usize,
    sent: u64,
    written: u64,
}

impl Outgoing {
    /// Asks for the file; `mode` is for one that is new. Nothing is waited for.
    pub fn open(connection: &Connection, path: &str, mode: Option<u32>) -> Result<Self, Error> {
        let mut args = Args::from([path]);
        args.positional.extend(mode.map(|mode| Value::Int(mode.into())));
        let file = connection.root().promise("replace", args)?;
        let part = part_within(connection.peer_max_message());
        Ok(Self { file, writes: VecDeque::new(), window: FIRST, part, sent: 0, written: 0 })
    }

    /// The bytes of a part.
    pub fn part(&self) -> usize {
        self.part
    }

    /// Bytes of which the peer has said that they are written.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Sends a part, as soon as there are few enough others under way.
    pub fn send(&mut self, part: Vec<u8>) -> Result<(), Error> {
        while self.writes.len() >= self.window {
            self.answer()?;
            // It doubles with each round trip, so that little is sent to a peer that refuses the first part.
            self.window = (self.window + 1).min(WINDOW);
        }
        let bytes = part.len();
        self.sent += bytes as u64;
        self.writes.push_back((self.file.start("write", [Value::Bytes(part)])?, bytes));
        Ok(())
    }

    /// Asks that the file take its place. It does if every byte was written, so that the writes need not be waited for
    /// before, but after: what is wrong with one of them says more than what is wrong with the commit because of it.
    pub fn commit(&self) -> Result<Pending, Error> {
        self.file.start("commit", [i64::try_from(self.sent).unwrap_or(i64::MAX)])
    }

    /// Waits for the oldest write. False says that there is none.
    pub fn answer(&mut self) -> Result<bool, Error> {
        let Some((write, bytes)) = self.writes.pop_front() else { return Ok(false) };
        write.wait()?;
        self.written += bytes as u64;
        Ok(true)
    }
}

/// The bytes of a part where no message is longer than that.
fn part_within(max_message: u32) -> usize {
    (max_message.saturating_sub(HEAD) as usize).clamp(1, PART)
}
