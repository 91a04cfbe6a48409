//! HEIC, the format of iPhone photographs, decoded by the crate `heifer` (feature `heic`).
//!
//! Rotations and mirrorings in the container (`irot`, `imir`) are always applied. The EXIF orientation only repeats
//! them.

use ::image::{
    DynamicImage, ImageError as DecoderError, RgbaImage,
    error::{DecodingError, ImageFormatHint},
};
use heifer::{Options, heifer_isobmff::HeifFile};

use super::{ImageError, decode::check_size};

const NAME: &str = "HEIC";
/// Memory for decoding in bytes per pixel: RGBA, the samples before conversion, and a margin for the decoder's
/// buffers.
const BYTES_PER_PIXEL: u64 = 14;

/// Decodes a HEIC file with at most `max_bytes` of memory, rotated as the container says.
///
/// # Errors
/// If the file is damaged, uses another codec, or is too large.
pub fn decode(file: &[u8], max_bytes: u64) -> Result<DynamicImage, ImageError> {
    let container = HeifFile::parse(file).map_err(|error| decode_error(error.into()))?;
    let size = container.image_size(container.primary_id);
    let size = size.map_err(|error| decode_error(error.into()))?;
    // Without a declared size, only the limit of pixels below applies.
    let (width, height) = size.unwrap_or((1, 1));
    let n_pixels = u64::from(width) * u64::from(height);
    check_size((width, height), 4 * n_pixels)?;
    let needed = BYTES_PER_PIXEL * n_pixels;
    if needed > max_bytes {
        return Err(ImageError::NoMemory {
            width,
            height,
            needed,
            left: max_bytes,
        });
    }
    let options = Options {
        max_threads: rayon::current_num_threads(),
        max_pixels: (super::MAX_DECODED_BYTES / 4)
            .min(max_bytes / BYTES_PER_PIXEL)
            .max(1),
    };
    let image = heifer::decode_rgba8(file, &options).map_err(decode_error)?;
    let rgba = RgbaImage::from_raw(image.width, image.height, image.data);
    let rgba = rgba.expect("four samples per pixel");
    Ok(match image.has_alpha {
        true => DynamicImage::ImageRgba8(rgba),
        false => DynamicImage::ImageRgb8(DynamicImage::ImageRgba8(rgba).into_rgb8()),
    })
}

fn decode_error(error: heifer::Error) -> ImageError {
    ImageError::Decode {
        format: NAME,
        source: DecoderError::Decoding(DecodingError::new(
            ImageFormatHint::Name(NAME.into()),
            error,
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vision::image::{Decoded, ReadOptions, decode_within};

    const SMALL: &[u8] = include_bytes!("../../../tests/reference/heic/small.heic");
    const TURNED: &[u8] = include_bytes!("../../../tests/reference/heic/turned.heic");
    const ALPHA: &[u8] = include_bytes!("../../../tests/reference/heic/alpha.heic");

    fn read(file: &[u8]) -> Decoded {
        decode_within(file, ReadOptions::default(), u64::MAX).unwrap()
    }

    #[test]
    fn pictures_are_decoded_rotated_and_blended_with_white() {
        let near = |found: [u8; 3], expected: [u8; 3]| {
            found.iter().zip(expected).all(|(f, e)| f.abs_diff(e) <= 2)
        };
        let paper = [245, 240, 221]; // as libheif decodes it
        let small = read(SMALL).picture;
        assert_eq!(small.dimensions(), (96, 64));
        assert!(
            near(small.get_pixel(2, 2).0, paper),
            "{:?}",
            small.get_pixel(2, 2)
        );
        assert_eq!(read(TURNED).picture.dimensions(), (64, 96));
        let alpha = read(ALPHA);
        assert!(alpha.on_white);
        assert!(
            near(alpha.picture.get_pixel(0, 2).0, [255; 3]),
            "transparent on the left"
        );
        assert!(
            near(alpha.picture.get_pixel(95, 2).0, paper),
            "solid on the right"
        );
    }

    #[test]
    fn truncated_files_are_errors_and_memory_is_checked_from_the_header() {
        for len in (0..SMALL.len()).step_by(13) {
            decode(&SMALL[..len], u64::MAX).unwrap_err();
        }
        let error = decode(SMALL, 10_000).unwrap_err();
        assert!(
            matches!(error, ImageError::NoMemory { width: 96, .. }),
            "{error:?}"
        );
    }
}
