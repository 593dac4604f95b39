//! What goes into the core and what comes out of it.

use std::sync::Arc;

use crate::payment::{BranchId, Outcome, Terms};

use super::Record;

/// What can happen to a transaction.
#[derive(Clone, Debug)]
pub enum Input {
    /// Begin it. To one that has begun already this is nothing: a retry attaches.
    Begin(Arc<Terms>),
    /// A participant answered, or did not, to the command sent as this attempt.
    Answer {
        /// Which branch.
        branch: BranchId,
        /// The number that the [`Effect::Send`] carried.
        attempt: u32,
        /// What came back.
        answer: Answer,
    },
    /// Time has passed; due at [`super::wake_at`].
    Wake,
    /// Abort it if it is not decided.
    Cancel(Outcome),
    /// It was just read back from the store: whatever was in flight is forgotten.
    Recover,
}

/// What is known after a command was sent. A time-out is [`Answer::Unknown`], never a guess.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// The branch is prepared: a yes.
    Prepared {
        /// The participant's reference of the hold.
        reference: Arc<str>,
    },
    /// The branch is refused: a no.
    Refused(Outcome),
    /// The branch is committed.
    Committed {
        /// The participant's reference of the movement.
        reference: Arc<str>,
    },
    /// The branch is aborted.
    Aborted,
    /// The participant has no trace of the branch.
    Missing,
    /// Nothing is known: no answer, a broken connection, an answer that makes no sense.
    Unknown {
        /// What was seen instead of an answer.
        cause: Arc<str>,
    },
    /// The participant rejected the call itself, and would again; nothing is known of the branch.
    Rejected {
        /// What it said.
        cause: Arc<str>,
    },
}

/// What a participant is told or asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Command {
    /// Vote.
    Prepare,
    /// Move the money.
    Commit,
    /// Let go.
    Abort,
    /// Say where the branch stands.
    Inquire,
}

/// What to do once the step's forced records are durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send a command. A branch has one command in flight: a new one takes the place of the old, whose answer, should it
    /// come, is told apart by its attempt.
    Send {
        /// To whom.
        branch: BranchId,
        /// What.
        command: Command,
        /// Counts up within the branch.
        attempt: u32,
    },
}

/// What follows from an input.
#[derive(Clone, Debug, Default)]
pub struct Step {
    /// To be applied in this order; see [`super::Durability`] for which must be on disk first.
    pub records: Vec<Record>,
    /// To be released after that.
    pub effects: Vec<Effect>,
}
