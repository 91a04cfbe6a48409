//! A caption run: takes pictures, writes captions and failures to records and sidecar files.

use std::{cell::RefCell, collections::HashSet, path::PathBuf};

use jiff::Timestamp;
use xc2_edge::{
    engine::{Answer, EngineError},
    system::atomic_file::Leftovers,
    tasks::caption::{
        Captioner, Claims, Decision, Found, Gate, Identity, Job, Next, Opened, Policy, Prepared,
        Record, Records, Settings, SidecarError, Sidecars, Template, path_text,
    },
    vision::image::ImageError,
};

use super::CaptionArgs;
use crate::cli::{in_one_line, tally::Tally};

/// A picture to caption.
pub enum Item {
    File(Found),
    /// A file that arrived in a watched folder; it may have been removed since.
    Arrival(Found),
    /// The bytes of a JPEG.
    Frame(Vec<u8>),
}

/// The part of a record that does not come from the answer.
struct Subject {
    path: String,
    /// The file, if it is one.
    found: Option<Found>,
    identity: Identity,
    width: u32,
    height: u32,
    background: Option<String>,
    truncated: Option<bool>,
}

/// Outputs and state of a run.
pub struct Work {
    settings: Settings,
    template: Option<Template>,
    records: Records,
    sidecars: Sidecars,
    /// Temporary files of sidecars, left by a killed run.
    leftovers: Leftovers,
    policy: Policy,
    gate: Option<Gate>,
    /// Which picture owns which sidecar files, for pictures that arrive one by one.
    claims: Claims,
    /// Pictures that were refused, to report each only once.
    refused: HashSet<PathBuf>,
    /// Files that are being captioned.
    running: HashSet<PathBuf>,
    /// Files that arrived again meanwhile; decided once their caption is done.
    deferred: Vec<Found>,
    pub tally: Tally,
}

impl Work {
    pub fn new(args: &CaptionArgs) -> anyhow::Result<Self> {
        let records = args.records()?;
        Ok(Self {
            settings: args.settings(),
            template: args.template.clone(),
            records,
            sidecars: args.sidecars(),
            leftovers: Leftovers::default(),
            policy: args.policy(),
            gate: args.min_change.map(Gate::new),
            claims: Claims::default(),
            refused: HashSet::new(),
            running: HashSet::new(),
            deferred: Vec::new(),
            tally: Tally::new(args.quiet),
        })
    }

    /// Captions the pictures of `source`.
    ///
    /// # Errors
    /// If the whole run cannot continue.
    pub fn run(
        self,
        captioner: &Captioner<'_>,
        mut source: impl FnMut(bool) -> Next<Item>,
    ) -> anyhow::Result<Self> {
        let work = RefCell::new(self);
        let mut fault = None;
        let jobs = |idle| loop {
            let deferred = work.borrow_mut().take_deferred();
            let item = match deferred.map_or_else(|| source(idle), Next::Item) {
                Next::Item(item) => item,
                Next::End if !work.borrow().deferred.is_empty() => return Next::NotYet,
                Next::NotYet => return Next::NotYet,
                Next::End => return Next::End,
            };
            match work.borrow_mut().open(captioner, item) {
                Ok(Some(job)) => return Next::Item(job),
                Ok(None) => {}
                Err(error) => {
                    fault = Some(error);
                    return Next::End;
                }
            }
        };
        captioner.run(jobs, |subject, answer| {
            work.borrow_mut().take(subject, answer)
        })?;
        fault.map_or(Ok(work.into_inner()), Err)
    }

    /// Prints the summary; returns the number of failed pictures.
    ///
    /// # Errors
    /// If outdated records cannot be removed.
    pub fn finish(mut self, args: &CaptionArgs) -> anyhow::Result<usize> {
        self.tally.finish();
        self.records.tidy()?;
        args.report_kept(&mut self.records);
        Ok(self.tally.counts().failed)
    }

    /// A deferred file that is no longer being captioned.
    fn take_deferred(&mut self) -> Option<Item> {
        let is_free = |found: &Found| !self.running.contains(&found.path);
        let at = self.deferred.iter().position(is_free)?;
        Some(Item::File(self.deferred.swap_remove(at)))
    }

    /// Opens a picture if it needs a caption.
    fn open(
        &mut self,
        captioner: &Captioner<'_>,
        item: Item,
    ) -> anyhow::Result<Option<Job<Subject>>> {
        match item {
            Item::Arrival(found) if !found.path.exists() => Ok(None),
            Item::Arrival(found) => match self.claims.claim(&self.sidecars, &found) {
                Ok(()) => self.open(captioner, Item::File(found)),
                Err(error) => {
                    self.refused(&found, error);
                    Ok(None)
                }
            },
            Item::File(found) => {
                if self.running.contains(&found.path) {
                    self.deferred.push(found);
                    return Ok(None);
                }
                if self.plan(&found)? != Decision::Caption {
                    return Ok(None);
                }
                if let Err(error) = self.sidecars.check_name(&found) {
                    let identity = Identity::of(&found.path).unwrap_or_default();
                    self.fail(path_text(&found.path), identity, in_one_line(error))?;
                    return Ok(None);
                }
                let (identity, opened) = captioner.open(&found.path);
                self.pass(path_text(&found.path), Some(found), identity, opened)
            }
            Item::Frame(bytes) => {
                let identity = Identity {
                    size: bytes.len() as u64,
                    modified: None,
                };
                let name = format!("frame@{:.6}", Timestamp::now());
                self.pass(name, None, identity, captioner.decode(&bytes))
            }
        }
    }

