//! A network cut in front of its head: the frozen backbone runs once over all images, and heads are trained on what it puts out.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use cp_data::{Dataset, Features};
use cp_net::{Architecture, InputSpec, Network, Op};
use cp_train::engine::Subject;
use cp_train::{
    Engine, EvalOptions, Evaluation, Key, NoRecord, Stages, TrainConfig, TrainData, evaluate,
    logits_in, train,
};
use serde::{Deserialize, Serialize};

/// The parts of a network in front of its head and from there on.
#[derive(Debug, Clone)]
pub(super) struct Cut {
    backbone: Network,
    head: Network,
    /// Of the features, without the batch axis.
    shape: Vec<usize>,
}

/// Images of a training, and those that every network is tested on once.
pub(super) struct Images {
    pub(super) train: TrainData,
    pub(super) test: Arc<dyn Dataset>,
}

impl Images {
    pub(super) fn validation(&self) -> Result<&Arc<dyn Dataset>> {
        self.train.validation.as_ref().context("validation data are cut from the training data")
    }
}

/// How good a head on a frozen backbone is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct HeadResult {
    pub(super) seed: u64,
    pub(super) validation: Evaluation,
    pub(super) test: Evaluation,
}

impl Cut {
    /// Cuts `network` in front of its last layer with weights, and of a dropout before that, which belongs to the training of the head.
    pub(super) fn of(network: &Network) -> Result<Self> {
        let arch = network.architecture();
        let mut at = arch.position(&network.head_name()?)?;
        let value = loop {
            let [value] = &arch.nodes[at].inputs[..] else {
                bail!("{} reads several values; a head reads one", arch.nodes[at].name);
            };
            match arch.producer(value) {
                Some(node) if matches!(node.op, Op::Dropout(_) | Op::Identity(_)) => {
                    at = arch.position(&node.name)?;
                }
                _ => break value.clone(),
            }
        };
        let shapes = arch.shapes(arch.input_shapes())?;
        let shape = shapes.get(&value).context("the head reads no value")?.to_vec();
        let (front, behind) = arch.nodes.split_at(at);
        let made: BTreeSet<&String> =
            behind.iter().flat_map(|node| &node.outputs).chain([&value]).collect();
        if let Some(node) = behind.iter().find(|node| node.inputs.iter().any(|i| !made.contains(i)))
        {
            bail!("{}: reads what lies in front of the head; it cannot be cut off", node.name);
        }
        let input = InputSpec::features(shape.clone()).named(value.clone());
        let mut head = Architecture::new(format!("{} head", arch.name), input, behind.to_vec());
        head.outputs.clone_from(&arch.outputs);
        let mut backbone = arch.clone();
        backbone.nodes = front.to_vec();
        backbone.outputs = vec![value];
        backbone.classes.clear();
        let part = |arch: Architecture| {
            let names: BTreeSet<String> = arch.params().map(|(name, _)| name).collect();
            let params = network.params().iter().filter(|(name, _)| names.contains(*name));
            Network::new(arch, params.map(|(name, array)| (name.clone(), array.clone())).collect())
        };
        Ok(Self { backbone: part(backbone)?, head: part(head)?, shape })
    }

    /// What the backbone makes of every image of `set`, in eval mode.
    fn features(&self, stages: &Stages, set: &Arc<dyn Dataset>) -> Result<Arc<dyn Dataset>> {
        let folded = self.backbone.folded()?;
        let (engine, _) = Engine::auto(stages.device(), [Subject::Network(&folded)]);
        let rows = logits_in(engine, &self.backbone, set, &EvalOptions::default())?;
        let shape: Vec<usize> = std::iter::once(set.len()).chain(self.shape.clone()).collect();
        let labels = (0..set.len()).map(|index| set.label(index)).collect();
        let name = format!("{}, features", set.name());
        let values = rows.into_shape_with_order(shape)?;
        Ok(Arc::new(Features::new(name, set.classes().to_vec(), values, labels)?))
    }
}

/// The heads of one backbone. Its features are computed when the first of them is trained, and kept in memory.
pub(super) struct Heads<'a> {
    cut: Cut,
    network: &'a Network,
    images: &'a Images,
    stages: &'a Stages,
    features: Option<Images>,
}

impl<'a> Heads<'a> {
    /// On the backbone of `network`, whose own head has as many outputs as there are classes.
    pub(super) fn new(
        network: &'a Network,
        images: &'a Images,
        stages: &'a Stages,
    ) -> Result<Self> {
        Ok(Self { cut: Cut::of(network)?, network, images, stages, features: None })
    }

