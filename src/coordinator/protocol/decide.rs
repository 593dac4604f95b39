//! What follows from what.

use std::sync::Arc;

use crate::payment::{BranchId, Outcome, Reason, Terms};

use super::{
    Answer, Command, Decision, Delivery, Effect, Event, Input, Knowledge, Phase, Policy, Record, State, Step,
    Transaction, apply,
};

/// What the transaction does about the input at this instant (milliseconds since the Unix epoch).
pub fn decide(policy: &Policy, state: &State, input: Input, now_ms: i64) -> Step {
    let transaction = match (state, input) {
        (State::Absent, Input::Begin(terms)) => return begin(policy, terms, now_ms),
        // Nothing is known of it, so nothing is to be done: presumed abort.
        (State::Absent, Input::Answer { .. } | Input::Wake | Input::Cancel(_) | Input::Recover) => {
            return Step::default();
        }
        (State::Present(transaction), input) => Draft::new(policy, transaction.clone(), now_ms).run(input),
    };
    transaction.step
}

/// When [`Input::Wake`] is due next, in milliseconds since the Unix epoch; `None` if only an answer can change anything.
pub fn wake_at(state: &State) -> Option<i64> {
    let State::Present(transaction) = state else {
        return None;
    };
    let waits = transaction.branches.iter().filter_map(|branch| match branch.delivery {
        Delivery::Waiting { until_ms } => Some(until_ms),
        Delivery::Idle | Delivery::InFlight(_) => None,
    });
    match transaction.phase {
        // The first instant at which commit cannot be decided any more.
        Phase::Preparing => waits.chain([transaction.terms.decide_by_ms + 1]).min(),
        Phase::Committing { .. } | Phase::Aborting { .. } | Phase::Disputed { .. } => waits.min(),
        Phase::Completed { .. } | Phase::Aborted { .. } => None,
    }
}

fn begin(policy: &Policy, terms: Arc<Terms>, now_ms: i64) -> Step {
    let record = Record {
        // The terms' own instant, not this one: what is read back must be what was answered, to the millisecond.
        at_ms: terms.begin_ms,
        event: Event::Begun(terms),
    };
    let State::Present(transaction) = apply(State::Absent, &record) else {
        unreachable!("a transaction that has begun is present")
    };
    let mut draft = Draft::new(policy, transaction, now_ms);
    draft.step.records.push(record);
    // Promise 9: no Prepare starts when the time to decide has gone by.
    if now_ms > draft.transaction.terms.decide_by_ms {
        draft.abort_late();
    } else {
        draft.ask_all(Command::Prepare);
    }
    draft.step
}

/// A step in the making. Every record is applied as it is added, so that what comes later sees what came before.
struct Draft<'a> {
    policy: &'a Policy,
    transaction: Transaction,
    now_ms: i64,
    step: Step,
}

impl<'a> Draft<'a> {
    fn new(policy: &'a Policy, transaction: Transaction, now_ms: i64) -> Self {
        Self {
            policy,
            transaction,
            now_ms,
            step: Step::default(),
        }
    }

    fn run(mut self, input: Input) -> Self {
        match self.transaction.phase {
            Phase::Preparing => self.preparing(input),
            Phase::Committing { .. } => self.delivering(&Decision::Commit, input),
            Phase::Aborting { ref outcome, .. } => {
                let decision = Decision::Abort(outcome.clone());
                self.delivering(&decision, input);
            }
            Phase::Disputed { ref decision, .. } => {
                let decision = decision.clone();
                self.delivering(&decision, input);
            }
            // It is over: whatever comes now comes late.
            Phase::Completed { .. } | Phase::Aborted { .. } => {}
        }
        self
    }

