//! Command-line options of `xc2-convert`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use xc2_convert::{
    mix::{Mix, Pattern, Preset},
    plan::{MAX_PLORA_SCALE, Options, is_plora_scale},
};
use xc2_edge::model::{
    container::{Family, Task},
    quant::GgmlType,
};

const EXAMPLES: &str = "\
Examples:
  xc2-convert internlm-xcomposer2-vl-1_8b vl-1_8b-q4_k.gguf
  xc2-convert internlm-xcomposer2-vl-7b vl-7b.gguf --q6_k --vision-type f16
  xc2-convert internlm-xcomposer2-7b 7b.gguf --tensor-type 'blk.*.ffn_down.weight=q6_k' --dry-run
  xc2-convert split vl-7b.gguf stock/

Exit status: 0 success, 1 failure, 2 wrong usage, 130 interrupted.";

/// Convert an InternLM-XComposer2 checkpoint (Hugging Face layout) into one GGUF file.
#[derive(Parser)]
#[command(version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
#[command(subcommand_negates_reqs = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub convert: ConvertArgs,
}

#[derive(Subcommand)]
pub enum Command {
    /// Split a model file into the three files that llama.cpp programs expect.
    Split {
        /// Model file made by this program.
        model: PathBuf,
        /// Directory for decoder.gguf, mmproj.gguf and adapter.gguf; created if it does not exist.
        dir: PathBuf,
    },
}

#[derive(Args)]
pub struct ConvertArgs {
    /// Checkpoint directory with config.json, tokenizer.model and weights (.safetensors or .bin); or a
    /// repository's directory (models--ORG--NAME) in the Hugging Face cache.
    #[arg(required = true)] // except with a subcommand, hence the `Option`
    pub hf_dir: Option<PathBuf>,
    /// Output file; an existing file is replaced only when the new one is complete.
    #[arg(required_unless_present = "dry_run")]
    pub out: Option<PathBuf>,
    /// Type of the vision tower's matrices [default: q8_0, or the preset's type if that is a float].
    #[arg(long, value_name = "TYPE", value_parser = ggml_type, help_heading = "Types")]
    pub vision_type: Option<GgmlType>,
    /// Type of the projector's matrices [default: same as for --vision-type].
    #[arg(long, value_name = "TYPE", value_parser = ggml_type, help_heading = "Types")]
    pub projector_type: Option<GgmlType>,
    /// Type of the Partial-LoRA matrices [default: q6_k with a preset of six bits or fewer, else same as
    /// for --vision-type].
    #[arg(long, value_name = "TYPE", value_parser = ggml_type, help_heading = "Types")]
    pub plora_type: Option<GgmlType>,
    /// Type of the token embeddings [default: the preset's type].
    #[arg(long, value_name = "TYPE", value_parser = ggml_type, help_heading = "Types")]
    pub embedding_type: Option<GgmlType>,
    /// Type of the output matrix [default: q6_k, or the preset's type if that has more bits].
    #[arg(long, value_name = "TYPE", value_parser = ggml_type, help_heading = "Types")]
    pub output_type: Option<GgmlType>,
    /// Type of tensors whose names match PATTERN (`*` for any characters); repeatable, the first match
    /// counts.
    #[arg(long, value_name = "PATTERN=TYPE", value_parser = pattern_type, help_heading = "Types")]
    pub tensor_type: Vec<(Pattern, GgmlType)>,
    /// Model family, if the image size does not show it [default: composition for 224 pixels, else vl].
    #[arg(long, value_name = "vl|composition", value_parser = family)]
    pub family: Option<Family>,
    /// Task of a 2.5 model: `base` for questions and chat, `write` for articles, `web` for web pages. The
    /// task's adapters are merged into the decoder [default: base].
    #[arg(long, value_name = "base|write|web", value_parser = mode)]
    pub mode: Option<Task>,
    /// Scale of Partial-LoRA [default: 1, or 2 for rank 8, as in the published code].
    #[arg(long, value_name = "SCALE", value_parser = scale, allow_negative_numbers = true)]
    pub plora_scale: Option<f32>,
    /// Worker threads [default: one more than the number of cores].
    #[arg(short, long, value_name = "N", allow_negative_numbers = true, value_parser = threads)]
    pub threads: Option<u16>,
    /// Print what would be written, without writing anything.
    #[arg(long)]
    pub dry_run: bool,
    /// Print only errors.
    #[arg(short, long)]
    pub quiet: bool,
    #[command(flatten)]
    pub preset: PresetArgs,
}

