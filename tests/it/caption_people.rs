//! Files that people edit: captions corrected in other programs, text in other encodings, unusual file names. No
//! edit and no picture is lost.

use std::{
    collections::HashSet,
    ffi::{OsStr, OsString},
    fs,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::common::captions::{assert_status, caption, draw, feed, lines, records, run, scratch};
use serde_json::json;

fn utf16(text: &str) -> Vec<u8> {
    let units = "\u{feff}".encode_utf16().chain(text.encode_utf16());
    units.flat_map(u16::to_le_bytes).collect()
}

/// Unusual file names, one picture each.
fn odd_names() -> Vec<OsString> {
    let longest = |letter: &str| {
        let n = (255 - ".png".len()) / letter.len();
        letter.repeat(n) + ".png"
    };
    let mut names: Vec<OsString> = [
        &*longest("a"),
        &*longest("图"), // 83 characters
        "-p.png",
        " b \t.png",
        "two\nlines, \"quoted\".png",
        "=1+2.png",
        r"caf\xe9.png",
        r"back\slash.png",
    ]
    .map(OsString::from)
    .to_vec();
    for bytes in [&b"caf\xe9.png"[..], b"caf\xe8.png", b"\xcd\xbc\xc6\xac.png"] {
        names.push(OsString::from_vec(bytes.to_vec()));
    }
    names
}

/// A folder `odd` with these pictures.
fn odd_pictures(dir: &Path) -> Vec<PathBuf> {
    draw(dir, "500..501");
    fs::create_dir_all(dir.join("odd")).unwrap();
    let picture = dir.join("pictures/scene-00500.png");
    let put = |name: OsString| {
        let path = dir.join("odd").join(name);
        fs::copy(&picture, &path).unwrap();
        path
    };
    odd_names().into_iter().map(put).collect()
}

fn names(dir: &Path) -> HashSet<OsString> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| entry.file_name()).collect()
}

