//! What an engine keeps across runs: the embeddings of pictures, and the keys and values of prompts
//! up to and including their last picture.
//!
//! The key of an entry says everything that decides its numbers: the model file, the preparation of
//! pictures, the arithmetic of this machine, and the picture or the prompt itself.

use crate::system::units;
use std::{ops::Range, sync::Arc};

use ndarray::Array2;

use super::{Engine, EngineOptions, N_BATCH, pictures::Embedding};
use crate::{
    engine::cache::{Cache, CacheCounts, Entry},
    language::{
        decoder::Decoder,
        llama,
        prompt::{PictureId, PromptKey},
    },
    model::container::Container,
    vision,
};

const EMBEDDING: &str = "embedding";
const STATE: &str = "state";

/// A cache with the part of its keys that is the same for a whole run.
pub(super) struct PromptCache {
    cache: Cache,
    /// What decides embeddings, besides the picture.
    tower: String,
    /// What decides keys and values, besides the prompt.
    decoder: String,
}

/// The state of a prompt's begin.
pub(super) struct Found {
    /// Positions of it.
    pub n: usize,
    entry: Entry,
}

/// Whether it is as it was written, or what is wrong with it.
pub(super) type Verified = Result<(), &'static str>;

impl Found {
    /// Reads it all and holds it against its checksum.
    pub fn verify(&self) -> Verified {
        self.entry.verify()
    }
}

impl PromptCache {
    /// The cache that the options name, if they name one.
    pub fn new(container: &Container, options: &EngineOptions) -> Option<Self> {
        let cache = Cache::new(options.cache.clone()?);
        // A file without checksum cannot be told from another.
        let checksum = container.checksum().ok()?;
        let n_bytes = container.file().file_bytes();
        let info = container.info(); // from the outer header, which the checksum does not cover
        let version = env!("CARGO_PKG_VERSION");
        let tower = format!(
            "xc2-edge {version}\nmodel {checksum} {n_bytes}\n{info:?}\ntower {:?} {:?} {}\n",
            options.tower,
            options.reading(),
            vision::kernels(),
        );
        let decoder = format!(
            "{tower}llama.cpp {} {}\nproducts {}\nkv {:?} flash {} batch {N_BATCH} repack {}\n",
            llama::VERSION,
            llama::system_info(),
            llama::kernels(options.products),
            options.kv_type,
            options.flash_attn,
            options.load.repack,
        );
        Some(Self {
            cache,
            tower,
            decoder,
        })
    }

    fn embedding_key(&self, id: PictureId) -> Vec<u8> {
        [self.tower.as_bytes(), id.as_bytes()].concat()
    }

    fn state_key(&self, prompt_key: &PromptKey, n: usize) -> Vec<u8> {
        [self.decoder.as_bytes(), &prompt_key.encode(n)].concat()
    }

    /// The embeddings of a picture, `[n_tokens, n_embd]`.
    pub fn embedding(
        &self,
        id: PictureId,
        shape: (usize, usize),
        counts: &mut CacheCounts,
    ) -> Option<Embedding> {
        let bytes = self.cache.get(EMBEDDING, &self.embedding_key(id), counts)?;
        let values = bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b));
        let rows = Array2::from_shape_vec(shape, values.collect()).ok()?;
        Some(Arc::new(rows))
    }

    /// Keeps the embeddings of a picture.
    pub fn keep_embedding(&self, id: PictureId, rows: &Embedding, counts: &mut CacheCounts) {
        let bytes: Vec<u8> = rows.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.cache
            .put(EMBEDDING, &self.embedding_key(id), &bytes, counts);
    }

    /// The longest begin of a prompt that ends with a picture, is longer than `n_held`, and was kept.
    pub fn find(
        &self,
        prompt_key: &PromptKey,
        n_held: usize,
        counts: &mut CacheCounts,
    ) -> Option<Found> {
        let ends = prompt_key.picture_ends().into_iter().rev();
        let useful = ends.filter(|n| *n > n_held && *n < prompt_key.len());
        useful.into_iter().find_map(|n| {
            let entry = self
                .cache
                .find(STATE, &self.state_key(prompt_key, n), counts)?;
            Some(Found { n, entry })
        })
    }

    /// Lets sequence `seq` hold what was found: how many positions it holds then, zero if llama.cpp
    /// does not take it. `None` if it was `verified` to be damaged; the sequence stays as it is.
    pub fn restore(
        &self,
        found: &Found,
        verified: Verified,
        decoder: &mut Decoder,
        seq: usize,
        prompt_key: &PromptKey,
        counts: &mut CacheCounts,
    ) -> Option<usize> {
        let bytes = self.cache.settle(&found.entry, verified, counts)?;
        let mut begin = PromptKey::default();
        begin.extend_from(prompt_key, 0, found.n);
        if let Err(error) = decoder.restore(seq, bytes, &begin) {
            counts.n_faults += 1;
            tracing::warn!("a cached state is not used: {error}");
        }
        Some(decoder.n_past(seq))
    }

    /// Keeps sequence `seq` up to its last picture, if that ends in the part of the prompt that was
    /// computed now. Sequence `spare` is overwritten and left empty.
    pub fn keep(
        &self,
        decoder: &mut Decoder,
        seq: usize,
        spare: usize,
        computed: Range<usize>,
        counts: &mut CacheCounts,
    ) {
        let ends = decoder.held(seq).picture_ends();
        let Some(n) = ends
            .into_iter()
            .rfind(|n| *n > computed.start && *n < computed.end)
        else {
            return;
        };
        let key = self.state_key(decoder.held(seq), n);
        decoder.share(seq, spare, n);
        let bytes = decoder.save(spare);
        decoder.truncate(spare, 0);
        tracing::debug!(
            "keeping {n} positions in {}",
            units::human(bytes.len() as u64)
        );
        self.cache.put(STATE, &key, &bytes, counts);
    }
}

impl Engine {
    /// The shape of a picture's embeddings: rows, and what each of them has.
    pub(super) fn embedding_shape(&self) -> (usize, usize) {
        let tower = self.encoder.config();
        (tower.n_patches(), tower.n_embd_text)
    }
}
