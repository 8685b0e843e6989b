//! Timing, networks with factorized layers, and the machine's peak.
#![allow(dead_code, reason = "no bench uses all of it")]
#![allow(clippy::disallowed_methods, reason = "a bench reads the clock")]
#![allow(clippy::unwrap_used, reason = "a bench that cannot go on stops")]

use std::hint::black_box;
use std::time::Duration;

use cp_net::arch::{Builder, window};
use cp_net::{Architecture, Form, InputSpec, Op};
use pulp::{Simd, WithSimd};

/// The time that this thread has run: on a machine with other work, what passes by the clock is mostly that of others.
#[cfg(unix)]
fn now() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// The time by the clock.
#[cfg(not(unix))]
fn now() -> Duration {
    static START: std::sync::LazyLock<std::time::Instant> =
        std::sync::LazyLock::new(std::time::Instant::now);
    START.elapsed()
}

/// Quartiles of seconds a call, for each of some subjects that take turns.
pub(crate) fn interleaved(rounds: usize, subjects: &mut [&mut dyn FnMut()]) -> Vec<[f64; 3]> {
    let mut seconds = vec![Vec::with_capacity(rounds); subjects.len()];
    let mut repeats = Vec::new();
    for subject in subjects.iter_mut() {
        for _ in 0..3 {
            subject();
        }
        let start = now();
        subject();
        // Long enough that caches are warm again after the other subjects.
        repeats.push((2e-3 / (now() - start).as_secs_f64()).ceil().max(1.0) as usize);
    }
    for _ in 0..rounds {
        for ((subject, repeats), seconds) in subjects.iter_mut().zip(&repeats).zip(&mut seconds) {
            let start = now();
            for _ in 0..*repeats {
                subject();
            }
            seconds.push((now() - start).as_secs_f64() / *repeats as f64);
        }
    }
    seconds.into_iter().map(quartiles).collect()
}

fn quartiles(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| values[(values.len() - 1) * quarter / 4])
}

/// `arch` with every convolution of more than one tap but the first in CP-3, so that each needs about `ratio` times fewer multiply-adds: at ranks
/// that are multiples of 16, or the odd numbers beside the exact ones.
pub(crate) fn factorized(arch: &Architecture, ratio: f64, multiple: bool) -> Architecture {
    let shapes = arch.shapes(arch.input_shapes()).unwrap();
    let mut made = arch.clone();
    for (index, layer) in arch.compressible().into_iter().enumerate() {
        let Op::Conv(conv) = &arch.node(&layer).unwrap().op else { continue };
        if index == 0 || conv.kernel.iter().all(|&taps| taps == 1) {
            continue;
        }
        let each = arch.factors_cost(&layer, Form::Cp3, 1.into(), &shapes).unwrap().macs;
        let rank = arch.dense_cost(&layer, &shapes).unwrap().macs as f64 / each as f64 / ratio;
        let rank = if multiple {
            (rank / 16.0).round().max(1.0) as usize * 16
        } else {
            rank.max(1.0) as usize | 1
        };
        made.factorize(&layer, Form::Cp3, rank).unwrap();
    }
    made
}

/// VGG-16 as it is trained on images of 32×32: the same convolutions and one linear layer.
pub(crate) fn vgg16_cifar() -> Architecture {
    let mut net = Builder::new("vgg16-cifar", InputSpec::imagenet(32));
    for (stage, (channels, count)) in
        [(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)].into_iter().enumerate()
    {
        for index in 0..count {
            let name = format!("conv{stage}.{index}");
            net = net.conv(&name, channels, window(3).pad(1)).relu(&format!("{name}.relu"));
        }
        net = net.max_pool(&format!("pool{stage}"), window(2).stride(2));
    }
    net.flatten("flatten").linear("fc", 10).build().unwrap()
}

/// Multiply-adds a second of sums that stay in registers: what no kernel can beat.
pub(crate) fn peak() -> f64 {
    let level = pulp::Arch::new();
    let mut best = 0.0_f64;
    for _ in 0..20 {
        let start = now();
        let (sum, macs) = level.dispatch(Registers);
        black_box(sum);
        best = best.max(macs / (now() - start).as_secs_f64());
    }
    best
}

struct Registers;

impl WithSimd for Registers {
    type Output = (f32, f64);

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> (f32, f64) {
        const SUMS: usize = 12;
        const ROUNDS: usize = 100_000;
        let mut sums = [simd.splat_f32s(black_box(1.0)); SUMS];
        let (x, y) = (simd.splat_f32s(black_box(0.5)), simd.splat_f32s(black_box(0.25)));
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = simd.mul_add_e_f32s(*sum, x, y);
            }
        }
        let mut all = sums[0];
        for sum in &sums[1..] {
            all = simd.add_f32s(all, *sum);
        }
        (simd.reduce_sum_f32s(all), (SUMS * ROUNDS * S::F32_LANES) as f64)
    }
}
