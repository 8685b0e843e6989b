//! [`clean_up_when_interrupted`]: Ctrl-C leaves no half-written file.

use std::io;

/// From now on, a process that is told to stop (Ctrl-C, `kill`, a terminal that closes) first removes the files that it has not
/// finished ([`cp_net::remove_unfinished`]), and then ends with the exit code of shells, 128 + the signal's number: 130 or 143. What is
/// complete stays, so that a long run goes on from there. Signals that the process was started to ignore, as by `nohup`, stay ignored.
///
/// For programs, first thing in `main`.
///
/// # Errors
/// Where the system does not take the handler.
#[cfg(unix)]
pub fn clean_up_when_interrupted() -> io::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    use signal_hook::iterator::Signals;

    let ignored = ignored();
    let heeded = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| !ignored.contains(signal));
    let mut signals = Signals::new(heeded)?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        if let Some(signal) = signals.forever().next() {
            // At once: the destructors of libraries must not run beside threads that still compute.
            cp_net::remove_unfinished(|| signal_hook::low_level::exit(128 + signal));
        }
    })?;
    Ok(())
}

/// Without signals, nothing has to be done.
///
/// # Errors
/// None.
#[cfg(not(unix))]
pub fn clean_up_when_interrupted() -> io::Result<()> {
    Ok(())
}

/// The signals that this process was started to ignore, where the system says.
#[cfg(unix)]
fn ignored() -> Vec<i32> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    (1..=64).filter(|signal| mask >> (signal - 1) & 1 == 1).collect()
}
