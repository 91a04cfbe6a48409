//! The options of every command that loads a model: which one, and how it is run.

use std::path::{Path, PathBuf};
use xc2_edge::system::units;

use clap::{Args, ValueEnum};
use xc2_edge::{
    engine::cache::CacheOptions,
    engine::{Engine, EngineOptions, default_threads},
    language::llama::{KvType, LoadOptions, Products},
    vision::Precision,
    vision::image::{Orientation, Transparency},
};

use super::number::whole;

/// Which model, and how it is run.
#[derive(Debug, Args)]
pub struct EngineArgs {
    /// The model, as written by xc2-convert.
    #[arg(short, long, value_name = "GGUF", help_heading = "Model")]
    pub model: PathBuf,
    /// Positions of the context [default: what prompt and answer need].
    #[arg(short, long, value_name = "N", value_parser = whole::<usize>(1..), help_heading = SPEED)]
    pub ctx_size: Option<usize>,
    /// Threads [default: one per core].
    #[arg(short, long, value_name = "N", value_parser = whole::<u16>(1..=512), help_heading = SPEED)]
    pub threads: Option<u16>,
    /// Element type of the KV cache; `q8_0` takes about half of `f16`.
    #[arg(long, value_enum, default_value = "f16", value_name = "TYPE", help_heading = SPEED)]
    pub kv_type: KvTypeArg,
    /// Whether llama.cpp rearranges weights for its kernels, at the cost of a second copy
    /// and of a slower prefill [default: off].
    #[arg(long, value_enum, value_name = "WHEN", help_heading = SPEED)]
    pub repack: Option<Switch>,
    /// Whose kernels multiply matrices in the decoder: `xc2` those of this program, on CPUs where they are
    /// faster (`info` tells), `ggml` llama.cpp's own.
    #[arg(long, value_enum, default_value = "xc2", value_name = "WHOSE", help_heading = SPEED)]
    pub backend: Backend,
    /// In what the vision tower computes: `stored` multiplies Q8_0 matrices in int8 and the others
    /// in f32, `f32` everything in f32.
    #[arg(long, value_enum, default_value = "stored", value_name = "PRECISION", help_heading = SPEED)]
    pub tower: Tower,
    /// Read the weights into memory instead of mapping the file.
    #[arg(long, help_heading = SPEED)]
    pub no_mmap: bool,
    /// Keep the weights from being swapped out.
    #[arg(long, help_heading = SPEED)]
    pub mlock: bool,
    /// Refuse what needs more memory than this, like `1.5GB` [default: what the machine has to give].
    #[arg(long, value_name = "SIZE", value_parser = units::parse, help_heading = SPEED)]
    pub max_memory: Option<u64>,
    /// Start even if the memory seems too small.
    #[arg(long, help_heading = SPEED)]
    pub no_memory_check: bool,
    /// Keep pictures and prompts in this directory, so that later runs need not compute them again
    /// [default: none; a conversation takes the user's cache directory].
    #[arg(long, value_name = "DIR", help_heading = "Cache")]
    pub cache: Option<PathBuf>,
    /// The most that the cache may take; what was used longest ago goes first [default: 4GiB].
    #[arg(long, value_name = "SIZE", value_parser = units::parse, help_heading = "Cache")]
    pub cache_size: Option<u64>,
    /// Keep nothing across runs.
    #[arg(long, conflicts_with = "cache", help_heading = "Cache")]
    pub no_cache: bool,
    /// Ignore the EXIF orientation of pictures, as the original code does.
    #[arg(long, help_heading = "Prompt")]
    pub no_exif_orientation: bool,
    /// What becomes of transparent parts of pictures: `drop` shows the colours under them, as the original
    /// code does, `white` puts the picture on white, `auto` does so where they hide a good part of it
    /// [default: auto; eval: drop].
    #[arg(long, value_enum, value_name = "HOW", help_heading = "Prompt")]
    pub transparency: Option<TransparencyArg>,
    /// Take pictures whose files end early, too: where pixels are missing they are grey.
    #[arg(long, help_heading = "Prompt")]
    pub allow_truncated: bool,
}

/// How many pictures are captioned at once.
#[derive(Debug, Args)]
pub struct ParallelArgs {
    /// Pictures that are captioned at once; each takes a KV cache of its own [default: by cores and
    /// memory].
    #[arg(long, value_name = "N", value_parser = whole::<u16>(1..=64), help_heading = SPEED)]
    parallel: Option<u16>,
}

