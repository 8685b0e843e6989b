//! Local response normalization.

use ndarray::{ArrayD, ArrayViewD};
use serde::{Deserialize, Serialize};

use super::spec::{BadField, Draw, Mismatch, OpSpec, Sample, Shape, demand, mismatch};

/// Local response normalization across channels, x · (k + α/n Σ x²)^−β over the n = `size` channels from c − ⌊n/2⌋ to c + ⌊(n−1)/2⌋
/// that exist, as Caffe and torch define it.
///
/// Reference: Krizhevsky et al. (2012), §3.3.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lrn {
    /// Number of neighboring channels.
    pub size: usize,
    /// Multiplier of the mean square; 1e-4 where it is left out of a file.
    #[serde(default = "alpha")]
    pub alpha: f64,
    /// Exponent; 0.75 where it is left out of a file.
    #[serde(default = "beta")]
    pub beta: f64,
    /// Additive constant; 1 where it is left out of a file.
    #[serde(default = "k")]
    pub k: f64,
}

fn alpha() -> f64 {
    1e-4
}

fn beta() -> f64 {
    0.75
}

fn k() -> f64 {
    1.0
}

impl OpSpec for Lrn {
    fn check(&self) -> Result<(), BadField> {
        demand((1..=1 << 20).contains(&self.size), "size", self.size, "at least 1, at most 2^20")?;
        let values = [self.alpha, self.beta, self.k];
        demand(values.iter().all(|v| v.is_finite()), "alpha, beta, k", values, "finite numbers")
    }

    fn output(&self, inputs: &[&[usize]]) -> Result<Vec<Shape>, Mismatch> {
        if inputs[0].is_empty() {
            return mismatch(0, "[C, …]");
        }
        Ok(vec![inputs[0].to_vec()])
    }

    fn eval(&self, inputs: &[ArrayViewD<'_, f32>], _: &[ArrayViewD<'_, f32>]) -> Vec<ArrayD<f32>> {
        let x = &inputs[0];
        let channels = x.shape()[1];
        vec![ArrayD::from_shape_fn(x.raw_dim(), |at| {
            let mut neighbor = ndarray::Dimension::slice(&at).to_vec();
            let first = at[1].saturating_sub(self.size / 2);
            let last = (at[1] + (self.size - 1) / 2).min(channels - 1);
            let mut sum = 0.0;
            for channel in first..=last {
                neighbor[1] = channel;
                sum += f64::from(x[neighbor.as_slice()]).powi(2);
            }
            let divisor = (self.k + self.alpha / self.size as f64 * sum).powf(self.beta);
            (f64::from(x[at]) / divisor) as f32
        })]
    }

    fn sample(draw: &mut Draw) -> Sample<Self> {
        let lrn = Lrn {
            size: draw.size(1..=6),
            alpha: draw.real(0.01..=2.0),
            beta: draw.real(0.3..=1.0),
            k: draw.real(0.5..=2.0),
        };
        Sample::new(lrn, vec![draw.shape()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the channels 1, 2, 3, 4: by how much more than k = 0 each is divided, with α = n and β = 1.
    fn check(size: usize, expected: [f32; 4]) {
        let lrn = Lrn { size, alpha: size as f64, beta: 1.0, k: 0.0 };
        let x = ndarray::arr2(&[[1.0, 2.0, 3.0, 4.0]]).into_dyn();
        let y = lrn.eval(&[x.view()], &[]).remove(0);
        for ((x, y), sum) in x.iter().zip(&y).zip(expected) {
            assert!((x / y - sum).abs() < 1e-4, "{size}: {}, not {sum}", x / y);
        }
    }

    #[test]
    fn windows() {
        check(1, [1.0, 4.0, 9.0, 16.0]);
        check(3, [5.0, 14.0, 29.0, 25.0]);
        // An even window reaches one channel further back, as torch's does.
        check(2, [1.0, 5.0, 13.0, 25.0]);
        check(4, [5.0, 14.0, 30.0, 29.0]);
        // Wider than the channels.
        check(9, [30.0; 4]);
    }
}
