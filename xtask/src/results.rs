//! `cargo xtask results`: the recorded runs in `docs/results`, and the tables that are made from them.
//!
//! A recorded run is a folder with the `summary.md`, the plots and the `result.json` that the run wrote. `result.json` says where the
//! figures come from, has the run's rows of the README's table, and the sums of the pages beside it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};
use clap::Subcommand;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::workspace;

/// Where the recorded runs are.
const FOLDER: &str = "docs/results";
/// Lines between which a table is made.
const BEGIN: &str = "<!-- made by `cargo xtask results` from docs/results/*/result.json -->";
const END: &str = "<!-- end of the results -->";

#[derive(Subcommand)]
pub(crate) enum ResultsCommand {
    /// Write the tables of README.md and docs/results/README.md (what `cargo xtask results` does alone)
    Write,
    /// Record a finished run in docs/results, in the place of the one before it, and write the tables
    #[command(
        after_help = "Example:\n  cargo xtask results record results/demo/2026-11-26T190507Z"
    )]
    Record {
        /// The run's folder
        run: std::path::PathBuf,
    },
    /// Fail where a table is not what the results make, or a recorded page not what its run wrote
    Check,
}

/// What is read of a `result.json`.
#[derive(Debug, Deserialize)]
struct Recorded {
    experiment: String,
    provenance: Provenance,
    rows: Vec<Row>,
    pages: BTreeMap<String, String>,
    /// Why the run's own file is not there, and where the figures were read.
    #[serde(default)]
    recovered: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Provenance {
    commit: String,
    dirty: bool,
    command: String,
    started: String,
    processor: String,
}

/// A row of the README's table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    network: String,
    data: String,
    params: String,
    macs: String,
    top1: String,
    speed: String,
}

/// `docs/results/table.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    /// Folders in the order of their rows.
    folders: Vec<String>,
}

