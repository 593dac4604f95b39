//! Bits turned over, in the log and in the main file.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use super::{
    FILE, MARK, Model, Random, Replay, Step, WAL, block_on, copy, history, initiator, made, open, options, quote,
    scratch, small_pages, steps_in,
    tally::{self, Tally},
    terms, write,
};
use causeway::{
    coordinator::protocol::State,
    store::{ListQuery, SqliteStore, Store, StoreError},
};

#[test]
fn a_flip_in_the_log_is_never_a_shorter_history() {
    let _replay = Replay("fire::flips");
    let mut random = Random::new("log flips");
    let mut tally = Tally::default();
    let mut steps = history(12);
    // The last commit adds no change: the numbers alone do not tell that it is missing.
    steps.push(Step::Quote(12));
    let live = scratch();
    small_pages(live.path());
    let kept = scratch();
    let log_end = block_on(async {
        let store = SqliteStore::open(options(live.path())).unwrap();
        let watch = rusqlite::Connection::open(live.path().join(FILE)).unwrap();
        let mut model = Model::default();
        for (index, step) in steps.iter().enumerate() {
            if index == steps.len() / 2 {
                watch
                    .query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(()))
                    .unwrap();
            }
            write(&store, &mut model, *step).await.unwrap();
        }
        copy(live.path(), kept.path(), &[FILE, WAL, MARK]);
        let frames: usize = watch
            .query_row("PRAGMA wal_checkpoint(NOOP)", [], |row| row.get(1))
            .unwrap();
        32 + frames * 536
    });
    let log = fs::read(kept.path().join(WAL)).unwrap();
    assert!(log.len() > log_end + 536, "there are frames of an earlier round");
    // Without the mark the log alone has to tell; damage to the last commit looks as if it were being written.
    let mut shortened = 0;
    block_on(async {
        for round in 0..700 {
            let position = match round {
                0..64 => round / 2,
                _ => random.below(log.len()),
            };
            let mut flipped = log.clone();
            flipped[position] ^= 1 << random.below(8);
            for with_mark in [true, false] {
                let folder = scratch();
                copy(
                    kept.path(),
                    folder.path(),
                    if with_mark { &[FILE, MARK] } else { &[FILE] },
                );
                fs::write(folder.path().join(WAL), &flipped).unwrap();
                let opened = open(folder.path());
                tally.flips += 1;
                match opened {
                    Err(problem) => {
                        assert!(
                            position < log_end,
                            "refuses for a frame that is of no use any more: {problem}"
                        );
                        assert!(
                            problem.contains("damaged") && problem.contains("acknowledged"),
                            "{problem}"
                        );
                        tally.refused += 1;
                    }
                    Ok(store) => {
                        let count = steps_in(&store, &steps).await;
                        if with_mark || position >= log_end {
                            assert_eq!(
                                count,
                                steps.len(),
                                "flip at {position}: opens without what was acknowledged"
                            );
                        } else {
                            shortened += usize::from(count < steps.len());
                            assert!(
                                count + 2 >= steps.len(),
                                "flip at {position}: {count} of {} steps",
                                steps.len()
                            );
                        }
                    }
                }
            }
        }
    });
    println!("log flips without a mark: {shortened} of 700 shortened the history by the last commits");
    assert!(tally.refused > 600, "{tally:?}");
    tally::done("flips in the log", tally);
}

/// What came of reading all of a store whose file is damaged.
#[derive(Debug, Default)]
struct Seen {
    /// Reads that said so.
    damaged: u64,
    /// What is missing or otherwise, and no read said so.
    silent: Vec<String>,
    /// What the whole look found.
    problems: Vec<String>,
}

#[test]
fn a_flip_in_the_file_is_never_a_lie() {
    let _replay = Replay("fire::flips");
    let mut random = Random::new("file flips");
    let steps = history(24);
    let live = scratch();
    small_pages(live.path());
    let mut model = Model::default();
    block_on(async {
        let store = SqliteStore::open(options(live.path())).unwrap();
        for step in &steps {
            write(&store, &mut model, *step).await.unwrap();
        }
        // Free ones.
        for n in 500..506 {
            store.put_quote(made::quote(n)).await.unwrap();
            model.quotes.insert(n, None);
        }
    });
    let whole = fs::read(live.path().join(FILE)).unwrap();
    let pages = whole.len() / 512;
    assert!(pages > 60, "{pages} pages");

    // Every bit of the file's header, of the headers of all pages, and others by lot.
    let mut bits: BTreeSet<usize> = (0..100 * 8).step_by(3).collect();
    for page in 1..pages {
        bits.extend((0..8).map(|_| (page * 512 + random.below(16)) * 8 + random.below(8)));
    }
    while bits.len() < 1_500 {
        bits.insert(random.below(whole.len() * 8));
    }
    let mut tally = Tally::default();
    let (mut found_by_check, mut harmless) = (0, 0);
    for bit in bits {
        let folder = scratch();
        copy(live.path(), folder.path(), &[MARK]);
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        fs::write(folder.path().join(FILE), flipped).unwrap();
        tally.flips += 1;
        let Ok(store) = open(folder.path()) else {
            tally.refused += 1;
            continue;
        };
        let seen = block_on(look(&store, &model));
        let at = format!(
            "bit {} of byte {} of page {}",
            bit % 8,
            bit / 8 % 512,
            bit / 8 / 512 + 1
        );
        tally.damaged += seen.damaged;
        match (seen.damaged, seen.silent.len(), seen.problems.len()) {
            (0, 0, 0) => harmless += 1,
            (_, 0, _) => {}
            // Nothing wrong is shown, but something is not shown: the look through all of it must find that.
            (_, _, 0) => panic!("{at}: nobody says a word of {:?}", seen.silent),
            (_, _, _) => found_by_check += 1,
        }
    }
    println!(
        "file flips: {} refused, {} reads damaged, {found_by_check} hid something and were found by the check, {harmless} \
         harmless",
        tally.refused, tally.damaged
    );
    assert!(
        tally.refused > 100 && tally.damaged > 1_000 && found_by_check > 0,
        "{tally:?}"
    );
    tally::done("flips in the file", tally);
}

