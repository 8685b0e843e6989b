//! Plans carried out: every schedule, resumed runs, repair, distillation, statistics and sensitivity, on a network of two
//! convolutions and quadrants of light.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;
mod small;

use std::path::Path;
use std::sync::Arc;

use common::images;
use cp_data::{Dataset, Images};
use cp_net::arch::Builder;
use cp_net::{Conv, Form, InputSpec, Network, Padding};
use cp_plan::RankPlan;
use cp_torch::tch;
use cp_torch::{Executor, Mode};
use cp_train::Device;
use cp_train::{
    Augmentation, CalibrationOptions, CompressConfig, CompressSchedule, Compressed, Distillation,
    EvalOptions, LossRule, NoRecord, OptimizerConfig, ProbeRank, RunDir, Schedule,
    SensitivityOptions, Stages, StatisticsOptions, TrainConfig, TrainData, TrainError, calibrate,
    compress, evaluate, input_statistics, sensitivity, train, train_from,
};
use ndarray::{Array4, ArrayD};
use small::{alone, network};

fn data() -> TrainData {
    TrainData { train: images(0..240), validation: Some(images(240..300)) }
}

fn tuning(epochs: usize) -> TrainConfig {
    TrainConfig {
        epochs,
        batch_size: 16,
        optimizer: OptimizerConfig::sgd(1e-4),
        lr: 0.05,
        schedule: Schedule::Cosine,
        warmup_epochs: 0.0,
        label_smoothing: 0.0,
        clip_norm: Some(5.0),
        l1: None,
        augmentation: Default::default(),
        groups: Vec::new(),
        distill: None,
        patience: None,
        keep_best: false,
        seed: 3,
        workers: 1,
    }
}

/// The network after some epochs.
fn trained() -> Network {
    let mut model = Executor::new(&network(), tch::Device::Cpu).unwrap();
    train(&mut model, &data(), &tuning(4), &mut NoRecord, None).unwrap();
    model.network().unwrap()
}

fn plan() -> RankPlan {
    RankPlan::default().with("conv2", Form::Cp3, 4, "test").with("fc", Form::LowRank, 2, "test")
}

fn stages(folder: &Path) -> Stages {
    Stages::new(RunDir::open(folder, "test", "run").unwrap(), Device::Cpu)
}

/// The network that the stage `name` has left.
fn stored(folder: &Path, name: &str) -> Network {
    let stages = std::fs::read_dir(folder.join("test/run/stages")).unwrap();
    let mut files = stages.map(|entry| entry.unwrap().path()).filter(|path| {
        let file = path.file_name().unwrap().to_string_lossy();
        file.strip_prefix(name).is_some_and(|rest| rest.starts_with('-'))
            && file.ends_with(".safetensors")
    });
    Network::load(files.next().unwrap()).unwrap()
}

fn config(schedule: CompressSchedule) -> CompressConfig {
    CompressConfig {
        max_iters: 50,
        calibrate: 200,
        schedule,
        fine_tune: Some(tuning(2)),
        ..CompressConfig::default()
    }
}

fn names(done: &Compressed) -> Vec<&str> {
    done.stages.iter().map(|stage| stage.stage.as_str()).collect()
}

#[test]
fn every_schedule_reaches_the_plan_and_keeps_the_accuracy() {
    let _alone = alone();
    let dense = trained();
    let planned = plan().cost(&dense, &dense.input().shape).unwrap().total;
    let schedules = [
        CompressSchedule::AtOnce,
        CompressSchedule::Layerwise { epochs: 1, freeze_done: true },
        CompressSchedule::Passes { passes: 2, epochs: 1 },
    ];
    for schedule in schedules {
        let folder = tempfile::tempdir().unwrap();
        let config = config(schedule);
        let done = compress(&dense, &plan(), Some(&data()), &config, &stages(folder.path()));
        let done = done.unwrap();
        assert_eq!(done.network.cost(&dense.input().shape).unwrap().total, planned);
        assert_eq!(done.layers.len(), 2, "{:?}", config.schedule);
        let last = done.stages.last().unwrap();
        assert_eq!((last.stage.as_str(), last.cost), ("fine-tuned", planned));
        assert!(last.validation.unwrap().top1 > 0.9, "{:?}: {:?}", config.schedule, done.stages);
        assert_eq!(names(&done)[0], "dense");
    }
}

