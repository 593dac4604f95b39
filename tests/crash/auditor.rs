//! The auditor: what callers were told against what wallets show. Shares no code with what it judges: amounts are integers
//! of its own, and the networks' books are the evidence.
//!
//! Every finding is of one class, after what the people concerned suffer. *Lost*: somebody was told something that is not
//! so, or one side moved alone, or a change never reached a watcher. *Doubled*: money moved more often than it should, or
//! would if a caller believed what it was told, or came from nowhere. *In doubt*: something has not ended. A payment counts
//! once in a class, however much is wrong with it. Invariant: it judges all there is and never stops at the first.

use std::collections::{BTreeMap, BTreeSet};

use causeway::pb::{
    gateway::v1::{Payment, payment::Pricing, payment::State},
    mock::v1::Movement,
    money::v1::Money,
};

use crate::{
    decimal::conversion_problem,
    evidence::{Answer, Books, Change, Evidence, Key, Order, Question, Watch},
    history::{is_definite, is_final, is_no_for_ever},
};

/// A movement carries the time at which its transaction began; a caller that was told before by more than this was told of
/// what had not happened. One clock, two processes: allows for a step of it.
const TOLD_EARLY_MS: i64 = 50;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    Lost,
    Doubled,
    InDoubt,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub class: Class,
    /// "payments/...", or the order or account if no payment is known.
    pub subject: String,
    pub what: String,
}

/// Everything that is wrong.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    pub findings: Vec<Finding>,
}

impl Verdict {
    /// Of how many payments, orders or accounts this is so.
    pub fn count(&self, class: Class) -> usize {
        let of_class = self.findings.iter().filter(|finding| finding.class == class);
        let subjects: BTreeSet<_> = of_class.map(|finding| &finding.subject).collect();
        subjects.len()
    }
}

/// Judges.
pub fn judge(evidence: &Evidence) -> Verdict {
    let mut audit = Audit {
        evidence,
        payments: BTreeMap::new(),
        payments_of_orders: BTreeMap::new(),
        orders: evidence.orders.iter().map(|order| (pair(&order.key), order)).collect(),
        moved: BTreeMap::new(),
        verdict: Verdict::default(),
    };
    for books in &evidence.books {
        for movement in &books.movements {
            let moved = Moved {
                network: books.network,
                movement,
            };
            audit.moved.entry(&movement.payment).or_default().push(moved);
        }
    }
    audit.payments();
    audit.movements();
    for order in &evidence.orders {
        audit.order(order);
    }
    audit.holds();
    for books in &evidence.books {
        audit.books(books);
    }
    for watch in &evidence.watches {
        audit.watch(watch);
    }
    audit.verdict
}

struct Audit<'a> {
    evidence: &'a Evidence,
    /// By name.
    payments: BTreeMap<&'a str, &'a Payment>,
    /// By initiator and request_id, as the next.
    payments_of_orders: BTreeMap<(&'a str, &'a str), &'a Payment>,
    orders: BTreeMap<(&'a str, &'a str), &'a Order>,
    moved: BTreeMap<&'a str, Vec<Moved<'a>>>,
    verdict: Verdict,
}

#[derive(Clone, Copy)]
struct Moved<'a> {
    network: &'static str,
    movement: &'a Movement,
}

/// What was decided, as far as an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decided {
    Commit,
    Abort,
}

impl<'a> Audit<'a> {
    fn find(&mut self, class: Class, subject: &str, what: impl Into<String>) {
        self.verdict.findings.push(Finding {
            class,
            subject: subject.to_owned(),
            what: what.into(),
        });
    }

