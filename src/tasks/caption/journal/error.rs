//! Why a file of records cannot serve.

use std::{io, path::PathBuf};

use super::{Journal, agreement::Difference};
use crate::{system::text::TextError, tasks::caption::format::NoRecord};

/// The file cannot serve.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum JournalError {
    #[error("{}: cannot be written", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{}: expected a file or nothing, found {found}", path.display())]
    NotAFile { path: PathBuf, found: &'static str },
    #[error("{}: another process is writing to it", path.display())]
    Busy { path: PathBuf },
    /// The file, or a line of it, is no UTF-8 text.
    #[error("{}", path.display())]
    Text { path: PathBuf, source: TextError },
    #[error("{}: line {line}", path.display())]
    NoRecord {
        path: PathBuf,
        line: usize,
        source: NoRecord,
    },
    #[error(
        "{}: holds captions with another {what}: expected `{expected}`, found `{found}`",
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

    pub(super) fn no_text(&self, source: TextError) -> JournalError {
        JournalError::Text {
            path: self.path.clone(),
            source,
        }
    }

    pub(super) fn no_record(&self, line: usize, source: NoRecord) -> JournalError {
        JournalError::NoRecord {
            path: self.path.clone(),
            line,
            source,
        }
    }

    pub(super) fn other_settings(&self, difference: Difference) -> JournalError {
        JournalError::OtherSettings {
            path: self.path.clone(),
            what: difference.what,
            expected: difference.expected,
            found: difference.found,
        }
    }
}
