//! How much was exercised, the least that counts, and the histories of payments that went wrong.

use std::{fmt::Write as _, time::Duration};

use causeway::{
    coordinator::HaltPoint,
    pb::gateway::v1::{Payment, payment::State},
};

use crate::{
    auditor::{Class, Verdict},
    evidence::{Answer, Change, Evidence, Order},
    history::{History, read},
    proxy::{Kind, Link},
};

/// How many of those that went wrong are told in full.
const TOLD_IN_FULL_MAX: usize = 5;
/// How far around a payment the world is told.
const AROUND_MS: i64 = 500;
/// A run at least so long meets every point by name.
const MEETS_EVERY_POINT: Duration = Duration::from_secs(120);

/// What was exercised, by name, and how much of it a minute must have at least. A run too short for one is spared.
pub struct Tally {
    rows: Vec<Row>,
    missed: Vec<HaltPoint>,
    lasted: Duration,
}

struct Row {
    what: String,
    times: u64,
    least_a_minute: u64,
}

impl Tally {
    pub fn take(history: &History, evidence: &Evidence, links: &[Link], lasted: Duration) -> Self {
        let counts = &history.counts;
        let ended = |state| {
            evidence
                .payments
                .iter()
                .filter(|payment| payment.state() == state)
                .count() as u64
        };
        let mut rows = vec![
            row("kills", history.kills(), 20),
            row("kills of the gateway", read(&counts.kills_gateway), 10),
            row("kills of a partner", read(&counts.kills_partner), 8),
            row("kills of a gateway that starts", read(&counts.kills_starting), 1),
            row("kills of a frozen gateway", read(&counts.kills_frozen), 0),
            row("stops (SIGSTOP)", history.stops(), 6),
            row("gateways drained", read(&counts.drains), 0),
            row("second gateways refused", read(&counts.rivals_refused), 0),
            row("partners crashed of a command", read(&counts.partner_crashes), 1),
            row("commands met by a partner's faults", read(&counts.partner_faults), 5),
            row("holds settled by asking", read(&counts.settled_by_inquiry), 0),
            row("orders", evidence.orders.len() as u64, 100),
            row("payments completed", ended(State::Completed), 60),
            row("payments aborted", ended(State::Aborted), 20),
            row("retries", read(&counts.retries), 50),
            row("retries after a kill", read(&counts.retries_after_kill), 20),
            row("two callers at once", read(&counts.twins), 5),
            row("cancelled", read(&counts.cancels), 2),
            row("altered bodies refused", read(&counts.alterations_refused), 4),
            row("quotes grabbed by two", read(&counts.quotes_shared), 5),
            row("watches opened", read(&counts.watches), 20),
            row("looks at the holds", read(&counts.hold_looks), 60),
        ];
        for kind in Kind::ALL {
            let times = links.iter().map(|link| link.fired(kind)).sum();
            let least_a_minute = if kind == Kind::Late { 2 } else { 8 };
            rows.push(row(&format!("network: {kind:?}"), times, least_a_minute));
        }
        let halted = history.halted.lock().unwrap().clone();
        let missed = HaltPoint::ALL.into_iter().filter(|point| !halted.contains_key(point));
        let missed = missed.collect();
        for (point, times) in halted {
            rows.push(row(&format!("killed at {point}"), times, 0));
        }
        Self { rows, missed, lasted }
    }

    pub fn times(&self, what: &str) -> u64 {
        let found = self.rows.iter().find(|row| row.what == what);
        found.expect("a row of that name").times
    }

    pub fn table(&self) -> String {
        let mut text = String::new();
        for Row { what, times, .. } in &self.rows {
            writeln!(text, "{times:>8}  {what}").unwrap();
        }
        text
    }

    /// What a run of this length did too little of, so that its finding nothing means little.
    pub fn too_little(&self) -> Vec<String> {
        let seconds = self.lasted.as_secs();
        let mut too_little: Vec<_> = self
            .rows
            .iter()
            .filter(|row| row.times < row.least_a_minute * seconds / 60)
            .map(|row| {
                let least = row.least_a_minute * seconds / 60;
                format!("{}: {} times, at least {least} expected", row.what, row.times)
            })
            .collect();
        if self.lasted >= MEETS_EVERY_POINT {
            too_little.extend(self.missed.iter().map(|point| format!("never killed at {point}")));
            for what in ["holds settled by asking", "second gateways refused", "gateways drained"] {
                if self.times(what) == 0 {
                    too_little.push(format!("{what}: never"));
                }
            }
        }
        too_little
    }
}

