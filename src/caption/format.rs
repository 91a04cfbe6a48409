//! How records are written: JSON Lines or CSV.

use std::io::{self, BufRead};

use super::Record;

/// How records are written, one after the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// A JSON object a line.
    #[default]
    Jsonl,
    /// RFC 4180 with a header. Captions with line breaks are quoted.
    Csv,
}

/// The columns of a CSV file, which are [`Record`]'s fields.
pub const COLUMNS: [&str; 14] = [
    "path", "caption", "error", "size", "modified", "width", "height", "model", "prompt",
    "template", "time", "seconds", "tokens", "stop",
];

/// A piece of a file that is no record.
#[derive(Debug, thiserror::Error)]
#[error("expected a record as `xc2-edge caption` writes it, found `{found}`")]
pub struct NoRecord {
    found: String,
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl NoRecord {
    /// A last line that has no end.
    pub(super) fn unfinished(line: &[u8]) -> Self {
        Self {
            found: beginning(line),
            source: "the file ends within it".into(),
        }
    }
}

impl Format {
    /// What stands before the first record.
    pub fn header(self) -> String {
        match self {
            Self::Jsonl => String::new(),
            Self::Csv => COLUMNS.join(",") + "\n",
        }
    }

    /// How a file of records begins.
    pub fn beginning(self) -> String {
        match self {
            Self::Jsonl => "{\"path\":\"".to_owned(),
            Self::Csv => self.header(),
        }
    }

    /// The record with its end of line.
    pub fn line(self, record: &Record) -> String {
        match self {
            Self::Jsonl => {
                serde_json::to_string(record).expect("a record has string keys only") + "\n"
            }
            Self::Csv => csv_line(record),
        }
    }

    /// What [`Self::line`] was made of.
    ///
    /// # Errors
    /// If it was not.
    pub fn parse(self, line: &[u8]) -> Result<Record, NoRecord> {
        let record = match self {
            Self::Jsonl => serde_json::from_slice(line).map_err(Into::into),
            Self::Csv => parse_csv(line).map_err(Into::into),
        };
        record.map_err(|source| NoRecord {
            found: beginning(line),
            source,
        })
    }

    /// Reads up to the end of the next record into `line`, which was empty. `false` if the input
    /// ends before the record does; `line` has what there is of it.
    ///
    /// # Errors
    /// If the input cannot be read.
    pub fn read_line(self, input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
        // In CSV a line ends where no quote is open, and a quote within quotes is two of them.
        let mut is_open = false;
        loop {
            let begin = line.len();
            if input.read_until(b'\n', line)? == 0 || line.last() != Some(&b'\n') {
                return Ok(false);
            }
            let n_quotes = line[begin..].iter().filter(|b| **b == b'"').count();
            is_open ^= self == Self::Csv && n_quotes % 2 == 1;
            if !is_open {
                return Ok(true);
            }
        }
    }
}

fn csv_line(record: &Record) -> String {
    let serde_json::Value::Object(fields) =
        serde_json::to_value(record).expect("a record has string keys only")
    else {
        unreachable!("a record is an object");
    };
    let column = |name: &&str| match fields.get(*name) {
        None => String::new(),
        Some(serde_json::Value::String(text)) => text.clone(),
        Some(number) => number.to_string(),
    };
    let mut writer = csv::Writer::from_writer(Vec::new());
    let written = writer.write_record(COLUMNS.iter().map(column));
    written.expect("memory can be written");
    let bytes = writer.into_inner().expect("memory can be written");
    String::from_utf8(bytes).expect("it was made of strings")
}

fn parse_csv(line: &[u8]) -> Result<Record, csv::Error> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .from_reader(line);
    let row = reader
        .records()
        .next()
        .unwrap_or_else(|| Ok(csv::StringRecord::new()))?;
    row.deserialize(Some(&csv::StringRecord::from(COLUMNS.to_vec())))
}

/// The first characters, for a message.
fn beginning(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_end();
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
    fn both_formats_give_back_what_was_written() {
        let failed = Record {
            caption: None,
            error: Some("no picture".into()),
            template: Some("x {caption}".into()),
            modified: None,
            ..record()
        };
        for record in [record(), failed] {
            for format in [Format::Jsonl, Format::Csv] {
                let line = format.line(&record);
                assert_eq!(format.parse(line.as_bytes()).unwrap(), record, "{line}");
            }
        }
    }

    #[test]
    fn a_json_record_is_one_line_and_says_only_what_there_is_to_say() {
        let line = Format::Jsonl.line(&record());
        assert_eq!(line.matches('\n').count(), 1);
        assert!(!line.contains("error") && !line.contains("null"), "{line}");
    }

    #[test]
    fn columns_are_the_fields_of_a_record() {
        let full = Record {
            error: Some(String::new()),
            template: Some(String::new()),
            ..record()
        };
        let value = serde_json::to_value(&full).unwrap();
        let fields: Vec<&str> = value
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        assert_eq!(fields, COLUMNS);
    }

    #[test]
    fn records_end_where_they_end_and_not_at_line_breaks_within() {
        let one = Format::Csv.line(&record());
        let two = one.repeat(2) + &one[..one.len() - 1];
        let mut input = two.as_bytes();
        for complete in [true, true, false] {
            let mut line = Vec::new();
            assert_eq!(
                Format::Csv.read_line(&mut input, &mut line).unwrap(),
                complete
            );
            assert!(line.starts_with(b"\"a, "));
        }
        for cut in 0..one.len() {
            let mut line = Vec::new();
            assert!(
                !Format::Csv
                    .read_line(&mut &one.as_bytes()[..cut], &mut line)
                    .unwrap()
            );
        }
    }

    #[test]
    fn what_is_no_record_is_told() {
        for (format, line) in [(Format::Jsonl, "{\"path\":1}\n"), (Format::Csv, "a,b,c\n")] {
            let error = format.parse(line.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(line.trim_end()), "{error}");
        }
    }
}
