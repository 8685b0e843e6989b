//! Rules that the source of this crate keeps.
#![allow(clippy::unwrap_used, reason = "clippy allows it in tests, but not in their helpers")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Every file's code without comments and tests, by its path below `src`.
fn sources() -> Vec<(String, String)> {
    fn visit(folder: &Path, root: &Path, found: &mut Vec<(String, String)>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                visit(&path, root, found);
            } else if !path.ends_with("tests.rs") {
                let text = fs::read_to_string(&path).unwrap();
                let code = text.split("#[cfg(test)]").next().unwrap().lines();
                let code: Vec<&str> =
                    code.filter(|line| !line.trim_start().starts_with("//")).collect();
                let name = path.strip_prefix(root).unwrap().to_str().unwrap();
                found.push((name.to_string(), code.join("\n")));
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    visit(&root, &root, &mut found);
    assert!(found.len() > 40, "sources were not found");
    found
}

/// `words` stand in the file `only` and in no other.
fn only_in(only: &str, words: &[&str]) {
    for word in words {
        let files: Vec<String> = sources()
            .into_iter()
            .filter(|(_, code)| code.contains(word))
            .map(|(name, _)| name)
            .collect();
        assert_eq!(files, [only], "files with '{word}'");
    }
}

/// Each draw names its purpose: nothing makes a generator by itself.
#[test]
fn generators_come_from_one_file() {
    only_in("random.rs", &["seed_from_u64", "set_stream"]);
}

/// Whatever hands work to threads asks first how many it may use.
#[test]
fn threads_come_from_one_file() {
    only_in("threads.rs", &["rayon::", "par_chunks", "par_iter"]);
}

/// Nor do the folders: a file and the folder of its name are one module.
#[test]
fn folders_form_no_circle() {
    let module = |name: &str| name.split(['/', '.']).next().unwrap().to_string();
    let mut edges = BTreeMap::<String, BTreeSet<String>>::new();
    for (name, code) in sources().into_iter().filter(|(name, _)| name != "lib.rs") {
        let words = code.split("crate::").skip(1).map(|rest| {
            rest.split(|c: char| !(c.is_alphanumeric() || c == '_')).next().unwrap().to_string()
        });
        let uses = words.filter(|word| *word != module(&name));
        edges.entry(module(&name)).or_default().extend(uses);
    }
    let known: BTreeSet<String> = edges.keys().cloned().collect();
    edges.values_mut().for_each(|uses| uses.retain(|used| known.contains(used)));
    assert!(edges["solver"].contains("tucker") && edges["tucker"].contains("problem"));
    // Takes away what imports nothing that is left, until nothing changes.
    while let Some(free) = edges.iter().find(|(_, uses)| uses.is_empty()).map(|(m, _)| m.clone()) {
        edges.remove(&free);
        edges.values_mut().for_each(|uses| {
            uses.remove(&free);
        });
    }
    assert!(edges.is_empty(), "circles among: {edges:#?}");
}
