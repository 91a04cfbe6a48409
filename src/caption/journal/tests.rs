use std::fs;

use super::*;

fn settings() -> Settings {
    Settings {
        model: "m.gguf".into(),
        prompt: "What?".into(),
        template: None,
    }
}

fn record(path: &str, size: u64, caption: &str) -> Record {
    Record {
        path: path.into(),
        caption: Some(caption.into()),
        size,
        model: "m.gguf".into(),
        prompt: "What?".into(),
        ..Record::default()
    }
}

fn failure(path: &str, size: u64) -> Record {
    Record {
        caption: None,
        error: Some("no picture".into()),
        ..record(path, size, "")
    }
}

fn of_size(size: u64) -> Identity {
    Identity {
        size,
        modified: None,
    }
}

struct Place {
    dir: tempfile::TempDir,
    format: Format,
}

impl Place {
    fn new(format: Format) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { dir, format }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("captions")
    }

    fn open(&self) -> Journal {
        Journal::open(&self.path(), self.format, &settings()).unwrap()
    }

    /// Every path and its size, in the file's order.
    fn lines(&self) -> Vec<(String, u64)> {
        let text = fs::read(self.path()).unwrap();
        let mut input = &text[..];
        let layout = Layout::read(self.format, &mut input)
            .unwrap()
            .unwrap()
            .unwrap();
        let (mut line, mut lines) = (Vec::new(), Vec::new());
        while layout.read_line(&mut input, &mut line).unwrap() == End::Complete {
            if let Some(fields) = layout.parse(&line).unwrap() {
                let text = |name| text_of(&fields, name).unwrap();
                lines.push((text("path"), text("size").parse().unwrap()));
            }
            line.clear();
        }
        assert!(line.is_empty(), "a torn line");
        lines
    }

    fn write(&self, text: impl AsRef<[u8]>) {
        fs::write(self.path(), text).unwrap();
    }

    fn text(&self) -> String {
        fs::read_to_string(self.path()).unwrap()
    }

    /// The files of the folder, but for the records themselves, with what is in them.
    fn others(&self) -> Vec<(String, Vec<u8>)> {
        let entries = fs::read_dir(self.dir.path()).unwrap().map(Result::unwrap);
        let named = entries.map(|e| (e.file_name().into_string().unwrap(), e.path()));
        let others = named.filter(|(name, _)| name != "captions");
        let mut others: Vec<_> = others
            .map(|(name, path)| (name, fs::read(path).unwrap()))
            .collect();
        others.sort();
        others
    }

    /// The error with which the file is refused; it stays as it is, and alone.
    fn refused(&self) -> String {
        let before = fs::read(self.path()).unwrap();
        let error = Journal::open(&self.path(), self.format, &settings()).unwrap_err();
        assert!(fs::read(self.path()).unwrap() == before);
        assert!(self.others().is_empty());
        format!("{:#}", anyhow::Error::new(error))
    }
}

/// A table of three pictures, as it is written: `a` captioned, `b` failed, `c` captioned.
fn written(format: Format) -> String {
    let place = Place::new(format);
    let mut journal = place.open();
    let full = |path, caption| Record {
        modified: Some("2026-05-01T10:02:11.678901234Z".parse().unwrap()),
        width: Some(640),
        height: Some(480),
        seconds: Some(1.25),
        tokens: Some(7),
        stop: Some(crate::engine::StopReason::Stop),
        ..record(path, 183_204, caption)
    };
    journal
        .append(&full("a", "line one,\nline \"two\""))
        .unwrap();
    journal.append(&failure("b", 2)).unwrap();
    journal.append(&full("c", "a 5\" disc")).unwrap();
    drop(journal);
    place.text()
}

fn now() -> Identity {
    Identity {
        size: 183_204,
        modified: Some("2026-05-01T10:02:11.678901234Z".parse().unwrap()),
    }
}

