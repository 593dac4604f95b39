//! The real `decide`, `apply`, `fold` and `wake_at` behind the small forms of `world.rs`.
//!
//! A small form is unfolded to a real `State`, the real function is called, and its result is folded up again. The real
//! functions are pure, so each question is asked once and the answer is kept.

use std::{
    cell::RefCell,
    collections::HashMap,
    hash::{BuildHasherDefault, Hash, Hasher},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use causeway::{
    coordinator::protocol::{
        self, Answer, Command, Decision, Delivery, Durability, Effect, Event, Knowledge, Policy, Record, State,
        Transaction, apply, decide, fold, wake_at,
    },
    money::{Amount, Conversion, Currency, Margin, Pricing, Rate},
    payment::{
        AccountId, Branch, BranchId, Direction, Order, OrderPricing, Outcome, PartnerName, Party, PaymentId, QuoteId,
        RateOrigin, Reason, RequestId, Terms,
    },
};

use super::world::{BRANCHES_MAX, Core, Entry, Input, Known, Knowns, Phase, Records, Reply, Said, UnderWay, Why};

pub const BEGIN_MS: i64 = 1_000_000;
pub const DECIDE_BY_MS: i64 = BEGIN_MS + 15_000;
/// The last instant at which commit can be decided.
const IN_TIME_MS: i64 = DECIDE_BY_MS;
/// The first at which it cannot.
const LATE_MS: i64 = DECIDE_BY_MS + 1;
/// The attempt that is current when a small form is unfolded. Only that it is the same, or another, counts.
const ATTEMPT: u32 = 7;
/// No step sends more commands.
const EFFECTS_MAX: usize = 2 * BRANCHES_MAX;

/// What follows from an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// To be made durable, if any.
    pub durable: Records,
    /// Whether the effects wait for that.
    pub forced: bool,
    /// The state once all is applied.
    pub after: Core,
    /// The state once the first record is applied: what a beginning leaves.
    pub after_first: Core,
    /// What to send.
    pub effects: [Option<Send>; EFFECTS_MAX],
    /// The branches whose last attempt is another than before.
    pub renewed: [bool; BRANCHES_MAX],
    /// An assertion of the core's own did not hold.
    pub impossible: bool,
    /// A Prepare is sent, or commit is decided, after the time to decide.
    pub too_late: bool,
}

/// A command to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Send {
    pub branch: usize,
    pub command: Command,
    /// Whether the transaction counts it as the branch's last attempt.
    pub current: bool,
}

/// The real core, for a payment with so many branches.
pub struct Real {
    policy: Policy,
    terms: Arc<Terms>,
}

/// What was asked before. One a thread.
#[derive(Default)]
struct Asked {
    steps: Answers<(usize, Core, Input, bool), Step>,
    folds: Answers<(usize, Records), Option<Core>>,
    wakes: Answers<(usize, Core, Option<u8>, bool), bool>,
}

type Answers<K, V> = HashMap<K, V, BuildHasherDefault<Quick>>;

/// A quick hash for small keys: the multiply-and-rotate of FxHash. The map compares the keys, so a weak hash costs time only.
#[derive(Default)]
pub struct Quick(u64);

impl Hasher for Quick {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64((*byte).into());
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.write_u64(value.into());
    }

    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }

    fn write_isize(&mut self, value: isize) {
        self.write_u64(value as u64);
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(5) ^ value).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    fn finish(&self) -> u64 {
        // The map looks at the high bits and at the low ones.
        self.0 ^ (self.0 >> 32)
    }
}

thread_local! {
    static ASKED: RefCell<Asked> = RefCell::default();
}

fn once<K: Hash + Eq, V: Copy>(
    answers: impl Fn(&mut Asked) -> &mut Answers<K, V>,
    question: K,
    find: impl FnOnce() -> V,
) -> V {
    let known = ASKED.with_borrow_mut(|asked| answers(asked).get(&question).copied());
    known.unwrap_or_else(|| {
        let answer = find();
        ASKED.with_borrow_mut(|asked| answers(asked).insert(question, answer));
        answer
    })
}

impl Real {
    pub fn new(branches: usize) -> Self {
        Self {
            policy: Policy {
                voting_ladder_ms: vec![10],
                delivery_ladder_ms: vec![10],
                jitter_percent: 0,
            },
            terms: terms(branches),
        }
    }

    pub fn terms(&self) -> &Arc<Terms> {
        &self.terms
    }

    pub fn branches(&self) -> usize {
        self.terms.branches.len()
    }

    /// What `decide` makes of an input.
    pub fn step(&self, core: Core, input: Input, late: bool) -> Step {
        once(
            |asked| &mut asked.steps,
            (self.branches(), core, input, late),
            || self.find_step(core, input, late),
        )
    }

