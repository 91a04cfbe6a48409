//! Files that are rejected, and the errors.

use super::*;

#[test]
fn other_settings_are_rejected() {
    let fixture = Fixture::new(Format::Jsonl);
    fixture.open().append(&record("a", 1, "x")).unwrap();
    let other = Settings {
        prompt: "Why?".into(),
        ..settings()
    };
    let error = Journal::open(&fixture.path(), fixture.format, &other)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("another prompt: expected `Why?`, found `What?`"),
        "{error}"
    );
}

#[test]
fn another_template_is_rejected_but_single_missing_values_are_not() {
    let template = "sks, {caption}";
    let with = |own: Option<&str>| Settings {
        template: own.map(str::to_owned),
        ..settings()
    };
    for format in [Format::Jsonl, Format::Csv] {
        let fixture = Fixture::new(format);
        let mut journal = fixture.open();
        journal.append(&record("a", 1, "x")).unwrap();
        drop(journal);
        let refused = |own| {
            let error = Journal::open(&fixture.path(), format, &with(own)).unwrap_err();
            let expected = "another template";
            assert!(error.to_string().contains(expected), "{error}");
        };
        let before = fixture.text();
        refused(Some(template));
        assert_eq!(fixture.text(), before);
    }
    let fixture = Fixture::new(Format::Csv);
    let header = Format::Csv.header();
    let row = |path: &str, template: &str| {
        format!("{path},x,,1,,,,m.gguf,What?,\"{template}\",2026-05-01T10:02:12Z,,,\n")
    };
    fixture.write([header, row("a", template), row("b", "NaN"), row("c", "")].concat());
    let journal = Journal::open(&fixture.path(), Format::Csv, &with(Some(template))).unwrap();
    assert_eq!(journal.n_known(), 3);
}

#[test]
fn other_files_are_rejected_and_left_unchanged() {
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
        let fixture = Fixture::new(format);
        fixture.write(&text);
        let error = fixture.open_error();
        assert!(error.contains(naming), "{text}: {error}");
    }
    let fixture = Fixture::new(Format::Jsonl);
    let error = Journal::open(fixture.dir.path(), fixture.format, &settings()).unwrap_err();
    assert!(matches!(error, JournalError::NotAFile { .. }));
}

#[test]
fn lines_of_a_caption_with_commas_are_not_taken_for_rows() {
    let tags = ["tag"; 14].join(", ");
    for caption in [
        "A cat.\nIt sits on a mat, asleep",
        "A cat.\nIt says \"hi\", and sleeps",
        &format!("tags:\n{tags}\nend"),
        &format!("tags:\n{tags}"),
    ] {
        let fixture = Fixture::new(Format::Csv);
        fixture
            .open()
            .append(&record("a.jpg", 12, caption))
            .unwrap();
        let found = fixture.open().caption("a.jpg").unwrap();
        assert_eq!(found.as_deref(), Some(caption));
    }
}

#[test]
fn another_encoding_is_reported_with_line_and_offset() {
    for format in [Format::Jsonl, Format::Csv] {
        let fixture = Fixture::new(format);
        let text = sample(format).replace("disc", "café");
        let utf16: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        fixture.write([&[0xff, 0xfe][..], &utf16].concat());
        assert!(
            fixture
                .open_error()
                .contains("found UTF-16LE; save it as UTF-8")
        );
        fixture.write(&utf16);
        assert!(fixture.open_error().contains("UTF-16LE"));
        let latin1: Vec<u8> = text
            .chars()
            .map(|c| u8::try_from(u32::from(c)).unwrap())
            .collect();
        fixture.write(&latin1);
        let line = 1 + text[..text.find("café").unwrap()].matches('\n').count();
        let offset = text.find('é').unwrap();
        let expected = format!("line {line}, byte offset {offset}: ");
        assert!(
            fixture.open_error().contains(&expected),
            "{}",
            fixture.open_error()
        );
        fixture.write(latin1.strip_suffix(b"\n").unwrap());
        assert!(
            fixture.open_error().contains(&expected),
            "{}",
            fixture.open_error()
        );
    }
}
