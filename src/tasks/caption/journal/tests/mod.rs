//! Record files over several runs, and after edits by users.

mod edits;
mod refusals;
mod runs;

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

struct Fixture {
    dir: tempfile::TempDir,
    format: Format,
}

impl Fixture {
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

    /// Path and size of every record, in the order of the file.
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
                let text = |name| fields.text(name).unwrap();
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

    /// Names and contents of all other files of the folder.
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

    /// The error when the file is opened; asserts that nothing changed.
    fn open_error(&self) -> String {
        let before = fs::read(self.path()).unwrap();
        let error = Journal::open(&self.path(), self.format, &settings()).unwrap_err();
        assert!(fs::read(self.path()).unwrap() == before);
        assert!(self.others().is_empty());
        format!("{:#}", anyhow::Error::new(error))
    }
}

/// A record file of three pictures: `a` captioned, `b` failed, `c` captioned.
fn sample(format: Format) -> String {
    let fixture = Fixture::new(format);
    let mut journal = fixture.open();
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
    fixture.text()
}
