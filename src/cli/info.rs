//! `xc2-edge info`.

use std::{io::Write, process::ExitCode};

use clap::Args;
use serde_json::json;
use xc2_edge::{
    engine::memory::MemoryNeed,
    engine::{self, EngineOptions},
    language::llama,
    model::{
        Tiling,
        container::{Container, ModelInfo, View},
    },
    system::{self, units::human},
    vision::VisionEncoder,
    vision::VisionError,
};

use super::engine_args::{EngineArgs, ParallelArgs};

/// Show what a model file contains and how much memory it needs.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  xc2-edge info -m model.gguf
  xc2-edge info -m model.gguf --json | jq .memory
  xc2-edge info -m model.gguf -c 4096 --kv-type q8_0
  xc2-edge info -m model.gguf --parallel 8
  xc2-edge info -m model.gguf --checksum

Memory is estimated for one picture and 512 more tokens, or for --ctx-size, with the other options
as in `run`. With --parallel N it is estimated for N such contexts, as in `caption`.")]
pub struct InfoArgs {
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    parallel: ParallelArgs,
    /// Read all data and compare it with the checksum in the file.
    #[arg(long)]
    checksum: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &InfoArgs) -> anyhow::Result<ExitCode> {
    let options = args.engine.options();
    let container = engine::open(&args.engine.model)?;
    let vision = container.info().vision.clone();
    let encoder = VisionEncoder::new(vision, &container, options.tower)?;
    if args.checksum {
        verify_checksum(&container, &args.engine.model)?;
    }
    let max = container.info().max_context();
    if let Some(asked) = options.n_ctx.filter(|n| !(1..=max).contains(n)) {
        return Err(engine::EngineError::ContextTooLong { asked, max }.into());
    }
    let n_ctx = options.n_ctx.unwrap_or_else(|| usual_context(&container));
    let n_parallel = args.parallel.count().unwrap_or(1);
    let need = |pictures| {
        let tower = Some(&encoder).filter(|_| pictures);
        let load = options.workload(n_parallel * n_ctx, n_ctx, tower);
        MemoryNeed::of(&container, load)
    };
    let memory = Memory {
        n_ctx,
        n_parallel,
        need: need(true),
        text_only: need(false),
        available: system::memory::available(),
    };
    let kernels = llama::kernels(options.matmul_backend);
    let text = if args.json {
        format!("{:#}\n", as_json(&container, &memory, &kernels))
    } else {
        as_text(&container, &memory, &kernels, args.checksum)
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// Context size for a question about one picture, with 512 positions to spare.
fn usual_context(container: &Container) -> usize {
    let info = container.info();
    info.max_context()
        .min(info.vision.n_usual_embeddings() + 512)
}

/// Memory need of such a question with default options.
///
/// # Errors
/// If the tower is damaged.
pub fn usual_need(container: &Container) -> Result<MemoryNeed, VisionError> {
    let options = EngineOptions::default();
    let vision = container.info().vision.clone();
    let encoder = VisionEncoder::new(vision, container, options.tower)?;
    let n_ctx = usual_context(container);
    Ok(MemoryNeed::of(
        container,
        options.workload(n_ctx, n_ctx, Some(&encoder)),
    ))
}

fn verify_checksum(container: &Container, path: &std::path::Path) -> anyhow::Result<()> {
    let mut progress = super::progress::Progress::default();
    let total = container.file().data().len();
    let outcome =
        container.verify_checksum(|done| progress.update("checksum", done as usize, total));
    progress.clear();
    outcome.map_err(|source| {
        engine::EngineError::Container {
            path: path.to_owned(),
            source,
        }
        .into()
    })
}

/// Memory need of a run.
struct Memory {
    n_ctx: usize,
    /// Number of contexts of that size.
    n_parallel: usize,
    /// With pictures.
    need: MemoryNeed,
    /// Without.
    text_only: MemoryNeed,
    available: Option<u64>,
}

impl Memory {
    fn lines(&self) -> Vec<String> {
        let need = &self.need;
        let contexts = match self.n_parallel {
            1 => "a context".to_owned(),
            n => format!("{n} contexts"),
        };
        let mut lines = vec![
            format!(
                "memory     {} with {contexts} of {}: weights {}, keys and values {}, rest {}",
                human(need.total()),
                self.n_ctx,
                human(need.all_weights()),
                human(need.kv_cache),
                human(need.rest())
            ),
            format!(
                "           {} without pictures",
                human(self.text_only.total())
            ),
        ];
        if let Some(available) = self.available {
            lines.push(format!(
                "           {} available on this machine now",
                human(available)
            ));
        }
        lines
    }

    fn as_json(&self, file_bytes: u64) -> serde_json::Value {
        json!({
            "n_ctx": self.n_ctx, "n_parallel": self.n_parallel, "need": self.need,
            "total_bytes": self.need.total(),
            "peak_resident_bytes": self.need.peak_resident(file_bytes),
            "text_only": {
                "total_bytes": self.text_only.total(),
                "peak_resident_bytes": self.text_only.peak_resident(file_bytes),
            },
            "available_bytes": self.available,
        })
    }
}

/// A part of the file: name, number of tensors, parameters, bytes, and the types in it.
struct Part {
    name: &'static str,
    n_tensors: usize,
    n_params: usize,
    n_bytes: usize,
    types: Vec<&'static str>,
}

/// The parts in file order. A view's header counts for the part that it describes.
fn parts(container: &Container) -> Vec<Part> {
    let part = |name| Part {
        name,
        n_tensors: 0,
        n_params: 0,
        n_bytes: 0,
        types: Vec::new(),
    };
    let mut parts = vec![
        part("vision"),
        part("projector"),
        part("plora"),
        part("decoder"),
    ];
    let mut current = 0;
    for tensor in container.file().tensors() {
        let is_view = [View::Adapter, View::Decoder]
            .iter()
            .position(|v| v.tensor_name() == tensor.name);
        current = match is_view {
            Some(view) => view + 2,
            None if tensor.name.starts_with("mm.") => 1,
            None => current,
        };
        let part = &mut parts[current];
        part.n_bytes += tensor.n_bytes().unwrap_or(0);
        if is_view.is_none() {
            part.n_tensors += 1;
            part.n_params += tensor.shape.iter().product::<usize>();
            if !part.types.contains(&tensor.ty.name()) {
                part.types.push(tensor.ty.name());
            }
        }
    }
    parts
}

fn as_text(container: &Container, memory: &Memory, kernels: &str, checked: bool) -> String {
    let info = container.info();
    let d = &info.decoder;
    let mut lines = vec![
        format!("{} ({})", info.name, info.family.name()),
        format!(
            "file       {}, {}",
            container.path().display(),
            human(container.file().file_bytes() as u64)
        ),
        format!("made of    {} by {}", info.source, info.converter),
        format!(
            "checksum   {}{}",
            container.checksum().unwrap_or("none"),
            if checked {
                " (data match)"
            } else {
                " (not checked; --checksum)"
            }
        ),
        format!("pictures   {}", pictures(info)),
        format!(
            "decoder    {} layers, width {}, {} heads ({} for keys and values), {} pieces, context up to {}",
            d.n_layer,
            d.n_embd,
            d.n_head,
            d.n_head_kv,
            d.n_vocab,
            info.max_context()
        ),
        String::new(),
        format!(
            "{:<10} {:>7} {:>10} {:>10}  types",
            "part", "tensors", "params", "size"
        ),
    ];
    for p in parts(container) {
        let params = format!("{:.1} M", p.n_params as f64 / 1e6);
        let (size, types) = (human(p.n_bytes as u64), p.types.join(" "));
        lines.push(format!(
            "{:<10} {:>7} {params:>10} {size:>10}  {types}",
            p.name, p.n_tensors
        ));
    }
    lines.push(String::new());
    lines.extend(memory.lines());
    lines.push(format!("tower      {}", xc2_edge::vision::kernels()));
    lines.push(format!("products   {kernels}"));
    lines.push(format!("llama.cpp  {}", llama::system_info()));
    lines.join("\n") + "\n"
}

/// The size of pictures, and the positions that they take.
fn pictures(info: &ModelInfo) -> String {
    let (vision, side) = (&info.vision, info.vision.image_size);
    match vision.tiling {
        None => format!("{side}x{side} pixels, {} tokens each", vision.n_patches()),
        Some(tiling) => format!(
            "tiles of {side}x{side} pixels, up to {} a picture (--hd-num), {} to {} tokens",
            tiling.default_hd_num(),
            vision.n_embeddings_at_most(1),
            vision.n_usual_embeddings()
        ),
    }
}

fn as_json(container: &Container, memory: &Memory, kernels: &str) -> serde_json::Value {
    let info = container.info();
    let parts: Vec<_> = parts(container)
        .into_iter()
        .map(|p| {
            json!({
                "name": p.name, "n_tensors": p.n_tensors, "n_params": p.n_params,
                "n_bytes": p.n_bytes, "types": p.types,
            })
        })
        .collect();
    json!({
        "name": info.name,
        "family": info.family.name(),
        "path": container.path(),
        "file_bytes": container.file().file_bytes(),
        "source": info.source,
        "converter": info.converter,
        "checksum": container.checksum().ok(),
        "image": {
            "size": info.vision.image_size, "n_tokens": info.vision.n_usual_embeddings(),
            "tiling": info.vision.tiling.map(Tiling::name),
            "hd_num": info.vision.tiling.map(Tiling::default_hd_num),
        },
        "task": info.task.name(),
        "decoder": {
            "n_layer": info.decoder.n_layer, "n_embd": info.decoder.n_embd,
            "n_head": info.decoder.n_head, "n_head_kv": info.decoder.n_head_kv,
            "n_ff": info.decoder.n_ff, "n_vocab": info.decoder.n_vocab,
            "max_context": info.max_context(),
        },
        "parts": parts,
        "memory": memory.as_json(container.file().file_bytes() as u64),
        "kernels": {
            "tower": xc2_edge::vision::kernels(), "decoder": kernels,
            "llama.cpp": llama::system_info(),
        },
    })
}
