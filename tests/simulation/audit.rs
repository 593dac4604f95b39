//! The auditor: judges a history by the promises, from what wallets, callers, the wire and the disk saw.
//!
//! It shares no code with the gateway: what a payment must do is written down here once more, in its own words and its own
//! arithmetic. A payment at a network that broke its word is judged by what is left of the promises then: what the others do,
//! and that nothing of it is silent.

mod end;
mod tally;

use std::collections::BTreeMap;

use causeway::pb::gateway::v1 as pb;

pub use tally::Tally;

use crate::{
    caller::{decimal, partner},
    cast::NETWORKS,
    decimal::{Exact, conversion_problem},
    history::{Act, Command, Event, Facts, History, How, Money, Network, Order, Payment, Request},
    rates::RateBook,
    wallet::minor,
};

/// A promise that was not kept.
#[derive(Clone, Debug)]
pub struct Broken {
    /// Its number in the design.
    pub promise: u8,
    pub payment: Option<Payment>,
    pub what: String,
    /// Payments of this history that had begun by then.
    pub begun: u64,
}

impl Broken {
    pub fn new(promise: u8, payment: Option<Payment>, what: impl Into<String>) -> Self {
        Self {
            promise,
            payment,
            what: what.into(),
            begun: 0,
        }
    }

    fn after(self, begun: u64) -> Self {
        Self { begun, ..self }
    }
}

/// What is known of one payment while the history is read.
#[derive(Default)]
struct Case {
    facts: Option<Facts>,
    version: u32,
    by: usize,
    decided: Option<Decided>,
    ended: bool,
    disputed: bool,
    branches: BTreeMap<&'static str, Branch>,
    /// A caller asked for it to be cancelled.
    cancel_asked: bool,
}

struct Decided {
    commit: bool,
    reason: String,
}

/// One branch as its network's disk has it.
#[derive(Default)]
struct Branch {
    network: Option<Network>,
    held: bool,
    /// It voted yes at some time.
    voted_yes: bool,
    refused: Option<&'static str>,
    /// It holds nothing and will not.
    let_go: bool,
    moved: Option<Money>,
    /// It did something that nobody had told it.
    broke_word: bool,
    /// It said something that was not so.
    lied: bool,
    /// It rejected a call.
    rejected: bool,
}

struct Auditor<'a> {
    history: &'a History,
    gateways: usize,
    cases: Vec<Case>,
    /// The payment of each request, as the disk has it.
    requests: BTreeMap<(Network, u32), Payment>,
    orders: BTreeMap<(Network, Request), Order>,
    /// Which body became the payment.
    bodies: BTreeMap<(Network, u32), u8>,
    quotes: BTreeMap<String, pb::Quote>,
    durable_quotes: std::collections::BTreeSet<String>,
    /// Every change in the order of the disk, and what each watcher was sent.
    changes: Vec<(Payment, i32)>,
    watched: BTreeMap<Network, Vec<(Payment, i32)>>,
    rates: RateBook,
    tally: Tally,
    /// Payments that had begun when all was healed.
    begun_by_healing: Vec<Payment>,
    /// Requests that had their payment already when they were asked for, by the place of the asking.
    asked_again: BTreeMap<usize, Payment>,
    listed: BTreeMap<Network, Vec<Payment>>,
}

type Verdict = Result<(), (u8, String)>;

/// Judges a history that has come to its end.
pub fn audit(history: &History, gateways: usize, rates: RateBook) -> Result<Tally, Broken> {
    let mut auditor = Auditor {
        history,
        gateways,
        cases: (0..history.payments()).map(|_| Case::default()).collect(),
        requests: BTreeMap::new(),
        orders: BTreeMap::new(),
        bodies: BTreeMap::new(),
        quotes: BTreeMap::new(),
        durable_quotes: Default::default(),
        changes: Vec::new(),
        watched: BTreeMap::new(),
        rates,
        tally: Tally::default(),
        begun_by_healing: Vec::new(),
        asked_again: BTreeMap::new(),
        listed: BTreeMap::new(),
    };
    for (place, line) in history.lines.iter().enumerate() {
        auditor
            .event(place, line.at_us, &line.event)
            .map_err(|(promise, what)| {
                let (seconds, us) = (line.at_us / 1_000_000, line.at_us % 1_000_000);
                let what = format!("{what} (at {seconds}.{us:06} s)");
                Broken::new(promise, line.event.payment(), what).after(auditor.tally.begun)
            })?;
    }
    auditor.end().map_err(|broken| broken.after(auditor.tally.begun))?;
    Ok(auditor.tally)
}

