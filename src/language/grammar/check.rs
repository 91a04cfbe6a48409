//! Checks the syntax of a GBNF grammar and reports the place of an error.
//!
//! ```text
//! grammar    = { rule }
//! rule       = name "::=" alternates newline
//! alternates = sequence { "|" sequence }
//! sequence   = { item [ "*" | "+" | "?" | "{" n [ "," [ n ] ] "}" ] }
//! item       = "literal" | [set] | [^set] | . | name | ( alternates ) | [ "!" ] <token>
//! ```
//!
//! Comments begin with `#`. Within parentheses a newline is white space.

use std::collections::BTreeSet;

use super::GrammarError;

/// Limit of nested groups, because llama.cpp recurses into groups.
const MAX_DEPTH: usize = 100;
/// llama.cpp's limit of repetitions.
const MAX_REPETITIONS: usize = 2000;

/// Checks a grammar.
pub fn check(text: &str) -> Result<(), GrammarError> {
    let mut reader = Reader {
        rest: text,
        text,
        depth: 0,
        uses: Vec::new(),
    };
    let mut defined = BTreeSet::new();
    reader.space(true);
    while !reader.rest.is_empty() {
        defined.insert(reader.rule()?);
    }
    for (at, name) in &reader.uses {
        if !defined.contains(name) {
            let (line, column) = reader.place(*at);
            let name = (*name).to_owned();
            return Err(GrammarError::Undefined { line, column, name });
        }
    }
    if defined.contains("root") {
        Ok(())
    } else {
        Err(GrammarError::NoRoot)
    }
}

struct Reader<'a> {
    text: &'a str,
    rest: &'a str,
    depth: usize,
    /// Offsets and names of the rules that are used.
    uses: Vec<(usize, &'a str)>,
}

impl<'a> Reader<'a> {
    fn offset(&self) -> usize {
        self.text.len() - self.rest.len()
    }

    /// One-based line and column of an offset.
    fn place(&self, offset: usize) -> (usize, usize) {
        let before = &self.text[..offset];
        let line = before.matches('\n').count() + 1;
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        (line, before[line_start..].chars().count() + 1)
    }

    fn expected(&self, expected: &'static str) -> GrammarError {
        let (line, column) = self.place(self.offset());
        let found = match self.peek() {
            None | Some('\0') => "the end".to_owned(),
            Some('\n' | '\r') => "the end of the line".to_owned(),
            Some(c) => format!("`{c}`"),
        };
        GrammarError::Syntax {
            line,
            column,
            expected,
            found,
        }
    }

    fn too_large(&self, what: &'static str, limit: usize) -> GrammarError {
        let (line, column) = self.place(self.offset());
        GrammarError::TooLarge {
            line,
            column,
            what,
            limit,
        }
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn take(&mut self, token: &str) -> bool {
        let rest = self.rest.strip_prefix(token);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn need(&mut self, token: &str, expected: &'static str) -> Result<(), GrammarError> {
        match self.take(token) {
            true => Ok(()),
            false => Err(self.expected(expected)),
        }
    }

    fn space(&mut self, newlines: bool) {
        loop {
            let is_space = |c| matches!(c, ' ' | '\t') || newlines && matches!(c, '\r' | '\n');
            self.rest = self.rest.trim_start_matches(is_space);
            if !self.rest.starts_with('#') {
                return;
            }
            let end = self.rest.find(['\r', '\n']).unwrap_or(self.rest.len());
            self.rest = &self.rest[end..];
        }
    }

    fn name(&mut self) -> Option<&'a str> {
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '-';
        let end = self.rest.find(|c| !is_word(c)).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        (!name.is_empty()).then_some(name)
    }

    fn rule(&mut self) -> Result<&'a str, GrammarError> {
        let name = self.name().ok_or_else(|| self.expected("a rule's name"))?;
        self.space(false);
        self.need("::=", "`::=`")?;
        self.space(true);
        self.alternates(false)?;
        if !self.rest.is_empty() && !self.rest.starts_with(['\r', '\n']) {
            return Err(self.expected("a part of the rule or its end"));
        }
        self.space(true);
        Ok(name)
    }

    fn alternates(&mut self, nested: bool) -> Result<(), GrammarError> {
        self.sequence(nested)?;
        while self.take("|") {
            self.space(true);
            self.sequence(nested)?;
        }
        Ok(())
    }

    fn sequence(&mut self, nested: bool) -> Result<(), GrammarError> {
        let mut is_item = false;
        loop {
            match self.peek() {
                Some('*' | '+' | '?' | '{') if !is_item => {
                    return Err(self.expected("something to repeat"));
                }
                Some('*' | '+' | '?') => self.rest = &self.rest[1..],
                Some('{') => self.repetition(nested)?,
                _ if self.item()? => is_item = true,
                _ => return Ok(()),
            }
            self.space(nested);
        }
    }

    /// Reads an item; false if there is none.
    fn item(&mut self) -> Result<bool, GrammarError> {
        match self.peek() {
            Some('"') => self.characters("\"")?,
            Some('[') => self.characters("]")?,
            Some('.') => self.rest = &self.rest[1..],
            Some('<' | '!') => self.token()?,
            Some('(') => self.group()?,
            _ => {
                let at = self.offset();
                let Some(name) = self.name() else {
                    return Ok(false);
                };
                self.uses.push((at, name));
            }
        }
        Ok(true)
    }

