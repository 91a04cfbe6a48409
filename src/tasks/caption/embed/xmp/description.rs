//! Reads and replaces the description in the RDF of a packet, in any form that RDF allows.
//!
//! A packet is parsed only for positions. The bytes of the description are replaced or removed in the original
//! text; nothing else changes.

use std::{collections::BTreeSet, ops::Range};

use roxmltree::{Document, Node, ParsingOptions};

use super::{Description, PacketError};
use crate::tasks::caption::embed::edits::Edits;

const RDF: &str = "http://www.w3.org/1999/02/22-rdf-syntax-ns#";
const XML: &str = "http://www.w3.org/XML/1998/namespace";
const META: &str = "adobe:ns:meta/";
const DC: &str = "http://purl.org/dc/elements/1.1/";
/// The namespace that early Adobe programs used for Dublin Core. Adobe's toolkit, and so exiv2, accepts it too, but
/// drops a packet in which both occur.
const EARLY_DC: &str = "http://purl.org/dc/1.1/";

/// The default language.
const DEFAULT: &str = "x-default";

/// Maximum number of elements, texts and comments of a packet: bounds the memory for parsing a small file.
const MAX_NODES: u32 = 1 << 20;

/// Maximum number of comparisons for parsing a packet: bounds the time for parsing a small file.
const MAX_COMPARISONS: usize = 1 << 30;

/// `packet` with `caption` as its description in the default language.
///
/// # Errors
/// If the packet is not XMP, or other data could be lost.
pub fn replace(packet: &str, caption: &str) -> Result<String, PacketError> {
    let document = parse(packet)?;
    let mut edits = Edits::default();
    match find_rdf(&document)? {
        None => append_child(packet, document.root_element(), &rdf(caption), &mut edits),
        Some(rdf) => edit_rdf(packet, rdf, caption, &mut edits)?,
    }
    let edited = String::from_utf8(edits.apply(packet.as_bytes()));
    let edited = edited.map_err(|_| PacketError::ReadBack)?;
    match read(&edited)?.default {
        Some(found) if found == xml_characters(caption) => Ok(edited),
        _ => Err(PacketError::ReadBack),
    }
}

/// The description of the picture in `packet`.
///
/// # Errors
/// If the packet is not XMP.
pub fn read(packet: &str) -> Result<Description, PacketError> {
    let document = parse(packet)?;
    let Some(rdf) = find_rdf(&document)? else {
        return Ok(Description::default());
    };
    let statements = statements(&picture_nodes(rdf)?)?;
    Ok(Description {
        has_any: !statements.is_empty(),
        default: statements.iter().find_map(Statement::default_text),
    })
}

/// An `rdf:RDF` element with only `caption`.
pub fn rdf(caption: &str) -> String {
    format!(
        "<rdf:RDF xmlns:rdf=\"{RDF}\">{}</rdf:RDF>",
        node("", caption)
    )
}

/// A new node for the description; `about` must be escaped.
fn node(about: &str, caption: &str) -> String {
    format!(
        "<rdf:Description xmlns:rdf=\"{RDF}\" rdf:about=\"{about}\">{}</rdf:Description>",
        property(caption, "")
    )
}

/// The description property with its own namespace declarations. `others` are texts in other languages.
fn property(caption: &str, others: &str) -> String {
    format!(
        "<dc:description xmlns:dc=\"{DC}\" xmlns:rdf=\"{RDF}\"><rdf:Alt>\
         <rdf:li xml:lang=\"{DEFAULT}\">{}</rdf:li>{others}</rdf:Alt></dc:description>",
        escape(&xml_characters(caption))
    )
}

/// Replaces the characters that XML 1.0 does not allow.
fn xml_characters(text: &str) -> String {
    let is_allowed = |c: char| match c {
        '\t' | '\n' | '\r' | '\u{7f}'..='\u{9f}' => true,
        '\u{fffe}' | '\u{ffff}' => false,
        c => !c.is_control(),
    };
    let replaced = text
        .chars()
        .map(|c| if is_allowed(c) { c } else { '\u{fffd}' });
    replaced.collect()
}

