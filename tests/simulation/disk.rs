//! A store of its own, over a disk that forgets what was not synced.
//!
//! Keeps the contract of `causeway::store` (`tests/store` runs its suite over it too), shares no code with SQLite's. One
//! writer gathers writes into batches; a batch is written, synced, and only then visible and answered. A crash in between
//! keeps the batch whole or loses it whole, as the draw goes. Several gateways may open the same disk at once.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    future::poll_fn,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard},
    task::{Poll, Waker},
    time::Duration,
};

use causeway::{
    coordinator::protocol::{Record, State, fold},
    feed::{Feed, Subscription},
    payment::{OrderPricing, PaymentId, Quote, QuoteId},
    runtime::SharedRuntime,
    store::{
        Append, AppendOutcome, Begin, BeginOutcome, Change, History, ListPosition, ListQuery, Listed, Pending, Store,
        StoreError, StoredQuote,
    },
};
use tokio::sync::{oneshot, watch};

use crate::faults::Fault;

/// What is outside of the disk: its faults, and who looks at it.
pub trait Outside: Send + Sync {
    /// Whether the fault fires now.
    fn fires(&self, fault: Fault) -> bool;
    /// A number below the limit.
    fn draw(&self, limit: u64) -> u64;
    /// A fault that had to fire did.
    fn happened(&self, fault: Fault);
    /// This is on disk from now on.
    fn durable(&self, seen: Seen<'_>);
}

/// What an observer of the disk sees.
pub enum Seen<'a> {
    Record {
        by: usize,
        id: PaymentId,
        version: u32,
        record: &'a Record,
        state: &'a State,
    },
    Quote(&'a Quote),
    Conflict {
        by: usize,
        id: PaymentId,
    },
}

/// The disk, which outlives those who write to it.
pub struct Disk {
    inner: Mutex<Inner>,
    outside: Arc<dyn Outside>,
}

#[derive(Default)]
struct Inner {
    payments: BTreeMap<PaymentId, Kept>,
    /// Payments that are still to be driven, in the order of (bucket, id).
    open: BTreeSet<(u16, PaymentId)>,
    quotes: BTreeMap<QuoteId, StoredQuote>,
    changes: Vec<Change>,
    queue: VecDeque<Job>,
    /// Written, not synced.
    staged: Vec<Job>,
    writer: Option<Waker>,
    /// Those who have it open.
    readers: Vec<Reader>,
    opened: u64,
    /// It takes no more writes until it is opened again.
    failed: Option<StoreError>,
    up: bool,
}

struct Kept {
    records: Vec<Record>,
    state: State,
}

struct Reader {
    id: u64,
    feed: Feed,
    failure: watch::Sender<Option<StoreError>>,
}

enum Job {
    Begin(Begin, usize, Reply<BeginOutcome>),
    Append(Append, usize, Reply<AppendOutcome>),
    PutQuote(Box<Quote>, Reply<()>),
    ForgetQuotes(i64, Reply<usize>),
}

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

const BATCH_MAX: usize = 64;
const FORGET_MAX: usize = 1_000;

impl Disk {
    pub fn new(outside: Arc<dyn Outside>) -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::default(),
            outside,
        })
    }

    /// The process that has the disk starts; [`Disk::write`] comes next. What was written and not synced before is there, or
    /// it is not.
    pub fn start(&self) {
        let staged = {
            let mut inner = self.inner();
            inner.queue.clear();
            inner.readers.clear();
            inner.failed = None;
            inner.up = true;
            std::mem::take(&mut inner.staged)
        };
        if !staged.is_empty() {
            let survived = self.outside.draw(2) == 0;
            self.outside.happened(match survived {
                true => Fault::BatchSurvived,
                false => Fault::BatchLost,
            });
            if survived {
                // Nobody is left to be answered.
                drop(self.apply(staged));
            }
        }
    }

    /// The process that had the disk is gone.
    pub fn stop(&self) {
        let (queue, readers) = {
            let mut inner = self.inner();
            inner.up = false;
            (std::mem::take(&mut inner.queue), std::mem::take(&mut inner.readers))
        };
        for reader in readers {
            reader.failure.send_replace(Some(lost()));
        }
        drop(queue);
    }

    /// A store over the disk for one gateway. `by` tells its writes from others'.
    pub fn open(self: &Arc<Self>, runtime: SharedRuntime, by: usize) -> DiskStore {
        let mut inner = self.inner();
        let feed = Feed::new(inner.changes.len() as u64);
        let subscription = feed.subscribe();
        let (failure, failed) = watch::channel((!inner.up).then(lost));
        inner.opened += 1;
        let id = inner.opened;
        inner.readers.push(Reader { id, feed, failure });
        drop(inner);
        DiskStore {
            disk: Arc::clone(self),
            id,
            runtime,
            by,
            feed: subscription,
            failed,
        }
    }

    /// How many payments are still to be driven.
    pub fn open_count(&self) -> usize {
        self.inner().open.len()
    }

    /// Writes batch after batch; ends when the disk has failed.
    pub async fn write(&self, runtime: &SharedRuntime) {
        let mut full_until = Duration::ZERO;
        loop {
            poll_fn(|context| {
                let mut inner = self.inner();
                match inner.queue.is_empty() || inner.failed.is_some() {
                    true => {
                        inner.writer = Some(context.waker().clone());
                        Poll::Pending
                    }
                    false => Poll::Ready(()),
                }
            })
            .await;
            // Others may join while the disk is busy.
            runtime.sleep(self.latency()).await;
            let batch: Vec<Job> = {
                let mut inner = self.inner();
                let count = inner.queue.len().min(BATCH_MAX);
                inner.queue.drain(..count).collect()
            };
            let now = runtime.monotonic();
            if full_until <= now && self.outside.fires(Fault::DiskFull) {
                full_until = now + Duration::from_millis(100 + self.outside.draw(5_000));
            }
            let full = (full_until > now).then_some(Fault::DiskFull);
            let failed = self.outside.fires(Fault::WriteFailed).then_some(Fault::WriteFailed);
            if let Some(fault) = full.or(failed) {
                let error = StoreError::Unavailable(fault.name().into());
                batch.into_iter().for_each(|job| job.fail(error.clone()));
                continue;
            }
            self.inner().staged = batch;
            runtime.sleep(self.latency()).await;
            if self.outside.fires(Fault::FsyncFailed) {
                // What was written may be there after all: it stays staged until somebody opens the disk again.
                return self.fail(StoreError::Failed("fsync failed".into()));
            }
            let staged = std::mem::take(&mut self.inner().staged);
            self.apply(staged).into_iter().for_each(|answer| answer());
        }
    }

    fn latency(&self) -> Duration {
        let slow = self.outside.fires(Fault::DiskSlow);
        let us = if slow { 500_000 } else { 100 } + self.outside.draw(if slow { 4_000_000 } else { 3_000 });
        Duration::from_micros(us)
    }

    fn fail(&self, error: StoreError) {
        let (queue, failures) = {
            let mut inner = self.inner();
            inner.failed = Some(error.clone());
            let staged_replies = inner.staged.iter_mut().map(Job::take_reply).collect::<Vec<_>>();
            let queue: Vec<_> = std::mem::take(&mut inner.queue).into();
            for reader in &inner.readers {
                reader.failure.send_replace(Some(error.clone()));
            }
            (queue, staged_replies)
        };
        failures.into_iter().for_each(|fail| fail(error.clone()));
        queue.into_iter().for_each(|job| job.fail(error.clone()));
    }

    /// Makes writes true, in their order; answers with how to answer them.
    fn apply(&self, jobs: Vec<Job>) -> Vec<Box<dyn FnOnce() + Send>> {
        let mut inner = self.inner();
        let before = inner.changes.len();
        let mut answers: Vec<Box<dyn FnOnce() + Send>> = Vec::new();
        for job in jobs {
            match job {
                Job::Begin(begin, by, reply) => {
                    let outcome = self.begin(&mut inner, begin, by);
                    answers.push(Box::new(move || drop(reply.send(Ok(outcome)))));
                }
                Job::Append(append, by, reply) => {
                    let outcome = self.append(&mut inner, append, by);
                    answers.push(Box::new(move || drop(reply.send(Ok(outcome)))));
                }
                Job::PutQuote(quote, reply) => {
                    self.outside.durable(Seen::Quote(&quote));
                    let (quote, taken_by) = (*quote, None);
                    inner.quotes.insert(quote.id, StoredQuote { quote, taken_by });
                    answers.push(Box::new(move || drop(reply.send(Ok(())))));
                }
                Job::ForgetQuotes(before_ms, reply) => {
                    let lapsed: Vec<_> = inner
                        .quotes
                        .values()
                        .filter(|stored| stored.taken_by.is_none() && stored.quote.expire_ms < before_ms)
                        .map(|stored| stored.quote.id)
                        .take(FORGET_MAX)
                        .collect();
                    lapsed.iter().for_each(|id| drop(inner.quotes.remove(id)));
                    answers.push(Box::new(move || drop(reply.send(Ok(lapsed.len())))));
                }
            }
        }
        for reader in &inner.readers {
            reader.feed.publish(inner.changes[before..].to_vec());
        }
        answers
    }

    fn begin(&self, inner: &mut Inner, begin: Begin, by: usize) -> BeginOutcome {
        let id = begin.terms.id;
        if inner.payments.contains_key(&id) {
            return BeginOutcome::Exists;
        }
        if let OrderPricing::Quote(quote) = &begin.terms.order.pricing {
            match inner.quotes.get_mut(quote) {
                Some(stored) if stored.taken_by.is_none_or(|taken| taken == id) => stored.taken_by = Some(id),
                Some(stored) => return BeginOutcome::QuoteTaken { by: stored.taken_by },
                None => return BeginOutcome::QuoteTaken { by: None },
            }
        }
        let state = fold([&begin.record]).expect("a payment begins with its beginning");
        let kept = Kept {
            records: Vec::new(),
            state: State::Absent,
        };
        inner.payments.insert(id, kept);
        inner.open.insert((id.bucket(), id));
        self.keep(inner, id, begin.record, state, by);
        BeginOutcome::Begun
    }

    fn append(&self, inner: &mut Inner, append: Append, by: usize) -> AppendOutcome {
        let id = append.id;
        let stored_version = inner.payments.get(&id).map_or(0, |kept| kept.records.len() as u32);
        if stored_version != append.expected_version || stored_version == 0 {
            self.outside.durable(Seen::Conflict { by, id });
            return AppendOutcome::Conflict { stored_version };
        }
        for (record, state) in append.records.into_iter().zip(append.states) {
            self.keep(inner, id, record, state, by);
        }
        let quiet = match &inner.payments[&id].state {
            State::Present(transaction) => transaction.is_quiet(),
            State::Absent => true,
        };
        if quiet {
            inner.open.remove(&(id.bucket(), id));
        }
        AppendOutcome::Appended
    }

    fn keep(&self, inner: &mut Inner, id: PaymentId, record: Record, state: State, by: usize) {
        let kept = inner.payments.get_mut(&id).expect("it has begun");
        let version = kept.records.len() as u32 + 1;
        self.outside.durable(Seen::Record {
            by,
            id,
            version,
            record: &record,
            state: &state,
        });
        kept.records.push(record);
        kept.state = state.clone();
        let sequence = inner.changes.len() as u64 + 1;
        inner.changes.push(Change { sequence, state });
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("whoever panicked has ended the test")
    }
}

