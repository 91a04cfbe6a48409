//! Edits of the record file by users and other programs, between and during runs.

use super::*;

fn now() -> Identity {
    Identity {
        size: 183_204,
        modified: Some("2026-05-01T10:02:11.678901234Z".parse().unwrap()),
    }
}

/// Opens an edited file `text`, appends a record, and checks that nothing else changes. Returns the appended text.
#[track_caller]
fn assert_resumes(format: Format, text: impl AsRef<[u8]>) -> String {
    let fixture = Fixture::new(format);
    fixture.write(&text);
    let mut journal = fixture.open();
    for (path, status) in [
        ("a", Status::Captioned),
        ("b", Status::Failed),
        ("c", Status::Captioned),
        ("d", Status::New),
    ] {
        assert_eq!(
            journal.status(path, if path == "b" { of_size(2) } else { now() }),
            status,
            "{path}"
        );
    }
    let caption = journal.caption("c").unwrap().unwrap();
    assert!(caption.contains("disc"), "{caption}");
    journal.append(&record("d", 4, "a, \"new\" one")).unwrap();
    assert_eq!(journal.caption("d").unwrap().unwrap(), "a, \"new\" one");
    drop(journal);
    let journal = fixture.open();
    assert_eq!(journal.n_known(), 4);
    assert_eq!(journal.caption("d").unwrap().unwrap(), "a, \"new\" one");
    assert_eq!(journal.status("d", of_size(4)), Status::Captioned);
    assert!(fixture.others().is_empty(), "{:?}", fixture.others());
    let after = fs::read(fixture.path()).unwrap();
    let before = text.as_ref();
    assert!(
        after.starts_with(before),
        "{}",
        String::from_utf8_lossy(&after)
    );
    String::from_utf8(after[before.len()..].to_vec()).unwrap()
}

#[test]
fn fields_of_superseded_lines_are_saved_beside_the_file() {
    let fixture = Fixture::new(Format::Jsonl);
    let line = |more: &str| format!("{{\"path\":\"a\",\"caption\":\"x\",\"size\":1{more}}}\n");
    fixture.write([line(",\"note\":\"mine\""), line(",\"note\":\"\""), line("")].concat());
    drop(fixture.open());
    assert_eq!(fs::read_to_string(fixture.path()).unwrap(), line(""));
    let name = fixture.path().file_name().unwrap().to_owned();
    let mut name = name.into_string().unwrap();
    name.push_str(".replaced");
    let set_aside = fs::read_to_string(fixture.path().with_file_name(name)).unwrap();
    assert_eq!(set_aside, line(",\"note\":\"mine\""));
}

#[test]
fn line_ends_and_marks_of_editors_change_no_record() {
    for format in [Format::Jsonl, Format::Csv] {
        let plain = sample(format);
        assert_resumes(format, &plain);
        let added = assert_resumes(format, plain.trim_end());
        assert!(added.starts_with('\n'), "{added}");
        assert_resumes(format, format!("{plain}\n\n"));
        if format == Format::Csv {
            assert_resumes(format, format!("{plain}{}\n\"\"\n", ",".repeat(13)));
        }
        assert_resumes(format, format!("\u{feff}{plain}"));
        let crlf = plain.replace('\n', "\r\n");
        for crlf in [
            crlf.clone(),
            format!("\u{feff}{crlf}"),
            format!("{crlf}\r\n"),
        ] {
            assert!(assert_resumes(format, &crlf).ends_with("\r\n"));
        }
        assert_resumes(format, crlf.trim_end());
    }
}

#[test]
fn an_edited_last_line_without_line_feed_is_kept() {
    for format in [Format::Jsonl, Format::Csv] {
        let fixture = Fixture::new(format);
        let by_hand = sample(format).replace("disc", "disc, said I");
        fixture.write(by_hand.trim_end());
        let mut journal = fixture.open();
        assert_eq!(journal.caption("c").unwrap().unwrap(), "a 5\" disc, said I");
        journal.append(&record("d", 4, "x")).unwrap();
        drop(journal);
        assert_eq!(fixture.open().n_known(), 4);
        assert!(fixture.others().is_empty());
    }
}

