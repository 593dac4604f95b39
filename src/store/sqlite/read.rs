//! Reads, on connections of their own. What is read is what was written, or damaged: never something else.

use std::{collections::BTreeMap, fmt::Display};

use rusqlite::{Connection, OptionalExtension, Row, ToSql, params, types::ValueRef};

use super::{
    super::{Change, History, ListPosition, ListQuery, Listed, StoreError, StoredQuote, codec},
    read_error,
    sum::{quote_sum, record_sum, taken_sum},
};
use crate::{
    coordinator::protocol::{Phase, State, Transaction, fold},
    payment::{PaymentId, QuoteId},
};

/// The states that are over.
const ENDED: [&str; 2] = ["COMPLETED", "ABORTED"];

/// The number of a state as the `payment` table has it, by its name. Panics on a name that is none, which is a bug.
pub fn state_code(name: &str) -> i64 {
    let index = Phase::NAMES.iter().position(|state| *state == name);
    1 + index.unwrap_or_else(|| panic!("bug: no state {name}")) as i64
}

/// The number of a dispute that only an operator can end: every branch has said its last word.
const DISPUTED_QUIET: i64 = 7;

/// The number under which a payment is kept: that of its state, but for disputes that nothing is left to drive of.
pub fn stored_state(transaction: &Transaction) -> i64 {
    match &transaction.phase {
        Phase::Disputed { .. } if transaction.is_quiet() => DISPUTED_QUIET,
        phase => state_code(phase.name()),
    }
}

/// The number of the last change, and what it was.
pub fn head(connection: &Connection) -> Result<u64, StoreError> {
    let head: u64 = connection
        .query_row("SELECT coalesce(max(sequence), 0) FROM record", [], |row| row.get(0))
        .map_err(read_error)?;
    // The next change gets the next number, so this one must be what it says.
    if head > 0 {
        let rows = sequences(connection, head - 1, 1)?;
        let [(_, id, version)] = rows[..] else {
            return Err(StoreError::Damaged(format!("change {head} cannot be found")));
        };
        history(connection, id, Some((version, head)), unsummed_to(connection)?)?;
    }
    Ok(head)
}

/// Up to which change a record may be without a checksum; 0 if none may. See the migration that added them.
pub fn unsummed_to(connection: &Connection) -> Result<u64, StoreError> {
    connection
        .prepare_cached("SELECT value FROM meta WHERE key = 'unsummed_to'")
        .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
        .map_err(read_error)
}

/// A quote.
pub fn quote(connection: &Connection, id: QuoteId) -> Result<Option<StoredQuote>, StoreError> {
    let row = connection
        .prepare_cached("SELECT data, taken_by, expire_ms, sum, taken_sum FROM quote WHERE bucket = ?1 AND id = ?2")
        .and_then(|mut statement| {
            statement
                .query_row(params![id.bucket(), id.as_bytes()], |row| {
                    Ok(QuoteRow {
                        data: row.get(0)?,
                        taken_by: row.get::<_, Option<[u8; 16]>>(1)?.map(PaymentId::from_bytes),
                        expire_ms: row.get(2)?,
                        sum: row.get(3)?,
                        taken_sum: row.get(4)?,
                    })
                })
                .optional()
        })
        .map_err(read_error)?;
    let Some(row) = row else { return Ok(None) };
    let damaged = |problem: &dyn Display| StoreError::Damaged(format!("{id}: {problem}"));
    let sums = (Some(quote_sum(id, &row.data)), row.taken_by.map(|by| taken_sum(id, by)));
    // One from before there were sums has none, and may have been taken since.
    let old = row.sum.is_none() && unsummed_to(connection)? > 0;
    let as_written = (row.sum == sums.0 || old) && (row.taken_sum == sums.1 || old && row.taken_sum.is_none());
    if !as_written {
        return Err(damaged(&"its checksum is wrong"));
    }
    let quote = codec::decode_quote(id, &row.data).map_err(|error| damaged(&error))?;
    if quote.expire_ms != row.expire_ms {
        return Err(damaged(&"it expires at two times"));
    }
    Ok(Some(StoredQuote {
        quote,
        taken_by: row.taken_by,
    }))
}

