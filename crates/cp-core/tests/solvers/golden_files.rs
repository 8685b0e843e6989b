//! The files of `shared/golden` beside the workspace, or where `POLYAD_GOLDEN` says.

use std::path::Path;

use ndarray::ArrayD;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

/// The arrays of `NAME.safetensors`; without the folder it says so.
pub(crate) struct GoldenFile(Vec<u8>);

impl GoldenFile {
    pub(crate) fn load(name: &str) -> Option<Self> {
        let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/golden");
        let folder = std::env::var_os("POLYAD_GOLDEN").map_or_else(beside, Into::into);
        if !folder.is_dir() {
            println!("skipped: no golden data at {}", folder.display());
            return None;
        }
        Some(Self(std::fs::read(folder.join(format!("{name}.safetensors"))).unwrap()))
    }

    fn values<const N: usize, T>(
        &self,
        name: &str,
        dtype: Dtype,
        of: fn([u8; N]) -> T,
    ) -> (Vec<usize>, Vec<T>) {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        let view: TensorView<'_> = file.tensor(name).unwrap();
        assert_eq!(view.dtype(), dtype, "{name}");
        let values = view.data().chunks_exact(N).map(|bytes| of(bytes.try_into().unwrap()));
        (view.shape().to_vec(), values.collect())
    }

    pub(crate) fn array(&self, name: &str) -> ArrayD<f64> {
        let (shape, values) = self.values(name, Dtype::F32, f32::from_le_bytes);
        let values = values.into_iter().map(f64::from).collect();
        ArrayD::from_shape_vec(shape, values).unwrap()
    }

    pub(crate) fn number(&self, name: &str) -> f64 {
        self.array(name)[[0]]
    }

    pub(crate) fn labels(&self, name: &str) -> Vec<usize> {
        let labels = self.values(name, Dtype::I64, i64::from_le_bytes).1;
        labels.into_iter().map(|label| usize::try_from(label).unwrap()).collect()
    }
}

/// The tolerance that the numbers were made for: they are float64 results, rounded.
#[track_caller]
pub(crate) fn check(got: &ArrayD<f64>, expected: &ArrayD<f64>, what: &str) {
    assert_eq!(got.shape(), expected.shape(), "{what}");
    let largest = expected.iter().fold(0.0_f64, |most, x| most.max(x.abs()));
    let worst = (got - expected).iter().fold(0.0_f64, |most, x| most.max(x.abs()));
    assert!(worst <= 2e-5 * largest + 1e-6, "{what} differs by up to {worst}");
}
