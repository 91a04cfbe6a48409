//! Options that constrain the form of an answer.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use xc2_edge::{
    language::grammar::{Grammar, GrammarError},
    system::text,
};

/// Size limit of a grammar file; llama.cpp accepts far less.
const MAX_BYTES: u64 = 1 << 20;

/// Constraints on the form of an answer.
#[derive(Debug, Args)]
#[command(next_help_heading = "Sampling")]
pub struct GrammarArgs {
    /// Constrain the answer to the grammar in FILE (llama.cpp's GBNF format); the rule `root` describes
    /// the whole answer.
    #[arg(long, value_name = "FILE")]
    grammar: Option<PathBuf>,
    /// Constrain the answer to JSON that is valid under the JSON schema in FILE. Answers are better if
    /// the question asks for that JSON as well.
    #[arg(long, value_name = "FILE", conflicts_with = "grammar")]
    json_schema: Option<PathBuf>,
}

impl GrammarArgs {
    /// Reads and parses the grammar, if one is given.
    ///
    /// # Errors
    /// If the file cannot be read or is not a valid grammar; the error names the file.
    pub fn grammar(&self) -> anyhow::Result<Option<Grammar>> {
        let read = |path: &Path, parse: fn(&str) -> Result<Grammar, GrammarError>| {
            let text = text::read_at_most(path, MAX_BYTES).map_err(anyhow::Error::from);
            let grammar = text.and_then(|text| Ok(parse(&text)?));
            grammar.with_context(|| path.display().to_string())
        };
        match (&self.grammar, &self.json_schema) {
            (Some(path), _) => read(path, Grammar::gbnf).map(Some),
            (None, Some(path)) => read(path, Grammar::json_schema).map(Some),
            (None, None) => Ok(None),
        }
    }
}