/// Escapes `text` for the content of an element or an attribute in double quotes.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\r' => escaped += "&#13;", // a parser would turn it into a line feed
            c => escaped.push(c),
        }
    }
    escaped
}

/// Rejects a packet that would take long to parse. The parser compares the attributes of a tag with each other,
/// and at a tag that declares a namespace all namespaces in scope.
fn check_cost(packet: &str) -> Result<(), PacketError> {
    let n_attributes = |tag: &str| tag.matches('=').count();
    let of_attributes = packet.split('<').map(|tag| n_attributes(tag).pow(2));
    let of_attributes: usize = of_attributes.fold(0, usize::saturating_add);
    let declarations = packet.split("xmlns").skip(1);
    let n_declarations = declarations.clone().count();
    let names: BTreeSet<_> = declarations.map(|rest| rest.split('=').next()).collect();
    let of_namespaces = n_declarations.saturating_mul(names.len().saturating_pow(2));
    match of_attributes.saturating_add(of_namespaces) <= MAX_COMPARISONS {
        true => Ok(()),
        false => Err(PacketError::TooComplex),
    }
}

fn parse(packet: &str) -> Result<Document<'_>, PacketError> {
    check_cost(packet)?;
    let options = ParsingOptions {
        // Entities would have to be resolved to know the content of an element.
        allow_dtd: false,
        nodes_limit: MAX_NODES,
        ..ParsingOptions::default()
    };
    Ok(Document::parse_with_options(packet, options)?)
}

/// The only `rdf:RDF` of a packet; `None` if there is none and one can be added.
fn find_rdf<'d, 'p>(document: &'d Document<'p>) -> Result<Option<Node<'d, 'p>>, PacketError> {
    let root = document.root_element();
    let is_meta = is(&root, META, "xmpmeta") || is(&root, META, "xapmeta");
    let can_be_added = is_meta && elements(&root).next().is_none();
    let all: Vec<_> = root.descendants().filter(|e| is(e, RDF, "RDF")).collect();
    match all[..] {
        [] if can_be_added => Ok(None),
        [rdf] => check_namespaces(root, rdf).map(|()| Some(rdf)),
        _ => Err(PacketError::Rdf(all.len())),
    }
}

/// Rejects packets that programs read in different ways.
fn check_namespaces(root: Node<'_, '_>, rdf: Node<'_, '_>) -> Result<(), PacketError> {
    let inside = rdf.range();
    for element in root.descendants().filter(Node::is_element) {
        let attributes = element.attributes().map(|a| a.namespace());
        let mut namespaces = attributes.chain([element.tag_name().namespace()]);
        if namespaces.any(|n| n == Some(EARLY_DC)) {
            return Err(PacketError::EarlyNamespace(EARLY_DC));
        }
        // exiftool accepts it as the picture's, Adobe's toolkit does not.
        let is_outside = !inside.contains(&element.range().start);
        if is_outside && is(&element, DC, "description") {
            return Err(PacketError::Outside);
        }
    }
    Ok(())
}

fn is(element: &Node<'_, '_>, namespace: &str, name: &str) -> bool {
    element.has_tag_name((namespace, name))
}

fn elements<'d, 'p>(parent: &Node<'d, 'p>) -> impl Iterator<Item = Node<'d, 'p>> {
    parent.children().filter(Node::is_element)
}

/// The top-level nodes about the picture itself.
///
/// XMP requires that all of them have one subject. If some name a subject and others do not, they are two subjects
/// in RDF and one for Adobe's toolkit. This does not matter if those with a name have no description.
fn picture_nodes<'d, 'p>(rdf: Node<'d, 'p>) -> Result<Vec<Node<'d, 'p>>, PacketError> {
    let (unnamed, named): (Vec<_>, Vec<_>) =
        elements(&rdf).partition(|node| subject(node).is_empty());
    let subjects: BTreeSet<_> = named.iter().map(subject).collect();
    let mut subjects = subjects.into_iter();
    match (subjects.next(), subjects.next()) {
        (Some(first), Some(second)) => Err(PacketError::Subjects { first, second }),
        (Some(second), None) if !unnamed.is_empty() => {
            if statements(&named)?.is_empty() {
                return Ok(unnamed);
            }
            let first = "this file".to_owned();
            Err(PacketError::Subjects { first, second })
        }
        (Some(_), None) => Ok(named),
        (None, _) => Ok(unnamed),
    }
}