    /// What recovery reads; `None` if it cannot be read.
    pub fn fold(&self, records: Records) -> Option<Core> {
        once(
            |asked| &mut asked.folds,
            (self.branches(), records),
            || {
                let records: Vec<_> = records.iter().map(|entry| self.record(entry)).collect();
                fold(&records).ok().map(|state| fold_up(&state))
            },
        )
    }

    /// Whether the driver would be woken: with the wait of this branch over, or by the time to decide alone.
    pub fn wakes(&self, core: Core, over: Option<u8>, late: bool) -> bool {
        once(
            |asked| &mut asked.wakes,
            (self.branches(), core, over, late),
            || wake_at(&self.unfold(core, over, now_ms(late))).is_some_and(|at_ms| at_ms <= now_ms(late)),
        )
    }

    /// Whether nothing changes any more without an operator.
    pub fn is_quiet(&self, core: Core) -> bool {
        self.transaction(core).is_none_or(|transaction| transaction.is_quiet())
    }

    /// Whether commit is decided, as who asks for the decision is told.
    pub fn commits(&self, core: Core) -> Option<bool> {
        let decision = self.transaction(core)?.decision()?;
        Some(decision == Decision::Commit)
    }

    fn transaction(&self, core: Core) -> Option<Transaction> {
        match self.unfold(core, None, IN_TIME_MS) {
            State::Absent => None,
            State::Present(transaction) => Some(transaction),
        }
    }

    fn find_step(&self, core: Core, input: Input, late: bool) -> Step {
        let over = match input {
            Input::Wake(over) => over,
            Input::Begin | Input::Recover | Input::Cancel | Input::Answer { .. } => None,
        };
        let before = self.unfold(core, over, now_ms(late));
        let found = catch_unwind(AssertUnwindSafe(|| {
            let step = decide(&self.policy, &before, self.input(input), now_ms(late));
            let first = step.records.first().map(|record| apply(before.clone(), record));
            let after = step.records.iter().fold(before.clone(), apply);
            (step, first.unwrap_or_else(|| before.clone()), after)
        }));
        match found {
            Ok((step, first, after)) => fold_up_step(&before, &step, &first, &after, late),
            Err(_) => Step {
                durable: Records::default(),
                forced: false,
                after: core,
                after_first: core,
                effects: [None; EFFECTS_MAX],
                renewed: [false; BRANCHES_MAX],
                impossible: true,
                too_late: false,
            },
        }
    }

    fn input(&self, input: Input) -> protocol::Input {
        match input {
            Input::Begin => protocol::Input::Begin(Arc::clone(&self.terms)),
            Input::Recover => protocol::Input::Recover,
            Input::Cancel => protocol::Input::Cancel(outcome(Reason::Cancelled)),
            Input::Wake(_) => protocol::Input::Wake,
            Input::Answer { branch, said, current } => protocol::Input::Answer {
                branch: BranchId::at(branch.into()),
                attempt: if current { ATTEMPT } else { ATTEMPT - 1 },
                answer: answer(said),
            },
        }
    }

    /// A real state that folds up to this one. The wait of the branch is over; others have just begun.
    fn unfold(&self, core: Core, over: Option<u8>, now_ms: i64) -> State {
        let abort = || outcome(Reason::Cancelled);
        let (decide_ms, end_ms) = (IN_TIME_MS, IN_TIME_MS);
        let disputed = |decision, reason| protocol::Phase::Disputed {
            decision,
            outcome: outcome(reason),
            decide_ms,
        };
        let phase = match core.phase {
            Phase::Absent => return State::Absent,
            Phase::Preparing => protocol::Phase::Preparing,
            Phase::Committing => protocol::Phase::Committing { decide_ms },
            Phase::Completed => protocol::Phase::Completed { decide_ms, end_ms },
            Phase::Aborting => protocol::Phase::Aborting {
                outcome: abort(),
                decide_ms,
            },
            Phase::Aborted => protocol::Phase::Aborted {
                outcome: abort(),
                decide_ms,
                end_ms,
            },
            Phase::DisputedCommit => disputed(Decision::Commit, Reason::HeuristicAbort),
            Phase::DisputedAbort => disputed(Decision::Abort(abort()), Reason::HeuristicCommit),
        };
        let branch = |at: usize| protocol::Branch {
            knowledge: knowledge(core.known[at]),
            delivery: match core.under_way[at] {
                UnderWay::Nothing => Delivery::Idle,
                UnderWay::Sent(command) => Delivery::InFlight(command),
                UnderWay::Waiting if over == Some(at as u8) => Delivery::Waiting { until_ms: now_ms },
                UnderWay::Waiting => Delivery::Waiting { until_ms: now_ms + 10 },
            },
            attempt: ATTEMPT,
            failures: u32::from(core.under_way[at] == UnderWay::Waiting),
            cause: None,
        };
        State::Present(Transaction {
            terms: Arc::clone(&self.terms),
            version: core.version.into(),
            phase,
            branches: (0..self.branches()).map(branch).collect(),
        })
    }

