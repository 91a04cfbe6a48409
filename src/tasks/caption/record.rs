//! What is known about a captioned picture: one line of the output.

use std::{fs::Metadata, path::Path};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::engine::StopReason;

/// By what a picture is told to be the same as before: its size and when it was last changed. Its
/// content is not read for that, so a folder of a million pictures is looked through in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Bytes of the file.
    pub size: u64,
    /// When it was last changed; `None` where the system does not tell.
    pub modified: Option<Timestamp>,
}

impl Identity {
    /// The identity of the file at `path`, as it is now.
    ///
    /// # Errors
    /// If there is none.
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

/// What the captions of one output have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// File name of the model.
    pub model: String,
    /// The question.
    pub prompt: String,
    /// What stands around the captions, if anything.
    pub template: Option<String>,
}

/// One picture with its caption, or with why it has none. The fields of a line stand in this order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The picture's path, as it was found; a frame's name.
    pub path: String,
    /// What the model said, in its template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caption: Option<String>,
    /// Why there is no caption.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Bytes of the file.
    pub size: u64,
    /// When the file was last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modified: Option<Timestamp>,
    /// Pixels, as stored in the file or turned upright.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<u32>,
    /// Pixels, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub height: Option<u32>,
    /// `white` if it has transparent parts and was put on white; nothing otherwise. CSV has no
    /// column for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub background: Option<String>,
    /// Whether its file ends early, so that parts of it are grey; nothing otherwise. CSV has no column for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truncated: Option<bool>,
    /// File name of the model.
    pub model: String,
    /// The question.
    pub prompt: String,
    /// What stands around the caption, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// When the caption was done.
    pub time: Timestamp,
    /// Seconds that the model worked on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// Tokens of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<usize>,
    /// Why the answer ended: `stop` if the model was done, `length` if it was cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<StopReason>,
    /// BLAKE3 of the copy that carries the caption, in hexadecimal digits, if there is to be one. CSV has a column
    /// for it once a record has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy_blake3: Option<String>,
}

impl Record {
    /// By what the picture is told to be the same.
    pub fn identity(&self) -> Identity {
        Identity {
            size: self.size,
            modified: self.modified,
        }
    }

    /// How it was captioned.
    pub fn settings(&self) -> Settings {
        Settings {
            model: self.model.clone(),
            prompt: self.prompt.clone(),
            template: self.template.clone(),
        }
    }
}
