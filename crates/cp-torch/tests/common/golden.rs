//! What the authors' programs compute: the files of `shared/golden` beside the workspace, or where `POLYAD_GOLDEN` says, and how close to
//! them is close enough.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use cp_net::{Architecture, Network};
use cp_torch::tch::Tensor;
use cp_torch::{Layout, array_from_tensor};

pub(crate) const LAYOUTS: [Layout; 2] = [Layout::Nchw, Layout::ChannelsLast];

/// The folder of the numbers; without it, says so.
pub(crate) fn golden_folder() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/golden");
    let folder = std::env::var_os("POLYAD_GOLDEN").map_or_else(beside, PathBuf::from);
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: no golden data at {}", folder.display());
    None
}

/// The arrays of a file by name.
pub(crate) struct Golden(pub(crate) BTreeMap<String, Tensor>);

impl Golden {
    /// Of `NAME.safetensors`.
    pub(crate) fn load(name: &str) -> Option<Self> {
        let path = golden_folder()?.join(format!("{name}.safetensors"));
        Some(Self(Tensor::read_safetensors(path).unwrap().into_iter().collect()))
    }

    pub(crate) fn get(&self, name: &str) -> Tensor {
        self.0.get(name).unwrap_or_else(|| panic!("no array '{name}'")).shallow_clone()
    }

    /// The arrays whose names start with `prefix`, by what follows, and at least one.
    pub(crate) fn under(&self, prefix: &str) -> Vec<(&str, &Tensor)> {
        let arrays =
            self.0.iter().filter_map(|(name, array)| Some((name.strip_prefix(prefix)?, array)));
        let arrays: Vec<(&str, &Tensor)> = arrays.collect();
        assert!(!arrays.is_empty(), "no array '{prefix}…'");
        arrays
    }

    /// The network of `nets/NET.json` with the arrays that are called like its parameters behind `prefix`.
    pub(crate) fn network(&self, net: &str, prefix: &str) -> Network {
        let file = format!("tests/nets/{net}.json");
        let arch = Architecture::load(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
        let params = arch.params().map(|(name, spec)| {
            let array = array_from_tensor(&self.get(&format!("{prefix}{name}"))).unwrap();
            // A pointwise kernel may be a matrix there.
            (name, array.into_shape_with_order(spec.shape).unwrap())
        });
        let params = params.collect();
        Network::new(arch, params).unwrap()
    }
}

/// The tolerance that the numbers were made for: they are float64 results, rounded.
#[track_caller]
pub(crate) fn check(got: &Tensor, expected: &Tensor, what: &str) {
    check_within(2e-5, got, expected, what);
}

/// `tolerance` is relative to the largest number expected.
#[track_caller]
pub(crate) fn check_within(tolerance: f64, got: &Tensor, expected: &Tensor, what: &str) {
    let got = got.detach();
    assert_eq!(got.size(), expected.size(), "{what}");
    let limit = tolerance * expected.abs().max().double_value(&[]) + 1e-6;
    let worst = (got - expected).abs().max().double_value(&[]);
    assert!(worst <= limit, "{what} differs by up to {worst}, limit {limit}");
}

/// What a packed IDX file holds behind its header.
pub(crate) fn idx(name: &str, header: usize) -> Tensor {
    let file = File::open(golden_folder().unwrap().join("real").join(name)).unwrap();
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(file).read_to_end(&mut bytes).unwrap();
    Tensor::from_slice(&bytes[header..])
}
