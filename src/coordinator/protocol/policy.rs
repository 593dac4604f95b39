//! How patient the coordinator is.

use crate::payment::PaymentId;

/// The waiting times between attempts. Bounded in rate, unbounded in count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Before the decision: how long to wait after the n-th unknown answer of a branch before it is asked again. The
    /// last one repeats. Milliseconds, never empty.
    pub voting_ladder_ms: Vec<i64>,
    /// After the decision: the same.
    pub delivery_ladder_ms: Vec<i64>,
    /// How far a wait may lie from its rung, either way, in percent (0 to 100).
    pub jitter_percent: u8,
}

impl Default for Policy {
    /// Before the decision a short ladder; after it the one that wallet rails publish (Alipay+ inquiry: 4, 4, 30, 60,
    /// 60, 60 s, then every 5 minutes).
    fn default() -> Self {
        Self {
            voting_ladder_ms: vec![200, 400, 800, 1_600],
            delivery_ladder_ms: vec![4_000, 4_000, 30_000, 60_000, 60_000, 60_000, 300_000],
            jitter_percent: 20,
        }
    }
}

impl Policy {
    /// No wait is longer.
    pub(super) fn longest_ms(&self) -> i64 {
        let rungs_ms = self.voting_ladder_ms.iter().chain(&self.delivery_ladder_ms);
        2 * rungs_ms.max().copied().unwrap_or_default() + 1
    }

    /// How long to wait after this many failures in a row (from 1), spread by the payment's own bits so that many
    /// payments that failed together do not come back together.
    pub(super) fn delay_ms(ladder_ms: &[i64], jitter_percent: u8, payment: PaymentId, salt: u64, failures: u32) -> i64 {
        let last = ladder_ms
            .len()
            .checked_sub(1)
            .expect("a ladder has at least one rung, as the configuration checks");
        let rung_ms = ladder_ms[last.min(failures.saturating_sub(1) as usize)];
        let reach_ms = rung_ms * i64::from(jitter_percent.min(100)) / 100;
        let width_ms = 2 * reach_ms + 1;
        let offset_ms = (payment.spread(salt) % (width_ms as u64)) as i64 - reach_ms;
        (rung_ms + offset_ms).max(1)
    }
}
