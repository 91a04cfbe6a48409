//! Time per part of the tower, from the stages that the encoder reports.

use std::time::Instant;

use ndarray::ArrayView2;
use xc2_edge::{model::VisionConfig, vision::StageObserver};

use super::samples::Samples;

/// Parts of the tower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Patches, positions and the norm before the layers.
    Embed,
    /// All transformer layers.
    Layers,
    /// The projector.
    Projector,
}

impl Part {
    const ALL: [Self; 3] = [Self::Embed, Self::Layers, Self::Projector];

    /// The part to which a stage of the tower belongs.
    fn of(stage: &str) -> Self {
        match stage {
            "patch_embed" | "embeddings" | "hidden.0" => Self::Embed,
            "features" | "projected" => Self::Projector,
            _ => Self::Layers,
        }
    }

    /// Name in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Embed => "embed",
            Self::Layers => "layers",
            Self::Projector => "projector",
        }
    }

    /// Operations of one input of the tower.
    pub fn operations(self, config: &VisionConfig) -> f64 {
        let layers = VisionConfig {
            n_layer: 0,
            ..config.clone()
        };
        let projector = config.projector_flops();
        match self {
            Self::Embed => layers.flops() - projector,
            Self::Layers => config.flops() - layers.flops(),
            Self::Projector => projector,
        }
    }
}

/// Measures the time between the tower's stages.
pub struct Profile {
    last: Instant,
    /// Per run: seconds of each part.
    runs: Vec<[f64; 3]>,
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            last: Instant::now(),
            runs: Vec::new(),
        }
    }
}

impl Profile {
    /// Starts a run. Call this before encoding its pictures.
    pub fn begin(&mut self) {
        self.runs.push([0.0; 3]);
        self.last = Instant::now();
    }

    /// The parts in order, each with its seconds.
    pub fn parts(&self) -> Vec<(Part, Samples)> {
        let samples =
            |part: Part| Samples::new(self.runs.iter().map(|r| r[part as usize]).collect());
        Part::ALL.map(|part| (part, samples(part))).into()
    }
}

impl StageObserver for Profile {
    fn stage(&mut self, name: &str, _values: ArrayView2<f32>) {
        let now = Instant::now();
        if let Some(run) = self.runs.last_mut() {
            run[Part::of(name) as usize] += (now - self.last).as_secs_f64();
        }
        self.last = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_of_the_parts_add_up() {
        let config = VisionConfig {
            image_size: 490,
            patch_size: 14,
            n_embd: 1024,
            n_head: 16,
            n_ff: 4096,
            n_layer: 24,
            layer_norm_eps: 1e-5,
            n_embd_text: 2048,
            tiling: None,
        };
        let sum: f64 = Part::ALL.iter().map(|p| p.operations(&config)).sum();
        assert!((sum - config.flops()).abs() < 1.0);
        // docs: 0.89 TFLOP in the layers, of the 1.8B's projector 15 GFLOP.
        assert!((Part::Layers.operations(&config) / 1e9 - 888.0).abs() < 5.0);
        assert!((Part::Projector.operations(&config) / 1e9 - 15.4).abs() < 0.1);
    }

    #[test]
    fn every_stage_of_the_tower_belongs_to_a_part() {
        for (stage, part) in [
            ("patch_embed", Part::Embed),
            ("hidden.0", Part::Embed),
            ("hidden.1", Part::Layers),
            ("hidden.24", Part::Layers),
            ("projected", Part::Projector),
        ] {
            assert_eq!(Part::of(stage), part, "{stage}");
        }
    }
}
