//! Captions pictures with the engine.

use crate::system;
use std::{
    cell::RefCell,
    collections::HashMap,
    ops::ControlFlow,
    path::Path,
    sync::mpsc::{Receiver, TryRecvError},
};

use super::Identity;
use crate::{
    engine::{Answer, Engine, EngineError, Offer, Picture, PreparedPicture, Request, Requests},
    system::panics::catch,
    vision::image::{Decoded, ImageError},
};

/// A decoded picture, resized to the model's input.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The picture.
    pub picture: PreparedPicture,
    /// Width of the original in pixels, upright.
    pub width: u32,
    /// Height of the original in pixels, upright.
    pub height: u32,
    /// Whether transparent parts were blended on white.
    pub on_white: bool,
    /// Whether the file ends early, so that parts of the picture are grey.
    pub is_short: bool,
}

impl Opened {
    /// The value of [`Record::background`](super::Record::background).
    pub fn background(&self) -> Option<String> {
        self.on_white.then(|| "white".to_owned())
    }

    /// The value of [`Record::truncated`](super::Record::truncated).
    pub fn truncated(&self) -> Option<bool> {
        self.is_short.then_some(true)
    }
}

/// A picture to caption, with the caller's tag.
#[derive(Clone, Debug)]
pub struct Job<T> {
    /// Returned with the answer.
    pub tag: T,
    /// The picture.
    pub picture: PreparedPicture,
    /// A prompt that replaces the common one.
    pub prompt: Option<String>,
}

/// The reply of a source that is polled for its next item. The source learns whether the caller is idle: if so,
/// it may block; otherwise it should return [`Next::NotYet`].
#[derive(Clone, Debug)]
pub enum Next<T> {
    /// The next item.
    Item(T),
    /// None at present; there may be more later.
    NotYet,
    /// There are no more items.
    End,
}

impl<T> Next<T> {
    /// Receives from a channel; blocks only if `idle`.
    pub fn received(from: &Receiver<T>, idle: bool) -> Self {
        match from.try_recv() {
            Ok(item) => Self::Item(item),
            Err(TryRecvError::Disconnected) => Self::End,
            Err(TryRecvError::Empty) if idle => from.recv().map_or(Self::End, Self::Item),
            Err(TryRecvError::Empty) => Self::NotYet,
        }
    }
}

/// Asks one prompt about many pictures.
pub struct Captioner<'a> {
    engine: &'a Engine,
    /// Without pictures.
    request: Request,
    n_parallel: usize,
}

impl<'a> Captioner<'a> {
    /// Asks `request` about each picture, `n_parallel` at a time. If that is `None`, the number depends on cores
    /// and available memory.
    ///
    /// # Errors
    /// If the prompt is empty.
    pub fn new(
        engine: &'a Engine,
        request: Request,
        n_parallel: Option<usize>,
    ) -> Result<Self, EngineError> {
        let n_ctx = engine.n_prompt_at_most(&request, 1)? + request.n_predict;
        let choose = || engine.choose_parallel(n_ctx, system::memory::available());
        Ok(Self {
            engine,
            request,
            n_parallel: n_parallel.unwrap_or_else(choose),
        })
    }

    /// Limits the number of pictures at a time to `n`.
    #[must_use]
    pub fn at_most(self, n: usize) -> Self {
        Self {
            n_parallel: self.n_parallel.min(n.max(1)),
            ..self
        }
    }

    /// The number of pictures captioned at a time.
    pub fn n_parallel(&self) -> usize {
        self.n_parallel
    }

    /// Reads a picture file. Its identity is returned in any case; it is the default if there is no file.
    ///
    /// # Errors
    /// If the file cannot be read or decoded.
    pub fn open(&self, path: &Path) -> (Identity, Result<Opened, EngineError>) {
        // Before reading: if the file changes meanwhile, the next run sees the change.
        let identity = Identity::of(path).unwrap_or_default();
        let opened = self.opened(|| self.engine.open_picture(path));
        (identity, opened)
    }

