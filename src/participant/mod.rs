//! Partner networks as the coordinator reaches them.
//!
//! Owns the translation between the protocol's commands and the participant API, and what an answer is worth: only what a
//! participant said of the very branch counts, everything else is [`Answer::Unknown`]. Leaves when to call, and what to
//! make of an answer, to `coordinator`. [`mock`] is a real participant for tests and demonstrations; it shares no code
//! with the rest.

mod channel;
mod conduct;
pub(crate) mod grpc;
pub mod mock;

use std::{future::Future, pin::Pin, sync::Arc};

use crate::{
    coordinator::protocol::{Answer, Command},
    payment::{BranchId, Reason, Terms},
};

pub use channel::ChannelTransport;
pub use conduct::Misbehaviour;
pub use grpc::{GrpcParticipant, Timeouts, Transport};

/// An answer that is on its way. It always comes: a call that is not answered in time is [`Answer::Unknown`].
pub type Answering = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// A partner network.
pub trait Participant: Send + Sync + 'static {
    /// Sends a command of a payment's branch. Dropping the future gives the call up, not what it may have done.
    fn call(&self, call: Call) -> Answering;

    /// The participant has acted against a decision, by what it answered. For its record; nothing is sent.
    fn contradicted(&self, _reason: Reason) {}
}

/// One command to one participant.
#[derive(Clone, Debug)]
pub struct Call {
    /// The payment.
    pub terms: Arc<Terms>,
    /// Its branch at this participant.
    pub branch: BranchId,
    /// What to do.
    pub command: Command,
    /// Now, in milliseconds since the Unix epoch.
    pub now_ms: i64,
}
