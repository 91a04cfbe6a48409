//! The destination of records, and the decision what to do about a picture.

use std::{
    collections::HashMap,
    fmt,
    io::{self, Write},
    path::PathBuf,
};

use super::{
    Format, Found, Identity, Journal, JournalError, Record, SetAside, Sidecars, Status, path_text,
};

/// The destination of records.
#[derive(Debug)]
pub enum Records {
    /// A file, with which the next run resumes.
    Journal(Box<Journal>),
    /// An output stream; what is done is known only while the process runs.
    Stream(Stream),
}

/// Records for an output stream, or for none.
pub struct Stream {
    output: Option<Box<dyn Write>>,
    format: Format,
    known: HashMap<String, Known>,
}

/// The content of a record that was already output.
struct Known {
    identity: Identity,
    status: Status,
    caption: Option<String>,
    copy_hash: Option<String>,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n_known = self.known.len();
        f.debug_struct("Stream")
            .field("format", &self.format)
            .field("n_known", &n_known)
            .finish()
    }
}

/// Why a record cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordsError {
    /// The record file failed.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The stream failed.
    #[error("records cannot be written to stdout")]
    Stream(#[from] io::Error),
}

/// What to do about a picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Caption it.
    Caption,
    /// It has this caption; make the missing sidecars.
    Sidecars(String),
    /// Nothing: it is captioned.
    Done,
    /// Nothing: it failed before, and has not changed.
    FailedBefore,
    /// Nothing: its sidecar exists, but according to the records another program made it.
    Occupied,
    /// Nothing: it has changed since it was captioned, but a user has edited this sidecar.
    Edited(PathBuf),
}

/// How to treat pictures of earlier runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Policy {
    /// Retry failed pictures.
    pub retry_failed: bool,
    /// Replace sidecars that this program did not make.
    pub overwrite: bool,
}

impl Records {
    /// Writes records to `output`, if any.
    ///
    /// # Errors
    /// If the header cannot be written.
    pub fn stream(
        mut output: Option<Box<dyn Write>>,
        format: Format,
    ) -> Result<Self, RecordsError> {
        if let Some(output) = &mut output {
            output.write_all(format.header().as_bytes())?;
        }
        Ok(Self::Stream(Stream {
            output,
            format,
            known: HashMap::new(),
        }))
    }

    /// Decides what to do about a picture.
    ///
    /// # Errors
    /// If its record cannot be read.
    pub fn decide(
        &mut self,
        found: &Found,
        sidecars: &Sidecars,
        policy: Policy,
    ) -> Result<Decision, RecordsError> {
        if let Self::Journal(journal) = self {
            journal.read_if_changed()?;
        }
        let path = path_text(&found.path);
        let status = self.status(&path, Identity::of(&found.path).unwrap_or_default());
        let mut targets = sidecars.targets(found);
        let is_due = match status {
            Status::New | Status::Changed => true,
            Status::Failed => policy.retry_failed,
            Status::Captioned => false,
        };
        if is_due && !policy.overwrite {
            match self.user_sidecar(found, status, sidecars)? {
                Some(path) if status == Status::Changed => return Ok(Decision::Edited(path)),
                Some(_) => return Ok(Decision::Occupied),
                None => {}
            }
        }
        Ok(match status {
            Status::Captioned if targets.all(|target| target.exists()) => Decision::Done,
            Status::Captioned => match self.caption(&path)? {
                Some(caption) => Decision::Sidecars(caption),
                None => Decision::Done,
            },
            Status::Failed if !policy.retry_failed => Decision::FailedBefore,
            _ => Decision::Caption,
        })
    }

    /// An existing sidecar of a user: one without a record, or one that differs from its record.
    fn user_sidecar(
        &self,
        found: &Found,
        status: Status,
        sidecars: &Sidecars,
    ) -> Result<Option<PathBuf>, RecordsError> {
        let existing = sidecars.targets(found).find(|target| target.exists());
        if existing.is_none() || status == Status::New {
            return Ok(existing);
        }
        let path = path_text(&found.path);
        let caption = self.caption(&path)?.filter(|caption| !caption.is_empty());
        let hash = self.copy_hash(&path)?;
        Ok(sidecars.edited(found, caption.as_deref(), hash.as_deref()))
    }

