//! A few rows of activations times weights as they lie in memory, with AVX-512 and VNNI: for tokens one by
//! one, and for those of some sequences together.
//!
//! A quarter of a register has sixteen neighbouring inputs of one of four outputs. Nothing is turned and
//! nothing stored on the way: what is taken apart in a register is multiplied by all rows at once. Products
//! of a run are multiplied by its scale as 16-bit numbers and stay whole until the superblock ends. For four
//! rows of Q4_K that is 194 instructions of arithmetic for each 576 bytes of weights, 120 of them for the
//! rows. However many rows there are, each is summed in the same order.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::direct::{all_outputs, behind};
use super::kernel::{Direct, DirectFunction};
use super::rows::{RUNS, SCALES};
use super::{BlockFormat, SUPER};

/// Outputs at a time, a quarter of a register each.
const OUTPUTS: usize = 4;

/// Where the weights of so many outputs begin.
type Outputs = [*const u8; OUTPUTS];

/// As [`super::kernel::Kernel::direct`]. With more rows unpacking pays: it scales the sums of a run for
/// sixteen outputs at once.
pub fn direct(format: BlockFormat, rows: usize) -> Option<DirectFunction> {
    /// The function for so many rows.
    macro_rules! for_rows {
        ($($n:literal)+: $of:ident) => {
            match rows {
                $($n => Some(all_outputs!($of::<$n>)),)+
                _ => None,
            }
        };
    }
    match format {
        BlockFormat::Q4_0 => for_rows!(1 2: q4_0),
        BlockFormat::Q8_0 => for_rows!(1 2 3 4: q8_0),
        BlockFormat::Q4K => for_rows!(1 2 3 4 5 6 7 8: q4_k),
        BlockFormat::Q5K => for_rows!(1 2 3 4 5 6 7 8: q5_k),
        BlockFormat::Q6K => for_rows!(1 2 3 4 5 6 7 8: q6_k),
    }
}

/// Sixteen bytes at an offset of each output.
///
/// # Safety
/// So many bytes may be read there.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn quarters(outputs: &Outputs, offset: usize) -> __m512i {
    // SAFETY: as above; unaligned.
    let load = |i: usize| unsafe { _mm_loadu_si128(outputs[i].add(offset).cast()) };
    let x = _mm512_castsi128_si512(load(0));
    let x = _mm512_inserti32x4::<1>(x, load(1));
    let x = _mm512_inserti32x4::<2>(x, load(2));
    _mm512_inserti32x4::<3>(x, load(3))
}

/// The f16 at an offset of each output, in all of its quarter.
///
/// # Safety
/// Two bytes may be read there.
#[inline]
#[target_feature(enable = "avx512f,f16c")]
unsafe fn halves(outputs: &Outputs, offset: usize) -> __m512 {
    // SAFETY: as above; unaligned.
    let half =
        |i: usize| unsafe { i64::from(outputs[i].add(offset).cast::<u16>().read_unaligned()) };
    let all = half(0) | half(1) << 16 | half(2) << 32 | half(3) << 48;
    quarter_each::<0, 1>(_mm_cvtph_ps(_mm_cvtsi64_si128(all)))
}

/// Number `FROM + STEP * i` in all of quarter `i`; the four lie within eight.
#[inline]
#[target_feature(enable = "avx512f")]
fn spread<const FROM: i32, const STEP: i32>(x: __m512) -> __m512 {
    let lane = |i: i32| FROM + STEP * i;
    let (a, b, c, d) = (lane(0), lane(1), lane(2), lane(3));
    _mm512_permutexvar_ps(
        _mm512_set_epi32(d, d, d, d, c, c, c, c, b, b, b, b, a, a, a, a),
        x,
    )
}

#[inline]
#[target_feature(enable = "avx512f")]
fn quarter_each<const FROM: i32, const STEP: i32>(x: __m128) -> __m512 {
    spread::<FROM, STEP>(_mm512_castps128_ps512(x))
}

/// The same sixteen bytes in each quarter.
///
/// # Safety
/// So many may be read there.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn all_quarters<T>(at: *const T) -> __m512i {
    // SAFETY: as above; unaligned.
    _mm512_broadcast_i32x4(unsafe { _mm_loadu_si128(at.cast()) })
}

/// Low and high halves of bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn nibbles(q: __m512i) -> [__m512i; 2] {
    let nibble = _mm512_set1_epi8(15);
    [
        _mm512_and_si512(q, nibble),
        _mm512_and_si512(_mm512_srli_epi16::<4>(q), nibble),
    ]
}

