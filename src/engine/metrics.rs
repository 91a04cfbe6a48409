//! How long the stages of a request take.

/// Seconds by stage, and what was done in them.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Timings {
    /// From when the loaded engine takes up the question to the first token of the answer, in seconds;
    /// likewise below. Whatever comes between counts: reading and decoding pictures, looking into the
    /// cache, and every stage below up to the prefill, but for [`Self::load`] and what was reserved. `None`
    /// if no token was asked for, or it was interrupted before. With several beams no token is certain
    /// before all are there.
    #[serde(rename = "first_token_s")]
    pub first_token: Option<f64>,
    /// Loading the model, if nothing was asked of it in this session before.
    #[serde(rename = "load_s")]
    pub load: f64,
    /// Making the context, which is as large as the question needs, and loading Partial-LoRA. What
    /// [`Session::reserve`](crate::engine::Session::reserve) did before the question was there is told here
    /// too, though it is no part of [`Self::first_token`].
    #[serde(rename = "context_s")]
    pub context: f64,
    /// Reading from the cache on disk.
    #[serde(rename = "restore_s")]
    pub restore: f64,
    /// Positions of the prompt whose keys and values came from there; they count as reused.
    pub n_restored: usize,
    /// Writing to the cache on disk, after the first token.
    #[serde(rename = "keep_s")]
    pub keep: f64,
    /// Tower and projector.
    #[serde(rename = "encode_s")]
    pub encode: f64,
    /// Pictures encoded.
    pub n_images: usize,
    /// Those of them that have transparent parts and were put on white.
    pub n_images_on_white: usize,
    /// Those of them whose files end early, so that parts of them are grey.
    pub n_images_truncated: usize,
    /// Pictures that were not encoded, because their embeddings or keys and values were at hand.
    pub n_images_reused: usize,
    /// The prompt, pictures included, as far as it was computed.
    #[serde(rename = "prefill_s")]
    pub prefill: f64,
    /// Positions of the prompt that were computed.
    pub n_prefill: usize,
    /// Positions of the prompt that were not, because their keys and values were at hand.
    pub n_reused: usize,
    /// Sampling and decoding.
    #[serde(rename = "decode_s")]
    pub decode: f64,
    /// Tokens decoded: one fewer than generated, since the first comes from the prompt's logits.
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
            write!(f, " after {} known", self.n_reused)?;
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