#[test]
fn a_killed_compression_goes_on_to_the_same_bits() {
    let _alone = alone();
    let dense = trained();
    for schedule in [
        CompressSchedule::AtOnce,
        CompressSchedule::Layerwise { epochs: 1, freeze_done: false },
        CompressSchedule::Passes { passes: 2, epochs: 1 },
    ] {
        let config = config(schedule);
        let (whole, killed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let run = |folder: &Path| {
            compress(&dense, &plan(), Some(&data()), &config, &stages(folder)).unwrap()
        };
        let expected = run(whole.path());
        // What a run that was killed early leaves: only some of the files.
        run(killed.path());
        let folder = killed.path().join("test/run/stages");
        let mut files: Vec<_> =
            std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()).collect();
        files.retain(|path| path.to_string_lossy().contains("tuned"));
        assert!(!files.is_empty());
        for path in files {
            std::fs::remove_file(path).unwrap();
        }
        let resumed = run(killed.path());
        assert!(expected.network == resumed.network, "{:?}", config.schedule);
        assert_eq!(expected.layers, resumed.layers);
    }
}

#[test]
fn without_data_there_is_only_the_decomposition() {
    let _alone = alone();
    let dense = network();
    let folder = tempfile::tempdir().unwrap();
    let free = CompressConfig { max_iters: 20, ..CompressConfig::default() };
    let done = compress(&dense, &plan(), None, &free, &stages(folder.path())).unwrap();
    assert_eq!(names(&done), ["dense", "decomposed"]);
    assert!(done.stages.iter().all(|stage| stage.validation.is_none()));
    let error =
        compress(&dense, &plan(), None, &config(CompressSchedule::AtOnce), &stages(folder.path()));
    assert!(error.unwrap_err().to_string().contains("expected training data"));
}

#[test]
fn frozen_parts_stay() {
    let _alone = alone();
    let dense = trained();
    let folder = tempfile::tempdir().unwrap();
    let config = CompressConfig {
        frozen_parts: vec!["reduce".into(), "expand".into()],
        ..config(CompressSchedule::AtOnce)
    };
    compress(&dense, &plan(), Some(&data()), &config, &stages(folder.path())).unwrap();
    let (before, after) =
        (stored(folder.path(), "calibrated"), stored(folder.path(), "fine-tuned"));
    for name in ["conv2.reduce.weight", "conv2.expand.weight", "fc.reduce.weight"] {
        assert_eq!(before.params()[name], after.params()[name], "{name}");
    }
    assert_ne!(before.params()["conv2.spatial.weight"], after.params()["conv2.spatial.weight"]);
    assert_ne!(before.params()["conv1.weight"], after.params()["conv1.weight"]);
}

