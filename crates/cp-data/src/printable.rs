//! Names of files and words of foreign files on a terminal: what would not show, or would steer it, is escaped.

use std::fmt::Write;
use std::path::Path;

/// `text` on one line, with control characters, line separators and marks of writing direction as escapes (`\u{1b}`).
///
/// ```
/// assert_eq!(cp_data::printable("caf\u{e9}/\u{1b}[2J\n.png"), "caf\u{e9}/\\u{1b}[2J\\n.png");
/// ```
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        push(&mut out, character);
    }
    out
}

/// A path as [`printable`] text; bytes that are no UTF-8 appear as `\xE9`.
///
/// ```
/// # #[cfg(unix)] {
/// use std::os::unix::ffi::OsStrExt;
/// let name = std::ffi::OsStr::from_bytes(b"caf\xe9.png");
/// assert_eq!(cp_data::printable_path(name), "caf\\xE9.png");
/// # }
/// ```
pub fn printable_path(path: impl AsRef<Path>) -> String {
    printable_bytes(path.as_ref().as_os_str().as_encoded_bytes())
}

/// Text in bytes of an unknown encoding, as [`printable_path`].
pub(crate) fn printable_bytes(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        chunk.valid().chars().for_each(|character| push(&mut out, character));
        for byte in chunk.invalid() {
            // Writing to a string cannot fail.
            let _ = write!(out, "\\x{byte:02X}");
        }
    }
    out
}

fn push(out: &mut String, character: char) {
    // Direction marks and line separators are no control characters to Unicode, but reorder or break a line all the same.
    let unseen = matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
    if character.is_control() || unseen {
        out.extend(character.escape_default());
    } else {
        out.push(character);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(bytes: &[u8], expected: &str) {
        assert_eq!(printable_bytes(bytes), expected);
    }

    #[test]
    fn what_would_steer_a_terminal_is_escaped() {
        check("train/Käfer/1 (2).png".as_bytes(), "train/Käfer/1 (2).png");
        check(b"\x1b[31mred\x07", "\\u{1b}[31mred\\u{7}");
        check(b"a\nb\tc\r", "a\\nb\\tc\\r");
        check(b"caf\xe9\xff.png", "caf\\xE9\\xFF.png");
        check("\u{202e}gnp.exe\u{9b}".as_bytes(), "\\u{202e}gnp.exe\\u{9b}");
    }
}
