use std::{collections::BTreeSet, sync::Arc};

use super::*;
use crate::{
    money::{Conversion, Currency, Margin, Pricing, Rate},
    payment::{
        AccountId, BranchId, MarketOrder, Order, OrderPricing, Outcome, PartnerName, Party, PaymentId, RateOrigin,
        Reason, RequestId, Terms,
    },
};

const BEGIN_MS: i64 = 1_000;
const DECIDE_BY_MS: i64 = 9_000;
const DEBIT: BranchId = BranchId::DEBIT;
const CREDIT: BranchId = BranchId::CREDIT;

fn terms() -> Arc<Terms> {
    terms_between("r-1", BEGIN_MS, DECIDE_BY_MS)
}

/// Terms that begin at this instant and can be decided for a minute.
pub(crate) fn test_terms(begin_ms: i64) -> Arc<Terms> {
    test_terms_of("r-1", begin_ms)
}

/// The same of another request.
pub(crate) fn test_terms_of(request_id: &str, begin_ms: i64) -> Arc<Terms> {
    terms_between(request_id, begin_ms, begin_ms + 60_000)
}

fn terms_between(request_id: &str, begin_ms: i64, decide_by_ms: i64) -> Arc<Terms> {
    let party = |partner: &str, account: &str| Party {
        partner: PartnerName::parse(partner).unwrap(),
        account: AccountId::parse(account).unwrap(),
    };
    let rate = Rate::parse(Currency::USD, Currency::CNY, "6.1").unwrap();
    let amount = crate::money::Amount::parse(Currency::USD, "10.00").unwrap();
    let order = Order {
        request_id: RequestId::parse(request_id).unwrap(),
        payer: party("apple-pay", "alice"),
        payee: party("alipay", "bob"),
        pricing: OrderPricing::Market(MarketOrder {
            fixed_send: true,
            amount,
            worst_rate: rate,
        }),
    };
    let pricing = Pricing {
        mid: rate,
        margin: Margin::ZERO,
        fee: crate::money::Amount::zero(Currency::USD),
    };
    let conversion = Conversion::fixed_send(amount, &pricing).unwrap();
    let initiator = order.payer.partner.clone();
    Arc::new(Terms {
        id: PaymentId::derive(&initiator, &order.request_id),
        initiator,
        branches: Terms::legs(&order, &conversion),
        order,
        conversion,
        origin: RateOrigin {
            source: "test".into(),
            date: "2014-10-28".into(),
        },
        begin_ms,
        decide_by_ms,
        hold_expire_ms: decide_by_ms + 60_000,
    })
}

/// A transaction on its way, with what it has asked for so far.
struct Bench {
    policy: Policy,
    state: State,
    now_ms: i64,
    sent: Vec<(BranchId, Command, u32)>,
    events: Vec<&'static str>,
}

impl Bench {
    fn begun() -> Self {
        let policy = Policy {
            jitter_percent: 0,
            ..Policy::default()
        };
        let mut bench = Self {
            policy,
            state: State::Absent,
            now_ms: BEGIN_MS,
            sent: Vec::new(),
            events: Vec::new(),
        };
        bench.input(Input::Begin(terms()));
        bench
    }

    fn committing() -> Self {
        let mut bench = Self::begun();
        bench.answer(DEBIT, prepared());
        bench.answer(CREDIT, prepared());
        bench
    }

    fn aborting() -> Self {
        let mut bench = Self::begun();
        bench.input(Input::Cancel(Outcome::new(Reason::Cancelled, "", None)));
        bench
    }

    fn input(&mut self, input: Input) -> &mut Self {
        let step = decide(&self.policy, &self.state, input, self.now_ms);
        for record in &step.records {
            self.state = apply(std::mem::take(&mut self.state), record);
            if record.event.durability() > Durability::Volatile {
                self.events.push(record.event.name());
            }
        }
        self.sent.clear();
        self.sent.extend(step.effects.iter().map(
            |Effect::Send {
                 branch,
                 command,
                 attempt,
             }| { (*branch, *command, *attempt) },
        ));
        self
    }

    /// The answer to the command in flight.
    fn answer(&mut self, branch: BranchId, answer: Answer) -> &mut Self {
        let attempt = self.transaction().branch(branch).attempt;
        self.input(Input::Answer {
            branch,
            attempt,
            answer,
        })
    }

