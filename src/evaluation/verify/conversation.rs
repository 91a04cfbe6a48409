//! Checks a conversation: tokenizer, mask, prefill and greedy decoding.

use std::collections::HashMap;

use ndarray::Array2;

use super::{
    Outcome, Stage, VerifyError,
    golden::{Case, ConversationRecord, GoldenDir, Ids, Recorded, RecordedLogits, Tensors},
    picture_source::PictureSource,
    precision::{Agreement, Precision},
    tower_input::{self, TowerInput, Unobserved},
};
use crate::{
    engine::Engine,
    language::{
        decoder::Decoder,
        llama::argmax,
        prompt::{Chat, PictureId, PloraPolicy, Prompt, PromptLayout, Run, Sequence},
    },
    model::{container::BosRule, tensor::TensorSource},
};

/// Batch size: smaller than usual, because the logits of all positions are kept.
const N_BATCH: usize = 64;

/// Margin of the first logit below which small pixel differences may change a choice.
const OTHER_PIXELS_MARGIN: f32 = 0.15;

/// Runs conversations over one context, each picture encoded once.
pub(super) struct Conversations<'a> {
    engine: &'a Engine,
    golden: &'a GoldenDir,
    precision: Precision,
    /// The decoder of the last conversation.
    decoder: Option<SizedDecoder>,
    embeddings: HashMap<EmbeddingKey, Array2<f32>>,
    /// Recorded resized pictures by picture name: the input of the original's tower.
    resized: HashMap<String, std::path::PathBuf>,
    /// Number of greedy choices compared so far, and how many are equal.
    n_choices: usize,
    n_same: usize,
}

/// A decoder, the positions that it holds, and the length for which its rotary embedding is scaled.
struct SizedDecoder {
    decoder: Decoder,
    n_ctx: usize,
    planned: usize,
}

/// A picture and the maximum number of its tiles.
type EmbeddingKey = (PictureSource, u32);

impl<'a> Conversations<'a> {
    pub fn new(
        engine: &'a Engine,
        golden: &'a GoldenDir,
        precision: Precision,
    ) -> Result<Self, VerifyError> {
        // In tiles, a recorded picture may have been cut otherwise than in a conversation.
        let is_tiled = engine.encoder().config().tiling.is_some();
        let pictures = golden.pictures()?.into_iter().filter(|_| !is_tiled);
        let resized = pictures
            .filter_map(|p| Some((p.image, p.resized?)))
            .collect();
        let embeddings = HashMap::new();
        Ok(Self {
            engine,
            golden,
            precision,
            decoder: None,
            embeddings,
            resized,
            n_choices: 0,
            n_same: 0,
        })
    }

    /// Checks every recorded stage of a conversation.
    pub fn check(&mut self, record: &ConversationRecord) -> Result<Outcome, VerifyError> {
        let ConversationRecord { case, tensors } = record;
        let mut stages = Vec::new();
        let is_tiled = self.engine.encoder().config().tiling.is_some();
        if is_tiled {
            self.encode_all(case)?; // how many positions they take depends on the pictures
        }
        let sequence = self.sequence(case)?;
        stages.push(Stage::equal("token ids", &ids(&sequence), &case.ids));
        let mask = sequence.plora_mask(case.plora());
        stages.push(mask_stage(case, &mask.set_runs(), sequence.len()));
        // After a difference, later stages would compare different sequences.
        let is_same = stages.iter().all(|s| s.ok);
        if let Some(tensors) = tensors.as_ref().filter(|_| is_same) {
            stages.extend(self.computed_stages(case, tensors, &sequence)?);
        }
        Ok(Outcome {
            subject: case.name.clone(),
            stages,
            is_record: true,
        })
    }

