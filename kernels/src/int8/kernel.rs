//! What a kernel is: a tile of results, its shape, and the layout of weights that it walks.

use super::scalar;
use crate::Cpu;

/// Rows of the tallest tile of all kernels.
pub const MAX_ROWS: usize = 12;

/// Operands and place of a tile of results: some rows of activations times one panel of weights.
///
/// For each block, in this order: the dot product of int8 exactly, times the weights' scale, rounded
/// to f32; that times the activations' scale, added to the sum by a fused operation. So all kernels
/// agree to the bit.
///
/// `rows` below is the kernel's number, even where fewer are computed.
pub struct Int8Tile {
    /// `[blocks][rows][32]`
    pub values: *const i8,
    /// `[blocks][rows]`
    pub scales: *const f32,
    /// With what sums init, if the kernel's weights are unsigned: `[blocks][rows]`.
    pub inits: *const i32,
    /// The panel: `blocks` times (groups of `[lanes][group]` bytes, `[lanes]` f16).
    pub panel: *const u8,
    /// Blocks of 32 in a row.
    pub blocks: usize,
    /// `[rows][lanes]`, where the results go; a row begins `stride` numbers after the one before.
    pub out: *mut f32,
    /// See `out`.
    pub stride: usize,
    /// Whether the sums begin with what is there.
    pub add: bool,
}

/// A kernel for one instruction set.
pub struct Int8Kernel {
    /// The instructions it needs.
    pub cpu: Cpu,
    /// Outputs of a panel.
    pub lanes: usize,
    /// Rows of a tile, at most.
    pub rows: usize,
    /// Neighbouring inputs of an output that lie side by side: 4, 8 or 16.
    pub group: usize,
    /// Whether it takes weights as bytes that are 128 too large, as `vpdpbusd` does.
    pub unsigned: bool,
    /// Computes so many rows, 1 to `rows`.
    ///
    /// # Safety
    /// - The CPU has `cpu`.
    /// - The tile's pointers are valid for what their comments say, for so many rows.
    pub tile: unsafe fn(&Int8Tile, usize),
}

impl Int8Kernel {
    /// The kernel for a level of instructions.
    pub fn for_cpu(cpu: Cpu) -> &'static Self {
        match cpu {
            #[cfg(target_arch = "x86_64")]
            Cpu::Avx2 | Cpu::Avx512 => &super::avx2::KERNEL,
            #[cfg(target_arch = "x86_64")]
            Cpu::AvxVnni => &super::avx_vnni::KERNEL,
            #[cfg(target_arch = "x86_64")]
            Cpu::Avx512Vnni | Cpu::Avx512Bf16 | Cpu::Avx512Fp16 | Cpu::Amx => {
                &super::avx512::KERNEL
            }
            #[cfg(target_arch = "aarch64")]
            Cpu::Neon => &super::neon::KERNEL,
            #[cfg(target_arch = "aarch64")]
            Cpu::NeonDotprod => &super::neon_dotprod::KERNEL,
            #[cfg(target_arch = "aarch64")]
            Cpu::NeonI8mm => &super::neon_i8mm::KERNEL,
            _ => &scalar::KERNEL,
        }
    }
}

/// Calls `$tile::<N>($args)` for the `N` that `$rows` is: the tile's rows become a constant.
macro_rules! with_rows {
    ($rows:expr, $tile:ident($args:expr), $($n:literal)+) => {
        match $rows {
            $($n => $tile::<$n>($args),)+
            rows => unreachable!("a tile of {rows} rows"),
        }
    };
}
pub(super) use with_rows;