#[test]
fn json_of_pandas_jq_and_python_is_read() {
    let a = r#"{"path":"a","caption":"x\/y","error":null,"size":183204,"modified":1777629731678,"width":640.0,"height":480.0,"model":"m.gguf","prompt":"What?","time":"2026-05-01T10:02:12Z","seconds":1.25,"tokens":7.0,"stop":"stop"}"#;
    let b = r#"{"path":"b","caption":null,"error":"no picture","size":2,"modified":null,"width":null,"height":null,"model":"m.gguf","prompt":"What?","time":null,"seconds":null,"tokens":null,"stop":null}"#;
    let c = r#"{ "stop": "stop", "size": 183204.0, "tags": ["mine"], "prompt": "What?", "path": "\u0063", "model": "m.gguf", "caption": "disc" }"#;
    assert_resumes(Format::Jsonl, format!("{a}\n{b}\n{c}\n"));
}

#[test]
fn tables_of_spreadsheets_and_pandas_are_read() {
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
                    let last = assert_resumes(Format::Csv, &text);
                    let n = last.matches(char::from(delimiter)).count();
                    assert!(n >= order.len() - 1, "{last}");
                }
            }
        }
    }
    let text = table(b',', csv::QuoteStyle::Necessary, &all, false);
    assert_resumes(
        Format::Csv,
        text.replacen(header, &header.to_uppercase(), 1),
    );
    assert_resumes(
        Format::Csv,
        text.replacen(header, &header.replace(',', " , "), 1),
    );
    assert_resumes(
        Format::Csv,
        format!(
            "sep=;\r\n{}",
            table(b';', csv::QuoteStyle::Necessary, &all, false)
        ),
    );
    // A quote in an unquoted cell.
    assert_resumes(Format::Csv, text.replace("\"a 5\"\" disc\"", "a 5\" disc"));
    // A repeated header, as in files joined by `cat`.
    assert_resumes(Format::Csv, format!("{text}{header}\n"));
}

#[test]
fn columns_needed_to_resume_are_restored() {
    let fixture = Fixture::new(Format::Csv);
    fixture.write("path,caption,mine\na,\"my, words\",1\nb,mine,2\n");
    let mut journal = fixture.open();
    assert_eq!(journal.status("a", of_size(1)), Status::Captioned);
    journal.append(&failure("c", 3)).unwrap();
    drop(journal);
    let text = fixture.text();
    assert!(
        text.starts_with("path,caption,mine,error,size,modified,model,prompt,template,time\n"),
        "{text}"
    );
    assert!(text.contains("\na,\"my, words\",1,,,,,,,\n"), "{text}");
    let journal = fixture.open();
    assert_eq!(journal.caption("a").unwrap().unwrap(), "my, words");
    assert_eq!(journal.status("c", of_size(3)), Status::Failed);
    assert_eq!(journal.status("c", of_size(4)), Status::Changed);
}

#[test]
fn an_error_adds_its_missing_column() {
    let fixture = Fixture::new(Format::Csv);
    fixture.write("path,caption\na,mine\n");
    let mut journal = fixture.open();
    journal.set_error("a", Some("no room")).unwrap();
    let fields = journal.fields("a").unwrap().unwrap();
    assert_eq!(fields.text("error").as_deref(), Some("no room"));
    assert_eq!(fields.text("caption").as_deref(), Some("mine"));
}

#[test]
fn columns_with_the_same_name_keep_their_cells() {
    let fixture = Fixture::new(Format::Csv);
    let header = Format::Csv.header();
    let row = "a,x,,1,,,,m.gguf,What?,,2026-05-01T10:02:11Z,,,stop";
    fixture.write(format!(
        "{},note,note,,\n{row},one,two,three,four\n",
        header.trim_end()
    ));
    let mut journal = fixture.open();
    journal.append(&record("a", 2, "y")).unwrap();
    drop(journal);
    let text = fs::read_to_string(fixture.path()).unwrap();
    let last = text.lines().last().unwrap();
    assert!(last.ends_with(",one,two,three,\"four\""), "{text}");
}

#[test]
fn fields_of_a_user_are_copied_when_a_picture_is_captioned_again() {
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
        let fixture = Fixture::new(format);
        fixture.write(text);
        let mut journal = fixture.open();
        journal.append(&record("a", 2, "new")).unwrap();
        journal.tidy().unwrap();
        let set_aside = journal.take_set_aside();
        assert_eq!(set_aside.replaced.unwrap().0, 1);
        let fields = journal.fields("a").unwrap().unwrap();
        assert_eq!(fields.text("rating").unwrap(), "5");
        assert!(fields.text("tags").unwrap().contains('x'));
        assert_eq!(fields.text("caption").unwrap(), "new");
        assert!(
            !fields.contains("background"),
            "a field of this program about the old picture"
        );
        // A user may have written the replaced caption.
        let [(name, replaced)] = &fixture.others()[..] else {
            panic!("{:?}", fixture.others());
        };
        assert_eq!(name, "captions.replaced");
        assert_eq!(String::from_utf8_lossy(replaced), text);
    }
}

