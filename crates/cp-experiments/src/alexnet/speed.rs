//! AlexNet dense, as CP-3 and as CP-4 in turn: whole networks, and layer by layer.

use anyhow::{Context as _, Result};
use cp_net::{Architecture, Form, INPUT, InputSpec, Node, arch};
use cp_report::{Cell, Column, Table};
use cp_torch::{Executor, Layout};
use cp_train::engine::{self, Inputs, Subject};
use cp_train::timing::{Timing, TimingOptions};
use cp_train::{Engine, EngineName};
use serde::{Deserialize, Serialize};

use super::counts::{Ranks, factorized, weighted_layers};
use crate::context::Context;
use crate::figures::{quartiles, threads_text};

/// The layer `layer` of `arch` as a network of its own, on the input that it has in `arch`.
fn alone(arch: &Architecture, layer: &Node) -> Result<Architecture> {
    let shapes = arch.shapes(arch.input_shapes())?;
    let shape = shapes.get(&layer.inputs[0]).context("a layer reads a value of its network")?;
    let node = Node::new(&layer.name, layer.op.clone(), [INPUT]);
    let name = format!("{} of {}", layer.name, arch.name);
    Ok(Architecture::new(name, InputSpec::features(shape), vec![node]))
}
/// Times of one thing that is run dense, as CP-3 and as CP-4; medians and quartiles in seconds per batch.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Times {
    pub(super) what: String,
    pub(super) dense: Timing,
    pub(super) cp3: Timing,
    pub(super) cp4: Timing,
}

impl Times {
    pub(super) fn speedups(&self) -> [f64; 2] {
        [self.dense.median / self.cp3.median, self.dense.median / self.cp4.median]
    }
}

/// All times at one number of threads and images.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Measurement {
    pub(super) threads: usize,
    pub(super) batch: usize,
    /// In libtorch: the whole torchvision AlexNet first, then with its first layer left dense, then its layers.
    pub(super) rows: Vec<Times>,
    /// Whole networks in the engine that runs them fastest: at the published ranks, with the first layer dense, and so with ranks rounded
    /// down to multiples of 16.
    pub(super) whole: Vec<Times>,
    pub(super) engine: EngineName,
}
/// Times the whole network and every layer: dense, CP-3 and CP-4 in turn. Dense runs in both memory layouts, and the faster one
/// counts: the comparison is with the best that a user of the dense network can have.
pub(super) fn measure(
    context: &Context,
    ranks: &Ranks,
    repeats: usize,
    threads: usize,
    batch: usize,
) -> Result<Measurement> {
    let dense = arch::by_name("alexnet")?;
    let layers = weighted_layers(&dense);
    let forms = |form| factorized(&dense, form, ranks);
    let but_first = |form| -> Result<Architecture> {
        let mut small = forms(form)?;
        small.densify(&layers[0].name)?;
        Ok(small)
    };
    let whole = [
        ("whole network".to_owned(), [forms(Form::Cp3)?, forms(Form::Cp4)?]),
        ("whole network, first layer dense".into(), [but_first(Form::Cp3)?, but_first(Form::Cp4)?]),
    ];
    let mut rows = times(context, &dense, &whole, Input::AsGiven, batch, repeats)?;
    for (layer, rank) in layers.iter().zip(*ranks) {
        let single = alone(&dense, layer)?;
        let small = [
            factorized(&single, Form::Cp3, &[rank; 8])?,
            factorized(&single, Form::Cp4, &[rank; 8])?,
        ];
        let small = [(layer.name.clone(), small)];
        rows.extend(times(context, &single, &small, Input::InLayout, batch, repeats)?);
    }
    let [all, but_first_rows] = whole;
    let sixteens = ranks.map(|rank| rank / 16 * 16);
    let rounded = |form| -> Result<Architecture> {
        let mut small = factorized(&dense, form, &sixteens)?;
        small.densify(&layers[0].name)?;
        Ok(small)
    };
    let rounded = (
        "first layer dense, ranks rounded down to multiples of 16".to_owned(),
        [rounded(Form::Cp3)?, rounded(Form::Cp4)?],
    );
    let whole = [all, but_first_rows, rounded];
    let engine = context.stages.engine();
    let whole = times_in(engine, context.seed, &dense, &whole, batch, repeats)?;
    Ok(Measurement { threads, batch, rows, whole, engine: engine.name() })
}

/// Times `dense` and all of `small` in turn in `engine`.
fn times_in(
    engine: Engine,
    seed: u64,
    dense: &Architecture,
    small: &[(String, [Architecture; 2])],
    batch: usize,
    repeats: usize,
) -> Result<Vec<Times>> {
    eprintln!("timing whole networks in {}, batch {batch}", engine.name());
    let mut networks = vec![dense.initialize(seed)?];
    for (_, forms) in small {
        for form in forms {
            networks.push(form.initialize(seed)?);
        }
    }
    let subjects: Vec<Subject<'_>> = networks.iter().map(Subject::Network).collect();
    let inputs = Inputs::one(&dense.input().shape, batch);
    let options = TimingOptions { repeats, ..TimingOptions::default() };
    let found = engine.latency(&subjects, &inputs, &options)?;
    let row = |((what, _), pair): (&(String, _), &[Timing])| Times {
        what: what.clone(),
        dense: found[0],
        cp3: pair[0],
        cp4: pair[1],
    };
    Ok(small.iter().zip(found[1..].chunks(2)).map(row).collect())
}

