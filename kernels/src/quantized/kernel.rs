//! What a kernel is: a tile of results, its scheme, and a superblock of weights as it walks it.

use half::bf16;

use super::format::Expanded;
use super::{QuantFormat, QuantScheme, QuantizedMatrix, SUPER, scalar};
use crate::Cpu;

/// Outputs of the widest panel.
pub const MAX_LANES: usize = 32;

/// How a kernel wants its operands to lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PanelLayout {
    /// Four neighbouring inputs of an output side by side.
    Fours,
    /// It computes two rows of two outputs at once, eight inputs of each. Of two rows lie side by side: eight values of
    /// each, one scale, one sum. A row without a second lies as it would otherwise.
    Pairs,
    /// In fours; where activations have one scale for a superblock, as AMX multiplies them: weights, less what stands for
    /// zero, are multiplied by the whole number that is their run's scale. Sums of runs, where there are minima, are two
    /// numbers in bf16, of which one is a multiple of 16.
    Tiles,
}

/// A superblock of as many outputs as a kernel computes at a time, unpacked: it lives in the first-level
/// cache for as long as rows pass by. `lanes` is the kernel's number; what is different with another [`PanelLayout`]
/// than `Fours` is said.
#[repr(C, align(64))]
pub struct Panel {
    /// Four neighbouring inputs of each output, `[SUPER / 4][lanes][4]`; `Pairs`: eight, `[SUPER / 8][lanes][8]`;
    /// `Tiles`: the lower bytes, where weights are multiplied.
    pub values: [u8; SUPER * MAX_LANES],
    /// The upper bytes, of `Tiles` only.
    pub high: [u8; SUPER * MAX_LANES],
    /// `[runs][lanes]`; `Pairs`: each twice, `[runs][lanes][2]`; `Tiles`: whole numbers, where weights are multiplied.
    pub scales: [f32; 16 * MAX_LANES],
    /// What those whole numbers are multiples of, `[lanes]`, of `Tiles` only.
    pub units: [f32; MAX_LANES],
    /// Of two neighbouring runs of 32, `[4][lanes][2]`; `Pairs`: of all, `[lanes][8]`.
    pub minima: [i16; 8 * MAX_LANES],
    /// `Tiles`: of a run each, in bf16 and twice in 32 bits, `[8][lanes]`, and as many zeros.
    pub tile_minima: [u32; 16 * MAX_LANES],
    /// What minima are multiples of, `[lanes]`; `Pairs`: each twice, `[lanes][2]`.
    pub min_scales: [f32; MAX_LANES],
}

impl Panel {
    /// Nothing but zeros.
    pub fn zeros() -> Self {
        Self {
            values: [0; SUPER * MAX_LANES],
            high: [0; SUPER * MAX_LANES],
            scales: [0.0; 16 * MAX_LANES],
            units: [0.0; MAX_LANES],
            minima: [0; 8 * MAX_LANES],
            tile_minima: [0; 16 * MAX_LANES],
            min_scales: [0.0; MAX_LANES],
        }
    }

