//! The pictures of records: files, frames of a video, finished strips of frames.

use serde::Deserialize;

use super::{VerifyError, golden::GoldenDir};
use crate::vision::image::{self, ReadOptions, RgbImage, strip};

/// A picture of a record.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(untagged)]
pub(super) enum PictureSource {
    /// A file.
    File(String),
    /// Frames that become a strip without labels.
    Frames { frames: Vec<String> },
    /// A finished strip.
    Canvas { canvas: String },
}

impl PictureSource {
    /// Opens the picture, or joins the frames.
    pub fn open(&self, golden: &GoldenDir) -> Result<RgbImage, VerifyError> {
        let open = |name: &String| -> Result<RgbImage, VerifyError> {
            Ok(image::open(&golden.picture(name)?, ReadOptions::REFERENCE)?)
        };
        match self {
            Self::File(name) | Self::Canvas { canvas: name } => open(name),
            Self::Frames { frames } => {
                let mut last_size = (0, 0);
                let mut resized = Vec::with_capacity(frames.len());
                for frame in frames {
                    let frame = open(frame)?;
                    last_size = frame.dimensions();
                    resized.push(strip::resize_frame(&frame));
                }
                Ok(strip::join(&resized, last_size, false))
            }
        }
    }

    /// Whether it is seen as a strip of frames.
    pub fn is_strip(&self) -> bool {
        !matches!(self, Self::File(_))
    }

    /// Whether decoders may differ by a few levels.
    pub fn is_lossy(&self) -> bool {
        match self {
            Self::File(name) | Self::Canvas { canvas: name } => is_lossy(name),
            Self::Frames { frames } => frames.iter().any(|name| is_lossy(name)),
        }
    }
}

impl std::fmt::Display for PictureSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(name) | Self::Canvas { canvas: name } => f.write_str(name),
            Self::Frames { frames } => write!(f, "frames {}", frames.join(" ")),
        }
    }
}

/// Whether a file's name says that its format is lossy.
pub(super) fn is_lossy(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    [".jpg", ".jpeg", ".webp"]
        .iter()
        .any(|ending| name.ends_with(ending))
}
