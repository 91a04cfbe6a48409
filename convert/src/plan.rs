//! The plan of a conversion: made before anything is written, and printed by `--dry-run`.

use std::fmt;

use xc2_edge::model::{
    container::{Family, Layout, Task},
    gguf::{Header, TensorInfo},
    quant::GgmlType,
};

use crate::{
    adapters::{self, LowRank},
    checkpoint::{Checkpoint, CheckpointError, Dtype, PackedFormat, SourceTensor},
    metadata::{self, Facts},
    mix::{Mix, Preset, Stored},
    model::{Model, ModelError},
    rows::Rearrange,
    tensor_map::{Mapped, Part, Rows, is_known_unused, tensor_map},
    tokenizer::{Tokenizer, TokenizerError},
};

/// Options of a conversion.
#[derive(Clone, Debug)]
pub struct Options {
    /// Types.
    pub mix: Mix,
    /// Comprehension or composition, if the image size does not show it.
    pub family: Option<Family>,
    /// The task whose adapters are merged into the decoder.
    pub task: Task,
    /// Scale of Partial-LoRA, to override the rule of [`plora_scale`].
    pub plora_scale: Option<f32>,
    /// These options, besides the preset, as a command line, which is stored in the file.
    pub command_line: String,
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum PlanError {
    /// The checkpoint cannot be converted.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The vocabulary cannot be converted.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// A pattern that matches no tensor: likely a typing error.
    #[error("--tensor-type `{pattern}`: expected to match a matrix of the file, matches none")]
    UnusedPattern { pattern: String },
    /// An invalid scale.
    #[error(
        "scale of Partial-LoRA: expected a number above 0, at most {MAX_PLORA_SCALE}, found {found}"
    )]
    PloraScale { found: f32 },
}

impl From<CheckpointError> for PlanError {
    fn from(e: CheckpointError) -> Self {
        Self::Model(e.into())
    }
}

impl PlanError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Model(e) => e.hint(),
            Self::Tokenizer(e) => e.hint(),
            Self::UnusedPattern { .. } => Some(
                "patterns match tensor names in the output file, which --dry-run lists; `*` stands for any \
                 characters; norms, biases and the tower's embeddings are always f32",
            ),
            Self::PloraScale { .. } => None,
        }
    }
}

/// A tensor to write.
#[derive(Clone, Debug)]
pub struct Write {
    /// Part of the file.
    pub part: Part,
    /// Tensor in the checkpoint.
    pub source: SourceTensor,
    /// Tensor in the output file.
    pub target: TensorInfo,
    /// The requested type, which the row length may not allow.
    pub wanted: GgmlType,
    /// How its rows are rearranged.
    pub rearrange: Rearrange,
    /// Factor of every element.
    pub scale: f32,
    /// Products that are added.
    pub added: Vec<LowRank>,
    /// Whether the source's packed numbers are copied.
    pub exact: bool,
}

impl Write {
    /// Bytes in the file.
    pub fn n_bytes(&self) -> usize {
        self.target.n_bytes().expect("the type fits the rows")
    }
}

/// Everything that a conversion will do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The recognised model.
    pub model: Model,
    /// Tensors in file order.
    pub writes: Vec<Write>,
    /// Header and offsets.
    pub layout: Layout,
    /// Tensors of the checkpoint that are not written.
    pub ignored: Vec<String>,
    /// Notes on anything unexpected about files and vocabulary.
    pub notes: Vec<String>,
}

impl Plan {
    /// Plans the conversion of a checkpoint.
    ///
    /// # Errors
    /// If the checkpoint cannot be converted, or an option does not apply.
    pub fn new(checkpoint: &Checkpoint, options: &Options) -> Result<Self, PlanError> {
        if let Some(found) = options.plora_scale.filter(|s| !is_plora_scale(*s)) {
            return Err(PlanError::PloraScale { found });
        }
        let model = Model::detect(checkpoint, options.family, options.task)?;
        let mix = Mix {
            preset: options.mix.preset.resolve(checkpoint.packed().is_some()),
            ..options.mix.clone()
        };
        let tokenizer = Tokenizer::read(checkpoint, model.decoder.n_vocab)?;
        let mapped = tensor_map(&model, |a| plora_rank(checkpoint, a))?;
        check_patterns(&mapped, &options.mix)?;
        let (alpha, fold) = adapter_scale(&mapped, options.plora_scale);
        let mut writes = Vec::with_capacity(mapped.len());
        for tensor in &mapped {
            let scale = if fold && tensor.target.ends_with(".lora_b") {
                plora_scale(tensor.shape[1], options.plora_scale)
            } else {
                1.0
            };
            writes.push(plan_write(checkpoint, &model, tensor, &mix, scale)?);
        }
        let exact = is_exact(&writes).then(|| checkpoint.packed()).flatten();
        let words = mix
            .preset
            .option()
            .into_iter()
            .chain([options.command_line.clone()]);
        let words: Vec<String> = words.filter(|word| !word.is_empty()).collect();
        let command_line = words.join(" ");
        let facts = Facts {
            checkpoint,
            model: &model,
            tokenizer: &tokenizer,
            preset: mix.preset,
            exact,
            options: &command_line,
        };
        let layout = lay_out(&facts, &writes, alpha);
        let ignored = ignored(checkpoint, &mapped);
        let mut notes = [checkpoint.notes(), &tokenizer.notes[..]].concat();
        notes.extend(adapters::left_out(checkpoint, options.task));
        notes.extend(packed_notes(checkpoint, &writes, options.mix.preset));
        notes.extend(vocab_size_note(checkpoint, model.decoder.n_vocab));
        Ok(Self {
            model,
            writes,
            layout,
            ignored,
            notes,
        })
    }

