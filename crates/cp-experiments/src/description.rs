//! What an experiment's TOML says: its settings, and the options of the command line that change them.
//!
//! `settings` are the defaults. A choice (`--network resnet20`) and a flag (`--quick`) lay tables over them, an option
//! (`--budgets 0.5,0.3`) sets one of them, `smoke` is laid over everything by `--smoke`, for tests.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::builder::PossibleValue;
use clap::{Arg, ArgAction, ArgMatches, Command};
use serde::Deserialize;
use toml::{Table, Value};

/// An experiment's TOML.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Description {
    /// One line for the help.
    pub(crate) about: String,
    /// Arguments worth showing.
    examples: Vec<String>,
    /// Whether cells may run side by side.
    #[serde(default)]
    pub(crate) jobs: bool,
    /// Threads where the command line names none.
    #[serde(default)]
    pub(crate) threads: Option<u16>,
    settings: Table,
    #[serde(default, rename = "choice")]
    choices: Vec<Choice>,
    #[serde(default, rename = "flag")]
    flags: Vec<Flag>,
    #[serde(default, rename = "option")]
    options: Vec<Setting>,
    smoke: Table,
}

/// An option that takes one of several names.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Choice {
    option: String,
    help: String,
    /// Not asked for, and no part of the name of the run's folder.
    #[serde(default)]
    optional: bool,
    /// Part of that name where it is made, though nobody has to.
    #[serde(default)]
    in_folder: bool,
    #[serde(default)]
    conflicts: Vec<String>,
    #[serde(rename = "value")]
    values: Vec<Named>,
}

/// One of the names, and what it changes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    name: String,
    #[serde(default)]
    help: String,
    #[serde(default)]
    settings: Table,
}

/// An option that is there or not.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Flag {
    name: String,
    help: String,
    settings: Table,
}

/// An option that sets one setting: a number, a name, or a list of them.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Setting {
    name: String,
    /// The setting's path, where it is not the name.
    #[serde(default)]
    sets: Option<String>,
    value: String,
    help: String,
    #[serde(default)]
    least: Option<f64>,
    #[serde(default)]
    most: Option<f64>,
    #[serde(default)]
    above: Option<f64>,
    #[serde(default)]
    below: Option<f64>,
}

impl Description {
    /// Reads one that is part of the program.
    pub(crate) fn new(text: &str) -> Self {
        // The tests read every one.
        toml::from_str(text).unwrap_or_else(|error| panic!("built-in experiment: {error}"))
    }

    /// The subcommand `name`, without the options that all experiments share.
    pub(crate) fn command(&self, name: &'static str) -> Command {
        let examples: Vec<String> = (self.examples.iter())
            .map(|args| format!("  cargo xtask {name} {args}").trim_end().to_owned())
            .collect();
        let mut command = Command::new(name)
            .about(self.about.clone())
            .after_help(format!("Examples:\n{}", examples.join("\n")));
        for choice in &self.choices {
            let values = choice.values.iter().map(|value| {
                let named = PossibleValue::new(value.name.clone());
                if value.help.is_empty() { named } else { named.help(value.help.clone()) }
            });
            command = command.arg(
                Arg::new(choice.option.clone())
                    .long(choice.option.clone())
                    .value_name("NAME")
                    .value_parser(clap::builder::PossibleValuesParser::new(values))
                    .required(!choice.optional)
                    .conflicts_with_all(choice.conflicts.clone())
                    .help(choice.help.clone()),
            );
        }
        for option in &self.options {
            command = command.arg(
                Arg::new(option.name.clone())
                    .long(option.name.clone())
                    .value_name(option.value.clone())
                    .allow_hyphen_values(true)
                    .help(format!("{} [default: the experiment's]", option.help)),
            );
        }
        for flag in &self.flags {
            command = command.arg(
                Arg::new(flag.name.clone())
                    .long(flag.name.clone())
                    .action(ArgAction::SetTrue)
                    .help(flag.help.clone()),
            );
        }
        command
            .arg(
                Arg::new("config")
                    .long("config")
                    .value_name("FILE")
                    .value_parser(clap::value_parser!(PathBuf))
                    .help("Settings as TOML, in the place of the experiment's own of the same names; config.toml of every run shows all"),
            )
            .arg(
                Arg::new("smoke")
                    .long("smoke")
                    .action(ArgAction::SetTrue)
                    .help("Only see that everything works: tiny settings, drawn data"),
            )
    }