/// The subject of a node; empty for the picture. Early programs wrote `about` without a namespace.
fn subject(node: &Node<'_, '_>) -> String {
    let value = |name| node.attribute((RDF, name)).or(node.attribute(name));
    let about = value("about").map(str::to_owned);
    let fragment = || value("ID").map(|id| format!("#{id}"));
    let blank = || node.attribute((RDF, "nodeID")).map(|id| format!("_:{id}"));
    about.or_else(fragment).or_else(blank).unwrap_or_default()
}

/// One occurrence of the description.
enum Statement<'d, 'p> {
    /// An attribute of the node.
    Attribute { range: Range<usize>, text: String },
    /// A property without a list: a text, possibly with a language.
    Text {
        element: Node<'d, 'p>,
        language: Option<&'d str>,
    },
    /// A property with a list of texts.
    Alternatives {
        list: Node<'d, 'p>,
        element: Node<'d, 'p>,
    },
}

/// All descriptions in `nodes`.
fn statements<'d, 'p>(nodes: &[Node<'d, 'p>]) -> Result<Vec<Statement<'d, 'p>>, PacketError> {
    let is_description = |space, name| space == Some(DC) && name == "description";
    let mut statements = Vec::new();
    for node in nodes {
        for attribute in node.attributes() {
            if is_description(attribute.namespace(), attribute.name()) {
                statements.push(Statement::Attribute {
                    range: attribute.range(),
                    text: attribute.value().to_owned(),
                });
            }
        }
        for element in elements(node) {
            if is_description(element.tag_name().namespace(), element.tag_name().name()) {
                statements.push(Statement::of(element)?);
            }
        }
    }
    Ok(statements)
}

impl<'d, 'p> Statement<'d, 'p> {
    fn of(element: Node<'d, 'p>) -> Result<Self, PacketError> {
        let mut language = None;
        let mut is_literal = false;
        for attribute in element.attributes() {
            match (attribute.namespace(), attribute.name(), attribute.value()) {
                (Some(XML), "lang", value) => language = Some(value),
                (Some(RDF), "parseType", "Literal") => is_literal = true,
                (Some(RDF), "resource" | "datatype", _) => {}
                (_, name, _) => return Err(form(format!("qualified by `{name}`"))),
            }
        }
        let language = language.filter(|l| !is_default(l));
        let mut inner = elements(&element);
        match (inner.next(), inner.next()) {
            (None, _) => Ok(Self::Text { element, language }),
            _ if is_literal => Ok(Self::Text {
                element,
                language: None,
            }),
            (Some(list), None) if !has_text(&element) && list.attributes().len() == 0 => {
                Self::of_list(element, list)
            }
            _ => Err(form("a structure")),
        }
    }

    fn of_list(element: Node<'d, 'p>, list: Node<'d, 'p>) -> Result<Self, PacketError> {
        if has_text(&list) || elements(&list).any(|item| !is(&item, RDF, "li")) {
            return Err(form("a structure"));
        }
        let this = Self::Alternatives { list, element };
        let defaults = this.defaults();
        if let Some(item) = defaults.iter().find(|item| !is_plain(item)) {
            let qualifier = item.attributes().find(|a| a.name() != "lang");
            let qualifier = qualifier.map_or("elements", |a| a.name());
            return Err(form(format!("qualified by `{qualifier}`")));
        }
        let n_unnamed = defaults.iter().filter(|i| language_of(i).is_none()).count();
        match (list.tag_name().namespace(), list.tag_name().name()) {
            (Some(RDF), "Alt") if n_unnamed <= 1 => Ok(this),
            (Some(RDF), "Alt") => Err(form(format!("{n_unnamed} texts without a language"))),
            (Some(RDF), "Bag" | "Seq")
                if elements(&list).count() == defaults.len() && defaults.len() <= 1 =>
            {
                Ok(Self::Text {
                    element,
                    language: None,
                })
            }
            (_, name) => Err(form(format!("a list of the kind `{name}`"))),
        }
    }

