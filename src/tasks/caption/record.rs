//! The record of a captioned picture: one line of the output.

use std::{fs::Metadata, path::Path};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::engine::StopReason;

/// Identifies an unchanged picture by size and modification time. The content is not read, so that a folder of a
/// million pictures is scanned in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Bytes of the file.
    pub size: u64,
    /// Modification time; `None` if the system does not provide it.
    pub modified: Option<Timestamp>,
}

impl Identity {
    /// The current identity of the file at `path`.
    ///
    /// # Errors
    /// If its metadata cannot be read.
    pub fn of(path: &Path) -> std::io::Result<Self> {
        path.metadata().map(Self::from)
    }
}

impl From<Metadata> for Identity {
    fn from(metadata: Metadata) -> Self {
        let modified = metadata.modified().ok();
        Self {
            size: metadata.len(),
            modified: modified.and_then(|time| Timestamp::try_from(time).ok()),
        }
    }
}

/// The settings that all captions of one output share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// File name of the model.
    pub model: String,
    /// The prompt.
    pub prompt: String,
    /// The template around the captions, if any.
    pub template: Option<String>,
}

/// A picture with its caption, or with the error. A line has the fields in this order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The path of the picture as found, or the name of a frame.
    pub path: String,
    /// The model's answer in the template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caption: Option<String>,
    /// Why there is no caption.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Bytes of the file.
    pub size: u64,
    /// Modification time of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modified: Option<Timestamp>,
    /// Width in pixels, upright.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<u32>,
    /// Height in pixels, upright.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub height: Option<u32>,
    /// `white` if transparent parts were blended on white; otherwise absent. CSV has no column for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub background: Option<String>,
    /// `true` if the file ends early, so that parts are grey; otherwise absent. CSV has no column for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truncated: Option<bool>,
    /// File name of the model.
    pub model: String,
    /// The prompt.
    pub prompt: String,
    /// The template around the caption, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// When the caption was completed.
    pub time: Timestamp,
    /// Computing time of the model in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// Number of tokens of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<usize>,
    /// Why the answer ended: `stop` if the model finished, `length` if it was cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<StopReason>,
    /// BLAKE3 of the copy that contains the caption, in hexadecimal, if a copy is made. CSV gets a column for it
    /// with the first such record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy_blake3: Option<String>,
}

impl Record {
    /// The recorded size and modification time.
    pub fn identity(&self) -> Identity {
        Identity {
            size: self.size,
            modified: self.modified,
        }
    }

    /// The recorded settings.
    pub fn settings(&self) -> Settings {
        Settings {
            model: self.model.clone(),
            prompt: self.prompt.clone(),
            template: self.template.clone(),
        }
    }
}
