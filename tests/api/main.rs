//! The gateway from outside: its API over real sockets and mutual TLS, with real partner networks behind it.
//!
//! Reading order: [`payments`] (what goes well), [`idempotency`], [`bad_input`], [`identity`], [`participants`] (partners
//! that misbehave), [`hostile`] (partners that break the protocol itself), [`cancel`], [`list`], [`watch`], [`decisions`], [`server`] (health, reflection), [`drain`], [`load`].
//! Almost every test ends with the auditor.
#![allow(
    clippy::unwrap_used,
    reason = "a test that unwraps what is not there fails, as it should"
)]
#![allow(
    clippy::type_complexity,
    reason = "the rows of tables are tuples, each explained where it stands"
)]

#[path = "../support/mod.rs"]
mod support;

mod bad_input;
mod cancel;
mod decisions;
mod drain;
mod hostile;
mod idempotency;
mod identity;
mod list;
mod load;
mod participants;
mod payments;
mod server;
mod watch;

use std::fmt::Debug;

use support::Refusal;
use tonic::{Code, Status};

/// The gRPC code that goes with a reason, by the API's documentation.
fn code_of(reason: &str) -> Code {
    match reason {
        "REQUEST_MALFORMED"
        | "FIELD_MISSING"
        | "FIELD_INVALID"
        | "FIELD_OUTPUT_ONLY"
        | "CURRENCY_UNKNOWN"
        | "CURRENCY_MISMATCH"
        | "AMOUNT_MALFORMED"
        | "AMOUNT_TOO_MANY_DECIMALS"
        | "AMOUNT_NOT_POSITIVE"
        | "AMOUNT_OUT_OF_RANGE"
        | "RATE_INVALID"
        | "SAME_ACCOUNT"
        | "PAGE_TOKEN_INVALID"
        | "RESUME_TOKEN_INVALID"
        | "FILTER_INVALID" => Code::InvalidArgument,
        "IDENTITY_UNKNOWN" => Code::Unauthenticated,
        "ROLE_FORBIDDEN" | "CORRIDOR_FORBIDDEN" | "NOT_INITIATOR" => Code::PermissionDenied,
        "PAYMENT_NOT_FOUND" | "QUOTE_NOT_FOUND" => Code::NotFound,
        "REQUEST_ID_REUSED" => Code::AlreadyExists,
        "QUOTE_EXPIRED"
        | "QUOTE_USED"
        | "QUOTE_MISMATCH"
        | "AMOUNT_TOO_SMALL"
        | "AMOUNT_TOO_LARGE"
        | "RATE_WORSE_THAN_ALLOWED"
        | "RATE_STALE"
        | "RATE_UNKNOWN"
        | "PAYMENT_DECIDED" => Code::FailedPrecondition,
        "DEADLINE_TOO_SHORT" => Code::DeadlineExceeded,
        "RATE_SOURCE_UNAVAILABLE" | "DRAINING" => Code::Unavailable,
        other => panic!("the tests know no reason {other}"),
    }
}

/// A call must have been refused for this reason, with the code that goes with it, blaming exactly these fields.
fn refused<T: Debug>(what: &str, answer: Result<T, Status>, reason: &str, fields: &[&str]) -> Refusal {
    let status = match answer {
        Err(status) => status,
        Ok(answer) => panic!("{what}: taken: {answer:?}"),
    };
    let refusal = Refusal::from(&status);
    let found = (refusal.code, refusal.reason.as_str(), refusal.domain.as_str());
    assert_eq!(found, (code_of(reason), reason, "causeway"), "{what}: {refusal:?}");
    assert_eq!(refusal.fields(), fields, "{what}: {refusal:?}");
    // AIP-193: the first field that is blamed stands in the metadata too, for programs that read no BadRequest.
    if let Some(first) = refusal.violations.first() {
        assert_eq!(refusal.metadata.get("field"), Some(first), "{what}: {refusal:?}");
    }
    assert!(!refusal.message.is_empty(), "{what}");
    refusal
}