#[test]
fn edits_during_a_run_are_read() {
    let fixture = Fixture::new(Format::Jsonl);
    let mut journal = fixture.open();
    journal.append(&record("a", 1, "first")).unwrap();
    journal.append(&record("b", 1, "second")).unwrap();
    // First in place, then by replacing the file.
    fixture.write(fixture.text().replace("first", "a longer one, by hand"));
    journal.append(&record("c", 1, "third")).unwrap();
    let other = fixture.dir.path().join("other");
    fs::write(&other, fixture.text().replace("second", "mine")).unwrap();
    fs::rename(&other, fixture.path()).unwrap();
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
    // An invalid line ends the run and is kept.
    fixture.write("milk\n");
    assert!(journal.append(&record("e", 1, "x")).is_err());
    assert_eq!(fixture.text(), "milk\n");
    drop(journal);
    assert_eq!(fixture.text(), "milk\n");
}

#[test]
fn added_numbers_keep_their_text() {
    let added =
        r#""id":12345678901234567890123,"score":1.0,"at":1e5,"part":0.1000,"all":[1.50,{"x":-0}]"#;
    let fixture = Fixture::new(Format::Jsonl);
    fixture.write(format!(
        "{{\"path\":\"a\",\"caption\":\"x\",\"size\":1,{added}}}\n"
    ));
    let mut journal = fixture.open();
    journal.append(&record("a", 2, "y")).unwrap();
    journal.set_error("a", Some("no room")).unwrap();
    journal.tidy().unwrap();
    let text = fixture.text();
    assert!(text.contains(&format!(",{added}")), "{text}");
    assert_eq!(text.lines().count(), 1);
}

#[test]
fn a_torn_write_is_recognized_after_fields_with_spaces() {
    let fixture = Fixture::new(Format::Jsonl);
    fixture.write("{\"path\": \"a\", \"caption\": \"x\", \"size\": 1, \"tags\": [\"p q\", 1.0]}\n");
    let mut journal = fixture.open();
    journal.append(&record("a", 2, "y")).unwrap();
    drop(journal);
    let text = fixture.text();
    assert!(text.ends_with(",\"tags\":[\"p q\",1.0]}\n"), "{text}");
    fixture.write(&text[..text.len() - 4]);
    assert!(fixture.open().take_set_aside().torn.is_some());
}

#[test]
fn markers_of_missing_values_count_as_empty() {
    for word in ["NaN", "NA", "None", "nan", "<NA>", "NULL"] {
        let table = sample(Format::Csv);
        let (header, rows) = table.split_once('\n').unwrap();
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .from_reader(rows.as_bytes());
        let mut writer = csv::Writer::from_writer(format!("{header}\n").into_bytes());
        for row in reader.records() {
            let row = row.unwrap();
            let cells = row
                .iter()
                .map(|cell| if cell.is_empty() { word } else { cell });
            writer.write_record(cells).unwrap();
        }
        assert_resumes(Format::Csv, writer.into_inner().unwrap());
    }
    // As the caption of a picture without error, such a word may be an answer.
    let fixture = Fixture::new(Format::Csv);
    fixture.open().append(&record("a", 1, "None")).unwrap();
    let journal = fixture.open();
    assert_eq!(journal.caption("a").unwrap().as_deref(), Some("None"));
    assert_eq!(journal.status("a", of_size(1)), Status::Captioned);
}

#[test]
fn the_first_copy_adds_its_column() {
    let fixture = Fixture::new(Format::Csv);
    fixture.write(sample(Format::Csv));
    let mut journal = fixture.open();
    journal.set_copy_hash("a", "0123").unwrap();
    let of_copy = Record {
        copy_blake3: Some("4567".into()),
        ..record("d", 4, "x")
    };
    journal.append(&of_copy).unwrap();
    journal.append(&record("d", 5, "y")).unwrap(); // the copy is unchanged
    journal.tidy().unwrap();
    drop(journal);
    let text = fixture.text();
    let header = text.lines().next().unwrap();
    assert!(header.ends_with(",stop,copy_blake3"), "{text}");
    let journal = fixture.open();
    let hash = |path| journal.copy_hash(path).unwrap();
    assert_eq!(hash("a").as_deref(), Some("0123"));
    assert_eq!((hash("b"), hash("c")), (None, None));
    assert_eq!(hash("d").as_deref(), Some("4567"));
    assert_eq!(
        journal.caption("a").unwrap().unwrap(),
        "line one,\nline \"two\""
    );
}
