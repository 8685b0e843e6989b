//! Trained values back into the file.

use std::collections::{BTreeMap, BTreeSet};

use cp_net::Network;
use ndarray::ArrayD;

use crate::error::OnnxError;
use crate::import::Imported;
use crate::import::error::ImportError;
use crate::import::source::Source;
use crate::layers::Layer;
use crate::model::Model;
use crate::parts::Parts;
use crate::proto::{Message, Payload, attribute, node, tensor};
use crate::scopes::{Maker, Scopes};

/// A parameter that is a tensor, and its trained values where they changed.
type Use<'u> = (&'u str, &'u Source, Option<&'u ArrayD<f32>>);

impl Model {
    /// Brings the model to what became of its network: layers that were factorized are replaced by their factors, all other parameters
    /// that changed are written where they came from.
    ///
    /// # Errors
    /// As [`Model::update`] and [`Model::replace_all`]. The model is unchanged then.
    pub fn rewrite(&mut self, imported: &Imported, compressed: &Network) -> Result<(), OnnxError> {
        let mut done = self.clone();
        let mut replacements: Vec<(Layer, Parts)> = Vec::new();
        for (name, record) in &compressed.architecture().factorized {
            let Some(layer) = imported.layers.get(&record.weight) else {
                let problem =
                    format!("the kernel of '{name}' is not one of the file's as it lies there");
                let source = ImportError::WriteBack { param: record.weight.clone(), problem };
                return Err(OnnxError::Import { path: self.path.clone(), source });
            };
            // Layers that share a kernel share its factors.
            if !replacements.iter().any(|(known, _)| known == layer) {
                replacements.push((layer.clone(), Parts::new(layer, &compressed.factors(name)?)?));
            }
        }
        done.update(imported, compressed)?;
        done.replace_all(&replacements)?;
        *self = done;
        Ok(())
    }

    /// Writes the parameters of `trained` that differ from those of `imported` into the tensors that they come from, in the file's own
    /// types; how many tensors that were. Kernels that `trained` does not have any more, since factors took their place, are left to
    /// [`Model::replace`], which may come before or after, but for forms with clusters of channels after. All other bytes stay as they are.
    ///
    /// # Errors
    /// [`ImportError::WriteBack`] for a parameter that was computed from the file's tensors in a way that cannot be taken back, whose tensor
    /// is read by something that is not part of the network or holds another value there, or that its type cannot hold. The model is
    /// unchanged then.
    pub fn update(&mut self, imported: &Imported, trained: &Network) -> Result<usize, OnnxError> {
        let path = self.path.clone();
        let wrong = |param: &str, problem: String| OnnxError::Import {
            path: path.clone(),
            source: ImportError::WriteBack { param: param.into(), problem },
        };
        // By tensor: the parameters that it is, and whether they changed.
        let mut tensors: BTreeMap<(&str, &str), Vec<Use<'_>>> = BTreeMap::new();
        let biases = restored_biases(imported, trained);
        for (name, before) in imported.network.params() {
            let restored = biases.get(name.as_str());
            let after = restored.or_else(|| trained.params().get(name));
            let Some(after) = after else {
                if imported.layers.contains_key(name) {
                    continue;
                }
                return Err(wrong(name, "the trained network does not have it".into()));
            };
            let changed = (after != before).then_some(after);
            match imported.sources.get(name) {
                Some(source) => tensors
                    .entry((&source.scope, &source.value))
                    .or_default()
                    .push((name, source, changed)),
                None if changed.is_some() => {
                    let problem =
                        "the file computes it from other tensors, or holds it in an attribute"
                            .into();
                    return Err(wrong(name, problem));
                }
                None => {}
            }
        }
        tensors.retain(|_, params| params.iter().any(|(.., changed)| changed.is_some()));
        let mut root = self.root.clone();
        let mut places = Vec::new();
        {
            let scopes = Scopes::of(&self.root);
            for ((scope, value), params) in &tensors {
                let Some((name, ..)) = params.first() else { continue };
                if let Some((other, ..)) = params.iter().find(|(.., changed)| changed.is_none()) {
                    let problem =
                        format!("'{other}' comes from the same tensor '{value}' and did not");
                    return Err(wrong(name, problem));
                }
                if imported.consumed.contains(&((*scope).into(), (*value).into())) {
                    let problem =
                        format!("the file computes other constants from its tensor '{value}', too");
                    return Err(wrong(name, problem));
                }
                let mut arrays = Vec::new();
                for (name, source, changed) in params {
                    let array = changed.and_then(|array| source.undo(array));
                    let undone = array.ok_or_else(|| {
                        wrong(
                            name,
                            format!(
                                "what the file does to its tensor '{value}' cannot be taken back"
                            ),
                        )
                    })?;
                    arrays.push(undone);
                }
                if arrays.iter().any(|array| *array != arrays[0]) {
                    let all: Vec<&str> = params.iter().map(|(name, ..)| *name).collect();
                    let problem = format!(
                        "{} come from the one tensor '{value}' and differ now",
                        all.join(", ")
                    );
                    return Err(wrong(name, problem));
                }
                let index =
                    scopes.by_name(scope).filter(|&index| scopes.all[index].maker(value).is_some());
                let index = index.ok_or_else(|| {
                    wrong(name, format!("the model has no tensor '{value}' any more"))
                })?;
                self.check_readers(&scopes, imported, index, value)
                    .map_err(|reader| wrong(name, format!("'{reader}', which is no part of the network, reads its tensor '{value}', too")))?;
                let place = place(&scopes, index, value);
                let place = place
                    .ok_or_else(|| wrong(name, format!("'{value}' is no tensor of the file")))?;
                places.push((*name, place, arrays.swap_remove(0)));
            }
        }
        let count = places.len();
        for (name, place, array) in places {
            let found = at(&mut root, &place);
            let message = found.ok_or_else(|| wrong(name, "its tensor is gone".into()))?;
            let fits = tensor::shape(message).is_ok_and(|shape| shape == array.shape());
            let set = tensor::set(message, &array);
            if !fits || !matches!(set, Ok(Some(()))) {
                return Err(wrong(
                    name,
                    "its tensor has another shape, or a type that cannot hold a value".into(),
                ));
            }
        }
        self.root = root;
        Ok(count)
    }