/// Reads `text` as a person left it, adds a picture, and sees that nothing else changes.
#[track_caller]
fn goes_on(format: Format, text: impl AsRef<[u8]>) -> String {
    let place = Place::new(format);
    place.write(&text);
    let mut journal = place.open();
    for (path, standing) in [
        ("a", Standing::Captioned),
        ("b", Standing::Failed),
        ("c", Standing::Captioned),
        ("d", Standing::New),
    ] {
        assert_eq!(
            journal.standing(path, if path == "b" { of_size(2) } else { now() }),
            standing,
            "{path}"
        );
    }
    let caption = journal.caption("c").unwrap().unwrap();
    assert!(caption.contains("disc"), "{caption}");
    journal.append(&record("d", 4, "a, \"new\" one")).unwrap();
    assert_eq!(journal.caption("d").unwrap().unwrap(), "a, \"new\" one");
    drop(journal);
    let journal = place.open();
    assert_eq!(journal.n_known(), 4);
    assert_eq!(journal.caption("d").unwrap().unwrap(), "a, \"new\" one");
    assert_eq!(journal.standing("d", of_size(4)), Standing::Captioned);
    assert!(place.others().is_empty(), "{:?}", place.others());
    let after = fs::read(place.path()).unwrap();
    let before = text.as_ref();
    assert!(
        after.starts_with(before),
        "{}",
        String::from_utf8_lossy(&after)
    );
    String::from_utf8(after[before.len()..].to_vec()).unwrap()
}

#[test]
fn fields_that_only_an_earlier_line_has_are_kept_beside() {
    let place = Place::new(Format::Jsonl);
    let line = |more: &str| format!("{{\"path\":\"a\",\"caption\":\"x\",\"size\":1{more}}}\n");
    place.write([line(",\"note\":\"mine\""), line(",\"note\":\"\""), line("")].concat());
    drop(place.open());
    assert_eq!(fs::read_to_string(place.path()).unwrap(), line(""));
    let name = place.path().file_name().unwrap().to_owned();
    let mut name = name.into_string().unwrap();
    name.push_str(".replaced");
    let kept = fs::read_to_string(place.path().with_file_name(name)).unwrap();
    assert_eq!(kept, line(",\"note\":\"mine\""));
}

#[test]
fn what_editors_do_to_lines_changes_no_record() {
    for format in [Format::Jsonl, Format::Csv] {
        let plain = written(format);
        goes_on(format, &plain);
        let added = goes_on(format, plain.trim_end());
        assert!(added.starts_with('\n'), "{added}");
        goes_on(format, format!("{plain}\n\n"));
        if format == Format::Csv {
            goes_on(format, format!("{plain}{}\n\"\"\n", ",".repeat(13)));
        }
        goes_on(format, format!("\u{feff}{plain}"));
        let crlf = plain.replace('\n', "\r\n");
        for crlf in [
            crlf.clone(),
            format!("\u{feff}{crlf}"),
            format!("{crlf}\r\n"),
        ] {
            assert!(goes_on(format, &crlf).ends_with("\r\n"));
        }
        goes_on(format, crlf.trim_end());
    }
}

#[test]
fn a_persons_last_line_stays_without_its_line_feed() {
    for format in [Format::Jsonl, Format::Csv] {
        let place = Place::new(format);
        let by_hand = written(format).replace("disc", "disc, said I");
        place.write(by_hand.trim_end());
        let mut journal = place.open();
        assert_eq!(journal.caption("c").unwrap().unwrap(), "a 5\" disc, said I");
        journal.append(&record("d", 4, "x")).unwrap();
        drop(journal);
        assert_eq!(place.open().n_known(), 4);
        assert!(place.others().is_empty());
    }
}

