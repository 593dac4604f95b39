//! The tables, and how an older file comes to have them.

use rusqlite::{Connection, TransactionBehavior};

use super::{SqliteOptions, StoreError, unusable};
use crate::payment::BUCKETS;

/// Marks the file as ours: "CSWY" (SQLite `application_id`).
const APPLICATION_ID: i32 = 0x4353_5759;

/// Each brings the file from the version that is its place in the list to the next. Never changed, only added to.
const MIGRATIONS: [&str; 2] = [
    "
    CREATE TABLE meta (
        key   TEXT NOT NULL PRIMARY KEY,
        value INTEGER NOT NULL
    ) WITHOUT ROWID;

    -- What a query or a compare-and-set needs of a payment; all else is in its records.
    CREATE TABLE payment (
        bucket   INTEGER NOT NULL,
        id       BLOB NOT NULL,
        version  INTEGER NOT NULL,
        state    INTEGER NOT NULL,
        begin_ms INTEGER NOT NULL,
        PRIMARY KEY (bucket, id)
    ) WITHOUT ROWID;
    -- Recovery reads these alone, however many have ended. 3 is COMPLETED, 5 is ABORTED;
    -- 7 is a dispute that waits for an operator alone.
    CREATE INDEX payment_unfinished ON payment (bucket, id) WHERE state NOT IN (3, 5);

    -- The truth. The sequence is the feed's.
    CREATE TABLE record (
        sequence INTEGER NOT NULL PRIMARY KEY,
        bucket   INTEGER NOT NULL,
        id       BLOB NOT NULL,
        version  INTEGER NOT NULL,
        data     BLOB NOT NULL
    );
    CREATE UNIQUE INDEX record_of_payment ON record (bucket, id, version);

    -- Whom a payment concerns, in the order in which it is listed.
    CREATE TABLE concern (
        partner  TEXT NOT NULL,
        begin_ms INTEGER NOT NULL,
        id       BLOB NOT NULL,
        bucket   INTEGER NOT NULL,
        PRIMARY KEY (partner, begin_ms, id)
    ) WITHOUT ROWID;

    CREATE TABLE quote (
        bucket    INTEGER NOT NULL,
        id        BLOB NOT NULL,
        expire_ms INTEGER NOT NULL,
        taken_by  BLOB,
        data      BLOB NOT NULL,
        PRIMARY KEY (bucket, id)
    ) WITHOUT ROWID;
    CREATE INDEX quote_free ON quote (expire_ms) WHERE taken_by IS NULL;
",
    "
    -- Checksums of rows: src/store/sqlite/sum.rs. Rows from before have none.
    ALTER TABLE record ADD COLUMN sum INTEGER;
    ALTER TABLE quote ADD COLUMN sum INTEGER;
    ALTER TABLE quote ADD COLUMN taken_sum INTEGER;
    -- Up to this change a record may be without a sum, and if there is such a change at all a quote may.
    INSERT INTO meta (key, value)
        SELECT 'unsummed_to', max(coalesce((SELECT max(sequence) FROM record), 0), EXISTS (SELECT 1 FROM quote));
    -- How often the store was opened.
    INSERT INTO meta (key, value) VALUES ('opened', 0);
",
];

