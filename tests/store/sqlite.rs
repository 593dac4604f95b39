//! What is special to a file.

use std::{fs, path::Path, sync::Arc, time::Duration};

use causeway::{
    payment::OrderPricing,
    store::{AppendOutcome, BeginOutcome, SqliteOptions, SqliteStore, Store, StoreError},
};

use crate::made;

fn open(path: &Path) -> Result<Arc<dyn Store>, StoreError> {
    Ok(Arc::new(SqliteStore::open(SqliteOptions::new(path))?))
}

fn problem(path: &Path) -> String {
    match open(path) {
        Err(error @ StoreError::Unusable { .. }) => error.to_string(),
        Err(error) => panic!("another error: {error:?}"),
        Ok(_) => panic!("should not open"),
    }
}

#[tokio::test]
async fn a_second_opening_is_refused_while_the_first_lasts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.sqlite");
    let first = open(&path).unwrap();
    assert!(problem(&path).contains("another process is using this store"));
    // And it has done the first no harm.
    first.put_quote(made::quote(1)).await.unwrap();
    drop(first);
    assert!(open(&path).unwrap().quote(made::quote_id(1)).await.unwrap().is_some());
}

#[test]
fn files_that_are_not_ours_are_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);

    fs::write(
        path("text"),
        "not a database, but long enough to be read as the header of one".repeat(20),
    )
    .unwrap();
    let foreign = rusqlite::Connection::open(path("foreign")).unwrap();
    foreign
        .execute_batch("CREATE TABLE theirs (x); INSERT INTO theirs VALUES (1)")
        .unwrap();
    drop(foreign);
    drop(open(&path("newer")).unwrap());
    let newer = rusqlite::Connection::open(path("newer")).unwrap();
    newer.pragma_update(None, "user_version", 99).unwrap();
    drop(newer);
    drop(open(&path("buckets")).unwrap());
    let buckets = rusqlite::Connection::open(path("buckets")).unwrap();
    buckets
        .execute("UPDATE meta SET value = 7 WHERE key = 'buckets'", [])
        .unwrap();
    drop(buckets);

    for (name, needle) in [
        ("text", "is not a SQLite database"),
        ("foreign", "not Causeway's"),
        ("newer", "schema version 99; this version of Causeway knows up to 2"),
        ("buckets", "has 7 buckets"),
        ("no-such-folder/store", "cannot be opened"),
    ] {
        let before = fs::read(path(name)).ok();
        let message = problem(&path(name));
        assert!(message.contains(needle) && message.contains(name), "{name}: {message}");
        assert_eq!(fs::read(path(name)).ok(), before, "{name} was changed");
    }
    assert!(!path("no-such-folder").exists());
}

#[tokio::test]
async fn a_damaged_file_is_refused_or_says_so_when_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.sqlite");
    let store = open(&path).unwrap();
    for n in 0..50 {
        store.put_quote(made::quote(n)).await.unwrap();
        store.begin(made::begin(&made::terms("apple-pay", n))).await.unwrap();
    }
    drop(store);
    let whole = fs::read(&path).unwrap();
    let (mut refused, mut damaged) = (0, 0);
    // The header, and then every page after the schema's, overwritten one at a time.
    let pages = whole.len() / 4_096;
    for page in 0..pages {
        let mut bytes = whole.clone();
        bytes[page * 4_096..(page + 1) * 4_096].fill(0xA5);
        fs::write(&path, &bytes).unwrap();
        match open(&path) {
            Err(StoreError::Unusable { problem, .. }) => {
                assert!(
                    problem.contains("damaged") || problem.contains("not a SQLite"),
                    "{problem}"
                );
                refused += 1;
            }
            Err(error) => panic!("another error: {error:?}"),
            Ok(store) => {
                for n in 0..50 {
                    match store.payment(made::terms("apple-pay", n).id).await {
                        Ok(Some(history)) => {
                            assert_eq!(history.records, [made::begun(&made::terms("apple-pay", n))]);
                        }
                        Err(StoreError::Damaged(_)) => damaged += 1,
                        // A page of the table that holds the whole index of a payment.
                        Ok(None) => panic!("payment {n} is gone without a word (page {page})"),
                        Err(error) => panic!("another error: {error:?}"),
                    }
                }
            }
        }
    }
    assert!(
        refused > 0 && damaged > 0,
        "refused {refused}, damaged {damaged} of {pages} pages"
    );
}

