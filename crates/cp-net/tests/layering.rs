//! The modules of this crate import each other in no circle.
#![allow(clippy::unwrap_used, reason = "clippy allows it in tests, but not in their helpers")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Module paths (`network::check`) and what they import, by the file that defines it.
fn imports(folder: &Path, module: &str, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_string();
        let inner = if module.is_empty() { name.clone() } else { format!("{module}::{name}") };
        if path.is_dir() {
            imports(&path, &inner, found);
        } else if name != "lib" {
            let text = fs::read_to_string(&path).unwrap();
            found.insert(inner, text.split("#[cfg(test)]").next().unwrap().to_string());
        }
    }
}

fn edges(modules: &BTreeMap<String, String>) -> BTreeMap<String, BTreeSet<String>> {
    modules
        .iter()
        .map(|(module, text)| {
            let parent = module.rsplit_once("::").map_or("", |(parent, _)| parent);
            let uses =
                text.lines().filter(|line| !line.trim_start().starts_with("//")).flat_map(|line| {
                    line.match_indices("crate::")
                        .map(|(at, _)| line[at + 7..].to_string())
                        .chain(
                            line.match_indices("super::")
                                .map(|(at, _)| format!("{parent}::{}", &line[at + 7..])),
                        )
                        .collect::<Vec<_>>()
                });
            let targets = uses.filter_map(|path| {
                let words: Vec<&str> = path
                    .split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'))
                    .next()
                    .unwrap()
                    .split("::")
                    .collect();
                // The longest beginning of the path that is a file.
                (1..=words.len())
                    .rev()
                    .map(|count| words[..count].join("::"))
                    .find(|path| modules.contains_key(path))
            });
            (module.clone(), targets.filter(|target| target != module).collect())
        })
        .collect()
}

#[test]
fn modules_form_no_circle() {
    let mut modules = BTreeMap::new();
    imports(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), "", &mut modules);
    let mut edges = edges(&modules);
    assert!(edges.values().map(BTreeSet::len).sum::<usize>() > 100, "imports were not found");
    // Takes away what imports nothing that is left, until nothing changes: what stays is in a circle or above one.
    loop {
        let free: BTreeSet<String> = edges
            .iter()
            .filter(|(_, uses)| uses.is_empty())
            .map(|(module, _)| module.clone())
            .collect();
        if free.is_empty() {
            break;
        }
        edges.retain(|module, _| !free.contains(module));
        for uses in edges.values_mut() {
            uses.retain(|target| !free.contains(target));
        }
    }
    assert!(edges.is_empty(), "circles among: {edges:#?}");
}
