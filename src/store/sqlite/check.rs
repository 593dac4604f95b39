//! Looks through the whole store for what the medium damaged.
//!
//! A read notices damage in what it reads. It cannot notice what a damaged page hides from it: an entry that is missing
//! from a list, a payment that recovery does not find. So everything is visited once by each way that leads to it, and
//! what one way shows the others must show too. Called by a thread that every opened store has ([`Checker`]), slowly, and
//! by [`super::SqliteStore::check`]. Never writes, and repairs nothing: a damaged store is restored from a backup.

use std::{
    fmt,
    path::Path,
    sync::mpsc::{RecvTimeoutError, Sender, channel},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rusqlite::{Connection, InterruptHandle, OpenFlags, OptionalExtension, Row, ToSql, params};

use super::{StoreError, connect, read, read_error};
use crate::{
    coordinator::protocol::{State, Transaction, fold},
    payment::{OrderPricing, PaymentId, QuoteId},
};

/// How many rows are looked at in one go. Each go reads of one instant, and no longer keeps the log from starting anew.
const PAGE: usize = 256;
/// How much longer the thread rests after each go than that took.
const REST: u32 = 4;
/// How many problems are told in words.
const PROBLEMS_MAX: usize = 100;

/// What was looked at, and what is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// How many payments.
    pub payments: u64,
    /// How many changes.
    pub changes: u64,
    /// How many quotes.
    pub quotes: u64,
    /// How many problems were found.
    pub problems_count: u64,
    /// The first hundred of them.
    pub problems: Vec<String>,
}

/// The thread that looks through the store once.
pub struct Checker {
    /// Dropped to stop it.
    going: Option<Sender<()>>,
    /// Ends a look that is under way: nobody who stops waits for it.
    interrupt: InterruptHandle,
    thread: Option<JoinHandle<()>>,
}

impl Checker {
    /// Starts it on a connection of its own.
    pub fn start(path: &Path) -> Result<Self, StoreError> {
        let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let interrupt = connection.get_interrupt_handle();
        let (going, stop) = channel();
        let mut rest = move |took: Duration| stop.recv_timeout(took * REST) == Err(RecvTimeoutError::Timeout);
        let look = move || match run(&connection, Depth::Rows, &mut rest) {
            Ok(checked) if checked.problems_count > 0 => {
                tracing::error!(
                    problems = checked.problems_count,
                    "the store is damaged; restore it from a backup"
                );
                for problem in checked.problems {
                    tracing::error!(problem, "found in the store");
                }
            }
            Ok(checked) => {
                tracing::info!(
                    payments = checked.payments,
                    changes = checked.changes,
                    "the store was looked through"
                );
            }
            // The interruption of a stop is one of these.
            Err(error) => tracing::warn!(%error, "the store was not looked through to its end"),
        };
        let thread = std::thread::Builder::new()
            .name("store-check".into())
            .spawn(look)
            .map_err(|error| StoreError::Unavailable(format!("cannot start the checking thread: {error}")))?;
        Ok(Self {
            going: Some(going),
            interrupt,
            thread: Some(thread),
        })
    }
}

impl fmt::Debug for Checker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checker").finish_non_exhaustive()
    }
}

impl Drop for Checker {
    fn drop(&mut self) {
        drop(self.going.take());
        self.interrupt.interrupt();
        if let Some(thread) = self.thread.take() {
            // It only looks: if it panicked, there is nothing to do about it.
            let _ = thread.join();
        }
    }
}

/// How much is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Row by row, with rests in between.
    Rows,
    /// The pages of the quotes as well: in one go, which keeps the log from starting again for as long as it takes.
    Pages,
}

/// Looks through everything, or until `rest` says after some go that it is enough. It is told how long each go took.
pub fn run(
    connection: &Connection,
    depth: Depth,
    rest: &mut dyn FnMut(Duration) -> bool,
) -> Result<Checked, StoreError> {
    let mut look = Look {
        connection,
        checked: Checked::default(),
    };
    let pages = (depth == Depth::Pages).then_some(Part::QuotePages);
    for part in [Part::Payments, Part::Changes, Part::Quotes].into_iter().chain(pages) {
        let mut place = Place::default();
        loop {
            let started = Instant::now();
            let snapshot = connection.unchecked_transaction().map_err(read_error)?;
            let more = match look.page(part, &mut place) {
                Ok(more) => more,
                Err(StoreError::Damaged(problem)) => {
                    look.problem(problem);
                    false
                }
                Err(error) => return Err(error),
            };
            snapshot.finish().map_err(read_error)?;
            if !rest(started.elapsed()) {
                return Ok(look.checked);
            }
            if !more {
                break;
            }
        }
    }
    Ok(look.checked)
}

/// What is gone through, in pages.
#[derive(Clone, Copy)]
enum Part {
    Payments,
    Changes,
    Quotes,
    QuotePages,
}

/// How far a part has come.
#[derive(Default)]
struct Place {
    number: u64,
    bucket: i64,
    id: Vec<u8>,
}

struct Look<'a> {
    connection: &'a Connection,
    checked: Checked,
}

