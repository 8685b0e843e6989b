//! Logits and losses as tensors, for training.

use cp_torch::tch::{Reduction, Tensor};
use cp_torch::{Executor, Mode};

use super::{Ending, Scores};
use crate::error::TrainError;

impl Scores {
    /// As [`Scores::logits`].
    pub(crate) fn logits_of(
        &self,
        output: Tensor,
        tapped: Option<&Tensor>,
    ) -> Result<Tensor, TrainError> {
        // Layers behind it may have changed the shape.
        let before = tapped.map(|z| z.f_reshape(output.size())).transpose()?;
        // Not below the smallest normal number, where logarithms end.
        let log = |output: Tensor| output.f_clamp_min(f64::from(f32::MIN_POSITIVE))?.f_log();
        Ok(match (self.ending, before) {
            (Ending::Logits, _) => output,
            (Ending::Softmax, Some(z)) => z,
            (Ending::Sigmoid, Some(z)) => z.f_log_sigmoid()?,
            (Ending::Softmax | Ending::Sigmoid | Ending::Probabilities, _) => log(output)?,
        })
    }

    /// The logits of `model` for `x`.
    pub(crate) fn forward(
        &self,
        model: &Executor,
        x: &Tensor,
        mode: Mode,
    ) -> Result<Tensor, TrainError> {
        let (output, tapped) = model.forward_tapped(x, mode, self.taps())?;
        self.logits_of(output, tapped.first())
    }
}

/// Mean cross-entropy of logits `[B, K]` against labels `[B]`, in nats.
pub(crate) fn cross_entropy(
    logits: &Tensor,
    labels: &Tensor,
    label_smoothing: f64,
) -> Result<Tensor, TrainError> {
    let (no_weights, ignored) = (None::<Tensor>, -100);
    Ok(logits.f_cross_entropy_loss(
        labels,
        no_weights,
        Reduction::Mean,
        ignored,
        label_smoothing,
    )?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use cp_net::Architecture;
    use cp_torch::tch::{Device, Kind, Reduction};

    use super::*;

    /// A linear layer of four classes, with these nodes behind it.
    fn network(behind: &str) -> Architecture {
        let text = format!(
            r#"{{"name": "net", "inputs": [{{"shape": [5]}}], "nodes": [
                {{"name": "fc", "op": "linear", "out_features": 4, "inputs": ["input"]}}{behind}]}}"#
        );
        Architecture::from_json(&text).unwrap()
    }

    fn node(name: &str, op: &str, input: &str) -> String {
        format!(r#", {{"name": "{name}", "op": {op}, "inputs": ["{input}"]}}"#)
    }

    /// The loss against class 1, by the logits that are found and by −ln of what is put out.
    fn losses(behind: &str, scale: f64) -> (f64, f64) {
        let net = network(behind).initialize(3).unwrap();
        let model = Executor::new(&net, Device::Cpu).unwrap();
        cp_torch::tch::manual_seed(1);
        let x = Tensor::randn([6, 5], (Kind::Float, Device::Cpu)) * scale;
        let labels = Tensor::from_slice(&[1_i64; 6]);
        let _guard = cp_torch::tch::no_grad_guard();
        let logits = Scores::of(net.architecture()).forward(&model, &x, Mode::Eval).unwrap();
        assert_eq!(logits.size(), [6, 4]);
        let found = logits.cross_entropy_loss::<Tensor>(&labels, None, Reduction::Mean, -100, 0.0);
        let output = model.forward(&x, Mode::Eval).unwrap();
        let expected = -output.select(1, 1).log().mean(Kind::Float);
        (found.double_value(&[]), expected.double_value(&[]))
    }

    #[test]
    fn the_loss_of_softmax_is_the_logarithm_of_what_comes_out() {
        let soft = |name: &str, from: &str| node(name, r#""softmax""#, from);
        let check = |behind: &str| {
            let (found, expected) = losses(behind, 1.0);
            assert!((found - expected).abs() < 1e-5, "{behind}: {found} ≠ {expected}");
        };
        check(&soft("soft", "fc"));
        check(&(soft("soft", "fc") + &node("drop", r#""dropout", "p": 0.5"#, "soft")));
        check(&(soft("soft", "fc") + &node("same", r#""identity""#, "soft")));
        check(
            &(node("map", r#""reshape", "shape": [4, 1, 1]"#, "fc")
                + &soft("soft", "map")
                + &node("flat", r#""flatten""#, "soft")),
        );
    }

    /// Where the output is rounded to 0, its logarithm is not.
    #[test]
    fn far_from_the_label_the_loss_stays_finite() {
        let (found, naive) = losses(&node("soft", r#""softmax""#, "fc"), 1e4);
        assert!(found.is_finite() && found > 100.0, "{found}");
        assert!(naive.is_infinite(), "{naive}");
    }

    #[test]
    fn logits_and_their_log_softmax_have_one_loss() {
        let plain = losses("", 1.0).0;
        let log = losses(&node("log", r#""log_softmax""#, "fc"), 1.0).0;
        let soft = losses(&node("soft", r#""softmax""#, "fc"), 1.0).0;
        assert!((plain - log).abs() < 1e-6 && (plain - soft).abs() < 1e-6, "{plain} {log} {soft}");
    }

    /// A softmax that something else follows, or over another axis, is none of the output.
    #[test]
    fn a_softmax_inside_is_left_alone() {
        let soft = node("soft", r#""softmax""#, "fc");
        let ending = |behind: &str| Scores::of(&network(behind)).ending;
        assert_eq!(ending(&soft), Ending::Softmax);
        assert_eq!(ending(&(soft + &node("relu", r#""relu""#, "soft"))), Ending::Logits);
        let other = node("map", r#""reshape", "shape": [1, 4]"#, "fc")
            + &node("soft", r#""softmax", "axis": 0"#, "map")
            + &node("flat", r#""flatten""#, "soft");
        assert_eq!(ending(&other), Ending::Logits);
        assert_eq!(ending(&node("s", r#""sigmoid""#, "fc")), Ending::Sigmoid);
    }

    /// σ(z) / Σ σ(z).
    #[test]
    fn sigmoids_are_made_probabilities() {
        let net = network(&node("s", r#""sigmoid""#, "fc")).initialize(3).unwrap();
        let model = Executor::new(&net, Device::Cpu).unwrap();
        let x = Tensor::ones([1, 5], (Kind::Float, Device::Cpu));
        let _guard = cp_torch::tch::no_grad_guard();
        let logits = Scores::of(net.architecture()).forward(&model, &x, Mode::Eval).unwrap();
        let output = model.forward(&x, Mode::Eval).unwrap();
        let expected = &output / output.sum(Kind::Float);
        let difference = (logits.softmax(1, Kind::Float) - expected).abs().max();
        assert!(difference.double_value(&[]) < 1e-6);
    }
}