#[test]
fn json_as_pandas_jq_and_python_write_it() {
    let a = r#"{"path":"a","caption":"x\/y","error":null,"size":183204,"modified":1777629731678,"width":640.0,"height":480.0,"model":"m.gguf","prompt":"What?","time":"2026-05-01T10:02:12Z","seconds":1.25,"tokens":7.0,"stop":"stop"}"#;
    let b = r#"{"path":"b","caption":null,"error":"no picture","size":2,"modified":null,"width":null,"height":null,"model":"m.gguf","prompt":"What?","time":null,"seconds":null,"tokens":null,"stop":null}"#;
    let c = r#"{ "stop": "stop", "size": 183204.0, "tags": ["mine"], "prompt": "What?", "path": "\u0063", "model": "m.gguf", "caption": "disc" }"#;
    goes_on(Format::Jsonl, format!("{a}\n{b}\n{c}\n"));
}

#[test]
fn tables_as_spreadsheets_and_pandas_write_them() {
    let header = "path,caption,error,size,modified,width,height,model,prompt,template,time,seconds,tokens,stop";
    let rows = [
        [
            "a",
            "two,\n\"lines\"",
            "",
            "183204",
            "2026-05-01T10:02:11.678901234Z",
            "640",
            "480",
            "m.gguf",
            "What?",
            "",
            "2026-05-01T10:02:12Z",
            "1.25",
            "7",
            "stop",
        ],
        [
            "b",
            "",
            "no picture",
            "2",
            "",
            "",
            "",
            "m.gguf",
            "What?",
            "",
            "2026-05-01T10:02:12Z",
            "",
            "",
            "",
        ],
        [
            "c",
            "a 5\" disc",
            "",
            "1.83E+05",
            "01.05.2026 10:02",
            "640,0",
            "480",
            "m.gguf",
            "What?",
            "",
            "",
            "",
            "7",
            "stop",
        ],
    ];
    let columns: Vec<&str> = header.split(',').collect();
    let table = |delimiter: u8, quotes: csv::QuoteStyle, order: &[usize], added: bool| {
        let mut writer = csv::WriterBuilder::new()
            .delimiter(delimiter)
            .quote_style(quotes)
            .from_writer(Vec::new());
        let mut put = |cells: &[&str], mine: &str| {
            let mut cells: Vec<_> = order.iter().map(|i| cells[*i]).collect();
            if added {
                cells.insert(1, mine);
            }
            writer.write_record(cells).unwrap();
        };
        put(&columns, "Rating");
        rows.iter().for_each(|row| put(row, "5; good"));
        String::from_utf8(writer.into_inner().unwrap()).unwrap()
    };
    let all: Vec<usize> = (0..14).collect();
    let reversed: Vec<usize> = (0..14).rev().collect();
    let fewer = [0, 1, 2, 3, 4, 7, 8, 9, 10];
    for quotes in [
        csv::QuoteStyle::Necessary,
        csv::QuoteStyle::Always,
        csv::QuoteStyle::NonNumeric,
    ] {
        for delimiter in *b",;\t" {
            for order in [&all[..], &reversed, &fewer] {
                for added in [false, true] {
                    let text = table(delimiter, quotes, order, added);
                    let last = goes_on(Format::Csv, &text);
                    let n = last.matches(char::from(delimiter)).count();
                    assert!(n >= order.len() - 1, "{last}");
                }
            }
        }
    }
    let text = table(b',', csv::QuoteStyle::Necessary, &all, false);
    goes_on(
        Format::Csv,
        text.replacen(header, &header.to_uppercase(), 1),
    );
    goes_on(
        Format::Csv,
        text.replacen(header, &header.replace(',', " , "), 1),
    );
    goes_on(
        Format::Csv,
        format!(
            "sep=;\r\n{}",
            table(b';', csv::QuoteStyle::Necessary, &all, false)
        ),
    );
    // Not quoted, and a quote all the same.
    goes_on(Format::Csv, text.replace("\"a 5\"\" disc\"", "a 5\" disc"));
    // A further header, as `cat` leaves it.
    goes_on(Format::Csv, format!("{text}{header}\n"));
}

