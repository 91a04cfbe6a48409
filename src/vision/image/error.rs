//! Errors of reading and decoding pictures.

use std::path::{Path, PathBuf};

use thiserror::Error;

use super::Foreign;
use crate::system::{panics::Panic, units::human};

/// A picture that cannot be read.
#[derive(Debug, Error)]
pub enum ImageError {
    /// An error in the file with this path; the source says which.
    #[error("cannot read picture `{}`", path.display())]
    File {
        /// The path, as the caller gave it.
        path: PathBuf,
        /// The error.
        source: Box<ImageError>,
    },
    /// The operating system reported an error.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A bug in this program.
    #[error(transparent)]
    Panic(#[from] Panic),
    /// The file has no bytes.
    #[error("the file is empty, expected a picture")]
    Empty,
    /// A known format that is not supported.
    #[error("not a picture that can be read: expected JPEG, PNG, WebP, BMP, GIF or TIFF, {0}")]
    Foreign(Foreign),
    /// The first bytes match no known format.
    #[error(
        "not a picture that can be read: expected JPEG, PNG, WebP, BMP, GIF or TIFF, \
         found a file that begins with `{}`",
        printable(head)
    )]
    UnknownFormat {
        /// The first bytes, at most 16.
        head: Vec<u8>,
    },
    /// The picture exceeds the size limit.
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
    /// A side exceeds the limit.
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
    /// Decoding takes more memory than is available.
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
        /// Bytes that decoding needs.
        needed: u64,
        /// Bytes available for decoding.
        left: u64,
    },
    /// The file is larger than any picture within the size limit.
    #[error("the file is too large for a picture: expected at most {} MiB", limit_bytes >> 20)]
    FileTooLarge {
        /// Maximum file size in bytes.
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
    /// A picture so long that its short side vanishes when it is cut into tiles.
    #[error(
        "the picture is too narrow to be cut into tiles: expected sides whose ratio is at most 1000, found \
         {width}x{height} pixels; cut it into parts first"
    )]
    TooNarrow {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// The data end before the picture is complete.
    #[error("the {format} data end before the picture is complete; copy or download it again")]
    Truncated {
        /// Name of the format.
        format: &'static str,
    },
    /// A variant of the format that the decoder does not support.
    #[error("this kind of {format} picture is not supported; save it as PNG")]
    Unsupported {
        /// Name of the format.
        format: &'static str,
        /// The decoder's error.
        source: ::image::error::UnsupportedError,
    },
    /// A variant of the format that is not supported, identified by its feature.
    #[error("a {format} with {variety} is not supported; save it as PNG")]
    Variety {
        /// Name of the format.
        format: &'static str,
        /// The feature, such as `arithmetic coding`.
        variety: String,
    },
    /// The decoder found invalid data.
    #[error("cannot decode the {format} data")]
    Decode {
        /// Name of the format.
        format: &'static str,
        /// The decoder's error.
        source: ::image::ImageError,
    },
}

impl ImageError {
    /// Adds the path of the file.
    #[must_use]
    pub fn of_file(self, path: &Path) -> Self {
        Self::File {
            path: path.to_owned(),
            source: Box::new(self),
        }
    }

    /// Whether the picture is incomplete.
    pub fn is_truncated(&self) -> bool {
        match self {
            Self::File { source, .. } => source.is_truncated(),
            other => matches!(other, Self::Truncated { .. }),
        }
    }

    /// The same with `bytes` more needed, for the steps after decoding, of `available` bytes.
    pub(crate) fn with_more_memory(self, bytes: u64, available: u64) -> Self {
        match self {
            Self::File { path, source } => Self::File {
                path,
                source: Box::new(source.with_more_memory(bytes, available)),
            },
            Self::NoMemory {
                width,
                height,
                needed,
                ..
            } => Self::NoMemory {
                width,
                height,
                needed: needed.saturating_add(bytes),
                left: available,
            },
            error => error,
        }
    }

    /// Whether the picture could be decoded with more memory.
    pub fn is_out_of_memory(&self) -> bool {
        match self {
            Self::File { source, .. } => source.is_out_of_memory(),
            other => matches!(other, Self::NoMemory { .. }),
        }
    }
}

/// Bytes as text; unprintable ones are escaped, quotes are not.
fn printable(bytes: &[u8]) -> String {
    let escape = |byte: &u8| match byte {
        b'"' | b'\'' => char::from(*byte).to_string(),
        byte => byte.escape_ascii().to_string(),
    };
    bytes.iter().map(escape).collect()
}
