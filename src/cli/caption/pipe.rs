//! `--jsonl-in`: reads records and writes them with captions, in the same order, other fields kept.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    ffi::OsStr,
    io::{self, BufReader, Write},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::mpsc,
    thread,
};

use anyhow::Context;
use serde_json::{Value, json};
use xc2_edge::{
    engine::{Answer, EngineError},
    system::text::{self, TextError},
    tasks::caption::{Captioner, Fields, Job, Next, Shard, Template, path_of, path_text},
};

use super::{
    CaptionArgs, open_input,
    work::{seconds, why, worded},
};
use crate::cli::{in_one_line, say, tally::Tally};

/// Capacity of the queue of lines waiting to be captioned.
const QUEUE: usize = 64;

/// Fields that we write; values from an earlier run are replaced.
const OURS: [&str; 9] = [
    "caption",
    "error",
    "width",
    "height",
    "background",
    "truncated",
    "seconds",
    "tokens",
    "stop",
];

const NOT_UTF8: &str = "expected UTF-8 text, found other bytes outside of `path`; save the records as \
    UTF-8, or convert them, for example with `iconv -f WINDOWS-1252 -t UTF-8`";

/// Captions the records of a file.
pub fn run(args: &CaptionArgs, records: &Path) -> anyhow::Result<ExitCode> {
    let input = BufReader::new(open_input(records)?);
    let engine = args.engine.load()?;
    let captioner = args.captioner(&engine)?;
    let (send, lines) = mpsc::sync_channel(QUEUE);
    // Read in a separate thread, so that answers do not wait for later records.
    let reader = thread::spawn(move || {
        for line in text::Lines::new(input) {
            if send.send(line?).is_err() {
                break;
            }
        }
        Ok::<_, TextError>(())
    });
    let mut tally = Tally::new(args.quiet);
    tally.begin(None, false);
    let pipe = RefCell::new(Pipe {
        model: args.settings().model,
        template: args.template.clone(),
        output: InOrder::default(),
        tally,
        n_records: 0,
    });
    let mut n_seen = 0;
    let mut fault = None;
    let jobs = |idle| loop {
        let line = match Next::received(&lines, idle) {
            Next::Item(line) => line,
            Next::NotYet => return Next::NotYet,
            Next::End => return Next::End,
        };
        let Some(record) = Record::read(&line, n_seen) else {
            continue;
        };
        let is_in = |shard: Shard| shard.has(Path::new(&record.name()));
        if !args.shard.is_none_or(is_in) {
            continue;
        }
        n_seen += 1;
        match pipe.borrow_mut().open(&captioner, record) {
            Ok(Some(job)) => return Next::Item(job),
            Ok(None) => {}
            Err(error) => {
                fault = Some(error);
                return Next::End;
            }
        }
    };
    captioner.run(jobs, |record, answer| {
        pipe.borrow_mut().take(record, answer)
    })?;
    if let Some(error) = fault {
        return Err(error);
    }
    let mut pipe = pipe.into_inner();
    pipe.tally.finish();
    match reader.join() {
        Ok(result) => result.with_context(|| records.display().to_string())?,
        Err(panic) => std::panic::resume_unwind(panic),
    }
    if n_seen == 0 && !args.quiet {
        say(&format!("{}: no records", records.display()));
    }
    if n_seen > 0 && pipe.n_records == 0 {
        return Err(no_records(records, n_seen));
    }
    Ok(ExitCode::SUCCESS)
}

/// The error for an input whose lines are not records.
fn no_records(records: &Path, n_lines: usize) -> anyhow::Error {
    anyhow::anyhow!(
        "{}: expected JSON objects with a string `path`, one per line, found none in {n_lines} line{}; for a \
         list of plain paths, use `-` without --jsonl-in",
        records.display(),
        if n_lines == 1 { "" } else { "s" }
    )
}

/// A line of the input.
struct Record {
    /// Index among the lines to answer.
    index: usize,
    fields: Fields,
    /// Width and height in pixels, once the picture is open.
    size: Option<(u32, u32)>,
    /// `white` if the picture was put on a white background.
    background: Option<String>,
    /// Whether the picture file is truncated.
    truncated: Option<bool>,
    /// Whether the line is UTF-8, apart from the file name.
    is_text: bool,
}