impl ParallelArgs {
    /// As typed, if it was.
    pub fn count(&self) -> Option<usize> {
        self.parallel.map(usize::from)
    }
}

/// The help's heading over most of them.
pub const SPEED: &str = "Speed and memory";

/// Element type of the KV cache.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum KvTypeArg {
    F32,
    F16,
    #[value(name = "q8_0")]
    Q8_0,
}

impl From<KvTypeArg> for KvType {
    fn from(ty: KvTypeArg) -> Self {
        match ty {
            KvTypeArg::F32 => Self::F32,
            KvTypeArg::F16 => Self::F16,
            KvTypeArg::Q8_0 => Self::Q8_0,
        }
    }
}

/// On or off, where there is a third way: to say nothing.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub enum Switch {
    On,
    Off,
}

/// What becomes of transparent parts of pictures.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum TransparencyArg {
    Auto,
    Drop,
    White,
}

impl From<TransparencyArg> for Transparency {
    fn from(how: TransparencyArg) -> Self {
        match how {
            TransparencyArg::Auto => Self::Auto,
            TransparencyArg::Drop => Self::Drop,
            TransparencyArg::White => Self::White,
        }
    }
}

/// Whose kernels multiply in the decoder.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Backend {
    Xc2,
    Ggml,
}

impl From<Backend> for Products {
    fn from(backend: Backend) -> Self {
        match backend {
            Backend::Xc2 => Self::Xc2,
            Backend::Ggml => Self::Ggml,
        }
    }
}

/// In what the tower computes.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Tower {
    Stored,
    F32,
}

impl From<Tower> for Precision {
    fn from(tower: Tower) -> Self {
        match tower {
            Tower::Stored => Self::Stored,
            Tower::F32 => Self::F32,
        }
    }
}

impl EngineArgs {
    /// The same for the library.
    pub fn options(&self) -> EngineOptions {
        let defaults = LoadOptions::default();
        EngineOptions {
            n_ctx: self.ctx_size,
            n_threads: self.n_threads(),
            kv_type: self.kv_type.into(),
            products: self.backend.into(),
            load: LoadOptions {
                mmap: !self.no_mmap,
                mlock: self.mlock,
                repack: self.repack.map_or(defaults.repack, |s| s == Switch::On),
                ..defaults
            },
            orientation: if self.no_exif_orientation {
                Orientation::Ignore
            } else {
                Orientation::Apply
            },
            transparency: self.transparency.map(Into::into).unwrap_or_default(),
            allow_truncated: self.allow_truncated,
            tower: self.tower.into(),
            check_memory: !self.no_memory_check,
            max_memory: self.max_memory,
            cache: self.cache.as_deref().map(|dir| self.cache_in(dir)),
            ..EngineOptions::default()
        }
    }

    /// The same where answers are compared with published ones: transparency is dropped, as the original code
    /// does, unless something else is asked for.
    pub fn options_of_reference(&self) -> EngineOptions {
        EngineOptions {
            transparency: self.transparency.map_or(Transparency::Drop, Into::into),
            ..self.options()
        }
    }

    /// Threads that compute.
    pub fn n_threads(&self) -> usize {
        self.threads.map_or_else(default_threads, usize::from)
    }

    /// The same where results are kept across runs unless that is refused: in the user's cache
    /// directory if no other is named.
    pub fn options_with_cache(&self) -> EngineOptions {
        let mut options = self.options();
        if options.cache.is_none() && !self.no_cache {
            options.cache = CacheOptions::for_user().map(|own| self.cache_in(&own.dir));
        }
        options
    }

    fn cache_in(&self, dir: &Path) -> CacheOptions {
        CacheOptions {
            dir: dir.to_owned(),
            max_bytes: self.cache_size.unwrap_or(CacheOptions::DEFAULT_MAX_BYTES),
        }
    }

    /// Loads the model, the threads set up.
    ///
    /// # Errors
    /// If the system refuses the threads, or as [`Engine::load`].
    pub fn load(&self) -> anyhow::Result<Engine> {
        self.load_with(self.options())
    }

    /// Loads the model with these options, the threads set up.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_with(&self, options: EngineOptions) -> anyhow::Result<Engine> {
        super::use_threads(options.n_threads)?;
        Ok(Engine::load(&self.model, options)?)
    }
}
