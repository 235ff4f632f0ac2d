//! Times that something is due.

/// A time in milliseconds, or never, which is what all zeros are: so what holds times needs no work to be blank.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct When(u64);

impl When {
    pub const NEVER: Self = Self(0);

    /// The highest number is never.
    pub fn at(time: u64) -> Self {
        Self(time.wrapping_add(1))
    }

    /// So long after `now`.
    #[cfg_attr(not(feature = "alloc"), inline(never))]
    pub fn after(now: u64, delay: u32) -> Self {
        Self::at(now.saturating_add(delay.into()))
    }

    /// The time; the highest number for never.
    pub fn time(self) -> u64 {
        self.0.wrapping_sub(1)
    }

    /// Whether it has come.
    pub fn is_due(self, now: u64) -> bool {
        self.time() <= now
    }

    /// The sooner of the two.
    #[cfg_attr(not(feature = "alloc"), inline(never))]
    pub fn or(self, other: Self) -> Self {
        Self::at(self.time().min(other.time()))
    }

    /// The time, unless it is never.
    pub fn some(self) -> Option<u64> {
        (self != Self::NEVER).then_some(self.time())
    }
}
