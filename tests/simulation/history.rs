//! What wallets, callers, the wire and the disk saw, in its order. The auditor judges by nothing else.

use std::{collections::BTreeMap, fmt::Write as _};

use causeway::pb::gateway::v1 as pb;

use crate::{
    executor::START_MS,
    faults::{Counts, Fault, Rates},
    random::Random,
};

/// A payment, by the order in which it was first heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Payment(pub u32);

/// A network, by its place in [`crate::cast::NETWORKS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Network(pub usize);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Command {
    Prepare,
    Commit,
    Abort,
    Inquire,
}

/// What a wallet network did with a branch, as its own disk has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Voted yes: the amount is held.
    Prepared(Money),
    /// Voted no, with this code.
    Refused(&'static str),
    /// Moved the money.
    Moved(Money),
    /// Let go of a hold.
    Released,
    /// Remembers an abort of a branch that it never held anything for.
    Tombstone,
    /// Broke its word: no trace of the branch is left.
    Forgot,
    /// Broke its word: moved the money though nobody said so.
    MovedAlone(Money),
    /// Broke its word: let go though nobody said so.
    ReleasedAlone,
    /// Broke its word: said something else than it knew.
    Lied,
    /// Answered with an error that is an answer before the decision: the call itself is rejected.
    Rejected,
    /// Was asked for a hold on other terms than before, which no gateway may do.
    OtherTerms,
}

/// What moved: which account, which way, how many minor units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Money {
    pub account: String,
    pub currency: String,
    pub debit: bool,
    pub minor: u64,
}

#[derive(Clone, Debug)]
#[allow(dead_code, reason = "some fields are only for who reads a trace")]
pub enum Event {
    /// A caller asks for a payment.
    Asked {
        caller: Network,
        request: Request,
        order: Box<Order>,
    },
    /// A caller is told where a payment stands.
    Told {
        caller: Network,
        request: Option<Request>,
        payment: Payment,
        message: Box<pb::Payment>,
        how: How,
    },
    /// A caller is refused.
    Refused {
        /// The place of its [`Event::Asked`].
        ask: usize,
        caller: Network,
        request: Request,
        reason: String,
        fields: String,
    },
    /// A caller asks for a payment to be cancelled.
    CancelAsked { payment: Payment },
    /// A caller is told that there is no such payment.
    Missing { caller: Network, payment: Payment },
    /// So long after all has healed, everything must have ended.
    Deadline,
    /// Long after that a gateway still drives payments.
    StillDriving { gateway: usize, count: usize },
    /// All is well, and a caller still gets no definite answer.
    NoAnswer {
        caller: Network,
        request: Request,
        last: String,
    },
    /// A gateway answers a CreatePayment or a CancelPayment: this leaves it now.
    Answered {
        gateway: usize,
        payment: Payment,
        state: i32,
    },
    /// A caller gets a quote.
    Quoted { caller: Network, quote: Box<pb::Quote> },
    /// A caller asked for another's payment and was answered so.
    Foreign {
        caller: Network,
        payment: Payment,
        shown: bool,
    },
    /// A participant asks for the decision and is told.
    DecisionTold {
        network: Network,
        payment: Payment,
        decision: i32,
    },
    /// A command leaves a gateway. `clock_ms` is what that gateway's clock says.
    Left {
        gateway: usize,
        payment: Payment,
        branch: &'static str,
        command: Command,
        clock_ms: i64,
        decide_by_ms: i64,
    },
    /// A wallet network's disk has this.
    Wallet {
        network: Network,
        payment: Payment,
        branch: &'static str,
        act: Act,
    },
    /// A wallet network counts its money: the sum over all accounts of a currency, which never changes.
    Counted {
        network: Network,
        currency: &'static str,
        sum: i128,
    },
    /// The gateways' disk has this record. `by` wrote it; `clock_ms` is the record's own time.
    Durable {
        by: usize,
        payment: Payment,
        record: &'static str,
        version: u32,
        clock_ms: i64,
        facts: Box<Facts>,
    },
    /// The gateways' disk has this quote.
    DurableQuote { quote: String },
    /// A write met another coordinator's.
    Conflict { by: usize, payment: Payment },
    /// A watcher opens its next stream, to resume after this token.
    WatchOpened {
        stream: u32,
        caller: Network,
        token: String,
    },
    /// A watcher is sent this; no payment is a greeting.
    Watched {
        caller: Network,
        payment: Option<Payment>,
        state: i32,
        token: String,
    },
    /// Something went wrong, by plan.
    Fault { fault: Fault, detail: String },
    /// All is well from here on.
    Healed,
    /// A day has gone by.
    NextDay,
}

/// A request_id of a caller, and which of the bodies that were sent under it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Request {
    pub number: u32,
    pub body: u8,
}

impl Request {
    pub fn id(self) -> String {
        format!("order-{}", self.number)
    }
}

/// From which call the caller was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum How {
    Create,
    List,
    Cancel,
    NextDay,
    Final,
}

/// What a caller asks for, as it would say it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    pub payer: (Network, String),
    pub payee: (Network, String),
    pub source: &'static str,
    pub target: &'static str,
    pub fixed_send: bool,
    pub amount: String,
    /// The quote's name, or the worst rate of an order at the market.
    pub quote: Option<String>,
    pub worst_rate: Option<String>,
}

/// What a record says, as far as the auditor needs it.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    pub initiator: String,
    pub request_id: String,
    /// Partner of each branch.
    pub partners: Vec<String>,
    pub decide_by_ms: i64,
    pub reason: String,
    pub phase: &'static str,
}

