//! Weights from elsewhere bear the names of what they were wrapped in: `module.conv1.weight` (data parallel training),
//! `_orig_mod.conv1.weight` (a compiled model), `model.conv1.weight` (a training framework), `features.module.0.weight`. Here they are
//! recognized, and said.

use std::collections::{BTreeMap, BTreeSet};

/// Parts of names that wrappers add.
const WRAPPERS: [&str; 5] = ["module", "model", "_orig_mod", "ema_model", "state_dict"];

/// Names of counters beside the weights: batches that a batch norm has seen, models that an average holds.
const COUNTERS: [&str; 2] = ["num_batches_tracked", "n_averaged"];

/// Which array of a file is which parameter, and what was done to find out.
#[derive(Debug, Default)]
pub(super) struct Matched {
    /// The parameter that each array of the file is; arrays that are none keep their names.
    pub(super) names: BTreeMap<String, String>,
    /// What a user should know of it.
    pub(super) notes: Vec<String>,
}

/// Matches the names in a file with those that an architecture asks for. Names that fit as they are stay; where two arrays would become
/// one parameter, all keep the names that they have, for the comparison to complain of.
pub(super) fn matched<'a>(
    given: impl IntoIterator<Item = &'a str>,
    wanted: &BTreeSet<String>,
) -> Matched {
    let given: BTreeSet<&str> =
        given.into_iter().filter(|name| !is_counter(name, wanted)).collect();
    let found = unwrapped(&given, wanted).or_else(|| under_prefix(&given, wanted));
    found.unwrap_or_else(|| Matched {
        names: given.iter().map(|name| (name.to_string(), name.to_string())).collect(),
        notes: Vec::new(),
    })
}

fn is_counter(name: &str, wanted: &BTreeSet<String>) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    COUNTERS.contains(&last) && !wanted.contains(name)
}

/// Wrappers taken out of the names, wherever they stand; `None` where two names fall together, or nothing changes.
fn unwrapped(given: &BTreeSet<&str>, wanted: &BTreeSet<String>) -> Option<Matched> {
    let mut matched = Matched::default();
    let mut taken = BTreeSet::new();
    let mut dropped: BTreeMap<&str, usize> = BTreeMap::new();
    for name in given {
        let (own, wrappers) = without_wrappers(name, wanted);
        for wrapper in wrappers {
            *dropped.entry(wrapper).or_default() += 1;
        }
        if !taken.insert(own.clone()) {
            return None;
        }
        matched.names.insert(name.to_string(), own);
    }
    if !matched.names.values().any(|name| wanted.contains(name)) {
        return None;
    }
    for (wrapper, count) in dropped {
        matched.notes.push(format!("'{wrapper}.' was dropped from {count} names of arrays"));
    }
    Some(matched)
}

/// `name` if it is wanted; else without the wrappers in front, as many as it takes; else without all of them.
fn without_wrappers<'a>(name: &'a str, wanted: &BTreeSet<String>) -> (String, Vec<&'a str>) {
    if wanted.contains(name) {
        return (name.into(), Vec::new());
    }
    let parts: Vec<&str> = name.split('.').collect();
    let is_wrapper = |part: &&str| WRAPPERS.contains(part);
    let front = parts.iter().take_while(|part| is_wrapper(part)).count();
    for count in 1..=front {
        let rest = parts[count..].join(".");
        if wanted.contains(&rest) {
            return (rest, parts[..count].to_vec());
        }
    }
    let (wrappers, own): (Vec<&str>, Vec<&str>) = parts.iter().partition(|part| is_wrapper(part));
    let own = own.join(".");
    if wanted.contains(&own) { (own, wrappers) } else { (name.into(), Vec::new()) }
}

