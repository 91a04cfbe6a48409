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
        let text = text.strip_prefix(self.format.header().as_bytes()).unwrap();
        let (mut input, mut line, mut lines) = (text, Vec::new(), Vec::new());
        while self.format.read_line(&mut input, &mut line).unwrap() {
            let record = self.format.parse(&line).unwrap();
            lines.push((record.path, record.size));
            line.clear();
        }
        assert!(line.is_empty(), "a torn line");
        lines
    }
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
        assert_eq!(
            journal.record("a").unwrap(),
            Some(record("a", 1, "A,\n\"one\""))
        );
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
        }
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
        assert_eq!(journal.record("c").unwrap().unwrap().size, 1);
        let second = Journal::open(&place.path(), format, &settings());
        assert!(matches!(second, Err(JournalError::Busy { .. })));
        journal.append(&record("d", 4, "x")).unwrap();
        assert_eq!(journal.record("d").unwrap().unwrap().size, 4);
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
    let place = Place::new(Format::Jsonl);
    let long = format!("{}\"{}", Format::Csv.header(), "x,\n".repeat(1 << 19));
    for (text, format) in [
        ("a shopping list\nmilk", Format::Jsonl),
        ("a shopping list", Format::Jsonl),
        ("{\"key\": 1", Format::Jsonl),
        ("a,b\n1,2\n", Format::Csv),
        ("a,b", Format::Csv),
        (&long, Format::Csv),
    ] {
        fs::write(place.path(), text).unwrap();
        let error = Journal::open(&place.path(), format, &settings()).unwrap_err();
        assert!(error.to_string().ends_with("record 1"), "{error}");
        assert_eq!(fs::read_to_string(place.path()).unwrap(), text);
    }
    let error = Journal::open(place.dir.path(), place.format, &settings()).unwrap_err();
    assert!(matches!(error, JournalError::NotAFile { .. }));
}
