//! Records in, records out: one line for each, in their order, other fields kept.

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

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use xc2_edge::{
    engine::{Answer, EngineError},
    system::text::{self, TextError},
    tasks::caption::{Captioner, Fields, Job, Next, Template, path_of, path_text},
};

use super::{
    CaptionArgs, open_input,
    work::{seconds, why, worded},
};
use crate::cli::{in_one_line, say, tally::Tally};

/// Lines that are ready while a picture is captioned.
const QUEUE: usize = 64;

/// Fields of a caption. Those of an earlier one are replaced.
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
    // A thread of its own, so that answers do not wait for records that come later.
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
        if args
            .shard
            .is_some_and(|shard| !shard.has(Path::new(&record.name())))
        {
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
    ensure!(
        n_seen == 0 || pipe.n_records > 0,
        "{}: expected JSON objects with a string `path`, one a line, found none in {n_seen} line{}; a list \
         of plain paths is given as `-`, without --jsonl-in",
        records.display(),
        if n_seen == 1 { "" } else { "s" }
    );
    Ok(ExitCode::SUCCESS)
}

/// A line of the input.
struct Record {
    /// Its place among those that are answered.
    index: usize,
    fields: Fields,
    /// Pixels, once the picture is open.
    size: Option<(u32, u32)>,
    /// `white` if it was put on that.
    background: Option<String>,
    /// Whether its file ends early.
    truncated: Option<bool>,
    /// Whether it is UTF-8 but for the name of its file.
    is_text: bool,
}

impl Record {
    /// Reads a line; `None` if it is empty. A line that is no JSON object is kept as it is in a
    /// field of its own, and will be a failure.
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

    /// By what its share is told.
    fn name(&self) -> String {
        let name = self.text("path").or_else(|| self.text("line"));
        name.unwrap_or_default()
    }
}

/// The file that a record names, in the way of [`path_text`]. Another program may write a name that only
/// looks like an escape as it is.
fn file_of(path: &str) -> PathBuf {
    let file = path_of(path);
    let literal = Path::new(path);
    if !file.exists() && literal.exists() {
        return literal.to_owned();
    }
    file
}

/// Whether all bytes that are no UTF-8 belong to the `path` in the `fields` of a line. The line may be in
/// another encoding as a whole.
fn is_text_but_for_path(line: &[u8], fields: &Fields) -> bool {
    if std::str::from_utf8(line).is_ok() {
        return true;
    }
    let lossy = String::from_utf8_lossy(line);
    let lossy = serde_json::from_str::<Fields>(&with_escapes(lossy.as_bytes()));
    lossy.is_ok_and(|lossy| {
        let is_same = |name: &str| name == "path" || lossy.written(name) == fields.written(name);
        fields.names().all(is_same)
    })
}

/// A line of JSON with names that are no UTF-8, as [`path_text`] writes them: their bytes may stand there as
/// they are, or as Python writes them (`\udce9` for the byte 0xe9).
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

/// What stands between reading and writing.
struct Pipe {
    model: String,
    template: Option<Template>,
    output: InOrder,
    tally: Tally,
    /// Lines that named a picture, whatever became of it.
    n_records: usize,
}

impl Pipe {
    /// Opens the picture of a record. If there is none, the record goes out as a failure.
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

/// Lines that are done out of order, put in order.
#[derive(Default)]
struct InOrder {
    next: usize,
    waiting: BTreeMap<usize, String>,
}

impl InOrder {
    /// Takes the line of place `index`, and returns those that can go.
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
    fn lines_go_out_in_order() {
        let mut output = InOrder::default();
        assert!(output.put(1, "b".into()).is_empty());
        assert_eq!(output.put(0, "a".into()), ["a", "b"]);
        assert_eq!(output.put(2, "c".into()), ["c"]);
    }

    #[test]
    fn a_line_that_is_no_record_is_kept() {
        let record = Record::read(b" [1, 2]\r", 0).unwrap();
        assert_eq!(record.text("line").as_deref(), Some("[1, 2]"));
        assert!(Record::read(b" \r", 0).is_none());
        let record = Record::read(b"caf\xe9", 0).unwrap();
        assert_eq!(record.text("line").as_deref(), Some(r"caf\xe9"));
    }

    #[test]
    fn numbers_of_others_stay_as_they_were_written() {
        let line = r#"{"path":"a.jpg","id":12345678901234567890123,"score":0.1000,"at":1e5}"#;
        let record = Record::read(line.as_bytes(), 0).unwrap();
        assert_eq!(serde_json::to_string(&record.fields).unwrap(), line);
    }

    #[test]
    fn a_prompt_in_another_encoding_is_not_asked() {
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
    fn a_name_that_is_no_utf8_comes_as_bytes_as_an_escape_or_from_python() {
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
        // A pair is a character, and an escaped backslash none of a code.
        let smile = br#"{"path": "\ud83d\ude00\udce9", "x": "\\udce9\u00e9\n"}"#;
        let record = Record::read(smile, 0).unwrap();
        assert_eq!(record.text("path").as_deref(), Some("\u{1f600}\\xe9"));
        assert_eq!(record.text("x").as_deref(), Some("\\udce9é\n"));
    }
}
