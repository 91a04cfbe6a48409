//! Memory needed to decode and resize a picture, computed from its header.

use ::image::{ColorType, ImageDecoder, ImageFormat, metadata::Orientation as ExifOrientation};

use super::{resize_bytes, tiff};

/// Side of the largest resized picture, in pixels: that of the largest model of the family.
const MODEL_SIDE: u32 = 560;

/// Upper bound of the memory for decoding `file`, rotating it and resizing it for a model, besides the file, in bytes.
///
/// The decoders' buffers are as measured with `image` 0.25.10.
pub fn bytes_needed(
    format: ImageFormat,
    file: &[u8],
    decoder: &impl ImageDecoder,
    orientation: ExifOrientation,
) -> u64 {
    let (width, height) = decoder.dimensions();
    let n_pixels = u64::from(width) * u64::from(height);
    let (stored, rgb) = (decoder.total_bytes(), 3 * n_pixels);
    let decoder_buffers = match format {
        ImageFormat::Jpeg => file.len() as u64 + if is_progressive(file) { 2 * stored } else { 0 },
        ImageFormat::WebP if decoder.color_type().has_alpha() => 7 * n_pixels,
        ImageFormat::WebP | ImageFormat::Gif => 4 * n_pixels,
        ImageFormat::Tiff => stored + tiff::sample_bytes(file),
        _ => 0,
    };
    let converted = match decoder.color_type() {
        ColorType::Rgb8 => 0,
        _ => rgb,
    };
    let rotated = match orientation {
        ExifOrientation::NoTransforms => 0,
        _ => 2 * rgb,
    };
    let n_threads = rayon::current_num_threads();
    let resizing = resize_bytes((width, height), (MODEL_SIDE, MODEL_SIDE), n_threads);
    let stages = [
        stored + decoder_buffers,
        stored + converted,
        rotated,
        rgb + resizing,
    ];
    stages.into_iter().max().unwrap_or(0)
}

/// Whether a JPEG is progressive: all its coefficients stay in memory until the last scan.
fn is_progressive(file: &[u8]) -> bool {
    let mut rest = file.get(2..).unwrap_or_default();
    while let Some(at) = rest
        .windows(2)
        .position(|w| w[0] == 0xff && !matches!(w[1], 0 | 0xff))
    {
        match rest[at + 1] {
            0xc2 | 0xc6 | 0xca | 0xce => return true,
            0xc0 | 0xc1 | 0xc3 | 0xda => return false,
            0x01 | 0xd0..=0xd9 => rest = &rest[at + 2..],
            _ => {
                let len = rest[at + 2..]
                    .first_chunk()
                    .map_or(2, |len| u16::from_be_bytes(*len));
                rest = rest
                    .get(at + 2 + usize::from(len.max(2))..)
                    .unwrap_or_default();
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_progressive_jpeg_is_recognised_by_its_frame_header() {
        let jpeg = |frame: u8| {
            let app = [0xff, 0xe1, 0, 6, 0xff, 0xc2, 0, 0]; // the content of a segment does not count
            [&[0xff, 0xd8][..], &app, &[0xff, frame, 0, 4, 8, 0]].concat()
        };
        assert!(is_progressive(&jpeg(0xc2)));
        assert!(!is_progressive(&jpeg(0xc0)));
        assert!(!is_progressive(&jpeg(0xda)));
        for len in 0..jpeg(0xc2).len() {
            is_progressive(&jpeg(0xc2)[..len]);
        }
    }
}
