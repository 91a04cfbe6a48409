//! GEMV with AVX-512 and VNNI: up to eight rows of activations times weights as they are in memory,
//! for decoding one token of each of a few sequences.
//!
//! An eighth of a register holds eight consecutive inputs of one of eight outputs. Weights are
//! transposed into this layout in registers, once for all rows, and eight activations are broadcast
//! to all eighths as they are loaded. (Shuffles compete with multiplications. On AMD, broadcasting
//! sixteen activations to quarters costs more than half a multiplication.) Nothing is stored in
//! between.
//!
//! ```text
//! lane i (of four):   8 inputs of output i   | the same inputs of output 4 + i
//! dot, 32 bits:       p    p    q    q                      p = output i, q = output 4 + i
//! two dots, packed:   p p q q (of one)  p p q q (of the other)
//! times scales:       p    q    p    q
//! ```
//!
//! The products of a run are multiplied by its scale as 16-bit numbers, two dot products at a time,
//! and stay integers until the end of the superblock. For eight outputs of Q4_K and one row that is
//! 32 multiplications of bytes, 4 by scales and 5 for the rest. Each row is summed in the same
//! order, for any number of rows.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::activations::{RUNS, SCALES};
use super::gemv::{gemv_of, next_outputs_l2};
use super::kernel::{QuantizedGemv, QuantizedGemvFn};
use super::{QuantFormat, SUPERBLOCK};
use crate::tile::prefetch_at;

/// Outputs at a time, an eighth of a register each.
const OUTPUTS: usize = 8;

/// Pointers to the weights of these outputs.
type Outputs = [*const u8; OUTPUTS];

/// As [`super::kernel::QuantizedKernel::gemv`]. With more rows unpacking is faster, because it
/// scales the sums of a run for sixteen outputs at once.
pub fn gemv(format: QuantFormat, rows: usize) -> Option<QuantizedGemvFn> {
    /// The function for this number of rows.
    macro_rules! for_rows {
        ($($n:literal)+: $of:ident) => {
            match rows {
                $($n => Some(gemv_of!($of::<$n>)),)+
                _ => None,
            }
        };
    }
    match format {
        QuantFormat::Q4_0 => for_rows!(1 2 3 4 5 6 7 8: q4_0),
        QuantFormat::Q5_0 => for_rows!(1 2 3 4 5 6 7 8: q5_0),
        QuantFormat::Q8_0 => for_rows!(1 2 3 4 5 6 7 8: q8_0),
        QuantFormat::Q4K => for_rows!(1 2 3 4 5 6 7 8: q4_k),
        QuantFormat::Q5K => for_rows!(1 2 3 4 5 6 7 8: q5_k),
        QuantFormat::Q6K => for_rows!(1 2 3 4 5 6 7 8: q6_k),
    }
}

/// Sixteen bytes at an offset of outputs 0 to 3, and of 4 to 7, a quarter of a register each.
///
/// # Safety
/// These bytes are valid for reads.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn quarters(outputs: &Outputs, offset: usize) -> [__m512i; 2] {
    // SAFETY: as above; unaligned.
    let load = |i: usize| unsafe { _mm_loadu_si128(outputs[i].add(offset).cast()) };
    let four = |i: usize| {
        let x = _mm512_castsi128_si512(load(i));
        let x = _mm512_inserti32x4::<1>(x, load(i + 1));
        let x = _mm512_inserti32x4::<2>(x, load(i + 2));
        _mm512_inserti32x4::<3>(x, load(i + 3))
    };
    [four(0), four(4)]
}

/// The first eight bytes of such quarters, and the second eight.
#[inline]
#[target_feature(enable = "avx512f")]
fn eighths([p, q]: [__m512i; 2]) -> [__m512i; 2] {
    [_mm512_unpacklo_epi64(p, q), _mm512_unpackhi_epi64(p, q)]
}

/// Thirty-two bytes at an offset of each output, eight in each register. The loads are 16 bytes
/// wide: wider ones would need fewer shuffles but cross cache lines, which costs Intel's cores more
/// than it saves AMD's.
///
/// # Safety
/// These bytes are valid for reads.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn turned(outputs: &Outputs, offset: usize) -> [__m512i; 4] {
    // SAFETY: as above.
    let (first, second) = unsafe { (quarters(outputs, offset), quarters(outputs, offset + 16)) };
    let ([x, y], [z, w]) = (eighths(first), eighths(second));
    [x, y, z, w]
}

