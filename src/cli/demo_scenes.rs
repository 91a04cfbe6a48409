//! `xc2-edge demo-scenes`.

use std::{
    fs,
    io::{Cursor, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context, ensure};
use clap::Args;
use image::ImageFormat;
use xc2_edge::{
    evaluation::scenes::{MAX_SIDE, Scene, Truth, render},
    system::atomic_file::{self, Leftovers},
};

use super::{number::whole, progress::Progress, seeds::Seeds};

/// Draw scenes that the bundled model knows, with captions that describe them.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  xc2-edge demo-scenes 200..210 scenes
  xc2-edge demo-scenes 42..43 one --size 168
  xc2-convert models/xc2-scenes xc2-scenes.gguf --q4_k     # the bundled model, from the repository
  xc2-edge run -m xc2-scenes.gguf --image scenes/scene-00200.png -p 'Describe this image briefly.'
  xc2-edge caption -m xc2-scenes.gguf scenes -o captions.jsonl

A seed gives the same picture on every machine. DIR gets scene-SEED.png for each seed, and
truth.jsonl with one line per picture: file, seed, caption (the expected answer to `Describe this
image briefly.`), detailed (the answer to `Please describe this image in detail.`), chinese,
background and things. The bundled model was trained only on seeds from 1000000 on.")]
pub struct DemoScenesArgs {
    /// Scenes to draw, as FIRST..END; END is not included.
    #[arg(value_name = "SEED..SEED")]
    seeds: Seeds,
    /// Directory for the pictures, created if it does not exist. Existing files are replaced.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Width and height of the pictures, in pixels.
    #[arg(long, value_name = "N", default_value_t = 336, value_parser = whole::<u16>(16..=MAX_SIDE as u64))]
    size: u16,
}

/// Runs the command.
pub fn run(args: &DemoScenesArgs) -> anyhow::Result<ExitCode> {
    let dir = args.dir.display();
    ensure!(
        !args.dir.is_file(),
        "{dir}: expected a directory or nothing, found a file"
    );
    fs::create_dir_all(&args.dir).with_context(|| format!("{dir}: cannot be created"))?;
    let total = args.seeds.len();
    let mut progress = Progress::default();
    let mut lines = String::new();
    let mut leftovers = Leftovers::default();
    let mut write_whole = |name: &str, bytes: &[u8]| {
        let target = args.dir.join(name);
        leftovers.clear(&target);
        let written = atomic_file::write(&target, bytes);
        written.with_context(|| format!("{}: cannot be written", target.display()))
    };
    for (done, seed) in args.seeds.0.clone().enumerate() {
        progress.update("draw", done, total);
        let scene = Scene::from_seed(seed);
        let file = format!("scene-{seed:05}.png");
        write_whole(&file, &png(&scene, args.size)?)?;
        lines += &serde_json::to_string(&Truth::new(file, seed, &scene))?;
        lines.push('\n');
    }
    write_whole("truth.jsonl", lines.as_bytes())?;
    progress.clear();
    let plural = if total == 1 { "" } else { "s" };
    writeln!(
        std::io::stdout(),
        "{dir}: {total} picture{plural} and truth.jsonl"
    )?;
    Ok(ExitCode::SUCCESS)
}

fn png(scene: &Scene, side: u16) -> anyhow::Result<Vec<u8>> {
    let mut file = Cursor::new(Vec::new());
    render(scene, side.into())?.write_to(&mut file, ImageFormat::Png)?;
    Ok(file.into_inner())
}