impl Record {
    /// Reads a line; `None` if it is empty. A line that is not a JSON object is kept in the field `line` and
    /// reported as a failure.
    fn read(line: &[u8], index: usize) -> Option<Self> {
        let line = line.trim_ascii();
        if line.is_empty() {
            return None;
        }
        let value = serde_json::from_slice::<Fields>(line);
        let mut is_text = true;
        let fields = match value.or_else(|_| serde_json::from_str(&with_escapes(line))) {
            Ok(fields) if fields.contains("path") => {
                is_text = is_text_but_for_path(line, &fields);
                fields
            }
            Ok(fields) => fields,
            Err(_) => {
                let shown = path_text(Path::new(OsStr::from_bytes(line)));
                [("line", shown.as_str())].into()
            }
        };
        Some(Self {
            index,
            fields,
            size: None,
            background: None,
            truncated: None,
            is_text,
        })
    }

    fn text(&self, field: &str) -> Option<String> {
        self.fields.string(field)
    }

    /// The name that decides its shard.
    fn name(&self) -> String {
        let name = self.text("path").or_else(|| self.text("line"));
        name.unwrap_or_default()
    }
}

/// The file that a record names, unescaped as for [`path_text`]. Another program may write a literal name that
/// looks like an escape.
fn file_of(path: &str) -> PathBuf {
    let file = path_of(path);
    let literal = Path::new(path);
    if !file.exists() && literal.exists() {
        return literal.to_owned();
    }
    file
}

/// Whether all bytes that are not UTF-8 belong to the `path` in the `fields` of a line. If not, the whole line
/// may be in another encoding.
fn is_text_but_for_path(line: &[u8], fields: &Fields) -> bool {
    if std::str::from_utf8(line).is_ok() {
        return true;
    }
    let lossy = String::from_utf8_lossy(line);
    let lossy = serde_json::from_str::<Fields>(&with_escapes(lossy.as_bytes()));
    lossy.is_ok_and(|lossy| {
        let is_same = |name: &str| name == "path" || lossy.json(name) == fields.json(name);
        fields.names().all(is_same)
    })
}

/// Escapes names that are not UTF-8 in a line of JSON as [`path_text`] does. They may occur as raw bytes or as
/// Python writes them (`\udce9` for the byte 0xe9).
fn with_escapes(line: &[u8]) -> String {
    let mut text = String::new();
    for chunk in line.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            text.push_str(&format!("\\\\x{byte:02x}"));
        }
    }
    let mut out = String::with_capacity(text.len());
    let (mut rest, mut is_after_high) = (text.as_str(), false);
    while let Some(at) = rest.find('\\') {
        is_after_high &= at == 0;
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let code = rest.strip_prefix("\\u").and_then(|rest| rest.get(..4));
        match code.and_then(|code| u16::from_str_radix(code, 16).ok()) {
            Some(code @ 0xdc80..=0xdcff) if !is_after_high => {
                out.push_str(&format!("\\\\x{:02x}", code - 0xdc00));
                rest = &rest[6..];
            }
            code => {
                is_after_high = code.is_some_and(|code| (0xd800..0xdc00).contains(&code));
                let n = rest.chars().take(2).map(char::len_utf8).sum();
                out.push_str(&rest[..n]);
                rest = &rest[n..];
                if code.is_some() {
                    out.push_str(&rest[..4]);
                    rest = &rest[4..];
                }
            }
        }
    }
    out + rest
}

/// State between reading and writing records.
struct Pipe {
    model: String,
    template: Option<Template>,
    output: InOrder,
    tally: Tally,
    /// Number of lines that named a picture.
    n_records: usize,
}

impl Pipe {
    /// Opens the picture of a record. On failure, writes the record with an error.
    fn open(
        &mut self,
        captioner: &Captioner<'_>,
        mut record: Record,
    ) -> anyhow::Result<Option<Job<Record>>> {
        let opened = match record.text("path") {
            Some(_) if !record.is_text => {
                self.n_records += 1;
                Err(NOT_UTF8.to_owned())
            }
            Some(path) => {
                self.n_records += 1;
                captioner.open(&file_of(&path)).1.map_err(why)
            }
            None => Err("expected a JSON object with a string `path`".to_owned()),
        };
        match opened {
            Ok(opened) => {
                record.size = Some((opened.width, opened.height));
                record.background = opened.background();
                record.truncated = opened.truncated();
                let prompt = record.text("prompt");
                Ok(Some(Job {
                    tag: record,
                    picture: opened.picture,
                    prompt,
                }))
            }
            Err(error) => {
                self.fail(record, &error)?;
                Ok(None)
            }
        }
    }

