//! Quantities and errors in words, for messages.

use std::error::Error;

/// An error and its causes in one line, without those that the one before already spells out.
pub fn causes_in_words(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut last = line.clone();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !last.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
            last = text;
        }
        next = cause.source();
    }
    line
}

/// A number of bytes in the largest unit that it fills.
pub fn bytes_in_words(bytes: u128) -> String {
    const UNITS: [&str; 7] = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut unit = 0;
    let mut number = bytes as f64;
    while number >= 1024.0 && unit + 1 < UNITS.len() {
        number /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && number < 100.0);
    if number > 1e6 {
        format!("over a million {}", UNITS[unit])
    } else {
        format!("{number:.digits$} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Of(&'static str, Option<Box<Of>>);

    impl std::fmt::Display for Of {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Of {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_deref().map(|cause| cause as &(dyn Error + 'static))
        }
    }

    #[test]
    fn causes_come_once() {
        let cause = |text, cause| Some(Box::new(Of(text, cause)));
        let told = Of("layer 'a': rank is 0", cause("rank is 0", cause("of a plan", None)));
        assert_eq!(causes_in_words(&told), "layer 'a': rank is 0: of a plan");
        assert_eq!(causes_in_words(&Of("alone", None)), "alone");
    }

    #[test]
    fn numbers_of_bytes() {
        let check = |bytes, expected: &str| assert_eq!(bytes_in_words(bytes), expected);
        check(12, "12 bytes");
        check(6 << 30, "6.0 GiB");
        check(500 << 30, "500 GiB");
        check(u128::from(u64::MAX), "16.0 EiB");
        check(u128::MAX, "over a million EiB");
    }
}
