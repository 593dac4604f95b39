//! Counts and lines, by a clock that stands still.

use std::{
    io::Write,
    sync::{Arc, Mutex},
};

use super::*;
use crate::{
    coordinator::protocol::test_terms,
    payment::{BranchId, Outcome},
    runtime::TokioRuntime,
};

/// All that is logged.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Lines {
    fn capture() -> (Self, tracing::subscriber::DefaultGuard) {
        let lines = Self::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        (lines, tracing::subscriber::set_default(subscriber))
    }

    fn all(&self) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

fn call(command: Command) -> Call {
    Call {
        terms: test_terms(0),
        branch: BranchId::DEBIT,
        command,
        now_ms: 0,
    }
}

fn unknown() -> Answer {
    Answer::Unknown { cause: "x".into() }
}

fn conduct(telemetry: &Telemetry) -> (Conduct, SharedRuntime) {
    let runtime = TokioRuntime::shared();
    let partner = PartnerName::parse("alipay").unwrap();
    (Conduct::new(partner, telemetry, Arc::clone(&runtime)), runtime)
}

fn value(telemetry: &Telemetry, series: &str) -> u64 {
    let text = telemetry.render();
    let line = text.lines().find_map(|line| line.strip_prefix(series));
    line.unwrap_or_else(|| panic!("no {series}\n{text}"))
        .trim()
        .parse()
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_misbehaviour_is_all_counted_and_a_few_lines() {
    let (lines, _guard) = Lines::capture();
    let telemetry = Telemetry::default();
    let (conduct, runtime) = conduct(&telemetry);
    let finding = Finding::misbehaviour(Misbehaviour::OtherPayment, "payments/\u{1b}[31mx\n");
    let unreachable = Finding {
        fault: Fault::Unreachable,
        excerpt: "connection refused".into(),
    };
    // 12 s of it, a thousand a second of each.
    for _ in 0..12 {
        for _ in 0..1_000 {
            conduct.answered(&call(Command::Prepare), &unknown(), Some(&finding));
            conduct.answered(&call(Command::Commit), &unknown(), Some(&unreachable));
        }
        runtime.sleep(Duration::from_secs(1)).await;
    }
    for (series, expected) in [
        (
            "causeway_participant_misbehaviour_total{partner=\"alipay\",kind=\"other_payment\"}",
            12_000,
        ),
        (
            "causeway_participant_misbehaviour_total{partner=\"alipay\",kind=\"no_answer\"}",
            0,
        ),
        ("causeway_participant_unreachable_total{partner=\"alipay\"}", 12_000),
        (
            "causeway_participant_answers_total{partner=\"alipay\",command=\"prepare\",answer=\"unknown\"}",
            12_000,
        ),
        (
            "causeway_participant_answers_total{partner=\"alipay\",command=\"commit\",answer=\"unknown\"}",
            12_000,
        ),
        (
            "causeway_participant_answers_total{partner=\"alipay\",command=\"abort\",answer=\"unknown\"}",
            0,
        ),
    ] {
        assert_eq!(value(&telemetry, series), expected, "{series}");
    }
    let lines = lines.all();
    assert_eq!(lines.len(), 6, "{lines:#?}");
    let misbehaved: Vec<_> = lines
        .iter()
        .filter(|line| line.contains("a partner misbehaved"))
        .collect();
    assert_eq!(misbehaved.len(), 3, "{lines:#?}");
    for part in [
        "WARN",
        "partner=alipay",
        "payment=payments/",
        "branch=\"debit\"",
        "command=\"prepare\"",
        "kind=\"other_payment\"",
        // Nothing of the partner's that a terminal would obey.
        "excerpt=\"payments/[31mx\"",
        "left_out=0",
    ] {
        assert!(misbehaved[0].contains(part), "{part}: {}", misbehaved[0]);
    }
    assert!(misbehaved[1].contains("left_out=4999"), "{}", misbehaved[1]);
}

#[tokio::test(start_paused = true)]
async fn one_kind_does_not_hide_another() {
    let (lines, _guard) = Lines::capture();
    let telemetry = Telemetry::default();
    let (conduct, _) = conduct(&telemetry);
    for kind in Misbehaviour::ALL {
        let finding = Finding::misbehaviour(kind, "x");
        conduct.answered(&call(Command::Inquire), &unknown(), Some(&finding));
        let series = format!(
            "causeway_participant_misbehaviour_total{{partner=\"alipay\",kind=\"{}\"}}",
            kind.name()
        );
        assert_eq!(value(&telemetry, &series), 1);
    }
    let lines = lines.all();
    for (kind, line) in Misbehaviour::ALL.iter().zip(&lines) {
        assert!(line.contains(&format!("kind=\"{}\"", kind.name())), "{line}");
    }
    assert_eq!(lines.len(), Misbehaviour::ALL.len());
    let mut names = Misbehaviour::ALL.map(Misbehaviour::name);
    names.sort();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
}

#[tokio::test]
async fn every_answer_and_contradiction_has_its_series() {
    let telemetry = Telemetry::default();
    let (conduct, _) = conduct(&telemetry);
    let reference: Arc<str> = "".into();
    let answers = [
        Answer::Prepared {
            reference: reference.clone(),
        },
        Answer::Refused(Outcome::new(Reason::InsufficientFunds, "", None)),
        Answer::Committed { reference },
        Answer::Aborted,
        Answer::Missing,
        unknown(),
        Answer::Rejected { cause: "x".into() },
    ];
    assert_eq!(answers.len(), ANSWERS.len());
    for (answer, name) in answers.iter().zip(ANSWERS) {
        for command in COMMANDS {
            conduct.answered(&call(command), answer, None);
            let command = command_name(command);
            let series = format!(
                "causeway_participant_answers_total{{partner=\"alipay\",command=\"{command}\",answer=\"{name}\"}}"
            );
            assert_eq!(value(&telemetry, &series), 1, "{series}");
        }
    }
    conduct.contradicted(Reason::HeuristicAbort);
    conduct.contradicted(Reason::Cancelled);
    let outcome =
        |name| format!("causeway_participant_heuristic_outcomes_total{{partner=\"alipay\",outcome=\"{name}\"}}");
    assert_eq!(value(&telemetry, &outcome("abort")), 1);
    assert_eq!(value(&telemetry, &outcome("commit")), 0);
}

#[test]
fn what_the_transport_says_is_told_from_the_participants_word() {
    let own = Status::internal("a bug of ours");
    assert_eq!(Finding::of_transport(&own), None);
    let mut refused = Status::unavailable("tcp connect error");
    refused.set_source(Arc::new(std::io::Error::from(std::io::ErrorKind::ConnectionRefused)));
    let found = Finding::of_transport(&refused).unwrap();
    assert_eq!(found.fault, Fault::Unreachable);
    assert!(found.excerpt.contains("refused"), "{found:?}");
    let long = Broken::status(Code::Unknown, Misbehaviour::NotGrpc, "x".repeat(10_000));
    assert_eq!(Finding::of_transport(&long).unwrap().excerpt.len(), EXCERPT_CHARS_MAX);
}