#[test]
fn columns_without_which_nothing_could_be_resumed_come_back() {
    let place = Place::new(Format::Csv);
    place.write("path,caption,mine\na,\"my, words\",1\nb,mine,2\n");
    let mut journal = place.open();
    assert_eq!(journal.standing("a", of_size(1)), Standing::Captioned);
    journal.append(&failure("c", 3)).unwrap();
    drop(journal);
    let text = place.text();
    assert!(
        text.starts_with("path,caption,mine,error,size,modified,model,prompt,template,time\n"),
        "{text}"
    );
    assert!(text.contains("\na,\"my, words\",1,,,,,,,\n"), "{text}");
    let journal = place.open();
    assert_eq!(journal.caption("a").unwrap().unwrap(), "my, words");
    assert_eq!(journal.standing("c", of_size(3)), Standing::Failed);
    assert_eq!(journal.standing("c", of_size(4)), Standing::Changed);
}

#[test]
fn an_error_is_noted_in_a_file_without_a_column_for_it() {
    let place = Place::new(Format::Csv);
    place.write("path,caption\na,mine\n");
    let mut journal = place.open();
    journal.set_error("a", Some("no room")).unwrap();
    let fields = journal.fields("a").unwrap().unwrap();
    assert_eq!(text_of(&fields, "error").as_deref(), Some("no room"));
    assert_eq!(text_of(&fields, "caption").as_deref(), Some("mine"));
}

#[test]
fn columns_of_one_name_keep_their_own_cells() {
    let place = Place::new(Format::Csv);
    let header = Format::Csv.header();
    let row = "a,x,,1,,,,m.gguf,What?,,2026-05-01T10:02:11Z,,,stop";
    place.write(format!(
        "{},note,note,,\n{row},one,two,three,four\n",
        header.trim_end()
    ));
    let mut journal = place.open();
    journal.append(&record("a", 2, "y")).unwrap();
    drop(journal);
    let text = fs::read_to_string(place.path()).unwrap();
    let last = text.lines().last().unwrap();
    assert!(last.ends_with(",one,two,three,\"four\""), "{text}");
}

#[test]
fn fields_that_a_person_added_stay_with_a_picture_that_is_captioned_again() {
    for (format, text) in [
        (
            Format::Jsonl,
            r#"{"path":"a","caption":"mine","size":1,"model":"m.gguf","prompt":"What?","time":"2026-05-01T10:02:12Z","background":"white","rating":5,"tags":["x"]}
"#,
        ),
        (
            Format::Csv,
            "rating,path,caption,error,size,modified,model,prompt,template,time,tags\n5,a,mine,,1,,m.gguf,What?,,2026-05-01T10:02:12Z,x\n",
        ),
    ] {
        let place = Place::new(format);
        place.write(text);
        let mut journal = place.open();
        journal.append(&record("a", 2, "new")).unwrap();
        journal.tidy().unwrap();
        let kept = journal.take_kept();
        assert_eq!(kept.replaced.unwrap().0, 1);
        let fields = journal.fields("a").unwrap().unwrap();
        assert_eq!(text_of(&fields, "rating").unwrap(), "5");
        assert!(text_of(&fields, "tags").unwrap().contains('x'));
        assert_eq!(text_of(&fields, "caption").unwrap(), "new");
        assert!(
            !fields.contains_key("background"),
            "it was ours, of the old picture"
        );
        // The caption that is replaced may be a person's.
        let [(name, replaced)] = &place.others()[..] else {
            panic!("{:?}", place.others());
        };
        assert_eq!(name, "captions.replaced");
        assert_eq!(String::from_utf8_lossy(replaced), text);
    }
}

