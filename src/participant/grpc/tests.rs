use tonic_types::ErrorDetails;

use super::*;
use crate::runtime::TokioRuntime;
use crate::{coordinator::protocol::test_terms, payment::BranchId, pb::participant::v1::Refusal};

fn call() -> Call {
    Call {
        terms: test_terms(0),
        branch: BranchId::DEBIT,
        command: Command::Prepare,
        now_ms: 0,
    }
}

fn partner() -> PartnerName {
    PartnerName::parse("apple-pay").unwrap()
}

fn branch(state: State) -> Branch {
    Branch {
        payment: call().terms.id.to_string(),
        branch: "debit".into(),
        state: state.into(),
        reference: "H1".into(),
        refusal: None,
    }
}

fn read(branch: Branch) -> Answer {
    read_branch(&partner(), &call(), branch)
}

#[test]
fn what_a_participant_says_of_the_branch_counts() {
    let reference: Arc<str> = "H1".into();
    assert_eq!(
        read(branch(State::Prepared)),
        Answer::Prepared {
            reference: reference.clone()
        }
    );
    assert_eq!(read(branch(State::Committed)), Answer::Committed { reference });
    assert_eq!(read(branch(State::Aborted)), Answer::Aborted);
    let refusal = Some(Refusal {
        code: "AM04".into(),
        detail: "no funds".into(),
    });
    let Answer::Refused(outcome) = read(Branch {
        refusal,
        ..branch(State::Refused)
    }) else {
        panic!("not refused")
    };
    assert_eq!(
        (outcome.reason, outcome.code.as_str()),
        (Reason::InsufficientFunds, "AM04")
    );
    assert_eq!(outcome.partner, Some(partner()));
}

#[test]
fn what_it_says_of_anything_else_is_unknown() {
    for wrong in [
        Branch {
            payment: "payments/00000000-0000-8000-8000-000000000000".into(),
            ..branch(State::Committed)
        },
        Branch {
            payment: String::new(),
            ..branch(State::Committed)
        },
        Branch {
            branch: "credit".into(),
            ..branch(State::Committed)
        },
        Branch {
            branch: String::new(),
            ..branch(State::Aborted)
        },
        branch(State::Unspecified),
        Branch {
            state: 77,
            ..branch(State::Prepared)
        },
        Branch::default(),
    ] {
        let answer = read(wrong.clone());
        assert!(matches!(answer, Answer::Unknown { .. }), "{wrong:?}: {answer:?}");
    }
}

#[test]
fn texts_of_participants_are_bounded_and_clean() {
    for bad in ["x".repeat(65), "a b".into(), "a\n".into(), "é".into()] {
        assert_eq!(
            read(Branch {
                reference: bad,
                ..branch(State::Committed)
            }),
            Answer::Committed { reference: "".into() },
            "the movement counts, the reference does not"
        );
    }
    for code in ["", "am04", "AM044", "A-04", "é"] {
        let refusal = Some(Refusal {
            code: code.into(),
            detail: "\u{7}x".repeat(1_000),
        });
        let Answer::Refused(outcome) = read(Branch {
            refusal,
            ..branch(State::Refused)
        }) else {
            panic!("not refused")
        };
        assert_eq!(
            (outcome.reason, outcome.code.as_str()),
            (Reason::RefusedByPartner, "MS03"),
            "{code}"
        );
        assert_eq!(outcome.detail, "x".repeat(DETAIL_CHARS_MAX));
    }
}

#[test]
fn an_error_says_nothing_but_that_there_is_no_such_branch() {
    let info = |reason: &str, domain: &str| {
        let details = ErrorDetails::with_error_info(reason, domain, std::collections::HashMap::new());
        Status::with_error_details(Code::NotFound, "", details)
    };
    assert_eq!(read_status(&info("BRANCH_UNKNOWN", "causeway")), Answer::Missing);
    for other in [
        info("BRANCH_UNKNOWN", "somebody-else"),
        info("ROUTE_UNKNOWN", "causeway"),
        Status::not_found("no such page"),
        Status::unavailable(""),
        Status::deadline_exceeded(""),
        Status::internal(""),
        Status::aborted(""),
        Status::already_exists(""),
    ] {
        assert!(matches!(read_status(&other), Answer::Unknown { .. }), "{other:?}");
    }
    for rejected in [
        Status::invalid_argument(""),
        Status::unimplemented(""),
        Status::permission_denied(""),
    ] {
        assert!(
            matches!(read_status(&rejected), Answer::Rejected { .. }),
            "{rejected:?}"
        );
    }
}

#[test]
fn a_prepare_does_not_outlast_the_time_to_decide() {
    let channel = tonic::transport::Endpoint::from_static("http://127.0.0.1:1");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _entered = runtime.enter();
    let participant = GrpcParticipant::new(
        partner(),
        channel.connect_lazy(),
        Timeouts::default(),
        TokioRuntime::shared(),
    );
    let at = |command, now_ms| {
        participant.timeout(&Call {
            command,
            now_ms,
            ..call()
        })
    };
    assert_eq!(at(Command::Prepare, 0), Duration::from_secs(8));
    assert_eq!(at(Command::Prepare, 59_000), Duration::from_secs(1));
    assert_eq!(at(Command::Commit, 59_000), Duration::from_secs(8));
    assert_eq!(at(Command::Inquire, 59_000), Duration::from_secs(5));
}