    fn status(&self, path: &str, identity: Identity) -> Status {
        match self {
            Self::Journal(journal) => journal.status(path, identity),
            Self::Stream(stream) => match stream.known.get(path) {
                None => Status::New,
                Some(known) if known.identity != identity => Status::Changed,
                Some(known) => known.status,
            },
        }
    }

    fn caption(&self, path: &str) -> Result<Option<String>, RecordsError> {
        match self {
            Self::Journal(journal) => Ok(journal.caption(path)?),
            Self::Stream(stream) => Ok(stream.known.get(path).and_then(|k| k.caption.clone())),
        }
    }

    fn copy_hash(&self, path: &str) -> Result<Option<String>, RecordsError> {
        match self {
            Self::Journal(journal) => Ok(journal.copy_hash(path)?),
            Self::Stream(stream) => Ok(stream.known.get(path).and_then(|k| k.copy_hash.clone())),
        }
    }

    /// The lines removed from the record file since the last call.
    pub fn take_set_aside(&mut self) -> SetAside {
        match self {
            Self::Journal(journal) => journal.take_set_aside(),
            Self::Stream(_) => SetAside::default(),
        }
    }

    /// Adds a record.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn append(&mut self, record: &Record) -> Result<(), RecordsError> {
        match self {
            Self::Journal(journal) => journal.append(record)?,
            Self::Stream(stream) => {
                if let Some(output) = &mut stream.output {
                    output.write_all(stream.format.line(record).as_bytes())?;
                    output.flush()?; // for a waiting reader
                }
                let status = match record.error {
                    Some(_) => Status::Failed,
                    None => Status::Captioned,
                };
                let earlier = stream.known.get(&record.path);
                let copy_hash = record.copy_blake3.clone();
                let known = Known {
                    identity: record.identity(),
                    status,
                    caption: record.caption.clone(),
                    copy_hash: copy_hash.or_else(|| earlier?.copy_hash.clone()),
                };
                stream.known.insert(record.path.clone(), known);
            }
        }
        Ok(())
    }

    /// Stores in the record of a captioned picture why its sidecars failed, or removes that error.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn set_error(&mut self, path: &str, error: Option<&str>) -> Result<(), RecordsError> {
        match self {
            Self::Journal(journal) => Ok(journal.set_error(path, error)?),
            Self::Stream(_) => Ok(()), // output cannot be changed later
        }
    }

    /// Stores in the record of a captioned picture the BLAKE3 of the copy about to be written.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn set_copy_hash(&mut self, path: &str, hash: &str) -> Result<(), RecordsError> {
        match self {
            Self::Journal(journal) => journal.set_copy_hash(path, hash)?,
            Self::Stream(stream) => {
                if let Some(known) = stream.known.get_mut(path) {
                    known.copy_hash = Some(hash.to_owned());
                }
            }
        }
        Ok(())
    }

    /// Drops superseded records, if the file can be rewritten.
    ///
    /// # Errors
    /// If another program changed the file and it cannot be read.
    pub fn tidy(&mut self) -> Result<(), RecordsError> {
        match self {
            Self::Journal(journal) => Ok(journal.tidy_if_possible()?),
            Self::Stream(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_decision_follows_from_record_and_sidecars() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jpg");
        fs::write(&path, "1").unwrap();
        let found = Found {
            path: path.clone(),
            name: "a.jpg".into(),
        };
        let (plain, txt) = (
            Sidecars::default(),
            Sidecars {
                txt: true,
                ..Sidecars::default()
            },
        );
        let output = dir.path().join("c.jsonl");
        let journal = Journal::open(&output, Format::Jsonl, &Default::default()).unwrap();
        let mut records = Records::Journal(Box::new(journal));
        let retry = Policy {
            retry_failed: true,
            overwrite: false,
        };
        let overwrite = Policy {
            retry_failed: false,
            overwrite: true,
        };
        let ask = |records: &mut Records, sidecars, policy| {
            records.decide(&found, sidecars, policy).unwrap()
        };

        // A user's text file is replaced only on request.
        fs::write(dir.path().join("a.txt"), "by hand").unwrap();
        assert_eq!(
            ask(&mut records, &plain, Policy::default()),
            Decision::Caption
        );
        assert_eq!(
            ask(&mut records, &txt, Policy::default()),
            Decision::Occupied
        );
        assert_eq!(ask(&mut records, &txt, overwrite), Decision::Caption);

        let identity = Identity::of(&path).unwrap();
        let mut record = Record {
            path: path.to_str().unwrap().into(),
            error: Some("damaged".into()),
            size: identity.size,
            modified: identity.modified,
            ..Record::default()
        };
        records.append(&record).unwrap();
        assert_eq!(
            ask(&mut records, &txt, Policy::default()),
            Decision::FailedBefore
        );
        assert_eq!(ask(&mut records, &txt, retry), Decision::Occupied);
        assert_eq!(ask(&mut records, &plain, retry), Decision::Caption);

        (record.error, record.caption) = (None, Some("a cat".into()));
        records.append(&record).unwrap();
        assert_eq!(ask(&mut records, &txt, retry), Decision::Done);
        fs::remove_file(dir.path().join("a.txt")).unwrap();
        assert_eq!(ask(&mut records, &plain, retry), Decision::Done);
        assert_eq!(
            ask(&mut records, &txt, retry),
            Decision::Sidecars("a cat".into())
        );
        fs::write(&path, "12").unwrap();
        for (text, expected) in [
            ("a cat\n", Decision::Caption),
            ("a cat\r\n", Decision::Caption),
            ("a black cat\n", Decision::Edited(dir.path().join("a.txt"))),
        ] {
            fs::write(dir.path().join("a.txt"), text).unwrap();
            let asked = ask(&mut records, &txt, Policy::default());
            assert_eq!(asked, expected, "{text:?}");
            assert_eq!(ask(&mut records, &txt, overwrite), Decision::Caption);
        }
    }

    #[test]
    fn an_unchanged_copy_is_replaced_but_an_edited_one_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (path, copy) = (dir.path().join("a.jpg"), dir.path().join("out/a.jpg"));
        fs::create_dir(dir.path().join("out")).unwrap();
        let found = Found {
            path: path.clone(),
            name: "a.jpg".into(),
        };
        let sidecars = Sidecars {
            copies: Some(dir.path().join("out")),
            ..Sidecars::default()
        };
        let overwrite = Policy {
            overwrite: true,
            ..Policy::default()
        };
        let open = |name: &str| match name {
            "" => Records::stream(None, Format::Jsonl).unwrap(),
            name => {
                let (output, format) = match name {
                    "c.csv" => (dir.path().join(name), Format::Csv),
                    name => (dir.path().join(name), Format::Jsonl),
                };
                let journal = Journal::open(&output, format, &Default::default()).unwrap();
                Records::Journal(Box::new(journal))
            }
        };
        for output in ["c.jsonl", "c.csv", ""] {
            fs::write(&path, "1").unwrap();
            fs::write(&copy, "as it was made").unwrap();
            let mut records = open(output);
            let identity = Identity::of(&path).unwrap();
            let record = Record {
                path: path.to_str().unwrap().into(),
                caption: Some("a cat".into()),
                size: identity.size,
                modified: identity.modified,
                ..Record::default()
            };
            records.append(&record).unwrap();
            let ask =
                |records: &mut Records, policy| records.decide(&found, &sidecars, policy).unwrap();
            fs::write(&path, "12").unwrap();
            let edited = Decision::Edited(copy.clone());
            assert_eq!(
                ask(&mut records, Policy::default()),
                edited,
                "no hash in the record"
            );
            let hash = blake3::hash(b"as it was made").to_hex().to_string();
            records.set_copy_hash(&record.path, &hash).unwrap();
            assert_eq!(ask(&mut records, Policy::default()), Decision::Caption);
            fs::write(&copy, "as a person edited it").unwrap();
            assert_eq!(ask(&mut records, Policy::default()), edited);
            assert_eq!(ask(&mut records, overwrite), Decision::Caption);
            // A run without copies in between keeps the hash.
            records.append(&record).unwrap();
            fs::write(&copy, "as it was made").unwrap();
            if !output.is_empty() {
                drop(records);
                records = open(output);
            }
            let asked = ask(&mut records, Policy::default());
            assert_eq!(asked, Decision::Caption, "{output}");
        }
    }
}
