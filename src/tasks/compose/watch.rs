//! Progress callbacks of a composition.

use std::ops::ControlFlow;

use super::{
    composition::{Stage, StageRecord},
    repetition::Repetition,
};
use crate::engine::Observer;

/// Progress callbacks of a composition.
pub trait Watch {
    /// A stage begins; `section` is the one concerned.
    fn begin(&mut self, _stage: Stage, _section: Option<usize>) {}
    /// The stage has done `done` of `total` units of `work` (`encode`, `prefill`).
    fn progress(&mut self, _work: &'static str, _done: usize, _total: usize) {}
    /// More text of the article. `Break` stops the composition.
    fn article(&mut self, _text: &str) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
    /// The stage has ended with a decision.
    fn end(&mut self, _record: &StageRecord) {}
    /// Something deviated from the normal course.
    fn note(&mut self, _note: &str) {}
}

/// Ignores everything.
impl Watch for () {}

/// Observes one answer: forwards it, and stops it if it loops.
pub(super) struct Listener<'a> {
    pub watch: &'a mut dyn Watch,
    /// Whether the answer is the article.
    pub is_article: bool,
    pub repetition: Repetition,
    /// Number of bytes to keep of an answer that loops.
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