    /// The numeric stages: inputs, logits, answer.
    fn computed_stages(
        &mut self,
        case: &Case,
        tensors: &Tensors,
        sequence: &Sequence,
    ) -> Result<Vec<Stage>, VerifyError> {
        let mut stages = Vec::new();
        self.encode_all(case)?;
        let at = tensors.i32("sample_pos")?;
        if let (Some(expected), Some(at)) = (tensors.f32("embeds_sample")?, at) {
            stages.push(self.inputs_stage(case, sequence, &expected, &at.values));
        }
        stages.extend(self.logits_stages(case, tensors, sequence)?);
        if stages.iter().all(|s| s.deviation.is_none()) {
            stages.push(Stage::mismatch("logits", 0, 0).with_note("nothing was recorded"));
        }
        Ok(stages)
    }

    /// Whether the tower's pixels may differ from the original's: decoders of lossy formats differ, and the
    /// recorded pixels of a picture are missing.
    fn other_pixels(&self, case: &Case) -> bool {
        let mut images = case.images.iter();
        images.any(|source| source.is_lossy() && self.recorded(source).is_none())
    }

    /// The recorded input of the tower for a picture.
    fn recorded(&self, source: &PictureSource) -> Option<&std::path::Path> {
        match source {
            PictureSource::File(name) => self.resized.get(name).map(|path| &**path),
            _ => None,
        }
    }

    fn key(&self, case: &Case, source: &PictureSource) -> EmbeddingKey {
        let tiling = self.engine.encoder().config().tiling;
        let hd_num = tower_input::hd_num(tiling, case.hd_num, case.images.len());
        (source.clone(), hd_num)
    }

    /// The embeddings of a picture, which was encoded before.
    fn embedding(&self, case: &Case, index: usize) -> &Array2<f32> {
        &self.embeddings[&self.key(case, &case.images[index])]
    }

    /// The precision required of a case.
    fn precision_for(&self, case: &Case) -> Precision {
        if self.other_pixels(case) {
            self.precision.with_other_pixels()
        } else {
            self.precision
        }
    }

    fn sequence(&self, case: &Case) -> Result<Sequence, VerifyError> {
        let chat = Chat {
            system: case.meta.clone(),
            history: case.history.clone(),
            query: case.query.clone(),
            answer_prefix: String::new(),
        };
        let mut template = self.engine.template(PromptLayout::Chat);
        let prompt = &mut template.prompt;
        if case.images.is_empty() && prompt.bos_rule == BosRule::Once {
            // The original has two ways to be called without pictures.
            prompt.bos_rule = match case.n_bos(prompt.bos) {
                2 => BosRule::EverySegment,
                _ => BosRule::Once,
            };
        }
        let config = self.engine.encoder().config();
        let length = |i: usize| match config.tiling {
            None => config.n_patches(),
            Some(_) => self.embedding(case, i).nrows(),
        };
        let images: Vec<usize> = (0..case.images.len()).map(length).collect();
        let sequence = template.sequence(&chat, &images, self.engine.tokenizer());
        Ok(sequence.map_err(crate::engine::EngineError::from)?)
    }

    fn encode_all(&mut self, case: &Case) -> Result<(), VerifyError> {
        let mut images = case.images.iter();
        images.try_for_each(|source| self.encode(case, source))
    }

    /// Encodes a picture unless it was encoded before.
    fn encode(&mut self, case: &Case, source: &PictureSource) -> Result<(), VerifyError> {
        let key = self.key(case, source);
        if self.embeddings.contains_key(&key) {
            return Ok(());
        }
        let input = match self.recorded(source) {
            Some(path) => TowerInput::recorded(self.engine, path)?,
            None => TowerInput::new(self.engine, self.golden, source, key.1)?,
        };
        let embedding = input.encode(self.engine, &mut Unobserved);
        self.embeddings.insert(key, embedding);
        Ok(())
    }

    /// The decoder's input at the sampled positions: token or picture embeddings.
    fn inputs_stage(
        &self,
        case: &Case,
        sequence: &Sequence,
        expected: &Recorded<f32>,
        at: &[i32],
    ) -> Stage {
        const NAME: &str = "inputs";
        let mut found = Vec::with_capacity(expected.values.len());
        for position in at {
            let Some(row) = self.input(case, sequence, *position) else {
                return Stage::mismatch(NAME, sequence.len(), at.len())
                    .with_note(format!("position {position} is not in the prompt"));
            };
            found.extend(row);
        }
        let bound = self.precision_for(case).inputs();
        let stage = bound.stage(NAME, &found, &expected.values);
        if !self.other_pixels(case) {
            return stage;
        }
        stage
            .with_note("decoders of lossy pictures differ and no pixels are recorded: wider bounds")
    }

