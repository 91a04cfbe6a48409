//! A description written into the bytes of a picture file, without touching the picture.
//!
//! JPEG, PNG and WebP keep an XMP packet, and EXIF, in segments of their own. Those are replaced or
//! added; the compressed image, the colour profile and all the rest, including what follows the
//! image, are copied as they are.

mod edits;
mod exif;
mod jpeg;
mod png;
mod webp;
mod xmp;

use ::image::ImageFormat;
use bytes::Bytes;

pub use self::{
    exif::{DamagedExif, ExifRule},
    xmp::PacketError,
};

/// A picture that a description cannot be written into.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum EmbedError {
    #[error("a description can be written into JPEG, PNG and WebP files, and this is {found}")]
    Format { found: &'static str },
    #[error("the file's structure is damaged: {0}")]
    Structure(&'static str),
    #[error(transparent)]
    Packet(#[from] PacketError),
    #[error(transparent)]
    Exif(#[from] DamagedExif),
    #[error("a {format} file holds {max} bytes of {what}, and this would be {found}")]
    TooLong {
        format: &'static str,
        what: &'static str,
        max: usize,
        found: usize,
    },
    #[error(
        "its {0} stands behind the index of its further images (MPF), whose offsets would be wrong"
    )]
    BehindIndex(&'static str),
}

/// `file` with `caption` as its XMP description, and in EXIF as `exif` says.
///
/// # Errors
/// If the format has no place for one, the file is damaged, or the existing XMP cannot be kept.
pub fn embed(file: &Bytes, caption: &str, exif: ExifRule) -> Result<Bytes, EmbedError> {
    let caption = Caption {
        text: caption,
        exif,
    };
    let copy = match ::image::guess_format(file) {
        Ok(ImageFormat::Jpeg) => jpeg::embed(file, caption)?,
        Ok(ImageFormat::Png) => png::embed(file, caption)?,
        Ok(ImageFormat::WebP) => webp::embed(file, caption)?,
        format => {
            let found = format.map_or("another format", name_of);
            return Err(EmbedError::Format { found });
        }
    };
    Ok(copy.into())
}

fn name_of(format: ImageFormat) -> &'static str {
    match format {
        ImageFormat::Gif => "GIF",
        ImageFormat::Tiff => "TIFF",
        ImageFormat::Bmp => "BMP",
        ImageFormat::Avif => "AVIF",
        _ => "another format",
    }
}

/// What is to be written.
#[derive(Clone, Copy)]
struct Caption<'c> {
    text: &'c str,
    exif: ExifRule,
}

impl Caption<'_> {
    /// The new XMP packet: the first of `existing` with its description replaced, or one of its own;
    /// and the description that it had.
    fn packet(self, existing: &[&[u8]]) -> Result<(Vec<u8>, Option<String>), EmbedError> {
        let Some((first, others)) = existing.split_first() else {
            return Ok((xmp::packet(self.text), None));
        };
        for other in others {
            if xmp::read(other)?.something {
                return Err(PacketError::Several.into());
            }
        }
        let before = xmp::read(first)?.by_default;
        Ok((xmp::with_description(first, self.text)?, before))
    }

    /// The new EXIF block, if it changes.
    fn exif_block(
        self,
        existing: Option<&[u8]>,
        in_xmp: Option<&str>,
    ) -> Result<Option<Vec<u8>>, DamagedExif> {
        exif::with_caption(existing, self.text, in_xmp, self.exif)
    }
}

#[cfg(test)]
mod tests;
