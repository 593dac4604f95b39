//! Keeps the documentation true: what it names exists, what it lists is complete, what it shows is what the code does.
//!
//! `UPDATE_DOCS=1 cargo test --test docs` rewrites what is generated: the state diagram of docs/protocol.md.

mod config;
mod diagram;
mod errors;
mod links;
mod map;
mod metrics;
#[path = "../support/ports.rs"]
mod ports;
mod purity;
mod walk;

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The repository.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file of the repository by its path from the root.
fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// README.md and every Markdown file under docs/, by their paths from the root, in order.
fn pages() -> Vec<String> {
    let mut pages = vec!["README.md".to_owned()];
    pages.extend(files("docs").into_iter().filter(|path| path.ends_with(".md")));
    pages
}

/// Every file under a folder, by its path from the root, in order.
fn files(folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(folder)];
    while let Some(folder) = folders.pop() {
        let entries =
            fs::read_dir(root().join(&folder)).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        for entry in entries {
            let entry = entry.unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
            let path = folder.join(entry.file_name());
            if entry.path().is_dir() {
                folders.push(path);
            } else {
                found.push(path.to_str().expect("paths of the repository are UTF-8").to_owned());
            }
        }
    }
    found.sort();
    found
}

/// The text between two markers, which must both be there once.
fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    let once = |marker: &str| assert_eq!(text.matches(marker).count(), 1, "{marker:?} should be there once");
    once(start);
    once(end);
    let (_, rest) = text.split_once(start).expect("it is there once");
    let (inside, _) = rest
        .split_once(end)
        .unwrap_or_else(|| panic!("{end:?} should come after {start:?}"));
    inside
}

/// What stands in backticks, outside of fenced blocks.
fn quoted(markdown: &str) -> Vec<&str> {
    let mut quoted = Vec::new();
    let mut fenced = false;
    for line in markdown.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            quoted.extend(line.split('`').skip(1).step_by(2));
        }
    }
    quoted
}