#[test]
fn what_a_person_writes_during_a_run_counts() {
    let place = Place::new(Format::Jsonl);
    let mut journal = place.open();
    journal.append(&record("a", 1, "first")).unwrap();
    journal.append(&record("b", 1, "second")).unwrap();
    // In place, and then as another file.
    place.write(place.text().replace("first", "a longer one, by hand"));
    journal.append(&record("c", 1, "third")).unwrap();
    let other = place.dir.path().join("other");
    fs::write(&other, place.text().replace("second", "mine")).unwrap();
    fs::rename(&other, place.path()).unwrap();
    journal.append(&record("d", 1, "fourth")).unwrap();
    journal.append(&record("c", 2, "third again")).unwrap();
    journal.tidy().unwrap();
    for (path, caption) in [
        ("a", "a longer one, by hand"),
        ("b", "mine"),
        ("c", "third again"),
        ("d", "fourth"),
    ] {
        assert_eq!(journal.caption(path).unwrap().unwrap(), caption);
    }
    // What makes no sense ends the run, and stays.
    place.write("milk\n");
    assert!(journal.append(&record("e", 1, "x")).is_err());
    assert_eq!(place.text(), "milk\n");
    drop(journal);
    assert_eq!(place.text(), "milk\n");
}

#[test]
fn a_file_that_was_made_for_nothing_is_gone_and_one_that_was_there_stays() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("captions");
    for format in [Format::Jsonl, Format::Csv] {
        drop(Journal::open(&path, format, &settings()).unwrap());
        assert!(!path.exists());
        fs::write(&path, "").unwrap();
        drop(Journal::open(&path, format, &settings()).unwrap());
        assert!(path.exists());
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn what_is_done_is_known_to_the_next_run() {
    for format in [Format::Jsonl, Format::Csv] {
        let place = Place::new(format);
        let mut journal = place.open();
        journal.append(&record("a", 1, "A,\n\"one\"")).unwrap();
        journal.append(&failure("b", 2)).unwrap();
        drop(journal);

        let journal = place.open();
        assert_eq!(journal.n_known(), 2);
        assert_eq!(journal.standing("a", of_size(1)), Standing::Captioned);
        assert_eq!(journal.standing("a", of_size(9)), Standing::Changed);
        assert_eq!(journal.standing("b", of_size(2)), Standing::Failed);
        assert_eq!(journal.standing("c", of_size(1)), Standing::New);
        assert_eq!(journal.caption("a").unwrap().unwrap(), "A,\n\"one\"");
        assert_eq!(journal.caption("b").unwrap().unwrap_or_default(), "");
    }
}

#[test]
fn a_file_cut_anywhere_is_repaired() {
    for format in [Format::Jsonl, Format::Csv] {
        let place = Place::new(format);
        let mut journal = place.open();
        let names = ["a", "b", "c"];
        for name in names {
            journal
                .append(&record(name, 1, "line one,\nline \"two\"\n"))
                .unwrap();
        }
        drop(journal);
        let whole = fs::read(place.path()).unwrap();
        for cut in 0..whole.len() {
            fs::write(place.path(), &whole[..cut]).unwrap();
            let mut journal = place.open();
            for name in names {
                if journal.standing(name, of_size(1)) == Standing::New {
                    journal
                        .append(&record(name, 1, "line one,\nline \"two\"\n"))
                        .unwrap();
                }
            }
            drop(journal);
            assert!(fs::read(place.path()).unwrap() == whole, "cut at {cut}");
            // What was removed is kept: no byte is lost.
            let lost = place.others();
            let kept: Vec<u8> = lost.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
            assert!(whole[..cut].ends_with(&kept), "cut at {cut}: {lost:?}");
            assert!(lost.len() < 2 && lost.iter().all(|(name, _)| name == "captions.torn-1"));
            lost.iter()
                .for_each(|(name, _)| fs::remove_file(place.dir.path().join(name)).unwrap());
        }
    }
}

#[test]
fn what_failed_beside_a_caption_is_noted_until_it_is_done() {
    for format in [Format::Jsonl, Format::Csv] {
        let place = Place::new(format);
        let mut journal = place.open();
        journal.append(&record("a", 1, "x")).unwrap();
        let plain = place.text();
        let error = |journal: &Journal| {
            let fields = journal.fields("a").unwrap().unwrap();
            text_of(&fields, "error").filter(|error| !error.is_empty())
        };
        for _ in 0..2 {
            journal.set_error("a", Some("no copy")).unwrap();
        }
        assert_eq!(error(&journal).as_deref(), Some("no copy"));
        assert_eq!(place.lines().len(), 2);
        assert_eq!(journal.standing("a", of_size(1)), Standing::Captioned);
        drop(journal);
        let mut journal = place.open();
        assert_eq!(error(&journal).as_deref(), Some("no copy"));
        journal.set_error("a", None).unwrap();
        journal.set_error("b", None).unwrap();
        journal.tidy().unwrap();
        assert_eq!(place.text(), plain);
        assert!(place.others().is_empty());
    }
}

#[test]
fn a_picture_captioned_again_ends_with_one_line() {
    for format in [Format::Jsonl, Format::Csv] {
        let place = Place::new(format);
        let mut journal = place.open();
        for (path, size) in [("a", 1), ("b", 1), ("a", 2), ("c", 1)] {
            journal.append(&record(path, size, "x")).unwrap();
        }
        // Killed here, both lines are there, and the next run drops the earlier one.
        assert_eq!(place.lines().len(), 4);
        drop(journal);
        let mut journal = place.open();
        let lines = |names: [(&str, u64); 3]| names.map(|(n, size)| (n.to_owned(), size)).to_vec();
        assert_eq!(place.lines(), lines([("b", 1), ("a", 2), ("c", 1)]));

        // Likewise at the end of a run; it goes on in the new file, still as the only one.
        journal.append(&failure("b", 3)).unwrap();
        journal.tidy().unwrap();
        assert_eq!(place.lines(), lines([("a", 2), ("c", 1), ("b", 3)]));
        assert_eq!(journal.standing("c", of_size(1)), Standing::Captioned);
        let second = Journal::open(&place.path(), format, &settings());
        assert!(matches!(second, Err(JournalError::Busy { .. })));
        journal.append(&record("d", 4, "x")).unwrap();
        assert_eq!(journal.standing("d", of_size(4)), Standing::Captioned);
        assert_eq!(place.lines().len(), 4);
    }
}

#[test]
fn other_settings_are_refused() {
    let place = Place::new(Format::Jsonl);
    place.open().append(&record("a", 1, "x")).unwrap();
    let other = Settings {
        prompt: "Why?".into(),
        ..settings()
    };
    let error = Journal::open(&place.path(), place.format, &other)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("another prompt: expected `Why?`, found `What?`"),
        "{error}"
    );
}

