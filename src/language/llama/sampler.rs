//! Sampling of the next token.

use std::borrow::Cow;

use llama_cpp_2::{
    sampling::LlamaSampler,
    token::{LlamaToken, data::LlamaTokenData, data_array::LlamaTokenDataArray},
};

use super::Constraint;

/// How the next token is sampled. The defaults are greedy. The original's `chat()` samples with temperature 1, top-p
/// 0.8, top-k 50 and repetition penalty 1.005; its published scores use greedy decoding or beam search.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SamplerOptions {
    /// The divisor of the logits before sampling; zero takes the likeliest token.
    pub temperature: f32,
    /// Samples from this many likeliest tokens; zero for all.
    pub top_k: usize,
    /// Samples from the likeliest tokens with at least this cumulative probability.
    pub top_p: f32,
    /// Divides positive and multiplies negative logits of tokens seen before.
    pub repeat_penalty: f32,
    /// Seed of the random numbers.
    pub seed: u32,
}

impl Default for SamplerOptions {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 50,
            top_p: 0.8,
            repeat_penalty: 1.0,
            seed: 0,
        }
    }
}

/// A sampler with the state of its repetition penalty and grammar.
///
/// The order is that of the original (Hugging Face's logits processors): repetition penalty, temperature, top-k,
/// top-p. A grammar is applied before temperature.
#[derive(Debug)]
pub struct Sampler {
    /// Ids that are never chosen.
    excluded: Vec<i32>,
    penalties: Option<LlamaSampler>,
    constraint: Option<Constraint>,
    distribution: Option<LlamaSampler>,
}

impl Sampler {
    /// A sampler for `n_vocab` tokens and at most `n_ctx` positions.
    pub fn new(options: SamplerOptions, n_vocab: usize, n_ctx: usize) -> Self {
        super::backend();
        let SamplerOptions {
            temperature,
            top_k,
            top_p,
            repeat_penalty,
            seed,
        } = options;
        #[allow(clippy::float_cmp)] // exactly 1.0 means no penalty
        let penalties = (repeat_penalty != 1.0).then(|| {
            LlamaSampler::penalties(n_vocab as i32, n_ctx as i32, repeat_penalty, 0.0, 0.0)
        });
        let distribution = (temperature > 0.0).then(|| {
            let mut chain = vec![LlamaSampler::temp(temperature)];
            if top_k > 0 {
                chain.push(LlamaSampler::top_k(top_k as i32));
            }
            if top_p < 1.0 {
                chain.push(LlamaSampler::top_p(top_p, 1));
            }
            chain.push(LlamaSampler::dist(seed));
            LlamaSampler::chain(chain, true)
        });
        Self {
            excluded: Vec::new(),
            penalties,
            constraint: None,
            distribution,
        }
    }

    /// Excludes `ids`, whatever their logits.
    #[must_use]
    pub fn without(mut self, ids: &[i32]) -> Self {
        self.excluded = ids.to_vec();
        self
    }

    /// Constrains the tokens to a grammar.
    #[must_use]
    pub fn with_constraint(mut self, constraint: Option<Constraint>) -> Self {
        self.constraint = constraint;
        self
    }

    /// Adds a token of the prompt to those that the repetition penalty counts.
    pub fn count(&mut self, id: i32) {
        if let Some(penalties) = &mut self.penalties {
            penalties.accept(LlamaToken(id));
        }
    }

    /// Adds the answer's next token: to the repetition penalty and to the grammar's state.
    pub fn accept(&mut self, id: i32) {
        self.count(id);
        if let Some(constraint) = &mut self.constraint {
            constraint.accept(id);
        }
    }