/// The same eight bytes in each eighth.
///
/// # Safety
/// Eight bytes are valid for reads.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn all_eighths<T>(at: *const T) -> __m512i {
    // SAFETY: as above; unaligned.
    _mm512_set1_epi64(unsafe { at.cast::<i64>().read_unaligned() })
}

/// The low and the high four bits of each byte.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn nibbles(q: __m512i) -> [__m512i; 2] {
    let nibble = _mm512_set1_epi8(15);
    [
        _mm512_and_si512(q, nibble),
        _mm512_and_si512(_mm512_srli_epi16::<4>(q), nibble),
    ]
}

/// These bytes in each 128-bit lane.
#[inline]
#[target_feature(enable = "avx512f")]
fn lanes_of(bytes: [i8; 16]) -> __m512i {
    // SAFETY: both types are 16 bytes and take any pattern of bits.
    _mm512_broadcast_i32x4(unsafe { std::mem::transmute::<[i8; 16], __m128i>(bytes) })
}

/// `sum += scale * (w a)` for each row, for two dot products over `N` registers of weights each.
/// The activations begin at offset `a` in the superblock, eight per register. Products of a lane
/// are below 2^15, and so are scales.
///
/// # Safety
/// These activations of superblock `s` are valid for reads, for `R` rows.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn add_dots<const R: usize, const N: usize>(
    sums: &mut [__m512i; R],
    w: [[__m512i; N]; 2],
    rows: &QuantizedGemv,
    s: usize,
    a: [usize; 2],
    scale: __m512i,
) {
    for (r, sum) in sums.iter_mut().enumerate() {
        let mut dots = [_mm512_setzero_si512(); 2];
        for (dot, (w, a)) in dots.iter_mut().zip(w.into_iter().zip(a)) {
            for (i, w) in w.into_iter().enumerate() {
                // SAFETY: as above.
                let a = unsafe {
                    let row = rows.values.add((s * rows.height + r) * SUPERBLOCK);
                    all_eighths(row.add(a + 8 * i))
                };
                *dot = _mm512_dpbusd_epi32(*dot, w, a);
            }
        }
        *sum = add_products(*sum, _mm512_packs_epi32(dots[0], dots[1]), scale);
    }
}

/// `_mm512_dpwssd_epi32`. The compiler would split the intrinsic into a multiplication and an
/// addition.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
pub(super) fn add_products(mut sum: __m512i, a: __m512i, b: __m512i) -> __m512i {
    // SAFETY: one instruction of the features above, which accesses only these registers.
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

/// Reduces the sums `p q p q` of each lane to one per output.
#[inline]
#[target_feature(enable = "avx512f")]
fn sums_of_outputs(x: __m512) -> [f32; OUTPUTS] {
    let x = _mm512_add_ps(x, _mm512_permute_ps::<0b01_00_11_10>(x));
    let order = _mm512_set_epi32(0, 0, 0, 0, 0, 0, 0, 0, 13, 9, 5, 1, 12, 8, 4, 0);
    let x = _mm512_castps512_ps256(_mm512_permutexvar_ps(order, x));
    let mut outputs = [0.0; OUTPUTS];
    // SAFETY: the array has eight elements.
    unsafe { _mm256_storeu_ps(outputs.as_mut_ptr(), x) }
    outputs
}

/// From the first sixteen bytes of blocks of Q4_K or Q5_K: the scales of the eight runs, a byte
/// each, followed by the minima.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn scales_and_minima(header: __m512i) -> __m512i {
    const NONE: i32 = -1;
    /// Byte indices of word `i`.
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

/// The scale of the scales and the scale of the minima, `p q p q` in each lane, from the same
/// bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,f16c")]
fn scales_of_block([p, q]: [__m512i; 2]) -> [__m512; 2] {
    let halves = _mm512_unpacklo_epi32(p, q); // in each lane: scale and min scale of p, then of q
    let lanes = _mm512_set_epi16(
        27, 25, 27, 25, 19, 17, 19, 17, 11, 9, 11, 9, 3, 1, 3, 1, // min scales
        26, 24, 26, 24, 18, 16, 18, 16, 10, 8, 10, 8, 2, 0, 2, 0,
    );
    let halves = _mm512_permutexvar_epi16(lanes, halves);
    [
        _mm512_cvtph_ps(_mm512_castsi512_si256(halves)),
        _mm512_cvtph_ps(_mm512_extracti64x4_epi64::<1>(halves)),
    ]
}

/// Bit `run` of each byte, moved to bit 4: the fifth bits of a run of Q5_K.
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

/// Widens the 8-bit numbers of two runs to 16 bits: `p p q q` of the first, then of the second.
/// Those of `q` are eight bytes after those of `p`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn spread(numbers: __m512i, first: usize, second: usize) -> __m512i {
    let (a, b) = (first as i8, second as i8);
    let (c, d) = (a + 8, b + 8);
    let order = lanes_of([a, -1, a, -1, c, -1, c, -1, b, -1, b, -1, d, -1, d, -1]);
    _mm512_shuffle_epi8(numbers, order)
}