#[test]
fn a_file_of_something_else_is_refused_and_left_alone() {
    let row = "a,x,,1,,,,m.gguf,What?,,2026-05-01T10:02:12Z,,,\n";
    let json = r#"{"path":"a","caption":"x","size":1}"#;
    let header = Format::Csv.header();
    for (text, format, naming) in [
        (
            "a shopping list\nmilk".to_owned(),
            Format::Jsonl,
            "line 1: expected a record as",
        ),
        (
            "a shopping list".to_owned(),
            Format::Jsonl,
            "line 1: expected a record as",
        ),
        ("{\"key\": 1".to_owned(), Format::Jsonl, "line 1: "),
        (
            "{\"key\": 1}\n".to_owned(),
            Format::Jsonl,
            "line 1: expected a record with a string `path`",
        ),
        (
            "{\"path\": \"a\"}\n".to_owned(),
            Format::Jsonl,
            "a `caption` or an `error`",
        ),
        (
            format!("{json}\n\n{{\"path\": \"b\",\n \"caption\": \"x\"}}\n"),
            Format::Jsonl,
            "line 3: expected a whole JSON object on the line",
        ),
        (
            "{\n  \"path\": \"b\"\n}\n".to_owned(),
            Format::Jsonl,
            "line 1: expected a whole JSON object",
        ),
        (
            format!("[{json}]"),
            Format::Jsonl,
            "`jq -c '.[]'` makes lines of an array",
        ),
        (
            format!("[\n{json},\n{json}\n]\n"),
            Format::Jsonl,
            "lines of an array",
        ),
        (format!("{json}{json}\n"), Format::Jsonl, "line 1: "),
        (format!("{json}\n{json},\n"), Format::Jsonl, "line 2: "),
        (
            format!("{json}\nmy notes"),
            Format::Jsonl,
            "line 2: expected a record",
        ),
        (
            "a,b\n1,2\n".to_owned(),
            Format::Csv,
            "line 1: expected a header with the columns `path` and `caption`",
        ),
        ("a,b".to_owned(), Format::Csv, "line 1: expected a header"),
        (
            format!("{header}{row}").replace('\n', "\r"),
            Format::Csv,
            "line 1: expected lines that end with a line feed",
        ),
        (row.to_owned(), Format::Csv, "line 1: expected a header"),
        (
            "path,caption,caption\n".to_owned(),
            Format::Csv,
            "one column `caption` instead of 2",
        ),
        (
            format!("{header}{row}a,two, cells,,1,,,,m.gguf,What?,,,,,,stop\n"),
            Format::Csv,
            "line 3: expected 14 fields as in the header instead of 16",
        ),
        (
            format!("{header}{row}a,x,1,2026-01-01,,,,,,,,,,\n"),
            Format::Csv,
            "line 3: expected a number of bytes in `size` instead of `2026-01-01`",
        ),
        (
            format!("{header}{row}\"a,x,,1,,,,m,p,,,,,\n{row}{row}"),
            Format::Csv,
            "line 3: ",
        ),
        (
            format!("{header}{row}b,\"two\nlines\n{row}{row}"),
            Format::Csv,
            "line 3: ",
        ),
        (
            format!(
                "{header}{row}b,\"two\nc,\"more\",,1,,,,m.gguf,What?,,2026-05-01T10:02:12Z,,,\n"
            ),
            Format::Csv,
            "line 3: expected quotes that are closed",
        ),
        (
            format!("{header}{row}b,\"two,,1,,,,m.gguf,What?,,2026-05-01T10:02:12Z,1,7,stop\n"),
            Format::Csv,
            "a quote is not closed",
        ),
        (
            format!("{header}{row}b,\"two\nlines\n{row}{row}x\",,1,,,,,,,,,,\n"),
            Format::Csv,
            "line 3: expected quotes that are closed",
        ),
        (
            format!("{header}\"{}", "x,\n".repeat(1 << 19)),
            Format::Csv,
            "line 2: ",
        ),
    ] {
        let place = Place::new(format);
        place.write(&text);
        let error = place.refused();
        assert!(error.contains(naming), "{text}: {error}");
    }
    let place = Place::new(Format::Jsonl);
    let error = Journal::open(place.dir.path(), place.format, &settings()).unwrap_err();
    assert!(matches!(error, JournalError::NotAFile { .. }));
}

