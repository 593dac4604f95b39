//! Real processes on loopback: killed at every named point, loaded, measured, and called with grpcurl.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(
    clippy::await_holding_lock,
    reason = "a measuring test holds the machine; each test has a runtime of its own"
)]

mod demo;
mod grpcurl;
mod load;
#[path = "../support/ports.rs"]
mod ports;
#[path = "../support/process.rs"]
mod process;
mod restart;
mod world;
