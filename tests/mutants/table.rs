//! The table of bugs: as it is printed, and as docs/proof.md has it.

use std::fs;

use super::{hunt::Catch, list::Bug, root};

const PAGE: &str = "docs/proof.md";
const START: &str = "<!-- mutants: written by UPDATE_DOCS=1 cargo test --release --test mutants -->\n";
const END: &str = "<!-- /mutants -->";
/// What a broken promise says of one payment is of no interest here.
const BROKEN_CHARS_MAX: usize = 100;

/// The table for a terminal.
pub fn text(caught: &[(&Bug, Result<Catch, String>)]) -> String {
    let width = caught.iter().map(|(bug, _)| bug.name.len()).max().unwrap_or_default();
    let line = |(bug, found): &(&Bug, Result<Catch, String>)| match found {
        Ok(catch) => {
            let (by, after, broken) = (&catch.by, &catch.after, short(&catch.broken));
            format!("{:width$}  {by:10}  {after:>18}  {broken}\n", bug.name)
        }
        Err(missed) => format!("{:width$}  NOT CAUGHT: {missed}\n", bug.name),
    };
    caught.iter().map(line).collect()
}

/// The page has a row for each bug, and for nothing else.
pub fn check(bugs: &[Bug]) -> Result<(), String> {
    // The page comes with its table; until there is one there is nothing to be wrong.
    let Ok(page) = fs::read_to_string(root().join(PAGE)) else {
        return Ok(());
    };
    let shown = between(&page)?;
    let rows = shown
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`').map(|(name, _)| name));
    let rows: Vec<_> = rows.collect();
    let names: Vec<_> = bugs.iter().map(|bug| bug.name.as_str()).collect();
    if rows != names {
        return Err(format!(
            "{PAGE} should have a row for each of {names:?}, and has {rows:?}"
        ));
    }
    Ok(())
}

/// Writes the table into the page, if that is asked for.
pub fn update(caught: &[(&Bug, Result<Catch, String>)]) -> Result<(), String> {
    if std::env::var_os("UPDATE_DOCS").is_none() {
        return Ok(());
    }
    let page = fs::read_to_string(root().join(PAGE)).map_err(|error| format!("{PAGE}: {error}"))?;
    let shown = between(&page)?;
    let mut rows = String::from("| Bug | What was thought | Caught by | After |\n|---|---|---|---|\n");
    for (bug, found) in caught {
        if let Ok(catch) = found {
            let (by, after, broken) = (&catch.by, &catch.after, short(&catch.broken));
            rows += &format!("| `{}` | {} | {by}: {broken} | {after} |\n", bug.name, bug.thought);
        }
    }
    let updated = page.replace(&format!("{START}{shown}{END}"), &format!("{START}{rows}{END}"));
    fs::write(root().join(PAGE), updated).map_err(|error| format!("{PAGE}: {error}"))
}

fn between(page: &str) -> Result<&str, String> {
    let rest = page.split_once(START).map(|(_, rest)| rest);
    let inside = rest.and_then(|rest| rest.split_once(END)).map(|(inside, _)| inside);
    inside.ok_or_else(|| format!("{PAGE} should have {START:?} and {END:?}"))
}

fn short(text: &str) -> String {
    let text = text.replace('|', "/");
    if text.chars().count() <= BROKEN_CHARS_MAX {
        return text;
    }
    let cut: String = text.chars().take(BROKEN_CHARS_MAX).collect();
    format!("{cut}...")
}
