//! `polyad significance`: which rank-one terms of CP layers matter.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use cp_data::{DataDir, Dataset, Loader, LoaderConfig, Order, Source, Subset, sha256_file};
use cp_net::{Network, Op};
use cp_report::{Axis, Block, Cell, Column, Map, MapPlot, Series, Table, XyPlot};
use cp_train::engine::Subject;
use cp_train::{
    Dropped, EvalOptions, LayerSignificance, Provenance, batch, check_fit, significance, term_maps,
    timing,
};
use ndarray::Array2;
use serde::Serialize;

use crate::common::{Common, Usage, positive};
use crate::model::{self, ModelArgs};
use crate::output::{self, Report, percent};

const EXAMPLES: &str = "\
Examples:
  polyad significance small.safetensors --dataset cifar10 --split validation
  polyad significance cpac.safetensors --dataset fashion-mnist --out significance

A CP layer is a sum of rank-one terms: one factorized into CP-3, CP-4 or a low-rank pair, or trained as factors from the start (cp_conv). Each \
layer's terms are put in order by λ, the product of the norms of their vectors, and left out from the smallest and from the largest on, layer by \
layer. --out writes a page with the kernels of the terms and the maps that they make of a few pictures.

JSON: examples; layers: layer, terms (term, lambda, input), least_first and most_first (terms left out, top1).";

/// Terms of a layer that are shown, the largest.
const SHOWN_TERMS: usize = 16;

/// Show which rank-one terms of CP layers matter.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Data set, as in `polyad eval`.
    #[arg(long, value_name = "NAME")]
    dataset: String,
    /// Part of it.
    #[arg(long, value_name = "SPLIT", default_value = "validation")]
    split: String,
    /// Images that accuracy is measured on, spread over the part.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = positive)]
    examples: usize,
    /// Numbers of terms left out at which it is measured, from either end.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = positive)]
    points: usize,
    /// Images per forward pass.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = positive)]
    batch: usize,
    /// Only these layers.
    #[arg(long, value_name = "LAYER")]
    layer: Vec<String>,
    /// A folder for report.html and summary.md.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Pictures shown on the page.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = positive, requires = "out")]
    pictures: usize,
}

#[derive(Serialize)]
struct Answer {
    examples: usize,
    layers: Vec<LayerSignificance>,
}

impl Report for Answer {
    fn text(&self, to: &mut dyn Write) -> io::Result<()> {
        for layer in &self.layers {
            writeln!(to, "{}  {} terms", output::printable(&layer.layer), layer.terms.len())?;
            let largest = layer.terms.first().map_or(0.0, |row| row.lambda);
            let rows = layer.terms.iter().take(SHOWN_TERMS);
            for row in rows {
                let share = if largest > 0.0 { row.lambda / largest } else { 0.0 };
                writeln!(
                    to,
                    "  term {:>4}  λ {:>10.4} ({:>6})  |kˢ| {:>10.4}",
                    row.term,
                    row.lambda,
                    percent(share),
                    row.input
                )?;
            }
            if layer.terms.len() > SHOWN_TERMS {
                writeln!(to, "  … {} smaller ones", layer.terms.len() - SHOWN_TERMS)?;
            }
            let line = |curve: &[Dropped]| {
                let points = curve.iter().map(|at| format!("{} {}", at.terms, percent(at.top1)));
                points.collect::<Vec<_>>().join(", ")
            };
            writeln!(to, "  top-1 without the smallest: {}", line(&layer.least_first))?;
            writeln!(to, "  top-1 without the largest:  {}", line(&layer.most_first))?;
        }
        Ok(())
    }
}