#[test]
fn captions_of_several_lines_with_commas_are_no_rows() {
    let tags = ["tag"; 14].join(", ");
    for caption in [
        "A cat.\nIt sits on a mat, asleep",
        "A cat.\nIt says \"hi\", and sleeps",
        &format!("tags:\n{tags}\nend"),
        &format!("tags:\n{tags}"),
    ] {
        let place = Place::new(Format::Csv);
        place.open().append(&record("a.jpg", 12, caption)).unwrap();
        let found = place.open().caption("a.jpg").unwrap();
        assert_eq!(found.as_deref(), Some(caption));
    }
}

#[test]
fn a_file_in_another_encoding_is_told_as_such() {
    for format in [Format::Jsonl, Format::Csv] {
        let place = Place::new(format);
        let text = written(format).replace("disc", "café");
        let utf16: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        place.write([&[0xff, 0xfe][..], &utf16].concat());
        assert!(place.refused().contains("found UTF-16LE; save it as UTF-8"));
        place.write(&utf16);
        assert!(place.refused().contains("UTF-16LE"));
        let latin1: Vec<u8> = text
            .chars()
            .map(|c| u8::try_from(u32::from(c)).unwrap())
            .collect();
        place.write(&latin1);
        let line = 1 + text[..text.find("café").unwrap()].matches('\n').count();
        let offset = text.find('é').unwrap();
        let told = format!("line {line}, byte offset {offset}: ");
        assert!(place.refused().contains(&told), "{}", place.refused());
        place.write(latin1.strip_suffix(b"\n").unwrap());
        assert!(place.refused().contains(&told), "{}", place.refused());
    }
}