    /// An answer to a command that another has replaced.
    fn stale(&mut self, branch: BranchId, answer: Answer) -> &mut Self {
        let attempt = self.transaction().branch(branch).attempt - 1;
        self.input(Input::Answer {
            branch,
            attempt,
            answer,
        })
    }

    fn wake_at(&mut self, now_ms: i64) -> &mut Self {
        self.now_ms = now_ms;
        self.input(Input::Wake)
    }

    fn transaction(&self) -> &Transaction {
        let State::Present(transaction) = &self.state else {
            panic!("absent")
        };
        transaction
    }

    fn phase(&self) -> &'static str {
        self.transaction().phase.name()
    }

    fn commands(&self) -> Vec<(&'static str, Command)> {
        self.sent
            .iter()
            .map(|(branch, command, _)| (branch.name(), *command))
            .collect()
    }
}

fn prepared() -> Answer {
    Answer::Prepared { reference: "h".into() }
}

fn committed() -> Answer {
    Answer::Committed { reference: "m".into() }
}

fn refused() -> Answer {
    Answer::Refused(Outcome::new(Reason::InsufficientFunds, "", None))
}

fn unknown() -> Answer {
    Answer::Unknown { cause: "lost".into() }
}

fn rejected() -> Answer {
    Answer::Rejected {
        cause: "no such method".into(),
    }
}

fn every_answer() -> [Answer; 7] {
    [
        prepared(),
        refused(),
        committed(),
        Answer::Aborted,
        Answer::Missing,
        unknown(),
        rejected(),
    ]
}

#[test]
fn all_yes_commits_and_all_acknowledged_completes() {
    let mut bench = Bench::begun();
    assert_eq!(
        bench.commands(),
        [("debit", Command::Prepare), ("credit", Command::Prepare)]
    );
    bench.answer(DEBIT, prepared());
    assert_eq!((bench.phase(), bench.commands().len()), ("PREPARING", 0));
    bench.answer(CREDIT, prepared());
    assert_eq!(
        bench.commands(),
        [("debit", Command::Commit), ("credit", Command::Commit)]
    );
    bench.answer(CREDIT, committed());
    assert_eq!(bench.phase(), "COMMITTING");
    bench.answer(DEBIT, committed());
    assert_eq!(bench.phase(), "COMPLETED");
    assert_eq!(bench.events, ["begun", "commit decided", "ended"]);
    assert_eq!(bench.transaction().version, 3);
    assert_eq!(wake_at(&bench.state), None);
}

#[test]
fn one_no_aborts_and_only_the_others_are_told() {
    let mut bench = Bench::begun();
    bench.answer(DEBIT, refused());
    assert_eq!(bench.phase(), "ABORTING");
    // The refuser holds nothing and remembers it.
    assert_eq!(bench.commands(), [("credit", Command::Abort)]);
    // Its Prepare was in flight; the late yes must not stop the abort.
    bench.stale(CREDIT, prepared());
    assert_eq!((bench.phase(), bench.commands().len()), ("ABORTING", 0));
    bench.answer(CREDIT, Answer::Aborted);
    assert_eq!(bench.phase(), "ABORTED");
    assert_eq!(bench.events, ["begun", "abort decided", "ended"]);
}

#[test]
fn votes_that_come_too_late_do_not_commit() {
    let mut bench = Bench::begun();
    bench.answer(DEBIT, prepared());
    bench.now_ms = DECIDE_BY_MS + 1;
    bench.answer(CREDIT, prepared());
    assert_eq!(bench.phase(), "ABORTING");
    assert_eq!(
        bench.commands(),
        [("debit", Command::Abort), ("credit", Command::Abort)]
    );

    let mut bench = Bench::begun();
    bench.answer(DEBIT, prepared());
    bench.now_ms = DECIDE_BY_MS;
    bench.answer(CREDIT, prepared());
    assert_eq!(bench.phase(), "COMMITTING", "the last instant counts");
}

