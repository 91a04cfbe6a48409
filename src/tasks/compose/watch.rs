//! What happens during a composition, for whoever shows it.

use std::ops::ControlFlow;

use super::{
    composition::{Stage, StageRecord},
    repetition::Repetition,
};
use crate::engine::Observer;

/// What happens during a composition, for whoever shows it.
pub trait Watch {
    /// A stage begins; `section` is the one that it is about.
    fn begin(&mut self, _stage: Stage, _section: Option<usize>) {}
    /// The stage's work (`encode`, `prefill`) stands at `done` of `total`.
    fn progress(&mut self, _work: &'static str, _done: usize, _total: usize) {}
    /// More of the article. `Break` ends everything.
    fn article(&mut self, _text: &str) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
    /// The stage is over and decided.
    fn end(&mut self, _record: &StageRecord) {}
    /// Something went another way than it should.
    fn note(&mut self, _note: &str) {}
}

/// Watches nothing.
impl Watch for () {}

/// Listens to one answer: passes it on, and stops it where it goes in circles.
pub(super) struct Listener<'a> {
    pub watch: &'a mut dyn Watch,
    /// Whether the text is the article's.
    pub is_article: bool,
    pub repetition: Repetition,
    /// Bytes to keep of an answer that went in circles.
    pub kept: Option<usize>,
}

impl Observer for Listener<'_> {
    fn progress(&mut self, stage: &'static str, done: usize, total: usize) {
        self.watch.progress(stage, done, total);
    }

    fn text(&mut self, text: &str) -> ControlFlow<()> {
        if self.is_article {
            self.watch.article(text)?;
        }
        self.kept = self.kept.or_else(|| self.repetition.push(text));
        match self.kept {
            Some(_) => ControlFlow::Break(()),
            None => ControlFlow::Continue(()),
        }
    }
}
