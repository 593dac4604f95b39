//! Counts.

use std::collections::BTreeMap;

/// What came of the payments of a world, for counting.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Payments that began.
    pub begun: u64,
    /// By how they ended.
    pub outcomes: BTreeMap<String, u64>,
    /// By where another process took over, and which.
    pub takeovers: BTreeMap<String, u64>,
    pub conflicts: u64,
    pub refusals: BTreeMap<String, u64>,
    pub changes_watched: u64,
    pub decisions_told: u64,
    pub quotes: u64,
}

impl Tally {
    pub fn merge(&mut self, other: &Self) {
        self.begun += other.begun;
        self.conflicts += other.conflicts;
        self.changes_watched += other.changes_watched;
        self.decisions_told += other.decisions_told;
        self.quotes += other.quotes;
        for (mine, theirs) in [
            (&mut self.outcomes, &other.outcomes),
            (&mut self.takeovers, &other.takeovers),
            (&mut self.refusals, &other.refusals),
        ] {
            for (key, count) in theirs {
                *mine.entry(key.clone()).or_default() += count;
            }
        }
    }
}