/// # Safety
/// As [`with_minima`], of Q4_K.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,f16c,fma")]
unsafe fn q4_k<const R: usize>(rows: &QuantizedGemv, outputs: Outputs) -> [[f32; OUTPUTS]; R] {
    // SAFETY: the caller's promise.
    unsafe { with_minima::<R, false>(rows, outputs) }
}

/// # Safety
/// As [`with_minima`], of Q5_K.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,f16c,fma")]
unsafe fn q5_k<const R: usize>(rows: &QuantizedGemv, outputs: Outputs) -> [[f32; OUTPUTS]; R] {
    // SAFETY: the caller's promise.
    unsafe { with_minima::<R, true>(rows, outputs) }
}

/// Q4_K, or Q5_K with a `FIFTH` bit.
///
/// # Safety
/// The outputs point to blocks of the format, one per superblock of the rows.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,f16c,fma")]
unsafe fn with_minima<const R: usize, const FIFTH: bool>(
    rows: &QuantizedGemv,
    outputs: Outputs,
) -> [[f32; OUTPUTS]; R] {
    let (bytes, first) = if FIFTH { (176, 48) } else { (144, 16) };
    // Widens the bytes of four consecutive runs, of `p` and of `q`, to 16 bits.
    let four = lanes_of([0, -1, 1, -1, 2, -1, 3, -1, 8, -1, 9, -1, 10, -1, 11, -1]);
    let next_four = lanes_of([4, -1, 5, -1, 6, -1, 7, -1, 12, -1, 13, -1, 14, -1, 15, -1]);
    let mut total = [_mm512_setzero_ps(); R];
    let mut stream = next_outputs_l2(&outputs, rows.row_bytes);
    for s in 0..rows.superblocks {
        // SAFETY: superblock `s` of each row of activations and of each output exists.
        unsafe {
            let at = outputs.map(|output| output.add(s * bytes));
            let headers = quarters(&at, 0);
            let [p, q] = headers;
            let [mut scales, minima] = eighths([scales_and_minima(p), scales_and_minima(q)]);
            let mut sums = [_mm512_setzero_si512(); R];
            let high = FIFTH.then(|| turned(&at, 16));
            for pair in 0..4 {
                stream.prefetch(2 * bytes);
                for block in &at[2 * pair..][..2] {
                    prefetch_at(block.wrapping_add(bytes), bytes);
                }
                let (run, next) = (2 * pair, 2 * pair + 1);
                let (a, b) = (32 * run, 32 * next);
                let [mut even, mut odd] = [[_mm512_setzero_si512(); 4]; 2];
                for (i, q) in turned(&at, first + 32 * pair).into_iter().enumerate() {
                    [even[i], odd[i]] = nibbles(q);
                    if let Some(high) = high {
                        even[i] = _mm512_or_si512(even[i], fifth_bits(high[i], run));
                        odd[i] = _mm512_or_si512(odd[i], fifth_bits(high[i], next));
                    }
                }
                if FIFTH {
                    for (run, a, [w, x, y, z]) in [(run, a, even), (next, b, odd)] {
                        let scale = spread(scales, run % 2, run % 2);
                        add_dots(&mut sums, [[w, x], [y, z]], rows, s, [a, a + 16], scale);
                    }
                } else {
                    let scale = spread(scales, 0, 1);
                    add_dots(&mut sums, [even, odd], rows, s, [a, b], scale);
                }
                scales = _mm512_srli_epi64::<16>(scales); // those of the next pair
            }
            let next_minima = _mm512_shuffle_epi8(minima, next_four);
            let minima = _mm512_shuffle_epi8(minima, four);
            let [d, d_min] = scales_of_block(headers);
            for (r, (total, sum)) in total.iter_mut().zip(sums).enumerate() {
                let row = s * rows.height + r;
                let of_runs = rows.sums.add(row * RUNS);
                let low = _mm512_madd_epi16(minima, all_eighths(of_runs));
                let low = add_products(low, next_minima, all_eighths(of_runs.add(2)));
                let low = _mm512_shuffle_epi32::<0b11_01_10_00>(low); // p p q q to p q p q
                let x = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), d);
                let x = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(low), d_min, x);
                let scale = _mm512_set1_ps(*rows.scales.add(row * SCALES));
                *total = _mm512_fmadd_ps(x, scale, *total);
            }
        }
    }
    total.map(|total| sums_of_outputs(total))
}

