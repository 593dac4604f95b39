//! The one thread that writes.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::{Duration, Instant},
};

use rusqlite::{CachedStatement, Connection, ErrorCode, OptionalExtension, ffi, params};
use tokio::sync::{oneshot, watch};

use super::{
    super::{Append, AppendOutcome, Begin, BeginOutcome, Change, StoreError, codec},
    mark::MarkFile,
    read::{state_code, stored_state},
    sum::{quote_sum, record_sum, taken_sum},
};
use crate::{
    coordinator::protocol::{Durability, Phase, Record, State, fold},
    feed::Feed,
    payment::{OrderPricing, PaymentId, Quote},
};

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// Something to write, and whom to tell.
#[derive(Debug)]
pub enum Job {
    Begin(Box<Begin>, Reply<BeginOutcome>),
    Append(Box<Append>, Reply<AppendOutcome>),
    PutQuote(Box<Quote>, Reply<()>),
    ForgetQuotes { lapsed_before_ms: i64, reply: Reply<usize> },
}

impl Job {
    /// Whether nobody holds anything back until it is written.
    fn is_lazy(&self) -> bool {
        match self {
            Self::Append(append, _) => append
                .records
                .iter()
                .all(|record| record.event.durability() == Durability::Lazy),
            Self::Begin(..) | Self::PutQuote(..) => false,
            Self::ForgetQuotes { .. } => true,
        }
    }

    fn fail(self, error: StoreError) {
        // Whoever asked may have gone; then there is nobody to tell.
        match self {
            Self::Begin(_, reply) => drop(reply.send(Err(error))),
            Self::Append(_, reply) => drop(reply.send(Err(error))),
            Self::PutQuote(_, reply) => drop(reply.send(Err(error))),
            Self::ForgetQuotes { reply, .. } => drop(reply.send(Err(error))),
        }
    }
}

/// What a job came to, once its transaction is committed.
enum Done {
    Begin(BeginOutcome),
    Append(AppendOutcome),
    PutQuote,
    ForgetQuotes(usize),
}

pub struct Writer {
    connection: Connection,
    mark: MarkFile,
    queue: Receiver<Job>,
    feed: Feed,
    failed: watch::Sender<Option<StoreError>>,
    batch_max: usize,
    linger: Duration,
}

impl Writer {
    pub fn new(
        connection: Connection,
        mark: MarkFile,
        queue: Receiver<Job>,
        feed: Feed,
        failed: watch::Sender<Option<StoreError>>,
        batch_max: usize,
        linger: Duration,
    ) -> Self {
        Self {
            connection,
            mark,
            queue,
            feed,
            failed,
            batch_max,
            linger,
        }
    }

    /// Runs until every handle is gone and the queue is empty.
    pub fn run(mut self) {
        let mut batch = Vec::new();
        while self.gather(&mut batch) {
            self.commit(&mut batch);
        }
    }

    /// Takes what has queued; false at the end. While one batch is being written, the next one queues: the batch grows
    /// with the load, and nobody waits for company except those that nobody waits for.
    fn gather(&mut self, batch: &mut Vec<Job>) -> bool {
        let Ok(first) = self.queue.recv() else { return false };
        let mut lazy = first.is_lazy();
        batch.push(first);
        let until = Instant::now() + self.linger;
        while batch.len() < self.batch_max {
            let next = match self.queue.try_recv() {
                Ok(job) => Ok(job),
                Err(_) if lazy => self.queue.recv_timeout(until.saturating_duration_since(Instant::now())),
                Err(_) => Err(RecvTimeoutError::Timeout),
            };
            let Ok(job) = next else { break };
            lazy &= job.is_lazy();
            batch.push(job);
        }
        true
    }

    fn commit(&mut self, batch: &mut Vec<Job>) {
        if let Some(error) = self.failed.borrow().clone() {
            batch.drain(..).for_each(|job| job.fail(error.clone()));
            return;
        }
        match self.try_commit(batch) {
            Ok((done, changes)) => {
                let head = changes.last().map(|change| change.sequence);
                self.mark
                    .note(&self.connection, head.unwrap_or_else(|| self.feed.subscribe().head()));
                // Watchers see it before the caller hears of it: a caller that then watches finds it in the feed.
                self.feed.publish(changes);
                for (job, done) in batch.drain(..).zip(done) {
                    match (job, done) {
                        (Job::Begin(_, reply), Done::Begin(outcome)) => drop(reply.send(Ok(outcome))),
                        (Job::Append(_, reply), Done::Append(outcome)) => drop(reply.send(Ok(outcome))),
                        (Job::PutQuote(_, reply), Done::PutQuote) => drop(reply.send(Ok(()))),
                        (Job::ForgetQuotes { reply, .. }, Done::ForgetQuotes(count)) => drop(reply.send(Ok(count))),
                        _ => unreachable!("a job's outcome is of its own kind"),
                    }
                }
            }
            // The file refused one of them, not the disk all of them: each for itself, so that its neighbours are not
            // turned away with it, again and again.
            Err(StoreError::Damaged(_)) if batch.len() > 1 => {
                for job in batch.drain(..) {
                    self.commit(&mut vec![job]);
                }
            }
            Err(error) => {
                if matches!(error, StoreError::Failed(_)) {
                    tracing::error!(%error, "the store has failed; restart the gateway");
                    self.failed.send_replace(Some(error.clone()));
                } else {
                    tracing::warn!(%error, writes = batch.len(), "writes were turned away");
                }
                batch.drain(..).for_each(|job| job.fail(error.clone()));
            }
        }
    }