    /// Number of bytes to read.
    pub fn source_bytes(&self) -> u64 {
        self.writes.iter().map(|w| w.source.n_bytes() as u64).sum()
    }
}

/// Scale of a Partial-LoRA pair, which the checkpoint does not contain: in the published code alpha equals the
/// rank, except for rank 8, the class's default, whose alpha is 16.
pub fn plora_scale(rank: usize, requested: Option<f32>) -> f32 {
    requested.unwrap_or(if rank == 8 { 2.0 } else { 1.0 })
}

/// Upper limit of the scale: keeps alpha = scale * rank finite; anything larger is a typing error.
pub const MAX_PLORA_SCALE: f32 = 1e6;

/// Whether a scale of Partial-LoRA is valid: positive and not too large. 0 is not valid, because llama.cpp
/// interprets an alpha of 0 as a scale of 1.
pub fn is_plora_scale(scale: f32) -> bool {
    scale > 0.0 && scale <= MAX_PLORA_SCALE
}

/// Alpha of the adapter, and whether the scale is multiplied into `lora_b` instead: a file has only one alpha, so
/// with several ranks it is 0.
fn adapter_scale(mapped: &[Mapped], requested: Option<f32>) -> (f32, bool) {
    let is_b = |t: &&Mapped| t.part == Part::Plora && t.target.ends_with(".lora_b");
    let mut ranks: Vec<usize> = mapped.iter().filter(is_b).map(|t| t.shape[1]).collect();
    ranks.sort_unstable();
    ranks.dedup();
    match ranks[..] {
        [rank] => (plora_scale(rank, requested) * rank as f32, false),
        _ => (0.0, true),
    }
}

fn plora_rank(checkpoint: &Checkpoint, name: &str) -> Result<usize, CheckpointError> {
    let a = checkpoint.require(name)?;
    match a.shape[..] {
        [rank, _] if rank > 0 => Ok(rank),
        _ => Err(CheckpointError::Shape {
            name: a.name.clone(),
            expected: vec![a.n_rows().max(1), a.row_len()],
            found: a.shape.clone(),
        }),
    }
}

fn check_patterns(mapped: &[Mapped], mix: &Mix) -> Result<(), PlanError> {
    let is_matrix = |t: &&Mapped| t.role != crate::tensor_map::Role::Exact;
    for (pattern, _) in &mix.tensors {
        if !mapped
            .iter()
            .filter(is_matrix)
            .any(|t| pattern.matches(&t.target))
        {
            let pattern = pattern.0.clone();
            return Err(PlanError::UnusedPattern { pattern });
        }
    }
    Ok(())
}

fn plan_write(
    checkpoint: &Checkpoint,
    model: &Model,
    tensor: &Mapped,
    mix: &Mix,
    scale: f32,
) -> Result<Write, PlanError> {
    let source = find_source(checkpoint, model, tensor)?;
    let added = adapters::of(checkpoint, tensor, model.task)?;
    let stored = match source.packed() {
        None => Stored::Dense,
        Some(packed) => match packed.exact_type().filter(|_| added.is_empty()) {
            Some(ty) => Stored::Exact(ty),
            None => Stored::Inexact,
        },
    };
    let choice = mix.choose(tensor, model.decoder.n_layer, stored);
    let (vision, decoder) = (&model.vision, &model.decoder);
    let rearrange = match tensor.rows {
        Rows::Keep | Rows::Vector => Rearrange::Keep,
        Rows::Qkv => Rearrange::Qkv {
            n_head: decoder.n_head,
            n_head_kv: decoder.n_head_kv,
            d_head: decoder.d_head,
        },
        Rows::Positions => Rearrange::Positions {
            from: vision.stored_grid,
            to: vision.grid(),
        },
    };
    let mut shape: Vec<usize> = tensor.shape.iter().rev().copied().collect();
    if let [_, rows] = &mut shape[..] {
        *rows = rearrange.n_rows(source);
    }
    Ok(Write {
        part: tensor.part,
        source: source.clone(),
        target: TensorInfo::new(&tensor.target, choice.ty, shape),
        wanted: choice.wanted,
        rearrange,
        scale,
        added,
        exact: stored == Stored::Exact(choice.ty) && scale == 1.0,
    })
}

/// Whether the file holds the packed numbers of the checkpoint and no other quantized ones in their types.
fn is_exact(writes: &[Write]) -> bool {
    let few_bits = |w: &&Write| matches!(w.target.ty, GgmlType::Q4_0 | GgmlType::Q5_0);
    let of_decoder = writes.iter().filter(|w| w.part == Part::Decoder);
    let mut few_bits = of_decoder.filter(few_bits).peekable();
    few_bits.peek().is_some() && few_bits.all(|w| w.exact)
}