impl Job {
    fn fail(self, error: StoreError) {
        match self {
            Self::Begin(_, _, reply) => drop(reply.send(Err(error))),
            Self::Append(_, _, reply) => drop(reply.send(Err(error))),
            Self::PutQuote(_, reply) => drop(reply.send(Err(error))),
            Self::ForgetQuotes(_, reply) => drop(reply.send(Err(error))),
        }
    }

    /// Takes the way to answer out of a job that stays.
    fn take_reply(&mut self) -> Box<dyn FnOnce(StoreError) + Send> {
        fn taken<T: Send + 'static>(reply: &mut Reply<T>) -> Box<dyn FnOnce(StoreError) + Send> {
            let reply = std::mem::replace(reply, oneshot::channel().0);
            Box::new(move |error| drop(reply.send(Err(error))))
        }
        match self {
            Self::Begin(_, _, reply) => taken(reply),
            Self::Append(_, _, reply) => taken(reply),
            Self::PutQuote(_, reply) => taken(reply),
            Self::ForgetQuotes(_, reply) => taken(reply),
        }
    }
}

/// A gateway's view of the disk.
pub struct DiskStore {
    disk: Arc<Disk>,
    id: u64,
    runtime: SharedRuntime,
    by: usize,
    feed: Subscription,
    failed: watch::Receiver<Option<StoreError>>,
}

