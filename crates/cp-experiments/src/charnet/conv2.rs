//! The second convolution of AlexNet in CP-4 at the ranks of Lebedev et al.: multiply-adds, and time.

use anyhow::{Context as _, Result, bail, ensure};
use cp_net::{Architecture, Conv, Form, INPUT, InputSpec, Network, Node, Op, arch};
use cp_report::{Axis, Block, Cell, Column, Report, Series, Table, XyPlot};
use serde::{Deserialize, Serialize};

use super::{Charnet, Times};
use crate::context::Context;

/// `settings.conv2` of `experiments/charnet.toml`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Settings {
    /// The network, and its layer.
    arch: String,
    layer: String,
    ranks: Vec<usize>,
    batch: usize,
    source: String,
    /// Of the layer, as published, and the top-5 accuracy that it costs, as a share.
    speedup: f64,
    drop: f64,
}

/// The layer in one of two ways, at every rank.
#[derive(Debug, Serialize)]
pub(super) struct Measured {
    what: String,
    /// Multiply-adds, dense / CP-4, by rank.
    ratios: Vec<f64>,
    /// The dense layer first, then the ranks.
    times: Vec<Times>,
}

impl Settings {
    pub(super) fn check(&self) -> Result<()> {
        ensure!(self.batch > 0, "conv2.batch: 0 is not at least 1");
        for (_, dense) in self.layers().context("conv2")? {
            self.ratios(&dense).context("conv2.ranks")?;
        }
        Ok(())
    }

    /// The layer alone: as the paper counts it, from the channels of one group to all of the outputs, and as it is in the network,
    /// where each group makes its share of them.
    fn layers(&self) -> Result<[(String, Architecture); 2]> {
        let whole = arch::by_name(&self.arch)?;
        let node = whole.node(&self.layer)?;
        let Op::Conv(grouped) = &node.op else {
            bail!("{} of {} is no convolution", self.layer, self.arch)
        };
        let shapes = whole.shapes(whole.input_shapes())?;
        let shape = shapes.get(&node.inputs[0]).context("a layer reads a value of its network")?;
        let in_channels = grouped.in_channels / grouped.groups;
        let alone = |conv: &Conv| {
            let shape: Vec<usize> =
                std::iter::once(conv.in_channels).chain(shape[1..].iter().copied()).collect();
            let node = Node::new(&self.layer, Op::Conv(conv.clone()), [INPUT]);
            Architecture::new(&self.layer, InputSpec::features(shape), vec![node])
        };
        let one = Conv { in_channels, groups: 1, ..grouped.clone() };
        let name = |conv: &Conv| match conv.groups {
            1 => format!("{} → {} channels", conv.in_channels, conv.out_channels),
            groups => {
                format!("{} → {} channels in {groups} groups", conv.in_channels, conv.out_channels)
            }
        };
        Ok([(name(&one), alone(&one)), (name(grouped), alone(grouped))])
    }

    fn factorized(&self, dense: &Architecture) -> Result<Vec<Architecture>> {
        let at = |&rank: &usize| {
            let mut small = dense.clone();
            small.factorize(&self.layer, Form::Cp4, rank)?;
            Ok(small)
        };
        self.ranks.iter().map(at).collect()
    }

    /// Multiply-adds, dense / CP-4, by rank.
    fn ratios(&self, dense: &Architecture) -> Result<Vec<f64>> {
        let macs = |arch: &Architecture| -> Result<f64> {
            Ok(arch.cost(arch.input_shapes())?.total.macs as f64)
        };
        let all = macs(dense)?;
        self.factorized(dense)?.iter().map(|small| Ok(all / macs(small)?)).collect()
    }
}

/// Counts and times the layer; weights are drawn, whose values do not matter to the time.
pub(super) fn measure(all: &Charnet, context: &Context) -> Result<Vec<Measured>> {
    let config = &all.settings.conv2;
    let mut found = Vec::new();
    for (index, (what, dense)) in config.layers()?.into_iter().enumerate() {
        let ratios = config.ratios(&dense)?;
        let mut networks = vec![dense.initialize(all.seed)?];
        for small in config.factorized(&dense)? {
            networks.push(small.initialize(all.seed)?);
        }
        let networks: Vec<&Network> = networks.iter().collect();
        let stage = format!("conv2-{}", index + 1);
        let times = all.times(context, &stage, &networks, config.batch)?;
        found.push(Measured { what, ratios, times });
    }
    Ok(found)
}

