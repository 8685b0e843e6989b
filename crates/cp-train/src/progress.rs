//! Progress bars on standard error; none where it is no terminal.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A line with a message and no end that is known, labelled `what`.
pub fn spinner(what: impl Into<String>) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    if !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    if let Ok(style) = ProgressStyle::with_template("{prefix:>24} {spinner} {elapsed:>4} {msg}") {
        bar.set_style(style);
    }
    bar.set_prefix(what.into());
    bar
}

/// A bar over `length` items, labelled `what`.
pub fn bar(length: u64, what: impl Into<String>) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr());
    if !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    // The template is a constant: were it wrong, indicatif's own style would do.
    if let Ok(style) =
        ProgressStyle::with_template("{prefix:>24} {wide_bar:.cyan/dim} {pos}/{len} {eta:>4} {msg}")
    {
        bar.set_style(style);
    }
    bar.set_prefix(what.into());
    bar
}
