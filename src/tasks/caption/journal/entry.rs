//! The parts of a record that later runs need.

use crate::tasks::caption::{
    Fields,
    fingerprint::Fingerprint,
    format::InvalidRecord,
    missing::is_missing,
    path_text::{path_of, path_text},
};

/// The last record of a path.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Offset of its line in bytes.
    pub at: u64,
    pub fingerprint: Fingerprint,
    /// Whether it has an error instead of a caption.
    pub failed: bool,
}

/// The parsed line of a record.
pub struct Line {
    /// As written by [`path_text`].
    pub path: String,
    pub caption: Option<String>,
    pub entry: Entry,
}

impl Line {
    /// Parses the line at offset `at`.
    ///
    /// # Errors
    /// If it is not a record.
    pub fn new(fields: &Fields, line: &[u8], at: u64) -> Result<Self, InvalidRecord> {
        let expected = |what: &str| InvalidRecord::expected(what.to_owned(), line);
        let path = fields.text("path").filter(|path| !path.is_empty());
        let path = path.ok_or_else(|| expected("a record with a string `path`"))?;
        if !fields.contains("caption") && !fields.contains("error") {
            return Err(expected("a record with a `caption` or an `error`"));
        }
        let (size, modified) = (fields.text("size"), fields.text("modified"));
        let fingerprint = Fingerprint::new(size.as_deref(), modified.as_deref());
        let fingerprint = fingerprint.map_err(|found| {
            InvalidRecord::expected(
                format!("a number of bytes in `size` instead of `{found}`"),
                line,
            )
        })?;
        let caption = caption_of(fields);
        // A user may have added the caption of a failed picture.
        let has_caption = caption.as_ref().is_some_and(|caption| !caption.is_empty());
        let failed = !has_caption && present(fields, "error").is_some();
        Ok(Self {
            path: path_text(&path_of(&path)),
            caption,
            entry: Entry {
                at,
                fingerprint,
                failed,
            },
        })
    }
}

/// A field as text, unless it is empty or a marker of a missing value.
pub fn present(fields: &Fields, name: &str) -> Option<String> {
    fields.text(name).filter(|text| !is_missing(text))
}

/// The caption of a record. `None` may be a model's answer: only together with an error it marks a missing
/// caption.
pub fn caption_of(fields: &Fields) -> Option<String> {
    let is_none = |caption: &String| is_missing(caption) && present(fields, "error").is_some();
    fields.text("caption").filter(|caption| !is_none(caption))
}
