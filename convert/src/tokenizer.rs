//! Converts the vocabulary from `tokenizer.model` for llama.cpp.
//!
//! Pieces, scores and types are copied, with two exceptions:
//!
//! - `[UNUSED_TOKEN_145]` and `[UNUSED_TOKEN_146]`, which end and start a turn, become control tokens. As
//!   user-defined pieces, llama.cpp would find them in any text, including the user's. Their ids differ between
//!   models, so they are found by their text.
//! - The NUL character, a piece of its own, becomes [`NUL_STAND_IN`], because llama.cpp's strings end at a NUL.
//!   The runtime maps both ways.
//!
//! Rows of the embeddings after the last piece become additional pieces: user-defined ones if files next to
//! `tokenizer.model` name them, else unused ones.

use std::collections::{HashMap, HashSet};

use sentencepiece_model::{
    ModelType, NormalizerSpec, SentencePiece, SentencePieceModel, TrainerSpec, Type,
};
use xc2_edge::language::llama::NUL_STAND_IN;

use crate::{
    added_tokens::AddedTokens,
    checkpoint::{Checkpoint, CheckpointError},
};

/// The piece that ends a turn.
const TURN_END: &str = "[UNUSED_TOKEN_145]";
/// The piece that starts a turn.
const TURN_START: &str = "[UNUSED_TOKEN_146]";
/// Token type of pieces made by merges, in sentencepiece and GGUF.
const NORMAL: i32 = 1;
/// Token type of the piece for unknown text.
const UNKNOWN: i32 = 2;
/// Token type of control tokens.
const CONTROL: i32 = 3;
/// Token type of pieces that are matched in any text before merges.
const USER_DEFINED: i32 = 4;
/// Token type of unused rows.
const UNUSED: i32 = 5;
/// Token type of pieces for single bytes.
const BYTE: i32 = 6;
/// Score of pieces that merges must not produce: lower than any other score.
const LAST_SCORE: f32 = -1e6;
/// Maximum number of rows without a piece or a name. Tables are padded to multiples of up to 1024; a tokenizer
/// that lacks more pieces than this belongs to another model.
const MAX_UNUSED: usize = 4096;

/// What is wrong with a tokenizer.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum TokenizerError {
    /// The file cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// It is not a sentencepiece model.
    #[error("tokenizer.model: expected a sentencepiece model: {0}")]
    Protobuf(String),
    /// A sentencepiece model of a kind that the decoder's tokenizer does not support.
    #[error("tokenizer.model: expected a BPE model, found {found}")]
    Kind { found: String },
    /// The vocabulary does not fit the model.
    #[error(
        "tokenizer.model: expected {n_rows} pieces, one for every row of \
         `model.tok_embeddings.weight`, found {n_pieces}"
    )]
    PieceCount { n_pieces: usize, n_rows: usize },
    /// An incomplete entry of an added token.
    #[error("{file}: {place}: expected a token's text and its id, a whole number from 0")]
    AddedEntry { file: &'static str, place: String },
    /// A token has two ids.
    #[error("token {text:?}: expected one id, found {} in {} and {} in {}", first.0, first.1, second.0, second.1)]
    AddedTwice {
        text: String,
        first: (usize, &'static str),
        second: (usize, &'static str),
    },
    /// An id belongs to two tokens.
    #[error("id {id}: expected one token, found {:?} in {} and {:?} in {}", first.0, first.1, second.0, second.1)]
    SharedId {
        id: usize,
        first: (String, &'static str),
        second: (String, &'static str),
    },
    /// A piece that prompts need is missing.
    #[error("tokenizer.model: piece `{piece}` is missing")]
    MissingPiece { piece: String },
    /// A piece that begins or ends texts is not a control token.
    #[error(
        "tokenizer.model: piece `{piece}`: expected a control token, found one of type {found}"
    )]
    NotControl { piece: String, found: i32 },
    /// Two pieces have the same text.
    #[error("tokenizer.model: piece {piece:?}: expected once, found as {first} and {second}")]
    DuplicatePiece {
        piece: String,
        first: usize,
        second: usize,
    },
    /// A piece without text.
    #[error("tokenizer.model: piece {id}: expected some text, found none")]
    EmptyPiece { id: usize },
    /// A byte has no piece, or one of another type.
    #[error("tokenizer.model: byte piece `{piece}`: expected one of type byte, found {found}")]
    BytePiece { piece: String, found: &'static str },
    /// A piece whose score is not finite.
    #[error("tokenizer.model: piece {piece:?}: expected a finite score, found {score}")]
    Score { piece: String, score: f32 },
}

impl TokenizerError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Checkpoint(e) => return e.hint(),
            Self::AddedEntry { .. } | Self::AddedTwice { .. } | Self::SharedId { .. } => {
                "fix that file, or remove the entry; each token has one row of the embeddings"
            }
            _ => "use the `tokenizer.model` from the model's own repository",
        })
    }
}