/// How the input lies in memory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Input {
    /// Channels first, as a user has it: a network that runs in another layout converts it.
    AsGiven,
    /// As the network wants it, and as a layer inside a network gets it from the one before.
    InLayout,
}

/// Times `dense` and all of `small` in turn: rows that are compared with one dense network have one time of it.
fn times(
    context: &Context,
    dense: &Architecture,
    small: &[(String, [Architecture; 2])],
    input: Input,
    batch: usize,
    repeats: usize,
) -> Result<Vec<Times>> {
    eprintln!("timing {}, batch {batch}", small[0].0);
    let executor = |arch: &Architecture, layout| -> Result<Executor> {
        let device = context.stages.device().into();
        Ok(Executor::with_layout(&arch.initialize(context.seed)?, device, layout)?)
    };
    let mut models = vec![executor(dense, Layout::Nchw)?, executor(dense, Layout::ChannelsLast)?];
    for (_, forms) in small {
        for form in forms {
            models.push(executor(form, Layout::Auto)?);
        }
    }
    let models: Vec<&Executor> = models.iter().collect();
    let options = TimingOptions { repeats, ..TimingOptions::default() };
    let shape = &dense.input().shape;
    let found = match input {
        Input::AsGiven => engine::latency(&models, shape, batch, &options)?,
        Input::InLayout => engine::latency_in_layout(&models, shape, batch, &options)?,
    };
    let dense = if found[0].median <= found[1].median { found[0] } else { found[1] };
    let row = |((what, _), pair): (&(String, _), &[Timing])| Times {
        what: what.clone(),
        dense,
        cp3: pair[0],
        cp4: pair[1],
    };
    Ok(small.iter().zip(found[2..].chunks(2)).map(row).collect())
}
/// Whole networks in the fastest engine.
pub(super) fn whole_table(measurement: &Measurement, published: f64) -> Table {
    let Measurement { engine, batch, threads, whole, .. } = measurement;
    let mut table = Table::new(
        format!("Whole network in {engine}, batch {batch}, {}", threads_text(*threads)),
        [
            Column::text("network"),
            Column::number("dense").unit("ms"),
            Column::number("CP-3").unit("ms"),
            Column::text("quartiles"),
            Column::number("CP-4").unit("ms"),
            Column::text("quartiles"),
            Column::number("speed-up, CP-3"),
            Column::number("speed-up, CP-4"),
            Column::number("paper").published(),
        ],
    );
    for row in whole {
        let [cp3, cp4] = row.speedups();
        table.row([
            Cell::text(&row.what),
            Cell::millis(row.dense.median),
            Cell::millis(row.cp3.median),
            Cell::text(quartiles(&row.cp3)),
            Cell::millis(row.cp4.median),
            Cell::text(quartiles(&row.cp4)),
            Cell::ratio(cp3, 2),
            Cell::ratio(cp4, 2),
            Cell::ratio(published, 2),
        ]);
    }
    table
}

pub(super) fn time_table(measurement: &Measurement, published: f64) -> Table {
    let mut table = Table::new(
        format!("Time per batch of {}, {}", measurement.batch, threads_text(measurement.threads)),
        [
            Column::text("layer"),
            Column::number("dense").unit("ms"),
            Column::number("CP-3").unit("ms"),
            Column::number("CP-4").unit("ms"),
            Column::number("speed-up, CP-3"),
            Column::number("speed-up, CP-4"),
            Column::number("paper").published(),
        ],
    );
    for (index, row) in measurement.rows.iter().enumerate() {
        let [cp3, cp4] = row.speedups();
        table.row([
            Cell::text(&row.what),
            Cell::millis(row.dense.median),
            Cell::millis(row.cp3.median),
            Cell::millis(row.cp4.median),
            Cell::ratio(cp3, 2),
            Cell::ratio(cp4, 2),
            if index == 0 { Cell::ratio(published, 2) } else { Cell::missing() },
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_alone_costs_what_it_costs_in_the_network() {
        let dense = arch::by_name("alexnet").unwrap();
        let whole = dense.cost(&dense.input().shape).unwrap().total.macs;
        let parts: usize = weighted_layers(&dense)
            .iter()
            .map(|layer| {
                let single = alone(&dense, layer).unwrap();
                single.cost(&single.input().shape).unwrap().total.macs
            })
            .sum();
        assert_eq!(whole, parts);
    }
}
