//! Captions for many pictures, in runs that may be interrupted and resumed.
//!
//! ```text
//! files, folders, lists ── source ──▶ Found ─┐                 ┌─▶ journal   records: JSONL or CSV
//! a watched folder ─────── watch ───▶ Found ─┼─▶ Captioner ────┤
//! a camera's stream ────── mjpeg ───▶ frames ┘   (engine)      └─▶ sidecar   .txt, copies with XMP
//! ```
//!
//! The journal is the only state, and users may edit it. A picture is done if it has a record there and has not
//! changed since. A record is appended before the sidecars are written, and a missing sidecar is made from the
//! record, so a run may end at any moment and the next one resumes.

mod captioner;
mod embed;
mod fields;
mod fingerprint;
mod format;
mod gate;
mod journal;
mod layout;
mod missing;
mod mjpeg;
mod path_text;
mod record;
mod records;
mod selection;
mod shard;
mod sidecar;
mod source;
mod template;
mod walk;
mod watch;

pub use captioner::{Captioner, Job, Next, Opened};
pub use embed::{DamagedExif, EmbedError, ExifRule, PacketError, embed};
pub use fields::Fields;
pub use format::{COLUMNS, Format, InvalidRecord};
pub use gate::Gate;
pub use journal::{Journal, JournalError, SetAside, Status};
pub use mjpeg::Frames;
pub use path_text::{path_of, path_text};
pub use record::{Identity, Record, Settings};
pub use records::{Decision, Policy, Records, RecordsError};
pub use selection::{EXTENSIONS, Exclude, FolderFilter, Kind, Selection, SkippedFiles};
pub use shard::Shard;
pub use sidecar::{Claims, Prepared, Refused, SidecarError, Sidecars};
pub use source::{Found, Inventory, SourceError};
pub use template::Template;
pub use walk::{Step, walk};
pub use watch::{Arrival, Limit, POLL, WatchError, watch};