fn lost() -> StoreError {
    StoreError::Failed("the connection to the store is lost".into())
}

impl DiskStore {
    fn write<T: Send + 'static>(&self, job: impl FnOnce(Reply<T>) -> Job) -> Pending<T> {
        let (reply, answer) = oneshot::channel();
        let refused = self.failed.borrow().clone();
        let waker = match refused {
            Some(_) => None,
            None => {
                let mut inner = self.disk.inner();
                inner.queue.push_back(job(reply));
                inner.writer.take()
            }
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        Box::pin(async move {
            match refused {
                Some(error) => Err(error),
                None => answer.await.map_err(|_| lost())?,
            }
        })
    }

    fn read<T: Send + 'static>(&self, read: impl FnOnce(&Inner) -> T + Send + 'static) -> Pending<T> {
        let (disk, runtime) = (Arc::clone(&self.disk), Arc::clone(&self.runtime));
        Box::pin(async move {
            runtime.sleep(Duration::from_micros(20 + disk.outside.draw(500))).await;
            let inner = disk.inner();
            match inner.up {
                true => Ok(read(&inner)),
                false => Err(StoreError::Unavailable("the store is down".into())),
            }
        })
    }
}

impl Drop for DiskStore {
    fn drop(&mut self) {
        self.disk.inner().readers.retain(|reader| reader.id != self.id);
    }
}

