//! The training loop: it learns, it is resumable to the bit, it leaves frozen parts alone, and it refuses what makes no sense.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use common::images;
use cp_data::Images;
use cp_net::arch::{Builder, window};
use cp_net::{InputSpec, Network, Node, Softmax};
use cp_torch::Executor;
use cp_torch::tch;
use cp_train::{
    Augmentation, Device, Distillation, EpochMetrics, FileRecord, NoRecord, Observation, Optimizer,
    OptimizerConfig, Record, RunDir, Schedule, Stages, TrainConfig, TrainData, TrainError, train,
    train_from,
};
use ndarray::Array4;

/// Convolution, batch normalization, dropout and a linear layer on 8 × 8 grey images: everything that has a state.
fn network(seed: u64) -> Network {
    let arch = Builder::new("tiny", InputSpec::gray(8))
        .conv("conv", 8, window(3).pad(1))
        .batch_norm("norm")
        .relu("relu")
        .max_pool("pool", window(2).stride(2))
        .flatten("flat")
        .dropout("drop", 0.2)
        .linear("fc", 3)
        .build()
        .unwrap();
    arch.initialize(seed).unwrap()
}

fn data() -> TrainData {
    TrainData { train: images(0..60), validation: Some(images(60..90)) }
}

fn config(optimizer: OptimizerConfig, lr: f64) -> TrainConfig {
    TrainConfig {
        epochs: 4,
        batch_size: 16,
        optimizer,
        lr,
        schedule: Schedule::Cosine,
        warmup_epochs: 0.5,
        label_smoothing: 0.1,
        clip_norm: Some(5.0),
        l1: None,
        augmentation: Augmentation { flip: false, crop_padding: 1 },
        groups: Vec::new(),
        distill: None,
        patience: None,
        keep_best: false,
        seed: 3,
        workers: 2,
    }
}

/// libtorch has one generator for the whole process, which dropout draws from: runs that are compared must not overlap.
static GENERATOR: Mutex<()> = Mutex::new(());

fn run(
    config: &TrainConfig,
    record: &mut dyn Record,
    checkpoint: Option<&Path>,
) -> Result<(Network, Vec<EpochMetrics>), TrainError> {
    let _alone = GENERATOR.lock().unwrap_or_else(PoisonError::into_inner);
    tch::set_num_threads(1);
    let mut model = Executor::new(&network(1), tch::Device::Cpu)?;
    let report = train(&mut model, &data(), config, record, checkpoint)?;
    Ok((model.network()?, report.epochs))
}

/// The figures that have to agree between two runs; seconds do not.
fn figures(epochs: &[EpochMetrics]) -> Vec<(f64, f64, f64)> {
    epochs.iter().map(|e| (e.train_loss, e.train_top1, e.validation.unwrap().loss)).collect()
}

#[test]
fn both_optimizers_learn_the_quadrants() {
    for (optimizer, lr) in [(OptimizerConfig::sgd(1e-4), 0.1), (OptimizerConfig::adam(), 0.01)] {
        let config = TrainConfig { epochs: 10, ..config(optimizer, lr) };
        let (_, epochs) = run(&config, &mut NoRecord, None).unwrap();
        let last = epochs.last().unwrap().validation.unwrap();
        assert!(last.top1 > 0.9, "{:?}: {last:?}", config.optimizer);
    }
}

#[test]
fn same_seed_same_weights_other_seed_other_weights() {
    let base = config(OptimizerConfig::sgd(0.0), 0.05);
    let (first, _) = run(&base, &mut NoRecord, None).unwrap();
    let (again, _) = run(&TrainConfig { workers: 1, ..base.clone() }, &mut NoRecord, None).unwrap();
    let (other, _) = run(&TrainConfig { seed: 4, ..base }, &mut NoRecord, None).unwrap();
    assert!(first == again, "same seed");
    assert!(first != other, "other seed");
}

/// Fails after an epoch, as a killed run ends: its checkpoint is written, the rest never happens.
struct Killed(usize);

impl Record for Killed {
    fn begin(&mut self, _done: &[EpochMetrics]) -> Result<(), TrainError> {
        Ok(())
    }

