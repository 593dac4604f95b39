//! What was exercised, over all parts.

use std::sync::Mutex;

/// What one part did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub cuts: u64,
    pub flips: u64,
    pub power_cuts: u64,
    pub full_disks: u64,
    pub read_only: u64,
    pub sync_failures: u64,
    /// Stores that refused to open.
    pub refused: u64,
    /// Reads that said that something is damaged.
    pub damaged: u64,
}

const PARTS: u32 = 8;

static ALL: Mutex<(u32, Tally)> = Mutex::new((
    0,
    Tally {
        cuts: 0,
        flips: 0,
        power_cuts: 0,
        full_disks: 0,
        read_only: 0,
        sync_failures: 0,
        refused: 0,
        damaged: 0,
    },
));

/// A part is done, and found nothing lost and no lie: it would have panicked. The last one prints the sum.
pub fn done(part: &str, tally: Tally) {
    println!("{part}: {tally:?}");
    let mut all = ALL.lock().unwrap();
    all.0 += 1;
    let sum = &mut all.1;
    sum.cuts += tally.cuts;
    sum.flips += tally.flips;
    sum.power_cuts += tally.power_cuts;
    sum.full_disks += tally.full_disks;
    sum.read_only += tally.read_only;
    sum.sync_failures += tally.sync_failures;
    sum.refused += tally.refused;
    sum.damaged += tally.damaged;
    if all.0 == PARTS {
        let sum = all.1;
        println!(
            "store under fire: {} cuts, {} flips, {} power cuts, {} full disks, {} read-only, {} failed syncs; \
             {} refused, {} said damaged, 0 lost, 0 silent lies",
            sum.cuts,
            sum.flips,
            sum.power_cuts,
            sum.full_disks,
            sum.read_only,
            sum.sync_failures,
            sum.refused,
            sum.damaged
        );
    }
}
