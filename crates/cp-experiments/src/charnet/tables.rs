//! The tables of the page: networks of the sweep, forms at equal multiply-adds, times, and where the time goes.

use anyhow::{Context as _, Result};
use cp_net::Form;
use cp_report::{Cell, Column, Table};
use cp_train::timing;

use super::report::{Grid, LayerTime, Point};
use super::{Settings, State, Times, Way};

impl Grid<'_> {
    /// Columns of the tables of networks.
    fn columns(&self) -> Vec<Column> {
        let mut columns = vec![Column::text("network"), Column::text("rank")];
        for layer in &self.settings.layers {
            columns.push(Column::number(format!("error, {layer}")));
        }
        columns.push(Column::number("energy"));
        columns.push(Column::number("fewer parameters"));
        columns.push(Column::number("MACs").unit("M"));
        for name in ["validation before", "validation", "test before", "test"] {
            columns.push(Column::number(name).unit("%"));
        }
        columns.push(Column::number("change").unit("points"));
        for times in self.judged() {
            columns.push(Column::text(format!("faster, {}", times.place())));
        }
        columns
    }

    /// Times with the number of threads that networks are chosen by.
    fn judged(&self) -> impl Iterator<Item = &Times> {
        let threads = self.judge().map(|times| times.threads);
        self.times.iter().filter(move |times| Some(times.threads) == threads)
    }

    fn row(&self, point: &Point<'_>) -> Vec<Cell> {
        let State { way, params, macs, layers, before, after, diverged, .. } = point.state;
        let name = way.label();
        let name = if *diverged { format!("{name} (fine-tuning was not kept)") } else { name };
        let mut ranks: Vec<String> = layers.iter().map(|layer| layer.rank.to_string()).collect();
        ranks.dedup();
        let mut row = vec![Cell::text(name), Cell::text(ranks.join(" / "))];
        for layer in &self.settings.layers {
            let found = layers.iter().find(|one| one.layer == *layer);
            row.push(found.map(|one| Cell::number(one.rel_error, 3)).into());
        }
        let energy = layers.iter().map(|layer| layer.component_energy).fold(0.0, f64::max);
        row.push(Cell::significant(energy, 3));
        row.push(Cell::ratio(self.dense.params as f64 / *params as f64, 1));
        row.push(Cell::millions(*macs as u64, 2));
        let before = before.as_ref();
        row.push(before.map(|one| Cell::percent(one.validation.top1, 2)).into());
        row.push(Cell::percent(after.validation.top1, 2));
        row.push(before.map(|one| Cell::percent(one.test.top1, 2)).into());
        row.push(Cell::percent(after.test.top1, 2).strong());
        row.push(Cell::points(point.test_change(self.dense), 2));
        for times in self.judged() {
            row.push(Cell::text(times.faster(point.at)));
        }
        row
    }

    pub(super) fn sweep_table(&self) -> Table {
        let mut table =
            Table::new("Ranks and solvers, before and after fine-tuning", self.columns());
        for (_, points) in self.swept() {
            for (_, point) in points {
                table.row(self.row(&point));
            }
        }
        table.note(format!(
            "Dense: {:.2} M MACs, {:.2} % of the validation and {:.2} % of the test characters. Before: as decomposed. Energy: Σ ‖term‖² / ‖K‖², the larger \
             of the layers; above about 10 the terms cancel each other and fine-tuning suffers. Faster: the dense median over the median, and over the \
             quartiles, of the network, batch {}; networks of equal layers and ranks differ in values alone and are timed once.",
            self.dense.macs as f64 / 1e6,
            100.0 * self.dense.after.validation.top1,
            100.0 * self.dense.after.test.top1,
            self.settings.timing_batch,
        ));
        table
    }

    /// Forms at the multiply-adds of CP-4, which leads where the sweep has its rank.
    pub(super) fn equal_table(&self) -> Result<Table> {
        let Settings { equal_rank, forms, .. } = self.settings;
        let mut table = Table::new(
            format!("Forms at the multiply-accumulates of CP-4 at rank {equal_rank}"),
            self.columns(),
        );
        let held = |way: Way| match way {
            Way::Swept { form, rank, .. } => form == Form::Cp4 && rank == *equal_rank,
            Way::Equal { .. } => true,
            Way::Dense => false,
        };
        for point in self.points.iter().filter(|point| held(point.state.way)) {
            table.row(self.row(point));
        }
        let equal = self.points.iter().filter(|point| matches!(point.state.way, Way::Equal { .. }));
        let macs: Vec<usize> = equal.map(|point| point.state.macs).collect();
        let [least, most] = [macs.iter().min(), macs.iter().max()];
        let least = least.with_context(|| format!("no network of {}", forms.join(", ")))?;
        let million = |macs: usize| macs as f64 / 1e6;
        table.note(format!(
            "Each layer at the largest rank that needs no more multiply-accumulates than CP-4, by ALS where the form asks for a solver; ranks are steps, by which \
             the whole network comes to {:.2} to {:.2} M. Ranks of tucker2: outputs, inputs; of denton: clusters of outputs, of inputs, terms of a block. \
             Energy of forms that are no CP models: what is kept of ‖K‖².",
            million(*least),
            million(*most.unwrap_or(least)),
        ));
        Ok(table)
    }

    /// Medians and quartiles of all networks that were timed.
    pub(super) fn times_table(&self, states: &[&State], places: &[usize]) -> Table {
        let mut columns = vec![Column::text("network")];
        for times in &self.times {
            columns.push(Column::text(times.place()).unit("ms"));
            columns.push(Column::number("speed-up"));
        }
        let mut table =
            Table::new(format!("Time of a batch of {}", self.settings.timing_batch), columns);
        let mut seen = Vec::new();
        for (state, &at) in states.iter().zip(places) {
            if seen.contains(&at) {
                continue;
            }
            seen.push(at);
            let name = match state.way {
                Way::Swept { form, rank, .. } => format!("{form} at rank {rank}"),
                _ => state.name.clone(),
            };
            let mut row = vec![Cell::text(name)];
            for times in &self.times {
                row.push(Cell::text(times.millis(at)));
                row.push(Cell::ratio(times.speedup(at), 2).strong());
            }
            table.row(row);
        }
        let noise = timing::too_noisy(self.times.iter().flat_map(|times| &times.seconds));
        table.note(format!(
            "Medians and quartiles of forward passes in eval mode, all networks in all engines in turn.{}",
            noise.map_or_else(String::new, |told| format!(" But {told}."))
        ));
        table
    }

    pub(super) fn layers_table(&self, layers: &[LayerTime]) -> Table {
        let mut table = Table::new(
            "Where the time of a pass goes in cp-infer",
            [
                Column::text("layer"),
                Column::number("dense").unit("ms"),
                Column::number("compressed").unit("ms"),
                Column::number("share of the compressed").unit("%"),
            ],
        );
        let whole: f64 = layers.iter().map(|layer| layer.compressed).sum();
        for layer in layers {
            table.row([
                Cell::text(&layer.layer),
                Cell::millis(layer.dense),
                Cell::millis(layer.compressed),
                Cell::percent(layer.compressed / whole, 0),
            ]);
        }
        table.note("An activation that runs with the layer in front of it counts as that layer's.");
        table
    }
}
