//! `--preprocess`: how pictures become the input of a model that does not say it itself.

use std::path::Path;
use std::str::FromStr;

use anyhow::{Context as _, bail};
use cp_net::{Channels, InputSpec, Network, read_text};
use cp_train::PictureLayout;
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
    /// `nchw` or `nhwc`, of ONNX models.
    #[serde(default)]
    layout: Layout,
    /// Height and width, of ONNX models that leave them open.
    #[serde(default)]
    size: Option<[usize; 2]>,
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

/// Where the channels are.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Default)]
#[serde(rename_all = "lowercase")]
enum Layout {
    #[default]
    Nchw,
    Nhwc,
}

impl From<Layout> for PictureLayout {
    fn from(layout: Layout) -> Self {
        match layout {
            Layout::Nchw => PictureLayout::Nchw,
            Layout::Nhwc => PictureLayout::Nhwc,
        }
    }
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
        let (spec, _) = self.spec(channels)?;
        if spec.channels.count() != Some(channels) {
            bail!(
                "--preprocess makes {} channels, and the network takes {channels}",
                spec.channels.count().unwrap_or(0)
            );
        }
        Ok(network.with_input(InputSpec { name: known.name, shape: known.shape, ..spec })?)
    }

    /// Pictures for the input of an ONNX model, whose sizes are `[C, H, W]` or `[H, W, C]` behind the batch, as far as they are
    /// known: how they are prepared, with the shape `[C, H, W]`, and the order of the axes.
    pub(crate) fn pictures(
        &self,
        sizes: [Option<usize>; 3],
    ) -> anyhow::Result<(InputSpec, PictureLayout)> {
        let (mut spec, settings) = self.spec(sizes[0].unwrap_or(3))?;
        let layout = PictureLayout::from(settings.layout);
        let [channels, height, width] = match layout {
            PictureLayout::Nchw => sizes,
            PictureLayout::Nhwc => [sizes[2], sizes[0], sizes[1]],
        };
        let made = spec.channels.count().unwrap_or(0);
        if channels.is_some_and(|channels| channels != made) {
            bail!(
                "--preprocess makes {made} channels, and the model takes {}{}",
                channels.unwrap_or(0),
                match layout {
                    PictureLayout::Nchw =>
                        ", if they come first: a TOML file with layout = \"nhwc\" says that they come last",
                    PictureLayout::Nhwc => "",
                }
            );
        }
        let asked = settings.size;
        let size = |known: Option<usize>, asked: Option<usize>| match (known, asked) {
            (Some(known), Some(asked)) if known != asked => {
                bail!("--preprocess: size has {asked} where the model takes {known}")
            }
            (Some(size), _) | (None, Some(size)) => Ok(size),
            (None, None) => bail!(
                "the model leaves the size of its pictures open: name it by --input, such as --input 3x224x224, or by size in the TOML \
                 file of --preprocess"
            ),
        };
        spec.shape = vec![
            made,
            size(height, asked.map(|[height, _]| height))?,
            size(width, asked.map(|[_, width]| width))?,
        ];
        Ok((spec, layout))
    }

    /// Whether what it names can be read.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        self.spec(3).map(drop)
    }

    /// How pictures of so many channels are prepared, and what else a file says.
    fn spec(&self, channels: usize) -> anyhow::Result<(InputSpec, Settings)> {
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
            Self::File(path) => return read(Path::new(path)),
        };
        Ok((spec, Settings::default()))
    }
}

/// What concerns the place of pictures in a model's input.
#[derive(Default)]
struct Settings {
    layout: Layout,
    size: Option<[usize; 2]>,
}

fn read(path: &Path) -> anyhow::Result<(InputSpec, Settings)> {
    let text = read_text(path, "a file that says how pictures are prepared", "see --help")
        .context("--preprocess")?;
    let named = || format!("--preprocess {}", path.display());
    let written: Written = toml::from_str(&text).with_context(named)?;
    let Written { channels, layout, size, scale, mean, std } = written;
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
    if !(scale as f32).is_finite() || mean.iter().any(|m| !(*m as f32).is_finite()) {
        bail!("{}: scale and mean have to be finite numbers", named());
    }
    if std.iter().any(|d| !((*d as f32).is_normal() && *d > 0.0)) {
        bail!("{}: std has to be numbers above 0", named());
    }
    if size.is_some_and(|size| size.contains(&0)) {
        bail!("{}: size has to be two numbers of at least 1, height and width", named());
    }
    let shape = vec![count, 1, 1];
    let spec = InputSpec { name: cp_net::INPUT.into(), shape, channels, scale, mean, std };
    Ok((spec, Settings { layout, size }))
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
    fn sizes_come_from_the_model_or_from_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.toml");
        let check = |text: &str, sizes| {
            std::fs::write(&path, text).unwrap();
            let (spec, _) = Preprocess::File(path.display().to_string()).pictures(sizes)?;
            anyhow::Ok(spec.shape)
        };
        let rgb = "channels = \"rgb\"\n";
        let last = format!("{rgb}layout = \"nhwc\"\n");
        let open = [None; 3];
        assert_eq!(check(rgb, [Some(3), Some(5), Some(7)]).unwrap(), [3, 5, 7]);
        assert_eq!(check(&last, [Some(5), Some(7), Some(3)]).unwrap(), [3, 5, 7]);
        assert_eq!(check(&format!("{last}size = [5, 7]"), open).unwrap(), [3, 5, 7]);
        for (text, sizes, word) in [
            (rgb.to_owned(), open, "--input"),
            (rgb.to_owned(), [Some(5), Some(7), Some(3)], "nhwc"),
            (format!("{rgb}size = [5, 8]"), [Some(3), Some(5), Some(7)], "takes 7"),
        ] {
            let error = check(&text, sizes).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn a_file_says_what_the_model_was_trained_with() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.toml");
        let check = |text: &str| {
            std::fs::write(&path, text).unwrap();
            read(&path)
        };
        let (spec, _) = check("channels = \"rgb\"\nscale = 0.5\nmean = [1, 2, 3]").unwrap();
        assert_eq!(
            (spec.scale, &spec.mean[..], &spec.std[..]),
            (0.5, &[1.0, 2.0, 3.0][..], &[1.0; 3][..])
        );
        for (text, word) in [
            ("", "channels"),
            ("channels = \"features\"", "gray, rgb or bgr"),
            ("channels = \"rgb\"\nmean = [1]", "3 channels"),
            ("channels = \"gray\"\nstd = [0]", "above 0"),
            ("channels = \"gray\"\nstd = [1e-60]", "above 0"),
            ("channels = \"gray\"\nmean = [1e60]", "finite"),
            ("channels = \"gray\"\nscale = -inf", "finite"),
            ("channels = \"gray\"\nstdd = [1]", "stdd"),
            ("channels = \"gray\"\nsize = [0, 4]", "height and width"),
        ] {
            let error = format!("{:#}", check(text).err().unwrap());
            assert!(error.contains(word) && error.contains("p.toml"), "{text}: {error}");
        }
    }
}
