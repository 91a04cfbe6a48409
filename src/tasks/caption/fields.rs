//! The fields of a record, with the original text of their values.
//!
//! A record is rewritten when its picture is captioned again. Values of users or other programs must not change
//! then, but `1.0`, `1e5`, `0.1000` and long numbers would if they were parsed as binary numbers. Only spaces
//! between JSON tokens are removed.

use std::{borrow::Cow, collections::HashMap, fmt};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, MapAccess, Visitor},
};
use serde_json::{Value, value::RawValue};

/// Named fields in order. Each value is its original JSON text on one line.
#[derive(Clone, Debug, Default)]
pub struct Fields(Vec<(String, Box<RawValue>)>);

impl Fields {
    /// Whether there is a field of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.json(name).is_some()
    }

    /// The names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// The JSON text of a value.
    pub fn json(&self, name: &str) -> Option<&str> {
        let field = self.0.iter().find(|(known, _)| known == name);
        field.map(|(_, value)| value.get())
    }

    /// A value, if it is a string.
    pub fn string(&self, name: &str) -> Option<String> {
        string_of(self.json(name)?)
    }

    /// A value as text, also if another program wrote a number, for example; `None` for `null`.
    pub fn text(&self, name: &str) -> Option<String> {
        match self.json(name)? {
            "null" => None,
            json => Some(string_of(json).unwrap_or_else(|| json.to_owned())),
        }
    }

    /// Sets a field in place, or appends it.
    pub fn set(&mut self, name: &str, value: impl Into<Value>) {
        let value = serde_json::value::to_raw_value(&value.into()).expect("a value is JSON");
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => *known = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }

    /// Removes a field.
    pub fn remove(&mut self, name: &str) {
        self.0.retain(|(known, _)| known != name);
    }

    /// Keeps the fields for whose names `keep` is true.
    pub fn retain(&mut self, mut keep: impl FnMut(&str) -> bool) {
        self.0.retain(|(name, _)| keep(name));
    }

    /// Appends fields, which must have other names.
    pub fn append(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    /// Whether a field is absent, `null` or the empty string.
    pub fn is_blank(&self, name: &str) -> bool {
        matches!(self.json(name), None | Some("null" | "\"\""))
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Fields {
    fn from(texts: [(&str, &str); N]) -> Self {
        let mut fields = Self::default();
        texts
            .into_iter()
            .for_each(|(name, text)| fields.set(name, text));
        fields
    }
}

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

impl<'de> Deserialize<'de> for Fields {
    /// If a name occurs more than once, the last value counts, as for most JSON parsers.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let mut fields: Vec<(String, Box<RawValue>)> = Vec::new();
        let mut indices = HashMap::new();
        while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
            check_escapes(value.get()).map_err(A::Error::custom)?;
            let value = compact(value).map_err(A::Error::custom)?;
            match indices.get(&name) {
                Some(at) => {
                    let at: usize = *at;
                    fields[at].1 = value;
                }
                None => {
                    indices.insert(name.clone(), fields.len());
                    fields.push((name, value));
                }
            }
        }
        Ok(Fields(fields))
    }
}

/// Rejects half surrogate pairs: raw values are taken without decoding their escapes.
fn check_escapes(json: &str) -> serde_json::Result<()> {
    if !json.contains("\\u") {
        return Ok(());
    }
    serde_json::from_str::<Value>(json).map(drop)
}

/// Removes the spaces between JSON tokens. Lines of this program have none, which identifies a torn write.
fn compact(value: Box<RawValue>) -> serde_json::Result<Box<RawValue>> {
    let json = value.get().as_bytes();
    let mut kept = Vec::with_capacity(json.len());
    for_each_byte(json, |byte, is_space| {
        if !is_space {
            kept.push(byte);
        }
    });
    if kept.len() == json.len() {
        return Ok(value);
    }
    serde_json::from_slice(&kept)
}

/// Whether a JSON text, or its beginning, has no space between tokens.
pub fn is_compact(json: &[u8]) -> bool {
    let mut any = false;
    for_each_byte(json, |_, is_space| any |= is_space);
    !any
}

/// Calls `each` with every byte of a JSON text and whether it is a space outside strings.
fn for_each_byte(json: &[u8], mut each: impl FnMut(u8, bool)) {
    let (mut in_string, mut is_escaped) = (false, false);
    for byte in json {
        let is_quote = *byte == b'"' && !is_escaped;
        is_escaped = in_string && *byte == b'\\' && !is_escaped;
        in_string ^= is_quote;
        each(*byte, !in_string && byte.is_ascii_whitespace());
    }
}

fn string_of(json: &str) -> Option<String> {
    let text: Cow<'_, str> = serde_json::from_str(json).ok()?;
    Some(text.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(line: &str) -> Fields {
        serde_json::from_str(line).unwrap()
    }

    #[test]
    fn values_keep_their_text() {
        for line in [
            r#"{"a":1.0,"b":1e5,"c":12345678901234567890123,"d":0.1000,"e":-0,"f":1E+05,"g":1e400}"#,
            r#"{"a":[1.0,{"b":-0.0}],"c":{"d":1.10,"d":2},"e":"caf\u00e9\/","f":null,"g":true}"#,
        ] {
            assert_eq!(serde_json::to_string(&fields(line)).unwrap(), line);
        }
    }

    #[test]
    fn spaces_between_tokens_are_removed() {
        let spaced = "{ \"a\" : [1.50,\t2 ], \"b\": {\"x y\" :\"p \\\" q\"}, \"c\":1.0 }";
        let compact = r#"{"a":[1.50,2],"b":{"x y":"p \" q"},"c":1.0}"#;
        assert_eq!(serde_json::to_string(&fields(spaced)).unwrap(), compact);
        assert!(is_compact(compact.as_bytes()) && !is_compact(spaced.as_bytes()));
    }

    #[test]
    fn a_field_is_set_in_place_and_the_last_duplicate_counts() {
        let mut fields = fields(r#"{"a":1.0,"b":2,"a":3.0}"#);
        fields.set("b", "x");
        fields.set("c", 4);
        assert_eq!(
            serde_json::to_string(&fields).unwrap(),
            r#"{"a":3.0,"b":"x","c":4}"#
        );
        fields.remove("a");
        assert_eq!(fields.names().collect::<Vec<_>>(), ["b", "c"]);
    }

    #[test]
    fn values_of_any_type_have_a_text() {
        let fields = fields(r#"{"a":"x\ny","b":1.50,"c":null,"d":[1],"e":""}"#);
        let text = |name| fields.text(name);
        assert_eq!(text("a").as_deref(), Some("x\ny"));
        assert_eq!(text("b").as_deref(), Some("1.50"));
        assert_eq!((text("c"), text("z")), (None, None));
        assert_eq!(text("d").as_deref(), Some("[1]"));
        assert_eq!(
            (fields.string("b"), fields.string("e")),
            (None, Some(String::new()))
        );
        assert!(["c", "e", "z"].iter().all(|name| fields.is_blank(name)));
        assert!(!fields.is_blank("b"));
    }

    #[test]
    fn invalid_objects_and_strings_are_rejected() {
        for line in [
            "[1]",
            r#"{"a":01}"#,
            r#"{"a":"\udce9"}"#,
            r#"{"a":["\ud83d"]}"#,
            r#"{"a":1}{}"#,
            r#"{"a":"#,
        ] {
            assert!(serde_json::from_str::<Fields>(line).is_err(), "{line}");
        }
        let cut = serde_json::from_str::<Fields>(r#"{"a":[1"#).unwrap_err();
        assert!(cut.is_eof());
    }
}
