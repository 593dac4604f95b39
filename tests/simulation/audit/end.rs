//! What can only be judged when all is over: that everything ended, and that nobody missed anything.

use super::{Auditor, Broken, Verdict, broken, must};
use crate::{
    cast::NETWORKS,
    history::{Event, Network, Order, Payment, Request},
};

/// Answers that say nothing of the payment: the caller asks again.
const NOBODY_KNOWS: [&str; 4] = ["", "STORE_UNAVAILABLE", "STORE_FAILED", "DRAINING"];

impl Auditor<'_> {
    pub(super) fn end(&mut self) -> Result<(), Broken> {
        for index in 0..self.cases.len() {
            let payment = Payment(index as u32);
            self.case_end(payment)
                .map_err(|(promise, what)| Broken::new(promise, Some(payment), what))?;
        }
        self.reuse_named()?;
        self.lists_are_whole()?;
        self.watchers_saw_everything()
    }

    /// Promise 4, and that whatever a network did on its own is not silent.
    fn case_end(&mut self, payment: Payment) -> Verdict {
        let case = &self.cases[payment.0 as usize];
        let Some(facts) = &case.facts else {
            let touched = case
                .branches
                .values()
                .any(|branch| branch.held || branch.moved.is_some());
            return must(!touched, 3, || {
                "money is held or moved for a payment that never began".into()
            });
        };
        let Some(decided) = &case.decided else {
            return broken(4, "never decided");
        };
        must(case.ended || case.disputed, 4, || "never ended".into())?;
        for (index, name) in ["debit", "credit"].into_iter().enumerate() {
            let Some(branch) = case.branches.get(name) else {
                must(!decided.commit, 4, || format!("{name} never heard of it"))?;
                continue;
            };
            must(!branch.held || branch.lied, 4, || format!("{name} is still in doubt"))?;
            let follows = branch.moved.is_some() == decided.commit;
            // An honest network follows the decision, whatever the other one did; a rogue's payment shows that it did not.
            must(follows || branch.lied || branch.broke_word, 1, || {
                format!("{name} does not follow the decision")
            })?;
            must(follows || branch.lied || case.disputed, 7, || {
                format!(
                    "{name} at {} went its own way, and nobody was told",
                    facts.partners[index]
                )
            })?;
        }
        let outcome = match (case.disputed, decided.commit) {
            (true, _) => "disputed".to_owned(),
            (false, true) => "completed".to_owned(),
            (false, false) => format!("aborted: {}", decided.reason),
        };
        *self.tally.outcomes.entry(outcome).or_default() += 1;
        Ok(())
    }

    /// Promise 5: the error that refuses another body names exactly the fields that differ.
    fn reuse_named(&self) -> Result<(), Broken> {
        for line in &self.history.lines {
            let Event::Refused {
                ask,
                caller,
                request,
                reason,
                fields,
            } = &line.event
            else {
                continue;
            };
            if reason != "REQUEST_ID_REUSED" {
                self.not_refused_again(*ask, *caller, *request, reason)?;
                continue;
            }
            let payment = self.requests.get(&(*caller, request.number)).copied();
            let fault = |what: String| Broken::new(5, payment, what);
            if payment.is_none() {
                return Err(fault(format!(
                    "{} was refused as reused, and nobody used it",
                    request.id()
                )));
            }
            let Some(body) = self.bodies.get(&(*caller, request.number)) else {
                continue;
            };
            let taken = Request {
                body: *body,
                ..*request
            };
            let expected = differences(&self.orders[&(*caller, taken)], &self.orders[&(*caller, *request)]);
            if expected.is_empty() || *fields != expected.join(",") {
                return Err(fault(format!(
                    "{} differs in {expected:?}, the error names {fields:?}",
                    request.id()
                )));
            }
        }
        Ok(())
    }

    /// Promise 5: who asks again with the same body gets its payment, and never a reason to pay otherwise.
    fn not_refused_again(&self, ask: usize, caller: Network, request: Request, reason: &str) -> Result<(), Broken> {
        let Some(payment) = self.asked_again.get(&ask) else {
            return Ok(());
        };
        let Some(body) = self.bodies.get(&(caller, request.number)) else {
            return Ok(());
        };
        let taken = Request { body: *body, ..request };
        let same = self.orders[&(caller, taken)] == self.orders[&(caller, request)];
        if same && !NOBODY_KNOWS.contains(&reason) {
            let what = format!("{} is refused for {reason}, and its payment is there", request.id());
            return Err(Broken::new(5, Some(*payment), what));
        }
        Ok(())
    }

    /// Every payment that concerns a network is on its list, once.
    fn lists_are_whole(&self) -> Result<(), Broken> {
        for network in (0..NETWORKS.len()).map(Network) {
            let own = NETWORKS[network.0].0;
            let mut listed = self.listed.get(&network).cloned().unwrap_or_default();
            listed.sort();
            let expected: Vec<_> = (0..self.cases.len() as u32)
                .map(Payment)
                .filter(|payment| self.cases[payment.0 as usize].facts.is_some() && self.concerns(own, *payment))
                .collect();
            if listed != expected {
                let odd = expected.iter().find(|payment| !listed.contains(payment));
                let odd = odd.or_else(|| listed.iter().find(|payment| !expected.contains(payment)));
                let what = format!("{own} has {} payments and {} on its list", expected.len(), listed.len());
                return Err(Broken::new(13, odd.copied(), what));
            }
        }
        Ok(())
    }

    fn concerns(&self, own: &str, payment: Payment) -> bool {
        let facts = self.cases[payment.0 as usize].facts.as_ref().expect("it has begun");
        facts.initiator == own || facts.partners.iter().any(|partner| partner == own)
    }

    /// Promise 4: what had begun when all was healed has ended by now, and nothing is held for it.
    pub(super) fn deadline(&mut self) -> Verdict {
        for payment in &self.begun_by_healing {
            let case = &self.cases[payment.0 as usize];
            let name = self.history.name(*payment);
            must(case.ended || case.disputed, 4, || {
                format!("{name} has not ended in time")
            })?;
            let held = case.branches.values().any(|branch| branch.held && !branch.lied);
            must(!held, 4, || format!("money is still held for {name}"))?;
        }
        Ok(())
    }

    /// Promises 11 and 12: every watcher was sent every change that concerns it, once, in order.
    fn watchers_saw_everything(&self) -> Result<(), Broken> {
        for network in (0..NETWORKS.len()).map(Network) {
            let own = NETWORKS[network.0].0;
            let concerns = |payment: Payment| self.concerns(own, payment);
            let expected = self.changes.iter().filter(|(payment, _)| concerns(*payment));
            let seen = self.watched.get(&network).map(Vec::as_slice).unwrap_or_default();
            let mut count = 0;
            for (index, change) in expected.enumerate() {
                count += 1;
                if seen.get(index) != Some(change) {
                    return Err(Broken::new(
                        11,
                        Some(change.0),
                        format!(
                            "{own} was to see {change:?} as its change {index}, and saw {:?}",
                            seen.get(index)
                        ),
                    ));
                }
            }
            if seen.len() > count {
                return Err(Broken::new(
                    11,
                    Some(seen[count].0),
                    format!("{own} saw {} changes too many", seen.len() - count),
                ));
            }
        }
        Ok(())
    }
}

/// The paths of the fields in which two bodies differ, in the order in which they stand in the request.
fn differences(a: &Order, b: &Order) -> Vec<&'static str> {
    [
        ("payment.payer.account", a.payer != b.payer),
        ("payment.payee.account", a.payee != b.payee),
        ("payment.quote", a.quote != b.quote),
        ("payment.market.amount", a.quote.is_none() && a.amount != b.amount),
    ]
    .into_iter()
    .filter_map(|(field, differs)| differs.then_some(field))
    .collect()
}