#[test]
fn calibration_repairs_statistics_that_do_not_fit() {
    let _alone = alone();
    let dense = trained();
    let data = data();
    let validation = data.validation.clone().unwrap();
    let score = |model: &Executor| evaluate(model, &validation, &EvalOptions::default()).unwrap();
    let expected = score(&Executor::new(&dense, tch::Device::Cpu).unwrap());
    // Statistics of other maps than those that the network has.
    let mut broken = dense.clone();
    for norm in ["norm1", "norm2"] {
        let mean = &dense.params()[&format!("{norm}.running_mean")] + 1.0;
        broken.set_param(&format!("{norm}.running_mean"), mean).unwrap();
        let var = &dense.params()[&format!("{norm}.running_var")] * 9.0;
        broken.set_param(&format!("{norm}.running_var"), var).unwrap();
    }
    let mut model = Executor::new(&broken, tch::Device::Cpu).unwrap();
    assert!(score(&model).loss > expected.loss + 0.1);
    let options = CalibrationOptions {
        images: 240,
        augmentation: Augmentation::default(),
        seed: 0,
        workers: 1,
    };
    assert_eq!(calibrate(&mut model, &data.train, &options).unwrap(), 200);
    let repaired = score(&model);
    assert!(repaired.loss < expected.loss + 0.05, "{repaired:?} against {expected:?}");
    // Only statistics have changed.
    let after = model.network().unwrap();
    assert_eq!(after.params()["norm1.weight"], broken.params()["norm1.weight"]);
    assert_eq!(after.params()["conv2.weight"], broken.params()["conv2.weight"]);
    assert_ne!(after.params()["norm1.running_var"], broken.params()["norm1.running_var"]);

    // Shifted images, with black where they were, have statistics of their own, the same ones for the same seed.
    let shifted = |seed| {
        let augmentation = Augmentation { crop_padding: 3, ..Augmentation::default() };
        let mut model = Executor::new(&dense, tch::Device::Cpu).unwrap();
        let options = CalibrationOptions { augmentation, seed, ..options };
        calibrate(&mut model, &data.train, &options).unwrap();
        model.network().unwrap().params()["norm1.running_var"].clone()
    };
    assert_eq!(shifted(1), shifted(1));
    assert_ne!(shifted(1), shifted(2));
    assert_ne!(shifted(0), after.params()["norm1.running_var"]);
}

/// Statistics of images that are nothing like those of the task must not be kept.
#[test]
fn a_stage_that_is_not_kept_is_not_in_the_result() {
    let _alone = alone();
    let (dense, folder) = (trained(), tempfile::tempdir().unwrap());
    let stages = stages(folder.path());
    let classes = ["a", "b", "c"].map(String::from).to_vec();
    let noise = Array4::from_shape_fn((240, 1, 8, 8), |(i, _, r, c)| {
        255 * ((i * 7 + r * 3 + c * 5) % 2) as u8
    });
    let noise = Images::new("noise", classes, noise, vec![0; 240]).unwrap();
    let data = TrainData { train: Arc::new(noise), validation: data().validation };
    let config = CompressConfig { fine_tune: None, ..config(CompressSchedule::AtOnce) };
    let done = compress(&dense, &plan(), Some(&data), &config, &stages).unwrap();
    assert_eq!(names(&done), ["dense", "decomposed", "calibrated"]);
    let kept: Vec<bool> = done.stages.iter().map(|stage| stage.kept).collect();
    assert_eq!(kept, [true, true, false], "{:?}", done.stages);
    let decomposed = stored(folder.path(), "decomposed");
    assert_eq!(done.network, decomposed);

    // Fine-tuned to call every image an `a`.
    let tune = TrainConfig { keep_best: true, ..tuning(2) };
    let config = CompressConfig { fine_tune: Some(tune), ..config };
    let done = compress(&dense, &plan(), Some(&data), &config, &stages).unwrap();
    let kept: Vec<bool> = done.stages.iter().map(|stage| stage.kept).collect();
    assert_eq!(kept, [true, true, false, false], "{:?}", done.stages);
    assert_eq!(done.network, decomposed);
}

