//! The gateway from outside: its API over real sockets and mutual TLS, with real partner networks behind it.
#![allow(
    clippy::unwrap_used,
    reason = "a test that unwraps what is not there fails, as it should"
)]

#[path = "../support/mod.rs"]
mod support;

mod payments;
