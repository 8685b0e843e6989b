//! A recipe from budget to test: the same from whoever asks, what is measured once, what is not kept, who may work in a folder.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;
mod small;

use std::path::Path;

use common::images;
use cp_net::Form;
use cp_train::Device;
use cp_train::{
    Augmentation, CompressConfig, CompressData, FixedLayer, Outcome, Planning, Preset, Recipe,
    RunDir, Stages, StatisticsOptions, Target, TrainConfig, TrainData, TrainError,
};
use small::{alone, network};

fn data() -> CompressData {
    let train = TrainData { train: images(0..240), validation: Some(images(240..300)) };
    CompressData { train, test: Some(images(300..360)) }
}

fn recipe(ratio: f64) -> Recipe {
    let fine_tune = TrainConfig { batch_size: 16, workers: 1, ..TrainConfig::fine_tuning(2) };
    Recipe {
        target: Target::MacsRatio(ratio),
        timing_batches: Vec::new(),
        plan: Planning { points: 5, ..Planning::default() },
        compress: CompressConfig {
            max_iters: 30,
            statistics: Some(StatisticsOptions { images: 100, ..StatisticsOptions::default() }),
            calibrate: 100,
            fine_tune: Some(fine_tune),
            ..CompressConfig::default()
        },
    }
}

fn stages(folder: &Path) -> Stages {
    Stages::new(RunDir::at(folder).unwrap(), Device::Cpu)
}

/// Files of the stage `name`, networks and checkpoints not counted.
fn computed(folder: &Path, name: &str) -> usize {
    let entries = std::fs::read_dir(folder.join("stages")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    let stage = |file: &String| {
        let stem = file.strip_suffix(".json").and_then(|file| file.rsplit_once('-'));
        stem.is_some_and(|(stage, _)| stage == name)
    };
    names.filter(stage).count()
}

#[test]
fn equal_recipes_give_equal_plans_and_networks() {
    let _alone = alone();
    let (dense, data, recipe) = (network(), data(), recipe(0.5));
    let [one, other] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let run = |folder: &Path, recipe: &Recipe| -> Outcome {
        recipe.run(&dense, Some(&data), &stages(folder)).unwrap()
    };
    let first = run(one.path(), &recipe);
    // As a file, and as one of several budgets within a folder.
    let text = std::fs::read_to_string(one.path().join("recipe.toml")).unwrap();
    let read: Recipe = text.parse().unwrap();
    let within = stages(other.path()).within("budgets/0.5").unwrap();
    let second = read.run(&dense, Some(&data), &within).unwrap();
    assert_eq!((&first.plan, &first.network), (&second.plan, &second.network));
    let plan = recipe.plan(&dense, Some(&data), &stages(one.path())).unwrap();
    assert_eq!(plan.0, first.plan);
    assert_eq!(first.test.unwrap()[1].examples, 60);
    let used = first.cost[1].macs as f64 / first.cost[0].macs as f64;
    assert!(used <= 0.5, "{used}");
    // Read back, not computed again.
    let again = run(one.path(), &recipe);
    assert_eq!(again.network, first.network);
    assert_eq!(computed(one.path(), "fine-tuned"), 1);
}

#[test]
fn a_changed_setting_computes_what_depends_on_it() {
    let _alone = alone();
    let (dense, data) = (network(), data());
    let folder = tempfile::tempdir().unwrap();
    let stages = stages(folder.path());
    recipe(0.5).run(&dense, Some(&data), &stages).unwrap();
    let mut longer = recipe(0.5);
    longer.compress.fine_tune.as_mut().unwrap().epochs = 3;
    longer.run(&dense, Some(&data), &stages).unwrap();
    let count = |name| computed(folder.path(), name);
    assert_eq!(["profile", "decomposed", "fine-tuned"].map(count), [1, 1, 2]);
    let mut other = recipe(0.5);
    other.compress.statistics.as_mut().unwrap().images = 50;
    other.run(&dense, Some(&data), &stages).unwrap();
    assert_eq!(["profile", "decomposed", "fine-tuned"].map(count), [2, 2, 3]);
    assert_eq!(count("dense-test"), 1);
    // Another network, the same recipe.
    let dense = dense.architecture().initialize(2).unwrap();
    recipe(0.5).run(&dense, Some(&data), &stages).unwrap();
    assert_eq!(["profile", "dense-test"].map(count), [3, 2]);
}

/// A file that was cut off or overwritten is named, with the way out of a stage.
#[test]
fn damaged_stages_are_to_be_deleted() {
    let _alone = alone();
    let (dense, data) = (network(), data());
    let folder = tempfile::tempdir().unwrap();
    let stages = stages(folder.path());
    recipe(0.5).run(&dense, Some(&data), &stages).unwrap();
    let place = folder.path().join("stages");
    let files = std::fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().path());
    for file in files.collect::<Vec<_>>() {
        let whole = std::fs::read(&file).unwrap();
        for wrong in [&whole[..0], &whole[..whole.len() / 2], &[0xff; 64]] {
            std::fs::write(&file, wrong).unwrap();
            let Err(error) = recipe(0.5).run(&dense, Some(&data), &stages) else { continue };
            let told = error.to_string();
            let name = file.file_name().unwrap().to_string_lossy();
            assert!(told.contains(&*name) && told.contains("delete the file"), "{told}");
            assert!(!told.contains("fetch"), "{told}");
        }
        std::fs::write(&file, whole).unwrap();
    }
    // All of them are whole again.
    recipe(0.5).run(&dense, Some(&data), &stages).unwrap();
}

