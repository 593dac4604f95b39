//! Errors as callers see them: a gRPC code, `google.rpc.ErrorInfo` with a reason that is stable, `BadRequest` with the
//! fields, `RetryInfo` where a retry helps (AIP-193). The only place that makes a `tonic::Status`.

use std::{collections::HashMap, fmt, time::Duration};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use crate::{
    coordinator::{BeginError, CancelError},
    fx::FxError,
    money::{ConversionError, MoneyError},
    store::StoreError,
    wire::ERROR_DOMAIN,
};

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $code:ident;)*) => {
        /// Why a call was refused. Each has a page under `docs/errors/`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ErrorReason {
            $($(#[$doc])* $name,)*
        }

        impl ErrorReason {
            /// Every reason, for the documentation and its test.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The name on the wire (AIP-193: UPPER_SNAKE_CASE).
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The gRPC code that goes with it.
            pub fn code(self) -> Code {
                match self { $(Self::$name => Code::$code,)* }
            }
        }
    };
}

reasons! {
    /// The message cannot be decoded: not protobuf, or a string that is not UTF-8.
    RequestMalformed = "REQUEST_MALFORMED", InvalidArgument;
    /// The message is larger than the gateway takes.
    RequestTooLarge = "REQUEST_TOO_LARGE", ResourceExhausted;
    /// A required field is not there.
    FieldMissing = "FIELD_MISSING", InvalidArgument;
    /// A field holds what it cannot.
    FieldInvalid = "FIELD_INVALID", InvalidArgument;
    /// A field that only the server sets was sent.
    FieldOutputOnly = "FIELD_OUTPUT_ONLY", InvalidArgument;
    /// No currency of that code.
    CurrencyUnknown = "CURRENCY_UNKNOWN", InvalidArgument;
    /// Another currency than the one that belongs there.
    CurrencyMismatch = "CURRENCY_MISMATCH", InvalidArgument;
    /// Not a plain decimal string.
    AmountMalformed = "AMOUNT_MALFORMED", InvalidArgument;
    /// More decimals than the currency's minor unit has.
    AmountTooManyDecimals = "AMOUNT_TOO_MANY_DECIMALS", InvalidArgument;
    /// Zero where it must be more.
    AmountNotPositive = "AMOUNT_NOT_POSITIVE", InvalidArgument;
    /// More digits than any amount may have.
    AmountOutOfRange = "AMOUNT_OUT_OF_RANGE", InvalidArgument;
    /// Not a rate.
    RateInvalid = "RATE_INVALID", InvalidArgument;
    /// Payer and payee are the same account.
    SameAccount = "SAME_ACCOUNT", InvalidArgument;
    /// Not a token of this list with this filter.
    PageTokenInvalid = "PAGE_TOKEN_INVALID", InvalidArgument;
    /// Not a token of this feed.
    ResumeTokenInvalid = "RESUME_TOKEN_INVALID", InvalidArgument;
    /// Not a filter that this list takes.
    FilterInvalid = "FILTER_INVALID", InvalidArgument;
    /// The certificate names nobody that the gateway knows.
    IdentityUnknown = "IDENTITY_UNKNOWN", Unauthenticated;
    /// The certificate's role may not make this call.
    RoleForbidden = "ROLE_FORBIDDEN", PermissionDenied;
    /// The caller may not initiate on this corridor, or there is none.
    CorridorForbidden = "CORRIDOR_FORBIDDEN", PermissionDenied;
    /// The payment is somebody else's to cancel.
    NotInitiator = "NOT_INITIATOR", PermissionDenied;
    /// No such payment, or none of the caller's.
    PaymentNotFound = "PAYMENT_NOT_FOUND", NotFound;
    /// No such quote, or none of the caller's.
    QuoteNotFound = "QUOTE_NOT_FOUND", NotFound;
    /// The `request_id` belongs to a payment with another body.
    RequestIdReused = "REQUEST_ID_REUSED", AlreadyExists;
    /// The quote has lapsed, or would before the payment could be decided.
    QuoteExpired = "QUOTE_EXPIRED", FailedPrecondition;
    /// Another payment has the quote.
    QuoteUsed = "QUOTE_USED", FailedPrecondition;
    /// The quote is for another payment.
    QuoteMismatch = "QUOTE_MISMATCH", FailedPrecondition;
    /// The amount is below what the corridor takes or can deliver.
    AmountTooSmall = "AMOUNT_TOO_SMALL", FailedPrecondition;
    /// The amount is above what the corridor takes or can deliver.
    AmountTooLarge = "AMOUNT_TOO_LARGE", FailedPrecondition;
    /// The rate is worse than the payer allows.
    RateWorseThanAllowed = "RATE_WORSE_THAN_ALLOWED", FailedPrecondition;
    /// The last rate is older than the limit.
    RateStale = "RATE_STALE", FailedPrecondition;
    /// The source has no rate for the pair.
    RateUnknown = "RATE_UNKNOWN", FailedPrecondition;
    /// Commit is decided: it cannot be cancelled.
    PaymentDecided = "PAYMENT_DECIDED", FailedPrecondition;
    /// The call's deadline leaves too little time to vote.
    DeadlineTooShort = "DEADLINE_TOO_SHORT", DeadlineExceeded;
    /// No rate was ever fetched.
    RateSourceUnavailable = "RATE_SOURCE_UNAVAILABLE", Unavailable;
    /// The gateway is about to stop.
    Draining = "DRAINING", Unavailable;
    /// The store cannot write now.
    StoreUnavailable = "STORE_UNAVAILABLE", Unavailable;
    /// The store has failed; what it last did shows after a restart.
    StoreFailed = "STORE_FAILED", Unavailable;
    /// The store holds what cannot be read.
    StoreDamaged = "STORE_DAMAGED", DataLoss;
}