    fn take(&mut self, record: Record, answer: Result<Answer, EngineError>) -> anyhow::Result<()> {
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => return self.fail(record, &in_one_line(error)),
        };
        self.tally.captioned();
        let caption = worded(&answer.text, self.template.as_ref());
        let (width, height) = record.size.unzip();
        let mut fields = json!({
            "caption": caption,
            "width": width,
            "height": height,
            "seconds": seconds(&answer),
            "tokens": answer.ids.len(),
            "stop": answer.stop,
        });
        if let Some(background) = &record.background {
            fields["background"] = json!(background);
        }
        if let Some(truncated) = record.truncated {
            fields["truncated"] = json!(truncated);
        }
        self.write(record, fields)
    }

    fn fail(&mut self, record: Record, error: &str) -> anyhow::Result<()> {
        match record.name().as_str() {
            "" => self
                .tally
                .failed(&format!("record {}", record.index + 1), error),
            name => self.tally.failed(name, error),
        }
        self.write(record, json!({ "error": error }))
    }

    fn write(&mut self, record: Record, answer: Value) -> anyhow::Result<()> {
        let mut fields = record.fields;
        fields.retain(|name| !OURS.contains(&name));
        fields.set("model", self.model.as_str());
        if let Value::Object(answer) = answer {
            for (name, value) in answer {
                fields.set(&name, value);
            }
        }
        let mut stdout = io::stdout().lock();
        for line in self
            .output
            .put(record.index, serde_json::to_string(&fields)?)
        {
            writeln!(stdout, "{line}")?;
        }
        Ok(stdout.flush()?)
    }
}

/// Restores the order of lines that finish out of order.
#[derive(Default)]
struct InOrder {
    next: usize,
    waiting: BTreeMap<usize, String>,
}

impl InOrder {
    /// Adds the line with this `index`; returns the lines that can be written now.
    fn put(&mut self, index: usize, line: String) -> Vec<String> {
        self.waiting.insert(index, line);
        let mut ready = Vec::new();
        while let Some(line) = self.waiting.remove(&self.next) {
            ready.push(line);
            self.next += 1;
        }
        ready
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_written_in_order() {
        let mut output = InOrder::default();
        assert!(output.put(1, "b".into()).is_empty());
        assert_eq!(output.put(0, "a".into()), ["a", "b"]);
        assert_eq!(output.put(2, "c".into()), ["c"]);
    }

    #[test]
    fn a_line_that_is_not_a_record_is_kept() {
        let record = Record::read(b" [1, 2]\r", 0).unwrap();
        assert_eq!(record.text("line").as_deref(), Some("[1, 2]"));
        assert!(Record::read(b" \r", 0).is_none());
        let record = Record::read(b"caf\xe9", 0).unwrap();
        assert_eq!(record.text("line").as_deref(), Some(r"caf\xe9"));
    }

    #[test]
    fn other_fields_keep_their_numbers_as_written() {
        let line = r#"{"path":"a.jpg","id":12345678901234567890123,"score":0.1000,"at":1e5}"#;
        let record = Record::read(line.as_bytes(), 0).unwrap();
        assert_eq!(serde_json::to_string(&record.fields).unwrap(), line);
    }

    #[test]
    fn a_prompt_in_another_encoding_is_refused() {
        let is_text = |line: &[u8]| Record::read(line, 0).unwrap().is_text;
        assert!(!is_text(
            b"{\"path\":\"a.jpg\",\"prompt\":\"O\xf9 est-ce?\"}"
        ));
        assert!(!is_text(b"{\"path\":\"\xe9.jpg\",\"caf\xe9\":1}"));
        assert!(is_text(
            b"{\"path\":\"\xe9.jpg\",\"prompt\":\"O\xc3\xb9 est-ce?\"}"
        ));
    }

    #[test]
    fn names_that_are_not_utf8_may_be_bytes_escapes_or_python_surrogates() {
        for line in [
            &b"{\"path\":\"caf\xe9.jpg\"}"[..],
            br#"{"path":"caf\\xe9.jpg"}"#,
            br#"{"path": "caf\udce9.jpg"}"#,
        ] {
            let record = Record::read(line, 0).unwrap();
            assert_eq!(record.text("path").as_deref(), Some(r"caf\xe9.jpg"));
            let bytes = file_of(r"caf\xe9.jpg");
            assert_eq!(bytes.as_os_str().as_bytes(), b"caf\xe9.jpg");
        }
        // A surrogate pair is one character; an escaped backslash starts no code.
        let smile = br#"{"path": "\ud83d\ude00\udce9", "x": "\\udce9\u00e9\n"}"#;
        let record = Record::read(smile, 0).unwrap();
        assert_eq!(record.text("path").as_deref(), Some("\u{1f600}\\xe9"));
        assert_eq!(record.text("x").as_deref(), Some("\\udce9é\n"));
    }
}