    fn record(&self, entry: Entry) -> Record {
        let branches = |knowns: Knowns| {
            knowns[..self.branches()]
                .iter()
                .map(|known| knowledge(*known))
                .collect()
        };
        let event = match entry {
            Entry::Begun => Event::Begun(Arc::clone(&self.terms)),
            Entry::CommitDecided(knowns) => Event::Decided {
                decision: Decision::Commit,
                branches: branches(knowns),
            },
            Entry::AbortDecided(why, knowns) => Event::Decided {
                decision: Decision::Abort(outcome(reason(why))),
                branches: branches(knowns),
            },
            Entry::Ended(knowns) => Event::Ended {
                branches: branches(knowns),
            },
            Entry::Disputed(knowns) => Event::Disputed {
                outcome: outcome(Reason::HeuristicAbort),
                branches: branches(knowns),
            },
        };
        Record {
            at_ms: IN_TIME_MS,
            event,
        }
    }
}

fn now_ms(late: bool) -> i64 {
    if late { LATE_MS } else { IN_TIME_MS }
}

/// A step in its small form.
pub fn fold_up_step(before: &State, step: &protocol::Step, first: &State, after: &State, late: bool) -> Step {
    let attempts = |state: &State| -> Vec<u32> {
        match state {
            State::Absent => vec![],
            State::Present(transaction) => transaction.branches.iter().map(|branch| branch.attempt).collect(),
        }
    };
    let (old, new) = (attempts(before), attempts(after));
    let mut renewed = [false; BRANCHES_MAX];
    for (at, attempt) in new.iter().enumerate() {
        renewed[at] = old.get(at).copied().unwrap_or_default() != *attempt;
    }
    let mut effects = [None; EFFECTS_MAX];
    for (slot, effect) in effects.iter_mut().zip(&step.effects) {
        let Effect::Send {
            branch,
            command,
            attempt,
        } = *effect;
        *slot = Some(Send {
            branch: branch.index(),
            command,
            current: new[branch.index()] == attempt,
        });
    }
    assert!(step.effects.len() <= EFFECTS_MAX, "{:?}", step.effects);
    let kept = |record: &&Record| record.event.durability() > Durability::Volatile;
    let durable = Records::of(step.records.iter().filter(kept).map(|record| entry(&record.event)));
    let asks_to_hold = effects.iter().flatten().any(|send| send.command == Command::Prepare);
    Step {
        durable,
        forced: step
            .records
            .iter()
            .any(|record| record.event.durability() == Durability::Forced),
        after: fold_up(after),
        after_first: fold_up(first),
        effects,
        renewed,
        impossible: false,
        too_late: late && (asks_to_hold || durable.commits() == Some(true)),
    }
}

/// A state in its small form.
pub fn fold_up(state: &State) -> Core {
    let State::Present(transaction) = state else {
        return Core::default();
    };
    let mut core = Core {
        phase: match &transaction.phase {
            protocol::Phase::Preparing => Phase::Preparing,
            protocol::Phase::Committing { .. } => Phase::Committing,
            protocol::Phase::Completed { .. } => Phase::Completed,
            protocol::Phase::Aborting { .. } => Phase::Aborting,
            protocol::Phase::Aborted { .. } => Phase::Aborted,
            protocol::Phase::Disputed {
                decision: Decision::Commit,
                ..
            } => Phase::DisputedCommit,
            protocol::Phase::Disputed {
                decision: Decision::Abort(_),
                ..
            } => Phase::DisputedAbort,
        },
        version: transaction.version.try_into().expect("a history has few records"),
        ..Core::default()
    };
    for (at, branch) in transaction.branches.iter().enumerate() {
        core.known[at] = known(&branch.knowledge);
        core.under_way[at] = match branch.delivery {
            Delivery::Idle => UnderWay::Nothing,
            Delivery::InFlight(command) => UnderWay::Sent(command),
            Delivery::Waiting { .. } => UnderWay::Waiting,
        };
    }
    core
}

pub fn entry(event: &Event) -> Entry {
    let knowns = |branches: &[Knowledge]| {
        let mut knowns = Knowns::default();
        for (slot, knowledge) in knowns.iter_mut().zip(branches) {
            *slot = known(knowledge);
        }
        knowns
    };
    match event {
        Event::Begun(_) => Entry::Begun,
        Event::Decided {
            decision: Decision::Commit,
            branches,
        } => Entry::CommitDecided(knowns(branches)),
        Event::Decided {
            decision: Decision::Abort(outcome),
            branches,
        } => Entry::AbortDecided(why(outcome.reason), knowns(branches)),
        Event::Ended { branches } => Entry::Ended(knowns(branches)),
        Event::Disputed { branches, .. } => Entry::Disputed(knowns(branches)),
        Event::Learned { .. } | Event::Asked { .. } | Event::Postponed { .. } => {
            unreachable!("{} is never written", event.name())
        }
    }
}