/// Rows after the last piece: a token's text and type, or `None`.
type Rows = Vec<Option<(String, i32)>>;

/// A vocabulary as stored in a GGUF file.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    /// Text of every token.
    pub tokens: Vec<String>,
    /// Merge priority of every token.
    pub scores: Vec<f32>,
    /// Type of every token: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte.
    pub types: Vec<i32>,
    /// Whether a space is prepended to every text.
    pub add_space_prefix: bool,
    /// `<s>`.
    pub bos: u32,
    /// `</s>`.
    pub eos: u32,
    /// `<unk>`.
    pub unk: u32,
    /// Starts a turn.
    pub turn_start: u32,
    /// Ends a turn.
    pub turn_end: u32,
    /// Notes on anything unexpected.
    pub notes: Vec<String>,
}

impl Tokenizer {
    /// Reads the tokenizer of a checkpoint whose embeddings have `n_rows` rows.
    ///
    /// # Errors
    /// If it is missing, unreadable, or belongs to another model.
    pub fn read(checkpoint: &Checkpoint, n_rows: usize) -> Result<Self, TokenizerError> {
        let bytes = checkpoint.read_file("tokenizer.model")?;
        Self::with_added(&bytes, AddedTokens::read(checkpoint)?, n_rows)
    }

    /// Reads a vocabulary of `n_rows` tokens from the bytes of a `tokenizer.model`; rows after the last piece
    /// become unused tokens.
    ///
    /// # Errors
    /// If it is not a sentencepiece model, or has another size or kind.
    pub fn parse(bytes: &[u8], n_rows: usize) -> Result<Self, TokenizerError> {
        Self::with_added(bytes, AddedTokens::default(), n_rows)
    }

    fn with_added(bytes: &[u8], added: AddedTokens, n_rows: usize) -> Result<Self, TokenizerError> {
        let mut tokenizer = Self::of_sentencepiece(bytes, n_rows)?;
        let rows = tokenizer.add_named(added, n_rows)?;
        tokenizer.fill(rows)?;
        tokenizer.check()?;
        Ok(tokenizer)
    }

