use roxmltree::{Document, Node};

use super::*;

const RDF: &str = "http://www.w3.org/1999/02/22-rdf-syntax-ns#";
const XML: &str = "http://www.w3.org/XML/1998/namespace";
const DC: &str = "http://purl.org/dc/elements/1.1/";

/// A packet with `nodes`, and the namespaces that the tests use.
fn packet_with(nodes: &str) -> String {
    format!(
        "<?xpacket begin='\u{feff}' id='W5M0MpCehiHzreSzNTczkc9d'?>\n\
         <x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF xmlns:rdf='{RDF}' xmlns:dc='{DC}' \
         xmlns:xmp='http://ns.adobe.com/xap/1.0/' xmlns:xmpMM='http://ns.adobe.com/xap/1.0/mm/' \
         xmlns:ex='http://example.org/'>{nodes}</rdf:RDF></x:xmpmeta>\n   \n<?xpacket end='w'?>"
    )
}

/// Packets with every supported form of a description.
fn forms() -> Vec<String> {
    let node = |content: &str| {
        packet_with(&format!(
            "<rdf:Description rdf:about=''>{content}</rdf:Description>"
        ))
    };
    let alt = |items: &str| {
        node(&format!(
            "<xmp:Rating>4</xmp:Rating><dc:description><rdf:Alt>{items}</rdf:Alt></dc:description>"
        ))
    };
    vec![
        // An attribute, in any quotes, in an empty tag, beside a child, across lines.
        packet_with("<rdf:Description rdf:about='' dc:description='gone' xmp:Rating='4'/>"),
        packet_with(
            "<rdf:Description rdf:about=\"\" xmp:Rating='4'\n  dc:description=\"a > gone\"\n/>",
        ),
        packet_with(
            "<rdf:Description dc:description='gone' rdf:about=''><xmp:Rating>4</xmp:Rating></rdf:Description>",
        ),
        // Twice, as an earlier version of this program wrote it.
        packet_with(
            "<rdf:Description rdf:about='' dc:description='gone'/><rdf:Description rdf:about=''><dc:description><rdf:Alt><rdf:li xml:lang='x-default'>gone</rdf:li></rdf:Alt></dc:description></rdf:Description>",
        ),
        // Elements.
        node("<dc:description>gone</dc:description><xmp:Rating>4</xmp:Rating>"),
        node("<dc:description/><xmp:Rating>4</xmp:Rating>"),
        node("<dc:description></dc:description>"),
        node("<dc:description><![CDATA[gone <b>]]></dc:description>"),
        node("<dc:description>go<!-- a comment -->ne</dc:description>"),
        node("<dc:description rdf:parseType='Literal'>gone <b>x</b></dc:description>"),
        node("<dc:description rdf:resource='http://gone.example/'/>"),
        node("<dc:description xml:lang='x-default'>gone</dc:description>"),
        node("<dc:description xml:lang='de'>bleibt &#252;&amp;</dc:description>"),
        node("<dc:description><rdf:Bag><rdf:li>gone</rdf:li></rdf:Bag></dc:description>"),
        node("<dc:description><rdf:Seq/></dc:description>"),
        alt("<rdf:li xml:lang='x-default'>gone</rdf:li>"),
        alt("<rdf:li xml:lang='X-Default'>gone &lt;&#xfc;&gt;</rdf:li>"),
        alt("<rdf:li>gone</rdf:li>"),
        alt("<rdf:li/>"),
        alt("<rdf:li xml:lang='x-default'/>"),
        alt(""),
        alt(
            "\n<!-- kept -->\n<rdf:li xml:lang='de'>bleibt</rdf:li><rdf:li\n xml:lang='x-default'\n>gone</rdf:li >",
        ),
        alt(
            "<rdf:li xml:lang='x-default'>gone</rdf:li><rdf:li xml:lang='en-US'>gone</rdf:li><rdf:li xml:lang='de'>bleibt</rdf:li>",
        ),
        alt("<rdf:li xml:lang='de'>bleibt</rdf:li><rdf:li xml:lang='fr'>reste</rdf:li>"),
        alt("<rdf:li xml:lang='x-default'>gone</rdf:li><rdf:li xml:lang='x-default'>gone</rdf:li>"),
        // Nested descriptions of other pictures.
        node(
            "<xmpMM:Pantry><rdf:Bag><rdf:li><rdf:Description rdf:about='' dc:description='other'/></rdf:li></rdf:Bag></xmpMM:Pantry>",
        ),
        node(
            "<xmpMM:Ingredients><rdf:Bag><rdf:li rdf:parseType='Resource'><dc:description><rdf:Alt><rdf:li xml:lang='x-default'>other</rdf:li></rdf:Alt></dc:description></rdf:li></rdf:Bag></xmpMM:Ingredients><dc:description>gone</dc:description>",
        ),
        node(
            "<xmpMM:DerivedFrom><rdf:Description><dc:description>other</dc:description></rdf:Description></xmpMM:DerivedFrom>",
        ),
        node("<xmpMM:DerivedFrom dc:description='other'/>"),
        // No description yet.
        packet_with(""),
        packet_with("<!-- nothing -->"),
        packet_with("<rdf:Description rdf:about=''/>"),
        packet_with("<rdf:Description/>"),
        format!("<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF xmlns:rdf='{RDF}'/></x:xmpmeta>"),
        "<x:xmpmeta xmlns:x='adobe:ns:meta/'/>".to_owned(),
        "<x:xmpmeta xmlns:x='adobe:ns:meta/'> </x:xmpmeta>".to_owned(),
        "<x:xapmeta xmlns:x='adobe:ns:meta/' x:xaptk='a'></x:xapmeta>".to_owned(),
        format!("<rdf:RDF xmlns:rdf='{RDF}'/>"),
        // Several top-level nodes, typed nodes, a named subject.
        packet_with(
            "<rdf:Description rdf:about='' xmp:Rating='4'/><rdf:Description rdf:about=''><dc:description>gone</dc:description></rdf:Description>",
        ),
        packet_with(
            "<rdf:Description rdf:about='uuid:1&amp;2' xmp:Rating='4'/><rdf:Description rdf:about='uuid:1&amp;2' dc:description='gone'/>",
        ),
        packet_with(
            "<rdf:Description rdf:about='other.jpg' xmp:Rating='4'/><rdf:Description dc:description='gone'/>",
        ),
        packet_with("<rdf:Description about='uuid:1' dc:description='gone'/>"),
        packet_with("<ex:Photo rdf:about='' dc:description='gone' xmp:Rating='4'/>"),
        packet_with("<ex:Photo rdf:about='uuid:&quot;1'><xmp:Rating>4</xmp:Rating></ex:Photo>"),
        // Other prefixes, default namespaces, Adobe's early name for Dublin Core.
        format!(
            "<m:xmpmeta xmlns:m='adobe:ns:meta/'><r:RDF xmlns:r='{RDF}'><r:Description r:about='' xmlns:d='{}'><d:title>kept</d:title><d:description><r:Alt><r:li xml:lang='x-default'>gone</r:li></r:Alt></d:description></r:Description></r:RDF></m:xmpmeta>",
            DC
        ),
        format!(
            "<RDF xmlns='{RDF}'><Description><description xmlns='{}'><Alt xmlns='{RDF}'><li xml:lang='de'>bleibt</li></Alt></description></Description></RDF>",
            DC
        ),
        format!(
            "<Alt:RDF xmlns:Alt='{RDF}'><Alt:Description><description xmlns='{}'><Alt:Alt/></description></Alt:Description></Alt:RDF>",
            DC
        ),
        format!(
            "<rdf:RDF xmlns:rdf='{RDF}'><rdf:Description xmlns:dc='http://example.org/' dc:description='kept' xmlns:x='{}' x:description='gone'/></rdf:RDF>",
            DC
        ),
        // Around the packet: a declaration, a read-only packet, zeros.
        format!(
            "<?xml version='1.0' encoding='UTF-8'?>{}",
            packet_with("<rdf:Description/>")
                .trim_start_matches(|c| c != '\n')
                .trim_start()
        ),
        packet_with("<rdf:Description dc:description='gone'/>").replace("end='w'", "end='r'"),
        format!(
            "\u{feff}{}\0",
            packet_with("<rdf:Description dc:description='gone'/>")
        ),
    ]
}