    fn epoch(&mut self, metrics: &EpochMetrics) -> Result<(), TrainError> {
        if metrics.epoch < self.0 {
            return Ok(());
        }
        Err(TrainError::Io { path: "killed".into(), source: std::io::Error::other("killed") })
    }
}

#[test]
fn a_resumed_run_ends_at_the_same_weights_as_an_uninterrupted_one() {
    for (optimizer, lr) in [(OptimizerConfig::sgd(1e-4), 0.1), (OptimizerConfig::adam(), 0.01)] {
        let folder = tempfile::tempdir().unwrap();
        let checkpoint = folder.path().join("run.checkpoint");
        let config = config(optimizer, lr);
        let (whole, epochs) = run(&config, &mut NoRecord, None).unwrap();
        run(&config, &mut Killed(1), Some(&checkpoint)).unwrap_err();
        let (resumed, resumed_epochs) = run(&config, &mut NoRecord, Some(&checkpoint)).unwrap();
        assert_eq!(figures(&epochs), figures(&resumed_epochs));
        assert!(whole == resumed, "{:?}", config.optimizer);
    }
}

#[test]
fn metrics_of_a_resumed_run_are_complete_and_not_doubled() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = folder.path().join("run.checkpoint");
    let metrics = folder.path().join("metrics.jsonl");
    let config = config(OptimizerConfig::sgd(0.0), 0.05);
    run(&config, &mut Killed(1), Some(&checkpoint)).unwrap_err();
    // A line cut off in the middle, and one of another phase.
    std::fs::write(&metrics, "{\"phase\":\"tune\",\"ep").unwrap();
    run(&config, &mut FileRecord::new(&metrics, "tune"), Some(&checkpoint)).unwrap();
    let text = std::fs::read_to_string(&metrics).unwrap();
    let epochs: Vec<u64> = text
        .lines()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["epoch"].as_u64().unwrap()
        })
        .collect();
    assert_eq!(epochs, [0, 1, 2, 3]);
}

#[test]
fn a_checkpoint_of_another_run_or_none_at_all_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = folder.path().join("run.checkpoint");
    let base = config(OptimizerConfig::sgd(0.0), 0.05);
    run(&base, &mut Killed(0), Some(&checkpoint)).unwrap_err();
    let other = TrainConfig { lr: 0.06, ..base.clone() };
    let error = run(&other, &mut NoRecord, Some(&checkpoint)).unwrap_err();
    assert!(error.to_string().contains("another training configuration"), "{error}");

    let whole = std::fs::read(&checkpoint).unwrap();
    for cut in [0, 4, 20, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&checkpoint, &whole[..cut]).unwrap();
        let error = run(&base, &mut NoRecord, Some(&checkpoint)).unwrap_err();
        assert!(error.to_string().contains("not a checkpoint"), "cut at {cut}: {error}");
    }
}

#[test]
fn frozen_layers_and_their_statistics_stay() {
    let before = network(1);
    let mut model = Executor::new(&before, tch::Device::Cpu).unwrap();
    model.freeze(|node| node != "fc");
    let _alone = GENERATOR.lock().unwrap_or_else(PoisonError::into_inner);
    train(&mut model, &data(), &config(OptimizerConfig::sgd(0.0), 0.05), &mut NoRecord, None)
        .unwrap();
    let after = model.network().unwrap();
    for (name, array) in before.params() {
        let same = *array == after.params()[name];
        assert_eq!(same, !name.starts_with("fc."), "{name}");
    }
}

#[test]
fn a_group_with_rate_zero_stays() {
    let mut config = config(OptimizerConfig::sgd(0.0), 0.05);
    config.groups = vec![cp_train::ParamGroup { prefix: "conv.".into(), lr_scale: 0.0 }];
    let (after, _) = run(&config, &mut NoRecord, None).unwrap();
    assert_eq!(network(1).params()["conv.weight"], after.params()["conv.weight"]);
    assert_ne!(network(1).params()["fc.weight"], after.params()["fc.weight"]);
}