    /// Samples a token from `logits`, `[n_vocab]`. Among equal logits the lowest id wins.
    pub fn sample(&mut self, logits: &[f32]) -> i32 {
        let logits = &*masked(logits, &self.excluded);
        let best = argmax(logits);
        let may_follow = |id| self.constraint.as_ref().is_none_or(|c| c.allows(id));
        if self.penalties.is_none() && self.distribution.is_none() && may_follow(best) {
            return best; // no need to check the whole vocabulary against the grammar
        }
        let data = logits
            .iter()
            .zip(0..)
            .map(|(l, id)| LlamaTokenData::new(LlamaToken(id), *l, 0.0));
        let mut candidates = LlamaTokenDataArray::from_iter(data, false);
        if let Some(penalties) = &mut self.penalties {
            penalties.apply(&mut candidates);
        }
        if let Some(constraint) = &self.constraint {
            let mut logits: Vec<f32> = candidates.data.iter().map(LlamaTokenData::logit).collect();
            constraint.mask(&mut logits);
            for (entry, logit) in candidates.data.iter_mut().zip(logits) {
                entry.set_logit(logit);
            }
        }
        match &mut self.distribution {
            Some(distribution) => {
                distribution.apply(&mut candidates);
                candidates
                    .selected_token()
                    .expect("the chain ends with a distribution")
                    .0
            }
            None => {
                let penalized: Vec<f32> =
                    candidates.data.iter().map(LlamaTokenData::logit).collect();
                argmax(&penalized)
            }
        }
    }
}

/// `logits` with those of the `excluded` ids set to minus infinity.
pub fn masked<'a>(logits: &'a [f32], excluded: &[i32]) -> Cow<'a, [f32]> {
    let mut logits = Cow::Borrowed(logits);
    for id in excluded {
        logits.to_mut()[*id as usize] = f32::NEG_INFINITY;
    }
    logits
}

/// The index of the largest value; the first of several equal ones.
pub fn argmax(values: &[f32]) -> i32 {
    let mut best = 0;
    for (i, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = i;
        }
    }
    best as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(temperature: f32, repeat_penalty: f32) -> SamplerOptions {
        SamplerOptions {
            temperature,
            repeat_penalty,
            ..SamplerOptions::default()
        }
    }

    #[test]
    fn greedy_sampling_takes_the_first_of_the_largest() {
        let mut sampler = Sampler::new(options(0.0, 1.0), 4, 16);
        assert_eq!(sampler.sample(&[0.0, 3.0, 3.0, -1.0]), 1);
    }

    #[test]
    fn excluded_ids_are_never_chosen_greedily_drawn_or_penalized() {
        let logits = [1.0, 9.0, 2.0, 8.0];
        for (temperature, penalty) in [(0.0, 1.0), (0.0, 1.5), (1.5, 1.0), (1.5, 1.5)] {
            let mut sampler = Sampler::new(options(temperature, penalty), 4, 64).without(&[1, 3]);
            for _ in 0..64 {
                let id = sampler.sample(&logits);
                assert!([0, 2].contains(&id), "{id} at temperature {temperature}");
                sampler.accept(id);
            }
        }
    }

    #[test]
    fn the_penalty_divides_positive_and_multiplies_negative_logits() {
        let mut sampler = Sampler::new(options(0.0, 2.0), 3, 16);
        assert_eq!(sampler.sample(&[4.0, 3.0, 1.0]), 0);
        sampler.accept(0);
        assert_eq!(sampler.sample(&[4.0, 3.0, 1.0]), 1); // 4 / 2 < 3
        assert_eq!(sampler.sample(&[-1.0, -1.5, -9.0]), 1); // -1 * 2 < -1.5
    }

    #[test]
    fn a_seed_repeats_its_samples_and_top_p_cuts_the_tail() {
        let samples = |seed| {
            let mut sampler = Sampler::new(
                SamplerOptions {
                    seed,
                    ..options(1.0, 1.0)
                },
                4,
                16,
            );
            (0..64)
                .map(|_| sampler.sample(&[1.0, 1.1, 0.9, -9.0]))
                .collect::<Vec<_>>()
        };
        assert_eq!(samples(7), samples(7));
        assert_ne!(samples(7), samples(8));
        assert!(samples(7).iter().all(|id| *id != 3));
    }
}
