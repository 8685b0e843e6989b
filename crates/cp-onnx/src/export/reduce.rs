//! Reductions.

use cp_net::{Reduce, Reduction};

use crate::export::Export;
use crate::export::writer::{Site, int};
use crate::proto::attribute;

/// The axes are an input of `ReduceSum` since opset 13, of the others since 18.
impl Export for Reduce {
    fn export(&self, at: &mut Site<'_, '_>) {
        let (op, since) = match self.function {
            Reduction::Mean => ("ReduceMean", 18),
            Reduction::Sum => ("ReduceSum", 13),
            Reduction::Max => ("ReduceMax", 18),
            Reduction::Min => ("ReduceMin", 18),
            Reduction::Prod => ("ReduceProd", 18),
            Reduction::L1 => ("ReduceL1", 18),
            Reduction::L2 => ("ReduceL2", 18),
        };
        let axes: Vec<i64> = self.axes.iter().map(|&axis| int(axis) + 1).collect();
        let mut attributes = vec![attribute::int("keepdims", i64::from(self.keep))];
        let mut inputs = vec![at.input()];
        if at.opset() >= since {
            inputs.push(at.ints("axes", &axes));
        } else {
            attributes.push(attribute::ints("axes", &axes));
        }
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        at.finish(op, &inputs, attributes);
    }
}
