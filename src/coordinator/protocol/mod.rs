//! Two-phase commit, without I/O: what follows from what. Pure.
//!
//! [`decide`] says what a transaction does about an [`Input`] at an instant: which [`Record`]s to keep and which
//! [`Effect`]s to release once the forced ones among them are durable. [`apply`] is the only way in which a [`State`]
//! changes. The driver, the recovery, simulations and model checks all run these two. Presumed abort, as in R*
//! (Mohan, Lindsay, Obermarck 1986), with one difference: an abort is decided by the same compare-and-set in the store
//! as a commit, before any Abort leaves, so that two coordinators of one payment can never say different things.
//!
//! Order of calls: `decide(&policy, &State::Absent, Input::Begin(terms), now)`, make the step's records durable, `apply`
//! each, release the effects, and feed what comes back (`Input::Answer`), time (`Input::Wake`, due at [`wake_at`]),
//! cancellation, and after a restart `Input::Recover`.
//!
//! Invariants, asserted in [`apply`]: commit is decided only when every branch is prepared and the time for it has not
//! passed; a decision never changes; a transaction ends only when every branch has acknowledged.

mod decide;
mod input;
mod policy;
mod record;
mod state;

pub use decide::{decide, wake_at};
pub use input::{Answer, Command, Effect, Input, Step};
pub use policy::Policy;
pub use record::{Durability, Event, Record};
pub use state::{Branch, Decision, Delivery, Impossible, Knowledge, Phase, State, Transaction, apply, fold};

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::{test_terms, test_terms_of};
