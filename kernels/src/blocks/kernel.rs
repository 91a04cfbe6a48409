//! What a kernel is: a tile of results, its shape, and a superblock of weights as it walks it.

use super::format::Expanded;
use super::{BlockFormat, BlockMatrix, SUPER, scalar};
use crate::Cpu;

/// Outputs of the widest panel.
pub const MOST_LANES: usize = 32;

/// A superblock of as many outputs as a kernel computes at a time, unpacked: it lives in the first-level
/// cache for as long as rows pass by. `lanes` is the kernel's number, and what is different where it
/// computes [in pairs](Kernel::pairs) comes second.
#[repr(C, align(64))]
pub struct Panel {
    /// Four neighbouring inputs of each output, `[SUPER / 4][lanes][4]`, or eight, `[SUPER / 8][lanes][8]`.
    pub values: [u8; SUPER * MOST_LANES],
    /// `[runs][lanes]`, or each twice, `[runs][lanes][2]`.
    pub scales: [f32; 16 * MOST_LANES],
    /// Of two neighbouring runs of 32, `[4][lanes][2]`, or of all, `[lanes][8]`.
    pub minima: [i16; 8 * MOST_LANES],
    /// What minima are multiples of, `[lanes]`, or each twice, `[lanes][2]`.
    pub min_scales: [f32; MOST_LANES],
}

impl Panel {
    /// Nothing but zeros.
    pub fn zeros() -> Self {
        Self {
            values: [0; SUPER * MOST_LANES],
            scales: [0.0; 16 * MOST_LANES],
            minima: [0; 8 * MOST_LANES],
            min_scales: [0.0; MOST_LANES],
        }
    }

    /// The definition: outputs from `output` on, the kernel's lanes of them, where the matrix ends its last
    /// again.
    pub fn unpack(
        &mut self,
        matrix: &BlockMatrix,
        output: usize,
        superblock: usize,
        kernel: &Kernel,
    ) {
        let lanes = kernel.lanes;
        let (group, times) = if kernel.pairs { (8, 2) } else { (4, 1) };
        let mut row = Expanded::default();
        for lane in 0..lanes {
            let bytes = matrix.superblock((output + lane).min(matrix.n_out() - 1), superblock);
            matrix.format().expand(bytes, &mut row);
            let groups = self.values.chunks_exact_mut(group * lanes);
            for (values, bytes) in groups.zip(row.bytes.chunks_exact(group)) {
                values[group * lane..][..group].copy_from_slice(bytes);
            }
            let runs = self.scales.chunks_exact_mut(times * lanes);
            for (scales, scale) in runs.zip(row.scales) {
                scales[times * lane..][..times].fill(scale);
            }
            for (i, min) in row.minima.iter().enumerate() {
                let at = if kernel.pairs {
                    lane * 8 + i
                } else {
                    (i / 2 * lanes + lane) * 2 + i % 2
                };
                self.minima[at] = i16::from(*min);
            }
            self.min_scales[times * lane..][..times].fill(row.min_scale);
        }
    }
}

/// Operands and place of a tile of results: some rows of activations times a panel, in one superblock.
///
/// `rows` below is the kernel's number, even where fewer are computed. Where it computes
/// [in pairs](Kernel::pairs), two rows lie side by side.
pub struct Tile<'a> {
    /// `[rows][SUPER]`
    pub values: *const i8,
    /// `[rows][SCALES]`
    pub scales: *const f32,
    /// `[rows][RUNS]`
    pub sums: *const i32,
    /// The weights.
    pub panel: *const Panel,
    /// `[rows][lanes]`, to which the results are added.
    pub out: *mut f32,
    /// Of the weights.
    pub format: BlockFormat,
    /// What to ask memory for meanwhile, a part with each run; a kernel may leave it.
    pub ahead: &'a [u8],
}

/// Operands of a few rows of activations times outputs: weights as they lie in memory.
///
/// Superblocks of a row are `height` superblocks apart: all rows, filled up to whole tiles.
pub struct Direct {
    /// `[superblocks][height][SUPER]`
    pub values: *const i8,
    /// `[superblocks][height][SCALES]`
    pub scales: *const f32,
    /// `[superblocks][height][RUNS]`
    pub sums: *const i32,
    /// See above.
    pub height: usize,
    /// Superblocks of a row.
    pub superblocks: usize,
    /// Outputs, `row_bytes` each.
    pub weights: *const u8,
    /// How many there are.
    pub n_out: usize,
    /// Bytes of one.
    pub row_bytes: usize,
    /// `[rows][n_out]`, rows `stride` numbers apart.
    pub out: *mut f32,
    /// See above.
    pub stride: usize,
}

