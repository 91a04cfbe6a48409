//! From the bytes of a picture file to the input of the vision tower.
//!
//! ```text
//! JPEG, PNG, WebP, BMP, GIF, TIFF ── decode ──▶ 8-bit RGB [h, w, 3]
//!     ── resize ──▶ 8-bit RGB [S, S, 3] ── Preprocessor ──▶ f32 [3, S, S]
//! ```
//!
//! Everything after the decoder equals, bit for bit, what Pillow 10 and torchvision compute for the published model;
//! the golden pictures of `tests/it/vision_golden/` prove it. The aspect ratio is not kept, as in training.

mod alpha;
mod cost;
mod decode;
mod error;
mod exif;
mod gif;
#[cfg(feature = "heic")]
mod heic;
mod ifd;
pub(crate) mod jpeg;
mod label;
mod partial;
pub(crate) mod png;
mod preprocess;
mod resize;
mod signature;
pub mod strip;
mod tiff;
mod tiling;
mod webp;

pub use ::image::RgbImage;

pub use alpha::Transparency;
pub use decode::{
    Decoded, MAX_DECODED_BYTES, Orientation, ReadOptions, decode, decode_within, dimensions, open,
    read, read_from,
};
pub use error::ImageError;
pub use preprocess::{CLIP_MEAN, CLIP_STD, PixelValues, Preprocessor};
pub use resize::{Filter, MAX_SIDE, resize, resize_bytes};
pub use signature::Foreign;
pub use tiling::{TileMode, TilePlan};
