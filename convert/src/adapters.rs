//! The task adapters of the 2.5 models, which act on all tokens and are merged into the weights: `W + B A`.

use xc2_edge::model::container::Task;

use crate::{
    checkpoint::{Checkpoint, CheckpointError, SourceTensor},
    model::ModelError,
    tensor_map::{Mapped, Part, Role},
};

/// All adapters, by the part of their names.
const ALL: [&str; 3] = ["lora_sft", "lora_dpo", "lora_web"];

/// Tensors of the OmniLive models that chat about pictures does not use.
const VIDEO_MEMORY: &str = "video_mem_proj.";

/// A product that is added to a matrix: `b: [n_out, rank]` times `a: [rank, n_in]`.
#[derive(Clone, Debug)]
pub struct LowRank {
    /// The first matrix of the product that an input meets.
    pub a: SourceTensor,
    /// The second; it has the rows of the matrix.
    pub b: SourceTensor,
}

/// The adapters of a task.
fn adapters(task: Task) -> &'static [&'static str] {
    match task {
        Task::Base => &[],
        Task::Write => &["lora_sft", "lora_dpo"],
        Task::Web => &["lora_web"],
    }
}

/// The products that a task adds to a tensor.
///
/// # Errors
/// If an adapter is missing or has another shape.
pub fn of(
    checkpoint: &Checkpoint,
    tensor: &Mapped,
    task: Task,
) -> Result<Vec<LowRank>, ModelError> {
    let is_linear =
        tensor.part == Part::Decoder && tensor.layer.is_some() && tensor.role != Role::Exact;
    if !is_linear {
        return Ok(Vec::new());
    }
    let linear = tensor.source.trim_end_matches(".weight");
    let pairs = adapters(task)
        .iter()
        .map(|adapter| low_rank(checkpoint, tensor, linear, adapter, task));
    pairs.collect()
}

fn low_rank(
    checkpoint: &Checkpoint,
    tensor: &Mapped,
    linear: &str,
    adapter: &str,
    task: Task,
) -> Result<LowRank, ModelError> {
    let get = |half: &str| {
        let name = format!("{linear}.{adapter}_{half}.weight");
        checkpoint.get(&name).ok_or(ModelError::NoAdapters {
            mode: task.name(),
            expected: name,
        })
    };
    let (a, b) = (get("A")?, get("B")?);
    let (n_out, n_in, rank) = (tensor.shape[0], tensor.shape[1], a.n_rows());
    for (half, expected) in [(a, vec![rank, n_in]), (b, vec![n_out, rank])] {
        if half.shape != expected {
            return Err(CheckpointError::Shape {
                name: half.name.clone(),
                expected,
                found: half.shape.clone(),
            }
            .into());
        }
    }
    Ok(LowRank {
        a: a.clone(),
        b: b.clone(),
    })
}

/// Whether a tensor belongs to an adapter, or to a part that is left out with a note.
pub fn is_known(name: &str) -> bool {
    let of_adapter = |adapter: &str| {
        name.ends_with(&format!(".{adapter}_A.weight"))
            || name.ends_with(&format!(".{adapter}_B.weight"))
    };
    ALL.iter().any(|adapter| of_adapter(adapter)) || name.starts_with(VIDEO_MEMORY)
}

/// Notes on the tensors that are left out on purpose.
pub fn left_out(checkpoint: &Checkpoint, task: Task) -> Vec<String> {
    let has = |part: &str| checkpoint.tensors().any(|t| t.name.contains(part));
    let merged = adapters(task);
    let dropped: Vec<&str> = ALL
        .into_iter()
        .filter(|adapter| !merged.contains(adapter) && has(&format!(".{adapter}_A.")))
        .collect();
    let mut notes = Vec::new();
    if !merged.is_empty() {
        notes.push(format!("merged into the decoder: {}", merged.join(", ")));
    }
    if !dropped.is_empty() {
        notes.push(format!(
            "left out: {}; `--mode write` merges the adapters for articles, `--mode web` those for web pages",
            dropped.join(", ")
        ));
    }
    if has(VIDEO_MEMORY) {
        notes.push(format!(
            "left out: `{VIDEO_MEMORY}*`, the video memory of OmniLive, which questions about pictures do not use"
        ));
    }
    notes
}
