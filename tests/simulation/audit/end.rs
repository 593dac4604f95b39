//! What can only be judged when all is over: that everything ended, and that nobody missed anything.

use super::{Auditor, Broken, Verdict, broken, must};
use crate::{
    cast::NETWORKS,
    history::{Event, Network, Order, Payment, Request},
};

impl Auditor<'_> {
    pub(super) fn end(&mut self) -> Result<(), Broken> {
        for index in 0..self.cases.len() {
            let payment = Payment(index as u32);
            self.case_end(payment)
                .map_err(|(promise, what)| Broken::new(promise, Some(payment), what))?;
        }
        self.reuse_named()?;
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
                caller,
                request,
                reason,
                fields,
            } = &line.event
            else {
                continue;
            };
            if reason != "REQUEST_ID_REUSED" {
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
            if *fields != expected.join(",") {
                return Err(fault(format!(
                    "{} differs in {expected:?}, the error names {fields:?}",
                    request.id()
                )));
            }
        }
        Ok(())
    }

    /// Promises 11 and 12: every watcher was sent every change that concerns it, once, in order.
    fn watchers_saw_everything(&self) -> Result<(), Broken> {
        for network in (0..NETWORKS.len()).map(Network) {
            let own = NETWORKS[network.0].0;
            let concerns = |payment: Payment| {
                let facts = self.cases[payment.0 as usize].facts.as_ref().expect("it has begun");
                facts.initiator == own || facts.partners.iter().any(|partner| partner == own)
            };
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
