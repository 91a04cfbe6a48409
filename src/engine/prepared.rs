//! A prepared request: the decoder's prompt and the pictures of it.

use std::{ops::ControlFlow, sync::Arc};

use ndarray::Array2;
use rayon::prelude::*;

use super::{
    Engine, EngineError, Observer, Request, StageCount,
    pictures::{Embedding, EncoderInput, LoadedPicture},
    tiles::PictureRule,
    timed,
};
use crate::{
    engine::{cache::CacheCounts, metrics::Timings},
    language::{
        decoder::Decoder,
        prompt::{PictureId, Prompt, Sequence},
    },
    vision::{StageObserver, image::RgbImage},
};

/// The length of a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PromptSize {
    /// Positions of the prompt.
    pub n_prompt: usize,
    /// Those of them that are pictures.
    pub n_image: usize,
}

/// Durations and cache counts of a request, so far.
#[derive(Default)]
pub(super) struct Usage {
    pub timings: Timings,
    pub counts: CacheCounts,
}

/// A prepared request.
pub(super) struct Prepared<'a> {
    pub request: &'a Request,
    pub prompt: Prompt,
    pub pictures: Vec<LoadedPicture<'a>>,
}

impl Engine {
    /// The length of the prompt of `request`. Reads the sizes of pictures if they are cut into tiles, else opens none.
    ///
    /// # Errors
    /// If the prompt is empty, or markers and pictures do not match, or a size cannot be read.
    pub fn prompt_size(&self, request: &Request) -> Result<PromptSize, EngineError> {
        let sequence = self.sequence(request, &self.picture_lengths(request)?)?;
        Ok(PromptSize {
            n_prompt: sequence.len(),
            n_image: sequence.n_image_tokens(),
        })
    }

    /// The number of embeddings of each picture.
    pub(super) fn picture_lengths(&self, request: &Request) -> Result<Vec<usize>, EngineError> {
        match self.picture_rule(request)? {
            PictureRule::Square => {
                let n_tokens = self.encoder.config().n_patches();
                Ok(vec![n_tokens; request.images.len()])
            }
            PictureRule::Tiles { .. } => {
                let pictures = self.load_pictures(request)?;
                Ok(pictures.iter().map(|p| p.n_tokens).collect())
            }
        }
    }

