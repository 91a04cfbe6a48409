//! Beam search: several answers are decoded in parallel, and the one with the highest log-probability per token wins.
//!
//! The KV cache holds a common prefix of beams once, above all the prompt and its pictures: sequences share its cells,
//! and reordering beams moves nothing. The rules are Hugging Face's, which the published scores were made with; see
//! [`Search`].

mod hypotheses;
mod search;

use search::Search;

use super::{EngineError, Observer, Request, StopReason, generation::Generation};
use crate::language::{
    decoder::{Decoder, Next},
    llama::SamplerOptions,
    prompt::Sequence,
};

/// The maximum number of beams: llama.cpp is limited to 256 sequences.
pub const MAX_BEAMS: usize = 64;

/// The sequence that holds the prompt.
const TRUNK: usize = 0;

/// The number of sequences for `n_beams`. Without a search: one for the prompt and one for copying states to the cache
/// on disk. With a search: one for the prompt and two per beam, because beams are reordered; a state is copied after
/// the search, in one of these.
pub(super) fn n_seq(n_beams: usize) -> usize {
    1 + if n_beams > 1 { 2 * n_beams } else { 1 }
}

/// The number of positions that count as part of every answer. Without pictures the original generates from the
/// prompt's ids and counts them; with pictures it generates from embeddings, and transformers substitutes a single
/// `<s>` for the ids.
fn n_before(sequence: &Sequence) -> usize {
    match sequence.n_image_tokens() {
        0 => sequence.len(),
        _ => 1,
    }
}

impl Request {
    /// Checks that the request has no options that beam search does not support.
    ///
    /// # Errors
    /// [`EngineError::Beams`] with the unsupported option.
    pub fn check_beams(&self) -> Result<(), EngineError> {
        let SamplerOptions {
            temperature,
            repeat_penalty,
            ..
        } = self.sampling;
        #[allow(clippy::float_cmp)] // exactly 1.0 means no penalty
        let found = match self.beams {
            1 => return Ok(()),
            0 => "0 beams".to_owned(),
            n if n > MAX_BEAMS => format!("{n} beams"),
            _ if temperature > 0.0 => format!("temperature {temperature}"),
            _ if repeat_penalty != 1.0 => format!("repetition penalty {repeat_penalty}"),
            _ if self.grammar.is_some() => "a grammar".to_owned(),
            _ => return Ok(()),
        };
        Err(EngineError::Beams { found })
    }
}

impl Generation<'_> {
    /// Searches for the answer to a prompt that sequence 0 has computed, with the `logits` of its last position.
    /// Returns why it ended and how many batches were decoded. If the observer interrupts, the best answer so far is
    /// taken.
    pub(super) fn search(
        &mut self,
        decoder: &mut Decoder,
        request: &Request,
        sequence: &Sequence,
        logits: &[f32],
        observer: &mut dyn Observer,
    ) -> Result<(StopReason, usize), EngineError> {
        let prompt = &self.engine.container().info().prompt;
        let stops = [prompt.eos, prompt.turn_end];
        let search = Search::new(request.beams, stops, n_before(sequence));
        let mut search = search.without(self.engine.tokenizer.unused());
        let n_max = request.n_predict.min(self.n_ctx - sequence.len() + 1);
        let mut cut = match n_max < request.n_predict {
            true => StopReason::Context,
            false => StopReason::Length,
        };
        let mut sequences = BeamSequences::new(request.beams, request.plora.generated());
        let mut rows = vec![logits.to_vec()];
        let mut n_decode = 0;
        for n in 1..=n_max {
            search.advance(&rows)?;
            observer.progress("search", n, n_max);
            if search.is_done() || n == n_max {
                break;
            }
            if observer.is_interrupted() {
                cut = StopReason::Interrupted;
                break;
            }
            rows = sequences.decode(decoder, &mut search)?;
            n_decode += 1;
        }
        sequences.clear(decoder);
        let best = search.best();
        self.set_answer(best.ids, observer);
        let stop = if best.ended { StopReason::Stop } else { cut };
        Ok((stop, n_decode))
    }
}

/// The sequences of the beams, in two banks: one has the present beams, the other is free for the next ones.
struct BeamSequences {
    n_beams: usize,
    plora: bool,
    /// The sequence of each beam; at first the prompt's.
    current: Vec<usize>,
    /// Whether the next beams use the second bank.
    is_second: bool,
}

impl BeamSequences {
    fn new(n_beams: usize, plora: bool) -> Self {
        Self {
            n_beams,
            plora,
            current: vec![TRUNK],
            is_second: false,
        }
    }

    /// Sequence `i` of a bank.
    fn seq(&self, is_second: bool, i: usize) -> usize {
        1 + i + if is_second { self.n_beams } else { 0 }
    }

    /// Gives every beam a sequence of its own and decodes its last token. Returns the logits after each.
    fn decode(
        &mut self,
        decoder: &mut Decoder,
        search: &mut Search,
    ) -> Result<Vec<Vec<f32>>, EngineError> {
        let mut nexts = Vec::new();
        for (i, beam) in search.beams().iter().enumerate() {
            let seq = self.seq(self.is_second, i);
            let parent = self.current[beam.parent];
            decoder.share(parent, seq, decoder.n_past(parent));
            let id = *beam.ids.last().expect("a beam has a token");
            nexts.push(Next { seq, id });
        }
        for i in 0..self.n_beams {
            decoder.truncate(self.seq(!self.is_second, i), 0); // frees cells that no beam shares
        }
        self.current = nexts.iter().map(|next| next.seq).collect();
        self.is_second = !self.is_second;
        decoder.step_all(&nexts, self.plora)?;
        let row = |i| decoder.logits_of(i).to_vec();
        Ok((0..nexts.len()).map(row).collect())
    }

    /// Frees all cells but the prompt's.
    fn clear(self, decoder: &mut Decoder) {
        for seq in 1..n_seq(self.n_beams) {
            decoder.truncate(seq, 0);
        }
    }
}