    /// The pieces of a `tokenizer.model`, at most `n_rows`.
    fn of_sentencepiece(bytes: &[u8], n_rows: usize) -> Result<Self, TokenizerError> {
        let model = SentencePieceModel::from_slice(bytes)
            .map_err(|e| TokenizerError::Protobuf(e.to_string()))?;
        let pieces = model.pieces();
        if pieces.is_empty() || pieces.len() > n_rows {
            let n_pieces = pieces.len();
            return Err(TokenizerError::PieceCount { n_pieces, n_rows });
        }
        let kind = model.trainer().map(TrainerSpec::model_type);
        if let Some(kind) = kind.filter(|k| *k != ModelType::Bpe) {
            let found = kind.as_str_name().to_lowercase();
            return Err(TokenizerError::Kind { found });
        }
        let id_of = |text: &str| {
            let id = pieces.iter().position(|p| p.piece() == text);
            id.map(|id| id as u32)
                .ok_or_else(|| TokenizerError::MissingPiece {
                    piece: text.to_owned(),
                })
        };
        let (turn_start, turn_end) = (id_of(TURN_START)?, id_of(TURN_END)?);
        let mut types: Vec<i32> = pieces.iter().map(|p| token_type(p.r#type())).collect();
        types[turn_start as usize] = CONTROL;
        types[turn_end as usize] = CONTROL;
        // As in sentencepiece: the trainer spec names these pieces, and the type marks the unknown piece.
        let named = |name: fn(&TrainerSpec) -> &str, usual: &str| {
            let text = model.trainer().map_or(usual, name);
            let id = id_of(text)?;
            match types[id as usize] {
                CONTROL => Ok(id),
                found => Err(TokenizerError::NotControl {
                    piece: text.to_owned(),
                    found,
                }),
            }
        };
        let unknown = types.iter().position(|ty| *ty == UNKNOWN);
        Ok(Self {
            tokens: pieces.iter().map(|p| token_text(p.piece())).collect(),
            scores: pieces.iter().map(SentencePiece::score).collect(),
            add_space_prefix: model
                .normalizer()
                .is_none_or(NormalizerSpec::add_dummy_prefix),
            bos: named(TrainerSpec::bos_piece, "<s>")?,
            eos: named(TrainerSpec::eos_piece, "</s>")?,
            unk: match unknown {
                Some(id) => id as u32,
                None => id_of("<unk>")?,
            },
            types,
            turn_start,
            turn_end,
            notes: Vec::new(),
        })
    }

    /// Assigns rows to added tokens, renames pieces that were reserved for them, and returns the rows after the
    /// last piece.
    ///
    /// # Errors
    /// If an added token has the text of a piece with another id.
    fn add_named(&mut self, added: AddedTokens, n_rows: usize) -> Result<Rows, TokenizerError> {
        let n_pieces = self.tokens.len();
        let mut rows: Rows = vec![None; n_rows - n_pieces];
        let mut rowless = Vec::new();
        let row = |text: &String| match added.controls.contains(text) {
            true => (token_text(text), CONTROL),
            false => (token_text(text), USER_DEFINED),
        };
        let mut next = n_pieces;
        for (id, token) in added.by_id {
            next = next.max(id.saturating_add(1));
            if id < n_pieces {
                self.rename(id, row(&token.text));
            } else if let Some(piece) = self.id_of(&token.text) {
                return Err(TokenizerError::AddedTwice {
                    text: token.text,
                    first: (piece, "tokenizer.model"),
                    second: (id, token.file),
                });
            } else if id < n_rows {
                rows[id - n_pieces] = Some(row(&token.text));
            } else {
                rowless.push(format!("{:?} ({id} in {})", token.text, token.file));
            }
        }
        for text in &added.without_id {
            if self.id_of(text).is_some() {
                continue;
            }
            if next < n_rows {
                rows[next - n_pieces] = Some(row(text));
                next += 1;
            } else {
                rowless.push(format!("{text:?}"));
            }
        }
        if !rowless.is_empty() {
            let list = rowless.join(", ");
            self.notes.push(format!(
                "tokens without a row in the embeddings ({n_rows} rows) were left out: {list}"
            ));
        }
        Ok(rows)
    }

    fn id_of(&self, text: &str) -> Option<usize> {
        let text = token_text(text);
        self.tokens.iter().position(|token| *token == text)
    }

    /// Gives a piece of `tokenizer.model` the text of an added token, if the piece was reserved for that: user-
    /// defined or unused.
    fn rename(&mut self, id: usize, (text, ty): (String, i32)) {
        let piece = &mut self.tokens[id];
        if *piece == text {
            return;
        }
        if matches!(self.types[id], USER_DEFINED | UNUSED) {
            (*piece, self.types[id]) = (text, ty);
            return;
        }
        self.notes.push(format!(
            "token {text:?} has the id {id} of piece {piece:?}, which keeps its own text"
        ));
    }

    /// Appends the tokens of `rows`; unnamed rows become unused tokens.
    fn fill(&mut self, rows: Rows) -> Result<(), TokenizerError> {
        let n_unused = rows.iter().filter(|row| row.is_none()).count();
        if n_unused > MAX_UNUSED {
            let n_pieces = self.tokens.len();
            let n_rows = n_pieces + rows.len();
            return Err(TokenizerError::PieceCount { n_pieces, n_rows });
        }
        if n_unused > 0 {
            self.notes.push(format!(
                "{n_unused} of {} rows of the embeddings belong to no token; they become unused tokens",
                self.tokens.len() + rows.len()
            ));
        }
        let named = rows.iter().flatten().map(|(text, _)| text.clone());
        let taken: HashSet<String> = self.tokens.iter().cloned().chain(named).collect();
        let mut names = (0..)
            .map(|n| format!("[UNUSED_TOKEN_{n}]"))
            .filter(|name| !taken.contains(name) && !is_merge(name, &taken));
        for row in rows {
            let unused = || (names.next().expect("numbers do not end"), UNUSED);
            let (text, ty) = row.unwrap_or_else(unused);
            self.tokens.push(text);
            self.types.push(ty);
            self.scores.push(LAST_SCORE);
        }
        Ok(())
    }

    /// Checks what llama.cpp requires: texts are unique and not empty, and every byte has a piece.
    fn check(&self) -> Result<(), TokenizerError> {
        let mut ids = HashMap::with_capacity(self.tokens.len());
        for (id, (text, &score)) in self.tokens.iter().zip(&self.scores).enumerate() {
            let piece = || text.clone();
            if text.is_empty() {
                return Err(TokenizerError::EmptyPiece { id });
            }
            if let Some(first) = ids.insert(&text[..], id) {
                let (piece, second) = (piece(), id);
                return Err(TokenizerError::DuplicatePiece {
                    piece,
                    first,
                    second,
                });
            }
            if !score.is_finite() {
                let piece = piece();
                return Err(TokenizerError::Score { piece, score });
            }
        }
        let of_byte = |found, piece| Err(TokenizerError::BytePiece { piece, found });
        let bytes: Vec<String> = (0..=255).map(|b: u8| format!("<0x{b:02X}>")).collect();
        for piece in &bytes {
            match ids.get(&piece[..]) {
                Some(&id) if self.types[id] == BYTE => {}
                Some(_) => return of_byte("one of another type", piece.clone()),
                None => return of_byte("none", piece.clone()),
            }
        }
        let mut typed = self.tokens.iter().zip(&self.types).filter(|t| *t.1 == BYTE);
        match typed.find(|(text, _)| !bytes.contains(text)) {
            Some((text, _)) => of_byte("a text that names no byte", text.clone()),
            None => Ok(()),
        }
    }
}

/// GGUF uses sentencepiece's numbers.
fn token_type(ty: Type) -> i32 {
    match ty {
        Type::Normal => NORMAL,
        Type::Unknown => UNKNOWN,
        Type::Control => CONTROL,
        Type::UserDefined => USER_DEFINED,
        Type::Unused => UNUSED,
        Type::Byte => BYTE,
    }
}

/// Whether llama.cpp could merge two pieces into `name`. It merges into pieces of any type, even unused ones;
/// single characters need not be pieces.
fn is_merge(name: &str, pieces: &HashSet<String>) -> bool {
    let is_part = |part: &str| part.chars().count() == 1 || pieces.contains(part);
    let cuts = name.char_indices().map(|(at, _)| at).skip(1);
    cuts.into_iter()
        .any(|at| is_part(&name[..at]) && is_part(&name[at..]))
}

fn token_text(piece: &str) -> String {
    piece.replace('\0', NUL_STAND_IN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(path: &str) -> Vec<u8> {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/reference/");
        std::fs::read(format!("{root}{path}")).unwrap()
    }

    #[test]
    fn the_published_vocabulary_keeps_its_types_except_turn_markers() {
        let t = Tokenizer::parse(&reference("tokenizer/tokenizer.model"), 92544).unwrap();
        assert_eq!((t.unk, t.bos, t.eos), (0, 1, 2));
        assert_eq!((t.turn_end, t.turn_start), (92542, 92543));
        let count = |ty| t.types.iter().filter(|t| **t == ty).count();
        assert_eq!([1, 2, 3, 4, 5, 6].map(count), [92093, 1, 4, 190, 0, 256]);
        assert_eq!(t.tokens[354], "\u{FDD0}");
        assert!(t.tokens.iter().all(|t| !t.contains('\0')));
        assert!(!t.add_space_prefix);
        assert_eq!(t.scores[260], -1.0);
    }

    #[test]
    fn turn_markers_are_found_by_text() {
        let t = Tokenizer::parse(&reference("tiny-vl/tokenizer.model"), 1280).unwrap();
        assert_eq!((t.turn_end, t.turn_start), (1278, 1279));
        assert_eq!((t.types[1278], t.types[1279]), (3, 3));
    }

    #[test]
    fn another_number_of_pieces_is_an_error_with_both_numbers() {
        for n_rows in [1279, 1280 + MAX_UNUSED + 1] {
            let error = Tokenizer::parse(&reference("tiny-vl/tokenizer.model"), n_rows);
            let message = error.unwrap_err().to_string();
            assert!(
                message.contains(&n_rows.to_string()) && message.contains("1280"),
                "{message}"
            );
        }
    }

    #[test]
    fn unused_tokens_have_unique_names_that_no_merge_produces() {
        let good = Tokenizer::parse(&reference("tiny-vl/tokenizer.model"), 1280).unwrap();
        let mut t = good.clone();
        t.tokens[700] = "[UNUSED_TOKEN_".to_owned();
        t.tokens[701] = "1000]".to_owned();
        let taken: HashSet<String> = t.tokens.iter().cloned().collect();
        assert!(is_merge("[UNUSED_TOKEN_1000]", &taken));
        assert!(!is_merge("[UNUSED_TOKEN_1001]", &taken));
        t.fill(vec![None; 2000]).unwrap();
        let names: HashSet<&String> = t.tokens[1280..].iter().collect();
        assert_eq!(names.len(), 2000);
        assert!(names.iter().all(|name| !taken.contains(*name)));
        assert!(!names.contains(&"[UNUSED_TOKEN_1000]".to_owned()));
        t.check().unwrap();
    }

    #[test]
    fn only_reserved_pieces_are_renamed() {
        let bytes = reference("tiny-vl/tokenizer.model");
        let plain = Tokenizer::parse(&bytes, 1280).unwrap();
        let free = plain
            .types
            .iter()
            .position(|ty| *ty == USER_DEFINED)
            .unwrap();
        let ids = [free, plain.turn_end as usize, plain.bos as usize, 700];
        let mut added = AddedTokens::default();
        for (i, id) in ids.into_iter().enumerate() {
            added.insert(id, &format!("<added {i}>"));
        }
        let t = Tokenizer::with_added(&bytes, added, 1280).unwrap();
        assert_eq!(
            (&t.tokens[free][..], t.types[free]),
            ("<added 0>", USER_DEFINED)
        );
        for id in &ids[1..] {
            assert_eq!(t.tokens[*id], plain.tokens[*id]);
            assert_eq!(t.types[*id], plain.types[*id]);
        }
        assert_eq!(t.notes.len(), 3);
    }

    #[test]
    fn vocabularies_that_llama_cpp_does_not_support_are_refused() {
        let good = Tokenizer::parse(&reference("tiny-vl/tokenizer.model"), 1280).unwrap();
        let byte = good.tokens.iter().position(|t| t == "<0x41>").unwrap();
        let refused = |change: &dyn Fn(&mut Tokenizer), expected: &str| {
            let mut bad = good.clone();
            change(&mut bad);
            let message = bad.check().unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        };
        refused(&|t| t.tokens[700].clear(), "piece 700: expected some text");
        refused(
            &|t| t.tokens[700] = "<s>".to_owned(),
            "\"<s>\": expected once, found as 1 and 700",
        );
        refused(
            &|t| t.scores[700] = f32::NAN,
            "expected a finite score, found NaN",
        );
        refused(
            &|t| t.types[byte] = 1,
            "`<0x41>`: expected one of type byte, found one of another",
        );
        refused(
            &|t| t.tokens[byte] = "<0x4>".to_owned(),
            "`<0x41>`: expected one of type byte, found none",
        );
        refused(&|t| t.types[700] = BYTE, "found a text that names no byte");
    }

    #[test]
    fn bytes_that_are_not_a_model_are_an_error() {
        assert!(Tokenizer::parse(b"\x0a\xff\xff\xff\xff\x0f", 1).is_err());
        assert!(Tokenizer::parse(b"", 1280).is_err());
    }
}