#[derive(Args)]
#[group(multiple = false)]
#[command(next_help_heading = "Preset (one of)")]
pub struct PresetArgs {
    /// 4 bits: llama.cpp's Q4_K_M [default; checkpoints in 4 bits, GPTQ or AWQ, keep their numbers].
    #[arg(long = "q4_k", alias = "q4_k_m")]
    q4_k: bool,
    /// 5 bits: Q5_K_M.
    #[arg(long = "q5_k", alias = "q5_k_m")]
    q5_k: bool,
    /// 6 bits.
    #[arg(long = "q6_k")]
    q6_k: bool,
    /// 8 bits.
    #[arg(long = "q8_0")]
    q8_0: bool,
    /// 4 bits, an older and simpler format.
    #[arg(long = "q4_0")]
    q4_0: bool,
    /// 16-bit floats.
    #[arg(long)]
    f16: bool,
    /// 16-bit floats with the range of 32-bit floats.
    #[arg(long)]
    bf16: bool,
    /// 32-bit floats.
    #[arg(long)]
    f32: bool,
}

impl PresetArgs {
    fn preset(&self) -> Preset {
        let given = [
            (self.q4_k, Preset::Q4K),
            (self.q5_k, Preset::Q5K),
            (self.q6_k, Preset::Q6K),
            (self.q8_0, Preset::Q8_0),
            (self.q4_0, Preset::Q4_0),
            (self.f16, Preset::F16),
            (self.bf16, Preset::Bf16),
            (self.f32, Preset::F32),
        ];
        let given = given.iter().find(|(given, _)| *given);
        given.map_or(Preset::Default, |(_, preset)| *preset)
    }
}

impl ConvertArgs {
    /// These arguments as the library's options.
    pub fn options(&self) -> Options {
        let mix = Mix {
            preset: self.preset.preset(),
            vision: self.vision_type,
            projector: self.projector_type,
            plora: self.plora_type,
            embedding: self.embedding_type,
            output: self.output_type,
            tensors: self.tensor_type.clone(),
        };
        Options {
            command_line: command_line(&mix, self.family, self.mode, self.plora_scale),
            mix,
            family: self.family,
            task: self.mode.unwrap_or_default(),
            plora_scale: self.plora_scale,
        }
    }
}

/// The options in a fixed order and without paths, so that the output does not depend on how and where it
/// was made.
fn command_line(
    mix: &Mix,
    family: Option<Family>,
    mode: Option<Task>,
    plora_scale: Option<f32>,
) -> String {
    let mut words = Vec::new();
    let parts = [
        ("vision", mix.vision),
        ("projector", mix.projector),
        ("plora", mix.plora),
        ("embedding", mix.embedding),
        ("output", mix.output),
    ];
    for (part, ty) in parts {
        words.extend(ty.map(|ty| format!("--{part}-type {ty}")));
    }
    words.extend(
        mix.tensors
            .iter()
            .map(|(p, ty)| format!("--tensor-type {}={ty}", p.0)),
    );
    words.extend(family.map(|f| format!("--family {}", f.name())));
    words.extend(mode.map(|m| format!("--mode {}", m.name())));
    words.extend(plora_scale.map(|s| format!("--plora-scale {s}")));
    words.join(" ")
}

fn threads(text: &str) -> Result<u16, String> {
    let n = text.parse().ok().filter(|n| (1..=512).contains(n));
    n.ok_or_else(|| "expected a whole number, 1 to 512".to_owned())
}

fn ggml_type(name: &str) -> Result<GgmlType, String> {
    let usable = |ty: &GgmlType| *ty != GgmlType::I8;
    GgmlType::from_name(name).filter(usable).ok_or_else(|| {
        let names: Vec<&str> = GgmlType::all().filter(usable).map(GgmlType::name).collect();
        format!("expected one of {}", names.join(", "))
    })
}

fn pattern_type(text: &str) -> Result<(Pattern, GgmlType), String> {
    let (pattern, ty) = text.rsplit_once('=').ok_or("expected PATTERN=TYPE")?;
    Ok((Pattern(pattern.to_owned()), ggml_type(ty)?))
}

fn family(name: &str) -> Result<Family, String> {
    let family = Family::from_name(name);
    let family = family.filter(|f| matches!(f, Family::Vl | Family::Composition));
    family.ok_or_else(|| "expected `vl` or `composition`".to_owned())
}

fn mode(name: &str) -> Result<Task, String> {
    Task::from_name(name).ok_or_else(|| "expected `base`, `write` or `web`".to_owned())
}

fn scale(text: &str) -> Result<f32, String> {
    let scale = text.parse().ok().filter(|s| is_plora_scale(*s));
    scale.ok_or_else(|| format!("expected a number above 0, at most {MAX_PLORA_SCALE}"))
}
