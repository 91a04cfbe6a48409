//! Unpacks blocks into a panel, for every instruction set: four bits of all lanes at a time.
//!
//! Sixteen bytes of each of a vector's rows are loaded and transposed, so that a vector of words
//! holds the same four bytes of all rows. From there on all lanes do the same. These macros contain
//! the bit layout of the formats. The file of an instruction set defines two vector types, `Bytes4`
//! (`VECTOR_LANES` lanes of four bytes) and `F32s` (as many f32), and these functions:
//!
//! | function | result |
//! |---|---|
//! | `load_words(rows, offset)` | sixteen bytes at `offset` of each row, transposed: word `i` of lane `l` is the `i`th of row `l` |
//! | `load_f16(rows, offset)` | the f16 at `offset` of each row, as f32 |
//! | `low_f16(x)`, `high_f16(x)` | the f16 in the lower and in the upper half of each lane, as f32 |
//! | `mask::<BITS>(x)` | these bits of each byte |
//! | `shl::<N>(x)`, `shr::<N>(x)` | each byte shifted; the bits shifted in are unspecified |
//! | `spread(x, i)` | the bits `4 * i` to `4 * i + 3` of each lane, one in bit 4 of each byte |
//! | `or(x, y)`, `flip_sign(x)` | bitwise or; the top bit of each byte inverted |
//! | `mul(a, b)`, `zero()` | products of f32; zeros |
//! | `from_u8(x)`, `from_i8(x)` | the four bytes of each lane as f32 |
//! | `widen_to_i16(x)` | the two lower and the two upper bytes of each lane as 16-bit integers |
//! | `store(to, x)`, `store_f32(to, x)` | stores to memory, unaligned |

/// Defines `unpack`, as `QuantizedKernel::unpack`, for a kernel that takes four inputs of an output
/// at once. The functions above must be in scope, for the given features.
macro_rules! unpack_with {
    ($features:literal) => {
        $crate::quantized::unpack::unpack_formats_with!($features);

        $crate::quantized::unpack::store_fours_with!($features);

        $crate::quantized::unpack::store_minima_with!($features);
    };
}
pub(super) use unpack_with;