struct QuoteRow {
    data: Vec<u8>,
    taken_by: Option<PaymentId>,
    expire_ms: i64,
    sum: Option<u32>,
    taken_sum: Option<u32>,
}

/// A payment.
pub fn payment(connection: &Connection, id: PaymentId) -> Result<Option<History>, StoreError> {
    let history = history(connection, id, None, unsummed_to(connection)?)?;
    Ok((!history.records.is_empty()).then_some(history))
}

/// Payments that have not ended.
pub fn unfinished(
    connection: &Connection,
    after: Option<PaymentId>,
    limit: usize,
) -> Result<Vec<PaymentId>, StoreError> {
    let (bucket, id_) = match &after {
        Some(id) => (i64::from(id.bucket()), id.as_bytes().to_vec()),
        None => (-1, Vec::new()),
    };
    connection
        .prepare_cached(
            "SELECT id FROM payment WHERE state NOT IN (3, 5) AND state <> 7 AND (bucket, id) > (?1, ?2)
             ORDER BY bucket, id LIMIT ?3",
        )
        .and_then(|mut statement| {
            let id = |row: &Row<'_>| row.get(0).map(PaymentId::from_bytes);
            statement.query_map(params![bucket, id_, limit as i64], id)?.collect()
        })
        .map_err(read_error)
}

/// Payments that concern a partner, or all.
pub fn list(connection: &Connection, query: &ListQuery) -> Result<Vec<Listed>, StoreError> {
    // Those that have not ended are few, and have an index of their own: from there, and not through all that a partner
    // ever did. CROSS JOIN keeps SQLite to that order.
    let unfinished = !query.states.is_empty() && !query.states.iter().any(|state| ENDED.contains(state));
    let mut values: Vec<Box<dyn ToSql>> = Vec::new();
    let mut sql = String::from(match (&query.concerns, unfinished) {
        (Some(_), false) => {
            // LEFT: what cannot be found is listed, and said to be damaged.
            "SELECT c.begin_ms, c.id FROM concern c LEFT JOIN payment p ON p.bucket = c.bucket AND p.id = c.id
             WHERE c.partner = ?"
        }
        (Some(_), true) => {
            "SELECT c.begin_ms, c.id FROM payment p CROSS JOIN concern c ON c.begin_ms = p.begin_ms AND c.id = p.id
             WHERE p.state NOT IN (3, 5) AND c.partner = ?"
        }
        // Operators see all. There is no index for that: it would cost every payment a write, and operators ask seldom.
        (None, false) => "SELECT c.begin_ms, c.id FROM payment c JOIN payment p USING (bucket, id) WHERE true",
        (None, true) => {
            "SELECT c.begin_ms, c.id FROM payment p CROSS JOIN payment c USING (bucket, id)
             WHERE p.state NOT IN (3, 5)"
        }
    });
    if let Some(partner) = &query.concerns {
        values.push(Box::new(partner.as_str().to_owned()));
    }
    if let Some(after) = query.after {
        sql += " AND (c.begin_ms, c.id) < (?, ?)";
        values.push(Box::new(after.begin_ms));
        values.push(Box::new(after.id.as_bytes().to_vec()));
    }
    if let Some(from_ms) = query.begin_from_ms {
        sql += " AND c.begin_ms >= ?";
        values.push(Box::new(from_ms));
    }
    if let Some(before_ms) = query.begin_before_ms {
        sql += " AND c.begin_ms < ?";
        values.push(Box::new(before_ms));
    }
    if let (Some(request_id), Some(partner)) = (&query.request_id, &query.concerns) {
        sql += " AND c.id = ?";
        values.push(Box::new(PaymentId::derive(partner, request_id).as_bytes().to_vec()));
    }
    if !query.states.is_empty() {
        let mut codes: Vec<_> = query.states.iter().map(|state| state_code(state).to_string()).collect();
        if query.states.contains(&"DISPUTED") {
            codes.push(DISPUTED_QUIET.to_string());
        }
        sql += &format!(" AND (p.state IN ({}) OR p.state IS NULL)", codes.join(", "));
    }
    sql += " ORDER BY c.begin_ms DESC, c.id DESC LIMIT ?";
    values.push(Box::new(query.limit as i64));
    let values: Vec<&dyn ToSql> = values.iter().map(AsRef::as_ref).collect();
    let position = |row: &Row<'_>| {
        Ok(ListPosition {
            begin_ms: row.get(0)?,
            id: PaymentId::from_bytes(row.get(1)?),
        })
    };
    let positions: Vec<ListPosition> = connection
        .prepare_cached(&sql)
        .and_then(|mut statement| statement.query_map(&*values, position)?.collect())
        .map_err(read_error)?;
    let unsummed_to = unsummed_to(connection)?;
    let listed = |position: ListPosition| Listed {
        position,
        history: history(connection, position.id, None, unsummed_to)
            .and_then(|history| is_listed_rightly(&history, position, query).map(|()| history)),
    };
    Ok(positions.into_iter().map(listed).collect())
}