/// Checks that the file is ours or empty, sets the journal up, migrates, and sees that it can be written.
pub fn prepare(connection: &mut Connection, options: &SqliteOptions) -> Result<(), StoreError> {
    let path = &options.path;
    let map = |error: rusqlite::Error| unusable(path, &error);
    let foreign = |problem: String| StoreError::Unusable {
        path: path.display().to_string(),
        problem,
    };

    let application: i32 = connection
        .pragma_query_value(None, "application_id", |row| row.get(0))
        .map_err(map)?;
    let version: usize = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(map)?;
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(map)?;
    if application != APPLICATION_ID && (tables > 0 || application != 0 || version != 0) {
        return Err(foreign(
            "is a SQLite database, but not Causeway's; name another file".into(),
        ));
    }
    if version > MIGRATIONS.len() {
        return Err(foreign(format!(
            "has schema version {version}; this version of Causeway knows up to {}; run the newer one",
            MIGRATIONS.len()
        )));
    }

    let journal: String = connection
        .pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))
        .map_err(map)?;
    // Promise 13: every commit is an fsync.
    connection.pragma_update(None, "synchronous", "FULL").map_err(map)?;
    let synchronous: i64 = connection
        .pragma_query_value(None, "synchronous", |row| row.get(0))
        .map_err(map)?;
    // Where the file system has no shared memory SQLite stays in another mode, and says so here only.
    if journal != "wal" || synchronous != 2 {
        return Err(foreign(format!(
            "cannot be kept safe here: journal_mode is {journal}, synchronous is {synchronous}; wal and 2 are needed, on a \
             file system with shared memory and locks"
        )));
    }
    connection.pragma_update(None, "foreign_keys", "ON").map_err(map)?;
    if let Some(pages_max) = options.pages_max {
        connection
            .pragma_update(None, "max_page_count", pages_max)
            .map_err(map)?;
    }
    // A checkpoint rewrites pages in place; more of them at once cost less each.
    connection
        .pragma_update(None, "wal_autocheckpoint", 4_000)
        .map_err(map)?;

    if version < MIGRATIONS.len() {
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(map)?;
        for script in &MIGRATIONS[version..] {
            transaction.execute_batch(script).map_err(map)?;
        }
        if version == 0 {
            transaction
                .execute(
                    "INSERT INTO meta (key, value) VALUES ('buckets', ?1)",
                    [i64::from(BUCKETS)],
                )
                .map_err(map)?;
        }
        transaction
            .pragma_update(None, "application_id", APPLICATION_ID)
            .map_err(map)?;
        transaction
            .pragma_update(None, "user_version", MIGRATIONS.len())
            .map_err(map)?;
        transaction.commit().map_err(map)?;
    }

    let buckets: i64 = connection
        .query_row("SELECT value FROM meta WHERE key = 'buckets'", [], |row| row.get(0))
        .map_err(|error| match error {
            rusqlite::Error::QueryReturnedNoRows => foreign("is damaged: it does not say its number of buckets".into()),
            error => map(error),
        })?;
    if buckets != i64::from(BUCKETS) {
        return Err(foreign(format!(
            "has {buckets} buckets; this version of Causeway has {BUCKETS}"
        )));
    }
    if tables_of(connection).map_err(map)? != expected_tables().map_err(map)? {
        return Err(foreign(
            "is damaged: its tables are not described as they were made; restore it from a backup".into(),
        ));
    }
    // The first write, so that a file or folder that cannot be written is refused now and not with the first payment.
    connection
        .execute("UPDATE meta SET value = value + 1 WHERE key = 'opened'", [])
        .map_err(map)?;
    Ok(())
}

/// The tables and indexes as the file describes them.
fn tables_of(connection: &Connection) -> rusqlite::Result<Vec<[String; 4]>> {
    connection
        .prepare(
            // What ANALYZE leaves behind is nobody's damage.
            "SELECT type, name, tbl_name, coalesce(sql, '') FROM sqlite_schema
             WHERE tbl_name NOT LIKE 'sqlite_stat%' ORDER BY type, name",
        )?
        .query_map([], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?]))?
        .collect()
}

/// The same of a file that has just been made.
fn expected_tables() -> rusqlite::Result<Vec<[String; 4]>> {
    let connection = Connection::open_in_memory()?;
    for script in MIGRATIONS {
        connection.execute_batch(script)?;
    }
    tables_of(&connection)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrating_twice_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let options = SqliteOptions::new(folder.path().join("store.sqlite"));
        let mut connection = Connection::open(&options.path).unwrap();
        prepare(&mut connection, &options).unwrap();
        let dump = |connection: &Connection| -> Vec<String> {
            let mut statement = connection
                .prepare("SELECT coalesce(sql, '') FROM sqlite_schema ORDER BY name")
                .unwrap();
            statement
                .query_map([], |row| row.get(0))
                .unwrap()
                .map(Result::unwrap)
                .collect()
        };
        let before = dump(&connection);
        prepare(&mut connection, &options).unwrap();
        assert_eq!(dump(&connection), before);
        assert!(before.len() > 5);
    }
}
