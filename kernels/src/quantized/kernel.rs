//! Quantized kernels: the functions that unpack weights and multiply a tile, and the layouts that
//! they take.

use half::bf16;

use super::format::Expanded;
use super::{QuantFormat, QuantScheme, QuantizedMatrix, SUPERBLOCK, scalar};
use crate::{Cpu, vectorized};

/// Outputs of the widest panel.
pub const MAX_LANES: usize = 32;

/// The layout of a kernel's operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PanelLayout {
    /// Four consecutive inputs of an output, side by side.
    Groups4,
    /// Sixteen consecutive inputs of an output, side by side. Everything else as above.
    Groups16,
    /// For kernels that multiply two rows by two outputs at once, eight inputs of each. Two rows
    /// are interleaved: eight values of each, one scale, one sum. A last row without a second has
    /// the layout of [`Self::Groups4`].
    RowPairs,
    /// For AMX: groups of four as above. In formats whose activations have one scale per
    /// superblock, weights, minus the zero point, are multiplied by their run's integer scale. If
    /// the format has minima, each sum of a run is split into two bf16 numbers, one of them a
    /// multiple of 16.
    Amx,
}

/// An unpacked superblock of as many outputs as a kernel computes at a time. It stays in the L1
/// cache while all rows are multiplied by it. `lanes` is the kernel's number; fields say where a
/// [`PanelLayout`] other than `Groups4` differs.
#[repr(C, align(64))]
pub struct Panel {
    /// Four consecutive inputs of each output, `[SUPERBLOCK / 4][lanes][4]`. `RowPairs`: eight,
    /// `[SUPERBLOCK / 8][lanes][8]`. `Groups16`: sixteen. `Amx`: the low bytes of scaled weights.
    pub values: [u8; SUPERBLOCK * MAX_LANES],
    /// `Amx` only: the high bytes of scaled weights.
    pub high: [u8; SUPERBLOCK * MAX_LANES],
    /// `[runs][lanes]`. `RowPairs`: each twice, `[runs][lanes][2]`. `Amx`: integers, where weights
    /// are scaled.
    pub scales: [f32; 16 * MAX_LANES],
    /// `Amx` only: the factor of those integers, `[lanes]`.
    pub units: [f32; MAX_LANES],
    /// Minima, two consecutive runs of 32 side by side, `[4][lanes][2]`. `RowPairs`: all runs,
    /// `[lanes][8]`.
    pub minima: [i16; 8 * MAX_LANES],
    /// `Amx`: one minimum per run as bf16, twice in 32 bits, `[8][lanes]`, then as many zeros.
    pub tile_minima: [u32; 16 * MAX_LANES],
    /// The factor of the minima, `[lanes]`. `RowPairs`: each twice, `[lanes][2]`.
    pub min_scales: [f32; MAX_LANES],
    /// Minima times their factor, `[8][lanes]`, in every layout; see [`Panel::expand_minima`].
    pub f32_minima: [f32; 8 * MAX_LANES],
}

impl Panel {
    /// A panel of zeros.
    pub fn zeros() -> Self {
        Self {
            values: [0; SUPERBLOCK * MAX_LANES],
            high: [0; SUPERBLOCK * MAX_LANES],
            scales: [0.0; 16 * MAX_LANES],
            units: [0.0; MAX_LANES],
            minima: [0; 8 * MAX_LANES],
            tile_minima: [0; 16 * MAX_LANES],
            min_scales: [0.0; MAX_LANES],
            f32_minima: [0.0; 8 * MAX_LANES],
        }
    }

    /// Converts the minima to f32, for activations with a scale per 32 elements.
    pub fn expand_minima(&mut self, kernel: &QuantizedKernel) {
        let lanes = kernel.lanes;
        vectorized(|| {
            for (run, minima) in self.f32_minima.chunks_exact_mut(lanes).take(8).enumerate() {
                for (lane, to) in minima.iter_mut().enumerate() {
                    let (at, factor) = match kernel.layout {
                        PanelLayout::RowPairs => (lane * 8 + run, 2 * lane),
                        _ => ((run / 2 * lanes + lane) * 2 + run % 2, lane),
                    };
                    *to = f32::from(self.minima[at]) * self.min_scales[factor];
                }
            }
        });
    }

