//! How blocks become a panel, for every instruction set: one nibble of all lanes at a time.
//!
//! Sixteen bytes of each of a vector's rows are read at once and turned, so that a vector of words has the
//! same four bytes of all; what follows is the same for all lanes. What is written here is the formats'
//! order of bits. An instruction set brings vectors, `Words` (of `WIDE` lanes with four bytes each) and
//! `Numbers` (as many of f32), and what can be done with them:
//!
//! | function | gives |
//! |---|---|
//! | `words(rows, offset)` | sixteen bytes at `offset` of each row, turned: word `i` of lane `l` is the `i`th of row `l` |
//! | `halves(rows, offset)` | the f16 at `offset` of each row |
//! | `low_halves(x)`, `high_halves(x)` | the f16 in the lower and in the upper half of each lane |
//! | `only::<BITS>(x)` | those bits of each byte |
//! | `left::<N>(x)`, `right::<N>(x)` | bits moved; what crosses a byte's border may be anything |
//! | `or(x, y)`, `flip(x)` | bits of both; the top bit of each byte turned over |
//! | `times(a, b)`, `nothing()` | a product of numbers; zeros |
//! | `unsigned(x)`, `signed(x)` | the four bytes of each lane as numbers |
//! | `wider(x)` | the two lower and the two upper bytes of each lane as whole numbers of 16 bits |
//! | `store(to, x)`, `store_numbers(to, x)` | to memory, unaligned |

