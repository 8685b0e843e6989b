//! [`check_memory`]: whether a batch fits into memory, found out before anything is allocated.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use cp_net::{Architecture, InputShapes};

use crate::device::Device;
use crate::error::TrainError;
pub use crate::words::bytes_in_words;

/// What a network is run for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A forward pass: a value is dropped behind its last reader.
    Forward,
    /// A step of training: every value is kept for the gradients.
    Training,
}

/// That the maps of `batch` examples of shape `input`, without the batch axis, fit into the memory that is free on `device`.
///
/// `option` is what the user changes where they do not, such as `--batch`. What is counted are the inputs and the maps that the
/// network holds at a time, as f32; libtorch needs some more. Of a GPU it is not known how much memory is free: only sizes that no
/// machine has are refused.
///
/// # Errors
/// [`TrainError::Memory`]; a shape that the network cannot take.
pub fn check_memory(
    network: &Architecture,
    input: impl InputShapes,
    batch: usize,
    purpose: Purpose,
    device: Device,
    option: &'static str,
) -> Result<(), TrainError> {
    let shape = input.shapes().into_iter().next().unwrap_or_default();
    let needed = bytes_of_one(network, input, purpose)?.saturating_mul(batch as u128);
    // What the sizes of a tensor can be at most.
    const MOST: u64 = i64::MAX as u64;
    let free = if device == Device::Cpu { available().unwrap_or(MOST) } else { MOST };
    if needed <= u128::from(free) {
        return Ok(());
    }
    Err(TrainError::Memory { batch, shape, needed, free, option })
}

/// Bytes of memory that this process can still get: of the machine, of its control group, and of its own limit; `None` where the
/// system does not say.
pub fn available() -> Option<u64> {
    [machine(), address_space(), control_group()].into_iter().flatten().min()
}

/// Bytes of the largest set of values that are held at a time, for one example.
fn bytes_of_one(
    network: &Architecture,
    input: impl InputShapes,
    purpose: Purpose,
) -> Result<u128, TrainError> {
    let shapes = network.shapes(input)?;
    let bytes = |value: &str| {
        let values = shapes.get(value).unwrap_or_default().iter();
        values.fold(4_u128, |bytes, size| bytes.saturating_mul(*size as u128))
    };
    let mut last_reader: BTreeMap<&str, usize> = BTreeMap::new();
    for (at, node) in network.nodes.iter().enumerate() {
        last_reader.extend(node.inputs.iter().map(|value| (value.as_str(), at)));
    }
    // What is put out is held to the end.
    last_reader.extend(network.outputs.iter().map(|value| (value.as_str(), network.nodes.len())));
    let mut held: u128 = network.inputs.iter().map(|input| bytes(&input.name)).sum();
    let mut most = held;
    for (at, node) in network.nodes.iter().enumerate() {
        let is_last = |value: &str| last_reader.get(value) == Some(&at);
        let made: u128 = node.outputs.iter().map(|value| bytes(value)).sum();
        // Activations may write over what they read, and views share it.
        let over = node.inputs.len() == 1
            && node.op.param_count() == 0
            && is_last(&node.inputs[0])
            && bytes(&node.inputs[0]) == made;
        if over {
            continue;
        }
        held = held.saturating_add(made);
        most = most.max(held);
        if purpose == Purpose::Forward {
            let dropped: std::collections::BTreeSet<&str> =
                node.inputs.iter().map(String::as_str).filter(|value| is_last(value)).collect();
            held = held.saturating_sub(dropped.into_iter().map(bytes).sum());
        }
    }
    Ok(most)
}

/// Of a file of lines `NAME: NUMBER kB`, the bytes of `name`.
fn kilobytes(path: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let number: u64 = line.split_whitespace().next()?.parse().ok()?;
    number.checked_mul(1024)
}

fn machine() -> Option<u64> {
    let free = kilobytes("/proc/meminfo", "MemAvailable")?;
    Some(free.saturating_add(kilobytes("/proc/meminfo", "SwapFree").unwrap_or(0)))
}

/// What `ulimit -v` leaves.
fn address_space() -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max address space"))?;
    // `unlimited` is no number.
    let limit: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(limit.saturating_sub(kilobytes("/proc/self/status", "VmSize")?))
}

/// What a container leaves; pages of files can be taken back.
fn control_group() -> Option<u64> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let root = Path::new("/sys/fs/cgroup");
    let folder = [root.join(own), root.to_owned()];
    let folder = folder.iter().find(|folder| folder.join("memory.max").exists())?;
    let number = |name: &str| -> Option<u64> {
        fs::read_to_string(folder.join(name)).ok()?.trim().parse().ok()
    };
    let (limit, used) = (number("memory.max")?, number("memory.current")?);
    let statistics = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
    let files: u64 = statistics
        .lines()
        .filter_map(|line| {
            line.strip_prefix("inactive_file ").or(line.strip_prefix("active_file "))
        })
        .filter_map(|number| number.parse::<u64>().ok())
        .sum();
    Some(limit.saturating_sub(used.saturating_sub(files)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn small_cnn() -> Architecture {
        cp_net::arch::by_name("small-cnn").unwrap()
    }

    #[test]
    fn what_is_held_at_a_time() {
        let arch = small_cnn();
        let shapes = arch.shapes(arch.input_shapes()).unwrap();
        let bytes = |value: &str| 4 * shapes.get(value).unwrap().iter().product::<usize>() as u128;
        let forward = bytes_of_one(&arch, arch.input_shapes(), Purpose::Forward).unwrap();
        let training = bytes_of_one(&arch, arch.input_shapes(), Purpose::Training).unwrap();
        // The largest pair: what goes into the first convolution and what comes out.
        assert!(forward >= bytes("input") + bytes("conv1"), "{forward}");
        assert!(training > forward, "{training}");
        let all = arch.cost(arch.input_shapes()).unwrap().total.activation_bytes as u128;
        assert!(training <= bytes("input") + all, "{training} {all}");
    }

    #[test]
    fn batches_that_no_machine_holds_are_refused() {
        let arch = small_cnn();
        let check = |batch, device| {
            check_memory(&arch, [1, 28, 28], batch, Purpose::Forward, device, "--batch")
        };
        check(1, Device::Cpu).unwrap();
        for batch in [1_000_000_000_000, usize::MAX] {
            let error = check(batch, Device::Cpu).unwrap_err().to_string();
            assert!(error.contains("--batch") && error.contains("1×28×28"), "{error}");
        }
        check(usize::MAX, Device::Cuda(0)).unwrap_err();
    }

    #[test]
    fn free_memory_is_found() {
        if cfg!(target_os = "linux") {
            assert!(available().unwrap() > 1 << 20);
        }
    }
}
