//! What people do with the engine beyond one question: captions of many pictures, and illustrated articles.

pub mod caption;
pub mod compose;
