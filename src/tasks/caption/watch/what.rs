//! What an event of the file system means for a picture.

use notify::{
    EventKind,
    event::{AccessKind, AccessMode, CreateKind, ModifyKind, RenameMode},
};

/// What happened to a file, as far as its being whole goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// It was closed after writing, or moved to where it is.
    Complete,
    /// It is there, and may or may not be written to.
    Appeared,
    /// It was written to, and its closing will be told.
    BeingWritten,
    /// It was changed in some way, and nothing else will be told.
    Touched,
    /// It is gone from where it was.
    Gone,
    /// It is the same, but perhaps other people may read it now.
    Opened,
}

impl What {
    pub fn of(kind: EventKind) -> Option<Self> {
        const TELLS_CLOSING: bool = cfg!(any(target_os = "linux", target_os = "android"));
        Some(match kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write))
            | EventKind::Modify(ModifyKind::Name(RenameMode::To)) => Self::Complete,
            EventKind::Create(CreateKind::File | CreateKind::Folder | CreateKind::Any) => {
                Self::Appeared
            }
            EventKind::Modify(ModifyKind::Data(_)) if TELLS_CLOSING => Self::BeingWritten,
            EventKind::Modify(ModifyKind::Name(RenameMode::From)) | EventKind::Remove(_) => {
                Self::Gone
            }
            EventKind::Modify(ModifyKind::Metadata(_)) => Self::Opened,
            EventKind::Modify(
                ModifyKind::Data(_) | ModifyKind::Any | ModifyKind::Name(RenameMode::Any),
            ) if !TELLS_CLOSING => Self::Touched,
            _ => return None,
        })
    }
}