    /// The settings that the command line asks for.
    pub(crate) fn settings(&self, args: &ArgMatches) -> Result<Table> {
        let mut settings = self.settings.clone();
        for choice in &self.choices {
            let Some(name) = args.get_one::<String>(&choice.option) else { continue };
            // clap takes no other name.
            let Some(chosen) = choice.values.iter().find(|value| value.name == *name) else {
                continue;
            };
            overlay(&mut settings, &chosen.settings);
        }
        for flag in self.flags.iter().filter(|flag| args.get_flag(&flag.name)) {
            overlay(&mut settings, &flag.settings);
        }
        if let Some(path) = args.get_one::<PathBuf>("config") {
            let read = || -> Result<Table> { Ok(std::fs::read_to_string(path)?.parse()?) };
            overlay(
                &mut settings,
                &read().with_context(|| format!("--config {}", path.display()))?,
            );
        }
        if args.get_flag("smoke") {
            overlay(&mut settings, &self.smoke);
        }
        for option in &self.options {
            let Some(text) = args.get_one::<String>(&option.name) else { continue };
            let path = option.sets.as_ref().unwrap_or(&option.name);
            let place = at(&mut settings, path)
                .with_context(|| format!("--{}: there is no setting '{path}'", option.name))?;
            *place = option.parse(text, place)?;
        }
        Ok(settings)
    }

    /// What the names of the choices that have to be made, or decide the folder, add to the name of the run's folder.
    pub(crate) fn folder(&self, name: &str, args: &ArgMatches) -> String {
        let asked = self.choices.iter().filter(|choice| !choice.optional || choice.in_folder);
        let chosen = asked.filter_map(|choice| args.get_one::<String>(&choice.option));
        std::iter::once(name).chain(chosen.map(String::as_str)).collect::<Vec<_>>().join("-")
    }

    /// Arguments that make every choice that has to be made or decides the folder, in every way.
    #[cfg(test)]
    pub(crate) fn required(&self) -> Vec<Vec<String>> {
        let mut ways = vec![Vec::new()];
        for choice in self.choices.iter().filter(|choice| !choice.optional || choice.in_folder) {
            let without = if choice.optional { ways.clone() } else { Vec::new() };
            let with = |way: &Vec<String>, value: &Named| {
                [way.clone(), vec![format!("--{}", choice.option), value.name.clone()]].concat()
            };
            ways = (ways.iter())
                .flat_map(|way| choice.values.iter().map(move |value| with(way, value)))
                .chain(without)
                .collect();
        }
        ways
    }
}

impl Setting {
    /// `text` as a value of the kind of `old`: a list of its kind of elements between commas.
    fn parse(&self, text: &str, old: &Value) -> Result<Value> {
        match old {
            Value::Array(old) => {
                // Every list of the experiments holds something, by which its kind is known.
                let kind = old.first().cloned().unwrap_or(Value::String(String::new()));
                let items: Vec<Value> = (text.split(','))
                    .map(|item| self.one(item.trim(), &kind))
                    .collect::<Result<_>>()?;
                if let Some(twice) = repeated(&items) {
                    bail!("--{}: {twice} is asked for twice", self.name);
                }
                Ok(Value::Array(items))
            }
            old => self.one(text, old),
        }
    }

    fn one(&self, text: &str, kind: &Value) -> Result<Value> {
        let wrong = |what: &str| anyhow::anyhow!("--{}: '{text}' is {what}", self.name);
        let (value, number) = match kind {
            Value::Integer(_) => {
                let number: i64 = text.parse().map_err(|_| wrong("no whole number"))?;
                (Value::Integer(number), number as f64)
            }
            Value::Float(_) => {
                let number: f64 = text.parse().map_err(|_| wrong("no number"))?;
                (Value::Float(number), number)
            }
            _ if text.is_empty() => return Err(wrong("empty")),
            _ => return Ok(Value::String(text.to_owned())),
        };
        let bounds = [
            self.least.map(|bound| (number >= bound, format!("at least {bound}"))),
            self.above.map(|bound| (number > bound, format!("above {bound}"))),
            self.most.map(|bound| (number <= bound, format!("at most {bound}"))),
            self.below.map(|bound| (number < bound, format!("below {bound}"))),
        ];
        let bounds: Vec<(bool, String)> = bounds.into_iter().flatten().collect();
        if bounds.iter().any(|(holds, _)| !holds) {
            let expected: Vec<String> = bounds.into_iter().map(|(_, words)| words).collect();
            bail!("--{}: {text} is not {}", self.name, expected.join(" and "));
        }
        Ok(value)
    }
}

