//! The copy of the tree that has all the bugs, and how it is built.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::{
    list::{self, Bug},
    root, work,
};

/// What the copy has beside the product.
const MODULE: &str = r#"//! Which of the seeded bugs is armed.

/// Whether it is this one: `CAUSEWAY_MUTANT` names it.
pub fn on(name: &str) -> bool {
    static ARMED: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    let armed = ARMED.get_or_init(|| std::env::var("CAUSEWAY_MUTANT").ok());
    armed.as_deref() == Some(name)
}
"#;

/// The copy's package. The library in it keeps its name.
const PACKAGE: &str = "causeway-mutants";

/// The test binaries of the copy, by name.
pub type Programs = BTreeMap<String, PathBuf>;

/// Copies the tree, puts the bugs in, and builds what is to notice them.
pub fn build(bugs: &[Bug]) -> Result<Programs, String> {
    let copy = work().join("tree");
    let mut files = sources()?;
    for (path, text) in list::apply(bugs, |file| {
        let bytes = files
            .get(Path::new(file))
            .ok_or_else(|| format!("{file} is not in the tree"))?;
        String::from_utf8(bytes.clone()).map_err(|error| format!("{file}: {error}"))
    })? {
        files.insert(path.into(), text.into_bytes());
    }
    amend(&mut files, "Cargo.toml", manifest)?;
    amend(&mut files, "Cargo.lock", lock)?;
    amend(&mut files, "src/lib.rs", |text| {
        Ok(format!("{text}\npub mod mutant;\n"))
    })?;
    files.insert("src/mutant.rs".into(), MODULE.into());
    lay(&copy, &files)?;

    let wanted: BTreeSet<_> = bugs.iter().flat_map(|bug| &bug.hunters).collect();
    let there = |name: &&&String| files.contains_key(Path::new(&format!("tests/{name}/main.rs")));
    let names: Vec<_> = wanted.iter().filter(there).collect();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["test", "--release", "--locked", "--no-run"]);
    for name in &names {
        cargo.args(["--test", name.as_str()]);
    }
    // The dependencies are there already: nothing but our own crate is built, under another name for another place.
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    cargo.current_dir(&copy).env("CARGO_TARGET_DIR", target);
    for (name, _) in std::env::vars_os() {
        // What cargo said to this test is not for the other build.
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") || text.starts_with("CARGO_BIN_") {
            cargo.env_remove(&name);
        }
    }
    let output = cargo.output().map_err(|error| format!("cargo: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("the copy with the bugs does not build:\n{said}"));
    }
    names
        .iter()
        .map(|name| Ok((name.to_string(), executable(&said, name)?)))
        .collect()
}

/// What cargo says: `Executable tests/model/main.rs (/path/to/it)`.
fn executable(said: &str, name: &str) -> Result<PathBuf, String> {
    let start = format!("Executable tests/{name}/main.rs (");
    said.lines()
        .find_map(|line| line.trim_start().strip_prefix(&start)?.strip_suffix(')'))
        .map(PathBuf::from)
        .ok_or_else(|| format!("cargo does not say where {name} is:\n{said}"))
}

/// Every file of the tree that is not ignored, with its bytes.
fn sources() -> Result<BTreeMap<PathBuf, Vec<u8>>, String> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .map_err(|error| format!("git: {error}"))?;
    if !output.status.success() {
        return Err(format!("git ls-files: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let names = String::from_utf8(output.stdout).map_err(|error| error.to_string())?;
    let mut files = BTreeMap::new();
    for name in names.split('\0').filter(|name| !name.is_empty()) {
        // One that was removed and is not yet committed so.
        if let Ok(bytes) = fs::read(root().join(name)) {
            files.insert(name.into(), bytes);
        }
    }
    Ok(files)
}

fn amend(
    files: &mut BTreeMap<PathBuf, Vec<u8>>,
    path: &str,
    change: impl FnOnce(&str) -> Result<String, String>,
) -> Result<(), String> {
    let bytes = files.get_mut(Path::new(path)).ok_or_else(|| format!("no {path}"))?;
    let text = std::str::from_utf8(bytes).map_err(|error| format!("{path}: {error}"))?;
    *bytes = change(text)?.into_bytes();
    Ok(())
}

/// Under another name, for what is built goes into the folder that the product is built into, and nothing of the product's
/// may be overwritten there; for the same reason without the program.
fn manifest(text: &str) -> Result<String, String> {
    let mut manifest: toml::Table = text.parse().map_err(|error| format!("Cargo.toml: {error}"))?;
    manifest.remove("bin");
    let package = manifest.get_mut("package").and_then(toml::Value::as_table_mut);
    let package = package.ok_or("Cargo.toml: no package")?;
    package.insert("name".into(), PACKAGE.into());
    package.insert("autobins".into(), false.into());
    // Not part of whatever lies around it.
    manifest.insert("workspace".into(), toml::Table::new().into());
    Ok(manifest.to_string())
}

/// The same name here. It stands where the old one stood in the order of names.
fn lock(text: &str) -> Result<String, String> {
    let old = format!("name = \"{}\"\n", env!("CARGO_PKG_NAME"));
    match text.matches(&old).count() {
        1 => Ok(text.replace(&old, &format!("name = \"{PACKAGE}\"\n"))),
        count => Err(format!("Cargo.lock has {count} packages of our name")),
    }
}

/// Writes what differs and removes what is not there any more: what is left alone need not be built again.
fn lay(copy: &Path, files: &BTreeMap<PathBuf, Vec<u8>>) -> Result<(), String> {
    let at = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
    fs::create_dir_all(copy).map_err(|error| at(copy, error))?;
    let mut folders = vec![copy.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(|error| at(&folder, error))? {
            let path = entry.map_err(|error| at(&folder, error))?.path();
            let name = path.strip_prefix(copy).expect("it is under the copy");
            if path.is_dir() {
                folders.push(path);
            } else if !files.contains_key(name) {
                fs::remove_file(&path).map_err(|error| at(&path, error))?;
            }
        }
    }
    for (name, bytes) in files {
        let path = copy.join(name);
        if fs::read(&path).is_ok_and(|there| there == *bytes) {
            continue;
        }
        let folder = path.parent().expect("it is under the copy");
        fs::create_dir_all(folder).map_err(|error| at(folder, error))?;
        fs::write(&path, bytes).map_err(|error| at(&path, error))?;
    }
    Ok(())
}
