//! The map of the code is complete.

use super::{quoted, read};

/// The modules that src/lib.rs declares.
fn modules() -> Vec<String> {
    let lib = read("src/lib.rs");
    let declared = lib
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    declared.map(str::to_owned).collect()
}

#[test]
fn the_map_names_every_module() {
    let modules = modules();
    assert!(modules.len() > 10, "{modules:?}");
    let architecture = read("docs/architecture.md");
    let lib = read("src/lib.rs");
    let names = quoted(&architecture);
    for module in modules {
        let known = [format!("src/{module}.rs"), format!("src/{module}/")];
        assert!(
            names.iter().any(|name| known.iter().any(|known| name == known)),
            "docs/architecture.md should name {} or {}",
            known[0],
            known[1]
        );
        assert!(
            lib.contains(&format!("//! | [`{module}`]")),
            "the table in src/lib.rs should have a row for {module}"
        );
    }
}

#[test]
fn the_map_has_every_promise() {
    for page in ["docs/architecture.md", "src/lib.rs"] {
        let text = read(page);
        for number in 1..=13 {
            let rows = [format!("| {number} |"), format!("//! {number}. ")];
            assert!(
                text.lines().any(|line| rows.iter().any(|row| line.starts_with(row))),
                "{page} should have promise {number}"
            );
        }
    }
}

#[test]
fn every_halt_point_is_in_the_table() {
    let protocol = read("docs/protocol.md");
    for point in causeway::coordinator::HaltPoint::ALL {
        let row = format!("| `{point}` |");
        assert!(protocol.contains(&row), "docs/protocol.md should have a row {row:?}");
    }
}

#[test]
fn every_fault_of_the_mock_partner_is_in_the_table() {
    use causeway::participant::mock::FaultSpec;
    let partners = read("docs/partners.md");
    let error = FaultSpec::parse("no-such-fault").expect_err("it is none").to_string();
    let (_, kinds) = error.split_once("none of ").expect("the error lists the kinds");
    let kinds: Vec<_> = kinds.split(", ").collect();
    assert!(kinds.len() >= 7, "{kinds:?}");
    for kind in kinds {
        let form = format!("| `{kind}");
        assert!(
            partners.contains(&form),
            "docs/partners.md should have a row for {kind}"
        );
    }
    // Every example is a fault that the command line takes.
    let examples: Vec<_> = partners
        .lines()
        .flat_map(|line| line.split("--fault ").skip(1))
        .filter_map(|rest| rest.split([' ', '`', '"']).find(|word| !word.is_empty()))
        .filter(|word| !word.starts_with(|c: char| c.is_uppercase()))
        .collect();
    assert!(examples.len() >= 7, "{examples:?}");
    for example in examples {
        let parsed = FaultSpec::parse(example);
        assert!(parsed.is_ok(), "--fault {example}: {parsed:?}");
    }
}