/// Whether the payment is one that belongs at the place of the list at which it was found.
fn is_listed_rightly(history: &History, position: ListPosition, query: &ListQuery) -> Result<(), StoreError> {
    let State::Present(transaction) = fold_history(history)? else {
        return Err(StoreError::Damaged(format!(
            "{}: it is listed and not there",
            position.id
        )));
    };
    let terms = &transaction.terms;
    let concerned = query.concerns.as_ref().is_none_or(|partner| terms.concerns(partner));
    if terms.begin_ms != position.begin_ms || !concerned {
        return Err(StoreError::Damaged(format!(
            "{}: it is listed in a wrong place",
            position.id
        )));
    }
    Ok(())
}

/// Changes, each with the payment as it was right after it. Up to `head` every number is there: what cannot be found is
/// as absent as what cannot be read.
pub fn changes(connection: &Connection, after: u64, limit: usize, head: u64) -> Result<Vec<Change>, StoreError> {
    let found: BTreeMap<u64, (PaymentId, u32)> = sequences(connection, after, limit)?
        .into_iter()
        .map(|(sequence, id, version)| (sequence, (id, version)))
        .collect();
    let unsummed_to = unsummed_to(connection)?;
    let last = found.keys().next_back().copied().unwrap_or(0).max(head);
    (after + 1..=last)
        .take(limit)
        .map(|sequence| {
            let state = match found.get(&sequence) {
                Some((id, version)) => history(connection, *id, Some((*version, sequence)), unsummed_to)
                    .and_then(|history| fold_history(&history)),
                None => Err(StoreError::Damaged(format!("change {sequence} cannot be found"))),
            };
            match state {
                Ok(state) => Ok(Change { sequence, state }),
                // Its number counts; what it was is lost to watchers, and they are not held up by it.
                Err(StoreError::Damaged(error)) => {
                    tracing::error!(sequence, error, "a change cannot be read");
                    Ok(Change {
                        sequence,
                        state: State::Absent,
                    })
                }
                Err(error) => Err(error),
            }
        })
        .collect()
}

/// Which change was which payment's, in the order of their numbers.
pub fn sequences(connection: &Connection, after: u64, limit: usize) -> Result<Vec<(u64, PaymentId, u32)>, StoreError> {
    connection
        .prepare_cached("SELECT sequence, id, version FROM record WHERE sequence > ?1 ORDER BY sequence LIMIT ?2")
        .and_then(|mut statement| {
            let row = |row: &Row<'_>| Ok((row.get(0)?, PaymentId::from_bytes(row.get(1)?), row.get(2)?));
            statement.query_map(params![after, limit as i64], row)?.collect()
        })
        .map_err(read_error)
}

