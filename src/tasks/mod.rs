//! Tasks built on the engine: captions for many pictures, and illustrated articles.

#[cfg(feature = "caption")]
pub mod caption;
#[cfg(feature = "compose")]
pub mod compose;
