//! What an experiment needs that is not on disk: data sets and published weights, fetched before it starts.
//!
//! The settings that matter are read from the experiment's TOML as its own command line would change them: `dataset`,
//! `test_split` and `weights`. Whatever else is wrong with the arguments, the experiment itself will say.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use toml::{Table, Value};

use crate::datasets::fetch::{self, Places};
use crate::download::Patience;
use crate::manifest::{self, Manifest};

/// Takes `--fetch` and `--no-fetch` out of the arguments; whether to fetch what is missing, which is so where neither stands.
pub(crate) fn wanted(args: &mut Vec<OsString>) -> bool {
    let mut fetch = true;
    args.retain(|arg| {
        let own = [("--fetch", true), ("--no-fetch", false)];
        let found = own.into_iter().find(|(name, _)| arg == name);
        fetch = found.map_or(fetch, |(_, value)| value);
        found.is_none()
    });
    fetch
}

/// The settings of an experiment as far as they say what it needs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    dataset: Option<String>,
    test_split: Option<String>,
    weights: Vec<String>,
    /// `--data`.
    data: Option<PathBuf>,
}

impl Needs {
    /// Reads them off an experiment's TOML and its arguments; nothing where it only tells about itself or draws its data.
    pub(crate) fn of(text: &str, args: &[OsString]) -> anyhow::Result<Self> {
        let about: Table = text.parse().context("the experiment's TOML")?;
        let args: Vec<String> = args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
        if args.iter().any(|arg| ["--help", "-h", "--version", "-V", "--smoke"].contains(&&**arg)) {
            return Ok(Needs::default());
        }
        let option = |name: &str| {
            let name = format!("--{name}");
            let follows = args.iter().position(|arg| *arg == name).and_then(|at| args.get(at + 1));
            let joined = args.iter().find_map(|arg| arg.strip_prefix(&name)?.strip_prefix('='));
            follows.map(String::as_str).or(joined)
        };
        let table = |value: &Value, name: &str| value.get(name).and_then(Value::as_table).cloned();
        let list =
            |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
        let mut settings =
            about.get("settings").and_then(Value::as_table).cloned().unwrap_or_default();
        for choice in list(about.get("choice")) {
            let Some(name) = choice.get("option").and_then(Value::as_str) else { continue };
            let values = list(choice.get("value"));
            let named = |value: &&Value| value.get("name").and_then(Value::as_str) == option(name);
            if let Some(chosen) = values.iter().find(named).filter(|_| option(name).is_some()) {
                settings.extend(table(chosen, "settings").unwrap_or_default());
            }
        }
        for flag in list(about.get("flag")) {
            let name = flag.get("name").and_then(Value::as_str).unwrap_or_default();
            if args.iter().any(|arg| arg.strip_prefix("--") == Some(name)) {
                settings.extend(table(&flag, "settings").unwrap_or_default());
            }
        }
        if let Some(path) = option("config") {
            // What cannot be read, the experiment will tell.
            let read = std::fs::read_to_string(path).ok();
            settings.extend(read.and_then(|text| text.parse::<Table>().ok()).unwrap_or_default());
        }
        let text = |name: &str| settings.get(name).and_then(Value::as_str).map(str::to_owned);
        let weights = match settings.get("weights") {
            Some(Value::String(one)) => vec![one.clone()],
            // One for each of the networks.
            Some(Value::Table(of)) => {
                let listed: Vec<String> = match option("networks") {
                    Some(names) => names.split(',').map(|name| name.trim().to_owned()).collect(),
                    None => list(settings.get("networks"))
                        .iter()
                        .filter_map(|name| name.as_str().map(str::to_owned))
                        .collect(),
                };
                listed.iter().filter_map(|name| of.get(name)?.as_str().map(str::to_owned)).collect()
            }
            _ => Vec::new(),
        };
        // `drawn` and `characters` are made here; a path is that of a file of this project.
        let published = |name: &String| name.contains('.') && !name.contains('/');
        Ok(Needs {
            dataset: text("dataset"),
            test_split: text("test_split"),
            weights: weights.into_iter().filter(published).collect(),
            data: option("data").map(PathBuf::from),
        })
    }