/// Packets that cannot be edited safely, and a part of the error.
fn refused() -> Vec<(String, &'static str)> {
    let description =
        |content: &str| packet_with(&format!("<rdf:Description>{content}</rdf:Description>"));
    let alt = |items: &str| {
        description(&format!(
            "<dc:description><rdf:Alt>{items}</rdf:Alt></dc:description>"
        ))
    };
    vec![
        (String::new(), "damaged"),
        ("no XML".to_owned(), "damaged"),
        ("<a><b></a>".to_owned(), "damaged"),
        ("<a/>".to_owned(), "0 elements `rdf:RDF`"),
        (
            format!("<a xmlns:r='{RDF}'><r:RDF/><r:RDF/></a>"),
            "2 elements `rdf:RDF`",
        ),
        (
            format!(
                "<x:xmpmeta xmlns:x='adobe:ns:meta/' xmlns:r='{RDF}'><r:Description/></x:xmpmeta>"
            ),
            "0 elements",
        ),
        (packet_with("<rdf:Description/></rdf:RDF>"), "damaged"),
        (
            format!(
                "<!DOCTYPE a [<!ENTITY e 'x'>]>{}",
                packet_with("")
                    .trim_start_matches(|c| c != '\n')
                    .trim_start()
            ),
            "damaged",
        ),
        (
            packet_with("<rdf:Description rdf:about='a'/><rdf:Description rdf:about='b'/>"),
            "`a` and `b`",
        ),
        (
            packet_with(
                "<rdf:Description/><rdf:Description rdf:about='b' dc:description='other'/>",
            ),
            "`this file` and `b`",
        ),
        (
            format!(
                "<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF xmlns:rdf='{RDF}'/><dc:description xmlns:dc='{DC}'>stray</dc:description></x:xmpmeta>"
            ),
            "outside of `rdf:RDF`",
        ),
        (
            packet_with(
                "<rdf:Description xmlns:o='http://purl.org/dc/1.1/' o:description='gone' o:format='x'/>",
            ),
            "`http://purl.org/dc/1.1/`",
        ),
        (
            description(
                "<dc:description rdf:parseType='Resource'><rdf:value>x</rdf:value></dc:description>",
            ),
            "`parseType`",
        ),
        (description("<dc:description rdf:nodeID='n'/>"), "`nodeID`"),
        (description("<dc:description ex:by='x'/>"), "`by`"),
        (
            description("<dc:description><rdf:Description rdf:value='x'/></dc:description>"),
            "a structure",
        ),
        (
            description("<dc:description>x<rdf:Alt/></dc:description>"),
            "a structure",
        ),
        (
            description(
                "<dc:description><rdf:Bag><rdf:li>a</rdf:li><rdf:li>b</rdf:li></rdf:Bag></dc:description>",
            ),
            "`Bag`",
        ),
        (
            alt("<rdf:li>a</rdf:li><rdf:li>b</rdf:li>"),
            "2 texts without a language",
        ),
        (
            alt("<rdf:li xml:lang='x-default' ex:by='x'>a</rdf:li>"),
            "qualified by `by`",
        ),
        (
            alt("<rdf:li xml:lang='x-default'><rdf:Description rdf:value='a'/></rdf:li>"),
            "qualified by `elements`",
        ),
        (alt("<rdf:_1>a</rdf:_1>"), "a structure"),
        (
            description(
                "<dc:description><rdf:Alt><rdf:li xml:lang='de'>a</rdf:li></rdf:Alt></dc:description><dc:description><rdf:Alt><rdf:li xml:lang='fr'>a</rdf:li></rdf:Alt></dc:description>",
            ),
            "present several times",
        ),
    ]
}

