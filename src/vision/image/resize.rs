//! Resampling of 8-bit RGB, bit-identical to Pillow 10: bicubic for towers of fixed size, bilinear for tiles.
//!
//! Pillow's algorithm: a separable kernel (Keys with a = -0.5, or a triangle), scaled up when shrinking so that it also
//! averages; fixed-point weights with 22 fractional bits; the horizontal pass first, each pass rounded to 8 bits, and a pass
//! skipped if its dimension does not change.
//!
//! The crate `fast_image_resize` (6.1) is faster but not identical: with its Catmull-Rom filter all golden pictures
//! except the one of a single pixel differ, by up to 16 levels, because its weights have 16 bits and its vertical pass
//! comes first. The same holds for Pillow 13, so references must be made with Pillow 10.

use std::borrow::Cow;

use ::image::RgbImage;
use rayon::prelude::*;

const CHANNELS: usize = 3;
/// Fractional bits of a weight. 8 bits remain for the sample and 2 as headroom for the negative lobes.
const PRECISION_BITS: u32 = 32 - 8 - 2;
/// The resampling kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Keys' cubic convolution with a = -0.5.
    Bicubic,
    /// A triangle.
    Bilinear,
}

impl Filter {
    /// Half-width of the kernel in source pixels when not shrinking.
    fn support(self) -> f64 {
        match self {
            Self::Bicubic => 2.0,
            Self::Bilinear => 1.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        match self {
            Self::Bicubic => keys_cubic(x),
            Self::Bilinear => (1.0 - x.abs()).max(0.0),
        }
    }
}

/// Maximum size of the rows between the two passes, in bytes, unless a single row is larger.
///
/// Photographs fit in one band. Taller pictures are processed in several, so that memory does not grow with the
/// height.
const BAND_BYTES: usize = 8 << 20;

/// Maximum side of a picture, in pixels.
///
/// No photograph, scan or panorama is longer, and the model sees only a few hundred pixels of it. The limit bounds the
/// weights of a resize, about 16 bytes per pixel of a side.
pub const MAX_SIDE: u32 = 1 << 18;

/// Resizes to `width` x `height`; the aspect ratio is not kept.
///
/// Takes at most [`resize_bytes`] of memory besides the result.
///
/// # Panics
/// If a side of the picture or of the result is zero.
pub fn resize(picture: &RgbImage, width: u32, height: u32, filter: Filter) -> RgbImage {
    let source = Rows {
        picture,
        transposed: false,
    };
    resample(&source, width as usize, height as usize, filter)
}

/// As [`resize`], of the picture mirrored about its main diagonal.
///
/// # Panics
/// As [`resize`].
pub fn resize_transposed(picture: &RgbImage, width: u32, height: u32, filter: Filter) -> RgbImage {
    let source = Rows {
        picture,
        transposed: true,
    };
    resample(&source, width as usize, height as usize, filter)
}

/// The rows of a picture, or of its mirror image about the main diagonal.
struct Rows<'a> {
    picture: &'a RgbImage,
    transposed: bool,
}

impl Rows<'_> {
    /// Width and height.
    fn size(&self) -> (usize, usize) {
        let (w, h) = self.picture.dimensions();
        match self.transposed {
            false => (w as usize, h as usize),
            true => (h as usize, w as usize),
        }
    }

    /// `n` rows from `first` on.
    fn band(&self, first: usize, n: usize) -> Cow<'_, [u8]> {
        let samples = self.picture.as_raw();
        let (width, _) = self.size();
        if !self.transposed {
            let row_len = width * CHANNELS;
            return Cow::Borrowed(&samples[first * row_len..][..n * row_len]);
        }
        let source_row = self.picture.width() as usize * CHANNELS;
        let mut band = vec![0; n * width * CHANNELS];
        band.par_chunks_exact_mut(width * CHANNELS)
            .enumerate()
            .for_each(|(i, row)| {
                for (pixel, source) in row
                    .chunks_exact_mut(CHANNELS)
                    .zip(samples.chunks_exact(source_row))
                {
                    pixel.copy_from_slice(&source[(first + i) * CHANNELS..][..CHANNELS]);
                }
            });
        Cow::Owned(band)
    }
}