    /// The gateway's own list: one payment an order, all ended, each what was ordered.
    fn payments(&mut self) {
        let mut payers_of_quotes: BTreeMap<&str, &str> = BTreeMap::new();
        for payment in &self.evidence.payments {
            let name = payment.name.as_str();
            if self.payments.insert(name, payment).is_some() {
                self.find(Class::Doubled, name, "is listed twice");
                continue;
            }
            let initiator = payment.initiator.strip_prefix("partners/").unwrap_or_default();
            let of_order = (initiator, payment.request_id.as_str());
            if let Some(other) = self.payments_of_orders.insert(of_order, payment) {
                let what = format!("is the second payment of one request_id, after {}", other.name);
                self.find(Class::Doubled, name, what);
            }
            if let Some(Pricing::Quote(quote)) = &payment.pricing
                && let Some(other) = payers_of_quotes.insert(quote, name)
            {
                self.find(Class::Doubled, name, format!("took {quote}, which {other} has"));
            }
            if !is_final(payment.state()) {
                let state = payment.state();
                self.find(Class::InDoubt, name, format!("has not ended: {state:?}"));
            }
            match self.orders.get(&of_order).copied() {
                None => self.find(Class::Doubled, name, "was ordered by nobody"),
                Some(order) => {
                    if let Some(problem) = not_as_ordered(payment, order) {
                        self.find(Class::Lost, name, problem);
                    }
                }
            }
        }
    }

    /// The wallets: each branch of a completed payment once and exactly, all else not at all.
    fn movements(&mut self) {
        let mut names: BTreeSet<&str> = self.moved.keys().copied().collect();
        names.extend(self.payments.keys());
        for name in names {
            let moved = self.moved.get(name).cloned().unwrap_or_default();
            let Some(payment) = self.payments.get(name).copied() else {
                self.find(
                    Class::Doubled,
                    name,
                    "money moved, and the gateway knows no such payment",
                );
                continue;
            };
            let times = ["debit", "credit"].map(|branch| {
                let of_branch = moved.iter().filter(|moved| moved.movement.branch == branch);
                of_branch.count()
            });
            for (branch, times) in ["debit", "credit"].into_iter().zip(times) {
                if times > 1 {
                    self.find(Class::Doubled, name, format!("the {branch} moved {times} times"));
                }
            }
            match (payment.state(), times.map(|times| times > 0)) {
                (_, [false, true]) => self.find(Class::Lost, name, "the credit moved and the debit did not"),
                (_, [true, false]) => self.find(Class::Lost, name, "the debit moved and the credit did not"),
                (State::Completed, [false, false]) => self.find(Class::Lost, name, "is COMPLETED and nothing moved"),
                (State::Aborted, [true, true]) => self.find(Class::Doubled, name, "is ABORTED and money moved"),
                _ => {}
            }
            for moved in moved {
                if let Some(problem) = moved_otherwise(payment, moved) {
                    self.find(Class::Lost, name, problem);
                }
            }
        }
    }

    /// What one caller was told: one payment, one decision, and in the end what is so.
    fn order(&mut self, order: &'a Order) {
        let subject = self.subject(order);
        let answers = order.told.iter().map(|told| (told.question, &told.answer));
        let own = |question: Question| question != Question::Altered;
        let mut names = BTreeSet::new();
        for (question, answer) in answers.clone() {
            match answer {
                Answer::Payment(payment) if own(question) => {
                    names.insert(payment.name.as_str());
                }
                Answer::Payment(_) => {
                    self.find(
                        Class::Doubled,
                        &subject,
                        "another body under its request_id was accepted",
                    );
                }
                Answer::Refused { reason, .. } if !own(question) && is_no_for_ever(reason) => {
                    self.find(
                        Class::Lost,
                        &subject,
                        format!("was not recognised by its request_id, but refused: {reason}"),
                    );
                }
                Answer::Refused { reason, .. } if own(question) && reason == "REQUEST_ID_REUSED" => {
                    self.find(Class::Lost, &subject, "the same body was refused as another");
                }
                Answer::Refused { .. } | Answer::Nothing(_) => {}
            }
        }
        for name in &names {
            if !self.payments.contains_key(name) {
                self.find(
                    Class::Lost,
                    name,
                    "was acknowledged, and the gateway knows nothing of it",
                );
            }
        }
        if names.len() > 1 {
            self.find(
                Class::Doubled,
                &subject,
                format!("one request_id, told of several: {names:?}"),
            );
        }
        let never = order.told.iter().find_map(|told| match (&told.answer, told.question) {
            (Answer::Refused { reason, .. }, Question::Create | Question::Replay) if is_no_for_ever(reason) => {
                Some(reason)
            }
            _ => None,
        });
        if let (Some(reason), Some(payment)) = (never, self.payment_of(order)) {
            let name = payment.name.as_str();
            self.find(
                Class::Doubled,
                name,
                format!("its caller was told that there is none: {reason}"),
            );
        }
        if !answers.into_iter().any(|(_, answer)| is_definite(answer)) {
            self.find(Class::InDoubt, &subject, "its caller never got a definite answer");
        }
        self.decisions(order, &subject);
    }

