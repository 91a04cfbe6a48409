//! Runs the stages.

use std::ops::ControlFlow;
use xc2_edge::system;

use anyhow::ensure;
use ndarray::Array2;
use xc2_edge::{
    engine::{Engine, EngineError, N_BATCH},
    language::{
        decoder::Decoder,
        llama::{MatmulBackend, argmax},
        prompt::{PictureId, PloraPolicy, Prompt, Sequence},
    },
    model::TileGrid,
    vision::{StageObserver, image::RgbImage},
};
use xc2_kernels::peak::{self, Peak};

use super::{
    BenchArgs, Stage,
    profile::Profile,
    samples::Samples,
    table::{Rate, Row, Table},
};
use crate::cli::{
    arithmetic::{Arithmetic, decoder_operations, plora_operations},
    progress::Progress,
};

/// The only sequence used here.
const SEQ: usize = 0;

/// Measures the requested stages.
pub fn run(args: &BenchArgs) -> anyhow::Result<Table> {
    let n_threads = args.engine.n_threads();
    crate::cli::use_threads(n_threads)?;
    let (peak, read) = (Peak::measure(n_threads), peak::memory_read(n_threads));
    let mut bench = Bench::new(args)?;
    let mut rows = Vec::new();
    for stage in &args.stages {
        rows.extend(bench.stage(*stage)?);
    }
    bench.progress.clear();
    Ok(Table::new(bench.engine, n_threads, peak, read, rows))
}

struct Bench<'a> {
    args: &'a BenchArgs,
    engine: Engine,
    /// What loading took, before anything else ran.
    load: Option<(Samples, Option<u64>)>,
    n_prompt: usize,
    n_ctx: usize,
    progress: Progress,
}

impl<'a> Bench<'a> {
    fn new(args: &'a BenchArgs) -> anyhow::Result<Self> {
        let info = xc2_edge::engine::open(&args.engine.model)?.info().clone();
        let per_picture = match info.vision.tiling {
            None => info.vision.n_patches(),
            Some(_) => info.vision.n_tiled_embeddings(GRID),
        };
        let pictures = usize::from(args.images) * per_picture;
        let n_prompt = args.n_prompt.map_or(pictures, |n| n as usize);
        let needed = n_prompt + args.n_decode as usize;
        let n_ctx = args.engine.ctx_size.unwrap_or(needed);
        let max = info.max_context();
        if n_ctx > max {
            return Err(EngineError::ContextTooLong { asked: n_ctx, max }.into());
        }
        ensure!(
            needed <= n_ctx,
            "`-p` {n_prompt} and `-n` {} take {needed} positions, but `--ctx-size` is {n_ctx}",
            args.n_decode
        );
        system::memory::reset_peak();
        let mut progress = Progress::default();
        let mut load = None;
        let engine = if args.stages.contains(&Stage::Load) {
            let (engine, samples) = load_again(args, n_ctx, &mut progress)?;
            load = Some((samples, system::memory::peak()));
            engine
        } else {
            Engine::load(&args.engine.model, args.engine.options())?
        };
        Ok(Self {
            args,
            engine,
            load,
            n_prompt,
            n_ctx,
            progress,
        })
    }

    fn stage(&mut self, stage: Stage) -> anyhow::Result<Vec<Row>> {
        if stage == Stage::Load {
            let loaded = self.load.take();
            return Ok(loaded.map(load_row).into_iter().collect());
        }
        system::memory::reset_peak();
        let mut rows = match stage {
            Stage::Load => Vec::new(),
            Stage::Encode => self.encode(),
            Stage::Prefill => self.by_both(|bench| bench.prefill(false))?,
            Stage::Plora => self.by_both(|bench| bench.prefill(true))?,
            Stage::Decode => self.by_both(Self::decode)?,
        };
        rows[0].peak_memory = system::memory::peak();
        Ok(rows)
    }

