//! Carries payments out: the pure protocol, and the driver that feeds it.
pub mod protocol;