/// Lays `over` over `settings`: tables by their fields, anything else as a whole; so is a table that names the kind of thing it is,
/// since another kind has other fields.
pub(crate) fn overlay(settings: &mut Table, over: &Table) {
    let names_kind =
        |table: &Table| ["rule", "shape", "kind"].iter().any(|tag| table.contains_key(*tag));
    for (name, value) in over {
        match (settings.get_mut(name), value) {
            (Some(Value::Table(old)), Value::Table(new)) if !names_kind(new) => overlay(old, new),
            _ => {
                settings.insert(name.clone(), value.clone());
            }
        }
    }
}

/// The setting at a path of names with dots between.
fn at<'a>(settings: &'a mut Table, path: &str) -> Option<&'a mut Value> {
    match path.split_once('.') {
        None => settings.get_mut(path),
        Some((first, rest)) => at(settings.get_mut(first)?.as_table_mut()?, rest),
    }
}

fn repeated(items: &[Value]) -> Option<&Value> {
    items
        .iter()
        .enumerate()
        .find(|(index, item)| items[..*index].contains(item))
        .map(|(_, item)| item)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
        about = "A test"
        examples = ["--network a"]
        [settings]
        ratios = [0.5]
        count = 3
        names = ["x"]
        train = { epochs = 5, lr = 0.1, optimizer = { rule = "sgd", momentum = 0.9 } }
        [[choice]]
        option = "network"
        help = "Network"
        [[choice.value]]
        name = "a"
        settings = { train = { optimizer = { rule = "adam" } } }
        [[choice.value]]
        name = "b"
        settings = { train = { lr = 0.2 } }
        [[flag]]
        name = "quick"
        help = "Quick"
        settings = { train = { epochs = 1 } }
        [[option]]
        name = "ratios"
        value = "X"
        help = "Ratios"
        above = 0.0
        below = 1.0
        [[option]]
        name = "epochs"
        sets = "train.epochs"
        value = "N"
        help = "Epochs"
        least = 1
        [[option]]
        name = "names"
        value = "NAME"
        help = "Names"
        [smoke]
        count = 1
    "#;

    fn settings(args: &[&str]) -> Result<Table> {
        let about = Description::new(TEXT);
        let all = std::iter::once("test").chain(args.iter().copied());
        about.settings(&about.command("test").try_get_matches_from(all)?)
    }

    #[test]
    fn choices_flags_and_options_lie_over_each_other() {
        let found = settings(&["--network", "a", "--quick", "--ratios", "0.25,0.1"]).unwrap();
        let expected: Table = r#"
            ratios = [0.25, 0.1]
            count = 3
            names = ["x"]
            train = { epochs = 1, lr = 0.1, optimizer = { rule = "adam" } }
        "#
        .parse()
        .unwrap();
        assert_eq!(found, expected);
        let found = settings(&["--network", "b", "--quick", "--epochs", "7", "--smoke"]).unwrap();
        assert_eq!(found["train"]["lr"].as_float(), Some(0.2));
        assert_eq!(found["train"]["epochs"].as_integer(), Some(7), "an option wins over a flag");
        assert_eq!(found["count"].as_integer(), Some(1));
    }

    #[test]
    fn wrong_values_are_told_in_the_words_of_the_option() {
        let told = |args: &[&str]| {
            let all: Vec<&str> = [&["--network", "a"], args].concat();
            format!("{:#}", settings(&all).unwrap_err())
        };
        assert_eq!(told(&["--ratios", "1"]), "--ratios: 1 is not above 0 and below 1");
        assert_eq!(told(&["--ratios", "-0.5"]), "--ratios: -0.5 is not above 0 and below 1");
        assert_eq!(told(&["--ratios", "nan"]), "--ratios: nan is not above 0 and below 1");
        assert_eq!(told(&["--ratios", "half"]), "--ratios: 'half' is no number");
        assert_eq!(told(&["--ratios", "0.5,0.50"]), "--ratios: 0.5 is asked for twice");
        assert_eq!(told(&["--epochs", "0"]), "--epochs: 0 is not at least 1");
        assert_eq!(told(&["--epochs", "1.5"]), "--epochs: '1.5' is no whole number");
        assert_eq!(told(&["--names", "x,,y"]), "--names: '' is empty");
        assert!(told(&["--config", "/nowhere.toml"]).starts_with("--config /nowhere.toml: "));
        assert!(settings(&[]).is_err(), "a network has to be chosen");
        assert!(settings(&["--network", "c"]).is_err());
    }
}
