//! Sessions that outlive their connections: what users set and see of it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use farref_core::session::{Ended, LinkMode};

use crate::error::Error;

/// That sessions outlive their connections, and for how long: see [`Options::resume`](crate::Options::resume).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resuming {
    /// For how long a session is kept that has no connection. The side that connects tries so long to get another one; the
    /// other waits so long for it, or less if it has to keep too many. Below it is a millisecond, above it 49 days.
    pub park: Duration,
    /// How often the side that connects tries in a row, at most.
    pub attempts: u32,
    /// How long it waits before the first attempt, at most. It is a random part of that, so that the clients of a server that
    /// was away do not all come at once.
    pub first_pause: Duration,
    /// The pause is doubled with each attempt, up to this.
    pub longest_pause: Duration,
}

impl Resuming {
    /// For so long, with any number of attempts.
    pub fn within(park: Duration) -> Self {
        Self { park, ..Self::default() }
    }

    /// How long to wait before the attempt of that number, of which 1 is the first.
    pub fn pause(&self, attempt: u32) -> Duration {
        let factor = 1u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX);
        let longest = self.first_pause.saturating_mul(factor).min(self.longest_pause);
        // Half of it at least, but for the first attempt: most connections that are lost can be had again at once.
        let least = if attempt <= 1 { Duration::ZERO } else { longest / 2 };
        least + (longest - least).mul_f64(f64::from(random_part()) / f64::from(u32::MAX))
    }

    pub(crate) fn mode(resuming: Option<&Self>) -> LinkMode {
        let mut token = [0; 16];
        match resuming {
            // Without a token that nobody can guess there had better be no link.
            Some(resuming) if getrandom::fill(&mut token).is_ok() => {
                let park = u32::try_from(resuming.park.as_millis()).unwrap_or(u32::MAX).max(1);
                LinkMode::Resume { token, park }
            }
            _ => LinkMode::Off,
        }
    }
}

impl Default for Resuming {
    /// A minute, any number of attempts, pauses from a tenth of a second to five seconds.
    fn default() -> Self {
        Self {
            park: Duration::from_secs(60),
            attempts: u32::MAX,
            first_pause: Duration::from_millis(100),
            longest_pause: Duration::from_secs(5),
        }
    }
}

/// A part of `u32::MAX`. It decides about pauses only, so that any will do if there is no randomness.
fn random_part() -> u32 {
    let mut bytes = [0; 4];
    let _ = getrandom::fill(&mut bytes);
    u32::from_ne_bytes(bytes)
}

/// Who a peer is, as its Hello says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerIdentity {
    /// Names the peer: a UUID.
    pub peer: [u8; 16],
    /// Differs from one start of it to the next.
    pub incarnation: u64,
}

impl PeerIdentity {
    /// Somebody whom nobody knows yet, by a random name.
    pub fn random() -> Self {
        Self::of(uuid::Uuid::new_v4().into_bytes())
    }

    /// The peer of that name, which has just started: its incarnation is the time.
    pub fn of(peer: [u8; 16]) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { peer, incarnation: since.as_nanos() as u64 }
    }
}

/// What there is of a connection: see [`Connection::link`](crate::Connection::link).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum LinkState {
    /// The peer can be reached, as far as is known, or has not said Hello yet.
    Up,
    /// The session has no connection. Calls that are made now wait for the next one.
    Parked {
        /// Since when.
        since: Instant,
        /// How often this side has tried to connect again since.
        attempts: u32,
        /// What went wrong the last time.
        last: Option<Error>,
    },
    /// The session is over.
    Over(Ended),
}
