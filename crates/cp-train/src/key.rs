//! [`Key`]: everything that went into a stage, so that its result is taken up again exactly where it would be computed to the
//! same value.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use cp_data::Dataset;
use cp_net::Network;
use rayon::prelude::*;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::error::TrainError;

/// What a stage is computed from: its name, a number that is raised when its result changes, and its inputs by name.
///
/// Inputs are the settings that matter to it, fingerprints of networks, identities of data sets, and the keys of stages before it.
/// The commit of the program is recorded with a result, and not part of its key.
#[derive(Debug, Clone, PartialEq)]
pub struct Key {
    pub(crate) stage: String,
    pub(crate) version: u32,
    pub(crate) inputs: BTreeMap<String, Value>,
}

impl Key {
    /// The key of the stage `stage`, in its `version`, from no inputs.
    pub fn new(stage: impl Into<String>, version: u32) -> Self {
        Self { stage: stage.into(), version, inputs: BTreeMap::new() }
    }

    /// With a setting.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &impl Serialize) -> Self {
        // Settings are structs of numbers and names; what has no JSON form would be told by its absence in every key alike.
        let value = serde_json::to_value(value).unwrap_or(Value::Null);
        self.inputs.insert(name.into(), value);
        self
    }

    /// With the arrays and the architecture of a network.
    #[must_use]
    pub fn network(self, name: &str, network: &Network) -> Self {
        self.setting(name, &fingerprint(network))
    }

    /// With the examples of a data set.
    ///
    /// # Errors
    /// As [`data_identity`].
    pub fn data(self, name: &str, set: &dyn Dataset) -> Result<Self, TrainError> {
        Ok(self.setting(name, &data_identity(set)?))
    }

    /// With all that went into the stage before it.
    #[must_use]
    pub fn after(self, before: &Key) -> Self {
        let digest = before.digest();
        self.setting(&before.stage, &digest)
    }

    /// Twelve hexadecimal digits for the names of files.
    pub(crate) fn digest(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(format!("{} {}\n", self.stage, self.version));
        for (name, value) in &self.inputs {
            hash.update(format!("{name} {value}\n"));
        }
        hex(hash)[..12].to_owned()
    }

    /// The inputs in which `other` differs, each as `name is …, was …`.
    pub(crate) fn differences(&self, other: &BTreeMap<String, Value>) -> Vec<String> {
        let mut found = Vec::new();
        for (name, value) in &self.inputs {
            match other.get(name) {
                Some(old) => differences(name, value, old, &mut found),
                None => found.push(format!("{name} is new")),
            }
        }
        found.extend(
            other
                .keys()
                .filter(|name| !self.inputs.contains_key(*name))
                .map(|name| format!("{name} is gone")),
        );
        found
    }
}

/// Walks down to the settings that differ; long values are not written out.
pub(crate) fn differences(name: &str, new: &Value, old: &Value, found: &mut Vec<String>) {
    let path = |field: &str| match name {
        "" => field.to_owned(),
        name => format!("{name}.{field}"),
    };
    match (new, old) {
        _ if new == old => {}
        (Value::Object(new), Value::Object(old)) => {
            for (field, value) in new {
                let old = old.get(field).unwrap_or(&Value::Null);
                differences(&path(field), value, old, found);
            }
            for (field, old) in old.iter().filter(|(field, _)| !new.contains_key(*field)) {
                differences(&path(field), &Value::Null, old, found);
            }
        }
        // Recipes, such as those of several budgets.
        (Value::Array(new), Value::Array(old))
            if new.len() == old.len() && new.iter().chain(old).all(Value::is_object) =>
        {
            for (at, (value, old)) in new.iter().zip(old).enumerate() {
                let place = if new.len() == 1 { name.into() } else { format!("{name}[{at}]") };
                differences(&place, value, old, found);
            }
        }
        _ => {
            let told = |value: &Value| match value {
                Value::Null => "absent".to_owned(),
                Value::String(text) if text.len() == 64 => format!("{}…", &text[..12]),
                value => match value.to_string() {
                    text if text.len() > 80 => "another".into(),
                    text => text,
                },
            };
            found.push(format!("{name} is {}, was {}", told(new), told(old)));
        }
    }
}

