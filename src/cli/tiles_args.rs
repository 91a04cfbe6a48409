//! Options for models that cut pictures into tiles.

use clap::Args;
use xc2_edge::engine::{Engine, MAX_HD_NUM, TileOptions};

use super::{number::whole, say};

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
