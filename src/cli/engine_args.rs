//! Options of every command that loads a model: which model, and how to run it.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use xc2_edge::{
    engine::cache::CacheOptions,
    engine::{Engine, EngineOptions, default_threads},
    language::llama::{KvType, LoadOptions, MatmulBackend},
    system::units,
    vision::Precision,
    vision::image::{Orientation, Transparency},
};

use super::number::whole;

/// Which model, and how to run it.
#[derive(Debug, Args)]
pub struct EngineArgs {
    /// Model file, made by xc2-convert.
    #[arg(short, long, value_name = "GGUF", help_heading = "Model")]
    pub model: PathBuf,
    /// Context size in tokens [default: as many as prompt and answer need].
    #[arg(short, long, value_name = "N", value_parser = whole::<usize>(1..), help_heading = SPEED)]
    pub ctx_size: Option<usize>,
    /// Let --ctx-size exceed the model's maximum, by scaling the rotary embedding for that length. Only for
    /// models with dynamic scaling (2.5); answers beyond the trained length are less reliable.
    #[arg(long, requires = "ctx_size", help_heading = SPEED)]
    pub long: bool,
    /// Threads [default: one per core].
    #[arg(short, long, value_name = "N", value_parser = whole::<u16>(1..=512), help_heading = SPEED)]
    pub threads: Option<u16>,
    /// Element type of the KV cache; `q8_0` takes about half the memory of `f16`.
    #[arg(long, value_enum, default_value = "f16", value_name = "TYPE", help_heading = SPEED)]
    pub kv_type: KvTypeArg,
    /// Let llama.cpp repack weights for its kernels; this keeps a second copy in memory and slows down
    /// prefill [default: off].
    #[arg(long, value_enum, value_name = "WHEN", help_heading = SPEED)]
    pub repack: Option<Switch>,
    /// Kernels for the decoder's matrix products: `xc2` for this program's own, on CPUs where they are
    /// faster (`info` shows which are used); `ggml` for llama.cpp's.
    #[arg(long, value_enum, default_value = "xc2", value_name = "KERNELS", help_heading = SPEED)]
    pub backend: Backend,
    /// Arithmetic of the vision tower: `stored` multiplies quantized matrices in int8, others in their own
    /// type or f32; `f32` multiplies all in f32.
    #[arg(long, value_enum, default_value = "stored", value_name = "PRECISION", help_heading = SPEED)]
    pub tower: Tower,
    /// Read the weights into memory instead of memory-mapping the file.
    #[arg(long, help_heading = SPEED)]
    pub no_mmap: bool,
    /// Lock the weights in memory, so that they are never swapped out.
    #[arg(long, help_heading = SPEED)]
    pub mlock: bool,
    /// Memory limit, such as `1.5GB`; anything that needs more is refused [default: the memory available].
    #[arg(long, value_name = "SIZE", value_parser = units::parse, help_heading = SPEED)]
    pub max_memory: Option<u64>,
    /// Start even if memory seems too small.
    #[arg(long, help_heading = SPEED)]
    pub no_memory_check: bool,
    /// Cache encoded pictures and prompts in this directory, so that later runs start faster
    /// [default: none; a conversation uses the user's cache directory].
    #[arg(long, value_name = "DIR", help_heading = "Cache")]
    pub cache: Option<PathBuf>,
    /// Size limit of the cache; least recently used entries are removed first [default: 4GiB].
    #[arg(long, value_name = "SIZE", value_parser = units::parse, help_heading = "Cache")]
    pub cache_size: Option<u64>,
    /// Do not use a cache on disk.
    #[arg(long, conflicts_with = "cache", help_heading = "Cache")]
    pub no_cache: bool,
    /// Ignore the EXIF orientation of pictures, as the original implementation does.
    #[arg(long, help_heading = "Prompt")]
    pub no_exif_orientation: bool,
    /// How to handle transparent pictures: `drop` ignores transparency, as the original implementation
    /// does; `white` puts the picture on a white background; `auto` does that only if transparency hides
    /// much of the picture [default: auto; eval: drop].
    #[arg(long, value_enum, value_name = "HOW", help_heading = "Prompt")]
    pub transparency: Option<TransparencyArg>,
    /// Accept truncated picture files; missing pixels become grey.
    #[arg(long, help_heading = "Prompt")]
    pub allow_truncated: bool,
}

/// How many pictures to caption at once.
#[derive(Debug, Args)]
pub struct ParallelArgs {
    /// Number of pictures to caption at once; each needs its own KV cache [default: depends on cores
    /// and memory].
    #[arg(long, value_name = "N", value_parser = whole::<u16>(1..=64), help_heading = SPEED)]
    parallel: Option<u16>,
}

impl ParallelArgs {
    /// The value given, if any.
    pub fn count(&self) -> Option<usize> {
        self.parallel.map(usize::from)
    }
}

/// Help heading of most of these options.
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

/// On or off, for options with a default that depends on something else.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub enum Switch {
    On,
    Off,
}

/// How to handle transparent pictures.
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

/// Kernels for the decoder's matrix products.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Backend {
    Xc2,
    Ggml,
}

impl From<Backend> for MatmulBackend {
    fn from(backend: Backend) -> Self {
        match backend {
            Backend::Xc2 => Self::Xc2,
            Backend::Ggml => Self::Ggml,
        }
    }
}

/// Arithmetic of the vision tower.
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
    /// These options as the library's.
    pub fn options(&self) -> EngineOptions {
        let defaults = LoadOptions::default();
        EngineOptions {
            n_ctx: self.ctx_size,
            long_context: self.long,
            n_threads: self.n_threads(),
            kv_type: self.kv_type.into(),
            matmul_backend: self.backend.into(),
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

    /// Like [`Self::options`], but transparency defaults to `drop`, as in the original implementation: for
    /// comparisons with published answers.
    pub fn options_of_reference(&self) -> EngineOptions {
        EngineOptions {
            transparency: self.transparency.map_or(Transparency::Drop, Into::into),
            ..self.options()
        }
    }

    /// Number of compute threads.
    pub fn n_threads(&self) -> usize {
        self.threads.map_or_else(default_threads, usize::from)
    }

    /// Like [`Self::options`], but the user's cache directory is the default cache, unless `--no-cache`.
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

    /// Starts the threads and loads the model.
    ///
    /// # Errors
    /// If the system refuses the threads, or as [`Engine::load`].
    pub fn load(&self) -> anyhow::Result<Engine> {
        self.load_with(self.options())
    }

    /// Starts the threads and loads the model with the given options.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_with(&self, options: EngineOptions) -> anyhow::Result<Engine> {
        super::use_threads(options.n_threads)?;
        Ok(Engine::load(&self.model, options)?)
    }
}