    /// The reference for [`QuantizedKernel::unpack`]: unpacks the kernel's `lanes` outputs from
    /// `output` on. Beyond the end of the matrix it repeats the last output.
    pub fn unpack(
        &mut self,
        matrix: &QuantizedMatrix,
        output: usize,
        superblock: usize,
        kernel: &QuantizedKernel,
    ) {
        let lanes = kernel.lanes;
        let (group, times) = match kernel.layout {
            PanelLayout::RowPairs => (8, 2),
            PanelLayout::Groups16 => (16, 1),
            PanelLayout::Groups4 | PanelLayout::Amx => (4, 1),
        };
        let scheme = matrix.format().scheme();
        let mut row = Expanded::default();
        for lane in 0..lanes {
            let bytes = matrix.superblock((output + lane).min(matrix.n_out() - 1), superblock);
            matrix.format().expand(bytes, &mut row);
            if kernel.layout == PanelLayout::Amx && !scheme.fine {
                self.store_amx_lane(lane, lanes, &row, scheme);
                continue;
            }
            let groups = self.values.chunks_exact_mut(group * lanes);
            for (values, bytes) in groups.zip(row.bytes.chunks_exact(group)) {
                values[group * lane..][..group].copy_from_slice(bytes);
            }
            let runs = self.scales.chunks_exact_mut(times * lanes);
            for (scales, scale) in runs.zip(row.scales) {
                scales[times * lane..][..times].fill(scale);
            }
            for (i, min) in row.minima.iter().enumerate() {
                let at = match kernel.layout {
                    PanelLayout::RowPairs => lane * 8 + i,
                    _ => (i / 2 * lanes + lane) * 2 + i % 2,
                };
                self.minima[at] = i16::from(*min);
            }
            self.min_scales[times * lane..][..times].fill(row.min_scale);
        }
    }

    /// Stores a lane in the layout [`PanelLayout::Amx`], for activations with one scale per
    /// superblock.
    fn store_amx_lane(&mut self, lane: usize, lanes: usize, row: &Expanded, scheme: QuantScheme) {
        for (k, byte) in row.bytes.iter().enumerate() {
            let at = (k / 4 * lanes + lane) * 4 + k % 4;
            let value = i16::from(*byte) - scheme.zero as i16;
            let [low, high] = (value * row.multiples[k / scheme.run]).to_le_bytes();
            (self.values[at], self.high[at]) = (low, high);
        }
        for (run, multiple) in row.multiples[..SUPERBLOCK / scheme.run].iter().enumerate() {
            self.scales[run * lanes + lane] = f32::from(*multiple);
        }
        self.units[lane] = row.unit;
        for (run, min) in row.minima.iter().enumerate() {
            let bits = u32::from(bf16::from_f32(f32::from(*min)).to_bits());
            self.tile_minima[run * lanes + lane] = bits << 16 | bits;
        }
        self.min_scales[lane] = row.min_scale;
    }
}

/// Operands and output of a tile: some rows of activations times a panel, in one superblock.
///
/// `rows` below is the kernel's number, even where fewer are computed. With
/// [`PanelLayout::RowPairs`] two rows are interleaved.
pub struct QuantizedTile<'a> {
    /// `[rows][SUPERBLOCK]`
    pub values: *const i8,
    /// `[rows][SCALES]`
    pub scales: *const f32,
    /// `[rows][RUNS]`; see [`PanelLayout::Amx`].
    pub sums: *const i32,
    /// The weights.
    pub panel: *const Panel,
    /// `[rows][lanes]`; the results are added to it.
    pub out: *mut f32,
    /// The format of the weights.
    pub format: QuantFormat,
    /// Whether activations have a scale per 32 elements. Then the tile omits minima, which the
    /// matmul subtracts.
    pub fine: bool,
    /// Memory to prefetch meanwhile, a part with each run. A kernel may ignore it.
    pub prefetch: &'a [u8],
}

/// Operands and output of a GEMV: a few rows of activations times weights as they are in memory.
///
/// The superblocks of a row are `height` superblocks apart: the number of rows, rounded up to whole
/// tiles.
pub struct QuantizedGemv {
    /// `[superblocks][height][SUPERBLOCK]`
    pub values: *const i8,
    /// `[superblocks][height][SCALES]`
    pub scales: *const f32,
    /// `[superblocks][height][RUNS]`
    pub sums: *const i32,
    /// See above.
    pub height: usize,
    /// Superblocks per row.
    pub superblocks: usize,
    /// The outputs' weights, `row_bytes` each.
    pub weights: *const u8,
    /// Number of outputs.
    pub n_out: usize,
    /// Bytes of an output's weights.
    pub row_bytes: usize,
    /// `[rows][n_out]`, rows `stride` elements apart.
    pub out: *mut f32,
    /// See above.
    pub stride: usize,
}

