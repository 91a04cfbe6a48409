//! Int8 kernels: the function that computes a tile, its size, and the layout of weights that it
//! reads.

use super::scalar;
use crate::Cpu;

/// Rows of the tallest tile of all kernels.
pub const MAX_ROWS: usize = 12;

/// Operands and output of a tile: some rows of activations times one panel of weights.
///
/// For each block, in this order: the exact int8 dot product, times the weights' scale, rounded to
/// f32; that times the activations' scale is added to the sum with an FMA. So all kernels agree bit
/// for bit.
///
/// `rows` below is the kernel's number, even where fewer are computed.
pub struct Int8Tile {
    /// `[blocks][rows][32]`
    pub values: *const i8,
    /// `[blocks][rows]`
    pub scales: *const f32,
    /// Initial sums, `[blocks][rows]`, for kernels with unsigned weights.
    pub init_sums: *const i32,
    /// The panel: for each of `blocks` blocks, groups of `[lanes][group]` bytes, then `[lanes]` f16
    /// scales.
    pub panel: *const u8,
    /// Blocks of 32 inputs.
    pub blocks: usize,
    /// Output `[rows][lanes]`, rows `stride` elements apart.
    pub out: *mut f32,
    /// See `out`.
    pub stride: usize,
    /// Whether the results are added to the output.
    pub add: bool,
}

/// A kernel for one instruction set.
pub struct Int8Kernel {
    /// The instructions it needs.
    pub cpu: Cpu,
    /// Outputs per panel.
    pub lanes: usize,
    /// Most rows per tile.
    pub rows: usize,
    /// Consecutive inputs of an output that are stored side by side: 4, 8 or 16.
    pub group: usize,
    /// Whether it takes weights as unsigned bytes, offset by 128, as `vpdpbusd` does.
    pub unsigned: bool,
    /// Computes the given number of rows, 1 to `rows`.
    ///
    /// # Safety
    /// - The CPU has `cpu`.
    /// - The tile's pointers are valid for what their comments say, for this many rows.
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

/// Calls `$tile::<N>($args)` with `N` equal to `$rows`, so that the number of rows is a constant.
macro_rules! with_rows {
    ($rows:expr, $tile:ident($args:expr), $($n:literal)+) => {
        match $rows {
            $($n => $tile::<$n>($args),)+
            rows => unreachable!("no tile of {rows} rows"),
        }
    };
}
pub(super) use with_rows;
