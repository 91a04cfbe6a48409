//! Where records go, and what they say about a picture that is to be captioned.

use std::{
    collections::HashMap,
    fmt,
    io::{self, Write},
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
    known: HashMap<String, (Identity, Standing)>,
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
        if is_due && !policy.overwrite && self.is_occupied(found, standing, sidecars)? {
            return Ok(Decision::Occupied);
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

    /// Whether a sidecar is there that is a person's: no record says that we made it, or the text has other
    /// words than its record.
    fn is_occupied(
        &self,
        found: &Found,
        standing: Standing,
        sidecars: &Sidecars,
    ) -> Result<bool, RecordsError> {
        let is_there = sidecars.targets(found).any(|target| target.exists());
        let Self::Journal(journal) = self else {
            return Ok(is_there && standing == Standing::New);
        };
        if !is_there || standing == Standing::New {
            return Ok(is_there);
        }
        let caption = journal.caption(&path_text(&found.path))?;
        let caption = caption.filter(|caption| !caption.is_empty());
        Ok(caption.is_none_or(|caption| sidecars.has_other_text(found, &caption)))
    }

    fn standing(&self, path: &str, identity: Identity) -> Standing {
        match self {
            Self::Journal(journal) => journal.standing(path, identity),
            Self::Stream(stream) => match stream.known.get(path) {
                None => Standing::New,
                Some((known, _)) if *known != identity => Standing::Changed,
                Some((_, standing)) => *standing,
            },
        }
    }

    fn caption(&self, path: &str) -> Result<Option<String>, RecordsError> {
        match self {
            Self::Journal(journal) => Ok(journal.caption(path)?),
            Self::Stream(_) => Ok(None), // it was made in this very run, and so were the sidecars
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
                let known = (record.identity(), standing);
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
            ("a black cat\n", Decision::Occupied),
        ] {
            fs::write(dir.path().join("a.txt"), text).unwrap();
            let asked = ask(&mut records, &txt, Policy::default());
            assert_eq!(asked, expected, "{text:?}");
            assert_eq!(ask(&mut records, &txt, overwrite), Decision::Caption);
        }
    }
}