/// What becomes of packed layers.
fn packed_notes(checkpoint: &Checkpoint, writes: &[Write], asked: Preset) -> Vec<String> {
    let Some(format) = checkpoint.packed() else {
        return Vec::new();
    };
    let packed = || writes.iter().filter(|w| w.source.packed().is_some());
    let n_exact = packed().filter(|w| w.exact).count();
    let n_anew = packed().count() - n_exact;
    let name = format.name();
    let mut notes = Vec::new();
    if n_exact > 0 {
        notes.push(format!("{n_exact} {name} matrices are stored bit for bit"));
    }
    if asked != Preset::Default && asked.base().is_quantized() && n_anew > 0 {
        notes.push(format!(
            "{n_anew} {name} matrices are quantized twice, which loses accuracy and gains nothing: without a type \
             option their numbers are kept exactly"
        ));
    } else if n_anew > 0 && asked == Preset::Default {
        notes.push(format!(
            "{n_anew} {name} matrices have groups in another order or merged adapters, which no type can hold \
             exactly: they are quantized anew"
        ));
    }
    if format == PackedFormat::Awq {
        notes.push(
            "AWQ folds factors into norms and weights, likely without Partial-LoRA, which then acts on other inputs \
             than it was trained on; the bf16 checkpoint converted with --q4_k is likely better"
                .to_owned(),
        );
    }
    notes
}

/// The tensor of the checkpoint, if it has the expected shape and a supported type.
fn find_source<'a>(
    checkpoint: &'a Checkpoint,
    model: &Model,
    tensor: &Mapped,
) -> Result<&'a SourceTensor, CheckpointError> {
    let name = match &tensor.source[..] {
        "output.weight" if model.tied_embeddings => "model.tok_embeddings.weight",
        name => name,
    };
    let source = checkpoint.require(name)?;
    let name = || source.name.clone();
    let leading = match tensor.rows {
        Rows::Vector => source.shape.iter().take_while(|n| **n == 1).count(),
        _ => 0,
    };
    if source.shape[leading..] != tensor.shape {
        return Err(CheckpointError::Shape {
            name: name(),
            expected: tensor.shape.clone(),
            found: source.shape.clone(),
        });
    }
    match &source.dtype {
        Dtype::Float(_) | Dtype::Packed(_) => Ok(source),
        other => Err(CheckpointError::Dtype {
            name: name(),
            found: other.to_string(),
        }),
    }
}

fn lay_out(facts: &Facts, writes: &[Write], alpha: f32) -> Layout {
    let of = |part: Part| {
        let part = writes.iter().filter(move |w| w.part == part);
        part.map(|w| w.target.clone())
    };
    let vision = of(Part::Vision).chain(of(Part::Projector)).collect();
    let adapter = Header {
        metadata: metadata::adapter(facts, alpha),
        tensors: of(Part::Plora).collect(),
    };
    let decoder = Header {
        metadata: metadata::decoder(facts),
        tensors: of(Part::Decoder).collect(),
    };
    Layout::new(metadata::outer(facts), vision, adapter, decoder)
}

/// A note if the configuration's vocabulary size differs from the rows of the embeddings, which count.
fn vocab_size_note(checkpoint: &Checkpoint, n_rows: usize) -> Option<String> {
    let configured = checkpoint.config().get("vocab_size")?.as_u64()?;
    (configured != n_rows as u64).then(|| {
        format!(
            "config.json: `vocab_size: {configured}`; using {n_rows}, the number of rows of the embeddings"
        )
    })
}

fn ignored(checkpoint: &Checkpoint, mapped: &[Mapped]) -> Vec<String> {
    let used: std::collections::HashSet<&str> = mapped.iter().map(|t| &t.source[..]).collect();
    let names = checkpoint.tensors().map(|t| &t.name);
    let left =
        names.filter(|n| !used.contains(&n[..]) && !is_known_unused(n) && !adapters::is_known(n));
    let mut left: Vec<String> = left.cloned().collect();
    left.sort();
    left
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for write in &self.writes {
            let shape = |shape: &mut dyn Iterator<Item = &usize>| {
                let dims: Vec<String> = shape.map(ToString::to_string).collect();
                dims.join("x")
            };
            let note = match write.rearrange {
                _ if write.exact => " (bit for bit)",
                _ if !write.added.is_empty() => " (adapters merged)",
                Rearrange::Keep if write.wanted == write.target.ty => "",
                Rearrange::Keep => " (row length does not fit the requested type)",
                Rearrange::Qkv { .. } => " (heads reordered)",
                Rearrange::Positions { .. } => " (resized)",
            };
            writeln!(
                f,
                "{:<9} {:<44} {:<5} {:>14} <- {} {} {}{note}",
                write.part,
                write.target.name,
                write.target.ty,
                shape(&mut write.target.shape.iter().rev()),
                write.source.name,
                write.source.dtype,
                shape(&mut write.source.shape.iter()),
            )?;
        }
        Ok(())
    }
}
