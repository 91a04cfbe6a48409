//! Durations and counts of a request's stages.

/// Seconds per stage, and counts of what was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Timings {
    /// Time to first token: seconds from when the loaded engine receives the request to the first token of the
    /// answer. It includes reading and decoding pictures, cache lookups and every stage below up to the prefill,
    /// except [`Self::load`] and what was reserved. `None` if no token was requested, or the request was interrupted
    /// before. With several beams the first token is known only when the search ends.
    #[serde(rename = "first_token_s")]
    pub first_token: Option<f64>,
    /// Loading the model; zero after the session's first request. All durations are in seconds.
    #[serde(rename = "load_s")]
    pub load: f64,
    /// Creating the context, which is as large as the request needs, and loading Partial-LoRA. Includes
    /// [`Session::reserve`](crate::engine::Session::reserve), which is not part of [`Self::first_token`].
    #[serde(rename = "context_s")]
    pub context: f64,
    /// Reading from the cache on disk.
    #[serde(rename = "restore_s")]
    pub restore: f64,
    /// Positions of the prompt whose keys and values came from the cache on disk; they count as reused.
    pub n_restored: usize,
    /// Writing to the cache on disk, after the first token.
    #[serde(rename = "keep_s")]
    pub keep: f64,
    /// Tower and projector.
    #[serde(rename = "encode_s")]
    pub encode: f64,
    /// Pictures encoded.
    pub n_images: usize,
    /// Encoded pictures that have transparent parts and were composited on white.
    pub n_images_on_white: usize,
    /// Encoded pictures whose files are truncated, so that parts of them are grey.
    pub n_images_truncated: usize,
    /// Pictures that were not encoded, because their embeddings or keys and values were cached.
    pub n_images_reused: usize,
    /// Computing the prompt, pictures included, without its reused positions.
    #[serde(rename = "prefill_s")]
    pub prefill: f64,
    /// Positions of the prompt that were computed.
    pub n_prefill: usize,
    /// Positions of the prompt that were reused, because their keys and values were cached.
    pub n_reused: usize,
    /// Sampling and decoding.
    #[serde(rename = "decode_s")]
    pub decode: f64,
    /// Tokens decoded: one fewer than generated, because the first comes from the prompt's logits.
    pub n_decode: usize,
}

impl std::fmt::Display for Timings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "load {:.2} s", self.load + self.context)?;
        if self.n_restored > 0 {
            write!(f, ", read {} tokens {:.2} s", self.n_restored, self.restore)?;
        }
        if self.n_images > 0 {
            let plural = if self.n_images == 1 { "" } else { "s" };
            write!(
                f,
                ", encode {} picture{plural} {:.2} s",
                self.n_images, self.encode
            )?;
        }
        let rate = |n: usize, seconds: f64| n as f64 / seconds.max(1e-9);
        let per_second = rate(self.n_prefill, self.prefill);
        write!(
            f,
            ", prefill {} tokens {:.2} s ({per_second:.0}/s)",
            self.n_prefill, self.prefill
        )?;
        if self.n_reused > 0 {
            write!(f, " after {} reused", self.n_reused)?;
        }
        if let Some(first_token) = self.first_token {
            write!(f, ", first token after {first_token:.2} s")?;
        }
        if self.n_decode > 0 {
            let per_second = rate(self.n_decode, self.decode);
            write!(
                f,
                ", decode {} tokens {:.2} s ({per_second:.1}/s)",
                self.n_decode, self.decode
            )?;
        }
        Ok(())
    }
}