    /// A decision that was told is the one that stands, and was true when it was told.
    fn decisions(&mut self, order: &'a Order, subject: &str) {
        let mut said: Vec<(i64, i64, Option<Decided>, &'a Answer)> = Vec::new();
        for told in order.told.iter().filter(|told| told.question != Question::Altered) {
            let decided = match &told.answer {
                Answer::Payment(payment) => decided(payment.state()),
                Answer::Refused { reason, .. } if reason == "PAYMENT_DECIDED" => Some(Decided::Commit),
                Answer::Refused { .. } | Answer::Nothing(_) => continue,
            };
            said.push((told.asked_ms, told.told_ms, decided, &told.answer));
        }
        let says = |wanted| said.iter().any(|(_, _, decided, _)| *decided == Some(wanted));
        if says(Decided::Commit) && says(Decided::Abort) {
            self.find(Class::Lost, subject, "its caller was told of a commit and of an abort");
        }
        let first_ms = said
            .iter()
            .filter(|(_, _, decided, _)| decided.is_some())
            .map(|said| said.1)
            .min();
        for (asked_ms, _, decided, answer) in &said {
            let is_payment = matches!(answer, Answer::Payment(_));
            if is_payment && decided.is_none() && first_ms.is_some_and(|first_ms| first_ms < *asked_ms) {
                self.find(Class::Lost, subject, "was decided, and later was not");
            }
        }
        let Some(payment) = self.payment_of(order) else { return };
        match decided(payment.state()) {
            Some(Decided::Abort) if says(Decided::Commit) => {
                self.find(Class::Lost, subject, "its caller was told of a commit; it is aborted");
            }
            Some(Decided::Commit) if says(Decided::Abort) => {
                self.find(
                    Class::Doubled,
                    subject,
                    "its caller was told of an abort; it is committed",
                );
            }
            _ => {}
        }
        for (_, told_ms, _, answer) in said {
            let Answer::Payment(told) = answer else { continue };
            if told.conversion != payment.conversion {
                self.find(Class::Lost, subject, "its amounts or its rate have changed");
            }
            let moved = self.moved.get(payment.name.as_str()).cloned().unwrap_or_default();
            let late = moved
                .iter()
                .any(|moved| moved_ms(moved.movement) > told_ms + TOLD_EARLY_MS);
            if told.state() == State::Completed && late {
                self.find(
                    Class::Lost,
                    subject,
                    "its caller was told COMPLETED before it had moved",
                );
            }
        }
    }

    /// Nothing waits, and nothing waited when it must not.
    fn holds(&mut self) {
        for books in &self.evidence.books {
            for hold in &books.holds {
                let what = format!("{} still holds its {}", books.network, hold.branch);
                self.find(Class::InDoubt, &hold.payment, what);
            }
        }
        for sighting in &self.evidence.hanging {
            let what = format!(
                "{} held its {} after it was told {:?}",
                sighting.network, sighting.branch, sighting.told
            );
            self.find(Class::InDoubt, &sighting.payment, what);
        }
    }

    /// Every account is what it opened with and what moved since; per currency all of them are nothing.
    fn books(&mut self, books: &'a Books) {
        let mut expected: BTreeMap<(&str, &str), i128> = BTreeMap::new();
        for opening in &books.openings {
            let balance = minor(&opening.currency, &opening.balance);
            *expected.entry((&opening.account, &opening.currency)).or_default() += balance;
            *expected.entry(("world", &opening.currency)).or_default() -= balance;
        }
        for movement in &books.movements {
            let amount = movement.amount.as_ref().expect("a movement has an amount");
            let signed = match movement.branch.as_str() {
                "debit" => -minor_of(amount),
                _ => minor_of(amount),
            };
            *expected.entry((&movement.account, &amount.currency)).or_default() += signed;
            *expected.entry(("settlement", &amount.currency)).or_default() -= signed;
        }
        let mut sums: BTreeMap<&str, i128> = BTreeMap::new();
        for account in &books.accounts {
            let balance = account.balance.as_ref().expect("an account has a balance");
            let (name, currency) = (account.account.as_str(), balance.currency.as_str());
            let subject = format!("{}: {name} {currency}", books.network);
            let (is, held) = (minor_of(balance), account.held.as_ref().map_or(0, minor_of));
            *sums.entry(currency).or_default() += is;
            let should = expected.remove(&(name, currency)).unwrap_or_default();
            if is != should {
                let class = if is > should { Class::Doubled } else { Class::Lost };
                self.find(class, &subject, format!("has {is} minor units, should have {should}"));
            }
            if held != 0 {
                self.find(Class::InDoubt, &subject, format!("{held} minor units are held"));
            }
        }
        for ((account, currency), should) in expected {
            if should != 0 {
                let subject = format!("{}: {account} {currency}", books.network);
                self.find(Class::Lost, &subject, format!("is gone, with {should} minor units"));
            }
        }
        for (currency, sum) in sums {
            if sum != 0 {
                let class = if sum > 0 { Class::Doubled } else { Class::Lost };
                let subject = format!("{}: all {currency}", books.network);
                self.find(class, &subject, format!("adds up to {sum} minor units, not to nothing"));
            }
        }
    }

    /// A watcher saw every change of every payment that concerns it once, in order, without gaps.
    fn watch(&mut self, watch: &'a Watch) {
        let who = watch.who;
        let (live, replay) = (tally(&watch.live), tally(&watch.replay));
        let all: BTreeSet<_> = live.keys().chain(replay.keys()).copied().collect();
        let mut differs = false;
        for change @ (payment, state) in all {
            let (seen, there) = (live.get(&change).copied(), replay.get(&change).copied());
            let (seen, there) = (seen.unwrap_or_default(), there.unwrap_or_default());
            if seen != there {
                differs = true;
                let class = if seen > there { Class::Doubled } else { Class::Lost };
                let what = format!("{who}'s watcher saw it become {state} {seen} times; the feed has it {there} times");
                self.find(class, payment, what);
            }
        }
        let pairs = watch.live.iter().zip(&watch.replay);
        if let (false, Some((seen, _))) = (differs, pairs.into_iter().find(|(seen, there)| seen != there)) {
            let what = format!("{who}'s watcher saw it become {:?} out of order", seen.state);
            self.find(Class::Lost, &seen.payment, what);
        }
        let mut paths: BTreeMap<&str, Vec<State>> = BTreeMap::new();
        for change in &watch.replay {
            paths.entry(&change.payment).or_default().push(change.state);
        }
        let evidence = self.evidence;
        for payment in evidence.payments.iter().filter(|payment| concerns(payment, who)) {
            let path = paths.remove(payment.name.as_str()).unwrap_or_default();
            let expected: &[State] = match payment.state() {
                State::Completed => &[State::Preparing, State::Committing, State::Completed],
                State::Aborted => &[State::Preparing, State::Aborting, State::Aborted],
                // Found already.
                _ => continue,
            };
            if path != expected {
                self.find(Class::Lost, &payment.name, format!("{who}'s feed shows it {path:?}"));
            }
        }
        for payment in paths.into_keys() {
            self.find(
                Class::Doubled,
                payment,
                format!("is in {who}'s feed and not in the list"),
            );
        }
    }

    fn payment_of(&self, order: &Order) -> Option<&'a Payment> {
        self.payments_of_orders.get(&pair(&order.key)).copied()
    }

