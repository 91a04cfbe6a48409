//! The options that say how tokens are chosen.

use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use xc2_edge::language::llama::SamplerOptions;

use super::number::{real, whole};

/// How tokens are chosen.
#[derive(Debug, Args)]
#[command(next_help_heading = "Sampling")]
pub struct SamplingArgs {
    /// Temperature; 0 takes the likeliest token.
    #[arg(long, value_name = "T", default_value_t = 0.0, value_parser = temperature)]
    pub temp: f32,
    /// Draw among the K likeliest tokens; 0 for all.
    #[arg(long, value_name = "K", value_parser = whole::<usize>(0..), default_value_t = 50)]
    pub top_k: usize,
    /// Draw among the likeliest tokens that make up this probability.
    #[arg(long, value_name = "P", default_value_t = 0.8, value_parser = probability)]
    pub top_p: f32,
    /// Make tokens that were said before less likely; 1 is off, the original's chat uses 1.005.
    #[arg(long, value_name = "R", default_value_t = 1.0, value_parser = positive)]
    pub repeat_penalty: f32,
    /// Seed of the draws [default: from the clock; it is told with the timings].
    #[arg(long, value_name = "N", value_parser = whole::<u32>(0..=u32::MAX as u64))]
    pub seed: Option<u32>,
}

impl SamplingArgs {
    /// The same for the library, with a seed in any case.
    pub fn options(&self) -> SamplerOptions {
        SamplerOptions {
            temperature: self.temp,
            top_k: self.top_k,
            top_p: self.top_p,
            repeat_penalty: self.repeat_penalty,
            seed: self.seed.unwrap_or_else(seed_from_clock),
        }
    }
}

fn seed_from_clock() -> u32 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |t| t.subsec_nanos() ^ t.as_secs() as u32)
}

fn temperature(text: &str) -> Result<f32, String> {
    // Less than this would divide logits beyond what a float holds.
    real(text, "0, or 0.001 or more", |v| v == 0.0 || v >= 1e-3)
}

fn positive(text: &str) -> Result<f32, String> {
    real(text, "more than 0", |v| v > 0.0)
}

fn probability(text: &str) -> Result<f32, String> {
    real(text, "more than 0 and at most 1", |v| v > 0.0 && v <= 1.0)
}