pub(crate) fn run(command: &ResultsCommand) -> anyhow::Result<ExitCode> {
    let root = workspace::root();
    match command {
        ResultsCommand::Write => write(&root)?,
        ResultsCommand::Record { run } => {
            record(&root, run)?;
            write(&root)?;
        }
        ResultsCommand::Check => {
            let faults = faults(&root)?;
            for fault in &faults {
                eprintln!("{fault}");
            }
            if !faults.is_empty() {
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The recorded runs by their folders, in the order of the table.
fn recorded(root: &Path) -> anyhow::Result<Vec<(String, Recorded)>> {
    let folder = root.join(FOLDER);
    let order: Order = toml::from_str(&read(&folder.join("table.toml"))?)
        .with_context(|| format!("{FOLDER}/table.toml"))?;
    let mut there = Vec::new();
    for entry in fs::read_dir(&folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            there.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    there.sort();
    if let Some(name) = there.iter().find(|name| !order.folders.contains(name)) {
        bail!("{FOLDER}/{name} is not in {FOLDER}/table.toml: add it where its rows belong");
    }
    let mut found = Vec::new();
    for name in order.folders {
        let path = folder.join(&name).join("result.json");
        let result: Recorded = serde_json::from_str(&read(&path)?)
            .with_context(|| format!("{} is no result of an experiment", path.display()))?;
        ensure!(
            result.experiment == name,
            "{} is of {}, not of {name}",
            path.display(),
            result.experiment
        );
        found.push((name, result));
    }
    Ok(found)
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The files in which a table is made, with their new texts.
fn texts(root: &Path) -> anyhow::Result<Vec<(std::path::PathBuf, String)>> {
    let recorded = recorded(root)?;
    let tables = [("README.md", figures(&recorded)), ("docs/results/README.md", list(&recorded))];
    let text = |(name, table): (&str, String)| {
        let path = root.join(name);
        let old = read(&path)?;
        let (Some(begin), Some(end)) = (old.find(BEGIN), old.find(END)) else {
            bail!("{name} has no lines `{BEGIN}` and `{END}`");
        };
        let begin = begin + BEGIN.len();
        ensure!(begin <= end, "{name}: the end of the table stands before its beginning");
        Ok((path, format!("{}\n{table}{}", &old[..begin], &old[end..])))
    };
    tables.into_iter().map(text).collect()
}

/// The table of the README.
fn figures(recorded: &[(String, Recorded)]) -> String {
    let mut table = String::from(
        "| network | data | parameters | multiply-adds | top-1, dense → compressed | speed-up | recorded |\n|---|---|---|---|---|---|---|\n",
    );
    for (name, result) in recorded {
        for row in &result.rows {
            let Row { network, data, params, macs, top1, speed } = row;
            let cells =
                [network, data, params, macs, top1, speed].map(|cell| cell.replace('|', "\\|"));
            table.push_str(&format!(
                "| {} | [{name}]({FOLDER}/{name}/summary.md) |\n",
                cells.join(" | ")
            ));
        }
    }
    table
}

/// The table of the recorded runs.
fn list(recorded: &[(String, Recorded)]) -> String {
    let mut table =
        String::from("| run | command | commit | day | processor |\n|---|---|---|---|---|\n");
    for (name, result) in recorded {
        let Provenance { commit, dirty, command, started, processor } = &result.provenance;
        let (short, day) =
            (commit.get(..7).unwrap_or(commit), started.get(..10).unwrap_or(started));
        let changed = if *dirty { " and changes" } else { "" };
        let recovered = result.recovered.as_ref().map_or(String::new(), |why| format!(" ({why})"));
        table.push_str(&format!(
            "| [{name}]({name}/summary.md) | `{command}`{recovered} | {short}{changed} | {day} | {processor} |\n"
        ));
    }
    table
}

fn write(root: &Path) -> anyhow::Result<()> {
    for (path, text) in texts(root)? {
        if read(&path)? != text {
            let beside = path.with_added_extension("tmp");
            fs::write(&beside, text)
                .with_context(|| format!("cannot write {}", beside.display()))?;
            fs::rename(&beside, &path)?;
            println!("{} is written.", path.display());
        }
    }
    Ok(())
}

fn sum(path: &Path) -> anyhow::Result<String> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect())
}

/// What is not as it should be, one line each.
fn faults(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut faults = Vec::new();
    for (path, text) in texts(root)? {
        if read(&path)? != text {
            faults.push(format!(
                "{}: the table is not what the results make; run `cargo xtask results`",
                path.display()
            ));
        }
    }
    for (name, result) in recorded(root)? {
        let folder = root.join(FOLDER).join(&name);
        if result.provenance.dirty && result.recovered.is_none() {
            faults.push(format!(
                "{FOLDER}/{name}: the run was of a program with uncommitted changes"
            ));
        }
        for (page, expected) in &result.pages {
            if !sum(&folder.join(page)).is_ok_and(|found| found == *expected) {
                faults.push(format!("{FOLDER}/{name}/{page} is not what the run wrote"));
            }
        }
        let mut there = vec!["summary.md".to_owned()];
        if let Ok(plots) = fs::read_dir(folder.join("plots")) {
            for plot in plots {
                there.push(format!("plots/{}", plot?.file_name().to_string_lossy()));
            }
        }
        for page in there.iter().filter(|page| !result.pages.contains_key(*page)) {
            faults.push(format!("{FOLDER}/{name}/{page} is of no run"));
        }
    }
    Ok(faults)
}

/// Copies what is recorded of a run.
fn record(root: &Path, run: &Path) -> anyhow::Result<()> {
    let path = run.join("result.json");
    let result: Recorded = serde_json::from_str(&read(&path)?).with_context(|| {
        format!("{} is no result of an experiment: has the run finished?", path.display())
    })?;
    ensure!(
        !result.provenance.dirty,
        "{} is of a program with uncommitted changes: commit, and run it again",
        run.display()
    );
    let target = root.join(FOLDER).join(&result.experiment);
    let beside = target.with_added_extension("tmp");
    if beside.exists() {
        fs::remove_dir_all(&beside)?;
    }
    for page in result.pages.keys().map(String::as_str).chain(["result.json"]) {
        let to = beside.join(page);
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::copy(run.join(page), &to)
            .with_context(|| format!("cannot copy {} of {}", page, run.display()))?;
    }
    if target.exists() {
        fs::remove_dir_all(&target)?;
    }
    fs::rename(&beside, &target)?;
    println!("{} is recorded.", target.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A workspace with one recorded run.
    fn workspace() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let results = root.path().join(FOLDER);
        fs::create_dir_all(&results).unwrap();
        let text = format!("before\n{BEGIN}\n{END}\nafter\n");
        fs::write(root.path().join("README.md"), &text).unwrap();
        fs::write(results.join("README.md"), &text).unwrap();
        fs::write(results.join("table.toml"), "folders = ['demo']").unwrap();
        record(root.path(), &finished(root.path(), "demo", false)).unwrap();
        root
    }

    /// The folder of a finished run.
    fn finished(root: &Path, experiment: &str, dirty: bool) -> std::path::PathBuf {
        let run = root.join("results").join(experiment);
        fs::create_dir_all(run.join("plots")).unwrap();
        fs::write(run.join("summary.md"), "what came out").unwrap();
        fs::write(run.join("plots/a.svg"), "<svg/>").unwrap();
        let sums = ["summary.md", "plots/a.svg"].map(|page| sum(&run.join(page)).unwrap());
        let result = format!(
            r#"{{"experiment": "{experiment}", "rows": [{{"network": "CharNet", "data": "a|b", "params": "2×", "macs": "", "top1": "90 %",
                "speed": ""}}], "pages": {{"summary.md": "{}", "plots/a.svg": "{}"}}, "provenance": {{"commit": "0123456789", "dirty": {dirty},
                "command": "cargo xtask demo", "started": "2026-11-26T00:00:00Z", "processor": "one"}}, "result": 1}}"#,
            sums[0], sums[1]
        );
        fs::write(run.join("result.json"), result).unwrap();
        run
    }

    #[test]
    fn tables_are_made_between_the_marks() {
        let root = workspace();
        assert_eq!(faults(root.path()).unwrap().len(), 2, "the tables are not written yet");
        write(root.path()).unwrap();
        assert_eq!(faults(root.path()).unwrap(), Vec::<String>::new());
        let readme = fs::read_to_string(root.path().join("README.md")).unwrap();
        assert!(
            readme.starts_with("before\n<!--")
                && readme.ends_with("<!-- end of the results -->\nafter\n")
        );
        assert!(readme.contains(
            "| CharNet | a\\|b | 2× |  | 90 % |  | [demo](docs/results/demo/summary.md) |"
        ));
        let list = fs::read_to_string(root.path().join("docs/results/README.md")).unwrap();
        assert!(list.contains(
            "| [demo](demo/summary.md) | `cargo xtask demo` | 0123456 | 2026-11-26 | one |"
        ));
    }

    #[test]
    fn what_was_edited_by_hand_is_found() {
        let root = workspace();
        write(root.path()).unwrap();
        let demo = root.path().join(FOLDER).join("demo");
        fs::write(demo.join("summary.md"), "what should have come out").unwrap();
        fs::write(demo.join("plots/b.svg"), "<svg/>").unwrap();
        fs::remove_file(demo.join("plots/a.svg")).unwrap();
        let readme = root.path().join("README.md");
        let better = fs::read_to_string(&readme).unwrap().replace("90 %", "99 %");
        fs::write(&readme, better).unwrap();
        let found = faults(root.path()).unwrap().join("\n");
        for part in [
            "summary.md is not what",
            "a.svg is not what",
            "b.svg is of no run",
            "README.md: the table",
        ] {
            assert!(found.contains(part), "{part}: {found}");
        }
        assert_eq!(found.lines().count(), 4, "{found}");
    }

    #[test]
    fn results_that_cannot_be_traced_are_refused() {
        let root = workspace();
        let told = |run: &Path| format!("{:#}", record(root.path(), run).unwrap_err());
        assert!(told(&finished(root.path(), "other", true)).contains("uncommitted changes"));
        assert!(told(&root.path().join("results")).contains("result.json"));
        fs::create_dir(root.path().join(FOLDER).join("other")).unwrap();
        let error = format!("{:#}", faults(root.path()).unwrap_err());
        assert!(error.contains("docs/results/other is not in docs/results/table.toml"), "{error}");
    }

    #[test]
    fn the_recorded_results_are_sound() {
        assert_eq!(faults(&workspace::root()).unwrap(), Vec::<String>::new());
    }
}