    /// Reads a literal or a set, up to `end`.
    fn characters(&mut self, end: &str) -> Result<(), GrammarError> {
        self.rest = &self.rest[1..];
        while !self.take(end) {
            if self.take("\\") {
                self.escape()?;
                continue;
            }
            match self.peek() {
                None | Some('\0') => {
                    let quote = end == "\"";
                    return Err(self.expected(if quote { "`\"`" } else { "`]`" }));
                }
                Some(c) => self.rest = &self.rest[c.len_utf8()..],
            }
        }
        Ok(())
    }

    fn escape(&mut self) -> Result<(), GrammarError> {
        let n_digits = match self.peek() {
            Some('x') => 2,
            Some('u') => 4,
            Some('U') => 8,
            Some('t' | 'r' | 'n' | '\\' | '"' | '[' | ']' | '-') => 0,
            _ => return Err(self.expected("one of `t r n x u U \\ \" [ ] -` after `\\`")),
        };
        self.rest = &self.rest[1..];
        for _ in 0..n_digits {
            match self.peek() {
                Some(c) if c.is_ascii_hexdigit() => self.rest = &self.rest[1..],
                _ => return Err(self.expected("a hexadecimal digit")),
            }
        }
        Ok(())
    }

    fn token(&mut self) -> Result<(), GrammarError> {
        self.take("!");
        self.need("<", "`<`")?;
        self.need("[", "a token's id: `<[123]>`")?;
        self.number()?;
        self.need("]", "`]`")?;
        self.need(">", "`>`")
    }

    fn group(&mut self) -> Result<(), GrammarError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.too_large("nested groups", MAX_DEPTH));
        }
        self.rest = &self.rest[1..];
        self.space(true);
        self.alternates(true)?;
        self.depth -= 1;
        self.need(")", "`)`")
    }

    fn repetition(&mut self, nested: bool) -> Result<(), GrammarError> {
        self.rest = &self.rest[1..];
        self.space(nested);
        let min = self.number()?;
        self.space(nested);
        if self.take(",") {
            self.space(nested);
            if self.peek().is_some_and(|c| c.is_ascii_digit()) {
                let max = self.number()?;
                if max < min {
                    return Err(self.expected("no fewer repetitions than before the comma"));
                }
                self.space(nested);
            }
        }
        self.need("}", "`}`")
    }

    fn number(&mut self) -> Result<usize, GrammarError> {
        let end = self.rest.find(|c: char| !c.is_ascii_digit());
        let (digits, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        if digits.is_empty() {
            return Err(self.expected("a number"));
        }
        match digits.parse() {
            Ok(n) if n <= MAX_REPETITIONS || self.text[..self.offset()].ends_with('[') => {
                self.rest = rest;
                Ok(n)
            }
            _ => Err(self.too_large("repetitions", MAX_REPETITIONS)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grammars_of_all_forms_are_valid() {
        for grammar in [
            "root ::= \"yes\" | \"no\"",
            "# comment\nroot ::= item (\",\" item)* # more\nitem ::= [a-z]+ [^\"\\\\]? .\n",
            "root ::= a{2} a{2,} a{2,5}\r\na ::=\n  \"\\x41\\u00e9\\n\" |\n  \"b\"\n",
            "root ::= (\n  \"a\"\n  | root-2\n)\nroot-2 ::= <[12]> !<[100000]> [\\]\\-]\n",
            "root ::= ",
        ] {
            assert_eq!(check(grammar), Ok(()), "{grammar}");
        }
    }

    #[test]
    fn an_error_reports_its_line_and_column() {
        for (grammar, message) in [
            ("", "expected a rule `root`"),
            ("rule ::= \"a\"", "expected a rule `root`"),
            (
                "root = \"a\"",
                "line 1, column 6: expected `::=`, found `=`",
            ),
            (
                "root ::= \"a",
                "line 1, column 12: expected `\"`, found the end",
            ),
            (
                "root ::= [a-z",
                "line 1, column 14: expected `]`, found the end",
            ),
            (
                "root ::= \"a\" )",
                "line 1, column 14: expected a part of the rule or its end, found `)`",
            ),
            (
                "root ::= (\"a\"\n",
                "line 2, column 1: expected `)`, found the end",
            ),
            (
                "root ::= \"a\"\n  b ::= * \"c\"",
                "line 2, column 9: expected something to repeat",
            ),
            ("root ::= \"\\q\"", "line 1, column 12: expected one of"),
            (
                "root ::= \"\\x4\"",
                "line 1, column 14: expected a hexadecimal digit",
            ),
            (
                "root ::= \"é\" missing",
                "line 1, column 14: rule `missing` is not defined",
            ),
            (
                "root ::= \"a\"{x}",
                "line 1, column 14: expected a number, found `x`",
            ),
            (
                "root ::= \"a\"{5,2}",
                "line 1, column 17: expected no fewer repetitions",
            ),
            (
                "root ::= \"a\"{99999999999999999999}",
                "expected at most 2000 repetitions",
            ),
            (
                "root ::= \"a\"\n%",
                "line 2, column 1: expected a rule's name, found `%`",
            ),
            (
                "root ::= \"a\0b\"",
                "line 1, column 12: expected `\"`, found the end",
            ),
        ] {
            let error = check(grammar).unwrap_err().to_string();
            assert!(error.contains(message), "{grammar:?}: {error}");
        }
        let deep = format!("root ::= {}\"a\"{}", "(".repeat(101), ")".repeat(101));
        let error = check(&deep).unwrap_err().to_string();
        assert!(
            error.contains("expected at most 100 nested groups"),
            "{error}"
        );
    }
}