fn broken<T>(promise: u8, what: impl Into<String>) -> Result<T, (u8, String)> {
    Err((promise, what.into()))
}

/// Holds, or the promise is broken.
fn must(holds: bool, promise: u8, what: impl FnOnce() -> String) -> Verdict {
    match holds {
        true => Ok(()),
        false => Err((promise, what())),
    }
}

impl Auditor<'_> {
    fn event(&mut self, place: usize, at_us: u64, event: &Event) -> Verdict {
        match event {
            Event::Asked { caller, request, order } => {
                self.orders.insert((*caller, *request), (**order).clone());
                if let Some(payment) = self.requests.get(&(*caller, request.number)) {
                    self.asked_again.insert(place, *payment);
                }
                Ok(())
            }
            Event::Quoted { quote, .. } => self.quoted(at_us, quote),
            Event::DurableQuote { quote } => {
                self.durable_quotes.insert(quote.clone());
                Ok(())
            }
            Event::Left {
                payment,
                branch,
                command,
                clock_ms,
                decide_by_ms,
                ..
            } => self.left(*payment, branch, *command, *clock_ms, *decide_by_ms),
            Event::Wallet {
                network,
                payment,
                branch,
                act,
            } => self.wallet(*network, *payment, branch, act),
            Event::Durable {
                by,
                payment,
                record,
                version,
                clock_ms,
                facts,
            } => self.durable(*by, *payment, record, *version, *clock_ms, facts),
            Event::Conflict { .. } => {
                self.tally.conflicts += 1;
                Ok(())
            }
            Event::Answered { payment, state, .. } => self.acknowledged(*payment, *state),
            Event::Told {
                caller,
                request,
                payment,
                message,
                how,
            } => self.told(*caller, *request, *payment, message, *how),
            Event::Refused { reason, .. } => {
                *self.tally.refusals.entry(reason.clone()).or_default() += 1;
                Ok(())
            }
            Event::NoAnswer { caller, request, last } => {
                let own = NETWORKS[caller.0].0;
                broken(
                    4,
                    format!("all is well, and {} of {own} gets no answer but {last}", request.id()),
                )
            }
            Event::Foreign { caller, shown, .. } => must(!shown, 12, || {
                format!("{caller:?} saw a payment that is none of its business")
            }),
            Event::DecisionTold { payment, decision, .. } => self.decision_told(*payment, *decision),
            Event::Watched {
                caller, payment, state, ..
            } => {
                if let Some(payment) = payment {
                    self.tally.changes_watched += 1;
                    self.watched.entry(*caller).or_default().push((*payment, *state));
                }
                Ok(())
            }
            Event::Counted { network, currency, sum } => must(*sum == 0, 8, || {
                format!(
                    "all {currency} accounts of {} add up to {sum}, not zero",
                    NETWORKS[network.0].0
                )
            }),
            Event::CancelAsked { payment } => {
                self.case(*payment).cancel_asked = true;
                Ok(())
            }
            Event::Missing { caller, payment } => {
                let there = self.cases[payment.0 as usize].facts.is_some();
                must(!there, 13, || {
                    format!("{} is told that its payment is not there", NETWORKS[caller.0].0)
                })
            }
            Event::Healed => {
                let begun = self.cases.iter().enumerate().filter(|(_, case)| case.facts.is_some());
                self.begun_by_healing = begun.map(|(index, _)| Payment(index as u32)).collect();
                Ok(())
            }
            Event::Deadline => self.deadline(),
            Event::StillDriving { gateway, count } => {
                broken(4, format!("gateway {gateway} still drives {count} payments"))
            }
            Event::WatchOpened { .. } | Event::Fault { .. } | Event::NextDay => Ok(()),
        }
    }

    fn case(&mut self, payment: Payment) -> &mut Case {
        &mut self.cases[payment.0 as usize]
    }

    fn quoted(&mut self, at_us: u64, quote: &pb::Quote) -> Verdict {
        self.tally.quotes += 1;
        must(self.durable_quotes.contains(&quote.name), 13, || {
            format!("{} was told and is not on disk", quote.name)
        })?;
        let Some(conversion) = &quote.conversion else {
            return broken(8, "a quote without amounts");
        };
        if let Some(problem) = conversion_problem(conversion) {
            return broken(8, format!("{}: {problem}", quote.name));
        }
        self.rates
            .check(at_us, quote.corridor.as_ref(), conversion, quote.rate_origin.as_ref())?;
        self.quotes.insert(quote.name.clone(), quote.clone());
        Ok(())
    }

    /// A command is on the wire.
    fn left(&mut self, payment: Payment, branch: &str, command: Command, clock_ms: i64, decide_by_ms: i64) -> Verdict {
        let case = self.case(payment);
        let decided = case.decided.as_ref().map(|decided| decided.commit);
        must(case.facts.is_some(), 3, || {
            format!("{command:?} of {branch} left before the payment was on disk")
        })?;
        match command {
            Command::Prepare => must(clock_ms <= decide_by_ms, 9, || {
                format!(
                    "a Prepare of {branch} left {} ms after the time to decide",
                    clock_ms - decide_by_ms
                )
            }),
            Command::Commit => must(decided == Some(true), 3, || {
                format!("a Commit of {branch} left before commit was on disk (decided: {decided:?})")
            }),
            Command::Abort => must(decided == Some(false), 2, || {
                format!("an Abort of {branch} left though abort is not on disk (decided: {decided:?})")
            }),
            Command::Inquire => Ok(()),
        }
    }

    fn wallet(&mut self, network: Network, payment: Payment, name: &'static str, act: &Act) -> Verdict {
        let case = &mut self.cases[payment.0 as usize];
        let decided = case.decided.as_ref().map(|decided| decided.commit);
        let begun = case.facts.is_some();
        let branch = case.branches.entry(name).or_default();
        branch.network = Some(network);
        match act {
            Act::Prepared(_) => {
                must(begun, 3, || format!("{name} is held for a payment that is not on disk"))?;
                must(!branch.held && branch.moved.is_none(), 5, || {
                    format!("{name} is held twice")
                })?;
                branch.held = true;
                branch.voted_yes = true;
            }
            Act::Refused(code) => branch.refused = Some(code),
            Act::Tombstone => branch.let_go = true,
            Act::Released => {
                branch.held = false;
                branch.let_go = true;
                must(decided == Some(false), 1, || {
                    format!("{name} was let go (decided: {decided:?})")
                })?;
            }
            Act::Moved(money) | Act::MovedAlone(money) => {
                must(branch.moved.is_none(), 5, || format!("{name} moved twice"))?;
                branch.held = false;
                branch.moved = Some(money.clone());
                branch.broke_word |= matches!(act, Act::MovedAlone(_));
                if matches!(act, Act::Moved(_)) {
                    must(decided == Some(true), 1, || {
                        format!("{name} moved (decided: {decided:?})")
                    })?;
                    self.no_other_let_go(payment, name)?;
                }
            }
            Act::ReleasedAlone => {
                branch.held = false;
                branch.let_go = true;
                branch.broke_word = true;
            }
            Act::Forgot => {
                branch.held = false;
                branch.broke_word = true;
            }
            Act::Lied => branch.lied = true,
            Act::Rejected => branch.rejected = true,
            Act::OtherTerms => return broken(5, format!("{name} was asked for on other terms than before")),
        }
        Ok(())
    }

    /// Promise 1, at the moment at which money moves.
    fn no_other_let_go(&self, payment: Payment, moving: &str) -> Verdict {
        let case = &self.cases[payment.0 as usize];
        for (name, branch) in &case.branches {
            let honest = !branch.broke_word && !branch.lied;
            let gone = (branch.let_go || branch.refused.is_some()) && honest;
            must(*name == moving || !gone, 1, || {
                format!("{moving} moves while {name} has let go")
            })?;
        }
        Ok(())
    }

    fn durable(
        &mut self,
        by: usize,
        payment: Payment,
        record: &str,
        version: u32,
        clock_ms: i64,
        facts: &Facts,
    ) -> Verdict {
        let gateways = self.gateways;
        self.changes.push((payment, state_number(facts.phase)));
        if record == "begun" {
            self.begun(payment, facts)?;
        }
        let case = &mut self.cases[payment.0 as usize];
        must(version == case.version + 1, 5, || {
            format!("record {version} follows record {}", case.version)
        })?;
        if version > 1 && case.by != by {
            let who = if case.by % gateways == by % gateways {
                "restarted"
            } else {
                "other gateway"
            };
            let phase = case.phase();
            *self.tally.takeovers.entry(format!("{phase} by the {who}")).or_default() += 1;
        }
        let case = &mut self.cases[payment.0 as usize];
        (case.version, case.by) = (version, by);
        match record {
            "begun" => Ok(()),
            "commit decided" | "abort decided" => {
                must(case.decided.is_none(), 2, || "a second decision".into())?;
                let commit = record == "commit decided";
                case.decided = Some(Decided {
                    commit,
                    reason: facts.reason.clone(),
                });
                match commit {
                    true => self.committed(payment, clock_ms),
                    false => self.aborted(payment, clock_ms, &facts.reason),
                }
            }
            "ended" => {
                must(!case.ended, 2, || "it ended twice".into())?;
                case.ended = true;
                self.settled(payment)
            }
            "disputed" => {
                case.disputed = true;
                must(case.lied() || case.broke_word(), 7, || {
                    "a dispute that no network caused".into()
                })
            }
            other => broken(0, format!("the disk has a record called {other:?}")),
        }
    }

    fn begun(&mut self, payment: Payment, facts: &Facts) -> Verdict {
        self.tally.begun += 1;
        let Some(network) = NETWORKS
            .iter()
            .position(|(name, _)| *name == facts.initiator)
            .map(Network)
        else {
            return broken(12, format!("{} is nobody", facts.initiator));
        };
        let number: u32 = facts
            .request_id
            .strip_prefix("order-")
            .and_then(|number| number.parse().ok())
            .ok_or((5, format!("nobody asked for {}", facts.request_id)))?;
        let other = self.requests.insert((network, number), payment);
        must(other.is_none(), 5, || format!("{} has two payments", facts.request_id))?;
        // The body that alters the quote names one that is not there, so there is one quote at most.
        let first = self.orders.get(&(network, Request { number, body: 0 }));
        if let Some(quote) = first
            .and_then(|order| order.quote.as_ref())
            .and_then(|name| self.quotes.get(name))
        {
            let expire_ms = quote
                .expire_time
                .map_or(0, |time| time.seconds * 1_000 + i64::from(time.nanos) / 1_000_000);
            must(facts.decide_by_ms < expire_ms, 9, || {
                format!(
                    "{} lapses at {expire_ms}, the decision may come at {}",
                    quote.name, facts.decide_by_ms
                )
            })?;
        }
        self.case(payment).facts = Some(facts.clone());
        Ok(())
    }

    fn committed(&mut self, payment: Payment, clock_ms: i64) -> Verdict {
        let case = &self.cases[payment.0 as usize];
        let facts = case.facts.as_ref().expect("it has begun");
        must(clock_ms <= facts.decide_by_ms, 9, || {
            format!(
                "commit was decided {} ms after the time for it",
                clock_ms - facts.decide_by_ms
            )
        })?;
        for name in ["debit", "credit"] {
            let yes = case
                .branches
                .get(name)
                .is_some_and(|branch| branch.lied || (branch.voted_yes && branch.refused.is_none()));
            must(yes, 2, || format!("commit was decided without a yes of {name}"))?;
        }
        Ok(())
    }

    /// The reason has to be what a network really said, or really the time (promise 7).
    fn aborted(&mut self, payment: Payment, clock_ms: i64, reason: &str) -> Verdict {
        let case = &self.cases[payment.0 as usize];
        let facts = case.facts.as_ref().expect("it has begun");
        if case.lied() || case.broke_word() {
            return Ok(());
        }
        let said = |code: &str| case.branches.values().any(|branch| branch.refused == Some(code));
        let late = clock_ms > facts.decide_by_ms;
        let true_so = match reason {
            "INSUFFICIENT_FUNDS" => said("AM04"),
            "ACCOUNT_UNKNOWN" => said("AC03"),
            "ACCOUNT_CLOSED" => said("AC04"),
            "REFUSED_BY_PARTNER" => said("AM03"),
            "VOTING_TIMED_OUT" => late || said("TM01"),
            "CANCELLED" => case.cancel_asked,
            "PARTNER_ERROR" => case.branches.values().any(|branch| branch.rejected),
            _ => false,
        };
        must(true_so, 7, || format!("aborted for {reason}, which nobody said"))
    }

    /// All who were told have done so.
    fn settled(&mut self, payment: Payment) -> Verdict {
        let case = &self.cases[payment.0 as usize];
        let Some(decided) = &case.decided else {
            return broken(2, "it ended undecided");
        };
        let facts = case.facts.as_ref().expect("it has begun");
        for (name, partner) in ["debit", "credit"].iter().zip(&facts.partners) {
            let branch = case.branches.get(name);
            let done = match (decided.commit, branch) {
                (true, Some(branch)) => branch.moved.is_some(),
                (true, None) | (false, None) => false,
                (false, Some(branch)) => (branch.let_go || branch.refused.is_some()) && branch.moved.is_none(),
            };
            must(
                done || branch.is_some_and(|branch| branch.broke_word || branch.lied),
                1,
                || format!("it ended, but {name} at {partner} has not done so"),
            )?;
        }
        Ok(())
    }

    /// What is told has to be on disk before (promise 13), and what is decided does not change (promise 2).
    fn acknowledged(&mut self, payment: Payment, state: i32) -> Verdict {
        let case = &self.cases[payment.0 as usize];
        must(case.facts.is_some(), 13, || {
            "told of a payment that is not on disk".into()
        })?;
        use pb::payment::State;
        let said = State::try_from(state).unwrap_or_default();
        let decided = case.decided.as_ref().map(|decided| decided.commit);
        let fits = match said {
            State::Preparing => true,
            State::Committing | State::Completed => decided == Some(true),
            State::Aborting | State::Aborted => decided == Some(false),
            State::Disputed => case.disputed,
            State::Unspecified => false,
        };
        let promise = if decided.is_none() { 13 } else { 2 };
        must(fits, promise, || {
            format!("told {said:?} though the disk says {decided:?}")
        })?;
        match said {
            State::Completed | State::Aborted => self.settled(payment),
            _ => Ok(()),
        }
    }

    fn decision_told(&mut self, payment: Payment, decision: i32) -> Verdict {
        use pb::get_decision_response::Decision;
        self.tally.decisions_told += 1;
        let case = &self.cases[payment.0 as usize];
        let decided = case.decided.as_ref().map(|decided| decided.commit);
        let said = Decision::try_from(decision).unwrap_or_default();
        let fits = match said {
            Decision::Commit => decided == Some(true),
            Decision::Abort => decided == Some(false) || case.facts.is_none(),
            Decision::Pending => true,
            Decision::Unspecified => false,
        };
        must(fits, 2, || {
            format!("a participant was told {said:?} though the disk says {decided:?}")
        })
    }

    fn told(
        &mut self,
        caller: Network,
        request: Option<Request>,
        payment: Payment,
        message: &pb::Payment,
        how: How,
    ) -> Verdict {
        self.acknowledged(payment, message.state)?;
        if how == How::List {
            self.listed.entry(caller).or_default().push(payment);
        }
        if matches!(how, How::Final | How::List) {
            use pb::payment::State;
            let last = matches!(message.state(), State::Completed | State::Aborted | State::Disputed);
            must(last, 4, || {
                format!("at last it is still shown as {:?}", message.state())
            })?;
        }
        let facts = self.cases[payment.0 as usize]
            .facts
            .clone()
            .expect("acknowledged above");
        let own = NETWORKS[caller.0].0;
        let initiator = facts.initiator == own;
        must(
            initiator || facts.partners.iter().any(|partner| partner == own),
            12,
            || format!("{own} was told of a payment that is none of its business ({how:?})"),
        )?;
        if !initiator {
            let hidden = message.request_id.is_empty() && message.conversion.is_none();
            return must(hidden, 12, || format!("{own} was told the initiator's part"));
        }
        if let Some(request) = request {
            self.same_payment(caller, request, payment, message)?;
        }
        self.amounts(payment, message)
    }

    /// Promise 5: one request_id, one payment, of the body that was sent.
    fn same_payment(&mut self, caller: Network, request: Request, payment: Payment, message: &pb::Payment) -> Verdict {
        let known = self.requests.get(&(caller, request.number));
        must(known == Some(&payment), 5, || {
            format!(
                "{} was answered with {payment:?}, its payment is {known:?}",
                request.id()
            )
        })?;
        let order = &self.orders[&(caller, request)];
        let account = |party: &Option<pb::Party>| party.clone().unwrap_or_default();
        let (payer, payee) = (account(&message.payer), account(&message.payee));
        let quote = match &message.pricing {
            Some(pb::payment::Pricing::Quote(quote)) => Some(quote.clone()),
            _ => None,
        };
        let fixed = message.pricing.as_ref().and_then(|pricing| match pricing {
            pb::payment::Pricing::Market(market) => market.amount.clone(),
            pb::payment::Pricing::Quote(_) => None,
        });
        let same = payer.account == order.payer.1
            && payee.account == order.payee.1
            && payer.partner == partner(order.payer.0)
            && payee.partner == partner(order.payee.0)
            && quote == order.quote
            && fixed.is_none_or(|money| minor(&money.currency, &money.amount) == minor(&money.currency, &order.amount));
        must(same, 5, || {
            format!("{} was answered with a payment of another body", request.id())
        })?;
        // Two that were altered may have become the same.
        let body = *self.bodies.entry((caller, request.number)).or_insert(request.body);
        let taken = Request { body, ..request };
        must(
            self.orders[&(caller, taken)] == self.orders[&(caller, request)],
            5,
            || format!("{} has two bodies", request.id()),
        )
    }

    /// Promises 8 and 9: what was told is exact, what was quoted, and what moved.
    fn amounts(&mut self, payment: Payment, message: &pb::Payment) -> Verdict {
        let Some(conversion) = &message.conversion else {
            return broken(8, "a payment without amounts");
        };
        if let Some(problem) = conversion_problem(conversion) {
            return broken(8, problem);
        }
        if let Some(pb::payment::Pricing::Quote(name)) = &message.pricing {
            let Some(quote) = self.quotes.get(name) else {
                return broken(9, format!("nobody was quoted {name}"));
            };
            must(quote.conversion.as_ref() == Some(conversion), 9, || {
                format!("quoted {:?}, paid {conversion:?}", quote.conversion)
            })?;
        }
        if let Some(pb::payment::Pricing::Market(market)) = &message.pricing {
            let published =
                self.rates
                    .was_published(&market.source_currency, &market.target_currency, &conversion.mid_rate);
            must(published, 9, || format!("{} was never published", conversion.mid_rate))?;
            must(
                Exact::parse(&conversion.rate) >= Exact::parse(&market.worst_rate),
                9,
                || format!("at {}, worse than {} at worst", conversion.rate, market.worst_rate),
            )?;
        }
        for (name, amount) in [
            ("debit", &conversion.send_amount),
            ("credit", &conversion.receive_amount),
        ] {
            let amount = amount.clone().unwrap_or_default();
            let moved = self.cases[payment.0 as usize]
                .branches
                .get(name)
                .and_then(|branch| branch.moved.as_ref());
            if let Some(moved) = moved {
                let told = (
                    amount.currency.as_str(),
                    minor(&amount.currency, &amount.amount),
                    name == "debit",
                );
                let did = (moved.currency.as_str(), moved.minor, moved.debit);
                must(told == did, 8, || {
                    format!(
                        "{name} is told as {told:?} and moved {did:?} = {}",
                        decimal(&moved.currency, moved.minor)
                    )
                })?;
            }
        }
        Ok(())
    }
}

impl Case {
    fn lied(&self) -> bool {
        self.branches.values().any(|branch| branch.lied)
    }

    fn broke_word(&self) -> bool {
        self.branches.values().any(|branch| branch.broke_word)
    }

    fn phase(&self) -> &'static str {
        match (&self.decided, self.disputed) {
            (_, true) => "disputed",
            (None, _) => "preparing",
            (Some(Decided { commit: true, .. }), _) => "committing",
            (Some(Decided { commit: false, .. }), _) => "aborting",
        }
    }
}

/// The state's number in the API.
fn state_number(phase: &str) -> i32 {
    let names = [
        "PREPARING",
        "COMMITTING",
        "COMPLETED",
        "ABORTING",
        "ABORTED",
        "DISPUTED",
    ];
    let index = names.iter().position(|name| *name == phase);
    index.map_or(0, |index| index as i32 + 1)
}
