//! Bicubic resampling of 8-bit RGB that equals Pillow 10 bit for bit.
//!
//! Pillow's scheme: a separable Keys kernel (a = -0.5), widened when shrinking so that it also
//! averages; weights in fixed point with 22 fractional bits; the horizontal pass first, each pass
//! rounded to 8 bits, and a pass skipped when its dimension does not change.
//!
//! The crate `fast_image_resize` (6.1) is faster but was not taken: with its Catmull-Rom filter all
//! golden pictures except the one of a single pixel differ, by up to 16 levels, since its weights
//! have 16 bits and its vertical pass comes first. The same holds for Pillow 13, so references have
//! to be made with Pillow 10.

use ::image::RgbImage;
use rayon::prelude::*;

const CHANNELS: usize = 3;
/// Fractional bits of a weight: 8 bits of sample and 2 of headroom for the negative lobes remain.
const PRECISION_BITS: u32 = 32 - 8 - 2;
/// Reach of the kernel in source pixels when not shrinking.
const SUPPORT: f64 = 2.0;

/// Resizes to `width` x `height`; the aspect ratio is whatever that makes it.
///
/// # Panics
/// If a side of the picture or of the result is zero.
pub fn resize_bicubic(picture: &RgbImage, width: u32, height: u32) -> RgbImage {
    let (w, h) = (picture.width() as usize, picture.height() as usize);
    let (new_w, new_h) = (width as usize, height as usize);
    assert!(w * h * new_w * new_h > 0, "a picture has pixels");

    let columns = (new_w != w).then(|| Taps::new(w, new_w));
    let rows = (new_h != h).then(|| Taps::new(h, new_h));
    let mut samples = None;
    if let Some(columns) = &columns {
        samples = Some(horizontal(picture.as_raw(), w, columns));
    }
    if let Some(rows) = &rows {
        let source = samples.as_deref().unwrap_or(picture.as_raw());
        samples = Some(vertical(source, new_w, rows));
    }
    let samples = samples.unwrap_or_else(|| picture.as_raw().clone());
    RgbImage::from_raw(width, height, samples).expect("the passes made width * height pixels")
}

/// The source pixels that make up each pixel of the result, along one dimension.
struct Taps {
    windows: Vec<Window>,
}

/// The weighted run of source pixels behind one pixel of the result.
struct Window {
    first: usize,
    /// Fixed point, [`PRECISION_BITS`]; they sum to one but for rounding.
    weights: Vec<i32>,
}

impl Taps {
    fn new(len: usize, new_len: usize) -> Self {
        let scale = len as f64 / new_len as f64;
        let windows = (0..new_len).map(|i| Window::new(i, scale, len)).collect();
        Self { windows }
    }
}

impl Window {
    /// `precompute_coeffs` and `normalize_coeffs_8bpc` of Pillow's `Resample.c`, in f64 as there.
    fn new(i: usize, scale: f64, len: usize) -> Self {
        let filter_scale = scale.max(1.0);
        let support = SUPPORT * filter_scale;
        let centre = (i as f64 + 0.5) * scale;
        // Casts truncate, and clamp the negative to zero.
        let first = (centre - support + 0.5) as usize;
        let end = ((centre + support + 0.5) as usize).min(len);

        let inv_scale = 1.0 / filter_scale;
        let weights: Vec<f64> = (0..end - first)
            .map(|j| keys_cubic(((j + first) as f64 - centre + 0.5) * inv_scale))
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

/// One half, so that the final shift rounds.
const HALF: i32 = 1 << (PRECISION_BITS - 1);

/// The weights' absolute sum stays below 1.3, so 255 times it fits 31 - 22 = 9 bits: no overflow.
fn round_to_u8(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

/// `source: [rows, width, 3]` to `[rows, columns, 3]`.
///
/// A row is taken apart into its channels first, so that a window is a dot product over adjacent
/// numbers, which the compiler vectorises.
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

/// `source: [height, width, 3]` to `[rows, width, 3]`: each row of the result is a weighted sum of
/// whole rows.
fn vertical(source: &[u8], width: usize, rows: &Taps) -> Vec<u8> {
    let row_len = width * CHANNELS;
    let mut out = vec![0; rows.windows.len() * row_len];
    out.par_chunks_exact_mut(row_len)
        .zip(&rows.windows)
        .for_each_init(
            || vec![0_i32; row_len],
            |sums, (out, window)| {
                sums.fill(HALF);
                let source = source[window.first * row_len..].chunks_exact(row_len);
                for (row, weight) in source.zip(&window.weights) {
                    for (sum, sample) in sums.iter_mut().zip(row) {
                        *sum += i32::from(*sample) * weight;
                    }
                }
                for (sample, sum) in out.iter_mut().zip(sums) {
                    *sample = round_to_u8(*sum);
                }
            },
        );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn an_unchanged_size_is_the_same_picture() {
        let picture = noise(17, 5);
        assert_eq!(resize_bicubic(&picture, 17, 5), picture);
    }

    #[test]
    fn a_flat_picture_stays_flat_at_any_size() {
        let flat = RgbImage::from_pixel(7, 30, ::image::Rgb([0, 128, 255]));
        for (w, h) in [(1, 1), (490, 490), (3, 77), (7, 31)] {
            let out = resize_bicubic(&flat, w, h);
            assert!(out.pixels().all(|p| p.0 == [0, 128, 255]), "{w}x{h}");
        }
    }

    #[test]
    fn weights_sum_to_one_and_cannot_overflow() {
        for (len, new_len) in [(1, 490), (490, 1), (33_000, 224), (97, 490), (491, 490)] {
            for window in Taps::new(len, new_len).windows {
                let sum: i64 = window.weights.iter().map(|&w| i64::from(w)).sum();
                let error = (sum - (1 << PRECISION_BITS)).unsigned_abs() as usize;
                assert!(error <= window.weights.len(), "{len} -> {new_len}: {sum}");
                let reach: i64 = window.weights.iter().map(|&w| i64::from(w.abs())).sum();
                assert!(reach * 255 + i64::from(HALF) < i64::from(i32::MAX));
                assert!(window.first + window.weights.len() <= len);
            }
        }
    }

    #[test]
    fn the_result_does_not_depend_on_the_thread_count() {
        let picture = noise(301, 203);
        let with_threads = |n| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(n).build();
            pool.unwrap().install(|| resize_bicubic(&picture, 97, 350))
        };
        assert_eq!(with_threads(1), with_threads(3));
    }
}