/// A kernel for one instruction set.
pub struct QuantizedKernel {
    /// The instructions it needs.
    pub cpu: Cpu,
    /// Outputs per panel.
    pub lanes: usize,
    /// Most rows per tile.
    pub rows: usize,
    /// The layout of its operands. With row pairs, `rows` is even.
    pub layout: PanelLayout,
    /// Fewest rows for which unpacking is faster than llama.cpp's matmul, by format.
    pub min_rows: fn(QuantFormat) -> usize,
    /// Computes the given number of rows, 1 to `rows`.
    ///
    /// # Safety
    /// - The CPU has `cpu`.
    /// - The tile's pointers are valid for what their comments say, for this many rows; those of
    ///   activations for all of the kernel's rows, with any contents.
    /// - `registers::prepare` has prepared the thread's registers.
    pub tile: unsafe fn(&QuantizedTile, usize),
    /// Unpacks a superblock of the kernel's `lanes` outputs, from the given output on, as
    /// `Panel::unpack` does.
    ///
    /// # Safety
    /// - The CPU has `cpu`.
    /// - The first output and the superblock are within the matrix.
    pub unpack: unsafe fn(&mut Panel, &QuantizedMatrix, usize, usize),
    /// The GEMV for a format and a number of rows, if there is one and it is faster than unpacking.
    pub gemv: fn(QuantFormat, usize) -> Option<QuantizedGemvFn>,
}

/// Computes the number of rows for which it was chosen.
///
/// # Safety
/// - The CPU has the kernel's `cpu`.
/// - The pointers are valid for what their comments say, for these rows and outputs.
pub type QuantizedGemvFn = unsafe fn(&QuantizedGemv);

impl QuantizedKernel {
    /// Whether it is faster than llama.cpp's matmul for `n` rows and weights of a format.
    pub fn is_faster_than_ggml(&self, format: QuantFormat, n: usize) -> bool {
        let kernel = self.for_rows(n);
        n >= (kernel.min_rows)(format).max(1) || (kernel.gemv)(format, n).is_some()
    }

    /// The kernel that computes `n` rows in its place: itself, or with few rows AVX-512 instead of
    /// AMX, whose tiles are large.
    pub fn for_rows(&self, n: usize) -> &Self {
        #[cfg(target_arch = "x86_64")]
        if self.layout == PanelLayout::Amx && n < super::amx::MIN_ROWS {
            return &super::avx512::KERNEL;
        }
        let _ = n;
        self
    }

    /// The scheme for which `n` rows are quantized, to be multiplied by weights of a format. AMX
    /// needs no sums for Q6_K, so it takes the rows of Q4_K there.
    pub fn activation_scheme(&self, format: QuantFormat, n: usize) -> QuantScheme {
        let scheme = format.scheme();
        match self.for_rows(n).layout {
            PanelLayout::Amx if !scheme.fine => QuantFormat::Q4K.scheme(),
            _ => scheme,
        }
    }

    /// This process's kernel for activations with a scale per 32 elements, whatever the weights:
    /// AVX-512 instead of AMX, in whose tiles a scale belongs to a superblock.
    pub fn fine() -> &'static Self {
        Self::for_cpu(Cpu::chosen()).for_rows(0)
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
            #[cfg(target_arch = "x86_64")]
            Cpu::Amx => &super::amx::KERNEL,
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

/// Calls `$tile::<N, ..>($args)` with `N` equal to `$rows`, so that the number of rows is a
/// constant, as are the format's runs, minima, fineness and bits per weight.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! with_format {
    ($rows:expr, $format:expr, $tile:ident($args:expr), $($n:literal)+) => {
        match ($rows, $format) {
            $(($n, $crate::quantized::QuantFormat::Q4_0) => $tile::<$n, 8, false, true, 4>($args),
            ($n, $crate::quantized::QuantFormat::Q5_0) => $tile::<$n, 8, false, true, 5>($args),
            ($n, $crate::quantized::QuantFormat::Q8_0) => $tile::<$n, 8, false, true, 8>($args),
            // The caller subtracts the minima if activations are fine.
            ($n, $crate::quantized::QuantFormat::Q4K) if $args.fine => {
                $tile::<$n, 8, false, true, 4>($args)
            }
            ($n, $crate::quantized::QuantFormat::Q5K) if $args.fine => {
                $tile::<$n, 8, false, true, 5>($args)
            }
            ($n, $crate::quantized::QuantFormat::Q6K) if $args.fine => {
                $tile::<$n, 16, false, true, 6>($args)
            }
            ($n, $crate::quantized::QuantFormat::Q4K) => $tile::<$n, 8, true, false, 4>($args),
            ($n, $crate::quantized::QuantFormat::Q5K) => $tile::<$n, 8, true, false, 5>($args),
            ($n, $crate::quantized::QuantFormat::Q6K) => $tile::<$n, 16, false, false, 6>($args),)+
            (rows, _) => unreachable!("no tile of {rows} rows"),
        }
    };
}
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(super) use with_format;
