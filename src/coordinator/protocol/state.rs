//! Where a transaction stands, and the only way it changes.

use std::sync::Arc;

use crate::payment::{BranchId, Outcome, Terms};

use super::{Command, Durability, Event, Record};

/// A transaction, or none.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum State {
    /// Nothing durable is known of it: presumed aborted.
    #[default]
    Absent,
    /// It has begun.
    Present(Transaction),
}

/// A transaction that has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// What it is about.
    pub terms: Arc<Terms>,
    /// How many durable records it has: what the next append is compared against.
    pub version: u32,
    /// Where it stands.
    pub phase: Phase,
    /// What is known of each branch, at the index of its id.
    pub branches: Vec<Branch>,
}

/// Where a transaction stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing is decided.
    Preparing,
    /// Commit is decided; not every branch has acknowledged.
    Committing {
        /// When it was decided.
        decide_ms: i64,
    },
    /// Every branch has committed.
    Completed {
        /// When commit was decided.
        decide_ms: i64,
        /// When the last branch acknowledged.
        end_ms: i64,
    },
    /// Abort is decided; not every branch has acknowledged.
    Aborting {
        /// Why.
        outcome: Outcome,
        /// When it was decided.
        decide_ms: i64,
    },
    /// Nothing is held any more.
    Aborted {
        /// Why.
        outcome: Outcome,
        /// When abort was decided.
        decide_ms: i64,
        /// When the last branch acknowledged.
        end_ms: i64,
    },
    /// A participant contradicted the decision. The decision stands; the other branches still get it.
    Disputed {
        /// What was decided.
        decision: Decision,
        /// What the participant said.
        outcome: Outcome,
        /// When it was decided.
        decide_ms: i64,
    },
}

/// Commit or abort.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Every branch voted yes.
    Commit,
    /// For this reason.
    Abort(Outcome),
}

/// One branch as the coordinator sees it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Branch {
    /// What its participant said last.
    pub knowledge: Knowledge,
    /// What is under way.
    pub delivery: Delivery,
    /// The number of the last command sent.
    pub attempt: u32,
    /// How many attempts in a row came to nothing.
    pub failures: u32,
    /// What the last of them saw.
    pub cause: Option<Arc<str>>,
}

/// What is known of a branch.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub enum Knowledge {
    /// No answer yet.
    #[default]
    Unknown,
    /// Voted yes, holds the funds.
    Prepared {
        /// The participant's reference.
        reference: Arc<str>,
    },
    /// Voted no, holds nothing.
    Refused,
    /// The money moved there.
    Committed {
        /// The participant's reference.
        reference: Arc<str>,
    },
    /// Holds nothing.
    Aborted,
    /// It did the opposite of the decision.
    Contradicted,
}

/// What is under way with a branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Delivery {
    /// Nothing.
    #[default]
    Idle,
    /// A command was sent.
    InFlight(Command),
    /// The next attempt waits for its time.
    Waiting {
        /// In milliseconds since the Unix epoch.
        until_ms: i64,
    },
}

impl Transaction {
    /// What was decided, if anything was.
    pub fn decision(&self) -> Option<Decision> {
        match &self.phase {
            Phase::Preparing => None,
            Phase::Committing { .. } | Phase::Completed { .. } => Some(Decision::Commit),
            Phase::Aborting { outcome, .. } | Phase::Aborted { outcome, .. } => Some(Decision::Abort(outcome.clone())),
            Phase::Disputed { decision, .. } => Some(decision.clone()),
        }
    }

    /// Whether it is over: nothing will ever be sent for it again.
    pub fn has_ended(&self) -> bool {
        matches!(self.phase, Phase::Completed { .. } | Phase::Aborted { .. })
    }

    /// Whether a caller that waits for the end has waited long enough: ended, or disputed, which takes an operator.
    pub fn has_settled(&self) -> bool {
        self.has_ended() || matches!(self.phase, Phase::Disputed { .. })
    }

    /// Whether nothing changes any more without an operator: ended, or disputed with every other branch settled.
    pub fn is_quiet(&self) -> bool {
        match &self.phase {
            Phase::Completed { .. } | Phase::Aborted { .. } => true,
            Phase::Disputed { decision, .. } => self
                .branches
                .iter()
                .all(|branch| branch.knowledge.settles(decision) || branch.knowledge.contradicts()),
            Phase::Preparing | Phase::Committing { .. } | Phase::Aborting { .. } => false,
        }
    }

    /// What is known of each branch.
    pub fn knowledge(&self) -> Vec<Knowledge> {
        self.branches.iter().map(|branch| branch.knowledge.clone()).collect()
    }