    /// Trains a new head as the stage `name`, drawn and shuffled by the seed of `config`, and tests it once. The whole network with that
    /// head, and how good it is.
    pub(super) fn train(
        &mut self,
        name: &str,
        config: &TrainConfig,
    ) -> Result<(Network, HeadResult)> {
        let Self { cut, network, images, stages, features } = self;
        let mut start = cut.head.clone();
        start.replace_head(images.test.classes().len(), config.seed)?;
        // By the images and not by their features, which a finished stage does not ask for.
        let key = Key::new(name, 1)
            .network("backbone", &cut.backbone)
            .network("head", &start)
            .setting("train", &TrainConfig { workers: 0, ..config.clone() })
            .data("train", &*images.train.train)?
            .data("validation", &**images.validation()?)?
            .data("test", &*images.test)?;
        let (head, result) = stages.network_and(&key, || -> Result<(Network, HeadResult)> {
            if features.is_none() {
                eprintln!("{name}: the frozen backbone runs over all images");
                *features = Some(Images {
                    train: TrainData {
                        train: cut.features(stages, &images.train.train)?,
                        validation: Some(cut.features(stages, images.validation()?)?),
                    },
                    test: cut.features(stages, &images.test)?,
                });
            }
            let features = features.as_ref().context("features are computed above")?;
            let mut model = stages.executor(&start)?;
            train(&mut model, &features.train, config, &mut NoRecord, None)?;
            let options = EvalOptions::default();
            let result = HeadResult {
                seed: config.seed,
                validation: evaluate(&model, features.validation()?, &options)?,
                test: evaluate(&model, &features.test, &options)?,
            };
            let top1 = 100.0 * result.validation.top1;
            eprintln!("{name}: validation top-1 {top1:.2} %");
            Ok((model.network()?, result))
        })?;
        let mut whole = network.clone();
        for (name, array) in head.params() {
            whole.set_param(name, array.clone())?;
        }
        Ok((whole, result))
    }
}

#[cfg(test)]
mod tests {
    use cp_data::{Characters, Part};
    use cp_net::arch;
    use cp_train::{Device, RunDir};
    use ndarray::Array2;

    use super::*;

    /// Backbone and head in turn are the network, whatever lies around the cut: a dropout, a pooling, a flattening.
    #[test]
    fn heads_on_features_are_the_whole_network() {
        let dir = tempfile::tempdir().unwrap();
        let stages = Stages::new(RunDir::at(dir.path()).unwrap(), Device::Cpu);
        let set: Arc<dyn Dataset> = Arc::new(Characters::part(Part::Test, 5, 1));
        for name in ["resnet18", "squeezenet1_1", "googlenet", "resnet20"] {
            let arch = arch::by_name(name).unwrap().with_classes(36).unwrap();
            let network = arch.initialize(2).unwrap().with_input_shape([3, 64, 64]).unwrap();
            let cut = Cut::of(&network).unwrap();
            let features = cut.features(&stages, &set).unwrap();
            let logits = |network: &Network, set: &Arc<dyn Dataset>| -> Array2<f32> {
                logits_in(Engine::Infer, network, set, &EvalOptions::default()).unwrap()
            };
            let (found, expected) = (logits(&cut.head, &features), logits(&network, &set));
            let size = expected.fold(0.0_f32, |most, z| most.max(z.abs()));
            let off = (&found - &expected).fold(0.0_f32, |most, z| most.max(z.abs()));
            assert!(size > 0.0 && off <= 1e-4 * size, "{name}: {off} of {size}");
        }
    }

    #[test]
    fn a_trained_head_is_kept_and_put_into_the_network() {
        let dir = tempfile::tempdir().unwrap();
        let stages = Stages::new(RunDir::at(dir.path()).unwrap(), Device::Cpu);
        let part = |part| -> Arc<dyn Dataset> { Arc::new(Characters::part(part, 72, 1)) };
        let train =
            TrainData { train: part(Part::Train), validation: Some(part(Part::Validation)) };
        let images = Images { train, test: part(Part::Test) };
        let arch = arch::by_name("small-cnn").unwrap().with_classes(36).unwrap();
        let network = arch.initialize(2).unwrap();
        let config = TrainConfig { seed: 3, keep_best: false, ..TrainConfig::fine_tuning(2) };
        let mut heads = Heads::new(&network, &images, &stages).unwrap();
        let (whole, result) = heads.train("head", &config).unwrap();
        assert!(heads.features.is_some());
        // Of the whole network, by another engine.
        let direct = stages.evaluate("test", &whole, &images.test).unwrap();
        assert!((direct.loss - result.test.loss).abs() < 1e-3 * result.test.loss);
        let head = network.head_name().unwrap();
        for (name, array) in network.params() {
            let trained = name.starts_with(&head);
            assert_eq!(whole.params()[name] != *array, trained, "{name}");
        }
        let mut again = Heads::new(&network, &images, &stages).unwrap();
        assert_eq!(again.train("head", &config).unwrap().0, whole);
        assert!(again.features.is_none(), "a finished head asks for no features");
    }
}