fn history(inner: &Inner, id: PaymentId) -> Option<History> {
    let records = inner.payments.get(&id)?.records.clone();
    Some(History { id, records })
}

impl Store for DiskStore {
    fn begin(&self, begin: Begin) -> Pending<BeginOutcome> {
        self.write(|reply| Job::Begin(begin, self.by, reply))
    }

    fn append(&self, append: Append) -> Pending<AppendOutcome> {
        assert_eq!(append.records.len(), append.states.len(), "a state for every record");
        self.write(|reply| Job::Append(append, self.by, reply))
    }

    fn put_quote(&self, quote: Quote) -> Pending<()> {
        self.write(|reply| Job::PutQuote(Box::new(quote), reply))
    }

    fn forget_quotes(&self, lapsed_before_ms: i64) -> Pending<usize> {
        self.write(|reply| Job::ForgetQuotes(lapsed_before_ms, reply))
    }

    fn quote(&self, id: QuoteId) -> Pending<Option<StoredQuote>> {
        self.read(move |inner| inner.quotes.get(&id).cloned())
    }

    fn payment(&self, id: PaymentId) -> Pending<Option<History>> {
        self.read(move |inner| history(inner, id))
    }

    fn unfinished(&self, after: Option<PaymentId>, limit: usize) -> Pending<Vec<PaymentId>> {
        self.read(move |inner| {
            let from = match after {
                Some(id) => Bound::Excluded((id.bucket(), id)),
                None => Bound::Unbounded,
            };
            let open = inner.open.range((from, Bound::Unbounded));
            open.map(|(_, id)| *id).take(limit).collect()
        })
    }

    fn list(&self, query: ListQuery) -> Pending<Vec<Listed>> {
        self.read(move |inner| list(inner, &query))
    }

    fn changes(&self, after: u64, limit: usize) -> Pending<Vec<Change>> {
        self.read(move |inner| {
            let from = inner.changes.len().min(after as usize);
            inner.changes[from..].iter().take(limit).cloned().collect()
        })
    }

    fn feed(&self) -> Subscription {
        self.feed.clone()
    }

    fn failure(&self) -> watch::Receiver<Option<StoreError>> {
        self.failed.clone()
    }
}

fn list(inner: &Inner, query: &ListQuery) -> Vec<Listed> {
    let mut found: Vec<(i64, PaymentId)> = inner
        .payments
        .iter()
        .filter_map(|(id, kept)| match &kept.state {
            State::Present(transaction) => Some((id, transaction)),
            State::Absent => None,
        })
        .filter(|(id, transaction)| {
            let terms = &transaction.terms;
            let begin_ms = terms.begin_ms;
            query.concerns.as_ref().is_none_or(|partner| terms.concerns(partner))
                && (query.states.is_empty() || query.states.contains(&transaction.phase.name()))
                && query.begin_from_ms.is_none_or(|from_ms| begin_ms >= from_ms)
                && query.begin_before_ms.is_none_or(|before_ms| begin_ms < before_ms)
                && match (&query.request_id, &query.concerns) {
                    (Some(request_id), Some(partner)) => **id == PaymentId::derive(partner, request_id),
                    _ => true,
                }
                && query
                    .after
                    .is_none_or(|after| (begin_ms, **id) < (after.begin_ms, after.id))
        })
        .map(|(id, transaction)| (transaction.terms.begin_ms, *id))
        .collect();
    found.sort_by(|a, b| b.cmp(a));
    found
        .into_iter()
        .take(query.limit)
        .map(|(begin_ms, id)| Listed {
            position: ListPosition { begin_ms, id },
            history: Ok(history(inner, id).expect("it was found")),
        })
        .collect()
}