/// A kernel for one instruction set.
pub struct Kernel {
    /// The instructions it needs.
    pub cpu: Cpu,
    /// Outputs of a panel.
    pub lanes: usize,
    /// Rows of a tile, at most.
    pub rows: usize,
    /// Whether it computes two rows of two outputs at once, eight inputs of each. Then a panel has another
    /// order, `rows` is even, and of two rows lie side by side: eight values of each, one scale, one sum.
    /// A row without a second lies as it would otherwise.
    pub pairs: bool,
    /// From how many rows on unpacking pays, for a format: with fewer it takes longer than what it saves,
    /// against llama.cpp's products.
    pub few: fn(BlockFormat) -> usize,
    /// Computes so many rows, 1 to `rows`.
    ///
    /// # Safety
    /// - The CPU has `cpu`.
    /// - The tile's pointers are valid for what their comments say, for so many rows.
    pub tile: unsafe fn(&Tile, usize),
    /// Unpacks a superblock of outputs from one on, as `Panel::unpack` does for the kernel's lanes.
    ///
    /// # Safety
    /// - The CPU has `cpu`.
    /// - The first output and the superblock are the matrix's.
    pub unpack: unsafe fn(&mut Panel, &BlockMatrix, usize, usize),
    /// What computes so many rows without unpacking, if there is such a way for the format, and it is
    /// faster.
    pub direct: fn(BlockFormat, usize) -> Option<DirectFunction>,
}

/// Computes rows, as many as it was chosen for.
///
/// # Safety
/// - The CPU has the kernel's `cpu`.
/// - The pointers are valid for what their comments say, for so many rows and outputs.
pub type DirectFunction = unsafe fn(&Direct);

impl Kernel {
    /// Whether it is good at products of so many rows with weights of a format.
    pub fn pays(&self, format: BlockFormat, n: usize) -> bool {
        n >= (self.few)(format).max(1) || (self.direct)(format, n).is_some()
    }

    /// The kernel for a level of instructions.
    pub fn for_cpu(cpu: Cpu) -> &'static Self {
        match cpu {
            #[cfg(target_arch = "x86_64")]
            Cpu::Avx2 | Cpu::Avx512 => &super::avx2::KERNEL,
            #[cfg(target_arch = "x86_64")]
            Cpu::AvxVnni => &super::avx_vnni::KERNEL,
            #[cfg(target_arch = "x86_64")]
            Cpu::Avx512Vnni | Cpu::Avx512Bf16 | Cpu::Avx512Fp16 => &super::avx512::KERNEL,
            #[cfg(target_arch = "aarch64")]
            Cpu::NeonDotprod => &super::neon_dotprod::KERNEL,
            #[cfg(target_arch = "aarch64")]
            Cpu::NeonI8mm => &super::neon_i8mm::KERNEL,
            _ => &scalar::KERNEL,
        }
    }
}

/// Calls `$tile::<N, ..>($args)` for the `N` that `$rows` is: the tile's rows become a constant, and with
/// them the format's runs, minima, fineness and how many bits a weight has.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! with_format {
    ($rows:expr, $format:expr, $tile:ident($args:expr), $($n:literal)+) => {
        match ($rows, $format) {
            $(($n, $crate::blocks::BlockFormat::Q4_0) => $tile::<$n, 8, false, true, 4>($args),
            ($n, $crate::blocks::BlockFormat::Q8_0) => $tile::<$n, 8, false, true, 8>($args),
            ($n, $crate::blocks::BlockFormat::Q4K) => $tile::<$n, 8, true, false, 4>($args),
            ($n, $crate::blocks::BlockFormat::Q5K) => $tile::<$n, 8, true, false, 5>($args),
            ($n, $crate::blocks::BlockFormat::Q6K) => $tile::<$n, 16, false, false, 6>($args),)+
            (rows, _) => unreachable!("a tile of {rows} rows"),
        }
    };
}
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(super) use with_format;