    /// Nothing is decided: gather votes.
    fn preparing(&mut self, input: Input) {
        match input {
            Input::Begin(_) | Input::Wake => {}
            Input::Cancel(outcome) => return self.abort(outcome),
            // The holds are met again under the same (payment, branch), or the late Prepare is refused.
            Input::Recover => self.ask_all(Command::Prepare),
            Input::Answer {
                branch,
                attempt,
                answer,
            } => {
                let current = self.is_current(branch, attempt);
                let partner = &self.transaction.terms.branches[branch.index()].party.partner;
                match answer {
                    Answer::Prepared { reference } => self.learn(branch, Knowledge::Prepared { reference }),
                    Answer::Refused(outcome) => {
                        self.learn(branch, Knowledge::Refused);
                        return self.abort(outcome);
                    }
                    Answer::Aborted => {
                        let detail = format!("{partner} remembers an abort of this payment");
                        let outcome = Outcome::new(Reason::PreparedAfterAbort, detail, Some(partner));
                        self.learn(branch, Knowledge::Aborted);
                        return self.abort(outcome);
                    }
                    Answer::Committed { .. } => {
                        let detail = format!("{partner} moved the money before any decision");
                        let outcome = Outcome::new(Reason::HeuristicCommit, detail, Some(partner));
                        self.learn(branch, Knowledge::Contradicted);
                        self.abort(outcome.clone());
                        return self.dispute(outcome);
                    }
                    // An inquiry found nothing: the Prepare was lost, or is still on its way; either way the same
                    // Prepare again is right. A Prepare that is answered so is nonsense.
                    Answer::Missing if current && self.in_flight(branch) == Some(Command::Inquire) => {
                        self.ask(branch, Command::Prepare);
                    }
                    Answer::Missing if current => {
                        self.postpone(branch, "answered a Prepare with no such branch".into())
                    }
                    Answer::Unknown { cause } if current => self.postpone(branch, cause),
                    Answer::Rejected { cause } if current => {
                        let detail = format!("{partner} rejected the call: {cause}");
                        let outcome = Outcome::new(Reason::PartnerError, detail, Some(partner));
                        return self.abort(outcome);
                    }
                    // Of an attempt that another has replaced.
                    Answer::Missing | Answer::Unknown { .. } | Answer::Rejected { .. } => {}
                }
            }
        }
        if self.now_ms > self.transaction.terms.decide_by_ms {
            self.abort_late();
        } else if self
            .transaction
            .branches
            .iter()
            .all(|branch| branch.knowledge.is_prepared())
        {
            self.commit();
        } else {
            self.ask_due();
        }
    }

    /// The decision stands: tell everyone until everyone has carried it out.
    fn delivering(&mut self, decision: &Decision, input: Input) {
        let command = match decision {
            Decision::Commit => Command::Commit,
            Decision::Abort(_) => Command::Abort,
        };
        match input {
            Input::Begin(_) | Input::Wake | Input::Cancel(_) => {}
            Input::Recover => self.ask_unsettled(decision, command),
            Input::Answer {
                branch,
                attempt,
                answer,
            } => {
                let current = self.is_current(branch, attempt);
                let inquired = self.in_flight(branch) == Some(Command::Inquire);
                match (decision, answer) {
                    // Settled or contradicted branches have said their last word.
                    _ if self.is_done(branch, decision) => {}
                    (Decision::Commit, Answer::Committed { reference }) => {
                        self.learn(branch, Knowledge::Committed { reference });
                    }
                    (Decision::Abort(_), Answer::Aborted) => self.learn(branch, Knowledge::Aborted),
                    (Decision::Abort(_), Answer::Refused(_)) => self.learn(branch, Knowledge::Refused),

                    // Heuristic outcomes. Money that moved has moved, whichever attempt says so; that a hold is gone
                    // is believed only of the attempt that asked after the decision.
                    (Decision::Abort(_), Answer::Committed { .. }) => {
                        self.contradict(
                            branch,
                            Reason::HeuristicCommit,
                            "moved the money although abort was decided",
                        );
                    }
                    (Decision::Commit, Answer::Aborted) if current => {
                        self.contradict(
                            branch,
                            Reason::HeuristicAbort,
                            "says aborted although commit was decided",
                        );
                    }
                    (Decision::Commit, Answer::Refused(_)) if current => {
                        self.contradict(branch, Reason::HeuristicAbort, "says refused although it had voted yes");
                    }
                    (Decision::Commit, Answer::Missing) if current => {
                        self.contradict(
                            branch,
                            Reason::HeuristicAbort,
                            "has no trace of the hold it had voted for",
                        );
                    }

                    // An inquiry found the branch waiting: send the decision again.
                    (_, Answer::Prepared { .. }) if current && inquired => self.ask(branch, command),
                    (Decision::Abort(_), Answer::Missing) if current && inquired => {
                        // Abort even when unknown: its Prepare may still be in flight, and must find the tombstone.
                        self.ask(branch, command);
                    }
                    (_, Answer::Prepared { .. }) if current => {
                        self.postpone(branch, "answered the decision with prepared".into());
                    }
                    (Decision::Abort(_), Answer::Missing) if current => {
                        self.postpone(branch, "answered an Abort with no such branch".into());
                    }
                    (_, Answer::Unknown { cause } | Answer::Rejected { cause }) if current => {
                        self.postpone(branch, cause);
                    }
                    // Of an attempt that another has replaced.
                    (
                        _,
                        Answer::Prepared { .. }
                        | Answer::Refused(_)
                        | Answer::Aborted
                        | Answer::Missing
                        | Answer::Unknown { .. }
                        | Answer::Rejected { .. },
                    ) => {}
                }
            }
        }
        self.ask_due();
        self.end_if_settled(decision);
        self.keep_evidence();
    }