#[test]
fn distillation_follows_the_teacher_where_labels_say_nothing() {
    let _alone = alone();
    let dense = trained();
    let teacher = Executor::new(&dense, tch::Device::Cpu).unwrap();
    let mut small = dense.clone();
    cp_plan::compress(&mut small, &plan(), &cp_plan::Decomposer::als(20, 0), &|_| {}).unwrap();
    let config = TrainConfig {
        distill: Some(Distillation { weight: 1.0, temperature: 2.0, layers: 0.5 }),
        ..tuning(6)
    };
    // The labels are shuffled away: what is learned comes from the teacher.
    let true_labels = images(0..240);
    let pixels = Array4::from_shape_fn((240, 1, 8, 8), |(i, _, r, c)| {
        true_labels.image(i).unwrap()[[0, r, c]]
    });
    let classes = ["a", "b", "c"].map(String::from).to_vec();
    let wrong = Images::new("wrong", classes, pixels, vec![0; 240]).unwrap();
    let data = TrainData { train: Arc::new(wrong), validation: data().validation };
    let mut model = Executor::new(&small, tch::Device::Cpu).unwrap();
    let report =
        train_from(&mut model, Some(&teacher), &data, &config, &mut NoRecord, None).unwrap();
    let losses: Vec<f64> = report.epochs.iter().map(|epoch| epoch.train_loss).collect();
    assert!(losses[5] < 0.8 * losses[0], "{losses:?}");
    assert!(report.epochs[5].validation.unwrap().top1 > 0.9);
    let missing = train(&mut model, &data, &config, &mut NoRecord, None).unwrap_err();
    assert!(missing.to_string().starts_with("distill = no teacher"), "{missing}");
}

#[test]
fn the_best_epoch_is_kept_and_patience_ends_early() {
    let _alone = alone();
    // A rate that only the first epochs bear.
    let config = TrainConfig { keep_best: true, patience: Some(2), lr: 0.1, ..tuning(12) };
    let mut model = Executor::new(&network(), tch::Device::Cpu).unwrap();
    let report = train(&mut model, &data(), &config, &mut NoRecord, None).unwrap();
    let kept = report.kept.unwrap();
    let best = report.epochs[kept].validation.unwrap();
    assert!(report.epochs.iter().all(|epoch| epoch.validation.unwrap().top1 <= best.top1));
    assert!(report.epochs.len() <= kept + 3);
    let found = evaluate(&model, data().validation.as_ref().unwrap(), &EvalOptions::default());
    assert_eq!(found.unwrap().loss.to_bits(), best.loss.to_bits());
    let blind = TrainData { validation: None, ..data() };
    let error = train(&mut model, &blind, &config, &mut NoRecord, None).unwrap_err();
    assert!(matches!(error, TrainError::Config { option: "keep_best or patience", .. }));
}

#[test]
fn statistics_are_the_second_moments_of_what_layers_read() {
    let _alone = alone();
    let dense = trained();
    let model = Executor::new(&dense, tch::Device::Cpu).unwrap();
    let set: Arc<dyn Dataset> = images(0..50);
    let options = StatisticsOptions { images: 50, positions: 64, shrink: 0.0, seed: 0 };
    let layers = ["conv1".to_owned(), "fc".to_owned()];
    let found = input_statistics(&model, &layers, &set, &options, 1).unwrap();
    // All 64 positions of 8 × 8 maps: the middle tap of conv1 sees every pixel once.
    assert_eq!(found["conv1"][0].examples(), 50 * 64);
    let input = &dense.input();
    let mut sum = 0.0;
    for index in 0..50 {
        for pixel in set.image(index).unwrap().iter() {
            sum += ((f64::from(*pixel) * input.scale - input.mean[0]) / input.std[0]).powi(2);
        }
    }
    let middle = found["conv1"][0].moments().unwrap()[[4, 4]];
    assert!((middle / (sum / (50.0 * 64.0)) - 1.0).abs() < 1e-4, "{middle}");
    assert_eq!(found["fc"][0].size(), 8 * 16);
    let error = input_statistics(&model, &["relu1".to_owned()], &set, &options, 1).unwrap_err();
    assert!(error.to_string().contains("layer 'relu1'"), "{error}");
    assert!(error.to_string().contains("a relu layer's are not unfolded"), "{error}");
}