    /// A stage of the decoder as it was asked for, and with `--compare` by llama.cpp's own kernels, too.
    fn by_both(
        &mut self,
        measure: impl Fn(&mut Self) -> anyhow::Result<Row>,
    ) -> anyhow::Result<Vec<Row>> {
        let asked = self.engine.matmul_backend();
        let mut all = vec![asked];
        if self.args.compare && asked != MatmulBackend::Ggml {
            all.push(MatmulBackend::Ggml);
        }
        let rows = all.into_iter().map(|products| {
            self.engine.set_matmul_backend(products);
            let products = Some(products);
            measure(self).map(|row| Row { products, ..row })
        });
        let rows = rows.collect();
        self.engine.set_matmul_backend(asked);
        rows
    }

    /// Times runs of a stage, with progress.
    fn take<E>(
        &mut self,
        stage: Stage,
        mut run: impl FnMut(&Engine) -> Result<(), E>,
    ) -> Result<Samples, E> {
        let n = usize::from(self.args.repetitions);
        let (engine, progress) = (&self.engine, &mut self.progress);
        Samples::take(n, |done| {
            progress.update(stage.name(), done, n + 1);
            run(engine)
        })
    }

    fn encode(&mut self) -> Vec<Row> {
        let images = self.args.images;
        let config = self.engine.encoder().config().clone();
        let picture = picture(&self.engine);
        let mut profile = Profile::default();
        let samples = self.take(Stage::Encode, |engine| {
            profile.begin();
            for _ in 0..images {
                std::hint::black_box(encode(engine, &picture, &mut profile));
            }
            Ok::<_, EngineError>(())
        });
        let samples = samples.expect("encoding cannot fail");
        let n = f64::from(images);
        let n_inputs = n * config.tiling.map_or(1.0, |_| 1.0 + GRID.len() as f64);
        let size = config.image_size;
        let arithmetic =
            Arithmetic::of_tower(self.engine.container(), self.args.engine.options().tower);
        let plural = if images == 1 { "" } else { "s" };
        let mut rows = vec![Row {
            rate: Some(Rate::new(n, "pictures/s")),
            operations: Some((n_inputs * config.flops(), arithmetic)),
            ..Row::new(
                "encode",
                format!("{images} picture{plural} of {size} px"),
                samples,
            )
        }];
        for (part, samples) in profile.parts() {
            let operations = n_inputs * part.operations(&config);
            rows.push(Row {
                operations: Some((operations, arithmetic)),
                part_of: Some("encode"),
                ..Row::new(part.name(), String::new(), samples)
            });
        }
        rows
    }

    /// Prefill of text, or of picture embeddings with Partial-LoRA.
    fn prefill(&mut self, plora: bool) -> anyhow::Result<Row> {
        let n = self.n_prompt;
        let stage = if plora { Stage::Plora } else { Stage::Prefill };
        let prompt = SyntheticPrompt::new(&self.engine, n, plora);
        let mut decoder = self.engine.decoder(n, N_BATCH, 1, 1)?;
        let samples = self.take(stage, |_| prompt.compute(&mut decoder))?;
        let what = if plora {
            "positions with Partial-LoRA"
        } else {
            "positions of text"
        };
        let mut per_position = decoder_operations(self.engine.container());
        if plora {
            per_position += plora_operations(self.engine.container());
        }
        Ok(Row {
            rate: Some(Rate::new(n as f64, "tokens/s")),
            operations: Some((
                n as f64 * per_position,
                Arithmetic::of_decoder(self.engine.container()),
            )),
            ..Row::new(stage.name(), format!("{n} {what}"), samples)
        })
    }