#[test]
fn budgets_in_one_folder_share_the_profile() {
    let _alone = alone();
    let (dense, data) = (network(), data());
    let folder = tempfile::tempdir().unwrap();
    let all = stages(folder.path());
    let costs = [0.7, 0.4].map(|ratio| {
        let within = all.within(&format!("budgets/{ratio}")).unwrap();
        recipe(ratio).run(&dense, Some(&data), &within).unwrap().cost[1].macs
    });
    assert!(costs[0] > costs[1]);
    assert_eq!(["profile", "dense-test"].map(|name| computed(folder.path(), name)), [1, 1]);
}

#[test]
fn the_error_of_the_plan_is_the_error_delivered() {
    let _alone = alone();
    let (dense, data) = (network(), data());
    let folder = tempfile::tempdir().unwrap();
    let mut recipe = recipe(0.5);
    recipe.compress.fine_tune = None;
    let done = recipe.run(&dense, Some(&data), &stages(folder.path())).unwrap();
    let errors = done.layers.iter().map(|layer| layer.weighted_error.unwrap());
    let delivered = errors.map(|error| error * error).sum::<f64>();
    let promised = done.predicted.unwrap().sum_of_squares;
    assert!(delivered <= 1.02 * promised, "{delivered} of {promised}");
}

#[test]
fn a_fine_tuning_that_destroys_the_network_is_not_kept() {
    let _alone = alone();
    let (dense, data) = (network(), data());
    let folder = tempfile::tempdir().unwrap();
    let mut recipe = recipe(0.5);
    let tune = recipe.compress.fine_tune.as_mut().unwrap();
    (tune.lr, tune.clip_norm, tune.keep_best, tune.epochs) = (1e30, None, false, 1);
    match recipe.run(&dense, Some(&data), &stages(folder.path())) {
        Ok(done) => {
            let last = done.stages.last().unwrap();
            assert!(last.stage == "fine-tuned" && !last.kept, "{:?}", done.stages);
            let mut values = done.network.params().values().flat_map(|array| array.iter());
            assert!(values.all(|value| value.is_finite()));
        }
        Err(error) => assert!(matches!(error, TrainError::Diverged { .. }), "{error}"),
    }
}

#[test]
fn layers_to_keep_and_to_fix() {
    let _alone = alone();
    let (dense, data) = (network(), data());
    let folder = tempfile::tempdir().unwrap();
    let mut recipe = recipe(0.6);
    recipe.compress.fine_tune = None;
    recipe.plan.keep = vec!["conv1".into()];
    let fixed = FixedLayer { name: "fc".into(), form: Form::LowRank, rank: 2.into() };
    recipe.plan.fix = vec![fixed];
    let (plan, profile) = recipe.plan(&dense, Some(&data), &stages(folder.path())).unwrap();
    // What stays dense is not decomposed at a dozen ranks first.
    assert!(profile.unwrap().layer("conv1").is_none());
    assert_eq!(plan.rank("fc"), Some(2.into()));
    assert!(plan.dense.iter().any(|layer| layer.name == "conv1"), "{plan:?}");
}

#[test]
fn one_process_works_in_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let dir = RunDir::at(folder.path()).unwrap();
    let lock = dir.lock().unwrap();
    // The lock is the file's, not the process's.
    let error = dir.lock().unwrap_err();
    assert!(error.to_string().contains("another process is at work"), "{error}");
    drop(lock);
    dir.lock().unwrap();
}

#[test]
fn a_changed_configuration_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let dir = RunDir::at(folder.path()).unwrap();
    let recipe =
        Recipe::with_data(Preset::Default, Target::MacsRatio(0.3), Augmentation::default());
    assert!(dir.write_config(&recipe).unwrap().is_empty());
    assert!(dir.write_config(&recipe).unwrap().is_empty());
    let other = Recipe { target: Target::MacsRatio(0.4), ..recipe.seeded(3) };
    let changed = dir.write_config(&other).unwrap();
    assert!(changed.contains(&"target.macs-ratio is 0.4, was 0.3".to_owned()), "{changed:?}");
    assert!(changed.contains(&"compress.seed is 3, was 0".to_owned()), "{changed:?}");
    // Damaged, it is written anew, and that is said.
    for wrong in [&b"seed = "[..], &[0xff; 9]] {
        std::fs::write(folder.path().join("config.toml"), wrong).unwrap();
        let changed = dir.write_config(&other).unwrap();
        assert!(changed[0].contains("config.toml is damaged"), "{changed:?}");
        assert!(dir.write_config(&other).unwrap().is_empty());
    }
}
