//! How many weights of a layer are close to zero.

use crate::error::NetError;
use crate::network::Network;

impl Network {
    /// Shares of the weights of the convolution or linear layer `name` with |w| ≤ t · max |w|, one for each threshold t; of a layer without
    /// weights, 1.
    ///
    /// Gao, Wang & Ji (NeurIPS 2018) argue with these for their [convolutional classification layer](crate::arch::Builder::convolutional_classifier):
    /// a linear layer behind a global pooling needs few of its weights.
    ///
    /// # Errors
    /// Where there is no such layer, it has no kernel, or weights that are not finite ([`NetError::NotFinite`]).
    ///
    /// ```
    /// let net = cp_net::arch::by_name("resnet20")?.initialize(1)?;
    /// // Normal in the beginning: the largest of 640 weights is about 3.2 σ, and a quarter is within a tenth of that.
    /// let shares = net.sparsity("linear", &[0.1, 1.0])?;
    /// assert!((shares[0] - 0.25).abs() < 0.1 && shares[1] == 1.0);
    /// # Ok::<(), cp_net::NetError>(())
    /// ```
    pub fn sparsity(&self, name: &str, thresholds: &[f64]) -> Result<Vec<f64>, NetError> {
        let weight = self.kernel(name)?;
        let count = weight.iter().filter(|value| !value.is_finite()).count();
        if count > 0 {
            return Err(NetError::NotFinite { layer: name.into(), count });
        }
        let largest = weight.iter().fold(0.0, |most: f64, &value| most.max(f64::from(value.abs())));
        let share = |threshold: &f64| {
            let small = |value: &&f32| f64::from(value.abs()) <= threshold * largest;
            match weight.len() {
                0 => 1.0,
                all => weight.iter().filter(small).count() as f64 / all as f64,
            }
        };
        Ok(thresholds.iter().map(share).collect())
    }
}

#[cfg(test)]
mod tests {
    use ndarray::ArrayD;

    use crate::arch::Builder;
    use crate::{InputSpec, NetError, Network};

    fn network(weight: Vec<f32>) -> Network {
        let arch = Builder::new("pooled", InputSpec::features([4, 2, 2]))
            .global_avg_pool("pool")
            .flatten("flatten")
            .linear("linear", 2)
            .build()
            .unwrap();
        let weight = ArrayD::from_shape_vec(vec![2, 4], weight).unwrap();
        let mut net = arch.initialize(1).unwrap();
        net.set_param("linear.weight", weight).unwrap();
        net
    }

    #[test]
    fn shares_by_hand() {
        let net = network(vec![0.0, -0.5, 1.0, 0.25, -4.0, 2.0, -2.0, 0.0]);
        let thresholds = [1.0, 0.5, 0.25, 0.1, 0.0, 2.0, -1.0];
        let expected = [1.0, 0.875, 0.625, 0.375, 0.25, 1.0, 0.0];
        assert_eq!(net.sparsity("linear", &thresholds).unwrap(), expected);
        assert_eq!(net.sparsity("linear", &[]).unwrap(), [0.0; 0]);
        assert_eq!(network(vec![0.0; 8]).sparsity("linear", &[0.0]).unwrap(), [1.0]);
    }

    #[test]
    fn layers_that_have_none() {
        let net = network(vec![0.0, 1.0, 1.0, f32::NAN, 1.0, f32::INFINITY, 1.0, 1.0]);
        let error = net.sparsity("linear", &[0.1]).unwrap_err();
        assert!(matches!(&error, NetError::NotFinite { count: 2, .. }), "{error}");
        let error = net.sparsity("pool", &[0.1]).unwrap_err().to_string();
        assert!(error.contains("pool") && error.contains("conv or linear"), "{error}");
        let error = net.sparsity("head", &[0.1]).unwrap_err().to_string();
        assert!(error.contains("'head'") && error.contains("linear"), "{error}");
    }
}