fn row(what: &str, times: u64, least_a_minute: u64) -> Row {
    Row {
        what: what.into(),
        times,
        least_a_minute,
    }
}

/// All findings, and the histories of the first few payments that they are about.
pub fn tell(verdict: &Verdict, evidence: &Evidence, history: &History) -> String {
    let mut text = String::new();
    let mut subjects: Vec<&str> = Vec::new();
    for finding in &verdict.findings {
        let class = match finding.class {
            Class::Lost => "lost",
            Class::Doubled => "doubled",
            Class::InDoubt => "in doubt",
        };
        writeln!(text, "{class}: {}: {}", finding.subject, finding.what).unwrap();
        if !subjects.contains(&finding.subject.as_str()) {
            subjects.push(&finding.subject);
        }
    }
    for subject in subjects.into_iter().take(TOLD_IN_FULL_MAX) {
        text += &tell_one(subject, evidence, history);
    }
    text
}

/// One payment's history, in the order of time: what callers asked and were told, what was done to the world around it, and
/// what moved; then the gateway's record of it.
fn tell_one(subject: &str, evidence: &Evidence, history: &History) -> String {
    let payment = evidence.payments.iter().find(|payment| payment.name == subject);
    let order = evidence.orders.iter().find(|order| is_about(order, subject, payment));
    let mut lines: Vec<(i64, String)> = Vec::new();
    for told in order.iter().flat_map(|order| &order.told) {
        let answer = match &told.answer {
            Answer::Payment(payment) => format!("{:?} {:?}", payment.state(), payment.outcome),
            Answer::Refused { reason, detail } => format!("{reason}: {detail}"),
            Answer::Nothing(why) => format!("nothing ({why})"),
        };
        lines.push((told.asked_ms, format!("a caller asks: {:?}", told.question)));
        lines.push((
            told.told_ms,
            format!("a caller is told, asked at {}: {answer}", told.asked_ms),
        ));
    }
    for books in &evidence.books {
        for movement in books.movements.iter().filter(|movement| movement.payment == subject) {
            let time = movement.move_time.as_ref().expect("a movement has a time");
            let (branch, account) = (&movement.branch, &movement.account);
            lines.push((
                time.seconds * 1_000 + i64::from(time.nanos) / 1_000_000,
                format!(
                    "{} moves the {branch} of {account}: {:?}",
                    books.network, movement.amount
                ),
            ));
        }
    }
    for sighting in evidence.hanging.iter().filter(|sighting| sighting.payment == subject) {
        let what = format!("{} is seen to hold the {}", sighting.network, sighting.branch);
        lines.push((sighting.seen_ms, what));
    }
    if let (Some(from), Some(to)) = (
        lines.iter().map(|line| line.0).min(),
        lines.iter().map(|line| line.0).max(),
    ) {
        let around = history.events_between(from - AROUND_MS, to + AROUND_MS);
        lines.extend(
            around
                .into_iter()
                .map(|event| (event.at_ms, format!("    {}", event.what))),
        );
    }
    lines.sort_by_key(|(at_ms, _)| *at_ms);
    let mut text = format!("\nhistory of {subject}");
    if let Some(order) = order {
        write!(text, ", ordered by {} as {}", order.key.initiator, order.key.request_id).unwrap();
    }
    text.push('\n');
    for (at_ms, line) in lines {
        writeln!(text, "  {at_ms}  {line}").unwrap();
    }
    for watch in &evidence.watches {
        let path = |changes: &[Change]| -> Vec<State> {
            let of_payment = changes.iter().filter(|change| change.payment == subject);
            of_payment.map(|change| change.state).collect()
        };
        let (live, replay) = (path(&watch.live), path(&watch.replay));
        writeln!(text, "  {}'s watcher saw {live:?}, the feed has {replay:?}", watch.who).unwrap();
    }
    writeln!(text, "  the gateway's record: {payment:?}").unwrap();
    text
}

fn is_about(order: &Order, subject: &str, payment: Option<&Payment>) -> bool {
    let of_payment = payment.is_some_and(|payment| {
        payment.request_id == order.key.request_id && payment.initiator.ends_with(order.key.initiator)
    });
    let told = order
        .told
        .iter()
        .any(|told| matches!(&told.answer, Answer::Payment(payment) if payment.name == subject));
    of_payment || told || subject == format!("{} {}", order.key.initiator, order.key.request_id)
}