fn resample(source: &Rows<'_>, new_w: usize, new_h: usize, filter: Filter) -> RgbImage {
    let (w, h) = source.size();
    assert!(w * h * new_w * new_h > 0, "a picture has pixels");
    let columns = (new_w != w).then(|| Taps::new(w, new_w, filter));
    let mut rows = (new_h != h).then(|| VerticalPass::new(h, new_h, new_w, filter));
    let mut unchanged_rows = Vec::new();
    // A transposed band is a copy.
    let band = band_rows(if source.transposed {
        w.max(new_w)
    } else {
        new_w
    });
    for first in (0..h).step_by(band) {
        let band = source.band(first, band.min(h - first));
        let band = match &columns {
            Some(columns) => Cow::Owned(horizontal(&band, w, columns)),
            None => band,
        };
        match &mut rows {
            Some(rows) => rows.add(&band),
            None => unchanged_rows.extend_from_slice(&band),
        }
    }
    let samples = rows.map_or(unchanged_rows, VerticalPass::finish);
    RgbImage::from_raw(new_w as u32, new_h as u32, samples).expect("width * height pixels")
}

/// Upper bound of the memory of [`resize`] besides the picture and the result, in bytes, for a picture of
/// `from` (width, height) and a result of `to`, with `n_threads` threads.
pub fn resize_bytes(from: (u32, u32), to: (u32, u32), n_threads: usize) -> u64 {
    let weights = |(len, new_len): (u32, u32)| {
        let taps =
            2.0 * Filter::Bicubic.support() * (f64::from(len) / f64::from(new_len)).max(1.0) + 2.0;
        (taps * f64::from(new_len)) as u64 * size_of::<i32>() as u64
    };
    let row_len = to.0 as usize * CHANNELS;
    let band_rows = band_rows(to.0 as usize);
    let rows = from.1 as usize;
    let band = rows.min(band_rows) * row_len;
    let planes = n_threads * from.0 as usize * CHANNELS * size_of::<i32>();
    // With a single band, each thread has the sums of one row; with several, every row may keep its sums between
    // bands.
    let n_sum_rows = if rows > band_rows {
        to.1 as usize
    } else {
        n_threads
    };
    let sums = n_sum_rows * row_len * size_of::<i32>();
    weights((from.0, to.0)) + weights((from.1, to.1)) + (band + planes + sums) as u64
}

/// Rows of `width` pixels per band.
fn band_rows(width: usize) -> usize {
    (BAND_BYTES / (width * CHANNELS)).max(1)
}

/// For each output pixel along one dimension, the source pixels and their weights.
struct Taps {
    windows: Vec<Window>,
}

/// The source pixels of one output pixel and their weights.
struct Window {
    first: usize,
    /// Fixed point with [`PRECISION_BITS`]; they sum to one, except for rounding.
    weights: Vec<i32>,
}

impl Taps {
    fn new(len: usize, new_len: usize, filter: Filter) -> Self {
        let scale = len as f64 / new_len as f64;
        let windows = (0..new_len)
            .map(|i| Window::new(i, scale, len, filter))
            .collect();
        Self { windows }
    }
}

impl Window {
    /// `precompute_coeffs` and `normalize_coeffs_8bpc` of Pillow's `Resample.c`, also in f64.
    fn new(i: usize, scale: f64, len: usize, filter: Filter) -> Self {
        let filter_scale = scale.max(1.0);
        let support = filter.support() * filter_scale;
        let centre = (i as f64 + 0.5) * scale;
        // Casts truncate, and clamp negative values to zero.
        let first = (centre - support + 0.5) as usize;
        let end = ((centre + support + 0.5) as usize).min(len);

        let inv_scale = 1.0 / filter_scale;
        let weights: Vec<f64> = (0..end - first)
            .map(|j| filter.weight(((j + first) as f64 - centre + 0.5) * inv_scale))
            .collect();
        let sum: f64 = weights.iter().sum();
        let one = f64::from(1 << PRECISION_BITS);
        let weights = weights
            .iter()
            .map(|w| (w / sum * one).round() as i32)
            .collect();
        Self { first, weights }
    }
}

/// R. Keys, "Cubic convolution interpolation for digital image processing" (1981), a = -0.5.
fn keys_cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

/// One half in fixed point, so that the final shift rounds.
const HALF: i32 = 1 << (PRECISION_BITS - 1);

