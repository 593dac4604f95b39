//! The pure folders know no runtime, transport, clock, disk, network or randomness, and nobody who does.

use super::{files, read};

const FOLDERS: [&str; 3] = ["src/money", "src/payment", "src/coordinator/protocol"];
const FX: [&str; 4] = [
    "src/fx/quote.rs",
    "src/fx/table.rs",
    "src/fx/ecb.rs",
    "src/fx/breaker.rs",
];
/// What a pure file may take from its own crate. `fx::FxError` is what pure tables answer with; it only holds values.
const PURE: [&str; 8] = [
    "money",
    "payment",
    "coordinator::protocol",
    "fx::quote",
    "fx::table",
    "fx::ecb",
    "fx::breaker",
    "fx::FxError",
];
const FORBIDDEN: [&str; 16] = [
    "tokio",
    "tonic",
    "std::time",
    "SystemTime",
    "Instant::",
    "std::fs",
    "std::net",
    "std::thread",
    "std::env",
    "std::process",
    "rand",
    "getrandom",
    "new_v4",
    "now_utc",
    "now_local",
    "super::super",
];

fn pure_files() -> Vec<String> {
    let mut pure: Vec<_> = FOLDERS.iter().flat_map(|folder| files(folder)).collect();
    pure.extend(FX.map(str::to_owned));
    pure
}

/// What is wrong with a pure file.
fn problems(path: &str, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        // What is said is not what is done.
        let code = line.split("//").next().unwrap_or_default();
        for word in FORBIDDEN {
            if has_word(code, word) {
                problems.push(format!("{path}:{number}: {word}"));
            }
        }
    }
    let code: String = text
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n");
    let mut paths: Vec<String> = after(&code, "crate::").into_iter().flat_map(expand).collect();
    if path.starts_with("src/fx/") {
        let own = after(&code, "super::").into_iter().flat_map(expand);
        paths.extend(own.filter(|path| path != "*").map(|path| format!("fx::{path}")));
    }
    // In a mod.rs `super` is the folder above, which is not pure; but in an inline module it is the file itself.
    if path.ends_with("/mod.rs") && !code.contains("mod tests {") {
        paths.extend(
            after(&code, "super::")
                .into_iter()
                .map(|rest| format!("super::{}", name(rest))),
        );
    }
    for used in paths {
        let is_pure = PURE.iter().any(|pure| {
            used.strip_prefix(pure)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        });
        if !is_pure {
            problems.push(format!("{path}: crate::{used} is not on the list of what is pure"));
        }
    }
    problems
}

/// Whether the word stands there by itself: `rand` is not in `operand`.
fn has_word(code: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let behind = code[at + word.len()..].chars().next();
        let open = word.ends_with("::");
        !before.is_some_and(is_part) && (open || !behind.is_some_and(is_part))
    })
}

/// Every rest of the text that follows the marker.
fn after<'a>(code: &'a str, marker: &str) -> Vec<&'a str> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let standing = code
        .match_indices(marker)
        .filter(|(at, _)| !code[..*at].chars().next_back().is_some_and(is_part));
    standing.map(|(at, _)| &code[at + marker.len()..]).collect()
}

/// The path that a text begins with: `money::Rate` of `money::Rate, b`.
fn name(text: &str) -> String {
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':' || c == '*'));
    text[..end.unwrap_or(text.len())].trim_end_matches(':').to_owned()
}

/// The paths of one `use`: `{money::Rate, payment::{Terms, Order}}` is two.
fn expand(text: &str) -> Vec<String> {
    let Some(group) = text.strip_prefix('{') else {
        return vec![name(text)];
    };
    let mut depth = 0;
    let mut paths = Vec::new();
    let mut start = true;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => start = true,
            c if c.is_whitespace() => {}
            _ if start => {
                paths.push(name(&group[at..]));
                start = false;
            }
            _ => {}
        }
    }
    paths
}

#[test]
fn the_pure_folders_are_pure() {
    let files = pure_files();
    assert!(files.len() > 15, "{files:?}");
    let problems: Vec<_> = files.iter().flat_map(|path| problems(path, &read(path))).collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn what_is_not_pure_is_found() {
    let rows: &[(&str, usize)] = &[
        ("use std::time::Instant;", 1),
        ("let now = std::time::SystemTime::now();", 2),
        ("let now = Instant::now();", 1),
        ("use tokio::sync::Mutex;", 1),
        ("let x = rand::random();", 1),
        ("use crate::store::Store;", 1),
        ("use crate::{money::Amount, store::{Begin, Store}};", 1),
        ("use crate::runtime::Runtime;", 1),
        ("use super::super::driver::Driver;", 1),
        ("let id = uuid::Uuid::new_v4();", 1),
        ("use crate::{money::{Amount, Rate}, payment::Terms};", 0),
        ("use crate::coordinator::protocol::Record;", 0),
        ("let operand = a.instant; // tokio is not needed here", 0),
    ];
    for (line, count) in rows {
        let found = problems("src/payment/x.rs", line);
        assert_eq!(found.len(), *count, "{line}: {found:?}");
    }
    assert_eq!(problems("src/fx/table.rs", "use super::source::Https;").len(), 1);
    assert_eq!(
        problems("src/fx/table.rs", "use super::{FxError, quote::price};").len(),
        0
    );
    assert_eq!(
        problems("src/coordinator/protocol/mod.rs", "use super::driver;").len(),
        1
    );
}

/// What drives payments takes its time, tasks and randomness from the runtime that it is handed (`src/runtime.rs`), or a
/// simulation would not see what production does.
const DRIVES: [&str; 6] = [
    "src/coordinator",
    "src/api",
    "src/participant/channel.rs",
    "src/participant/conduct.rs",
    "src/participant/grpc.rs",
    "src/fx/cache.rs",
];
const OUTSIDE: [&str; 8] = [
    "tokio::time",
    "tokio::spawn",
    "tokio::task",
    "Instant",
    "SystemTime",
    "new_v4",
    "thread_rng",
    "std::thread",
];

/// Lines that ask somebody else than the runtime.
fn askers(path: &str, text: &str) -> Vec<String> {
    // Tests at the end of a file run on what they like.
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let asks = |line: &str| {
        let code = line.split("//").next().unwrap_or_default();
        OUTSIDE.iter().any(|word| has_word(code, word))
    };
    let lines = code.lines().zip(1..).filter(|(line, _)| asks(line));
    lines
        .map(|(line, number)| format!("{path}:{number}: {}", line.trim()))
        .collect()
}

#[test]
fn what_drives_payments_asks_only_the_runtime() {
    let drives = DRIVES.iter().flat_map(|path| match path.ends_with(".rs") {
        true => vec![(*path).to_owned()],
        false => files(path),
    });
    let drives: Vec<_> = drives.filter(|path| !path.ends_with("tests.rs")).collect();
    assert!(drives.len() > 25, "{drives:?}");
    let found: Vec<_> = drives.iter().flat_map(|path| askers(path, &read(path))).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
    for asker in [
        "tokio::spawn(work);",
        "let now = Instant::now();",
        "use tokio::time::sleep;",
    ] {
        assert_eq!(askers("x.rs", asker).len(), 1, "{asker}");
    }
    assert!(askers("x.rs", "runtime.spawn(work); // not tokio::spawn").is_empty());
}