    /// The decoder's input row at `position`, if the position exists.
    fn input(&self, case: &Case, sequence: &Sequence, position: i32) -> Option<Vec<f32>> {
        let table = self.engine.container().tensor("token_embd.weight")?;
        let mut offset = usize::try_from(position).ok()?;
        for run in sequence.runs() {
            if offset >= run.len() {
                offset -= run.len();
                continue;
            }
            return Some(match run {
                Run::Tokens(ids) => {
                    let row = ids[offset] as usize;
                    let mut values = vec![0.0; table.n_cols()];
                    table.rows_into(row..row + 1, &mut values);
                    values
                }
                Run::Image { index, .. } => self.embedding(case, *index).row(offset).to_vec(),
            });
        }
        None
    }

    fn logits_stages(
        &mut self,
        case: &Case,
        tensors: &Tensors,
        sequence: &Sequence,
    ) -> Result<Vec<Stage>, VerifyError> {
        let mut stages = Vec::new();
        let mut watch = PromptLogits::new(tensors, sequence.len())?;
        self.prefill(case, sequence, &mut watch)?;
        let precision = self.precision_for(case);
        let bound = precision.logits();
        if !watch.top.is_empty() {
            const NAME: &str = "logits, top 5 of each position";
            let (found, expected) = (&watch.top, &watch.top_expected);
            stages.push(match precision.top_logits() {
                Some(bound) => bound.stage(NAME, found, expected),
                None => Stage::reported(NAME, found, expected),
            });
        }
        if let Some(last) = tensors.logits("logits_last8")? {
            const NAME: &str = "logits, last 8 of the prompt";
            let n_vocab = self.engine.tokenizer().n_vocab();
            stages.push(match last.columns_of(&watch.last, n_vocab) {
                Some(found) => bound.stage(NAME, &found, &last.values),
                None => Stage::mismatch(NAME, watch.last.len(), last.values.len()),
            });
        }
        let recorded = tensors.logits("step_logits")?;
        stages.extend(self.answer_stages(case, recorded, watch.final_row)?);
        Ok(stages)
    }

    /// The recorded steps of the answer: logits, ids, text. `first` are the logits before its first token.
    fn answer_stages(
        &mut self,
        case: &Case,
        recorded: Option<RecordedLogits>,
        first: Vec<f32>,
    ) -> Result<Vec<Stage>, VerifyError> {
        const NAME: &str = "logits, answer";
        let n_vocab = self.engine.tokenizer().n_vocab();
        let n_ids = case.greedy_ids.len();
        let n_recorded = recorded.as_ref().map_or(0, |r| r.n_rows);
        // The logits after the last recorded id can be computed, but no later ones.
        let n_compared = n_recorded.min(n_ids + 1);
        let n_steps = n_compared.max(n_ids);
        if n_steps == 0 {
            return Ok(Vec::new());
        }
        let found = self.teacher_forced(case, first, n_steps)?;
        let mut stages = Vec::new();
        if let Some(recorded) = recorded.filter(|r| r.n_rows > 0) {
            let n = n_compared * n_vocab;
            let Some(found) = recorded.columns_of(&found[..n], n_vocab) else {
                return Ok(vec![Stage::mismatch(NAME, n, recorded.values.len())]);
            };
            let bound = self.precision_for(case).logits();
            let expected = &recorded.values[..n_compared * recorded.n_columns];
            let mut stage = bound.stage(NAME, &found, expected);
            if n_compared != n_ids.max(n_recorded) {
                let note = format!("{n_compared} of {} steps", n_ids.max(n_recorded));
                let notes = [stage.note.clone(), note];
                stage = stage.with_note(notes.join("; ").trim_start_matches("; "));
            }
            stages.push(stage);
        }
        if n_ids > 0 {
            let choices: Vec<i32> = found.chunks(n_vocab).take(n_ids).map(argmax).collect();
            stages.push(self.greedy_stage(case, &choices));
        }
        stages.extend(self.text_stage(case));
        Ok(stages)
    }

