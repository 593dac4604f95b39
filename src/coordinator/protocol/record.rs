//! What happened, step by step.

use std::sync::Arc;

use crate::payment::{BranchId, Outcome, Terms};

use super::{Command, Decision, Knowledge};

/// One step of one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// What.
    pub event: Event,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The transaction began.
    Begun(Arc<Terms>),
    /// It was decided.
    Decided {
        /// How.
        decision: Decision,
        /// What was known of each branch then.
        branches: Vec<Knowledge>,
    },
    /// Every branch has acknowledged the decision.
    Ended {
        /// What was known of each branch then.
        branches: Vec<Knowledge>,
    },
    /// A participant contradicted the decision.
    Disputed {
        /// What it said.
        outcome: Outcome,
        /// What was known of each branch then.
        branches: Vec<Knowledge>,
    },
    /// A participant said where its branch stands.
    Learned {
        /// Which branch.
        branch: BranchId,
        /// Where it stands.
        knowledge: Knowledge,
    },
    /// A command is in flight.
    Asked {
        /// To whom.
        branch: BranchId,
        /// What.
        command: Command,
    },
    /// An attempt came to nothing; the branch is asked again later.
    Postponed {
        /// Which branch.
        branch: BranchId,
        /// When, in milliseconds since the Unix epoch.
        until_ms: i64,
        /// What went wrong.
        cause: Arc<str>,
    },
}

/// What must have happened to a record before the effects of its step are released.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// Never written: it is known again by asking.
    Volatile,
    /// Written some time: losing it costs a repeated, idempotent command.
    Lazy,
    /// On disk, and accepted against the version in the store.
    Forced,
}

impl Event {
    /// See [`Durability`]. Begun and decided are what the promises rest on; disputed is evidence.
    pub fn durability(&self) -> Durability {
        match self {
            Self::Begun(_) | Self::Decided { .. } | Self::Disputed { .. } => Durability::Forced,
            Self::Ended { .. } => Durability::Lazy,
            Self::Learned { .. } | Self::Asked { .. } | Self::Postponed { .. } => Durability::Volatile,
        }
    }
}