/// Defines `unpack`, as `Kernel::unpack`, with the functions above that are in scope and those features, for
/// a kernel that takes four inputs of an output at once.
macro_rules! unpack_with {
    ($features:literal) => {
        $crate::blocks::unpack::unpack_formats_with!($features);

        $crate::blocks::unpack::put_fours_with!($features);

        #[inline]
        #[target_feature(enable = $features)]
        fn put_multiple(panel: &mut Panel, first: usize, run: usize, x: Numbers, unit: Numbers) {
            put_scale(panel, first, run, times(x, unit));
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn put_minima(panel: &mut Panel, first: usize, minima: [Words; 2]) {
            for (i, four) in minima.into_iter().enumerate() {
                for (j, pair) in wider(four).into_iter().enumerate() {
                    let at = ((2 * i + j) * LANES + first) * 2;
                    let to: &mut [i16] = &mut panel.minima[at..at + 2 * WIDE];
                    // SAFETY: so many numbers may be written there.
                    unsafe { store(to.as_mut_ptr().cast(), pair) }
                }
            }
        }
    };
}
pub(super) use unpack_with;

/// Of that, `inputs`, `put` and `put_numbers`.
macro_rules! put_fours_with {
    ($features:literal) => {
        /// # Safety
        /// As `words`.
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn inputs(rows: &Rows, offset: usize) -> [Words; 4] {
            // SAFETY: handed on.
            unsafe { words(rows, offset) }
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn put(panel: &mut Panel, first: usize, group: usize, bytes: Words) {
            let at = (group * LANES + first) * 4;
            let to: &mut [u8] = &mut panel.values[at..at + 4 * WIDE];
            // SAFETY: so many bytes may be written there.
            unsafe { store(to.as_mut_ptr(), bytes) }
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn put_numbers(to: &mut [f32], at: usize, numbers: Numbers) {
            let to: &mut [f32] = &mut to[at..at + WIDE];
            // SAFETY: so many numbers may be written there.
            unsafe { store_numbers(to.as_mut_ptr(), numbers) }
        }
    };
}
pub(super) use put_fours_with;

/// The same without what the order of a panel decides:
///
/// | function | does |
/// |---|---|
/// | `inputs(rows, offset)` | gives sixteen bytes at `offset` of each row, as `put` takes them |
/// | `put(panel, first, group + i, x)` | puts the `i`th of such vectors of the lanes from `first` on in place, `group` times four inputs from the begin |
/// | `put_numbers(to, at, x)` | puts numbers of lanes in place, of which `at` come before |
/// | `put_multiple(panel, first, run, x, unit)` | puts scales in place that are so many units |
/// | `put_minima(panel, first, x)` | puts minima of the lanes from `first` on in place, those of the first four runs and those of the last |
macro_rules! unpack_formats_with {
    ($features:literal) => {
        /// The same bytes of `WIDE` rows.
        type Rows = [*const u8; WIDE];

        /// # Safety
        /// As [`Kernel::unpack`](crate::blocks::Kernel::unpack).
        pub unsafe fn unpack(
            panel: &mut Panel,
            matrix: &BlockMatrix,
            output: usize,
            superblock: usize,
        ) {
            let format = matrix.format();
            let blocks = matrix.superblock(output, superblock);
            let n = blocks.len() / format.block_bytes();
            let last = matrix.n_out() - 1 - output;
            for first in (0..LANES).step_by(WIDE) {
                let rows = std::array::from_fn(|lane| {
                    let row = (first + lane).min(last);
                    // SAFETY: an output of the matrix, by `last`.
                    unsafe { blocks.as_ptr().add(row * matrix.row_bytes) }
                });
                // SAFETY: the caller vouches for the instructions; the rows are those of a superblock of
                // `n` blocks, and `first` leaves room for so many lanes.
                unsafe {
                    match format {
                        BlockFormat::Q4_0 => q4_0(panel, first, rows, n),
                        BlockFormat::Q8_0 => q8_0(panel, first, rows, n),
                        BlockFormat::Q4K => q4_k(panel, first, rows),
                        BlockFormat::Q5K => q5_k(panel, first, rows),
                        BlockFormat::Q6K => q6_k(panel, first, rows),
                    }
                }
            }
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn put_scale(panel: &mut Panel, first: usize, run: usize, scale: Numbers) {
            put_numbers(&mut panel.scales, run * LANES + first, scale);
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn low(x: Words) -> Words {
            only::<15>(x)
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn high(x: Words) -> Words {
            low(right::<4>(x))
        }

        /// Scales, minima and what they are multiples of; 16 bytes at the begin of a block.
        ///
        /// # Safety
        /// The rows are blocks of Q4_K or Q5_K.
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn k_header(panel: &mut Panel, first: usize, rows: &Rows) {
            // SAFETY: a block begins with these 16 bytes.
            let [d, a, b, c] = unsafe { words(rows, 0) };
            put_numbers(&mut panel.min_scales, first, high_halves(d));
            let scale = low_halves(d);
            let top = |x| left::<4>(only::<3>(right::<6>(x)));
            let scales = [only::<63>(a), or(low(c), top(a))];
            for (i, four) in scales.into_iter().enumerate() {
                for (j, s) in unsigned(four).into_iter().enumerate() {
                    put_multiple(panel, first, 4 * i + j, s, scale);
                }
            }
            put_minima(panel, first, [only::<63>(b), or(high(c), top(b))]);
        }

        /// # Safety
        /// The rows are blocks of Q4_K.
        #[target_feature(enable = $features)]
        unsafe fn q4_k(panel: &mut Panel, first: usize, rows: Rows) {
            // SAFETY: offsets are within the 144 bytes of a block.
            unsafe {
                k_header(panel, first, &rows);
                for chunk in 0..8 {
                    // 32 bytes have a run in their low nibbles and the next in their high ones.
                    let group = chunk / 2 * 16 + chunk % 2 * 4;
                    for (i, w) in inputs(&rows, 16 + chunk * 16).into_iter().enumerate() {
                        put(panel, first, group + i, low(w));
                        put(panel, first, group + i + 8, high(w));
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
                            // The fifth bits of the run and of the next one come lowest.
                            let lower = only::<16>(left::<4>(*bits));
                            let upper = only::<16>(left::<3>(*bits));
                            *bits = right::<2>(*bits);
                            put(panel, first, group + i, or(low(w), lower));
                            put(panel, first, group + i + 8, or(high(w), upper));
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
                let d = halves(&rows, 208);
                for (i, four) in words(&rows, 192).into_iter().enumerate() {
                    for (j, s) in signed(four).into_iter().enumerate() {
                        put_multiple(panel, first, 4 * i + j, s, d);
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
                            let first_two = only::<48>(left::<4>(h));
                            let second_two = only::<48>(left::<2>(h));
                            let last_two = only::<48>(right::<2>(h));
                            put(panel, first, group, or(low(l), first_two));
                            put(panel, first, group + 8, or(low(u), second_two));
                            put(panel, first, group + 16, or(high(l), only::<48>(h)));
                            put(panel, first, group + 24, or(high(u), last_two));
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
                    put_scale(panel, first, block, halves(&rows, block * 34));
                    for chunk in 0..2 {
                        let bytes = inputs(&rows, block * 34 + 2 + chunk * 16);
                        for (i, w) in bytes.into_iter().enumerate() {
                            put(panel, first, block * 8 + chunk * 4 + i, flip(w));
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
                    put_scale(panel, first, block, halves(&rows, block * 18));
                    for (i, w) in inputs(&rows, block * 18 + 2).into_iter().enumerate() {
                        put(panel, first, block * 8 + i, low(w));
                        put(panel, first, block * 8 + i + 4, high(w));
                    }
                }
            }
            clear(panel, first, n);
        }

        /// Where a row has ended, after `n` runs of 32, weights are zero.
        #[inline]
        #[target_feature(enable = $features)]
        fn clear(panel: &mut Panel, first: usize, n: usize) {
            for run in n..SUPER / 32 {
                put_scale(panel, first, run, nothing());
            }
        }
    };
}
pub(super) use unpack_formats_with;