    /// Decodes a picture from the bytes of its file.
    ///
    /// # Errors
    /// If they cannot be decoded.
    pub fn decode(&self, file: &[u8]) -> Result<Opened, EngineError> {
        self.opened(|| self.engine.decode_picture(file))
    }

    /// Catches panics of decoders: one picture must not end the run.
    fn opened(
        &self,
        read: impl FnOnce() -> Result<Decoded, ImageError>,
    ) -> Result<Opened, EngineError> {
        catch(|| self.shrink(&read()?))?
    }

    /// Resizes at once, because the original may be large.
    fn shrink(&self, decoded: &Decoded) -> Result<Opened, EngineError> {
        let picture = &decoded.picture;
        Ok(Opened {
            picture: self.engine.prepare_picture(picture, self.request.tiles)?,
            width: picture.width(),
            height: picture.height(),
            on_white: decoded.on_white,
            is_short: decoded.is_truncated,
        })
    }

    /// Captions the pictures of `jobs` and passes each answer or error to `done`, in the order of completion.
    ///
    /// # Errors
    /// If an error concerns more than one picture, or `done` fails; both end the run.
    pub fn run<T, E: From<EngineError>>(
        &self,
        jobs: impl FnMut(bool) -> Next<Job<T>>,
        mut done: impl FnMut(T, Result<Answer, EngineError>) -> Result<(), E>,
    ) -> Result<(), E> {
        let running = RefCell::new(Running::default());
        let requests = JobRequests {
            jobs,
            common: &self.request,
            running: &running,
        };
        let mut failure = None;
        self.engine
            .answer_many(self.n_parallel, requests, |number, answer| {
                let (tag, own_prompt) = running.borrow_mut().take(number);
                let result = match answer {
                    Err(error) if !concerns_one_picture(&error, own_prompt) => Err(error.into()),
                    answer => done(tag, answer),
                };
                match result {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(error) => {
                        failure = Some(error);
                        ControlFlow::Break(())
                    }
                }
            })?;
        failure.map_or(Ok(()), Err)
    }
}

/// The running jobs by request number: the tag, and whether the job has its own prompt.
struct Running<T> {
    n_started: usize,
    jobs: HashMap<usize, (T, bool)>,
}

impl<T> Default for Running<T> {
    fn default() -> Self {
        Self {
            n_started: 0,
            jobs: HashMap::new(),
        }
    }
}

impl<T> Running<T> {
    fn put(&mut self, tag: T, own_prompt: bool) {
        self.jobs.insert(self.n_started, (tag, own_prompt));
        self.n_started += 1;
    }

    fn take(&mut self, number: usize) -> (T, bool) {
        self.jobs
            .remove(&number)
            .expect("each started request ends once")
    }
}

/// Turns jobs into requests.
struct JobRequests<'r, F, T> {
    jobs: F,
    common: &'r Request,
    running: &'r RefCell<Running<T>>,
}

impl<T, F: FnMut(bool) -> Next<Job<T>>> Requests for JobRequests<'_, F, T> {
    fn next_request(&mut self, idle: bool) -> Offer {
        let job = match (self.jobs)(idle) {
            Next::Item(job) => job,
            Next::NotYet => return Offer::NotYet,
            Next::End => return Offer::End,
        };
        self.running.borrow_mut().put(job.tag, job.prompt.is_some());
        let mut request = self.common.clone();
        request.images = vec![Picture::Prepared(job.picture)];
        if let Some(prompt) = job.prompt {
            request.chat.query = prompt;
        }
        Offer::Request(Box::new(request))
    }
}

/// Whether an error concerns one picture only, so that the run can continue.
fn concerns_one_picture(error: &EngineError, own_prompt: bool) -> bool {
    match error {
        EngineError::Image(_) | EngineError::NotFinite | EngineError::Panic(_) => true,
        EngineError::Prompt(_) | EngineError::PromptTooLong { .. } => own_prompt,
        _ => false,
    }
}