/// `sum += scale * (w a)` of each row: `a` is where in a superblock its activations for the first of the
/// registers of weights begin, those for the next follow. Products of a lane stay below 2^15; scales are in
/// the low halves of lanes.
///
/// # Safety
/// So many activations may be read there in superblock `s` of `R` rows.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn add_run<const R: usize, const N: usize>(
    sums: &mut [__m512i; R],
    w: [__m512i; N],
    rows: &Direct,
    s: usize,
    a: usize,
    scale: __m512i,
) {
    for (r, sum) in sums.iter_mut().enumerate() {
        let mut dot = _mm512_setzero_si512();
        for (i, w) in w.into_iter().enumerate() {
            // SAFETY: as above.
            let a = unsafe {
                all_quarters(rows.values.add((s * rows.height + r) * SUPER + a + 16 * i))
            };
            dot = _mm512_dpbusd_epi32(dot, w, a);
        }
        *sum = add_products(*sum, dot, scale);
    }
}

/// `_mm512_dpwssd_epi32`, which the compiler would take apart into a product and a sum.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
pub(super) fn add_products(mut sum: __m512i, a: __m512i, b: __m512i) -> __m512i {
    // SAFETY: one instruction that touches these registers only, and that the features above are.
    unsafe {
        std::arch::asm!(
            "vpdpwssd {sum}, {a}, {b}",
            sum = inout(zmm_reg) sum,
            a = in(zmm_reg) a,
            b = in(zmm_reg) b,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sum
}

/// A shuffle that puts two bytes, or one and a zero, at the begin of each lane and zeros behind.
#[inline]
#[target_feature(enable = "avx512f")]
fn lanes_of(first: i8, second: i8) -> __m512i {
    let lane = i32::from_le_bytes([first as u8, second as u8, 0x80, 0x80]);
    _mm512_set1_epi32(lane)
}

/// The sum of each quarter.
#[inline]
#[target_feature(enable = "avx512f")]
fn sums_of_quarters(x: __m512) -> [f32; OUTPUTS] {
    let x = _mm512_add_ps(x, _mm512_permute_ps::<0b01_00_11_10>(x));
    let x = _mm512_add_ps(x, _mm512_permute_ps::<0b10_11_00_01>(x));
    let mut lanes = [0.0; 16];
    // SAFETY: as many as a register has.
    unsafe { _mm512_storeu_ps(lanes.as_mut_ptr(), x) }
    [lanes[0], lanes[4], lanes[8], lanes[12]]
}

/// Of the first sixteen bytes of blocks of Q4_K or Q5_K: scales of the eight runs, a byte each, and behind
/// them minima.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn scales_and_minima(header: __m512i) -> __m512i {
    const NONE: i32 = -1;
    /// Bytes of a word.
    const fn word(i: i32) -> i32 {
        0x0302_0100 + 0x0404_0404 * i
    }
    let shuffle = |x, a, b, c, d| {
        let quarter = _mm_set_epi32(d, c, b, a);
        _mm512_shuffle_epi8(x, _mm512_broadcast_i32x4(quarter))
    };
    let only = |x, bits| _mm512_and_si512(x, _mm512_set1_epi8(bits));
    let low_six = only(header, 0x3f);
    let high_two = only(_mm512_srli_epi16::<2>(header), 0x30);
    let [low, high] = nibbles(header);
    let first = shuffle(low_six, word(1), NONE, word(2), NONE);
    let top = shuffle(high_two, NONE, word(1), NONE, word(2));
    let rest = _mm512_or_si512(
        shuffle(low, NONE, word(3), NONE, NONE),
        shuffle(high, NONE, NONE, NONE, word(3)),
    );
    _mm512_or_si512(_mm512_or_si512(first, top), rest)
}

/// The fifth bits of a run of Q5_K, where they belong: bit `run` of each byte.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn fifth_bits(high: __m512i, run: usize) -> __m512i {
    let by = |n: usize| _mm_cvtsi32_si128(n as i32);
    let moved = if run < 4 {
        _mm512_sll_epi16(high, by(4 - run))
    } else {
        _mm512_srl_epi16(high, by(run - 4))
    };
    _mm512_and_si512(moved, _mm512_set1_epi8(1 << 4))
}

/// # Safety
/// As [`with_minima`], of Q4_K.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,f16c,fma")]
unsafe fn q4_k<const R: usize>(rows: &Direct, outputs: Outputs) -> [[f32; OUTPUTS]; R] {
    // SAFETY: handed on.
    unsafe { with_minima::<R, false>(rows, outputs) }
}