#[test]
fn statistics_know_uneven_padding_and_shared_kernels() {
    let _alone = alone();
    let conv = Conv { padding: Padding::Same, bias: false, ..Conv::new(1, 1, [2, 3]) };
    let arch = Builder::new("shared", InputSpec::gray(8))
        .op("conv", conv.clone())
        .shared("again", conv, "conv")
        .build()
        .unwrap();
    let mut net = arch.initialize(1).unwrap();
    // What the second layer reads is 0.
    net.set_param("conv.weight", ArrayD::zeros(vec![1, 1, 2, 3])).unwrap();
    let model = Executor::new(&net, tch::Device::Cpu).unwrap();
    let set: Arc<dyn Dataset> = images(0..50);
    let options = StatisticsOptions { images: 50, positions: 64, shrink: 0.0, seed: 0 };
    let found = input_statistics(&model, &["conv".to_owned()], &set, &options, 1).unwrap();
    let found = &found["conv"][0];
    assert_eq!(found.examples(), 2 * 50 * 64);
    // The zeros are below: the upper middle tap sees every pixel once, the lower one all but those of the first row.
    let (mut all, mut below) = (0.0, 0.0);
    for index in 0..50 {
        for ((_, row, _), pixel) in set.image(index).unwrap().indexed_iter() {
            let square = (f64::from(*pixel) / 255.0).powi(2);
            all += square;
            below += if row > 0 { square } else { 0.0 };
        }
    }
    let moments = found.moments().unwrap() * (2.0 * 50.0 * 64.0);
    assert!((moments[[1, 1]] / all - 1.0).abs() < 1e-4, "{} of {all}", moments[[1, 1]]);
    assert!((moments[[4, 4]] / below - 1.0).abs() < 1e-4, "{} of {below}", moments[[4, 4]]);
}

#[test]
fn sensitivity_is_cached_and_resumed() {
    let _alone = alone();
    let dense = trained();
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("probes.jsonl");
    let options = SensitivityOptions {
        ranks: vec![ProbeRank::Rank(1), ProbeRank::Share(0.5)],
        ..SensitivityOptions::default()
    };
    let probe = |options: &SensitivityOptions| {
        sensitivity(&dense, &data(), options, Device::Cpu, Some(&cache))
    };
    let first = probe(&options).unwrap();
    assert_eq!(first.probes.len(), 6); // conv1, conv2, fc at two ranks
    let whole = std::fs::read_to_string(&cache).unwrap();
    // A run killed in the middle of a line.
    let cut = &whole[..whole.len() * 2 / 3];
    std::fs::write(&cache, cut).unwrap();
    assert_eq!(probe(&options).unwrap(), first);
    assert_eq!(std::fs::read_to_string(&cache).unwrap().lines().count(), whole.lines().count());
    let losses = first.losses(LossRule::LossIncrease);
    assert_eq!(losses.len(), 3);
    assert!(first.weights().values().all(|weight| *weight >= 0.0));
    let other = SensitivityOptions { seed: 1, ..options.clone() };
    let error = probe(&other).unwrap_err().to_string();
    assert!(error.contains("probes of another network"), "{error}");
    // With a short fine-tuning, as Astrid & Lee do.
    let tuned = SensitivityOptions { fine_tune: Some(tuning(1)), ..options };
    let tuned = sensitivity(&dense, &data(), &tuned, Device::Cpu, None).unwrap();
    assert_eq!(tuned.losses(LossRule::AccuracyDrop).len(), 3);
}

#[test]
fn tapped_outputs_are_those_of_the_nodes() {
    let _alone = alone();
    let dense = trained();
    let model = Executor::new(&dense, tch::Device::Cpu).unwrap();
    let x = tch::Tensor::rand([2, 1, 8, 8], (tch::Kind::Float, tch::Device::Cpu));
    let taps = ["norm1".to_owned(), "conv1".to_owned(), "fc".to_owned()];
    let (output, maps) = model.forward_tapped(&x, Mode::Eval, &taps).unwrap();
    assert_eq!(output, model.forward(&x, Mode::Eval).unwrap());
    assert_eq!(maps[2], output);
    // ReLU would have written over the normalized map: negative values must still be there.
    assert!(maps[0].min().double_value(&[]) < 0.0);
    assert!(model.forward_tapped(&x, Mode::Eval, &["nothing".to_owned()]).is_err());
}
