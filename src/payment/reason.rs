//! Why a payment ends badly.

use super::PartnerName;

/// Why a payment is aborted or disputed, in words for programs. Each has a page under `docs/errors/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The payer's account has not enough funds (AM04).
    InsufficientFunds,
    /// The account is not known at the partner (AC03).
    AccountUnknown,
    /// The account is closed (AC04).
    AccountClosed,
    /// The partner forbids the transaction (AG01).
    TransactionForbidden,
    /// The amount is above the partner's limit (AM02).
    AmountOverLimit,
    /// The partner refused for a reason of its own; the code is the partner's.
    RefusedByPartner,
    /// A partner's vote was not there in time (TM01).
    VotingTimedOut,
    /// A partner rejected the gateway's call itself (MS03).
    PartnerError,
    /// A partner had a trace of an earlier abort and refused the late Prepare (MS03).
    PreparedAfterAbort,
    /// The initiator cancelled (CUST).
    Cancelled,
    /// A partner let go of a hold although commit was decided (heuristic abort).
    HeuristicAbort,
    /// A partner moved the money although abort was decided (heuristic commit).
    HeuristicCommit,
}

impl Reason {
    /// Every reason, for the documentation and its test.
    pub const ALL: [Self; 12] = [
        Self::InsufficientFunds,
        Self::AccountUnknown,
        Self::AccountClosed,
        Self::TransactionForbidden,
        Self::AmountOverLimit,
        Self::RefusedByPartner,
        Self::VotingTimedOut,
        Self::PartnerError,
        Self::PreparedAfterAbort,
        Self::Cancelled,
        Self::HeuristicAbort,
        Self::HeuristicCommit,
    ];

    /// The reason of a partner's refusal, from its ISO 20022 external status reason code.
    pub fn from_refusal_code(code: &str) -> Self {
        match code {
            "AM04" => Self::InsufficientFunds,
            "AC03" => Self::AccountUnknown,
            "AC04" => Self::AccountClosed,
            "AG01" => Self::TransactionForbidden,
            "AM02" => Self::AmountOverLimit,
            "TM01" => Self::VotingTimedOut,
            _ => Self::RefusedByPartner,
        }
    }

    /// The name on the wire (AIP-193: UPPER_SNAKE_CASE).
    pub fn name(self) -> &'static str {
        match self {
            Self::InsufficientFunds => "INSUFFICIENT_FUNDS",
            Self::AccountUnknown => "ACCOUNT_UNKNOWN",
            Self::AccountClosed => "ACCOUNT_CLOSED",
            Self::TransactionForbidden => "TRANSACTION_FORBIDDEN",
            Self::AmountOverLimit => "AMOUNT_OVER_LIMIT",
            Self::RefusedByPartner => "REFUSED_BY_PARTNER",
            Self::VotingTimedOut => "VOTING_TIMED_OUT",
            Self::PartnerError => "PARTNER_ERROR",
            Self::PreparedAfterAbort => "PREPARED_AFTER_ABORT",
            Self::Cancelled => "CANCELLED",
            Self::HeuristicAbort => "HEURISTIC_ABORT",
            Self::HeuristicCommit => "HEURISTIC_COMMIT",
        }
    }

    /// The reason of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }

    /// The ISO 20022 external status reason code that says it best when no partner gave one.
    pub fn iso_code(self) -> &'static str {
        match self {
            Self::InsufficientFunds => "AM04",
            Self::AccountUnknown => "AC03",
            Self::AccountClosed => "AC04",
            Self::TransactionForbidden => "AG01",
            Self::AmountOverLimit => "AM02",
            Self::VotingTimedOut => "TM01",
            Self::Cancelled => "CUST",
            Self::RefusedByPartner
            | Self::PartnerError
            | Self::PreparedAfterAbort
            | Self::HeuristicAbort
            | Self::HeuristicCommit => "MS03",
        }
    }
}

/// Why this payment is aborted or disputed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Outcome {
    /// The reason.
    pub reason: Reason,
    /// ISO 20022 external status reason code: a partner's own, or [`Reason::iso_code`].
    pub code: String,
    /// In words for people.
    pub detail: String,
    /// The partner it came from; `None` if the gateway decided so by itself.
    pub partner: Option<PartnerName>,
}

impl Outcome {
    /// An outcome with the reason's own code.
    pub fn new(reason: Reason, detail: impl Into<String>, partner: Option<&PartnerName>) -> Self {
        Self {
            reason,
            code: reason.iso_code().into(),
            detail: detail.into(),
            partner: partner.cloned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_codes_lead_back() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_name(reason.name()), Some(reason));
            let again = Reason::from_refusal_code(reason.iso_code());
            assert!(
                again == reason || again == Reason::RefusedByPartner,
                "{reason:?} became {again:?}"
            );
        }
        assert_eq!(Reason::from_name("NO_SUCH"), None);
    }
}
