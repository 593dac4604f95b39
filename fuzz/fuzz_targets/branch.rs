//! What a participant answers: only what it says of the very branch counts, and no more of its words is kept than fits.
#![no_main]

use causeway::{
    coordinator::protocol::{Answer, Command},
    fuzzing::{read_branch, read_status},
    participant::Call,
    payment::{BranchId, PartnerName, Reason},
    pb::participant::v1::{Branch, branch::State},
};
use causeway_fuzz::terms;
use libfuzzer_sys::fuzz_target;
use prost::Message;
use tonic::{Code, Status};

/// What is kept of what a partner wrote, with what is said about it.
const CAUSE_CHARS_MAX: usize = 300;

fuzz_target!(|data: &[u8]| {
    let Some((first, rest)) = data.split_first() else {
        return;
    };
    let call = Call {
        terms: terms(),
        branch: if first & 1 == 0 {
            BranchId::DEBIT
        } else {
            BranchId::CREDIT
        },
        command: [Command::Prepare, Command::Commit, Command::Abort, Command::Inquire][usize::from(first >> 1 & 3)],
        now_ms: 0,
    };
    let partner = PartnerName::parse("apple-pay").expect("a name");
    if first & 8 == 0 {
        let Ok(mut branch) = Branch::decode(rest) else { return };
        if first & 16 == 0 {
            // Of the very branch: a fuzzer does not guess a payment's name.
            (branch.payment, branch.branch) = (call.terms.id.to_string(), call.branch.name().into());
        }
        let said = branch.clone();
        check_branch(&call, &said, read_branch(&partner, &call, branch));
    } else if let Some((code, rest)) = rest.split_first() {
        let (message, details) = rest.split_at(rest.len() / 2);
        let code = Code::from(i32::from(code % 17));
        let status = Status::with_details(code, String::from_utf8_lossy(message), details.to_vec().into());
        check_status(code, read_status(&call, &status));
    }
});

fn check_branch(call: &Call, said: &Branch, answer: Answer) {
    let is_it = said.payment == call.terms.id.to_string() && said.branch == call.branch.name();
    match &answer {
        Answer::Prepared { reference } | Answer::Committed { reference } => {
            assert!(is_it && reference.len() <= 64 && reference.chars().all(|c| c.is_ascii_graphic()));
            let prepared = matches!(answer, Answer::Prepared { .. });
            assert_eq!(said.state(), if prepared { State::Prepared } else { State::Committed });
        }
        Answer::Refused(outcome) => {
            assert!(is_it && said.state() == State::Refused);
            assert_eq!(outcome.code.len(), 4);
            assert!(outcome.detail.chars().count() <= CAUSE_CHARS_MAX && !outcome.detail.contains(char::is_control));
            assert_ne!(outcome.reason, Reason::Cancelled, "a partner does not cancel");
        }
        Answer::Aborted => assert!(is_it && said.state() == State::Aborted),
        Answer::Unknown { cause } => {
            assert!(!is_it || said.state() == State::Unspecified);
            assert!(
                cause.chars().count() <= CAUSE_CHARS_MAX && !cause.contains(char::is_control),
                "{cause:?}"
            );
        }
        Answer::Missing | Answer::Rejected { .. } => panic!("a branch was there: {answer:?}"),
    }
}

fn check_status(code: Code, answer: Answer) {
    match &answer {
        Answer::Missing => assert_eq!(code, Code::NotFound),
        Answer::Unknown { cause } | Answer::Rejected { cause } => {
            assert!(
                cause.chars().count() <= CAUSE_CHARS_MAX && !cause.contains(char::is_control),
                "{cause:?}"
            );
            let rejected = matches!(
                code,
                Code::InvalidArgument
                    | Code::FailedPrecondition
                    | Code::OutOfRange
                    | Code::PermissionDenied
                    | Code::Unauthenticated
                    | Code::Unimplemented
            );
            assert_eq!(matches!(answer, Answer::Rejected { .. }), rejected, "{code:?}");
        }
        other => panic!("an error is no vote and moves nothing: {other:?}"),
    }
}
