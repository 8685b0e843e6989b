//! The AlexNets of the literature, counted to the digit.

use anyhow::{Context as _, Result};
use cp_net::{Architecture, Form, Node, Op, arch};
use cp_report::{Cell, Column, Table};
use serde::{Deserialize, Serialize};

/// Ranks of conv1–5 and fc1–3.
pub(super) type Ranks = [usize; 8];

/// What the sources say.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Published {
    pub(super) source: String,
    pub(super) ranks: Ranks,
    reimplemented: Ranks,
    /// Measured for the whole network.
    pub(super) speedup: f64,
    pub(super) variant: Vec<Variant>,
    /// Allocations of the re-implementation, by losses and a size share of 0.8.
    pub(super) sweep: Vec<Allocation>,
}

/// Ranks that a source printed for budgets, and what came of them.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Allocation {
    /// Sums of the ranks of convolutions and of linear layers.
    budgets: (usize, usize),
    pub(super) ranks: Ranks,
    pub(super) params: usize,
    /// In percent.
    top1: f64,
}

impl Allocation {
    fn name(&self) -> String {
        format!("rank sweep, {} / {}", self.budgets.0, self.budgets.1)
    }
}

/// A variant of AlexNet, and what its source says of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Variant {
    name: String,
    arch: String,
    /// None for the dense network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    form: Option<Form>,
    #[serde(default)]
    ranks: Which,
    /// Parameters as published or derived from the published ranks.
    pub(super) params: usize,
    /// MACs in millions to one digit, where a source gives them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    macs: Option<f64>,
    /// Top-1 / top-5 in percent that the source reports, where it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    accuracy: Option<(f64, f64)>,
}

/// Whose ranks.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Which {
    #[default]
    Published,
    Reimplemented,
}

impl Published {
    fn build(&self, variant: &Variant) -> Result<Architecture> {
        let dense = arch::by_name(&variant.arch)?;
        let ranks = match variant.ranks {
            Which::Published => &self.ranks,
            Which::Reimplemented => &self.reimplemented,
        };
        match variant.form {
            Some(form) => factorized(&dense, form, ranks),
            None => Ok(dense),
        }
    }

    /// The sweep as CP-4 of torchvision's network.
    pub(super) fn swept(&self) -> Result<Vec<Count>> {
        let dense = arch::by_name("alexnet")?;
        let one = |allocation: &Allocation| {
            let cost = factorized(&dense, Form::Cp4, &allocation.ranks)?.cost([3, 224, 224])?.total;
            Ok(Count { name: allocation.name(), params: cost.params, macs: cost.macs })
        };
        self.sweep.iter().map(one).collect()
    }

    pub(super) fn count(&self) -> Result<Vec<Count>> {
        let one = |variant: &Variant| {
            let cost = self.build(variant)?.cost([3, 224, 224])?.total;
            Ok(Count { name: variant.name.clone(), params: cost.params, macs: cost.macs })
        };
        self.variant.iter().map(one).collect()
    }

    /// Variants and allocations whose counts differ from those of their source.
    pub(super) fn wrong<'a>(&'a self, counts: &[Count], swept: &'a [Count]) -> Vec<&'a str> {
        let digits = |macs: f64| format!("{macs:.1}");
        let other = (swept.iter().zip(&self.sweep))
            .filter(|(count, allocation)| count.params != allocation.params)
            .map(|(count, _)| count.name.as_str());
        (counts.iter().zip(&self.variant))
            .filter(|(count, variant)| {
                let macs = digits(count.macs as f64 / 1e6);
                count.params != variant.params
                    || variant.macs.is_some_and(|published| macs != digits(published))
            })
            .map(|(_, variant)| variant.name.as_str())
            .chain(other)
            .collect()
    }
}

/// `dense` with its eight layers factorized: the convolutions in `form`, the linear layers as low-rank pairs.
pub(super) fn factorized(dense: &Architecture, form: Form, ranks: &Ranks) -> Result<Architecture> {
    let mut small = dense.clone();
    for (layer, &rank) in weighted_layers(dense).iter().zip(ranks) {
        let form = form.suited_to(&layer.op).context("a layer with weights has a form")?;
        // A published rank counts the groups of a layer together.
        let groups = if let Op::Conv(conv) = &layer.op { conv.groups } else { 1 };
        small.factorize(&layer.name, form, rank / groups)?;
    }
    Ok(small)
}

