//! The page of a data set.

use anyhow::{Context as _, Result};
use cp_plan::LayerReport;
use cp_report::{Block, Card, Cell, Report};
use cp_train::Latency;
use cp_train::engine::EngineName;
use cp_train::timing::{self, Timing};
use serde_json::json;

use super::heads::HeadResult;
use super::plans::Rule;
use super::settings::{Origin, Settings};
use super::{Outcome, Transfer, Whole};
use crate::context::Context;
use crate::experiment::{Findings, Row};
use crate::figures::{fewer, layer_table, mean_deviation, speeds, threads_text};

/// All that a page is made of.
pub(super) struct Findable {
    /// The dense backbone first.
    pub(super) outcomes: Vec<Outcome>,
    /// What became of the layers of each.
    pub(super) layers: Vec<Vec<LayerReport>>,
    /// Of the networks that were trained whole, in the order of the outcomes.
    pub(super) latencies: Vec<(EngineName, Vec<Timing>)>,
}

/// What one size came to.
pub(super) struct Size<'a> {
    pub(super) ratio: f64,
    /// In the order of [`Rule::COMPRESSED`].
    plans: [Option<&'a Outcome>; 4],
}

impl Outcome {
    /// Mean and standard deviation of the test accuracy of the heads by the protocol of this backbone.
    pub(super) fn head_top1(&self) -> (f64, f64) {
        top1(if self.heads.is_empty() { &self.published_heads } else { &self.heads })
    }

    pub(super) fn ratio_text(&self) -> String {
        self.ratio.map_or("dense".into(), |ratio| ratio.to_string())
    }
}

pub(super) fn top1(heads: &[HeadResult]) -> (f64, f64) {
    mean_deviation(&heads.iter().map(|head| head.test.top1).collect::<Vec<_>>())
}

impl Findable {
    fn sizes(&self, settings: &Settings) -> Vec<Size<'_>> {
        let of = |ratio: f64, rule: Rule| {
            self.outcomes.iter().find(|o| o.ratio == Some(ratio) && o.rule == rule)
        };
        let size =
            |&ratio: &f64| Size { ratio, plans: Rule::COMPRESSED.map(|rule| of(ratio, rule)) };
        settings.ratios.iter().map(size).collect()
    }

    /// Those that were trained whole, the dense one first, each with its place in the latencies.
    pub(super) fn whole(&self) -> Vec<(usize, &Outcome, &Whole)> {
        let whole = self.outcomes.iter().filter_map(|o| Some((o, o.whole.as_ref()?)));
        whole.enumerate().map(|(at, (outcome, whole))| (at, outcome, whole)).collect()
    }

    /// The place of the compressed whole network that is best on the validation images.
    fn best(&self) -> Option<(usize, &Outcome, &Whole)> {
        let compressed = self.whole().into_iter().filter(|(_, outcome, _)| outcome.ratio.is_some());
        compressed.max_by(|a, b| a.2.validation.top1.total_cmp(&b.2.validation.top1))
    }
}

impl Size<'_> {
    pub(super) fn of(&self, rule: Rule) -> Option<&Outcome> {
        let at = Rule::COMPRESSED.iter().position(|&other| other == rule)?;
        self.plans[at]
    }

    /// How far `rule` lies above `other`, as a difference of mean test accuracies.
    pub(super) fn gain(&self, rule: Rule, other: Rule) -> Option<f64> {
        Some(self.of(rule)?.head_top1().0 - self.of(other)?.head_top1().0)
    }
}

