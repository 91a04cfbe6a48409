//! Makes prompts fit the context.

use super::{chat_model::ChatModel, prompts::RenderedPrompt};
use crate::engine::EngineError;

/// Minimum number of characters of an abridged section that still shows its topic.
const SHORTEST: usize = 12;

/// Whether the prompt and `reserve` more positions fit the context.
pub fn fits(
    model: &dyn ChatModel,
    ask: &RenderedPrompt,
    reserve: usize,
) -> Result<bool, EngineError> {
    Ok(model.n_prompt(ask)? + reserve <= model.n_ctx())
}

/// The prompt about `sections`. If it does not fit the context, each section is cut to the largest number of
/// characters that fits, which is the second value. `None` if even [`SHORTEST`] characters do not fit.
pub fn abridge(
    model: &dyn ChatModel,
    sections: &[String],
    reserve: usize,
    ask: impl Fn(&[String]) -> RenderedPrompt,
) -> Result<Option<(RenderedPrompt, Option<usize>)>, EngineError> {
    let whole = ask(sections);
    if fits(model, &whole, reserve)? {
        return Ok(Some((whole, None)));
    }
    let abridged = |most| {
        ask(&sections
            .iter()
            .map(|s| beginning(s, most))
            .collect::<Vec<_>>())
    };
    let longest = sections
        .iter()
        .map(|s| s.chars().count())
        .max()
        .unwrap_or(0);
    let most = largest(SHORTEST, longest, |most| {
        fits(model, &abridged(most), reserve)
    })?;
    Ok(most.map(|most| (abridged(most), Some(most))))
}

/// The first `most` characters, with `…` if there are more.
pub fn beginning(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The largest good number of `low..=high`, by binary search; `None` if `low` is not good. All numbers below a
/// good one must be good.
pub fn largest<E>(
    mut low: usize,
    mut high: usize,
    is_good: impl Fn(usize) -> Result<bool, E>,
) -> Result<Option<usize>, E> {
    if high < low || !is_good(low)? {
        return Ok(None);
    }
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if is_good(middle)? {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    Ok(Some(low))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_good_number_is_found() {
        for most in 0..40 {
            let found = largest(3, 30, |n| Ok::<_, ()>(n <= most)).unwrap();
            assert_eq!(found, (most >= 3).then_some(most.min(30)));
        }
    }

    #[test]
    fn beginnings_count_characters() {
        assert_eq!(beginning("图像对应", 2), "图像…");
        assert_eq!(beginning("图像", 2), "图像");
    }
}
