//! Formats of records: JSON Lines and CSV.

use super::{Fields, Record, layout::Layout};

/// The format of an output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// JSON Lines: one JSON object per line.
    #[default]
    Jsonl,
    /// CSV as in RFC 4180, with a header. Captions with line breaks are quoted.
    Csv,
}

/// The columns of a CSV file: the fields of [`Record`] except `background`, `truncated` and `copy_blake3`. A file
/// gets a column for `copy_blake3` with the first record that has it.
pub const COLUMNS: [&str; 14] = [
    "path", "caption", "error", "size", "modified", "width", "height", "model", "prompt",
    "template", "time", "seconds", "tokens", "stop",
];

/// Fields of a [`Record`] for which a new CSV file has no column.
pub(super) const JSON_ONLY: [&str; 3] = ["background", "truncated", COPY];

/// The field with the hash of a copy, which shows whether the copy was edited.
pub(super) const COPY: &str = "copy_blake3";

/// Why a line or row is not a valid record.
#[derive(Debug, thiserror::Error)]
#[error("expected {what}, found `{found}`")]
pub struct InvalidRecord {
    what: String,
    found: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl InvalidRecord {
    /// The line is not `what`.
    pub(super) fn expected(what: String, line: &[u8]) -> Self {
        Self {
            what,
            found: beginning(line),
            source: None,
        }
    }

    /// The line cannot be parsed.
    pub(super) fn because(line: &[u8], source: Box<dyn std::error::Error + Send + Sync>) -> Self {
        Self {
            source: Some(source),
            ..Self::expected("a record as `xc2-edge caption` writes it".to_owned(), line)
        }
    }

    /// The last row has an unclosed quote.
    pub(super) fn unclosed(line: &[u8]) -> Self {
        Self::because(line, "a quote is not closed".into())
    }

    /// The last line is incomplete.
    pub(super) fn unfinished(line: &[u8]) -> Self {
        Self::because(line, "the file ends within it".into())
    }
}

impl Format {
    /// The header line; empty for JSON Lines.
    pub fn header(self) -> String {
        match self {
            Self::Jsonl => String::new(),
            Self::Csv => COLUMNS.join(",") + "\n",
        }
    }

    /// The record as a line, including the line end.
    pub fn line(self, record: &Record) -> String {
        Layout::ours(self).line(record, Fields::default())
    }
}

/// The fields of a record.
pub(super) fn fields(record: &Record) -> Fields {
    let line = serde_json::to_string(record).expect("its keys are strings");
    serde_json::from_str(&line).expect("a record is an object")
}

/// The first 60 characters of the first line, for messages. A CSV row may have several lines.
fn beginning(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let text = text.lines().next().unwrap_or_default().trim_end();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::StopReason;

    fn record() -> Record {
        Record {
            path: "a, \"b\"/ü.jpg".into(),
            caption: Some("Two lines,\r\nand \"quotes\".\n".into()),
            size: 12_345,
            modified: Some("2026-01-02T03:04:05.678901234Z".parse().unwrap()),
            width: Some(640),
            height: Some(480),
            model: "m.gguf".into(),
            prompt: "What?".into(),
            time: "2026-01-03T00:00:00Z".parse().unwrap(),
            seconds: Some(1.25),
            tokens: Some(7),
            stop: Some(StopReason::Length),
            ..Record::default()
        }
    }

    #[test]
    fn a_json_record_is_one_line_without_absent_fields() {
        let line = Format::Jsonl.line(&record());
        assert_eq!(line.matches('\n').count(), 1);
        assert!(!line.contains("error") && !line.contains("null"), "{line}");
    }

    #[test]
    fn columns_are_the_fields_of_a_record() {
        let full = Record {
            error: Some(String::new()),
            template: Some(String::new()),
            background: Some(String::new()),
            truncated: Some(true),
            copy_blake3: Some(String::new()),
            ..record()
        };
        let value = serde_json::to_value(&full).unwrap();
        let fields: Vec<&str> = value
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        let (json_only, columns): (Vec<_>, Vec<_>) = fields
            .into_iter()
            .partition(|name| JSON_ONLY.contains(name));
        assert_eq!(
            (&columns[..], &json_only[..]),
            (&COLUMNS[..], &JSON_ONLY[..])
        );
    }
}