/// SHA-256 of the architecture, the names and the values of all arrays of `network`: which network a result belongs to.
pub fn fingerprint(network: &Network) -> String {
    let mut hash = Sha256::new();
    hash.update(network.architecture().to_json().unwrap_or_default());
    let mut bytes = Vec::new();
    for (name, array) in network.params() {
        hash.update(name);
        bytes.clear();
        bytes.extend(array.iter().flat_map(|value| value.to_le_bytes()));
        hash.update(&bytes);
    }
    hex(hash)
}

/// Which examples a data set holds, whatever it is called and wherever its files lie: the digest of its images' contents with
/// their classes, in their order ([`cp_data::Identity`] has one without it).
///
/// Every image is read once in the life of the process.
///
/// # Errors
/// Where one cannot be read.
pub fn data_identity(set: &dyn Dataset) -> Result<String, TrainError> {
    static KNOWN: Mutex<BTreeMap<String, String>> = Mutex::new(BTreeMap::new());
    let mut entries = Sha256::new();
    entries.update(format!("{} {}\n", set.name(), set.len()));
    for index in 0..set.len() {
        entries.update(format!("{:?} {}\n", set.entry(index), set.label(index)));
    }
    let entries = hex(entries);
    // Images in memory have no file to be told apart by.
    let in_files = !set.is_empty() && set.entry(0).file != set.name();
    let known = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let (Some(found), true) = (known().get(&entries), in_files) {
        return Ok(found.clone());
    }
    let contents: Vec<[u8; 32]> =
        (0..set.len()).into_par_iter().map(|index| set.content(index)).collect::<Result<_, _>>()?;
    let mut hash = Sha256::new();
    for (index, content) in contents.iter().enumerate() {
        hash.update(content);
        hash.update((set.label(index) as u64).to_le_bytes());
    }
    set.classes().iter().for_each(|class| hash.update(format!("{class}\n")));
    let found = hex(hash);
    known().insert(entries, found.clone());
    Ok(found)
}

pub(crate) fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn key() -> Key {
        Key::new("fine-tuned", 1)
            .setting("config", &json!({"epochs": 3, "optimizer": {"lr": 0.1}}))
            .setting("images", &500)
    }

    #[test]
    fn equal_inputs_have_equal_digests_and_others_do_not() {
        assert_eq!(key().digest(), key().digest());
        for other in [
            Key { version: 2, ..key() },
            Key { stage: "calibrated".into(), ..key() },
            key().setting("images", &501),
            key().setting("more", &1),
            key().after(&Key::new("profile", 1)),
        ] {
            assert_ne!(key().digest(), other.digest(), "{other:?}");
        }
    }

    #[test]
    fn what_differs_is_named_down_to_the_setting() {
        let new = key()
            .setting("config", &json!({"epochs": 5, "optimizer": {"lr": 0.1}, "distill": true}));
        assert_eq!(
            new.differences(&key().inputs),
            ["config.distill is true, was absent", "config.epochs is 5, was 3"]
        );
        assert_eq!(key().differences(&Key::new("x", 1).inputs), ["config is new", "images is new"]);
        let lists = |new: Value, old: Value| {
            let mut found = Vec::new();
            differences("recipe", &new, &old, &mut found);
            found
        };
        let ([a, b], long) = ([json!({"lr": 1}), json!({"lr": 2})], "x".repeat(99));
        assert_eq!(lists(json!([a]), json!([b])), ["recipe.lr is 1, was 2"]);
        assert_eq!(lists(json!([a, a]), json!([a, b])), ["recipe[1].lr is 1, was 2"]);
        assert_eq!(
            lists(json!([{"keep": ["c"]}]), json!([{"keep": []}])),
            ["recipe.keep is [\"c\"], was []"]
        );
        assert_eq!(lists(json!([1, 2]), json!([1, 3])), ["recipe is [1,2], was [1,3]"]);
        assert_eq!(lists(json!([long]), json!([])), ["recipe is another, was []"]);
    }

    #[test]
    fn a_fingerprint_sees_the_ops_and_every_value() {
        let network = cp_net::arch::by_name("small-cnn").unwrap().initialize(1).unwrap();
        let same = cp_net::arch::by_name("small-cnn").unwrap().initialize(1).unwrap();
        assert_eq!(fingerprint(&network), fingerprint(&same));
        let other = cp_net::arch::by_name("small-cnn").unwrap().initialize(2).unwrap();
        assert_ne!(fingerprint(&network), fingerprint(&other));
    }
}