pub(crate) fn run(args: &Args, common: &Common) -> anyhow::Result<()> {
    let data = DataDir::locate(common.data.clone());
    let dataset = cp_data::open(&args.dataset, &args.split, &data)?;
    dataset.notes().iter().for_each(|note| output::note(&note.to_string()));
    let net = model::load(&args.model.path, &args.model.arch)?;
    let named = || args.model.path.display().to_string();
    let net = net.with_cp_layers().with_context(named)?;
    let net = only(net, &args.layer).with_context(named)?;
    check_fit(net.architecture(), &*dataset).with_context(named)?;
    let few = spread(&dataset, args.examples)?;
    timing::set_threads(common.threads.unwrap_or(0));
    let device = common.device.device()?;
    let engine = common.engine.engine(device, [Subject::Network(&net)])?;
    let options = EvalOptions { batch_size: args.batch, ..EvalOptions::default() };
    let file = args.model.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut sources = vec![Source { file, sha256: sha256_file(&args.model.path)? }];
    sources.extend_from_slice(dataset.sources());
    let provenance = Provenance::collect(device, common.seed, sources);
    let layers = significance(engine, &net, &few, args.points, &options).with_context(named)?;
    let answer = Answer { examples: few.len(), layers };
    if let Some(out) = &args.out {
        write_page(args, &net, &dataset, &answer, &provenance, out)?;
    }
    output::print(&answer, common.json)
}

/// The network with records of these CP layers alone; of all where none is named.
fn only(net: Network, layers: &[String]) -> anyhow::Result<Network> {
    let known: Vec<String> = net.cp_layers().into_iter().map(String::from).collect();
    if known.is_empty() {
        bail!("no layer of this network is a CP layer: `polyad compress` makes some");
    }
    if let Some(layer) = layers.iter().find(|layer| !known.contains(layer)) {
        return Err(Usage(format!(
            "--layer: '{layer}' is no CP layer; there are: {}",
            known.join(", ")
        ))
        .into());
    }
    if layers.is_empty() {
        return Ok(net);
    }
    let (mut arch, params) = net.into_parts();
    arch.factorized.retain(|layer, _| layers.contains(layer));
    Ok(Network::new(arch, params)?)
}

/// `count` examples, evenly over the whole set, which may be in the order of its classes.
fn spread(data: &Arc<dyn Dataset>, count: usize) -> anyhow::Result<Arc<dyn Dataset>> {
    if count >= data.len() {
        return Ok(Arc::clone(data));
    }
    let indices = (0..count).map(|index| index * data.len() / count).collect();
    Ok(Arc::new(Subset::new(format!("{} of {}", count, data.name()), Arc::clone(data), indices)?))
}

fn write_page(
    args: &Args,
    net: &Network,
    dataset: &Arc<dyn Dataset>,
    answer: &Answer,
    provenance: &Provenance,
    out: &Path,
) -> anyhow::Result<()> {
    let verdict = answer.layers.iter().map(verdict).collect::<Vec<_>>().join(" ");
    let title = format!("Significance of the terms of {}", net.architecture().name);
    let mut page = cp_report::Report::new(title, verdict);
    let images = spread(dataset, args.pictures)?;
    let input = net.input();
    let config = LoaderConfig {
        batch_size: images.len(),
        order: Order::Sequential,
        transform: batch::fitting_transform(images.as_ref(), input)?,
        workers: 0,
        drop_last: false,
    };
    let Some(pictures) = Loader::new(Arc::clone(&images), config)?.next() else {
        bail!("{}: no pictures", args.dataset)
    };
    let x = batch::images_to_array(&pictures?.pixels, input);
    for layer in &answer.layers {
        page.add(Block::heading(format!("`{}`", layer.layer)));
        page.add(curves(layer));
        page.add(table(layer));
        let shown: Vec<usize> = layer.terms.iter().take(SHOWN_TERMS).map(|row| row.term).collect();
        if let Some(plot) = kernels(net, layer, &shown)? {
            page.add(plot);
        }
        if let Some(maps) = term_maps(net, &layer.layer, &[x.view()])? {
            page.add(map_plot(layer, &shown, &maps));
        }
    }
    page.add(Block::text(format!(
        "Top-1 on {} images of `{}` ({}), eval mode; one layer at a time, the others whole. λ is the norm of a term, the product of the norms of its \
         vectors; |kˢ| is the norm of its vector of input channels alone, which depends on how the scale is spread over the vectors.",
        answer.examples, args.dataset, args.split
    )));
    page.add(Block::provenance(provenance.rows()));
    page.write(out).with_context(|| format!("--out {}", out.display()))
}

