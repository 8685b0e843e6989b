//! The inner loops, one kind of work a file, each generic over the vector instructions ([`pulp::Simd`]).
//!
//! A kernel is a struct of slices and sizes with [`pulp::WithSimd`]; [`Level::run`](crate::Level::run) compiles it once for every level. What it
//! calls is `#[inline(always)]`, since a function that is not part of it would be compiled without the vectors. Loops count: closures and
//! adapters in them were seen to cost most of the speed.
#![allow(
    clippy::needless_range_loop,
    reason = "loops that count are what is compiled into registers"
)]

pub(crate) mod activation;
pub(crate) mod depthwise;
pub(crate) mod elementwise;
pub(crate) mod normalize;
pub(crate) mod plain;
pub(crate) mod pool;
pub(crate) mod product;
pub(crate) mod target;
mod tile;
pub(crate) mod winograd;

use pulp::Simd;

use crate::block::Block;

/// Vector `index` of a block.
#[inline(always)]
fn load<S: Simd>(block: &Block, index: usize) -> S::f32s {
    S::as_simd_f32s(block).0[index]
}

/// Makes vector `index` of a block.
#[inline(always)]
fn store<S: Simd>(block: &mut Block, index: usize, value: S::f32s) {
    S::as_mut_simd_f32s(block).0[index] = value;
}
