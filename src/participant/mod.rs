//! (being written)
pub mod mock;
