//! Grammars that constrain answers.
//!
//! llama.cpp's grammar engine decides which tokens may follow ([`llama::Constraint`]). Errors in a grammar are
//! detected here, because llama.cpp reports them on stderr only, and some abort the process.

mod check;

use crate::language::llama;

/// A valid grammar that constrains an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grammar {
    gbnf: String,
}

/// What is wrong with a grammar.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum GrammarError {
    /// The grammar ends early or has an unexpected character.
    #[error("grammar, line {line}, column {column}: expected {expected}, found {found}")]
    Syntax {
        line: usize,
        column: usize,
        expected: &'static str,
        found: String,
    },
    /// A rule is used but not defined.
    #[error("grammar, line {line}, column {column}: rule `{name}` is not defined")]
    Undefined {
        line: usize,
        column: usize,
        name: String,
    },
    /// There is no rule `root`.
    #[error("grammar: expected a rule `root`, found none")]
    NoRoot,
    /// Repetitions or nested groups beyond llama.cpp's limits.
    #[error("grammar, line {line}, column {column}: expected at most {limit} {what}")]
    TooLarge {
        line: usize,
        column: usize,
        what: &'static str,
        limit: usize,
    },
    /// llama.cpp refuses a grammar of valid syntax.
    #[error("grammar: llama.cpp refuses it: {what}")]
    Refused { what: String },
    /// A JSON schema that is not valid JSON.
    #[error("JSON schema, line {line}, column {column}: {what}")]
    Json {
        line: usize,
        column: usize,
        what: String,
    },
    /// A JSON schema that llama.cpp cannot convert to a grammar.
    #[error("JSON schema: {what}")]
    Schema { what: String },
}

impl Grammar {
    /// A grammar in llama.cpp's GBNF, whose rule `root` matches the whole answer.
    ///
    /// # Errors
    /// If the syntax is invalid, with line and column, or llama.cpp refuses it, for example because of left recursion.
    pub fn gbnf(text: &str) -> Result<Self, GrammarError> {
        check::check(text)?;
        llama::check_grammar(text).map_err(|what| GrammarError::Refused { what })?;
        Ok(Self {
            gbnf: text.to_owned(),
        })
    }

    /// The grammar of JSON values that a schema describes, each on one line.
    ///
    /// # Errors
    /// If it is not valid JSON, with line and column, or llama.cpp cannot convert it.
    pub fn json_schema(text: &str) -> Result<Self, GrammarError> {
        let schema: serde_json::Value =
            serde_json::from_str(text).map_err(|error| GrammarError::Json {
                line: error.line(),
                column: error.column(),
                what: reason(&error),
            })?;
        if !schema.is_object() && !schema.is_boolean() {
            let what = format!("expected an object, found `{schema}`");
            return Err(GrammarError::Schema { what });
        }
        let gbnf =
            llama::json_schema_to_gbnf(text).map_err(|what| GrammarError::Schema { what })?;
        Self::gbnf(&on_one_line(&gbnf))
    }

    /// The grammar as GBNF text.
    pub fn as_gbnf(&self) -> &str {
        &self.gbnf
    }
}

/// Permits at most one space between two tokens of JSON. llama.cpp permits newlines and twenty spaces, and an unsure
/// model generates them.
fn on_one_line(gbnf: &str) -> String {
    let rules = gbnf.lines().map(|rule| match rule.split_once("::=") {
        Some((name, _)) if name.trim() == "space" => "space ::= \" \"?",
        _ => rule,
    });
    rules.map(|rule| format!("{rule}\n")).collect()
}

/// The message without line and column, which are reported separately.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let end = text.rfind(" at line ").unwrap_or(text.len());
    text[..end].to_owned()
}
