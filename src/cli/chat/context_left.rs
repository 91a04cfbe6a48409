//! How much of the context is left for a conversation, and what to do when it is full.

/// A context in use.
#[derive(Clone, Copy, Debug)]
pub struct ContextLeft {
    /// Positions of the conversation, including the next question.
    pub n_used: usize,
    /// Positions of the context.
    pub n_ctx: usize,
    /// The model's maximum context.
    pub max: usize,
    /// Positions that a picture takes.
    pub n_picture: usize,
}

/// An answer is likely to be cut off if fewer positions than this are left.
const SHORT_ANSWER: usize = 256;

impl ContextLeft {
    fn left(&self) -> usize {
        self.n_ctx.saturating_sub(self.n_used)
    }

    /// Checks before a question: a warning if little space is left for the answer.
    ///
    /// # Errors
    /// If the question does not fit; says what to do.
    pub fn before(&self) -> Result<Option<String>, String> {
        let (used, n_ctx) = (self.n_used, self.n_ctx);
        let remedies = self.remedies();
        match self.left() {
            0 => Err(format!(
                "the conversation would take {used} positions, the context has {n_ctx}: {remedies}"
            )),
            left if left < SHORT_ANSWER => Ok(Some(format!(
                "the context is nearly full: {left} of {n_ctx} positions are left for the answer; {remedies}"
            ))),
            _ => Ok(None),
        }
    }

    /// A warning after an answer, if the next question or picture may not fit.
    pub fn after(&self) -> Option<String> {
        let left = self.left();
        let remedies = self.remedies();
        if left < 2 * SHORT_ANSWER {
            Some(format!(
                "{left} positions of the context are left; {remedies}"
            ))
        } else if left < self.n_picture + SHORT_ANSWER {
            Some(format!(
                "{left} positions of the context are left, too few for another picture ({}); {remedies}",
                self.n_picture
            ))
        } else {
            None
        }
    }

    fn remedies(&self) -> String {
        let clear = "`/clear` starts over";
        if self.n_ctx < self.max {
            let max = self.max;
            format!("{clear}; `--ctx-size {max}` at the start gives more space")
        } else {
            clear.to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: ContextLeft = ContextLeft {
        n_used: 0,
        n_ctx: 2048,
        max: 4096,
        n_picture: 1225,
    };

    fn used(n_used: usize) -> ContextLeft {
        ContextLeft { n_used, ..EMPTY }
    }

    #[test]
    fn a_nearly_full_context_is_reported() {
        assert_eq!(used(1792).before(), Ok(None));
        let warning = used(1800).before().unwrap().unwrap();
        assert!(warning.contains("248 of 2048"), "{warning}");
        assert!(warning.contains("`/clear`") && warning.contains("`--ctx-size 4096`"));
        for n in [2048, 3000] {
            let error = used(n).before().unwrap_err();
            assert!(error.contains(&format!("take {n}")) && error.contains("has 2048"));
        }
    }

    #[test]
    fn after_an_answer_it_warns_of_what_may_not_fit_next() {
        assert_eq!(used(500).after(), None);
        assert!(
            used(600)
                .after()
                .unwrap()
                .contains("another picture (1225)")
        );
        let full = used(1700).after().unwrap();
        assert!(full.starts_with("348 positions"), "{full}");
        // A model whose context cannot grow is not offered a larger one.
        let whole = ContextLeft {
            max: 2048,
            ..used(1700)
        };
        assert!(!whole.after().unwrap().contains("--ctx-size"));
    }
}