/// Cannot overflow: the sum of the absolute weights is below 1.3, so 255 times it fits in 31 - 22 = 9 bits.
fn round_to_u8(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

/// The horizontal pass: `source: [rows, width, 3]` to `[rows, columns, 3]`.
///
/// Each row is deinterleaved into channels first, so that a window is a dot product over adjacent values, which the
/// compiler vectorises.
fn horizontal(source: &[u8], width: usize, columns: &Taps) -> Vec<u8> {
    let row_len = width * CHANNELS;
    let new_row_len = columns.windows.len() * CHANNELS;
    let mut out = vec![0; source.len() / row_len * new_row_len];
    out.par_chunks_exact_mut(new_row_len)
        .zip(source.par_chunks_exact(row_len))
        .for_each_init(
            || vec![0_i32; row_len],
            |planes, (out, row)| {
                for (x, pixel) in row.chunks_exact(CHANNELS).enumerate() {
                    for (c, &sample) in pixel.iter().enumerate() {
                        planes[c * width + x] = i32::from(sample);
                    }
                }
                for (pixel, window) in out.chunks_exact_mut(CHANNELS).zip(&columns.windows) {
                    for (c, sample) in pixel.iter_mut().enumerate() {
                        let plane = &planes[c * width + window.first..][..window.weights.len()];
                        let products = plane.iter().zip(&window.weights).map(|(s, w)| s * w);
                        *sample = round_to_u8(HALF + products.sum::<i32>());
                    }
                }
            },
        );
    out
}

/// The vertical pass: each output row is a weighted sum of source rows, which are added band by band.
///
/// Integer sums do not depend on the band boundaries. Only output rows whose window crosses the end of a band keep
/// their sums until the next band.
struct VerticalPass {
    taps: Taps,
    row_len: usize,
    /// Source rows added so far.
    n_added: usize,
    /// Complete output rows.
    n_done: usize,
    /// For incomplete output rows, the sums so far, if any.
    partial_sums: Vec<Option<Vec<i32>>>,
    /// `[new_height, width, 3]`.
    out: Vec<u8>,
}

impl VerticalPass {
    fn new(height: usize, new_height: usize, width: usize, filter: Filter) -> Self {
        let row_len = width * CHANNELS;
        Self {
            taps: Taps::new(height, new_height, filter),
            row_len,
            n_added: 0,
            n_done: 0,
            partial_sums: vec![None; new_height],
            out: vec![0; new_height * row_len],
        }
    }

    /// Adds the next source rows, `[rows, width, 3]`.
    fn add(&mut self, band: &[u8]) {
        let row_len = self.row_len;
        let at = self.n_added;
        let end = at + band.len() / row_len;
        let open = &self.taps.windows[self.n_done..];
        let open = &open[..open.partition_point(|window| window.first < end)];
        let partial_sums = &mut self.partial_sums[self.n_done..][..open.len()];
        self.out[self.n_done * row_len..]
            .par_chunks_exact_mut(row_len)
            .zip(open)
            .zip(partial_sums)
            .for_each(|((out, window), partial_sums)| {
                let mut sums = partial_sums.take().unwrap_or_else(|| vec![HALF; row_len]);
                window.add_rows(&mut sums, band, at);
                if window.end() > end {
                    *partial_sums = Some(sums);
                    return;
                }
                for (sample, sum) in out.iter_mut().zip(sums) {
                    *sample = round_to_u8(sum);
                }
            });
        self.n_added = end;
        self.n_done += open.partition_point(|window| window.end() <= end);
    }

    /// The result, after all source rows were added.
    fn finish(self) -> Vec<u8> {
        debug_assert_eq!(self.n_done, self.partial_sums.len(), "all rows were added");
        self.out
    }
}

impl Window {
    /// One past the last source pixel.
    fn end(&self) -> usize {
        self.first + self.weights.len()
    }

    /// Adds the rows of `band` in the window, multiplied by their weights. The band starts at source row `at`.
    fn add_rows(&self, sums: &mut [i32], band: &[u8], at: usize) {
        let begin = self.first.max(at);
        let rows = band[(begin - at) * sums.len()..].chunks_exact(sums.len());
        for (row, weight) in rows.zip(&self.weights[begin - self.first..]) {
            for (sum, sample) in sums.iter_mut().zip(row) {
                *sum += i32::from(*sample) * weight;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bicubic(picture: &RgbImage, width: u32, height: u32) -> RgbImage {
        resize(picture, width, height, Filter::Bicubic)
    }

    fn noise(width: u32, height: u32) -> RgbImage {
        let mut state = 1_u32;
        RgbImage::from_fn(width, height, |_, _| {
            ::image::Rgb([(); 3].map(|()| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            }))
        })
    }

    #[test]
    fn resizing_to_the_same_size_changes_nothing() {
        let picture = noise(17, 5);
        assert_eq!(bicubic(&picture, 17, 5), picture);
    }

    #[test]
    fn a_flat_picture_stays_flat_at_any_size() {
        let flat = RgbImage::from_pixel(7, 30, ::image::Rgb([0, 128, 255]));
        for (w, h) in [(1, 1), (490, 490), (3, 77), (7, 31)] {
            let out = bicubic(&flat, w, h);
            assert!(out.pixels().all(|p| p.0 == [0, 128, 255]), "{w}x{h}");
        }
    }

    #[test]
    fn weights_sum_to_one_and_cannot_overflow() {
        for (len, new_len) in [(1, 490), (490, 1), (33_000, 224), (97, 490), (491, 490)] {
            for window in Taps::new(len, new_len, Filter::Bicubic).windows {
                let sum: i64 = window.weights.iter().map(|&w| i64::from(w)).sum();
                let error = (sum - (1 << PRECISION_BITS)).unsigned_abs() as usize;
                assert!(error <= window.weights.len(), "{len} -> {new_len}: {sum}");
                let reach: i64 = window.weights.iter().map(|&w| i64::from(w.abs())).sum();
                assert!(reach * 255 + i64::from(HALF) < i64::from(i32::MAX));
                assert!(window.first + window.weights.len() <= len);
            }
        }
    }

    /// Reference without bands: both passes over the whole picture, pixel by pixel.
    fn resize_reference(picture: &RgbImage, width: u32, height: u32) -> RgbImage {
        let pass = |source: &RgbImage, width: u32, height: u32, across: bool| {
            let (len, new_len) = match across {
                true => (source.width(), width),
                false => (source.height(), height),
            };
            if len == new_len {
                return source.clone();
            }
            let taps = Taps::new(len as usize, new_len as usize, Filter::Bicubic);
            RgbImage::from_fn(width, height, |x, y| {
                let window = &taps.windows[if across { x } else { y } as usize];
                ::image::Rgb(std::array::from_fn(|c| {
                    let at = |i: u32| match across {
                        true => source.get_pixel(i, y).0[c],
                        false => source.get_pixel(x, i).0[c],
                    };
                    let products = (window.first as u32..).zip(&window.weights);
                    let sum: i32 = products.map(|(i, w)| i32::from(at(i)) * w).sum();
                    round_to_u8(HALF + sum)
                }))
            })
        };
        let across = pass(picture, width, picture.height(), true);
        pass(&across, width, height, false)
    }

    #[test]
    fn a_transposed_picture_is_resized_as_its_mirror_image() {
        let picture = noise(31, 77);
        let mirrored = RgbImage::from_fn(77, 31, |x, y| *picture.get_pixel(y, x));
        for (w, h) in [(50, 20), (77, 31), (77, 9), (13, 31)] {
            let expected = resize(&mirrored, w, h, Filter::Bilinear);
            let found = resize_transposed(&picture, w, h, Filter::Bilinear);
            assert!(found == expected, "{w}x{h}");
        }
    }

    #[test]
    fn bands_do_not_change_the_result() {
        let width = 490;
        let band = band_rows(width as usize) as u32;
        for (w, h, new_h) in [
            (1, 3 * band + 7, 490), // windows within a band, at its end, and across it
            (2, band, 31),
            (2, band + 1, 31),
            (3, 2 * band - 1, 2), // windows longer than a band
            (1, 2 * band, 1),
            (1, band + 3, band + 90), // enlarged across the end of a band
        ] {
            let picture = noise(w, h);
            let expected = resize_reference(&picture, width, new_h);
            let found = bicubic(&picture, width, new_h);
            assert!(found == expected, "{w}x{h} to {width}x{new_h}");
        }
    }

    #[test]
    fn extreme_shapes_equal_pillow() {
        // Width and height of source and result, and the CRC-32 of Pillow 10.4's result for the same noise.
        let cases = [
            (1, 60000, 490, 490, 0xa2b33b33),
            (60000, 1, 490, 490, 0xef704f57),
            (3, 30000, 112, 112, 0x55727ca3),
            (30000, 3, 112, 112, 0x3314847e),
            (2, 6000, 490, 6001, 0xda102012),
            (20000, 2, 490, 2, 0x207ca3c4),
            (490, 12000, 490, 7, 0x9494e36c),
            (1, 1, 490, 490, 0xd1b69b3a),
        ];
        for (w, h, new_w, new_h, expected) in cases {
            let resized = bicubic(&noise(w, h), new_w, new_h);
            let mut crc = flate2::Crc::new();
            crc.update(resized.as_raw());
            assert_eq!(crc.sum(), expected, "{w}x{h} to {new_w}x{new_h}");
        }
    }

    #[test]
    fn memory_is_bounded_for_every_shape_within_the_limit() {
        let megabytes = |w, h| resize_bytes((w, h), (490, 490), 2) >> 20;
        assert!(megabytes(1, MAX_SIDE) < 32);
        assert!(megabytes(MAX_SIDE, 1) < 32);
        assert!(megabytes(4000, 3000) < 16);
        assert!(resize_bytes((1, 1), (490, 490), 2) < 100 << 10);
    }

    #[test]
    fn the_result_does_not_depend_on_the_thread_count() {
        let picture = noise(301, 203);
        let with_threads = |n| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(n).build();
            pool.unwrap().install(|| bicubic(&picture, 97, 350))
        };
        assert_eq!(with_threads(1), with_threads(3));
    }
}
