//! Sampling options.

use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use xc2_edge::language::llama::SamplerOptions;

use super::number::{real, whole};

/// Sampling options.
#[derive(Debug, Args)]
#[command(next_help_heading = "Sampling")]
pub struct SamplingArgs {
    /// Temperature; 0 always takes the most likely token.
    #[arg(long, value_name = "T", default_value_t = 0.0, value_parser = temperature)]
    pub temp: f32,
    /// Sample from the K most likely tokens; 0 for all.
    #[arg(long, value_name = "K", value_parser = whole::<usize>(0..), default_value_t = 50)]
    pub top_k: usize,
    /// Sample from the most likely tokens whose probabilities add up to P.
    #[arg(long, value_name = "P", default_value_t = 0.8, value_parser = probability)]
    pub top_p: f32,
    /// Penalty for tokens that occurred before; 1 is off, the original chat uses 1.005.
    #[arg(long, value_name = "R", default_value_t = 1.0, value_parser = positive)]
    pub repeat_penalty: f32,
    /// Random seed [default: from the clock; shown with the timings].
    #[arg(long, value_name = "N", value_parser = whole::<u32>(0..=u32::MAX as u64))]
    pub seed: Option<u32>,
}

impl SamplingArgs {
    /// These options as the library's; without `--seed`, the seed comes from the clock.
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
    // Dividing logits by less than this overflows a float.
    real(text, "0, or 0.001 or more", |v| v == 0.0 || v >= 1e-3)
}

fn positive(text: &str) -> Result<f32, String> {
    real(text, "more than 0", |v| v > 0.0)
}

fn probability(text: &str) -> Result<f32, String> {
    real(text, "more than 0 and at most 1", |v| v > 0.0 && v <= 1.0)
}