/// Reads all that there is. Panics at a lie: another amount, state, account, order or taker than there was.
async fn look(store: &SqliteStore, model: &Model) -> Seen {
    let mut seen = Seen::default();
    let ids: BTreeMap<_, _> = model.payments.keys().map(|n| (terms(*n).id, *n)).collect();
    for (id, n) in &ids {
        match store.payment(*id).await {
            Ok(Some(history)) => assert_eq!(history.records, model.payments[n], "a lie about payment {n}"),
            // A participant that asks would be told to abort.
            Ok(None) => panic!("a lie: payment {n} never was"),
            Err(StoreError::Damaged(_)) => seen.damaged += 1,
            Err(error) => panic!("another error: {error:?}"),
        }
    }
    for (n, taken_by) in &model.quotes {
        match store.quote(made::quote_id(*n)).await {
            Ok(Some(stored)) => {
                assert_eq!(stored.quote, *quote(*n), "a lie about quote {n}");
                assert_eq!(
                    stored.taken_by,
                    taken_by.map(|by| terms(by).id),
                    "a lie about quote {n}"
                );
            }
            Ok(None) => seen.silent.push(format!("quote {n}")),
            Err(StoreError::Damaged(_)) => seen.damaged += 1,
            Err(error) => panic!("another error: {error:?}"),
        }
    }
    lists(store, model, &mut seen).await;
    match store.changes(0, 10_000).await {
        Ok(changes) => {
            assert_eq!(changes.len(), model.changes.len(), "changes are not shown");
            let mut versions: BTreeMap<u64, usize> = BTreeMap::new();
            for ((expected, n), change) in (1..).zip(&model.changes).zip(&changes) {
                assert_eq!(change.sequence, expected);
                let version = versions.entry(*n).or_default();
                *version += 1;
                match &change.state {
                    State::Absent => seen.damaged += 1,
                    state => assert_eq!(
                        *state,
                        made::state(&model.payments[n][..*version]),
                        "a lie about {expected}"
                    ),
                }
            }
        }
        Err(StoreError::Damaged(_)) => seen.damaged += 1,
        Err(error) => panic!("another error: {error:?}"),
    }
    match store.check().await {
        Ok(checked) => seen.problems = checked.problems,
        Err(StoreError::Damaged(problem)) => seen.problems.push(problem),
        Err(error) => panic!("another error: {error:?}"),
    }
    seen
}

async fn lists(store: &SqliteStore, model: &Model, seen: &mut Seen) {
    match store.unfinished(None, 1_000).await {
        Ok(found) => {
            for id in model.unfinished() {
                if !found.contains(&id) {
                    seen.silent.push(format!("{id} is unfinished"));
                }
            }
        }
        Err(StoreError::Damaged(_)) => seen.damaged += 1,
        Err(error) => panic!("another error: {error:?}"),
    }
    for name in ["apple-pay", "alipay"] {
        let query = ListQuery {
            concerns: Some(made::partner(name)),
            limit: 1_000,
            ..Default::default()
        };
        let mut expected: Vec<u64> = model.payments.keys().copied().collect();
        expected.reverse();
        match store.list(query).await {
            Ok(listed) => {
                let mut shown = Vec::new();
                let mut damaged = Vec::new();
                for listed in listed {
                    match listed.history {
                        Ok(history) => {
                            let n = model.payments.keys().find(|n| terms(**n).id == history.id);
                            let n = *n.expect("a payment that never was is listed");
                            assert_eq!(history.records, model.payments[&n], "a lie about payment {n} in a list");
                            assert!([initiator(n), "apple-pay", "alipay"].contains(&name));
                            shown.push(n);
                        }
                        Err(StoreError::Damaged(_)) => damaged.push(listed.position.id),
                        Err(error) => panic!("another error: {error:?}"),
                    }
                }
                seen.damaged += damaged.len() as u64;
                // Those that it says it cannot show may stand anywhere.
                expected.retain(|n| !damaged.contains(&terms(*n).id));
                shown.retain(|n| !damaged.contains(&terms(*n).id));
                if shown != expected {
                    seen.silent
                        .push(format!("the list of {name} is {shown:?}, not {expected:?}"));
                }
            }
            Err(StoreError::Damaged(_)) => seen.damaged += 1,
            Err(error) => panic!("another error: {error:?}"),
        }
    }
}