/// All data of a packet except the default description of its picture, sorted.
fn other_data(packet: &[u8]) -> Vec<String> {
    let decoded = Decoded::of(packet).unwrap();
    let document = Document::parse(&decoded.text).unwrap();
    let rdf = document
        .descendants()
        .find(|n| n.has_tag_name((RDF, "RDF")));
    let mut data = Vec::new();
    for node in rdf
        .iter()
        .flat_map(|rdf| rdf.children().filter(Node::is_element))
    {
        let about = node.attribute((RDF, "about")).or(node.attribute("about"));
        let subject = format!("{} {:?}", about.unwrap_or_default(), node.tag_name());
        let is_description =
            |space: Option<&str>, name: &str| name == "description" && space == Some(DC);
        let is_foreign = about == Some("other.jpg");
        for a in node.attributes() {
            if a.namespace() != Some(RDF)
                && a.name() != "about"
                && (is_foreign || !is_description(a.namespace(), a.name()))
            {
                data.push(format!(
                    "{subject} {:?} {} {}",
                    a.namespace(),
                    a.name(),
                    a.value()
                ));
            }
        }
        for property in node.children().filter(Node::is_element) {
            let name = property.tag_name();
            if is_foreign || !is_description(name.namespace(), name.name()) {
                data.push(format!("{subject} {}", whole(property)));
                continue;
            }
            let in_languages = property.descendants().filter(Node::is_element);
            for text in in_languages {
                let language = text.attribute((XML, "lang")).unwrap_or("x-default");
                if !language.eq_ignore_ascii_case("x-default") {
                    let words: String = text
                        .descendants()
                        .filter_map(|t| t.text().filter(|_| t.is_text()))
                        .collect();
                    data.push(format!("description {language} {words}"));
                }
            }
        }
    }
    data.sort();
    data
}