/// # Safety
/// As [`with_minima`], of Q5_K.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,f16c,fma")]
unsafe fn q5_k<const R: usize>(rows: &Direct, outputs: Outputs) -> [[f32; OUTPUTS]; R] {
    // SAFETY: handed on.
    unsafe { with_minima::<R, true>(rows, outputs) }
}

/// Q4_K, or with a `FIFTH` bit Q5_K.
///
/// # Safety
/// The outputs are blocks of the format, as many as the rows have superblocks.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,f16c,fma")]
unsafe fn with_minima<const R: usize, const FIFTH: bool>(
    rows: &Direct,
    outputs: Outputs,
) -> [[f32; OUTPUTS]; R] {
    let (bytes, first) = if FIFTH { (176, 48) } else { (144, 16) };
    let first_words = _mm512_set_epi32(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12, 8, 4, 0);
    let mut total = [_mm512_setzero_ps(); R];
    let mut ahead = behind(&outputs, rows.row_bytes);
    for s in 0..rows.superblocks {
        // SAFETY: superblock `s` of each row of activations and of each output is there.
        unsafe {
            let at = outputs.map(|output| output.add(s * bytes));
            let header = quarters(&at, 0);
            let scales = scales_and_minima(header);
            let mut sums = [_mm512_setzero_si512(); R];
            let high = FIFTH.then(|| [quarters(&at, 16), quarters(&at, 32)]);
            for pair in 0..4 {
                ahead.ask(bytes);
                let q = [0, 16].map(|i| quarters(&at, first + 32 * pair + i));
                let [mut even, mut odd] = [[q[0]; 2]; 2];
                for i in 0..2 {
                    [even[i], odd[i]] = nibbles(q[i]);
                    if let Some(high) = high {
                        even[i] = _mm512_or_si512(even[i], fifth_bits(high[i], 2 * pair));
                        odd[i] = _mm512_or_si512(odd[i], fifth_bits(high[i], 2 * pair + 1));
                    }
                }
                for (run, w) in [(2 * pair, even), (2 * pair + 1, odd)] {
                    let scale = _mm512_shuffle_epi8(scales, lanes_of(run as i8, -1));
                    add_run(&mut sums, w, rows, s, 32 * run, scale);
                }
            }
            let minima = _mm512_unpackhi_epi8(scales, _mm512_setzero_si512());
            let d = _mm512_castsi512_si128(_mm512_permutexvar_epi32(first_words, header));
            let d = _mm512_castps256_ps512(_mm256_cvtph_ps(d));
            let (d, d_min) = (spread::<0, 2>(d), spread::<1, 2>(d));
            for (r, (total, sum)) in total.iter_mut().zip(sums).enumerate() {
                let row = s * rows.height + r;
                let low = _mm512_madd_epi16(minima, all_quarters(rows.sums.add(row * RUNS)));
                let x = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), d);
                let x = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(low), d_min, x);
                let scale = _mm512_set1_ps(*rows.scales.add(row * SCALES));
                *total = _mm512_fmadd_ps(x, scale, *total);
            }
        }
    }
    total.map(|total| sums_of_quarters(total))
}

