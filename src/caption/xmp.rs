//! XMP packets: the description of a picture, as photo programs read it.
//!
//! The caption becomes `dc:description` in the default language. An existing packet keeps every
//! other byte that it has: ratings, regions, the history of edits.

use quick_xml::{
    NsReader,
    escape::escape,
    events::Event,
    name::{Namespace, ResolveResult},
};

const RDF: &str = "http://www.w3.org/1999/02/22-rdf-syntax-ns#";
const DC: &str = "http://purl.org/dc/elements/1.1/";

/// An existing packet that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("its XMP packet is damaged")]
pub struct DamagedPacket(#[source] Option<quick_xml::Error>);

impl DamagedPacket {
    /// A packet that is no text.
    pub(super) fn not_text() -> Self {
        Self(None)
    }
}

/// A packet with nothing but `caption` in it.
pub fn packet(caption: &str) -> String {
    format!(
        "<?xpacket begin=\"\u{feff}\" id=\"W5M0MpCehiHzreSzNTczkc9d\"?>\
         <x:xmpmeta xmlns:x=\"adobe:ns:meta/\">\
         <rdf:RDF xmlns:rdf=\"{RDF}\">{}</rdf:RDF></x:xmpmeta><?xpacket end=\"w\"?>",
        block(caption)
    )
}

/// `existing` with `caption` as its only description.
///
/// # Errors
/// If `existing` is no XMP.
pub fn with_description(existing: &str, caption: &str) -> Result<String, DamagedPacket> {
    let places = Places::find(existing).map_err(|e| DamagedPacket(Some(e)))?;
    let end = places.end_of_rdf.ok_or(DamagedPacket(None))?;
    let mut packet = String::new();
    let mut at = 0;
    for (i, (from, to)) in places.descriptions.iter().enumerate() {
        packet += &existing[at..*from];
        if i == 0 {
            packet += &description(caption);
        }
        at = *to;
    }
    packet += &existing[at..end];
    if places.descriptions.is_empty() {
        packet += &block(caption);
    }
    packet += &existing[end..];
    Ok(packet)
}

/// A block of its own for the description.
fn block(caption: &str) -> String {
    format!(
        "<rdf:Description xmlns:rdf=\"{RDF}\" rdf:about=\"\">{}</rdf:Description>",
        description(caption)
    )
}

/// The description, which stands for itself whatever prefixes are in use around it.
fn description(caption: &str) -> String {
    let caption: String = caption
        .chars()
        .map(|c| if is_xml(c) { c } else { '\u{fffd}' })
        .collect();
    format!(
        "<dc:description xmlns:dc=\"{DC}\" xmlns:rdf=\"{RDF}\"><rdf:Alt>\
         <rdf:li xml:lang=\"x-default\">{}</rdf:li></rdf:Alt></dc:description>",
        escape(caption.as_str())
    )
}

/// The characters that XML 1.0 allows.
fn is_xml(c: char) -> bool {
    !c.is_control() || matches!(c, '\t' | '\n' | '\r' | '\u{7f}'..='\u{9f}')
}

/// Byte offsets in a packet.
#[derive(Default)]
struct Places {
    /// From `<dc:description>` to behind its end.
    descriptions: Vec<(usize, usize)>,
    /// Before `</rdf:RDF>`.
    end_of_rdf: Option<usize>,
}

impl Places {
    fn find(packet: &str) -> Result<Self, quick_xml::Error> {
        let mut places = Self::default();
        let mut reader = NsReader::from_str(packet);
        loop {
            let before = reader.buffer_position() as usize;
            let (namespace, event) = reader.read_resolved_event()?;
            let is = |uri: &'static str| namespace == ResolveResult::Bound(Namespace(uri));
            match event {
                Event::Start(tag) if is(DC) && tag.local_name().as_ref() == "description" => {
                    reader.read_to_end(tag.name())?;
                    places
                        .descriptions
                        .push((before, reader.buffer_position() as usize));
                }
                Event::Empty(tag) if is(DC) && tag.local_name().as_ref() == "description" => {
                    places
                        .descriptions
                        .push((before, reader.buffer_position() as usize));
                }
                Event::End(tag) if is(RDF) && tag.local_name().as_ref() == "RDF" => {
                    places.end_of_rdf = Some(before);
                }
                Event::Eof => return Ok(places),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caption_of_any_characters_is_well_formed() {
        let packet = packet("a < b & \"c\" \u{b} \u{1f600}\nü");
        assert!(
            packet.contains("a &lt; b &amp; &quot;c&quot; \u{fffd} \u{1f600}\nü"),
            "{packet}"
        );
        assert!(Places::find(&packet).unwrap().end_of_rdf.is_some());
    }

    #[test]
    fn a_description_is_replaced_and_the_rest_is_kept() {
        let one = with_description(&packet("one"), "two").unwrap();
        assert!(!one.contains(">one<") && one.contains(">two<"), "{one}");
        assert_eq!(one, packet("two"));
    }

    #[test]
    fn prefixes_may_be_any() {
        let foreign = "<?xpacket begin='' id='W5M0MpCehiHzreSzNTczkc9d'?><m:xmpmeta xmlns:m='adobe:ns:meta/'>\
            <r:RDF xmlns:r='http://www.w3.org/1999/02/22-rdf-syntax-ns#'>\
            <r:Description r:about='' xmlns:d='http://purl.org/dc/elements/1.1/' \
             xmlns:xmp='http://ns.adobe.com/xap/1.0/' xmp:Rating='4'>\
            <d:title>kept</d:title><d:description><r:Alt><r:li xml:lang='x-default'>gone</r:li>\
            <r:li xml:lang='de'>weg</r:li></r:Alt></d:description><d:description/></r:Description></r:RDF>\
            </m:xmpmeta>   <?xpacket end='w'?>";
        let merged = with_description(foreign, "new").unwrap();
        assert!(merged.contains("xmp:Rating='4'") && merged.contains("<d:title>kept</d:title>"));
        assert!(!merged.contains("gone") && !merged.contains("weg") && !merged.contains("<d:desc"));
        assert!(
            merged.contains(">new</rdf:li></rdf:Alt></dc:description></r:Description></r:RDF>")
        );
        assert!(merged.ends_with("   <?xpacket end='w'?>"));
        Places::find(&merged).unwrap();
    }

    #[test]
    fn a_damaged_packet_is_told() {
        for damaged in [
            "",
            "no XML",
            "<a><b></a>",
            "<x:xmpmeta xmlns:x='adobe:ns:meta/'/>",
        ] {
            assert!(with_description(damaged, "x").is_err(), "{damaged}");
        }
    }
}