/// What was seen, each with the steps made until then.
type Seen = Vec<(usize, Vec<f32>)>;

/// The bias of the last layer every two steps; looks beyond the first `killed` fail, as a killed run ends.
fn observed(
    stages: &Stages,
    config: &TrainConfig,
    killed: usize,
) -> Result<(Network, Seen), TrainError> {
    let _alone = GENERATOR.lock().unwrap_or_else(PoisonError::into_inner);
    tch::set_num_threads(1);
    let mut looks = 0;
    let mut look = |model: &Executor| {
        looks += 1;
        if looks > killed {
            return Err(TrainError::Io {
                path: "killed".into(),
                source: std::io::Error::other("killed"),
            });
        }
        let found = model.tensors().find(|(name, ..)| *name == "fc.bias");
        Ok(Vec::try_from(found.unwrap().2).unwrap())
    };
    let model = Executor::new(&network(1), tch::Device::Cpu)?;
    let observation = Observation { every: 2, of: &|key| Ok(key), look: &mut look };
    stages.train_observed("seen", model, &data(), config, observation)
}

#[test]
fn what_is_seen_on_the_way_is_seen_again_by_a_resumed_run() {
    let config = config(OptimizerConfig::sgd(1e-4), 0.1);
    let (whole, killed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let stages = |folder: &Path| Stages::new(RunDir::at(folder).unwrap(), Device::Cpu);
    let (network, seen) = observed(&stages(whole.path()), &config, usize::MAX).unwrap();
    // Four epochs of 60 / 16 = 3 whole batches; observing changes nothing.
    assert_eq!(seen.iter().map(|(steps, _)| *steps).collect::<Vec<_>>(), [2, 4, 6, 8, 10, 12]);
    assert!(network == run(&config, &mut NoRecord, None).unwrap().0);
    assert_eq!(seen[5].1, network.params()["fc.bias"].iter().copied().collect::<Vec<_>>());
    assert_ne!(seen[4].1, seen[5].1);

    // The fourth look, at step 8, is behind the checkpoint of epoch 2 (step 6); the fifth fails.
    let stages = stages(killed.path());
    observed(&stages, &config, 4).unwrap_err();
    let resumed = observed(&stages, &config, usize::MAX).unwrap();
    assert!(resumed.0 == network);
    assert_eq!(resumed.1, seen);
    // A finished stage is read back: nothing is looked at again.
    assert_eq!(observed(&stages, &config, 0).unwrap().1, seen);
    let left = std::fs::read_dir(killed.path().join("stages")).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

/// A checkpoint without what was seen before it is not gone on from: nothing would be missing but that.
#[test]
fn without_its_notes_an_observed_training_starts_again() {
    let config = config(OptimizerConfig::sgd(1e-4), 0.1);
    let folder = tempfile::tempdir().unwrap();
    let stages = Stages::new(RunDir::at(folder.path()).unwrap(), Device::Cpu);
    observed(&stages, &config, 4).unwrap_err();
    let kept = std::fs::read_dir(folder.path().join("stages")).unwrap();
    for path in kept.map(|entry| entry.unwrap().path()) {
        if path.extension().is_some_and(|kind| kind == "observed") {
            std::fs::remove_file(path).unwrap();
        }
    }
    assert_eq!(observed(&stages, &config, usize::MAX).unwrap().1.len(), 6);
}

/// With no gradient to speak of, a step of SGD is w − lr·λ·w: of everything, or of weights alone.
#[test]
fn weight_decay_is_of_weights_or_of_everything() {
    let (lr, weight_decay) = (0.1, 0.5);
    for decay_all in [false, true] {
        let optimizer =
            OptimizerConfig::Sgd { momentum: 0.0, nesterov: false, weight_decay, decay_all };
        let config = TrainConfig { clip_norm: None, ..config(optimizer, lr) };
        let model = Executor::new(&network(1), tch::Device::Cpu).unwrap();
        // A loss of 0·Σw has a gradient of 0 for every parameter.
        let mut start = std::collections::BTreeMap::new();
        let mut loss = tch::Tensor::from(0.0_f32);
        for (name, _, mut param) in model.trainable() {
            tch::no_grad(|| {
                let _ = param.g_add_scalar_(1.0);
            });
            loss += param.sum(tch::Kind::Float) * 0.0;
            start.insert(name, param.detach().copy());
        }
        let mut steps = Optimizer::new(&model, &config);
        steps.zero_grad();
        loss.backward();
        steps.step(lr);
        for (name, _, param) in model.trainable() {
            let decays = decay_all || name.ends_with("conv.weight") || name.ends_with("fc.weight");
            let factor = if decays { 1.0 - lr * weight_decay } else { 1.0 };
            let off = (param - &start[&name] * factor).abs().max().double_value(&[]);
            assert!(off < 1e-6, "{name}, decay_all {decay_all}: {off}");
        }
    }
}

/// With no gradient to speak of, a step under the penalty brings λ nearer to 0 by lr·l1, and to 0 what was nearer; nothing else moves.
#[test]
fn the_penalty_on_terms_makes_them_zero() {
    let arch = cp_net::Architecture::from_json(
        r#"{"name": "terms", "inputs": [{"shape": [1, 6, 6], "channels": "gray"}], "nodes": [
            {"name": "conv", "op": "cp_conv", "inputs": ["input"], "out_channels": 3, "kernel": [3, 3], "rank": 4, "weights": true},
            {"name": "other", "op": "cp_conv", "inputs": ["conv"], "out_channels": 3, "kernel": [3, 3], "rank": 2}]}"#,
    );
    let mut net = arch.unwrap().initialize(1).unwrap();
    let lambda = ndarray::arr1(&[0.5_f32, -0.4, 0.01, -0.02]).into_dyn();
    net.set_param("conv.weights", lambda).unwrap();
    let (lr, l1) = (0.1, 0.3);
    for optimizer in [
        OptimizerConfig::Sgd {
            momentum: 0.0,
            nesterov: false,
            weight_decay: 0.0,
            decay_all: false,
        },
        OptimizerConfig::adam(),
    ] {
        let config = TrainConfig { l1: Some(l1), clip_norm: None, ..config(optimizer, lr) };
        let model = Executor::new(&net, tch::Device::Cpu).unwrap();
        let mut loss = tch::Tensor::from(0.0_f32);
        for (_, _, param) in model.trainable() {
            loss += param.sum(tch::Kind::Float) * 0.0;
        }
        let mut steps = Optimizer::new(&model, &config);
        steps.zero_grad();
        loss.backward();
        steps.step(lr);
        let after = model.network().unwrap();
        for (name, array) in after.params() {
            let expected = match name.as_str() {
                "conv.weights" => ndarray::arr1(&[0.47_f32, -0.37, 0.0, 0.0]).into_dyn(),
                _ => net.params()[name].clone(),
            };
            let off = array.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(off < 1e-6, "{name}: {array}");
        }
        let zeros = after.params()["conv.weights"].iter().filter(|value| **value == 0.0).count();
        assert_eq!(zeros, 2);
        let mut pruned = after;
        assert_eq!(pruned.prune_terms(0.0).unwrap(), [("conv".to_owned(), 2)]);
    }
}

