//! [`Scores`]: the logits of a network, whatever it ends in.

use cp_net::{Architecture, Op};
use ndarray::{Array2, ArrayViewD};

#[cfg(feature = "torch")]
pub(crate) use tensors::cross_entropy;

#[cfg(feature = "torch")]
mod tensors;

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
        output: &ArrayViewD<'_, f32>,
        tapped: Option<&ArrayViewD<'_, f32>>,
    ) -> Array2<f32> {
        let rows = |values: &ArrayViewD<'_, f32>| {
            let examples = values.shape().first().copied().unwrap_or(1);
            let classes = values.len() / examples.max(1);
            // Layers behind the tap may have changed the shape.
            let order = values.as_standard_layout().into_owned();
            order.into_shape_with_order((examples, classes)).unwrap_or_default()
        };
        // Not below the smallest normal number, where logarithms end.
        let log = || rows(output).mapv(|p| p.max(f32::MIN_POSITIVE).ln());
        match (self.ending, tapped) {
            (Ending::Logits, _) => rows(output),
            (Ending::Softmax, Some(z)) => rows(z),
            // ln σ(z) = min(z, 0) − ln(1 + e^−|z|)
            (Ending::Sigmoid, Some(z)) => rows(z).mapv(|z| z.min(0.0) - (-z.abs()).exp().ln_1p()),
            (Ending::Softmax | Ending::Sigmoid | Ending::Probabilities, _) => log(),
        }
    }
}

/// −ln of the share that softmax gives `label`, of these logits, in nats.
pub(crate) fn loss_of(logits: &[f32], label: usize) -> f64 {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|z| f64::from(z - most).exp()).sum();
    sum.ln() + f64::from(most - logits[label])
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
