//! Attacks: equal to what SqVaD's programs count, image by image; within ball and bounds; networks side by side on the images that they know.
//!
//! The numbers stand in `shared/golden` beside the workspace, or where `POLYAD_GOLDEN` says; without them those tests are skipped.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::images;
use cp_data::Dataset;
use cp_net::arch::{Builder, window};
use cp_net::{InputSpec, Network};
use cp_torch::array_from_tensor;
use cp_torch::tch::Tensor;
use cp_train::{
    AttackOptions, Attacker, Bounds, Device, End, EvalOptions, TestAt, Wanted, resistance,
};
use ndarray::{ArrayD, Axis, Slice};

/// What the authors' programs compute, by name.
struct Golden(BTreeMap<String, Tensor>);

impl Golden {
    fn load() -> Option<Self> {
        let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/golden");
        let folder = std::env::var_os("POLYAD_GOLDEN").map_or_else(beside, PathBuf::from);
        if !folder.is_dir() {
            println!("skipped: no golden data at {}", folder.display());
            return None;
        }
        let path = folder.join("adversarial.safetensors");
        Some(Self(Tensor::read_safetensors(path).unwrap().into_iter().collect()))
    }

    fn array(&self, name: &str) -> ArrayD<f32> {
        array_from_tensor(&self.0[name]).unwrap()
    }

    fn counts(&self, name: &str) -> Vec<usize> {
        let found = Vec::<i64>::try_from(&self.0[name]).unwrap();
        found.into_iter().map(|count| usize::try_from(count).unwrap()).collect()
    }

    fn network(&self) -> Network {
        let arch = Builder::new("attacked", InputSpec::features([3, 8, 8]))
            .conv("conv1", 8, window(3).pad(1))
            .relu("relu1")
            .conv("conv2", 8, window(3).pad(1).stride(2))
            .relu("relu2")
            .flatten("flat")
            .linear("fc", 6)
            .build()
            .unwrap();
        let params = arch.params().map(|(name, spec)| {
            let array = self.array(&format!("weight.{name}"));
            (name, array.into_shape_with_order(spec.shape).unwrap())
        });
        let params = params.collect();
        Network::new(arch, params).unwrap()
    }
}

#[test]
fn steps_as_the_notebook_counts_them() {
    let Some(golden) = Golden::load() else { return };
    let attacker = Attacker::new(&golden.network(), Device::Cpu).unwrap();
    let x = golden.array("x");
    let labels = golden.counts("label");
    assert_eq!(attacker.classes(x.view()).unwrap(), labels);
    let found = attacker.attack(x.view(), &labels, &AttackOptions::sign_steps(0.01)).unwrap();
    assert_eq!(found.steps, golden.counts("steps"));
    assert!(found.flipped.iter().all(|flipped| *flipped));
    let mean = found.steps.iter().sum::<usize>() as f64 / found.steps.len() as f64;
    assert!((mean - f64::from(golden.array("mean_steps")[[0]])).abs() < 1e-6);
    // An image by itself takes as many steps as beside others.
    let alone = x.slice_axis(Axis(0), Slice::from(3..4));
    let alone = attacker.attack(alone, &labels[3..4], &AttackOptions::sign_steps(0.01)).unwrap();
    assert_eq!(alone.steps, found.steps[3..4]);
    // Nothing flips within less than its steps, and what does not flip counts one less than the looks.
    let few = AttackOptions { max_steps: 8, ..AttackOptions::sign_steps(0.01) };
    let few = attacker.attack(x.view(), &labels, &few).unwrap();
    for ((&steps, &flipped), &all) in few.steps.iter().zip(&few.flipped).zip(&found.steps) {
        assert_eq!((steps, flipped), if all <= 7 { (all, true) } else { (7, false) });
    }
}

#[test]
fn steps_as_the_library_counts_them() {
    let Some(golden) = Golden::load() else { return };
    let attacker = Attacker::new(&golden.network(), Device::Cpu).unwrap();
    let x = golden.array("unit.x");
    let labels = golden.counts("unit.predicted");
    assert_eq!(attacker.classes(x.view()).unwrap(), labels);
    let each = AttackOptions { end: End::Each, ..AttackOptions::until_all(0.02) };
    let found = attacker.attack(x.view(), &labels, &each).unwrap();
    assert_eq!(found.steps, golden.counts("unit.n_steps_untargeted"));
    let flags = |flipped: &[bool]| flipped.iter().map(|&flipped| flipped.into()).collect();
    let counts: Vec<usize> = flags(&found.flipped);
    assert_eq!(counts, golden.counts("unit.success_untargeted"));
    assert_eq!(found.classes[..1], golden.counts("unit.adversarial_labels_first"));
    let first = found.inputs.slice_axis(Axis(0), Slice::from(0..1));
    let expected = golden.array("unit.adversarial_first");
    assert!((&first - &expected).iter().all(|difference| difference.abs() < 1e-6));

    // A batch of four ends when all of it has flipped.
    let four = x.slice_axis(Axis(0), Slice::from(0..4));
    let together = attacker.attack(four, &labels[..4], &AttackOptions::until_all(0.02)).unwrap();
    assert_eq!(together.steps, [golden.counts("unit.batch4_n_steps")[0]; 4]);

    let targets = golden.counts("unit.targets");
    let target = Some(Wanted { class: targets[0], probability: 0.0 });
    let found = attacker.attack(x.view(), &labels, &AttackOptions { target, ..each }).unwrap();
    assert_eq!(found.steps, golden.counts("unit.n_steps_targeted"));
    let counts: Vec<usize> = flags(&found.flipped);
    assert_eq!(counts, golden.counts("unit.success_targeted"));
    assert_eq!(found.classes, targets);
}

