//! XMP packets with the description of a picture, as photo programs read it.
//!
//! The caption becomes `dc:description` in the default language. Everything else in an existing packet is kept
//! byte for byte: ratings, regions, the edit history, descriptions in other languages, and those of source
//! pictures.

mod description;
mod encoding;

use self::encoding::Decoded;

/// Why an existing packet cannot be edited without the risk of losing data.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum PacketError {
    #[error("its XMP packet is not {0} text")]
    Text(&'static str),
    #[error("its XMP packet declares the encoding `{declared}`, expected {found}")]
    Declaration {
        declared: String,
        found: &'static str,
    },
    #[error("its XMP packet is damaged")]
    Xml(#[from] roxmltree::Error),
    #[error("its XMP packet has too many attributes or namespaces")]
    TooComplex,
    #[error("its XMP packet has {0} elements `rdf:RDF`, expected one")]
    Rdf(usize),
    #[error("its XMP packet describes several things, `{first}` and `{second}`, expected one")]
    Subjects { first: String, second: String },
    #[error("its XMP description is {0}, expected texts by language (`rdf:Alt`)")]
    Form(String),
    #[error("its XMP packet has a description outside of `rdf:RDF`")]
    Outside,
    #[error("its XMP packet uses an early namespace of Dublin Core, `{0}`")]
    EarlyNamespace(&'static str),
    #[error("its description is in several XMP packets")]
    Several,
    #[error("its extended XMP is damaged")]
    Extension,
    #[error("the caption cannot be read back from the edited XMP packet")]
    ReadBack,
}

/// The description of the picture in a packet.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// Whether there is a description in any language.
    pub has_any: bool,
    /// The description in the default language.
    pub default: Option<String>,
}

/// A new packet with only `caption`.
pub fn packet(caption: &str) -> Vec<u8> {
    let rdf = description::rdf(caption);
    format!(
        "<?xpacket begin=\"\u{feff}\" id=\"W5M0MpCehiHzreSzNTczkc9d\"?>\
         <x:xmpmeta xmlns:x=\"adobe:ns:meta/\">{rdf}</x:xmpmeta><?xpacket end=\"w\"?>"
    )
    .into_bytes()
}

/// `packet` with `caption` as its description in the default language, in UTF-8.
///
/// # Errors
/// If the packet is not XMP, or other data could be lost.
pub fn with_description(packet: &[u8], caption: &str) -> Result<Vec<u8>, PacketError> {
    let decoded = Decoded::of(packet)?;
    let text = description::replace(&decoded.text, caption)?;
    Ok(decoded.with(&text))
}

/// The description of the picture in `packet`.
///
/// # Errors
/// If the packet is not XMP.
pub fn read(packet: &[u8]) -> Result<Description, PacketError> {
    description::read(&Decoded::of(packet)?.text)
}

/// Grows or shrinks the padding of `packet`, white space before its end, so that the packet has `target` bytes, or
/// as close as possible.
pub fn padded_to(target: usize, packet: Vec<u8>) -> Vec<u8> {
    const END: &str = "<?xpacket end";
    let mut text = match String::from_utf8(packet) {
        Ok(text) => text,
        Err(error) => return error.into_bytes(),
    };
    let Some(end) = text.rfind(END) else {
        return text.into_bytes();
    };
    if let Some(missing) = target.checked_sub(text.len()) {
        text.insert_str(end, &" ".repeat(missing));
    } else {
        let begin = text[..end].trim_end().len();
        let surplus = (text.len() - target).min(end - begin);
        text.drain(end - surplus..end);
    }
    text.into_bytes()
}

#[cfg(test)]
mod tests;
