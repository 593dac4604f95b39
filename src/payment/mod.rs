//! The payment: what was asked, what was agreed, and who it belongs to. Pure.
//!
//! Owns the identity of a payment (one `request_id` of one partner is one payment), the comparison of a retry with the
//! original, and the reasons for which a payment ends badly. Leaves how it is carried out to `coordinator`, and how it
//! looks on the wire to `api`. Invariant: a [`Terms`] never changes once it is made.

mod id;
mod name;
mod reason;
mod terms;

pub use id::{BUCKETS, PaymentId, QuoteId};
pub use name::{AccountId, NameError, PartnerName, RequestId};
pub use reason::{Outcome, Reason};
pub use terms::{Branch, BranchId, Direction, MarketOrder, Order, OrderPricing, Party, Quote, RateOrigin, Terms};
