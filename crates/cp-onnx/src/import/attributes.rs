//! The attributes of a node. An importer takes those that it knows; one that is left over is refused, since it would change what the
//! node does.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use crate::import::error::Refusal;
use crate::proto::{Message, attribute, node};

/// Attributes by name, those that refer to a parameter of the function around replaced by what its caller gives.
#[derive(Debug, Clone, Default)]
pub(crate) struct Attributes<'a> {
    all: BTreeMap<String, &'a Message>,
    taken: RefCell<BTreeSet<String>>,
}

impl<'a> Attributes<'a> {
    /// Of `node`, inside of a function that was called with `given`.
    pub(crate) fn of(node: &'a Message, given: &Attributes<'a>) -> Self {
        let mut all = BTreeMap::new();
        for (_, message) in node.children(node::ATTRIBUTES) {
            let name = message.string(attribute::NAME);
            let reference = message.string(attribute::REFERENCE);
            if reference.is_empty() {
                all.insert(name, message);
            } else if let Some(value) = given.all.get(&reference) {
                // A parameter that the caller leaves out leaves out the attribute.
                all.insert(name, value);
            }
        }
        Self { all, taken: RefCell::default() }
    }

    /// What is not given is as in `function` (its attributes with defaults).
    pub(crate) fn or_defaults(mut self, defaults: impl Iterator<Item = &'a Message>) -> Self {
        for message in defaults {
            self.all.entry(message.string(attribute::NAME)).or_insert(message);
        }
        self
    }

    pub(crate) fn take(&self, name: &str) -> Option<&'a Message> {
        self.taken.borrow_mut().insert(name.into());
        self.all.get(name).copied()
    }

    pub(crate) fn int(&self, name: &str, default: i64) -> i64 {
        self.take(name).and_then(|message| message.int(attribute::INT)).unwrap_or(default)
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        self.int(name, 0) != 0
    }

    pub(crate) fn ints(&self, name: &str) -> Option<Vec<i64>> {
        self.take(name).map(|message| message.ints(attribute::INTS))
    }

    pub(crate) fn float(&self, name: &str, default: f64) -> f64 {
        self.floats_in(name, attribute::FLOAT)
            .and_then(|all| all.last().copied())
            .unwrap_or(default)
    }

    pub(crate) fn floats(&self, name: &str) -> Option<Vec<f64>> {
        self.floats_in(name, attribute::FLOATS)
    }

    fn floats_in(&self, name: &str, number: u32) -> Option<Vec<f64>> {
        let bytes = self.take(name)?.fixed(number);
        Some(bytes.as_chunks().0.iter().map(|four| f64::from(f32::from_le_bytes(*four))).collect())
    }

    pub(crate) fn string(&self, name: &str, default: &str) -> String {
        self.take(name).map_or_else(|| default.into(), |message| message.string(attribute::STRING))
    }

    /// `Err` where one was not taken.
    pub(crate) fn finish(&self) -> Result<(), Refusal> {
        let taken = self.taken.borrow();
        match self.all.keys().find(|name| !taken.contains(*name)) {
            Some(name) => Err(Refusal::Attribute { name: name.clone() }),
            None => Ok(()),
        }
    }
}