    /// All jobs in one transaction. A job that is refused by its own condition does not touch the others; an error of
    /// the file fails all of them.
    fn try_commit(&mut self, batch: &[Job]) -> Result<(Vec<Done>, Vec<Change>), StoreError> {
        self.connection
            .execute_batch("BEGIN IMMEDIATE")
            .map_err(|error| self.refusal(error))?;
        let mut changes = Vec::new();
        let mut sequence = self.feed.subscribe().head();
        let mut done = Vec::with_capacity(batch.len());
        for job in batch {
            let result = match job {
                Job::Begin(begin, _) => self.begin(begin, &mut sequence, &mut changes).map(Done::Begin),
                Job::Append(append, _) => self.append(append, &mut sequence, &mut changes).map(Done::Append),
                Job::PutQuote(quote, _) => self.put_quote(quote).map(|()| Done::PutQuote),
                Job::ForgetQuotes { lapsed_before_ms, .. } => {
                    self.forget_quotes(*lapsed_before_ms).map(Done::ForgetQuotes)
                }
            };
            match result {
                Ok(outcome) => done.push(outcome),
                Err(error) => {
                    let refusal = self.refusal(error);
                    return Err(self.roll_back(refusal));
                }
            }
        }
        match self.connection.execute_batch("COMMIT") {
            Ok(()) => Ok((done, changes)),
            Err(error) => {
                let refusal = self.commit_refusal(error);
                Err(self.roll_back(refusal))
            }
        }
    }

