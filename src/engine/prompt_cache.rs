//! The prompt cache on disk: the embeddings of pictures, and the keys and values of prompts up to and including their
//! last picture.
//!
//! The key of an entry contains everything that decides its values: the model file, the preprocessing of pictures,
//! the arithmetic of this machine, and the picture or the prompt itself.

use std::{ops::Range, sync::Arc};

use ndarray::Array2;

use super::{EngineOptions, N_BATCH, pictures::Embedding};
use crate::{
    engine::cache::{Cache, CacheCounts, Entry},
    language::{
        decoder::Decoder,
        llama,
        prompt::{PictureId, PromptKey},
    },
    model::container::Container,
    system::units,
    vision,
};

const EMBEDDING: &str = "embedding";
const STATE: &str = "state";

/// A cache, with the part of its keys that is constant during a run.
pub(super) struct PromptCache {
    cache: Cache,
    /// Everything that decides embeddings, besides the picture.
    tower: String,
    /// Everything that decides keys and values, besides the prompt.
    decoder: String,
}

/// The cached state of a prompt's prefix.
pub(super) struct CachedPrefix {
    /// Its length in positions.
    pub n: usize,
    entry: Entry,
}

/// `Ok` if the entry is intact, otherwise what is wrong with it.
pub(super) type Verified = Result<(), &'static str>;

impl CachedPrefix {
    /// Reads the entry and compares it with its checksum.
    pub fn verify(&self) -> Verified {
        self.entry.verify()
    }
}

impl PromptCache {
    /// The cache that the options name, if any.
    pub fn new(container: &Container, options: &EngineOptions) -> Option<Self> {
        let cache = Cache::new(options.cache.clone()?);
        // A file without a checksum cannot be identified.
        let checksum = container.checksum().ok()?;
        let n_bytes = container.file().file_bytes();
        let info = container.info(); // from the outer header, which the checksum does not cover
        let version = env!("CARGO_PKG_VERSION");
        let tower = format!(
            "xc2-edge {version}\nmodel {checksum} {n_bytes}\n{info:?}\ntower {:?} {:?} {}\n",
            options.tower,
            options.read_options(),
            vision::kernels(),
        );
        let decoder = format!(
            "{tower}llama.cpp {} {}\nproducts {}\nkv {:?} flash {} batch {N_BATCH} repack {}\nrope {:?}\n",
            llama::VERSION,
            llama::system_info(),
            llama::kernels(options.matmul_backend),
            options.kv_type,
            options.flash_attn,
            options.load.repack,
            options.n_ctx.filter(|_| options.long_context),
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

    /// The cached embeddings of a picture, `[n_tokens, n_embd]`.
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

    /// Stores the embeddings of a picture.
    pub fn store_embedding(&self, id: PictureId, rows: &Embedding, counts: &mut CacheCounts) {
        let bytes: Vec<u8> = rows.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.cache
            .put(EMBEDDING, &self.embedding_key(id), &bytes, counts);
    }

    /// The longest cached prefix of a prompt that ends with a picture and is longer than `n_min`.
    pub fn find(
        &self,
        prompt_key: &PromptKey,
        n_min: usize,
        counts: &mut CacheCounts,
    ) -> Option<CachedPrefix> {
        let ends = prompt_key.picture_ends().into_iter().rev();
        let useful = ends.filter(|n| *n > n_min && *n < prompt_key.len());
        useful.into_iter().find_map(|n| {
            let entry = self
                .cache
                .find(STATE, &self.state_key(prompt_key, n), counts)?;
            Some(CachedPrefix { n, entry })
        })
    }

    /// Restores a cached prefix into sequence `seq` and returns the sequence's new length, which is zero if llama.cpp
    /// rejects the state. `None` if the entry is damaged; the sequence is unchanged then.
    pub fn restore(
        &self,
        prefix: &CachedPrefix,
        verified: Verified,
        decoder: &mut Decoder,
        seq: usize,
        prompt_key: &PromptKey,
        counts: &mut CacheCounts,
    ) -> Option<usize> {
        let bytes = self.cache.payload(&prefix.entry, verified, counts)?;
        let mut prefix_key = PromptKey::default();
        prefix_key.extend_from(prompt_key, 0, prefix.n);
        if let Err(error) = decoder.restore(seq, bytes, &prefix_key) {
            counts.n_faults += 1;
            tracing::warn!("ignored a cached state: {error}");
        }
        Some(decoder.n_past(seq))
    }

    /// Stores sequence `seq` up to its last picture, if that ends within the `computed` positions. Sequence `spare` is
    /// overwritten and left empty.
    pub fn store(
        &self,
        decoder: &mut Decoder,
        seq: usize,
        spare: usize,
        computed: Range<usize>,
        counts: &mut CacheCounts,
    ) {
        let ends = decoder.prompt_key(seq).picture_ends();
        let Some(n) = ends
            .into_iter()
            .rfind(|n| *n > computed.start && *n < computed.end)
        else {
            return;
        };
        let key = self.state_key(decoder.prompt_key(seq), n);
        decoder.share(seq, spare, n);
        let bytes = decoder.save(spare);
        decoder.truncate(spare, 0);
        tracing::debug!(
            "caching {n} positions in {}",
            units::human(bytes.len() as u64)
        );
        self.cache.put(STATE, &key, &bytes, counts);
    }
}