/// The convolutions and linear layers in order.
pub(super) fn weighted_layers(arch: &Architecture) -> Vec<Node> {
    arch.nodes.iter().filter(|node| node.op.has_kernel()).cloned().collect()
}
/// Parameters and MACs of a variant.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Count {
    name: String,
    pub(super) params: usize,
    pub(super) macs: usize,
}
pub(super) fn count_table(counts: &[Count], variants: &[Variant]) -> Table {
    let mut table = Table::new(
        "Ours beside the sources",
        [
            Column::text("variant"),
            Column::number("parameters"),
            Column::number("parameters, source").published(),
            Column::number("compression"),
            Column::number("MACs").unit("M"),
            Column::number("MACs, source").unit("M").published(),
            Column::number("top-1 / top-5, source").unit("%").published(),
        ],
    );
    for (count, variant) in counts.iter().zip(variants) {
        let dense =
            counts.iter().zip(variants).find(|(_, v)| v.arch == variant.arch && v.form.is_none());
        let ratio = dense.map_or(1.0, |(dense, _)| dense.params as f64 / count.params as f64);
        table.row([
            Cell::text(&variant.name),
            Cell::count(count.params as u64),
            Cell::count(variant.params as u64),
            Cell::ratio(ratio, 2),
            Cell::millions(count.macs as u64, 1),
            variant.macs.map_or_else(Cell::missing, |macs| Cell::number(macs, 1)),
            variant.accuracy.map_or_else(Cell::missing, |(top1, top5)| {
                Cell::text(format!("{top1:.2} / {top5:.2}"))
            }),
        ]);
    }
    table.note(
        "Input 3 × 224 × 224. MACs are multiply-accumulates of convolutions and linear layers. The accuracies of the re-implementation and of the \
         paper differ by protocol: the former fine-tuned on validation images for 100 steps a layer, the latter on the training set.",
    );
    table
}

/// Ranks by losses and sizes at six budgets.
pub(super) fn sweep_table(counts: &[Count], swept: &[Count], sweep: &[Allocation]) -> Table {
    let mut table = Table::new(
        "Rank sweep of the re-implementation",
        [
            Column::text("sums of ranks, convolutions / linear layers"),
            Column::text("ranks"),
            Column::number("parameters"),
            Column::number("parameters, source").published(),
            Column::number("compression"),
            Column::number("MACs").unit("M"),
            Column::number("top-1, source").unit("%").published(),
        ],
    );
    for (count, allocation) in swept.iter().zip(sweep) {
        let ranks: Vec<String> = allocation.ranks.iter().map(ToString::to_string).collect();
        table.row([
            Cell::text(format!("{} / {}", allocation.budgets.0, allocation.budgets.1)),
            Cell::text(ranks.join(", ")),
            Cell::count(count.params as u64),
            Cell::count(allocation.params as u64),
            Cell::ratio(counts[0].params as f64 / count.params as f64, 2),
            Cell::millions(count.macs as u64, 1),
            Cell::number(allocation.top1, 2),
        ]);
    }
    table.note(
        "CP-4 of torchvision's AlexNet with the ranks that SqVaD printed: shares of the loss at rank 5, four fifths by size (`polyad compress --rank-sums … \
         --loss cross-entropy --size-share 0.8`).",
    );
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published() -> Published {
        let text: toml::Table =
            include_str!("../../experiments/reproduce-alexnet.toml").parse().unwrap();
        text["settings"]["published"].clone().try_into().unwrap()
    }

    #[test]
    fn every_variant_counts_as_its_source_says() {
        let published = published();
        let swept = published.swept().unwrap();
        assert_eq!(swept.len(), 6);
        assert_eq!(published.wrong(&published.count().unwrap(), &swept), Vec::<&str>::new());
        let mut other = published.clone();
        other.variant[2].params += 1;
        other.variant[3].macs = Some(140.8);
        let found = published.count().unwrap();
        other.sweep[1].params -= 1;
        assert_eq!(
            other.wrong(&found, &swept),
            [&*published.variant[2].name, &published.variant[3].name, &swept[1].name]
        );
    }
}
