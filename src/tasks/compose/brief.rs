//! The user's request for an article.

use serde::{Deserialize, Serialize};

use super::prompts::ArticlePrompt;

/// The user's request for an article. If all fields are empty, the article is about the pictures.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Brief {
    /// A free-form instruction.
    pub instruction: String,
    /// The headline.
    pub title: String,
    /// The outline, one point per line.
    pub outline: String,
    /// Source text.
    pub material: String,
}

impl Brief {
    /// Whether all fields are empty.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The instruction for the model: the user's own, or the prompt's for the fields that are set. Fields that
    /// it does not use are appended.
    pub fn instruction(&self, prompt: &ArticlePrompt, has_pictures: bool) -> String {
        let p = &prompt.instruction;
        let (title, outline) = (
            ("title", self.title.as_str()),
            ("outline", self.outline.as_str()),
        );
        let material = ("material", self.material.as_str());
        let mut rest = vec![
            (&p.add_title, title),
            (&p.add_outline, outline),
            (&p.add_material, material),
        ];
        rest.retain(|(_, (_, value))| !value.is_empty());
        let first = if !self.instruction.is_empty() {
            self.instruction.clone()
        } else {
            let (pattern, used) = if !self.outline.is_empty() {
                (&p.outline, outline)
            } else if !self.title.is_empty() && has_pictures {
                (&p.title_and_pictures, title)
            } else if !self.title.is_empty() {
                (&p.title, title)
            } else if has_pictures {
                (&p.pictures, ("", ""))
            } else {
                (&p.material, ("", ""))
            };
            rest.retain(|(_, value)| *value != used);
            pattern.fill_text(&[used]).to_string()
        };
        let rest = rest
            .iter()
            .map(|(pattern, value)| pattern.fill_text(&[*value]).to_string());
        std::iter::once(first).chain(rest).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::compose::prompts::{Language, Prompts};

    fn instruction(language: Language, has_pictures: bool, brief: &Brief) -> String {
        let prompts = Prompts::load(language, None).unwrap();
        brief.instruction(&prompts.article, has_pictures)
    }

    #[test]
    fn instructions_match_the_published_demo() {
        let titled = Brief {
            title: "my favorite animal".into(),
            ..Brief::default()
        };
        assert_eq!(
            instruction(Language::En, true, &titled),
            "please write an article based on the images. Title: my favorite animal"
        );
        let demo = Brief {
            title: "中国水墨画：流动的诗意与东方美学".into(),
            material: "水墨".into(),
            ..Brief::default()
        };
        assert_eq!(
            instruction(Language::Zh, false, &demo),
            "根据以下标题：“中国水墨画：流动的诗意与东方美学”，创作长文章，字数不少于800字。请结合以下文本素材：\n“水墨”"
        );
    }

    #[test]
    fn each_field_appears_once() {
        let brief = Brief {
            instruction: "Write a {story}.".into(),
            title: "T{x}".into(),
            outline: "1. a\n2. b".into(),
            material: "M".into(),
        };
        assert_eq!(
            instruction(Language::En, true, &brief),
            "Write a {story}.\nTitle: T{x}\nOutline:\n1. a\n2. b\nUse this material:\n“M”"
        );
        let brief = Brief {
            instruction: String::new(),
            ..brief
        };
        assert_eq!(
            instruction(Language::En, false, &brief),
            "Write an article with this outline:\n1. a\n2. b\nTitle: T{x}\nUse this material:\n“M”"
        );
        assert_eq!(
            instruction(Language::Zh, true, &Brief::default()),
            "请根据图片写一篇文章。"
        );
    }
}
