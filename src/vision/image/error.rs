//! What can be wrong with a picture.

use std::path::{Path, PathBuf};

use thiserror::Error;

use super::Foreign;
use crate::system::{panics::Panic, units::human};

/// A picture that cannot be read.
#[derive(Debug, Error)]
pub enum ImageError {
    /// The file with this path; the source says what is wrong with it.
    #[error("cannot read picture `{}`", path.display())]
    File {
        /// The path as it was given.
        path: PathBuf,
        /// What is wrong.
        source: Box<ImageError>,
    },
    /// The operating system refused.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A mistake in this program.
    #[error(transparent)]
    Panic(#[from] Panic),
    /// No bytes at all.
    #[error("the file is empty, expected a picture")]
    Empty,
    /// Something known that is not read here.
    #[error("not a picture that can be read: expected JPEG, PNG, WebP, BMP, GIF or TIFF, {0}")]
    Foreign(Foreign),
    /// The first bytes belong to nothing that is known here.
    #[error(
        "not a picture that can be read: expected JPEG, PNG, WebP, BMP, GIF or TIFF, \
         found a file that begins with `{}`",
        visible(head)
    )]
    UnknownFormat {
        /// The first bytes, at most 16.
        head: Vec<u8>,
    },
    /// The picture is valid but larger than the program takes on.
    #[error(
        "the picture is too large: expected at most {} MiB when decoded, found {width}x{height} \
         pixels; make it smaller first, the model sees at most a few hundred pixels a side",
        limit_bytes >> 20
    )]
    TooLarge {
        /// Declared width in pixels.
        width: u32,
        /// Declared height in pixels.
        height: u32,
        /// [`MAX_DECODED_BYTES`](super::MAX_DECODED_BYTES).
        limit_bytes: u64,
    },
    /// A side that no picture has.
    #[error(
        "the picture is too long: expected sides of at most {limit} pixels, found {width}x{height}; cut it into \
         parts first, the model sees at most a few hundred pixels a side"
    )]
    TooLong {
        /// Declared width in pixels.
        width: u32,
        /// Declared height in pixels.
        height: u32,
        /// [`MAX_SIDE`](super::MAX_SIDE).
        limit: u32,
    },
    /// There is not the memory to decode it.
    #[error(
        "not enough memory to decode it: its {width}x{height} pixels take {}, {} available; make it \
         smaller first, the model sees at most a few hundred pixels a side",
        human(*needed), human(*left)
    )]
    NoMemory {
        /// Declared width in pixels.
        width: u32,
        /// Declared height in pixels.
        height: u32,
        /// Bytes that decoding takes.
        needed: u64,
        /// Bytes that it may take.
        left: u64,
    },
    /// The file is larger than any picture within the limit can be.
    #[error("the file is too large for a picture: expected at most {} MiB", limit_bytes >> 20)]
    FileTooLarge {
        /// The largest number of bytes that is read.
        limit_bytes: u64,
    },
    /// A side of zero pixels.
    #[error("the picture has no pixels: found {width}x{height}")]
    NoPixels {
        /// Declared width in pixels.
        width: u32,
        /// Declared height in pixels.
        height: u32,
    },
    /// The data stop before the picture is complete.
    #[error("the {format} data end before the picture is complete; copy or download it again")]
    Truncated {
        /// Name of the format.
        format: &'static str,
    },
    /// A variety of the format that the decoder does not know.
    #[error("this kind of {format} picture is not supported; save it as PNG")]
    Unsupported {
        /// Name of the format.
        format: &'static str,
        /// The decoder's own words.
        source: ::image::error::UnsupportedError,
    },
    /// A variant of the format that cannot be decoded, named by its special feature.
    #[error("a {format} with {variety} is not supported; save it as PNG")]
    Variety {
        /// Name of the format.
        format: &'static str,
        /// Like `arithmetic coding`.
        variety: String,
    },
    /// The decoder found something that it cannot make sense of.
    #[error("cannot decode the {format} data")]
    Decode {
        /// Name of the format.
        format: &'static str,
        /// The decoder's own words.
        source: ::image::ImageError,
    },
}

impl ImageError {
    /// This, which is wrong with the file at `path`.
    #[must_use]
    pub fn of_file(self, path: &Path) -> Self {
        Self::File {
            path: path.to_owned(),
            source: Box::new(self),
        }
    }

    /// Whether rows of the picture are missing.
    pub fn is_truncated(&self) -> bool {
        match self {
            Self::File { source, .. } => source.is_truncated(),
            other => matches!(other, Self::Truncated { .. }),
        }
    }

    /// Whether the picture could be decoded if there were more memory.
    pub fn is_for_want_of_memory(&self) -> bool {
        match self {
            Self::File { source, .. } => source.is_for_want_of_memory(),
            other => matches!(other, Self::NoMemory { .. }),
        }
    }
}

/// Bytes as text; what cannot be seen is escaped, quotes are not.
fn visible(bytes: &[u8]) -> String {
    let shown = |byte: &u8| match byte {
        b'"' | b'\'' => char::from(*byte).to_string(),
        byte => byte.escape_ascii().to_string(),
    };
    bytes.iter().map(shown).collect()
}
