//! A bound on how often the same thing is logged. Pure: the time comes in.

use std::time::Duration;

/// Lets one through, then none for a while, and counts those that it held back.
#[derive(Clone, Copy, Debug)]
pub struct Limiter {
    interval: Duration,
    /// When the last one passed, by a clock that never goes back.
    last: Option<Duration>,
    left_out: u64,
}

impl Limiter {
    /// At most one an interval.
    pub fn new(interval: Duration) -> Self {
        Self {
            interval,
            last: None,
            left_out: 0,
        }
    }

    /// If this one may pass: how many were held back since the last one that did.
    pub fn pass(&mut self, now: Duration) -> Option<u64> {
        let is_due = self.last.is_none_or(|last| now.saturating_sub(last) >= self.interval);
        if !is_due {
            self.left_out += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_an_interval_passes_and_says_how_many_did_not() {
        let mut limiter = Limiter::new(Duration::from_secs(5));
        let rows = [
            (1_000, Some(0)),
            (1_000, None),
            (1_001, None),
            (5_999, None),
            (6_000, Some(3)),
            (6_000, None),
            // A long silence: what was held back before it is still told.
            (90_000, Some(1)),
            (95_000, Some(0)),
            // A clock that went back, which this one never does, lets nothing through that it should not.
            (90_000, None),
        ];
        for (now_ms, expected) in rows {
            assert_eq!(limiter.pass(Duration::from_millis(now_ms)), expected, "{now_ms}");
        }
    }

    #[test]
    fn a_flood_is_a_few_lines_and_none_of_it_is_lost_from_the_count() {
        let mut limiter = Limiter::new(Duration::from_secs(5));
        let passed: Vec<_> = (0..100_000_u64)
            .filter_map(|n| limiter.pass(Duration::from_micros(n * 100)))
            .collect();
        assert_eq!(passed.len(), 2, "10 s of flood: {passed:?}");
        assert_eq!(
            passed.iter().sum::<u64>() + passed.len() as u64 + limiter.left_out,
            100_000
        );
    }
}