fn whole(element: Node<'_, '_>) -> String {
    let mut attributes: Vec<_> = element
        .attributes()
        .map(|a| format!("{:?}{}={}", a.namespace(), a.name(), a.value()))
        .collect();
    attributes.sort();
    let children: String = element
        .children()
        .map(|c| {
            if c.is_element() {
                whole(c)
            } else {
                format!("{:?}", c.text())
            }
        })
        .collect();
    format!("{:?}{attributes:?}({children})", element.tag_name())
}

const CAPTION: &str = "a < b & \"c\" \u{1f600}\r\nü";

#[test]
fn a_caption_of_any_characters_is_well_formed() {
    let packet = packet("a < b & \"c\" \u{b} \u{ffff} \u{1f600}\nü");
    let data = read(&packet).unwrap().default.unwrap();
    assert_eq!(data, "a < b & \"c\" \u{fffd} \u{fffd} \u{1f600}\nü");
}

#[test]
fn every_form_gets_the_caption_and_keeps_other_data() {
    for form in forms() {
        let edited =
            with_description(form.as_bytes(), CAPTION).unwrap_or_else(|e| panic!("{e}: {form}"));
        let text = String::from_utf8(edited.clone()).unwrap();
        assert_eq!(
            read(&edited).unwrap().default.as_deref(),
            Some(CAPTION),
            "{text}"
        );
        assert_eq!(other_data(&edited), other_data(form.as_bytes()), "{text}");
        for word in ["gone <", ">gone", "'gone'", "\"gone"] {
            let of_english = usize::from(form.contains("'en-US'>gone") && word == ">gone");
            assert_eq!(text.matches(word).count(), of_english, "{text}");
        }
        for word in [
            "bleibt",
            "reste",
            "other",
            "kept",
            "Rating",
            "end='r'",
            "<!-- kept",
        ] {
            assert_eq!(
                text.matches(word).count(),
                form.matches(word).count(),
                "{text}"
            );
        }
        // There is one description now, and writing again changes only that.
        let again = with_description(&edited, "x").unwrap();
        let back = with_description(&again, CAPTION).unwrap();
        assert!(back == edited, "{text}");
    }
}

#[test]
fn packets_in_other_encodings_become_utf_8() {
    for form in forms().iter().filter(|form| !form.contains("encoding=")) {
        let marked = format!("\u{feff}{}", form.trim_start_matches('\u{feff}'));
        let big: Vec<u8> = marked.encode_utf16().flat_map(u16::to_be_bytes).collect();
        let little: Vec<u8> = marked
            .encode_utf16()
            .skip(1)
            .flat_map(u16::to_le_bytes)
            .collect();
        let wide: Vec<u8> = marked
            .chars()
            .flat_map(|c| u32::from(c).to_le_bytes())
            .collect();
        for packet in [big, little, wide, marked.into_bytes()] {
            let edited = with_description(&packet, CAPTION).unwrap();
            assert!(std::str::from_utf8(&edited).is_ok());
            assert_eq!(read(&edited).unwrap().default.as_deref(), Some(CAPTION));
            assert_eq!(other_data(&edited), other_data(form.as_bytes()));
        }
    }
}