/// Whether `rule` is above `other` at every size, by how much, and where it is not.
fn gains_in_words(sizes: &[Size<'_>], rule: Rule, other: Rule) -> String {
    let gains: Vec<(f64, f64)> =
        sizes.iter().filter_map(|size| Some((size.ratio, size.gain(rule, other)?))).collect();
    let [rule, other] = [rule, other].map(Rule::phrase);
    let each = || gains.iter().map(|(_, gain)| *gain);
    let (Some(least), Some(most)) = (each().reduce(f64::min), each().reduce(f64::max)) else {
        return format!("No size has both {rule} and {other}.");
    };
    let points = |gain: f64| Cell::points(gain, 2);
    let range = if gains.len() == 1 {
        format!("{} points", points(least))
    } else {
        format!("{} to {} points", points(least), points(most))
    };
    let not: Vec<String> = (gains.iter())
        .filter(|(_, gain)| *gain <= 0.0)
        .map(|(ratio, gain)| format!("{ratio} ({})", points(*gain)))
        .collect();
    let (count, sizes) = (not.len(), gains.len());
    match count {
        0 => format!(
            "With the head alone trained, {rule} is above {other} at every size, by {range}."
        ),
        _ => format!(
            "With the head alone trained, {rule} is not above {other} at {count} of {sizes} sizes, those of ratio {}; over all sizes the difference is {range}.",
            not.join(", ")
        ),
    }
}

impl Transfer {
    pub(super) fn findings(&self, context: &Context, found: &Findable) -> Result<Findings> {
        let settings = &self.settings;
        let sizes = found.sizes(settings);
        let dense = found.outcomes.first().context("the dense backbone is always there")?;
        let title = format!("{} moved to {}", settings.arch, settings.dataset);
        let mut report = Report::new(title, self.verdict(found, &sizes));
        report.add(Block::cards(cards(found, &sizes, dense)));
        if settings.is_drawn() {
            report.add(Block::text(
                "Random weights: this run only shows that every step works; its accuracies say nothing of the method.",
            ));
        }
        report.add(Block::heading("Head only, at every size"));
        report.add(self.head_table(&sizes, dense));
        report.add(self.size_plot(found, &sizes)?);
        report.add(self.ratio_plot(&sizes, dense));
        if !found.whole().is_empty() {
            report.add(Block::heading("The whole network trained"));
            report.add(self.whole_table(found, &sizes));
            self.cost_plots(&mut report, found);
            report.add(self.training_curves(context, found)?);
        }
        if let Some(at) = found.outcomes.iter().position(|o| o.rule == Rule::Ours) {
            let ratio = found.outcomes[at].ratio_text();
            report.add(Block::heading(format!(
                "The layers of our plan at the size of ratio {ratio}"
            )));
            report.add(layer_table(&found.layers[at]));
        }
        report.add(Block::heading("Protocol"));
        for paragraph in self.protocol(dense) {
            report.add(Block::text(paragraph));
        }
        let gains: Vec<_> = (sizes.iter())
            .map(|size| json!({ "ratio": size.ratio, "gain": size.gain(Rule::Ours, Rule::Published) }))
            .collect();
        let result =
            json!({ "outcomes": found.outcomes, "latency": found.latencies, "gains": gains });
        let rows = self.row(found).into_iter().collect();
        Ok(Findings { report, result, rows, fault: None })
    }

    fn verdict(&self, found: &Findable, sizes: &[Size<'_>]) -> String {
        let Settings { arch, dataset, .. } = &self.settings;
        let gains = gains_in_words(sizes, Rule::Ours, Rule::Published);
        let ranks = gains_in_words(sizes, Rule::Ours, Rule::PublishedRanks);
        let whole = match (found.whole().first(), found.best()) {
            (Some((_, dense, dense_whole)), Some((at, best, whole))) => format!(
                " Trained whole, the dense network reaches {:.2} % on the test images; the compressed one that is best on the validation images ({}, \
                 at the size of ratio {}) reaches {:.2} % with {:.1}× fewer parameters, {:.1}× fewer multiply-accumulates and {}.",
                100.0 * dense_whole.test.top1,
                best.rule.phrase(),
                best.ratio_text(),
                100.0 * whole.test.top1,
                dense.params as f64 / best.params as f64,
                dense.macs as f64 / best.macs as f64,
                speed(found, at),
            ),
            _ => String::new(),
        };
        format!("{arch} on {dataset}. {gains} {ranks}{whole}")
    }

    /// What was done, what is not as in the study, and what was not run.
    fn protocol(&self, dense: &Outcome) -> Vec<String> {
        let Self { settings, images, .. } = self;
        let [height, width] = settings.input;
        let study = &settings.published;
        let published = format!(
            "Published protocol: rank ⌊ratio · ⌊break-even⌋⌋ of every convolution with a spatial extent, as CP-4; the others stay dense; {} sweeps of \
             ALS on the kernels alone, nothing repaired; a new head trained for {} on the frozen backbone. What differs from {}: batch \
             normalization under the frozen backbone stays in eval mode, and so does every evaluation (there both are in train mode); ranks are at \
             least 1; every draw is seeded; no validation image is trained on; the head's rule and rate are those of the sound protocol; the backbone is \
             {} at {height}×{width} and not {} at 224×224.",
            settings.decompose.published_sweeps,
            epochs(settings.published_epochs),
            study.source,
            settings.arch,
            study.arch,
        );
        let statistics = match settings.decompose.statistics {
            0 => "on the kernels alone".to_owned(),
            images => format!(
                "for the inputs that the layers get on {images} training images of the target"
            ),
        };
        let sound = format!(
            "Sound protocol: decomposed {statistics}, batch normalizations, where there are any, measured anew on training images; the backbone in eval mode \
             runs once over all images, and the head learns from these features for {}, without augmentation, since the features are fixed. \
             Our plan: forms and ranks of all layers, chosen by their errors for the number of parameters that the published ranks give. Late-heavy: \
             rank / break-even rank falls geometrically from 0.95 in the first layer to what the same size leaves for the last. Then, at the ratios {}, \
             everything is trained for {}.",
            epochs(settings.head.epochs),
            settings.whole_ratios.iter().map(f64::to_string).collect::<Vec<_>>().join(", "),
            epochs(settings.whole.epochs),
        );
        let counts = format!(
            "{} training and {} validation images. Epochs and learning rates are the same for all sizes and were fixed beforehand; each network was \
             tested once, on {} images. What is shown first is chosen on validation images. Latency: median of forward passes of all networks in all \
             engines in turn, {}.",
            images.train.train.len(),
            images.train.validation.as_ref().map_or(0, |set| set.len()),
            dense.heads.first().map_or(0, |head| head.test.examples),
            threads_text(timing::set_threads(0)),
        );
        let mut paragraphs = vec![published, sound, counts];
        let is_study = settings.arch == study.arch && settings.input == [224, 224];
        if !is_study || settings.is_drawn() || settings.backbone == Origin::Own {
            paragraphs.push(format!(
                "Not run here: the study's own configuration, {} of ImageNet at 224×224 (`cargo xtask transfer --dataset {} --arch {}`). It ships, its \
                 backbone has the twelve published sizes, and it has been tried with random weights only.",
                study.arch, settings.dataset, study.arch
            ));
        }
        paragraphs
    }

    /// The row of the README.
    fn row(&self, found: &Findable) -> Option<Row> {
        let (_, dense, dense_whole) = found.whole().into_iter().next()?;
        let (at, best, whole) = found.best()?;
        let latency = |(engine, times): &(EngineName, Vec<Timing>)| Latency {
            engine: *engine,
            batch: self.settings.timing_batch,
            threads: timing::set_threads(0),
            dense: times[0],
            compressed: times[at],
        };
        let Settings { arch, dataset, .. } = &self.settings;
        Some(Row {
            network: format!(
                "{arch} moved, {} at the size of ratio {}",
                best.rule.label(),
                best.ratio_text()
            ),
            data: format!("{dataset}, {} test images", whole.test.examples),
            params: fewer(dense.params, best.params),
            macs: fewer(dense.macs, best.macs),
            top1: format!(
                "{:.2} % → {:.2} %",
                100.0 * dense_whole.test.top1,
                100.0 * whole.test.top1
            ),
            speed: speeds(&found.latencies.iter().map(latency).collect::<Vec<_>>()),
        })
    }
}

fn cards(found: &Findable, sizes: &[Size<'_>], dense: &Outcome) -> Vec<Card> {
    let head = top1(&dense.heads).0;
    let mut cards =
        vec![Card::new("test top-1, dense, head only", Cell::percent(head, 2).unit("%"))];
    let gains: Vec<f64> =
        sizes.iter().filter_map(|size| size.gain(Rule::Ours, Rule::Published)).collect();
    if let Some(least) = gains.iter().copied().reduce(f64::min) {
        let note = format!("the least of {} sizes, head only", gains.len());
        let card = Card::new("ours − published protocol", Cell::points(least, 2).unit("points"));
        cards.push(card.note(note));
    }
    if let Some((_, _, whole)) = found.whole().first() {
        let top1 = Cell::percent(whole.test.top1, 2).unit("%");
        cards.push(Card::new("test top-1, dense, whole", top1));
    }
    if let Some((at, best, whole)) = found.best() {
        let top1 = Cell::percent(whole.test.top1, 2).unit("%");
        let note = format!("size of ratio {}, {}", best.ratio_text(), speed(found, at));
        cards.push(Card::new("test top-1, compressed, whole", top1).note(note));
    }
    cards
}

fn epochs(count: usize) -> String {
    if count == 1 { "1 epoch".into() } else { format!("{count} epochs") }
}

/// How many times as fast as the dense network the one at this place is, engine by engine.
fn speed(found: &Findable, at: usize) -> String {
    let one = |(engine, times): &(EngineName, Vec<Timing>)| {
        format!("{:.2}× the speed in {engine}", times[0].median / times[at].median)
    };
    found.latencies.iter().map(one).collect::<Vec<_>>().join(" and ")
}

#[cfg(test)]
mod tests {
    use cp_train::Evaluation;

    use super::*;

    fn outcome(rule: Rule, top1: f64) -> Outcome {
        let found = Evaluation { examples: 100, top1, top5: 1.0, loss: 1.0, seconds: 0.0 };
        let head = HeadResult { seed: 1, validation: found, test: found };
        let [published_heads, heads] = match rule {
            Rule::Published => [vec![head], Vec::new()],
            _ => [Vec::new(), vec![head]],
        };
        Outcome {
            ratio: Some(0.5),
            rule,
            backbone: 10,
            params: 20,
            macs: 30,
            mean_rel_error: None,
            published_heads,
            heads,
            whole: None,
        }
    }

    #[test]
    fn a_size_at_which_ours_is_not_above_is_named() {
        let [low, high, even] = [0.5, 0.625, 0.75];
        let published = [outcome(Rule::Published, low), outcome(Rule::Published, even)];
        let ours = [outcome(Rule::Ours, high), outcome(Rule::Ours, even)];
        let sizes = [0, 1].map(|at| Size {
            ratio: [0.1, 0.9][at],
            plans: [Some(&published[at]), None, None, Some(&ours[at])],
        });
        let above = gains_in_words(&sizes[..1], Rule::Ours, Rule::Published);
        assert!(above.ends_with("at every size, by +12.50 points."), "{above}");
        let not = gains_in_words(&sizes, Rule::Ours, Rule::Published);
        assert!(not.contains("is not above"), "{not}");
        assert!(not.contains("1 of 2 sizes, those of ratio 0.9 (0.00);"), "{not}");
        let none = gains_in_words(&sizes, Rule::Ours, Rule::LateHeavy);
        assert!(none.starts_with("No size has both"), "{none}");
    }
}