    /// Reports a picture whose sidecars belong to another picture. It gets no record, so the next run
    /// checks it again.
    pub fn refused(&mut self, found: &Found, error: SidecarError) {
        if self.refused.insert(found.path.clone()) {
            let path = found.path.to_string_lossy();
            self.tally.failed(&path, &in_one_line(error));
        }
    }

    /// Decides what to do about a picture, and does what needs no model. Removes temporary files that an
    /// earlier run left.
    ///
    /// # Errors
    /// If records cannot be read.
    pub fn plan(&mut self, found: &Found) -> anyhow::Result<Decision> {
        for target in self.sidecars.targets(found) {
            self.leftovers.clear(&target);
        }
        let decision = self.records.decide(found, &self.sidecars, self.policy)?;
        match &decision {
            Decision::Caption => {}
            Decision::Sidecars(caption) => {
                self.tally.skipped();
                let prepared = self.sidecars.prepare(found, caption, true);
                if let Some(hash) = prepared.copy_hash() {
                    self.records.set_copy_hash(&path_text(&found.path), &hash)?;
                }
                self.write_sidecars(found, prepared, true)?;
            }
            Decision::Edited(sidecar) => {
                self.tally.skipped();
                let why = format!(
                    "has changed, but {} was edited since it was made; both are kept, --overwrite captions \
                     the picture and replaces the file",
                    sidecar.display()
                );
                self.tally.warn(&found.path.to_string_lossy(), &why);
            }
            Decision::Done | Decision::FailedBefore | Decision::Occupied => self.tally.skipped(),
        }
        Ok(decision)
    }

    fn pass(
        &mut self,
        path: String,
        found: Option<Found>,
        identity: Identity,
        opened: Result<Opened, EngineError>,
    ) -> anyhow::Result<Option<Job<Subject>>> {
        let opened = match opened {
            Ok(opened) => opened,
            Err(error) => {
                self.fail(path, identity, why(error))?;
                return Ok(None);
            }
        };
        if self
            .gate
            .as_mut()
            .is_some_and(|gate| !gate.passes(opened.picture.pixels()))
        {
            self.tally.skipped();
            return Ok(None);
        }
        self.running.extend(found.as_ref().map(|f| f.path.clone()));
        Ok(Some(Job {
            tag: Subject {
                path,
                found,
                identity,
                width: opened.width,
                height: opened.height,
                background: opened.background(),
                truncated: opened.truncated(),
            },
            picture: opened.picture,
            prompt: None,
        }))
    }

    fn take(
        &mut self,
        subject: Subject,
        answer: Result<Answer, EngineError>,
    ) -> anyhow::Result<()> {
        if let Some(found) = &subject.found {
            self.running.remove(&found.path);
        }
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => return self.fail(subject.path, subject.identity, in_one_line(error)),
        };
        let caption = worded(&answer.text, self.template.as_ref());
        let prepare = |found: &Found| self.sidecars.prepare(found, &caption, false);
        let prepared = subject.found.as_ref().map(prepare);
        self.records.append(&Record {
            caption: Some(caption),
            copy_blake3: prepared.as_ref().and_then(Prepared::copy_hash),
            width: Some(subject.width),
            height: Some(subject.height),
            background: subject.background,
            truncated: subject.truncated,
            seconds: Some(seconds(&answer)),
            tokens: Some(answer.ids.len()),
            stop: Some(answer.stop),
            ..self.record(subject.path, subject.identity)
        })?;
        self.tally.captioned();
        if let Some((found, prepared)) = subject.found.as_ref().zip(prepared) {
            self.write_sidecars(found, prepared, false)?;
        }
        Ok(())
    }

    fn fail(&mut self, path: String, identity: Identity, error: String) -> anyhow::Result<()> {
        self.tally.failed(&path, &error);
        self.records.append(&Record {
            error: Some(error),
            ..self.record(path, identity)
        })?;
        Ok(())
    }

    fn record(&self, path: String, identity: Identity) -> Record {
        Record {
            path,
            size: identity.size,
            modified: identity.modified,
            model: self.settings.model.clone(),
            prompt: self.settings.prompt.clone(),
            template: self.settings.template.clone(),
            time: Timestamp::now(),
            ..Record::default()
        }
    }

    /// Writes the sidecar files. The record exists already: on failure, it gets an error, and the next run
    /// retries. If the picture `was_captioned` before this run, an old error is removed.
    fn write_sidecars(
        &mut self,
        found: &Found,
        prepared: Prepared,
        was_captioned: bool,
    ) -> anyhow::Result<()> {
        let path = path_text(&found.path);
        let error = prepared.write().err().map(in_one_line);
        if let Some(error) = &error {
            self.tally.failed(&path, error);
        }
        if error.is_some() || was_captioned {
            self.records.set_error(&path, error.as_deref())?;
        }
        Ok(())
    }
}

/// The model's answer, in its template.
pub fn worded(text: &str, template: Option<&Template>) -> String {
    let text = text.trim();
    template.map_or_else(|| text.to_owned(), |template| template.apply(text))
}

/// Seconds of computing an answer, rounded to milliseconds.
pub fn seconds(answer: &Answer) -> f64 {
    let t = &answer.timings;
    ((t.encode + t.prefill + t.decode) * 1e3).round() / 1e3
}

/// What is wrong with a picture, without its path.
pub fn why(error: EngineError) -> String {
    match error {
        EngineError::Image(ImageError::File { source, .. }) => in_one_line(*source),
        error => in_one_line(error),
    }
}
