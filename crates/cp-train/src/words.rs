//! Quantities in words, for messages.

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