    /// The parameters of `imported` that [`Model::update`] would not write back: computed ones, and those whose tensor something else
    /// has a part in.
    pub fn unwritable(&self, imported: &Imported) -> BTreeSet<String> {
        let scopes = Scopes::of(&self.root);
        let mut uses: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for source in imported.sources.values() {
            *uses.entry((&source.scope, &source.value)).or_default() += 1;
        }
        let writable = |name: &String, array: &ArrayD<f32>| {
            let source = imported.sources.get(name)?;
            let (scope, value) = (&source.scope, &source.value);
            let alone = uses.get(&(scope, value)) == Some(&1)
                && !imported.consumed.contains(&(scope.clone(), value.clone()));
            let index =
                scopes.by_name(scope).filter(|&index| scopes.all[index].maker(value).is_some())?;
            let read = self.check_readers(&scopes, imported, index, value).is_ok();
            let found = place(&scopes, index, value).is_some() && source.undo(array).is_some();
            (alone && read && found).then_some(())
        };
        let params = imported.network.params().iter();
        params
            .filter(|(name, array)| writable(name, array).is_none())
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// `Err` with a reader of a tensor that the network does not stand for.
    fn check_readers(
        &self,
        scopes: &Scopes<'_>,
        imported: &Imported,
        scope: usize,
        value: &str,
    ) -> Result<(), String> {
        for reader in scopes.readers(&(scope, value.into())) {
            let around = &scopes.all[reader.scope];
            let Some(node) = around.node(reader.field) else { continue };
            let output = node.strings(node::OUTPUTS).into_iter().next().unwrap_or_default();
            if !imported.read.contains(&(around.name.clone(), output.clone())) {
                return Err(output);
            }
        }
        Ok(())
    }
}

/// Where factors took the place of a layer, its bias is that of the last of them, channels in their places. By the names that they have in
/// the file.
fn restored_biases<'i>(
    imported: &'i Imported,
    trained: &Network,
) -> BTreeMap<&'i str, ArrayD<f32>> {
    let mut biases = BTreeMap::new();
    for node in imported.network.nodes() {
        let bias = node.param_specs().find(|(_, spec)| spec.slot == "bias");
        let known = imported.network.params().keys();
        let name = bias.and_then(|(bias, _)| known.into_iter().find(|name| **name == bias));
        if let (Some(name), Ok(Some(array))) = (name, trained.restored_bias(&node.name)) {
            biases.insert(name.as_str(), array);
        }
    }
    biases
}

/// The places of the fields from the model down to the tensor that `value` is.
fn place(scopes: &Scopes<'_>, scope: usize, value: &str) -> Option<Vec<usize>> {
    let around = &scopes.all[scope];
    let mut path = around.path.clone();
    match around.maker(value)? {
        Maker::Initializer { field } => path.push(field),
        Maker::Node { field } => {
            let node = around.node(field)?;
            let held = node.children(node::ATTRIBUTES).find_map(|(place, message)| {
                let (inner, _) = message.children(attribute::TENSOR).last()?;
                (message.string(attribute::NAME) == "value").then_some([place, inner])
            });
            path.push(field);
            path.extend(held?);
        }
        Maker::Input => return None,
    }
    Some(path)
}

fn at<'m>(root: &'m mut Message, path: &[usize]) -> Option<&'m mut Message> {
    path.iter().try_fold(root, |message, &field| {
        match &mut message.fields.get_mut(field)?.payload {
            Payload::Message(inner, _) => Some(inner),
            Payload::Bytes(_) => None,
        }
    })
}
