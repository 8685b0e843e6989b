//! [`Level`]: the vector instructions that the kernels are compiled for.

use std::fmt;

use pulp::{Scalar128b, Simd, WithSimd};

/// Vector instructions. A kernel is compiled once for each of them, and a [`Compiled`](crate::Compiled) network runs with one.
#[derive(Debug, Clone, Copy)]
pub struct Level(Kind);

#[derive(Debug, Clone, Copy)]
enum Kind {
    /// Arrays of four numbers, which compilers make vectors of, and no fused multiply-add: any machine.
    Portable,
    /// 256 bits and fused multiply-add.
    #[cfg(target_arch = "x86_64")]
    Avx2(pulp::x86::V3),
    /// 512 bits.
    #[cfg(target_arch = "x86_64")]
    Avx512(pulp::x86::V4),
    /// 128 bits and fused multiply-add.
    #[cfg(target_arch = "aarch64")]
    Neon(pulp::aarch64::Neon),
}

impl Level {
    /// Those that this machine has, the fastest last.
    pub fn all() -> Vec<Level> {
        let mut levels = vec![Level(Kind::Portable)];
        #[cfg(target_arch = "x86_64")]
        {
            levels.extend(pulp::x86::V3::try_new().map(|simd| Level(Kind::Avx2(simd))));
            levels.extend(pulp::x86::V4::try_new().map(|simd| Level(Kind::Avx512(simd))));
        }
        #[cfg(target_arch = "aarch64")]
        levels.extend(pulp::aarch64::Neon::try_new().map(|simd| Level(Kind::Neon(simd))));
        levels
    }

    /// The fastest that this machine has.
    pub fn best() -> Level {
        Level::all().pop().unwrap_or(Level(Kind::Portable))
    }

    /// What records and messages call it: `portable`, `avx2`, `avx512`, `neon`.
    pub fn name(self) -> &'static str {
        match self.0 {
            Kind::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512(_) => "avx512",
            #[cfg(target_arch = "aarch64")]
            Kind::Neon(_) => "neon",
        }
    }

    /// Runs a kernel.
    pub(crate) fn run<K: WithSimd>(self, kernel: K) -> K::Output {
        match self.0 {
            Kind::Portable => Simd::vectorize(Scalar128b, kernel),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2(simd) => Simd::vectorize(simd, kernel),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512(simd) => Simd::vectorize(simd, kernel),
            #[cfg(target_arch = "aarch64")]
            Kind::Neon(simd) => Simd::vectorize(simd, kernel),
        }
    }

    /// Blocks of output channels that a tile makes at once: as many as leave registers for the pixels.
    pub(crate) fn panel_blocks(self) -> usize {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512(_) => 2,
            _ => 1,
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