impl fmt::Display for ErrorReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A field that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Why.
    pub reason: ErrorReason,
    /// Its path in the request: `payment.payee.account`.
    pub field: String,
    /// What was found and what is allowed.
    pub description: String,
}

/// A refused call.
#[derive(Clone, Debug)]
pub struct ApiError {
    reason: ErrorReason,
    message: String,
    metadata: Vec<(&'static str, String)>,
    violations: Vec<Violation>,
    retry_after: Option<Duration>,
}

impl ApiError {
    /// A refusal with its reason, and in words what was found and what is allowed.
    pub fn new(reason: ErrorReason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            metadata: Vec::new(),
            violations: Vec::new(),
            retry_after: None,
        }
    }

    /// A refusal because of these fields (at least one).
    pub fn fields(violations: Vec<Violation>) -> Self {
        let first = violations.first().expect("there is a violation to report");
        let message = match violations.len() {
            1 => format!("{}: {}", first.field, first.description),
            count => format!("{}: {} (and {} more fields)", first.field, first.description, count - 1),
        };
        Self::new(first.reason, message).with_violations(violations)
    }

    /// A refusal because of one field.
    pub fn field(reason: ErrorReason, field: &str, description: impl Into<String>) -> Self {
        Self::fields(vec![Violation {
            reason,
            field: field.into(),
            description: description.into(),
        }])
    }

    /// With something that a program can use.
    pub fn with(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.metadata.push((key, value.into()));
        self
    }

    /// With the fields that it is about.
    pub fn with_violations(mut self, violations: Vec<Violation>) -> Self {
        self.violations = violations;
        self
    }

