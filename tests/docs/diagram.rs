//! The state diagram of docs/protocol.md is drawn from the code: every small sequence of inputs is tried on the real
//! `decide` and `apply`, and each change of phase that is met becomes an arrow.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs,
    sync::Arc,
};

use causeway::{
    coordinator::protocol::{
        Answer, Command, Delivery, Durability, Event, Input, Knowledge, Policy, Record, State, apply, decide, fold,
    },
    money::{Amount, Conversion, Currency, Margin, Pricing, Rate},
    payment::{
        AccountId, BranchId, Order, OrderPricing, Outcome, PartnerName, Party, PaymentId, QuoteId, RateOrigin, Reason,
        RequestId, Terms,
    },
};

use super::{between, read, root};

const PAGE: &str = "docs/protocol.md";
const START: &str = "<!-- diagram: drawn by tests/docs/diagram.rs; UPDATE_DOCS=1 cargo test --test docs -->\n";
const END: &str = "<!-- /diagram -->";

const BEGIN_MS: i64 = 1_000_000;
const DECIDE_BY_MS: i64 = BEGIN_MS + 15_000;
/// The instants at which inputs come: in time to vote, too late to vote, and after every wait is over.
const INSTANTS_MS: [i64; 3] = [BEGIN_MS, DECIDE_BY_MS + 1, DECIDE_BY_MS + 86_400_000];
/// Every state, and the start.
const ALL: [&str; 7] = [
    "[*]",
    "PREPARING",
    "COMMITTING",
    "COMPLETED",
    "ABORTING",
    "ABORTED",
    "DISPUTED",
];
/// A cause that is no input.
const LATE: &str = "decide_by passed";

fn terms() -> Arc<Terms> {
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
        begin_ms: BEGIN_MS,
        decide_by_ms: DECIDE_BY_MS,
        hold_expire_ms: DECIDE_BY_MS + 600_000,
    })
}

/// A place in the search: what the driver holds in memory, and what it has written.
#[derive(Clone)]
struct Place {
    state: State,
    written: Vec<Record>,
    instant: usize,
}

/// What makes two places the same for what can follow; counters and words are left out.
type Key = (String, usize, Vec<(u8, u8, bool)>, Vec<&'static str>);

impl Place {
    fn key(&self) -> Key {
        let now_ms = INSTANTS_MS[self.instant];
        let branches = match &self.state {
            State::Absent => Vec::new(),
            State::Present(transaction) => transaction
                .branches
                .iter()
                .map(|branch| {
                    let (delivery, due) = delivery(branch.delivery, now_ms);
                    (knowledge(&branch.knowledge), delivery, due)
                })
                .collect(),
        };
        let written = self.written.iter().map(|record| record.event.name()).collect();
        (phase(&self.state).to_owned(), self.instant, branches, written)
    }
}

fn phase(state: &State) -> &'static str {
    match state {
        State::Absent => "[*]",
        State::Present(transaction) => transaction.phase.name(),
    }
}

fn knowledge(knowledge: &Knowledge) -> u8 {
    match knowledge {
        Knowledge::Unknown => 0,
        Knowledge::Prepared { .. } => 1,
        Knowledge::Refused => 2,
        Knowledge::Committed { .. } => 3,
        Knowledge::Aborted => 4,
        Knowledge::Contradicted => 5,
    }
}

fn delivery(delivery: Delivery, now_ms: i64) -> (u8, bool) {
    match delivery {
        Delivery::Idle => (0, false),
        Delivery::InFlight(Command::Prepare) => (1, false),
        Delivery::InFlight(Command::Commit) => (2, false),
        Delivery::InFlight(Command::Abort) => (3, false),
        Delivery::InFlight(Command::Inquire) => (4, false),
        Delivery::Waiting { until_ms } => (5, until_ms <= now_ms),
    }
}

fn answers() -> Vec<(&'static str, Answer)> {
    let partner = PartnerName::parse("alipay").expect("a good name");
    let refusal = Outcome::new(Reason::InsufficientFunds, "no funds", Some(&partner));
    vec![
        ("prepared", Answer::Prepared { reference: "h".into() }),
        ("refused", Answer::Refused(refusal)),
        ("committed", Answer::Committed { reference: "h".into() }),
        ("aborted", Answer::Aborted),
        ("missing", Answer::Missing),
        ("unknown", Answer::Unknown { cause: "lost".into() }),
        ("rejected", Answer::Rejected { cause: "no".into() }),
    ]
}

