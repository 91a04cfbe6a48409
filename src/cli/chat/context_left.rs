//! How much of the context is left for a conversation, and what can be done when it ends.

/// A context in use.
#[derive(Clone, Copy, Debug)]
pub struct ContextLeft {
    /// Positions of the conversation, with what is asked next.
    pub n_used: usize,
    /// Positions of the context.
    pub n_ctx: usize,
    /// The most positions that the model was made for.
    pub max: usize,
    /// Positions that a picture takes.
    pub n_picture: usize,
}

/// An answer of fewer positions than this is likely to be cut.
const SHORT_ANSWER: usize = 256;

impl ContextLeft {
    fn left(&self) -> usize {
        self.n_ctx.saturating_sub(self.n_used)
    }

    /// What to say before a question is put: an error if it has no room, a warning if its answer has
    /// little.
    ///
    /// # Errors
    /// That there is no room, and what can be done.
    pub fn before(&self) -> Result<Option<String>, String> {
        let (used, n_ctx) = (self.n_used, self.n_ctx);
        let ways = self.ways();
        match self.left() {
            0 => Err(format!(
                "the conversation would take {used} positions, the context holds {n_ctx}: {ways}"
            )),
            left if left < SHORT_ANSWER => Ok(Some(format!(
                "the context is nearly full: {left} of {n_ctx} positions are left for the answer; {ways}"
            ))),
            _ => Ok(None),
        }
    }

    /// What to say after an answer, when the next question or picture may find no room.
    pub fn after(&self) -> Option<String> {
        let left = self.left();
        let ways = self.ways();
        if left < 2 * SHORT_ANSWER {
            Some(format!("{left} positions of the context are left; {ways}"))
        } else if left < self.n_picture + SHORT_ANSWER {
            Some(format!(
                "{left} positions of the context are left, too few for another picture ({}); {ways}",
                self.n_picture
            ))
        } else {
            None
        }
    }

    fn ways(&self) -> String {
        let clear = "`/clear` begins anew";
        if self.n_ctx < self.max {
            let max = self.max;
            format!("{clear}, and started with `--ctx-size {max}` there is more room")
        } else {
            clear.to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: ContextLeft = ContextLeft {
        n_used: 0,
        n_ctx: 2048,
        max: 4096,
        n_picture: 1225,
    };

    fn used(n_used: usize) -> ContextLeft {
        ContextLeft { n_used, ..ROOM }
    }

    #[test]
    fn the_end_is_told_before_it_comes() {
        assert_eq!(used(1792).before(), Ok(None));
        let warning = used(1800).before().unwrap().unwrap();
        assert!(warning.contains("248 of 2048"), "{warning}");
        assert!(warning.contains("`/clear`") && warning.contains("`--ctx-size 4096`"));
        for n in [2048, 3000] {
            let error = used(n).before().unwrap_err();
            assert!(error.contains(&format!("take {n}")) && error.contains("holds 2048"));
        }
    }

    #[test]
    fn what_may_not_fit_next_is_told_after_an_answer() {
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
