//! Timing: rounds of about the same length, medians, spread.

use std::time::{Duration, Instant};

use crate::Result;
use crate::counts::Wire;

/// One way to do the operations of a case, over one connection.
pub trait Subject {
    /// Does that many of them, a multiple of the case's step.
    fn run(&mut self, operations: u64) -> Result<()>;

    /// What went over the wire since the connection began, both ways, and this side's system calls.
    fn wire(&self) -> Wire;
}

/// How many rounds make a median.
pub const ROUNDS: usize = 7;

/// How many operations take about that long. This warms up, too.
pub fn calibrate(subject: &mut dyn Subject, step: u64, length: Duration) -> Result<u64> {
    let mut operations = step;
    loop {
        let took = time(subject, operations)?;
        if took >= length / 4 {
            let scaled = operations as f64 * length.as_secs_f64() / took.as_secs_f64();
            return Ok((scaled as u64).div_ceil(step).max(1) * step);
        }
        operations *= 2;
    }
}

/// How long that many operations take.
pub fn time(subject: &mut dyn Subject, operations: u64) -> Result<Duration> {
    let start = Instant::now();
    subject.run(operations)?;
    Ok(start.elapsed())
}

/// Nanoseconds for an operation, in each round.
#[derive(Clone, Debug, Default)]
pub struct Rounds(Vec<f64>);

impl Rounds {
    /// One round more.
    pub fn add(&mut self, operations: u64, took: Duration) {
        self.0.push(took.as_nanos() as f64 / operations as f64);
    }

    /// The median of all rounds so far; of an even number, the mean of the two in the middle.
    pub fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        match sorted.len() {
            0 => f64::NAN,
            odd if odd % 2 == 1 => sorted[odd / 2],
            even => f64::midpoint(sorted[even / 2 - 1], sorted[even / 2]),
        }
    }

    /// The fastest and the slowest.
    pub fn extremes(&self) -> (f64, f64) {
        self.0
            .iter()
            .fold((f64::INFINITY, 0.0), |(least, most), round| (f64::min(least, *round), f64::max(most, *round)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle_whatever_the_order() {
        let mut rounds = Rounds::default();
        assert!(rounds.median().is_nan());
        for nanos in [500, 100, 300] {
            rounds.add(10, Duration::from_nanos(nanos));
        }
        assert_eq!(rounds.median(), 30.0);
        assert_eq!(rounds.extremes(), (10.0, 50.0));
        rounds.add(1, Duration::from_nanos(40));
        assert_eq!(rounds.median(), 35.0);
    }

    /// Takes a millisecond for each operation.
    struct Sleeper(u64);

    impl Subject for Sleeper {
        fn run(&mut self, operations: u64) -> Result<()> {
            self.0 += operations;
            std::thread::sleep(Duration::from_millis(operations));
            Ok(())
        }

        fn wire(&self) -> Wire {
            Wire::default()
        }
    }

    #[test]
    fn a_round_has_whole_steps_and_about_the_length() {
        let operations = calibrate(&mut Sleeper(0), 8, Duration::from_millis(100)).unwrap();
        assert_eq!(operations % 8, 0);
        // Sleeping takes longer than asked for, never shorter.
        assert!((8..=104).contains(&operations), "{operations}");
    }
}
