//! The store's contract, checked against every store there is. A new store adds a [`Kind`] and passes as it is.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod contract;
#[path = "../simulation/disk.rs"]
#[allow(dead_code, reason = "the simulation uses the rest")]
mod disk;
#[path = "../simulation/faults.rs"]
#[allow(dead_code, reason = "the simulation uses the rest")]
mod faults;
mod fire;
mod made;
#[path = "../support/ports.rs"]
mod ports;
#[path = "../simulation/random.rs"]
#[allow(dead_code, reason = "the simulation uses the rest")]
mod random;
mod simulated;
mod sqlite;

use std::{path::Path, sync::Arc};

use causeway::store::{SqliteOptions, SqliteStore, Store, StoreError};

/// A kind of store that keeps the contract.
struct Kind {
    name: &'static str,
    /// Opens the store in a folder of its own; again, to read what is there.
    open: fn(&Path) -> Result<Arc<dyn Store>, StoreError>,
}

const KINDS: [Kind; 2] = [
    Kind {
        name: "sqlite",
        open: |folder| {
            Ok(Arc::new(SqliteStore::open(SqliteOptions::new(
                folder.join("store.sqlite"),
            ))?))
        },
    },
    Kind {
        name: "simulated",
        open: simulated::open,
    },
];
