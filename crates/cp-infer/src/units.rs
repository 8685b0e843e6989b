//! [`units`]: which nodes of a network run as one.

use cp_net::{Conv, Network, Node, Op, Shapes};

use crate::geometry::Geometry;
use crate::kernels::activation::Clamp;

/// Nodes that run as one step.
#[derive(Debug, Clone)]
pub(crate) struct Unit {
    pub(crate) kind: Kind,
    /// A value that is added to what the layers make.
    pub(crate) residual: Option<String>,
    /// What is done behind that.
    pub(crate) clamp: Clamp,
    /// Neighboring channels of which the largest is kept, last of all; 1 for none.
    pub(crate) pieces: usize,
    /// The value that it makes; of a node by itself, the first.
    pub(crate) output: String,
    /// The node at which it runs.
    position: usize,
}

/// The layers of a unit.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    /// A convolution, a linear layer, or any other node.
    Node(usize),
    /// 1×1, one or two depthwise convolutions, 1×1, each with what is done behind it, but for the last.
    Chain(Vec<(usize, Clamp)>, usize),
}

/// All nodes of `net`, each in one unit, in an order in which they can run.
pub(crate) fn units(net: &Network, shapes: &Shapes) -> Vec<Unit> {
    let graph = Graph { net, shapes };
    let mut taken = vec![false; net.nodes().len()];
    let mut units = Vec::new();
    for position in 0..net.nodes().len() {
        if taken[position] {
            continue;
        }
        let mut nodes = Vec::new();
        let kind = match graph.chain(position) {
            Some((parts, last)) => {
                nodes.extend(parts.iter().map(|part| part.0));
                nodes.push(last);
                Kind::Chain(parts, last)
            }
            None => Kind::Node(position),
        };
        let last = nodes.last().copied().unwrap_or(position);
        let mut unit = Unit {
            kind,
            residual: None,
            clamp: Clamp::None,
            pieces: 1,
            output: net.nodes()[last].output().into(),
            position: last,
        };
        taken[position] = true;
        graph.extend(&mut unit, last, &mut taken);
        // The clamps inside of a chain are nodes as well.
        if let Kind::Chain(parts, last) = &unit.kind {
            for (first, next) in parts
                .iter()
                .map(|part| part.0)
                .zip(parts.iter().skip(1).map(|part| part.0).chain([*last]))
            {
                graph.between(first, next).for_each(|node| taken[node] = true);
                taken[next] = true;
            }
        }
        units.push(unit);
    }
    units.sort_by_key(|unit| unit.position);
    units
}

struct Graph<'a> {
    net: &'a Network,
    shapes: &'a Shapes,
}

