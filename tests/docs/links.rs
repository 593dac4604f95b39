//! Links and names of files lead somewhere.

use std::path::{Component, Path, PathBuf};

use super::{pages, quoted, read, root};

/// The targets of `[text](target)`, outside of fenced blocks.
fn targets(markdown: &str) -> Vec<&str> {
    let mut targets = Vec::new();
    let mut fenced = false;
    for line in markdown.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        let mut rest = line;
        while let Some((_, after)) = rest.split_once("](") {
            let Some((target, after)) = after.split_once(')') else {
                break;
            };
            targets.push(target);
            rest = after;
        }
    }
    targets
}

/// The anchors of a page, as they are made of its headings.
fn anchors(markdown: &str) -> Vec<String> {
    let mut fenced = false;
    let mut anchors = Vec::new();
    for line in markdown.lines() {
        if line.starts_with("```") {
            fenced = !fenced;
        }
        if fenced || !line.starts_with('#') {
            continue;
        }
        let heading = line.trim_start_matches('#').trim().to_lowercase();
        let kept = heading
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        anchors.push(kept.map(|c| if c == ' ' { '-' } else { c }).collect());
    }
    anchors
}

/// `docs/errors/../partners.md` without the detour.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => assert!(normal.pop(), "{} leaves the repository", path.display()),
            Component::CurDir => {}
            other => normal.push(other),
        }
    }
    normal
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let mut broken = Vec::new();
    let mut count = 0;
    for page in pages() {
        let text = read(&page);
        for target in targets(&text) {
            if target.starts_with("https://") {
                continue;
            }
            count += 1;
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let folder = Path::new(&page).parent().expect("a page is in a folder");
            let path = if file.is_empty() {
                PathBuf::from(&page)
            } else {
                normal(&folder.join(file))
            };
            if !root().join(&path).exists() {
                broken.push(format!("{page}: {target}: no such file"));
                continue;
            }
            let path = path.to_str().expect("paths of the repository are UTF-8");
            if !anchor.is_empty() && !anchors(&read(path)).iter().any(|known| known == anchor) {
                broken.push(format!("{page}: {target}: no such heading"));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    assert!(
        count > 50,
        "only {count} links were found: is the reader of links broken?"
    );
}

/// `src/fx/mod.rs` exists; of `src/feed/mod.rs::a_gap_is_a_bug` the function does too.
#[test]
fn every_source_that_is_named_exists() {
    let mut broken = Vec::new();
    let mut count = 0;
    for page in pages() {
        let text = read(&page);
        for name in quoted(&text) {
            let folders = ["src/", "proto/", "tests/", "docs/", "certs/README"];
            let is_path = folders.iter().any(|folder| name.starts_with(folder)) && !name.contains([' ', '*', '{', '<']);
            if !is_path {
                continue;
            }
            count += 1;
            let (path, function) = name.split_once("::").unwrap_or((name, ""));
            if !root().join(path).exists() {
                broken.push(format!("{page}: {name}: no such file"));
            } else if !function.is_empty() && !read(path).contains(&format!("fn {function}(")) {
                broken.push(format!("{page}: {name}: no such function"));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    assert!(count > 50, "only {count} sources were found: is the reader broken?");
}