/// The records of a payment, all or up to a version whose sequence number is known. Whatever is not as it was written is
/// damaged: the payment's own row, each record's sum, and how the two fit, for each is found by a search of its own, and
/// a search that goes astray in a damaged page finds nothing.
fn history(
    connection: &Connection,
    id: PaymentId,
    up_to: Option<(u32, u64)>,
    unsummed_to: u64,
) -> Result<History, StoreError> {
    let damaged = |problem: &dyn Display| StoreError::Damaged(format!("{id}: {problem}"));
    let version_max = up_to.map_or(u32::MAX, |(version, _)| version);
    // One statement, so that both are of one instant.
    let rows: Vec<(Option<PaymentRow>, Option<RecordRow>)> = connection
        .prepare_cached(
            "SELECT p.version, p.state, p.begin_ms, r.version, r.sequence, r.data, r.sum
             FROM (SELECT ?1 AS bucket, ?2 AS id) AS k
             LEFT JOIN payment AS p ON p.bucket = k.bucket AND p.id = k.id
             LEFT JOIN record AS r ON r.bucket = k.bucket AND r.id = k.id AND r.version <= ?3
             ORDER BY r.version",
        )
        .and_then(|mut statement| {
            let rows = statement.query_map(params![id.bucket(), id.as_bytes(), version_max], |row| {
                Ok((PaymentRow::read(row)?, RecordRow::read(row)?))
            })?;
            rows.collect()
        })
        .map_err(read_error)?;
    let payment = rows.first().and_then(|(payment, _)| *payment);
    let mut records = Vec::with_capacity(rows.len());
    let mut last_sequence = 0;
    for (expected, row) in (1..).zip(rows.into_iter().filter_map(|(_, record)| record)) {
        let old = row.sum.is_none() && row.sequence <= unsummed_to;
        if row.version != expected || !(old || row.sum == Some(record_sum(row.sequence, id, expected, &row.data))) {
            return Err(damaged(&format_args!(
                "its record {expected} is missing or its checksum is wrong"
            )));
        }
        records.push(codec::decode_record(id, &row.data).map_err(|error| damaged(&error))?);
        last_sequence = row.sequence;
    }
    let history = History { id, records };
    let Some(payment) = payment else {
        return match history.records.len() {
            0 => Ok(history),
            count => Err(damaged(&format_args!("it has {count} records and is not there itself"))),
        };
    };
    let expected = version_max.min(payment.version);
    if history.records.len() != expected as usize {
        let found = history.records.len();
        return Err(damaged(&format_args!("of its {expected} records {found} are there")));
    }
    match up_to {
        Some((version, sequence)) if payment.version < version || last_sequence != sequence => Err(damaged(
            &format_args!("its record {version} is not the change {sequence}"),
        )),
        Some(_) => Ok(history),
        None => match fold_history(&history)? {
            State::Present(transaction)
                if payment.state == stored_state(&transaction) && payment.begin_ms == transaction.terms.begin_ms =>
            {
                Ok(history)
            }
            State::Present(_) | State::Absent => Err(damaged(&"its records are not what it says of itself")),
        },
    }
}

fn fold_history(history: &History) -> Result<State, StoreError> {
    fold(&history.records).map_err(|error| StoreError::Damaged(format!("{}: {error}", history.id)))
}

#[derive(Clone, Copy)]
struct PaymentRow {
    version: u32,
    state: i64,
    begin_ms: i64,
}

impl PaymentRow {
    /// A column that should not be empty and is makes an error.
    fn read(row: &Row<'_>) -> rusqlite::Result<Option<Self>> {
        if (0..3).all(|column| row.get_ref(column).is_ok_and(|value| value == ValueRef::Null)) {
            return Ok(None);
        }
        Ok(Some(Self {
            version: row.get(0)?,
            state: row.get(1)?,
            begin_ms: row.get(2)?,
        }))
    }
}

struct RecordRow {
    version: u32,
    sequence: u64,
    data: Vec<u8>,
    sum: Option<u32>,
}

impl RecordRow {
    fn read(row: &Row<'_>) -> rusqlite::Result<Option<Self>> {
        if row.get_ref(4)? == ValueRef::Null {
            return Ok(None);
        }
        Ok(Some(Self {
            version: row.get(3)?,
            sequence: row.get(4)?,
            data: row.get(5)?,
            sum: row.get(6)?,
        }))
    }
}