    fn prefill(
        &mut self,
        case: &Case,
        sequence: &Sequence,
        watch: &mut PromptLogits,
    ) -> Result<(), VerifyError> {
        self.ensure_decoder(case, sequence.len())?;
        let by_name = |source: &PictureSource| PictureId::of_file(source.to_string().as_bytes());
        let ids: Vec<_> = case.images.iter().map(by_name).collect();
        let prompt = Prompt::new(sequence.clone(), case.plora(), &ids);
        let keys: Vec<_> = case.images.iter().map(|s| self.key(case, s)).collect();
        let images: Vec<_> = keys
            .iter()
            .map(|key| Some(self.embeddings[key].view()))
            .collect();
        let sized = self.decoder.as_mut().expect("it was created");
        let decoder = &mut sized.decoder;
        decoder.truncate(0, 0);
        let mut on_logits = |position: usize, row: &[f32]| watch.see(position, row);
        decoder.prefill_observed(0, &prompt, &images, &mut on_logits)?;
        Ok(())
    }

    /// Provides a decoder for the prompt and the recorded answer.
    fn ensure_decoder(&mut self, case: &Case, n_prompt: usize) -> Result<(), VerifyError> {
        let n_needed = n_prompt + case.greedy_ids.len() + 1;
        let planned = case.planned_length.unwrap_or(0);
        let fits = |d: &SizedDecoder| d.n_ctx >= n_needed && d.planned == planned;
        if self.decoder.as_ref().is_some_and(fits) {
            return Ok(());
        }
        self.decoder = None; // free its memory before the next one is created
        let decoder = self
            .engine
            .decoder_planned(planned, n_needed, N_BATCH, N_BATCH, 1)?;
        self.decoder = Some(SizedDecoder {
            decoder,
            n_ctx: n_needed,
            planned,
        });
        Ok(())
    }

    /// The logits before each of the first `n_steps` tokens of the recorded answer (teacher forcing), so that an
    /// early difference does not affect later steps.
    fn teacher_forced(
        &mut self,
        case: &Case,
        first: Vec<f32>,
        n_steps: usize,
    ) -> Result<Vec<f32>, VerifyError> {
        let sized = self.decoder.as_mut().expect("the prompt was computed");
        let decoder = &mut sized.decoder;
        let mut logits = first;
        for id in case.greedy_ids.iter().take(n_steps.saturating_sub(1)) {
            decoder.step(0, *id, case.plora().generated())?;
            logits.extend(decoder.logits());
        }
        Ok(logits)
    }

    /// The greedy choices. As long as they are equal, teacher forcing is the same as free generation.
    fn greedy_stage(&mut self, case: &Case, choices: &[i32]) -> Stage {
        let recorded = &case.greedy_ids;
        let same = |i: &usize| choices.get(*i) == Some(&recorded[*i]);
        let n_same = (0..recorded.len()).filter(same).count();
        self.n_choices += recorded.len();
        self.n_same += n_same;
        let stage = Stage::equal("greedy ids", choices, recorded);
        let (ok, tolerance) = match self.precision.agreement() {
            Agreement::Margin(least) => {
                let least = if self.other_pixels(case) {
                    least.max(OTHER_PIXELS_MARGIN)
                } else {
                    least
                };
                let margin = |i: usize| case.greedy_margins.get(i).copied().unwrap_or(f32::MAX);
                let near_tie = |i: usize| margin(i) <= least;
                let ok = (0..recorded.len()).all(|i| same(&i) || near_tie(i));
                (ok, format!("equal where margin > {least}"))
            }
            Agreement::Share(_) => (true, "judged together".to_owned()),
        };
        let note = format!("{n_same} of {} equal", recorded.len());
        Stage {
            ok,
            tolerance,
            note,
            ..stage
        }
    }

