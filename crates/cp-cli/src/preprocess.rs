//! `--preprocess`: how pictures become the input of a model that does not say it itself.

use std::path::Path;
use std::str::FromStr;

use anyhow::{Context as _, bail};
use cp_net::{Channels, InputSpec, Network, read_text};
use serde::Deserialize;

/// How pictures are prepared: never guessed, since a wrong mean costs accuracy without a word.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Preprocess {
    /// RGB by the statistics of ImageNet, as torchvision's weights expect.
    Imagenet,
    /// 0 to 1, grey or RGB.
    Unit,
    /// BGR of 0 to 255 less the mean of ImageNet, as Caffe's weights expect.
    Caffe,
    /// A TOML file.
    File(String),
}

impl FromStr for Preprocess {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "imagenet" => Ok(Self::Imagenet),
            "unit" => Ok(Self::Unit),
            "caffe" => Ok(Self::Caffe),
            _ if text.to_ascii_lowercase().ends_with(".toml") => Ok(Self::File(text.into())),
            _ => Err("name imagenet, unit, caffe, or a file that ends in .toml with channels, scale, mean and std".into()),
        }
    }
}

/// x = (pixel · scale − mean) / std, pixels 0…255.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    /// `gray`, `rgb` or `bgr`.
    channels: Channels,
    #[serde(default = "one")]
    scale: f64,
    #[serde(default)]
    mean: Vec<f64>,
    #[serde(default)]
    std: Vec<f64>,
}

fn one() -> f64 {
    1.0
}

impl Preprocess {
    /// The same network with pictures prepared in this way.
    pub(crate) fn apply(&self, network: Network) -> anyhow::Result<Network> {
        let known = network.input().clone();
        let &[channels, ..] = &known.shape[..] else {
            bail!("--preprocess is for networks that take pictures, of channels, height and width");
        };
        if known.shape.len() != 3 {
            bail!(
                "--preprocess is for networks that take pictures, of channels, height and width; this one takes {:?}",
                known.shape
            );
        }
        let spec = match self {
            Self::Imagenet => InputSpec::imagenet(1),
            Self::Caffe => InputSpec::caffe(1),
            Self::Unit => match channels {
                1 => InputSpec::gray(1),
                _ => InputSpec {
                    scale: 1.0 / 255.0,
                    mean: vec![0.0; 3],
                    std: vec![1.0; 3],
                    ..InputSpec::imagenet(1)
                },
            },
            Self::File(path) => read(Path::new(path))?,
        };
        if spec.channels.count() != Some(channels) {
            bail!(
                "--preprocess makes {} channels, and the network takes {channels}",
                spec.channels.count().unwrap_or(0)
            );
        }
        Ok(network.with_input(InputSpec { name: known.name, shape: known.shape, ..spec })?)
    }
}

fn read(path: &Path) -> anyhow::Result<InputSpec> {
    let text = read_text(path, "a file that says how pictures are prepared", "see --help")
        .context("--preprocess")?;
    let named = || format!("--preprocess {}", path.display());
    let written: Written = toml::from_str(&text).with_context(named)?;
    let Written { channels, scale, mean, std } = written;
    let Some(count) = channels.count() else {
        bail!("{}: channels has to be gray, rgb or bgr", named());
    };
    let filled = |name: &str, values: Vec<f64>, value: f64| match values.len() {
        0 => Ok(vec![value; count]),
        len if len == count => Ok(values),
        len => bail!(
            "{}: {name} has {len} numbers, one for each of {count} channels is expected",
            named()
        ),
    };
    let (mean, std) = (filled("mean", mean, 0.0)?, filled("std", std, 1.0)?);
    if !scale.is_finite() || mean.iter().any(|m| !m.is_finite()) {
        bail!("{}: scale and mean have to be finite numbers", named());
    }
    if std.iter().any(|d| !(d.is_finite() && *d > 0.0)) {
        bail!("{}: std has to be numbers above 0", named());
    }
    let shape = vec![count, 1, 1];
    Ok(InputSpec { name: cp_net::INPUT.into(), shape, channels, scale, mean, std })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_files() {
        assert_eq!("unit".parse(), Ok(Preprocess::Unit));
        assert_eq!("a.toml".parse(), Ok(Preprocess::File("a.toml".into())));
        assert!("Imagenet".parse::<Preprocess>().is_err());
    }

    #[test]
    fn a_file_says_what_the_model_was_trained_with() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.toml");
        let check = |text: &str| {
            std::fs::write(&path, text).unwrap();
            read(&path)
        };
        let spec = check("channels = \"rgb\"\nscale = 0.5\nmean = [1, 2, 3]").unwrap();
        assert_eq!(
            (spec.scale, &spec.mean[..], &spec.std[..]),
            (0.5, &[1.0, 2.0, 3.0][..], &[1.0; 3][..])
        );
        for (text, word) in [
            ("", "channels"),
            ("channels = \"features\"", "gray, rgb or bgr"),
            ("channels = \"rgb\"\nmean = [1]", "3 channels"),
            ("channels = \"gray\"\nstd = [0]", "above 0"),
            ("channels = \"gray\"\nstdd = [1]", "stdd"),
        ] {
            let error = format!("{:#}", check(text).unwrap_err());
            assert!(error.contains(word) && error.contains("p.toml"), "{text}: {error}");
        }
    }
}
