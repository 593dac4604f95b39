//! What the auditor judges: what callers asked and were told, what watchers saw, what wallets show, and what the gateway
//! says in the end. Plain values; how they are gathered is [`super::history`]'s and [`super::closing`]'s.

use causeway::pb::{
    gateway::v1::{Conversion, CreatePaymentRequest, Payment, payment::State},
    mock::v1 as mock,
};

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    pub orders: Vec<Order>,
    /// Every payment as the gateway shows it to an operator in the end.
    pub payments: Vec<Payment>,
    pub books: Vec<Books>,
    pub hanging: Vec<Sighting>,
    pub watches: Vec<Watch>,
}

/// Who ordered, by the id that the order has with them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The network that initiates: "apple-pay".
    pub initiator: &'static str,
    pub request_id: String,
}

/// A payment that somebody wants, and all that was said about it.
#[derive(Clone, Debug)]
pub struct Order {
    pub key: Key,
    pub request: CreatePaymentRequest,
    /// What the quote promised, if it pays by one.
    pub quoted: Option<Conversion>,
    pub told: Vec<Told>,
}

/// One question, and what came back. Times are of the one clock of this machine, in milliseconds (Unix).
#[derive(Clone, Debug)]
pub struct Told {
    pub asked_ms: i64,
    pub told_ms: i64,
    pub question: Question,
    pub answer: Answer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// CreatePayment with the order's body, for the first time or again.
    Create,
    /// CreatePayment with another body under the same id.
    Altered,
    Get,
    Cancel,
    /// CreatePayment again after everything has healed.
    Replay,
}

#[derive(Clone, Debug)]
pub enum Answer {
    Payment(Box<Payment>),
    /// The gateway's own word, by reason.
    Refused {
        reason: String,
        detail: String,
    },
    /// Nothing came back that says anything: a time-out, a broken connection.
    Nothing(String),
}

/// A partner network's own account of things, in the end.
#[derive(Clone, Debug, Default)]
pub struct Books {
    pub network: &'static str,
    /// What customers' accounts opened with.
    pub openings: Vec<Opening>,
    pub accounts: Vec<mock::Account>,
    pub movements: Vec<mock::Movement>,
    /// Those that still wait for a decision.
    pub holds: Vec<mock::Hold>,
}

#[derive(Clone, Debug)]
pub struct Opening {
    pub account: String,
    pub currency: String,
    pub balance: String,
}

/// A hold that was seen although somebody had been told before that its payment has ended.
#[derive(Clone, Debug)]
pub struct Sighting {
    pub network: &'static str,
    pub payment: String,
    pub branch: String,
    pub told: State,
    pub seen_ms: i64,
}

/// What a watcher saw, and what it should have.
#[derive(Clone, Debug)]
pub struct Watch {
    pub who: &'static str,
    /// From the start through every restart and cut, each time going on from its token.
    pub live: Vec<Change>,
    /// All from the start, in one go, in the end.
    pub replay: Vec<Change>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub payment: String,
    pub state: State,
}
