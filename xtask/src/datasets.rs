//! `cargo xtask datasets`: list, download and check the data sets that `datasets/*.toml` describe.

mod assemble;
pub(crate) mod fetch;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::Subcommand;

use crate::download::Patience;
use crate::manifest::{self, Manifest};
use crate::sums::Check;
use crate::workspace;

#[derive(Subcommand)]
pub(crate) enum DatasetsCommand {
    /// Name the data sets, and say which are on disk
    List {
        /// A folder of data sets, looked into before $POLYAD_DATA and the cache
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
    },
    /// Download data sets and published networks; an interrupted download goes on where it stopped
    #[command(
        after_help = "Examples:\n  cargo xtask datasets fetch fashion-mnist\n  cargo xtask datasets fetch resnet18 alexnet\n  \
                      cargo xtask datasets fetch pretrained --data ~/data\n  cargo xtask datasets fetch --list"
    )]
    Fetch {
        /// Data sets as `list` names them, or networks of `pretrained`, or all of these
        #[arg(required_unless_present = "list", value_name = "NAME")]
        names: Vec<String>,
        /// Say what there is to download, how large it is, and where it comes from
        #[arg(long, conflicts_with = "names")]
        list: bool,
        /// The folder to put it into [default: $POLYAD_DATA, else datasets/cache; the first that can be written]
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
    },
    /// Check the files on disk against the listed sums; without a name, those of every data set
    #[command(after_help = "Example:\n  cargo xtask datasets verify cifar10 --data ~/data")]
    Verify {
        /// As `list` names it
        name: Option<String>,
        /// A folder of data sets, looked into before $POLYAD_DATA and the cache
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
    },
}

pub(crate) fn run(command: &DatasetsCommand) -> anyhow::Result<ExitCode> {
    let root = workspace::root();
    let places = |data: &Option<PathBuf>| manifest::places(&root, data.as_deref());
    match command {
        DatasetsCommand::List { data } => list(&manifest::all(&root)?, &places(data)?),
        DatasetsCommand::Fetch { list: true, data, .. } => {
            fetch::list(&manifest::all(&root)?, &places(data)?)?;
        }
        DatasetsCommand::Fetch { names, data, .. } => {
            let places = fetch::Places { search: places(data)?, patience: Patience::default() };
            for (manifest, labels) in fetch::resolve(manifest::all(&root)?, names)? {
                fetch::fetch(&manifest, &labels, &places)?;
            }
        }
        DatasetsCommand::Verify { name, data } => {
            let manifests = match name {
                Some(name) => vec![manifest::named(&root, name)?],
                None => manifest::all(&root)?,
            };
            return verify(&manifests, &places(data)?, name.is_some());
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list(manifests: &[Manifest], places: &[PathBuf]) {
    for manifest in manifests {
        let here = manifest
            .files
            .iter()
            .filter(|file| file.find(&manifest.folder, places).is_some())
            .count();
        let all = manifest.files.len();
        let state = match here {
            _ if all == 0 => "a copy of your own, whose files are not listed".to_owned(),
            0 if manifest.can_be_fetched() => "not here; can be fetched".to_owned(),
            0 => "not here".to_owned(),
            _ => format!("{here} of {all} files here"),
        };
        println!(
            "{:<16} {} - {state}\n{:16} licence: {}",
            manifest.name, manifest.title, "", manifest.license
        );
    }
    for drawn in ["characters", "moving-characters"] {
        println!("{drawn:<16} drawn when it is used: nothing to download");
    }
}

/// Checks what is there. A file that is wrong fails, and so does one that is missing from a data set asked for by name,
/// unless none of its names is on the list of what can be had.
fn verify(manifests: &[Manifest], places: &[PathBuf], named: bool) -> anyhow::Result<ExitCode> {
    let (mut wrong, mut present) = (0, 0);
    for manifest in manifests {
        let mut missing = Vec::new();
        for file in &manifest.files {
            let Some(path) = file.find(&manifest.folder, places) else {
                missing.push(file.path.as_str());
                continue;
            };
            present += 1;
            let verdict = match file.check(&path)? {
                Check::Right => "ok".to_owned(),
                Check::Repacked => {
                    "another packing than the listed ones; its content is checked when it is read"
                        .to_owned()
                }
                Check::SizeOnly => "the size is right; no sum is known".to_owned(),
                Check::AsFirstFetched => "as it was first fetched; no sum is printed".to_owned(),
                Check::Wrong(why) => {
                    wrong += 1;
                    format!("WRONG: {why}")
                }
            };
            println!("{}: {verdict}", path.display());
        }
        if !missing.is_empty() {
            println!("{}: not here: {}", manifest.name, missing.join(", "));
        }
    }
    if wrong > 0 {
        eprintln!("{wrong} wrong: delete them, and fetch or copy them again.");
        return Ok(ExitCode::FAILURE);
    }
    if named && manifests.iter().all(|manifest| manifest.files.is_empty()) {
        bail!(
            "{} is a copy of your own: no sums of it are listed, so that there is nothing to verify; images and labels are \
             checked when they are read",
            manifests[0].name
        );
    }
    if named && present == 0 {
        bail!("no file of {} is on disk; run `cargo xtask datasets list`", manifests[0].name);
    }
    Ok(ExitCode::SUCCESS)
}
