//! What is durable: the contract that every store keeps, and the stores that keep it.
//!
//! A store is a set of payments, each a list of records that only grows, plus quotes. Owns durability, uniqueness and
//! the compare-and-set on a payment's version; knows nothing of what a record means beyond its kind. Called by
//! `coordinator` (begin, append, recovery), `api` (reads) and `feed` (changes).
//!
//! The contract, kept by every implementation and checked by the suite in `tests/store`:
//! - What [`Store::begin`], [`Store::append`] and [`Store::put_quote`] have answered is on disk.
//! - A payment is begun once; a quote is taken by one payment, and taking it and beginning are one step to every reader.
//! - An append whose `expected_version` is not the stored one changes nothing and says what is stored.
//! - A batch's parts stand or fall alone: one that is refused does not touch its neighbours.
//! - Changes are numbered without gaps in the order in which they became visible.
//! - Reads never wait for the writer.

pub(crate) mod codec;
mod sqlite;

use std::{future::Future, pin::Pin, sync::Arc};

use tokio::sync::watch;

use crate::{
    coordinator::protocol::{Record, State},
    feed::Subscription,
    payment::{PartnerName, PaymentId, Quote, QuoteId, RequestId, Terms},
};

pub use codec::CodecError;
pub use sqlite::{Checked, SqliteOptions, SqliteStore, record_sum};

/// An answer of the store that is on its way.
pub type Pending<T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send>>;

/// See the module's documentation for what every implementation promises.
pub trait Store: Send + Sync + 'static {
    /// Begins a payment: takes its quote, if it has one, and keeps its first record.
    fn begin(&self, begin: Begin) -> Pending<BeginOutcome>;
    /// Adds records to a payment.
    fn append(&self, append: Append) -> Pending<AppendOutcome>;
    /// Keeps a quote.
    fn put_quote(&self, quote: Quote) -> Pending<()>;
    /// Forgets some of the quotes that nobody took and that lapsed before this (milliseconds since the Unix epoch); says
    /// how many.
    fn forget_quotes(&self, lapsed_before_ms: i64) -> Pending<usize>;
    /// Reads a quote and the payment that took it.
    fn quote(&self, id: QuoteId) -> Pending<Option<StoredQuote>>;
    /// Reads a payment's records.
    fn payment(&self, id: PaymentId) -> Pending<Option<History>>;
    /// The ids of payments that are still to be driven (not ended, nor disputed with nothing left to deliver), in the order
    /// of (bucket, id), after the given one.
    fn unfinished(&self, after: Option<PaymentId>, limit: usize) -> Pending<Vec<PaymentId>>;
    /// Payments that concern a partner, newest first. One that cannot be read does not hide the others.
    fn list(&self, query: ListQuery) -> Pending<Vec<Listed>>;
    /// Changes after this sequence number, oldest first, each with the payment as it was right after it; absent, if that
    /// cannot be read.
    fn changes(&self, after: u64, limit: usize) -> Pending<Vec<Change>>;
    /// The feed of changes as they become durable.
    fn feed(&self) -> Subscription;
    /// Becomes an error once the store takes no further writes ([`StoreError::Failed`]).
    fn failure(&self) -> watch::Receiver<Option<StoreError>>;
}

/// A payment to begin.
#[derive(Clone, Debug)]
pub struct Begin {
    /// Its terms; `terms.order.pricing` names the quote to take, if any.
    pub terms: Arc<Terms>,
    /// The first record, as decided.
    pub record: Record,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BeginOutcome {
    /// It has begun.
    Begun,
    /// A payment of this id had begun before.
    Exists,
    /// The quote is not there, or another payment has it.
    QuoteTaken {
        /// The payment that has it.
        by: Option<PaymentId>,
    },
}

/// Records to add to a payment.
#[derive(Clone, Debug)]
pub struct Append {
    /// The payment.
    pub id: PaymentId,
    /// How many records it must have already.
    pub expected_version: u32,
    /// What to add: durable records only, at least one.
    pub records: Vec<Record>,
    /// The state after each of them, for the feed and the store's own columns.
    pub states: Vec<State>,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AppendOutcome {
    /// The records are there.
    Appended,
    /// Another coordinator of the same payment was first.
    Conflict {
        /// How many records the payment has; 0 if there is no such payment.
        stored_version: u32,
    },
}

/// A payment as stored.
#[derive(Clone, Debug)]
pub struct History {
    /// The payment.
    pub id: PaymentId,
    /// All of its records, oldest first.
    pub records: Vec<Record>,
}

/// A payment's place in a list, and the payment.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Where it stands.
    pub position: ListPosition,
    /// All of its records, or why they cannot be read.
    pub history: Result<History, StoreError>,
}

/// A quote as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredQuote {
    /// The quote.
    pub quote: Quote,
    /// The payment that took it.
    pub taken_by: Option<PaymentId>,
}

/// One durable change of one payment.
#[derive(Clone, Debug)]
pub struct Change {
    /// Its place in the order of all changes, from 1.
    pub sequence: u64,
    /// The payment right after it.
    pub state: State,
}

/// Which payments to list.
#[derive(Clone, Debug, Default)]
pub struct ListQuery {
    /// Those that this partner initiated or takes part in; `None` means all.
    pub concerns: Option<PartnerName>,
    /// Only these states; empty means any. Names as [`crate::coordinator::protocol::Phase::name`].
    pub states: Vec<&'static str>,
    /// Begun at or after this, in milliseconds since the Unix epoch.
    pub begin_from_ms: Option<i64>,
    /// Begun before this, in milliseconds since the Unix epoch.
    pub begin_before_ms: Option<i64>,
    /// Only this request of `concerns`; nothing without a partner.
    pub request_id: Option<RequestId>,
    /// Only what stands after this one in the order of the list.
    pub after: Option<ListPosition>,
    /// How many at most.
    pub limit: usize,
}

/// A place in the order of a list: newest first, then by id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListPosition {
    /// When the payment at this place began, in milliseconds since the Unix epoch.
    pub begin_ms: i64,
    /// Its id.
    pub id: PaymentId,
}

/// What can go wrong with a store. None of these loses what was acknowledged.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The write did not happen, and may happen later: a full disk, a busy file.
    #[error("the store cannot write now: {0}")]
    Unavailable(String),
    /// It is not known whether the write happened: after a failed fsync nobody can say what is on disk. The store takes
    /// no further writes; after a restart it reads what is really there.
    #[error("the store has failed and must be opened again: {0}")]
    Failed(String),
    /// The file is there, but is not one that this version can use.
    #[error("{path}: {problem}")]
    Unusable {
        /// The file.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// What was read is not what was written.
    #[error("the store holds a damaged record: {0}")]
    Damaged(String),
    /// The store is shutting down.
    #[error("the store is closed")]
    Closed,
}