/// Whether the claim holds for a layer: half of the terms left out, the smallest or the largest.
fn verdict(layer: &LayerSignificance) -> String {
    let half = layer.terms.len().div_ceil(2);
    let at = |curve: &[Dropped]| {
        let near = curve.iter().min_by_key(|at| at.terms.abs_diff(half));
        near.map_or((0, f64::NAN), |at| (at.terms, at.top1))
    };
    let whole = layer.least_first.first().map_or(f64::NAN, |at| at.top1);
    let ((terms, least), (_, most)) = (at(&layer.least_first), at(&layer.most_first));
    format!(
        "`{}`, {} terms: {} whole, {} without the {terms} smallest, {} without the {terms} largest.",
        layer.layer,
        layer.terms.len(),
        percent(whole),
        percent(least),
        percent(most)
    )
}

fn curves(layer: &LayerSignificance) -> XyPlot {
    let points = |curve: &[Dropped]| -> Vec<(f64, f64)> {
        curve.iter().map(|at| (at.terms as f64, at.top1)).collect()
    };
    XyPlot::new(
        format!("Accuracy without terms of {}", layer.layer),
        Axis::count("terms left out"),
        Axis::percent("top-1").include(0.0),
    )
    .series(Series::both("smallest λ first", points(&layer.least_first)))
    .series(Series::both("largest λ first", points(&layer.most_first)))
}

fn table(layer: &LayerSignificance) -> Table {
    let columns = [
        Column::number("order"),
        Column::number("term"),
        Column::number("λ"),
        Column::number("|kˢ|"),
    ];
    let mut table = Table::new(format!("Terms of {} by λ", layer.layer), columns);
    for (order, row) in layer.terms.iter().take(SHOWN_TERMS).enumerate() {
        table.row([
            Cell::count(order as u64 + 1),
            Cell::count(row.term as u64),
            Cell::significant(row.lambda, 4),
            Cell::significant(row.input, 4),
        ]);
    }
    if let Some(more) = layer.terms.len().checked_sub(SHOWN_TERMS).filter(|more| *more > 0) {
        let largest = layer.terms.get(SHOWN_TERMS).map_or(0.0, |row| row.lambda);
        table.note(format!("{more} more, with λ of {largest:.4} at most: `--json` has them."));
    }
    table
}

/// The spatial patterns of the terms; none where the layer has none, or over more than two axes.
fn kernels(
    net: &Network,
    layer: &LayerSignificance,
    shown: &[usize],
) -> anyhow::Result<Option<MapPlot>> {
    let is_drawn = match &net.architecture().factorization(&layer.layer)?.dense {
        Op::Conv(conv) => conv.kernel.len() <= 2 && !conv.is_pointwise(),
        _ => false,
    };
    if !is_drawn {
        return Ok(None);
    }
    let terms = net.terms(&layer.layer)?;
    let mut plot = MapPlot::new(format!("Kernels of the terms of {}", layer.layer), ["kernel"])
        .note("By falling λ. Red is positive, blue negative, each relative to its largest number.");
    for &term in shown {
        let pattern = &terms[term].pattern;
        let width = pattern.shape().last().copied().unwrap_or(1).max(1);
        let flat: Vec<f32> = pattern.iter().copied().collect();
        let map: Map = flat.chunks(width).map(<[f32]>::to_vec).collect();
        plot = plot.row(format!("term {term}"), [map]);
    }
    Ok(Some(plot))
}

/// Larger maps are drawn by every n-th row and column.
const LARGEST: usize = 56;

fn map_plot(layer: &LayerSignificance, shown: &[usize], maps: &[Vec<Array2<f32>>]) -> MapPlot {
    let columns = (1..=maps.len()).map(|picture| format!("picture {picture}"));
    let mut plot = MapPlot::new(format!("Maps of the terms of {}", layer.layer), columns)
        .note("What each term makes of the pictures, in front of the last part; by falling λ, colors as above.");
    for &term in shown {
        let row = maps.iter().map(|terms| {
            let map = &terms[term];
            let step = map.nrows().max(map.ncols()).div_ceil(LARGEST).max(1) as isize;
            let few = map.slice(ndarray::s![..;step, ..;step]);
            few.outer_iter().map(|row| row.to_vec()).collect()
        });
        plot = plot.row(format!("term {term}"), row.collect::<Vec<Map>>());
    }
    plot
}
