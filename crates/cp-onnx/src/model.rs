//! [`Model`]: a file, its layers, and what is put in their place.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use cp_net::{FileKind, Op};
use ndarray::ArrayD;

use crate::error::{OnnxError, TensorError};
use crate::external::Place;
use crate::layers::{
    Group, Kernel, Layer, LayerKind, groups, is_transposed, kernel, label, op, reads_transposed,
};
use crate::limits::MAX_BYTES;
use crate::parts::Parts;
use crate::proto::{Field, Kind, Message, Payload, graph, model, node, tensor};
use crate::record::{Factorization, KEY, Record};
use crate::scopes::{MAIN, Reader, Scopes};
use crate::splice::Splicing;
use crate::wire::Bytes;

/// An ONNX model.
#[derive(Debug, Clone)]
pub struct Model {
    pub(crate) root: Message,
    pub(crate) path: Option<PathBuf>,
}

impl Model {
    /// Reads the model at `path`. Weights that lie in other files are looked for, and read when they are needed.
    ///
    /// # Errors
    /// A file that is no model, or is damaged; external data that is missing, too short, or not below the model's folder.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OnnxError> {
        let path = path.as_ref();
        let io = |source| OnnxError::Io { path: path.into(), source };
        let mut bytes = Vec::new();
        if !path.metadata().map_err(io)?.is_file() {
            return Err(io(std::io::Error::other("is a folder, a pipe or a device, not a file")));
        }
        let file = File::open(path).map_err(io)?;
        file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(io)?;
        let bytes = Bytes::from(bytes);
        let model = Self::of(bytes.clone(), Some(path.into())).map_err(|error| {
            // What is no model at all is named for what it is.
            match (FileKind::of(&bytes), error) {
                (FileKind::Onnx | FileKind::Unknown, error) => error,
                (kind, OnnxError::Wire { .. } | OnnxError::NoGraph { .. }) => {
                    OnnxError::ForeignFile { path: path.into(), kind }
                }
                (_, error) => error,
            }
        })?;
        model.check_tensors()?;
        Ok(model)
    }

    /// The file that it was read from.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Reads a model from its bytes. What lies in other files stays unknown: such layers are left alone.
    ///
    /// # Errors
    /// Bytes that are no model; a tensor that does not hold what it says.
    pub fn decode(bytes: Vec<u8>) -> Result<Self, OnnxError> {
        let model = Self::of(bytes.into(), None)?;
        model.check_tensors()?;
        Ok(model)
    }

    /// Whether every tensor is there and as long as it says, of external data as far as the folder is known. No engine reads others, and what
    /// is written from such a model is no better.
    fn check_tensors(&self) -> Result<(), OnnxError> {
        let length =
            |place: &Place| self.folder().map(|folder| place.length(Some(folder))).transpose();
        tensor::each(&self.root, &mut |tensor| {
            tensor::check_count(tensor, length).map_err(|source| self.tensor_error(tensor, source))
        })
    }

    fn of(bytes: Bytes, path: Option<PathBuf>) -> Result<Self, OnnxError> {
        if bytes.len() as u64 > MAX_BYTES {
            return Err(OnnxError::TooLarge { path, bytes: bytes.len() as u64, most: MAX_BYTES });
        }
        match Message::decode(bytes, Kind::Model) {
            Ok(root) => match root.children(model::GRAPH).count() {
                1 => Ok(Self { root, path }),
                graphs => Err(OnnxError::NoGraph { path, graphs }),
            },
            Err(source) => Err(OnnxError::Wire { path, source }),
        }
    }

    /// The model as bytes. External data is not among them: it is named as it was.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.root.len());
        self.root.write(&mut out);
        out
    }

    /// The folder in which external data lies.
    pub(crate) fn folder(&self) -> Option<&Path> {
        let folder = self.path.as_ref()?.parent()?;
        Some(if folder.as_os_str().is_empty() { Path::new(".") } else { folder })
    }

    pub(crate) fn tensor_error(&self, tensor: &Message, source: TensorError) -> OnnxError {
        OnnxError::Tensor {
            path: self.path.clone(),
            tensor: tensor.string(tensor::NAME),
            offset: tensor.fields.first().map_or(0, Field::offset),
            source,
        }
    }

    /// Every weight that is the kernel of a convolution or a linear layer, in the order of the nodes; also those that are left alone,
    /// with the reason. Products of two values of which neither is constant are no layers.
    ///
    /// # Errors
    /// [`OnnxError::Quantized`]; [`OnnxError::Record`].
    pub fn layers(&self) -> Result<Vec<Layer>, OnnxError> {
        let (scopes, record) = self.read()?;
        let known = groups(&scopes);
        let kernels = known.iter().map(|group| kernel(&scopes, group, &record, self.folder()));
        Ok(kernels.flatten().map(|kernel| kernel.layer).collect())
    }

    /// The kernel of `layer`, in the convention of [`Layer::shape`].
    ///
    /// # Errors
    /// [`OnnxError::UnknownLayer`], [`OnnxError::LeftAlone`].
    pub fn kernel(&self, layer: &Layer) -> Result<ArrayD<f32>, OnnxError> {
        let (scopes, record) = self.read()?;
        let (_, found) = self.found(&scopes, groups(&scopes).iter(), &record, layer)?;
        found.array.ok_or_else(|| unknown(layer))
    }

    /// Puts `parts` in the place of `layer`, for every node with its weight. The values that those made keep their names, and the last
    /// part has the bias. The weight goes when nothing else reads it.
    ///
    /// # Errors
    /// A layer that is not there or is left alone; parts that do not fit it. The model is unchanged then.
    pub fn replace(&mut self, layer: &Layer, parts: &Parts) -> Result<(), OnnxError> {
        self.replace_each([(layer, parts)])
    }

    /// As [`Model::replace`] for several layers, with one look at the model instead of one for each.
    ///
    /// # Errors
    /// As [`Model::replace`], and a layer that comes twice. The model is unchanged then, all of it.
    pub fn replace_all(&mut self, replacements: &[(Layer, Parts)]) -> Result<(), OnnxError> {
        self.replace_each(replacements.iter().map(|(layer, parts)| (layer, parts)))
    }

    fn replace_each<'a>(
        &mut self,
        replacements: impl IntoIterator<Item = (&'a Layer, &'a Parts)>,
    ) -> Result<(), OnnxError> {
        let (scopes, mut record) = self.read()?;
        let known = groups(&scopes);
        let mut by_weight: HashMap<(&str, &str), Vec<&Group>> = HashMap::new();
        for group in &known {
            let scope = &scopes.all[group.scope()].name;
            by_weight.entry((scope, &group.weight)).or_default().push(group);
        }
        let mut splicing = Splicing::new(&scopes);
        let mut seen = HashSet::new();
        let mut new = Vec::new();
        for (layer, parts) in replacements {
            if !seen.insert((&layer.scope, &layer.weight)) {
                return Err(unknown(layer));
            }
            let groups = by_weight.get(&(layer.scope.as_str(), layer.weight.as_str()));
            let groups = groups.into_iter().flatten().copied();
            let (group, found) = self.found(&scopes, groups, &record, layer)?;
            parts.check(&found.layer)?;
            let weights = splicing.replace(group, &found, parts)?;
            let Layer { name: layer, scope, .. } = found.layer;
            new.push(Factorization { layer, scope, form: parts.form, rank: parts.rank, weights });
        }
        let spliced = splicing.finish();
        record.layers.extend(new);
        // A copy shares all bytes with the model.
        let mut root = self.root.clone();
        spliced.apply(&mut root);
        let text = serde_json::to_string(&record)
            .map_err(|source| OnnxError::Record { path: self.path.clone(), source })?;
        let field = model::entry(model::METADATA, KEY, &text);
        let place = root.children(model::METADATA).find(|(_, entry)| entry.string(1) == KEY);
        match place.map(|(index, _)| index) {
            Some(index) => root.fields[index] = field,
            None => root.fields.push(field),
        }
        self.root = root;
        Ok(())
    }

    /// One for each of [`Layer::nodes`], the op of cp-net that it is: stride, padding and dilation as the node has them, and whether it
    /// adds a bias. `None` for settings that cp-net does not have (negative padding, an output shape, an input that is transposed first), and
    /// for those that cannot be read.
    ///
    /// # Errors
    /// [`OnnxError::UnknownLayer`], [`OnnxError::Quantized`], [`OnnxError::Record`].
    pub fn geometry(&self, layer: &Layer) -> Result<Vec<Option<Op>>, OnnxError> {
        self.of_nodes(layer, |scopes, group, (user, kind)| {
            let node = |reader: &Reader| scopes.all[reader.scope].node(reader.field);
            let first = group.users.first().and_then(|(first, _)| node(first))?;
            let node = node(&user).filter(|node| !reads_transposed(node))?;
            op(node, kind, &layer.shape, is_transposed(node) != is_transposed(first))
        })
    }

    /// One for each of [`Layer::nodes`], the name of the value that it multiplies by the kernel; `None` for a node that is not in
    /// the main graph, whose values [`Model::taps`] does not reach.
    ///
    /// # Errors
    /// As [`Model::geometry`].
    pub fn value_of_layer_input(&self, layer: &Layer) -> Result<Vec<Option<String>>, OnnxError> {
        self.of_nodes(layer, |scopes, _, (user, _)| {
            let around = &scopes.all[user.scope];
            let node = around.node(user.field).filter(|_| around.name == MAIN)?;
            node.strings(node::INPUTS).into_iter().next()
        })
    }

    fn of_nodes<T>(
        &self,
        layer: &Layer,
        of: impl Fn(&Scopes<'_>, &Group, (Reader, LayerKind)) -> Option<T>,
    ) -> Result<Vec<Option<T>>, OnnxError> {
        let (scopes, _) = self.read()?;
        let known = groups(&scopes);
        let is = |group: &&Group| {
            let scope = &scopes.all[group.scope()].name;
            (scope, &group.weight, &group.name) == (&layer.scope, &layer.weight, &layer.name)
        };
        let group = known.iter().find(is).ok_or_else(|| unknown(layer))?;
        Ok(group.users.iter().map(|&user| of(&scopes, group, user)).collect())
    }

    /// A copy that gives `values` of its main graph, too, behind its own outputs: layer inputs for statistics, for instance. Those
    /// that are outputs already are not given twice. Their types are left to the runtime's inference.
    ///
    /// # Errors
    /// [`OnnxError::UnknownValue`], a name that nothing in the main graph makes.
    pub fn taps(&self, values: &[&str]) -> Result<Self, OnnxError> {
        let scopes = Scopes::of(&self.root);
        let main = scopes.all.iter().find(|scope| scope.name == MAIN);
        let mut given: HashSet<String> =
            self.outputs().into_iter().map(|output| output.name).collect();
        let mut new = Vec::new();
        for &value in values {
            if main.and_then(|main| main.maker(value)).is_none() {
                return Err(OnnxError::UnknownValue { value: value.into() });
            }
            if given.insert(value.into()) {
                let name = Message::new(Kind::Leaf, vec![Field::string(1, value)]);
                new.push(Field::message(graph::OUTPUTS, name));
            }
        }
        let mut tapped = self.clone();
        for field in tapped.root.fields.iter_mut().filter(|field| field.number == model::GRAPH) {
            if let Payload::Message(graph, _) = &mut field.payload {
                graph.fields.append(&mut new);
            }
        }
        Ok(tapped)
    }

    /// What was factorized before, by this program or an earlier run of it.
    ///
    /// # Errors
    /// [`OnnxError::Record`].
    pub fn factorizations(&self) -> Result<Vec<Factorization>, OnnxError> {
        Ok(self.record()?.layers)
    }

    fn record(&self) -> Result<Record, OnnxError> {
        let entry = self.root.children(model::METADATA).find(|(_, entry)| entry.string(1) == KEY);
        let record = entry
            .map_or(Ok(Record::default()), |(_, entry)| serde_json::from_str(&entry.string(2)));
        record.map_err(|source| OnnxError::Record { path: self.path.clone(), source })
    }

    pub(crate) fn read(&self) -> Result<(Scopes<'_>, Record), OnnxError> {
        let scopes = Scopes::of(&self.root);
        for scope in &scopes.all {
            for (_, node) in scope.nodes() {
                let op = node.string(node::OP);
                if is_quantized(&op) {
                    let (path, node) = (self.path.clone(), label(node));
                    return Err(OnnxError::Quantized { path, node, op });
                }
            }
        }
        Ok((scopes, self.record()?))
    }

    /// The one of `groups` that is `layer`, and its kernel.
    fn found<'g>(
        &self,
        scopes: &Scopes<'_>,
        groups: impl Iterator<Item = &'g Group>,
        record: &Record,
        layer: &Layer,
    ) -> Result<(&'g Group, Kernel), OnnxError> {
        for group in groups {
            if group.weight != layer.weight {
                continue;
            }
            let Some(found) = kernel(scopes, group, record, self.folder()) else { continue };
            if (&found.layer.scope, &found.layer.weight) == (&layer.scope, &layer.weight) {
                return match found.layer.left_alone {
                    Some(reason) => Err(OnnxError::LeftAlone { layer: layer.name.clone(), reason }),
                    None => Ok((group, found)),
                };
            }
        }
        Err(unknown(layer))
    }
}

fn unknown(layer: &Layer) -> OnnxError {
    OnnxError::UnknownLayer {
        layer: layer.name.clone(),
        weight: layer.weight.clone(),
        scope: layer.scope.clone(),
    }
}

/// Ops on integers with scales, of ONNX and of ONNX Runtime's own domain.
fn is_quantized(op: &str) -> bool {
    op.starts_with("QLinear")
        || matches!(
            op,
            "QuantizeLinear"
                | "DequantizeLinear"
                | "DynamicQuantizeLinear"
                | "ConvInteger"
                | "MatMulInteger"
                | "QGemm"
                | "DynamicQuantizeMatMul"
                | "MatMulIntegerToFloat"
                | "MatMulNBits"
        )
}