    fn commit(&mut self) {
        self.step.effects.clear();
        let branches = self.transaction.knowledge();
        self.push(Event::Decided {
            decision: Decision::Commit,
            branches,
        });
        self.ask_all(Command::Commit);
    }

    fn abort(&mut self, outcome: Outcome) {
        // Nothing that this step was about to ask is worth asking any more; least of all a Prepare (promise 9).
        self.step.effects.clear();
        let decision = Decision::Abort(outcome);
        let branches = self.transaction.knowledge();
        self.push(Event::Decided {
            decision: decision.clone(),
            branches,
        });
        self.ask_unsettled(&decision, Command::Abort);
        self.end_if_settled(&decision);
    }

    /// The time for a decision has passed: abort, and say who was waited for.
    fn abort_late(&mut self) {
        let mut late = self
            .transaction
            .branch_ids()
            .filter(|id| !self.transaction.branch(*id).knowledge.is_prepared());
        let outcome = match late.next() {
            None => Outcome::new(Reason::VotingTimedOut, "the votes came too late", None),
            Some(first) => {
                let partner = &self.transaction.terms.branches[first.index()].party.partner;
                let names: Vec<_> = std::iter::once(first)
                    .chain(late)
                    .map(|id| {
                        let partner = &self.transaction.terms.branches[id.index()].party.partner;
                        match &self.transaction.branch(id).cause {
                            Some(cause) => format!("{partner} ({}): {cause}", id.name()),
                            None => format!("{partner} ({}): no answer", id.name()),
                        }
                    })
                    .collect();
                let detail = format!("no vote in time of {}", names.join("; "));
                Outcome::new(Reason::VotingTimedOut, detail, Some(partner))
            }
        };
        self.abort(outcome);
    }

    fn contradict(&mut self, branch: BranchId, reason: Reason, what: &str) {
        let partner = &self.transaction.terms.branches[branch.index()].party.partner;
        let outcome = Outcome::new(reason, format!("{partner} {what}"), Some(partner));
        self.learn(branch, Knowledge::Contradicted);
        self.dispute(outcome);
    }

    fn dispute(&mut self, outcome: Outcome) {
        let branches = self.transaction.knowledge();
        self.push(Event::Disputed { outcome, branches });
    }

