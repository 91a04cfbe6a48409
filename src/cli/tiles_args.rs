//! Options for models that cut pictures into tiles.

use std::time::Duration;

use clap::Args;
use xc2_edge::{
    engine::{Engine, MAX_HD_NUM, PictureSize, Request, TileOptions},
    system::units::human,
    vision::Precision,
};

use super::{doctor::PictureRates, number::whole, say};

/// Duration of the measurement for an estimate.
const MEASURING: Duration = Duration::from_millis(60);

/// Expected seconds for encoding pictures and for computing their positions.
fn estimate(engine: &Engine, sizes: &[PictureSize]) -> f64 {
    let container = engine.container();
    let rates = PictureRates::measure(container, Precision::default(), MEASURING);
    let n_inputs = sizes
        .iter()
        .map(|size| size.grid.map_or(1, |grid| grid.len() + 1));
    let n_tokens = sizes.iter().map(|size| size.n_tokens).sum();
    rates.encode_s(container, n_inputs.sum()) + rates.prefill_s(container, n_tokens)
}

/// A rough duration.
fn duration(seconds: f64) -> String {
    match seconds {
        ..=1.5 => "1 s".to_owned(),
        ..=90.0 => format!("{seconds:.0} s"),
        _ => format!("{:.0} min", seconds / 60.0),
    }
}

/// Into how many tiles pictures are cut.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct TilesArgs {
    /// 4KHD and 2.5 models: cut each picture into at most N tiles. More tiles show more detail, and take
    /// more time and memory [default: 25 (4khd) or 24 (2.5), fewer if memory is short].
    #[arg(long, value_name = "N", value_parser = whole::<u32>(1..=u64::from(MAX_HD_NUM)), help_heading = "Prompt")]
    pub hd_num: Option<u32>,
    /// 2.5 models: use --hd-num for several pictures, too. Otherwise each of several is cut into at most 6
    /// tiles, as the original does.
    #[arg(long, help_heading = "Prompt")]
    pub full_hd: bool,
}

impl TilesArgs {
    /// These options as the library's.
    pub fn options(self) -> TileOptions {
        TileOptions {
            hd_num: self.hd_num,
            full_for_several: self.full_hd,
        }
    }

    /// Before anything is computed, says into how many tiles each picture of `request` is cut, and what that costs.
    ///
    /// # Errors
    /// If a picture cannot be read, or tiles or frames are requested that the model does not have.
    pub fn announce(self, engine: &Engine, request: &Request) -> anyhow::Result<()> {
        let vision = &engine.container().info().vision;
        if request.images.is_empty() || vision.tiling.is_none() {
            return Ok(());
        }
        self.warn_if_reduced(engine);
        let sizes = engine.picture_sizes(request)?;
        for (i, PictureSize { grid, n_tokens }) in (1..).zip(&sizes) {
            let Some(grid) = grid else { continue };
            let which = match sizes.len() {
                1 => "the picture".to_owned(),
                _ => format!("picture {i}"),
            };
            say(&format!(
                "{which}: {} x {} tiles of {} pixels, {n_tokens} tokens",
                grid.rows, grid.cols, vision.image_size
            ));
        }
        let n_prompt = engine.prompt_size(request)?.n_prompt;
        let n_ctx = (n_prompt + request.n_predict).min(engine.max_context());
        say(&format!(
            "prompt of {n_prompt} tokens: {} of memory, about {} before the answer unless cached",
            human(engine.memory_need(n_ctx).total()),
            duration(estimate(engine, &sizes))
        ));
        Ok(())
    }

    /// Says if the default number of tiles is smaller than the published one, because memory is short.
    pub fn warn_if_reduced(self, engine: &Engine) {
        if self.hd_num.is_some() {
            return;
        }
        if let Some(default) = engine.default_hd_num()
            && let Some(published) = default.published
        {
            let hd_num = default.hd_num;
            say(&format!(
                "note: pictures are cut into at most {hd_num} tiles instead of {published}, because memory is short; \
                 `--hd-num` chooses another number"
            ));
        }
    }
}
