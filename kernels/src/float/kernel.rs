//! The kernels of the 16-bit matmul: which instructions they use, and in which type they multiply.

use half::bf16;

use super::gemv::Float16GemvFn;
use super::{Float16Slice, FloatWeights, scalar};
use crate::Cpu;
use crate::cpu::bf16_is_fast;
use crate::tile::{self, Element};

/// A kernel for one instruction set and one type of operands.
#[derive(Clone, Copy, Debug)]
pub struct FloatKernel {
    pub(super) tile: AnyTile,
    pub(super) ops: &'static FloatOps,
}

/// The functions that the file of an instruction set provides.
#[derive(Debug)]
pub(super) struct FloatOps {
    /// The instructions it needs.
    pub cpu: Cpu,
    /// Multiplies up to [`MAX_GEMV_ROWS`](super::MAX_GEMV_ROWS) rows by weights as they are in
    /// memory.
    pub gemv: Float16GemvFn,
    /// Converts to f32, as many elements as fit the output.
    ///
    /// # Safety
    /// The CPU has `cpu`.
    pub to_f32: unsafe fn(Float16Slice, &mut [f32]),
}

/// The tiles that matmuls use. A value proves that this CPU has the instructions.
#[derive(Clone, Copy, Debug)]
pub(super) enum AnyTile {
    #[cfg(target_arch = "x86_64")]
    Avx2(tile::Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(tile::Avx512),
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16(tile::Avx512Bf16),
    #[cfg(target_arch = "aarch64")]
    Neon(tile::Neon),
    #[cfg(target_arch = "aarch64")]
    NeonBf16(tile::NeonBf16),
    Scalar(tile::Scalar<f32>),
    ScalarBf16(tile::Scalar<bf16>),
}

/// Evaluates `$then`, with the tile of `$any` as `$tile`.
macro_rules! with_tile {
    ($any:expr, |$tile:ident| $then:expr) => {
        match $any {
            #[cfg(target_arch = "x86_64")]
            $crate::float::kernel::AnyTile::Avx2($tile) => $then,
            #[cfg(target_arch = "x86_64")]
            $crate::float::kernel::AnyTile::Avx512($tile) => $then,
            #[cfg(target_arch = "x86_64")]
            $crate::float::kernel::AnyTile::Avx512Bf16($tile) => $then,
            #[cfg(target_arch = "aarch64")]
            $crate::float::kernel::AnyTile::Neon($tile) => $then,
            #[cfg(target_arch = "aarch64")]
            $crate::float::kernel::AnyTile::NeonBf16($tile) => $then,
            $crate::float::kernel::AnyTile::Scalar($tile) => $then,
            $crate::float::kernel::AnyTile::ScalarBf16($tile) => $then,
        }
    };
}
pub(super) use with_tile;

impl FloatKernel {
    /// The fastest kernel for these weights with the instructions of `cpu`.
    pub fn for_cpu(cpu: Cpu, weights: &Float16Slice) -> Self {
        if matches!(weights, Float16Slice::Bf16(_)) && bf16_is_fast(cpu) {
            Self::in_bf16(cpu)
        } else {
            Self::in_f32(cpu)
        }
    }

    /// The kernel that multiplies f32, with the instructions of `cpu` as far as this CPU has them.
    pub fn in_f32(cpu: Cpu) -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if let Some(tile) = tile::Avx512::new(cpu) {
                return Self::new(AnyTile::Avx512(tile), &super::avx512::OPS);
            }
            if let Some(tile) = tile::Avx2::new(cpu) {
                return Self::new(AnyTile::Avx2(tile), &super::avx2::OPS);
            }
        }
        #[cfg(target_arch = "aarch64")]
        if let Some(tile) = tile::Neon::new(cpu) {
            return Self::new(AnyTile::Neon(tile), &super::neon::OPS);
        }
        let _ = cpu;
        Self::new(AnyTile::Scalar(tile::Scalar::default()), &scalar::OPS)
    }

    /// The kernel that rounds activations to BF16. It takes BF16 weights only.
    pub fn in_bf16(cpu: Cpu) -> Self {
        #[cfg(target_arch = "x86_64")]
        if let Some(tile) = tile::Avx512Bf16::new(cpu) {
            return Self::new(AnyTile::Avx512Bf16(tile), &super::avx512::OPS);
        }
        #[cfg(target_arch = "aarch64")]
        if let Some(tile) = tile::NeonBf16::new(cpu) {
            return Self::new(AnyTile::NeonBf16(tile), &super::neon::OPS);
        }
        let _ = cpu;
        Self::new(AnyTile::ScalarBf16(tile::Scalar::default()), &scalar::OPS)
    }

    fn new(tile: AnyTile, ops: &'static FloatOps) -> Self {
        Self { tile, ops }
    }

    /// Whether it multiplies BF16 instead of f32.
    pub fn is_bf16(&self) -> bool {
        fn group<K: tile::Tile>(_: K) -> usize {
            K::Element::GROUP
        }
        with_tile!(self.tile, |tile| group(tile)) == bf16::GROUP
    }

    /// Whether it takes these weights.
    pub fn takes(&self, weights: &FloatWeights) -> bool {
        !self.is_bf16() || matches!(weights, FloatWeights::Float16(Float16Slice::Bf16(_)))
    }

    /// Whether it is faster than llama.cpp's matmul.
    pub fn is_faster_than_ggml(&self) -> bool {
        self.ops.cpu != Cpu::Scalar
    }
}