    /// Data sets and weights that are in none of the places and have an address: manifest and name.
    fn missing(
        &self,
        manifests: Vec<Manifest>,
        places: &[PathBuf],
    ) -> Vec<(Manifest, Vec<String>)> {
        let mut missing = Vec::new();
        for manifest in manifests {
            let here = |path: &str| {
                manifest
                    .file(path)
                    .is_some_and(|file| file.find(&manifest.folder, places).is_some())
            };
            if manifest.name == "pretrained" {
                let labels: Vec<String> = (self.weights.iter())
                    .filter_map(|name| manifest.weights(name))
                    .filter(|file| !here(&file.path) && !file.original.as_deref().is_some_and(here))
                    .filter(|file| {
                        let original =
                            file.original.as_deref().and_then(|path| manifest.file(path));
                        [Some(*file), original].into_iter().flatten().any(|f| f.can_be_fetched())
                    })
                    .map(|file| file.label().to_owned())
                    .collect();
                if !labels.is_empty() {
                    missing.push((manifest, labels));
                }
                continue;
            }
            let asked = self.dataset.as_deref().unwrap_or_default();
            // Another cut of the same files, which needs none of those that only a split of their own needs.
            let cut = asked.strip_suffix("-holdout");
            if cut.unwrap_or(asked) != manifest.name || !manifest.can_be_fetched() {
                continue;
            }
            let split = if cut.is_some() { None } else { self.test_split.as_ref() };
            let lacks = manifest.files.iter().any(|file| {
                let needed =
                    file.splits.is_empty() || split.is_some_and(|s| file.splits.contains(s));
                needed && !here(&file.path) && !file.part_of.as_deref().is_some_and(here)
            });
            if lacks {
                missing.push((manifest, Vec::new()));
            }
        }
        missing
    }

    /// Fetches what is missing, after a line that says what, from where and how large.
    ///
    /// # Errors
    /// If a folder that the user named is not there, or a download fails: with the file, where to put it, and how to do without.
    pub(crate) fn fetch(&self, root: &Path) -> anyhow::Result<()> {
        if self.dataset.is_none() && self.weights.is_empty() {
            return Ok(());
        }
        let search = manifest::places(root, self.data.as_deref())?;
        let places = Places { search, patience: Patience::default() };
        self.fetch_of(manifest::all(root)?, &places)
    }