    fn begin(&self, begin: &Begin, sequence: &mut u64, changes: &mut Vec<Change>) -> rusqlite::Result<BeginOutcome> {
        let terms = &begin.terms;
        let (bucket, id) = (terms.id.bucket(), terms.id.as_bytes());
        let exists = self
            .cached("SELECT 1 FROM payment WHERE bucket = ?1 AND id = ?2")?
            .exists(params![bucket, id])?;
        if exists {
            return Ok(BeginOutcome::Exists);
        }
        if let OrderPricing::Quote(quote) = &terms.order.pricing {
            // Taking the quote again for the same payment is fine: a crash may lie between taking and beginning where a
            // store keeps the two apart.
            let taken = self
                .cached(
                    // A quote whose taker is half there is damaged, and nobody's.
                    "UPDATE quote SET taken_by = ?3, taken_sum = ?4
                     WHERE bucket = ?1 AND id = ?2 AND (taken_by IS NULL AND taken_sum IS NULL OR taken_by = ?3)",
                )?
                .execute(params![
                    quote.bucket(),
                    quote.as_bytes(),
                    id,
                    taken_sum(*quote, terms.id)
                ])?;
            if taken == 0 {
                let by: Option<Option<[u8; 16]>> = self
                    .cached("SELECT taken_by FROM quote WHERE bucket = ?1 AND id = ?2")?
                    .query_row(params![quote.bucket(), quote.as_bytes()], |row| row.get(0))
                    .optional()?;
                return Ok(BeginOutcome::QuoteTaken {
                    by: by.flatten().map(PaymentId::from_bytes),
                });
            }
        }
        let state = fold([&begin.record]).expect("bug: a payment begins with its beginning");
        self.cached("INSERT INTO payment (bucket, id, version, state, begin_ms) VALUES (?1, ?2, 1, ?3, ?4)")?
            .execute(params![bucket, id, state_code(Phase::Preparing.name()), terms.begin_ms])?;
        let mut partners = vec![&terms.initiator];
        partners.extend(terms.branches.iter().map(|branch| &branch.party.partner));
        partners.sort();
        partners.dedup();
        for partner in partners {
            self.cached("INSERT INTO concern (partner, begin_ms, id, bucket) VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![partner.as_str(), terms.begin_ms, id, bucket])?;
        }
        self.add_record(terms.id, 1, &begin.record, sequence)?;
        changes.push(Change {
            sequence: *sequence,
            state,
        });
        Ok(BeginOutcome::Begun)
    }

    fn append(
        &self,
        append: &Append,
        sequence: &mut u64,
        changes: &mut Vec<Change>,
    ) -> rusqlite::Result<AppendOutcome> {
        let Some(State::Present(after)) = append.states.last() else {
            unreachable!("bug: an append leaves a transaction")
        };
        let (bucket, id) = (append.id.bucket(), append.id.as_bytes());
        let count = u32::try_from(append.records.len()).expect("a step has a handful of records");
        assert_eq!(append.states.len(), append.records.len(), "bug: a state is missing");
        assert_eq!(
            after.version,
            append.expected_version + count,
            "bug: the state is not the one after the records"
        );
        let updated = self
            .cached("UPDATE payment SET version = ?4, state = ?5 WHERE bucket = ?1 AND id = ?2 AND version = ?3")?
            .execute(params![
                bucket,
                id,
                append.expected_version,
                after.version,
                stored_state(after)
            ])?;
        if updated == 0 {
            let stored: Option<u32> = self
                .cached("SELECT version FROM payment WHERE bucket = ?1 AND id = ?2")?
                .query_row(params![bucket, id], |row| row.get(0))
                .optional()?;
            return Ok(AppendOutcome::Conflict {
                stored_version: stored.unwrap_or(0),
            });
        }
        let versions = append.expected_version + 1..;
        for ((version, record), state) in versions.zip(&append.records).zip(&append.states) {
            self.add_record(append.id, version, record, sequence)?;
            changes.push(Change {
                sequence: *sequence,
                state: state.clone(),
            });
        }
        Ok(AppendOutcome::Appended)
    }

    fn add_record(&self, id: PaymentId, version: u32, record: &Record, sequence: &mut u64) -> rusqlite::Result<()> {
        *sequence += 1;
        let data = codec::encode_record(record);
        self.cached("INSERT INTO record (sequence, bucket, id, version, data, sum) VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
            .execute(params![
                *sequence,
                id.bucket(),
                id.as_bytes(),
                version,
                data,
                record_sum(*sequence, id, version, &data)
            ])?;
        Ok(())
    }

    fn put_quote(&self, quote: &Quote) -> rusqlite::Result<()> {
        let data = codec::encode_quote(quote);
        self.cached("INSERT INTO quote (bucket, id, expire_ms, data, sum) VALUES (?1, ?2, ?3, ?4, ?5)")?
            .execute(params![
                quote.id.bucket(),
                quote.id.as_bytes(),
                quote.expire_ms,
                data,
                quote_sum(quote.id, &data)
            ])?;
        Ok(())
    }

    fn forget_quotes(&self, lapsed_before_ms: i64) -> rusqlite::Result<usize> {
        self.cached(
            "DELETE FROM quote WHERE (bucket, id) IN
             (SELECT bucket, id FROM quote WHERE taken_by IS NULL AND expire_ms < ?1 ORDER BY expire_ms LIMIT 1000)",
        )?
        .execute([lapsed_before_ms])
    }

    fn cached(&self, sql: &str) -> rusqlite::Result<CachedStatement<'_>> {
        self.connection.prepare_cached(sql)
    }

    /// The error of a statement before the commit: nothing of the batch is kept.
    fn refusal(&self, error: rusqlite::Error) -> StoreError {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreError::Failed(error.to_string()),
            // What is there already is not what should be there.
            Some(ErrorCode::ConstraintViolation) => StoreError::Damaged(error.to_string()),
            _ => StoreError::Unavailable(error.to_string()),
        }
    }

    /// The error of the commit itself. A full disk is found out before the commit record is written; after a failed write
    /// or fsync of the log nobody can say what will be there after a restart.
    fn commit_refusal(&self, error: rusqlite::Error) -> StoreError {
        match error.sqlite_error() {
            Some(ffi::Error {
                code: ErrorCode::DiskFull | ErrorCode::DatabaseBusy,
                ..
            }) => StoreError::Unavailable(error.to_string()),
            _ => StoreError::Failed(error.to_string()),
        }
    }

    fn roll_back(&self, refusal: StoreError) -> StoreError {
        // Some errors have rolled back already.
        if self.connection.is_autocommit() {
            return refusal;
        }
        match self.connection.execute_batch("ROLLBACK") {
            Ok(()) => refusal,
            Err(error) => StoreError::Failed(format!("{refusal}; and cannot roll back: {error}")),
        }
    }
}
