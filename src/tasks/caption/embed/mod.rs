//! Embeds a caption into the bytes of a picture file without changing the image.
//!
//! JPEG, PNG and WebP store XMP and EXIF in separate segments or chunks. These are replaced or added. Everything
//! else is copied unchanged: the compressed image, the colour profile, and any data after the image.

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

/// Why a caption cannot be embedded.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum EmbedError {
    #[error("captions can be embedded in JPEG, PNG and WebP files, but this is {found}")]
    Format { found: &'static str },
    #[error("the file's structure is damaged: {0}")]
    Structure(&'static str),
    #[error(transparent)]
    Packet(#[from] PacketError),
    #[error(transparent)]
    Exif(#[from] DamagedExif),
    #[error("a {format} file can contain {max} bytes of {what}, but {found} are needed")]
    TooLong {
        format: &'static str,
        what: &'static str,
        max: usize,
        found: usize,
    },
    #[error(
        "its {0} comes after the index of its other images (MPF), whose offsets would become wrong"
    )]
    BehindIndex(&'static str),
}

/// `file` with `caption` as its XMP description, and in EXIF according to `exif`.
///
/// # Errors
/// If the format is not supported, the file is damaged, or existing XMP could be lost.
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

/// The caption, and whether it is written to EXIF.
#[derive(Clone, Copy)]
struct Caption<'c> {
    text: &'c str,
    exif: ExifRule,
}

impl Caption<'_> {
    /// The new XMP packet: the first of `existing` with its description replaced, or a new one. The second value
    /// is the previous description.
    fn packet(self, existing: &[&[u8]]) -> Result<(Vec<u8>, Option<String>), EmbedError> {
        let Some((first, others)) = existing.split_first() else {
            return Ok((xmp::packet(self.text), None));
        };
        for other in others {
            if xmp::read(other)?.has_any {
                return Err(PacketError::Several.into());
            }
        }
        let previous = xmp::read(first)?.default;
        Ok((xmp::with_description(first, self.text)?, previous))
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
