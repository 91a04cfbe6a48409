//! Errors of the record file.

use std::{io, path::PathBuf};

use super::{Journal, settings_check::Mismatch};
use crate::{system::text::TextError, tasks::caption::format::InvalidRecord};

/// Why the record file cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum JournalError {
    #[error("{}: cannot be written", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{}: expected a file or nothing, found {found}", path.display())]
    NotAFile { path: PathBuf, found: &'static str },
    #[error("{}: another process is writing to it", path.display())]
    Busy { path: PathBuf },
    /// The file, or a line of it, is not UTF-8 text.
    #[error("{}", path.display())]
    Text { path: PathBuf, source: TextError },
    #[error("{}: line {line}", path.display())]
    InvalidRecord {
        path: PathBuf,
        line: usize,
        source: InvalidRecord,
    },
    #[error(
        "{}: has captions with another {what}: expected `{expected}`, found `{found}`",
        path.display()
    )]
    OtherSettings {
        path: PathBuf,
        what: &'static str,
        expected: String,
        found: String,
    },
}

impl Journal {
    pub(super) fn io(&self, source: io::Error) -> JournalError {
        JournalError::Io {
            path: self.path.clone(),
            source,
        }
    }

    pub(super) fn not_text(&self, source: TextError) -> JournalError {
        JournalError::Text {
            path: self.path.clone(),
            source,
        }
    }

    pub(super) fn invalid_record(&self, line: usize, source: InvalidRecord) -> JournalError {
        JournalError::InvalidRecord {
            path: self.path.clone(),
            line,
            source,
        }
    }

    pub(super) fn other_settings(&self, mismatch: Mismatch) -> JournalError {
        JournalError::OtherSettings {
            path: self.path.clone(),
            what: mismatch.what,
            expected: mismatch.expected,
            found: mismatch.found,
        }
    }
}