    /// Greedy decoding after the prompt, ignoring stop tokens.
    fn decode(&mut self) -> anyhow::Result<Row> {
        let (n_prompt, n) = (self.n_prompt, self.args.n_decode as usize);
        let prompt = SyntheticPrompt::new(&self.engine, n_prompt, false);
        let mut decoder = self.engine.decoder(self.n_ctx, N_BATCH, 1, 1)?;
        prompt.compute(&mut decoder)?;
        let first = argmax(decoder.logits());
        let samples = self.take(Stage::Decode, |_| {
            decoder.truncate(SEQ, n_prompt);
            let mut id = first;
            for _ in 0..n {
                decoder.step(SEQ, id, false)?;
                id = argmax(decoder.logits());
            }
            Ok::<_, EngineError>(())
        })?;
        Ok(Row {
            rate: Some(Rate::new(n as f64, "tokens/s")),
            weights_read: Some(n as f64 * self.engine.memory_need(1).decoder as f64),
            ..Row::new("decode", format!("{n} tokens after {n_prompt}"), samples)
        })
    }
}

/// Loads the model repeatedly, each time with a context; keeps the last.
fn load_again(
    args: &BenchArgs,
    n_ctx: usize,
    progress: &mut Progress,
) -> anyhow::Result<(Engine, Samples)> {
    let n = usize::from(args.repetitions);
    let mut kept = None;
    let samples = Samples::take(n, |done| {
        progress.update("load", done, n + 1);
        kept = None;
        let engine = Engine::load(&args.engine.model, args.engine.options())?;
        engine.decoder(n_ctx, N_BATCH, 1, 1)?;
        kept = Some(engine);
        Ok::<_, EngineError>(())
    })?;
    Ok((kept.expect("it ran at least once"), samples))
}

fn load_row((samples, peak_memory): (Samples, Option<u64>)) -> Row {
    Row {
        peak_memory,
        ..Row::new("load", "model and context".to_owned(), samples)
    }
}

/// A synthetic picture, preprocessed for the tower.
fn picture(engine: &Engine) -> RgbImage {
    let side = engine.preprocessor().image_size();
    RgbImage::from_fn(side, side, |x, y| {
        [(x * y) as u8, (x + 3 * y) as u8, (x ^ y) as u8].into()
    })
}

/// The tiles of the measured picture, for models that cut pictures into tiles: the tower sees the whole picture, and
/// one tile.
const GRID: TileGrid = TileGrid { rows: 1, cols: 1 };

/// Encodes a picture of the tower's size.
fn encode(engine: &Engine, picture: &RgbImage, observer: &mut dyn StageObserver) -> Array2<f32> {
    let (preprocessor, encoder) = (engine.preprocessor(), engine.encoder());
    match encoder.config().tiling {
        None => encoder.encode_observed(&preprocessor.pixel_values(picture), observer),
        Some(_) => {
            let mut pixels = |i| preprocessor.tile_pixels(picture, GRID, i);
            encoder.encode_tiles_observed(GRID, &mut pixels, observer)
        }
    }
}

/// A synthetic prompt: text, or the embeddings of one large picture.
struct SyntheticPrompt {
    prompt: Prompt,
    /// `[n, n_embd]`
    embeddings: Option<Array2<f32>>,
}

impl SyntheticPrompt {
    fn new(engine: &Engine, n: usize, plora: bool) -> Self {
        let decoder = &engine.container().info().decoder;
        let mut sequence = Sequence::default();
        let mut embeddings = None;
        if plora {
            sequence.push_image(0, n);
            let value = |(i, j): (usize, usize)| ((i * 31 + j * 7) % 101) as f32 / 101.0 - 0.5;
            embeddings = Some(Array2::from_shape_fn((n, decoder.n_embd), value));
        } else {
            let id = |i| ((i * 31 + 3) % decoder.n_vocab) as i32;
            let ids: Vec<_> = (0..n).map(id).collect();
            sequence.push_tokens(&ids);
        }
        let pictures = [PictureId::of_file(b"synthetic")];
        Self {
            prompt: Prompt::new(sequence, PloraPolicy::Images, &pictures),
            embeddings,
        }
    }

    fn compute(&self, decoder: &mut Decoder) -> Result<(), EngineError> {
        decoder.truncate(SEQ, 0);
        let rows = [self.embeddings.as_ref().map(|e| e.view())];
        let go_on = |_| ControlFlow::Continue(());
        Ok(decoder.prefill(SEQ, &self.prompt, &rows, go_on).map(drop)?)
    }
}