fn network(seed: u64) -> Network {
    let arch = Builder::new("tiny", InputSpec::gray(8))
        .conv("conv", 4, window(3).pad(1))
        .batch_norm("norm")
        .relu("relu")
        .flatten("flat")
        .linear("fc", 3)
        .build()
        .unwrap();
    arch.initialize(seed).unwrap()
}

/// Numbers from 0.1 to 0.9.
fn inputs(count: usize) -> ArrayD<f32> {
    let number = |at: usize| 0.1 + 0.8 * ((at * 37 % 101) as f32 / 100.0);
    ArrayD::from_shape_fn(vec![count, 1, 8, 8], |at| number(at[0] * 64 + at[2] * 8 + at[3]))
}

#[test]
fn balls_and_bounds_hold() {
    let attacker = Attacker::new(&network(1), Device::Cpu).unwrap();
    let x = inputs(6);
    let labels = attacker.classes(x.view()).unwrap();
    let far = |one: &ArrayD<f32>| (one - &x).iter().fold(0.0_f32, |far, d| far.max(d.abs()));
    // Too short to flip anything, so that every step is taken.
    let ball = AttackOptions {
        random_start: false,
        bounds: Bounds::None,
        ..AttackOptions::pgd(1e-3, 2.5e-3, 9)
    };
    let found = attacker.attack(x.view(), &labels, &ball).unwrap();
    assert!(found.flipped.iter().all(|flipped| !flipped), "{found:?}");
    assert_eq!(found.steps, [9; 6]);
    assert!((far(&found.inputs) - 2.5e-3).abs() < 1e-6);

    let bounds = Bounds::Range(0.15, 0.85);
    let found =
        attacker.attack(x.view(), &labels, &AttackOptions { bounds, ..ball.clone() }).unwrap();
    assert!(found.inputs.iter().all(|number| (0.15..=0.85).contains(number)));

    // One step moves every number of which the gradient is not 0 by ε.
    let one = AttackOptions { bounds: Bounds::None, ..AttackOptions::fgsm(0.25) };
    let found = attacker.attack(x.view(), &labels, &one).unwrap();
    for (moved, was) in found.inputs.iter().zip(&x) {
        let by = (moved - was).abs();
        assert!(by < 1e-6 || (by - 0.25).abs() < 1e-6, "{by}");
    }
    assert_eq!(found.steps, [1; 6]);

    // A random start is the same for the same seed.
    let start = |seed| {
        let drawn = AttackOptions { random_start: true, seed, ..ball.clone() };
        attacker.attack(x.view(), &labels, &drawn).unwrap().inputs
    };
    assert_eq!(start(1), start(1));
    assert_ne!(start(1), start(2));
}

#[test]
fn a_probability_that_is_wanted_takes_more_steps() {
    let attacker = Attacker::new(&network(1), Device::Cpu).unwrap();
    let x = inputs(6);
    let labels = attacker.classes(x.view()).unwrap();
    let towards = |probability| {
        let class = (labels[0] + 1) % 3;
        let target = Some(Wanted { class, probability });
        let options =
            AttackOptions { target, test: TestAt::After, ..AttackOptions::sign_steps(5e-3) };
        attacker.attack(x.view(), &labels, &options).unwrap()
    };
    let (any, sure) = (towards(0.0), towards(0.9));
    assert!(sure.flipped.iter().all(|flipped| *flipped));
    assert!(sure.steps.iter().zip(&any.steps).all(|(sure, any)| sure >= any));
    assert!(sure.steps.iter().sum::<usize>() > any.steps.iter().sum());
}

#[test]
fn networks_side_by_side_on_the_images_that_they_know() {
    let data: Arc<dyn Dataset> = images(0..90);
    let nets = [network(1), network(2)];
    let nets: Vec<&Network> = nets.iter().collect();
    let attack = AttackOptions { max_steps: 60, ..AttackOptions::sign_steps(0.05) };
    let run = |batch_size, nets: &[&Network], attack: &AttackOptions| {
        let options = EvalOptions { batch_size, workers: 1 };
        resistance(nets, &data, 10, attack, &options, Device::Cpu).unwrap()
    };
    let found = run(20, &nets, &attack);
    assert!(found.iter().all(|found| found.own.images == 10));
    assert_eq!(found[0].common.images, found[1].common.images);
    // No result depends on the size of the batches, nor on the network beside.
    assert_eq!(run(7, &nets, &attack), found);
    let drawn = AttackOptions { seed: 3, ..AttackOptions::pgd(0.02, 0.1, 20) };
    assert_eq!(run(7, &nets, &drawn), run(20, &nets, &drawn));
    let alone = run(20, &nets[..1], &attack);
    assert_eq!(alone[0].own, found[0].own);
    assert_eq!(alone[0].common, alone[0].own);
    // An image that is known is not flipped before it has moved.
    assert!(found.iter().all(|found| found.own.steps.iter().all(|&steps| steps >= 1)));

    let target = Some(Wanted { class: 0, probability: 0.0 });
    let found = run(20, &nets[..1], &AttackOptions { target, ..attack });
    assert!(found[0].own.images > 0);
}
