//! What a connection that was accepted begins with.

use farref_core::frame::{PREAMBLE, PreambleScanner, Scan, Split, split};
use farref_core::message::{Message, Resume};

/// Finds out whether a connection begins with a session or with an attempt to resume one (LNK-4).
#[derive(Debug, Default)]
pub struct Opening {
    scanner: Option<PreambleScanner>,
    has_preamble: bool,
    rest: Vec<u8>,
}

/// How a connection begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begun {
    /// As a session does, or as nothing that is known: these bytes are for the session, which says what is wrong.
    Session(Vec<u8>),
    /// With this.
    Resume {
        /// What it says.
        resume: Resume,
        /// It, as it came, behind a preamble.
        record: Vec<u8>,
        /// A preamble, and what came behind it.
        behind: Vec<u8>,
    },
}

/// More than a Resume can have.
const LONGEST: u32 = 64;

impl Opening {
    /// Takes the next bytes, none at the end. None if more are needed.
    pub fn take(&mut self, bytes: &[u8]) -> Option<Begun> {
        self.rest.extend_from_slice(bytes);
        let is_end = bytes.is_empty();
        if !self.has_preamble {
            match self.scanner.get_or_insert_default().scan(bytes) {
                Scan::Found(at) => {
                    self.rest = bytes[at..].to_vec();
                    self.has_preamble = true;
                }
                // As much is kept as a mark may have that says what it is instead.
                Scan::Searching if !is_end => {
                    self.rest.drain(..self.rest.len().saturating_sub(PREAMBLE.len()));
                    return None;
                }
                Scan::Searching | Scan::NoPeer => return Some(Begun::Session(std::mem::take(&mut self.rest))),
            }
        }
        match split(&self.rest, LONGEST) {
            Split::Record { body, rest } => {
                let record = &self.rest[..self.rest.len() - rest.len()];
                Some(match Message::read(body) {
                    Ok(Message::Resume(resume)) => {
                        Begun::Resume { resume, record: behind_preamble(record), behind: behind_preamble(rest) }
                    }
                    _ => Begun::Session(behind_preamble(&self.rest)),
                })
            }
            Split::Incomplete if !is_end => None,
            Split::Incomplete | Split::Bad => Some(Begun::Session(behind_preamble(&self.rest))),
        }
    }
}

fn behind_preamble(bytes: &[u8]) -> Vec<u8> {
    [&PREAMBLE, bytes].concat()
}

/// What a connection is told that wants to resume a session which is not there, preamble included: the incarnation of this side,
/// and what the session had got when it went, or 0 if that is not known (LNK-6). The connection is to be closed behind it.
pub fn session_gone(incarnation: u64, got: u64) -> Vec<u8> {
    let mut record = [0; 24];
    let length = farref_core::session::session_gone(incarnation, got, &mut record);
    behind_preamble(&record[..length])
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESUME: [u8; 20] = [19, 21, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 3, 9];

    fn begun(bytes: &[u8], step: usize) -> Begun {
        let mut opening = Opening::default();
        let found = bytes.chunks(step).find_map(|chunk| opening.take(chunk));
        found.or_else(|| opening.take(&[])).expect("it is known at the end")
    }

    #[test]
    fn a_resume_is_found_however_it_comes() {
        let bytes = [b"a banner\n", &PREAMBLE[..], &RESUME].concat();
        for step in 1..bytes.len() {
            let Begun::Resume { resume, record, behind } = begun(&bytes, step) else { panic!("step {step}") };
            assert_eq!(resume, Resume { token: [7; 16], attempt: 3, got: 9 });
            assert_eq!((record, behind), ([&PREAMBLE[..], &RESUME].concat(), PREAMBLE.to_vec()));
        }
    }

    #[test]
    fn all_else_is_for_the_session() {
        let hello = [&PREAMBLE[..], &[2, 0x10, 1]].concat();
        let long = [&PREAMBLE[..], &[100, 0x10, 1]].concat();
        for bytes in [&hello, &long] {
            for step in 1..bytes.len() {
                let Begun::Session(taken) = begun(bytes, step) else { panic!("step {step}") };
                assert!(taken.len() > PREAMBLE.len() && bytes.starts_with(&taken), "{taken:?}");
            }
        }
        assert_eq!(begun(b"GET / HTTP/1.1\r\n", 3), Begun::Session(b"TP/1.1\r\n".to_vec()));
        assert_eq!(begun(b"", 1), Begun::Session(Vec::new()));
        assert_eq!(begun(b"say \xFFfarkey\n", 64), Begun::Session(b"say \xFFfarkey\n".to_vec()));
    }
}