/// Widens the first eight bytes of `p` and of `q` to 16 bits: for two pairs of runs each, `p p q q
/// p p q q`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn eight_scales([p, q]: [__m512i; 2]) -> [__m512i; 2] {
    let zero = _mm512_setzero_si512();
    let p = _mm512_srai_epi16::<8>(_mm512_unpacklo_epi8(zero, p));
    let q = _mm512_srai_epi16::<8>(_mm512_unpacklo_epi8(zero, q));
    [_mm512_unpacklo_epi32(p, q), _mm512_unpackhi_epi32(p, q)]
}

/// The second eight bytes of each lane.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn second_eight([p, q]: [__m512i; 2]) -> [__m512i; 2] {
    [_mm512_bsrli_epi128::<8>(p), _mm512_bsrli_epi128::<8>(q)]
}

/// # Safety
/// The outputs point to blocks of Q6_K, one per superblock of the rows.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,f16c,fma")]
unsafe fn q6_k<const R: usize>(rows: &QuantizedGemv, outputs: Outputs) -> [[f32; OUTPUTS]; R] {
    let two = _mm512_set1_epi8(0x30);
    let with = |nibble, bits| _mm512_or_si512(nibble, _mm512_and_si512(bits, two));
    // From two pairs of runs, the first of the first pair and of the second: `p p q q p p q q`.
    let lower = lanes_of([0, 1, 0, 1, 4, 5, 4, 5, 0, 1, 0, 1, 4, 5, 4, 5]);
    let upper = lanes_of([8, 9, 8, 9, 12, 13, 12, 13, 8, 9, 8, 9, 12, 13, 12, 13]);
    let mut total = [_mm512_setzero_ps(); R];
    let mut stream = next_outputs_l2(&outputs, rows.row_bytes);
    for s in 0..rows.superblocks {
        // SAFETY: superblock `s` of each row of activations and of each output exists.
        unsafe {
            let at = outputs.map(|output| output.add(s * 210));
            let bytes = quarters(&at, 192);
            let mut sums = [_mm512_setzero_si512(); R];
            let mut of_half = bytes;
            for half in 0..2 {
                let [mut front, mut back] = eight_scales(of_half);
                of_half = second_eight(of_half);
                for i in 0..2 {
                    stream.prefetch(2 * 210);
                    for block in &at[4 * half + 2 * i..][..2] {
                        prefetch_at(block.wrapping_add(210), 210);
                    }
                    let [a, b] = eighths(quarters(&at, 64 * half + 16 * i));
                    let [c, d] = eighths(quarters(&at, 64 * half + 16 * i + 32));
                    let [g, h] = eighths(quarters(&at, 128 + 32 * half + 16 * i));
                    let ([a, e], [b, f]) = (nibbles(a), nibbles(b));
                    let x = with(a, _mm512_slli_epi16::<4>(g));
                    let y = with(b, _mm512_slli_epi16::<4>(h));
                    let from = 128 * half + 16 * i;
                    let scale = _mm512_shuffle_epi8(front, lower);
                    add_dots(&mut sums, [[x], [y]], rows, s, [from, from + 8], scale);
                    let ([c, k], [d, l]) = (nibbles(c), nibbles(d));
                    let x = with(c, _mm512_slli_epi16::<2>(g));
                    let y = with(d, _mm512_slli_epi16::<2>(h));
                    let scale = _mm512_shuffle_epi8(front, upper);
                    add_dots(
                        &mut sums,
                        [[x], [y]],
                        rows,
                        s,
                        [from + 32, from + 40],
                        scale,
                    );
                    let (x, y) = (with(e, g), with(f, h));
                    let scale = _mm512_shuffle_epi8(back, lower);
                    add_dots(
                        &mut sums,
                        [[x], [y]],
                        rows,
                        s,
                        [from + 64, from + 72],
                        scale,
                    );
                    let x = with(k, _mm512_srli_epi16::<2>(g));
                    let y = with(l, _mm512_srli_epi16::<2>(h));
                    let scale = _mm512_shuffle_epi8(back, upper);
                    add_dots(
                        &mut sums,
                        [[x], [y]],
                        rows,
                        s,
                        [from + 96, from + 104],
                        scale,
                    );
                    front = _mm512_srli_epi32::<16>(front); // the second of each pair
                    back = _mm512_srli_epi32::<16>(back);
                }
            }
            let ([a, b], [c, d]) = (eight_scales(bytes), eight_scales(second_eight(bytes)));
            let scales = [a, b, c, d];
            let d = halves::<true>(&at, 208);
            for (r, (total, sum)) in total.iter_mut().zip(sums).enumerate() {
                let row = s * rows.height + r;
                // The correction for the zero point of 32: sums of runs, packed to 16 bits, times
                // the scales.
                let low = _mm512_loadu_si512(rows.sums.add(row * RUNS).cast());
                let low = _mm512_cvtepi32_epi16(_mm512_srai_epi32::<5>(low));
                let low = times_scales(_mm512_castsi256_si512(low), &scales);
                let sum = _mm512_add_epi32(sum, _mm512_slli_epi32::<5>(low));
                let scale = _mm512_set1_ps(*rows.scales.add(row * SCALES));
                let x = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), d);
                *total = _mm512_fmadd_ps(x, scale, *total);
            }
        }
    }
    total.map(|total| sums_of_outputs(total))
}

