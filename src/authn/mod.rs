//! Who is calling: from a verified certificate to a [`Principal`].
//!
//! Owns the form of an identity, a SPIFFE id in the certificate's one URI SAN. That the certificate chains to the CA is
//! for [`crate::tls`] to verify beforehand, what a principal may do is for the services to decide afterwards.
//!
//! Invariant: a certificate names one principal or none; there is no order of names to get wrong.

mod spiffe;

pub use spiffe::{IdentityError, Principal, Role};