/// Tables and a plot.
pub(super) fn show(config: &Settings, found: &[Measured], report: &mut Report) {
    report.add(Block::heading("AlexNet's second convolution"));
    report.add(Block::text(format!(
        "{} of {} alone, in CP-4, with drawn weights: counted and timed, which says nothing of the accuracy. {} report that the layer is {:.0}× faster \
         for {:.0} % of top-5 error. The ratios in the literature are of the channels that one group reads against the outputs of all groups; in the \
         network each group makes its own share of the outputs, with terms of its own, which costs more.",
        config.layer,
        config.arch,
        config.source,
        config.speedup,
        100.0 * config.drop,
    )));
    for one in found {
        report.add(table(config, one));
    }
    if let Some(one) = found.first() {
        report.add(plot(config, one));
    }
}

fn table(config: &Settings, one: &Measured) -> Table {
    let mut columns = vec![Column::number("rank"), Column::number("fewer multiply-adds")];
    for times in &one.times {
        columns.push(Column::text(times.place()).unit("ms"));
        columns.push(Column::text("faster"));
    }
    let mut table = Table::new(format!("{}, {}", config.layer, one.what), columns);
    let mut row = vec![Cell::text("dense"), Cell::missing()];
    for times in &one.times {
        row.extend([Cell::text(times.millis(0)), Cell::missing()]);
    }
    table.row(row);
    for (at, (&rank, &ratio)) in config.ranks.iter().zip(&one.ratios).enumerate() {
        let mut row = vec![Cell::count(rank as u64), Cell::ratio(ratio, 1)];
        for times in &one.times {
            row.push(Cell::text(times.millis(at + 1)));
            row.push(Cell::text(times.faster(at + 1)).strong());
        }
        table.row(row);
    }
    table.note(format!(
        "Medians and quartiles of a batch of {}, all ranks in all engines in turn. Faster: median of the dense layer / median, and quartiles, of CP-4 in \
         the same engine. The rank is that of each group.",
        config.batch
    ));
    table
}

fn plot(config: &Settings, one: &Measured) -> XyPlot {
    let most = one.ratios.iter().copied().fold(1.0, f64::max);
    let mut plot = XyPlot::new(
        format!("{}, {}", config.layer, one.what),
        Axis::ratio("multiply-adds, dense / CP-4").include(1.0).log(),
        Axis::ratio("time, dense / CP-4").include(1.0).log(),
    )
    .series(Series::line("as many times faster", [(1.0, 1.0), (most, most)]));
    for times in &one.times {
        let points = one.ratios.iter().enumerate();
        let points = points.map(|(at, &ratio)| (ratio, times.speedup(at + 1)));
        plot = plot.series(Series::both(times.place(), points));
    }
    plot.reference(format!("{}, as published", config.source), config.speedup)
}

#[cfg(test)]
mod tests {
    use super::super::tests::settings;

    /// The ratios that follow from the sizes of the layer, to the digits that they are known by.
    #[test]
    fn multiply_adds_are_as_many_times_fewer_as_the_sizes_say() {
        let config = settings(&[]).conv2;
        let [(what, dense), (grouped, _)] = config.layers().unwrap();
        assert_eq!(what, "48 → 256 channels");
        assert_eq!(grouped, "96 → 256 channels in 2 groups");
        let ratios = config.ratios(&dense).unwrap();
        let known = [
            (16, 0, "61"),
            (64, 1, "15.3"),
            (140, 1, "7.0"),
            (200, 1, "4.9"),
            (300, 1, "3.3"),
            (420, 1, "2.3"),
        ];
        assert_eq!(config.ranks, known.map(|(rank, ..)| rank));
        for ((rank, digits, expected), ratio) in known.into_iter().zip(ratios) {
            assert_eq!(format!("{ratio:.digits$}"), expected, "rank {rank}");
        }
    }

    /// 25 · 48 taps of each output against 48 + 5 + 5 + 128 numbers of each term.
    #[test]
    fn a_group_costs_what_its_share_of_the_outputs_costs() {
        let config = settings(&[]).conv2;
        let [_, (_, grouped)] = config.layers().unwrap();
        let ratio = config.ratios(&grouped).unwrap()[0];
        assert!((ratio - 25.0 * 48.0 * 128.0 / (16.0 * 186.0)).abs() < 1e-9, "{ratio}");
    }
}