impl<'a> Graph<'a> {
    fn node(&self, position: usize) -> &'a Node {
        &self.net.nodes()[position]
    }

    /// The only reader of `value`, unless it is also an output of the network.
    fn reader(&self, value: &str) -> Option<usize> {
        let arch = self.net.architecture();
        let mut reads = arch.nodes.iter().enumerate().flat_map(|(position, node)| {
            node.inputs.iter().filter(|input| *input == value).map(move |_| position)
        });
        let first = reads.next().filter(|_| !arch.outputs.iter().any(|output| output == value));
        first.filter(|_| reads.next().is_none())
    }

    /// The nodes on the way from `first` to `next`: those that only clamp.
    fn between(&self, first: usize, next: usize) -> impl Iterator<Item = usize> {
        let mut nodes = Vec::new();
        let mut at = first;
        while let Some(reader) = self.reader(self.node(at).output()).filter(|&node| node != next) {
            nodes.push(reader);
            at = reader;
        }
        nodes.into_iter()
    }

    /// What reads the value of `position` alone, behind the clamps that come first.
    fn behind_clamps(&self, position: usize) -> Option<(Clamp, usize)> {
        let mut clamp = Clamp::None;
        let mut at = position;
        loop {
            let reader = self.reader(self.node(at).output())?;
            match clamp_of(&self.node(reader).op).and_then(|next| clamp.then(next)) {
                Some(next) => clamp = next,
                None => return Some((clamp, reader)),
            }
            at = reader;
        }
    }

    /// The parts of a chain that starts at `position`: all but the last with what is done behind them, and the last.
    fn chain(&self, position: usize) -> Option<(Vec<(usize, Clamp)>, usize)> {
        if !self.geometry(position)?.is_pointwise() {
            return None;
        }
        let mut parts = Vec::new();
        let mut at = position;
        loop {
            let (clamp, next) = self.behind_clamps(at)?;
            parts.push((at, clamp));
            at = next;
            let (conv, geometry) = (self.conv(at)?, self.geometry(at)?);
            if !is_depthwise(conv) {
                let ends = geometry.is_pointwise() && parts.len() > 1;
                return ends.then_some((parts, at));
            }
            // Two passes run down the columns, then along the rows, with nothing between; more are no CP-4.
            let fits = match parts.len() {
                1 => true,
                2 => {
                    let first = self.geometry(parts[1].0)?;
                    let (rows, columns) = (is_along(geometry, 1), is_along(first, 0));
                    rows && columns && parts[1].1 == Clamp::None && !self.conv(parts[1].0)?.bias
                }
                _ => false,
            };
            if !fits {
                return None;
            }
        }
    }

    /// Takes what can be done to the sums of `unit` before they are stored, from the value of `last` on.
    fn extend(&self, unit: &mut Unit, last: usize, taken: &mut [bool]) {
        let node = self.node(last);
        let adds = match &node.op {
            Op::Conv(conv) => conv.kernel.len() <= 2 && !is_depthwise(conv),
            Op::Linear(_) => self.shapes.inputs_of(node)[0].len() == 1,
            _ => false,
        };
        let clamps = adds
            || matches!(&node.op, Op::Conv(conv) if conv.kernel.len() <= 2)
            || matches!(node.op, Op::Add(_) | Op::ScaleShift(_));
        // Values of more axes are no maps, and have no steps of their own.
        if !clamps || !self.is_map(node.output()) {
            return;
        }
        let mut at = last;
        while let Some(reader) = self.reader(self.node(at).output()) {
            let node = self.node(reader);
            if taken[reader] {
                return;
            }
            match &node.op {
                Op::Add(_)
                    if adds
                        && unit.residual.is_none()
                        && unit.clamp == Clamp::None
                        && self.is_sum_of_two(node) =>
                {
                    let value = self.node(at).output();
                    unit.residual = node.inputs.iter().find(|input| *input != value).cloned();
                }
                Op::Maxout(maxout)
                    if adds && unit.residual.is_none() && self.is_map(self.node(at).output()) =>
                {
                    unit.pieces = maxout.pieces;
                }
                op => match clamp_of(op).and_then(|next| unit.clamp.then(next)) {
                    Some(clamp) => unit.clamp = clamp,
                    None => return,
                },
            }
            taken[reader] = true;
            unit.position = reader;
            unit.output = node.output().into();
            at = reader;
            if unit.pieces > 1 {
                return;
            }
        }
    }

    fn is_sum_of_two(&self, node: &Node) -> bool {
        let shapes = self.shapes.inputs_of(node);
        shapes.len() == 2
            && shapes[0] == shapes[1]
            && node.inputs[0] != node.inputs[1]
            && shapes[0].len() <= 3
            && node.inputs.iter().all(|input| !self.is_constant(input))
    }

    fn is_constant(&self, value: &str) -> bool {
        let producer = self.net.architecture().producer(value);
        producer.is_some_and(|node| matches!(node.op, Op::Constant(_)))
    }

    fn is_map(&self, value: &str) -> bool {
        self.shapes.get(value).is_some_and(|shape| (1..=3).contains(&shape.len()))
    }

    fn conv(&self, position: usize) -> Option<&'a Conv> {
        if let Op::Conv(conv) = &self.node(position).op { Some(conv) } else { None }
    }

    fn geometry(&self, position: usize) -> Option<Geometry> {
        Geometry::of(self.conv(position)?, self.shapes.inputs_of(self.node(position))[0])
    }
}

/// Whether every channel is convolved by itself.
pub(crate) fn is_depthwise(conv: &Conv) -> bool {
    conv.groups == conv.in_channels && conv.out_channels == conv.in_channels && conv.groups > 1
}

/// Whether a window has one tap, and moves by one pixel, but along `axis`.
fn is_along(geometry: Geometry, axis: usize) -> bool {
    let other = 1 - axis;
    let same = [
        (geometry.input.height, geometry.output.height),
        (geometry.input.width, geometry.output.width),
    ];
    geometry.kernel[other] == 1
        && geometry.stride[other] == 1
        && geometry.before[other] == 0
        && same[other].0 == same[other].1
}

/// What an op does that can be done before values are stored.
pub(crate) fn clamp_of(op: &Op) -> Option<Clamp> {
    match op {
        Op::Relu(_) => Some(Clamp::Relu),
        Op::Clip(clip) => {
            let bound = |bound: Option<f64>, none: f32| bound.map_or(none, |bound| bound as f32);
            let low = bound(clip.min, f32::NEG_INFINITY);
            Some(Clamp::Between(low, bound(clip.max, f32::INFINITY)))
        }
        _ => None,
    }
}
