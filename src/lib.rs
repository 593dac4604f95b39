//! Causeway settles payments between wallet networks.
//!
//! See `docs/architecture.md` for the map.

pub mod api;
pub mod authn;
pub mod certs;
pub mod config;
pub mod coordinator;
pub mod demo;
pub mod feed;
pub mod fx;
pub mod gateway;
pub mod money;
pub mod participant;
pub mod payment;
pub mod pb;
pub mod store;
pub mod tls;
pub mod wire;