#[test]
fn bad_configurations_name_the_option() {
    type Change = fn(&mut TrainConfig);
    let cases: [(Change, &str); 7] = [
        (|c| c.l1 = Some(-1.0), "l1"),
        (|c| c.batch_size = 0, "batch_size"),
        (|c| c.lr = f64::NAN, "lr"),
        (|c| c.label_smoothing = 1.0, "label_smoothing"),
        (|c| c.clip_norm = Some(0.0), "clip_norm"),
        (|c| c.schedule = Schedule::Step { epochs: vec![3, 1], gamma: 0.1 }, "schedule.epochs"),
        (
            |c| {
                c.optimizer = OptimizerConfig::Sgd {
                    momentum: 1.0,
                    nesterov: false,
                    weight_decay: 0.0,
                    decay_all: false,
                }
            },
            "momentum",
        ),
    ];
    for (change, option) in cases {
        let mut config = config(OptimizerConfig::sgd(0.0), 0.05);
        change(&mut config);
        let error = run(&config, &mut NoRecord, None).unwrap_err().to_string();
        assert!(error.starts_with(option), "{error}");
    }
}

#[test]
fn a_rate_far_too_high_is_an_error_and_says_so() {
    let mut config = config(OptimizerConfig::sgd(0.0), 1e30);
    (config.clip_norm, config.warmup_epochs) = (None, 0.0);
    let error = run(&config, &mut NoRecord, None).unwrap_err();
    assert!(matches!(error, TrainError::Diverged { .. }), "{error}");
}

