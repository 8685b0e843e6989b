//! Where an axis begins and ends, and which numbers stand at it.

use crate::cell::fixed;
use crate::plot::{Axis, TickFormat};

/// An axis with its extent. Positions are values, or their decimal logarithms where the axis is logarithmic.
#[derive(Debug, Clone)]
pub(crate) struct Scale {
    log: bool,
    format: TickFormat,
    /// First and last value shown, in value units.
    first: f64,
    last: f64,
}

/// A number at an axis.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tick {
    /// Position on the scale.
    pub(crate) at: f64,
    /// What stands there.
    pub(crate) label: String,
}

impl Scale {
    /// A scale that shows all `values` with a little room on both sides; values with no place on the axis are ignored.
    pub(crate) fn new(axis: &Axis, values: impl IntoIterator<Item = f64>) -> Self {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in
            values.into_iter().chain(axis.include.iter().copied()).filter(|&value| axis.has(value))
        {
            (low, high) = (low.min(value), high.max(value));
        }
        if low > high {
            (low, high) = if axis.log { (1.0, 10.0) } else { (0.0, 1.0) };
        }
        let scale = Self { log: axis.log, format: axis.format, first: low, last: high };
        // A single value stands in the middle.
        let (from, to) = (scale.position(low), scale.position(high));
        let spread = (to - from).max(1e-9 * from.abs().max(to.abs()));
        let room = if to > from {
            0.05 * spread
        } else if axis.log {
            0.3
        } else if from == 0.0 {
            1.0
        } else {
            0.1 * from.abs()
        };
        // Room below zero would suggest that quantities such as losses and counts could be negative.
        let below = scale.value(from - room);
        let above = scale.value(to + room);
        let first = if !axis.log && low >= 0.0 { below.max(0.0) } else { below };
        let last = if !axis.log && high <= 0.0 { above.min(0.0) } else { above };
        Self { first, last: if last > first { last } else { first + 1.0 }, ..scale }
    }

    /// A scale for bars: begins or ends at zero, unless there are values of both signs.
    pub(crate) fn from_zero(axis: &Axis, values: impl IntoIterator<Item = f64>) -> Self {
        Self::new(axis, values.into_iter().chain([0.0]))
    }

    /// Where a value stands.
    pub(crate) fn position(&self, value: f64) -> f64 {
        if self.log { value.log10() } else { value }
    }

    /// The value at a position.
    fn value(&self, position: f64) -> f64 {
        if self.log { 10f64.powf(position) } else { position }
    }

    /// First and last position.
    pub(crate) fn range(&self) -> std::ops::Range<f64> {
        self.position(self.first)..self.position(self.last)
    }

    /// About `wanted` ticks with round numbers.
    pub(crate) fn ticks(&self, wanted: usize) -> Vec<Tick> {
        let wanted = wanted.max(2);
        let decades = if self.log { self.decade_values(wanted) } else { None };
        let by_decade = decades.is_some();
        let values = decades.unwrap_or_else(|| self.linear_values(wanted));
        let step = values.windows(2).map(|pair| pair[1] - pair[0]).fold(f64::INFINITY, f64::min);
        values
            .into_iter()
            .map(|value| {
                // Between decades every number has its own number of decimals.
                let step = if by_decade { value } else { step };
                Tick { at: self.position(value), label: label(value, step, self.format) }
            })
            .collect()
    }

    /// Multiples of 1, 2 or 5 times a power of ten.
    fn linear_values(&self, wanted: usize) -> Vec<f64> {
        let span = self.last - self.first;
        let power = 10f64.powf((span / wanted as f64).log10().floor());
        let off = |step: f64| (span / step - wanted as f64).abs();
        let steps = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
        let mut step =
            steps.into_iter().min_by(|a, b| off(*a).total_cmp(&off(*b))).unwrap_or(power);
        if self.format == TickFormat::Count {
            step = step.max(1.0);
        }
        let from = (self.first / step - 1e-9).ceil();
        let to = (self.last / step + 1e-9).floor();
        let count = (to - from).max(-1.0) as usize;
        if to < from {
            return Vec::new();
        }
        (0..=count).map(|i| (from + i as f64) * step).collect()
    }

    /// 1-2-5, 1-3 or 1 in each decade, or every few decades: the most that is wanted. `None` within less than a decade
    /// or so, where these are too few and the linear ones are better.
    fn decade_values(&self, wanted: usize) -> Option<Vec<f64>> {
        let decades = self.first.log10().floor() as i32..=self.last.log10().ceil() as i32;
        let within =
            |value: &f64| (self.first * (1.0 - 1e-9)..=self.last * (1.0 + 1e-9)).contains(value);
        let sets = [
            (&[1.0, 2.0, 5.0][..], 1),
            (&[1.0, 3.0], 1),
            (&[1.0], 1),
            (&[1.0], 2),
            (&[1.0], 4),
            (&[1.0], 10),
        ];
        let values = sets.into_iter().find_map(|(factors, every)| {
            let values: Vec<f64> = decades
                .clone()
                .filter(|decade| decade % every == 0)
                .flat_map(|decade| factors.iter().map(move |factor| factor * 10f64.powi(decade)))
                .filter(within)
                .collect();
            (values.len() <= wanted + 2).then_some(values)
        })?;
        (values.len() >= 3 || self.last >= 20.0 * self.first).then_some(values)
    }
}

