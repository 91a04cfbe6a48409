//! What people and their programs do to the file between two runs, and meanwhile.

use super::*;

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
    assert_eq!(fields.text("error").as_deref(), Some("no room"));
    assert_eq!(fields.text("caption").as_deref(), Some("mine"));
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
        assert_eq!(fields.text("rating").unwrap(), "5");
        assert!(fields.text("tags").unwrap().contains('x'));
        assert_eq!(fields.text("caption").unwrap(), "new");
        assert!(
            !fields.contains("background"),
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
fn numbers_that_others_added_stay_as_they_were_written() {
    let added =
        r#""id":12345678901234567890123,"score":1.0,"at":1e5,"part":0.1000,"all":[1.50,{"x":-0}]"#;
    let place = Place::new(Format::Jsonl);
    place.write(format!(
        "{{\"path\":\"a\",\"caption\":\"x\",\"size\":1,{added}}}\n"
    ));
    let mut journal = place.open();
    journal.append(&record("a", 2, "y")).unwrap();
    journal.set_error("a", Some("no room")).unwrap();
    journal.tidy().unwrap();
    let text = place.text();
    assert!(text.contains(&format!(",{added}")), "{text}");
    assert_eq!(text.lines().count(), 1);
}

#[test]
fn spaces_of_others_do_not_hide_that_a_write_was_cut_short() {
    let place = Place::new(Format::Jsonl);
    place.write("{\"path\": \"a\", \"caption\": \"x\", \"size\": 1, \"tags\": [\"p q\", 1.0]}\n");
    let mut journal = place.open();
    journal.append(&record("a", 2, "y")).unwrap();
    drop(journal);
    let text = place.text();
    assert!(text.ends_with(",\"tags\":[\"p q\",1.0]}\n"), "{text}");
    place.write(&text[..text.len() - 4]);
    assert!(place.open().take_kept().torn.is_some());
}

#[test]
fn words_for_missing_values_are_blanks() {
    for word in ["NaN", "NA", "None", "nan", "<NA>", "NULL"] {
        let table = written(Format::Csv);
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
        goes_on(Format::Csv, writer.into_inner().unwrap());
    }
    // Alone, such a word may be an answer.
    let place = Place::new(Format::Csv);
    place.open().append(&record("a", 1, "None")).unwrap();
    let journal = place.open();
    assert_eq!(journal.caption("a").unwrap().as_deref(), Some("None"));
    assert_eq!(journal.standing("a", of_size(1)), Standing::Captioned);
}

#[test]
fn a_table_gets_a_column_for_copies_when_there_is_one() {
    let place = Place::new(Format::Csv);
    place.write(written(Format::Csv));
    let mut journal = place.open();
    journal.set_copy_hash("a", "0123").unwrap();
    let of_copy = Record {
        copy_blake3: Some("4567".into()),
        ..record("d", 4, "x")
    };
    journal.append(&of_copy).unwrap();
    journal.append(&record("d", 5, "y")).unwrap(); // its copy is the one of before
    journal.tidy().unwrap();
    drop(journal);
    let text = place.text();
    let header = text.lines().next().unwrap();
    assert!(header.ends_with(",stop,copy_blake3"), "{text}");
    let journal = place.open();
    let hash = |path| journal.copy_hash(path).unwrap();
    assert_eq!(hash("a").as_deref(), Some("0123"));
    assert_eq!((hash("b"), hash("c")), (None, None));
    assert_eq!(hash("d").as_deref(), Some("4567"));
    assert_eq!(
        journal.caption("a").unwrap().unwrap(),
        "line one,\nline \"two\""
    );
}
