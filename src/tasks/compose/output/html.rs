//! An article as one self-contained HTML file.

use base64::{Engine, prelude::BASE64_STANDARD};
use pulldown_cmark::{Event, Parser, Tag, TagEnd, html::push_html};

use super::{OutputError, headline, picture};
use crate::tasks::compose::Composition;

const STYLE: &str = include_str!("page.css");

/// The HTML page of an article.
///
/// # Errors
/// If a picture cannot be read.
pub fn html(composition: &Composition) -> Result<String, OutputError> {
    let title = headline(&composition.sections);
    let mut body = String::new();
    for (n, section) in composition.sections.iter().enumerate() {
        match title {
            Some(title) if n == 0 => body += &format!("<h1>{}</h1>\n", escape(title)),
            _ => body += &paragraph(section),
        }
        for placed in composition.pictures.iter().filter(|p| p.section == n) {
            let shown = picture::Shown::embedded(&placed.file)?;
            body += &format!(
                "<figure><img alt=\"{}\" src=\"data:{};base64,{}\"></figure>\n",
                escape(&placed.alt),
                shown.mime,
                BASE64_STANDARD.encode(&shown.bytes)
            );
        }
    }
    let name = title
        .map(str::to_owned)
        .unwrap_or_else(|| composition.brief.title.clone());
    let name = if name.is_empty() { "Article" } else { &name };
    Ok(format!(
        "<!doctype html>\n<html lang=\"{}\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<article>\n{body}</article>\n\
         </body>\n</html>\n",
        composition.language.code(),
        escape(name)
    ))
}

/// The HTML of a section, which may contain Markdown. HTML, links and pictures in it become text, so that the
/// page loads and runs nothing.
fn paragraph(section: &str) -> String {
    let events = Parser::new(section).filter_map(|event| match event {
        Event::Html(text) | Event::InlineHtml(text) => Some(Event::Text(text)),
        Event::Start(Tag::HtmlBlock) => Some(Event::Start(Tag::Paragraph)),
        Event::End(TagEnd::HtmlBlock) => Some(Event::End(TagEnd::Paragraph)),
        Event::Start(Tag::Link { .. } | Tag::Image { .. }) => None,
        Event::End(TagEnd::Link | TagEnd::Image) => None,
        event => Some(event),
    });
    let mut html = String::new();
    push_html(&mut html, events);
    html
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn html_and_links_in_a_section_become_text() {
        let shown =
            paragraph("<script>alert(1)</script> [x](javascript:1) ![y](http://z/) **b** <b>");
        assert!(
            !shown.contains("<script") && !shown.contains("href"),
            "{shown}"
        );
        assert!(!shown.contains("<img") && !shown.contains("<b>"), "{shown}");
        assert!(paragraph("a **b** [x](javascript:1)").contains("<strong>b</strong> x"));
        assert_eq!(escape("\"<a&b>"), "&quot;&lt;a&amp;b&gt;");
    }
}