#[tokio::test]
async fn a_full_disk_refuses_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let options = SqliteOptions {
        pages_max: Some(60),
        ..SqliteOptions::new(folder.path().join("store.sqlite"))
    };
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(options.clone()).unwrap());
    let mut acknowledged = Vec::new();
    let refusal = loop {
        let n = acknowledged.len() as u64;
        assert!(n < 10_000, "the store never filled");
        match store.put_quote(made::quote(n)).await {
            Ok(()) => acknowledged.push(n),
            Err(error) => break error,
        }
    };
    assert!(
        matches!(&refusal, StoreError::Unavailable(message) if message.contains("full")),
        "{refusal:?}"
    );
    assert!(
        store.failure().borrow().is_none(),
        "a full disk is not the end of the store"
    );
    for n in &acknowledged {
        assert!(
            store.quote(made::quote_id(*n)).await.unwrap().is_some(),
            "quote {n} was acknowledged"
        );
    }
    // Room again: the same store goes on.
    let lapsed_ms = made::quote(0).expire_ms + 1;
    assert!(store.forget_quotes(lapsed_ms).await.unwrap() > 0);
    store.put_quote(made::quote(100_000)).await.unwrap();
}

#[tokio::test]
async fn a_queue_that_is_full_refuses_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let options = SqliteOptions {
        queue_max: 8,
        ..SqliteOptions::new(folder.path().join("store.sqlite"))
    };
    let store = SqliteStore::open(options).unwrap();
    let pending: Vec<_> = (0..2_000).map(|n| store.put_quote(made::quote(n))).collect();
    let (mut kept, mut refused) = (Vec::new(), 0);
    for (n, pending) in pending.into_iter().enumerate() {
        match pending.await {
            Ok(()) => kept.push(n as u64),
            Err(StoreError::Unavailable(message)) => {
                assert!(message.contains("too many writes"), "{message}");
                refused += 1;
            }
            Err(error) => panic!("another error: {error:?}"),
        }
    }
    assert!(
        !kept.is_empty() && refused > 0,
        "kept {}, refused {refused}",
        kept.len()
    );
    for n in kept {
        assert!(store.quote(made::quote_id(n)).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn reads_do_not_wait_for_the_writer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.sqlite");
    let store = open(&path).unwrap();
    store.put_quote(made::quote(1)).await.unwrap();
    // Somebody holds the file's write lock: our writer waits, our readers do not.
    let blocker = rusqlite::Connection::open(&path).unwrap();
    blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
    let write = store.put_quote(made::quote(2));
    let read = tokio::time::timeout(Duration::from_secs(2), store.quote(made::quote_id(1))).await;
    assert!(read.expect("a read waited for the writer").unwrap().is_some());
    blocker.execute_batch("ROLLBACK").unwrap();
    write.await.unwrap();
}

#[tokio::test]
async fn writes_that_nobody_waits_for_do_not_hold_up_the_others() {
    // A lazy write lingers for company; one that somebody waits for must not linger with it.
    let folder = tempfile::tempdir().unwrap();
    let linger = Duration::from_secs(30);
    let options = SqliteOptions {
        linger,
        ..SqliteOptions::new(folder.path().join("store.sqlite"))
    };
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(options).unwrap());
    let mut terms = (*made::terms("apple-pay", 1)).clone();
    store.put_quote(made::quote(1)).await.unwrap();
    terms.order.pricing = OrderPricing::Quote(made::quote_id(1));
    let terms = Arc::new(terms);
    assert_eq!(store.begin(made::begin(&terms)).await.unwrap(), BeginOutcome::Begun);
    let records = [
        made::begun(&terms),
        made::committed(terms.begin_ms),
        made::ended(terms.begin_ms),
    ];
    store.append(made::append(terms.id, &records[..2], 1)).await.unwrap();
    let lazy = store.append(made::append(terms.id, &records, 1));
    let forced = store.put_quote(made::quote(2));
    tokio::time::timeout(Duration::from_secs(10), forced)
        .await
        .expect("waited for the lazy write")
        .unwrap();
    tokio::time::timeout(Duration::from_secs(10), lazy)
        .await
        .expect("was not taken along")
        .unwrap();
}

