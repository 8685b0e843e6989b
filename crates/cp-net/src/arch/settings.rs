//! [`Settings`]: what stands in brackets behind the name of an architecture, `resnet-cifar(depth=32, classes=100)`.

use std::fmt::Display;
use std::str::FromStr;

use crate::error::NetError;

/// The settings that a user gave to an architecture; each is taken once, and those that nobody took are refused.
#[derive(Debug)]
pub(super) struct Settings {
    name: String,
    given: Vec<(String, String)>,
    /// Settings that were asked for, with their defaults.
    known: Vec<(&'static str, String)>,
}

impl Settings {
    /// Parts `name(key=value, …)`.
    pub(super) fn parse(text: &str) -> Result<(&str, Self), NetError> {
        let text = text.trim();
        let (name, inner) = match text.split_once('(') {
            None => (text, ""),
            Some((name, rest)) => match rest.strip_suffix(')') {
                Some(inner) => (name.trim_end(), inner),
                None => return Err(error(name, "a bracket is missing behind its settings".into())),
            },
        };
        let mut given: Vec<(String, String)> = Vec::new();
        for setting in inner.split(',').map(str::trim).filter(|setting| !setting.is_empty()) {
            let Some((key, value)) = setting.split_once('=') else {
                return Err(error(
                    name,
                    format!("'{setting}' is no setting; they are written key=value"),
                ));
            };
            let (key, value) = (key.trim().to_string(), value.trim().to_string());
            if given.iter().any(|(other, _)| *other == key) {
                return Err(error(name, format!("'{key}' is given twice")));
            }
            given.push((key, value));
        }
        Ok((name, Self { name: name.into(), given, known: Vec::new() }))
    }

    /// The value of `key`, or `default` where the user gave none.
    pub(super) fn take<T: FromStr + Display>(
        &mut self,
        key: &'static str,
        default: T,
    ) -> Result<T, NetError> {
        self.known.push((key, default.to_string()));
        let Some(index) = self.given.iter().position(|(given, _)| given == key) else {
            return Ok(default);
        };
        let (_, value) = self.given.remove(index);
        value.parse().map_err(|_| {
            error(&self.name, format!("{key} is '{value}', expected a value such as {default}"))
        })
    }

    /// A number from `least` on.
    pub(super) fn count(
        &mut self,
        key: &'static str,
        default: usize,
        least: usize,
    ) -> Result<usize, NetError> {
        let value = self.take(key, default)?;
        if (least..=1 << 20).contains(&value) {
            return Ok(value);
        }
        Err(self.error(format!("{key} is {value}, expected a number from {least} to {}", 1 << 20)))
    }

    /// A real number in a range.
    pub(super) fn real(
        &mut self,
        key: &'static str,
        default: f64,
        range: std::ops::RangeInclusive<f64>,
    ) -> Result<f64, NetError> {
        let value = self.take(key, default)?;
        if range.contains(&value) {
            return Ok(value);
        }
        let (least, most) = (range.start(), range.end());
        Err(self.error(format!("{key} is {value}, expected a number from {least} to {most}")))
    }

    /// One of several words.
    pub(super) fn choice(
        &mut self,
        key: &'static str,
        default: &'static str,
        words: &[&'static str],
    ) -> Result<&'static str, NetError> {
        let value = self.take(key, default.to_owned())?;
        words.iter().copied().find(|word| *word == value).ok_or_else(|| {
            self.error(format!("{key} is '{value}', expected {}", words.join(" or ")))
        })
    }

    /// Number of classes.
    pub(super) fn classes(&mut self, default: usize) -> Result<usize, NetError> {
        self.count("classes", default, 1)
    }

    /// What is wrong with a setting.
    pub(super) fn error(&self, problem: String) -> NetError {
        error(&self.name, problem)
    }

    /// Refuses the settings that nobody took.
    pub(super) fn finish(self) -> Result<(), NetError> {
        let Some((key, _)) = self.given.first() else { return Ok(()) };
        let known: Vec<String> =
            self.known.iter().map(|(key, default)| format!("{key}={default}")).collect();
        Err(self.error(format!("it has no setting '{key}'; there are: {}", known.join(", "))))
    }
}

fn error(name: &str, problem: String) -> NetError {
    NetError::Setting { name: name.into(), problem }
}