#[test]
fn more_classes_than_outputs_is_an_error() {
    let classes = (0..5).map(|i| i.to_string()).collect();
    let set = Images::new(
        "five",
        classes,
        Array4::zeros((10, 1, 8, 8)),
        (0..10).map(|i| i % 5).collect(),
    )
    .unwrap();
    let mut model = Executor::new(&network(1), tch::Device::Cpu).unwrap();
    let data = TrainData { train: Arc::new(set), validation: None };
    // It seeds the generator and draws from it before the error is found.
    let _alone = GENERATOR.lock().unwrap_or_else(PoisonError::into_inner);
    let error =
        train(&mut model, &data, &config(OptimizerConfig::adam(), 0.01), &mut NoRecord, None)
            .unwrap_err();
    assert!(matches!(error, TrainError::Unfit { .. }), "{error}");
    for word in ["'tiny' has 3 outputs", "'five' has 5 classes"] {
        assert!(error.to_string().contains(word), "{error}");
    }
}

/// Behind a softmax the loss is −ln of what comes out: the same steps as without it, from labels and from a teacher.
#[test]
fn a_network_that_ends_in_softmax_learns_as_without_it() {
    let _alone = GENERATOR.lock().unwrap_or_else(PoisonError::into_inner);
    tch::set_num_threads(1);
    let plain = network(1);
    let (mut arch, params) = plain.clone().into_parts();
    arch.nodes.push(Node::new("soft", Softmax::default(), ["fc"]));
    arch.outputs = vec!["soft".into()];
    let soft = Network::new(arch, params).unwrap();
    let distill = Distillation { weight: 0.5, temperature: 2.0, layers: 0.0 };
    for distill in [None, Some(distill)] {
        let config = TrainConfig { distill, ..config(OptimizerConfig::sgd(0.0), 0.05) };
        let learned = |net: &Network| {
            let mut model = Executor::new(net, tch::Device::Cpu).unwrap();
            let teacher = Executor::new(net, tch::Device::Cpu).unwrap();
            let teacher = distill.map(|_| &teacher);
            let report =
                train_from(&mut model, teacher, &data(), &config, &mut NoRecord, None).unwrap();
            (figures(&report.epochs), model.network().unwrap().params().clone())
        };
        let (a, b) = (learned(&plain), learned(&soft));
        assert_eq!(a, b);
        assert!(a.0[3].0 < a.0[0].0, "{:?}", a.0);
    }
}

/// One value for each channel has no variance: refused before the running variance is NaN.
#[test]
fn batch_norm_on_one_value_is_an_error() {
    let arch = Builder::new("tiny", InputSpec::gray(8))
        .conv("conv", 8, window(8))
        .batch_norm("norm")
        .flatten("flat")
        .linear("fc", 3)
        .build()
        .unwrap();
    let mut model = Executor::new(&arch.initialize(1).unwrap(), tch::Device::Cpu).unwrap();
    let config = TrainConfig { batch_size: 1, ..config(OptimizerConfig::sgd(0.0), 0.01) };
    let _alone = GENERATOR.lock().unwrap_or_else(PoisonError::into_inner);
    let error = train(&mut model, &data(), &config, &mut NoRecord, None).unwrap_err().to_string();
    assert!(error.contains("'norm'") && error.contains("at least 2"), "{error}");
    let network = model.network().unwrap();
    assert!(network.params().values().all(|array| array.iter().all(|x| x.is_finite())));
}