    fn subject(&self, order: &Order) -> String {
        match self.payment_of(order) {
            Some(payment) => payment.name.clone(),
            None => format!("{} {}", order.key.initiator, order.key.request_id),
        }
    }
}

fn pair(key: &Key) -> (&str, &str) {
    (key.initiator, &key.request_id)
}

fn decided(state: State) -> Option<Decided> {
    match state {
        State::Committing | State::Completed => Some(Decided::Commit),
        State::Aborting | State::Aborted => Some(Decided::Abort),
        State::Unspecified | State::Preparing | State::Disputed => None,
    }
}

fn concerns(payment: &Payment, who: &str) -> bool {
    let parties = [&payment.payer, &payment.payee].map(|party| party.as_ref().expect("a party").partner.as_str());
    let all = parties.into_iter().chain([payment.initiator.as_str()]);
    who == crate::cast::OPERATOR
        || all
            .into_iter()
            .any(|partner| partner.strip_prefix("partners/") == Some(who))
}

/// What of the payment is not what was ordered and quoted.
fn not_as_ordered(payment: &Payment, order: &Order) -> Option<String> {
    let ordered = order.request.payment.as_ref().expect("an order has a payment");
    if (&payment.payer, &payment.payee) != (&ordered.payer, &ordered.payee) {
        return Some("its payer or payee is not the one that was ordered".into());
    }
    let Some(conversion) = &payment.conversion else {
        return Some("has no amounts".into());
    };
    if let Some(problem) = conversion_problem(conversion) {
        return Some(format!("its amounts are wrong: {problem}: {conversion:?}"));
    }
    match &ordered.pricing {
        Some(Pricing::Market(market)) => {
            let fixed = match market.fixed_side() {
                causeway::pb::gateway::v1::FixedSide::Receive => &conversion.receive_amount,
                _ => &conversion.send_amount,
            };
            (*fixed != market.amount).then(|| format!("{:?} was ordered, not {fixed:?}", market.amount))
        }
        _ => {
            let quoted = &order.quoted;
            (quoted.as_ref() != Some(conversion)).then(|| format!("{quoted:?} was quoted, not {conversion:?}"))
        }
    }
}

