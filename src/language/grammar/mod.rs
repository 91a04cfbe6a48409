//! Grammars that answers are held to.
//!
//! llama.cpp's grammar engine decides which tokens may follow ([`crate::language::llama::Constraint`]). What
//! is wrong with a grammar is found here, because llama.cpp says so on stderr only and aborts on
//! some.

mod check;

use crate::language::llama;

/// What an answer has to look like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grammar {
    gbnf: String,
}

/// What is wrong with a grammar.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum GrammarError {
    /// The grammar breaks off or has a sign in a wrong place.
    #[error("grammar, line {line}, column {column}: expected {expected}, found {found}")]
    Syntax {
        line: usize,
        column: usize,
        expected: &'static str,
        found: String,
    },
    /// A rule that is used and nowhere defined.
    #[error("grammar, line {line}, column {column}: rule `{name}` is not defined")]
    Undefined {
        line: usize,
        column: usize,
        name: String,
    },
    /// There is no beginning.
    #[error("grammar: expected a rule `root`, found none")]
    NoRoot,
    /// Repetitions or groups beyond what llama.cpp takes.
    #[error("grammar, line {line}, column {column}: {what} (at most {limit})")]
    TooLarge {
        line: usize,
        column: usize,
        what: &'static str,
        limit: usize,
    },
    /// What is well-formed and llama.cpp does not take all the same.
    #[error("grammar: llama.cpp refuses it: {what}")]
    Refused { what: String },
    /// A JSON schema that is no JSON.
    #[error("JSON schema, line {line}, column {column}: {what}")]
    Json {
        line: usize,
        column: usize,
        what: String,
    },
    /// A JSON schema with something that llama.cpp has no grammar for.
    #[error("JSON schema: {what}")]
    Schema { what: String },
}

impl Grammar {
    /// A grammar in llama.cpp's GBNF, whose rule `root` is the whole answer.
    ///
    /// # Errors
    /// If it is none, with the place, or llama.cpp does not take it: for example because a rule begins
    /// with itself.
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
    /// If it is no JSON, with the place, or llama.cpp cannot make a grammar of it.
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

    /// The grammar as text.
    pub fn as_gbnf(&self) -> &str {
        &self.gbnf
    }
}

/// llama.cpp lets newlines and twenty blanks come between any two tokens of JSON, and a model that is unsure
/// what to say says those. A blank is as good.
fn on_one_line(gbnf: &str) -> String {
    let rules = gbnf.lines().map(|rule| match rule.split_once("::=") {
        Some((name, _)) if name.trim() == "space" => "space ::= \" \"?",
        _ => rule,
    });
    rules.map(|rule| format!("{rule}\n")).collect()
}

/// The message without the place, which has a place of its own.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let end = text.rfind(" at line ").unwrap_or(text.len());
    text[..end].to_owned()
}