/// # Safety
/// The outputs are blocks of Q6_K, as many as the rows have superblocks.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,f16c,fma")]
unsafe fn q6_k<const R: usize>(rows: &Direct, outputs: Outputs) -> [[f32; OUTPUTS]; R] {
    let two = _mm512_set1_epi8(0x30);
    let with = |nibble, bits| _mm512_or_si512(nibble, _mm512_and_si512(bits, two));
    let mut total = [_mm512_setzero_ps(); R];
    let mut ahead = behind(&outputs, rows.row_bytes);
    for s in 0..rows.superblocks {
        // SAFETY: superblock `s` of each row of activations and of each output is there.
        unsafe {
            let at = outputs.map(|output| output.add(s * 210));
            let bytes = quarters(&at, 192);
            let zero = _mm512_setzero_si512();
            let scales = [
                _mm512_srai_epi16::<8>(_mm512_unpacklo_epi8(zero, bytes)),
                _mm512_srai_epi16::<8>(_mm512_unpackhi_epi8(zero, bytes)),
            ];
            let scale = |run: usize| {
                let byte = (run % 8 * 2) as i8;
                _mm512_shuffle_epi8(scales[run / 8], lanes_of(byte, byte + 1))
            };
            let mut sums = [_mm512_setzero_si512(); R];
            for half in 0..2 {
                for i in 0..2 {
                    ahead.ask(210);
                    let h = quarters(&at, 128 + 32 * half + 16 * i);
                    let [first, third] = nibbles(quarters(&at, 64 * half + 16 * i));
                    let [second, fourth] = nibbles(quarters(&at, 64 * half + 32 + 16 * i));
                    let runs = [
                        with(first, _mm512_slli_epi16::<4>(h)),
                        with(second, _mm512_slli_epi16::<2>(h)),
                        with(third, h),
                        with(fourth, _mm512_srli_epi16::<2>(h)),
                    ];
                    for (j, w) in runs.into_iter().enumerate() {
                        let run = 8 * half + 2 * j + i;
                        add_run(&mut sums, [w], rows, s, 16 * run, scale(run));
                    }
                }
            }
            let d = halves(&at, 208);
            for (r, (total, sum)) in total.iter_mut().zip(sums).enumerate() {
                let row = s * rows.height + r;
                // 32 for each weight too many: sums of runs, packed to 16 bits, times scales.
                let low = _mm512_loadu_si512(rows.sums.add(row * RUNS).cast());
                let low = _mm512_cvtepi32_epi16(_mm512_srai_epi32::<5>(low));
                let first = _mm512_broadcast_i32x4(_mm256_castsi256_si128(low));
                let second = _mm512_broadcast_i32x4(_mm256_extracti128_si256::<1>(low));
                let low = _mm512_madd_epi16(first, scales[0]);
                let low = add_products(low, second, scales[1]);
                let sum = _mm512_add_epi32(sum, _mm512_slli_epi32::<5>(low));
                let scale = _mm512_set1_ps(*rows.scales.add(row * SCALES));
                let x = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), d);
                *total = _mm512_fmadd_ps(x, scale, *total);
            }
        }
    }
    total.map(|total| sums_of_quarters(total))
}

/// # Safety
/// As [`blocks_of_32`], of Q4_0.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,f16c,fma")]
unsafe fn q4_0<const R: usize>(rows: &Direct, outputs: Outputs) -> [[f32; OUTPUTS]; R] {
    // SAFETY: handed on.
    unsafe { blocks_of_32::<R, false>(rows, outputs) }
}

/// # Safety
/// As [`blocks_of_32`], of Q8_0.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,f16c,fma")]
unsafe fn q8_0<const R: usize>(rows: &Direct, outputs: Outputs) -> [[f32; OUTPUTS]; R] {
    // SAFETY: handed on.
    unsafe { blocks_of_32::<R, true>(rows, outputs) }
}

/// Q4_0, or `EIGHT` bits: Q8_0. Each block of 32 has a scale, and so have the rows.
///
/// # Safety
/// The outputs are blocks of the format, of the rows' width.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,f16c,fma")]
unsafe fn blocks_of_32<const R: usize, const EIGHT: bool>(
    rows: &Direct,
    outputs: Outputs,
) -> [[f32; OUTPUTS]; R] {
    let bytes = if EIGHT { 34 } else { 18 };
    let sign = _mm512_set1_epi8(-128);
    let mut total = [_mm512_setzero_ps(); R];
    let mut ahead = behind(&outputs, rows.row_bytes);
    for b in 0..rows.row_bytes / bytes {
        let (s, run) = (b / 8, b % 8);
        // SAFETY: block `b` of each row of activations and of each output is there.
        unsafe {
            let at = outputs.map(|output| output.add(b * bytes));
            ahead.ask(OUTPUTS * bytes);
            let w = if EIGHT {
                [2, 18].map(|i| _mm512_xor_si512(quarters(&at, i), sign))
            } else {
                nibbles(quarters(&at, 2))
            };
            let d = halves(&at, 0);
            for (r, total) in total.iter_mut().enumerate() {
                let row = s * rows.height + r;
                // What weights that begin at zero make too much: a whole number for each lane of a quarter.
                let begin = *rows.sums.add(row * RUNS + run) / OUTPUTS as i32;
                let mut dot = _mm512_set1_epi32(begin);
                for (i, w) in w.into_iter().enumerate() {
                    let a = all_quarters(rows.values.add(row * SUPER + 32 * run + 16 * i));
                    dot = _mm512_dpbusd_epi32(dot, w, a);
                }
                let scale = _mm512_set1_ps(*rows.scales.add(row * SCALES + run));
                *total = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), _mm512_mul_ps(d, scale), *total);
            }
        }
    }
    total.map(|total| sums_of_quarters(total))
}
