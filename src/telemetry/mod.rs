//! What a running gateway says about itself in numbers.
//!
//! Owns the list of metrics ([`METRICS`]), the counters behind them, their text for Prometheus and the endpoint that serves
//! it, and the bound on how often a thing is logged. Leaves to those who count what a number means: `participant` counts what
//! partners do. Called by `gateway`, which makes one [`Telemetry`] and hands it around; there is none of the process, so that
//! two gateways in one process do not count together. Invariant: a metric that is not on the list cannot be counted, and its
//! labels are those of the list; `docs/metrics.md` has the same list (`tests/docs/metrics.rs`).

mod endpoint;
mod limiter;

use std::{collections::BTreeMap, sync::Arc};

use prometheus_client::{
    encoding::text::encode,
    metrics::{counter, family::Family},
    registry::Registry,
};

pub use endpoint::serve;
pub use limiter::Limiter;

/// A counter among the metrics: it goes up for as long as the process lives, and starts at zero with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// As it is shown, `_total` and all (Prometheus' naming of counters).
    pub name: &'static str,
    /// Its labels, in order. Their values come from the configuration and from enums: never from what somebody sent.
    pub labels: &'static [&'static str],
    /// What is counted.
    pub help: &'static str,
}

/// Calls to partners that ended, by what they were worth.
pub const PARTICIPANT_ANSWERS: Metric = Metric {
    name: "causeway_participant_answers_total",
    labels: &["partner", "command", "answer"],
    help: "Commands to a partner, by what came of them",
};

/// Answers that break the participant's contract, and those that never came.
pub const PARTICIPANT_MISBEHAVIOUR: Metric = Metric {
    name: "causeway_participant_misbehaviour_total",
    labels: &["partner", "kind"],
    help: "Answers of a partner that break the contract, or that never came",
};

/// Calls that did not reach the partner, or whose connection was lost.
pub const PARTICIPANT_UNREACHABLE: Metric = Metric {
    name: "causeway_participant_unreachable_total",
    labels: &["partner"],
    help: "Commands for which there was no connection to the partner, or whose connection was lost",
};

/// Contradictions of a decision; each makes a payment DISPUTED.
pub const PARTICIPANT_HEURISTIC_OUTCOMES: Metric = Metric {
    name: "causeway_participant_heuristic_outcomes_total",
    labels: &["partner", "outcome"],
    help: "Times that a partner contradicted a payment's decision; the payment is disputed",
};

/// All metrics.
pub const METRICS: [Metric; 4] = [
    PARTICIPANT_ANSWERS,
    PARTICIPANT_MISBEHAVIOUR,
    PARTICIPANT_UNREACHABLE,
    PARTICIPANT_HEURISTIC_OUTCOMES,
];

/// The metrics of one gateway. Cheap to clone; all clones count together.
#[derive(Clone, Debug)]
pub struct Telemetry {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    registry: Registry,
    families: BTreeMap<&'static str, Family<Labels, counter::Counter>>,
}

/// The labels of one series, name and value.
type Labels = Vec<(&'static str, String)>;

/// One series of a metric: its labels are set. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Counter(counter::Counter);

impl Counter {
    /// One more.
    pub fn count(&self) {
        self.0.inc();
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        let mut registry = Registry::default();
        let families = METRICS
            .into_iter()
            .map(|metric| {
                let family = Family::default();
                // The encoder puts the suffix of counters back on.
                let stem = metric.name.trim_end_matches("_total");
                registry.register(stem, metric.help, family.clone());
                (metric.name, family)
            })
            .collect();
        Self {
            shared: Arc::new(Shared { registry, families }),
        }
    }
}

impl Telemetry {
    /// The series of a metric with these values of its labels, in order. It is shown from now on, with zero: what has never
    /// happened is told apart from what is not counted.
    ///
    /// # Panics
    /// If the metric is not on the list or has another number of labels: a bug.
    pub fn counter(&self, metric: &Metric, values: &[&str]) -> Counter {
        assert_eq!(metric.labels.len(), values.len(), "{metric:?}: {values:?}");
        let family = &self.shared.families[metric.name];
        let labels = metric.labels.iter().copied();
        let labels: Vec<_> = labels.zip(values.iter().map(ToString::to_string)).collect();
        Counter(family.get_or_create_owned(&labels))
    }

    /// All metrics as OpenMetrics text, which Prometheus reads.
    pub fn render(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.shared.registry).expect("a string takes text");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_shown_and_what_never_happened_is_zero() {
        let telemetry = Telemetry::default();
        let counter = telemetry.counter(&PARTICIPANT_MISBEHAVIOUR, &["alipay", "no_answer"]);
        telemetry.counter(&PARTICIPANT_MISBEHAVIOUR, &["alipay", "too_large"]);
        counter.count();
        // The same series again, by another handle.
        telemetry
            .clone()
            .counter(&PARTICIPANT_MISBEHAVIOUR, &["alipay", "no_answer"])
            .count();
        let text = telemetry.render();
        for line in [
            "# TYPE causeway_participant_misbehaviour counter",
            "causeway_participant_misbehaviour_total{partner=\"alipay\",kind=\"no_answer\"} 2",
            "causeway_participant_misbehaviour_total{partner=\"alipay\",kind=\"too_large\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(text.ends_with("# EOF\n"), "{text}");
        // Another gateway's are its own.
        assert!(!Telemetry::default().render().contains("alipay"));
    }
}