/// The part of it that defines `store_multiple` and `store_minima`.
macro_rules! store_minima_with {
    ($features:literal) => {
        #[inline]
        #[target_feature(enable = $features)]
        fn store_multiple(panel: &mut Panel, first: usize, run: usize, x: F32s, unit: F32s) {
            store_scale(panel, first, run, mul(x, unit));
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn store_minima(panel: &mut Panel, first: usize, minima: [Bytes4; 2]) {
            for (i, four) in minima.into_iter().enumerate() {
                for (j, pair) in widen_to_i16(four).into_iter().enumerate() {
                    let at = ((2 * i + j) * LANES + first) * 2;
                    let to: &mut [i16] = &mut panel.minima[at..at + 2 * VECTOR_LANES];
                    // SAFETY: just sliced to this length.
                    unsafe { store(to.as_mut_ptr().cast(), pair) }
                }
            }
        }
    };
}
pub(super) use store_minima_with;

/// The part of it that defines `inputs`, `fifth_bits`, `store_values` and `store_f32s`.
macro_rules! store_fours_with {
    ($features:literal) => {
        /// # Safety
        /// As `load_words`.
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn inputs(rows: &Rows, offset: usize) -> [Bytes4; 4] {
            // SAFETY: the caller's promise.
            unsafe { load_words(rows, offset) }
        }

        /// # Safety
        /// As `load_words`.
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn fifth_bits(rows: &Rows, offset: usize) -> [Bytes4; 8] {
            // SAFETY: the caller's promise.
            let bits = unsafe { load_words(rows, offset) }[0];
            [0, 1, 2, 3, 4, 5, 6, 7].map(|i| spread(bits, i))
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn store_values(panel: &mut Panel, first: usize, group: usize, bytes: Bytes4) {
            let at = (group * LANES + first) * 4;
            let to: &mut [u8] = &mut panel.values[at..at + 4 * VECTOR_LANES];
            // SAFETY: just sliced to this length.
            unsafe { store(to.as_mut_ptr(), bytes) }
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn store_f32s(to: &mut [f32], at: usize, numbers: F32s) {
            let to: &mut [f32] = &mut to[at..at + VECTOR_LANES];
            // SAFETY: just sliced to this length.
            unsafe { store_f32(to.as_mut_ptr(), numbers) }
        }
    };
}
pub(super) use store_fours_with;

/// The same without the functions that depend on the layout of the panel:
///
/// | function | effect |
/// |---|---|
/// | `inputs(rows, offset)` | returns sixteen bytes at `offset` of each row, as `store_values` takes them |
/// | `fifth_bits(rows, offset)` | returns the 32 bits at `offset` of each row, one in bit 4 of each byte, in the order of two `inputs`; it may read sixteen bytes |
/// | `store_values(panel, first, group + i, x)` | stores the `i`th of these vectors, for lanes from `first` on, at input `4 * group` |
/// | `store_f32s(to, at, x)` | stores one f32 per lane, at lane `at` |
/// | `store_multiple(panel, first, run, x, unit)` | stores the scales `x * unit` |
/// | `store_minima(panel, first, x)` | stores the minima of the lanes from `first` on: those of the first four runs and of the last four |
macro_rules! unpack_formats_with {
    ($features:literal) => {
        /// Pointers to the same bytes of `VECTOR_LANES` rows.
        type Rows = [*const u8; VECTOR_LANES];

        /// # Safety
        /// As [`QuantizedKernel::unpack`](crate::quantized::QuantizedKernel::unpack).
        pub unsafe fn unpack(
            panel: &mut Panel,
            matrix: &QuantizedMatrix,
            output: usize,
            superblock: usize,
        ) {
            let format = matrix.format();
            let blocks = matrix.superblock(output, superblock);
            let n = blocks.len() / format.block_bytes();
            let last = matrix.n_out() - 1 - output;
            for first in (0..LANES).step_by(VECTOR_LANES) {
                let rows = std::array::from_fn(|lane| {
                    let row = (first + lane).min(last);
                    // SAFETY: an output of the matrix, by `last`.
                    unsafe { blocks.as_ptr().add(row * matrix.row_bytes) }
                });
                // SAFETY: the CPU has the instructions, by the caller's promise; the rows are those
                // of a superblock of `n` blocks, and `first` leaves room for this many lanes.
                unsafe {
                    match format {
                        QuantFormat::Q4_0 => q4_0(panel, first, rows, n),
                        QuantFormat::Q5_0 => q5_0(panel, first, rows, n),
                        QuantFormat::Q8_0 => q8_0(panel, first, rows, n),
                        QuantFormat::Q4K => q4_k(panel, first, rows),
                        QuantFormat::Q5K => q5_k(panel, first, rows),
                        QuantFormat::Q6K => q6_k(panel, first, rows),
                    }
                }
            }
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn store_scale(panel: &mut Panel, first: usize, run: usize, scale: F32s) {
            store_f32s(&mut panel.scales, run * LANES + first, scale);
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn low(x: Bytes4) -> Bytes4 {
            mask::<15>(x)
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn high(x: Bytes4) -> Bytes4 {
            low(shr::<4>(x))
        }

        /// Scales, minima and their factors, from the first 16 bytes of a block.
        ///
        /// # Safety
        /// The rows are blocks of Q4_K or Q5_K.
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn k_header(panel: &mut Panel, first: usize, rows: &Rows) {
            // SAFETY: a block begins with these 16 bytes.
            let [d, a, b, c] = unsafe { load_words(rows, 0) };
            store_f32s(&mut panel.min_scales, first, high_f16(d));
            let scale = low_f16(d);
            let top = |x| shl::<4>(mask::<3>(shr::<6>(x)));
            let scales = [mask::<63>(a), or(low(c), top(a))];
            for (i, four) in scales.into_iter().enumerate() {
                for (j, s) in from_u8(four).into_iter().enumerate() {
                    store_multiple(panel, first, 4 * i + j, s, scale);
                }
            }
            store_minima(panel, first, [mask::<63>(b), or(high(c), top(b))]);
        }

        /// # Safety
        /// The rows are blocks of Q4_K.
        #[target_feature(enable = $features)]
        unsafe fn q4_k(panel: &mut Panel, first: usize, rows: Rows) {
            // SAFETY: offsets are within the 144 bytes of a block.
            unsafe {
                k_header(panel, first, &rows);
                for chunk in 0..8 {
                    // 32 bytes hold a run in their low four bits and the next run in their high
                    // four.
                    let group = chunk / 2 * 16 + chunk % 2 * 4;
                    for (i, w) in inputs(&rows, 16 + chunk * 16).into_iter().enumerate() {
                        store_values(panel, first, group + i, low(w));
                        store_values(panel, first, group + i + 8, high(w));
                    }
                }
            }
        }

        /// # Safety
        /// The rows are blocks of Q5_K.
        #[target_feature(enable = $features)]
        unsafe fn q5_k(panel: &mut Panel, first: usize, rows: Rows) {
            // SAFETY: offsets are within the 176 bytes of a block.
            unsafe {
                k_header(panel, first, &rows);
                for half in 0..2 {
                    let mut bits = inputs(&rows, 16 + half * 16);
                    for pair in 0..4 {
                        let group = pair * 16 + half * 4;
                        let bytes = inputs(&rows, 48 + pair * 32 + half * 16);
                        for (i, (w, bits)) in bytes.into_iter().zip(&mut bits).enumerate() {
                            // The fifth bits of this run and the next are the lowest two.
                            let lower = mask::<16>(shl::<4>(*bits));
                            let upper = mask::<16>(shl::<3>(*bits));
                            *bits = shr::<2>(*bits);
                            store_values(panel, first, group + i, or(low(w), lower));
                            store_values(panel, first, group + i + 8, or(high(w), upper));
                        }
                    }
                }
            }
        }

        /// # Safety
        /// The rows are blocks of Q6_K.
        #[target_feature(enable = $features)]
        unsafe fn q6_k(panel: &mut Panel, first: usize, rows: Rows) {
            // SAFETY: offsets are within the 210 bytes of a block.
            unsafe {
                let d = load_f16(&rows, 208);
                for (i, four) in load_words(&rows, 192).into_iter().enumerate() {
                    for (j, s) in from_i8(four).into_iter().enumerate() {
                        store_multiple(panel, first, 4 * i + j, s, d);
                    }
                }
                for half in 0..2 {
                    for chunk in 0..2 {
                        let lower = inputs(&rows, 64 * half + 16 * chunk);
                        let upper = inputs(&rows, 64 * half + 16 * chunk + 32);
                        let bits = inputs(&rows, 128 + 32 * half + 16 * chunk);
                        for i in 0..4 {
                            let group = 32 * half + 4 * chunk + i;
                            let (l, u, h) = (lower[i], upper[i], bits[i]);
                            let first_two = mask::<48>(shl::<4>(h));
                            let second_two = mask::<48>(shl::<2>(h));
                            let last_two = mask::<48>(shr::<2>(h));
                            store_values(panel, first, group, or(low(l), first_two));
                            store_values(panel, first, group + 8, or(low(u), second_two));
                            store_values(panel, first, group + 16, or(high(l), mask::<48>(h)));
                            store_values(panel, first, group + 24, or(high(u), last_two));
                        }
                    }
                }
            }
        }

        /// # Safety
        /// The rows are `n` blocks of Q8_0.
        #[target_feature(enable = $features)]
        unsafe fn q8_0(panel: &mut Panel, first: usize, rows: Rows, n: usize) {
            for block in 0..n {
                // SAFETY: offsets are within the `n` blocks of 34 bytes.
                unsafe {
                    store_scale(panel, first, block, load_f16(&rows, block * 34));
                    for chunk in 0..2 {
                        let bytes = inputs(&rows, block * 34 + 2 + chunk * 16);
                        for (i, w) in bytes.into_iter().enumerate() {
                            store_values(panel, first, block * 8 + chunk * 4 + i, flip_sign(w));
                        }
                    }
                }
            }
            clear(panel, first, n);
        }

        /// # Safety
        /// The rows are `n` blocks of Q4_0.
        #[target_feature(enable = $features)]
        unsafe fn q4_0(panel: &mut Panel, first: usize, rows: Rows, n: usize) {
            for block in 0..n {
                // SAFETY: offsets are within the `n` blocks of 18 bytes.
                unsafe {
                    store_scale(panel, first, block, load_f16(&rows, block * 18));
                    for (i, w) in inputs(&rows, block * 18 + 2).into_iter().enumerate() {
                        store_values(panel, first, block * 8 + i, low(w));
                        store_values(panel, first, block * 8 + i + 4, high(w));
                    }
                }
            }
            clear(panel, first, n);
        }

        /// # Safety
        /// The rows are `n` blocks of Q5_0.
        #[target_feature(enable = $features)]
        unsafe fn q5_0(panel: &mut Panel, first: usize, rows: Rows, n: usize) {
            for block in 0..n {
                // SAFETY: offsets are within the `n` blocks of 22 bytes.
                unsafe {
                    store_scale(panel, first, block, load_f16(&rows, block * 22));
                    let fifth = fifth_bits(&rows, block * 22 + 2);
                    for (i, w) in inputs(&rows, block * 22 + 6).into_iter().enumerate() {
                        let (lower, upper) = (or(low(w), fifth[i]), or(high(w), fifth[i + 4]));
                        store_values(panel, first, block * 8 + i, lower);
                        store_values(panel, first, block * 8 + i + 4, upper);
                    }
                }
            }
            clear(panel, first, n);
        }

        /// Sets the scales after the end of a row, from run `n` of 32 on, to zero.
        #[inline]
        #[target_feature(enable = $features)]
        fn clear(panel: &mut Panel, first: usize, n: usize) {
            for run in n..SUPERBLOCK / 32 {
                store_scale(panel, first, run, zero());
            }
        }
    };
}
pub(super) use unpack_formats_with;