    /// The items in the default language: those marked as such, or else those without a language.
    fn defaults(&self) -> Vec<Node<'d, 'p>> {
        let Self::Alternatives { list, .. } = self else {
            return Vec::new();
        };
        let of = |pick: fn(Option<&str>) -> bool| -> Vec<_> {
            elements(list)
                .filter(|item| pick(language_of(item)))
                .collect()
        };
        let named = of(|language| language.is_some_and(is_default));
        if named.is_empty() {
            of(|language| language.is_none())
        } else {
            named
        }
    }

    fn default_text(&self) -> Option<String> {
        match self {
            Self::Attribute { text, .. } => Some(text.clone()),
            Self::Text {
                language: Some(_), ..
            } => None,
            Self::Text { element, .. } => Some(text_in(element)),
            Self::Alternatives { .. } => self.defaults().first().map(text_in),
        }
    }

    /// Whether there are texts in languages other than the default one.
    fn has_languages(&self) -> bool {
        match self {
            Self::Attribute { .. } => false,
            Self::Text { language, .. } => language.is_some(),
            Self::Alternatives { list, .. } => elements(list).count() > self.defaults().len(),
        }
    }
}

fn form(found: impl Into<String>) -> PacketError {
    PacketError::Form(found.into())
}

fn is_default(language: &str) -> bool {
    language.eq_ignore_ascii_case(DEFAULT)
}

fn language_of<'d>(item: &Node<'d, '_>) -> Option<&'d str> {
    item.attribute((XML, "lang"))
}

/// Whether an item is only a text.
fn is_plain(item: &Node<'_, '_>) -> bool {
    let is_language =
        |a: roxmltree::Attribute<'_, '_>| a.namespace() == Some(XML) && a.name() == "lang";
    elements(item).next().is_none() && item.attributes().all(is_language)
}

/// Whether there is text between the elements of `parent`.
fn has_text(parent: &Node<'_, '_>) -> bool {
    let is_word = |text: &str| !text.trim().is_empty();
    parent
        .children()
        .any(|c| c.is_text() && c.text().is_some_and(is_word))
}

/// The text in an element; comments may divide it.
fn text_in(element: &Node<'_, '_>) -> String {
    let texts = element.descendants().filter(Node::is_text);
    texts.filter_map(|t| t.text()).collect()
}

/// Makes `caption` the only default description of the picture.
fn edit_rdf(
    packet: &str,
    rdf: Node<'_, '_>,
    caption: &str,
    edits: &mut Edits,
) -> Result<(), PacketError> {
    let nodes = picture_nodes(rdf)?;
    let statements = statements(&nodes)?;
    let target = |pick: fn(&Statement<'_, '_>) -> bool| statements.iter().position(pick);
    let target = target(|s| matches!(s, Statement::Alternatives { .. }))
        .or_else(|| target(|s| matches!(s, Statement::Text { .. })));
    for (i, statement) in statements.iter().enumerate() {
        if Some(i) == target {
            set(packet, statement, caption, edits);
        } else if statement.has_languages() {
            return Err(form("present several times"));
        } else {
            edits.remove(statement_range(packet, statement));
        }
    }
    if target.is_none() {
        match nodes.iter().find(|node| is(node, RDF, "Description")) {
            Some(node) => append_child(packet, *node, &property(caption, ""), edits),
            None => {
                let about = nodes.first().map(subject).unwrap_or_default();
                append_child(packet, rdf, &node(&escape(&about), caption), edits);
            }
        }
    }
    Ok(())
}

/// The byte range of a statement; for an attribute including the space before it.
fn statement_range(packet: &str, statement: &Statement<'_, '_>) -> Range<usize> {
    match statement {
        Statement::Attribute { range, .. } => packet[..range.start].trim_end().len()..range.end,
        Statement::Text { element, .. } | Statement::Alternatives { element, .. } => {
            element.range()
        }
    }
}

