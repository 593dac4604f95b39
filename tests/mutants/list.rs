//! The list of seeded bugs, and how they are put into the source.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

/// Every list there is.
const LISTS: [(&str, &str); 4] = [
    ("core.toml", include_str!("core.toml")),
    ("driver.toml", include_str!("driver.toml")),
    ("edge.toml", include_str!("edge.toml")),
    ("money.toml", include_str!("money.toml")),
];

/// A bug.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bug {
    /// What arms it.
    pub name: String,
    /// What whoever wrote it would have thought.
    pub thought: String,
    /// Who is to notice, in the order in which they are asked: test binaries.
    pub hunters: Vec<String>,
    /// Where it is.
    pub edit: Vec<Edit>,
}

/// A place in a file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    /// By its path from the root.
    pub file: String,
    /// A text that is there exactly once.
    pub find: String,
    /// What takes its place, with the bug behind `crate::mutant::on`.
    pub replace: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    bug: Vec<Bug>,
}

/// Every bug, in the order of the lists.
pub fn read() -> Result<Vec<Bug>, String> {
    let mut bugs: Vec<Bug> = Vec::new();
    for (name, text) in LISTS {
        let list: List = toml::from_str(text).map_err(|error| format!("tests/mutants/{name}: {error}"))?;
        bugs.extend(list.bug);
    }
    let mut names = BTreeSet::new();
    for bug in &bugs {
        if !names.insert(&bug.name) {
            return Err(format!("{}: two bugs of one name", bug.name));
        }
        let switch = format!("crate::mutant::on(\"{}\")", bug.name);
        if !bug.edit.iter().any(|edit| edit.replace.contains(&switch)) {
            return Err(format!("{}: nothing in it says {switch}", bug.name));
        }
        if bug.hunters.is_empty() || bug.thought.is_empty() {
            return Err(format!("{}: who is to notice, and what was thought?", bug.name));
        }
    }
    Ok(bugs)
}

/// All bugs in all the files that they are in: by path, the text with every edit.
pub fn apply(bugs: &[Bug], read: impl Fn(&str) -> Result<String, String>) -> Result<BTreeMap<String, String>, String> {
    let mut places: BTreeMap<&str, Vec<(usize, &Bug, &Edit)>> = BTreeMap::new();
    let mut texts: BTreeMap<String, String> = BTreeMap::new();
    let mut rotten = Vec::new();
    for (bug, edit) in bugs.iter().flat_map(|bug| bug.edit.iter().map(move |edit| (bug, edit))) {
        if !texts.contains_key(&edit.file) {
            texts.insert(edit.file.clone(), read(&edit.file)?);
        }
        let found: Vec<_> = texts[&edit.file].match_indices(&edit.find).map(|(at, _)| at).collect();
        match found[..] {
            [at] => places.entry(&edit.file).or_default().push((at, bug, edit)),
            _ => rotten.push(format!(
                "{}: in {} its text is {} times, not once:\n{}",
                bug.name,
                edit.file,
                found.len(),
                edit.find
            )),
        }
    }
    for (file, places) in &mut places {
        places.sort_by_key(|(at, ..)| *at);
        for pair in places.windows(2) {
            let [(at, bug, edit), (next, other, _)] = pair else {
                unreachable!("a window of two")
            };
            if at + edit.find.len() > *next {
                rotten.push(format!(
                    "{} and {}: both change one place of {file}",
                    bug.name, other.name
                ));
            }
        }
    }
    if !rotten.is_empty() {
        return Err(rotten.join("\n"));
    }
    for (file, places) in places {
        let text = texts.get_mut(file).expect("it was read");
        // From the end, so that the places before stay where they are.
        for (at, _, edit) in places.into_iter().rev() {
            text.replace_range(at..at + edit.find.len(), &edit.replace);
        }
    }
    Ok(texts)
}