/// Products of a row's sixteen 16-bit numbers, one per run, and their scales: `p q p q` in each
/// lane.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn times_scales(numbers: __m512i, scales: &[__m512i; 4]) -> __m512i {
    let mut sum = _mm512_setzero_si512();
    for (i, scales) in scales.iter().enumerate() {
        let (a, b) = (2 * i as i32, 2 * i as i32 + 1);
        let order = _mm512_broadcast_i32x4(_mm_set_epi32(b, b, a, a));
        sum = add_products(sum, _mm512_permutexvar_epi32(order, numbers), *scales);
    }
    sum
}

/// The f16 at an offset of each output: `p q p q` in each lane if they `ALTERNATE`, else `p p q q`.
///
/// # Safety
/// Two bytes are valid for reads there.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,f16c")]
unsafe fn halves<const ALTERNATE: bool>(outputs: &Outputs, offset: usize) -> __m512 {
    // SAFETY: as above; unaligned.
    let half =
        |i: usize| unsafe { i64::from(outputs[i].add(offset).cast::<u16>().read_unaligned()) };
    let four = |i| half(i) | half(i + 1) << 16 | half(i + 2) << 32 | half(i + 3) << 48;
    let all = _mm256_cvtph_ps(_mm_set_epi64x(four(4), four(0)));
    let order = if ALTERNATE {
        _mm512_set_epi32(7, 3, 7, 3, 6, 2, 6, 2, 5, 1, 5, 1, 4, 0, 4, 0)
    } else {
        _mm512_set_epi32(7, 7, 3, 3, 6, 6, 2, 2, 5, 5, 1, 1, 4, 4, 0, 0)
    };
    _mm512_permutexvar_ps(order, _mm512_castps256_ps512(all))
}