/// Everything that is wanted stands under one prefix; what stands elsewhere is left out, and said. Where it stands under several, as a
/// student and its teacher do, nothing is chosen.
fn under_prefix(given: &BTreeSet<&str>, wanted: &BTreeSet<String>) -> Option<Matched> {
    let first = wanted.first()?;
    let prefixes = given.iter().filter_map(|name| name.strip_suffix(first.as_str()));
    let mut whole = prefixes.filter(|prefix| prefix.ends_with('.')).filter(|prefix| {
        wanted.iter().all(|name| given.contains(format!("{prefix}{name}").as_str()))
    });
    let (Some(prefix), None) = (whole.next(), whole.next()) else { return None };
    let mut matched = Matched::default();
    let mut left_out = Vec::new();
    for name in given {
        match name.strip_prefix(prefix) {
            Some(own) => {
                matched.names.insert(name.to_string(), own.into());
            }
            None => left_out.push(*name),
        }
    }
    matched.notes.push(format!("'{prefix}' in front of the names of arrays was dropped"));
    if let Some(first) = left_out.first() {
        let count = left_out.len();
        matched
            .notes
            .push(format!("{count} arrays outside of '{prefix}' were left out ('{first}')"));
    }
    Some(matched)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(given: &[&str], expected: &[(&str, &str)], notes: usize) {
        let wanted = ["conv1.weight", "features.0.weight", "model.fc.weight"];
        let wanted = wanted.into_iter().map(String::from).collect();
        let matched = matched(given.iter().copied(), &wanted);
        let names: Vec<(&str, &str)> =
            matched.names.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        assert_eq!(names, expected);
        assert_eq!(matched.notes.len(), notes, "{:?}", matched.notes);
    }

    #[test]
    fn wrappers_are_taken_off() {
        check(&["conv1.weight"], &[("conv1.weight", "conv1.weight")], 0);
        check(&["module.conv1.weight"], &[("module.conv1.weight", "conv1.weight")], 1);
        check(
            &["_orig_mod.module.conv1.weight"],
            &[("_orig_mod.module.conv1.weight", "conv1.weight")],
            2,
        );
        check(
            &["features.module.0.weight"],
            &[("features.module.0.weight", "features.0.weight")],
            1,
        );
        // A part of the name that only looks like a wrapper.
        check(&["model.fc.weight"], &[("model.fc.weight", "model.fc.weight")], 0);
        check(&["model.model.fc.weight"], &[("model.model.fc.weight", "model.fc.weight")], 1);
    }

    #[test]
    fn counters_do_not_count() {
        check(
            &["module.conv1.weight", "n_averaged", "module.bn1.num_batches_tracked"],
            &[("module.conv1.weight", "conv1.weight")],
            1,
        );
    }

    #[test]
    fn a_prefix_of_any_name() {
        check(
            &["net.conv1.weight", "net.features.0.weight", "net.model.fc.weight", "loss.weight"],
            &[
                ("net.conv1.weight", "conv1.weight"),
                ("net.features.0.weight", "features.0.weight"),
                ("net.model.fc.weight", "model.fc.weight"),
            ],
            2,
        );
    }

    /// Two networks in one file, and one in part beside.
    #[test]
    fn of_two_prefixes_none_is_chosen() {
        let wanted = ["conv1.weight", "features.0.weight", "model.fc.weight"];
        let under = |prefix: &str| wanted.map(|name| format!("{prefix}{name}"));
        let [student, teacher] = ["student.", "teacher."].map(under);
        let both: Vec<&str> = student.iter().chain(&teacher).map(String::as_str).collect();
        check(&both, &both.iter().map(|name| (*name, *name)).collect::<Vec<_>>(), 0);
        let part: Vec<&str> = student.iter().chain(&teacher[1..]).map(String::as_str).collect();
        let names = student.iter().map(String::as_str).zip(wanted).collect::<Vec<_>>();
        check(&part, &names, 2);
    }

    /// Two arrays for one parameter: nothing is chosen.
    #[test]
    fn two_of_a_kind_stay_as_they_are() {
        check(
            &["conv1.weight", "module.conv1.weight"],
            &[("conv1.weight", "conv1.weight"), ("module.conv1.weight", "module.conv1.weight")],
            0,
        );
    }
}
