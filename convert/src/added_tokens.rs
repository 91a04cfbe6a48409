//! Tokens that were added to a vocabulary after its training, and their rows in the embeddings.
//!
//! Fine-tunes add rows to the embeddings: for tokens named in files next to `tokenizer.model`, and as padding to
//! a multiple of 64 or so. Hugging Face's tokenizer finds the named tokens in any text, special or not, before
//! it splits the rest into pieces.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{checkpoint::Checkpoint, tokenizer::TokenizerError};

/// Tokens and ids, as `save_pretrained` writes them.
const ADDED_TOKENS: &str = "added_tokens.json";
/// Holds `added_tokens_decoder` since transformers 4.34.
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
/// Names tokens by role; those without an id get the next ids.
const SPECIAL_TOKENS: &str = "special_tokens_map.json";
/// A whole tokenizer; only `added_tokens` is read.
const TOKENIZER: &str = "tokenizer.json";

/// Roles of tokens in a tokenizer, in the order in which transformers adds them.
const ROLES: [&str; 7] = [
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
];
/// Special tokens without a role.
const ADDITIONAL: &str = "additional_special_tokens";

/// A token that a file names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AddedToken {
    pub text: String,
    /// The file that gives it its id.
    pub file: &'static str,
}

/// All tokens that files next to `tokenizer.model` name.
#[derive(Clone, Debug, Default)]
pub(crate) struct AddedTokens {
    /// By id.
    pub by_id: BTreeMap<usize, AddedToken>,
    /// Special tokens without an id, in order.
    pub without_id: Vec<String>,
    /// Texts of control tokens, such as those that begin, end, pad or mask a text.
    pub controls: Vec<String>,
}

impl AddedTokens {
    /// Reads the tokens named by a checkpoint's files.
    ///
    /// # Errors
    /// If a file cannot be read, or has an id or a token twice.
    pub fn read(checkpoint: &Checkpoint) -> Result<Self, TokenizerError> {
        let read = |file| Ok::<_, TokenizerError>(checkpoint.read_json(file)?.unwrap_or_default());
        let (config, special) = (read(TOKENIZER_CONFIG)?, read(SPECIAL_TOKENS)?);
        let mut added = Self::default();
        added.add_map(&read(ADDED_TOKENS)?)?;
        added.add_decoder(&config)?;
        added.add_list(&read(TOKENIZER)?)?;
        for source in [&special, &config] {
            added.add_special(source);
        }
        Ok(added)
    }

    /// A token with an id, for tests.
    #[cfg(test)]
    pub fn insert(&mut self, id: usize, text: &str) {
        let place = || text.to_owned();
        self.add(ADDED_TOKENS, place, Some(id as u64), Some(text))
            .unwrap();
    }

    /// `{"<text>": 92544}`
    fn add_map(&mut self, map: &Value) -> Result<(), TokenizerError> {
        for (text, id) in map.as_object().into_iter().flatten() {
            let place = || format!("`{text}`");
            self.add(ADDED_TOKENS, place, id.as_u64(), Some(text))?;
        }
        Ok(())
    }

    /// `{"added_tokens_decoder": {"92544": {"content": "<text>"}}}`
    fn add_decoder(&mut self, config: &Value) -> Result<(), TokenizerError> {
        let decoder = config
            .get("added_tokens_decoder")
            .and_then(Value::as_object);
        for (id, token) in decoder.into_iter().flatten() {
            let place = || format!("`added_tokens_decoder`: `{id}`");
            self.add(TOKENIZER_CONFIG, place, id.parse().ok(), text_of(token))?;
        }
        Ok(())
    }

    /// `{"added_tokens": [{"id": 92544, "content": "<text>"}]}`
    fn add_list(&mut self, tokenizer: &Value) -> Result<(), TokenizerError> {
        let list = tokenizer.get("added_tokens").and_then(Value::as_array);
        for (i, token) in list.into_iter().flatten().enumerate() {
            let place = || format!("`added_tokens`: entry {i}");
            let id = token.get("id").and_then(Value::as_u64);
            self.add(TOKENIZER, place, id, text_of(token))?;
        }
        Ok(())
    }

    fn add(
        &mut self,
        file: &'static str,
        place: impl Fn() -> String,
        id: Option<u64>,
        text: Option<&str>,
    ) -> Result<(), TokenizerError> {
        let id = id.and_then(|id| usize::try_from(id).ok());
        let (Some(id), Some(text)) = (id, text.filter(|text| !text.is_empty())) else {
            let place = place();
            return Err(TokenizerError::AddedEntry { file, place });
        };
        let same_text = self.by_id.iter().find(|(_, t)| t.text == text);
        if let Some((&first, token)) = same_text.filter(|(first, _)| **first != id) {
            return Err(TokenizerError::AddedTwice {
                text: text.to_owned(),
                first: (first, token.file),
                second: (id, file),
            });
        }
        let token = AddedToken {
            text: text.to_owned(),
            file,
        };
        let first = self.by_id.entry(id).or_insert_with(|| token.clone());
        if first.text != token.text {
            return Err(TokenizerError::SharedId {
                id,
                first: (first.text.clone(), first.file),
                second: (token.text, file),
            });
        }
        Ok(())
    }

    /// `{"pad_token": "[PAD]", "additional_special_tokens": ["<text>"]}`, or objects instead of texts.
    fn add_special(&mut self, map: &Value) {
        let roles = ROLES.iter().filter_map(|role| text_of(map.get(role)?));
        let roles: Vec<String> = roles.map(str::to_owned).collect();
        let additional = map.get(ADDITIONAL).and_then(Value::as_array);
        let additional = additional.into_iter().flatten().filter_map(text_of);
        for text in roles.iter().map(String::as_str).chain(additional) {
            let has_id = self.by_id.values().any(|t| t.text == text);
            if !text.is_empty() && !has_id && !self.without_id.iter().any(|t| t == text) {
                self.without_id.push(text.to_owned());
            }
        }
        self.controls.extend(roles);
    }
}

/// A token is a text, or an object with its text as `content`.
fn text_of(token: &Value) -> Option<&str> {
    token.as_str().or_else(|| token.get("content")?.as_str())
}
