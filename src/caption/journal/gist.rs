//! What a line of the file of records says that matters to further runs.

use serde_json::Value;

use crate::caption::{
    fingerprint::Fingerprint,
    format::NoRecord,
    layout::Fields,
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
        let path = text_of(fields, "path").filter(|path| !path.is_empty());
        let path = path.ok_or_else(|| expected("a record with a string `path`"))?;
        if !fields.contains_key("caption") && !fields.contains_key("error") {
            return Err(expected("a record with a `caption` or an `error`"));
        }
        let fingerprint = Fingerprint::new(fields.get("size"), fields.get("modified"));
        let fingerprint = fingerprint.map_err(|found| {
            NoRecord::expected(
                format!("a number of bytes in `size` instead of `{found}`"),
                line,
            )
        })?;
        let caption = text_of(fields, "caption");
        // A person may describe a picture that no model could.
        let has_caption = caption.as_ref().is_some_and(|caption| !caption.is_empty());
        let failed =
            !has_caption && text_of(fields, "error").is_some_and(|error| !error.is_empty());
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

/// A field as text, whatever a person's program made of it.
pub fn text_of(fields: &Fields, name: &str) -> Option<String> {
    match fields.get(name)? {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}