fn known(knowledge: &Knowledge) -> Known {
    match knowledge {
        Knowledge::Unknown => Known::Unknown,
        Knowledge::Prepared { .. } => Known::Prepared,
        Knowledge::Refused => Known::Refused,
        Knowledge::Committed { .. } => Known::Committed,
        Knowledge::Aborted => Known::Aborted,
        Knowledge::Contradicted => Known::Contradicted,
    }
}

fn knowledge(known: Known) -> Knowledge {
    match known {
        Known::Unknown => Knowledge::Unknown,
        Known::Prepared => Knowledge::Prepared { reference: "r".into() },
        Known::Refused => Knowledge::Refused,
        Known::Committed => Knowledge::Committed { reference: "r".into() },
        Known::Aborted => Knowledge::Aborted,
        Known::Contradicted => Knowledge::Contradicted,
    }
}

pub fn answer(said: Said) -> Answer {
    match said {
        Said::Reply(Reply::Prepared) => Answer::Prepared { reference: "r".into() },
        Said::Reply(Reply::Refused) => Answer::Refused(outcome(Reason::InsufficientFunds)),
        Said::Reply(Reply::Committed) => Answer::Committed { reference: "r".into() },
        Said::Reply(Reply::Aborted) => Answer::Aborted,
        Said::Reply(Reply::Missing) => Answer::Missing,
        Said::Unknown => Answer::Unknown { cause: "lost".into() },
        Said::Rejected => Answer::Rejected { cause: "no".into() },
    }
}

fn reason(why: Why) -> Reason {
    match why {
        Why::Refused => Reason::InsufficientFunds,
        Why::TimedOut => Reason::VotingTimedOut,
        Why::Cancelled => Reason::Cancelled,
        Why::Rejected => Reason::PartnerError,
        Why::RemembersAbort => Reason::PreparedAfterAbort,
        Why::MovedBefore => Reason::HeuristicCommit,
    }
}

fn why(reason: Reason) -> Why {
    match reason {
        Reason::VotingTimedOut => Why::TimedOut,
        Reason::Cancelled => Why::Cancelled,
        Reason::PartnerError => Why::Rejected,
        Reason::PreparedAfterAbort => Why::RemembersAbort,
        Reason::HeuristicCommit | Reason::HeuristicAbort => Why::MovedBefore,
        Reason::InsufficientFunds
        | Reason::AccountUnknown
        | Reason::AccountClosed
        | Reason::TransactionForbidden
        | Reason::AmountOverLimit
        | Reason::RefusedByPartner => Why::Refused,
    }
}

pub fn outcome(reason: Reason) -> Outcome {
    Outcome::new(reason, "", None)
}

fn terms(branches: usize) -> Arc<Terms> {
    let party = |partner: &str, account: &str| Party {
        partner: PartnerName::parse(partner).expect("a good name"),
        account: AccountId::parse(account).expect("a good account"),
    };
    let (source, target) = (Currency::USD, Currency::CNY);
    let order = Order {
        request_id: RequestId::parse("r-1").expect("a good id"),
        payer: party("apple-pay", "alice"),
        payee: party("alipay", "bob"),
        pricing: OrderPricing::Quote(QuoteId::from_random([7; 16])),
    };
    let pricing = Pricing {
        mid: Rate::parse(source, target, "6.1").expect("a good rate"),
        margin: Margin::ZERO,
        fee: Amount::zero(source),
    };
    let send = Amount::parse(source, "100.00").expect("a good amount");
    let conversion = Conversion::fixed_send(send, &pricing).expect("a good price");
    let mut legs = Terms::legs(&order, &conversion);
    legs.push(Branch {
        id: BranchId::LIQUIDITY,
        party: party("treasury", "cny"),
        direction: Direction::Debit,
        amount: conversion.receive,
    });
    legs.truncate(branches);
    let initiator = order.payer.partner.clone();
    Arc::new(Terms {
        id: PaymentId::derive(&initiator, &order.request_id),
        initiator,
        branches: legs,
        order,
        conversion,
        origin: RateOrigin {
            source: "test".into(),
            date: "2014-10-28".into(),
        },
        begin_ms: BEGIN_MS,
        decide_by_ms: DECIDE_BY_MS,
        hold_expire_ms: DECIDE_BY_MS + 600_000,
    })
}
