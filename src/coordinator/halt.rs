//! Points at which a payment can be stopped for ever, so that a test can kill the process exactly there.
//!
//! Armed by `causeway serve --halt-at POINT`, never otherwise. The first payment that reaches an armed point stops; the
//! process says so on standard error and goes on with everything else.

use std::{
    collections::BTreeSet,
    fmt,
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
};

use crate::payment::PaymentId;

/// A point between two steps of a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HaltPoint {
    /// Nothing is stored.
    BeforeBegun,
    /// The beginning is durable; no Prepare has left.
    AfterBegun,
    /// Every vote is in; commit is not stored.
    BeforeCommitDecided,
    /// Commit is durable; no Commit has left.
    AfterCommitDecided,
    /// There is a reason to abort; it is not stored.
    BeforeAbortDecided,
    /// Abort is durable; no Abort has left.
    AfterAbortDecided,
    /// Every branch has acknowledged; the end is not stored.
    BeforeEnded,
    /// The end is stored.
    AfterEnded,
    /// All is done; the caller has no answer.
    BeforeAnswer,
}

impl HaltPoint {
    /// Every point, in the order in which a payment passes them.
    pub const ALL: [Self; 9] = [
        Self::BeforeBegun,
        Self::AfterBegun,
        Self::BeforeCommitDecided,
        Self::AfterCommitDecided,
        Self::BeforeAbortDecided,
        Self::AfterAbortDecided,
        Self::BeforeEnded,
        Self::AfterEnded,
        Self::BeforeAnswer,
    ];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::BeforeBegun => "before-begun",
            Self::AfterBegun => "after-begun",
            Self::BeforeCommitDecided => "before-commit-decided",
            Self::AfterCommitDecided => "after-commit-decided",
            Self::BeforeAbortDecided => "before-abort-decided",
            Self::AfterAbortDecided => "after-abort-decided",
            Self::BeforeEnded => "before-ended",
            Self::AfterEnded => "after-ended",
            Self::BeforeAnswer => "before-answer",
        }
    }
}

impl fmt::Display for HaltPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for HaltPoint {
    type Err = UnknownHaltPoint;

    fn from_str(text: &str) -> Result<Self, UnknownHaltPoint> {
        Self::ALL
            .into_iter()
            .find(|point| point.name() == text)
            .ok_or_else(|| UnknownHaltPoint { found: text.into() })
    }
}

/// A name that is no point.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no point {found:?}; there are {}", HaltPoint::ALL.map(HaltPoint::name).join(", "))]
pub struct UnknownHaltPoint {
    /// The name.
    pub found: String,
}

/// Which points are armed.
#[derive(Clone, Debug, Default)]
pub struct Halts {
    armed: Arc<Mutex<BTreeSet<HaltPoint>>>,
    any: bool,
}

impl Halts {
    /// These points, each for the first payment that reaches it.
    pub fn new(points: impl IntoIterator<Item = HaltPoint>) -> Self {
        let armed: BTreeSet<_> = points.into_iter().collect();
        Self {
            any: !armed.is_empty(),
            armed: Arc::new(Mutex::new(armed)),
        }
    }

    /// Stops for ever if the point is armed.
    pub(super) async fn reach(&self, point: HaltPoint, id: PaymentId) {
        if !self.any {
            return;
        }
        let hit = self.armed.lock().unwrap_or_else(PoisonError::into_inner).remove(&point);
        if hit {
            // For whoever armed it; a log filter must not hide it.
            eprintln!("halted at {point}: {id}");
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back() {
        for point in HaltPoint::ALL {
            assert_eq!(point.name().parse(), Ok(point));
        }
        let error = "nowhere".parse::<HaltPoint>().unwrap_err().to_string();
        assert!(
            error.contains("\"nowhere\"") && error.contains("after-commit-decided"),
            "{error}"
        );
    }
}
