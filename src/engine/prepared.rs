//! A request made ready: what the decoder is to see, and the pictures behind it.

use std::{ops::ControlFlow, sync::Arc};

use rayon::prelude::*;

use super::{
    Engine, EngineError, Observer, Request, StageCount,
    pictures::{Embedding, FoundPicture, Ready},
    timed,
};
use crate::{
    engine::{cache::CacheCounts, metrics::Timings},
    language::{
        decoder::Decoder,
        prompt::{PictureId, Prompt, Sequence},
    },
};

/// How long a prompt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PromptSize {
    /// Positions of the prompt.
    pub n_prompt: usize,
    /// How many of them are pictures.
    pub n_image: usize,
}

/// What an answer took, so far.
#[derive(Default)]
pub(super) struct Use {
    pub timings: Timings,
    pub counts: CacheCounts,
}

/// A request made ready.
pub(super) struct Prepared<'a> {
    pub request: &'a Request,
    pub prompt: Prompt,
    pub pictures: Vec<FoundPicture<'a>>,
}

impl Engine {
    /// How long the prompt of `request` is. No picture is opened for that.
    ///
    /// # Errors
    /// If there is nothing to ask, or markers and pictures do not pair up.
    pub fn prompt_size(&self, request: &Request) -> Result<PromptSize, EngineError> {
        let sequence = self.sequence(request)?;
        Ok(PromptSize {
            n_prompt: sequence.len(),
            n_image: sequence.n_image_tokens(),
        })
    }

    pub(super) fn sequence(&self, request: &Request) -> Result<Sequence, EngineError> {
        let mut template = self.template(request.layout);
        if let Some(rule) = request.bos_rule {
            template.prompt.bos_rule = rule;
        }
        Ok(template.sequence(&request.chat, request.images.len(), &self.tokenizer)?)
    }

    /// Builds the prompt and finds the pictures.
    pub(super) fn prepare<'a>(&self, request: &'a Request) -> Result<Prepared<'a>, EngineError> {
        request.check_beams()?;
        let pictures = match &request.images[..] {
            [one] => vec![FoundPicture::find(one)?], // sooner done than another thread woken
            many => {
                let found = many.par_iter().map(FoundPicture::find);
                found.collect::<Result<_, _>>()?
            }
        };
        let sequence = self.sequence(request)?;
        let ids: Vec<PictureId> = pictures.iter().map(|p| p.id).collect();
        Ok(Prepared {
            request,
            prompt: Prompt::new(sequence, request.plora, &ids),
            pictures,
        })
    }

    /// Opens what has to be encoded if the first `n_held` positions need not be computed.
    pub(super) fn open_pictures(
        &self,
        prepared: &Prepared<'_>,
        n_held: usize,
        counts: &mut CacheCounts,
    ) -> Result<Vec<Ready>, EngineError> {
        let needed = prepared.prompt.pictures_from(n_held);
        if needed.is_empty() {
            let none = prepared.pictures.iter().map(|_| Ready::NotNeeded);
            return Ok(none.collect());
        }
        for i in &needed {
            self.recall(prepared.pictures[*i].id, counts);
        }
        let open = |(i, picture): &(usize, &FoundPicture<'_>), max_bytes| {
            if !needed.contains(i) {
                return Ok(Ready::NotNeeded);
            }
            if let Some(embedding) = self.embeddings.get(picture.id) {
                return Ok(Ready::Known(embedding));
            }
            let (preprocessor, how) = (&self.preprocessor, self.options.reading());
            let resized = picture.resized(preprocessor, how, max_bytes)?;
            Ok(Ready::ToEncode(resized))
        };
        let pictures: Vec<_> = prepared.pictures.iter().enumerate().collect();
        Ok(self.open_within(&pictures, open)?)
    }

    /// Gets the embeddings of a picture from the cache on disk if they are there and not here.
    fn recall(&self, id: PictureId, counts: &mut CacheCounts) {
        if let Some(prompt_cache) = &self.prompt_cache
            && self.embeddings.get(id).is_none()
            && let Some(rows) = prompt_cache.embedding(id, self.embedding_shape(), counts)
        {
            self.embeddings.put(id, &rows);
        }
    }

    /// The embeddings of the pictures that are needed, and how many had to be computed.
    pub(super) fn embed(
        &self,
        prepared: &Prepared<'_>,
        ready: Vec<Ready>,
        observer: &mut dyn Observer,
        counts: &mut CacheCounts,
    ) -> (Vec<Option<Embedding>>, usize) {
        let n_to_encode = ready.iter().filter(|r| matches!(r, Ready::ToEncode(_)));
        let mut progress = StageCount::new(observer, self.encoder.config(), n_to_encode.count());
        let mut n_encoded = 0;
        let embeddings = ready.into_iter().zip(&prepared.pictures);
        let embeddings = embeddings.map(|(ready, picture)| match ready {
            Ready::NotNeeded => None,
            Ready::Known(embedding) => Some(embedding),
            Ready::ToEncode(pixels) => {
                if let Some(embedding) = self.embeddings.get(picture.id) {
                    return Some(embedding); // the same picture stood earlier in the request
                }
                let pixels = self.preprocessor.normalize(&pixels.picture);
                let embedding = self.encoder.encode_observed(&pixels, &mut progress);
                let embedding = Arc::new(embedding);
                self.embeddings.put(picture.id, &embedding);
                if let Some(prompt_cache) = &self.prompt_cache {
                    prompt_cache.keep_embedding(picture.id, &embedding, counts);
                }
                n_encoded += 1;
                Some(embedding)
            }
        });
        (embeddings.collect(), n_encoded)
    }

    /// Computes what sequence `seq` does not hold of a prompt that it holds the begin of:
    /// [`Timings::n_reused`] positions. `Break` if the observer has had enough before the end.
    pub(super) fn prefill(
        &self,
        decoder: &mut Decoder,
        seq: usize,
        prepared: &Prepared<'_>,
        ready: Vec<Ready>,
        Use { timings, counts }: &mut Use,
        observer: &mut dyn Observer,
    ) -> Result<ControlFlow<()>, EngineError> {
        let prompt = &prepared.prompt;
        let is_on_white = |r: &&Ready| matches!(r, Ready::ToEncode(picture) if picture.on_white);
        timings.n_images_on_white = ready.iter().filter(is_on_white).count();
        let is_short = |r: &&Ready| matches!(r, Ready::ToEncode(picture) if picture.is_short);
        timings.n_images_truncated = ready.iter().filter(is_short).count();
        let (embeddings, n_encoded) = timed(&mut timings.encode, || {
            self.embed(prepared, ready, observer, counts)
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
