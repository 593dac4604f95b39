//! Causeway settles payments between wallet networks: a payer in one pays a payee in another, in another currency, and
//! two-phase commit makes both sides move or neither.
//!
//! # What is where, in reading order
//!
//! A payment flows down this list and back up.
//!
//! | Module | Owns |
//! |---|---|
//! | [`pb`] | The wire types, generated from `proto/`. No behaviour. |
//! | [`gateway`] | The composition root: open the store, recover, serve, drain. |
//! | [`config`] | The configuration file. |
//! | [`api`] | The services that partners and operators call: decode, encode, errors. |
//! | [`authn`] | From a certificate to a principal. |
//! | [`tls`] | Mutual TLS under every connection, both ways. |
//! | [`money`] | Currency, amount, rate, rounding. Pure. |
//! | [`fx`] | Rate sources, the cache in front of them, prices. Prices and tables are pure. |
//! | [`payment`] | The payment's terms, ids and reasons. Pure. |
//! | [`coordinator`] | Two-phase commit: [`coordinator::protocol`] (pure: `decide`, `apply`), the driver, recovery. |
//! | [`participant`] | A partner network as the coordinator calls it; [`participant::mock`] is a partner to test with. |
//! | [`store`] | What is durable: the contract, and SQLite. |
//! | [`feed`] | The changes in their order, for whoever watches. |
//! | [`telemetry`] | Metrics: what is counted, the page that shows it, and a bound on what is logged. |
//! | [`runtime`] | Clocks, timers, tasks and randomness, for all that drives payments. |
//! | [`wire`] | Instants, and the domain of errors, on every wire. |
//! | [`demo`] | The demonstration: a story of payments and crashes whose every balance is checked. |
//! | [`certs`] | Development certificates. Never called by a running gateway. |
//! | [`fuzzing`] | What the fuzz targets reach into. Built for them alone. |
//!
//! `src/cli/` beside the library reads the command line. The pure modules know no runtime, transport, clock, disk, network
//! or randomness: time and ids come in as values. A test keeps it so (`tests/docs/purity.rs`).
//!
//! # Promises
//!
//! Each is asserted where it is made; `docs/architecture.md` says where, and which tests check it. Two are not whole yet:
//! 8 holds for each payment's conversion, but there is no ledger of the gateway's own; 10 waits for that ledger.
//!
//! 1. No branch of a payment is committed while another of its branches is aborted.
//! 2. Commit is decided only when every branch voted yes. A decision never changes.
//! 3. No Commit leaves before the decision is durable. A payment begins durably before the first Prepare leaves.
//! 4. Any crash, at any instruction, of any process: after restart every payment ends, and none is in doubt for ever.
//! 5. One `request_id` of one partner is one payment: the same body gets the same payment, another body an error that
//!    names the fields that differ. Whatever is lost, repeated or reordered, a wallet moves once.
//! 6. An Abort that overtakes its Prepare is remembered: the late Prepare is refused (no hanging hold).
//! 7. A network answer is what the participant said of the very branch, or unknown. A time-out is unknown, never a
//!    guessed outcome.
//! 8. Per currency, debits equal credits after every commit. Amounts are exact; one named rounding, once, and its
//!    remainder is on the payment.
//! 9. The committed rate is the quoted rate. No Prepare starts when the quote could lapse before the decision.
//! 10. A partner's position never passes its cap. Reserved amounts are never negative, and zero when all is quiet.
//! 11. A watcher sees every change once, in order, without gaps, and resumes where it stopped.
//! 12. A partner sees and moves only what its certificate entitles it to.
//! 13. An acknowledged payment is on disk (fsync) before the acknowledgement leaves.
//!
//! A participant that breaks its own word (lets go of a hold, moves money without a decision) can break 1. That is never
//! hidden: the payment is DISPUTED.

// What is private otherwise is documented as such.
#![cfg_attr(fuzzing, allow(missing_docs))]

pub mod api;
pub mod authn;
pub mod certs;
pub mod config;
pub mod coordinator;
pub mod demo;
pub mod feed;
#[cfg(any(fuzzing, doc))]
#[doc(hidden)]
pub mod fuzzing;
pub mod fx;
pub mod gateway;
pub mod money;
pub mod participant;
pub mod payment;
pub mod pb;
pub mod runtime;
pub mod store;
pub mod telemetry;
pub mod tls;
pub mod wire;