impl Look<'_> {
    /// The next page of a part; false if it was the last.
    fn page(&mut self, part: Part, place: &mut Place) -> Result<bool, StoreError> {
        match part {
            Part::Payments => self.payments(place),
            Part::Changes => self.changes(place),
            Part::Quotes => self.quotes(place),
            Part::QuotePages => self.quote_pages(),
        }
    }

    /// By their keys: all of each is there, and every list has it.
    fn payments(&mut self, place: &mut Place) -> Result<bool, StoreError> {
        let sql = "SELECT bucket, id FROM payment WHERE (bucket, id) > (?1, ?2) ORDER BY bucket, id LIMIT ?3";
        let keys: Vec<(i64, [u8; 16])> = self.rows(sql, params![place.bucket, place.id, PAGE as i64], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
        for (bucket, bytes) in &keys {
            (place.bucket, place.id) = (*bucket, bytes.to_vec());
            self.checked.payments += 1;
            let id = PaymentId::from_bytes(*bytes);
            match self.payment(id) {
                Err(StoreError::Damaged(problem)) => self.problem(problem),
                other => other?,
            }
        }
        Ok(keys.len() == PAGE)
    }

    fn payment(&mut self, id: PaymentId) -> Result<(), StoreError> {
        let history = read::payment(self.connection, id)?;
        let state = history.map_or(Ok(State::Absent), |history| fold(&history.records));
        let Ok(State::Present(transaction)) = state else {
            return Err(StoreError::Damaged(format!("{id}: cannot be found again")));
        };
        let Transaction { terms, .. } = &transaction;
        let mut partners = vec![&terms.initiator];
        partners.extend(terms.branches.iter().map(|branch| &branch.party.partner));
        for partner in partners {
            let sql = "SELECT 1 FROM concern WHERE partner = ?1 AND begin_ms = ?2 AND id = ?3 AND bucket = ?4";
            if !self.is_there(
                sql,
                params![partner.as_str(), terms.begin_ms, id.as_bytes(), id.bucket()],
            )? {
                self.problem(format!("{id}: is not in the list of {partner}"));
            }
        }
        let sql = "SELECT 1 FROM payment INDEXED BY payment_unfinished
                   WHERE state NOT IN (3, 5) AND bucket = ?1 AND id = ?2";
        if !transaction.has_ended() && !self.is_there(sql, params![id.bucket(), id.as_bytes()])? {
            self.problem(format!("{id}: has not ended, and recovery does not find it"));
        }
        if let OrderPricing::Quote(quote) = terms.order.pricing {
            let taken_by = read::quote(self.connection, quote)?.and_then(|quote| quote.taken_by);
            if taken_by != Some(id) {
                self.problem(format!("{id}: its {quote} is not taken by it, or missing"));
            }
        }
        Ok(())
    }

    /// By their numbers, of which none is missing: each is of a payment that is there.
    fn changes(&mut self, place: &mut Place) -> Result<bool, StoreError> {
        let rows = read::sequences(self.connection, place.number, PAGE)?;
        for (sequence, id, _) in &rows {
            if *sequence != place.number + 1 {
                let (from, to) = (place.number + 1, sequence - 1);
                self.problem(format!("changes {from} to {to} cannot be found"));
            }
            place.number = *sequence;
            self.checked.changes += 1;
            let sql = "SELECT 1 FROM payment WHERE bucket = ?1 AND id = ?2";
            if !self.is_there(sql, params![id.bucket(), id.as_bytes()])? {
                self.problem(format!("change {sequence}: its {id} is not there"));
            }
        }
        Ok(rows.len() == PAGE)
    }

    /// By their keys: each is what it was, and what is free can be forgotten.
    fn quotes(&mut self, place: &mut Place) -> Result<bool, StoreError> {
        let sql = "SELECT bucket, id FROM quote WHERE (bucket, id) > (?1, ?2) ORDER BY bucket, id LIMIT ?3";
        let keys: Vec<(i64, [u8; 16])> = self.rows(sql, params![place.bucket, place.id, PAGE as i64], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
        for (bucket, bytes) in &keys {
            (place.bucket, place.id) = (*bucket, bytes.to_vec());
            self.checked.quotes += 1;
            let id = QuoteId::from_bytes(*bytes);
            match read::quote(self.connection, id) {
                Err(StoreError::Damaged(problem)) => self.problem(problem),
                Err(error) => return Err(error),
                Ok(None) => self.problem(format!("{id}: cannot be found again")),
                Ok(Some(stored)) if stored.taken_by.is_none() => {
                    let sql = "SELECT 1 FROM quote INDEXED BY quote_free
                               WHERE taken_by IS NULL AND expire_ms = ?1 AND bucket = ?2 AND id = ?3";
                    let found = self.is_there(sql, params![stored.quote.expire_ms, id.bucket(), id.as_bytes()])?;
                    if !found {
                        self.problem(format!("{id}: will never be forgotten"));
                    }
                }
                Ok(Some(_)) => {}
            }
        }
        Ok(keys.len() == PAGE)
    }

    /// Nothing but its own table knows of a free quote, and SQLite leaves out what an index has and its table has not. So
    /// the pages themselves are looked at; in one go, but it is one table.
    fn quote_pages(&mut self) -> Result<bool, StoreError> {
        let problems: Vec<String> = self.rows("PRAGMA integrity_check(quote)", &[], |row| row.get(0))?;
        for problem in problems.into_iter().filter(|problem| problem != "ok") {
            self.problem(format!("quotes: {problem}"));
        }
        Ok(false)
    }

    fn rows<T>(
        &self,
        sql: &str,
        values: &[&dyn ToSql],
        row: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, StoreError> {
        self.connection
            .prepare_cached(sql)
            .and_then(|mut statement| statement.query_map(values, row)?.collect())
            .map_err(read_error)
    }

    fn is_there(&self, sql: &str, values: &[&dyn ToSql]) -> Result<bool, StoreError> {
        self.connection
            .prepare_cached(sql)
            .and_then(|mut statement| statement.query_row(values, |_| Ok(())).optional())
            .map(|found| found.is_some())
            .map_err(read_error)
    }

    fn problem(&mut self, problem: String) {
        self.checked.problems_count += 1;
        if self.checked.problems.len() < PROBLEMS_MAX {
            self.checked.problems.push(problem);
        }
    }
}
