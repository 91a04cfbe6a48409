//! Classifies file system events.

use notify::{
    EventKind,
    event::{AccessKind, AccessMode, CreateKind, ModifyKind, RenameMode},
};

/// What an event says about the completeness of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileEvent {
    /// It was closed after writing, or moved into place.
    Complete,
    /// It was created, and may still be written to.
    Appeared,
    /// It was written to, and closing it will be reported.
    BeingWritten,
    /// It was changed, and no further event will be reported.
    Touched,
    /// It was removed or moved away.
    Removed,
    /// Its metadata changed; it may have become readable.
    MetadataChanged,
}

impl FileEvent {
    pub fn of(kind: EventKind) -> Option<Self> {
        const REPORTS_CLOSE: bool = cfg!(any(target_os = "linux", target_os = "android"));
        Some(match kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write))
            | EventKind::Modify(ModifyKind::Name(RenameMode::To)) => Self::Complete,
            EventKind::Create(CreateKind::File | CreateKind::Folder | CreateKind::Any) => {
                Self::Appeared
            }
            EventKind::Modify(ModifyKind::Data(_)) if REPORTS_CLOSE => Self::BeingWritten,
            EventKind::Modify(ModifyKind::Name(RenameMode::From)) | EventKind::Remove(_) => {
                Self::Removed
            }
            EventKind::Modify(ModifyKind::Metadata(_)) => Self::MetadataChanged,
            EventKind::Modify(
                ModifyKind::Data(_) | ModifyKind::Any | ModifyKind::Name(RenameMode::Any),
            ) if !REPORTS_CLOSE => Self::Touched,
            _ => return None,
        })
    }
}