    fn end_if_settled(&mut self, decision: &Decision) {
        let open = matches!(
            self.transaction.phase,
            Phase::Committing { .. } | Phase::Aborting { .. }
        );
        if open
            && self
                .transaction
                .branches
                .iter()
                .all(|branch| branch.knowledge.settles(decision))
        {
            let branches = self.transaction.knowledge();
            self.push(Event::Ended { branches });
        }
    }

    /// What the other branches did of a disputed payment is evidence too. There is no end that would write it down, and
    /// an operator decides by it; without it, recovery would send the decision again for ever.
    fn keep_evidence(&mut self) {
        let Phase::Disputed { outcome, .. } = &self.transaction.phase else {
            return;
        };
        let last = |test: fn(&Event) -> bool| self.step.records.iter().rposition(|record| test(&record.event));
        let learned = last(|event| matches!(event, Event::Learned { .. }));
        if learned > last(|event| matches!(event, Event::Disputed { .. })) {
            let outcome = outcome.clone();
            self.dispute(outcome);
        }
    }

    fn ask_all(&mut self, command: Command) {
        for branch in self.transaction.branch_ids() {
            self.ask(branch, command);
        }
    }

    fn ask_unsettled(&mut self, decision: &Decision, command: Command) {
        for branch in self.transaction.branch_ids() {
            if !self.is_done(branch, decision) {
                self.ask(branch, command);
            }
        }
    }

    /// Inquires where a wait is over, or was never meant: one that is longer than any rung was set by a clock that has
    /// been put back since.
    fn ask_due(&mut self) {
        for branch in self.transaction.branch_ids() {
            if let Delivery::Waiting { until_ms } = self.transaction.branch(branch).delivery
                && (until_ms <= self.now_ms || until_ms - self.now_ms > self.policy.longest_ms())
            {
                self.ask(branch, Command::Inquire);
            }
        }
    }

    fn ask(&mut self, branch: BranchId, command: Command) {
        self.push(Event::Asked { branch, command });
        let attempt = self.transaction.branch(branch).attempt;
        self.step.effects.push(Effect::Send {
            branch,
            command,
            attempt,
        });
    }

    fn learn(&mut self, branch: BranchId, knowledge: Knowledge) {
        self.push(Event::Learned { branch, knowledge });
    }

    fn postpone(&mut self, branch: BranchId, cause: Arc<str>) {
        let ladder_ms = match self.transaction.phase {
            Phase::Preparing => &self.policy.voting_ladder_ms,
            Phase::Committing { .. }
            | Phase::Aborting { .. }
            | Phase::Disputed { .. }
            | Phase::Completed { .. }
            | Phase::Aborted { .. } => &self.policy.delivery_ladder_ms,
        };
        let state = self.transaction.branch(branch);
        let salt = (branch.index() as u64) << 32 | u64::from(state.attempt);
        let delay_ms = Policy::delay_ms(
            ladder_ms,
            self.policy.jitter_percent,
            self.transaction.terms.id,
            salt,
            state.failures.saturating_add(1),
        );
        self.push(Event::Postponed {
            branch,
            until_ms: self.now_ms + delay_ms,
            cause,
        });
    }

    fn is_current(&self, branch: BranchId, attempt: u32) -> bool {
        let state = self.transaction.branch(branch);
        state.attempt == attempt && matches!(state.delivery, Delivery::InFlight(_))
    }

    fn in_flight(&self, branch: BranchId) -> Option<Command> {
        match self.transaction.branch(branch).delivery {
            Delivery::InFlight(command) => Some(command),
            Delivery::Idle | Delivery::Waiting { .. } => None,
        }
    }

    fn is_done(&self, branch: BranchId, decision: &Decision) -> bool {
        let knowledge = &self.transaction.branch(branch).knowledge;
        knowledge.settles(decision) || knowledge.contradicts()
    }

    fn push(&mut self, event: Event) {
        let record = Record {
            at_ms: self.now_ms,
            event,
        };
        let State::Present(transaction) = apply(State::Present(self.transaction.clone()), &record) else {
            unreachable!("a transaction never becomes absent")
        };
        self.transaction = transaction;
        self.step.records.push(record);
    }
}
