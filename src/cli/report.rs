//! What is said of an answer besides its text.

use serde_json::json;
use xc2_edge::system::{self, units};
use xc2_edge::{
    engine::{Answer, StopReason},
    language::llama::{self, Products, SamplerOptions},
    vision,
};

/// An answer's counts and timings: a line for a person, or an object for a program.
pub struct Report<'a> {
    answer: &'a Answer,
    sampling: SamplerOptions,
    products: Products,
}

impl<'a> Report<'a> {
    /// Of an answer that was computed and sampled so.
    pub fn new(answer: &'a Answer, sampling: SamplerOptions, products: Products) -> Self {
        Self {
            answer,
            sampling,
            products,
        }
    }

    /// For programs, with the text.
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

/// What the model did not see of its pictures, for a person.
pub fn truncated(answer: &Answer) -> Option<&'static str> {
    let any = answer.timings.n_images_truncated > 0;
    any.then_some("warning: a picture's file ends early; what is missing of it was grey")
}

/// Why an answer is not whole, for a person.
pub fn cut(stop: StopReason) -> Option<&'static str> {
    match stop {
        StopReason::Length => Some("the answer was cut: `--n-predict` allows more tokens"),
        StopReason::Context => Some("the answer was cut: the context is full, see `--ctx-size`"),
        StopReason::Stop | StopReason::Interrupted => None,
    }
}
