//! docs/metrics.md names every metric, label and kind, and no other.

use std::collections::BTreeMap;

use causeway::{
    participant::Misbehaviour,
    telemetry::{METRICS, Telemetry},
};

use super::{files, quoted, read};

const PAGE: &str = "docs/metrics.md";

/// The rows of the page's tables whose first cell is in backticks: that cell to all cells.
fn rows() -> BTreeMap<String, Vec<String>> {
    let page = read(PAGE);
    let rows = page.lines().filter_map(|line| {
        let cells: Vec<_> = line.strip_prefix("| `")?.split(" | ").map(str::to_owned).collect();
        let name = cells[0].trim_end_matches('`').to_owned();
        Some((name, cells))
    });
    rows.collect()
}

#[test]
fn every_metric_has_a_row_with_its_labels_and_every_row_is_a_metric_or_a_kind() {
    let mut rows = rows();
    for metric in METRICS {
        let row = rows.remove(metric.name);
        let row = row.unwrap_or_else(|| panic!("{PAGE} should have a row for {}", metric.name));
        assert_eq!(row.len(), 5, "name, type, labels, meaning, when to act: {row:?}");
        assert_eq!(row[1], "counter", "{row:?}");
        assert_eq!(
            quoted(&row[2]),
            metric.labels,
            "{PAGE} should have the labels of {}",
            metric.name
        );
    }
    for kind in Misbehaviour::ALL {
        let name = kind.name();
        assert!(
            rows.remove(name).is_some(),
            "{PAGE} should have a row for the kind {name}"
        );
    }
    assert!(rows.is_empty(), "{PAGE} explains what there is not: {rows:?}");
}

#[test]
fn what_is_shown_is_what_is_listed_and_named_as_prometheus_has_it() {
    let telemetry = Telemetry::default();
    for metric in METRICS {
        telemetry.counter(&metric, metric.labels);
    }
    let shown = telemetry.render();
    let mut shown: Vec<_> = shown
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .map(|stem| format!("{stem}_total"))
        .collect();
    let mut listed: Vec<_> = METRICS.iter().map(|metric| metric.name.to_owned()).collect();
    shown.sort();
    listed.sort();
    assert_eq!(shown, listed);
    assert!(listed.windows(2).all(|pair| pair[0] != pair[1]), "{listed:?}");
    let is_name = |text: &str| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    for metric in METRICS {
        assert!(
            metric.name.starts_with("causeway_") && is_name(metric.name),
            "{metric:?}"
        );
        assert!(metric.labels.iter().all(|label| is_name(label)), "{metric:?}");
    }
}

/// No metric passes by the list: only `src/telemetry/` knows the library that counts.
#[test]
fn nobody_counts_but_through_the_list() {
    let sources = files("src");
    assert!(sources.len() > 50);
    let passing_by: Vec<_> = sources
        .iter()
        .filter(|path| !path.starts_with("src/telemetry/") && read(path).contains("prometheus_client"))
        .collect();
    assert!(passing_by.is_empty(), "{passing_by:?}");
    assert!(read("src/telemetry/mod.rs").contains("prometheus_client"));
}

/// Every metric of the list is counted by somebody.
#[test]
fn nothing_is_listed_that_nobody_counts() {
    let list = read("src/telemetry/mod.rs");
    let constants: Vec<_> = list
        .lines()
        .filter_map(|line| line.strip_prefix("pub const ")?.strip_suffix(": Metric = Metric {"))
        .collect();
    assert_eq!(constants.len(), METRICS.len());
    let users: Vec<_> = files("src")
        .into_iter()
        .filter(|path| !path.starts_with("src/telemetry/") && !path.ends_with("tests.rs"))
        .map(|path| read(&path))
        .collect();
    for constant in constants {
        let counts = format!("counter(&{constant},");
        assert!(
            users.iter().any(|text| text.contains(&counts)),
            "nobody counts {constant}"
        );
    }
}
