//! The log cut at any byte, with whatever lies behind the cut.

use std::{collections::BTreeSet, fs};

use super::{
    FILE, MARK, Model, Random, Replay, Step, WAL, Written, block_on, copy, history, open, options, scratch,
    small_pages, steps_in,
    tally::{self, Tally},
    write,
};
use causeway::store::{SqliteStore, Store};

const PAGE: u64 = 512;
const FRAME: u64 = 24 + PAGE;

/// Writes the history and keeps the files as they are at its end, the log not folded in. With `restart_at`, all that came
/// before that step is folded in there, and the log starts again from its beginning over the frames of the round before.
fn written(steps: Vec<Step>, restart_at: Option<usize>) -> Written {
    let live = scratch();
    small_pages(live.path());
    let kept = scratch();
    let mut log_bytes = Vec::new();
    block_on(async {
        let store = SqliteStore::open(options(live.path())).unwrap();
        let watch = rusqlite::Connection::open(live.path().join(FILE)).unwrap();
        let mut model = Model::default();
        for (index, step) in steps.iter().enumerate() {
            if restart_at == Some(index) {
                let busy: bool = watch
                    .query_row("PRAGMA wal_checkpoint(RESTART)", [], |row| row.get(0))
                    .unwrap();
                assert!(!busy);
            }
            write(&store, &mut model, *step).await.unwrap();
            let frames: u64 = watch
                .query_row("PRAGMA wal_checkpoint(NOOP)", [], |row| row.get(1))
                .unwrap();
            let salts = fs::read(live.path().join(WAL)).unwrap()[16..24].try_into().unwrap();
            log_bytes.push((32 + frames * FRAME, salts));
        }
        copy(live.path(), kept.path(), &[FILE, WAL, MARK]);
    });
    Written {
        folder: kept,
        steps,
        log_bytes,
    }
}

/// How many steps had been acknowledged when this much of the final round of the log was there. Those of a round before
/// are in the main file.
fn acknowledged(written: &Written, bytes: u64) -> usize {
    let last = written.log_bytes.last().unwrap().1;
    let by_then = |(length, salts): &&(u64, [u8; 8])| *salts != last || *length <= bytes;
    written.log_bytes.iter().take_while(by_then).count()
}

/// Opens a copy whose log is this, and checks it; answers how many steps it has, or that it refuses.
async fn check(written: &Written, log: &[u8], files: &[&str]) -> Result<usize, String> {
    let folder = scratch();
    copy(written.folder.path(), folder.path(), files);
    fs::write(folder.path().join(WAL), log).unwrap();
    let store = open(folder.path())?;
    let count = steps_in(&store, &written.steps).await;
    // A store that opened takes the next write.
    if let Some(next) = written.steps.get(count) {
        write(&store, &mut Model::after(&written.steps[..count]), *next)
            .await
            .unwrap();
        assert_eq!(
            store.feed().head(),
            Model::after(&written.steps[..=count]).changes.len() as u64
        );
    }
    Ok(count)
}

/// Every byte of the header, of the last two frames, and of where commits meet; others by lot.
fn lengths(written: &Written, random: &mut Random, sampled: usize) -> BTreeSet<u64> {
    let end = written.log_bytes.last().unwrap().0;
    let mut lengths: BTreeSet<u64> = (0..=57).chain(end - 2 * FRAME..=end).collect();
    for (commit, _) in &written.log_bytes {
        lengths.extend(commit.saturating_sub(3)..=commit + 3);
    }
    lengths.extend((0..sampled).map(|_| random.below(end as usize) as u64));
    lengths.retain(|length| *length <= end);
    lengths
}