#[test]
fn unsafe_packets_are_rejected_with_a_reason() {
    for (packet, naming) in refused() {
        let error = with_description(packet.as_bytes(), "x")
            .unwrap_err()
            .to_string();
        assert!(error.contains(naming), "{error}: {packet}");
    }
}

#[test]
fn deep_and_large_packets_are_rejected() {
    let deep = packet_with(&"<a>".repeat(100_000));
    assert!(with_description(deep.as_bytes(), "x").is_err());
    let deep = packet_with(&format!(
        "{}{}",
        "<ex:a>".repeat(50_000),
        "</ex:a>".repeat(50_000)
    ));
    let _ = with_description(deep.as_bytes(), "x");
    let many = packet_with(&"<ex:a/>".repeat(2 << 20));
    assert!(with_description(many.as_bytes(), "x").is_err());
}

#[test]
fn padding_grows_and_shrinks() {
    let packet = packet_with("<rdf:Description/>").into_bytes();
    let longer = padded_to(packet.len() + 7, packet.clone());
    assert_eq!(longer.len(), packet.len() + 7);
    assert!(padded_to(packet.len(), longer.clone()).len() == packet.len());
    let least = padded_to(0, longer);
    assert!(least.ends_with(b"</x:xmpmeta><?xpacket end='w'?>"));
    assert_eq!(other_data(&least), other_data(&packet));
}

/// Deterministic pseudo-random numbers.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n.max(1)
    }
}

/// `packet` with a few bytes removed, duplicated or replaced by XML syntax.
fn mutated(packet: &[u8], numbers: &mut Numbers) -> Vec<u8> {
    const WORDS: [&str; 18] = [
        "<",
        ">",
        "/>",
        "</",
        "\"",
        "'",
        "&",
        "]]>",
        "<!--",
        "<![CDATA[",
        "\0",
        "\u{feff}",
        "rdf:",
        "</rdf:RDF>",
        " dc:description='y'",
        "<dc:description>y</dc:description>",
        " xml:lang='x-default'",
        "<?xpacket end='w'?>",
    ];
    let mut packet = packet.to_vec();
    for _ in 0..=numbers.below(2) {
        if packet.is_empty() {
            return packet;
        }
        let at = numbers.below(packet.len());
        let end = (at + numbers.below(40)).min(packet.len());
        match numbers.below(6) {
            0 => drop(packet.drain(at..end)),
            1 => {
                let piece = packet[at..end].to_vec();
                let to = numbers.below(packet.len());
                packet.splice(to..to, piece);
            }
            2 => packet[at] = numbers.below(256) as u8,
            3 if packet[at].is_ascii_alphabetic() => packet[at] = b'a' + numbers.below(26) as u8,
            _ => {
                let word = WORDS[numbers.below(WORDS.len())];
                packet.splice(at..at, word.bytes());
            }
        }
    }
    packet
}

#[test]
fn mutated_packets_are_rejected_or_keep_other_data() {
    let seeds: Vec<String> = forms()
        .into_iter()
        .chain(refused().into_iter().map(|(p, _)| p))
        .collect();
    let mut numbers = Numbers(1);
    let mut n_edited = 0;
    for i in 0..30_000 {
        let packet = mutated(seeds[i % seeds.len()].as_bytes(), &mut numbers);
        let Ok(edited) = with_description(&packet, CAPTION) else {
            continue;
        };
        n_edited += 1;
        let shown = String::from_utf8_lossy(&packet);
        assert_eq!(
            read(&edited).unwrap().default.as_deref(),
            Some(CAPTION),
            "{shown}"
        );
        assert_eq!(other_data(&edited), other_data(&packet), "{shown}");
    }
    assert!(n_edited > 3_000, "{n_edited}");
}

#[test]
fn a_packet_that_takes_long_to_parse_is_rejected() {
    let nested: String = (0..3000).map(|i| format!("<a xmlns:n{i}='u'>")).collect();
    let nested = nested + &"</a>".repeat(3000);
    let attributes: String = (0..100_000).map(|i| format!(" a{i}=''")).collect();
    for packet in [nested, format!("<a{attributes}/>")] {
        let error = read(packet.as_bytes()).unwrap_err();
        assert!(matches!(error, PacketError::TooComplex), "{error}");
    }
}
