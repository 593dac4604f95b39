//! What goes wrong, as gRPC says it: a code, an ErrorInfo, and field violations where the caller can mend a field.

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use super::{
    amount::AmountError,
    ledger::{BranchKey, Rejection},
    store::Stopped,
};

/// The domain of all reasons (participant_service.proto).
const DOMAIN: &str = "causeway";

/// A field that is wrong, and why.
pub(super) type Violation = (String, String);

/// INVALID_ARGUMENT with a BadRequest.
pub(super) fn bad_request(violations: Vec<Violation>) -> Status {
    let message = violations
        .iter()
        .map(|(field, detail)| format!("{field}: {detail}"))
        .collect::<Vec<_>>()
        .join("; ");
    let violations: Vec<_> = violations
        .into_iter()
        .map(|(field, detail)| FieldViolation::new(field, detail))
        .collect();
    Status::with_error_details(
        Code::InvalidArgument,
        message,
        ErrorDetails::with_bad_request(violations),
    )
}

/// INVALID_ARGUMENT for an amount, with the reason that money.proto gives.
pub(super) fn bad_amount(field: &str, error: AmountError) -> Status {
    let (part, reason) = match error {
        AmountError::Currency => ("currency", "CURRENCY_UNKNOWN"),
        AmountError::Form => ("amount", "AMOUNT_MALFORMED"),
        AmountError::Decimals => ("amount", "AMOUNT_TOO_MANY_DECIMALS"),
        AmountError::Digits => ("amount", "AMOUNT_TOO_LARGE"),
    };
    let mut details = ErrorDetails::with_error_info(reason, DOMAIN, []);
    details.add_bad_request_violation(format!("{field}.{part}"), error.to_string());
    Status::with_error_details(Code::InvalidArgument, format!("{field}.{part}: {error}"), details)
}

/// What the ledger would not do.
pub(super) fn rejected(key: &BranchKey, rejection: Rejection) -> Status {
    let info = |code, message: String, reason: &str, metadata: Vec<(String, String)>| {
        let metadata: std::collections::HashMap<_, _> = metadata.into_iter().collect();
        Status::with_error_details(code, message, ErrorDetails::with_error_info(reason, DOMAIN, metadata))
    };
    let named = || {
        vec![
            ("payment".to_owned(), key.payment.clone()),
            ("branch".to_owned(), key.leg.as_str().to_owned()),
        ]
    };
    match rejection {
        Rejection::Unknown => {
            let message = format!("no trace of branch {} of {}", key.leg.as_str(), key.payment);
            info(Code::NotFound, message, "BRANCH_UNKNOWN", named())
        }
        Rejection::Mismatch(fields) => {
            let fields = fields.join(",");
            let message = format!("the branch was prepared with another {fields}");
            let mut metadata = named();
            metadata.push(("fields".to_owned(), fields));
            info(Code::InvalidArgument, message, "BRANCH_MISMATCH", metadata)
        }
        Rejection::Direction => bad_request(vec![("direction".to_owned(), "contradicts the branch".to_owned())]),
        Rejection::OwnAccount => bad_request(vec![(
            "account.account".to_owned(),
            "is one of the network's own".to_owned(),
        )]),
        Rejection::BalanceTooHigh => bad_request(vec![(
            "account.balance".to_owned(),
            "is more than the network can count".to_owned(),
        )]),
        Rejection::BalanceBelowHeld => {
            let message = "the balance would not cover what prepared debits hold".to_owned();
            info(Code::FailedPrecondition, message, "BALANCE_BELOW_HELD", Vec::new())
        }
    }
}

/// UNAVAILABLE: the caller does not know what happened.
pub(super) fn stopped(stopped: Stopped) -> Status {
    Status::unavailable(stopped.to_string())
}

/// UNAUTHENTICATED or PERMISSION_DENIED.
pub(super) fn denied(code: Code, reason: &str, message: String) -> Status {
    Status::with_error_details(code, message, ErrorDetails::with_error_info(reason, DOMAIN, []))
}
