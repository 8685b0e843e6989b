//! [`Multiple`]: which numbers ranks may be.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What every number of a rank is a multiple of, where the layer has such a rank that pays.
///
/// Convolutions on a CPU work on blocks of 8 or 16 channels: a rank of 17 takes the time of 32 there. In a file: `"auto"` or a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Multiple {
    /// By what counts: 16 for budgets of multiply-adds; 8 where layers are timed, whose times tell 8 from 16; 1 for parameters and
    /// errors, where every rank is as good as its number, and for plans that are not chosen from measured ranks. A budget that cannot be
    /// reached with 16 is tried with 8, then with 1.
    #[default]
    Auto,
    /// This number, at least 1.
    Of(usize),
}

impl Multiple {
    /// The number, for a plan by times or by multiply-adds, or by neither.
    pub fn number(self, timed: bool, multiply_adds: bool) -> usize {
        match self {
            Multiple::Of(number) => number,
            Multiple::Auto if timed => 8,
            Multiple::Auto if multiply_adds => 16,
            Multiple::Auto => 1,
        }
    }

    /// What is taken in the place of `number` where a budget cannot be reached with it: a half of it down to 8, then 1. A number that was
    /// asked for stays.
    pub(crate) fn finer(self, number: usize) -> Option<usize> {
        match (self, number) {
            (Multiple::Of(_), _) | (Multiple::Auto, 0 | 1) => None,
            (Multiple::Auto, number) if number / 2 >= 8 => Some(number / 2),
            (Multiple::Auto, _) => Some(1),
        }
    }
}

impl fmt::Display for Multiple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Multiple::Auto => f.pad("auto"),
            Multiple::Of(number) => number.fmt(f),
        }
    }
}

impl FromStr for Multiple {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match (text, text.parse()) {
            ("auto", _) => Ok(Multiple::Auto),
            (_, Ok(number)) if number > 0 => Ok(Multiple::Of(number)),
            _ => Err("neither 'auto' nor a whole number of at least 1"),
        }
    }
}

impl Serialize for Multiple {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Multiple::Auto => serializer.serialize_str("auto"),
            Multiple::Of(number) => number.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Multiple {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(usize),
            Word(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Number(number) => Ok(Multiple::Of(number)),
            Written::Word(word) => word.parse().map_err(serde::de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts_decides() {
        assert_eq!(Multiple::Auto.number(false, true), 16);
        assert_eq!(Multiple::Auto.number(true, true), 8);
        assert_eq!(Multiple::Auto.number(false, false), 1);
        assert_eq!([16, 8, 1].map(|number| Multiple::Auto.finer(number)), [Some(8), Some(1), None]);
        assert_eq!(Multiple::Of(16).finer(16), None);
        assert_eq!(Multiple::Of(3).number(true, true), 3);
    }

    #[test]
    fn both_spellings_are_read() {
        for (text, known) in [("auto", Multiple::Auto), ("8", Multiple::Of(8))] {
            assert_eq!(text.parse(), Ok(known));
            assert_eq!(known.to_string(), text);
            let json = serde_json::to_string(&known).unwrap();
            assert_eq!(serde_json::from_str::<Multiple>(&json).unwrap(), known);
        }
        for wrong in ["0", "-1", "Auto", "", "1.5"] {
            wrong.parse::<Multiple>().unwrap_err();
        }
    }
}