/// What of a movement is not what its payment says.
fn moved_otherwise(payment: &Payment, Moved { network, movement }: Moved) -> Option<String> {
    let conversion = payment.conversion.as_ref()?;
    let (party, amount) = match movement.branch.as_str() {
        "debit" => (&payment.payer, &conversion.send_amount),
        "credit" => (&payment.payee, &conversion.receive_amount),
        other => return Some(format!("moved a branch {other:?}")),
    };
    let party = party.as_ref()?;
    let is_there = party.partner.strip_prefix("partners/") == Some(network) && party.account == movement.account;
    (!is_there || movement.amount != *amount).then(|| {
        format!(
            "{network}/{} moved {:?} by its {}, where {}/{} should have by {amount:?}",
            movement.account, movement.amount, movement.branch, party.partner, party.account
        )
    })
}

fn moved_ms(movement: &Movement) -> i64 {
    let time = movement.move_time.as_ref().expect("a movement has a time");
    time.seconds * 1_000 + i64::from(time.nanos) / 1_000_000
}

/// How often each change is in it, by its name so that it can be sorted.
fn tally(changes: &[Change]) -> BTreeMap<(&str, &'static str), usize> {
    let mut tally = BTreeMap::new();
    for change in changes {
        *tally
            .entry((change.payment.as_str(), change.state.as_str_name()))
            .or_default() += 1;
    }
    tally
}

fn minor_of(money: &Money) -> i128 {
    minor(&money.currency, &money.amount)
}

/// Minor units.
fn minor(currency: &str, amount: &str) -> i128 {
    let decimals = match currency {
        "JPY" => 0,
        "KWD" => 3,
        "USD" | "CNY" | "EUR" => 2,
        other => panic!("the auditor does not know {other}"),
    };
    let (units, fraction) = amount.split_once('.').unwrap_or((amount, ""));
    assert!(fraction.len() <= decimals, "{amount} {currency} has too many decimals");
    let padded = format!("{units}{fraction:0<decimals$}");
    padded.parse().unwrap_or_else(|_| panic!("{amount:?} is no amount"))
}