#[test]
fn a_picture_of_any_name_gets_one_caption_text_and_copy() {
    let dir = scratch("odd_names");
    let pictures = odd_pictures(&dir);
    let expected: HashSet<_> = odd_names().into_iter().collect();
    for output in ["c.jsonl", "c.csv"] {
        let args = [
            "odd",
            "-o",
            output,
            "--txt",
            "--embed",
            "out",
            "-n",
            "4",
            "--overwrite",
        ];
        assert_status(&run(&dir, &args), 0);
        let message = assert_status(&run(&dir, &args), 0);
        assert!(
            message.contains(&format!("{} skipped", pictures.len())),
            "{message}"
        );
        assert_eq!(names(&dir.join("out")), expected, "no hidden file is left");
        for picture in &pictures {
            assert!(picture.with_extension("txt").exists(), "{picture:?}");
        }
    }
    let paths: HashSet<_> = records(&dir.join("c.jsonl"))
        .iter()
        .map(|record| record["path"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(paths.len(), pictures.len());
    for path in [
        r"odd/caf\xe9.png",
        r"odd/caf\xe8.png",
        r"odd/caf\x5cxe9.png",
        r"odd/back\slash.png",
    ] {
        assert!(paths.contains(path), "{path}: {paths:?}");
    }

    // Records name the pictures for `--jsonl-in`; a list has their bytes.
    let text = fs::read_to_string(dir.join("c.jsonl")).unwrap();
    let output = feed(
        caption(&dir, &["--jsonl-in", "-", "-n", "4"]),
        text.as_bytes(),
    );
    assert_status(&output, 0);
    let answers = lines(&String::from_utf8(output.stdout).unwrap());
    assert!(
        answers.iter().all(|answer| answer["caption"].is_string()),
        "{answers:?}"
    );
    let listed = odd_names()
        .into_iter()
        .filter(|name| !name.as_bytes().contains(&b'\n'));
    let list: Vec<u8> = listed
        .flat_map(|name| [b"odd/", name.as_bytes(), b"\n"].concat())
        .collect();
    let message = assert_status(&feed(caption(&dir, &["-", "-o", "c.jsonl"]), &list), 0);
    assert!(
        message.contains(&format!("0 captioned, {} skipped", pictures.len() - 1)),
        "{message}"
    );
}

#[test]
fn text_files_need_no_records_and_have_any_name() {
    let dir = scratch("odd_texts");
    let pictures = odd_pictures(&dir);
    let long = "b".repeat(253) + ".p"; // with `.txt` it has 257 bytes
    fs::copy(&pictures[0], dir.join(&long)).unwrap();
    let message = assert_status(&run(&dir, &["odd", &long, "--txt", "-n", "4"]), 3);
    assert!(message.contains("would have 257 bytes"), "{message}");
    assert!(
        message.contains(&format!("{} captioned", pictures.len())),
        "{message}"
    );
    for picture in &pictures {
        assert!(picture.with_extension("txt").exists(), "{picture:?}");
    }
    assert_eq!(names(&dir.join("odd")).len(), 2 * pictures.len());
}

#[test]
fn corrected_captions_are_kept_in_files_of_any_program() {
    let dir = scratch("corrected");
    draw(&dir, "510..512");
    let args = ["pictures", "-o", "c.jsonl"];
    assert_status(&run(&dir, &args), 0);
    let mut all = records(&dir.join("c.jsonl"));
    let last = all.len() - 1;
    all[last]["caption"] = json!("My own words.");
    all[last]["rating"] = json!(5);
    let text: Vec<String> = all.iter().map(ToString::to_string).collect();
    // An editor without a final line feed; one on Windows, with a byte order mark.
    for text in [
        text.join("\n"),
        format!("\u{feff}{}\r\n", text.join("\r\n")),
    ] {
        fs::write(dir.join("c.jsonl"), &text).unwrap();
        let message = assert_status(&run(&dir, &args), 0);
        assert!(message.contains("0 captioned, 2 skipped"), "{message}");
        let after = fs::read_to_string(dir.join("c.jsonl")).unwrap();
        assert!(after.starts_with(&text), "{after}");
    }
    let all_options = ["pictures", "-o", "c.jsonl", "--txt"];
    assert_status(&run(&dir, &all_options), 0);
    let picture = Path::new(all[last]["path"].as_str().unwrap());
    let text = fs::read_to_string(dir.join(picture).with_extension("txt")).unwrap();
    assert_eq!(text, "My own words.\n");

    // A truncated line is moved aside and reported.
    let whole = fs::read(dir.join("c.jsonl")).unwrap();
    fs::write(
        dir.join("c.jsonl"),
        [&whole[..], b"{\"path\":\"pictures/x.png\",\"capt"].concat(),
    )
    .unwrap();
    let message = assert_status(&run(&dir, &args), 0);
    assert!(
        message.contains("was moved to") && message.contains("c.jsonl.torn-1"),
        "{message}"
    );
    assert_eq!(
        fs::read(dir.join("c.jsonl.torn-1")).unwrap(),
        b"{\"path\":\"pictures/x.png\",\"capt"
    );
    assert!(fs::read(dir.join("c.jsonl")).unwrap() == whole);

    for (text, told) in [
        (utf16("{}"), "UTF-16LE"),
        (b"[\n{}\n]".to_vec(), "lines of an array"),
        (
            [&whole[..], b"milk, eggs"].concat(),
            "line 3: expected a record",
        ),
        ([&whole[..], b"caf\xe9\n"].concat(), "line 3, byte offset"),
    ] {
        fs::write(dir.join("c.jsonl"), &text).unwrap();
        let message = assert_status(&run(&dir, &args), 1);
        assert!(message.contains(told), "{message}");
        assert!(fs::read(dir.join("c.jsonl")).unwrap() == text);
    }
}

#[test]
fn a_table_survives_a_spreadsheet() {
    let dir = scratch("table");
    draw(&dir, "520..522");
    let args = ["pictures", "-o", "c.csv"];
    assert_status(&run(&dir, &args), 0);
    let text = fs::read_to_string(dir.join("c.csv")).unwrap();
    let mut rows: Vec<Vec<String>> = csv::ReaderBuilder::new()
        .has_headers(false)
        .from_reader(text.as_bytes())
        .records()
        .map(|row| row.unwrap().iter().map(str::to_owned).collect())
        .collect();
    rows[1][1] = "a 5\" disc; mine".into();
    rows[1][4] = "30.11.2026 16:00".into(); // the time in the format of a spreadsheet
    rows[2][3] += ".0";
    rows.iter_mut()
        .enumerate()
        .for_each(|(i, row)| row.insert(2, format!("note {i}")));
    let mut writer = csv::WriterBuilder::new()
        .delimiter(b';')
        .terminator(csv::Terminator::CRLF)
        .from_writer(b"\xef\xbb\xbf".to_vec());
    rows.iter()
        .for_each(|row| writer.write_record(row).unwrap());
    let edited = writer.into_inner().unwrap();
    fs::write(dir.join("c.csv"), &edited).unwrap();
    fs::copy(
        dir.join("pictures/scene-00520.png"),
        dir.join("pictures/new.png"),
    )
    .unwrap();
    let message = assert_status(&run(&dir, &args), 0);
    assert!(
        message.contains("1 captioned") && message.contains("2 skipped"),
        "{message}"
    );
    let after = fs::read(dir.join("c.csv")).unwrap();
    assert!(after.starts_with(&edited));
    let row = String::from_utf8(after[edited.len()..].to_vec()).unwrap();
    assert!(
        row.starts_with("pictures/new.png;") && row.ends_with("\r\n"),
        "{row}"
    );
    assert_eq!(row.matches(';').count(), 14, "{row}");

    // A stray quote is a character; the thousand rows after it are kept.
    let (header, rest) = text.split_once('\n').unwrap();
    let stray = format!("{header}\nother.png,a 5\" disc,,1,,,,,,,,,,\n{rest}");
    fs::write(dir.join("c.csv"), &stray).unwrap();
    let message = assert_status(&run(&dir, &args), 0);
    assert!(
        message.contains("1 captioned") && message.contains("2 skipped"),
        "{message}"
    );
    assert!(
        fs::read_to_string(dir.join("c.csv"))
            .unwrap()
            .starts_with(&stray)
    );
    let open = format!("{header}\nother.png,\"a disc,,1,,,,,,,,,,\n{rest}");
    fs::write(dir.join("c.csv"), &open).unwrap();
    let message = assert_status(&run(&dir, &args), 1);
    assert!(
        message.contains("c.csv: line 2: ") && message.contains("nothing was changed"),
        "{message}"
    );
    assert_eq!(fs::read_to_string(dir.join("c.csv")).unwrap(), open);
}

#[test]
fn lists_and_records_on_stdin_are_read_from_any_shell() {
    let dir = scratch("shells");
    draw(&dir, "530..532");
    let list = "pictures/scene-00530.png\r\npictures/scene-00531.png\r\n";
    let record = r#"{"path":"pictures/scene-00530.png"}"#;
    for mark in ["", "\u{feff}"] {
        let list = format!("{mark}{list}");
        let output = feed(caption(&dir, &["-", "-n", "4"]), list.as_bytes());
        let message = assert_status(&output, 0);
        assert!(message.contains("2 captioned"), "{message}");
        let record = format!("{mark}{record}\r\n");
        let output = feed(
            caption(&dir, &["--jsonl-in", "-", "-n", "4"]),
            record.as_bytes(),
        );
        assert_status(&output, 0);
        let answers = lines(&String::from_utf8(output.stdout).unwrap());
        assert!(answers[0]["caption"].is_string(), "{answers:?}");
    }
    for (source, input) in [("-", list), ("--jsonl-in=-", record)] {
        let message = assert_status(&feed(caption(&dir, &[source]), &utf16(input)), 1);
        assert!(
            message.contains("found UTF-16LE; save it as UTF-8"),
            "{message}"
        );
        let nul = input.replace("scene", "s\0cene") + &" ".repeat(100);
        let message = assert_status(&feed(caption(&dir, &[source]), nul.as_bytes()), 1);
        assert!(message.contains("line 1, byte offset"), "{message}");
    }
}

#[test]
fn all_text_files_are_read_by_the_same_rules() {
    let dir = scratch("texts");
    let model = crate::common::captions::model();
    let picture = "pictures/scene-00540.png";
    draw(&dir, "540..541");
    let file = |name: &str, bytes: &[u8]| fs::write(dir.join(name), bytes).unwrap();
    fs::create_dir_all(dir.join("prompts/zh")).unwrap();
    let run = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xc2-edge"));
        command
            .current_dir(&dir)
            .args(args)
            .arg("-m")
            .arg(model)
            .stdin(Stdio::null());
        command.output().unwrap()
    };
    let uses: [(&str, &str, &[&str]); 6] = [
        (
            "a.gbnf",
            "root ::= \"yes\"\n# \n",
            &["run", "--image", picture, "-p", "x", "--grammar", "a.gbnf"],
        ),
        (
            "a.json",
            "{\n\"type\": \"boolean\"\n}\n",
            &[
                "run",
                "--image",
                picture,
                "-p",
                "x",
                "--json-schema",
                "a.json",
            ],
        ),
        (
            "a.txt",
            "One.\nTwo.\n",
            &[
                "compose",
                "--article",
                "a.txt",
                "--image",
                picture,
                "--out",
                "a.md",
                "-n",
                "4",
            ],
        ),
        ("a.jsonl", "", &["eval", "a.jsonl"]),
        (
            "prompts/zh/caption.toml",
            "",
            &[
                "compose",
                "-p",
                "x",
                "--prompts",
                "prompts",
                "--image",
                picture,
            ],
        ),
        (
            "b.json",
            "{\n}",
            &[
                "compose",
                "--edit",
                "b.json",
                "--shorten",
                "0",
                "--out",
                "b.md",
            ],
        ),
    ];
    for (name, text, args) in uses {
        let is_read = matches!(name, "a.gbnf" | "a.json");
        if is_read {
            let text = text.replace('\n', "\r\n");
            file(name, format!("\u{feff}{text}").as_bytes());
            assert_status(&run(args), 0);
        }
        file(name, &utf16(&format!("{text}\n")));
        let message = assert_status(&run(args), 1);
        assert!(message.contains("UTF-16LE"), "{name}: {message}");
        assert!(
            message.contains(OsStr::new(name).to_str().unwrap()),
            "{name}: {message}"
        );
        file(name, b"caf\xe9\n");
        let message = assert_status(&run(args), 1);
        assert!(
            message.contains("line 1, byte offset 3"),
            "{name}: {message}"
        );
    }
    let mut ask = Command::new(env!("CARGO_BIN_EXE_xc2-edge"));
    ask.current_dir(&dir)
        .args(["run", "--image", picture, "-m"])
        .arg(model);
    let message = assert_status(&feed(ask, &utf16("Is it day?")), 1);
    assert!(message.contains("UTF-16LE"), "{message}");
}