/// A number at an axis whose neighbors are `step` away: as many decimals as tell them apart.
fn label(value: f64, step: f64, format: TickFormat) -> String {
    let plain = |value: f64, step: f64| fixed(value, decimals(step));
    match format {
        TickFormat::Percent => format!("{}%", plain(100.0 * value, 100.0 * step)),
        TickFormat::Ratio => format!("{}×", plain(value, step)),
        TickFormat::Number | TickFormat::Count => {
            let (unit, suffix) = match value.abs() {
                x if x >= 1e9 * (1.0 - 1e-9) => (1e9, "G"),
                x if x >= 1e6 * (1.0 - 1e-9) => (1e6, "M"),
                x if x >= 1e4 * (1.0 - 1e-9) || (x >= 1e3 && step >= 1e3) => (1e3, "k"),
                x if x > 0.0 && x < 1e-3 => return crate::cell::significant(value, 1),
                _ => (1.0, ""),
            };
            format!("{}{suffix}", plain(value / unit, step / unit))
        }
    }
}

/// Decimals needed to show multiples of `step`, which has one significant digit.
fn decimals(step: f64) -> usize {
    if !step.is_finite() || step <= 0.0 {
        return 0;
    }
    // The factor keeps 0.1, which is a little less in binary, from asking for two.
    let exponent = (step * (1.0 + 1e-6)).log10().floor();
    if exponent < 0.0 { -exponent as usize } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: Axis, values: &[f64], wanted: usize) -> Vec<String> {
        Scale::new(&axis, values.iter().copied())
            .ticks(wanted)
            .into_iter()
            .map(|tick| tick.label)
            .collect()
    }

    #[track_caller]
    fn check(axis: Axis, values: &[f64], wanted: usize, expected: &[&str]) {
        assert_eq!(labels(axis, values, wanted), expected);
    }

    #[test]
    fn linear_ticks_are_round() {
        check(Axis::number("x"), &[0.0, 1.0], 5, &["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        check(Axis::number("x"), &[0.12, 0.48], 5, &["0.2", "0.3", "0.4"]);
        check(
            Axis::percent("x"),
            &[0.8, 0.92],
            5,
            &["80%", "82%", "84%", "86%", "88%", "90%", "92%"],
        );
        check(Axis::number("x"), &[-2.0, 2.0], 5, &["−2", "−1", "0", "1", "2"]);
    }

    #[test]
    fn whole_numbers_have_whole_ticks() {
        check(Axis::count("epoch"), &[1.0, 2.0, 3.0], 8, &["1", "2", "3"]);
        check(
            Axis::count("parameters"),
            &[0.0, 853_018.0],
            5,
            &["0", "200k", "400k", "600k", "800k"],
        );
        check(Axis::count("parameters"), &[0.2e6, 11.2e6], 4, &["0", "5M", "10M"]);
    }

    #[test]
    fn logarithmic_ticks_follow_the_decades() {
        check(Axis::number("x").log(), &[1.0, 100.0], 6, &["1", "2", "5", "10", "20", "50", "100"]);
        check(
            Axis::number("x").log(),
            &[0.01, 1000.0],
            6,
            &["0.01", "0.1", "1", "10", "100", "1k"],
        );
        check(Axis::count("x").log(), &[1e3, 1e9], 4, &["10k", "1M", "100M"]);
        check(Axis::ratio("x").log(), &[4.0, 8.0], 5, &["4×", "5×", "6×", "7×", "8×"]);
    }

    #[test]
    fn degenerate_ranges_still_have_an_extent() {
        for values in [&[][..], &[3.0], &[0.0, 0.0], &[f64::NAN, f64::INFINITY], &[-5.0], &[1e-300]]
        {
            for axis in
                [Axis::number("x"), Axis::number("x").log(), Axis::count("x"), Axis::percent("x")]
            {
                let scale = Scale::new(&axis, values.iter().copied());
                let range = scale.range();
                assert!(
                    range.start < range.end && range.start.is_finite() && range.end.is_finite(),
                    "{scale:?}"
                );
                assert!(scale.ticks(5).len() < 20, "{scale:?}");
            }
        }
    }

    #[test]
    fn scales_do_not_invent_negative_values() {
        let scale = Scale::new(&Axis::number("loss"), [0.01, 2.3]);
        assert!(scale.range().start >= 0.0);
        let bars = Scale::from_zero(&Axis::number("change"), [-1.0, -3.0]);
        assert!(bars.range().end <= 0.0 && bars.range().start < -3.0);
    }
}
