//! The options that say what an answer has to look like.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use xc2_edge::{
    language::grammar::{Grammar, GrammarError},
    system::text,
};

/// The largest grammar that is read; llama.cpp takes far less.
const MAX_BYTES: u64 = 1 << 20;

/// What an answer has to look like.
#[derive(Debug, Args)]
#[command(next_help_heading = "Sampling")]
pub struct GrammarArgs {
    /// Hold the answer to the grammar in FILE, in llama.cpp's GBNF; its rule `root` is the whole
    /// answer.
    #[arg(long, value_name = "FILE")]
    grammar: Option<PathBuf>,
    /// Hold the answer to JSON that fits the JSON schema in FILE. A model says better what fits if
    /// the question asks for it.
    #[arg(long, value_name = "FILE", conflicts_with = "grammar")]
    json_schema: Option<PathBuf>,
}

impl GrammarArgs {
    /// The grammar, read and understood.
    ///
    /// # Errors
    /// If the file cannot be read or is no grammar, with its name.
    pub fn grammar(&self) -> anyhow::Result<Option<Grammar>> {
        let read = |path: &Path, parse: fn(&str) -> Result<Grammar, GrammarError>| {
            let text = text::read_at_most(path, MAX_BYTES).map_err(anyhow::Error::from);
            let understood = text.and_then(|text| Ok(parse(&text)?));
            understood.with_context(|| path.display().to_string())
        };
        match (&self.grammar, &self.json_schema) {
            (Some(path), _) => read(path, Grammar::gbnf).map(Some),
            (None, Some(path)) => read(path, Grammar::json_schema).map(Some),
            (None, None) => Ok(None),
        }
    }
}
