//! Every reason has a page, and every page has a reason.

use std::collections::BTreeMap;

use causeway::{api::status::ErrorReason, payment::Reason};

use super::{files, read};

/// Every reason with the code that goes with it: a gRPC code, or one of ISO 20022.
fn reasons() -> BTreeMap<&'static str, String> {
    let calls = ErrorReason::ALL
        .iter()
        .map(|reason| (reason.name(), screaming(&format!("{:?}", reason.code()))));
    let outcomes = Reason::ALL
        .into_iter()
        .map(|reason| (reason.name(), reason.iso_code().to_owned()));
    let count = ErrorReason::ALL.len() + Reason::ALL.len();
    let reasons: BTreeMap<_, _> = calls.chain(outcomes).collect();
    assert_eq!(reasons.len(), count, "two reasons have one name");
    reasons
}

/// "InvalidArgument" as gRPC writes it: "INVALID_ARGUMENT".
fn screaming(name: &str) -> String {
    let mut screaming = String::new();
    for c in name.chars() {
        if c.is_uppercase() && !screaming.is_empty() {
            screaming.push('_');
        }
        screaming.extend(c.to_uppercase());
    }
    screaming
}

#[test]
fn every_reason_has_a_page_that_names_its_code() {
    for (name, code) in reasons() {
        let path = format!("docs/errors/{name}.md");
        let page = read(&path);
        assert!(
            page.starts_with(&format!("# {name}\n")),
            "{path} should begin with its name"
        );
        assert!(page.contains(&format!("`{code}`")), "{path} should name {code}");
        for heading in ["## When", "## What it carries", "## What to do"] {
            assert!(page.contains(heading), "{path} should have {heading:?}");
        }
        assert!(page.contains("**Retry:** "), "{path} should say whether a retry helps");
    }
}

#[test]
fn no_page_is_for_a_reason_that_does_not_exist() {
    let reasons = reasons();
    for path in files("docs/errors") {
        let name = path
            .strip_prefix("docs/errors/")
            .and_then(|name| name.strip_suffix(".md"))
            .unwrap_or_else(|| panic!("{path} should not be there"));
        assert!(
            name == "README" || reasons.contains_key(name),
            "{path} is for no reason"
        );
    }
}

#[test]
fn the_index_lists_all_with_their_codes() {
    let index = read("docs/errors/README.md");
    let rows: Vec<_> = index.lines().filter(|line| line.starts_with("| [")).collect();
    let reasons = reasons();
    assert_eq!(rows.len(), reasons.len(), "as many rows as reasons");
    for (name, code) in reasons {
        let row = format!("| [{name}]({name}.md) | `{code}` | ");
        assert!(
            rows.iter().any(|line| line.starts_with(&row)),
            "docs/errors/README.md should have a row that starts with {row:?}"
        );
    }
}