#[test]
fn zeros_of_a_power_cut_are_moved_away_and_the_record_before_them_stays() {
    for format in [Format::Jsonl, Format::Csv] {
        let text = written(format);
        for (n_cut, n_known) in [(0, 3), (1, 3), (40, 2)] {
            let place = Place::new(format);
            place.write([&text.as_bytes()[..text.len() - n_cut], &[0; 512]].concat());
            let mut journal = place.open();
            assert_eq!(journal.n_known(), n_known);
            assert!(journal.take_kept().torn.unwrap().0 >= 512);
            assert!(!place.text().contains('\0'));
            assert_eq!(place.others().len(), 1);
        }
    }
}

#[test]
fn a_link_stays_a_link_and_rights_stay_what_they_are() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new(Format::Jsonl);
    let disk = place.dir.path().join("disk");
    fs::create_dir(&disk).unwrap();
    std::os::unix::fs::symlink(disk.join("real"), place.path()).unwrap();
    drop(place.open());
    assert!(place.path().is_symlink() && !disk.join("real").exists());
    let mut journal = place.open();
    journal.append(&record("a", 1, "x")).unwrap();
    fs::set_permissions(disk.join("real"), fs::Permissions::from_mode(0o640)).unwrap();
    journal.append(&record("a", 2, "x")).unwrap();
    journal.tidy().unwrap();
    drop(journal);
    assert!(place.path().is_symlink());
    let real = disk.join("real").metadata().unwrap();
    assert_eq!(real.permissions().mode() & 0o777, 0o640);
    assert_eq!(place.lines(), [("a".to_owned(), 2)]);
    // Of a file with two names, both go on showing the records.
    fs::hard_link(disk.join("real"), disk.join("name")).unwrap();
    let mut journal = place.open();
    journal.append(&record("a", 3, "y")).unwrap();
    journal.tidy().unwrap();
    drop(journal);
    assert_eq!(
        fs::read(disk.join("name")).unwrap(),
        fs::read(disk.join("real")).unwrap()
    );
    assert_eq!(place.open().standing("a", of_size(3)), Standing::Captioned);
}

#[test]
fn names_of_any_bytes_and_of_any_length_serve() {
    let place = Place::new(Format::Jsonl);
    let long = place.dir.path().join("图".repeat(85));
    for path in ["a\nb", "-", " x ", r"caf\xe9", r"caf\x5cxe9"] {
        let mut journal = Journal::open(&long, Format::Csv, &settings()).unwrap();
        journal.append(&record(path, 1, "x")).unwrap();
        journal.append(&record(path, 2, "y")).unwrap();
        journal.tidy().unwrap();
        assert_eq!(journal.standing(path, of_size(2)), Standing::Captioned);
    }
    let journal = Journal::open(&long, Format::Csv, &settings()).unwrap();
    assert_eq!(journal.n_known(), 5);
    assert!(place.dir.path().join("records.replaced").exists());
}