#[test]
fn time_alone_aborts_and_names_who_was_waited_for() {
    let mut bench = Bench::begun();
    bench.answer(DEBIT, prepared());
    assert_eq!(wake_at(&bench.state), Some(DECIDE_BY_MS + 1));
    bench.wake_at(DECIDE_BY_MS);
    assert_eq!(bench.phase(), "PREPARING");
    bench.wake_at(DECIDE_BY_MS + 1);
    let Phase::Aborting { outcome, .. } = &bench.transaction().phase else {
        panic!("{}", bench.phase())
    };
    assert_eq!(outcome.reason, Reason::VotingTimedOut);
    assert_eq!(outcome.partner.as_ref().unwrap().as_str(), "alipay");
    assert!(
        outcome.detail.contains("alipay (credit): no answer"),
        "{}",
        outcome.detail
    );
}

#[test]
fn no_prepare_leaves_after_the_time_to_decide() {
    // Promise 9, wherever a Prepare could come from: a late beginning, a recovery, an inquiry that found nothing.
    let mut late = Bench::begun();
    late.state = State::Absent;
    late.now_ms = DECIDE_BY_MS + 1;
    late.input(Input::Begin(terms()));
    assert!(
        late.sent.iter().all(|(_, command, _)| *command == Command::Abort),
        "{:?}",
        late.sent
    );

    let mut recovered = Bench::begun();
    recovered.now_ms = DECIDE_BY_MS + 1;
    recovered.input(Input::Recover);
    assert_eq!(
        recovered.commands(),
        [("debit", Command::Abort), ("credit", Command::Abort)]
    );

    let mut missing = Bench::begun();
    missing.answer(DEBIT, unknown());
    let due_ms = wake_at(&missing.state).unwrap();
    missing.wake_at(due_ms);
    assert_eq!(missing.commands(), [("debit", Command::Inquire)]);
    missing.now_ms = DECIDE_BY_MS + 1;
    missing.answer(DEBIT, Answer::Missing);
    assert_eq!(
        missing.commands(),
        [("debit", Command::Abort), ("credit", Command::Abort)]
    );
}

#[test]
fn an_unknown_vote_is_inquired_and_sent_again() {
    let mut bench = Bench::begun();
    bench.answer(DEBIT, unknown());
    assert_eq!((bench.phase(), bench.commands().len()), ("PREPARING", 0));
    assert_eq!(wake_at(&bench.state), Some(BEGIN_MS + 200));
    bench.wake_at(BEGIN_MS + 199);
    assert_eq!(bench.commands(), []);
    bench.wake_at(BEGIN_MS + 200);
    assert_eq!(bench.commands(), [("debit", Command::Inquire)]);
    // The Prepare never arrived: the same one again.
    bench.answer(DEBIT, Answer::Missing);
    assert_eq!(bench.commands(), [("debit", Command::Prepare)]);
    // It did arrive, and its answer was lost: the inquiry is the vote.
    bench.answer(DEBIT, unknown());
    let due_ms = wake_at(&bench.state).unwrap();
    assert_eq!(
        due_ms,
        BEGIN_MS + 200 + 400,
        "the ladder's second rung: nothing was learned in between"
    );
    bench.wake_at(due_ms);
    bench.answer(DEBIT, prepared());
    bench.answer(CREDIT, prepared());
    assert_eq!(bench.phase(), "COMMITTING");
}

#[test]
fn a_partner_that_rejects_the_call_aborts_at_once() {
    let mut bench = Bench::begun();
    bench.answer(CREDIT, rejected());
    assert_eq!(bench.phase(), "ABORTING");
    // Nothing is known of the branch: it is told as well.
    assert_eq!(
        bench.commands(),
        [("debit", Command::Abort), ("credit", Command::Abort)]
    );
}

#[test]
fn a_late_prepare_that_meets_a_tombstone_aborts() {
    let mut bench = Bench::begun();
    bench.answer(CREDIT, Answer::Aborted);
    let Phase::Aborting { outcome, .. } = &bench.transaction().phase else {
        panic!("{}", bench.phase())
    };
    assert_eq!(outcome.reason, Reason::PreparedAfterAbort);
    assert_eq!(bench.commands(), [("debit", Command::Abort)]);
}

