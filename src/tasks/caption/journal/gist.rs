//! What a line of the file of records says that matters to further runs.

use crate::tasks::caption::{
    Fields,
    fingerprint::Fingerprint,
    format::NoRecord,
    missing::is_missing,
    path_text::{path_of, path_text},
};

/// The last record of a path.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Where its line begins.
    pub at: u64,
    pub fingerprint: Fingerprint,
    /// Whether it says why there is no caption.
    pub failed: bool,
}

/// What a line says that matters here.
pub struct Gist {
    /// As [`path_text`] writes it.
    pub path: String,
    pub caption: Option<String>,
    pub entry: Entry,
}

impl Gist {
    /// Of the line at `at`.
    ///
    /// # Errors
    /// If it is no record.
    pub fn new(fields: &Fields, line: &[u8], at: u64) -> Result<Self, NoRecord> {
        let expected = |what: &str| NoRecord::expected(what.to_owned(), line);
        let path = fields.text("path").filter(|path| !path.is_empty());
        let path = path.ok_or_else(|| expected("a record with a string `path`"))?;
        if !fields.contains("caption") && !fields.contains("error") {
            return Err(expected("a record with a `caption` or an `error`"));
        }
        let (size, modified) = (fields.text("size"), fields.text("modified"));
        let fingerprint = Fingerprint::new(size.as_deref(), modified.as_deref());
        let fingerprint = fingerprint.map_err(|found| {
            NoRecord::expected(
                format!("a number of bytes in `size` instead of `{found}`"),
                line,
            )
        })?;
        let caption = caption_of(fields);
        // A person may describe a picture that no model could.
        let has_caption = caption.as_ref().is_some_and(|caption| !caption.is_empty());
        let failed = !has_caption && stated(fields, "error").is_some();
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

/// A field as text, if it is stated: neither blank nor a word for a missing value.
pub fn stated(fields: &Fields, name: &str) -> Option<String> {
    fields.text(name).filter(|text| !is_missing(text))
}

/// The caption of a record. `None` can be a model's answer: only beside an error it is a word for a missing
/// caption.
pub fn caption_of(fields: &Fields) -> Option<String> {
    let is_none = |caption: &String| is_missing(caption) && stated(fields, "error").is_some();
    fields.text("caption").filter(|caption| !is_none(caption))
}