/// Adds 16 to each byte of an eighth whose bit is set in byte `i` of the same eighth of `bits`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn with_fifth_bits(w: __m512i, bits: __m512i, i: i8) -> __m512i {
    let j = i + 8;
    let order = lanes_of([i, i, i, i, i, i, i, i, j, j, j, j, j, j, j, j]);
    let each = _mm512_set1_epi64(0x8040_2010_0804_0201_u64.cast_signed());
    let is_set = _mm512_test_epi8_mask(_mm512_shuffle_epi8(bits, order), each);
    _mm512_mask_add_epi8(w, is_set, w, _mm512_set1_epi8(16))
}

/// # Safety
/// As [`blocks_of_32`], of Q4_0.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,f16c,fma")]
unsafe fn q4_0<const R: usize>(rows: &QuantizedGemv, outputs: Outputs) -> [[f32; OUTPUTS]; R] {
    // SAFETY: the caller's promise.
    unsafe { blocks_of_32::<R, 4>(rows, outputs) }
}

/// # Safety
/// As [`blocks_of_32`], of Q5_0.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,f16c,fma")]
unsafe fn q5_0<const R: usize>(rows: &QuantizedGemv, outputs: Outputs) -> [[f32; OUTPUTS]; R] {
    // SAFETY: the caller's promise.
    unsafe { blocks_of_32::<R, 5>(rows, outputs) }
}

/// # Safety
/// As [`blocks_of_32`], of Q8_0.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,f16c,fma")]
unsafe fn q8_0<const R: usize>(rows: &QuantizedGemv, outputs: Outputs) -> [[f32; OUTPUTS]; R] {
    // SAFETY: the caller's promise.
    unsafe { blocks_of_32::<R, 8>(rows, outputs) }
}

/// Q4_0, Q5_0 or Q8_0: weights of `BITS` bits. Each block of 32 has a scale, in the weights and in the rows.
///
/// # Safety
/// The outputs point to blocks of the format, of the rows' width.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,f16c,fma")]
unsafe fn blocks_of_32<const R: usize, const BITS: usize>(
    rows: &QuantizedGemv,
    outputs: Outputs,
) -> [[f32; OUTPUTS]; R] {
    let bytes = 2 + 4 * BITS;
    let sign = _mm512_set1_epi8(-128);
    let mut total = [_mm512_setzero_ps(); R];
    let mut stream = next_outputs_l2(&outputs, rows.row_bytes);
    for b in 0..rows.row_bytes / bytes {
        let (s, run) = (b / 8, b % 8);
        // SAFETY: block `b` of each row of activations and of each output exists.
        unsafe {
            let at = outputs.map(|output| output.add(b * bytes));
            stream.prefetch(OUTPUTS * bytes);
            let w = if BITS == 8 {
                turned(&at, 2).map(|w| _mm512_xor_si512(w, sign))
            } else {
                let [[x, z], [y, w]] = eighths(quarters(&at, bytes - 16)).map(|q| nibbles(q));
                let w = [x, y, z, w];
                if BITS == 5 {
                    let [bits, _] = eighths(quarters(&at, 2));
                    std::array::from_fn(|i| with_fifth_bits(w[i], bits, i as i8))
                } else {
                    w
                }
            };
            let d = halves::<false>(&at, 0);
            for (r, total) in total.iter_mut().enumerate() {
                let row = s * rows.height + r;
                // The correction for the zero point, half of it in each of the two 32-bit lanes of
                // an eighth.
                let begin = _mm512_set1_epi32(*rows.sums.add(row * RUNS + run));
                let mut dot = _mm512_srai_epi32::<1>(begin);
                for (i, w) in w.into_iter().enumerate() {
                    let a = all_eighths(rows.values.add(row * SUPERBLOCK + 32 * run + 8 * i));
                    dot = _mm512_dpbusd_epi32(dot, w, a);
                }
                let scale = _mm512_set1_ps(*rows.scales.add(row * SCALES + run));
                *total = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), _mm512_mul_ps(d, scale), *total);
            }
        }
    }
    // From p p q q to p q p q.
    total.map(|total| sums_of_outputs(_mm512_permute_ps::<0b11_01_10_00>(total)))
}