    /// With the advice to try again after a while.
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// The reason.
    pub fn reason(&self) -> ErrorReason {
        self.reason
    }
}

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Self {
        let mut metadata: HashMap<String, String> = error
            .metadata
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .collect();
        if let Some(first) = error.violations.first() {
            metadata.entry("field".into()).or_insert_with(|| first.field.clone());
        }
        let mut details = ErrorDetails::with_error_info(error.reason.name(), ERROR_DOMAIN, metadata);
        if !error.violations.is_empty() {
            let violations: Vec<_> = error
                .violations
                .into_iter()
                .map(|violation| FieldViolation::new(violation.field, violation.description))
                .collect();
            details.set_bad_request(violations);
        }
        if let Some(after) = error.retry_after {
            details.set_retry_info(Some(after));
        }
        Status::with_error_details(error.reason.code(), error.message, details)
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let message = error.to_string();
        match error {
            StoreError::Unavailable(_) => {
                Self::new(ErrorReason::StoreUnavailable, message).retry_after(Duration::from_secs(1))
            }
            StoreError::Failed(_) | StoreError::Closed | StoreError::Unusable { .. } => {
                let advice = "if this call was to change something it may have done so: repeat it as it was";
                Self::new(ErrorReason::StoreFailed, format!("{message}; {advice}")).retry_after(Duration::from_secs(5))
            }
            StoreError::Damaged(_) => {
                // Someone must look at the file; the caller can do nothing.
                tracing::error!(error = message, "a read met a damaged record");
                Self::new(
                    ErrorReason::StoreDamaged,
                    "the stored record cannot be read; the operators are told",
                )
            }
        }
    }
}

impl From<BeginError> for ApiError {
    fn from(error: BeginError) -> Self {
        match error {
            BeginError::QuoteTaken { by: Some(_) } => Self::new(
                ErrorReason::QuoteUsed,
                "the quote was used by another payment; make a new one",
            )
            .with("field", "payment.quote"),
            BeginError::QuoteTaken { by: None } => Self::new(
                ErrorReason::QuoteNotFound,
                "the quote is no longer there; make a new one",
            )
            .with("field", "payment.quote"),
            BeginError::Draining => draining(),
            BeginError::Store(error) => error.into(),
        }
    }
}

impl From<CancelError> for ApiError {
    fn from(error: CancelError) -> Self {
        match error {
            CancelError::Unknown => Self::new(ErrorReason::PaymentNotFound, "no such payment"),
            CancelError::Store(error) => error.into(),
        }
    }
}

impl From<FxError> for ApiError {
    fn from(error: FxError) -> Self {
        let reason = match &error {
            FxError::RateUnknown { .. } | FxError::RateUnusable(_) => ErrorReason::RateUnknown,
            FxError::RateStale { .. } => ErrorReason::RateStale,
            _ => ErrorReason::RateSourceUnavailable,
        };
        let this = Self::new(reason, error.to_string());
        match reason {
            ErrorReason::RateSourceUnavailable => this.retry_after(Duration::from_secs(5)),
            _ => this,
        }
    }
}

/// The refusal while the gateway drains.
pub fn draining() -> ApiError {
    ApiError::new(
        ErrorReason::Draining,
        "the gateway is draining; nothing was started, call another or again",
    )
    .retry_after(Duration::from_secs(1))
}

/// Which reason a value from `money` was refused for.
pub fn money_reason(error: &MoneyError) -> ErrorReason {
    match error {
        MoneyError::UnknownCurrency { .. } => ErrorReason::CurrencyUnknown,
        MoneyError::AmountMalformed { .. } | MoneyError::Negative { .. } => ErrorReason::AmountMalformed,
        MoneyError::TooManyDecimals { .. } => ErrorReason::AmountTooManyDecimals,
        MoneyError::TooLarge { .. } => ErrorReason::AmountOutOfRange,
        MoneyError::CurrencyMismatch { .. } => ErrorReason::CurrencyMismatch,
        _ => ErrorReason::RateInvalid,
    }
}

/// A price that cannot be made, in terms of the field that holds the fixed amount.
pub fn conversion_error(error: ConversionError, field: &str) -> ApiError {
    let message = format!("{field}: {error}");
    match error {
        ConversionError::AmountTooSmall { minimum, .. } => ApiError::new(ErrorReason::AmountTooSmall, message)
            .with("field", field)
            .with("minimum", minimum.to_string()),
        ConversionError::AmountTooLarge { maximum, .. } => ApiError::new(ErrorReason::AmountTooLarge, message)
            .with("field", field)
            .with("maximum", maximum.to_string()),
        ConversionError::CurrencyMismatch { .. } => ApiError::new(ErrorReason::CurrencyMismatch, message),
        _ => ApiError::new(ErrorReason::RateUnknown, message),
    }
}