    /// The ids of the branches.
    pub fn branch_ids(&self) -> impl Iterator<Item = BranchId> + use<> {
        (0..self.branches.len()).map(BranchId::at)
    }

    /// The branch of this id.
    pub fn branch(&self, id: BranchId) -> &Branch {
        &self.branches[id.index()]
    }
}

impl Knowledge {
    /// Whether the branch voted yes.
    pub fn is_prepared(&self) -> bool {
        matches!(self, Self::Prepared { .. })
    }

    /// Whether the branch has carried the decision out, so that nothing more needs to be sent.
    pub fn settles(&self, decision: &Decision) -> bool {
        match (decision, self) {
            (Decision::Commit, Self::Committed { .. }) => true,
            // A refusal holds nothing and is remembered by its participant: there is nothing to let go of.
            (Decision::Abort(_), Self::Aborted | Self::Refused) => true,
            (Decision::Commit | Decision::Abort(_), _) => false,
        }
    }

    /// Whether the branch did the opposite of the decision.
    pub fn contradicts(&self) -> bool {
        matches!(self, Self::Contradicted)
    }

    /// The participant's reference, if it gave one.
    pub fn reference(&self) -> &str {
        match self {
            Self::Prepared { reference } | Self::Committed { reference } => reference,
            Self::Unknown | Self::Refused | Self::Aborted | Self::Contradicted => "",
        }
    }
}

/// A record that cannot follow the state it is applied to: a bug, or a store that is not what was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("record {got} cannot follow: expected {expected}")]
pub struct Impossible {
    /// What could have followed.
    pub expected: &'static str,
    /// What came.
    pub got: &'static str,
}

/// The state after the record. Panics on a record that cannot follow, which is a bug in [`super::decide`]; records of
/// unknown origin go through [`fold`].
pub fn apply(state: State, record: &Record) -> State {
    match try_apply(state, record) {
        Ok(state) => state,
        Err(impossible) => panic!("bug: {impossible}"),
    }
}

/// The state after all of a transaction's durable records, as recovery reads them.
pub fn fold<'a>(records: impl IntoIterator<Item = &'a Record>) -> Result<State, Impossible> {
    records.into_iter().try_fold(State::Absent, try_apply)
}

fn try_apply(state: State, record: &Record) -> Result<State, Impossible> {
    let durable = record.event.durability() > Durability::Volatile;
    let mut transaction = match (state, &record.event) {
        (State::Absent, Event::Begun(terms)) => {
            return Ok(State::Present(Transaction {
                branches: vec![Branch::default(); terms.branches.len()],
                terms: Arc::clone(terms),
                version: 1,
                phase: Phase::Preparing,
            }));
        }
        (State::Absent, other) => {
            return Err(Impossible {
                expected: "begun",
                got: other.name(),
            });
        }
        (State::Present(transaction), _) => transaction,
    };
    transaction.phase = next_phase(&transaction, record)?;
    match &record.event {
        Event::Begun(_) => unreachable!("next_phase lets no second beginning pass"),
        Event::Decided { branches, .. } | Event::Ended { branches } | Event::Disputed { branches, .. } => {
            if branches.len() != transaction.branches.len() {
                return Err(Impossible {
                    expected: "as many branches as began",
                    got: record.event.name(),
                });
            }
            for (branch, knowledge) in transaction.branches.iter_mut().zip(branches) {
                branch.knowledge = knowledge.clone();
            }
            // What failed before the decision says nothing about what follows it.
            if matches!(record.event, Event::Decided { .. }) {
                for branch in &mut transaction.branches {
                    branch.failures = 0;
                    branch.delivery = Delivery::Idle;
                }
            }
        }
        Event::Learned { branch, knowledge } => {
            let branch = &mut transaction.branches[branch.index()];
            branch.knowledge = knowledge.clone();
            branch.delivery = Delivery::Idle;
            branch.failures = 0;
            branch.cause = None;
        }
        Event::Asked { branch, command } => {
            let branch = &mut transaction.branches[branch.index()];
            branch.attempt += 1;
            branch.delivery = Delivery::InFlight(*command);
        }
        Event::Postponed {
            branch,
            until_ms,
            cause,
        } => {
            let branch = &mut transaction.branches[branch.index()];
            branch.failures = branch.failures.saturating_add(1);
            branch.delivery = Delivery::Waiting { until_ms: *until_ms };
            branch.cause = Some(Arc::clone(cause));
        }
    }
    if durable {
        transaction.version += 1;
    }
    Ok(State::Present(transaction))
}