    pub(super) fn load_pictures<'a>(
        &self,
        request: &'a Request,
    ) -> Result<Vec<LoadedPicture<'a>>, EngineError> {
        let rule = self.picture_rule(request)?;
        let (tower, options) = (self.encoder.config(), self.options.read_options());
        let load = |picture| LoadedPicture::load(picture, rule, tower, options);
        match &request.images[..] {
            [one] => Ok(vec![load(one)?]), // faster than waking another thread
            many => many.par_iter().map(load).collect(),
        }
    }

    /// The prompt of `request`, with `lengths[i]` positions of picture `i`.
    pub(super) fn sequence(
        &self,
        request: &Request,
        lengths: &[usize],
    ) -> Result<Sequence, EngineError> {
        let mut template = self.template(request.layout);
        if let Some(rule) = request.bos_rule {
            template.prompt.bos_rule = rule;
        }
        Ok(template.sequence(&request.chat, lengths, &self.tokenizer)?)
    }

    /// Builds the prompt and loads the pictures' files.
    pub(super) fn prepare<'a>(&self, request: &'a Request) -> Result<Prepared<'a>, EngineError> {
        request.check_beams()?;
        let pictures = self.load_pictures(request)?;
        let lengths: Vec<usize> = pictures.iter().map(|p| p.n_tokens).collect();
        let sequence = self.sequence(request, &lengths)?;
        let ids: Vec<PictureId> = pictures.iter().map(|p| p.id).collect();
        Ok(Prepared {
            request,
            prompt: Prompt::new(sequence, request.plora, &ids),
            pictures,
        })
    }

    /// Decodes the pictures that have to be encoded if the first `n_cached` positions need not be computed.
    pub(super) fn open_pictures(
        &self,
        prepared: &Prepared<'_>,
        n_cached: usize,
        counts: &mut CacheCounts,
    ) -> Result<Vec<EncoderInput>, EngineError> {
        let needed = prepared.prompt.pictures_from(n_cached);
        if needed.is_empty() {
            let none = prepared.pictures.iter().map(|_| EncoderInput::NotNeeded);
            return Ok(none.collect());
        }
        for i in &needed {
            self.load_cached_embedding(&prepared.pictures[*i], counts);
        }
        let open = |(i, picture): &(usize, &LoadedPicture<'_>), max_bytes| {
            if !needed.contains(i) {
                return Ok(EncoderInput::NotNeeded);
            }
            if let Some(embedding) = self.embeddings.get(picture.id) {
                return Ok(EncoderInput::Cached(embedding));
            }
            let (preprocessor, options) = (&self.preprocessor, self.options.read_options());
            let resized = picture.resized(preprocessor, options, max_bytes)?;
            Ok(EncoderInput::Encode(resized))
        };
        let pictures: Vec<_> = prepared.pictures.iter().enumerate().collect();
        Ok(self.open_within(&pictures, open)?)
    }

    /// Reads the embeddings of a picture from the cache on disk into memory, if they are only there.
    fn load_cached_embedding(&self, picture: &LoadedPicture<'_>, counts: &mut CacheCounts) {
        let shape = (picture.n_tokens, self.encoder.config().n_embd_text);
        if let Some(prompt_cache) = &self.prompt_cache
            && self.embeddings.get(picture.id).is_none()
            && let Some(rows) = prompt_cache.embedding(picture.id, shape, counts)
        {
            self.embeddings.put(picture.id, &rows);
        }
    }

    /// The embeddings of the pictures that are needed, and how many of them were computed.
    pub(super) fn embed(
        &self,
        prepared: &Prepared<'_>,
        inputs: Vec<EncoderInput>,
        observer: &mut dyn Observer,
        counts: &mut CacheCounts,
    ) -> (Vec<Option<Embedding>>, usize) {
        let n_to_encode = inputs
            .iter()
            .zip(&prepared.pictures)
            .map(|(input, picture)| {
                let n_inputs = picture.grid().map_or(1, |grid| grid.len() + 1);
                n_inputs * usize::from(matches!(input, EncoderInput::Encode(_)))
            });
        let mut progress = StageCount::new(observer, self.encoder.config(), n_to_encode.sum());
        let mut n_encoded = 0;
        let embeddings = inputs.into_iter().zip(&prepared.pictures);
        let embeddings = embeddings.map(|(input, picture)| match input {
            EncoderInput::NotNeeded => None,
            EncoderInput::Cached(embedding) => Some(embedding),
            EncoderInput::Encode(pixels) => {
                if let Some(embedding) = self.embeddings.get(picture.id) {
                    return Some(embedding); // the request has the same picture twice
                }
                let embedding = Arc::new(self.encode(picture, &pixels.pixels, &mut progress));
                self.embeddings.put(picture.id, &embedding);
                if let Some(prompt_cache) = &self.prompt_cache {
                    prompt_cache.store_embedding(picture.id, &embedding, counts);
                }
                n_encoded += 1;
                Some(embedding)
            }
        });
        (embeddings.collect(), n_encoded)
    }

    /// The embeddings of a picture in the size that the tower takes, or in tiles.
    fn encode(
        &self,
        picture: &LoadedPicture<'_>,
        resized: &RgbImage,
        observer: &mut dyn StageObserver,
    ) -> Array2<f32> {
        let preprocessor = &self.preprocessor;
        match picture.grid() {
            None => {
                let pixels = preprocessor.normalize(resized);
                self.encoder.encode_observed(&pixels, observer)
            }
            Some(grid) => {
                let mut pixels = |i| preprocessor.tile_pixels(resized, grid, i);
                self.encoder
                    .encode_tiles_observed(grid, &mut pixels, observer)
            }
        }
    }

    /// Computes the rest of a prompt; sequence `seq` already holds its first [`Timings::n_reused`] positions. `Break`
    /// if the observer interrupts it.
    pub(super) fn prefill(
        &self,
        decoder: &mut Decoder,
        seq: usize,
        prepared: &Prepared<'_>,
        inputs: Vec<EncoderInput>,
        Usage { timings, counts }: &mut Usage,
        observer: &mut dyn Observer,
    ) -> Result<ControlFlow<()>, EngineError> {
        let prompt = &prepared.prompt;
        let is_on_white =
            |r: &&EncoderInput| matches!(r, EncoderInput::Encode(picture) if picture.on_white);
        timings.n_images_on_white = inputs.iter().filter(is_on_white).count();
        let is_short =
            |r: &&EncoderInput| matches!(r, EncoderInput::Encode(picture) if picture.is_truncated);
        timings.n_images_truncated = inputs.iter().filter(is_short).count();
        let (embeddings, n_encoded) = timed(&mut timings.encode, || {
            self.embed(prepared, inputs, observer, counts)
        });
        timings.n_images = n_encoded;
        timings.n_images_reused = prepared.pictures.len() - n_encoded;
        let flow = timed(&mut timings.prefill, || {
            let views = embeddings.iter().map(|e| e.as_ref().map(|e| e.view()));
            let views: Vec<_> = views.collect();
            decoder.prefill(seq, prompt, &views, |done| {
                observer.progress("prefill", done, prompt.len());
                match observer.is_interrupted() {
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                }
            })
        })?;
        timings.n_prefill = decoder.n_past(seq) - timings.n_reused;
        Ok(flow)
    }
}