    /// The result over all conversations together.
    pub fn together(&self) -> Option<Outcome> {
        let Agreement::Share(least) = self.precision.agreement() else {
            return None;
        };
        if self.n_choices == 0 {
            return None;
        }
        let share = self.n_same as f64 / self.n_choices as f64;
        let stage = Stage {
            name: "greedy ids".to_owned(),
            deviation: None,
            tolerance: format!("{:.0} % equal", least * 100.0),
            ok: share >= least,
            note: format!(
                "{} of {}, {:.1} %",
                self.n_same,
                self.n_choices,
                share * 100.0
            ),
        };
        Some(Outcome {
            subject: "all conversations".to_owned(),
            stages: vec![stage],
            is_record: false,
        })
    }

    fn text_stage(&self, case: &Case) -> Option<Stage> {
        let expected = case.greedy_text.as_ref()?;
        let found = self.engine.tokenizer().decode(&case.greedy_ids);
        Some(Stage::equal(
            "text of the greedy ids",
            &[found.as_str()],
            &[expected.as_str()],
        ))
    }
}

/// Collects those logits of a prompt that were recorded.
struct PromptLogits {
    n_prompt: usize,
    n_last: usize,
    top_ids: Vec<i32>,
    n_top: usize,
    /// Logits at the recorded ids, of all positions.
    top: Vec<f32>,
    top_expected: Vec<f32>,
    /// The last rows.
    last: Vec<f32>,
    final_row: Vec<f32>,
}

impl PromptLogits {
    fn new(tensors: &Tensors, n_prompt: usize) -> Result<Self, VerifyError> {
        let ids = tensors.i32("top5_ids")?;
        let logits = tensors.f32("top5_logits")?;
        let (top_ids, top_expected, n_top) = match (ids, logits) {
            (Some(ids), Some(logits)) if ids.shape == logits.shape => {
                let n_top = ids.shape.last().copied().unwrap_or(0);
                (ids.values, logits.values, n_top)
            }
            (None, None) => (Vec::new(), Vec::new(), 0),
            _ => {
                let reason = "`top5_ids` and `top5_logits` have different shapes";
                return Err(tensors.invalid(reason).into());
            }
        };
        if top_ids.len() != n_top * n_prompt {
            let reason = "`top5_ids`: another number of positions than the prompt has";
            return Err(tensors.invalid(reason).into());
        }
        let n_last = tensors
            .logits("logits_last8")?
            .map_or(0, |last| last.n_rows);
        Ok(Self {
            n_prompt,
            n_last,
            top_ids,
            n_top,
            top: Vec::new(),
            top_expected,
            last: Vec::new(),
            final_row: Vec::new(),
        })
    }

    fn see(&mut self, position: usize, row: &[f32]) {
        let ids = self
            .top_ids
            .iter()
            .skip(position * self.n_top)
            .take(self.n_top);
        self.top
            .extend(ids.map(|id| row.get(*id as usize).copied().unwrap_or(f32::NAN)));
        if position + self.n_last >= self.n_prompt {
            self.last.extend(row);
        }
        if position + 1 == self.n_prompt {
            self.final_row = row.to_vec();
        }
    }
}

fn ids(sequence: &Sequence) -> Vec<Ids> {
    let mut ids = Vec::new();
    for run in sequence.runs() {
        match run {
            Run::Tokens(tokens) => ids.extend(tokens.iter().map(|id| Ids::Id(*id))),
            // Adjacent pictures are recorded as one.
            Run::Image { n_tokens, .. } => match ids.last_mut() {
                Some(Ids::Image(_, n)) => *n += n_tokens,
                _ => ids.push(Ids::Image(-1, *n_tokens)),
            },
        }
    }
    ids
}

/// Compares the mask with the recorded picture runs, or with the mask of a control.
fn mask_stage(case: &Case, found: &[(usize, usize)], n: usize) -> Stage {
    let expected = match case.plora() {
        PloraPolicy::Images => case.image_runs(),
        PloraPolicy::Nowhere => Vec::new(),
        PloraPolicy::Everywhere => vec![(0, n)],
    };
    Stage::equal("mask", found, &expected)
}
