//! Pictures through the engine.

use crate::system;
use std::{
    cell::RefCell,
    collections::HashMap,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, TryRecvError},
};

use ::image::RgbImage;

use super::Identity;
use crate::{
    engine::{Answer, Engine, EngineError, Offer, Picture, Request, Requests},
    system::panics::caught,
    vision::image::{Decoded, ImageError},
};

/// A picture, decoded and made as small as the model sees it.
#[derive(Clone, Debug)]
pub struct Opened {
    /// `[S, S]` pixels.
    pub picture: RgbImage,
    /// Pixels of the original, upright.
    pub width: u32,
    /// Likewise.
    pub height: u32,
    /// Whether it has transparent parts that were put on white.
    pub on_white: bool,
    /// Whether its file ends early, so that parts of it are grey.
    pub is_short: bool,
}

impl Opened {
    /// What a record says of it: see [`Record::background`](super::Record::background).
    pub fn background(&self) -> Option<String> {
        self.on_white.then(|| "white".to_owned())
    }

    /// What a record says of it: see [`Record::truncated`](super::Record::truncated).
    pub fn truncated(&self) -> Option<bool> {
        self.is_short.then_some(true)
    }
}

/// A picture to be captioned, with what the caller knows it by.
#[derive(Clone, Debug)]
pub struct Job<T> {
    /// What the caller knows it by.
    pub tag: T,
    /// The picture.
    pub picture: RgbImage,
    /// A question of its own, instead of the common one.
    pub prompt: Option<String>,
}

/// What a source says when it is asked for more. It is told whether nothing else is to be done: then
/// it may wait, else it should rather say [`Next::NotYet`].
#[derive(Clone, Debug)]
pub enum Next<T> {
    /// Here it is.
    Item(T),
    /// There may be more later.
    NotYet,
    /// That was all.
    End,
}

impl<T> Next<T> {
    /// The next thing that comes over a channel.
    pub fn received(from: &Receiver<T>, idle: bool) -> Self {
        match from.try_recv() {
            Ok(item) => Self::Item(item),
            Err(TryRecvError::Disconnected) => Self::End,
            Err(TryRecvError::Empty) if idle => from.recv().map_or(Self::End, Self::Item),
            Err(TryRecvError::Empty) => Self::NotYet,
        }
    }
}

/// Asks one question about many pictures.
pub struct Captioner<'a> {
    engine: &'a Engine,
    /// Without pictures.
    request: Request,
    n_parallel: usize,
}

impl<'a> Captioner<'a> {
    /// One that asks `request` about each picture, `n_parallel` of them at a time; at most as many
    /// as cores and memory make worth while if that is `None`.
    ///
    /// # Errors
    /// If nothing is asked.
    pub fn new(
        engine: &'a Engine,
        request: Request,
        n_parallel: Option<usize>,
    ) -> Result<Self, EngineError> {
        let mut with_picture = request.clone();
        with_picture.images = vec![Picture::File(PathBuf::new())]; // it is not opened
        let n_prompt = engine.prompt_size(&with_picture)?.n_prompt;
        let n_ctx = n_prompt + request.n_predict;
        let choose = || engine.choose_parallel(n_ctx, system::memory::available());
        Ok(Self {
            engine,
            request,
            n_parallel: n_parallel.unwrap_or_else(choose),
        })
    }

    /// The same for no more than `n` pictures at a time.
    #[must_use]
    pub fn at_most(self, n: usize) -> Self {
        Self {
            n_parallel: self.n_parallel.min(n.max(1)),
            ..self
        }
    }

    /// How many pictures are captioned at a time.
    pub fn n_parallel(&self) -> usize {
        self.n_parallel
    }

    /// Reads a picture file. What it was is told in any case, as far as there was anything.
    ///
    /// # Errors
    /// If there is no picture.
    pub fn open(&self, path: &Path) -> (Identity, Result<Opened, ImageError>) {
        // Before it is read: should it change while it is, it counts as changed the next time.
        let identity = Identity::of(path).unwrap_or_default();
        let opened = self.opened(|| self.engine.open_picture(path));
        (identity, opened)
    }

    /// Decodes a picture from the bytes of its file.
    ///
    /// # Errors
    /// If they are no picture.
    pub fn decode(&self, file: &[u8]) -> Result<Opened, ImageError> {
        self.opened(|| self.engine.decode_picture(file))
    }

    /// One picture must not end the run, whatever it does to its reader.
    fn opened(
        &self,
        read: impl FnOnce() -> Result<Decoded, ImageError>,
    ) -> Result<Opened, ImageError> {
        caught(|| read().map(|decoded| self.shrink(&decoded)))?
    }

    /// At once: the original may be large.
    fn shrink(&self, decoded: &Decoded) -> Opened {
        let picture = &decoded.picture;
        Opened {
            picture: self.engine.preprocessor().resize(picture),
            width: picture.width(),
            height: picture.height(),
            on_white: decoded.on_white,
            is_short: decoded.is_short,
        }
    }

    /// Captions what `jobs` brings, and gives each answer, or why there is none, to `done`, in the
    /// order in which they are ready.
    ///
    /// # Errors
    /// If the fault is not with one picture, or as `done` says; the run is over then.
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
        let mut fault = None;
        self.engine
            .answer_many(self.n_parallel, requests, |number, answer| {
                let (tag, own_prompt) = running.borrow_mut().take(number);
                let result = match answer {
                    Err(error) if !is_of_one_picture(&error, own_prompt) => Err(error.into()),
                    answer => done(tag, answer),
                };
                match result {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(error) => {
                        fault = Some(error);
                        ControlFlow::Break(())
                    }
                }
            })?;
        fault.map_or(Ok(()), Err)
    }
}

/// The tags of jobs that are with the engine, by the numbers of their requests, and whether they
/// have a question of their own.
struct Running<T> {
    n_begun: usize,
    jobs: HashMap<usize, (T, bool)>,
}

impl<T> Default for Running<T> {
    fn default() -> Self {
        Self {
            n_begun: 0,
            jobs: HashMap::new(),
        }
    }
}

impl<T> Running<T> {
    fn put(&mut self, tag: T, own_prompt: bool) {
        self.jobs.insert(self.n_begun, (tag, own_prompt));
        self.n_begun += 1;
    }

    fn take(&mut self, number: usize) -> (T, bool) {
        self.jobs.remove(&number).expect("it was begun once")
    }
}

/// Jobs made requests.
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
        request.images = vec![Picture::Pixels(job.picture)];
        if let Some(prompt) = job.prompt {
            request.chat.query = prompt;
        }
        Offer::Request(Box::new(request))
    }
}

/// Whether other pictures may fare better than the one for which this was the answer.
fn is_of_one_picture(error: &EngineError, own_prompt: bool) -> bool {
    match error {
        EngineError::Image(_) | EngineError::NotFinite | EngineError::Panic(_) => true,
        EngineError::Prompt(_) | EngineError::PromptTooLong { .. } => own_prompt,
        _ => false,
    }
}
