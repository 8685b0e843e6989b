//! SGD with momentum and Adam over exactly the tensors of a model that are to be trained.
//!
//! tch's optimizers want a `VarStore`, which cannot drop the variable of a layer that was decomposed, and do not give
//! their state out, which a checkpoint needs; hence these two short update rules.

use std::collections::BTreeMap;

use cp_net::{Op, ParamRole};
use cp_torch::Executor;
use cp_torch::tch::{Kind, Tensor};

use crate::config::{OptimizerConfig, TrainConfig};

/// One trained tensor and what the update rule remembers of it.
struct Slot {
    name: String,
    param: Tensor,
    lr_scale: f64,
    decays: bool,
    /// Factor of the penalty on the sum of absolute values.
    l1: f64,
    /// SGD: the momentum buffer. Adam: the mean of gradients.
    first: Tensor,
    /// Adam: the mean of squared gradients.
    second: Option<Tensor>,
}

/// An update rule with its state.
pub struct Optimizer {
    config: OptimizerConfig,
    clip_norm: Option<f64>,
    slots: Vec<Slot>,
    /// Updates made so far.
    steps: i64,
}

impl Optimizer {
    /// An optimizer for all tensors of `model` that are not frozen.
    pub fn new(model: &Executor, config: &TrainConfig) -> Self {
        let adam = matches!(config.optimizer, OptimizerConfig::Adam { .. });
        let decay_all = matches!(config.optimizer, OptimizerConfig::Sgd { decay_all: true, .. });
        // The weights of terms, the only ones with that penalty.
        let nodes = model.architecture().nodes.iter();
        let lambdas: Vec<String> = nodes
            .filter(|node| matches!(&node.op, Op::CpConv(op) if op.weights))
            .map(|node| node.param("weights"))
            .collect();
        let slots = model
            .trainable()
            .into_iter()
            .map(|(name, role, param)| Slot {
                lr_scale: config.lr_scale(&name),
                decays: decay_all || role == ParamRole::Weight,
                l1: if lambdas.contains(&name) { config.l1.unwrap_or(0.0) } else { 0.0 },
                first: param.zeros_like(),
                second: adam.then(|| param.zeros_like()),
                name,
                param,
            })
            .collect();
        Self { config: config.optimizer.clone(), clip_norm: config.clip_norm, slots, steps: 0 }
    }

    /// Forgets the gradients of the last step.
    pub fn zero_grad(&mut self) {
        for slot in &mut self.slots {
            slot.param.zero_grad();
        }
    }

    /// Updates every tensor from its gradient with learning rate `lr`.
    pub fn step(&mut self, lr: f64) {
        cp_torch::tch::no_grad(|| {
            self.steps += 1;
            let shrink = self.clip_factor();
            for slot in &mut self.slots {
                let mut grad = slot.param.grad();
                if !grad.defined() {
                    continue; // a parameter that the loss does not depend on
                }
                if let Some(shrink) = &shrink {
                    grad *= shrink;
                }
                let lr = lr * slot.lr_scale;
                update(&self.config, slot, grad, lr, self.steps);
                if slot.l1 > 0.0 {
                    soften(&mut slot.param, lr * slot.l1);
                }
            }
        });
    }

    /// min(1, clip / ‖g‖) over all gradients together, on the device: no wait for the number.
    fn clip_factor(&self) -> Option<Tensor> {
        let clip = self.clip_norm?;
        let squares: Vec<Tensor> = self
            .slots
            .iter()
            .map(|slot| slot.param.grad())
            .filter(Tensor::defined)
            .map(|grad| grad.square().sum(Kind::Float))
            .collect();
        if squares.is_empty() {
            return None;
        }
        let norm = Tensor::stack(&squares, 0).sum(Kind::Float).sqrt();
        Some((norm + 1e-12).reciprocal().g_mul_scalar(clip).clamp_max(1.0))
    }