    /// The definition: outputs from `output` on, the kernel's lanes of them, where the matrix ends its last
    /// again.
    pub fn unpack(
        &mut self,
        matrix: &QuantizedMatrix,
        output: usize,
        superblock: usize,
        kernel: &QuantizedKernel,
    ) {
        let lanes = kernel.lanes;
        let (group, times) = match kernel.layout {
            PanelLayout::Pairs => (8, 2),
            PanelLayout::Fours | PanelLayout::Tiles => (4, 1),
        };
        let scheme = matrix.format().scheme();
        let mut row = Expanded::default();
        for lane in 0..lanes {
            let bytes = matrix.superblock((output + lane).min(matrix.n_out() - 1), superblock);
            matrix.format().expand(bytes, &mut row);
            if kernel.layout == PanelLayout::Tiles && !scheme.fine {
                self.put_tiles(lane, lanes, &row, scheme);
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
                    PanelLayout::Pairs => lane * 8 + i,
                    _ => (i / 2 * lanes + lane) * 2 + i % 2,
                };
                self.minima[at] = i16::from(*min);
            }
            self.min_scales[times * lane..][..times].fill(row.min_scale);
        }
    }

    /// A lane of [`PanelLayout::Tiles`], for activations with one scale.
    fn put_tiles(&mut self, lane: usize, lanes: usize, row: &Expanded, scheme: QuantScheme) {
        for (k, byte) in row.bytes.iter().enumerate() {
            let at = (k / 4 * lanes + lane) * 4 + k % 4;
            let value = i16::from(*byte) - scheme.zero as i16;
            let [low, high] = (value * row.multiples[k / scheme.run]).to_le_bytes();
            (self.values[at], self.high[at]) = (low, high);
        }
        for (run, multiple) in row.multiples[..SUPER / scheme.run].iter().enumerate() {
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

/// Operands and place of a tile of results: some rows of activations times a panel, in one superblock.
///
/// `rows` below is the kernel's number, even where fewer are computed. With [`PanelLayout::Pairs`] two rows lie side by
/// side.
pub struct QuantizedTile<'a> {
    /// `[rows][SUPER]`
    pub values: *const i8,
    /// `[rows][SCALES]`
    pub scales: *const f32,
    /// `[rows][RUNS]`; see [`PanelLayout::Tiles`]
    pub sums: *const i32,
    /// The weights.
    pub panel: *const Panel,
    /// `[rows][lanes]`, to which the results are added.
    pub out: *mut f32,
    /// Of the weights.
    pub format: QuantFormat,
    /// What to ask memory for meanwhile, a part with each run; a kernel may leave it.
    pub prefetch: &'a [u8],
}

/// Operands of a few rows of activations times outputs: weights as they lie in memory.
///
/// Superblocks of a row are `height` superblocks apart: all rows, filled up to whole tiles.
pub struct QuantizedGemv {
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
pub struct QuantizedKernel {
    /// The instructions it needs.
    pub cpu: Cpu,
    /// Outputs of a panel.
    pub lanes: usize,
    /// Rows of a tile, at most.
    pub rows: usize,
    /// How its operands lie; in pairs `rows` is even.
    pub layout: PanelLayout,
    /// From how many rows on unpacking is_faster_than_ggml, for a format: with fewer it takes longer than what it saves,
    /// against llama.cpp's products.
    pub min_rows: fn(QuantFormat) -> usize,
    /// Computes so many rows, 1 to `rows`.
    ///
    /// # Safety
    /// - The CPU has `cpu`.
    /// - The tile's pointers are valid for what their comments say, for so many rows; those of activations for
    ///   all of the kernel's rows, whatever these hold.
    /// - The thread's registers are ready, by `registers`.
    pub tile: unsafe fn(&QuantizedTile, usize),
    /// Unpacks a superblock of outputs from one on, as `Panel::unpack` does for the kernel's lanes.
    ///
    /// # Safety
    /// - The CPU has `cpu`.
    /// - The first output and the superblock are the matrix's.
    pub unpack: unsafe fn(&mut Panel, &QuantizedMatrix, usize, usize),
    /// What computes so many rows without unpacking, if there is such a way for the format, and it is
    /// faster.
    pub gemv: fn(QuantFormat, usize) -> Option<QuantizedGemvFn>,
}

/// Computes rows, as many as it was chosen for.
///
/// # Safety
/// - The CPU has the kernel's `cpu`.
/// - The pointers are valid for what their comments say, for so many rows and outputs.
pub type QuantizedGemvFn = unsafe fn(&QuantizedGemv);

impl QuantizedKernel {
    /// Whether it is good at products of so many rows with weights of a format.
    pub fn is_faster_than_ggml(&self, format: QuantFormat, n: usize) -> bool {
        let kernel = self.for_rows(n);
        n >= (kernel.min_rows)(format).max(1) || (kernel.gemv)(format, n).is_some()
    }

    /// What computes so many rows on its behalf: itself, or another, since tiles of AMX are large.
    pub fn for_rows(&self, n: usize) -> &Self {
        #[cfg(target_arch = "x86_64")]
        if self.layout == PanelLayout::Tiles && n < super::amx::MIN_ROWS {
            return &super::avx512::KERNEL;
        }
        let _ = n;
        self
    }

    /// The shape for which so many rows are quantized, to be multiplied by weights of a format. AMX needs no sums with
    /// Q6_K, and takes the same rows as with Q4_K.
    pub fn activation_scheme(&self, format: QuantFormat, n: usize) -> QuantScheme {
        let scheme = format.scheme();
        match self.for_rows(n).layout {
            PanelLayout::Tiles if !scheme.fine => QuantFormat::Q4K.scheme(),
            _ => scheme,
        }
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
            $(($n, $crate::quantized::QuantFormat::Q4_0) => $tile::<$n, 8, false, true, 4>($args),
            ($n, $crate::quantized::QuantFormat::Q8_0) => $tile::<$n, 8, false, true, 8>($args),
            ($n, $crate::quantized::QuantFormat::Q4K) => $tile::<$n, 8, true, false, 4>($args),
            ($n, $crate::quantized::QuantFormat::Q5K) => $tile::<$n, 8, true, false, 5>($args),
            ($n, $crate::quantized::QuantFormat::Q6K) => $tile::<$n, 16, false, false, 6>($args),)+
            (rows, _) => unreachable!("a tile of {rows} rows"),
        }
    };
}
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(super) use with_format;