/// Which phase follows: the state machine of docs/protocol.md.
fn next_phase(transaction: &Transaction, record: &Record) -> Result<Phase, Impossible> {
    let at_ms = record.at_ms;
    let refuse = |expected| {
        Err(Impossible {
            expected,
            got: record.event.name(),
        })
    };
    match (&transaction.phase, &record.event) {
        (phase, Event::Learned { .. } | Event::Asked { .. } | Event::Postponed { .. }) => Ok(phase.clone()),
        (_, Event::Begun(_)) => refuse("no second beginning"),

        (
            Phase::Preparing,
            Event::Decided {
                decision: Decision::Commit,
                branches,
            },
        ) => {
            // Promise 2: every branch voted yes. Promise 9: not after the time for it.
            if !branches.iter().all(Knowledge::is_prepared) {
                return refuse("a yes of every branch before commit");
            }
            if at_ms > transaction.terms.decide_by_ms {
                return refuse("a commit no later than decide_by");
            }
            Ok(Phase::Committing { decide_ms: at_ms })
        }
        (
            Phase::Preparing,
            Event::Decided {
                decision: Decision::Abort(outcome),
                ..
            },
        ) => Ok(Phase::Aborting {
            outcome: outcome.clone(),
            decide_ms: at_ms,
        }),
        (Phase::Preparing, Event::Ended { .. } | Event::Disputed { .. }) => refuse("a decision first"),

        // Promise 2: a decision never changes.
        (
            Phase::Committing { .. }
            | Phase::Completed { .. }
            | Phase::Aborting { .. }
            | Phase::Aborted { .. }
            | Phase::Disputed { .. },
            Event::Decided { .. },
        ) => refuse("no second decision"),

        (Phase::Committing { decide_ms }, Event::Ended { branches }) => {
            // Promise 1, as far as the coordinator can see it.
            if !branches.iter().all(|branch| branch.settles(&Decision::Commit)) {
                return refuse("every branch committed before the end");
            }
            Ok(Phase::Completed {
                decide_ms: *decide_ms,
                end_ms: at_ms,
            })
        }
        (Phase::Aborting { outcome, decide_ms }, Event::Ended { branches }) => {
            if !branches
                .iter()
                .all(|branch| branch.settles(&Decision::Abort(outcome.clone())))
            {
                return refuse("every branch released before the end");
            }
            Ok(Phase::Aborted {
                outcome: outcome.clone(),
                decide_ms: *decide_ms,
                end_ms: at_ms,
            })
        }
        (Phase::Committing { decide_ms }, Event::Disputed { outcome, .. }) => Ok(Phase::Disputed {
            decision: Decision::Commit,
            outcome: outcome.clone(),
            decide_ms: *decide_ms,
        }),
        (
            Phase::Aborting {
                outcome: reason,
                decide_ms,
            },
            Event::Disputed { outcome, .. },
        ) => Ok(Phase::Disputed {
            decision: Decision::Abort(reason.clone()),
            outcome: outcome.clone(),
            decide_ms: *decide_ms,
        }),
        (
            Phase::Disputed {
                decision, decide_ms, ..
            },
            Event::Disputed { outcome, .. },
        ) => Ok(Phase::Disputed {
            decision: decision.clone(),
            outcome: outcome.clone(),
            decide_ms: *decide_ms,
        }),
        (Phase::Disputed { .. }, Event::Ended { .. }) => refuse("an operator's resolution"),
        (Phase::Completed { .. } | Phase::Aborted { .. }, Event::Ended { .. } | Event::Disputed { .. }) => {
            refuse("nothing after the end")
        }
    }
}

impl Event {
    /// The event's name, as stored and logged.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Begun(_) => "begun",
            Self::Decided {
                decision: Decision::Commit,
                ..
            } => "commit decided",
            Self::Decided {
                decision: Decision::Abort(_),
                ..
            } => "abort decided",
            Self::Ended { .. } => "ended",
            Self::Disputed { .. } => "disputed",
            Self::Learned { .. } => "learned",
            Self::Asked { .. } => "asked",
            Self::Postponed { .. } => "postponed",
        }
    }
}

impl Phase {
    /// Every name, in the order of the numbers that states have in the API.
    pub const NAMES: [&'static str; 6] = [
        "PREPARING",
        "COMMITTING",
        "COMPLETED",
        "ABORTING",
        "ABORTED",
        "DISPUTED",
    ];

    /// The state's name on the wire, without its prefix.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Preparing => "PREPARING",
            Self::Committing { .. } => "COMMITTING",
            Self::Completed { .. } => "COMPLETED",
            Self::Aborting { .. } => "ABORTING",
            Self::Aborted { .. } => "ABORTED",
            Self::Disputed { .. } => "DISPUTED",
        }
    }
}