#[test]
fn money_that_moves_before_the_decision_is_disputed() {
    let mut bench = Bench::begun();
    bench.answer(DEBIT, committed());
    assert_eq!(bench.phase(), "DISPUTED");
    assert_eq!(bench.events, ["begun", "abort decided", "disputed"]);
    assert_eq!(bench.commands(), [("credit", Command::Abort)]);
    assert!(!bench.transaction().is_quiet(), "the other branch is still to be told");
    bench.answer(CREDIT, Answer::Aborted);
    assert_eq!(bench.phase(), "DISPUTED");
    assert!(bench.transaction().is_quiet());
    // What the other branch did outlives the process.
    assert_eq!(bench.events, ["begun", "abort decided", "disputed", "disputed"]);
}

#[test]
fn cancel_is_for_what_is_not_decided() {
    let mut bench = Bench::aborting();
    assert_eq!(bench.phase(), "ABORTING");
    let before = bench.state.clone();
    bench.input(Input::Cancel(Outcome::new(Reason::Cancelled, "again", None)));
    assert_eq!(bench.state, before);

    let mut bench = Bench::committing();
    bench.input(Input::Cancel(Outcome::new(Reason::Cancelled, "", None)));
    assert_eq!((bench.phase(), bench.commands().len()), ("COMMITTING", 0));
}

#[test]
fn the_decision_is_delivered_up_the_ladder_for_ever() {
    let mut bench = Bench::committing();
    let mut waits_ms = Vec::new();
    for _ in 0..10 {
        bench.answer(DEBIT, unknown());
        let due_ms = wake_at(&bench.state).unwrap();
        waits_ms.push(due_ms - bench.now_ms);
        bench.wake_at(due_ms);
        assert_eq!(bench.commands(), [("debit", Command::Inquire)]);
    }
    assert_eq!(
        waits_ms,
        [
            4_000, 4_000, 30_000, 60_000, 60_000, 60_000, 300_000, 300_000, 300_000, 300_000
        ],
        "as rails have it, then the last rung again and again"
    );
    // The inquiry finds the hold waiting: the Commit goes out again.
    bench.answer(DEBIT, prepared());
    assert_eq!(bench.commands(), [("debit", Command::Commit)]);
    bench.answer(DEBIT, committed());
    bench.answer(CREDIT, committed());
    assert_eq!(bench.phase(), "COMPLETED");
}

#[test]
fn jitter_stays_within_its_reach_and_spreads() {
    let policy = Policy {
        jitter_percent: 20,
        ..Policy::default()
    };
    let mut seen = BTreeSet::new();
    for salt in 0..1_000 {
        let id = terms().id;
        let delay_ms = Policy::delay_ms(&policy.delivery_ladder_ms, policy.jitter_percent, id, salt, 3);
        assert!((24_000..=36_000).contains(&delay_ms), "{delay_ms}");
        seen.insert(delay_ms / 1_000);
    }
    assert_eq!(seen.len(), 12, "every second of the reach is met: {seen:?}");
}

#[test]
fn after_a_restart_the_same_step_is_taken_again() {
    let mut preparing = Bench::begun();
    preparing.answer(DEBIT, prepared());
    preparing.input(Input::Recover);
    assert_eq!(
        preparing.commands(),
        [("debit", Command::Prepare), ("credit", Command::Prepare)]
    );

    // As the store has it: the durable records alone.
    let durable = |bench: &Bench| {
        let transaction = bench.transaction();
        let begun = Record {
            at_ms: BEGIN_MS,
            event: Event::Begun(Arc::clone(&transaction.terms)),
        };
        let decided = Record {
            at_ms: BEGIN_MS,
            event: Event::Decided {
                decision: transaction.decision().unwrap(),
                branches: transaction.knowledge(),
            },
        };
        fold([&begun, &decided]).unwrap()
    };
    let mut committing = Bench::committing();
    committing.state = durable(&committing);
    committing.input(Input::Recover);
    assert_eq!(
        committing.commands(),
        [("debit", Command::Commit), ("credit", Command::Commit)]
    );

    let mut aborting = Bench::aborting();
    aborting.state = durable(&aborting);
    aborting.input(Input::Recover);
    assert_eq!(
        aborting.commands(),
        [("debit", Command::Abort), ("credit", Command::Abort)]
    );
}

