//! Causeway settles payments between wallet networks.
//!
//! See `docs/architecture.md` for the map.

pub mod authn;
pub mod certs;
pub mod fx;
pub mod money;
pub mod participant;
pub mod pb;
pub mod tls;