/// Makes `caption` the default text of a statement. A text in another language is kept in a list.
fn set(packet: &str, statement: &Statement<'_, '_>, caption: &str, edits: &mut Edits) {
    match statement {
        Statement::Attribute { .. } => {}
        Statement::Text { element, language } => {
            let others = language.map_or(String::new(), |language| {
                let text = &packet[Tags::of(packet, *element).content()];
                format!("<rdf:li xml:lang=\"{}\">{text}</rdf:li>", escape(language))
            });
            edits.replace(element.range(), property(caption, &others));
        }
        Statement::Alternatives { list, .. } => {
            let text = escape(&xml_characters(caption));
            let mut defaults = statement.defaults().into_iter();
            match defaults.next() {
                Some(item) => set_item(packet, item, &text, edits),
                None => {
                    let name = Tags::of(packet, *list).name;
                    let name = format!("{}li", name.strip_suffix("Alt").unwrap_or(name));
                    let item = format!("<{name} xml:lang=\"{DEFAULT}\">{text}</{name}>");
                    prepend_child(packet, *list, &item, edits);
                }
            }
            defaults.for_each(|item| edits.remove(item.range()));
        }
    }
}

fn set_item(packet: &str, item: Node<'_, '_>, text: &str, edits: &mut Edits) {
    let tags = Tags::of(packet, item);
    if language_of(&item).is_none() {
        edits.insert(
            tags.open.end - tags.closing_len(),
            format!(" xml:lang=\"{DEFAULT}\""),
        );
    }
    tags.fill(text, edits);
}

fn prepend_child(packet: &str, parent: Node<'_, '_>, child: &str, edits: &mut Edits) {
    let tags = Tags::of(packet, parent);
    match tags.close {
        Some(_) => edits.insert(tags.open.end, child),
        None => tags.fill(child, edits),
    }
}

fn append_child(packet: &str, parent: Node<'_, '_>, child: &str, edits: &mut Edits) {
    let tags = Tags::of(packet, parent);
    match &tags.close {
        Some(close) => edits.insert(close.start, child),
        None => tags.fill(child, edits),
    }
}

/// Positions of the tags of an element in its packet.
struct Tags<'p> {
    /// The name with its prefix.
    name: &'p str,
    open: Range<usize>,
    /// `None` for an empty-element tag.
    close: Option<Range<usize>>,
}

impl<'p> Tags<'p> {
    fn of(packet: &'p str, element: Node<'_, '_>) -> Self {
        let Range { start, end } = element.range();
        let tag = &packet[start..end];
        let is_end_of_name = |c: char| c.is_ascii_whitespace() || matches!(c, '/' | '>');
        let name = tag[1..].split(is_end_of_name).next().unwrap_or_default();
        let open = start..start + len_of_tag(tag);
        // In well-formed XML, the last `</` starts the element's own end tag.
        let close = (open.end < end).then(|| start + tag.rfind("</").unwrap_or(tag.len())..end);
        Self { name, open, close }
    }

    /// The length of the end of the start tag: `>` or `/>`.
    fn closing_len(&self) -> usize {
        if self.close.is_some() { 1 } else { 2 }
    }

    fn content(&self) -> Range<usize> {
        let end = self
            .close
            .as_ref()
            .map_or(self.open.end, |close| close.start);
        self.open.end..end
    }

    /// Replaces the content of the element.
    fn fill(&self, content: &str, edits: &mut Edits) {
        match self.close {
            Some(_) => edits.replace(self.content(), content),
            None => {
                let slash = self.open.end - self.closing_len();
                let rest = format!(">{content}</{}>", self.name);
                edits.replace(slash..self.open.end, rest);
            }
        }
    }
}

/// The length of the tag at the beginning of `text`. A `>` in quotes is part of a value.
fn len_of_tag(text: &str) -> usize {
    let mut quote = None;
    for (at, byte) in text.bytes().enumerate() {
        match (byte, quote) {
            (b'"' | b'\'', None) => quote = Some(byte),
            (_, Some(open)) if byte == open => quote = None,
            (b'>', None) => return at + 1,
            _ => {}
        }
    }
    text.len()
}
