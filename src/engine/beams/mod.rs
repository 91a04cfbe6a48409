//! Beam search: several answers are followed side by side, and the likeliest for its length wins.
//!
//! What a beam has in common with others, the prompt and its pictures above all, lies in the KV cache
//! once: sequences share its cells, and when beams change places nothing is moved. The rules are
//! Hugging Face's, since the published scores were made with them; see [`Search`].

mod hypotheses;
mod search;

use search::Search;

use super::{EngineError, Observer, Request, StopReason, generation::Generation};
use crate::language::{
    decoder::{Decoder, Next},
    llama::SamplerOptions,
    prompt::Sequence,
};

/// The most beams: llama.cpp takes no more than 256 sequences.
pub const MAX_BEAMS: usize = 64;

/// The sequence that holds the prompt.
const TRUNK: usize = 0;

/// Sequences that a session with `n_beams` takes: the prompt's, one for passing states to the cache on
/// disk, and, because beams change places, two for each of several beams. A search is over when a state
/// is passed, so that takes one of these.
pub(super) fn n_seq(n_beams: usize) -> usize {
    1 + if n_beams > 1 { 2 * n_beams } else { 1 }
}

/// Positions that count as part of every answer. Without pictures the original generates from the
/// prompt's ids and counts those; with pictures it generates from embeddings, and transformers puts a
/// single `<s>` in the place of the ids.
fn n_before(sequence: &Sequence) -> usize {
    match sequence.n_image_tokens() {
        0 => sequence.len(),
        _ => 1,
    }
}

impl Request {
    /// Refuses beams together with what they do not go with.
    ///
    /// # Errors
    /// Says what was found.
    pub fn check_beams(&self) -> Result<(), EngineError> {
        let SamplerOptions {
            temperature,
            repeat_penalty,
            ..
        } = self.sampling;
        #[allow(clippy::float_cmp)] // 1.0 as typed means: none
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
    /// Searches for the answer to a prompt that sequence 0 holds all of, with the `logits` of its
    /// last position; why it ended, and how many batches were decoded. If the observer has had
    /// enough, the best so far is the answer.
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
        let n_most = request.n_predict.min(self.n_ctx - sequence.len() + 1);
        let mut cut = match n_most < request.n_predict {
            true => StopReason::Context,
            false => StopReason::Length,
        };
        let mut slots = Lanes::new(request.beams, request.plora.generated());
        let mut rows = vec![logits.to_vec()];
        let mut n_decode = 0;
        for n in 1..=n_most {
            search.advance(&rows)?;
            observer.progress("search", n, n_most);
            if search.is_done() || n == n_most {
                break;
            }
            if observer.is_interrupted() {
                cut = StopReason::Interrupted;
                break;
            }
            rows = slots.decode(decoder, &mut search)?;
            n_decode += 1;
        }
        slots.clear(decoder);
        let best = search.best();
        self.adopt(best.ids, observer);
        let stop = if best.ended { StopReason::Stop } else { cut };
        Ok((stop, n_decode))
    }
}

/// The sequences of the beams: two banks, of which one holds them and the other is free for those
/// that come next.
struct Lanes {
    n_beams: usize,
    plora: bool,
    /// The sequence that each beam is in; at first the prompt's.
    held_in: Vec<usize>,
    /// Whether the next ones go to the second bank.
    is_second: bool,
}

impl Lanes {
    fn new(n_beams: usize, plora: bool) -> Self {
        Self {
            n_beams,
            plora,
            held_in: vec![TRUNK],
            is_second: false,
        }
    }

    /// Sequence `i` of the first bank or the second.
    fn seq(&self, is_second: bool, i: usize) -> usize {
        1 + i + if is_second { self.n_beams } else { 0 }
    }

    /// Puts every beam into a sequence of its own and decodes its last token: the logits after each.
    fn decode(
        &mut self,
        decoder: &mut Decoder,
        search: &mut Search,
    ) -> Result<Vec<Vec<f32>>, EngineError> {
        let mut nexts = Vec::new();
        for (i, beam) in search.beams().iter().enumerate() {
            let seq = self.seq(self.is_second, i);
            let parent = self.held_in[beam.parent];
            decoder.share(parent, seq, decoder.n_past(parent));
            let id = *beam.ids.last().expect("a beam has grown");
            nexts.push(Next { seq, id });
        }
        for i in 0..self.n_beams {
            decoder.truncate(self.seq(!self.is_second, i), 0); // cells that no beam shares are free
        }
        self.held_in = nexts.iter().map(|next| next.seq).collect();
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
