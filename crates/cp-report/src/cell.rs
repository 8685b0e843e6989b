//! Numbers as they stand in tables and on cards: digits, separators, signs and what stands for a missing value.

use std::fmt;

/// Stands where there is no value: an en dash.
const MISSING: &str = "–";
/// The minus sign, as wide as a plus; a hyphen is neither.
const MINUS: char = '\u{2212}';
/// Narrow no-break space, between a number and its unit.
const THIN: char = '\u{202f}';

/// One value, formatted.
///
/// Units belong in the header of the column ([`Column::unit`](crate::Column::unit)); where there is no header, as on
/// a card, [`Cell::unit`] adds one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Cell {
    text: String,
    pub(crate) strong: bool,
}

impl Cell {
    /// Words.
    pub fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), strong: false }
    }

    /// Nothing was measured, or nothing was published.
    pub fn missing() -> Self {
        Self::text(MISSING)
    }

    /// A whole number with separators: `61,100,840`.
    pub fn count(value: u64) -> Self {
        Self::text(grouped(&value.to_string()))
    }

    /// A number with that many decimals.
    pub fn number(value: f64, digits: usize) -> Self {
        Self::text(fixed(value, digits))
    }

    /// A number with that many significant digits, as a power of ten where it is very small or very large.
    pub fn significant(value: f64, digits: usize) -> Self {
        Self::text(significant(value, digits))
    }

    /// A whole number in millions: 714,188,480 is `714.2` with one digit.
    pub fn millions(value: u64, digits: usize) -> Self {
        Self::number(value as f64 / 1e6, digits)
    }

    /// A fraction as a percentage: 0.915 is `91.5` with one digit.
    pub fn percent(fraction: f64, digits: usize) -> Self {
        Self::number(100.0 * fraction, digits)
    }

    /// A difference of two fractions in percentage points, always with its sign: −0.004 is `−0.4`.
    pub fn points(difference: f64, digits: usize) -> Self {
        let text = fixed(100.0 * difference, digits);
        let zero = text.chars().all(|c| matches!(c, '0' | '.'));
        let sign = if difference > 0.0 && !zero { "+" } else { "" };
        Self::text(format!("{sign}{text}"))
    }

    /// How many times: `6.94×`.
    pub fn ratio(value: f64, digits: usize) -> Self {
        Self::text(format!("{}×", fixed(value, digits)))
    }

    /// Seconds as milliseconds, with three significant digits and no more than three decimals.
    pub fn millis(seconds: f64) -> Self {
        let ms = 1e3 * seconds;
        let digits = match ms.abs() {
            x if x >= 100.0 => 0,
            x if x >= 10.0 => 1,
            x if x >= 1.0 => 2,
            _ => 3,
        };
        Self::number(ms, digits)
    }

    /// Adds a unit.
    pub fn unit(mut self, unit: &str) -> Self {
        self.text.push(THIN);
        self.text.push_str(unit);
        self
    }

    /// Sets the value in bold.
    pub fn strong(mut self) -> Self {
        self.strong = true;
        self
    }

    /// The text of the cell.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::text(text)
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::text(text)
    }
}

impl From<Option<Cell>> for Cell {
    fn from(cell: Option<Cell>) -> Self {
        cell.unwrap_or_else(Self::missing)
    }
}

/// A number with that many decimals, separators, and a real minus sign.
///
/// What is not finite says so, for "–" would claim that nothing was measured.
pub(crate) fn fixed(value: f64, digits: usize) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "∞".to_owned() } else { format!("{MINUS}∞") };
    }
    let text = format!("{:.*}", digits, value.abs());
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let zero = text.chars().all(|c| matches!(c, '0' | '.'));
    let sign = if value < 0.0 && !zero { MINUS.to_string() } else { String::new() };
    format!("{sign}{}{rest}", grouped(whole))
}

/// See [`Cell::significant`].
pub(crate) fn significant(value: f64, digits: usize) -> String {
    let digits = digits.max(1);
    if value == 0.0 || !value.is_finite() {
        return fixed(value, 0);
    }
    // The exponent after rounding: 9.99 with two digits is 10.
    let text = format!("{:.*e}", digits - 1, value);
    let Some((mantissa, Ok(exponent))) = text.split_once('e').map(|(m, e)| (m, e.parse::<i32>()))
    else {
        return fixed(value, digits);
    };
    if (-3..6).contains(&exponent) {
        let decimals = usize::try_from(digits as i32 - 1 - exponent).unwrap_or(0);
        return fixed(value, decimals);
    }
    let superscript = |c| match c {
        '-' => '⁻',
        '1' => '¹',
        '2' => '²',
        '3' => '³',
        digit => char::from_u32('⁰' as u32 + digit as u32 - '0' as u32).unwrap_or(digit),
    };
    let exponent: String = exponent.to_string().chars().map(superscript).collect();
    format!("{}{THIN}×{THIN}10{}", mantissa.replace('-', "\u{2212}"), exponent)
}

/// Commas between groups of three digits.
fn grouped(digits: &str) -> String {
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(cell: Cell, expected: &str) {
        assert_eq!(cell.as_str(), expected);
    }

    #[test]
    fn counts_have_separators() {
        check(Cell::count(61_100_840), "61,100,840");
        check(Cell::count(0), "0");
        check(Cell::count(999), "999");
        check(Cell::count(9_999), "9,999");
        check(Cell::count(10_000), "10,000");
        check(Cell::count(1_000_000), "1,000,000");
    }

    #[test]
    fn numbers_round_and_keep_their_sign() {
        check(Cell::number(-1234567.891, 2), "−1,234,567.89");
        check(Cell::number(2.675, 1), "2.7");
        check(Cell::number(-0.001, 2), "0.00");
        check(Cell::number(f64::NAN, 2), "NaN");
        check(Cell::number(f64::NEG_INFINITY, 2), "−∞");
        check(Cell::millions(714_188_480, 1), "714.2");
    }

    #[test]
    fn fractions_become_percentages() {
        check(Cell::percent(0.9151, 1), "91.5");
        check(Cell::percent(1.0, 1), "100.0");
        check(Cell::percent(0.915, 1).unit("%"), "91.5\u{202f}%");
        check(Cell::points(-0.0041, 1), "−0.4");
        check(Cell::points(0.0107, 2), "+1.07");
        check(Cell::points(0.0001, 1), "0.0");
        check(Cell::points(-0.0001, 1), "0.0");
    }

    #[test]
    fn ratios_and_times() {
        check(Cell::ratio(6.9434, 2), "6.94×");
        check(Cell::ratio(3.5, 1), "3.5×");
        check(Cell::millis(0.011_84), "11.8");
        check(Cell::millis(0.001_25), "1.25");
        check(Cell::millis(0.000_125_4), "0.125");
        check(Cell::millis(1.5), "1,500");
        check(Cell::millis(12.5), "12,500");
    }

    #[test]
    fn significant_digits() {
        check(Cell::significant(0.400_64, 4), "0.4006");
        check(Cell::significant(0.0, 4), "0");
        check(Cell::significant(123.456, 3), "123");
        check(Cell::significant(9.99, 2), "10");
        check(Cell::significant(2.345e-5, 3), "2.35\u{202f}×\u{202f}10⁻⁵");
        check(Cell::significant(-1e12, 1), "−1\u{202f}×\u{202f}10¹²");
    }

    #[test]
    fn absence_is_a_dash() {
        check(Cell::from(None), "–");
        check(Cell::from(Some(Cell::count(3))), "3");
    }
}
