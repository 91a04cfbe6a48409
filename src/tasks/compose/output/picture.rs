//! Converts pictures to formats that browsers show.

use std::{fs, io::Cursor, path::Path};

use image::{ImageFormat, codecs::jpeg::JpegEncoder, imageops::FilterType};

use crate::vision::image::{self as pictures, ImageError, ReadOptions, RgbImage, Transparency};

/// Maximum file size in bytes of a picture that is embedded unchanged.
const SMALL: usize = 1 << 20;
/// Maximum longer side in pixels, and JPEG quality, of pictures that are re-encoded.
const LONGEST: u32 = 1600;
const QUALITY: u8 = 85;

/// The bytes of a picture in a format that browsers show.
#[derive(Clone, Debug)]
pub struct Shown {
    pub bytes: Vec<u8>,
    pub extension: &'static str,
    pub mime: &'static str,
}

impl Shown {
    /// The unchanged file if browsers show its format, otherwise a PNG.
    pub fn whole(file: &Path) -> Result<Self, ImageError> {
        let bytes = read(file)?;
        match web_format(&bytes) {
            Some((extension, mime)) => Ok(Self {
                bytes,
                extension,
                mime,
            }),
            None => Ok(Self {
                bytes: encode(&open(file)?, |rgb, out| rgb.write_to(out, ImageFormat::Png)),
                extension: "png",
                mime: "image/png",
            }),
        }
    }

    /// The unchanged file if it is small and browsers show its format, otherwise a JPEG scaled down to
    /// [`LONGEST`] pixels.
    pub fn embedded(file: &Path) -> Result<Self, ImageError> {
        let bytes = read(file)?;
        if let Some((extension, mime)) = web_format(&bytes).filter(|_| bytes.len() <= SMALL) {
            return Ok(Self {
                bytes,
                extension,
                mime,
            });
        }
        let mut picture = open(file)?;
        let (width, height) = picture.dimensions();
        let longer = width.max(height);
        if longer > LONGEST {
            let scaled = |side: u32| {
                (u64::from(side) * u64::from(LONGEST) / u64::from(longer)).max(1) as u32
            };
            picture = image::imageops::resize(
                &picture,
                scaled(width),
                scaled(height),
                FilterType::CatmullRom,
            );
        }
        let jpeg = |rgb: &RgbImage, out: &mut Cursor<Vec<u8>>| {
            rgb.write_with_encoder(JpegEncoder::new_with_quality(out, QUALITY))
        };
        Ok(Self {
            bytes: encode(&picture, jpeg),
            extension: "jpg",
            mime: "image/jpeg",
        })
    }
}

/// Extension and MIME type, if browsers show the format.
fn web_format(bytes: &[u8]) -> Option<(&'static str, &'static str)> {
    match image::guess_format(bytes).ok()? {
        ImageFormat::Jpeg => Some(("jpg", "image/jpeg")),
        ImageFormat::Png => Some(("png", "image/png")),
        ImageFormat::WebP => Some(("webp", "image/webp")),
        ImageFormat::Gif => Some(("gif", "image/gif")),
        _ => None,
    }
}

fn read(file: &Path) -> Result<Vec<u8>, ImageError> {
    fs::read(file).map_err(|error| ImageError::File {
        path: file.to_owned(),
        source: Box::new(error.into()),
    })
}

/// Decodes the picture on white, the background of the page.
fn open(file: &Path) -> Result<RgbImage, ImageError> {
    let reading = ReadOptions {
        transparency: Transparency::White,
        allow_truncated: true, // the engine has already accepted the file
        ..ReadOptions::default()
    };
    pictures::open(file, reading)
}

fn encode(
    picture: &RgbImage,
    reading: impl FnOnce(&RgbImage, &mut Cursor<Vec<u8>>) -> image::ImageResult<()>,
) -> Vec<u8> {
    let mut out = Cursor::new(Vec::new());
    reading(picture, &mut out).expect("8-bit RGB in memory can be encoded");
    out.into_inner()
}

/// `02-red-circle` for the second picture, `Red circle!.png`.
pub fn name(number: usize, file: &Path) -> String {
    const LONGEST_NAME: usize = 40;
    let stem = file
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .to_lowercase();
    let words: Vec<_> = stem
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|w| !w.is_empty())
        .collect();
    let mut name = words.join("-");
    name.truncate(LONGEST_NAME);
    let name = name.trim_end_matches('-');
    format!(
        "{number:02}-{}",
        if name.is_empty() { "picture" } else { name }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_numbered_and_ascii() {
        assert_eq!(name(2, Path::new("a/Red circle!.PNG")), "02-red-circle");
        assert_eq!(name(12, Path::new("图片.png")), "12-picture");
        assert_eq!(name(1, Path::new("../..")), "01-picture");
        assert_eq!(
            name(1, Path::new(&format!("{}.png", "long-".repeat(20)))).len(),
            3 + 39
        );
    }
}
