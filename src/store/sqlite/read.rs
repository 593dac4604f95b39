//! Reads, on connections of their own.

use rusqlite::{Connection, OptionalExtension, Row, ToSql, params};

use super::{
    super::{Change, History, ListPosition, ListQuery, Listed, StoreError, StoredQuote, codec},
    read_error,
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

/// The number of the last change.
pub fn head(connection: &Connection) -> rusqlite::Result<u64> {
    connection.query_row("SELECT coalesce(max(sequence), 0) FROM record", [], |row| row.get(0))
}

/// A quote.
pub fn quote(connection: &Connection, id: QuoteId) -> Result<Option<StoredQuote>, StoreError> {
    let row: Option<(Vec<u8>, Option<[u8; 16]>)> = connection
        .prepare_cached("SELECT data, taken_by FROM quote WHERE bucket = ?1 AND id = ?2")
        .and_then(|mut statement| {
            statement
                .query_row(params![id.bucket(), id.as_bytes()], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })
                .optional()
        })
        .map_err(read_error)?;
    let Some((data, taken_by)) = row else { return Ok(None) };
    let quote = codec::decode_quote(id, &data).map_err(|error| StoreError::Damaged(format!("{id}: {error}")))?;
    Ok(Some(StoredQuote {
        quote,
        taken_by: taken_by.map(PaymentId::from_bytes),
    }))
}

/// A payment.
pub fn payment(connection: &Connection, id: PaymentId) -> Result<Option<History>, StoreError> {
    let history = history(connection, id, u32::MAX)?;
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
            "SELECT c.begin_ms, c.id FROM concern c JOIN payment p ON p.bucket = c.bucket AND p.id = c.id
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
        sql += &format!(" AND p.state IN ({})", codes.join(", "));
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
    let listed = |position: ListPosition| Listed {
        position,
        history: history(connection, position.id, u32::MAX),
    };
    Ok(positions.into_iter().map(listed).collect())
}

/// Changes, each with the payment as it was right after it.
pub fn changes(connection: &Connection, after: u64, limit: usize) -> Result<Vec<Change>, StoreError> {
    let rows: Vec<(u64, [u8; 16], u32)> = connection
        .prepare_cached("SELECT sequence, id, version FROM record WHERE sequence > ?1 ORDER BY sequence LIMIT ?2")
        .and_then(|mut statement| {
            let rows = statement.query_map(params![after, limit as i64], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })?;
            rows.collect()
        })
        .map_err(read_error)?;
    rows.into_iter()
        .map(|(sequence, id, version)| {
            let id = PaymentId::from_bytes(id);
            let state = history(connection, id, version).and_then(|history| {
                fold(&history.records).map_err(|error| StoreError::Damaged(format!("{id}: {error}")))
            });
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

fn history(connection: &Connection, id: PaymentId, version_max: u32) -> Result<History, StoreError> {
    let rows: Vec<Vec<u8>> = connection
        .prepare_cached("SELECT data FROM record WHERE bucket = ?1 AND id = ?2 AND version <= ?3 ORDER BY version")
        .and_then(|mut statement| {
            let rows = statement.query_map(params![id.bucket(), id.as_bytes(), version_max], |row| row.get(0))?;
            rows.collect()
        })
        .map_err(read_error)?;
    let records = rows
        .iter()
        .map(|data| codec::decode_record(id, data))
        .collect::<Result<_, _>>()
        .map_err(|error| StoreError::Damaged(format!("{id}: {error}")))?;
    Ok(History { id, records })
}
