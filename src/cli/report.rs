//! Counts, timings and warnings of an answer.

use serde_json::json;
use xc2_edge::system::{self, units};
use xc2_edge::{
    engine::{Answer, StopReason},
    language::llama::{self, MatmulBackend, SamplerOptions},
    vision,
};

/// An answer's counts and timings: as one line of text, or as a JSON object.
pub struct Report<'a> {
    answer: &'a Answer,
    sampling: SamplerOptions,
    products: MatmulBackend,
}

impl<'a> Report<'a> {
    /// The report of an answer, with the options it was computed and sampled with.
    pub fn new(answer: &'a Answer, sampling: SamplerOptions, products: MatmulBackend) -> Self {
        Self {
            answer,
            sampling,
            products,
        }
    }

    /// As JSON, with the text.
    pub fn as_json(&self) -> serde_json::Value {
        let answer = self.answer;
        json!({
            "text": answer.text,
            "stop": answer.stop,
            "n_prompt": answer.n_prompt,
            "n_image": answer.n_image,
            "n_generated": answer.ids.len(),
            "seed": self.sampling.seed,
            "timings": answer.timings,
            "cache": answer.cache,
            "peak_memory_bytes": system::memory::peak(),
            "kernels": {
                "simd": xc2_kernels::Cpu::chosen().name(), "tower": vision::kernels(),
                "decoder": llama::kernels(self.products), "llama.cpp": llama::system_info(),
            },
        })
    }
}

impl std::fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.answer.timings)?;
        if self.sampling.temperature > 0.0 {
            write!(f, ", seed {}", self.sampling.seed)?;
        }
        if let Some(peak) = system::memory::peak() {
            write!(f, ", peak memory {}", units::human(peak))?;
        }
        if self.answer.timings.n_images > 0 {
            write!(f, ", {} kernels", xc2_kernels::Cpu::chosen().name())?;
        }
        Ok(())
    }
}

/// A warning if a picture file was truncated.
pub fn truncated(answer: &Answer) -> Option<&'static str> {
    let any = answer.timings.n_images_truncated > 0;
    any.then_some("warning: a picture file is truncated; its missing pixels were grey")
}

/// Why an answer was cut off, if it was.
pub fn cut(stop: StopReason) -> Option<&'static str> {
    match stop {
        StopReason::Length => Some("the answer was cut off: `--n-predict` allows more tokens"),
        StopReason::Context => {
            Some("the answer was cut off: the context is full, see `--ctx-size`")
        }
        StopReason::Stop | StopReason::Interrupted => None,
    }
}
