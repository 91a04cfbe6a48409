//! The model file: GGUF, the container layout, tensors in ggml's element types, hyper-parameters.

pub mod container;
mod file_map;
pub mod gguf;
pub mod quant;
pub mod tensor;
mod vision_config;

pub use file_map::FileMap;
pub(crate) use vision_config::CHANNELS;
pub use vision_config::{MERGE, TileGrid, Tiling, VisionConfig, VisionConfigError};