/// What each answer to the decision itself, and to an inquiry after it, leads to: phase, and command sent.
#[test]
fn every_answer_after_the_decision_has_its_place() {
    type Row = (Answer, &'static str, Option<Command>);
    let check = |start: fn() -> Bench, inquire: bool, rows: [Row; 7]| {
        for (answer, phase, command) in rows {
            let mut bench = start();
            if inquire {
                bench.answer(DEBIT, unknown());
                let due_ms = wake_at(&bench.state).unwrap();
                bench.wake_at(due_ms);
            }
            bench.answer(DEBIT, answer.clone());
            let sent: Vec<_> = bench
                .commands()
                .into_iter()
                .map(|(branch, command)| {
                    assert_eq!(branch, "debit");
                    command
                })
                .collect();
            assert_eq!(
                (bench.phase(), sent),
                (phase, command.into_iter().collect()),
                "{answer:?} inquire={inquire}"
            );
        }
    };
    check(
        Bench::committing,
        false,
        [
            (prepared(), "COMMITTING", None),
            (refused(), "DISPUTED", None),
            (committed(), "COMMITTING", None),
            (Answer::Aborted, "DISPUTED", None),
            (Answer::Missing, "DISPUTED", None),
            (unknown(), "COMMITTING", None),
            (rejected(), "COMMITTING", None),
        ],
    );
    check(
        Bench::committing,
        true,
        [
            (prepared(), "COMMITTING", Some(Command::Commit)),
            (refused(), "DISPUTED", None),
            (committed(), "COMMITTING", None),
            (Answer::Aborted, "DISPUTED", None),
            (Answer::Missing, "DISPUTED", None),
            (unknown(), "COMMITTING", None),
            (rejected(), "COMMITTING", None),
        ],
    );
    check(
        Bench::aborting,
        false,
        [
            (prepared(), "ABORTING", None),
            (refused(), "ABORTING", None),
            (committed(), "DISPUTED", None),
            (Answer::Aborted, "ABORTING", None),
            (Answer::Missing, "ABORTING", None),
            (unknown(), "ABORTING", None),
            (rejected(), "ABORTING", None),
        ],
    );
    check(
        Bench::aborting,
        true,
        [
            (prepared(), "ABORTING", Some(Command::Abort)),
            (refused(), "ABORTING", None),
            (committed(), "DISPUTED", None),
            (Answer::Aborted, "ABORTING", None),
            (Answer::Missing, "ABORTING", Some(Command::Abort)),
            (unknown(), "ABORTING", None),
            (rejected(), "ABORTING", None),
        ],
    );
}

#[test]
fn answers_of_replaced_attempts_settle_nothing_but_what_cannot_be_undone() {
    for answer in every_answer() {
        let mut bench = Bench::committing();
        bench.stale(DEBIT, answer.clone());
        let settled = bench.transaction().branch(DEBIT).knowledge.settles(&Decision::Commit);
        assert_eq!(settled, matches!(answer, Answer::Committed { .. }), "{answer:?}");
        assert_eq!(bench.phase(), "COMMITTING", "{answer:?}");
    }
    for answer in every_answer() {
        let mut bench = Bench::aborting();
        bench.stale(DEBIT, answer.clone());
        let disputed = matches!(answer, Answer::Committed { .. });
        assert_eq!(bench.phase() == "DISPUTED", disputed, "{answer:?}");
    }
}

#[test]
fn the_end_is_the_end() {
    let mut completed = Bench::committing();
    completed.answer(DEBIT, committed()).answer(CREDIT, committed());
    let mut aborted = Bench::aborting();
    aborted.answer(DEBIT, Answer::Aborted).answer(CREDIT, Answer::Aborted);
    for mut bench in [completed, aborted] {
        let before = bench.state.clone();
        for answer in every_answer() {
            bench.answer(DEBIT, answer);
        }
        bench
            .input(Input::Recover)
            .input(Input::Begin(terms()))
            .wake_at(i64::MAX);
        assert_eq!(bench.state, before);
        assert_eq!(bench.commands(), []);
    }
}

#[test]
fn nothing_is_done_about_what_never_began() {
    let policy = Policy::default();
    for answer in every_answer() {
        let step = decide(
            &policy,
            &State::Absent,
            Input::Answer {
                branch: DEBIT,
                attempt: 1,
                answer,
            },
            BEGIN_MS,
        );
        assert!(step.records.is_empty() && step.effects.is_empty());
    }
    for input in [Input::Wake, Input::Recover] {
        let step = decide(&policy, &State::Absent, input, BEGIN_MS);
        assert!(step.records.is_empty() && step.effects.is_empty());
    }
}

/// Records of unknown origin are refused where a promise would break.
#[test]
fn impossible_histories_do_not_fold() {
    let terms = terms();
    let at = |at_ms, event| Record { at_ms, event };
    let begun = || at(BEGIN_MS, Event::Begun(terms.clone()));
    let yes = || Knowledge::Prepared { reference: "".into() };
    let done = || Knowledge::Committed { reference: "".into() };
    let abort = || Decision::Abort(Outcome::new(Reason::Cancelled, "", None));
    let decided = |at_ms, decision, branches: [Knowledge; 2]| {
        at(
            at_ms,
            Event::Decided {
                decision,
                branches: branches.to_vec(),
            },
        )
    };
    let ended = |branches: [Knowledge; 2]| {
        at(
            BEGIN_MS,
            Event::Ended {
                branches: branches.to_vec(),
            },
        )
    };
    let commit = || decided(BEGIN_MS, Decision::Commit, [yes(), yes()]);

    assert!(fold(&[begun(), commit(), ended([done(), done()])]).is_ok());
    for (histories, expected) in [
        (vec![commit()], "begun"),
        (vec![begun(), begun()], "no second beginning"),
        (vec![begun(), ended([done(), done()])], "a decision first"),
        (
            vec![
                begun(),
                decided(BEGIN_MS, Decision::Commit, [yes(), Knowledge::Unknown]),
            ],
            "a yes of every branch before commit",
        ),
        (
            vec![begun(), decided(DECIDE_BY_MS + 1, Decision::Commit, [yes(), yes()])],
            "a commit no later than decide_by",
        ),
        (vec![begun(), commit(), commit()], "no second decision"),
        (
            vec![begun(), commit(), decided(BEGIN_MS, abort(), [yes(), yes()])],
            "no second decision",
        ),
        (
            vec![begun(), decided(BEGIN_MS, abort(), [yes(), yes()]), commit()],
            "no second decision",
        ),
        (
            vec![begun(), commit(), ended([done(), yes()])],
            "every branch committed before the end",
        ),
        (
            vec![
                begun(),
                decided(BEGIN_MS, abort(), [yes(), yes()]),
                ended([Knowledge::Aborted, yes()]),
            ],
            "every branch released before the end",
        ),
        (
            vec![begun(), commit(), ended([done(), done()]), ended([done(), done()])],
            "nothing after the end",
        ),
        (
            vec![
                begun(),
                at(
                    BEGIN_MS,
                    Event::Decided {
                        decision: Decision::Commit,
                        branches: vec![yes()],
                    },
                ),
            ],
            "as many branches as began",
        ),
    ] {
        assert_eq!(fold(&histories).unwrap_err().expected, expected);
    }
}

/// A list goes on after the last payment's beginning: it must be the same before and after the store.
#[test]
fn a_beginning_is_of_the_same_instant_however_late_it_is_taken_up() {
    let policy = Policy::default();
    let step = decide(&policy, &State::Absent, Input::Begin(terms()), BEGIN_MS + 7);
    assert_eq!(step.records[0].at_ms, BEGIN_MS);
}

#[test]
fn a_clock_that_is_put_back_does_not_put_a_payment_to_sleep() {
    let day_ms = 86_400_000;
    let mut bench = Bench::committing();
    // The clock is a day ahead when the answer is lost, and right again afterwards.
    bench.now_ms = BEGIN_MS + day_ms;
    bench.answer(DEBIT, unknown());
    assert_eq!(bench.commands(), []);
    bench.wake_at(BEGIN_MS + 10);
    assert_eq!(bench.commands(), [("debit", Command::Inquire)]);
    // A wait that is just long is waited out.
    for _ in 0..9 {
        bench.answer(DEBIT, unknown());
        let due_ms = wake_at(&bench.state).unwrap();
        bench.wake_at(due_ms);
    }
    bench.answer(DEBIT, unknown());
    let due_ms = wake_at(&bench.state).unwrap();
    bench.wake_at(due_ms - 1);
    assert_eq!(bench.commands(), []);
}
