//! What people do with the engine beyond one question: captions of many pictures, and illustrated articles.

#[cfg(feature = "caption")]
pub mod caption;
#[cfg(feature = "compose")]
pub mod compose;
