//! From the bytes of a picture file to the numbers that the vision tower takes.
//!
//! ```text
//! JPEG, PNG, WebP, BMP, GIF, TIFF ── decode ──▶ 8-bit RGB [h, w, 3]
//!     ── resize_bicubic ──▶ 8-bit RGB [S, S, 3] ── Preprocessor ──▶ f32 [3, S, S]
//! ```
//!
//! Everything after the decoder equals what Python's Pillow 10 and torchvision compute for the
//! published model, bit for bit: the golden pictures of `tests/vision_golden/` are the proof.
//! The aspect ratio is not kept; that is how these models were trained.

mod decode;
mod error;
pub(crate) mod jpeg;
mod preprocess;
mod resize;

pub use ::image::RgbImage;

pub use decode::{MAX_DECODED_BYTES, Orientation, decode, decode_within, open, read, read_from};
pub use error::ImageError;
pub use preprocess::{CLIP_MEAN, CLIP_STD, PixelValues, Preprocessor};
pub use resize::resize_bicubic;