    fn fetch_of(&self, manifests: Vec<Manifest>, places: &Places) -> anyhow::Result<()> {
        for (manifest, labels) in self.missing(manifests, &places.search) {
            fetch::fetch(&manifest, &labels, places).with_context(|| {
                let without = if manifest.name == "pretrained" {
                    "where the experiment has it, `--backbone own` trains a small network here instead; "
                } else {
                    ""
                };
                format!("{} is missing and cannot be fetched ({without}`--no-fetch` leaves this out)", {
                    if labels.is_empty() { manifest.name.clone() } else { labels.join(", ") }
                })
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::loopback::{Server, curl_is_here};
    use crate::workspace;

    fn needs(experiment: &str, args: &[&str]) -> Needs {
        let path =
            workspace::root().join(format!("crates/cp-experiments/experiments/{experiment}.toml"));
        let args: Vec<OsString> = args.iter().map(OsString::from).collect();
        Needs::of(&fs::read_to_string(path).unwrap(), &args).unwrap()
    }

    #[track_caller]
    fn check(experiment: &str, args: &[&str], dataset: Option<&str>, weights: &[&str]) {
        let found = needs(experiment, args);
        assert_eq!(found.dataset.as_deref(), dataset, "{experiment} {args:?}");
        assert_eq!(found.weights, weights, "{experiment} {args:?}");
    }

    #[test]
    fn what_the_experiments_need() {
        let caffe = "squeezenet1_1-imagenet-caffe.safetensors";
        check("transfer", &["--dataset", "cifar10"], Some("cifar10"), &[caffe]);
        check("transfer", &["--dataset=cifar10", "--quick"], Some("cifar10"), &[caffe]);
        check("transfer", &["--dataset", "cifar10", "--backbone", "own"], Some("cifar10"), &[]);
        check("transfer", &["--dataset", "cifar10", "--smoke"], None, &[]);
        check("transfer", &["--help"], None, &[]);
        let resnet = "resnet20-cifar10.safetensors";
        let args = ["--dataset", "fashion-mnist", "--arch", "resnet20"];
        check("transfer", &args, Some("fashion-mnist"), &[resnet]);
        let args = ["--dataset", "cats-vs-dogs", "--arch", "resnet18"];
        check("transfer", &args, Some("cats-vs-dogs"), &["resnet18-f37072fd.pth"]);
        check("curve", &["--network", "resnet20"], Some("cifar10-holdout"), &[]);
        check("curve", &["--network", "resnet20-published"], Some("cifar10"), &[resnet]);
        check("stasgt", &["--dataset", "cifar100"], Some("cifar100"), &[]);
        check("stasgt", &["--dataset", "cifar10"], Some("cifar10-holdout"), &[]);
        check("cpac", &["--dataset", "mnist"], Some("mnist"), &[]);
        check("cpac", &["--dataset", "defects"], Some("magnetic-tile-defects"), &[]);
        check("transduction", &[], None, &[]);
        check("zoo", &["--dataset", "cifar10"], Some("cifar10-holdout"), &[]);
        let googlenet = "bvlc_googlenet-imagenet-caffe.safetensors";
        check("agreement", &[], Some("imagenet-sample"), &[googlenet, caffe]);
        check("agreement", &["--networks", "squeezenet1_1"], Some("imagenet-sample"), &[caffe]);
        assert_eq!(
            needs("transfer", &["--dataset", "cifar10", "--data", "x"]).data,
            Some("x".into())
        );
    }

    #[test]
    fn fetching_can_be_left_out() {
        let check = |args: &[&str], expected: bool, left: &[&str]| {
            let mut args: Vec<OsString> = args.iter().map(OsString::from).collect();
            assert_eq!(wanted(&mut args), expected);
            assert_eq!(args, left);
        };
        check(&["--dataset", "x"], true, &["--dataset", "x"]);
        check(&["--dataset", "x", "--fetch"], true, &["--dataset", "x"]);
        check(&["--no-fetch", "--quick"], false, &["--quick"]);
    }

    #[test]
    fn what_is_here_is_not_missing() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let data = tempfile::tempdir().unwrap();
        let places = [data.path().to_owned()];
        let missing = |needs: &Needs| -> Vec<(String, Vec<String>)> {
            let found = needs.missing(manifest::all(root).unwrap(), &places);
            found.into_iter().map(|(manifest, labels)| (manifest.name, labels)).collect()
        };
        let put = |path: &str| {
            let path = data.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        };
        let transfer = needs("transfer", &["--dataset", "cifar10"]);
        let weights = ("pretrained".to_owned(), vec!["squeezenet1_1-caffe".to_owned()]);
        assert_eq!(missing(&transfer), [("cifar10".to_owned(), vec![]), weights.clone()]);
        for n in 1..=5 {
            put(&format!("cifar-10/data_batch_{n}.bin.zst"));
        }
        assert_eq!(missing(&transfer).len(), 2, "nothing to test on");
        put("cifar-10/test_batch_first1000.bin.zst");
        assert_eq!(missing(&transfer), [weights]);
        put("pretrained/squeezenet1_1-imagenet-caffe.safetensors");
        assert_eq!(missing(&transfer), []);
        // The held-out batch needs no test file; the converted network may lie there as it was published.
        fs::remove_file(data.path().join("cifar-10/test_batch_first1000.bin.zst")).unwrap();
        assert_eq!(missing(&needs("curve", &["--network", "resnet20"])), []);
        put("cifar-10/test_batch.bin");
        assert_eq!(missing(&transfer), [], "the whole test set has its first part");
        let curve = needs("curve", &["--network", "resnet56"]);
        assert_eq!(
            missing(&curve),
            [("pretrained".to_owned(), vec!["resnet56".to_owned() + "-cifar10"])]
        );
        put("pretrained/resnet56-4bfd9763.th");
        assert_eq!(missing(&curve), []);
    }

    #[test]
    fn without_a_network_the_error_names_file_place_and_the_way_without() {
        if !curl_is_here() {
            return;
        }
        let server = Server::start();
        let text = format!(
            "name = 'pretrained'\ntitle = 'P'\nfolder = 'pretrained'\nlicense = 'none'\n\
             [[file]]\npath = 'net-00000000.pth'\nurls = ['{}net.pth']\nsha256_prefix = '00000000'",
            server.base
        );
        let data = tempfile::tempdir().unwrap();
        let places = Places { search: vec![data.path().to_owned()], patience: Patience::default() };
        let needs = Needs { weights: vec!["net-00000000.pth".into()], ..Needs::default() };
        let error = needs.fetch_of(vec![toml::from_str(&text).unwrap()], &places).unwrap_err();
        let error = format!("{error:#}");
        let target = data.path().join("pretrained/net-00000000.pth");
        for words in ["--backbone own", "--no-fetch", &server.base, &target.display().to_string()] {
            assert!(error.contains(words), "no {words} in {error}");
        }
    }
}
