use tonic_types::ErrorDetails;

use super::*;
use crate::{
    coordinator::protocol::test_terms,
    participant::conduct::{EXCERPT_CHARS_MAX, Fault},
    payment::BranchId,
    pb::participant::v1::Refusal,
    runtime::TokioRuntime,
};

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

/// An answer to a Prepare, and what is told of it.
fn read_told(branch: Branch) -> (Answer, Option<Misbehaviour>) {
    told(read_branch(&partner(), &call(), branch))
}

fn told(reading: Reading) -> (Answer, Option<Misbehaviour>) {
    let kind = reading.finding.map(|finding| match finding.fault {
        Fault::Misbehaviour(kind) => kind,
        Fault::Unreachable => panic!("reached: {finding:?}"),
    });
    (reading.answer, kind)
}

/// The same of one that breaks no rule.
fn read(branch: Branch) -> Answer {
    let (answer, kind) = read_told(branch);
    assert_eq!(kind, None, "{answer:?}");
    answer
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
    let other_payment = |payment: &str| Branch {
        payment: payment.into(),
        ..branch(State::Committed)
    };
    let other_branch = |name: &str| Branch {
        branch: name.into(),
        ..branch(State::Aborted)
    };
    for (wrong, expected) in [
        (
            other_payment("payments/00000000-0000-8000-8000-000000000000"),
            Misbehaviour::OtherPayment,
        ),
        (other_payment(""), Misbehaviour::OtherPayment),
        (Branch::default(), Misbehaviour::OtherPayment),
        (other_branch("credit"), Misbehaviour::OtherBranch),
        (other_branch(""), Misbehaviour::OtherBranch),
        (branch(State::Unspecified), Misbehaviour::NoState),
        (
            Branch {
                state: 77,
                ..branch(State::Prepared)
            },
            Misbehaviour::NoState,
        ),
    ] {
        let (answer, kind) = read_told(wrong.clone());
        assert!(matches!(answer, Answer::Unknown { .. }), "{wrong:?}: {answer:?}");
        assert_eq!(kind, Some(expected), "{wrong:?}");
    }
}

#[test]
fn a_decision_that_is_answered_with_prepared_is_not_done() {
    for (command, expected) in [
        (Command::Prepare, None),
        (Command::Inquire, None),
        (Command::Commit, Some(Misbehaviour::NotDone)),
        (Command::Abort, Some(Misbehaviour::NotDone)),
    ] {
        let call = Call { command, ..call() };
        let (answer, kind) = told(read_branch(&partner(), &call, branch(State::Prepared)));
        assert!(matches!(answer, Answer::Prepared { .. }), "{command:?}: {answer:?}");
        assert_eq!(kind, expected, "{command:?}");
    }
}

#[test]
fn texts_of_participants_are_bounded_and_clean() {
    for bad in ["x".repeat(65), "a b".into(), "a\n".into(), "é".into()] {
        let expected = (
            Answer::Committed { reference: "".into() },
            Some(Misbehaviour::BadReference),
        );
        let bad = Branch {
            reference: bad,
            ..branch(State::Committed)
        };
        assert_eq!(read_told(bad), expected, "the movement counts, the reference does not");
    }
    for code in ["", "am04", "AM044", "A-04", "é"] {
        let refusal = Some(Refusal {
            code: code.into(),
            detail: "\u{7}x".repeat(1_000),
        });
        let (Answer::Refused(outcome), kind) = read_told(Branch {
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
        assert_eq!(kind, Some(Misbehaviour::BadRefusalCode), "{code}");
        assert_eq!(outcome.detail, "x".repeat(EXCERPT_CHARS_MAX));
    }
}

#[test]
fn an_error_says_nothing_but_that_there_is_no_such_branch() {
    let info = |reason: &str, domain: &str| {
        let details = ErrorDetails::with_error_info(reason, domain, std::collections::HashMap::new());
        Status::with_error_details(Code::NotFound, "", details)
    };
    let read_status = |command, status: &Status| told(super::read_status(&Call { command, ..call() }, status));
    for (command, expected) in [
        (Command::Inquire, None),
        (Command::Commit, None),
        (Command::Prepare, Some(Misbehaviour::BadStatus)),
        (Command::Abort, Some(Misbehaviour::BadStatus)),
    ] {
        let found = read_status(command, &info("BRANCH_UNKNOWN", "causeway"));
        assert_eq!(found, (Answer::Missing, expected), "{command:?}");
    }
    let nameless = Some(Misbehaviour::BadStatus);
    for (other, expected) in [
        (info("BRANCH_UNKNOWN", "somebody-else"), nameless),
        (info("ROUTE_UNKNOWN", "causeway"), nameless),
        (Status::not_found("no such page"), nameless),
        (Status::unavailable(""), None),
        (Status::deadline_exceeded(""), None),
        (Status::internal(""), None),
        (Status::aborted(""), None),
        (Status::already_exists(""), None),
    ] {
        let (answer, kind) = read_status(Command::Inquire, &other);
        assert!(matches!(answer, Answer::Unknown { .. }), "{other:?}");
        assert_eq!(kind, expected, "{other:?}");
    }
    for rejected in [
        Status::invalid_argument(""),
        Status::unimplemented(""),
        Status::permission_denied(""),
    ] {
        let (answer, kind) = read_status(Command::Inquire, &rejected);
        assert!(matches!(answer, Answer::Rejected { .. }), "{rejected:?}");
        assert_eq!(kind, None, "{rejected:?}");
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