pub struct Line {
    pub at_us: u64,
    pub event: Event,
}

/// Everything that was seen, and the counts of what fired.
pub struct History {
    pub lines: Vec<Line>,
    names: Vec<String>,
    index: BTreeMap<String, Payment>,
    pub counts: Counts,
    pub rates: Rates,
    /// For whether a fault fires.
    random: Random,
    /// No fault fires any more.
    pub healed: bool,
}

impl History {
    pub fn new(rates: Rates, random: Random) -> Self {
        Self {
            lines: Vec::new(),
            names: Vec::new(),
            index: BTreeMap::new(),
            counts: Counts::default(),
            rates,
            random,
            healed: false,
        }
    }

    pub fn payment(&mut self, name: &str) -> Payment {
        if let Some(payment) = self.index.get(name) {
            return *payment;
        }
        let payment = Payment(self.names.len() as u32);
        self.names.push(name.to_owned());
        self.index.insert(name.to_owned(), payment);
        payment
    }

    pub fn name(&self, payment: Payment) -> &str {
        &self.names[payment.0 as usize]
    }

    pub fn payments(&self) -> usize {
        self.names.len()
    }

    /// Writes it down; answers with its place.
    pub fn push(&mut self, at_us: u64, event: Event) -> usize {
        self.lines.push(Line { at_us, event });
        self.lines.len() - 1
    }

    pub fn insert(&mut self, place: usize, at_us: u64, event: Event) {
        self.lines.insert(place, Line { at_us, event });
    }

    /// Whether the fault fires now; counted and written down if so.
    pub fn fires(&mut self, at_us: u64, fault: Fault, detail: impl FnOnce() -> String) -> bool {
        let drawn = self.random.chance(self.rates.of(fault));
        if drawn && !self.healed {
            self.happened(at_us, fault, detail());
        }
        drawn && !self.healed
    }

    pub fn happened(&mut self, at_us: u64, fault: Fault, detail: String) {
        self.counts.add(fault);
        self.push(at_us, Event::Fault { fault, detail });
    }

    pub fn trace(&self) -> String {
        let mut text = String::new();
        for index in 0..self.lines.len() {
            self.write_line(&mut text, index);
        }
        text
    }

    /// The lines that concern a payment.
    pub fn of(&self, payment: Payment) -> String {
        let mut text = format!("history of {}:\n", self.name(payment));
        for (index, line) in self.lines.iter().enumerate() {
            if line.event.payment() == Some(payment) || line.event.is_for_all() {
                self.write_line(&mut text, index);
            }
        }
        text
    }

    fn write_line(&self, text: &mut String, index: usize) {
        let line = &self.lines[index];
        let seconds = line.at_us / 1_000_000;
        let _ = write!(text, "{index:6} {seconds:6}.{:06} ", line.at_us % 1_000_000);
        let _ = match &line.event {
            Event::Told {
                caller,
                request,
                payment,
                message,
                how,
            } => writeln!(
                text,
                "Told {caller:?} {request:?} {payment:?} {how:?}: {:?} {:?}",
                message.state(),
                message
                    .outcome
                    .as_ref()
                    .map(|outcome| (&outcome.reason, &outcome.detail)),
            ),
            Event::Quoted { caller, quote } => writeln!(
                text,
                "Quoted {caller:?} {} {:?} until {}",
                quote.name,
                quote.conversion.as_ref().map(|conversion| &conversion.rate),
                quote.expire_time.map_or(0, |time| time.seconds - START_MS / 1_000),
            ),
            event => writeln!(text, "{event:?}"),
        };
    }
}

impl Event {
    pub fn payment(&self) -> Option<Payment> {
        match self {
            Self::Told { payment, .. }
            | Self::Foreign { payment, .. }
            | Self::Answered { payment, .. }
            | Self::CancelAsked { payment }
            | Self::Missing { payment, .. }
            | Self::DecisionTold { payment, .. }
            | Self::Left { payment, .. }
            | Self::Wallet { payment, .. }
            | Self::Durable { payment, .. }
            | Self::Conflict { payment, .. } => Some(*payment),
            Self::Watched { payment, .. } => *payment,
            Self::Asked { .. }
            | Self::Refused { .. }
            | Self::NoAnswer { .. }
            | Self::Deadline
            | Self::StillDriving { .. }
            | Self::Quoted { .. }
            | Self::Counted { .. }
            | Self::DurableQuote { .. }
            | Self::WatchOpened { .. }
            | Self::Fault { .. }
            | Self::Healed
            | Self::NextDay => None,
        }
    }

    /// Whether it is part of every payment's history.
    fn is_for_all(&self) -> bool {
        match self {
            Self::Fault { fault, .. } => matches!(
                fault,
                Fault::GatewayKilled
                    | Fault::StoreKilled
                    | Fault::WalletKilled
                    | Fault::GatewayPaused
                    | Fault::FsyncFailed
                    | Fault::ClockBack
                    | Fault::ClockForward
                    | Fault::BatchLost
                    | Fault::BatchSurvived
            ),
            Self::Healed | Self::NextDay => true,
            _ => false,
        }
    }
}

/// The names of branches, for ever.
pub fn branch_name(name: &str) -> &'static str {
    match name {
        "debit" => "debit",
        "credit" => "credit",
        other => panic!("no branch is called {other:?}"),
    }
}
