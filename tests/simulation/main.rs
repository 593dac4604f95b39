//! Deterministic simulation: the real coordinator, recovery, quotes, idempotency, participant client and services, driven by a
//! seeded scheduler in virtual time over a simulated network, disk and wallet networks.
//!
//! `cargo test --release --test simulation` runs [`campaign::the_promises_hold_under_every_fault`] over `SIM_PAYMENTS` payments
//! (2,000 if absent) from `SIM_SEED` (1 if absent), in worlds of a few hundred payments, each with a seed of its own. What
//! is simulated and what is not is in docs/proof.md.
//!
//! - [`executor`]: virtual time, nodes, the scheduler. [`random`]: what is drawn.
//! - [`world`]: one world: processes, the network between them, how a run goes. [`cast`]: who takes part.
//! - [`disk`]: the gateways' store over a disk that forgets. [`wallet`]: a network. [`source`]: the publisher of rates.
//! - [`caller`], [`watcher`]: who asks. [`nemesis`], [`faults`]: what goes wrong.
//! - [`history`]: what was seen. [`audit`], [`rates`]: what it is judged by.
//! - [`campaign`]: many worlds, counts, the report.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod audit;
mod audit_tests;
mod caller;
mod campaign;
mod cast;
#[path = "../support/decimal.rs"]
mod decimal;
mod disk;
mod executor;
mod faults;
mod history;
mod nemesis;
mod random;
mod rates;
mod source;
mod wallet;
mod watcher;
mod world;
