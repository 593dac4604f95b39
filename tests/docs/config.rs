//! The reference of the configuration names every key, and the example shows every default.

use std::{collections::BTreeMap, path::Path};

use causeway::config::Config;

use super::{between, read};

const EXAMPLE: &str = "docs/gateway.example.toml";
/// What the example says at the end of a line that may as well be left out.
const DEFAULT: &str = "# default";

/// The keys of the file, by what src/config/raw.rs can read: `listen`, `rates.path`, `partner.name`.
fn keys() -> Vec<String> {
    let raw = read("src/config/raw.rs");
    let mut structs: BTreeMap<&str, Vec<(&str, &str)>> = BTreeMap::new();
    let mut current = None;
    for line in raw.lines() {
        if let Some(rest) = line.strip_prefix("pub struct ") {
            current = rest.split_whitespace().next();
        } else if line.starts_with('}') {
            current = None;
        } else if let (Some(name), Some(field)) = (current, line.trim().strip_prefix("pub ")) {
            let (field, kind) = field.split_once(": ").expect("a field has a type");
            structs
                .entry(name)
                .or_default()
                .push((field, kind.trim_end_matches(',')));
        }
    }
    let mut keys = Vec::new();
    for (field, kind) in &structs["File"] {
        let inner = kind.trim_start_matches("Vec<").trim_end_matches('>');
        match structs.get(inner) {
            Some(fields) => keys.extend(fields.iter().map(|(name, _)| format!("{field}.{name}"))),
            None => keys.push((*field).to_owned()),
        }
    }
    keys
}

/// The rows of the tables in the README: key to all of its row.
fn rows() -> BTreeMap<String, String> {
    let readme = read("README.md");
    let reference = between(&readme, "<!-- config -->", "<!-- /config -->");
    let rows = reference.lines().filter_map(|line| {
        let (key, _) = line.strip_prefix("| `")?.split_once('`')?;
        Some((key.to_owned(), line.to_owned()))
    });
    rows.collect()
}

/// The lines of the example that set a key, commented out or not: key, value, and whether that is the default.
fn settings() -> Vec<(String, String, bool)> {
    let mut table = String::new();
    let mut settings = Vec::new();
    for line in read(EXAMPLE).lines() {
        if let Some(name) = line.strip_prefix('[') {
            let name = name.trim_start_matches('[');
            table = format!("{}.", name.split(']').next().unwrap_or_default());
            continue;
        }
        // "# key = value" is a setting that is commented out; "# Words" is not.
        let line = line.strip_prefix("# ").unwrap_or(line);
        let Some((key, rest)) = line.split_once(" = ") else {
            continue;
        };
        if !key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') {
            continue;
        }
        let (value, comment) = rest.split_once(" #").unwrap_or((rest, ""));
        let is_default = format!("#{comment}").starts_with(DEFAULT);
        settings.push((format!("{table}{key}"), value.trim().to_owned(), is_default));
    }
    settings
}

#[test]
fn the_reference_has_every_key_and_no_other() {
    let keys = keys();
    assert!(keys.len() > 40, "{keys:?}");
    let rows = rows();
    for key in &keys {
        assert!(rows.contains_key(key), "README.md should explain {key}");
    }
    for row in rows.keys() {
        assert!(keys.contains(row), "README.md explains {row}, which is no key");
    }
}

#[test]
fn the_example_has_every_key_and_no_other() {
    let keys = keys();
    let settings = settings();
    for key in &keys {
        assert!(
            settings.iter().any(|(name, ..)| name == key),
            "{EXAMPLE} should show {key}"
        );
    }
    for (name, ..) in &settings {
        assert!(keys.contains(name), "{EXAMPLE} shows {name}, which is no key");
    }
}

#[test]
fn the_example_is_taken() {
    let config = Config::load(&super::root().join(EXAMPLE)).expect("the example is good");
    assert!(!config.corridors.is_empty());
}

/// Leaving out what the example calls a default changes nothing, and the reference says the same.
#[test]
fn the_defaults_are_those_of_the_code() {
    let text = read(EXAMPLE);
    let is_default = |line: &&str| !line.starts_with('#') && line.contains(DEFAULT);
    let kept: Vec<_> = text.lines().filter(|line| !is_default(line)).collect();
    let left_out = text.lines().filter(is_default).count();
    assert!(left_out > 20, "only {left_out} defaults");
    let parse = |text: &str| {
        format!(
            "{:#?}",
            Config::parse(text, Path::new(EXAMPLE)).expect("the example is good")
        )
    };
    assert_eq!(parse(&text), parse(&kept.join("\n")));

    let rows = rows();
    for (key, value, _) in settings().iter().filter(|(.., is_default)| *is_default) {
        let cell = format!("| `{}` |", value.replace('_', ""));
        let row = &rows[key];
        assert!(
            row.replace('_', "").contains(&cell),
            "README.md should give {key} the default {value}: {row}"
        );
    }
}