#[tokio::test]
async fn a_write_that_the_file_refuses_does_not_take_its_neighbours_along() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.sqlite");
    let store = open(&path).unwrap();
    let payments: Vec<_> = (0..20).map(|n| made::terms("apple-pay", n)).collect();
    for (n, terms) in (0..).zip(&payments) {
        store.put_quote(made::quote(n)).await.unwrap();
        store.begin(made::begin(terms)).await.unwrap();
    }
    drop(store);
    // A record that should not be there stands where the next one of the seventh belongs.
    let file = rusqlite::Connection::open(&path).unwrap();
    let id = payments[7].id;
    file.execute(
        "INSERT INTO record (sequence, bucket, id, version, data) VALUES (-1, ?1, ?2, 2, x'00')",
        rusqlite::params![id.bucket(), id.as_bytes()],
    )
    .unwrap();
    drop(file);
    let store = open(&path).unwrap();
    let appends: Vec<_> = payments
        .iter()
        .map(|terms| {
            let records = [made::begun(terms), made::committed(terms.begin_ms)];
            store.append(made::append(terms.id, &records, 1))
        })
        .collect();
    for (n, append) in appends.into_iter().enumerate() {
        let outcome = append.await;
        match n {
            7 => assert!(matches!(outcome, Err(StoreError::Damaged(_))), "{outcome:?}"),
            _ => assert_eq!(outcome.unwrap(), AppendOutcome::Appended, "payment {n}"),
        }
    }
}

#[tokio::test]
async fn a_store_of_the_first_version_is_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.sqlite");
    let store = open(&path).unwrap();
    let old: Vec<_> = (0..40).map(|n| made::terms("apple-pay", n)).collect();
    for (n, terms) in (0..).zip(&old) {
        store.put_quote(made::quote(n)).await.unwrap();
        store.begin(made::begin(terms)).await.unwrap();
    }
    store.put_quote(made::quote(100)).await.unwrap();
    drop(store);
    // As it was before rows had checksums.
    let file = rusqlite::Connection::open(&path).unwrap();
    file.execute_batch(
        "ALTER TABLE record DROP COLUMN sum; ALTER TABLE quote DROP COLUMN sum; ALTER TABLE quote DROP COLUMN taken_sum;
         DELETE FROM meta WHERE key <> 'buckets'; PRAGMA user_version = 1;",
    )
    .unwrap();
    drop(file);
    fs::remove_file(folder.path().join("store.sqlite.mark")).unwrap();

    let store = SqliteStore::open(SqliteOptions::new(&path)).unwrap();
    // What was there is there, goes on, and has company.
    for terms in &old[..20] {
        let records = [made::begun(terms), made::committed(terms.begin_ms)];
        let append = made::append(terms.id, &records, 1);
        assert_eq!(store.append(append).await.unwrap(), AppendOutcome::Appended);
    }
    let mut taker = (*made::terms("apple-pay", 200)).clone();
    taker.order.pricing = OrderPricing::Quote(made::quote_id(100));
    let taker = Arc::new(taker);
    assert_eq!(store.begin(made::begin(&taker)).await.unwrap(), BeginOutcome::Begun);
    for terms in old.iter().chain([&taker]) {
        assert!(store.payment(terms.id).await.unwrap().is_some());
        let OrderPricing::Quote(quote) = terms.order.pricing else {
            panic!("by a quote")
        };
        let quote = store.quote(quote).await.unwrap().unwrap();
        assert_eq!(quote.taken_by, Some(terms.id));
    }
    let checked = store.check().await.unwrap();
    assert_eq!((checked.payments, checked.changes, checked.quotes), (41, 61, 41));
    assert_eq!(checked.problems, [""; 0]);
    drop(store);
    // A new row without a checksum is damage, not an old one.
    let file = rusqlite::Connection::open(&path).unwrap();
    assert_eq!(file.execute("UPDATE record SET sum = NULL", []).unwrap(), 61);
    drop(file);
    let error = problem(&path);
    assert!(error.contains("checksum is wrong"), "{error}");
}