/// Every input that can come now, with its name.
fn inputs(state: &State) -> Vec<(&'static str, Input)> {
    let State::Present(transaction) = state else {
        return vec![("begin", Input::Begin(terms()))];
    };
    let cancelled = Outcome::new(Reason::Cancelled, "cancelled", None);
    let mut inputs = vec![
        ("begin", Input::Begin(terms())),
        ("wake", Input::Wake),
        ("cancel", Input::Cancel(cancelled)),
        ("recover", Input::Recover),
    ];
    for branch in [BranchId::DEBIT, BranchId::CREDIT] {
        let current = transaction.branch(branch).attempt;
        // Of the attempt that is in flight, and of one that another has replaced.
        for attempt in [current, current.wrapping_sub(1)] {
            inputs.extend(answers().into_iter().map(|(name, answer)| {
                let input = Input::Answer {
                    branch,
                    attempt,
                    answer,
                };
                (name, input)
            }));
        }
    }
    inputs
}

/// From phase, event, to phase: and the inputs that did it.
type Edges = BTreeMap<(&'static str, &'static str, &'static str), BTreeSet<&'static str>>;

/// Takes one input at one instant, as the driver does, and notes each change of phase.
fn step(policy: &Policy, place: &Place, name: &'static str, input: Input, instant: usize, edges: &mut Edges) -> Place {
    let mut next = place.clone();
    next.instant = instant;
    if matches!(input, Input::Recover) {
        // A restart: what was not written is forgotten.
        next.state = fold(&next.written).expect("what was written can be read");
    }
    let now_ms = INSTANTS_MS[instant];
    for record in decide(policy, &next.state, input, now_ms).records {
        let from = phase(&next.state);
        next.state = apply(next.state, &record);
        let durable = record.event.durability() > Durability::Volatile;
        if durable {
            let late = matches!(&record.event, Event::Decided { decision, .. }
                if matches!(decision, causeway::coordinator::protocol::Decision::Abort(outcome)
                    if outcome.reason == Reason::VotingTimedOut));
            let cause = if late { LATE } else { name };
            let edge = (from, record.event.name(), phase(&next.state));
            edges.entry(edge).or_default().insert(cause);
            next.written.push(record);
        } else {
            assert_eq!(from, phase(&next.state), "a change of phase that is not written");
        }
    }
    next
}

/// Every change of phase that any sequence of inputs can bring about.
fn explore() -> (Edges, BTreeSet<&'static str>) {
    let policy = Policy {
        voting_ladder_ms: vec![10],
        delivery_ladder_ms: vec![10],
        jitter_percent: 0,
    };
    let start = Place {
        state: State::Absent,
        written: Vec::new(),
        instant: 0,
    };
    let mut edges = Edges::new();
    let mut ended = BTreeSet::new();
    let mut seen = BTreeSet::from([start.key()]);
    let mut queue = VecDeque::from([start]);
    while let Some(place) = queue.pop_front() {
        if let State::Present(transaction) = &place.state
            && transaction.has_ended()
        {
            ended.insert(transaction.phase.name());
        }
        for instant in place.instant..INSTANTS_MS.len() {
            for (name, input) in inputs(&place.state) {
                let next = step(&policy, &place, name, input, instant, &mut edges);
                // More contradictions than branches cannot come; the bound keeps a bug from searching for ever.
                assert!(next.written.len() <= 5, "{:?}", next.written);
                if seen.insert(next.key()) {
                    queue.push_back(next);
                }
            }
        }
    }
    (edges, ended)
}

fn rank(phase: &str) -> Option<usize> {
    ALL.iter().position(|known| *known == phase)
}

fn render(edges: &Edges, ended: &BTreeSet<&'static str>) -> String {
    let mut text = String::from("```mermaid\nstateDiagram-v2\n");
    // In the order of a life: the start, then the states as the API numbers them.
    let mut edges: Vec<_> = edges.iter().collect();
    edges.sort_by_key(|((from, _, to), _)| (rank(from), rank(to)));
    for ((from, event, to), causes) in edges {
        let causes: Vec<_> = causes.iter().copied().collect();
        text += &format!("    {from} --> {to} : {event} ({})\n", causes.join(", "));
    }
    for phase in ended {
        text += &format!("    {phase} --> [*]\n");
    }
    text += "```\n";
    text
}

#[test]
fn the_diagram_is_what_the_code_does() {
    let (edges, ended) = explore();
    assert!(!edges.is_empty());
    let met: BTreeSet<_> = edges.keys().flat_map(|(from, _, to)| [*from, *to]).collect();
    assert_eq!(met, BTreeSet::from(ALL));
    assert_eq!(ended, BTreeSet::from(["ABORTED", "COMPLETED"]));

    let page = read(PAGE);
    let drawn = render(&edges, &ended);
    let shown = between(&page, START, END);
    if shown == drawn {
        return;
    }
    if std::env::var_os("UPDATE_DOCS").is_some() {
        let updated = page.replace(&format!("{START}{shown}{END}"), &format!("{START}{drawn}{END}"));
        fs::write(root().join(PAGE), updated).unwrap_or_else(|error| panic!("{PAGE}: {error}"));
        return;
    }
    panic!("{PAGE} shows another diagram than the code has; run with UPDATE_DOCS=1. The code has:\n{drawn}");
}