    /// The state as named tensors, for a checkpoint.
    pub(crate) fn state(&self) -> BTreeMap<String, Tensor> {
        let mut state = BTreeMap::new();
        for slot in &self.slots {
            state.insert(format!("{}.first", slot.name), slot.first.shallow_clone());
            if let Some(second) = &slot.second {
                state.insert(format!("{}.second", slot.name), second.shallow_clone());
            }
        }
        state
    }

    /// Takes up a state written by [`Optimizer::state`] after `steps` updates; the error names what does not fit.
    pub(crate) fn restore(
        &mut self,
        mut state: BTreeMap<String, Tensor>,
        steps: i64,
    ) -> Result<(), String> {
        let mut take = |name: String, into: &mut Tensor| match state.remove(&name) {
            Some(saved) if saved.size() == into.size() => {
                cp_torch::tch::no_grad(|| into.copy_(&saved));
                Ok(())
            }
            Some(saved) => Err(format!(
                "optimizer state '{name}' has shape {:?}, expected {:?}",
                saved.size(),
                into.size()
            )),
            None => Err(format!("it has no optimizer state '{name}'")),
        };
        for slot in &mut self.slots {
            take(format!("{}.first", slot.name), &mut slot.first)?;
            if let Some(second) = &mut slot.second {
                take(format!("{}.second", slot.name), second)?;
            }
        }
        match state.keys().next() {
            Some(name) => {
                Err(format!("it has optimizer state '{name}' for a parameter that is not trained"))
            }
            None => {
                self.steps = steps;
                Ok(())
            }
        }
    }

    /// Updates made so far.
    pub(crate) fn steps(&self) -> i64 {
        self.steps
    }
}

/// Every value nearer to 0 by `step`, and 0 where it was nearer than that: the proximal step of step·Σ|x| (Parikh & Boyd 2014, §6.5.2).
/// A gradient of the penalty would leave values that swing around 0.
fn soften(param: &mut Tensor, step: f64) {
    let size = (param.abs() - step).clamp_min(0.0);
    let softened = param.sign() * size;
    param.copy_(&softened);
}

/// One update of one tensor.
fn update(config: &OptimizerConfig, slot: &mut Slot, grad: Tensor, lr: f64, step: i64) {
    match *config {
        OptimizerConfig::Sgd { momentum, nesterov, weight_decay, decay_all: _ } => {
            let grad = if slot.decays && weight_decay > 0.0 {
                grad + &slot.param * weight_decay
            } else {
                grad
            };
            if momentum > 0.0 {
                let _ = slot.first.g_mul_scalar_(momentum);
                let _ = slot.first.g_add_(&grad);
                let direction = if nesterov {
                    grad + &slot.first * momentum
                } else {
                    slot.first.shallow_clone()
                };
                let _ = slot.param.g_sub_(&(direction * lr));
            } else {
                let _ = slot.param.g_sub_(&(grad * lr));
            }
        }
        OptimizerConfig::Adam { beta1, beta2, eps, weight_decay } => {
            let Some(second) = &mut slot.second else {
                unreachable!("Adam's slots are made with a second moment")
            };
            if slot.decays && weight_decay > 0.0 {
                let _ = slot.param.g_mul_scalar_(1.0 - lr * weight_decay);
            }
            let _ = slot.first.g_mul_scalar_(beta1);
            let _ = slot.first.g_add_(&(&grad * (1.0 - beta1)));
            let _ = second.g_mul_scalar_(beta2);
            let _ = second.g_add_(&(grad.square() * (1.0 - beta2)));
            // m̂ = m / (1 − β₁ᵗ), v̂ = v / (1 − β₂ᵗ); the corrections approach 1 long before t overflows.
            let power = i32::try_from(step).unwrap_or(i32::MAX);
            let scale = lr / (1.0 - beta1.powi(power));
            let root = (&*second / (1.0 - beta2.powi(power))).sqrt() + eps;
            let _ = slot.param.g_sub_(&(&slot.first / root * scale));
        }
    }
}