#[test]
fn a_log_that_is_cut_anywhere_keeps_what_was_acknowledged() {
    let _replay = Replay("fire::cuts");
    let mut random = Random::new("cuts");
    let mut tally = Tally::default();
    let steps = history(9);
    for restart_at in [None, Some(steps.len() * 2 / 3)] {
        let written = written(steps.clone(), restart_at);
        let log = fs::read(written.path(WAL)).unwrap();
        let end = written.log_bytes.last().unwrap().0;
        let old_behind = log.len() as u64 > end;
        assert_eq!(
            old_behind,
            restart_at.is_some(),
            "frames of the round before lie behind the end"
        );
        block_on(async {
            for length in lengths(&written, &mut random, 200) {
                // The process was killed as it wrote, or the power went: the mark is as old as can be.
                let cut = &log[..length as usize];
                let expected = acknowledged(&written, length);
                let count = check(&written, cut, &[FILE]).await.unwrap_or_else(|problem| {
                    panic!("cut at {length} of {end} it refuses, as if what was being written were damage: {problem}")
                });
                assert!(
                    count >= expected,
                    "cut at {length} of {end}: {count} steps, {expected} acknowledged"
                );
                assert!(
                    count <= expected + 1,
                    "cut at {length} of {end}: {count} steps, {expected} acknowledged"
                );
                tally.cuts += 1;
            }
            // Everything had been acknowledged and somebody cut the file since.
            for length in lengths(&written, &mut random, 100).into_iter().step_by(5).chain([end]) {
                let cut = &log[..length as usize];
                match check(&written, cut, &[FILE, MARK]).await {
                    Ok(count) => assert_eq!(
                        count,
                        steps.len(),
                        "cut at {length} of {end}: opens without what was acknowledged"
                    ),
                    Err(problem) => {
                        assert!(length < end, "refuses all of it: {problem}");
                        assert!(problem.contains("acknowledged"), "{problem}");
                        tally.refused += 1;
                    }
                }
                tally.cuts += 1;
            }
            // What lies behind the cut: nothing of this round.
            for _ in 0..150 {
                let length = 32 + random.below((end - 32) as usize) as u64;
                let garbage: Vec<u8> = (0..random.below(3 * FRAME as usize))
                    .map(|_| random.next() as u8)
                    .collect();
                let mut cut = log[..length as usize].to_vec();
                cut.extend(&garbage);
                let expected = acknowledged(&written, length);
                let count = check(&written, &cut, &[FILE]).await.unwrap();
                assert!(
                    (expected..=expected + 1).contains(&count),
                    "cut at {length} with garbage behind"
                );
                let mut whole = log[..end as usize].to_vec();
                whole.extend(garbage);
                assert_eq!(check(&written, &whole, &[FILE, MARK]).await.unwrap(), steps.len());
                tally.cuts += 2;
            }
        });
    }
    assert!(tally.cuts > 3_500 && tally.refused > 300, "{tally:?}");
    tally::done("cuts", tally);
}

#[test]
fn a_main_file_that_is_missing_or_empty_is_missed_and_its_log_is_left_alone() {
    let written = written(history(6), Some(10));
    for (empty, with_mark) in [(false, true), (true, true), (false, false), (true, false)] {
        let folder = scratch();
        copy(
            written.folder.path(),
            folder.path(),
            if with_mark { &[WAL, MARK] } else { &[WAL] },
        );
        if empty {
            fs::write(folder.path().join(FILE), "").unwrap();
        }
        let before = fs::read(folder.path().join(WAL)).unwrap();
        let problem = open(folder.path()).map(|_| ()).unwrap_err();
        assert!(problem.contains("missing or empty"), "{problem}");
        assert_eq!(fs::read(folder.path().join(WAL)).unwrap(), before);
        assert_eq!(folder.path().join(FILE).exists(), empty, "nothing is made in its place");
        // Put back, it is all there.
        copy(written.folder.path(), folder.path(), &[FILE]);
        let store = open(folder.path()).unwrap();
        assert_eq!(block_on(steps_in(&store, &written.steps)), written.steps.len());
    }
}

#[test]
fn a_log_that_is_lost_is_missed() {
    // The main file alone, as somebody copies it who does not know of the log.
    let written = written(history(6), Some(10));
    let folder = scratch();
    copy(written.folder.path(), folder.path(), &[FILE, MARK]);
    let problem = open(folder.path()).map(|_| ()).unwrap_err();
    assert!(
        problem.contains("had been acknowledged") && problem.contains("-wal"),
        "{problem}"
    );
    // It is meant to be older: the operator says so.
    fs::remove_file(folder.path().join(MARK)).unwrap();
    let store = open(folder.path()).unwrap();
    assert_eq!(block_on(steps_in(&store, &written.steps)), 10);
}
