//! The fields of a record, with their values as they were written.
//!
//! A record is written again when its picture is captioned again. A value that a person or another program
//! put there must not change by that: `1.0`, `1e5`, `0.1000` and numbers of any length would, if they were
//! read as binary numbers. Only spaces between the parts of a value are left out.

use std::{borrow::Cow, collections::HashMap, fmt};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, MapAccess, Visitor},
};
use serde_json::{Value, value::RawValue};

/// Fields by their names, in their order. Each value is the JSON text that was read, on one line.
#[derive(Clone, Debug, Default)]
pub struct Fields(Vec<(String, Box<RawValue>)>);

impl Fields {
    /// Whether there is a field of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.written(name).is_some()
    }

    /// The names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// A value as it was written.
    pub fn written(&self, name: &str) -> Option<&str> {
        let field = self.0.iter().find(|(known, _)| known == name);
        field.map(|(_, value)| value.get())
    }

    /// A value that is a string.
    pub fn string(&self, name: &str) -> Option<String> {
        string_of(self.written(name)?)
    }

    /// A value as text, whatever a person's program made of it; `None` for `null`.
    pub fn text(&self, name: &str) -> Option<String> {
        match self.written(name)? {
            "null" => None,
            written => Some(string_of(written).unwrap_or_else(|| written.to_owned())),
        }
    }

    /// Sets a field: in its place, or behind the others.
    pub fn set(&mut self, name: &str, value: impl Into<Value>) {
        let value = serde_json::value::to_raw_value(&value.into()).expect("a value is JSON");
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => *known = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }

    /// Takes a field out.
    pub fn remove(&mut self, name: &str) {
        self.0.retain(|(known, _)| known != name);
    }

    /// Keeps the fields whose names are so.
    pub fn retain(&mut self, mut keep: impl FnMut(&str) -> bool) {
        self.0.retain(|(name, _)| keep(name));
    }

    /// Adds fields of other names behind these.
    pub fn append(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    /// Whether a field has no value: it is missing, `null` or the empty string.
    pub fn is_blank(&self, name: &str) -> bool {
        matches!(self.written(name), None | Some("null" | "\"\""))
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
    /// Of several fields of one name the last value counts, as for other readers of JSON.
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
        let mut places = HashMap::new();
        while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
            check_escapes(value.get()).map_err(A::Error::custom)?;
            let value = compact(value).map_err(A::Error::custom)?;
            match places.get(&name) {
                Some(at) => {
                    let at: usize = *at;
                    fields[at].1 = value;
                }
                None => {
                    places.insert(name.clone(), fields.len());
                    fields.push((name, value));
                }
            }
        }
        Ok(Fields(fields))
    }
}

/// Escapes of characters are not looked at when a value is taken as it is; half of a pair is none.
fn check_escapes(written: &str) -> serde_json::Result<()> {
    if !written.contains("\\u") {
        return Ok(());
    }
    serde_json::from_str::<Value>(written).map(drop)
}

/// A value without the spaces between its parts: a line of ours has none, by which its beginning is known.
fn compact(value: Box<RawValue>) -> serde_json::Result<Box<RawValue>> {
    let written = value.get().as_bytes();
    let mut kept = Vec::with_capacity(written.len());
    for_each_byte(written, |byte, is_space| {
        if !is_space {
            kept.push(byte);
        }
    });
    if kept.len() == written.len() {
        return Ok(value);
    }
    serde_json::from_slice(&kept)
}

/// Whether nothing in a JSON text, or in its beginning, is a space between two parts.
pub fn is_compact(json: &[u8]) -> bool {
    let mut any = false;
    for_each_byte(json, |_, is_space| any |= is_space);
    !any
}

/// Gives every byte of a JSON text, and whether it is a space outside of strings.
fn for_each_byte(json: &[u8], mut each: impl FnMut(u8, bool)) {
    let (mut in_string, mut is_escaped) = (false, false);
    for byte in json {
        let is_quote = *byte == b'"' && !is_escaped;
        is_escaped = in_string && *byte == b'\\' && !is_escaped;
        in_string ^= is_quote;
        each(*byte, !in_string && byte.is_ascii_whitespace());
    }
}

fn string_of(written: &str) -> Option<String> {
    let text: Cow<'_, str> = serde_json::from_str(written).ok()?;
    Some(text.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(line: &str) -> Fields {
        serde_json::from_str(line).unwrap()
    }

    #[test]
    fn values_stay_as_they_were_written() {
        for line in [
            r#"{"a":1.0,"b":1e5,"c":12345678901234567890123,"d":0.1000,"e":-0,"f":1E+05,"g":1e400}"#,
            r#"{"a":[1.0,{"b":-0.0}],"c":{"d":1.10,"d":2},"e":"caf\u00e9\/","f":null,"g":true}"#,
        ] {
            assert_eq!(serde_json::to_string(&fields(line)).unwrap(), line);
        }
    }

    #[test]
    fn spaces_between_parts_are_left_out() {
        let spaced = "{ \"a\" : [1.50,\t2 ], \"b\": {\"x y\" :\"p \\\" q\"}, \"c\":1.0 }";
        let compact = r#"{"a":[1.50,2],"b":{"x y":"p \" q"},"c":1.0}"#;
        assert_eq!(serde_json::to_string(&fields(spaced)).unwrap(), compact);
        assert!(is_compact(compact.as_bytes()) && !is_compact(spaced.as_bytes()));
    }

    #[test]
    fn a_field_is_set_in_its_place_and_the_last_of_a_name_counts() {
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
    fn a_value_is_text_whatever_it_is() {
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
    fn what_is_no_object_or_no_text_is_refused() {
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
