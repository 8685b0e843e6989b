//! The plots of a data set's page.

use anyhow::Result;
use cp_net::arch;
use cp_report::{Axis, Report, Series, XyPlot};

use super::plans::{Rule, backbone_params, published};
use super::report::{Findable, Size, top1};
use super::{Outcome, Transfer, Whole};
use crate::context::Context;
use crate::figures::number;

impl Transfer {
    pub(super) fn size_plot(&self, found: &Findable, sizes: &[Size<'_>]) -> Result<XyPlot> {
        let published_of = &self.settings.published;
        let mut plot = XyPlot::new(
            "Accuracy against parameters of the backbone",
            Axis::count("parameters without the head's").log(),
            Axis::percent("test top-1"),
        );
        for rule in Rule::COMPRESSED {
            let points = sizes.iter().filter_map(|size| size.of(rule)).map(|outcome| {
                let (mean, deviation) = outcome.head_top1();
                (outcome.backbone as f64, mean, deviation)
            });
            plot = plot.series(Series::both(format!("{}, head only", rule.label()), points));
        }
        for rule in [Rule::Dense].iter().chain(&self.settings.whole_plans) {
            let points: Vec<(f64, f64)> = (found.whole().into_iter())
                .filter(|(_, outcome, _)| outcome.rule == *rule)
                .map(|(_, outcome, whole)| (outcome.backbone as f64, whole.test.top1))
                .collect();
            if !points.is_empty() {
                plot =
                    plot.series(Series::points(format!("{}, whole network", rule.label()), points));
            }
        }
        if let Some(dense) = found.outcomes.first() {
            let (mean, deviation) = top1(&dense.heads);
            let points = [(dense.backbone as f64, mean, deviation)];
            plot = plot.series(Series::points("dense, head only", points));
        }
        let study = arch::by_name(&published_of.arch)?;
        let mut points = Vec::new();
        for &(ratio, top1) in &published_of.points {
            let size = backbone_params(&published(&study, ratio)?.preview(&study)?)?;
            points.push((size as f64, top1));
        }
        points.push((backbone_params(&study)? as f64, published_of.dense));
        let name = format!("published: {}, {}", published_of.source, published_of.arch);
        Ok(plot.series(Series::both(name, points)).note(format!(
            "Published: another backbone and other input sizes, the head trained for one epoch; read off its figures. Error bars: one standard \
             deviation over the seeds of the heads. The last point of {} is its dense network.",
            published_of.source
        )))
    }

    pub(super) fn ratio_plot(&self, sizes: &[Size<'_>], dense: &Outcome) -> XyPlot {
        let published = &self.settings.published;
        let mut plot = XyPlot::new(
            "Accuracy against ratio",
            Axis::number("rank / break-even rank of the published rule").log(),
            Axis::percent("test top-1, head only"),
        );
        for rule in Rule::COMPRESSED {
            let points = sizes.iter().filter_map(|size| {
                let (mean, deviation) = size.of(rule)?.head_top1();
                Some((size.ratio, mean, deviation))
            });
            plot = plot.series(Series::both(rule.label(), points));
        }
        let name = format!("published: {}, {}", published.source, published.arch);
        plot.series(Series::both(name, published.points.iter().copied()))
            .reference("dense, sound protocol", top1(&dense.heads).0)
            .reference("dense, published protocol", top1(&dense.published_heads).0)
            .reference(format!("published: {}, dense", published.source), published.dense)
    }

    /// Accuracy of the networks that were trained whole, against what they cost.
    pub(super) fn cost_plots(&self, report: &mut Report, found: &Findable) {
        let whole = found.whole();
        let plot = |title: &str, axis: Axis, cost: &dyn Fn(usize, &Outcome) -> f64| {
            let points = |rule: Rule, top1: &dyn Fn(&Outcome, &Whole) -> f64| -> Vec<(f64, f64)> {
                let mut points: Vec<(f64, f64)> = (whole.iter())
                    .filter(|(_, outcome, _)| outcome.rule == rule)
                    .map(|(at, outcome, whole)| (cost(*at, outcome), top1(outcome, whole)))
                    .collect();
                points.sort_by(|a, b| a.0.total_cmp(&b.0));
                points
            };
            let mut plot = XyPlot::new(title, axis, Axis::percent("test top-1"));
            for rule in [Rule::Dense].iter().chain(&self.settings.whole_plans) {
                let label = rule.label();
                plot = plot
                    .series(Series::both(
                        format!("{label}, whole network"),
                        points(*rule, &|_, whole| whole.test.top1),
                    ))
                    .series(Series::both(
                        format!("{label}, head only"),
                        points(*rule, &|outcome, _| outcome.head_top1().0),
                    ));
            }
            plot
        };
        report.add(plot(
            "Accuracy against multiply-accumulates",
            Axis::count("MACs per image").log(),
            &|_, outcome| outcome.macs as f64,
        ));
        let batch = self.settings.timing_batch;
        for (engine, times) in &found.latencies {
            report.add(plot(
                &format!("Accuracy against latency in {engine}"),
                Axis::number(format!("latency of a batch of {batch} (ms)")).log(),
                &|at, _| times[at].median * 1e3,
            ));
        }
    }

    pub(super) fn training_curves(&self, context: &Context, found: &Findable) -> Result<XyPlot> {
        let mut curves = XyPlot::new(
            "Whole network: validation accuracy",
            Axis::count("epoch"),
            Axis::percent("top-1"),
        );
        for (_, outcome, _) in found.whole() {
            let epochs = context.dir().epochs(&format!("{}-whole", outcome.cell().name()))?;
            let points: Vec<(f64, f64)> =
                epochs.iter().filter_map(|e| Some((number(e), e.validation?.top1))).collect();
            curves = curves.series(Series::line(outcome.cell().name(), points));
        }
        Ok(curves)
    }
}
