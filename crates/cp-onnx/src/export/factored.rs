//! Convolutions whose parameters are factors: the convolutions that they run as, with kernels made of the factors by `Einsum`, which
//! runtimes fold when they load the model. The initializers are the factors, so that the network can be read back.

use cp_net::{CpConv, Factored, OpSpec as _, TtConv, TuckerConv, Way};

use crate::export::Export;
use crate::export::conv::attributes;
use crate::export::writer::{Site, int_list};
use crate::proto::attribute;

/// The sequence with the fewest multiply-adds.
fn export(op: &impl Factored, at: &mut Site<'_, '_>) {
    let mut shape = at.shape(0);
    let ways = op.ways();
    let Some(way) = ways.iter().min_by_key(|way: &&Way| way.macs(&shape)) else { return };
    let mut value = at.input();
    for (index, part) in way.parts.iter().enumerate() {
        let what = |of: &str| match part.suffix {
            "" => of.to_owned(),
            suffix => format!("{suffix}.{of}"),
        };
        let factors: Vec<String> = part.kernel.slots.iter().map(|slot| at.param(slot)).collect();
        let factors: Vec<&str> = factors.iter().map(String::as_str).collect();
        let equation = vec![attribute::string("equation", &part.kernel.equation())];
        let product = at.emit("Einsum", &what("product"), &factors, equation);
        let sizes = at.ints(&what("sizes"), &int_list(&part.conv.weight_shape()));
        let kernel = at.emit("Reshape", &what("kernel"), &[&product, &sizes], Vec::new());
        let settings = attributes(&part.conv, &shape);
        let bias = part.conv.bias.then(|| at.param("bias"));
        let mut inputs = vec![value.as_str(), &kernel];
        inputs.extend(bias.as_deref());
        if index + 1 == way.parts.len() {
            return at.finish("Conv", &inputs, settings);
        }
        value = at.emit("Conv", part.suffix, &inputs, settings);
        // The op has accepted its input, so that every part accepts what the one in front of it makes.
        shape = part
            .conv
            .output(&[&shape])
            .ok()
            .and_then(|mut shapes| shapes.pop())
            .unwrap_or_default();
    }
}

macro_rules! exports {
    ($($name:ident)*) => {
        $(impl Export for $name {
            fn export(&self, at: &mut Site<'_, '_>) {
                export(self, at);
            }
        })*
    };
}

exports!(CpConv TtConv TuckerConv);
