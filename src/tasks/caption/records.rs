//! Where records go, and what they say about a picture that is to be captioned.

use std::{
    collections::HashMap,
    fmt,
    io::{self, Write},
    path::PathBuf,
};

use super::{
    Format, Found, Identity, Journal, JournalError, Kept, Record, Sidecars, Standing, path_text,
};

/// Where records go.
#[derive(Debug)]
pub enum Records {
    /// To a file, which the next run goes on with.
    Journal(Box<Journal>),
    /// To whoever reads them; what is done is known for as long as the process lives.
    Stream(Stream),
}

/// Records for a reader, or for nobody.
pub struct Stream {
    output: Option<Box<dyn Write>>,
    format: Format,
    known: HashMap<String, Known>,
}

/// What a record said that a reader has by now.
struct Known {
    identity: Identity,
    standing: Standing,
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

/// A record that went nowhere.
#[derive(Debug, thiserror::Error)]
pub enum RecordsError {
    /// The file.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The reader.
    #[error("records cannot be written to stdout")]
    Stream(#[from] io::Error),
}

/// What is to be done about a picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The model has to look at it.
    Caption,
    /// It has a caption, of which the sidecars are to be made.
    Sidecars(String),
    /// Nothing: it has its caption.
    Done,
    /// Nothing: it failed before, and has not changed.
    FailedBefore,
    /// Nothing: what would be its sidecar is there, and no record says that we made it.
    Occupied,
    /// Nothing: it has changed since it was captioned, and so has this sidecar, by somebody else.
    Edited(PathBuf),
}

/// What the user said about pictures that were seen before.
#[derive(Clone, Copy, Debug, Default)]
pub struct Policy {
    /// Try those again that failed.
    pub retry_failed: bool,
    /// Replace sidecars that we did not make.
    pub overwrite: bool,
}

impl Records {
    /// Records that are written to `output`, if there is one.
    ///
    /// # Errors
    /// If it does not take the header.
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

    /// What is to be done about a picture.
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
        let standing = self.standing(&path, Identity::of(&found.path).unwrap_or_default());
        let mut targets = sidecars.targets(found);
        let is_due = match standing {
            Standing::New | Standing::Changed => true,
            Standing::Failed => policy.retry_failed,
            Standing::Captioned => false,
        };
        if is_due && !policy.overwrite {
            match self.in_the_way(found, standing, sidecars)? {
                Some(path) if standing == Standing::Changed => return Ok(Decision::Edited(path)),
                Some(_) => return Ok(Decision::Occupied),
                None => {}
            }
        }
        Ok(match standing {
            Standing::Captioned if targets.all(|target| target.exists()) => Decision::Done,
            Standing::Captioned => match self.caption(&path)? {
                Some(caption) => Decision::Sidecars(caption),
                None => Decision::Done,
            },
            Standing::Failed if !policy.retry_failed => Decision::FailedBefore,
            _ => Decision::Caption,
        })
    }

    /// A sidecar that is there and is a person's: no record says that we made it, or it is another one than
    /// its record says.
    fn in_the_way(
        &self,
        found: &Found,
        standing: Standing,
        sidecars: &Sidecars,
    ) -> Result<Option<PathBuf>, RecordsError> {
        let there = sidecars.targets(found).find(|target| target.exists());
        if there.is_none() || standing == Standing::New {
            return Ok(there);
        }
        let path = path_text(&found.path);
        let caption = self.caption(&path)?.filter(|caption| !caption.is_empty());
        let hash = self.copy_hash(&path)?;
        Ok(sidecars.edited(found, caption.as_deref(), hash.as_deref()))
    }

    fn standing(&self, path: &str, identity: Identity) -> Standing {
        match self {
            Self::Journal(journal) => journal.standing(path, identity),
            Self::Stream(stream) => match stream.known.get(path) {
                None => Standing::New,
                Some(known) if known.identity != identity => Standing::Changed,
                Some(known) => known.standing,
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

    /// What was taken out of the file of records since this was last asked.
    pub fn take_kept(&mut self) -> Kept {
        match self {
            Self::Journal(journal) => journal.take_kept(),
            Self::Stream(_) => Kept::default(),
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
                    output.flush()?; // for a reader that waits for it
                }
                let standing = match record.error {
                    Some(_) => Standing::Failed,
                    None => Standing::Captioned,
                };
                let earlier = stream.known.get(&record.path);
                let copy_hash = record.copy_blake3.clone();
                let known = Known {
                    identity: record.identity(),
                    standing,
                    caption: record.caption.clone(),
                    copy_hash: copy_hash.or_else(|| earlier?.copy_hash.clone()),
                };
                stream.known.insert(record.path.clone(), known);
            }
        }
        Ok(())
    }

    /// Notes in the record of a captioned picture that its sidecars failed, or that they are there now.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn set_error(&mut self, path: &str, error: Option<&str>) -> Result<(), RecordsError> {
        match self {
            Self::Journal(journal) => Ok(journal.set_error(path, error)?),
            Self::Stream(_) => Ok(()), // what was read cannot be taken back
        }
    }

    /// Notes in the record of a captioned picture the BLAKE3 of the copy that is about to be made.
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

    /// Drops records to which later ones belong, if the file can be written anew.
    ///
    /// # Errors
    /// If somebody else changed the file, and it cannot be read.
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
    fn what_is_to_be_done_follows_from_record_and_sidecars() {
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

        // Somebody else's text is neither replaced nor made again, unless that is asked for.
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
    fn a_copy_is_replaced_as_it_was_made_and_never_edited() {
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
                "no word of it"
            );
            let hash = blake3::hash(b"as it was made").to_hex().to_string();
            records.set_copy_hash(&record.path, &hash).unwrap();
            assert_eq!(ask(&mut records, Policy::default()), Decision::Caption);
            fs::write(&copy, "as a person edited it").unwrap();
            assert_eq!(ask(&mut records, Policy::default()), edited);
            assert_eq!(ask(&mut records, overwrite), Decision::Caption);
            // A run without copies in between does not forget what was made.
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
