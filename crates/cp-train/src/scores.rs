//! [`Scores`]: the logits of a network, whatever it ends in.

use cp_net::{Architecture, Op};
use cp_torch::tch::{Reduction, Tensor};
use cp_torch::{Executor, Mode};

use crate::error::TrainError;

/// Where the logits of a network are: numbers whose softmax are the probabilities that it gives.
///
/// Of a network that ends in softmax (layers that only pass its numbers on may follow), these are what goes into the softmax, z: a
/// second softmax on what comes out would make all classes nearly alike. −ln of what comes out is then −z + ln Σ eᶻ, which stays right
/// where the output itself is rounded to 0 or 1. What log-softmax puts out already is z up to a constant. The outputs of a sigmoid,
/// σ(z), are as probabilities σ(z) / Σ σ(z), and their logits ln σ(z).
#[derive(Debug, Clone)]
pub(crate) struct Scores {
    ending: Ending,
    /// The value that goes into the last softmax or sigmoid; none where that is an input of the network.
    tap: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// Logits, or their log-softmax.
    Logits,
    Softmax,
    Sigmoid,
    /// Probabilities by another function than the logistic one: hard sigmoid.
    Probabilities,
}

impl Scores {
    pub(crate) fn of(arch: &Architecture) -> Self {
        let Some((ending, value)) = arch.outputs.first().and_then(|output| ending(arch, output))
        else {
            return Self { ending: Ending::Logits, tap: None };
        };
        // By its name alone, it has to be found again.
        let own = arch.node(&value).map_or(true, |node| node.output() == value);
        let made = arch.producer(&value).is_some();
        Self { ending, tap: (own && made).then_some(value) }
    }

    /// What [`Executor::forward_tapped`] has to show.
    pub(crate) fn taps(&self) -> &[String] {
        self.tap.as_slice()
    }

    /// Logits `[B, K]`, from what the network puts out, `[B, K]`, and what was tapped.
    pub(crate) fn logits(
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
        self.logits(output, tapped.first())
    }
}

/// What the numbers of `output` come from, and the value that goes into it.
fn ending(arch: &Architecture, output: &str) -> Option<(Ending, String)> {
    let mut value = output;
    loop {
        let node = arch.producer(value)?;
        let before = node.inputs.first()?;
        match &node.op {
            Op::Identity(_)
            | Op::Dropout(_)
            | Op::Flatten(_)
            | Op::Reshape(_)
            | Op::Squeeze(_)
            | Op::Unsqueeze(_) => value = before,
            Op::Softmax(softmax) => {
                // Over the classes, and not over something else that is left of one value each.
                let shapes = arch.shapes(arch.input_shapes()).ok()?;
                let shape = shapes.get(value)?;
                let count: usize = shape.iter().product();
                let over = shape.get(softmax.axis) == Some(&count);
                return over.then(|| (Ending::Softmax, before.clone()));
            }
            Op::Sigmoid(_) => return Some((Ending::Sigmoid, before.clone())),
            Op::HardSigmoid(_) => return Some((Ending::Probabilities, before.clone())),
            _ => return None,
        }
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
