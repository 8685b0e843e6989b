//! Ops that move values and compute none.

use cp_net::{
    ChannelOrder, Concat, Constant, DepthToSpace, Flatten, Gather, Pad, PadMode, Reshape, Slice,
    Split, Squeeze, Transpose, Unsqueeze,
};

use crate::export::Export;
use crate::export::conv::pads;
use crate::export::writer::{Site, int, int_list};
use crate::proto::attribute;

impl Site<'_, '_> {
    /// `value` cut into parts along `axis`, the batch axis counted.
    pub(super) fn split(
        &mut self,
        what: &str,
        value: &str,
        axis: usize,
        sizes: &[usize],
    ) -> Vec<String> {
        let lengths = self.ints(&format!("{what}_sizes"), &int_list(sizes));
        let axis = attribute::int("axis", int(axis));
        self.emit_several("Split", what, &[value, &lengths], vec![axis], sizes.len())
    }
}

/// A value `[1, …]`: the parameter itself, under the value's name.
impl Export for Constant {
    fn export(&self, at: &mut Site<'_, '_>) {
        let shape = [&[1], &self.shape[..]].concat();
        let value = at.param_as("value", &shape);
        at.finish("Identity", &[&value], Vec::new());
    }
}

impl Export for Reshape {
    fn export(&self, at: &mut Site<'_, '_>) {
        at.finish_reshape(&at.input(), &at.output_shape());
    }
}

impl Export for Flatten {
    fn export(&self, at: &mut Site<'_, '_>) {
        let input = at.input();
        if self.axis == 0 {
            return at.finish("Flatten", &[&input], vec![attribute::int("axis", 1)]);
        }
        at.finish_reshape(&input, &at.output_shape());
    }
}

fn behind_batch(axes: &[usize]) -> Vec<i64> {
    axes.iter().map(|&axis| int(axis) + 1).collect()
}

impl Export for Squeeze {
    fn export(&self, at: &mut Site<'_, '_>) {
        let axes = at.ints("axes", &behind_batch(&self.axes));
        at.finish("Squeeze", &[&at.input(), &axes], Vec::new());
    }
}

impl Export for Unsqueeze {
    fn export(&self, at: &mut Site<'_, '_>) {
        let axes = at.ints("axes", &behind_batch(&self.axes));
        at.finish("Unsqueeze", &[&at.input(), &axes], Vec::new());
    }
}

impl Export for Transpose {
    fn export(&self, at: &mut Site<'_, '_>) {
        let perm: Vec<i64> = [0].into_iter().chain(behind_batch(&self.axes)).collect();
        at.finish("Transpose", &[&at.input()], vec![attribute::ints("perm", &perm)]);
    }
}

impl Export for Concat {
    fn export(&self, at: &mut Site<'_, '_>) {
        let inputs = at.repeated();
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        at.finish("Concat", &inputs, vec![attribute::int("axis", int(self.axis) + 1)]);
    }
}

impl Export for Split {
    fn export(&self, at: &mut Site<'_, '_>) {
        let sizes = at.ints("sizes", &int_list(&self.sizes));
        let axis = attribute::int("axis", int(self.axis) + 1);
        at.finish("Split", &[&at.input(), &sizes], vec![axis]);
    }
}

impl Export for Slice {
    fn export(&self, at: &mut Site<'_, '_>) {
        let step = int(self.step);
        let numbers = [
            ("start", self.start),
            ("end", self.end.unwrap_or(i64::MAX)),
            ("axis", int(self.axis) + 1),
            ("step", step),
        ];
        let [start, end, axis, step] = &numbers.map(|(what, number)| at.ints(what, &[number]));
        at.finish("Slice", &[&at.input(), start, end, axis, step], Vec::new());
    }
}

impl Export for Gather {
    fn export(&self, at: &mut Site<'_, '_>) {
        let indices = at.ints("indices", &int_list(&self.indices));
        let axis = attribute::int("axis", int(self.axis) + 1);
        at.finish("Gather", &[&at.input(), &indices], vec![axis]);
    }
}

impl Export for Pad {
    fn export(&self, at: &mut Site<'_, '_>) {
        let own = self.before.iter().zip(&self.behind).map(|(&before, &behind)| [before, behind]);
        let pairs: Vec<[usize; 2]> = [[0; 2]].into_iter().chain(own).collect();
        let amounts = at.ints("pads", &pads(&pairs));
        let input = at.input();
        let mut inputs = vec![input, amounts];
        let mode = match self.mode {
            PadMode::Constant => {
                inputs.push(at.scalar("value", self.value));
                "constant"
            }
            PadMode::Reflect => "reflect",
            PadMode::Edge => "edge",
        };
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        at.finish("Pad", &inputs, vec![attribute::string("mode", mode)]);
    }
}

impl Export for DepthToSpace {
    fn export(&self, at: &mut Site<'_, '_>) {
        let mode = match self.mode {
            ChannelOrder::DepthFirst => "DCR",
            ChannelOrder::ColumnFirst => "CRD",
        };
        let attributes =
            vec![attribute::int("blocksize", int(self.block)), attribute::string("mode", mode)];
        at.finish("DepthToSpace", &[&at.input()], attributes);
    }
}
