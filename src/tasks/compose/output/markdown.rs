//! An article as Markdown.

use super::{OutputError, headline, picture};
use crate::tasks::compose::Composition;

/// A page and its pictures.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The Markdown.
    pub text: String,
    /// File name and bytes of each picture.
    pub pictures: Vec<(String, Vec<u8>)>,
}

/// The Markdown page of an article; its pictures are in the directory `dir` beside it.
///
/// # Errors
/// If a picture cannot be read.
pub fn markdown(composition: &Composition, dir: &str) -> Result<Page, OutputError> {
    let mut page = Page::default();
    let title = headline(&composition.sections);
    let mut paragraphs = Vec::new();
    for (n, section) in composition.sections.iter().enumerate() {
        paragraphs.push(match title {
            Some(title) if n == 0 => format!("# {}", text(title)),
            _ => text(section),
        });
        for placed in composition.pictures.iter().filter(|p| p.section == n) {
            let shown = picture::Shown::whole(&placed.file)?;
            let name = picture::name(page.pictures.len() + 1, &placed.file);
            let name = format!("{name}.{}", shown.extension);
            paragraphs.push(format!("![{}]({}/{name})", alt(&placed.alt), link(dir)));
            page.pictures.push((name, shown.bytes));
        }
    }
    page.text = paragraphs.join("\n\n") + "\n";
    Ok(page)
}

/// Escapes HTML: the model writes Markdown or plain text.
fn text(section: &str) -> String {
    section.replace('&', "&amp;").replace('<', "&lt;")
}

fn alt(text: &str) -> String {
    let escaped = self::text(text)
        .replace('\\', "\\\\")
        .replace('[', "\\[")
        .replace(']', "\\]");
    escaped.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Percent-encodes the name of a directory.
fn link(dir: &str) -> String {
    let escape = |byte: u8| match byte {
        b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'_' | b'.' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    dir.bytes().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_is_escaped() {
        assert_eq!(alt("a [b]\nc\\ <i>"), "a \\[b\\] c\\\\ &lt;i>");
        assert_eq!(link("my 图_files"), "my%20%E5%9B%BE_files");
        assert_eq!(text("a < b & **c**"), "a &lt; b &amp; **c**");
    }
}
